"""YOLO data sets <-> records: a data.yaml, pictures, and beside them one text file of boxes or outlines for each.

Source: Ultralytics' dataset guides and the rules of its loader: where a part may lie, which label file is a picture's.
supervision could read these too, but it holds the whole set in memory and stops at the first bad line.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.data.coco import flat_ring
from openflorence.data.entries import find_size, write_lines
from openflorence.data.problems import Problems, read_text, write_text
from openflorence.errors import BadConfig, BadRecord

# Of what model/images.py reads.
IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".qoi", ".tif", ".tiff", ".webp")
)
_PARTS = {"train": ("train",), "val": ("val", "validation", "valid", "minival"), "test": ("test",)}  # keys in the file
_LOST = "\ufffd"  # stands where bytes were no UTF-8


@dataclass(frozen=True)
class _Settings:
    """What a data.yaml says."""

    file: Path
    names: Mapping[int, str]
    parts: Mapping[str, tuple[Path, ...]]  # folders of pictures, or text files that list them; all are there
    keypoints: bool  # lines go on after the box


def read_yolo(path: Path, problems: Problems, split: str | None = None) -> Iterator[Record]:
    """Give one record for each picture of a YOLO data set; pictures without label file are backgrounds.

    A line of class and four numbers is a box; one of class and x, y, x, y, ... is an outline, in the same file or not
    (Ultralytics' own loader takes all lines of a mixed file for outlines). Keypoints after a box are not kept, lines
    that repeat another are counted and left out, as Ultralytics does. `nc` is not looked at: the names say it.

    path      the data.yaml, or the folder it lies in.
    split     train, val or test; None reads all parts one after another.
    returns   records whose image is relative to the folder of the data.yaml, or absolute when it lies elsewhere. The
              size is the picture's own, so those that cannot be opened are counted and left out.
    raises    BadRecord when the data.yaml cannot be read or names no classes, or the part is not there or has no label
              file at all; BadConfig when PyYAML is not installed.
    """
    settings = _settings(path, problems)
    there = ", ".join(settings.parts) or "none that is there"
    if not settings.parts or (split is not None and split not in settings.parts):
        raise BadRecord(f"{settings.file} has no part {split or 'to read'}: it has {there}")
    chosen = list(settings.parts) if split is None else [split]
    pictures = {part: [list(_pictures(place, problems)) for place in settings.parts[part]] for part in chosen}
    for part, lists in pictures.items():
        _check_labels(settings.file, part, [picture for listed in lists for picture in listed])
    return _records(settings, pictures, problems)


def yolo_parts(path: Path) -> tuple[str, ...]:
    """Name the parts of a YOLO data set that are there: of train, val and test.

    raises    BadRecord, BadConfig as read_yolo.
    """
    return tuple(_settings(path, Problems()).parts)


def _records(settings: _Settings, pictures: Mapping[str, list[list[Path]]], problems: Problems) -> Iterator[Record]:
    root = settings.file.parent
    for part, lists in pictures.items():
        for place, listed in zip(settings.parts[part], lists, strict=True):
            for picture in listed:
                record = _record(picture, root, settings, problems)
                if record is not None:
                    yield record
            if place.is_dir():
                _count_widows(listed, problems)


def _record(picture: Path, root: Path, settings: _Settings, problems: Problems) -> Record | None:
    labels = label_file(picture)
    text = read_text(labels, problems) if labels.is_file() else ""
    if text is None:
        return None  # what is in it is not known, so this is no background
    image = picture.relative_to(root).as_posix() if picture.is_relative_to(root) else str(picture)
    image_wh = find_size(root, image, problems)
    if image_wh is None:
        return None
    regions = []
    lines: set[tuple[str, ...]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        columns = tuple(line.split())
        if columns in lines:
            problems.add("doubled entry", f"{labels}:{number}: {line}")
        elif columns:
            lines.add(columns)
            region = _region(columns, image_wh, settings, f"{labels}:{number}: {line:.200}", problems)
            regions += [] if region is None else [region]
    return Record(image=image, image_wh=image_wh, regions=tuple(regions), whole=frozenset({"objects"}))


def _region(
    columns: Sequence[str], image_wh: tuple[int, int], settings: _Settings, where: str, problems: Problems
) -> RegionNote | None:
    try:
        category, *values = map(float, columns)
    except ValueError:
        problems.add("entry not readable", where)
        return None
    values = values[:4] if settings.keypoints else values
    if not category.is_integer() or len(values) < 4 or len(values) % 2:
        problems.add("entry not readable", where)
        return None
    label = settings.names.get(int(category))
    if label is None:
        problems.add("unknown category", where)
        return None
    width, height = image_wh
    values = [value * (height if place % 2 else width) for place, value in enumerate(values)]
    if len(values) == 4:
        x, y, w, h = values
        return RegionNote(label=label, box=Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    ring = flat_ring(values)
    assert ring is not None, "an even number of floats"
    return RegionNote(label=label, polygons=(ring,))


# ---- where things lie


def label_file(picture: Path) -> Path:
    """Name the label file of a picture.

    returns   the picture's path with its last folder `images` replaced by `labels`, ending in .txt; where there is no
              such folder or no such file, the text file beside the picture.
    source    img2label_paths of Ultralytics, and the older layout with both in one folder.
    """
    parts = picture.parts
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        apart = Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]).with_suffix(".txt")
        if apart.is_file() or not picture.with_suffix(".txt").is_file():
            return apart
    return picture.with_suffix(".txt")


def _pictures(place: Path, problems: Problems) -> Iterator[Path]:
    """The pictures of a folder, sorted, or those that a text file lists."""
    if place.is_dir():
        yield from (path for path in sorted(place.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)
        return
    for line in (read_text(place, problems) or "").splitlines():
        if line.strip():
            yield place.parent / PurePosixPath(line.strip())


def _check_labels(file: Path, part: str, pictures: list[Path]) -> None:
    """A part without any label file is not a part of backgrounds: the labels lie elsewhere."""
    if pictures and not any(label_file(picture).is_file() for picture in pictures):
        raise BadRecord(
            f"{file}: of the {len(pictures)} pictures of part {part} none has a label file; that of {pictures[0]} "
            f"would be {label_file(pictures[0])}"
        )


def _count_widows(pictures: list[Path], problems: Problems) -> None:
    """Count label files whose picture is not there."""
    known = {label_file(picture) for picture in pictures}
    for folder in sorted({path.parent for path in known if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in known and path.name != "classes.txt":  # LabelImg's list of names
                problems.add("image missing", f"of {path}")


# ---- the data.yaml


def yolo_file(folder: Path) -> Path | None:
    """Find the data.yaml of a folder, or the only YAML file with class names by another name; None if there is none."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    named = [path for path in found if b"names" in path.read_bytes()]
    return next((path for path in named if path.stem == "data"), named[0] if len(named) == 1 else None)


def _settings(path: Path, problems: Problems) -> _Settings:
    file = yolo_file(path) if path.is_dir() else path
    if file is None:
        raise BadRecord(f"{path} has no data.yaml: a YOLO data set has one, with 'names' and the folders of its parts")
    data = _parse(file)
    raw = data.get("names")
    pairs = list(enumerate(raw)) if isinstance(raw, list) else list(raw.items()) if isinstance(raw, dict) else []
    names = {}
    for key, name in pairs:
        if not str(key).isdecimal() or not isinstance(name, str):
            problems.add("entry not readable", f"{file}: the class {key!r}: {name!r} needs a number and a name")
        elif _LOST in name:
            problems.add("text not readable", f"{file}: the class {key}: {name!r}")
        else:
            names[int(key)] = name
    if not names:
        # Ultralytics would call them class_0, class_1, ...: a network that answers in words must know better.
        raise BadRecord(
            f"{file} has no 'names': it has {', '.join(map(str, data)) or 'nothing'}; give a name per class"
        )
    parts = {part: tuple(_places(data, keys, file)) for part, keys in _PARTS.items()}
    return _Settings(file, names, {part: places for part, places in parts.items() if places}, "kpt_shape" in data)


def _parse(file: Path) -> dict[str, Any]:
    """Read YAML with every scalar as text, so that a class called `no` or `1` keeps its name."""
    try:
        import yaml
    except ImportError as error:
        raise BadConfig("YOLO data sets need PyYAML: pip install openflorence[train]") from error
    try:
        data = yaml.load(file.read_bytes().decode("utf-8-sig", errors="replace"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise BadRecord(f"{file} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BadRecord(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise BadRecord(f"{file} holds {data!r:.80}; a data.yaml has 'names' and the folders of its parts")
    return data


def _places(data: Mapping[str, Any], keys: Sequence[str], file: Path) -> Iterator[Path]:
    """The folders and lists of one part that are there."""
    stated = data.get("path")
    base = file.parent / stated if isinstance(stated, str) else file.parent
    base = base if base.is_dir() else file.parent  # `path` is often that of the author's machine
    value: Any = next((data[key] for key in keys if data.get(key) not in (None, "", "~", "null")), [])
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            # Roboflow writes ../train/images for what lies in train/images; Ultralytics knows that too.
            tried = [base / item, *([base / item[3:]] if item.startswith("../") else [])]
            yield from [place for place in tried if place.exists()][:1]


# ---- writing


def write_yolo(records: Iterable[Record], folder: Path, split: str, names: Sequence[str]) -> Path:
    """Write the label files of one part in Ultralytics' layout, and the data.yaml of all parts written so far.

    The pictures are not touched: that of a record is to lie at images/<split>/<image>, or is there already when the
    record says images/<split>/... itself. A file holds outlines when every region of the picture has some, otherwise
    boxes, since Ultralytics takes no file with both; the rings of one region are joined by a seam there and back, as
    its converter from COCO does. Left out are regions without label, crowds, and all else YOLO has no place for.

    names     the classes, in the order of their numbers.
    returns   the path of the data.yaml.
    raises    BadRecord when a label is not in `names`, a coordinate is not finite, or two pictures share a label file.
    promise   read_yolo gives the boxes, or the outlines, back to within a millionth of a pixel.
    """
    numbers = {name: number for number, name in enumerate(names)}
    written: set[Path] = set()
    for record in records:
        name = PurePosixPath(record.image)
        inside = not name.is_absolute() and ".." not in name.parts
        kept = name.relative_to(f"images/{split}") if name.is_relative_to(f"images/{split}") else name
        path = folder / "labels" / split / (kept if inside else name.name)
        path = path.with_suffix(".txt")
        if path in written:
            raise BadRecord(f"{record.image}: a second picture with the label file {path}; give it another name")
        written.add(path)
        write_lines(yolo_lines(record, numbers), path)
    parts = [part for part in _PARTS if part == split or (folder / "labels" / part).is_dir()]
    lines = [f"{part}: images/{part}" for part in dict.fromkeys([*parts, split])]
    lines += ["names:", *(f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names))]
    return write_text(folder / "data.yaml", "\n".join(lines) + "\n")


def yolo_lines(record: Record, numbers: Mapping[str, int]) -> list[str]:
    """Give the lines of the label file of one picture; see write_yolo.

    numbers   label -> number of its class.
    """
    width, height = record.image_wh
    kept = [region for region in record.regions if region.label and region.bounds and not region.crowd]
    outlined = all(region.polygons for region in kept)
    lines = []
    for region in kept:
        if region.label not in numbers:
            raise BadRecord(f"{record.image}: the label {region.label!r} is none of {', '.join(numbers)}")
        box = region.bounds
        assert box is not None, "asked for above"
        values = [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.x1 - box.x0, box.y1 - box.y0]
        if outlined:
            values = [value for point in join_rings(region.polygons) for value in point]
        if not all(map(math.isfinite, values)):
            raise BadRecord(f"{record.image}: a coordinate of {region.label!r} is not finite; clean the records first")
        shares = [value / (height if place % 2 else width) for place, value in enumerate(values)]
        lines.append(
            " ".join([str(numbers[region.label]), *(f"{share:.10f}".rstrip("0").rstrip(".") for share in shares)])
        )
    return lines


def join_rings(rings: Sequence[Polygon]) -> Polygon:
    """Make one ring of several: each is entered and left again at its vertex nearest to those before."""
    joined: list[Point] = list(rings[0])
    for ring in rings[1:]:
        pairs = ((math.dist(a, b), i, j) for i, a in enumerate(joined) for j, b in enumerate(ring))
        _, here, there = min(pairs)
        joined[here:here] = [joined[here], *ring[there:], *ring[:there], ring[there]]
    return tuple(joined)
