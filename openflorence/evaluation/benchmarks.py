"""The drawn world as a benchmark: every task on scenes that training never sees, scored against their exact truth.

scores = evaluate_world(model, scenes=500)
write_world_report(scores, path)                 # one JSON object
text = as_markdown(scores)                       # the same figures as a table
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from zlib import crc32

import numpy as np
from PIL import Image

from openflorence.contract.records import Example
from openflorence.contract.regions import Answer
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.chance import dice
from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.truth import ask
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig, OpenFlorenceError
from openflorence.evaluation.metrics import Parts, half_width, ratio
from openflorence.evaluation.scoring import score
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request

WORLD = WorldConfig()  # the world that nano is trained on, painted at its input size


class Answerer(Protocol):
    """Whatever answers requests in order, as Florence does."""

    def predict_many(
        self,
        requests: Iterable[Request],
        options: AskOptions = DEFAULT_OPTIONS,
        batch: int = 8,
        on_error: Literal["raise", "give"] = "raise",
    ) -> Iterator[Any]:
        """Give an answer, or the error that stands in its place, for each request."""


@dataclass(frozen=True)
class Figure:
    """One figure of one task."""

    value: float | None  # a share in 0..1; None when no scene had anything to judge
    half_width: float | None  # of the 95 % bootstrap interval over scenes
    n: float  # what was judged, in the figure's own unit: boxes, phrases, answers, pixels


@dataclass(frozen=True)
class TaskScores:
    """What became of one task. Every scene that could pose it counts, whatever came back."""

    task: str
    asked: int  # answers, one a scene that can pose the task
    invalid: int  # answers with at least one piece that could not be read; what could be read is scored
    truncated: int  # answers that the token limit ended; scored as they stand
    refused: int  # requests the model raised an error for; scored as empty answers
    figures: dict[str, Figure]  # by name, the headline figure first


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
        (found,) = (scores for scores in self.tasks if scores.task == task)
        return found.figures[name or next(iter(found.figures))]


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
    if scenes < 1 or seed < 0 or seed + scenes > FIRST_TRAINING_SEED:
        raise BadConfig(
            f"scenes {seed} to {seed + scenes}: give 1 or more, from seed 0 on and below {FIRST_TRAINING_SEED}, "
            "where training begins"
        )
    start = time.perf_counter()
    asked = tuple(dict.fromkeys(find_task(task) for task in tasks or (*TASKS, FREE_TEXT)))
    tallies = {task.name: _Tally(scenes) for task in asked}
    waiting: deque[tuple[int, Scene, Example]] = deque()

    def requests() -> Iterator[Request]:
        for row in range(scenes):
            scene = draw_scene(seed + row, world)
            image = Image.fromarray(scene.image)
            for example in pose(scene, asked):
                waiting.append((row, scene, example))
                yield Request(image, example.task, example.text, example.region)
            if advance is not None:
                advance()

    for answer in model.predict_many(requests(), options, batch=batch, on_error="give"):
        row, scene, example = waiting.popleft()
        tallies[example.task.name].take(row, scene, example, answer)
    assert not waiting, f"{len(waiting)} requests got no answer"
    scored = tuple(tally.scores(name) for name, tally in tallies.items())
    return WorldScores(scenes, seed, world, options, scored, time.perf_counter() - start)


def pose(scene: Scene, tasks: Iterable[Task]) -> Iterator[Example]:
    """Pose each task that the scene can pose once; every scene and task has dice of its own."""
    for task in tasks:
        example = ask(scene, task, dice(scene.seed << 32 | crc32(task.name.encode())))
        if example is not None:
            yield example


@dataclass
class _Tally:
    """The answers of one task so far, counted and scored."""

    scenes: int
    asked: int = 0
    invalid: int = 0
    truncated: int = 0
    refused: int = 0
    parts: dict[str, np.ndarray] = field(default_factory=dict)  # figure -> (scenes, 2) right and whole

    def take(self, row: int, scene: Scene, example: Example, answer: Answer | OpenFlorenceError) -> None:
        """Count and score what came back for one scene."""
        self.asked += 1
        if isinstance(answer, OpenFlorenceError):
            self.refused += 1
            answer = replace(example.answer, text="", regions=())
        self.invalid += answer.invalid > 0
        self.truncated += answer.truncated
        for name, parts in score(scene, example, answer).items():
            self.parts.setdefault(name, np.zeros((self.scenes, 2)))[row] = parts

    def scores(self, task: str) -> TaskScores:
        """Sum up."""
        figures = {name: _figure(parts) for name, parts in self.parts.items()}
        return TaskScores(task, self.asked, self.invalid, self.truncated, self.refused, figures)


def _figure(parts: np.ndarray) -> Figure:
    total = Parts(*parts.sum(axis=0).tolist())
    return Figure(ratio(*total), half_width(parts), total.whole)


# ---- the report


def as_row(scores: WorldScores) -> dict[str, Any]:
    """Give the scores as plain values for one JSON object; figures to five digits."""
    row = asdict(scores)
    row["tasks"] = {task.pop("task"): task for task in row["tasks"]}
    for task in row["tasks"].values():
        for figure in task["figures"].values():
            figure |= {name: None if value is None else round(value, 5) for name, value in figure.items()}
    return {"benchmark": "world", "last_seed": scores.seed + scores.scenes - 1} | row


def write_world_report(scores: WorldScores, path: Path) -> None:
    """Write the scores as one JSON object; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.part")
    half.write_text(json.dumps(as_row(scores), indent=1) + "\n", "utf-8")
    half.replace(path)


def as_markdown(scores: WorldScores) -> str:
    """Give the figures as a table in percent: a row a task, its headline figure first, then all others."""
    head = ("task", "asked", "headline", "%", "±", "invalid", "truncated", "others, %")
    rows = [_markdown_row(task) for task in scores.tasks]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    widths.append(3)  # the last column is long in some rows only
    rule = tuple("-" * width for width in widths)
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (head, rule, *rows)]
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
    return "\n".join([", ".join(part for part in about if part) + ".", "", *lines])


def _markdown_row(task: TaskScores) -> tuple[str, ...]:
    counts = str(task.asked), str(task.invalid), str(task.truncated)
    if not task.figures:  # no scene could pose it
        return task.task, counts[0], "", "–", "–", *counts[1:], ""
    (headline, figure), *others = task.figures.items()
    rest = ", ".join(f"{name} {_percent(other.value)}" for name, other in others)
    return task.task, counts[0], headline, _percent(figure.value), _percent(figure.half_width), *counts[1:], rest


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
