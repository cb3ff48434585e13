"""Rows as a stage gets them, of pictures that a test draws."""

import hashlib
import io

import numpy as np
from PIL import Image

from openflorence.data.notes import ImageRow, LayerRow, Notes
from openflorence.engine.stages import Row


def encoded(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def row_of(picture: Image.Image | np.ndarray, uri: str = "a.png", **layers: Notes) -> Row:
    """A row of a picture, with the notes of other layers."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    data = encoded(picture)
    name = hashlib.sha256(data).hexdigest()
    told = {layer: LayerRow(name, notes=notes) for layer, notes in layers.items()}
    return Row(ImageRow(name, data, "image/png", picture.size, uri), told)


def broken_row(uri: str = "broken.png") -> Row:
    """A row of a file that is no picture."""
    return Row(ImageRow("0" * 64, b"no picture", "image/png", (8, 8), uri), {})
