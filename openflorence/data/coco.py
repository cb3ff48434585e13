"""COCO annotations <-> records: boxes, polygons, run-length masks, captions.

Source: the data format page of COCO (cocodataset.org) and pycocotools. One file is one reader's: instances, keypoints
(their boxes) and captions are read, panoptic files are refused, since what they say lies in PNG files.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.contract.records import Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.data.entries import write_lines
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadRecord

Row = Mapping[str, Any]
_NO_CATEGORY = 0  # of captions in a file that has categories; those are numbered from 1


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file, with what a record does not keep: ids, areas, what else stands beside them."""

    entry: Row  # of "images"
    record: Record
    rows: tuple[Row, ...]  # of "annotations": one for each of record.regions


def read_coco(path: Path, problems: Problems) -> Iterator[Record]:
    """Give one record for each image of a COCO file, images without annotations included.

    The file is parsed whole, since JSON cannot be read in part; records are made one at a time. A box is given as
    x, y, x + width, y + height, sound or not; rings as they stand, without a closing vertex; a run-length mask as the
    outer lines of its parts, which fills holes. An annotation with box and caption is a region with a description.

    path      JSON with images, annotations and, unless it holds captions alone, categories.
    returns   records whose image is `file_name`; all objects are listed wherever the file has categories.
    raises    BadRecord when the file is missing, no such JSON, or of the panoptic kind; BadConfig when a mask is met
              and pycocotools is not installed.
    source    COCO data format; keypoints are not kept.
    """
    return (image.record for image in read_coco_images(path, problems)[1])


def read_coco_images(path: Path, problems: Problems) -> tuple[dict[Any, str], Iterator[CocoImage]]:
    """Give the names of the categories by their ids, and every image as `read_coco` does, beside its entries.

    raises    as read_coco.
    """
    data = _load(path)
    names = _names(data.get("categories") or (), path, problems)
    images = _images(data["images"], path, problems)
    grouped = _by_image(data["annotations"], images, path, problems)
    known = {key: name for key, name in (names or {}).items() if name is not None}
    return known, _coco_images(images, grouped, names, path, problems)


def _coco_images(
    images: Mapping[Any, Row | None],
    grouped: Mapping[Any, list[tuple[int, Row]]],
    names: Mapping[Any, str | None] | None,
    path: Path,
    problems: Problems,
) -> Iterator[CocoImage]:
    for key, row in images.items():
        if row is None:
            continue
        image_wh = (int(row["width"]), int(row["height"]))
        texts: list[TextNote] = []
        regions: list[RegionNote] = []
        rows: list[Row] = []
        for place, entry in grouped.get(key, ()):
            note = _note(entry, image_wh, names, f"{path}, annotation {entry.get('id', f'[{place}]')!r}", problems)
            if isinstance(note, TextNote):
                texts.append(note)
            elif note is not None:
                regions.append(note)
                rows.append(entry)
        record = Record(
            image=row["file_name"],
            image_wh=image_wh,
            texts=tuple(texts),
            regions=tuple(regions),
            whole=frozenset() if names is None else frozenset({"objects"}),
        )
        yield CocoImage(row, record, tuple(rows))


def _load(path: Path) -> dict[str, Any]:
    """Parse the file. Bytes that are no UTF-8 go along as surrogates: one wrong name must not hide all others."""
    wanted = "a COCO file is a JSON object with the lists 'images' and 'annotations'"
    try:
        raw = path.read_bytes()
        data = json.loads(raw.decode(json.detect_encoding(raw), errors="surrogateescape"))
    except OSError as error:
        raise BadRecord(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        seen = "is empty" if not raw.strip() else f"is no JSON ({error})"
        raise BadRecord(f"{path} {seen}; {wanted}") from error
    if isinstance(data, list):
        raise BadRecord(f"{path} holds a list, as results do; {wanted}")
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in ("images", "annotations")):
        seen = ", ".join(map(repr, list(data)[:8])) if isinstance(data, dict) else type(data).__name__
        raise BadRecord(f"{path} has {seen or 'nothing'}; {wanted}")
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in data["annotations"]):
        raise BadRecord(f"{path} is a panoptic file, which is not read; give the instances file of the same images")
    # Captions files have no categories. Where there are some, or annotations that name one, objects are listed.
    if any(isinstance(entry, dict) and "category_id" in entry for entry in data["annotations"]):
        data.setdefault("categories", [])
    return data


def _names(categories: Any, path: Path, problems: Problems) -> dict[Any, str | None] | None:
    """Category id -> name; None for a name that cannot be read; None at all when the file has no categories."""
    if categories == ():
        return None
    names: dict[Any, str | None] = {}
    for entry in categories if isinstance(categories, list) else [categories]:
        where = f"{path}, category {entry!r}"
        if not isinstance(entry, dict) or not _is_key(entry.get("id")) or not isinstance(entry.get("name"), str):
            problems.add("entry not readable", f"{where}: it needs an id and a name")
        elif entry["id"] in names:
            problems.add("doubled entry", f"{where}: its id is that of {names[entry['id']]!r}")
        elif not is_unicode(entry["name"]):
            names[entry["id"]] = None
            problems.add("text not readable", where)
        else:
            names[entry["id"]] = entry["name"]
    return names


def _images(entries: list[Any], path: Path, problems: Problems) -> dict[Any, Row | None]:
    """Image id -> its entry; None for one that cannot be used."""
    images: dict[Any, Row | None] = {}
    for place, entry in enumerate(entries):
        where = f"{path}, images[{place}]"
        if not isinstance(entry, dict) or not _is_key(entry.get("id")):
            problems.add("entry not readable", f"{where}: {entry!r:.200} has no id")
            continue
        if entry["id"] in images:
            problems.add("doubled entry", f"{where}: an image with id {entry['id']!r} stands above it")
            continue
        images[entry["id"]] = None
        name, sides = entry.get("file_name"), [entry.get("width"), entry.get("height")]
        if not isinstance(name, str) or not name:
            problems.add("entry not readable", f"{where}: file_name is {name!r}")
        elif not is_unicode(name):
            problems.add("text not readable", f"{where}: file_name {name!r}")
        elif not all(is_number(side) and 1 <= side < 2**31 and side == int(side) for side in sides):
            problems.add("entry not readable", f"{where}: width and height are {sides}")
        else:
            images[entry["id"]] = entry
    return images


def _by_image(
    entries: list[Any], images: Mapping[Any, Row | None], path: Path, problems: Problems
) -> dict[Any, list[tuple[int, Row]]]:
    """Image id -> its annotations, each with its place in the file."""
    grouped: dict[Any, list[tuple[int, Row]]] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            problems.add("entry not readable", f"{path}, annotations[{place}]: {entry!r:.200}")
        elif not _is_key(entry.get("image_id")) or entry["image_id"] not in images:
            problems.add("unknown image", f"{path}, annotations[{place}]: image_id {entry.get('image_id')!r}")
        else:
            grouped.setdefault(entry["image_id"], []).append((place, entry))
    return grouped


# ---- one annotation


def _note(
    entry: Row, image_wh: tuple[int, int], names: Mapping[Any, str | None] | None, where: str, problems: Problems
) -> TextNote | RegionNote | None:
    caption = entry.get("caption", "")
    if not isinstance(caption, str) or not is_unicode(caption):
        problems.add("text not readable", f"{where}: caption {caption!r:.200}")
        return None
    bounds, segmentation = entry.get("bbox") or None, entry.get("segmentation") or None
    if bounds is None and segmentation is None:
        if "caption" in entry:
            return TextNote(text=caption)
        problems.add("entry not readable", f"{where}: neither bbox, segmentation nor caption")
        return None
    if bounds is not None and not (isinstance(bounds, list) and len(bounds) == 4 and all(map(is_number, bounds))):
        problems.add("entry not readable", f"{where}: bbox {bounds!r:.200}")
        return None
    category = entry.get("category_id")
    label = names.get(category) if names and _is_key(category) else None
    if label is None and not (category is None and caption):
        problems.add("unknown category", f"{where}: category_id {category!r}")
        return None
    rings = _rings(segmentation, image_wh, where, problems)
    if bounds is None and not rings:
        return None  # counted by _rings
    x, y, width, height = map(float, bounds or (0, 0, 0, 0))
    score = entry.get("score")
    return RegionNote(
        box=None if bounds is None else Box(x, y, x + width, y + height),
        polygons=rings,
        label=label or "",
        description=caption,
        crowd=entry.get("iscrowd") in (1, True),
        score=float(score) if is_number(score) and 0 <= score <= 1 else None,
    )


def _rings(segmentation: Any, image_wh: tuple[int, int], where: str, problems: Problems) -> tuple[Polygon, ...]:
    """The rings of polygons or of a run-length mask; what cannot be read is counted and left out, its box stays."""
    if segmentation is None:
        return ()
    if isinstance(segmentation, dict):
        mask = decode_mask(segmentation, image_wh)
        if mask is None:
            problems.add("entry not readable", f"{where}: a run-length mask that does not fit its image; the box stays")
            return ()
        return trace_mask(mask)
    lists = segmentation if isinstance(segmentation, list) else [segmentation]
    lists = [lists] if all(map(is_number, lists)) else lists
    rings = [flat_ring(flat) for flat in lists]
    if None in rings:
        problems.add("entry not readable", f"{where}: a polygon that is no list of x, y, x, y, ...; the box stays")
    return tuple(ring for ring in rings if ring is not None)


def flat_ring(flat: Any) -> Polygon | None:
    """Read x, y, x, y, ... as one ring, without its last vertex where that repeats the first; None if it is no list."""
    # By types at once: files hold tens of millions of these numbers.
    if not isinstance(flat, list) or len(flat) % 2 or not {int, float}.issuperset(map(type, flat)):
        return None
    try:
        values = list(map(float, flat))
    except OverflowError:  # a whole number that no float holds
        return None
    points = tuple(map(Point, values[::2], values[1::2]))
    return points[:-1] if len(points) > 3 and points[0] == points[-1] else points


def decode_mask(coded: Row, image_wh: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode a run-length mask, as text or as a list of runs, to (H, W); None when it is not one of this image.

    raises    BadConfig for a compressed one without pycocotools.
    """
    size, counts = coded.get("size"), coded.get("counts")
    if size != [image_wh[1], image_wh[0]]:
        return None
    if isinstance(counts, list):
        # Runs of 0 and 1 by turns, down the columns. numpy says this as shortly as the library, which checks nothing.
        fits = all(type(run) is int and run >= 0 for run in counts) and sum(counts) == size[0] * size[1]
        flat = np.repeat(np.arange(len(counts)) % 2, counts) if fits else None
        return None if flat is None else flat.astype(np.uint8).reshape(size[::-1]).T
    try:
        from pycocotools import mask as library
    except ImportError as error:
        raise BadConfig("compressed masks need pycocotools: pip install openflorence[train]") from error
    try:  # of an empty text the library makes a mask of whatever lies in memory
        return np.asarray(library.decode({"size": size, "counts": counts}), np.uint8) if counts else None
    except (ValueError, TypeError):
        return None


def trace_mask(mask: NDArray[np.uint8]) -> tuple[Polygon, ...]:
    """Trace the parts of a mask along the edges of their pixels.

    mask      (H, W), anything but 0 is inside.
    returns   one ring per part, the largest first, clockwise; holes are filled.
    promise   filled again, the rings cover exactly the pixels of the mask and its holes.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return ()
    y0, x0 = int(rows[0]), int(columns[0])
    part = (mask[y0 : rows[-1] + 1, x0 : columns[-1] + 1] != 0).astype(np.uint8)
    fine = part.repeat(2, axis=0).repeat(2, axis=1)
    lines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # OpenCV gives border pixels. At twice the size the even ones are the near halves of a pixel, whose edge is v / 2,
    # and the odd ones the far halves, whose edge is (v + 1) / 2.
    edges = [(np.asarray(line)[::-1, 0] + 1) // 2 for line in sorted(lines, key=cv2.contourArea, reverse=True)]
    return tuple(
        tuple(Point(float(x) + x0, float(y) + y0) for x, y in line[np.any(line != np.roll(line, 1, axis=0), axis=1)])
        for line in edges
    )


def is_number(value: Any) -> TypeGuard[float]:
    """True for an int or float that a coordinate can hold; NaN and infinity are left to cleaning."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def is_unicode(text: str) -> bool:
    """True when a text has no half of a surrogate pair, as bytes that were no UTF-8 leave."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_key(value: Any) -> bool:
    return isinstance(value, int | str)


# ---- writing


def write_coco(records: Iterable[Record], path: Path, labels: Sequence[str] | None = None) -> Path:
    """Write objects and captions as one COCO file; ids count from 1, categories by the alphabet.

    What COCO has no place for is left out: texts longer than brief, regions without label, quads, words, expressions,
    groundings, questions, pairs. A region without box gets the box around its points.

    records   gone through twice, or three times without `labels`, so that none need be kept; those of an iterator,
              which can be gone through once, are.
    labels    the categories in the order of their ids, where several files are to agree on them; None for those of
              these records.
    returns   the path.
    raises    BadRecord when a coordinate is not finite, or a label is not in `labels`.
    promise   read_coco gives the records back, up to what is left out and, where x + width is not exact in 64 bits,
              the last bit of an edge.
    """
    again = list(records) if isinstance(records, Iterator) else records
    if labels is None:
        labels = sorted({region.label for record in again for region in record.regions} - {""})
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    objects = bool(labels) or any("objects" in record.whole for record in again)
    categories = [{"id": number, "name": label} for label, number in numbers.items()]

    def lines() -> Iterator[str]:
        yield '{"images": ['
        yield from _listed(_image_row(record, number) for number, record in enumerate(again, start=1))
        yield '], "annotations": ['
        yield from _listed(_annotation_rows(again, numbers, objects))
        yield f'], "categories": {json.dumps(categories, ensure_ascii=False)}}}' if objects else "]}"

    try:
        return write_lines(lines(), path)
    except BadRecord:
        raise
    except ValueError as error:
        raise BadRecord(f"{path} was not written: a coordinate is not finite; clean the records first") from error


def _listed(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each entry of a list; each comma waits until there is another."""
    waiting = ""
    for row in rows:
        if waiting:
            yield f"{waiting},"
        waiting = json.dumps(row, ensure_ascii=False, allow_nan=False)
    if waiting:
        yield waiting


def _image_row(record: Record, number: int) -> Row:
    return {"id": number, "file_name": record.image, "width": record.image_wh[0], "height": record.image_wh[1]}


def _annotation_rows(records: Iterable[Record], numbers: Mapping[str, int], objects: bool) -> Iterator[Row]:
    # pycocotools asks every annotation for a category as soon as a file has categories.
    extra = {"category_id": _NO_CATEGORY} if objects else {}
    key = 0
    for number, record in enumerate(records, start=1):
        strange = sorted({region.label for region in record.regions} - {"", *numbers})
        if strange:
            raise BadRecord(f"{record.image}: the label {strange[0]!r} is none of {', '.join(numbers)}")
        mine = [_region_row(region, numbers) for region in record.regions if region.label and region.bounds]
        mine += [{"caption": note.text} | extra for note in record.texts if note.level == "brief"]
        for row in mine:
            key += 1
            yield {"id": key, "image_id": number} | row


def _region_row(region: RegionNote, numbers: Mapping[str, int]) -> dict[str, Any]:
    box = region.bounds
    assert box is not None, "asked for by the caller"
    rings = [[value for point in ring for value in point] for ring in region.polygons]
    sides = (box.x1 - box.x0, box.y1 - box.y0)
    row: dict[str, Any] = {
        "category_id": numbers[region.label],
        "bbox": [box.x0, box.y0, *sides],
        "area": sum(map(ring_area, region.polygons)) if rings else sides[0] * sides[1],
        "iscrowd": int(region.crowd),
    }
    row |= {"segmentation": rings} if rings else {}
    row |= {"caption": region.description} if region.description else {}
    return row | ({} if region.score is None else {"score": region.score})


def ring_area(ring: Polygon) -> float:
    """Give the area inside a ring that does not cross itself, in square pixels."""
    turned = (*ring[1:], *ring[:1])
    return abs(math.fsum(a.x * b.y - b.x * a.y for a, b in zip(ring, turned, strict=True))) / 2
