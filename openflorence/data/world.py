"""The drawn world: seeded scenes that know what is in them. `truth.py` turns a scene into answers.

A scene is planned in whole numbers on a plane whose short side is PLANE units, and only then painted at the size
asked for; so one seed is one layout at every size. Chance comes from the raw words of a PCG64 bit generator, which
numpy promises to keep (it does not promise that for the methods of Generator), and painting is fixed-point polygon
filling: one seed is one picture on every machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Box, Point, Quad
from openflorence.data.glyphs import CAP_HEIGHT, FONTS, word_rings
from openflorence.data.shapes import BODY, DARK, INK, KINDS, LIGHT, SHAPES, UNIT, Fill, Shape, shape_of
from openflorence.data.words import COLOURS, GROUNDS, PLATES, SIGN, SIGN_WORDS, SIZES, TEXTURES
from openflorence.errors import BadConfig

PLANE = 16384  # units on the short side of a scene, whatever its size in pixels
_REFERENCE_PX = 128  # short side of the raster on which overlaps are judged, whatever the size painted
_SHIFT = 4  # binary places of the fixed-point coordinates given to the polygon filler
_SIGN_TURNS_DEG = (0, 0, 0, -24, -15, -8, 8, 15, 24)

Pixels = NDArray[np.uint8]
RGB = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What may occur in a scene. A seed means the same scene only under the same config."""

    side_px: int = 128  # short side of the image
    aspect: tuple[int, int] = (1, 1)  # width : height of the image, each 1..4
    min_objects: int = 1  # fewest drawn objects a scene is meant to hold; signs are counted apart
    max_objects: int = 6  # most drawn objects; where room runs out a scene holds fewer than it was meant to
    kinds: tuple[str, ...] = KINDS  # kinds that occur
    colours: tuple[str, ...] = tuple(COLOURS)  # colours that occur
    sizes: tuple[str, ...] = tuple(SIZES)  # size words that occur, smallest first
    sign_share: float = 0.35  # share of scenes with signs
    max_signs: int = 2  # most signs in a scene that has any
    texture_share: float = 0.5  # share of scenes whose background is not plain
    outline_share: float = 0.25  # share of objects with a dark outline
    pattern_share: float = 0.12  # share of objects with a striped fill
    overlap_share: float = 0.3  # share of objects that may cover part of another
    on_share: float = 0.12  # share of objects that are put on top of a bigger one
    min_visible: float = 0.7  # least share of an object that later objects leave visible
    absent_share: float = 0.1  # share of `find` phrases that name what is not there

    def __post_init__(self) -> None:
        if self.side_px < 32 or not all(1 <= part <= 4 for part in self.aspect):
            raise BadConfig(f"side_px {self.side_px}, aspect {self.aspect}: need side_px >= 32, parts in 1..4")
        if not 1 <= self.min_objects <= self.max_objects <= 10 or not 0 <= self.max_signs <= 4:
            raise BadConfig(
                f"{self.min_objects}..{self.max_objects} objects, up to {self.max_signs} signs: "
                "allowed are 1..10 objects and 0..4 signs"
            )
        for field in fields(self):
            share = getattr(self, field.name)
            if isinstance(share, float) and not 0 <= share <= 1:
                raise BadConfig(f"{field.name} {share}: a share is from 0 to 1")
        for names, known in ((self.kinds, KINDS), (self.colours, tuple(COLOURS)), (self.sizes, tuple(SIZES))):
            if not names or any(name not in known for name in names):
                raise BadConfig(f"{names!r}: name at least one of {', '.join(known)}")

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height in pixels; the shorter is side_px."""
        w, h = self.aspect
        return self.side_px * w // min(w, h), self.side_px * h // min(w, h)

    @property
    def plane_wh(self) -> tuple[int, int]:
        """Width and height in plane units; the shorter is PLANE."""
        w, h = self.aspect
        return PLANE * w // min(w, h), PLANE * h // min(w, h)


@dataclass(frozen=True)
class Thing:
    """One object or sign of a scene, measured on what is visible of it."""

    number: int  # its value in Scene.owner, from 1, left to right
    kind: str  # one of KINDS, or "sign"
    colour: str  # name of its main colour; of a sign, the plate's
    size: str  # size word; "" for a sign
    box: Box  # around the visible pixels, edges on pixel borders
    visible: float  # share of it that is not covered by others
    on: int = 0  # number of the thing it was put on, 0 for none
    word: str = ""  # what is printed on a sign
    quad: Quad | None = None  # around the printed word, corners from the top left in the word's own frame

    @property
    def is_sign(self) -> bool:
        return self.kind == SIGN


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and everything in it. Things are ordered left to right by their visible box (x0, then y0)."""

    seed: int
    config: WorldConfig
    image: Pixels  # (H, W, 3) RGB
    owner: Pixels  # (H, W): 0 for background, else the number of the thing seen there
    things: tuple[Thing, ...]
    ground: str  # name of the background's colour
    texture: str  # one of TEXTURES

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]

    @property
    def objects(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if not thing.is_sign)

    @property
    def signs(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.is_sign)

    def mask(self, thing: Thing) -> NDArray[np.bool_]:
        """Mark the visible pixels of a thing: (H, W)."""
        return self.owner == thing.number


def draw_scene(seed: int, config: WorldConfig = WorldConfig()) -> Scene:
    """Plan, paint and measure one scene; the same seed and config give the same scene on every machine.

    seed      any int >= 0.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    ground, texture, backdrop = _backdrop(rng, config)
    sprites = _plan(rng, config)
    image, owner = _paint(backdrop, sprites, config)
    return Scene(seed, config, image, *_measure(owner, sprites, config), ground, texture)


# ---- chance


def below(rng: np.random.Generator, count: int) -> int:
    """Draw an int in 0..count-1."""
    return (int(rng.bit_generator.random_raw()) >> 32) * count >> 32


def chance(rng: np.random.Generator, share: float) -> bool:
    """Say yes with this probability."""
    return below(rng, 1 << 20) < round(share * (1 << 20))


def pick(rng: np.random.Generator, items: Any) -> Any:
    """Choose one item of a sequence."""
    return items[below(rng, len(items))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw an int in low..high, both included."""
    return low + below(rng, high - low + 1)


def shuffled(rng: np.random.Generator, items: Iterable[Any]) -> list[Any]:
    """Give the items in a chance order."""
    deck = list(items)
    for i in range(len(deck) - 1, 0, -1):
        j = below(rng, i + 1)
        deck[i], deck[j] = deck[j], deck[i]
    return deck


# ---- the plan: what stands where


@dataclass(eq=False)
class _Sprite:
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


def _plan(rng: np.random.Generator, config: WorldConfig) -> list[_Sprite]:
    """Place signs, then objects, in painting order; nothing covers a sign, or another thing too much."""
    w, h = config.plane_wh
    reference_wh = (w * _REFERENCE_PX // PLANE, h * _REFERENCE_PX // PLANE)
    owner = np.zeros((reference_wh[1], reference_wh[0]), np.uint8)
    sprites: list[_Sprite] = []
    sign_count = between(rng, 1, config.max_signs) if config.max_signs and chance(rng, config.sign_share) else 0
    for _ in range(sign_count):
        _place(rng, config, sprites, owner, lambda _attempt: (_new_sign(rng), -1))
    for _ in range(between(rng, config.min_objects, config.max_objects)):
        may_cover = chance(rng, config.overlap_share)
        hosts = [i for i, other in enumerate(sprites) if other.can_carry]
        host = pick(rng, hosts) if hosts and chance(rng, config.on_share) else -1

        def propose(attempt: int, host: int = host) -> tuple[_Sprite, int]:
            # Every third attempt goes down a size, so that a crowded scene still gets its objects.
            on_host = host >= 0 and attempt < 4
            return _new_object(rng, config, len(SIZES) if on_host else attempt // 3), host if on_host else -1

        _place(rng, config, sprites, owner, propose, may_cover)
    return sprites


def _place(
    rng: np.random.Generator,
    config: WorldConfig,
    sprites: list[_Sprite],
    owner: Pixels,
    propose: Any,
    may_cover: bool = False,
) -> None:
    """Try sprites at chance places until one fits, at most twelve; then let it be."""
    for attempt in range(12):
        sprite, host = propose(attempt)
        points = sprite.turned(sprite.shape.points)
        low, high = points.min(axis=0), points.max(axis=0)
        edge = PLANE // 100
        room = [(edge - int(low[axis]), config.plane_wh[axis] - edge - int(high[axis])) for axis in (0, 1)]
        if any(first >= last for first, last in room):
            continue
        if host >= 0:
            jitter = sprites[host].length // 16
            wish = [sprites[host].centre[axis] + between(rng, -jitter, jitter) for axis in (0, 1)]
            x, y = (min(max(wish[axis], room[axis][0]), room[axis][1]) for axis in (0, 1))
            sprite.centre = (x, y)
        else:
            sprite.centre = (between(rng, *room[0]), between(rng, *room[1]))
        if _fits(sprite, points, sprites, owner, config.min_visible, may_cover or host >= 0):
            sprites.append(sprite)
            return


def _fits(
    sprite: _Sprite,
    points: NDArray[np.int64],
    sprites: list[_Sprite],
    owner: Pixels,
    min_visible: float,
    may_cover: bool,
) -> bool:
    """Judge the overlaps on the reference raster; when all is well, claim the sprite's pixels there."""
    trial = np.zeros_like(owner)
    _fill_silhouette(trial, sprite, points, _REFERENCE_PX, 1)
    inside = trial != 0
    covered = np.bincount(owner[inside], minlength=len(sprites) + 1)
    if not may_cover and covered[1:].any():
        return False
    sprite.full_count = sprite.seen_count = int(covered.sum())
    for i, other in enumerate(sprites):
        still_seen = other.seen_count - covered[i + 1]
        hides = other.kind == SIGN or still_seen < min_visible * other.full_count
        if covered[i + 1] and (hides or other.colour == sprite.colour):  # red on red could not be told apart
            return False
    for i, other in enumerate(sprites):
        other.seen_count -= int(covered[i + 1])
        if covered[i + 1] > 0.6 * sprite.full_count:
            sprite.under = i
    owner[inside] = len(sprites) + 1
    return True


def _new_object(rng: np.random.Generator, config: WorldConfig, smaller: int) -> _Sprite:
    kind, colour = pick(rng, config.kinds), pick(rng, config.colours)
    size = config.sizes[max(below(rng, len(config.sizes)) - smaller, 0)]
    shape = SHAPES[kind]
    low, high = SIZES[size]
    return _Sprite(
        kind=kind,
        colour=colour,
        size=size,
        shape=shape,
        shades=_shades(_nearby(rng, COLOURS[colour], 8)),
        length=between(rng, low, high) * PLANE // 1000,
        turn_deg=between(rng, -shape.turn_deg, shape.turn_deg),
        mirrored=bool(below(rng, 2)) and shape.mirrors,
        outlined=chance(rng, config.outline_share),
        striped=chance(rng, config.pattern_share),
    )


def _new_sign(rng: np.random.Generator) -> _Sprite:
    word, font = pick(rng, SIGN_WORDS), pick(rng, FONTS)
    plate, ink = pick(rng, PLATES)
    shape, ink_box = _sign_shape(word, font)
    ratio = (ink_box[2] - ink_box[0]) * 1000 // (ink_box[3] - ink_box[1])  # of the word, in thousandths
    # Capitals of 7 to 13 hundredths of the short side, as long as the plate stays under 7 tenths of it.
    length = min(between(rng, 90, 140) * ratio // 1000 + 70, 700) * PLANE // 1000
    body = _nearby(rng, COLOURS[plate], 6)
    return _Sprite(
        kind=SIGN,
        colour=plate,
        size="",
        shape=shape,
        shades=(body, _shades(body)[DARK], body, COLOURS[ink]),
        length=length,
        turn_deg=pick(rng, _SIGN_TURNS_DEG),
        mirrored=False,
        outlined=False,
        striped=False,
        word=word,
        ink_box=ink_box,
    )


@lru_cache(maxsize=1024)
def _sign_shape(word: str, font: str) -> tuple[Shape, tuple[int, int, int, int]]:
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


# ---- colours


def _nearby(rng: np.random.Generator, colour: RGB, spread: int) -> RGB:
    r, g, b = (min(max(channel + between(rng, -spread, spread), 0), 255) for channel in colour)
    return r, g, b


def _mix(colour: RGB, other: RGB, share: int) -> RGB:
    """Go `share` hundredths of the way from one colour to the other."""
    r, g, b = ((a * (100 - share) + c * share) // 100 for a, c in zip(colour, other, strict=True))
    return r, g, b


def _shades(body: RGB) -> tuple[RGB, ...]:
    """Give BODY, DARK, LIGHT and INK of an object; black gets lighter details, white darker ones."""
    if max(body) < 60:
        return body, (62, 62, 68), (205, 205, 210), (98, 98, 106)
    if min(body) > 215:
        return body, (196, 198, 204), (222, 228, 236), (52, 52, 58)
    return body, _mix(body, (0, 0, 0), 38), _mix(body, (255, 255, 255), 66), _mix(body, (16, 16, 20), 78)


# ---- painting


def _backdrop(rng: np.random.Generator, config: WorldConfig) -> tuple[str, str, Pixels]:
    """Paint the background: its colour name, its texture and its pixels (H, W, 3)."""
    ground = pick(rng, tuple(GROUNDS))
    texture = pick(rng, TEXTURES[1:]) if chance(rng, config.texture_share) else TEXTURES[0]
    base = _nearby(rng, _mix(GROUNDS[ground], pick(rng, ((0, 0, 0), (255, 255, 255))), below(rng, 9)), 3)
    contrast = between(rng, 10, 17)
    dark, pale = (np.array(_mix(base, end, contrast)) for end in ((0, 0, 0), (255, 255, 255)))
    palette = (dark + (pale - dark) * np.arange(64)[:, None] // 63).astype(np.uint8)
    w, h = config.image_wh
    x = (2 * np.arange(w) + 1) * config.plane_wh[0] // (2 * w)  # pixel centres in plane units
    y = ((2 * np.arange(h) + 1) * config.plane_wh[1] // (2 * h))[:, None]
    period = between(rng, PLANE // 24, PLANE // 8)
    lean = pick(rng, ((1, 0), (0, 1), (1, 1), (1, -1)))
    if texture == "plain":
        return ground, texture, np.full((h, w, 3), base, np.uint8)
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
    return ground, texture, palette[np.broadcast_to(level, (h, w))]


def _speckles(rng: np.random.Generator, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Chance levels on a grid of 64 cells to the short side."""
    columns, rows = int(x[-1]) * 64 // PLANE + 1, int(y[-1, 0]) * 64 // PLANE + 1
    words = rng.bit_generator.random_raw(rows * columns)
    cells = (np.asarray(words, np.uint64) >> np.uint64(58)).astype(np.int64).reshape(rows, columns)
    return cells[y[:, 0] * 64 // PLANE][:, x * 64 // PLANE]


def _paint(backdrop: Pixels, sprites: list[_Sprite], config: WorldConfig) -> tuple[Pixels, Pixels]:
    """Paint sprites over the backdrop at several times the size, then reduce: smooth edges.

    returns   the image (H, W, 3), and the owner map (H, W) by painting order, from 1.
    """
    w, h = config.image_wh
    fine = 4 if config.side_px <= 256 else 2  # fine pixels per pixel, each way
    canvas = np.asarray(cv2.resize(backdrop, (w * fine, h * fine), interpolation=cv2.INTER_NEAREST), np.uint8)
    owner = np.zeros((h * fine, w * fine), np.uint8)
    for number, sprite in enumerate(sprites, 1):
        points = sprite.turned(sprite.shape.points)
        _fill_silhouette(owner, sprite, points, config.side_px * fine, number)
        if sprite.outlined:
            _fill_silhouette(canvas, sprite, points, config.side_px * fine, sprite.shades[INK])
        fixed = _fixed(points, sprite.centre, config.side_px * fine)
        parts = sprite.shape.parts
        for part in (part for part in parts if not part.inside):
            _fill(canvas, fixed, part.rings, sprite.shades[part.shade])
        if sprite.striped:
            _stripe(canvas, owner, number, fixed, sprite, config.side_px * fine)
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


def _fill_silhouette(target: Pixels, sprite: _Sprite, points: NDArray[np.int64], side: int, value: Any) -> None:
    """Fill all that the sprite covers, its outline included."""
    fixed = _fixed(points, sprite.centre, side)
    for part in sprite.shape.parts:
        if part.inside:
            continue
        _fill(target, fixed, part.rings, value)
        if sprite.outlined:
            rings = [fixed[a:b] for a, b in part.rings]
            cv2.polylines(target, rings, True, value, max(side * 3 // 128, 1), cv2.LINE_8, _SHIFT)


def _stripe(canvas: Pixels, owner: Pixels, number: int, fixed: NDArray[np.int32], sprite: _Sprite, side: int) -> None:
    """Lay darker slanted stripes over the body colour of the sprite painted last."""
    low, high = fixed.min(axis=0) >> _SHIFT, fixed.max(axis=0) >> _SHIFT
    rows = slice(max(int(low[1]), 0), int(high[1]) + 1)
    columns = slice(max(int(low[0]), 0), int(high[0]) + 1)
    patch, body = canvas[rows, columns], sprite.shades[BODY]
    y, x = np.arange(patch.shape[0])[:, None], np.arange(patch.shape[1])
    period = max(sprite.length * side // PLANE // 8, 2)
    where = ((x + y) // period % 2 == 0) & (owner[rows, columns] == number) & (cv2.inRange(patch, body, body) > 0)
    patch[where] = _mix(body, sprite.shades[LIGHT if min(body) > 215 else DARK], 55)


# ---- measuring what is visible


def _measure(owner: Pixels, sprites: list[_Sprite], config: WorldConfig) -> tuple[Pixels, tuple[Thing, ...]]:
    """Number the sprites left to right by what is visible of them, and describe each."""
    boxes = [_visible_box(owner == number) for number in range(1, len(sprites) + 1)]
    order = sorted(range(len(sprites)), key=lambda i: (boxes[i].x0, boxes[i].y0, i))
    number_of = {i: number for number, i in enumerate(order, 1)}
    renumber = np.array([0, *(number_of[i] for i in range(len(sprites)))], np.uint8)
    things = []
    for i in order:
        sprite = sprites[i]
        things.append(
            Thing(
                number=number_of[i],
                kind=sprite.kind,
                colour=sprite.colour,
                size=sprite.size,
                box=boxes[i],
                visible=sprite.seen_count / sprite.full_count,
                on=number_of.get(sprite.under, 0),
                word=sprite.word,
                quad=_quad(sprite, config.side_px) if sprite.word else None,
            )
        )
    return renumber[owner], tuple(things)


def _visible_box(mask: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _quad(sprite: _Sprite, side_px: int) -> Quad:
    """Corners of the printed word, from the top left in its own frame, clockwise; to a sixteenth of a pixel."""
    x0, y0, x1, y1 = sprite.ink_box
    corners = sprite.turned(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.int64)) + np.array(sprite.centre)
    a, b, c, d = (Point(*(float(v) / 16 for v in row)) for row in (corners * side_px * 16 // PLANE).tolist())
    return a, b, c, d
