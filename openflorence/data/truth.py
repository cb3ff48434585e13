"""Scene -> what every task should answer, and questions with their answers.

Order, stated once: regions go left to right by the visible box (x0, then y0), which is the order of Scene.things;
`find` and `ground` go phrase by phrase and left to right within one; printed words go in reading order.
"Objects" are the drawn kinds; signs are counted apart.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.contract.answers import join_labels
from openflorence.contract.prompts import AND, input_of
from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Box, Point, Polygon, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.chance import below, chance, dice, pick, shuffled
from openflorence.data.questions import absent_phrase, pose_question
from openflorence.data.sentences import (
    LEVELS,
    caption,
    detailed_caption,
    groups,
    more_detailed_caption,
    name,
    opening,
    reading_order,
    referring_phrases,
)
from openflorence.data.shapes import KINDS
from openflorence.data.words import COLOURS, NUMBERS, SIGN, SIGN_WORDS, SIZES, counted, listed, plural
from openflorence.data.world import Scene, Thing, WorldConfig, draw_scene

VERTICES = 20  # of the first ring of an outline
_TRACE_SCALE = 4  # masks are traced this much enlarged: a traced outline runs half a pixel inside its mask


def ask(scene: Scene, task: str | Task, rng: np.random.Generator) -> Example | None:
    """Pose one task on a scene; None if the scene cannot pose it, as `read_region` without a sign.

    rng       chooses what is asked; a task without input has one answer only.
    """
    task = find_task(task)
    posed = _POSERS[task.name](scene, rng)
    if posed is None:
        return None
    if task.form != "text":
        posed.answer_text = join_labels(posed.regions, task)
    words = input_of(task, posed.text, posed.region, scene.image_wh)
    answer = Answer(task, scene.image_wh, posed.answer_text, tuple(posed.regions), input=words)
    return Example(task, posed.text, posed.region, answer)


def examples(
    scene: Scene, rng: np.random.Generator, tasks: Iterable[str | Task] = (*TASKS, FREE_TEXT)
) -> list[Example]:
    """Pose each task that the scene can pose, once, in the order given."""
    posed = (ask(scene, task, rng) for task in tasks)
    return [example for example in posed if example is not None]


@dataclass
class _Posed:
    """A task's input and answer, before the task table has its say."""

    answer_text: str = ""
    regions: Iterable[Region] = ()
    text: str | None = None
    region: Box | None = None


# ---- tasks


def _boxes(things: Iterable[Thing], label: Callable[[Thing], str]) -> list[Region]:
    return [Region(label(thing), box=thing.box) for thing in things]


def _pose_detect(scene: Scene, _: np.random.Generator) -> _Posed:
    return _Posed(regions=_boxes(scene.things, lambda thing: thing.kind))


def _pose_dense_caption(scene: Scene, _: np.random.Generator) -> _Posed:
    return _Posed(regions=_boxes(scene.things, name))


def _pose_propose(scene: Scene, _: np.random.Generator) -> _Posed:
    return _Posed(regions=_boxes(scene.things, lambda _thing: ""))


def _pose_read(scene: Scene, _: np.random.Generator) -> _Posed:
    return _Posed("\n".join(sign.word for sign in reading_order(scene)))


def _pose_read_regions(scene: Scene, _: np.random.Generator) -> _Posed:
    return _Posed(regions=[Region(sign.word, quad=sign.quad) for sign in reading_order(scene)])


def _pose_ground(scene: Scene, rng: np.random.Generator) -> _Posed:
    """Ask for the phrases of the caption, of the detailed caption's first sentence, or of a mixed choice."""
    style = below(rng, 3)
    if style == 0:
        named, text = groups(scene.things, "colour"), caption(scene)
    elif style == 1:
        named, text = groups(scene.things, "full"), opening(scene)
    else:
        named = shuffled(rng, groups(scene.things, pick(rng, LEVELS)))
        named = named[: 1 + below(rng, min(len(named), 4))]
        text = listed([phrase for phrase, _ in named])
    return _Posed(text=text, regions=[Region(phrase, box=thing.box) for phrase, alike in named for thing in alike])


def _pose_segment(scene: Scene, rng: np.random.Generator) -> _Posed | None:
    for thing in shuffled(rng, scene.things):
        phrases = referring_phrases(scene, thing)
        if phrases:
            return _Posed(text=pick(rng, phrases), regions=[Region(polygons=polygons(scene, thing))])
    return None


def _pose_segment_region(scene: Scene, rng: np.random.Generator) -> _Posed:
    thing = pick(rng, scene.things)
    return _Posed(region=thing.box, regions=[Region(polygons=polygons(scene, thing))])


def _pose_find(scene: Scene, rng: np.random.Generator) -> _Posed:
    """Ask for one phrase or two, now and then for what is not there."""
    phrases: list[str] = []
    for _ in range(1 + below(rng, 2)):
        level = pick(rng, ("kind", "colour"))
        absent = chance(rng, scene.config.absent_share)
        phrase = absent_phrase(scene, rng) if absent else name(pick(rng, scene.things), level)
        if phrase not in phrases:
            phrases.append(phrase)
    regions = [
        Region(phrase, box=thing.box)
        for phrase in phrases
        for thing in scene.things
        if phrase in (name(thing, "kind"), name(thing, "colour"))
    ]
    return _Posed(text=AND.join(phrases), regions=regions)


def _pose_classify_region(scene: Scene, rng: np.random.Generator) -> _Posed:
    thing = pick(rng, scene.things)
    return _Posed(thing.kind, region=thing.box)


def _pose_describe_region(scene: Scene, rng: np.random.Generator) -> _Posed:
    thing = pick(rng, scene.things)
    return _Posed(name(thing), region=thing.box)


def _pose_read_region(scene: Scene, rng: np.random.Generator) -> _Posed | None:
    if not scene.signs:
        return None
    sign = pick(rng, scene.signs)
    return _Posed(sign.word, region=sign.box)


def _pose_answer(scene: Scene, rng: np.random.Generator) -> _Posed:
    question, answer = pose_question(scene, rng)
    return _Posed(answer, text=question)


_POSERS: dict[str, Callable[[Scene, np.random.Generator], _Posed | None]] = {
    "caption": lambda scene, _: _Posed(caption(scene)),
    "detailed_caption": lambda scene, _: _Posed(detailed_caption(scene)),
    "more_detailed_caption": lambda scene, _: _Posed(more_detailed_caption(scene)),
    "detect": _pose_detect,
    "dense_caption": _pose_dense_caption,
    "propose": _pose_propose,
    "read": _pose_read,
    "read_regions": _pose_read_regions,
    "ground": _pose_ground,
    "segment": _pose_segment,
    "segment_region": _pose_segment_region,
    "find": _pose_find,
    "classify_region": _pose_classify_region,
    "describe_region": _pose_describe_region,
    "read_region": _pose_read_region,
    "answer": _pose_answer,
}


# ---- outlines


def polygons(scene: Scene, thing: Thing) -> tuple[Polygon, ...]:
    """Trace the visible pixels of a thing.

    The vertices of a ring stand at equal steps along the outline. Where a shape bends is not marked: vertices left by
    a simplification lie where a tenth of a pixel decides, and nano, taught those, followed the first few and then
    lost its way (mean IoU 0.14 where the truth scores 0.96; with equal steps the truth scores 0.93).

    returns   one ring per part, the largest first: clockwise, from its topmost and then leftmost point, of VERTICES
              vertices, half as many for every further part, in pixels. A part with a hole is cut through the hole
              into two.
    """
    x0, y0, x1, y1 = (int(edge) for edge in thing.box)
    mask = scene.mask(thing)[y0:y1, x0:x1].astype(np.uint8)
    traced = [line for piece in _without_holes(mask) for line in _trace(piece)]
    traced.sort(key=cv2.contourArea, reverse=True)
    least = mask.sum() * _TRACE_SCALE**2 * 0.02  # crumbs, such as a whisker cut off, say nothing
    kept = [line for i, line in enumerate(traced) if i == 0 or cv2.contourArea(line) >= least]
    return tuple(_ring(line, VERTICES if i == 0 else VERTICES // 2, x0, y0) for i, line in enumerate(kept))


def _without_holes(mask: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Cut a mask at the middle column of its largest hole, if that hole is worth it."""
    lines, family = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [line for line, kin in zip(lines, family[0], strict=True) if kin[3] >= 0]
    largest = max(holes, key=cv2.contourArea, default=None)
    if largest is None or cv2.contourArea(largest) < 0.04 * mask.sum():
        return [mask]
    cut = int(largest[:, 0, 0].min() + largest[:, 0, 0].max() + 1) // 2
    left, right = mask.copy(), mask.copy()
    left[:, cut:] = 0
    right[:, :cut] = 0
    return [left, right]


def _trace(mask: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
    """Find the outer lines of a mask, on a raster _TRACE_SCALE times finer: (points, 2), clockwise as seen."""
    fine = np.pad(mask, 1).repeat(_TRACE_SCALE, axis=0).repeat(_TRACE_SCALE, axis=1)
    lines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # OpenCV runs outer lines anticlockwise as seen, y being downwards.
    return [np.asarray(line, np.int32)[::-1, 0] for line in lines]


def _ring(line: NDArray[np.int32], vertices: int, x0: int, y0: int) -> Polygon:
    """Place vertices at equal steps along a traced line, from its topmost and then leftmost point: pixels."""
    first = int(np.lexsort((line[:, 0], line[:, 1]))[0])
    line = np.roll(line, -first, axis=0)
    # Along a mean over a few points, so that a slanted edge is not counted as long as its staircase.
    span = range(-_TRACE_SCALE - 1, _TRACE_SCALE + 2)
    smooth = np.mean([np.roll(line, step, axis=0) for step in span], axis=0)
    steps = np.hypot(*np.diff(np.vstack((smooth, smooth[:1])), axis=0).T)
    passed = np.concatenate(([0.0], np.cumsum(steps)))
    stops = np.arange(vertices) * passed[-1] / vertices
    closed = np.vstack((line, line[:1]))
    xs, ys = np.interp(stops, passed, closed[:, 0]), np.interp(stops, passed, closed[:, 1])
    # To a sixty-fourth of a pixel: the last digits of roots and sums are not the same on every machine.
    return tuple(
        Point(*(round(((v + 0.5) / _TRACE_SCALE - 1 + start) * 64) / 64 for v, start in ((x, x0), (y, y0))))
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
    )


# ---- truth for the tower alone

LABELS: tuple[str, ...] = (*KINDS, SIGN)  # kinds by index, signs last
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)  # colours by index


@dataclass(frozen=True, eq=False)
class DenseTruth:
    """What stands where, as arrays; one row per thing, left to right."""

    kinds: NDArray[np.int64]  # (things,) index into LABELS
    colours: NDArray[np.int64]  # (things,) index into COLOUR_NAMES
    shares: NDArray[np.float32]  # (h, w, 1 + things) share of each cell's pixels: background, then the things


def dense_truth(scene: Scene, grid_hw: tuple[int, int]) -> DenseTruth:
    """Give kind and colour of each thing, and what each cell of a grid shows.

    grid_hw   rows and columns of the grid; at most the pixels of the image.
    """
    (rows, columns), (width, height) = grid_hw, scene.image_wh
    layers = len(scene.things) + 1
    cell = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    counts = np.bincount((cell * layers + scene.owner).ravel(), minlength=rows * columns * layers)
    counts = counts.reshape(rows, columns, layers)
    return DenseTruth(
        kinds=np.array([LABELS.index(thing.kind) for thing in scene.things], np.int64),
        colours=np.array([COLOUR_NAMES.index(thing.colour) for thing in scene.things], np.int64),
        shares=(counts / counts.sum(axis=2, keepdims=True)).astype(np.float32),
    )


# ---- the vocabulary


def vocabulary_texts(scenes: int = 300, seed: int = 0) -> Iterator[str]:
    """Yield every word the world can say, then what it says and is asked about some scenes; for a tokenizer.

    scenes    how many scenes to pose all tasks on; drawn from `seed` on.
    """
    yield from (*SIZES, *COLOURS, *LABELS, *map(plural, LABELS), *SIGN_WORDS, *NUMBERS)
    yield from map(str, range(len(NUMBERS)))
    for phrase in (f"{size} {colour} {kind}" for kind in LABELS for colour in COLOURS for size in SIZES):
        yield phrase
        yield counted(phrase, 1)
    for number in range(seed, seed + scenes):
        scene = draw_scene(number, WorldConfig(side_px=64))
        for example in examples(scene, dice(number)):
            if example.text is not None:
                yield example.text
            if example.answer.text:
                yield example.answer.text
