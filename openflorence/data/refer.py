"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one object of a COCO image.

Two layouts are read. A folder as the UNC `refer` tool has it: `refs(unc).p`, a pickle that is read without running it,
or the same list as JSON, beside `instances.json`. A file as MDETR has it, `finetune_refcoco_train.json`: COCO's
layout, in which every expression is an image of its own with its caption. Written is the first, with `refs.json`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.data.entries import check_table, find_image, numbers, read_json, take, write_json
from openflorence.data.plain_pickle import read_plain_pickle
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

Table = Mapping[str, Any]
_IMAGES = "../images/mscoco/images/train2014", "train2014", "../train2014", "images", "../images"


@dataclass(frozen=True)
class Referred:
    """One object and the expressions for it, with their ids."""

    image: str  # as records name it
    image_wh: tuple[int, int]
    region: RegionNote
    keys: tuple[str, ...]  # sent_id of each of region.expressions


def read_refer(
    path: Path, problems: Problems, split: str | None = None, by: str | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give a record for every image with expressions; each region carries all that refer to it.

    path      folder with refs and instances.json, or a file in MDETR's layout. Nothing is promised about what the
              regions leave out: `whole` is empty.
    split     "train", "val", "testA", "testB", "test"; "test" takes every part of the test, None takes everything.
    by        who split it, when the folder has several refs: "unc", "google", "umd".
    images    folder of the images; without it they lie as the refer tool wants them, or in train2014/ or images/.
    raises    BadRecord when a main file is missing or unreadable, or when `by` does not choose one.
    source    github.com/lichengunc/refer, refer.py: splits, and bbox as x, y, width, height. A ref's own file_name is
              not that of the image, so the image comes from instances.json. Of masks only polygons are read.
    """
    folders = [Path(), *map(Path, _IMAGES)] if images is None else [images.resolve()]
    root = path if path.is_dir() else path.parent
    instances_path = path / "instances.json" if path.is_dir() else path
    instances = _Instances(read_json(instances_path), instances_path, nameless=not path.is_dir())
    if path.is_dir():
        refs_path = _find_refs(path, by)
        said = _from_refs(_read_refs(refs_path), instances, split, refs_path, problems)
    else:
        said = _from_captions(instances, problems)
    regions: dict[Any, dict[Any, list[str]]] = {}  # image -> annotation -> expressions
    for image, annotation, expressions in said:
        regions.setdefault(image, {}).setdefault(annotation, []).extend(expressions)
    for image, groups in regions.items():
        record = instances.record(image, groups, problems)
        if record is not None:
            yield Record(
                image=find_image(root, record.image, folders), image_wh=record.image_wh, regions=record.regions
            )


def read_refs(
    folder: Path, problems: Problems, split: str | None = None, by: str | None = None, images: Path | None = None
) -> Iterator[Referred]:
    """Give every ref of a folder by itself, as results name them; arguments and errors as `read_refer` has them."""
    folders = [Path(), *map(Path, _IMAGES)] if images is None else [images.resolve()]
    instances = _Instances(read_json(folder / "instances.json"), folder / "instances.json", nameless=False)
    path = _find_refs(folder, by)
    for ref in _refs(_read_refs(path), instances, split, path, problems):
        record = instances.record(ref.image, {ref.annotation: list(ref.sentences.values())}, problems)
        if record is not None and record.regions:
            image = find_image(folder, record.image, folders)
            yield Referred(image, record.image_wh, record.regions[0], tuple(ref.sentences))


def write_refer(records: Iterable[Record], folder: Path, split: str = "train") -> Path:
    """Write `refs.json` and `instances.json`: every region as an annotation, every one with expressions as a ref.

    split     written to every ref.
    returns   the folder.
    promise   read_refer gives the regions with expressions back: box, polygons, label, expressions. A region is given
              the box around its polygons or quad.
    """
    images: list[Table] = []
    annotations: list[Table] = []
    refs: list[Table] = []
    categories: dict[str, int] = {}
    sent_id = 0
    for record in records:
        width, height = record.image_wh
        images.append({"id": len(images) + 1, "file_name": record.image, "width": width, "height": height})
        for note in record.regions:
            box = note.bounds
            if box is None:
                continue
            category = categories.setdefault(note.label, len(categories) + 1)
            annotation = _annotation(note, box, len(annotations) + 1, len(images), category)
            annotations.append(annotation)
            if note.expressions:
                refs.append(_ref(note, annotation, len(refs) + 1, sent_id, split) | {"file_name": record.image})
                sent_id += len(note.expressions)
    names = [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]
    write_json({"images": images, "annotations": annotations, "categories": names}, folder / "instances.json")
    write_json(refs, folder / "refs.json")
    return folder


class _Instances:
    """COCO's tables by id. MDETR calls every object "object", which is no category: its regions are nameless."""

    def __init__(self, value: Any, path: Path, nameless: bool) -> None:
        self.path, self.nameless = path, nameless
        self.images = _by_id(value, "images", path)
        self.annotations = _by_id(value, "annotations", path)
        self.categories = _by_id(value, "categories", path)

    def record(self, image: Any, groups: Mapping[Any, list[str]], problems: Problems) -> Record | None:
        """Build what is known about an image, with the bare name of its file."""
        where = f"{self.path}, image {image!r}"
        if image not in self.images:
            problems.add("unknown image", where)
            return None
        try:
            entry = self.images[image]
            name = take(entry, "file_name", str, where)
            size = take(entry, "width", int, where), take(entry, "height", int, where)
            if min(size) < 1 or not name:
                raise BadRecord(f"{where}: {name!r} of {size[0]} x {size[1]}")
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            return None
        notes = (self._region(annotation, tuple(said), problems) for annotation, said in groups.items())
        return Record(image=name, image_wh=size, regions=tuple(note for note in notes if note is not None))

    def _region(self, number: Any, expressions: tuple[str, ...], problems: Problems) -> RegionNote | None:
        where = f"{self.path}, annotation {number!r}"
        try:
            entry = check_table(self.annotations.get(number), where)
            x, y, width, height = numbers(entry.get("bbox"), 4, f"{where}: bbox")
            rings = _rings(entry.get("segmentation"), where)
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            return None
        category = self.categories.get(entry.get("category_id"))
        if category is None or not isinstance(category.get("name"), str):
            problems.add("unknown category", f"{where}: {entry.get('category_id')!r}")
            return None
        label = "" if self.nameless else category["name"]
        return RegionNote(box=Box(x, y, x + width, y + height), polygons=rings, label=label, expressions=expressions)


def _by_id(value: Any, name: str, path: Path) -> dict[Any, Table]:
    entries = take(value, name, list, str(path))
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int)}


def _rings(value: Any, where: str) -> tuple[Polygon, ...]:
    """COCO's flat lists x, y, x, y; a run-length mask is none."""
    if not isinstance(value, list):
        return ()
    rings = []
    for ring in value:
        if not isinstance(ring, list):
            return ()
        flat = numbers(ring, len(ring) // 2 * 2, f"{where}: segmentation")
        rings.append(tuple(Point(*point) for point in zip(flat[0::2], flat[1::2], strict=True)))
    return tuple(rings)


def _find_refs(folder: Path, by: str | None) -> Path:
    named = [folder / f"refs{f'({by})' if by else ''}{end}" for end in (".json", ".p")]
    found = [path for path in named if path.is_file()]
    if by is None and not found:
        found = sorted([*folder.glob("refs(*).p"), *folder.glob("refs(*).json")])
        if len({path.stem for path in found}) > 1:
            names = ", ".join(path.name for path in found)
            raise BadRecord(f"{folder} has {names}: say who split it, by='unc', 'google' or 'umd'")
    if not found:
        wanted = ("unc", "google", "umd") if by is None else (by,)
        names = " nor ".join(f"refs({name}).p" for name in wanted)
        raise BadRecord(f"{folder} has neither {names} nor the same as .json: give the folder that has instances.json")
    return found[0]


def _read_refs(path: Path) -> list[Any]:
    refs = read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    if not isinstance(refs, list):
        raise BadRecord(f"{path} holds a {type(refs).__name__}; a list of refs is needed")
    return refs


Said = Iterator[tuple[Any, Any, list[str]]]  # image, annotation, expressions


class _Ref(NamedTuple):
    image: int
    annotation: int
    sentences: dict[str, str]  # by sent_id


def _from_refs(refs: list[Any], instances: _Instances, split: str | None, path: Path, problems: Problems) -> Said:
    for ref in _refs(refs, instances, split, path, problems):
        yield ref.image, ref.annotation, list(ref.sentences.values())


def _refs(refs: list[Any], instances: _Instances, split: str | None, path: Path, problems: Problems) -> Iterator[_Ref]:
    seen: set[int] = set()
    for place, ref in enumerate(refs):
        where = f"{path}, ref {ref['ref_id'] if isinstance(ref, dict) and 'ref_id' in ref else f'at {place}'}"
        try:
            if split is not None and not _in_split(take(ref, "split", str, where), split):
                continue
            image, annotation, number = (take(ref, name, int, where) for name in ("image_id", "ann_id", "ref_id"))
            sentences = take(ref, "sentences", list, where)
            listed = [
                (str(sentence.get("sent_id", f"{number}/{place}")), take(sentence, "sent", str, where))
                for place, sentence in enumerate(check_table(sentence, where) for sentence in sentences)
            ]
            if number in seen:
                problems.add("doubled entry", where)
                continue
            if annotation not in instances.annotations:
                raise BadRecord(f"{where}: annotation {annotation} is not in {instances.path.name}")
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        seen.add(number)
        if not all(sent.strip() for _, sent in listed):
            problems.add("empty text", where)
        expressions = {key: sent for key, sent in listed if sent.strip()}
        if expressions:
            yield _Ref(image, annotation, expressions)


def _in_split(own: str, asked: str) -> bool:
    """As the refer tool reads it: testA also means the testAB of RefClef."""
    if asked == "test":
        return own.startswith("test")
    return own == asked or (asked in ("testA", "testB", "testC") and own.startswith("test") and asked[-1] in own[4:])


def _from_captions(instances: _Instances, problems: Problems) -> Said:
    """MDETR: one "image" for every expression, its one annotation the object; those of one box are one region."""
    objects: dict[Any, list[Any]] = {}
    for number, annotation in instances.annotations.items():
        objects.setdefault(annotation.get("image_id"), []).append(number)
    first_image: dict[Any, Any] = {}
    first_object: dict[Any, Any] = {}
    for image, entry in instances.images.items():
        where = f"{instances.path}, image {image}"
        try:
            caption, file = take(entry, "caption", str, where), take(entry, "file_name", str, where)
            named = objects.get(image, [])
            if len(named) != 1:
                raise BadRecord(f"{where}: {caption!r} refers to {len(named)} objects, not one")
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        box = repr(instances.annotations[named[0]].get("bbox"))
        yield first_image.setdefault(file, image), first_object.setdefault((file, box), named[0]), [caption]


def _annotation(note: RegionNote, box: Box, number: int, image: int, category: int) -> dict[str, Any]:
    bbox = [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": int(note.crowd),
        "segmentation": [[value for point in ring for value in point] for ring in note.polygons],
    }


def _ref(note: RegionNote, annotation: Table, number: int, sent_id: int, split: str) -> dict[str, Any]:
    sentences = [
        {"sent_id": sent_id + place, "sent": sent, "raw": sent, "tokens": sent.split()}
        for place, sent in enumerate(note.expressions)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation["id"],
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }
