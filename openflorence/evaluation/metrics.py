"""Metrics as plain functions on numbers: overlaps, matching, shares, and how sure a share is.

Every figure of this project is a sum over a sum (`Parts`): correct boxes over boxes, shared pixels over pixels. Parts
of images add up, so a figure and its uncertainty come from the same table of parts, one row an image.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.contract.shapes import Box, Polygon, Quad


class Parts(NamedTuple):
    """One image's share in a figure: what was right, out of what there was."""

    right: float
    whole: float


def box_iou(a_px: Sequence[Box], b_px: Sequence[Box]) -> NDArray[np.float64]:
    """Intersection over union of every box of a with every box of b: (len(a), len(b)).

    returns   0 where both boxes are without area.
    source    Everingham et al. 2010, PASCAL VOC, without its "+ 1": edges are continuous.
    """
    a = np.array(a_px, np.float64).reshape(-1, 1, 4)
    b = np.array(b_px, np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def quad_iou(a_px: Quad, b_px: Quad) -> float:
    """Intersection over union of the convex hulls of two quads; the area two quads share as polygons, not as boxes.

    source    ICDAR 2015 robust reading, task 4.1: overlap of text quads as polygons.
    """
    a, b = (cv2.convexHull(np.array(quad, np.float32)) for quad in (a_px, b_px))
    areas = cv2.contourArea(a) + cv2.contourArea(b)
    if min(cv2.contourArea(a), cv2.contourArea(b)) <= 0:
        return 0.0
    shared, _ = cv2.intersectConvexConvex(a, b)
    return float(shared / (areas - shared))


def match(overlap: NDArray[np.float64], least: float = 0.5) -> list[tuple[int, int]]:
    """Pair predictions with truths one to one, the best overlap first.

    overlap   (predictions, truths); 0 where two may not be paired, as when their labels differ.
    least     smallest overlap that counts.
    returns   (prediction, truth) pairs; among equal overlaps the earlier prediction, then the earlier truth goes first.
    """
    pairs: list[tuple[int, int]] = []
    places = np.argwhere(overlap >= least)
    best_first = np.argsort(-overlap[places[:, 0], places[:, 1]], kind="stable")
    for prediction, truth in places[best_first].tolist():
        if all(prediction != one and truth != other for one, other in pairs):
            pairs.append((prediction, truth))
    return pairs


def rasterise(rings: Iterable[Polygon], image_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels whose centre lies in one of the rings: (H, W).

    rings     parts of one mask, in pixels; they add up, so overlapping parts do not cancel out.
    source    Even-odd rule, Shimrat 1962, exact. cv2.fillPoly also fills every pixel that an edge runs through: at
              20 px a side, the outline of half a pixel that this adds is a tenth of the area.
    """
    width, height = image_wh
    mask = np.zeros((height, width), bool)
    centres = np.arange(width) + 0.5
    for ring in rings:
        inside = np.zeros_like(mask)
        for (ax, ay), (bx, by) in zip(ring, (*ring[1:], *ring[:1]), strict=True):
            # The rows whose centre is between the ends; pixels left of the edge change sides there.
            first, last = (min(max(math.ceil(y - 0.5), 0), height) for y in sorted((ay, by)))
            if first < last:
                x = ax + (np.arange(first, last) + 0.5 - ay) * (bx - ax) / (by - ay)
                inside[first:last] ^= centres < x[:, None]
        mask |= inside
    return mask


def mask_parts(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Parts:
    """Pixels in both masks, out of the pixels in either.

    source    Their ratio is the IoU of an image; the ratio of their sums over images the overall IoU (oIoU) of
              referring segmentation, Yu et al. 2018 (MAttNet), where large masks weigh more.
    """
    return Parts(float((a & b).sum()), float((a | b).sum()))


def shared_count(a: Counter[str], b: Counter[str]) -> int:
    """How many members two multisets have in common: 2 red fish and 3 red fish share 2."""
    return (a & b).total()


def ratio(right: float, whole: float) -> float | None:
    """Give a share; None when there was nothing to judge."""
    return right / whole if whole else None


def f1_parts(right: float, predicted: float, true: float) -> Parts:
    """F1 as a sum over a sum: the harmonic mean of precision and recall is twice the right over all that was counted.

    source    van Rijsbergen 1979; Dice 1945. With nothing predicted it is 0 where precision has no value.
    """
    return Parts(2 * right, predicted + true)


def half_width(parts: NDArray[np.float64], rounds: int = 1000, seed: int = 0) -> float | None:
    """Half of the 95 % interval of a figure, had other images of the same kind been drawn.

    parts     (images, 2): right and whole of each image; both 0 where an image has no say.
    returns   None when there was nothing to judge, or one image alone; 0 when all images agree, which at 0 or 1 says
              that the figure is at the end of its range, not that it is certain.
    source    Percentile bootstrap over images, Efron and Tibshirani 1993; the middle 95 % of `rounds` resamplings.
    """
    if len(parts) < 2 or not parts[:, 1].any():
        return None
    images = len(parts)
    rng = np.random.Generator(np.random.PCG64(seed))
    weights = rng.multinomial(images, np.full(images, 1 / images), size=rounds)
    right, whole = (weights @ parts).T
    figures = right[whole > 0] / whole[whole > 0]
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(high - low) / 2
