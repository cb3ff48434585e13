"""Many questions: one encoding for all that are about one image, answers in order, little taken ahead."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from answering import POSITIONS, REGION, TEXTS, drawn_picture

from openflorence.contract.regions import Answer
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.errors import BadConfig, BadImage, BadPrompt
from openflorence.model.flow import Flow
from openflorence.model.predict import AskOptions, Florence, Request, load
from openflorence.model.search import DecodeSettings, Sampling
from openflorence.model.sources import DEFAULT_LIMITS

ALL = (*TASKS, FREE_TEXT)
SHORT = AskOptions(max_tokens=24)


@pytest.fixture
def model(answering_folder: Path) -> Florence:
    return load(answering_folder)


@pytest.fixture
def tower(model: Florence, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the tower, call by call."""
    calls, plain = [], model.network.encode_image

    def encode_image(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return plain(pixels)

    monkeypatch.setattr(model.network, "encode_image", encode_image)
    return calls


def question(task: Task) -> tuple:
    """A task with the words or the region it takes."""
    return task, TEXTS.get(task.name), REGION if task.input == "region" else None


# ---- one encoding, many questions


def test_all_tasks_of_an_image_cost_one_encoding(model, tower):
    view = model.open(drawn_picture(1))
    together = view.ask_many([question(task) for task in ALL], SHORT)
    assert tower == [1]
    assert [answer.task for answer in together] == list(ALL)
    assert [answer.raw for answer in together] == [view.ask(*question(task), SHORT).raw for task in ALL]
    assert tower == [1]


def test_several_regions_are_asked_about_at_once(model, tower):
    view = model.open(drawn_picture(1))
    boxes = [(0.0, 0.0, 20.0, 20.0), (10.0, 5.0, 48.0, 32.0), REGION]
    together = view.ask_many([("describe_region", None, box) for box in boxes], SHORT)
    assert tower == [1]
    assert [one.raw for one in together] == [view.ask("describe_region", None, box, SHORT).raw for box in boxes]
    assert len({one.input for one in together}) == 3


def test_questions_of_a_view_have_short_forms(model):
    view = model.open(drawn_picture(1))
    one, other, third = view.ask_many(["caption", TASKS[3], ("find", "car")], SHORT)
    assert (one.task.name, other.task.name, third.input) == ("caption", TASKS[3].name, "car")
    assert view.ask_many([], SHORT) == []
    for wrong in [(), ("caption", None, None, 5)]:
        with pytest.raises(BadPrompt, match="a request is"):
            view.ask_many([wrong], SHORT)


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_images_that_do_not_stand_together_are_encoded_once(model, tower, tmp_path, batch):
    a, b = drawn_picture(1), tmp_path / "b.png"
    drawn_picture(2).save(b)
    answers = list(model.predict_many([(a, "caption"), (b, "caption"), (a, "detect"), (b, "detect")], SHORT, batch))
    assert sum(tower) == 2
    assert [answer.raw for answer in answers] == [
        model.predict(image, task, options=SHORT).raw for task in ("caption", "detect") for image in (a, b)
    ]


# ---- mixed searches


def test_requests_that_search_differently_share_a_flow(model):
    options = [
        AskOptions(max_tokens=20),
        AskOptions(beams=1, max_tokens=9),
        AskOptions(decoding="published", max_tokens=15),
        AskOptions(beams=2, max_regions=1, max_tokens=30),
        AskOptions(sampling=Sampling(seed=4, top_k=9), max_tokens=30),
        AskOptions(labels=("car", "bus"), max_tokens=22),
    ]
    asked = [(question(task), options[place % len(options)]) for place, task in enumerate(ALL * 2)]
    picture = drawn_picture(2)
    flow = Flow(model.runner, DEFAULT_LIMITS, slots=5)
    numbers = [flow.put(Request(picture, *one), chosen) for one, chosen in asked]
    most = 0
    while len(flow.results) < len(numbers):
        flow.step()
        most = max(most, flow.running)
    assert most == 5
    view = model.open(picture)
    for number, (one, chosen) in zip(numbers, asked, strict=True):
        alone, answer = view.ask(*one, chosen), flow.results[number]
        assert isinstance(answer, Answer)
        assert (answer.raw, answer.cut) == (alone.raw, alone.cut)
        assert answer.logprob == pytest.approx(alone.logprob, abs=1e-4)  # sums in another order


def test_options_that_do_not_fit_are_the_result_of_their_own_request_only(model):
    flow = Flow(model.runner, DEFAULT_LIMITS, slots=2)
    good = flow.put((drawn_picture(), "caption"), SHORT)
    long = flow.put((drawn_picture(), "caption"), AskOptions(max_tokens=POSITIONS + 1))
    bad = flow.put((drawn_picture(), "propose"), AskOptions(labels=("<sep>",)))
    mark = flow.put((drawn_picture(), "detect"), AskOptions(labels=("<sep>",)))
    while len(flow.results) < 4:
        flow.step()
    assert [type(flow.results[one]) for one in (good, long, bad, mark)] == [Answer, BadConfig, Answer, BadPrompt]


def test_a_flow_runs_again_where_it_stopped(model):
    flow = Flow(model.runner, DEFAULT_LIMITS, slots=3)
    for seed in (0, 5):
        requests = [Request(drawn_picture(seed + place), "caption") for place in range(5)]
        answers = [answer.raw for answer in flow.run(iter(requests), SHORT)]
        assert answers == [model.predict(one.image, "caption", options=SHORT).raw for one in requests]


# ---- order, errors, and how much is taken ahead


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_error_comes_in_its_turn(model, batch):
    requests = [(drawn_picture(0), "detect"), (drawn_picture(1), "caption"), ("gone.png", "caption")]
    answers = model.predict_many([*requests, (drawn_picture(), "caption")], SHORT, batch)
    assert [next(answers).task.name, next(answers).task.name] == ["detect", "caption"]
    with pytest.raises(BadImage, match=r"gone\.png"):
        next(answers)


@pytest.mark.parametrize("options", [SHORT, AskOptions(max_tokens=9, beams=1, tiles=(1, 2))], ids=["plain", "tiles"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_of_endless_requests_few_are_taken_ahead(model, batch, options):
    taken = []

    def endless() -> Iterator[tuple]:
        while True:
            taken.append(len(taken))
            yield drawn_picture(len(taken) % 3), ("caption", "detect", "read")[len(taken) % 3]

    ahead = [len(taken) - place for place, _ in islice(enumerate(model.predict_many(endless(), options, batch)), 30)]
    assert 1 <= max(ahead) <= 2 * batch


def test_the_published_settings_of_a_question_are_untouched_by_labels_of_others(model):
    # labels lift the ban on repeated runs, which could forbid the only word left; for tasks that take them only.
    ban = {
        task.name: AskOptions(labels=("a",)).settings(model.checkpoint, task).no_repeat_ngram
        for task in (*TASKS, FREE_TEXT)
    }
    usual = {task.name: DecodeSettings.for_task(model.checkpoint.config.text, task).no_repeat_ngram for task in ALL}
    assert ban == usual | {"classify_region": 0}
