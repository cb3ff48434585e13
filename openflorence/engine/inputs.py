"""What a user points at -> images on their way into a store.

entries = list_inputs("photos/")          # a folder, a glob, one file, a list of URLs, Parquet, WebDataset tars
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openflorence.data.store_ingest import ImageIn
from openflorence.data.store_rows import arrow
from openflorence.errors import BadConfig
from openflorence.model.listing import IMAGE_SUFFIXES, expand

LISTS = (".txt", ".urls")  # a path or URL a line
IMAGE_COLUMNS = ("image", "bytes", "jpg", "png", "url", "path")  # of a Parquet file, the first there is


def list_inputs(source: str) -> Iterator[ImageIn]:
    """Give the images of a source, one by one, always in the same order.

    source    a folder, a quoted glob, an image file or URL; a .txt with a path or URL a line; a .parquet file with a
              column of bytes or places; a .tar of WebDataset, or a folder of either.
    raises    BadConfig or BadImage when there is nothing there that is understood.
    """
    path = Path(source)
    if path.is_dir():
        packed = sorted(one for one in path.iterdir() if one.suffix in (".parquet", ".tar"))
        if packed:
            for one in packed:
                yield from list_inputs(str(one))
            return
    if path.suffix in LISTS and path.is_file():
        lines = (line.strip() for line in path.read_text("utf-8").splitlines())
        yield from (ImageIn(uri=line) for line in lines if line and not line.startswith("#"))
    elif path.suffix == ".parquet" and path.is_file():
        yield from _of_parquet(path)
    elif path.suffix == ".tar" and path.is_file():
        yield from _of_tar(path)
    else:
        yield from (ImageIn(uri=name) for name in expand([source]))


def _of_parquet(path: Path) -> Iterator[ImageIn]:
    arrow()
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        column = next((name for name in IMAGE_COLUMNS if name in names), None)
        if column is None:
            raise BadConfig(
                f"{path} has columns {', '.join(names)}; one of {', '.join(IMAGE_COLUMNS)} must hold images"
            )
        row = 0
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _of_value(value, f"{path.name}#{row}")
                row += 1


def _of_value(value: Any, name: str) -> ImageIn:
    """Bytes, a place, or both as the image type of Hugging Face datasets has them."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return ImageIn(uri=name, data=value)
    return ImageIn(uri=value) if isinstance(value, str) and value else ImageIn(uri=name, data=b"")


def _of_tar(path: Path) -> Iterator[ImageIn]:
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                file = tar.extractfile(member)
                yield ImageIn(uri=f"{path.name}#{member.name}", data=b"" if file is None else file.read())
