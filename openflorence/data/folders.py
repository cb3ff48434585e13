"""What lies in a folder: annotations of which formats, in which files, and of which part of a data set.

A format is told by what is in the files, never by a file's name alone; the parts (train, val, test) are told by names,
since nothing else says them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.coco import read_coco
from openflorence.data.flickr import read_flickr
from openflorence.data.labelme import read_labelme
from openflorence.data.ocr import read_funsd, read_hiertext, read_icdar
from openflorence.data.pairs import read_pairs, read_records
from openflorence.data.problems import Problems
from openflorence.data.refer import read_refer
from openflorence.data.voc import read_voc, voc_parts
from openflorence.data.vqa import read_vqa
from openflorence.data.yolo import read_yolo, yolo_file, yolo_parts
from openflorence.errors import BadRecord

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {  # of file and folder names -> the part they name
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "minival"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LOOKED_AT = 50  # files of one kind in one folder; where there are more they are all of one format
_GLANCE_BYTES = 1 << 18  # of the beginning and of the end of a file
_REFER, _VQA = {"tokens_positive", "ref_id"}, {"questions", "question_id"}  # keys of files much like COCO's

Read = Callable[[Problems], Iterator[Record]]


@dataclass(frozen=True)
class Part:
    """Files of a data set that are read as one."""

    main: Path  # file or folder that names it
    read: Read
    base: Path  # where the reader's relative image paths start


@dataclass(frozen=True)
class Seen:
    """What lies at a path: the folder, those in it, and the JSON files of both with the keys that occur in them."""

    path: Path
    folders: tuple[Path, ...]
    keys: Mapping[Path, frozenset[str]]

    def having(self, *keys: str) -> list[Path]:
        """Name the files in which all these keys occur."""
        return [path for path, known in self.keys.items() if known.issuperset(keys)]


Found = list[tuple[str, Part]]  # part's name, or "" where there is none


def look_at(path: Path) -> Seen:
    """Take a glance at a folder, the folders in it, and the JSON files of all of them; or at one file."""
    if path.is_file():
        return Seen(path, (), {path: keys_of(path)})
    inner = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    files: list[Path] = []
    for folder in (path, *inner):
        for suffix in ("*.json", "*.jsonl"):
            files += sorted(folder.glob(suffix))[:_LOOKED_AT]
    return Seen(path, (path, *inner), {file: keys_of(file) for file in files})


def keys_of(path: Path) -> frozenset[str]:
    """Name the keys of JSON objects at the beginning and the end of a file; none when it cannot be read."""
    try:
        with path.open("rb") as file:
            glance = file.read(_GLANCE_BYTES)
            file.seek(max(file.tell(), path.stat().st_size - _GLANCE_BYTES))
            glance += file.read(_GLANCE_BYTES)
    except OSError:
        return frozenset()
    return frozenset(key.decode() for key in re.findall(rb'"([A-Za-z_]{1,40})"\s*:', glance))


def split_of(path: Path, root: Path) -> str:
    """Name the part that a file or folder belongs to by the words of its name, else of the folders from `root` on.

    returns   "train", "val", "test", or "" when no name says it.
    """
    inside = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    for name in (path.name.partition(".json")[0], *reversed(inside)):
        for word in re.findall("[a-z]+", name.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return ""


# ---- what each format looks like


def _files(paths: Iterable[Path], seen: Seen, read: Callable[..., Iterator[Record]]) -> Found:
    """Each file a part, by its name or that of its folder."""
    root = seen.path if seen.path.is_dir() else seen.path.parent
    return [(split_of(path, root), Part(path, partial(read, path), path.parent)) for path in paths]


def _own_split(folder: Path, seen: Seen) -> str:
    """The part a folder names; what the data set itself is called says nothing."""
    return "" if folder == seen.path else split_of(folder, folder.parent)


def find_coco(seen: Seen) -> Found:
    """Give the COCO files, the captions of a part together with its objects.

    The people of a keypoints file are in the instances file too, among everything else: beside one it is not read.
    Panoptic files are passed over where there is anything else.
    """
    found = []
    groups: dict[str, list[Path]] = {}
    for path, keys in seen.keys.items():
        is_coco = keys & {"images", "file_name"} and keys & {"annotations", "image_id"} and path.suffix == ".json"
        is_refer = keys & _REFER or (path.name == "instances.json" and any(path.parent.glob("refs*")))
        if is_coco and not is_refer and not keys & _VQA:
            groups.setdefault(split_of(path, seen.path if seen.path.is_dir() else path.parent), []).append(path)
    for split, paths in groups.items():
        captions = [
            path for path in paths if "caption" in seen.keys[path] and not seen.keys[path] & {"bbox", "category_id"}
        ]
        panoptic = [path for path in paths if "segments_info" in seen.keys[path]]
        objects = [path for path in paths if path not in captions and path not in panoptic]
        people = [path for path in objects if "keypoints" in seen.keys[path]]
        objects = objects if len(objects) == len(people) else [path for path in objects if path not in people]
        main = (objects or captions or panoptic)[0]
        objects = objects or ([] if captions else panoptic)
        found.append((split, Part(main, partial(_read_coco_files, objects, captions), main.parent)))
    return found


def _read_coco_files(objects: Sequence[Path], captions: Sequence[Path], problems: Problems) -> Iterator[Record]:
    """Read the files of one part, with the captions of an image in its record."""
    if len(objects) > 1:
        those = ", ".join(path.name for path in objects)
        raise BadRecord(
            f"{objects[0].parent} has several COCO files of one part ({those}); give the path of one of them"
        )
    texts = chain.from_iterable([read_coco(path, problems) for path in captions])
    return _joined(read_coco(objects[0], problems), texts) if objects else texts


def _joined(records: Iterable[Record], captions: Iterable[Record]) -> Iterator[Record]:
    said: dict[str, Record] = {}
    for caption in captions:
        before = said.get(caption.image)
        said[caption.image] = replace(before, texts=before.texts + caption.texts) if before else caption
    for record in records:
        caption = said.pop(record.image, record)
        yield record if caption is record else replace(record, texts=record.texts + caption.texts)
    yield from said.values()


def find_yolo(seen: Seen) -> Found:
    """Give the parts of a data.yaml."""
    file = yolo_file(seen.path) if seen.path.is_dir() else seen.path
    if file is None or file.suffix.lower() not in (".yaml", ".yml"):
        return []
    # Without any part that is there, reading says so.
    return [
        (split, Part(file, partial(read_yolo, file, split=split or None), file.parent))
        for split in yolo_parts(file) or ("",)
    ]


def find_voc(seen: Seen) -> Found:
    """Give the folders of Pascal VOC, by their lists or their own names."""
    found: Found = []
    for folder in seen.folders:
        apart = folder / "Annotations"
        is_flickr = any((place / "Sentences").is_dir() for place in (folder, folder.parent))  # has Annotations/ too
        if is_flickr or not _has_voc(apart if apart.is_dir() else folder):
            continue
        lists = [name for name in voc_parts(folder) if name in SPLITS]
        found += [(name, Part(folder, partial(read_voc, folder, split=name), folder)) for name in lists]
        if not lists:
            found.append((_own_split(folder, seen), Part(folder, partial(read_voc, folder), folder)))
        if folder == seen.path:
            break  # Annotations/ is one of the folders in it
    return found


def _has_voc(folder: Path) -> bool:
    first = next(iter(sorted(folder.glob("*.xml"))), None)
    return first is not None and b"<annotation" in first.read_bytes()[:_GLANCE_BYTES]


def find_labelme(seen: Seen) -> Found:
    """Give the folders of LabelMe's files, by their names where all of them name a part, else as one."""
    folders = list(dict.fromkeys(path.parent for path in seen.having("shapes", "imagePath")))
    if not folders or seen.path.is_file():
        return _files(seen.having("shapes", "imagePath"), seen, read_labelme)
    if all(split_of(folder, folder.parent) for folder in folders if folder != seen.path) and seen.path not in folders:
        return [
            (split_of(folder, seen.path), Part(folder, partial(read_labelme, folder), folder)) for folder in folders
        ]
    return [("", Part(seen.path, partial(read_labelme, seen.path), seen.path))]


def find_pairs(seen: Seen) -> Found:
    """Give the JSONL files of prompts and answers."""
    found = [path for path in seen.having("image", "prefix", "suffix") if "image_wh" not in seen.keys[path]]
    return _files(found, seen, read_pairs)


def find_records(seen: Seen) -> Found:
    """Give the JSONL files of records."""
    return _files(seen.having("image", "image_wh"), seen, read_records)


def find_refer(seen: Seen) -> Found:
    """Give the parts of RefCOCO's refs, and files in MDETR's layout."""
    found = _files(seen.having("images", "tokens_positive"), seen, read_refer)
    for folder in seen.folders:
        refs = sorted(folder.glob("refs*"))
        if refs and (folder / "instances.json").is_file():
            parts = [part for part in SPLITS if any(f'"{part}'.encode() in path.read_bytes() for path in refs)]
            # The published pickles have all parts.
            parts = parts if all(path.suffix == ".json" for path in refs) else list(SPLITS)
            found += [(part, Part(folder, partial(read_refer, folder, split=part), folder)) for part in parts]
    return found


def find_flickr(seen: Seen) -> Found:
    """Give the parts of Flickr30k Entities by its lists."""
    for folder in seen.folders:
        if any((folder / "Sentences").glob("*.txt")) and (folder / "Annotations").is_dir():
            lists = [part for part in SPLITS if (folder / f"{part}.txt").is_file()]
            reads = {part: partial(read_flickr, folder, split=part) for part in lists} or {
                "": partial(read_flickr, folder)
            }
            return [(part, Part(folder, read, folder)) for part, read in reads.items()]
    return []


def find_vqa(seen: Seen) -> Found:
    """Give the files of answers, and those of questions alone where there is none with answers."""
    textvqa = seen.having("data", "question_id", "question")
    vizwiz = [path for path in seen.having("image", "question") if path.suffix == ".json" and path not in textvqa]
    answers = seen.having("annotations", "question_id", "answers")
    asked = [path for path in seen.having("questions", "question_id") if path not in answers]
    return _files([*textvqa, *vizwiz, *(answers or asked)], seen, read_vqa)


def find_icdar(seen: Seen) -> Found:
    """Give the folders of ICDAR's texts."""
    corners = re.compile(rb"(\xef\xbb\xbf)?\s*(-?\d+\s*,\s*){8}")
    found: Found = []
    for folder in seen.folders:
        first = next(iter(sorted(folder.glob("gt_*.txt"))), None)
        if first is not None and corners.match(first.read_bytes()):
            found.append((_own_split(folder, seen), Part(folder, partial(read_icdar, folder), folder)))
    return found


def find_hiertext(seen: Seen) -> Found:
    """Give the files of HierText."""
    return _files(seen.having("annotations", "paragraphs", "image_id"), seen, read_hiertext)


def find_funsd(seen: Seen) -> Found:
    """Give the folders of FUNSD."""
    found: Found = []
    for folder in seen.folders:
        first = next(iter(sorted((folder / "annotations").glob("*.json"))), None)
        if first is not None and keys_of(first) >= {"form", "box", "words"}:
            found.append((_own_split(folder, seen), Part(folder, partial(read_funsd, folder), folder)))
    return found
