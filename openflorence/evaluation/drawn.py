"""The drawn world as a benchmark: every task on scenes that training never sees, scored against their exact truth.

scores = evaluate_world(model, scenes=500)
write_world_report(scores, path)                 # one JSON object
text = as_markdown(scores)                       # the same figures as a table

What `evaluate_world` does in one go can be done in two, with the answers kept in between: `pose_world` gives what to
ask, `judge_world` scores what came back.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from PIL import Image

from openflorence.contract.prompts import fill_sentence
from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.chance import dice
from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.truth import ask
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig, OpenFlorenceError
from openflorence.evaluation.detection import Regions, average_precision
from openflorence.evaluation.figures import (
    Answerer,
    Tally,
    TaskScores,
    figure_named,
    plain_tasks,
    task_table,
    write_report,
)
from openflorence.evaluation.metrics import Figure
from openflorence.evaluation.results import ROUNDS, Exhibit, Results, measure
from openflorence.evaluation.scoring import score, sure_and_right
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request

WORLD = WorldConfig()  # the world that nano is trained on, painted at its input size


@dataclass(frozen=True)
class WorldScores:
    """The scores of one model on the drawn world, and all it takes to repeat them."""

    scenes: int
    seed: int  # of the first scene; the others follow
    world: WorldConfig
    options: AskOptions
    tasks: tuple[TaskScores, ...]
    seconds: float  # drawing, asking and scoring
    model: str = ""  # given by the caller, with dataclasses.replace; so is the date
    date: str = ""

    def figure(self, task: str, name: str | None = None) -> Figure:
        """Look a figure up by task name and its own name; the headline figure of the task without one."""
        return figure_named(self.tasks, task, name)


def evaluate_world(
    model: Answerer,
    scenes: int = 500,
    seed: int = 0,
    tasks: Sequence[str | Task] | None = None,
    options: AskOptions = DEFAULT_OPTIONS,
    batch: int = 64,
    advance: Callable[[], object] | None = None,
    world: WorldConfig = WORLD,
) -> WorldScores:
    """Score a model on freshly drawn scenes that no training run sees.

    scenes, seed  scenes `seed` up to `seed + scenes` are drawn, all below FIRST_TRAINING_SEED.
    tasks         names or tokens; all fifteen and free text unless given. A task is asked the same whatever the others.
    batch         answers decoded together; the tasks of one scene stand next to each other and share its encoding.
    advance       called once a scene.
    raises        BadConfig for no scenes, or for scenes that training may have seen; BadPrompt for an unknown task.
    """
    start = time.perf_counter()
    asked = world_tasks(scenes, seed, tasks)
    waiting: deque[Drawn] = deque()

    def requests() -> Iterator[Request]:
        for posed in pose_world(scenes, seed, asked, advance, world):
            waiting.append(posed)
            yield posed.request

    answers = model.predict_many(requests(), options, batch=batch, on_error="give")
    judged = judge_world(((waiting.popleft(), answer) for answer in answers), scenes, asked)
    assert not waiting, f"{len(waiting)} requests got no answer"
    return WorldScores(scenes, seed, world, options, judged.scores, time.perf_counter() - start)


# ---- asked, and judged


@dataclass(frozen=True, eq=False)
class Drawn:
    """One question about a drawn scene."""

    row: int  # of its scene
    scene: Scene
    picture: Image.Image  # one for all questions about a scene, so that it is encoded once
    example: Example

    @property
    def key(self) -> str:
        """What tells it apart in a file of answers: the seed of the scene, and the task."""
        return f"{self.scene.seed}/{self.example.task.name}"

    @property
    def request(self) -> Request:
        """As a model is asked."""
        return Request(self.picture, self.example.task, self.example.text, self.example.region)


class Seen(NamedTuple):
    """What is kept of a question after it was judged."""

    row: int
    seed: int
    true: Answer
    said: Answer


@dataclass(frozen=True, eq=False)
class JudgedWorld:
    """The answers about scenes, counted and scored task by task."""

    tallies: dict[str, Tally]
    seen: dict[str, list[Seen]]

    @property
    def scores(self) -> tuple[TaskScores, ...]:
        """Sum up every task."""
        scored = tuple(tally.scores(name) for name, tally in self.tallies.items())
        return tuple(self._with_ap50(one) if one.task == "detect" else one for one in scored)

    def _with_ap50(self, scores: TaskScores) -> TaskScores:
        """Add average precision at IoU 0.5, boxes ranked by probability; where its library is installed."""
        if find_spec("pycocotools") is None:
            return scores
        found, true = self.boxes()
        return replace(scores, figures=scores.figures | {"ap50": average_precision(found, true).figures["ap50"]})

    def boxes(self) -> tuple[Regions, Regions]:
        """What "detect" found and what is there, a row a scene."""
        found: list[tuple[Region, ...]] = [()] * self.tallies["detect"].images
        true = list(found)
        for one in self.seen["detect"]:
            found[one.row], true[one.row] = one.said.regions, one.true.regions
        return found, true


def world_tasks(scenes: int, seed: int, tasks: Sequence[str | Task] | None) -> tuple[Task, ...]:
    """Give the tasks that are asked, all unless named; each once.

    raises    BadConfig for no scenes, or for scenes that training may have seen; BadPrompt for an unknown task.
    """
    if scenes < 1 or seed < 0 or seed + scenes > FIRST_TRAINING_SEED:
        raise BadConfig(
            f"scenes {seed} to {seed + scenes}: give 1 or more, from seed 0 on and below {FIRST_TRAINING_SEED}, "
            "where training begins"
        )
    return tuple(dict.fromkeys(find_task(task) for task in tasks or (*TASKS, FREE_TEXT)))


def pose_world(
    scenes: int,
    seed: int,
    tasks: Sequence[Task],
    advance: Callable[[], object] | None = None,
    world: WorldConfig = WORLD,
) -> Iterator[Drawn]:
    """Draw scene after scene and pose every task; the questions about one scene stand next to each other."""
    for row in range(scenes):
        scene = draw_scene(seed + row, world)
        picture = Image.fromarray(scene.image)
        for example in pose(scene, tasks):
            yield Drawn(row, scene, picture, example)
        if advance is not None:
            advance()


def judge_world(
    said: Iterable[tuple[Drawn, Answer | OpenFlorenceError]], scenes: int, tasks: Sequence[Task]
) -> JudgedWorld:
    """Count and score answers as they come."""
    judged = JudgedWorld({task.name: Tally(scenes) for task in tasks}, {task.name: [] for task in tasks})
    for posed, answer in said:
        example, scene = posed.example, posed.scene
        tally = judged.tallies[example.task.name]
        taken = tally.take(posed.row, example.answer, answer, partial(score, scene, example))
        judged.seen[example.task.name].append(Seen(posed.row, scene.seed, example.answer, replace(taken, image=None)))
    return judged


def world_results(judged: JudgedWorld, seed: int, world: WorldConfig = WORLD, rounds: int = ROUNDS) -> list[Results]:
    """Give the answers of each task as results: with draws, tables, confidences, and every question to be looked at.

    seed, world  of the scenes that were judged.
    """
    found = {name: tally for name, tally in judged.tallies.items() if tally.asked}
    return [_task_results(judged, name, tally, seed, world, rounds) for name, tally in found.items()]


def _task_results(judged: JudgedWorld, name: str, tally: Tally, seed: int, world: WorldConfig, rounds: int) -> Results:
    measured = {figure: measure(parts, rounds) for figure, parts in tally.parts.items()}
    kinds = {figure.partition("_")[2]: one.figure for figure, one in measured.items() if figure.startswith("exact_")}
    tables: dict[str, Mapping[str, Figure]] = {"question kind": kinds} if kinds else {}
    if name == "detect" and find_spec("pycocotools") is not None:
        precision = average_precision(*judged.boxes(), rounds=rounds)
        measured |= {figure: precision.measured[figure] for figure in ("map", "ap50", "ap75")}
        tables["category"] = precision.categories
    sure = [pair for one in judged.seen[name] for pair in _sure(one)]
    exhibits = [
        Exhibit(_name(one.seed), partial(_draw, one.seed, world), _asked(one), one.true, one.said)
        for one in judged.seen[name]
    ]
    return Results(
        benchmark=f"world {name}",
        images=tuple(_name(seed + row) for row in range(tally.images)),
        asked=tally.asked,
        invalid=tally.invalid,
        truncated=tally.truncated,
        refused=tally.refused,
        missing=0,
        measured=measured,
        tables=tables,
        confidences=np.array(sure, np.float64).reshape(-1, 2),
        exhibits=tuple(exhibits),
    )


def _name(seed: int) -> str:
    return f"scene {seed}"


def _draw(seed: int, world: WorldConfig) -> Image.Image:
    return Image.fromarray(draw_scene(seed, world).image)


def _asked(one: Seen) -> str:
    return fill_sentence(one.true.task, one.said.input or one.true.input)


def _sure(one: Seen) -> list[tuple[float, float]]:
    """What boxes were worth; of outlines and quads no score is judged."""
    boxed = one.true.task.form in ("boxes", "bare_boxes", "phrases", "boxes_or_polygons")
    labelled = one.true.task.form != "bare_boxes"
    return sure_and_right(one.said.regions, one.true.regions, labelled) if boxed else []


def pose(scene: Scene, tasks: Iterable[Task]) -> Iterator[Example]:
    """Pose each task that the scene can pose once; every scene and task has dice of its own."""
    for task in tasks:
        example = ask(scene, task, dice(scene.seed << 32 | crc32(task.name.encode())))
        if example is not None:
            yield example


# ---- the report


def as_row(scores: WorldScores) -> dict[str, Any]:
    """Give the scores as plain values for one JSON object; figures to five digits."""
    row = asdict(scores) | {"tasks": plain_tasks(scores.tasks)}
    return {"benchmark": "world", "last_seed": scores.seed + scores.scenes - 1} | row


def write_world_report(scores: WorldScores, path: Path) -> None:
    """Write the scores as one JSON object; a reader never sees half a file."""
    write_report(as_row(scores), path)


def as_markdown(scores: WorldScores) -> str:
    """Give the figures as a table in percent: a row a task, its headline figure first, then all others."""
    beams = "default beams" if scores.options.beams is None else f"{scores.options.beams} beam(s)"
    refused = sum(task.refused for task in scores.tasks)
    about = [scores.model, f"{scores.scenes} drawn scenes, seeds {scores.seed} to {scores.seed + scores.scenes - 1}"]
    about += [
        f"{scores.options.decoding} decoding",
        beams,
        f"{refused} refused",
        f"{scores.seconds:.0f} s",
        scores.date,
    ]
    return "\n".join([", ".join(part for part in about if part) + ".", "", *task_table(scores.tasks)])
