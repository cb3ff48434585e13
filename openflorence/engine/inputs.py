"""What a user points at -> images on their way into a store, and who speaks of them already.

source = open_source("coco/")        # a data set, a folder, a glob, one file, a list of URLs, Parquet, WebDataset tars
source.images                        # entries for Store.ingest, always in the same order
source.labels                        # specialists of the labels that came with them
source.told                          # what was recognised, for people

A data set in any format of data/formats.py is known by its annotation files; a folder without any is a folder of
pictures. What people said of its images becomes the layer of a specialist, `people`, so it is fused with what others
say, and never lost: whom images came with is remembered beside the store, and speaks in every later round too.
"""

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openflorence.contract.records import Record
from openflorence.data.formats import Recognised, open_dataset, recognise
from openflorence.data.notes import KINDS
from openflorence.data.opened import PART
from openflorence.data.problems import Problems
from openflorence.data.store_files import commit_json
from openflorence.data.store_ingest import ImageIn
from openflorence.data.store_place import read_kept
from openflorence.data.store_rows import arrow
from openflorence.engine.specialists import CAPTION, image_place
from openflorence.errors import BadConfig
from openflorence.model.listing import IMAGE_SUFFIXES, expand

LISTS = (".txt", ".urls")  # a path or URL a line
IMAGE_COLUMNS = ("image", "bytes", "jpg", "png", "url", "path")  # of a Parquet file, the first there is
_MAIN_FILES = (".json", ".jsonl", ".yaml", ".yml")  # that may name a data set by themselves
_MEMORY = "people.json"  # in the folder of a store: who speaks of its images
_GLANCE = 100  # members of a tar that are looked at to say what is in it
_LONGEST_CAPTION = 1 << 20  # bytes


@dataclass(frozen=True)
class Source:
    """What a user points at, looked at."""

    images: Iterable[ImageIn]
    labels: tuple[Mapping[str, Any], ...] = ()  # "name" of a specialist and its "settings"
    told: str = ""  # what was recognised, for people; "" where there is nothing to say


def open_source(source: str) -> Source:
    """Look at a source.

    source    a data set: its folder or main file; a folder, a quoted glob, an image file or URL; a .txt with a path or
              URL a line; a .parquet file with a column of bytes or places; a .tar of WebDataset, or a folder of either.
    raises    BadConfig or BadImage when there is nothing there that is understood; BadRecord for a data set that can be
              read in several formats, or whose main file cannot be read.
    """
    path = Path(source).expanduser()
    packed = _packed(path)
    if packed:
        return _of_packed(packed)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in _MAIN_FILES):
        found = recognise(path)
        if found is not None:
            return _of_dataset(path, found)
    return Source(_listed(source))


def _listed(source: str) -> Iterator[ImageIn]:
    """The images of a list of names, a folder, a glob, or one file or URL."""
    path = Path(source).expanduser()
    if path.suffix in LISTS and path.is_file():
        with path.open(encoding="utf-8") as file:
            lines = (line.strip() for line in file)
            yield from (ImageIn(uri=line) for line in lines if line and not line.startswith("#"))
    else:
        yield from (ImageIn(uri=name) for name in expand([source]))


def _packed(path: Path) -> list[Path]:
    """The files that images are packed in."""
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.suffix in (".parquet", ".tar"))
    return [path] if path.is_file() and path.suffix in (".parquet", ".tar") else []


# ---- who speaks of the images of a store


def remembered(store: Path) -> list[dict[str, Any]]:
    """Give the specialists of all labels that images of a store came with."""
    path = store / _MEMORY
    return list(read_kept(path)) if path.exists() else []


def remember(store: Path, every: Iterable[Mapping[str, Any]]) -> None:
    """Write down the specialists of all labels that images of a store came with."""
    commit_json(store / _MEMORY, [dict(one) for one in every])


def joined(known: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put new specialists of labels beside those that are known; another data set gets a layer of its own.

    promise   one that is known keeps its layer, and has its settings as they are now.
    """
    every = [dict(one) for one in known]
    for one in new:
        same = next((old for old in every if _who(old) == _who(one)), None)
        if same is not None:
            same["settings"] = {**one["settings"], "layer": same["settings"]["layer"]}
            continue
        layers = {old["settings"]["layer"] for old in every}
        names = [one["name"], *(f"{one['name']}_{number}" for number in range(2, len(every) + 3))]
        layer = next(name for name in names if name not in layers)
        every.append({"name": one["name"], "settings": {**one["settings"], "layer": layer}})
    return every


def _who(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["name"], one["settings"].get("path", "")


# ---- data sets


def _of_dataset(path: Path, found: Recognised) -> Source:
    """Read a data set once: which images it names, and how much it says of them. Names are kept, notes are not."""
    path, problems = path.absolute(), Problems()
    listed: dict[str, str] = {}  # image -> its part, where the data set says one
    notes, says, name = 0, set[str](), path.name
    for part in found.parts:
        opened = open_dataset(path, part, found.format, problems)
        name = opened.name
        for record in opened.records:
            listed.setdefault(image_place(opened.root, record.image), part if part in found.stated else "")
            notes += sum(len(getattr(record, kind)) for kind in KINDS)
            says |= _kinds(record)
    images = (ImageIn(uri=uri, meta={PART: part} if part else {}) for uri, part in listed.items())
    settings: dict[str, Any] = {"path": str(path), "format": found.format, "splits": list(found.parts)}
    settings |= {"says": sorted(says), "exact": True}
    parts = f" in {', '.join(found.stated)}" if found.stated else ""
    told = (
        f"a data set ({found.format}) {name!r}: {len(listed):,} images{parts}, {notes:,} annotations; its labels are "
        "the specialist 'people'"
    )
    others = _others(path, listed)
    told += f"; {others:,} more pictures lie there that it does not name, and are not taken in" if others else ""
    told += f"\n{problems}" if problems.counts else ""
    return Source(images, ({"name": "people", "settings": settings},), told)


def _kinds(record: Record) -> set[str]:
    """The kinds of places that people listed all of: what they left out speaks against others."""
    return {kind for kind, whole in (("object", "objects"), ("word", "words")) if whole in record.whole}


def _others(path: Path, listed: Mapping[str, str]) -> int:
    """How many pictures lie in the folder that the data set says nothing of."""
    if not path.is_dir():
        return 0
    files = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return sum(str(file) not in listed for file in files)


# ---- Parquet and WebDataset


def _of_packed(packed: list[Path]) -> Source:
    """Files that images are packed in, of either kind, in the order of their names."""
    tars = [file for file in packed if file.suffix == ".tar"]
    parts, captions = _look_at_tars(tars) if tars else ([], False)
    if len(tars) < len(packed):
        parts.append("Parquet: images are taken from it, other columns are not read")
    images = (
        one for file in packed for one in (_of_tar(file, captions) if file.suffix == ".tar" else _of_parquet(file))
    )
    return Source(images, ({"name": "captions", "settings": {}},) if captions else (), "\n".join(parts))


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


def _look_at_tars(tars: list[Path]) -> tuple[list[str], bool]:
    """What to tell of tars of WebDataset, and whether they hold captions.

    A .txt is a caption by its convention; what .json means is everybody's own.
    """
    kinds: set[str] = set()
    with tarfile.open(tars[0]) as tar:
        for _, member in zip(range(_GLANCE), tar, strict=False):
            kinds.add(Path(member.name).suffix.lower())
    has_texts = ".txt" in kinds
    others = sorted(kind for kind in kinds - {".txt", "", *IMAGE_SUFFIXES})
    told = f"WebDataset, {len(tars)} tars" if len(tars) > 1 else "WebDataset"
    if has_texts:
        told += ": the .txt beside an image is its caption, the specialist 'captions'"
    if others:
        told += f"; not read: {', '.join(others)}"
    return [told], has_texts


def _of_tar(path: Path, captions: bool) -> Iterator[ImageIn]:
    """The images of a tar. Members of one sample follow one another and are called alike up to the first dot."""
    waiting: list[ImageIn] = []
    text, key = "", ""
    with tarfile.open(path) as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if f"{folder}/{name.partition('.')[0]}" != key:
                yield from _captioned(waiting, text)
                waiting, text, key = [], "", f"{folder}/{name.partition('.')[0]}"
            if not member.isfile():
                continue
            file = tar.extractfile(member)
            if Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                waiting.append(ImageIn(uri=f"{path.name}#{member.name}", data=b"" if file is None else file.read()))
            elif captions and member.name.lower().endswith(".txt") and file is not None:
                text = file.read(_LONGEST_CAPTION).decode("utf-8", "replace").strip()
    yield from _captioned(waiting, text)


def _captioned(images: Iterable[ImageIn], text: str) -> Iterator[ImageIn]:
    for one in images:
        yield ImageIn(uri=one.uri, data=one.data, meta={CAPTION: text} if text else {})
