"""Entries of annotation files: read in pieces with errors that name file and entry, written whole or not at all.

For readers of foreign formats. A main file that cannot be read is a BadRecord; so is an entry that is not as its format
says, and the reader counts it and goes on.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from openflorence.data.problems import Problems
from openflorence.errors import BadImage, BadRecord
from openflorence.model.images import image_size

Kind = TypeVar("Kind", str, int, list, dict, bool)


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Give the lines of a UTF-8 file with their numbers, from 1, without line ends, byte order mark and empty ones.

    problems  told of every line that is not UTF-8; it is left out.
    raises    BadRecord when the file cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadRecord(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                problems.add("text not readable", f"{path}:{number}: byte {line[error.start]:#04x} is not UTF-8")
                continue
            if text.strip():
                yield number, text


def write_lines(lines: Iterable[str], path: Path) -> Path:
    """Write lines in UTF-8 as they come: beside the path, then moved there, so that a stop leaves no half file.

    returns   the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes the JSON that spells it.
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    raises    BadRecord naming the file, when there is none or it is not JSON.
    """
    return parse_json(path, path.read_bytes)


def parse_json(path: Path, read: Callable[[], bytes]) -> Any:
    """Read the JSON that `read` gives of a file; see read_json."""
    try:
        return json.loads(read().decode("utf-8-sig"))
    except OSError as error:
        raise BadRecord(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"{path} is not JSON: {error}; fetch or write it again") from error


def write_json(value: Any, path: Path) -> Path:
    """Write one JSON value on one line; gives the path."""
    return write_lines([json.dumps(value, ensure_ascii=False)], path)


def check_table(value: Any, where: str) -> Mapping[str, Any]:
    """Give a JSON object back; raises BadRecord when it is none."""
    if not isinstance(value, Mapping):
        raise BadRecord(f"{where} is {_show(value)}; an object is needed")
    return value


def take(entry: Any, name: str, kind: type[Kind], where: str) -> Kind:
    """Give a field of an entry.

    kind      str, int, list, dict or bool; True is no int.
    where     file and entry, for the message.
    raises    BadRecord when the entry is no object, or its field is missing or of another kind.
    """
    table = check_table(entry, where)
    if name not in table:
        raise BadRecord(f"{where} has no {name!r}")
    value = table[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadRecord(f"{where}: {name!r} is {_show(value)}; {_KINDS[kind]} is needed")
    return value


def numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    """Give so many numbers of a list; raises BadRecord when it is not that. Whether they are sound, cleaning says."""
    fits = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == count
    if not fits or not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        raise BadRecord(f"{where} is {_show(value)}; {count} numbers are needed")
    try:
        return tuple(float(item) for item in value)
    except OverflowError:  # a whole number that no float holds
        raise BadRecord(f"{where} is {_show(value)}; numbers of pixels are needed") from None


def pixels(value: float) -> int:
    """Round to whole pixels, halves up, as the formats that hold whole pixels are written."""
    return math.floor(value + 0.5)


def find_image(root: Path, name: str, folders: Iterable[Path]) -> str:
    """Name the image file as a record does: from the root where it lies below it.

    folders   where to look, in this order; relative ones start at the root.
    returns   the first path with a file, otherwise the name: cleaning counts it as missing.
    """
    for folder in folders:
        path = root / folder / name
        if os.path.isfile(path):  # unlike Path.is_file, also for a name too long to be one
            below = path.is_relative_to(root) and ".." not in path.relative_to(root).parts
            return path.relative_to(root).as_posix() if below else str(path.resolve())
    return name


def find_size(root: Path, image: str, problems: Problems) -> tuple[int, int] | None:
    """Give width and height of an image whose annotations do not state them; None, counted, when it cannot be read."""
    path = root / image
    if not os.path.isfile(path):
        problems.add("image missing", str(path))
        return None
    try:
        return image_size(path)
    except BadImage as error:
        problems.add("image not readable", str(error))
        return None


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


_KINDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}
