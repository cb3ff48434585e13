"""How much two regions overlap."""

from typing import Any

from openflorence.contract.overlaps import iou
from openflorence.contract.records import RegionNote
from openflorence.contract.rings import shared_area
from openflorence.contract.shapes import Box


def region_overlap(one: RegionNote, other: RegionNote) -> float:
    """Give the intersection over union of two regions: of outlines or quads if both have them, else of their boxes."""
    a, b = one.bounds, other.bounds
    if a is None or b is None:
        return 0.0
    first, second = one.polygons or _quad(one), other.polygons or _quad(other)
    if not first or not second:
        return iou(a, b)
    window = Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))
    shared, of_one, of_other = shared_area(first, second, window)
    return shared / (of_one + of_other - shared) if shared > 0 else 0.0


def shared_bounds(one: Any, other: Any) -> float | None:
    """Give the intersection over union of the boxes around two notes; None where one is no region or has no place."""
    a, b = getattr(one, "bounds", None), getattr(other, "bounds", None)
    return None if a is None or b is None else iou(a, b)


def _quad(note: RegionNote) -> tuple[tuple, ...]:
    return (note.quad,) if note.quad else ()
