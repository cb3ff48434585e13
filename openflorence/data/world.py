"""The drawn world: seeded scenes that know what is in them. `truth.py` turns a scene into answers.

A scene is planned in plane units and only then painted at the size asked for, so one seed is one layout at every
size; how it is one picture on every machine stands in `chance.py` and `painting.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Box, Point, Quad
from openflorence.data.chance import below, between, chance, dice, pick
from openflorence.data.glyphs import FONTS, letter_edges
from openflorence.data.painting import (
    PLANE,
    Pixels,
    Sprite,
    fill_silhouette,
    nearby,
    paint,
    paint_backdrop,
    shades_of,
)
from openflorence.data.shapes import DARK, KINDS, SHAPES, sign_shape
from openflorence.data.words import COLOURS, GROUNDS, PLATES, SIGN, SIGN_WORDS, SIZES, TEXTURES
from openflorence.errors import BadConfig

_REFERENCE_PX = 128  # short side of the raster on which overlaps are judged, whatever the size painted
_MOST_OBJECTS = 200  # owners are numbered in eight bits, signs among them
_SIGN_TURNS_DEG = (0, 0, 0, -24, -15, -8, 8, 15, 24)


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
    size_percent: int = 100  # of the usual size of objects, for crowds; size words mean what they mean among these
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
        if not 1 <= self.min_objects <= self.max_objects <= _MOST_OBJECTS or not 0 <= self.max_signs <= 4:
            raise BadConfig(
                f"{self.min_objects}..{self.max_objects} objects, up to {self.max_signs} signs: "
                f"allowed are 1..{_MOST_OBJECTS} objects and 0..4 signs"
            )
        if not 10 <= self.size_percent <= 100:
            raise BadConfig(f"size_percent {self.size_percent}: allowed are 10..100")
        for name in (field.name for field in fields(self) if field.name.endswith("_share")):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"{name} {getattr(self, name)}: a share is from 0 to 1")
        if not 0 <= self.min_visible <= 1:
            raise BadConfig(f"min_visible {self.min_visible}: a share is from 0 to 1")
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
    letter_edges: tuple[float, ...] = ()  # where its letters begin and the last one ends, as shares of the quad's width

    @property
    def is_sign(self) -> bool:
        """True for a plate with a word, False for a drawn object."""
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
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def objects(self) -> tuple[Thing, ...]:
        """Everything but the signs, left to right."""
        return tuple(thing for thing in self.things if not thing.is_sign)

    @property
    def signs(self) -> tuple[Thing, ...]:
        """The signs, left to right."""
        return tuple(thing for thing in self.things if thing.is_sign)

    def mask(self, thing: Thing) -> NDArray[np.bool_]:
        """Mark the visible pixels of a thing: (H, W)."""
        return self.owner == thing.number


def draw_scene(seed: int, config: WorldConfig = WorldConfig()) -> Scene:
    """Plan, paint and measure one scene; the same seed and config give the same scene on every machine.

    seed      any int >= 0.
    """
    rng = dice(seed)
    ground = pick(rng, tuple(GROUNDS))
    texture = pick(rng, TEXTURES[1:]) if chance(rng, config.texture_share) else TEXTURES[0]
    backdrop = paint_backdrop(rng, ground, texture, config.image_wh)
    sprites = _plan(rng, config)
    image, owner = paint(backdrop, sprites)
    return Scene(seed, config, image, *_measure(owner, sprites, config), ground, texture)


# ---- the plan: what stands where


def _plan(rng: np.random.Generator, config: WorldConfig) -> list[Sprite]:
    """Place signs, then objects, in painting order; nothing covers a sign, or another thing too much."""
    w, h = config.plane_wh
    reference_wh = (w * _REFERENCE_PX // PLANE, h * _REFERENCE_PX // PLANE)
    owner = np.zeros((reference_wh[1], reference_wh[0]), np.uint8)
    sprites: list[Sprite] = []
    sign_count = between(rng, 1, config.max_signs) if config.max_signs and chance(rng, config.sign_share) else 0
    for _ in range(sign_count):
        _place(rng, config, sprites, owner, lambda _attempt: (_new_sign(rng), -1))
    for _ in range(between(rng, config.min_objects, config.max_objects)):
        may_cover = chance(rng, config.overlap_share)
        hosts = [i for i, other in enumerate(sprites) if other.can_carry]
        host = pick(rng, hosts) if hosts and chance(rng, config.on_share) else -1

        def propose(attempt: int, host: int = host) -> tuple[Sprite, int]:
            # Every third attempt goes down a size, so that a crowded scene still gets its objects.
            on_host = host >= 0 and attempt < 4
            return _new_object(rng, config, len(SIZES) if on_host else attempt // 3), host if on_host else -1

        _place(rng, config, sprites, owner, propose, may_cover)
    return sprites


def _place(
    rng: np.random.Generator,
    config: WorldConfig,
    sprites: list[Sprite],
    owner: Pixels,
    propose: Callable[[int], tuple[Sprite, int]],
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
    sprite: Sprite,
    points: NDArray[np.int64],
    sprites: list[Sprite],
    owner: Pixels,
    min_visible: float,
    may_cover: bool,
) -> bool:
    """Judge the overlaps on the reference raster; when all is well, claim the sprite's pixels there."""
    trial = np.zeros_like(owner)
    fill_silhouette(trial, sprite, points, _REFERENCE_PX, 1)
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


def _new_object(rng: np.random.Generator, config: WorldConfig, smaller: int) -> Sprite:
    kind, colour = pick(rng, config.kinds), pick(rng, config.colours)
    size = config.sizes[max(below(rng, len(config.sizes)) - smaller, 0)]
    shape = SHAPES[kind]
    low, high = SIZES[size]
    return Sprite(
        kind=kind,
        colour=colour,
        size=size,
        shape=shape,
        shades=shades_of(nearby(rng, COLOURS[colour], 8)),
        length=between(rng, low, high) * PLANE * config.size_percent // 100_000,
        turn_deg=between(rng, -shape.turn_deg, shape.turn_deg),
        mirrored=bool(below(rng, 2)) and shape.mirrors,
        outlined=chance(rng, config.outline_share),
        striped=chance(rng, config.pattern_share),
    )


def _new_sign(rng: np.random.Generator) -> Sprite:
    word, font = pick(rng, SIGN_WORDS), pick(rng, FONTS)
    plate, ink = pick(rng, PLATES)
    shape, ink_box = sign_shape(word, font)
    ratio = (ink_box[2] - ink_box[0]) * 1000 // (ink_box[3] - ink_box[1])  # of the word, in thousandths
    # Capitals of 7 to 13 hundredths of the short side, as long as the plate stays under 7 tenths of it.
    length = min(between(rng, 90, 140) * ratio // 1000 + 70, 700) * PLANE // 1000
    body = nearby(rng, COLOURS[plate], 6)
    return Sprite(
        kind=SIGN,
        colour=plate,
        size="",
        shape=shape,
        shades=(body, shades_of(body)[DARK], body, COLOURS[ink]),
        length=length,
        turn_deg=pick(rng, _SIGN_TURNS_DEG),
        mirrored=False,
        outlined=False,
        striped=False,
        word=word,
        ink_box=ink_box,
        letter_edges=letter_edges(word, font),
    )


# ---- measuring what is visible


def _measure(owner: Pixels, sprites: list[Sprite], config: WorldConfig) -> tuple[Pixels, tuple[Thing, ...]]:
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
                letter_edges=sprite.letter_edges,
            )
        )
    return renumber[owner], tuple(things)


def _visible_box(mask: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def _quad(sprite: Sprite, side_px: int) -> Quad:
    """Corners of the printed word, from the top left in its own frame, clockwise; to a sixteenth of a pixel."""
    x0, y0, x1, y1 = sprite.ink_box
    corners = sprite.turned(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.int64)) + np.array(sprite.centre)
    a, b, c, d = (Point(*(float(v) / 16 for v in row)) for row in (corners * side_px * 16 // PLANE).tolist())
    return a, b, c, d
