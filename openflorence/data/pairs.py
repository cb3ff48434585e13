"""Pairs of prompt and answer as JSONL, as PaliGemma and maestro users have them, and our own JSONL of records.

One JSON object a line. Lines are read and written one at a time; a last line that a killed writer left half is counted
like any other line that is no JSON.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from openflorence.contract.records import PairNote, Record, record_from_row, record_to_row
from openflorence.data.entries import check_table, find_image, find_size, read_lines, take, write_lines
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

FILES = ("annotations.jsonl", "dataset.jsonl")  # looked for in a folder, in this order


def read_pairs(path: Path, problems: Problems) -> Iterator[Record]:
    """Give the records of a JSONL file of {"image", "prefix", "suffix"}.

    path      the file, or a folder with annotations.jsonl or dataset.jsonl. Images lie beside the file or in images/.
    returns   one record for all lines of an image that follow one another; texts are kept as they stand, with their
              task token (<OD>) and locations (car<loc_52><loc_332><loc_932><loc_774>).
    raises    BadRecord when there is no such file.
    source    Roboflow's maestro, "JSONL dataset format": three keys, all of them texts.
    """
    path = _find_file(path)
    root = path.parent
    lines = (line for number, text in read_lines(path, problems) if (line := _line(text, f"{path}:{number}", problems)))
    for image, group in groupby(lines, key=lambda line: line.image):
        found = find_image(root, image, (Path(), Path("images")))
        size = find_size(root, found, problems)
        if size is not None:
            yield Record(image=found, image_wh=size, pairs=tuple(line.note for line in group))


def write_pairs(records: Iterable[Record], path: Path) -> Path:
    """Write every pair of every record as a line of {"image", "prefix", "suffix"}; other notes have no place in it.

    returns   the path.
    promise   read_pairs gives the pairs back, without score and origin, if no two records of one image follow each
              other.
    """
    rows = (
        {"image": record.image, "prefix": note.prefix, "suffix": note.suffix}
        for record in records
        for note in record.pairs
    )
    return write_lines((json.dumps(row, ensure_ascii=False) for row in rows), path)


def read_records(path: Path, problems: Problems) -> Iterator[Record]:
    """Give the records of a file that write_records wrote.

    raises    BadRecord when there is no such file.
    """
    for number, text in read_lines(path, problems):
        where = f"{path}:{number}"
        try:
            yield record_from_row(check_table(_parse(text, where), where))
        except BadRecord as error:
            message = str(error)
            problems.add("entry not readable", message if where in message else f"{where}: {message}")


def write_records(records: Iterable[Record], path: Path) -> Path:
    """Write one record a line, as it comes; gives the path.

    promise   read_records gives the same records back.
    """
    return write_lines((json.dumps(record_to_row(record), ensure_ascii=False) for record in records), path)


class _Line(NamedTuple):
    image: str
    note: PairNote


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise BadRecord(f"{path} has no {' and no '.join(FILES)}; give the JSONL file itself")


def _line(text: str, where: str, problems: Problems) -> _Line | None:
    try:
        row = check_table(_parse(text, where), where)
        image, prefix, suffix = (take(row, name, str, where) for name in ("image", "prefix", "suffix"))
        if not image:
            raise BadRecord(f"{where}: 'image' is empty")
    except BadRecord as error:
        problems.add("entry not readable", str(error))
        return None
    return _Line(image, PairNote(prefix=prefix, suffix=suffix))


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{where} is not JSON: {error}") from error
