"""One rule between pixels and bins, the published one, at every image size."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflorence.contract.locations import (
    BINS,
    as_published,
    bins_to_box,
    bins_to_points,
    box_to_bins,
    check_box,
    points_to_bins,
    published_px,
    spell,
    spell_all,
    to_bin,
    to_px,
)
from openflorence.contract.regions import Box, Point
from openflorence.errors import BadRegion

SIZES = st.integers(1, 20000)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 135, 480, 640, 768, 999, 1000, 1001, 1080, 1300, 4032, 19999, 20000])
def test_trap_21_every_bin_centre_falls_back_in_its_bin(size):
    assert [to_bin(to_px(bin_, size), size) for bin_ in range(BINS)] == list(range(BINS))


def test_trap_21_every_bin_centre_falls_back_in_its_bin_at_every_size():
    # The same arithmetic for all twenty thousand sizes at once: numpy's float64 and Python's float are one format.
    bins = np.arange(BINS, dtype=np.float64)
    for sizes in np.split(np.arange(1, 20001, dtype=np.float64)[:, None] / BINS, 20):
        assert np.array_equal(np.floor((bins + 0.5) * sizes / sizes), np.broadcast_to(bins, (1000, BINS)))


@given(SIZES, st.data())
def test_trap_21_a_coordinate_returns_to_within_half_a_bin(size, data):
    value = data.draw(st.floats(0, size))
    # Half a bin, and a rounding error of a few units in the last place.
    assert abs(to_px(to_bin(value, size), size) - value) <= size / 2000 * (1 + 1e-9)


def test_trap_23_the_division_by_the_bin_size_comes_first():
    # By hand: 135 * 1000 / 1080 is exactly 125; 135 / (1080 / 1000) is 124.99999999999999 in 64 bits.
    assert to_bin(135, 1080) == 124


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), SIZES)
def test_trap_2_no_coordinate_makes_bin_1000(value, size):
    assert 0 <= to_bin(value, size) <= 999


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (-50, -50, 900, 900), (639.99, 479.99, 640, 480)])
def test_trap_2_a_box_at_or_beyond_the_edge_is_clipped_to_the_last_bin(box):
    # By hand: 640 / (640 / 1000) is 1000, one past the last location in the vocabulary.
    assert box_to_bins(Box(*box), (640, 480))[2:] == (999, 999)


@pytest.mark.parametrize(
    ("box", "bins"),
    [
        ((0, 0, 30, 40), (0, 0, 37, 33)),
        ((500, 550, 600, 690), (625, 458, 750, 575)),
        ((750, 1121, 851, 1239), (937, 934, 999, 999)),
    ],
)
def test_trap_22_width_goes_with_x(box, bins):
    # The transformers test-suite, image of 800 x 1200: a swap of the two would move every number.
    assert box_to_bins(box, (800, 1200)) == bins


def test_a_box_comes_back_as_bin_centres():
    # By hand: (52 + 0.5) * 0.64 and so on, in 64 bits.
    assert bins_to_box((52, 332, 932, 774), (640, 480)) == pytest.approx((33.6, 159.6, 596.8, 371.76), abs=1e-12)


def test_points_keep_their_order_and_axes():
    assert points_to_bins([Point(0, 99), Point(199, 0)], (200, 100)) == (0, 990, 995, 0)
    assert np.allclose(bins_to_points((0, 990, 995, 0), (200, 100)), [(0.1, 99.05), (199.1, 0.05)], atol=1e-12)


def test_the_published_arithmetic_is_in_32_bits():
    # Published processor at 640 x 480, bins 52 332 932 774: recorded outputs.
    published = [published_px(b, s) for b, s in zip((52, 332, 932, 774), (640, 480) * 2, strict=True)]
    assert published == [33.599998474121094, 159.59999084472656, 596.7999877929688, 371.7599792480469]


@given(st.integers(0, 999), SIZES)
def test_a_centre_is_published_in_32_bits_and_stays_so(bin_, size):
    once = as_published(to_px(bin_, size), size)
    assert once == published_px(bin_, size) == as_published(once, size)


def test_what_is_no_centre_is_published_as_it_stands():
    assert as_published(10.25, 640) == 10.25


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5)],
    ids=["no width", "no height", "swapped x", "swapped y"],
)
def test_an_empty_box_is_refused(box):
    with pytest.raises(BadRegion, match="empty or its corners are swapped"):
        check_box(box, (100, 100))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_a_box_that_is_not_finite_is_refused(value, place):
    box = [1.0, 2.0, 30.0, 40.0]
    box[place] = value
    with pytest.raises(BadRegion, match="not all finite"):
        box_to_bins(box, (100, 100))


@pytest.mark.parametrize("box", [(-9, 1, -1, 9), (-9, 1, 0, 9), (1, -9, 9, 0), (200, 1, 210, 9), (1, 100, 9, 110)])
def test_a_box_wholly_outside_is_refused(box):
    with pytest.raises(BadRegion, match="200 x 100 px"):
        check_box(box, (200, 100))


@pytest.mark.parametrize("box", [(-9, 1, 0.01, 9), (199, 99, 300, 300), (0, 0, 200, 100)])
def test_a_box_partly_inside_is_taken(box):
    check_box(box, (200, 100))


@given(st.integers(0, 999), st.integers(0, 999), SIZES, SIZES)
def test_a_box_thinner_than_a_bin_can_be_written_again(x, y, width, height):
    box = bins_to_box((x, y, x, y), (width, height))
    assert box_to_bins(box, (width, height)) == (x, y, x, y)


def test_locations_are_spelt_as_in_the_vocabulary():
    assert spell(0) == "<loc_0>"
    assert spell_all((52, 999)) == "<loc_52><loc_999>"
