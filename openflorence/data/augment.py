"""An image and its record, changed together: cropped, made smaller, mirrored, in other light. Regions move with pixels.

What forbids a change, so that no target becomes wrong; the image then stays as it is:
mirror    printed words, quads, pairs, and texts that swapping left and right would not mend: data/wording.py
crop      texts, groundings, questions, pairs and expressions speak of the whole image: it is cropped only if some
          region says what is in it, none is lost, and no text says where something is. Locations in pairs forbid it,
          and so does the loss of all regions.
smaller   printed words, quads and pairs: what was read must stay readable
colour    any text, label, description or question that names a colour or the light
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance

from openflorence.contract.records import GroundingNote, Record, RegionNote
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.data.chance import below, between, chance
from openflorence.data.cleaning import move_record, scale_record
from openflorence.data.order import signed_area
from openflorence.data.wording import can_mirror, image_texts, mirror_words, names_colours, names_places
from openflorence.errors import BadConfig

_WINDOWS = 4  # chances that a crop has to be one that may be used
_LEAST_PX = 1e-3  # width and height below which nothing of a box is left


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How images are changed while learning. All zeros change nothing."""

    flip: float = 0.5  # share of images that are mirrored
    crop: float = 0.3  # share of images that are cropped
    smallest_crop: float = 0.5  # a window has at least this share of each side
    min_visible: float = 0.5  # a region stays in a crop if at least this share of its area does
    shrink: float = 0.0  # share of images that are made smaller, which takes their detail
    smallest_size: float = 0.5  # they keep at least this share of each side
    colour: float = 0.1  # brightness, contrast and saturation change by a factor of 1 - colour to 1 + colour

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("flip", "crop", "shrink", "colour", "min_visible")}
        if not all(0 <= share <= 1 for share in shares.values()):
            raise BadConfig(f"augmentation with {shares}: allowed are 0 to 1")
        if not (0 < self.smallest_crop <= 1 and 0 < self.smallest_size <= 1):
            raise BadConfig(
                f"smallest_crop={self.smallest_crop}, smallest_size={self.smallest_size}: allowed are above 0 to 1"
            )


def augment(
    image: Image.Image, record: Record, rng: np.random.Generator, settings: Augment
) -> tuple[Image.Image, Record]:
    """Change an image and its record.

    image     upright, RGB, of the size that the record says.
    rng       every call takes as many chances from it, whatever is forbidden.
    promise   a region of the new record is where its pixels are in the new image, to the pixel for crops and mirrors.
    """
    assert image.size == record.image_wh, f"an image of {image.size}, a record of {record.image_wh}"
    crops, mirrors, shrinks = (chance(rng, share) for share in (settings.crop, settings.flip, settings.shrink))
    windows = [_window(rng, image.size, settings.smallest_crop) for _ in range(_WINDOWS)]
    size = _between(rng, settings.smallest_size, 1.0)
    light = [_between(rng, 1 - settings.colour, 1 + settings.colour) for _ in range(3)]
    if crops:
        image, record = _crop(image, record, windows, settings.min_visible)
    if shrinks and not record.pairs and not any(_printed(note) for note in record.regions):
        image, record = resize(image, record, (round(image.width * size), round(image.height * size)))
    if mirrors and can_mirror(record):
        image, record = mirror(image, record)
    if settings.colour and not names_colours(record):
        image = recolour(image, light)
    return image, record


def mirror(image: Image.Image, record: Record) -> tuple[Image.Image, Record]:
    """Swap left and right, also in words. Whether that is the truth, wording.can_mirror says."""
    width = record.image_wh[0]
    moved = move_record(record, lambda point: Point(width - point.x, point.y), record.image_wh)
    regions = tuple(replace(note, polygons=tuple(map(_turned, note.polygons))) for note in moved.regions)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirror_words(replace(moved, regions=regions))


def resize(image: Image.Image, record: Record, image_wh: tuple[int, int]) -> tuple[Image.Image, Record]:
    """Give an image another size, at least a pixel each way; its regions are scaled by the sides."""
    width, height = max(1, image_wh[0]), max(1, image_wh[1])
    scale = width / image.width, height / image.height
    return image.resize((width, height), Image.Resampling.BICUBIC), scale_record(record, scale, (width, height))


def recolour(image: Image.Image, factors: Iterable[float]) -> Image.Image:
    """Change brightness, contrast and saturation by a factor each; 1 changes nothing."""
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        image = enhance(image).enhance(factor)
    return image


def crop_record(record: Record, window: tuple[int, int, int, int], min_visible: float) -> Record | None:
    """Give what a record says about a window of its image.

    Boxes are cut, polygons clipped; a box with polygons is cut down to them. A region of whose area less than
    min_visible is in the window goes away: of the area of its polygons, or else of its box. Words stay only if they
    are wholly inside; if one is cut, the record no longer lists all words. Crowds stay with any part.

    window    left, top, right and bottom edge in whole pixels.
    returns   None if the window may not be used: see the head of this file.
    """
    if any("<loc_" in text for note in record.pairs for text in (note.prefix, note.suffix)):
        return None
    speaks = any(True for _ in image_texts(record)) or any(note.expressions for note in record.regions)
    if speaks and (names_places(record) or not (record.regions or record.groundings)):
        return None
    view = Box(*map(float, window))
    regions = [cut for note in record.regions if (cut := _cut_region(note, view, min_visible))]
    groundings = tuple(_cut_grounding(note, view) for note in record.groundings)
    if record.regions and not regions:
        return None
    if speaks:
        kept = len(regions) == len(record.regions) and not any(_loses_words(note, view) for note in record.regions)
        boxes = [box for note in record.groundings for phrase in note.phrases for box in phrase.boxes]
        if not kept or any(_share(box, view) < min_visible or not _share(box, view) for box in boxes):
            return None
    cuts = any(_loses_words(note, view) and note.bounds and _share(note.bounds, view) for note in record.regions)
    whole = record.whole - {"words"} if cuts else record.whole
    left = replace(record, regions=tuple(regions), groundings=groundings, whole=whole)
    size = window[2] - window[0], window[3] - window[1]
    return move_record(left, lambda point: Point(point.x - view.x0, point.y - view.y0), size)


def clip_ring(ring: Polygon, view: Box) -> Polygon:
    """Cut a ring at the edges of a window; () if nothing of it is inside.

    A part that comes in twice stays one ring, whose parts are joined along the edge.

    source    Sutherland and Hodgman, Reentrant polygon clipping, 1974: edge by edge.
    """
    for axis, edge, sign in ((0, view.x0, 1), (1, view.y0, 1), (0, view.x1, -1), (1, view.y1, -1)):
        kept: list[Point] = []
        for a, b in zip(ring[-1:] + ring[:-1], ring, strict=True):
            inside_a, inside_b = (sign * (point[axis] - edge) >= 0 for point in (a, b))
            if inside_a != inside_b:
                share = (edge - a[axis]) / (b[axis] - a[axis])
                other = a[1 - axis] + share * (b[1 - axis] - a[1 - axis])
                kept.append(Point(edge, other) if axis == 0 else Point(other, edge))
            if inside_b:
                kept.append(b)
        ring = tuple(kept)
    ring = tuple(point for place, point in enumerate(ring) if point != ring[place - 1])
    return ring if len(ring) >= 3 and signed_area(ring) else ()


# ---- chances


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * below(rng, 1 << 20) / ((1 << 20) - 1)


def _window(rng: np.random.Generator, image_wh: tuple[int, int], smallest: float) -> tuple[int, int, int, int]:
    """Draw a window: each side from its smallest to the whole, anywhere in the image."""
    width, height = (between(rng, max(1, round(side * smallest)), side) for side in image_wh)
    left, top = between(rng, 0, image_wh[0] - width), between(rng, 0, image_wh[1] - height)
    return left, top, left + width, top + height


# ---- crops


def _crop(
    image: Image.Image, record: Record, windows: Iterable[tuple[int, int, int, int]], min_visible: float
) -> tuple[Image.Image, Record]:
    """Take the first window that may be used, if there is one."""
    for window in windows:
        cropped = crop_record(record, window, min_visible)
        if cropped is not None:
            return image.crop(window), cropped
    return image, record


def _cut(box: Box, view: Box) -> Box | None:
    """What of a box is in a window; None for nothing."""
    cut = Box(max(box.x0, view.x0), max(box.y0, view.y0), min(box.x1, view.x1), min(box.y1, view.y1))
    return cut if min(cut.x1 - cut.x0, cut.y1 - cut.y0) > _LEAST_PX else None


def _share(box: Box, view: Box) -> float:
    """How much of a box is in a window."""
    cut = _cut(box, view)
    return _area(cut) / _area(box) if cut else 0.0


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def _printed(note: RegionNote) -> bool:
    return bool(note.word or note.quad)


def _loses_words(note: RegionNote, view: Box) -> bool:
    """True when something is printed there, and not all of it is in the window."""
    corners = (Point(*note.box[:2]), Point(*note.box[2:])) if note.box else ()
    points = (*corners, *(note.quad or ()), *(point for ring in note.polygons for point in ring))
    return _printed(note) and not all(view.x0 <= x <= view.x1 and view.y0 <= y <= view.y1 for x, y in points)


def _cut_region(note: RegionNote, view: Box, min_visible: float) -> RegionNote | None:
    bounds = note.bounds
    if bounds is None:
        return None
    if _loses_words(note, view):
        if not (note.label or note.description or note.expressions):
            return None
        # What it stands on is still an object; its outline is cut like any other.
        note = replace(note, word="", quad=None, box=bounds)
    rings = tuple(cut for ring in note.polygons if (cut := clip_ring(ring, view)))
    whole = sum(abs(signed_area(ring)) for ring in note.polygons)
    visible = sum(abs(signed_area(ring)) for ring in rings) / whole if whole else _share(bounds, view)
    box = note.box and _cut(note.box, view)
    if not visible or (visible < min_visible and not note.crowd) or (note.box and not box):
        return None
    if box and rings and rings != note.polygons:
        box = _cut(box, _around(rings))
    return replace(note, box=box, polygons=rings) if box or rings or note.quad else None


def _around(rings: Iterable[Polygon]) -> Box:
    xs, ys = zip(*(point for ring in rings for point in ring), strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def _cut_grounding(note: GroundingNote, view: Box) -> GroundingNote:
    phrases = (
        replace(phrase, boxes=tuple(cut for box in phrase.boxes if (cut := _cut(box, view)))) for phrase in note.phrases
    )
    return replace(note, phrases=tuple(phrases))


def _turned(ring: Polygon) -> Polygon:
    """The same ring the other way round, from the same vertex."""
    return ring[:1] + ring[:0:-1]
