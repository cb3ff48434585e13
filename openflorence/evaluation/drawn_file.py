"""The drawn world asked into a file and scored from it, so that a run may be stopped and its answers be anyone's.

path = ask_world(model, Path("runs/world"), about, Scenes(500, seed=0))
judged, results = score_world(path, Scenes(500, seed=0))
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.contract.prompts import input_of
from openflorence.contract.regions import Answer
from openflorence.contract.tasks import Task
from openflorence.errors import BadRecord, OpenFlorenceError
from openflorence.evaluation.drawn import (
    WORLD,
    Drawn,
    JudgedWorld,
    judge_world,
    pose_world,
    world_results,
    world_tasks,
)
from openflorence.evaluation.figures import Answerer
from openflorence.evaluation.results import ROUNDS, Results
from openflorence.evaluation.transcript import ANSWERS_FILE, ask_all, claim_folder, read_answers
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions


@dataclass(frozen=True)
class Scenes:
    """Which drawn scenes are asked about, and what."""

    scenes: int
    seed: int  # of the first scene
    tasks: tuple[str, ...] = ()  # all unless given

    @property
    def asked(self) -> tuple[Task, ...]:
        """The tasks; raises as `world_tasks`."""
        return world_tasks(self.scenes, self.seed, self.tasks)


def ask_world(
    model: Answerer,
    out: Path,
    about: Mapping[str, Any],
    drawn: Scenes,
    options: AskOptions = DEFAULT_OPTIONS,
    advance: Callable[[], object] | None = None,
) -> Path:
    """Ask everything about drawn scenes that the folder has no answer to yet; else as `ask_benchmark`.

    advance   called once a scene.
    """
    claim_folder(out, {"benchmark": "world", "world": asdict(WORLD), **about})
    posed = pose_world(drawn.scenes, drawn.seed, drawn.asked, advance)
    ask_all(model, ((one.key, one.request) for one in posed), out / ANSWERS_FILE, options, 64)
    return out / ANSWERS_FILE


def score_world(path: Path, drawn: Scenes, rounds: int = ROUNDS) -> tuple[JudgedWorld, list[Results]]:
    """Score the answers about drawn scenes of a file, whoever gave them.

    returns   what `evaluate_world` scores, and the results of every task that has an answer.
    raises    BadRecord when the file cannot be read, or has no answer about these scenes.
    """
    said = read_answers(path, "key")
    missing: Counter[str] = Counter()

    def pairs() -> Iterator[tuple[Drawn, Answer | OpenFlorenceError]]:
        for posed in pose_world(drawn.scenes, drawn.seed, drawn.asked):
            one, example = said.get(posed.key), posed.example
            if one is None:
                missing[example.task.name] += 1
            elif one.error:
                yield posed, OpenFlorenceError(one.error)
            else:
                words = input_of(example.task, example.text, example.region, posed.scene.image_wh)
                yield posed, one.answer(example.task, posed.scene.image_wh, words)

    judged = judge_world(pairs(), drawn.scenes, drawn.asked)
    results = world_results(judged, drawn.seed, rounds=rounds)
    if not results:
        raise BadRecord(f"{path} has no answer about scenes {drawn.seed} to {drawn.seed + drawn.scenes - 1}")
    return judged, [replace(one, missing=missing[one.benchmark.removeprefix("world ")]) for one in results]
