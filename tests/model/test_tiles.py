"""Tiles: where they lie, and that what is asked about them is answered about the picture."""

from itertools import pairwise, product

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.regions import Answer, Box, Region
from openflorence.contract.tasks import find_task
from openflorence.errors import BadConfig
from openflorence.model.tiles import ask_in_tiles, choose_grid, plan_tiles


def test_two_by_two_tiles_overlap_by_a_quarter_of_their_side():
    # By hand: 2 tiles less a quarter of one are 700 px, so a tile has 400 px; down, 350 px give 200.
    assert plan_tiles((700, 350), (2, 2), 0.25) == (
        Box(0, 0, 400, 200),
        Box(300, 0, 700, 200),
        Box(0, 150, 400, 350),
        Box(300, 150, 700, 350),
    )


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
def test_tiles_cover_the_picture_are_equal_and_overlap_as_asked(overlap):
    for width, height, rows, columns in product((97, 640), (101, 480), (1, 2, 5), (1, 3, 4)):
        boxes = plan_tiles((width, height), (rows, columns), overlap)
        covered = np.zeros((height, width), bool)
        for x0, y0, x1, y1 in boxes:
            covered[y0:y1, x0:x1] = True
        assert covered.all()
        assert len(boxes) == rows * columns
        assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes}) == 1
        for one, other in pairwise(boxes[:columns]):
            # Rounding moves each of the two edges by less than a pixel.
            assert abs(one.x1 - other.x0 - overlap * (one.x1 - one.x0)) < 2


GRIDS = {  # image, about how many: rows and columns by hand
    ((640, 640), 4): (2, 2),
    ((640, 640), 9): (3, 3),
    ((1280, 640), 8): (2, 4),
    ((1280, 640), 4): (1, 3),  # tiles of 640 x 427; two rows of two would be 320 x 640
    ((210, 297), 4): (2, 2),  # a page
    ((3000, 100), 4): (1, 4),
    ((640, 640), 1): (1, 1),
    ((40, 40), 100): (1, 1),  # tiles have at least 32 px unless asked for
}


@pytest.mark.parametrize(("image_wh", "about"), GRIDS)
def test_tiles_are_chosen_near_to_square(image_wh, about):
    assert choose_grid(image_wh, about) == GRIDS[image_wh, about]


@pytest.mark.parametrize(
    ("tiles", "overlap"), [((0, 2), 0.25), ((2, 2), 0.6), ((2, 2), -0.1), (0, 0.25), ((50, 1), 0.25)]
)
def test_tiles_that_cannot_be_are_named(tiles, overlap):
    with pytest.raises(BadConfig, match=r"give|allowed"):
        plan_tiles((640, 480), tiles, overlap)


def test_what_is_seen_in_tiles_is_answered_in_pixels_of_the_picture():
    # A white spot on black; whoever is asked finds the box around what is white.
    canvas = np.zeros((90, 120, 3), np.uint8)
    canvas[40:58, 50:75] = 255
    picture = Image.fromarray(canvas)

    def ask(crops):
        boxes = [crop.convert("L").getbbox() for crop in crops]
        seen = [(Region("spot", box=Box(*box)),) if box else () for box in boxes]
        return [Answer(find_task("detect"), crop.size, regions=r) for crop, r in zip(crops, seen, strict=True)]

    answer = ask_in_tiles(ask, picture, plan_tiles(picture.size, (2, 3)))
    assert answer.regions == (Region("spot", box=Box(50, 40, 75, 58)),)
    assert answer.image is picture
    assert answer.image_wh == (120, 90)
