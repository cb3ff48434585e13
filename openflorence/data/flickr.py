"""Flickr30k Entities."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.problems import Problems


def read_flickr(
    folder: Path, problems: Problems, split: str | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give the records of a folder of Flickr30k Entities."""
    yield from ()


def write_flickr(records: Iterable[Record], folder: Path) -> Path:
    """Write Sentences/ and Annotations/."""
    return folder
