"""What the scores of a checkpoint are worth, fitted to images whose truth is known.

found = calibrate_world(florence, scenes=1000, seed=5000)
print(found.as_markdown())
write_calibration(found.calibration(data, date), folder)

An answer is right as the benchmarks have it: a box, outline or quad that overlaps a true one of equal label by half or
more, one to one; a text that equals one of the true ones. Half of the images fit a first curve, and the other half
tells how far from the truth scores are without it and with it; the curve that is kept is fitted to all of them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import Record
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig, OpenFlorenceError
from openflorence.evaluation import heldout
from openflorence.evaluation.drawn import WORLD, Drawn, pose_world, world_tasks
from openflorence.evaluation.figures import Answerer, percent, table
from openflorence.evaluation.metrics import mask_parts, match, quad_iou, rasterise, ratio
from openflorence.evaluation.places import LEAST, alike, bounds
from openflorence.evaluation.reading import words_to_judge
from openflorence.evaluation.reliability import reliability
from openflorence.evaluation.report import reliability_pieces
from openflorence.evaluation.scoring import score as score_drawn
from openflorence.model.calibration import Calibration, Curve, Fit, Method
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Florence, Request
from openflorence.pages.pieces import Facts, Heading, Page, Words

FEWEST = 50  # scores; a curve of fewer says more about these images than about the network
TEXTS = ("classify_region", "read_region", "answer")  # their answers are right or wrong; captions are neither
JUDGED: tuple[Task, ...] = tuple(task for task in (*TASKS, FREE_TEXT) if task.form != "text" or task.name in TEXTS)
TILT = 1e-6  # by which a step of an isotonic curve rises to either side, so that it keeps the order of scores


class Pair(NamedTuple):
    """One score, and what became of it."""

    image: int  # which of the images
    score: float
    right: float  # 1 or 0


Pairs = Mapping[str, Sequence[Pair]]  # by task name


@dataclass(frozen=True, eq=False)
class TaskFit:
    """What came of one task."""

    task: str
    n: int  # scores
    curve: Curve | None  # fitted to all of them
    why: str  # why there is no curve; "" where there is one
    raw: NDArray[np.float64]  # (m, 2) scores of the half that the first curve had not seen, and right or not
    settled: NDArray[np.float64]  # (m, 2) the same through that first curve; no row without a curve

    @property
    def before(self) -> float | None:
        """Expected calibration error of the raw scores, in 0..1."""
        return reliability(self.raw).error

    @property
    def after(self) -> float | None:
        """Expected calibration error of what the first curve makes of them."""
        return reliability(self.settled).error


@dataclass(frozen=True, eq=False)
class Fitted:
    """The curves of all tasks, with what they change."""

    images: int
    method: Method
    tasks: tuple[TaskFit, ...]

    def calibration(self, data: str, date: str) -> Calibration:
        """Give what is kept beside the weights.

        data      what the images are, for people.
        """
        fits: dict[str, Fit] = {}
        for one in self.tasks:
            before, after = one.before, one.after
            if one.curve is not None and before is not None and after is not None:
                fits[one.task] = Fit(curve=one.curve, n=one.n, error_before=before, error_after=after)
        return Calibration(fits=fits, data=data, date=date)

    def as_markdown(self) -> str:
        """Give a row a task: all scores, and of the half that tells, what is right and the error before and after."""
        head = ("task", "scores", "right, %", "ECE before, %", "ECE after, %", "curve")
        rows = [
            (one.task, str(one.n), percent(_mean(one.raw)), percent(one.before), percent(one.after), self._curve(one))
            for one in self.tasks
        ]
        return "\n".join(table(head, rows))

    def _curve(self, one: TaskFit) -> str:
        if one.curve is None:
            return f"none: {one.why}"
        return f"T = {one.curve.temperature:.2f}" if self.method == "temperature" else f"{len(one.curve.knots)} knots"

    def page(self, title: str, facts: Sequence[tuple[str, str]] = ()) -> Page:
        """Give a page with two reliability diagrams a task: scores as the network gave them, and what is made of them.

        facts     names and values that stand above.
        """
        page = Page(title)
        page.add(Facts([*facts, ("images", str(self.images)), ("method", self.method)]))
        page.add(Words("All diagrams show the half of the images that their curve was not fitted to.", "note"))
        for one in self.tasks:
            page.add(Heading(one.task))
            page.add(*reliability_pieces(one.raw, "Before"), *reliability_pieces(one.settled, "After"))
            if one.why:
                page.add(Words(f"No curve: {one.why}.", "note"))
        return page


def calibrate_world(
    model: Answerer,
    scenes: int = 1000,
    seed: int = 5000,
    method: Method = "isotonic",
    options: AskOptions = DEFAULT_OPTIONS,
    batch: int = 64,
    advance: Callable[[], object] | None = None,
    world: WorldConfig = WORLD,
) -> Fitted:
    """Fit what the scores of a model are worth on drawn scenes.

    scenes, seed  scenes `seed` up to `seed + scenes`; keep away from those that the model is scored on afterwards.
    options       of all questions: other options give other scores.
    advance       called once a scene.
    raises        BadConfig for no scenes, or for scenes that training may have seen.
    """
    asked = world_tasks(scenes, seed, JUDGED)
    pairs = world_pairs(uncalibrated(model), scenes, seed, asked, options, batch, advance, world)
    return Fitted(scenes, method, fit_tasks(pairs, method))


def calibrate_records(
    model: Answerer,
    records: Sequence[Record],
    root: Path,
    method: Method = "isotonic",
    options: AskOptions = DEFAULT_OPTIONS,
    limit: int | None = None,
    advance: Callable[[], object] | None = None,
) -> Fitted:
    """Fit what the scores of a model are worth on annotated images.

    records, root  cleaned, and the folder that their image paths start at, as `heldout.open_part` gives them.
    limit          most images; they are taken from the whole list at equal steps.
    advance        called once an image.
    returns        a fit of each task that the records can pose.
    raises         BadConfig when no answer about the records can be judged.
    """
    chosen = heldout.spread(records, limit)
    pairs = record_pairs(uncalibrated(model), chosen, root, options, advance)
    if not pairs:
        raise BadConfig(
            f"{len(chosen)} records, and no answer about them can be judged; give a data set with boxes, outlines, "
            "phrases, lines of text, or questions"
        )
    return Fitted(len(chosen), method, fit_tasks(pairs, method))


def uncalibrated(model: Answerer) -> Answerer:
    """The same model with its scores as they come."""
    if not isinstance(model, Florence) or model.checkpoint.calibration is None:
        return model
    return Florence(replace(model.checkpoint, calibration=None), model.side_px, model.limits)


# ---- scores, and what became of them


def world_pairs(
    model: Answerer,
    scenes: int,
    seed: int,
    tasks: Sequence[Task],
    options: AskOptions = DEFAULT_OPTIONS,
    batch: int = 64,
    advance: Callable[[], object] | None = None,
    world: WorldConfig = WORLD,
) -> Pairs:
    """Ask about drawn scenes, and judge each score that comes back; errors in place of an answer have none."""
    pairs: dict[str, list[Pair]] = {task.name: [] for task in tasks}
    waiting: deque[Drawn] = deque()

    def requests() -> Iterator[Request]:
        for posed in pose_world(scenes, seed, tasks, advance, world):
            waiting.append(posed)
            yield posed.request

    for answer in model.predict_many(requests(), options, batch=batch, on_error="give"):
        posed = waiting.popleft()
        if isinstance(answer, OpenFlorenceError):
            continue
        true = posed.example.answer
        if true.task.form == "text":
            right = score_drawn(posed.scene, posed.example, answer)["exact"].right
            judged = [] if answer.score is None else [(answer.score, right)]
        else:
            judged = judge_regions(answer.regions, true)
        pairs[true.task.name] += [Pair(posed.row, *one) for one in judged]
    assert not waiting, f"{len(waiting)} requests got no answer"
    return pairs


def record_pairs(
    model: Answerer,
    records: Sequence[Record],
    root: Path,
    options: AskOptions = DEFAULT_OPTIONS,
    advance: Callable[[], object] | None = None,
) -> Pairs:
    """Ask what records can pose, and judge each score that comes back; images that cannot be read have none."""
    pairs: dict[str, list[Pair]] = {}
    for posed, answer in heldout.ask_records(model, records, root, JUDGED, options, advance):
        if not isinstance(answer, Answer) or answer.image_wh != posed.record.image_wh:
            continue
        if posed.task.form == "text":
            right = heldout.score(posed, answer)["exact"].right
            judged = [] if answer.score is None else [(answer.score, right)]
        else:  # the right answer that it agrees with most
            every = (judge_regions(answer.regions, true, posed.crowds) for true in posed.answers)
            judged = max(every, key=lambda one: sum(right for _, right in one))
        pairs.setdefault(posed.task.name, []).extend(Pair(posed.row, *one) for one in judged)
    return pairs


def judge_regions(
    predicted: Sequence[Region], true: Answer, crowds: Sequence[Region] = ()
) -> list[tuple[float, float]]:
    """Give the score of each region that has one, and 1 or 0: whether it is there.

    predicted  of an answer to the task of `true`.
    crowds     regions that stand for many: what lies in one is not judged; nor is what lies in a word that nobody is
               asked to read.
    source     IoU of at least 0.5 and equal labels, one to one, best overlap first, as `match` does; what names nothing
               has no label to be equal.
    """
    form = true.task.form
    there: Sequence[Region] = true.regions
    named = form not in ("bare_boxes", "polygons")
    if form == "polygons":
        overlap = _mask_ious(predicted, there, true.image_wh)
    elif form == "quads":
        predicted, there = words_to_judge(predicted, there)
        overlap = np.array([[_quad_iou(one, other) for other in there] for one in predicted], np.float64)
    else:
        predicted = heldout.outside_crowds(predicted, there, crowds, labelled=named)
        overlap = box_iou(bounds(predicted), bounds(there))
    overlap = overlap.reshape(len(predicted), len(there)) * (alike(predicted, there) if named else 1)
    right = {place for place, _ in match(overlap, LEAST)}
    return [(one.score, float(place in right)) for place, one in enumerate(predicted) if one.score is not None]


def _quad_iou(one: Region, other: Region) -> float:
    return quad_iou(one.quad, other.quad) if one.quad and other.quad else 0.0


def _mask_ious(predicted: Sequence[Region], true: Sequence[Region], image_wh: tuple[int, int]) -> NDArray[np.float64]:
    masks, exact = ([rasterise(region.polygons, image_wh) for region in some] for some in (predicted, true))
    return np.array([[ratio(*mask_parts(one, other)) or 0.0 for other in exact] for one in masks], np.float64)


# ---- curves


def fit_tasks(pairs: Pairs, method: Method, seed: int = 0) -> tuple[TaskFit, ...]:
    """Fit a curve for every task, and measure what a curve of half of the images does for the other half.

    seed      of the order in which the images of a task go to one half and the other by turns.
    """
    return tuple(
        _fit_task(name, np.array(rows, np.float64).reshape(-1, 3), method, seed) for name, rows in pairs.items()
    )


def _fit_task(name: str, rows: NDArray[np.float64], method: Method, seed: int) -> TaskFit:
    images = np.random.default_rng(seed).permutation(np.unique(rows[:, 0]))
    second = np.isin(rows[:, 0], images[1::2])
    learnt, unseen, every = rows[~second, 1:], rows[second, 1:], rows[:, 1:]
    why = too_few(every) or ("" if _has_both(learnt) and len(unseen) else "one half has all that is right or wrong")
    if why:
        return TaskFit(name, len(every), None, why, unseen, np.zeros((0, 2)))
    first = fit_curve(learnt, method)
    settled = np.array([(first.apply(score), right) for score, right in unseen.tolist()], np.float64)
    return TaskFit(name, len(every), fit_curve(every, method), "", unseen, settled)


def too_few(pairs: NDArray[np.float64]) -> str:
    """Say why no curve can be fitted; "" where one can."""
    if len(pairs) < FEWEST:
        return f"{len(pairs)} scores, {FEWEST} are needed"
    return "" if _has_both(pairs) else f"all {len(pairs)} answers are {'right' if pairs[0, 1] else 'wrong'}"


def _has_both(pairs: NDArray[np.float64]) -> bool:
    return len(np.unique(pairs[:, 1])) == 2


def fit_curve(pairs: NDArray[np.float64], method: Method) -> Curve:
    """Fit a curve to scores and what became of them.

    pairs     (n, 2): a score in 0..1, and 1 where the answer was right or 0 where not; some of each.
    raises    BadConfig when all answers are right or all wrong.
    source    "temperature": Guo et al. 2017, least negative log-likelihood. "isotonic": Zadrozny and Elkan 2002, by
              pooling adjacent violators.
    promise   an isotonic curve keeps the order of scores: average precision does not change.
    """
    if not _has_both(pairs):
        raise BadConfig(f"{len(pairs)} answers that are all right or all wrong show no curve; give some of each")
    scores, right = pairs[:, 0].clip(0, 1), pairs[:, 1]
    if method == "temperature":
        return Curve(method=method, temperature=_temperature(scores, right))
    # One right answer at the lowest score and one wrong at the highest: no score is worth exactly 0 or 1.
    scores = np.concatenate([scores, [scores.min(), scores.max()]])
    right = np.concatenate([right, [1.0, 0.0]])
    return Curve(method=method, knots=_knots(pool(scores, right)))


def _temperature(scores: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Where the likelihood of score ** (1 / T) is greatest: it has one top, since its slope in 1 / T only falls."""
    logs = np.log(scores.clip(1e-12, 1 - 1e-7))  # a score of 0 or 1 would be certain at any temperature
    sure, wrong = float(logs[right > 0].sum()), -logs[right == 0]
    low, high = -7.0, 7.0  # logarithm of 1 / T
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(over="ignore"):
            slope = sure + float((wrong / np.expm1(wrong * np.exp(middle))).sum())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


class Block(NamedTuple):
    """Scores that are worth the same."""

    low: float  # the lowest score of it
    high: float
    right: float  # how many are right
    n: float

    @property
    def worth(self) -> float:
        """The share that is right."""
        return self.right / self.n


def pool(scores: NDArray[np.float64], right: NDArray[np.float64]) -> list[Block]:
    """Part scores into blocks of which each is worth more than the one before: the closest fit that never falls.

    source    Ayer et al. 1955, pool adjacent violators; equal scores are one block from the start.
    """
    levels, place = np.unique(scores, return_inverse=True)
    counts, sums = np.bincount(place), np.bincount(place, weights=right)
    blocks: list[Block] = []
    for level, n, hits in zip(levels.tolist(), counts.tolist(), sums.tolist(), strict=True):
        block = Block(level, level, hits, n)
        while blocks and blocks[-1].worth >= block.worth:
            last = blocks.pop()
            block = Block(last.low, block.high, last.right + block.right, last.n + block.n)
        blocks.append(block)
    return blocks


def _knots(blocks: Sequence[Block]) -> tuple[tuple[float, float], ...]:
    """A step a block, between steps a ramp; the first step begins at 0 and the last one ends at 1."""
    values = [0.0, *(block.worth for block in blocks), 1.0]
    tilt = min(TILT, min(np.diff(values)) / 4)
    knots: dict[float, float] = {}
    for place, block in enumerate(blocks):
        low = 0.0 if place == 0 else block.low
        high = 1.0 if place == len(blocks) - 1 else block.high
        knots |= {low: block.worth} if low == high else {low: block.worth - tilt, high: block.worth + tilt}
    return tuple((score, float(worth)) for score, worth in knots.items())


def _mean(pairs: NDArray[np.float64]) -> float | None:
    return float(pairs[:, 1].mean()) if len(pairs) else None
