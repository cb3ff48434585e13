"""Pixels <-> the thousand bins; the only place that knows the rule.

Source: the published processor, `BoxQuantizer` and `CoordinatesQuantizer`, mode "floor".
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from openflorence.contract.shapes import Box, Point
from openflorence.errors import BadRegion

BINS = 1000  # locations per axis: <loc_0> ... <loc_999>; there is no <loc_1000>

Bins = tuple[int, int, int, int]  # left, top, right, bottom


def to_bin(value_px: float, size_px: int) -> int:
    """Name the bin that holds a coordinate on an axis of `size_px` pixels; beyond the edge is the edge bin."""
    # Divide by the bin size first, as published: v * 1000 / s lands one bin higher at 135 px of 1080.
    return min(max(math.floor(value_px / (size_px / BINS)), 0), BINS - 1)


def to_px(bin_: float, size_px: int) -> float:
    """Give the centre of a bin in pixels, or a place between centres; to_bin gives a bin back at every image size."""
    return (bin_ + 0.5) * (size_px / BINS)


def spell(bin_: int) -> str:
    """Spell a bin as its location token."""
    return f"<loc_{bin_}>"


def spell_all(bins: Iterable[int]) -> str:
    """Spell a run of bins as location tokens, nothing between them."""
    return "".join(map(spell, bins))


def box_to_bins(box_px: Sequence[float], image_wh: tuple[int, int]) -> Bins:
    """Name the four bins that hold the corners of a box; what lies beyond the image is clipped.

    box_px    x0, y0, x1, y1 in pixels of the original image.
    returns   four ints in 0..999; the right and bottom edges fall in bin 999.
    raises    BadRegion if the box is empty, not finite or wholly outside the image.
    source    Published processor, floor rule.
    promise   bins_to_box gives back each corner inside the image to within half a bin.
    """
    check_box(box_px, image_wh)
    x0, y0, x1, y1 = points_to_bins((Point(*box_px[:2]), Point(*box_px[2:])), image_wh)
    return x0, y0, x1, y1


def bins_to_box(bins: Sequence[float], image_wh: tuple[int, int]) -> Box:
    """Give the box whose corners are the centres of four bins."""
    top_left, bottom_right = bins_to_points(bins, image_wh)
    return Box(*top_left, *bottom_right)


def points_to_bins(points_px: Iterable[Sequence[float]], image_wh: tuple[int, int]) -> tuple[int, ...]:
    """Name the bins of a run of points, x before y; what lies beyond the image is clipped."""
    return tuple(to_bin(value, size) for point in points_px for value, size in zip(point, image_wh, strict=True))


def bins_to_points(bins: Sequence[float], image_wh: tuple[int, int]) -> tuple[Point, ...]:
    """Give the points that lie at the centres of a run of bins; the run holds x and y of each point in turn."""
    width, height = image_wh
    pairs = zip(bins[0::2], bins[1::2], strict=True)
    return tuple(Point(to_px(x, width), to_px(y, height)) for x, y in pairs)


def check_box(box_px: Sequence[float], image_wh: tuple[int, int]) -> None:
    """Do nothing for a box that can be written as locations.

    A box without width or height is empty, unless both its edges are the centre of one bin: that is how a box
    thinner than a bin reads back, and what was read can be written again.

    raises    BadRegion if the box is empty, has swapped corners, is not finite or is wholly outside the image.
    """
    x0, y0, x1, y1 = box_px
    check_points((Point(x0, y0), Point(x1, y1)), image_wh)
    for low, high, size in ((x0, x1, image_wh[0]), (y0, y1, image_wh[1])):
        if low > high or (low == high and not _is_centre(low, size)):
            raise BadRegion(
                f"box {_show(box_px)} is empty or its corners are swapped; "
                "give x0, y0, x1, y1 in pixels with x0 < x1 and y0 < y1"
            )


def check_points(points_px: Iterable[Sequence[float]], image_wh: tuple[int, int]) -> None:
    """Do nothing for points of which something may be seen in the image.

    raises    BadRegion if a value is not finite, or if all points lie beyond the same edge of the image.
    """
    points = [tuple(point) for point in points_px]
    if not all(math.isfinite(value) for point in points for value in point):
        raise BadRegion(f"points {_show(points)} are not all finite; give pixels of an image of {_size(image_wh)}")
    for values, size in zip(zip(*points, strict=True), image_wh, strict=True):
        if max(values) < 0 or min(values) >= size or (max(values) == 0 > min(values)):
            raise BadRegion(
                f"points {_show(points)} lie outside the image of {_size(image_wh)}; "
                "give pixels of the upright original image"
            )


def published_px(bin_: int, size_px: int) -> float:
    """Give the centre of a bin as the published processor computes it: in 32 bits, the scale rounded first.

    source    Published processor, `dequantize` on float32 tensors: bin 52 of 640 px is 33.599998474121094.
    """
    return float(np.float32(bin_ + 0.5) * np.float32(size_px / BINS))


def as_published(value_px: float, size_px: int) -> float:
    """Give the published spelling of a coordinate: 32 bits on a bin centre, anything else as it stands."""
    return published_px(to_bin(value_px, size_px), size_px) if _is_centre(value_px, size_px) else float(value_px)


def _is_centre(value_px: float, size_px: int) -> bool:
    return to_px(to_bin(value_px, size_px), size_px) == value_px


def _size(image_wh: tuple[int, int]) -> str:
    return f"{image_wh[0]} x {image_wh[1]} px"


def _show(values: Iterable[object]) -> str:
    return str(tuple(values))
