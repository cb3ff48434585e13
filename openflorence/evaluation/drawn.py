"""The drawn world as a benchmark: every task on scenes that training never sees, scored against their exact truth.

scores = evaluate_world(model, scenes=500)
write_world_report(scores, path)                 # one JSON object
text = as_markdown(scores)                       # the same figures as a table
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

from PIL import Image

from openflorence.contract.records import Example
from openflorence.contract.regions import Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.chance import dice
from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.truth import ask
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig
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
from openflorence.evaluation.scoring import score
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
    if scenes < 1 or seed < 0 or seed + scenes > FIRST_TRAINING_SEED:
        raise BadConfig(
            f"scenes {seed} to {seed + scenes}: give 1 or more, from seed 0 on and below {FIRST_TRAINING_SEED}, "
            "where training begins"
        )
    start = time.perf_counter()
    asked = tuple(dict.fromkeys(find_task(task) for task in tasks or (*TASKS, FREE_TEXT)))
    tallies = {task.name: Tally(scenes) for task in asked}
    found: list[tuple[Region, ...]] = [()] * scenes
    true = list(found)
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
        taken = tallies[example.task.name].take(row, example.answer, answer, partial(score, scene, example))
        if example.task.name == "detect":
            found[row], true[row] = taken.regions, example.answer.regions
    assert not waiting, f"{len(waiting)} requests got no answer"
    scored = tuple(tally.scores(name) for name, tally in tallies.items())
    scored = tuple(_with_ap50(one, found, true) if one.task == "detect" else one for one in scored)
    return WorldScores(scenes, seed, world, options, scored, time.perf_counter() - start)


def _with_ap50(scores: TaskScores, found: Regions, true: Regions) -> TaskScores:
    """Add average precision at IoU 0.5, boxes ranked by probability; where its library is installed."""
    if find_spec("pycocotools") is None:
        return scores
    return replace(scores, figures=scores.figures | {"ap50": average_precision(found, true).figures["ap50"]})


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
