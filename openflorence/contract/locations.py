"""Pixels <-> the thousand bins; the only place that knows the rule.

Source: the published processor, `BoxQuantizer` and `CoordinatesQuantizer`, mode "floor".
"""

import math

BINS = 1000  # locations per axis: <loc_0> ... <loc_999>; there is no <loc_1000>


def to_bin(value_px: float, size_px: int) -> int:
    """Name the bin that holds a coordinate on an axis of `size_px` pixels; beyond the edge is the edge bin."""
    # Divide by the bin size first, as published: v * 1000 / s lands one bin higher at 135 px of 1080.
    return min(max(math.floor(value_px / (size_px / BINS)), 0), BINS - 1)


def to_px(bin_: int, size_px: int) -> float:
    """Give the centre of a bin in pixels; to_bin gives the bin back at every image size."""
    return (bin_ + 0.5) * (size_px / BINS)


def spell(bin_: int) -> str:
    """Spell a bin as its location token."""
    return f"<loc_{bin_}>"
