"""What pages are made of: names, texts that are cut, strips, pictures."""

import numpy as np
from PIL import Image

from openflorence.pages.charts import ends_of, interval_svg
from openflorence.pages.pictures import data_uri
from openflorence.pages.pieces import called, shorten


def test_names_are_written_as_people_do():
    assert called("recall_at_1") == "R@1"
    assert called("map_order") == "mAP order"
    assert called("mask_ap50") == "mask AP50"
    assert called("cider_d_in-domain") == "CIDEr-D in-domain"
    assert called("silent_without_text") == "silent without text"


def test_a_text_that_is_cut_says_how_long_it_was():
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "abc … (4 letters)"


def test_a_strip_puts_values_in_their_place():
    # 150 wide with 6 at each end: the middle is 75; what is beyond an end stands at it.
    assert 'cx="75.0"' in interval_svg(0.5, None, (0.0, 1.0))
    assert 'x1="6.0" y1="11.0" x2="144.0"' in interval_svg(0.5, (-1.0, 3.0), (0.0, 1.0))
    assert ends_of([(-0.1, 0.3), (0.0, float("inf"))]) == (-0.3, 0.3)
    assert ends_of([]) == (-1.0, 1.0)


def test_a_picture_is_the_smaller_of_two_files():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert data_uri(Image.new("RGB", (64, 64), "#808080")).startswith("data:image/png;base64,")
    assert data_uri(noise).startswith("data:image/jpeg;base64,")
