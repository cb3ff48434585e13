"""The real store with tiny pictures, for the stages of plain_store.py."""

import io
from pathlib import Path

import lance  # noqa: F401 - here once for all processes that are forked from one that has imported this file
import pyarrow.parquet  # noqa: F401
from PIL import Image

from openflorence.data.store import ImageIn, Store
from openflorence.engine.stages import Factory


def real(folder: Path, size: int, per_unit: int) -> Factory:
    """The real store, with so many tiny pictures of which the i-th has the uri "i"."""
    opened = Store.create(folder, unit_images=per_unit)
    opened.ingest(ImageIn(uri=str(number), data=picture(number)) for number in range(size))
    return opened_at(folder)


def opened_at(folder: Path) -> Factory:
    return Factory("openflorence.data.store:Store.open", {"folder": str(folder)})


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256, 0)).save(file, "PNG")
    return file.getvalue()
