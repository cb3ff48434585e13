"""Regions as what metrics take: boxes, rings, masks, and which labels are equal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Box, Polygon, Region

LEAST = 0.5  # overlap from which a place counts as found


def bounds(regions: Sequence[Region]) -> list[Box]:
    """Give the boxes of regions; what has no geometry gets an empty one, which overlaps nothing."""
    return [region.bounds or Box(0, 0, 0, 0) for region in regions]


def rings(regions: Sequence[Region]) -> list[Polygon]:
    """Give all rings of all regions."""
    return [ring for region in regions for ring in region.polygons]


def alike(predicted: Sequence[Region], true: Sequence[Region]) -> NDArray[np.bool_]:
    """Say where the label of a prediction is that of a truth, after trimming: (predicted, true)."""
    same = [[one.label.strip() == other.label.strip() for other in true] for one in predicted]
    return np.array(same, bool).reshape(len(predicted), len(true))
