"""RefCOCO, RefCOCO+ and RefCOCOg."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.problems import Problems


def read_refer(
    path: Path, problems: Problems, split: str | None = None, by: str | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give the records of a folder of referring expressions."""
    yield from ()


def write_refer(records: Iterable[Record], folder: Path, split: str = "train") -> Path:
    """Write refs.json and instances.json."""
    return folder
