"""Pairs of prompt and answer as JSONL, and our own JSONL of records."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.problems import Problems


def read_pairs(path: Path, problems: Problems) -> Iterator[Record]:
    """Give the records of a JSONL file of image, prefix and suffix."""
    yield from ()


def write_pairs(records: Iterable[Record], path: Path) -> Path:
    """Write the pairs of records as JSONL."""
    return path


def read_records(path: Path, problems: Problems) -> Iterator[Record]:
    """Give the records of a JSONL file of ours."""
    yield from ()


def write_records(records: Iterable[Record], path: Path) -> Path:
    """Write records as JSONL."""
    return path
