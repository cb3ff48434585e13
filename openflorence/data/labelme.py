"""LabelMe's annotations <-> records: one JSON file of shapes beside each picture.

Source: labelme's own files and the rules of its `shapes_to_label`: shapes of one label and one group are one instance.
Points are positions on the picture's surface, so that 0 and its width are its edges: pixels as everywhere here.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.data.coco import is_unicode
from openflorence.data.entries import check_table, find_size, numbers, take, write_lines
from openflorence.data.problems import Problems, read_text
from openflorence.errors import BadRecord

_CIRCLE = 36  # vertices; the largest gap to the circle is then 0.4 % of its radius
_VERSION = "5.5.0"  # of labelme, whose files these are like


def read_labelme(path: Path, problems: Problems) -> Iterator[Record]:
    """Give one record for each annotation file; one without shapes is a background.

    A rectangle is a box, whichever corners it was drawn by; polygons are rings, those of one label and group the rings
    of one region; a circle is a ring of 36 vertices. Lines, points and masks are counted and left out. The picture
    inside the file (`imageData`) is not looked at.

    path      folder, searched with its subfolders, or one file.
    returns   records whose image is relative to the folder.
    raises    BadRecord when there is no JSON file.
    """
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BadRecord(f"{path} has no JSON file: LabelMe keeps one beside each picture")
    return _records(files, root, problems)


def _records(files: list[Path], root: Path, problems: Problems) -> Iterator[Record]:
    for file in files:
        text = read_text(file, problems)
        if text is None:
            continue
        try:
            record = _record(check_table(json.loads(text), str(file)), file, root, problems)
        except (BadRecord, ValueError, RecursionError) as error:
            problems.add("entry not readable", f"{file}: {error or type(error).__name__}")
            continue
        if record is not None:
            yield record


def _record(data: Mapping[str, Any], file: Path, root: Path, problems: Problems) -> Record | None:
    name, shapes = take(data, "imagePath", str, str(file)), take(data, "shapes", list, str(file))
    if not is_unicode(name):
        problems.add("text not readable", f"{file}: imagePath {name!r}")
        return None
    # Written from the file's own folder, on Windows with backslashes; normpath keeps ../ at the front only.
    below = Path(os.path.relpath(file.parent, root)) / name.replace("\\", "/")
    image = os.path.normpath(below).replace(os.sep, "/")
    sides = [data.get("imageWidth"), data.get("imageHeight")]
    known = [side for side in sides if type(side) is int and side > 0]
    image_wh = (known[0], known[1]) if len(known) == 2 else find_size(root, image, problems)
    if image_wh is None:
        return None
    regions: dict[Any, RegionNote] = {}
    for place, shape in enumerate(shapes):
        where = f"{file}, shapes[{place}]"
        try:
            region = _region(shape, where)
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        if not is_unicode(region.label + region.description):
            problems.add("text not readable", f"{where}: label {region.label!r}")
            continue
        group = shape.get("group_id")
        key = (region.label, group) if type(group) is int and region.polygons else place
        before = regions.get(key)
        regions[key] = replace(before, polygons=before.polygons + region.polygons) if before else region
    return Record(image=image, image_wh=image_wh, regions=tuple(regions.values()), whole=frozenset({"objects"}))


def _region(shape: Any, where: str) -> RegionNote:
    """Read one shape; raises BadRecord when it is none of those that can be."""
    label = take(shape, "label", str, where)
    kind = shape.get("shape_type") or "polygon"  # files of before 2019 have polygons only and do not say so
    points = [Point(*numbers(point, 2, where)) for point in take(shape, "points", list, where)]
    description = shape.get("description")
    note = RegionNote(label=label, description=description if isinstance(description, str) else "")
    if kind == "rectangle" and len(points) in (2, 4):  # labelme writes two corners, tools that followed it four
        xs, ys = zip(*points, strict=True)
        return replace(note, box=Box(min(xs), min(ys), max(xs), max(ys)))
    if kind == "polygon" and points:
        return replace(note, polygons=(tuple(points),))
    if kind == "circle" and len(points) == 2:
        return replace(note, polygons=(_circle(*points),))
    raise BadRecord(f"{where}: {kind!r} of {len(points)} points; read are rectangle, polygon and circle")


def _circle(centre: Point, edge: Point) -> Polygon:
    """Vertices on the circle around one point through another, clockwise as seen."""
    radius = math.dist(centre, edge)
    turns = [2 * math.pi * step / _CIRCLE for step in range(_CIRCLE)]
    return tuple(Point(centre.x + radius * math.cos(turn), centre.y + radius * math.sin(turn)) for turn in turns)


# ---- writing


def write_labelme(records: Iterable[Record], folder: Path) -> Path:
    """Write one annotation file per record, where its picture lies or is to lie: <folder>/<image>, ending in .json.

    Left out are regions without label, crowds, and all else LabelMe has no place for.

    returns   the folder.
    raises    BadRecord when a coordinate is not finite, or two pictures share a file.
    promise   read_labelme gives boxes back, or outlines where a region has some, exactly.
    """
    written: set[Path] = set()
    for record in records:
        name = PurePosixPath(record.image)
        inside = not name.is_absolute() and ".." not in name.parts
        path = (folder / (name if inside else name.name)).with_suffix(".json")
        if path in written:
            raise BadRecord(f"{record.image}: a second picture with the file {path}; give it another name")
        written.add(path)
        data: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": list(_shapes(record)),
            "imagePath": name.name,
            "imageData": None,
            "imageHeight": record.image_wh[1],
            "imageWidth": record.image_wh[0],
        }
        write_lines([json.dumps(data, ensure_ascii=False, indent=2)], path)
    return folder


def _shapes(record: Record) -> Iterator[dict[str, Any]]:
    group = 0
    for region in record.regions:
        box = region.bounds
        if not region.label or box is None or region.crowd:
            continue
        if not all(math.isfinite(value) for point in (box, *region.points) for value in point):
            raise BadRecord(f"{record.image}: a coordinate of {region.label!r} is not finite; clean the records first")
        group += len(region.polygons) > 1
        for points in region.polygons or ((Point(*box[:2]), Point(*box[2:])),):
            yield {
                "label": region.label,
                "points": [list(point) for point in points],
                "group_id": group if len(region.polygons) > 1 else None,
                "description": region.description,
                "shape_type": "polygon" if region.polygons else "rectangle",
                "flags": {},
                "mask": None,
            }
