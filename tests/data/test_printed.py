"""Printed pages: every word is there, where its quad says; one picture on every machine."""

from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest

from openflorence.data.printed import PageConfig, draw_page
from openflorence.data.words import SIGN_WORDS
from openflorence.errors import BadConfig

PLATES = PageConfig(words=40, width_px=512, plates=True, line_percent=260, gap_percent=140)
PLAIN = PageConfig(words=40, width_px=512)


@pytest.mark.parametrize("config", [PLAIN, PLATES], ids=["paper", "plates"])
def test_words_stand_in_reading_order_and_none_touches_another(config):
    page = draw_page(3, config)
    height, width, _ = page.image.shape
    boxes = np.array([region.bounds for region in page.words])
    assert [region.label for region in page.words if region.label not in SIGN_WORDS] == []
    assert len(boxes) == 40
    assert (boxes[:, :2] > 0).all()
    assert (boxes[:, 2:] < (width, height)).all()
    for one, other in pairwise(boxes):
        next_on_line = other[0] > one[2]
        next_line = other[1] > one[1] + config.cap_px
        assert next_on_line != next_line


def test_ink_lies_in_the_quads_and_reaches_their_edges():
    page = draw_page(0, PLAIN)
    dark = page.image.max(axis=2) < 128
    assert dark.sum() > 2000
    for region in page.words:
        x0, y0, x1, y1 = region.bounds
        rows, columns = slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1)
        ys, xs = np.nonzero(dark[rows, columns])
        # Edges of letters are smooth, so the outermost pixels may be pale: within a pixel and a half.
        assert xs.min() + int(x0) - x0 < 1.5
        assert x1 - (xs.max() + int(x0) + 1) < 1.5
        assert ys.min() + int(y0) - y0 < 1.5
        assert y1 - (ys.max() + int(y0) + 1) < 1.5
        dark[rows, columns] = False
    assert not dark.any()


def test_a_seed_is_one_page():
    # Drawn once on x86-64 with OpenCV 5.0; whole numbers all the way, so it holds elsewhere.
    digests = {config: sha256(draw_page(7, config).image.tobytes()).hexdigest()[:16] for config in (PLAIN, PLATES)}
    assert digests == {PLAIN: "a31dbd0a345462fb", PLATES: "6060c4056a3ff5d9"}


@pytest.mark.parametrize(
    "wrong",
    [{"words": 0}, {"cap_px": 3}, {"width_px": 200}, {"line_percent": 100}, {"plates": True}, {"margin_px": 8}],
    ids=str,
)
def test_pages_that_cannot_be_are_named(wrong):
    with pytest.raises(BadConfig, match=r"need|at least"):
        PageConfig(**wrong)
