"""Overlaps of boxes, by hand."""

import numpy as np
import pytest

from openflorence.contract.overlaps import box_iou, iou
from openflorence.contract.shapes import Box

A = Box(0, 0, 10, 10)
CASES = {
    "half beside": (Box(5, 0, 15, 10), 50 / 150),
    "a corner": (Box(9, 9, 19, 19), 1 / 199),
    "inside": (Box(0, 0, 5, 5), 25 / 100),
    "touching": (Box(10, 0, 20, 10), 0.0),
    "apart": (Box(30, 30, 40, 40), 0.0),
    "no area": (Box(5, 5, 5, 9), 0.0),
    "swapped": (Box(9, 9, 1, 1), 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_two_boxes_by_hand(name):
    other, wanted = CASES[name]
    assert iou(A, other) == iou(other, A) == pytest.approx(wanted)
    assert box_iou([A], [other])[0, 0] == pytest.approx(wanted)


def test_a_box_is_itself_even_without_area():
    point = Box(3, 3, 3, 3)
    assert iou(A, A) == iou(point, point) == 1.0
    assert box_iou([point], [point])[0, 0] == 0.0  # a place that nothing can lie in


def test_many_at_once_are_two_at_a_time():
    others = [other for other, _ in CASES.values()]
    table = box_iou([A, others[0]], others)
    assert table.shape == (2, len(others))
    assert np.allclose(table[0], [iou(A, other) for other in others])
    assert box_iou([], others).shape == (0, len(others))
