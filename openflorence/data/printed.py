"""Pages of printed words with a quad around each: dense text for measurements, in the words and letters of signs.

A page is drawn in whole numbers, so it is one picture on every machine; see `painting.py`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from openflorence.contract.regions import Point, Region
from openflorence.data.chance import dice, pick
from openflorence.data.glyphs import CAP_HEIGHT, FONTS, Ring, word_rings
from openflorence.data.painting import RGB, Pixels, shades_of
from openflorence.data.shapes import DARK
from openflorence.data.words import COLOURS, GROUNDS, PLATES, SIGN_WORDS
from openflorence.errors import BadConfig

_PAPER, _INK = (250, 250, 248), (24, 24, 28)
_FINE = 4  # fine pixels per pixel, each way
_SHIFT = 4  # binary places of the coordinates given to the polygon filler
_UNIT = _FINE << _SHIFT  # parts of a pixel; places on a page are counted in these until it is filled
_PAD, _RIM = CAP_HEIGHT * 2 // 5, CAP_HEIGHT // 9  # of a plate, in font units, as signs have them

Edges = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """What a page is like. A seed means the same page only under the same config."""

    words: int = 300  # how many are printed
    width_px: int = 1024  # of the page; its height follows from its lines
    cap_px: int = 16  # height of a capital
    line_percent: int = 220  # from line to line, of a capital's height
    gap_percent: int = 70  # between words, of a capital's height
    margin_px: int = 40
    plates: bool = False  # as in the drawn world: plates of all colours, a word on each; else black on white paper

    def __post_init__(self) -> None:
        if self.words < 1 or self.cap_px < 4 or self.width_px - 2 * self.margin_px < 20 * self.cap_px:
            raise BadConfig(
                f"{self.words} words in capitals of {self.cap_px} px on {self.width_px} px with margins of "
                f"{self.margin_px} px: need a word, 4 px, and room for twenty capitals between the margins"
            )
        line, gap = (210, 90) if self.plates else (130, 20)
        if self.line_percent < line or self.gap_percent < gap or self.margin_px < self.cap_px:
            raise BadConfig(
                f"line_percent {self.line_percent}, gap_percent {self.gap_percent}, margin_px {self.margin_px}: at "
                f"least {line}, {gap} and a capital's height, or words touch"
            )


@dataclass(frozen=True, eq=False)
class Page:
    """A picture of words in lines, and every word with its quad in reading order."""

    seed: int
    image: Pixels  # (H, W, 3) RGB
    words: tuple[Region, ...]  # label and quad, in pixels; around the ink, as on the signs of the drawn world


@dataclass(frozen=True, eq=False)
class _Word:
    """A word before it is printed: its outlines in font units, and where the pen starts."""

    text: str
    rings: list[Ring]
    ink: Edges  # in font units
    x: int
    base: int
    colours: tuple[str, str] | None  # of plate and ink

    def box(self, cap: int, pad: int = 0) -> Edges:
        """Where the ink is on the page; with a margin in font units."""
        x0, y0, x1, y1 = self.ink
        wide = x0 - pad, min(y0, -CAP_HEIGHT) - pad, x1 + pad, max(y1, 0) + pad
        a, b, c, d = (v * cap // CAP_HEIGHT for v in (wide if pad else self.ink))
        return self.x + a, self.base + b, self.x + c, self.base + d


def draw_page(seed: int, config: PageConfig = PageConfig()) -> Page:
    """Print one page; the same seed and config give the same page on every machine.

    seed      any int >= 0; chooses font, words and colours.
    """
    rng = dice(seed)
    paper = GROUNDS[pick(rng, tuple(GROUNDS))] if config.plates else _PAPER
    words, lines = _lay_out(rng, config)
    height_px = 2 * config.margin_px + config.cap_px + (lines - 1) * config.cap_px * config.line_percent // 100
    image = _print(words, paper, (config.width_px, height_px), config.cap_px * _UNIT)
    return Page(seed, image, tuple(_region(word, config.cap_px * _UNIT) for word in words))


def _lay_out(rng: np.random.Generator, config: PageConfig) -> tuple[list[_Word], int]:
    """Set words from left to right, line after line; gives them and the number of lines."""
    font = pick(rng, FONTS)
    left, right = config.margin_px * _UNIT, (config.width_px - config.margin_px) * _UNIT
    cap = config.cap_px * _UNIT
    pen, lines = left, 1
    words: list[_Word] = []
    for _ in range(config.words):
        text = pick(rng, SIGN_WORDS)
        colours = pick(rng, PLATES) if config.plates else None
        rings, ink = word_rings(text, font)
        width = (ink[2] - ink[0]) * cap // CAP_HEIGHT
        if pen + width > right and pen > left:
            pen, lines = left, lines + 1
        base = left + cap + (lines - 1) * cap * config.line_percent // 100
        words.append(_Word(text, rings, ink, pen - ink[0] * cap // CAP_HEIGHT, base, colours))
        pen += width + cap * config.gap_percent // 100
    return words, lines


def _print(words: list[_Word], paper: RGB, image_wh: tuple[int, int], cap: int) -> Pixels:
    """Fill the outlines on a canvas several times the size, then reduce: smooth edges."""
    width, height = image_wh[0] * _FINE, image_wh[1] * _FINE
    canvas = np.full((height, width, 3), paper, np.uint8)
    for word in words:
        ink = _INK
        if word.colours is not None:
            plate, ink = (COLOURS[name] for name in word.colours)
            _fill(canvas, [_bar(word.box(cap, _PAD))], shades_of(plate)[DARK])
            _fill(canvas, [_bar(word.box(cap, _PAD - _RIM))], plate)
        rings = [np.array(ring, np.int64) * cap // CAP_HEIGHT + (word.x, word.base) for ring in word.rings]
        _fill(canvas, rings, ink)
    for _ in range(_FINE.bit_length() - 1):  # halving is (a + b + c + d + 2) >> 2, in whole numbers
        width, height = width // 2, height // 2
        canvas = np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return canvas


def _bar(edges: Edges) -> np.ndarray:
    x0, y0, x1, y1 = edges
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.int64)


def _fill(canvas: Pixels, rings: list[np.ndarray], colour: RGB) -> None:
    fixed = [
        (ring - (1 << _SHIFT >> 1)).astype(np.int32) for ring in rings
    ]  # to the filler a whole number is mid-pixel
    cv2.fillPoly(canvas, fixed, colour, lineType=cv2.LINE_8, shift=_SHIFT)


def _region(word: _Word, cap: int) -> Region:
    x0, y0, x1, y1 = (value / _UNIT for value in word.box(cap))
    return Region(word.text, quad=(Point(x0, y0), Point(x1, y0), Point(x1, y1), Point(x0, y1)))
