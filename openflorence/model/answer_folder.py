"""A folder of answers: pictures with the answers drawn, and a line of each in answers.jsonl; taken up after a kill."""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

from PIL import Image

ANSWERS_FILE = "answers.jsonl"

Key = tuple[str, str, str | None]  # image, task, and what was asked with it


class AnswerFolder:
    """Where answers are kept."""

    def __init__(self, folder: Path, todo: Collection[Key]) -> None:
        """Make the folder, or go on with it: lines of what is still to do are written anew."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _forget(folder / ANSWERS_FILE, todo)

    def keep(self, key: Key, row: dict[str, Any], picture: Image.Image | None, stem: str) -> None:
        """Keep a picture, if there is one, and then the line: what answers.jsonl tells is there."""
        _, task, words = key
        if picture is not None:
            save_png(picture, self.folder / f"{stem}-{task}.png")
        with (self.folder / ANSWERS_FILE).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(as_json(row | {"task": task, "asked": words}, file.encoding) + "\n")


def answered(folder: Path) -> set[Key]:
    """What a folder's answers.jsonl has answered; errors are asked again."""
    rows = ((_key_of(row), row) for row in map(_parse_row, _lines_of(folder / ANSWERS_FILE)))
    return {key for key, row in rows if key is not None and "error" not in row}


def _forget(path: Path, keys: Collection[Key]) -> None:
    """Take out the lines that will be written anew, and what a kill left of a last line."""
    if path.exists():
        kept = [line for line in _lines_of(path) if (key := _key_of(_parse_row(line))) is not None and key not in keys]
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(b"".join(line + b"\n" for line in kept))
        partial.replace(path)


def _lines_of(path: Path) -> list[bytes]:
    # Bytes, because a kill may cut a letter in two, and because text parts at more signs than JSON escapes.
    return path.read_bytes().split(b"\n") if path.exists() else []


def _parse_row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:  # half a line, or half a letter
        return {}
    return row if isinstance(row, dict) else {}


def _key_of(row: dict[str, Any]) -> Key | None:
    """What a line of answers.jsonl is about; None when it is not whole."""
    image, task, words = row.get("image"), row.get("task"), row.get("asked", False)
    whole = isinstance(image, str) and isinstance(task, str) and (words is None or isinstance(words, str))
    return cast(Key, (image, task, words)) if whole else None


def as_json(row: dict[str, Any], encoding: str) -> str:
    """One line of JSON that a stream of this encoding can spell."""
    # A lone surrogate, of a file name that is no text, is escaped by the stream: the same way as JSON does.
    return json.dumps(row, ensure_ascii=encoding.lower().replace("-", "") != "utf8")


def stems(images: Iterable[str]) -> dict[str, str]:
    """A file name for each image; images of one name in different folders keep apart."""
    named: dict[str, str] = {}
    taken: set[str] = set()
    counts: dict[str, Iterator[int]] = {}  # the next number of a name that many images have
    for name in dict.fromkeys(images):
        stem = "image" if name.startswith("data:") else Path(name.split("?")[0]).stem[:80] or "image"
        numbered = (f"{stem}-{number}" for number in counts.setdefault(stem, count(2)))
        named[name] = next(free for free in chain([stem], numbered) if free not in taken)
        taken.add(named[name])
    return named


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture; a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, "PNG")
    partial.replace(path)
