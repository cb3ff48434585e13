"""What scores are worth: the curves, the file beside the weights, and which weights it stays with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import WORLD, tiny_network, world_text

from openflorence.contract.answers import read_answer
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import find_task
from openflorence.data.world import draw_scene
from openflorence.errors import BadCheckpoint, BadConfig
from openflorence.model.adapters import AdapterConfig, add_adapter, apply_adapter, save_adapter
from openflorence.model.calibration import FILE, Calibration, Curve, Fit, read_calibration, write_calibration
from openflorence.model.checkpoint import convert, load_checkpoint, save_checkpoint
from openflorence.model.predict import AskOptions, Florence, live_florence

STEPS = Curve(method="isotonic", knots=((0.2, 0.1), (0.4, 0.5), (0.8, 0.9)))
HALVED = Curve(method="temperature", temperature=2.0)


def fit(curve: Curve) -> Fit:
    return Fit(curve=curve, n=120, error_before=0.85, error_after=1 / 3)


CALIBRATION = Calibration(
    fits={"detect": fit(STEPS), "answer": fit(HALVED)}, data='drawn "world", 5000–5999', date="2025-01-31"
)

# ---- curves


def test_a_temperature_divides_the_logarithm_of_a_score():
    # By hand: exp(log(0.25) / 2) is the root of 0.25.
    assert HALVED.apply(0.25) == pytest.approx(0.5)
    assert Curve(method="temperature").apply(0.37) == pytest.approx(0.37)
    assert (HALVED.apply(0.0), HALVED.apply(1.0)) == (0.0, 1.0)


def test_between_knots_are_straight_lines_and_outside_the_nearest_one_holds():
    # By hand: half-way from (0.4, 0.5) to (0.8, 0.9).
    assert STEPS.apply(0.6) == pytest.approx(0.7)
    assert [STEPS.apply(score) for score in (0.0, 0.2, 0.8, 1.0)] == pytest.approx([0.1, 0.1, 0.9, 0.9])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.floats(0.01, 100))
def test_no_curve_ever_falls_or_leaves_what_a_probability_can_be(scores, temperature):
    for curve in (STEPS, Curve(method="temperature", temperature=temperature)):
        worth = [curve.apply(score) for score in sorted(scores)]
        assert worth == sorted(worth)
        assert all(0 <= value <= 1 for value in worth)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "temperature", "temperature": 0.0}, "temperature is 0.0"),
        ({"method": "temperature", "temperature": float("nan")}, "temperature is nan"),
        ({"method": "isotonic"}, "two or more"),
        ({"method": "isotonic", "knots": ((0.1, 0.5), (0.1, 0.6))}, "rising"),
        ({"method": "isotonic", "knots": ((0.1, 0.5), (0.2, 0.4))}, "not falling"),
        ({"method": "isotonic", "knots": ((0.1, 0.5), (0.2, 1.1))}, r"in 0\.\.1"),
        ({"method": "isotonic", "knots": ((0.1, 0.5), (0.2, float("nan")))}, r"in 0\.\.1"),
    ],
)
def test_a_curve_that_is_none_is_refused(wrong, words):
    with pytest.raises(BadConfig, match=words):
        Curve(**wrong)


# ---- answers


def test_regions_get_probabilities_and_keep_what_they_were_made_of():
    region = Region("cat", box=Box(0, 0, 1, 1), score=0.6, label_score=0.75, place_score=0.8)
    given = Answer(find_task("detect"), (9, 9), regions=(region, Region("dog", box=Box(0, 0, 1, 1))), score=0.6)
    settled = CALIBRATION.settle(given)
    assert settled.regions[0] == replace(region, score=pytest.approx(0.7))
    assert settled.regions[1].score is None
    assert settled.score == 0.6  # of everything that was said; no curve is about that


def test_texts_get_a_probability_and_other_tasks_none():
    given = Answer(find_task("answer"), (9, 9), "yes", score=0.25)
    assert CALIBRATION.settle(given).score == pytest.approx(0.5)
    assert CALIBRATION.settle(replace(given, score=None)).score is None
    caption = replace(given, task=find_task("caption"))
    assert CALIBRATION.settle(caption) == caption


# ---- the file


def test_what_is_written_is_read(tmp_path):
    path = write_calibration(CALIBRATION, tmp_path / "new")
    assert path == tmp_path / "new" / "calibration.json"
    assert read_calibration(tmp_path / "new") == CALIBRATION
    assert [item.name for item in path.parent.iterdir()] == [FILE]
    none = replace(CALIBRATION, fits={})
    write_calibration(none, path.parent)
    assert read_calibration(path.parent) == none


def test_a_folder_without_the_file_has_no_calibration(tmp_path):
    assert read_calibration(tmp_path) is None


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_calibration(CALIBRATION, tmp_path)

    def full(*paths: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("openflorence.model.calibration.os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_calibration(replace(CALIBRATION, fits={}), tmp_path)
    assert read_calibration(tmp_path) == CALIBRATION


DETECT, ANSWER = ("tasks", "detect"), ("tasks", "answer")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("data",), 5, r"\.data is 5; str is needed"),
        (("extra",), 5, "differs in extra"),
        (("date",), None, r"\.date is None"),
        (("tasks",), [], r"\.tasks is \[\]; dict is needed"),
        (("tasks", "juggle"), {}, r"tasks\.juggle: no task has this name"),
        (("tasks", "<OD>"), {}, "no task has this name"),
        (DETECT, 5, r"tasks\.detect is 5; an object"),
        ((*DETECT, "method"), "platt", r"tasks\.detect\.method is 'platt'; allowed: isotonic"),
        ((*DETECT, "method"), "temperature", r"tasks\.detect has .*differs in probabilities, scores, temperature"),
        ((*DETECT, "method"), [], r"tasks\.detect\.method is \[\]"),
        ((*DETECT, "n"), 0, r"tasks\.detect\.n is 0"),
        ((*DETECT, "n"), 1.5, r"tasks\.detect\.n is 1\.5; int is needed"),
        ((*DETECT, "n"), True, r"tasks\.detect\.n is True; int is needed"),
        ((*DETECT, "error_after"), float("nan"), r"tasks\.detect\.error_after is nan"),
        ((*DETECT, "error_before"), 1.5, r"tasks\.detect\.error_before is 1\.5"),
        ((*DETECT, "error_before"), 10**400, r"tasks\.detect\.error_before is 1000"),
        ((*DETECT, "scores"), [0.2, 0.4], "of unequal number"),
        ((*DETECT, "scores"), [0.2, 0.4, "high"], r"tasks\.detect\.scores is \[0\.2, 0\.4, 'high'\]"),
        ((*DETECT, "scores"), [0.4, 0.2, 0.8], r"tasks\.detect: knots"),
        ((*DETECT, "probabilities"), [0.1, float("inf"), 0.9], r"tasks\.detect: knots"),
        ((*ANSWER, "temperature"), -1, r"tasks\.answer: temperature is -1"),
        ((*ANSWER, "temperature"), "hot", r"tasks\.answer\.temperature is 'hot'"),
    ],
)
def test_a_file_that_was_changed_is_named_with_its_field(tmp_path, place, value, words):
    path = write_calibration(CALIBRATION, tmp_path)
    table = json.loads(path.read_text("utf-8"))
    inner = table
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(table), "utf-8")
    with pytest.raises(BadCheckpoint, match=r"calibration\.json.*" + words):
        read_calibration(tmp_path)


def test_half_a_file_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"data": ')
    with pytest.raises(BadCheckpoint, match=r"calibration\.json is not readable JSON"):
        read_calibration(tmp_path)


# ---- with which weights it stays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with a calibration beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    save_checkpoint(tiny_network(), world_text(), folder, calibration=CALIBRATION)
    return folder


def test_it_is_saved_loaded_and_converted_with_its_weights(folder, tmp_path):
    assert load_checkpoint(folder).calibration == CALIBRATION
    convert(folder, tmp_path / "theirs", "transformers", torch.float16)
    convert(tmp_path / "theirs", tmp_path / "back", "openflorence")
    assert load_checkpoint(tmp_path / "back").calibration == CALIBRATION


def test_other_weights_in_the_same_folder_do_not_inherit_it(folder, tmp_path):
    convert(folder, tmp_path / "c", "openflorence")
    save_checkpoint(tiny_network(seed=1), world_text(), tmp_path / "c")  # as training saves
    assert load_checkpoint(tmp_path / "c").calibration is None
    assert not (tmp_path / "c" / FILE).exists()


def test_an_interrupted_save_leaves_weights_with_their_calibration(folder, tmp_path, monkeypatch):
    convert(folder, tmp_path / "c", "openflorence")

    def full(*arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("openflorence.model.checkpoint.write_tensors", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tiny_network(seed=1), world_text(), tmp_path / "c")
    assert read_calibration(tmp_path / "c") == CALIBRATION


def test_merged_adapters_and_networks_in_training_have_none(folder, tmp_path):
    checkpoint = load_checkpoint(folder)
    network = load_checkpoint(folder).network
    add_adapter(network, AdapterConfig(rank=2))
    save_adapter(network, tmp_path, str(folder))
    assert apply_adapter(checkpoint, tmp_path).calibration is None
    assert live_florence(network, checkpoint.text).checkpoint.calibration is None


def test_a_model_answers_with_probabilities_but_not_as_published(folder):
    checkpoint = load_checkpoint(folder)
    model, raw = Florence(checkpoint), Florence(replace(checkpoint, calibration=None))
    scene = draw_scene(3, WORLD)
    options = AskOptions(beams=1, max_regions=3)
    settled, plain = (one.predict(scene.image, "detect", options=options) for one in (model, raw))
    assert plain.regions
    assert all(region.score is not None for region in plain.regions)
    assert settled.regions != plain.regions
    assert settled == CALIBRATION.settle(plain)
    sure, said = (one.predict(scene.image, "answer", "How many?") for one in (model, raw))
    assert sure.score == pytest.approx(said.score**0.5)
    published = [one.predict(scene.image, "detect", decoding="published") for one in (model, raw)]
    assert published[0] == published[1]


def test_a_calibrated_answer_still_reads_as_it_was_said(folder):
    answer = Florence(load_checkpoint(folder)).predict(draw_scene(3, WORLD).image, "detect")
    places = [region.box for region in read_answer(answer.raw, "detect", answer.image_wh).regions]
    assert [region.box for region in answer.regions] == places
