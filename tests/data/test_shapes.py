"""Every kind can be told from every other, as small as it is ever drawn; words are outlines of the fonts."""

import itertools

import numpy as np
import pytest

from openflorence.data.glyphs import CAP_HEIGHT, FONTS, word_rings
from openflorence.data.painting import PLANE, Sprite, paint, shades_of
from openflorence.data.shapes import KINDS, SHAPES, UNIT
from openflorence.data.words import COLOURS, GROUNDS, SIGN_WORDS
from openflorence.errors import BadConfig


def drawn(kind: str, length_px: int, colour: str = "red", ground: str = "gray") -> tuple[np.ndarray, np.ndarray]:
    """Draw one kind upright in the middle of 64 px: image and silhouette."""
    sprite = Sprite(
        kind=kind,
        colour=colour,
        size="small",
        shape=SHAPES[kind],
        shades=shades_of(COLOURS[colour]),
        length=length_px * PLANE // 64,
        turn_deg=0,
        mirrored=False,
        outlined=False,
        striped=False,
        centre=(PLANE // 2, PLANE // 2),
    )
    backdrop = np.full((64, 64, 3), GROUNDS[ground], np.uint8)
    image, owner = paint(backdrop, [sprite])
    return image.astype(int), owner != 0


def test_there_are_thirty_two_kinds():
    assert len(KINDS) == len(set(KINDS)) == 32


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_centred_and_its_longer_side_is_two_units(kind):
    low, high = SHAPES[kind].points.min(axis=0), SHAPES[kind].points.max(axis=0)
    assert (high - low).max() == pytest.approx(2 * UNIT, abs=1)
    assert np.abs(high + low).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_mostly_its_own_colour(kind):
    image, mask = drawn(kind, 60)
    own = np.abs(image - COLOURS["red"]).sum(axis=2) < 30
    assert own[mask].mean() > 0.45


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_differs_from_every_other_at_twenty_pixels(kind):
    one, mask = drawn(kind, 20)
    for other in KINDS:
        two, other_mask = drawn(other, 20)
        differ = np.abs(one - two).sum(axis=2) > 60
        # Nearest: circle and hexagon. A tenth of the pixels is a difference one sees.
        assert other == kind or differ.sum() / (mask | other_mask).sum() > 0.1


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_on_every_background(colour, ground):
    assert np.abs(np.subtract(COLOURS[colour], GROUNDS[ground])).max() > 70


def test_colours_differ_from_one_another():
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert np.abs(np.subtract(one, other)).max() >= 85


def test_sign_words_are_short_and_distinct():
    assert len(SIGN_WORDS) == len(set(SIGN_WORDS)) > 95
    assert all(2 <= len(word) <= 7 for word in SIGN_WORDS)


@pytest.mark.parametrize("font", FONTS)
def test_every_font_has_every_letter_and_the_same_height_of_capitals(font):
    for word in SIGN_WORDS:
        rings, (x0, _, x1, _) = word_rings(word, font)
        assert len(rings) >= len(word)
        assert x1 - x0 > 400 * len(word)
    _, (_, top, _, bottom) = word_rings("HEIL", font)
    assert (top, bottom) == (-CAP_HEIGHT, 0)


def test_a_letter_without_an_outline_is_named():
    with pytest.raises(BadConfig, match="letter"):
        word_rings("\U0001f41f", FONTS[0])
