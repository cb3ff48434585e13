"""How much boxes and outlines overlap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.records import RegionNote
from openflorence.contract.rings import shared_area
from openflorence.contract.shapes import Box


def box_overlaps(ones: Sequence[Box], others: Sequence[Box]) -> NDArray[np.float64]:
    """Give the intersection over union of every box with every other: (ones, others). Empty boxes overlap nothing."""
    a, b = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (ones, others))
    shared = _shared(a, b)
    union = _area(a)[:, None] + _area(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def region_overlap(one: RegionNote, other: RegionNote) -> float:
    """Give the intersection over union of two regions: of outlines or quads if both have them, else of their boxes."""
    a, b = one.bounds, other.bounds
    if a is None or b is None:
        return 0.0
    first, second = one.polygons or _quad(one), other.polygons or _quad(other)
    if not first or not second:
        return float(box_overlaps([a], [b])[0, 0])
    window = Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))
    shared, of_one, of_other = shared_area(first, second, window)
    return shared / (of_one + of_other - shared) if shared > 0 else 0.0


def _quad(note: RegionNote) -> tuple[tuple, ...]:
    return (note.quad,) if note.quad else ()


def _shared(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2))


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1))
