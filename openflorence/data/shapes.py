"""The kinds of the drawn world, as drawing code: each kind is a few filled polygons in whole numbers.

A drawing is made on a sheet of -100..100, y down; `_finish` centres it and scales its longer side to 2 * UNIT, so
that size words mean the same for every kind. Coordinates are whole numbers from here on: the same on every machine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openflorence.data.glyphs import CAP_HEIGHT, word_rings

UNIT = 1000  # half the longer side of every shape

BODY, DARK, LIGHT, INK = range(4)  # shades: the object's colour, two relatives of it, and near black

Points = Sequence[tuple[float, float]]
Fill = tuple[int, bool, Sequence[Points]]  # shade, inside, rings


@dataclass(frozen=True)
class Part:
    """One even-odd fill: rings of vertices, all in the shape's point list."""

    shade: int  # BODY, DARK, LIGHT or INK
    inside: bool  # lies within earlier parts, so it adds nothing to the silhouette
    rings: tuple[tuple[int, int], ...]  # first vertex and the one after the last


@dataclass(frozen=True, eq=False)
class Shape:
    """Parts in painting order, vertices centred, the longer side 2 * UNIT."""

    points: NDArray[np.int64]  # (vertices, 2), x and y
    parts: tuple[Part, ...]
    turn_deg: int = 20  # rotated by at most this, either way, and still nameable
    mirrors: bool = True  # may be flipped left to right


class _Sheet:
    """Collects the fills of one drawing."""

    def __init__(self) -> None:
        self.fills: list[Fill] = []

    def fill(self, shade: int, *rings: Points) -> None:
        self.fills.append((shade, False, list(rings)))

    def detail(self, shade: int, *rings: Points) -> None:
        self.fills.append((shade, True, list(rings)))


def shape_of(fills: Sequence[Fill], turn_deg: int, mirrors: bool) -> Shape:
    """Centre and scale fills (shade, inside, rings) into a Shape."""
    flat = np.array([p for _, _, rings in fills for ring in rings for p in ring], dtype=np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    points = np.rint((flat - (low + high) / 2) * (2 * UNIT / (high - low).max())).astype(np.int64)
    parts, start = [], 0
    for shade, inside, rings in fills:
        spans = []
        for ring in rings:
            spans.append((start, start + len(ring)))
            start += len(ring)
        parts.append(Part(shade, inside, tuple(spans)))
    return Shape(points, tuple(parts), turn_deg, mirrors)


# ---- strokes every drawing is made of


def _arc(
    cx: float, cy: float, rx: float, ry: float, start_deg: float, stop_deg: float, steps: int = 12
) -> list[tuple[float, float]]:
    """Points along an ellipse; 0 degrees is right, 90 is down."""
    angles = [math.radians(start_deg + (stop_deg - start_deg) * k / steps) for k in range(steps + 1)]
    return [(round(cx + rx * math.cos(a), 3), round(cy + ry * math.sin(a), 3)) for a in angles]


def _disc(cx: float, cy: float, rx: float, ry: float | None = None, steps: int = 24) -> list[tuple[float, float]]:
    return _arc(cx, cy, rx, rx if ry is None else ry, 0, 360, steps)[:-1]


def _bar(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _spikes(count: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """A star's points, the first at the top."""
    radii = (outer, inner)
    angles = [math.radians(-90 + 180 * k / count) for k in range(2 * count)]
    return [(round(radii[k % 2] * math.cos(a), 3), round(radii[k % 2] * math.sin(a), 3)) for k, a in enumerate(angles)]


def _mirror(points: Points) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in points]


def _line(x0: float, y0: float, x1: float, y1: float, width: float) -> list[tuple[float, float]]:
    """A straight stroke as a thin polygon."""
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = round((y1 - y0) * width / 2 / length, 3), round((x0 - x1) * width / 2 / length, 3)
    return [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)]


# ---- simple kinds


def _circle(s: _Sheet) -> None:
    s.fill(BODY, _disc(0, 0, 100, steps=36))


def _square(s: _Sheet) -> None:
    s.fill(BODY, _bar(-100, -100, 100, 100))


def _triangle(s: _Sheet) -> None:
    s.fill(BODY, [(0, -90), (100, 85), (-100, 85)])


def _star(s: _Sheet) -> None:
    s.fill(BODY, _spikes(5, 100, 42))


def _heart(s: _Sheet) -> None:
    turns = [2 * math.pi * k / 32 for k in range(32)]
    s.fill(
        BODY,
        [
            (
                round(6 * 16 * math.sin(t) ** 3, 3),
                round(-6 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)), 3),
            )
            for t in turns
        ],
    )


def _cross(s: _Sheet) -> None:
    a, b = 32, 100
    s.fill(
        BODY,
        [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)],
    )


def _ring(s: _Sheet) -> None:
    s.fill(BODY, _disc(0, 0, 100, steps=36), _disc(0, 0, 56))


def _arrow(s: _Sheet) -> None:
    s.fill(BODY, [(-100, -26), (15, -26), (15, -75), (100, 0), (15, 75), (15, 26), (-100, 26)])


def _moon(s: _Sheet) -> None:
    s.fill(BODY, _arc(0, 0, 100, 100, 45, 315, 20) + _arc(50, 0, 73.7, 73.7, 286, 74, 16)[1:-1])


def _diamond(s: _Sheet) -> None:
    s.fill(BODY, [(0, -100), (56, 0), (0, 100), (-56, 0)])


def _hexagon(s: _Sheet) -> None:
    s.fill(BODY, [(-100, 0), (-50, -86), (50, -86), (100, 0), (50, 86), (-50, 86)])


# ---- composed kinds


def _house(s: _Sheet) -> None:
    s.fill(BODY, _bar(-76, -20, 76, 95))
    s.fill(DARK, [(-100, -16), (0, -95), (100, -16)])
    s.detail(INK, _bar(-46, 36, -14, 95))
    s.detail(LIGHT, _bar(14, 16, 48, 50))


def _fish(s: _Sheet) -> None:
    s.fill(BODY, _disc(-20, 0, 80, 50))
    s.fill(DARK, [(40, 0), (100, -52), (84, 0), (100, 52)])
    s.detail(DARK, [(-10, 8), (28, -12), (22, 30)])
    s.detail(LIGHT, _disc(-62, -12, 15, steps=12))
    s.detail(INK, _disc(-64, -12, 8, steps=8))


def _tree(s: _Sheet) -> None:
    s.fill(INK, _bar(-13, 50, 13, 100))
    s.fill(BODY, [(0, -100), (44, -38), (-44, -38)])
    s.fill(BODY, [(0, -70), (58, 12), (-58, 12)])
    s.fill(BODY, [(0, -30), (72, 62), (-72, 62)])
    s.detail(DARK, [(-40, -38), (40, -38), (30, -26), (-30, -26)])
    s.detail(DARK, [(-54, 12), (54, 12), (42, 26), (-42, 26)])


def _car(s: _Sheet) -> None:
    s.fill(BODY, [(-66, -4), (-42, -52), (36, -52), (66, -4)])
    s.fill(BODY, [(-100, -4), (84, -4), (100, 8), (100, 42), (-100, 42)])
    s.fill(INK, _disc(-54, 42, 25))
    s.fill(INK, _disc(54, 42, 25))
    s.detail(LIGHT, [(-50, -8), (-34, -40), (-6, -40), (-6, -8)])
    s.detail(LIGHT, [(6, -8), (6, -40), (30, -40), (48, -8)])


def _boat(s: _Sheet) -> None:
    s.fill(INK, _bar(-5, -100, 5, 40))
    s.fill(BODY, [(10, -98), (98, 30), (10, 30)])
    s.fill(BODY, [(-10, -84), (-10, 30), (-86, 30)])
    s.fill(DARK, [(-100, 42), (100, 42), (74, 84), (-74, 84)])


def _flower(s: _Sheet) -> None:
    for k in range(6):
        angle = math.radians(60 * k - 90)
        s.fill(BODY, _disc(round(58 * math.cos(angle), 3), round(58 * math.sin(angle), 3), 38, steps=16))
    s.fill(DARK, _disc(0, 0, 40))
    s.detail(LIGHT, _disc(0, 0, 26, steps=16))


def _cup(s: _Sheet) -> None:
    s.fill(DARK, _arc(42, -4, 56, 50, -80, 80, 12) + _arc(42, -4, 32, 27, 80, -80, 12))
    s.fill(BODY, [(-82, -72), (52, -72), (40, 82), (-70, 82)])
    s.fill(DARK, _disc(-15, -72, 67, 15))
    s.detail(INK, _disc(-15, -70, 52, 8))


def _umbrella(s: _Sheet) -> None:
    s.fill(INK, _bar(-6, -100, 6, 70))
    s.fill(INK, _arc(22, 70, 28, 28, 180, 0, 8) + _arc(22, 70, 15, 15, 0, 180, 8))
    scallops = [p for k in (2, 1, 0, -1, -2) for p in _arc(40 * k, 0, 20, 16, 0, -180, 6)[:-1]]
    s.fill(BODY, [*_arc(0, 0, 100, 88, 180, 360, 18), *scallops])
    s.detail(DARK, [(-6, -86), (6, -86), (22, -12), (-22, -12)])


def _mushroom(s: _Sheet) -> None:
    s.fill(LIGHT, [(-30, 0), (30, 0), (40, 92), (-40, 92)])
    s.fill(BODY, [*_arc(0, 10, 100, 100, 180, 360, 18), (88, 22), (-88, 22)])
    s.detail(LIGHT, _disc(-48, -18, 18, steps=12))
    s.detail(LIGHT, _disc(6, -52, 20, steps=12))
    s.detail(LIGHT, _disc(54, -14, 16, steps=12))


def _snowman(s: _Sheet) -> None:
    s.fill(BODY, _disc(0, 48, 58, 52))
    s.fill(BODY, _disc(0, -34, 40))
    s.fill(INK, _bar(-40, -72, 40, -60))
    s.fill(INK, _bar(-25, -108, 25, -70))
    s.detail(DARK, _bar(-38, -4, 38, 9))
    for y in (30, 56):
        s.detail(INK, _disc(0, y, 8, steps=8))
    for x in (-14, 14):
        s.detail(INK, _disc(x, -40, 7, steps=8))


def _key(s: _Sheet) -> None:
    s.fill(BODY, _disc(-56, 0, 46), _disc(-60, 0, 20, steps=12))
    s.fill(BODY, _bar(-20, -12, 100, 12))
    s.fill(BODY, _bar(44, 10, 62, 44))
    s.fill(BODY, _bar(80, 10, 100, 38))


def _rocket(s: _Sheet) -> None:
    s.fill(LIGHT, [(-20, 44), (-12, 80), (0, 100), (12, 80), (20, 44)])
    s.fill(DARK, [(28, -6), (70, 62), (28, 50)])
    s.fill(DARK, [(-28, -6), (-70, 62), (-28, 50)])
    s.fill(BODY, [(0, -100), (22, -68), (34, -30), (36, 8), (28, 52), (-28, 52), (-36, 8), (-34, -30), (-22, -68)])
    s.detail(LIGHT, _disc(0, -24, 17, steps=16))
    s.detail(INK, _disc(0, -24, 9, steps=12))


def _butterfly(s: _Sheet) -> None:
    upper = [(4, -8), (34, -66), (72, -80), (98, -62), (96, -22), (70, 4), (4, 8)]
    lower = [(4, 0), (62, 6), (80, 30), (72, 62), (44, 74), (20, 50)]
    for wing in (upper, lower, _mirror(upper), _mirror(lower)):
        s.fill(BODY, wing)
    for x in (-62, 62):
        s.detail(LIGHT, _disc(x, -40, 17, steps=12))
        s.detail(DARK, _disc(round(x * 0.76), 40, 12, steps=12))
    s.fill(INK, _disc(0, 0, 9, 58, steps=16))


def _kite(s: _Sheet) -> None:
    s.fill(INK, _line(0, 30, 22, 62, 7), _line(22, 62, -8, 100, 7))
    s.fill(DARK, [(4, 52), (34, 72), (34, 50), (4, 74)])
    s.fill(BODY, [(0, -100), (62, -42), (0, 40), (-62, -42)])
    s.detail(LIGHT, [(0, -100), (62, -42), (0, -42)])
    s.detail(INK, _line(0, -98, 0, 38, 7), _line(-60, -42, -4, -42, 7), _line(4, -42, 60, -42, 7))


def _ice_cream(s: _Sheet) -> None:
    s.fill(DARK, [(-46, -8), (46, -8), (0, 100)])
    s.fill(BODY, _disc(0, -46, 54, 50))
    s.fill(BODY, _disc(-36, -8, 20, 14, steps=12))
    s.fill(BODY, _disc(0, -4, 20, 16, steps=12))
    s.fill(BODY, _disc(36, -8, 20, 14, steps=12))
    s.detail(INK, _line(-28, 22, 12, 66, 6))
    s.detail(INK, _line(28, 22, -12, 66, 6))


def _bird(s: _Sheet) -> None:
    s.fill(INK, _bar(-14, 50, -7, 96))
    s.fill(INK, _bar(10, 50, 17, 96))
    s.fill(BODY, [(-40, 0), (-100, -34), (-104, 8), (-40, 44)])
    s.fill(BODY, _disc(0, 20, 60, 42))
    s.fill(BODY, _disc(48, -32, 34))
    s.fill(DARK, [(76, -46), (108, -28), (76, -16)])
    s.detail(DARK, [(-44, 4), (22, 2), (14, 34), (-14, 44)])
    s.detail(LIGHT, _disc(56, -38, 11, steps=10))
    s.detail(INK, _disc(58, -38, 6, steps=8))


def _cat(s: _Sheet) -> None:
    s.fill(BODY, [(-82, 0), (-84, -92), (-22, -50)])
    s.fill(BODY, [(82, 0), (84, -92), (22, -50)])
    s.fill(BODY, _disc(0, 18, 90, 74))
    for x in (-36, 36):
        s.detail(LIGHT, _disc(x, 0, 18, 16, steps=14))
        s.detail(INK, _disc(x, 0, 7, 14, steps=10))
    s.detail(INK, [(-12, 30), (12, 30), (0, 44)])
    for side in (-1, 1):
        s.detail(DARK, _line(22 * side, 44, 78 * side, 34, 6))
        s.detail(DARK, _line(22 * side, 54, 74 * side, 58, 6))


def _crown(s: _Sheet) -> None:
    s.fill(BODY, [(-95, 70), (-100, -55), (-48, 5), (0, -80), (48, 5), (100, -55), (95, 70)])
    s.detail(DARK, _bar(-95, 40, 95, 70))
    for x in (-48, 0, 48):
        s.detail(LIGHT, _disc(x, 22 if x else 10, 11, steps=10))


def _apple(s: _Sheet) -> None:
    s.fill(INK, [(-7, -40), (-2, -98), (12, -98), (7, -40)])
    s.fill(DARK, _arc(14, -62, 58, 30, -100, 60, 8))
    s.fill(BODY, _disc(-34, 24, 56, 66))
    s.fill(BODY, _disc(34, 24, 56, 66))
    s.detail(LIGHT, _disc(-52, 2, 12, 20, steps=12))


def _shirt(s: _Sheet) -> None:
    half = [(26, -85), (50, -85), (100, -40), (72, -2), (54, -18), (54, 92)]
    s.fill(BODY, [(0, -58), *half, *_mirror(half)[::-1]])
    s.detail(DARK, [(-54, 40), (54, 40), (54, 62), (-54, 62)])
    s.detail(DARK, [(72, -2), (62, -10), (90, -50), (100, -40)])
    s.detail(DARK, [(-72, -2), (-62, -10), (-90, -50), (-100, -40)])


def _chair(s: _Sheet) -> None:
    s.fill(DARK, _bar(-54, 14, -36, 100))
    s.fill(DARK, _bar(40, 14, 58, 100))
    s.fill(BODY, [(-66, -100), (-44, -100), (-34, 0), (-56, 0)])
    s.fill(BODY, _bar(-60, -6, 62, 22))


_DRAWINGS: dict[str, tuple[Callable[[_Sheet], None], int, bool]] = {
    # name: drawing, greatest turn in degrees, may be mirrored
    "circle": (_circle, 0, False),
    "square": (_square, 12, False),
    "triangle": (_triangle, 14, False),
    "star": (_star, 18, False),
    "heart": (_heart, 20, False),
    "cross": (_cross, 12, False),
    "ring": (_ring, 0, False),
    "arrow": (_arrow, 25, True),
    "moon": (_moon, 25, True),
    "diamond": (_diamond, 14, False),
    "hexagon": (_hexagon, 8, False),
    "house": (_house, 14, True),
    "fish": (_fish, 25, True),
    "tree": (_tree, 14, True),
    "car": (_car, 18, True),
    "boat": (_boat, 16, True),
    "flower": (_flower, 25, False),
    "cup": (_cup, 16, True),
    "umbrella": (_umbrella, 22, True),
    "mushroom": (_mushroom, 18, True),
    "snowman": (_snowman, 14, False),
    "key": (_key, 25, True),
    "rocket": (_rocket, 25, False),
    "butterfly": (_butterfly, 25, False),
    "kite": (_kite, 20, True),
    "ice cream": (_ice_cream, 20, False),
    "bird": (_bird, 16, True),
    "cat": (_cat, 16, False),
    "crown": (_crown, 16, False),
    "apple": (_apple, 16, True),
    "shirt": (_shirt, 16, False),
    "chair": (_chair, 12, True),
}


def _finish(name: str) -> Shape:
    draw, turn_deg, mirrors = _DRAWINGS[name]
    sheet = _Sheet()
    draw(sheet)
    return shape_of(sheet.fills, turn_deg, mirrors)


KINDS: tuple[str, ...] = tuple(_DRAWINGS)  # every nameable kind, in the order of its index
SHAPES: dict[str, Shape] = {name: _finish(name) for name in KINDS}


# ---- signs


@lru_cache(maxsize=1024)
def sign_shape(word: str, font: str) -> tuple[Shape, tuple[int, int, int, int]]:
    """Draw a plate with a word on it; also say where the word's ink is, in shape units."""
    rings, (x0, y0, x1, y1) = word_rings(word, font)
    pad, rim = CAP_HEIGHT * 2 // 5, CAP_HEIGHT // 9
    plate = (x0 - pad, min(y0, -CAP_HEIGHT) - pad, x1 + pad, max(y1, 0) + pad)
    inner = (plate[0] + rim, plate[1] + rim, plate[2] - rim, plate[3] - rim)

    def bar(b: tuple[int, int, int, int]) -> list[tuple[float, float]]:
        return [(b[0], b[1]), (b[2], b[1]), (b[2], b[3]), (b[0], b[3])]

    ink: list[tuple[float, float]] = [(x0, y0), (x1, y1)]
    fills: list[Fill] = [
        (DARK, False, [bar(plate)]),
        (BODY, True, [bar(inner)]),
        (INK, True, rings),
        (INK, True, [ink]),
    ]
    shape = shape_of(fills, 0, False)
    (left, top), (right, bottom) = shape.points[-2:].tolist()  # went along to be centred and scaled
    return Shape(shape.points[:-2], shape.parts[:-1], 0, False), (left, top, right, bottom)
