"""Fixed-point painting: a backdrop, sprites over it, and who owns which pixel.

Coordinates are whole numbers on a plane whose short side is PLANE units, whatever the size painted; polygons are
filled in fixed point and averages are taken in whole numbers, so a picture is the same on every machine.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.data.chance import below, between, pick
from openflorence.data.shapes import BODY, DARK, INK, LIGHT, UNIT, Shape
from openflorence.data.words import GROUNDS, SIGN

PLANE = 16384  # units on the short side of a scene
_SHIFT = 4  # binary places of the coordinates given to the polygon filler

Pixels = NDArray[np.uint8]
RGB = tuple[int, int, int]
Size = tuple[int, int]  # width and height


@dataclass(eq=False)
class Sprite:
    """One thing before painting, in plane units."""

    kind: str
    colour: str
    size: str
    shape: Shape
    shades: tuple[RGB, ...]  # colours of BODY, DARK, LIGHT, INK
    length: int  # longer side, before turning
    turn_deg: int
    mirrored: bool
    outlined: bool
    striped: bool
    word: str = ""
    ink_box: tuple[int, int, int, int] = (0, 0, 0, 0)  # around the word of a sign, in shape units
    letter_edges: tuple[float, ...] = ()  # where its letters begin and end, as shares of the width of ink_box
    centre: tuple[int, int] = (0, 0)
    under: int = -1  # index of the sprite it was put on
    full_count: int = 0  # pixels of its silhouette on the reference raster
    seen_count: int = 0  # those not covered by later sprites

    @property
    def can_carry(self) -> bool:
        """Big enough to put something on, and nothing lies there yet."""
        return self.kind != SIGN and self.length >= PLANE * 3 // 10 and self.seen_count == self.full_count

    def turned(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn shape points and scale them to plane units around (0, 0)."""
        cos, sin = _turn(self.turn_deg)
        x = -points[:, 0] if self.mirrored else points[:, 0]
        y = points[:, 1]
        both = np.stack((x * cos - y * sin, x * sin + y * cos), axis=1)
        return (both * self.length) // (2 * UNIT * 4096)


@cache
def _turn(degrees: int) -> tuple[int, int]:
    return round(4096 * np.cos(np.radians(degrees))), round(4096 * np.sin(np.radians(degrees)))


# ---- colours


def nearby(rng: np.random.Generator, colour: RGB, spread: int) -> RGB:
    """Give a colour that differs from this one by at most `spread` levels in each channel."""
    r, g, b = (min(max(channel + between(rng, -spread, spread), 0), 255) for channel in colour)
    return r, g, b


def mix(colour: RGB, other: RGB, share: int) -> RGB:
    """Go `share` hundredths of the way from one colour to the other."""
    r, g, b = ((a * (100 - share) + c * share) // 100 for a, c in zip(colour, other, strict=True))
    return r, g, b


def shades_of(body: RGB) -> tuple[RGB, ...]:
    """Give BODY, DARK, LIGHT and INK of an object; black gets lighter details, white darker ones."""
    if max(body) < 60:
        return body, (62, 62, 68), (205, 205, 210), (98, 98, 106)
    if min(body) > 215:
        return body, (196, 198, 204), (222, 228, 236), (52, 52, 58)
    return body, mix(body, (0, 0, 0), 38), mix(body, (255, 255, 255), 66), mix(body, (16, 16, 20), 78)


# ---- the backdrop


def paint_backdrop(rng: np.random.Generator, ground: str, texture: str, image_wh: Size) -> Pixels:
    """Paint a background of a named colour and texture; chance decides its tint, contrast and period: (H, W, 3)."""
    base = nearby(rng, mix(GROUNDS[ground], pick(rng, ((0, 0, 0), (255, 255, 255))), below(rng, 9)), 3)
    contrast = between(rng, 10, 17)
    dark, pale = (np.array(mix(base, end, contrast)) for end in ((0, 0, 0), (255, 255, 255)))
    palette = (dark + (pale - dark) * np.arange(64)[:, None] // 63).astype(np.uint8)
    w, h = image_wh
    x = (2 * np.arange(w) + 1) * PLANE // (2 * min(w, h))  # pixel centres in plane units
    y = ((2 * np.arange(h) + 1) * PLANE // (2 * min(w, h)))[:, None]
    period = between(rng, PLANE // 24, PLANE // 8)
    lean = pick(rng, ((1, 0), (0, 1), (1, 1), (1, -1)))
    if texture == "plain":
        return np.full((h, w, 3), base, np.uint8)
    if texture == "striped":
        level = ((x * lean[0] + y * lean[1]) // period % 2) * 63
    elif texture == "checked":
        level = (x // period + y // period) % 2 * 63
    elif texture == "speckled":
        level = _speckles(rng, x, y)
    else:
        run = x * lean[0] + y * lean[1]
        span = int(run.max() - run.min())
        level = (run - run.min()) * 63 // max(span, 1)
    return palette[np.broadcast_to(level, (h, w))]


def _speckles(rng: np.random.Generator, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Chance levels on a grid of 64 cells to the short side."""
    columns, rows = int(x[-1]) * 64 // PLANE + 1, int(y[-1, 0]) * 64 // PLANE + 1
    words = rng.bit_generator.random_raw(rows * columns)
    cells = (np.asarray(words, np.uint64) >> np.uint64(58)).astype(np.int64).reshape(rows, columns)
    return cells[y[:, 0] * 64 // PLANE][:, x * 64 // PLANE]


# ---- the sprites


def paint(backdrop: Pixels, sprites: list[Sprite]) -> tuple[Pixels, Pixels]:
    """Paint sprites over the backdrop at several times the size, then reduce: smooth edges.

    returns   the image (H, W, 3), and the owner map (H, W) by painting order, from 1.
    """
    h, w = backdrop.shape[:2]
    side_px = min(w, h)
    fine = 4 if side_px <= 256 else 2  # fine pixels per pixel, each way
    canvas = np.asarray(cv2.resize(backdrop, (w * fine, h * fine), interpolation=cv2.INTER_NEAREST), np.uint8)
    owner = np.zeros((h * fine, w * fine), np.uint8)
    for number, sprite in enumerate(sprites, 1):
        points = sprite.turned(sprite.shape.points)
        fill_silhouette(owner, sprite, points, side_px * fine, number)
        if sprite.outlined:
            fill_silhouette(canvas, sprite, points, side_px * fine, sprite.shades[INK])
        fixed = _fixed(points, sprite.centre, side_px * fine)
        parts = sprite.shape.parts
        for part in (part for part in parts if not part.inside):
            _fill(canvas, fixed, part.rings, sprite.shades[part.shade])
        if sprite.striped:
            _stripe(canvas, owner, number, fixed, sprite, side_px * fine)
        for part in (part for part in parts if part.inside):
            _fill(canvas, fixed, part.rings, sprite.shades[part.shade])
    seen = np.ascontiguousarray(owner[fine // 2 :: fine, fine // 2 :: fine])
    while fine > 1:  # halving is (a + b + c + d + 2) >> 2, in whole numbers
        fine //= 2
        canvas = np.asarray(cv2.resize(canvas, (w * fine, h * fine), interpolation=cv2.INTER_AREA), np.uint8)
    return canvas, seen


def _fixed(points: NDArray[np.int64], centre: tuple[int, int], side: int) -> NDArray[np.int32]:
    """Plane units around a centre -> the filler's fixed point, where a whole number is the middle of a pixel."""
    at = points + np.array(centre, np.int64)
    return (((at * side) << _SHIFT) // PLANE - (1 << _SHIFT >> 1)).astype(np.int32)


def _fill(target: Pixels, fixed: NDArray[np.int32], rings: tuple[tuple[int, int], ...], value: Any) -> None:
    cv2.fillPoly(target, [fixed[a:b] for a, b in rings], value, lineType=cv2.LINE_8, shift=_SHIFT)


def fill_silhouette(target: Pixels, sprite: Sprite, points: NDArray[np.int64], side: int, value: Any) -> None:
    """Fill all that the sprite covers, its outline included."""
    fixed = _fixed(points, sprite.centre, side)
    for part in sprite.shape.parts:
        if part.inside:
            continue
        _fill(target, fixed, part.rings, value)
        if sprite.outlined:
            rings = [fixed[a:b] for a, b in part.rings]
            cv2.polylines(target, rings, True, value, max(side * 3 // 128, 1), cv2.LINE_8, _SHIFT)


def _stripe(canvas: Pixels, owner: Pixels, number: int, fixed: NDArray[np.int32], sprite: Sprite, side: int) -> None:
    """Lay darker slanted stripes over the body colour of the sprite painted last."""
    low, high = fixed.min(axis=0) >> _SHIFT, fixed.max(axis=0) >> _SHIFT
    rows = slice(max(int(low[1]), 0), int(high[1]) + 1)
    columns = slice(max(int(low[0]), 0), int(high[0]) + 1)
    patch, body = canvas[rows, columns], sprite.shades[BODY]
    y, x = np.arange(patch.shape[0])[:, None], np.arange(patch.shape[1])
    period = max(sprite.length * side // PLANE // 8, 2)
    where = ((x + y) // period % 2 == 0) & (owner[rows, columns] == number) & (cv2.inRange(patch, body, body) > 0)
    patch[where] = mix(body, sprite.shades[LIGHT if min(body) > 215 else DARK], 55)
