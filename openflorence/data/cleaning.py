"""Records as read -> records that can be learnt from, by stated rules; what is mended or left out is counted.

The rules stand in `problems.RULES`. Nothing here raises for bad data: one bad item never stops a run. Only a data set
of which nothing is left is an error, before training starts.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from openflorence.contract.answers import special_token
from openflorence.contract.records import GroundingNote, PhraseNote, Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.problems import Problems
from openflorence.errors import BadImage, BadRecord
from openflorence.model.images import image_size

Size = tuple[int, int]
Move = Callable[[Point], Point]
_SAME = 0.01  # proportions of the stated and the real size may differ by this much


def clean_records(records: Iterable[Record], root: Path, problems: Problems, look: bool = True) -> Iterator[Record]:
    """Give every usable record, mended.

    root      folder that relative image paths start at.
    problems  collector; the caller reports it.
    look      open the header of every image: checks that it is there and how large it is.
    """
    for record in records:
        sized = _sized(record, root, problems) if look else record
        if sized is not None:
            cleaned = clean_record(sized, problems)
            if cleaned is not None:
                yield cleaned


def usable_records(records: Iterable[Record], root: Path, problems: Problems, name: str) -> list[Record]:
    """Give all usable records of a data set.

    raises    BadRecord when there is none, saying what was wrong.
    """
    usable = list(clean_records(records, root, problems))
    if not usable:
        seen = str(problems) or "there was no entry at all"
        raise BadRecord(f"{name}: nothing in it can be used. What was seen:\n{seen}")
    return usable


def clean_record(record: Record, problems: Problems) -> Record | None:
    """Mend one record; None when nothing can be asked about its image."""
    where = record.image
    cleaned = replace(
        record,
        regions=tuple(note for region in record.regions if (note := _region(region, record.image_wh, where, problems))),
        texts=tuple(note for note in record.texts if _says(where, problems, note.text)),
        groundings=tuple(g for note in record.groundings if (g := _grounding(note, record.image_wh, where, problems))),
        questions=tuple(note for note in record.questions if _says(where, problems, note.question, *note.answers)),
        pairs=tuple(note for note in record.pairs if _says_pair(where, problems, note.prefix, note.suffix)),
    )
    if cleaned.is_empty:
        problems.add("no annotation", where)
        return None
    return cleaned


def _sized(record: Record, root: Path, problems: Problems) -> Record | None:
    """Compare with the image itself: None when it is not there, scaled when it has another size."""
    path = Path(record.image)
    path = path if path.is_absolute() else root / path
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        problems.add("image missing", str(path))
        return None
    try:
        real = image_size(path)
    except BadImage as error:
        problems.add("image not readable", str(error))
        return None
    if real == record.image_wh:
        return record
    problems.add("size differs", f"{path}: {record.image_wh[0]} x {record.image_wh[1]} stated, {real[0]} x {real[1]}")
    scale = real[0] / record.image_wh[0], real[1] / record.image_wh[1]
    if abs(scale[0] / scale[1] - 1) > _SAME:
        return None
    return scale_record(record, scale, real)


def scale_record(record: Record, scale: tuple[float, float], image_wh: Size) -> Record:
    """Move all geometry along when an image is resized.

    scale     factors of x and y.
    image_wh  the new size.
    """

    def place(point: Point) -> Point:
        return Point(point.x * scale[0], point.y * scale[1])

    return move_record(record, place, image_wh)


def move_record(record: Record, place: Move, image_wh: Size) -> Record:
    """Send every point of a record to its new place; boxes stay upright boxes around their corners."""

    def box(old: Box) -> Box:
        (ax, ay), (bx, by) = place(Point(old.x0, old.y0)), place(Point(old.x1, old.y1))
        return Box(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))

    def region(note: RegionNote) -> RegionNote:
        quad = note.quad and (place(note.quad[0]), place(note.quad[1]), place(note.quad[2]), place(note.quad[3]))
        rings = tuple(tuple(map(place, ring)) for ring in note.polygons)
        return replace(note, box=note.box and box(note.box), quad=quad, polygons=rings)

    def grounding(note: GroundingNote) -> GroundingNote:
        return replace(note, phrases=tuple(replace(p, boxes=tuple(map(box, p.boxes))) for p in note.phrases))

    return replace(
        record,
        image_wh=image_wh,
        regions=tuple(map(region, record.regions)),
        groundings=tuple(map(grounding, record.groundings)),
    )


def _region(note: RegionNote, image_wh: Size, where: str, problems: Problems) -> RegionNote | None:
    if not _spells(where, problems, note.label, note.description, note.word, *note.expressions):
        return None
    rings = tuple(ring for ring in note.polygons if len(ring) >= 3)
    for ring in note.polygons:
        if len(ring) < 3:
            problems.add("too few points", f"{where}: {_show(ring)}")
    if not rings and note.polygons and note.box is None and note.quad is None:
        return None
    box = note.box
    if box is not None:
        box = clean_box(box, image_wh, where, problems)
        if box is None:
            return None
    elif not _inside(replace(note, polygons=rings).points, image_wh, where, problems):
        return None
    clipped = replace(note, box=None, polygons=rings)
    return replace(clip_region(clipped, image_wh), box=box)


def clip_region(note: RegionNote, image_wh: Size) -> RegionNote:
    """Pull every point of quad and polygons that lies beyond an edge onto it."""
    quad = note.quad
    if quad is not None:
        a, b, c, d = (_clip(point, image_wh) for point in quad)
        quad = a, b, c, d
    return replace(note, quad=quad, polygons=tuple(tuple(_clip(p, image_wh) for p in ring) for ring in note.polygons))


def clean_box(box: Box, image_wh: Size, where: str, problems: Problems) -> Box | None:
    """Cut a box at the edges of its image; None, counted, when nothing sound is left of it."""
    shown = f"{where}: box {_show(box)} in {image_wh[0]} x {image_wh[1]}"
    if not all(math.isfinite(value) for value in box):
        problems.add("not finite", shown)
    elif box.x1 < box.x0 or box.y1 < box.y0:
        problems.add("negative size", shown)
    elif box.x1 == box.x0 or box.y1 == box.y0:
        problems.add("empty region", shown)
    elif box.x0 >= image_wh[0] or box.y0 >= image_wh[1] or box.x1 <= 0 or box.y1 <= 0:
        problems.add("outside the image", shown)
    else:
        cut = Box(*_clip(Point(box.x0, box.y0), image_wh), *_clip(Point(box.x1, box.y1), image_wh))
        # Half a pixel beyond the edge is how rounding looks, not a mistake worth counting.
        if max(abs(old - new) for old, new in zip(box, cut, strict=True)) > 0.5:
            problems.add("partly outside", shown)
        return cut
    return None


def _inside(points: Iterable[Point], image_wh: Size, where: str, problems: Problems) -> bool:
    """Judge a region without a box by the box around its points."""
    listed = list(points)
    if not listed:
        problems.add("empty region", f"{where}: a region without box, quad and polygons")
        return False
    xs, ys = zip(*listed, strict=True)
    return clean_box(Box(min(xs), min(ys), max(xs), max(ys)), image_wh, where, problems) is not None


def _grounding(note: GroundingNote, image_wh: Size, where: str, problems: Problems) -> GroundingNote | None:
    if not _says(where, problems, note.text):
        return None
    phrases: list[PhraseNote] = []
    for phrase in note.phrases:
        boxes = tuple(cut for box in phrase.boxes if (cut := clean_box(box, image_wh, where, problems)))
        if boxes and _says(where, problems, phrase.phrase):
            phrases.append(replace(phrase, boxes=boxes))
    return replace(note, phrases=tuple(phrases))


def _says(where: str, problems: Problems, *texts: str) -> bool:
    """Every text has a word, and none spells a token."""
    if any(not text.strip() for text in texts):
        problems.add("empty text", where)
        return False
    return _spells(where, problems, *texts)


def _spells(where: str, problems: Problems, *texts: str) -> bool:
    for text in texts:
        token = special_token(text)
        if token:
            problems.add("special token", f"{where}: {token!r} in {text!r}")
            return False
    return True


_FRAME = re.compile("<s>|</s>|<pad>")


def _says_pair(where: str, problems: Problems, prefix: str, suffix: str) -> bool:
    """A pair may hold locations and markers, which are its business, but not what frames an answer."""
    if not prefix.strip():
        problems.add("empty text", f"{where}: a prefix without a word")
        return False
    found = _FRAME.search(prefix) or _FRAME.search(suffix)
    if found:
        problems.add("special token", f"{where}: {found[0]!r} in {prefix!r} or {suffix!r}")
    return not found


def _clip(point: Point, image_wh: Size) -> Point:
    return Point(min(max(point.x, 0.0), float(image_wh[0])), min(max(point.y, 0.0), float(image_wh[1])))


def _show(values: Iterable[object]) -> str:
    return str([round(value, 2) if isinstance(value, float) else value for value in values])
