"""VQAv2, OK-VQA, TextVQA and VizWiz."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.problems import Problems


def read_vqa(
    path: Path, problems: Problems, questions: Path | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give the records of a file of questions and answers; its keys tell the layout."""
    yield from ()


def write_vqa(records: Iterable[Record], folder: Path) -> Path:
    """Write questions and answers."""
    return folder
