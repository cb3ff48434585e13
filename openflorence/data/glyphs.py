"""Printed words as outlines: integer polygons read from the DejaVu fonts that matplotlib installs.

Outlines, not bitmaps: the font files hold whole numbers, so a word has the same shape on every machine, while
rasterisers and their hinting change from version to version.
source    DejaVu Fonts 2.37, in matplotlib's data folder; matplotlib and fontTools come with supervision.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from openflorence.errors import BadConfig

Ring = tuple[tuple[int, int], ...]

FONTS = ("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold", "DejaVuSans", "DejaVuSans-BoldOblique")
CAP_HEIGHT = 1493  # font units, the same in all five
_CURVE_STEPS = 4  # straight pieces per curve: a letter is never drawn taller than a few dozen pixels


def word_rings(word: str, font: str) -> tuple[list[Ring], tuple[int, int, int, int]]:
    """Give the outlines of a word and the box of its ink.

    word      letters and digits.
    font      one of FONTS.
    returns   rings for an even-odd fill, in font units, y down, the baseline at 0; ink as x0, y0, x1, y1.
    raises    BadConfig if the font is not installed or lacks a letter.
    """
    rings: list[Ring] = []
    pen_x = 0
    for letter in word:
        outline, advance = _glyph(font, letter)
        rings += [tuple((x + pen_x, y) for x, y in ring) for ring in outline]
        pen_x += advance
    xs = [x for ring in rings for x, _ in ring]
    ys = [y for ring in rings for _, y in ring]
    return rings, (min(xs), min(ys), max(xs), max(ys))


@cache
def letter_edges(word: str, font: str) -> tuple[float, ...]:
    """Say where each letter of a word begins and the last one ends, as shares of the width of the word's ink.

    word      letters and digits.
    font      one of FONTS.
    returns   one number more than the word has letters, rising from 0 to 1.
    """
    _, (x0, _, x1, _) = word_rings(word, font)
    pens = [0]
    for letter in word:
        pens.append(pens[-1] + _glyph(font, letter)[1])
    inner = [min(max((pen - x0) / (x1 - x0), 0.0), 1.0) for pen in pens[1:-1]]
    return (0.0, *inner, 1.0)


@cache
def _font(font: str) -> Any:
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0] if folders else "matplotlib") / "mpl-data" / "fonts" / "ttf" / f"{font}.ttf"
    if not path.is_file():
        raise BadConfig(
            f"no font file {path}; signs are printed with matplotlib's DejaVu fonts: install it, or set sign_share=0"
        )
    return TTFont(path, lazy=True)


@cache
def _glyph(font: str, letter: str) -> tuple[tuple[Ring, ...], int]:
    """Read one letter: its rings in font units, y down, and how far the pen moves on."""
    tables = _font(font)
    name = tables.getBestCmap().get(ord(letter))
    if name is None:
        raise BadConfig(f"font {font} has no letter {letter!r}; sign words are made of letters and digits")
    table = tables["glyf"]
    points, ends, flags = table[name].getCoordinates(table)
    rings = []
    start = 0
    for end in ends:
        span = slice(start, end + 1)
        corners = zip(points[span], flags[span], strict=True)
        rings.append(_flatten([(int(x), -int(y), bool(flag & 1)) for (x, y), flag in corners]))
        start = end + 1
    return tuple(rings), int(tables["hmtx"][name][0])


def _flatten(corners: list[tuple[int, int, bool]]) -> Ring:
    """Turn a TrueType ring, where off-curve points pull quadratic curves, into straight pieces."""
    full: list[tuple[int, int, bool]] = []
    for here, after in zip(corners, corners[1:] + corners[:1], strict=True):
        full.append(here)
        if not here[2] and not after[2]:  # between two off-curve points lies an implied point on the curve
            full.append(((here[0] + after[0]) // 2, (here[1] + after[1]) // 2, True))
    first = next(i for i, corner in enumerate(full) if corner[2])
    full = full[first:] + full[:first]
    ring = []
    for i, (x, y, on_curve) in enumerate(full):
        if on_curve:
            ring.append((x, y))
            continue
        (ax, ay, _), (bx, by, _) = full[i - 1], full[(i + 1) % len(full)]
        for k in range(1, _CURVE_STEPS):
            a, c, b = (_CURVE_STEPS - k) ** 2, 2 * k * (_CURVE_STEPS - k), k * k
            ring.append(((a * ax + c * x + b * bx) // _CURVE_STEPS**2, (a * ay + c * y + b * by) // _CURVE_STEPS**2))
    return tuple(ring)
