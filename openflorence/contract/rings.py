"""Outlines filled, compared and united on a raster. OpenCV fills and traces; it is imported when called."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from openflorence.contract.shapes import Box, Point, Polygon

_FINEST = 4  # cells per pixel, each way
_LARGEST = 2048  # cells per side of a raster, unless a pixel is a cell
_SHIFT = 4  # binary places of the coordinates given to the filler
_SLACK = 0.5  # cells: a traced line is made of steps of one cell; corners nearer to a straight line go


def shared_area(one: Sequence[Polygon], other: Sequence[Polygon], window: Box) -> tuple[float, float, float]:
    """Give the area that two masks share within a window, and the area that each has there, in square pixels.

    one, other  rings of each, in pixels; rings of one mask add up.
    """
    x0, y0, x1, y1 = _bounds((*one, *other))
    window = Box(max(x0, window.x0), max(y0, window.y0), min(x1, window.x1), min(y1, window.y1))
    if window.x0 >= window.x1 or window.y0 >= window.y1:
        return 0.0, 0.0, 0.0
    a, b = (_fill(rings, window).astype(bool) for rings in (one, other))
    cells = _per_px(window) ** 2
    return float((a & b).sum()) / cells, float(a.sum()) / cells, float(b.sum()) / cells


def unite(masks: Sequence[Sequence[Polygon]]) -> tuple[Polygon, ...]:
    """Unite masks and trace what they cover together.

    masks     rings of each, in pixels.
    returns   one ring per part, the largest first; clockwise, from its topmost and then leftmost point. Holes are
              filled. To within about a cell of the raster: a quarter of a pixel up to 512 px, at most a pixel.
    """
    rings = [ring for mask in masks for ring in mask]
    window = _bounds(rings)
    return _trace(_fill(rings, window), window)


def majority(masks: Sequence[Sequence[Polygon]], weights: Sequence[float]) -> tuple[Polygon, ...]:
    """Trace what at least half of the weight of several masks covers; otherwise as `unite`.

    masks     rings of each, in pixels.
    weights   one per mask, above 0.
    returns   () where nothing is covered by so much.
    """
    window = _bounds(ring for mask in masks for ring in mask)
    filled = [_fill(mask, window).astype(np.float64) for mask in masks]
    covered = np.tensordot(np.array(weights, np.float64), np.stack(filled), axes=1)
    least = sum(weights) / 2 * (1 - 1e-9)  # two equal weights are half each, whatever their sum is rounded to
    return _trace((covered >= least).astype(np.uint8), window)


def _trace(raster: np.ndarray, window: Box) -> tuple[Polygon, ...]:
    """The outlines of the cells that are marked, the largest first."""
    import cv2

    lines, _ = cv2.findContours(np.pad(raster, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    per_px = _per_px(window)
    start = math.floor(window.x0), math.floor(window.y0)
    traced = sorted(lines, key=lambda line: -cv2.contourArea(line))
    found = [np.asarray(cv2.approxPolyDP(line, _SLACK, True))[::-1, 0] for line in traced]  # OpenCV runs anticlockwise
    return tuple(_ring(line, start, per_px) for line in found if len(line) >= 3)


def _ring(line: np.ndarray, start: tuple[int, int], per_px: int) -> Polygon:
    """Cells of a padded raster -> pixels, from the topmost and then leftmost point."""
    line = np.roll(line, -int(np.lexsort((line[:, 0], line[:, 1]))[0]), axis=0)
    return tuple(Point(*((v - 0.5) / per_px + at for v, at in zip(p, start, strict=True))) for p in line.tolist())


def _bounds(rings: Iterable[Polygon]) -> Box:
    points = np.array([point for ring in rings for point in ring], np.float64)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Box(x0, y0, x1, y1)


def _per_px(window: Box) -> int:
    side_px = max(window.x1 - window.x0, window.y1 - window.y0, 1.0)
    return int(min(max(_LARGEST // side_px, 1), _FINEST))


def _fill(rings: Iterable[Polygon], window: Box) -> np.ndarray:
    """Mark the cells of a window that rings cover: 1 or 0."""
    import cv2

    per_px, start = _per_px(window), np.floor(window[:2])
    width, height = (math.ceil((window[i + 2] - start[i]) * per_px) for i in (0, 1))
    raster = np.zeros((max(height, 1), max(width, 1)), np.uint8)
    for ring in rings:
        # A whole number is the middle of a cell to the filler.
        cells = (np.array(ring, np.float64) - start) * per_px - 0.5
        cv2.fillPoly(raster, [np.round(cells * 2**_SHIFT).astype(np.int32)], 1, lineType=cv2.LINE_8, shift=_SHIFT)
    return raster
