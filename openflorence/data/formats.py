"""Every format of annotations in one table, and data sets opened by what lies in their folder."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from openflorence.contract.records import Record
from openflorence.data.coco import read_coco, write_coco
from openflorence.data.entries import find_image
from openflorence.data.flickr import read_flickr, write_flickr
from openflorence.data.folders import (
    SPLIT_WORDS,
    SPLITS,
    Found,
    Part,
    Seen,
    find_coco,
    find_flickr,
    find_funsd,
    find_hiertext,
    find_icdar,
    find_labelme,
    find_pairs,
    find_records,
    find_refer,
    find_voc,
    find_vqa,
    find_yolo,
    look_at,
    split_of,
)
from openflorence.data.labelme import read_labelme, write_labelme
from openflorence.data.ocr import read_funsd, read_hiertext, read_icdar, write_funsd, write_hiertext, write_icdar
from openflorence.data.pairs import read_pairs, read_records, write_pairs, write_records
from openflorence.data.problems import Problems
from openflorence.data.refer import read_refer, write_refer
from openflorence.data.voc import read_voc, write_voc
from openflorence.data.vqa import read_vqa, write_vqa
from openflorence.data.yolo import read_yolo, write_yolo
from openflorence.errors import BadConfig, BadRecord

_HELD_OUT = 0.1  # of the images, where nobody set a val part apart


@dataclass(frozen=True)
class Dataset:
    """One part of a data set, opened. Its records can be gone through once."""

    name: str
    format: str
    root: Path  # relative image paths start here
    split: str
    records: Iterator[Record]


@dataclass(frozen=True)
class Recognised:
    """What kind of data set lies somewhere."""

    format: str  # a name of FORMATS
    parts: tuple[str, ...]  # that together are all of it, as open_dataset takes them
    stated: tuple[str, ...]  # those of them that the data set itself sets apart


@dataclass(frozen=True)
class Format:
    """One way to write annotations down."""

    looks_like: str  # what a folder of it holds, for people
    read: Callable[..., Iterator[Record]]  # (path, problems), and what else a format wants
    write: Callable[..., Path]  # (records, path or folder), and what else a format wants
    find: Callable[[Seen], Found]


FORMATS: dict[str, Format] = {
    "coco": Format(
        "JSON with 'images' and 'annotations', alone, in annotations/ or in the folder of each part",
        read_coco,
        write_coco,
        find_coco,
    ),
    "yolo": Format("a data.yaml with 'names' and the folders of its parts", read_yolo, write_yolo, find_yolo),
    "voc": Format("Annotations/*.xml, and ImageSets/Main/train.txt", read_voc, write_voc, find_voc),
    "labelme": Format(
        "a JSON file with 'shapes' and 'imagePath' per picture", read_labelme, write_labelme, find_labelme
    ),
    "pairs": Format("JSONL with 'image', 'prefix' and 'suffix'", read_pairs, write_pairs, find_pairs),
    "records": Format(
        "JSONL with 'image' and 'image_wh', as OpenFlorence writes", read_records, write_records, find_records
    ),
    "refer": Format(
        "instances.json beside refs(unc).p or refs.json, or JSON with 'tokens_positive'",
        read_refer,
        write_refer,
        find_refer,
    ),
    "flickr": Format("Sentences/*.txt and Annotations/*.xml, and train.txt", read_flickr, write_flickr, find_flickr),
    "vqa": Format("JSON with questions and answers, as VQAv2, TextVQA or VizWiz", read_vqa, write_vqa, find_vqa),
    "icdar": Format("gt_*.txt with lines of eight numbers and a text", read_icdar, write_icdar, find_icdar),
    "hiertext": Format("JSON with 'annotations' of 'paragraphs'", read_hiertext, write_hiertext, find_hiertext),
    "funsd": Format("annotations/*.json with 'form'", read_funsd, write_funsd, find_funsd),
}


def open_dataset(path: str | Path, split: str, format: str | None, problems: Problems) -> Dataset:
    """Open one part of a data set, in any format of FORMATS.

    Where there is no val part, it is a tenth of the train part, or of the only one, and train is the rest: an image
    goes by a hash of its path from `root`, so that adding images moves no other. If that leaves a part without any, it
    has the one that is nearest. Problems of such a shared file are reported with train alone.

    Images are looked for where the annotations say, in the folders of their part (train, train2017, images/train), in
    images/ and in the folder of the data set; by their bare name, if their stated path leads nowhere.

    path      folder of the data set, or its main file.
    split     "train", "val" (also valid, validation, minival) or "test".
    format    a name of FORMATS, or None to tell it by the files.
    returns   records whose image is relative to `root`, or absolute.
    raises    BadRecord when nothing, or more than one format, is recognised, the part is not there, or its main file
              cannot be read; BadConfig for another split or format.
    """
    path, wanted = Path(path), SPLIT_WORDS.get(split)
    if wanted is None:
        raise BadConfig(f"split {split!r} is not known; allowed: {', '.join(SPLITS)}")
    if format is not None and format not in FORMATS:
        raise BadConfig(f"format {format!r} is not known; allowed: {', '.join(FORMATS)}")
    if not path.exists():
        raise BadRecord(f"{path} is not there; give the folder of a data set, or its main file")
    name, parts = _recognise(look_at(path), format)
    key = _choose(parts, wanted, path)
    is_shared = wanted != "test" and "val" not in parts
    root = path if path.is_dir() else path.parent
    root = root.parent if root != path and root.name == "annotations" else root  # as COCO lies
    told = Problems() if is_shared and wanted == "val" else problems
    opened = [_placed(part.read(told), root, _places(part.base, root, key)) for part in parts[key]]
    records: Iterator[Record] = chain.from_iterable(opened)
    records = hold_out(records, wanted) if is_shared else records
    return Dataset(path.stem if path.is_file() else path.resolve().name, name, root, wanted, records)


def recognise(path: str | Path) -> Recognised | None:
    """Tell which data set lies at a path; None when it is something else.

    raises    BadRecord when it can be read in several formats.
    """
    path = Path(path)
    try:
        seen = look_at(path)
        known = any(kind.find(seen) for kind in FORMATS.values())
    except BadRecord:  # files much like those of a format, and not what one can read
        return None
    if not known:
        return None
    name, found = _recognise(seen, None)
    stated = tuple(part for part in SPLITS if part in found)
    if "val" in found or not {"train", ""} & set(found):
        return Recognised(name, stated, stated)
    tested = tuple(part for part in stated if part == "test")
    return Recognised(name, ("train", "val", *tested), tested)  # the first two share a file


# ---- which format and which part


def _recognise(seen: Seen, format: str | None) -> tuple[str, dict[str, list[Part]]]:
    """Give the name of the format and the parts."""
    asked = FORMATS if format is None else {format: FORMATS[format]}
    found = {name: parts for name, kind in asked.items() if (parts := kind.find(seen))}
    if len(found) > 1:
        those = "; ".join(f"{name} ({_show(parts[0][1].main, seen.path)})" for name, parts in found.items())
        raise BadRecord(
            f"{seen.path} can be read in several formats: {those}. Say which one: format='{next(iter(found))}'"
        )
    if format is not None and not found and seen.path.is_file():
        reader = partial(FORMATS[format].read, seen.path)
        found = {format: [(split_of(seen.path, seen.path.parent), Part(seen.path, reader, seen.path.parent))]}
    if not found:
        known = "\n".join(f"  {name}: {kind.looks_like}" for name, kind in asked.items())
        raise BadRecord(f"{seen.path} is not recognised; it holds {_contents(seen)}. What is looked for:\n{known}")
    name, listed = found.popitem()
    return name, {split: [part for other, part in listed if other == split] for split, _ in listed}


def _contents(seen: Seen) -> str:
    if seen.path.is_file():
        return f"the keys {', '.join(sorted(seen.keys[seen.path])[:12]) or 'of no JSON object'}"
    names = sorted(item.name + "/" * item.is_dir() for item in seen.path.iterdir())
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "nothing"


def _show(main: Path, root: Path) -> str:
    return str(main.relative_to(root)) if main.is_relative_to(root) and main != root else str(main)


def _choose(parts: Mapping[str, list[Part]], split: str, path: Path) -> str:
    """Name what is read for a part: itself, or what train and val share."""
    if split in parts:
        return split
    shared = next((part for part in ("train", "") if part in parts), None)
    if split == "test" or "val" in parts or shared is None:
        there = ", ".join(part or "one without a name" for part in parts)
        raise BadRecord(f"{path} has no {split} part: it has {there}")
    return shared


def hold_out(records: Iterable[Record], split: str) -> Iterator[Record]:
    """Give the records of one part, where train and val share a file; open_dataset says the rule.

    split     "val" for the images held out, "train" for the others.
    promise   every record is in one part, all of an image are in the same, and of two images each part has one.
    """
    waiting: list[Record] = []  # of the image nearest to the other part, while that has none
    sides: set[str] = set()
    nearest, several = -2.0, False
    for record in records:
        share = _share(record.image)
        sides.add(_side(share))
        near = share if _side(share) == "val" else -share
        sure: list[Record] = []
        if len(sides) == 2:
            sure, waiting = [*waiting, record], []
        elif near > nearest:
            sure, waiting, nearest = waiting, [record], near
        elif near == nearest:
            waiting.append(record)
        else:
            sure = [record]
        several |= bool(sure)
        yield from (kept for kept in sure if _side(_share(kept.image)) == split)
    if waiting:
        given = "val" if several and sides == {"train"} else "train"  # a single image is learnt from
        yield from waiting if split == given else []


def _side(share: float) -> str:
    return "val" if share < _HELD_OUT else "train"


def _share(image: str) -> float:
    """A number in 0..1 that only the image's name decides."""
    name = PurePosixPath(image)
    key = name.name if name.is_absolute() else image
    digest = hashlib.sha256(f"held out: {key}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


# ---- where the images lie


def _placed(records: Iterable[Record], root: Path, places: Sequence[Path]) -> Iterator[Record]:
    for record in records:
        yield record if "://" in record.image else replace(record, image=_place(record.image, root, places))


def _places(base: Path, root: Path, split: str) -> list[Path]:
    """Where images of a part may lie: never in the folder of another part, where other images may have their names."""
    tops = [folder for folder in (root / "images", root) if folder.is_dir()]
    inner = [item for top in tops for item in sorted(top.iterdir()) if item.is_dir()]
    own = [item for item in inner if (named := split_of(item, item.parent)) and split in (named, "")]
    return [base, *own, *tops]


def _place(image: str, root: Path, places: Sequence[Path]) -> str:
    forward = image.replace("\\", "/")
    for name in dict.fromkeys((image, forward, PurePosixPath(forward).name)):
        found = find_image(root, name, places)
        if (root / found).is_file():
            return found
    return image if os.path.isabs(image) else Path(os.path.relpath(places[0] / image, root)).as_posix()
