"""Evaluations as the command line starts them: what is asked, what is left on disk, what is refused."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from layouts import WH, write_entities, write_karpathy

from openflorence.contract.answers import read_answer
from openflorence.errors import BadConfig
from openflorence.evaluation.runs import Machine, Plan, evaluate
from openflorence.model.predict import AskOptions

FILES = {"about.json", "answers.jsonl", "report.html", "report.md", "scores.json"}


class Started:
    """A model that says one thing, and what a run told whoever started it."""

    def __init__(self, text: str, image_wh: tuple[int, int] = WH) -> None:
        self.text, self.image_wh = text, image_wh
        self.asked, self.loaded = 0, 0
        self.bars: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    @property
    def machine(self) -> Machine:
        def load() -> Any:
            self.loaded += 1
            return self

        return Machine(load, self.progress, self.notes.append)

    @contextmanager
    def progress(self, unit: str, total: int) -> Iterator[Callable[[], None]]:
        self.bars.append((unit, total, 0))

        def advance() -> None:
            self.bars[-1] = (unit, total, self.bars[-1][2] + 1)

        yield advance

    def predict_many(self, requests: Any, *_: Any, **__: Any) -> Iterator[Any]:
        for request in requests:
            self.asked += 1
            yield read_answer(self.text, request.task, self.image_wh)


def plan(benchmark: str, **fields: Any) -> Plan:
    return Plan(benchmark, "told", "2025-01-31", AskOptions(), **fields)


@pytest.fixture
def captions(tmp_path: Path) -> Plan:
    write_karpathy(tmp_path / "data")
    return plan("coco-caption", data=tmp_path / "data", out=tmp_path / "out")


def test_a_benchmark_leaves_answers_scores_and_reports(captions):
    started = Started("A bowl of soup.")
    table = evaluate(captions, started.machine)
    assert {path.name for path in captions.out.iterdir()} == FILES
    assert table.startswith("coco-caption: told, ")
    assert "| cider_d " in table
    assert started.bars == [("questions", 4, 4)]
    assert len(started.notes) == 1  # the image without captions
    scores = json.loads((captions.out / "scores.json").read_text("utf-8"))
    assert (scores["benchmark"], scores["model"], scores["date"]) == ("coco-caption", "told", "2025-01-31")
    assert (scores["split"], scores["images"], scores["asked"]) == ("Karpathy test", 4, 4)
    assert scores["figures"]["cider_d"]["n"] == 4
    assert "Karpathy test" in (captions.out / "report.md").read_text("utf-8")
    again = Started("something else")
    assert evaluate(captions, again.machine).splitlines()[2:] == table.splitlines()[2:]
    assert (again.asked, again.bars) == (0, [("questions", 4, 4)])


def test_answers_are_scored_without_a_model_and_without_a_folder(captions, tmp_path, monkeypatch):
    evaluate(captions, Started("A bowl of soup.").machine)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    started = Started("")
    evaluate(replace(captions, out=None, answers=captions.out / "answers.jsonl"), started.machine)
    assert (started.loaded, started.bars) == (0, [])
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_folder_answers_lie_below_runs_by_what_was_asked_and_whom(captions):
    asked = replace(captions, out=None, model="microsoft/Florence-2-base with ../adapter")
    assert asked.folder == Path("runs/coco-caption-test-microsoft_Florence-2-base_with_.._adapter")
    assert replace(asked, split="val").folder != asked.folder
    assert replace(asked, benchmark="world").folder is None


def test_two_models_are_compared_in_the_report(captions, tmp_path):
    evaluate(captions, Started("A bowl of soup.").machine)
    better = replace(captions, out=tmp_path / "second", against=captions.out / "answers.jsonl")
    evaluate(better, Started("A man rides a horse.").machine)
    text = (tmp_path / "second" / "report.md").read_text("utf-8")
    assert "answers.jsonl and told" in text
    assert "95 % interval" in text


def test_the_world_leaves_the_same_in_a_folder_and_its_scores_as_before(tmp_path):
    started = Started("", (128, 128))
    folder = plan("world", limit=2, tasks=("detect", "caption"), out=tmp_path / "out")
    table = evaluate(folder, started.machine)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert started.bars == [("scenes", 2, 2)]
    assert "drawn scenes, seeds 0 to 1" in (tmp_path / "out" / "report.md").read_text("utf-8")
    plain = replace(folder, out=tmp_path / "world.json")
    assert evaluate(plain, started.machine).splitlines()[2:] == table.splitlines()[2:]
    kept = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    straight = json.loads((tmp_path / "world.json").read_text("utf-8"))
    assert kept["tasks"] == straight["tasks"]
    assert straight["benchmark"] == "world"
    asked = started.asked
    evaluate(folder, started.machine)  # all answered before
    assert started.asked == asked == 8
    scored = evaluate(replace(plain, out=None, answers=tmp_path / "out" / "answers.jsonl"), started.machine)
    assert scored.splitlines()[2:] == table.splitlines()[2:]


def test_what_cannot_be_asked_is_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(BadConfig, match="benchmark is 'coco'; allowed: world, data, coco-caption"):
        plan("coco")
    with pytest.raises(BadConfig, match="evaluate nocaps needs --data"):
        plan("nocaps")
    with pytest.raises(BadConfig, match="takes no --answers"):
        plan("data", data=tmp_path, answers=tmp_path)
    with pytest.raises(BadConfig, match="one task; got --task ground, find"):
        plan("refcoco", data=tmp_path, tasks=("ground", "find"))


def test_questions_without_an_answer_are_told(tmp_path):
    write_entities(tmp_path / "data")
    answers = tmp_path / "said.jsonl"
    answers.write_text(json.dumps({"key": "36979#0", "text": ""}))
    started = Started("")
    evaluate(plan("flickr30k", data=tmp_path / "data", answers=answers), started.machine)
    assert started.notes == ["2 of 3 questions have no answer and are not scored"]
