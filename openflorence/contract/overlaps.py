"""How much boxes overlap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.shapes import Box


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 1 for a box and itself, also where it has no area."""
    if one == other:
        return 1.0
    width = max(min(one.x1, other.x1) - max(one.x0, other.x0), 0.0)
    height = max(min(one.y1, other.y1) - max(one.y0, other.y0), 0.0)
    shared = width * height
    areas = (max(box.x1 - box.x0, 0.0) * max(box.y1 - box.y0, 0.0) for box in (one, other))
    return shared / (sum(areas) - shared) if shared else 0.0


def box_iou(ones: Sequence[Box], others: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of every box with every other: (ones, others); a box without area overlaps nothing.

    source    Everingham et al. 2010, PASCAL VOC, without its "+ 1": edges are continuous.
    """
    a, b = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (ones, others))
    shared = shared_areas(ones, others)
    union = _areas(a)[:, None] + _areas(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def shared_areas(ones: Sequence[Box], others: Sequence[Box]) -> NDArray[np.float64]:
    """The area that every box has in common with every other: (ones, others)."""
    a, b = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (ones, others))
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared: NDArray[np.float64] = sides.clip(min=0).prod(axis=-1)
    return shared


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
    return areas
