"""Words in pictures: ICDAR 2015, HierText, FUNSD."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from openflorence.contract.records import Record
from openflorence.data.problems import Problems


def read_icdar(folder: Path, problems: Problems, images: Path | None = None) -> Iterator[Record]:
    """Give the records of a folder of gt_*.txt files."""
    yield from ()


def write_icdar(records: Iterable[Record], folder: Path) -> Path:
    """Write a gt_*.txt file for each record."""
    return folder


def read_hiertext(
    path: Path, problems: Problems, level: Literal["lines", "words"] = "lines", images: Path | None = None
) -> Iterator[Record]:
    """Give the records of a file of HierText."""
    yield from ()


def write_hiertext(records: Iterable[Record], path: Path) -> Path:
    """Write one file in HierText's layout."""
    return path


def read_funsd(folder: Path, problems: Problems, images: Path | None = None) -> Iterator[Record]:
    """Give the records of a folder of FUNSD."""
    yield from ()


def write_funsd(records: Iterable[Record], folder: Path) -> Path:
    """Write annotations/*.json."""
    return folder
