"""The drawn world as a benchmark, answered by models that know everything, nothing, or half of it."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.prompts import input_of
from openflorence.contract.records import Example
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.truth import vocabulary_texts
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.errors import BadConfig, BadPrompt
from openflorence.evaluation.drawn import WorldScores, as_markdown, evaluate_world, pose, write_world_report
from openflorence.model.checkpoint import Checkpoint
from openflorence.model.config import NANO, with_vocab
from openflorence.model.florence import Network, init_weights
from openflorence.model.predict import AskOptions, Florence, Request
from openflorence.model.tokenizer import train_text

SCENES = 40
ALL = (*TASKS, FREE_TEXT)
SILENCE = {"absent_left_out", "silent_without_text"}  # what those who say nothing get right
BOUNDS = {"miou_of_truth"}  # a property of the truth, whoever answers


@cache
def truth() -> dict[tuple[bytes, str], tuple[int, str]]:
    """Scene number and true text by picture and task."""
    known = {}
    for seed in range(SCENES):
        scene = draw_scene(seed)
        for example in pose(scene, ALL):
            known[scene.image.tobytes(), example.task.name] = seed, write_answer(example.answer)
    return known


class Fake:
    """Answers from what it is told to say: (scene number, task, true text) -> text."""

    def __init__(self, say: Callable[[int, str, str], str], truncated: bool = False) -> None:
        self.say, self.truncated = say, truncated
        self.requests: list[Request] = []

    def predict_many(
        self, requests: Iterable[Request], options: Any = None, batch: int = 8, on_error: str = "raise"
    ) -> Iterator[Any]:
        for request in requests:
            self.requests.append(request)
            task, image = find_task(request.task), request.image
            raw = self.say(*self.known(image, task.name))
            words = input_of(task, request.text, request.region, image.size)
            yield read_answer(raw, task, image.size, input=words, truncated=self.truncated)

    def known(self, image: Any, task: str) -> tuple[int, str, str]:
        seed, text = truth()[image.tobytes(), task]
        return seed, task, text


def told_of_another(seed: int, task: str, text: str) -> str:
    """The truth about even scenes; about odd ones, the truth about the scene before."""
    others = {(number, name): said for (_, name), (number, said) in truth().items()}
    return others.get((seed - seed % 2, task), text)


@cache
def oracle() -> WorldScores:
    return evaluate_world(Fake(lambda seed, task, text: text), SCENES)


@cache
def empty() -> WorldScores:
    return evaluate_world(Fake(lambda seed, task, text: ""), SCENES)


@cache
def shuffled() -> WorldScores:
    return evaluate_world(Fake(told_of_another), SCENES)


def test_all_tasks_are_asked_of_every_scene_that_can_pose_them():
    counts = {task.task: task.asked for task in oracle().tasks}
    assert list(counts) == [task.name for task in ALL]
    with_signs = sum(bool(draw_scene(seed).signs) for seed in range(SCENES))
    assert counts.pop("read_region") == with_signs > 5
    assert counts.pop("segment") >= SCENES - 2  # where every thing has a double, none can be referred to
    assert set(counts.values()) == {SCENES}


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_the_truth_scores_one(task):
    (scores,) = (scores for scores in oracle().tasks if scores.task == task.name)
    assert scores.invalid == scores.truncated == scores.refused == 0
    for name, figure in scores.figures.items():
        if name == "iou_of_found":
            least = 0.98  # half a bin is 0.064 px, on boxes from 10 px a side
        elif "iou" in name and name != "iou_above_half":
            least = 0.9  # twenty vertices a ring, at equal steps: corners between them are cut
        else:
            least = 1.0
        assert figure.value is not None, name
        assert least <= figure.value <= 1.0, (name, figure)
        assert least < 1.0 or figure.half_width in (0.0, None), name


def test_the_truth_reaches_the_bound_that_it_sets():
    for task in ("segment", "segment_region"):
        # Bins move an outline by half a bin, 0.064 px.
        assert oracle().figure(task).value == pytest.approx(oracle().figure(task, "miou_of_truth").value, abs=0.01)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_nothing_scores_nothing(task):
    (scores,) = (scores for scores in empty().tasks if scores.task == task.name)
    assert scores.asked > 0
    for name, figure in scores.figures.items():
        if name in SILENCE:
            assert figure.value == 1.0
        elif name not in BOUNDS:
            assert not figure.value, name
        assert figure.value is not None or name in ("precision", "iou_of_found")
    assert empty().figure(task.name).value == 0.0


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_half_of_the_truth_scores_in_between(task):
    figure = shuffled().figure(task.name)
    assert figure.value is not None
    # Half of the scenes are right, and now and then two scenes have something in common.
    assert 0.25 < figure.value < 0.85
    assert figure.half_width is not None
    assert 0.02 < figure.half_width < 0.35


def test_a_task_is_asked_the_same_whatever_the_others():
    every, few = Fake(lambda *_: ""), Fake(lambda *_: "")
    evaluate_world(every, 5)
    evaluate_world(few, 5, tasks=["find", "<VQA>", "find"])
    wanted = [(r.task.name, r.text) for r in every.requests if r.task.name in ("find", "answer")]
    assert [(r.task.name, r.text) for r in few.requests] == wanted
    assert len(wanted) == 10
    assert len({text for _, text in wanted}) > 5


def test_what_is_broken_cut_or_refused_is_counted_and_scored():
    broken = Fake(lambda seed, task, text: text + "<loc_1>" if seed % 4 == 0 else text, truncated=True)
    (detect,) = evaluate_world(broken, SCENES, tasks=["detect"]).tasks
    assert (detect.asked, detect.invalid, detect.truncated, detect.refused) == (SCENES, SCENES // 4, SCENES, 0)
    assert detect.figures["f1"].value == 1.0  # what can be read is read

    class Refusing(Fake):
        def predict_many(self, requests: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
            return (BadPrompt("too long") for _ in requests)

    (detect,) = evaluate_world(Refusing(lambda *_: ""), SCENES, tasks=["detect"]).tasks
    assert (detect.asked, detect.refused, detect.invalid) == (SCENES, SCENES, 0)
    assert detect.figures["recall"].value == 0.0


def test_scenes_that_training_may_see_are_refused():
    model = Fake(lambda *_: "")
    for seed, scenes in ((FIRST_TRAINING_SEED, 1), (FIRST_TRAINING_SEED - 1, 2), (-1, 5), (0, 0)):
        with pytest.raises(BadConfig, match="where training begins"):
            evaluate_world(model, scenes, seed)
    with pytest.raises(BadPrompt, match="no task 'detct'"):
        evaluate_world(model, 1, tasks=["detct"])
    assert not model.requests


def test_every_scene_is_reported_once():
    told: list[int] = []
    evaluate_world(Fake(lambda *_: ""), 7, tasks=["read_region"], advance=lambda: told.append(1))
    assert len(told) == 7  # also those that cannot pose it


def test_the_report_is_one_json_object(tmp_path: Path):
    scores = replace(oracle(), model="nano", date="2025-01-31")
    path = tmp_path / "new" / "world.json"
    write_world_report(scores, path)
    assert [file.name for file in path.parent.iterdir()] == ["world.json"]
    row = json.loads(path.read_text("utf-8"))
    assert (row["benchmark"], row["model"], row["date"]) == ("world", "nano", "2025-01-31")
    assert (row["scenes"], row["seed"], row["last_seed"]) == (SCENES, 0, SCENES - 1)
    assert row["options"]["decoding"] == "default"
    assert row["world"]["side_px"] == 128
    assert list(row["tasks"]) == [task.name for task in ALL]
    detect = row["tasks"]["detect"]
    assert detect["asked"] == SCENES
    assert detect["figures"]["f1"] == {"value": 1.0, "half_width": 0.0, "n": detect["figures"]["f1"]["n"]}
    things = sum(len(draw_scene(seed).things) for seed in range(SCENES))
    assert detect["figures"]["recall"]["n"] == things
    write_world_report(scores, path)  # again, over what is there


def test_detection_has_its_average_precision():
    true, half = (scores.figure("detect", "ap50") for scores in (oracle(), shuffled()))
    assert true.n == oracle().figure("detect", "recall").n
    assert true.half_width == pytest.approx(0.0, abs=1e-9)
    assert half.value is not None
    # Boxes of the wrong half of the scenes count against it, and recall ends where half of the things are found.
    assert half.value < shuffled().figure("detect", "recall").value + 0.05
    assert half.value > 0.2


def test_the_table_has_a_row_a_task():
    lines = as_markdown(replace(shuffled(), model="nano")).splitlines()
    assert lines[0].startswith("nano, 40 drawn scenes, seeds 0 to 39, ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == ["task", rows[1][0], *(task.name for task in ALL)]
    assert {len(row) for row in rows} == {8}
    detect = next(row for row in rows if row[0] == "detect")
    assert detect[1:4] == ["40", "f1", f"{100 * shuffled().figure('detect').value:.1f}"]
    assert "precision" in detect[-1]


def test_a_task_that_no_scene_can_pose_has_an_empty_row():
    scores = evaluate_world(Fake(lambda *_: ""), 2, tasks=["read_region"], world=WorldConfig(sign_share=0))
    assert scores.tasks[0].asked == 0
    assert as_markdown(scores).splitlines()[-1].split("|")[1:3] == [" read_region ", " 0     "]


@cache
def untrained() -> Florence:
    text = train_text(vocabulary_texts(scenes=2), NANO.text.vocab)
    network = Network(with_vocab(NANO, text.size))
    init_weights(network, 0, text.first_location)
    return Florence(
        Checkpoint(
            network=network.eval(),
            text=text,
            config=network.config,
            layout="openflorence",
            folder=Path(),
            stored="float32",
        )
    )


def test_a_network_scores_the_same_in_any_batch():
    options = AskOptions(beams=1, max_tokens=12)
    one, many = (evaluate_world(untrained(), 2, options=options, batch=batch) for batch in (1, 11))
    assert one.tasks == many.tasks
    assert one.options == options
    # Nothing was learnt, so answers run to the limit.
    assert sum(task.truncated for task in one.tasks) > 16


def test_the_sweep_saw_every_task():
    assert len(ALL) == 16
    assert isinstance(next(pose(draw_scene(0), ALL)), Example)
