"""Metrics against values worked out by hand; the sums stand beside them."""

from collections import Counter

import numpy as np
import pytest

from openflorence.contract.shapes import Box, Point
from openflorence.evaluation.metrics import (
    Parts,
    box_iou,
    f1_parts,
    half_width,
    mask_parts,
    match,
    quad_iou,
    rasterise,
    ratio,
    shared_count,
)


def ring(*points: tuple[float, float]) -> tuple[Point, ...]:
    return tuple(Point(*point) for point in points)


SQUARE = ring((0, 0), (10, 0), (10, 10), (0, 10))


def test_box_iou_by_hand():
    boxes = [Box(0, 0, 10, 10), Box(5, 0, 15, 10), Box(20, 20, 30, 30)]
    # The first two share 5 x 10 of 100 + 100 - 50; the third touches neither.
    assert box_iou(boxes, boxes) == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))
    assert box_iou([Box(0, 0, 4, 4)], [Box(4, 0, 8, 4)])[0, 0] == 0.0  # a common edge has no area


def test_boxes_without_area_and_no_boxes_overlap_nothing():
    assert box_iou([Box(3, 3, 3, 3)], [Box(3, 3, 3, 3), Box(0, 0, 9, 9)]).tolist() == [[0, 0]]
    assert box_iou([], [Box(0, 0, 1, 1)]).shape == (0, 1)
    assert box_iou([Box(0, 0, 1, 1)], []).shape == (1, 0)


def test_quad_iou_sees_the_turn_that_boxes_do_not():
    diamond = ring((5, 0), (10, 5), (5, 10), (0, 5))
    # The same bounds; the diamond has half of the square's area and lies inside it.
    assert quad_iou(diamond, SQUARE) == pytest.approx(0.5)
    assert quad_iou(SQUARE, SQUARE) == pytest.approx(1.0)
    assert quad_iou(SQUARE, ring((5, 0), (15, 0), (15, 10), (5, 10))) == pytest.approx(1 / 3)


def test_quads_that_are_lines_crossed_or_apart():
    assert quad_iou(ring((0, 0), (5, 5), (10, 10), (2, 2)), SQUARE) == 0.0
    assert quad_iou(ring((0, 0), (10, 10), (10, 0), (0, 10)), SQUARE) == pytest.approx(1.0)  # two corners swapped
    assert quad_iou(ring((20, 0), (30, 0), (30, 9), (20, 9)), SQUARE) == 0.0


def test_matching_takes_the_best_first_and_each_once():
    # 0.9 first; then 0.85 and 0.6 are taken, for their truth or prediction is.
    assert match(np.array([[0.6, 0.9], [0.8, 0.85]])) == [(0, 1), (1, 0)]
    assert match(np.array([[0.7, 0.7], [0.7, 0.7]])) == [(0, 0), (1, 1)]
    assert match(np.array([[0.5, 0.0], [0.9, 0.49]])) == [(1, 0)]
    assert match(np.array([[0.5]])) == [(0, 0)]  # exactly half counts
    assert match(np.zeros((0, 3))) == match(np.zeros((3, 0))) == []


def test_a_pixel_is_in_a_ring_when_its_centre_is():
    mask = rasterise([ring((2, 1), (5, 1), (5, 3), (2, 3))], (8, 4))
    assert mask.shape == (4, 8)
    assert mask.sum() == 6
    assert mask[1:3, 2:5].all()
    # Centres of the staircase x + y < 3.9 are (i + 0.5, j + 0.5) with i + j <= 2: six of them.
    assert rasterise([ring((0, 0), (3.9, 0), (0, 3.9))], (8, 8)).sum() == 6
    assert rasterise([ring((0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4))], (4, 4)).sum() == 0


def test_rings_add_up_and_may_leave_the_image():
    one, other = ring((0, 0), (4, 0), (4, 4), (0, 4)), ring((2, 0), (6, 0), (6, 4), (2, 4))
    assert rasterise([one, other], (8, 8)).sum() == 24  # 16 + 16 - 8
    assert rasterise([ring((-5, -5), (3, -5), (3, 2), (-5, 2))], (8, 8)).sum() == 6  # 3 x 2 are inside
    assert rasterise([ring((-9, 0), (-2, 0), (-2, 5)), ring((20, 20), (30, 20), (30, 30)), ()], (8, 8)).sum() == 0


def test_a_raster_has_the_area_of_its_circle():
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    circle = ring(*((50.3 + 40 * np.cos(a), 49.8 + 40 * np.sin(a)) for a in angles))
    # pi * 1600 is 5026.5; one part in two hundred is less than a tenth of a pixel around.
    assert rasterise([circle], (100, 100)).sum() == pytest.approx(np.pi * 1600, rel=0.005)


def test_mask_parts_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:, :2], b[:2] = True, True
    assert mask_parts(a, b) == Parts(4, 12)  # 8 + 8 - 4
    assert mask_parts(a, ~a) == Parts(0, 16)


def test_multisets_share_the_lesser_counts():
    assert shared_count(Counter(fish=2, cat=1), Counter(fish=3, dog=1)) == 2
    assert shared_count(Counter(), Counter(fish=1)) == 0


def test_f1_is_the_harmonic_mean():
    # 2 of 3 predicted are right, 2 of 5 true are found: 2 * 2/3 * 2/5 / (2/3 + 2/5) is 1/2.
    assert ratio(*f1_parts(2, 3, 5)) == pytest.approx(0.5)
    assert ratio(*f1_parts(0, 0, 5)) == 0.0
    assert ratio(*f1_parts(0, 0, 0)) is None


def test_the_half_width_is_the_one_of_a_coin():
    coin = np.stack([np.arange(400) % 2, np.ones(400)], axis=1)
    # 1.96 * sqrt(0.5 * 0.5 / 400) is 0.049; a thousand resamplings know it to a tenth.
    assert half_width(coin) == pytest.approx(0.049, rel=0.1)
    assert half_width(coin) == half_width(coin)
    assert half_width(coin[:100]) == pytest.approx(0.098, rel=0.1)


def test_the_half_width_counts_images_not_boxes():
    coin = np.stack([np.arange(400) % 2, np.ones(400)], axis=1)
    assert half_width(coin * 50) == half_width(coin)  # fifty boxes an image, all right or all wrong


def test_what_is_certain_or_unknown_has_no_width():
    assert half_width(np.ones((10, 2))) == 0.0
    assert half_width(np.ones((1, 2))) is None
    assert half_width(np.zeros((10, 2))) is None
    # One image of thirty has a say: resamplings without it say nothing, the others all say 1.
    assert half_width(np.eye(30)[:, :1].repeat(2, axis=1)) == 0.0
