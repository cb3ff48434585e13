"""Fits: which answers count as right, curves against scipy's, halves kept apart, and what is left on disk."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import isotonic_regression, minimize_scalar
from typer.testing import CliRunner

from openflorence.cli import app
from openflorence.contract.records import GroundingNote, PhraseNote, QuestionNote, Record, RegionNote
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box, Point
from openflorence.contract.tasks import find_task
from openflorence.errors import BadConfig, BadImage
from openflorence.evaluation.calibrate import (
    FEWEST,
    JUDGED,
    Pair,
    calibrate_records,
    calibrate_world,
    fit_curve,
    fit_tasks,
    judge_regions,
    pool,
    record_pairs,
    too_few,
    uncalibrated,
    world_pairs,
)
from openflorence.evaluation.detection import average_precision
from openflorence.evaluation.reliability import reliability
from openflorence.evaluation.runs import CalibrationPlan, Machine, calibrate
from openflorence.model.calibration import Calibration, Curve, Fit, read_calibration
from openflorence.model.checkpoint import load_checkpoint
from openflorence.model.hub import resolve
from openflorence.model.predict import AskOptions, Florence, Request
from tests.tiny import WORLD

SIZE = (100, 100)


def box(label: str, *edges: float, score: float | None = 0.5) -> Region:
    return Region(label, box=Box(*edges), score=score)


def quad(label: str, x: float, y: float) -> Region:
    corners = Point(x, y), Point(x + 20, y), Point(x + 20, y + 10), Point(x, y + 10)
    return Region(label, quad=corners, score=0.5)


def outline(*rings: tuple[float, float, float, float]) -> Region:
    polygons = tuple((Point(a, b), Point(c, b), Point(c, d), Point(a, d)) for a, b, c, d in rings)
    return Region(polygons=polygons, score=0.5)


def true(task: str, *regions: Region) -> Answer:
    return Answer(find_task(task), SIZE, regions=regions)


def rights(task: str, said: list[Region], *there: Region, crowds: tuple[Region, ...] = ()) -> list[float]:
    return [right for _, right in judge_regions(said, true(task, *there), crowds)]


# ---- what is right


def test_a_box_is_right_with_its_label_once_and_by_half():
    cat = box("cat", 0, 0, 40, 40)
    # By hand: 40 x 20 of 40 x 40 is an IoU of exactly 0.5; a pixel less is below.
    assert rights("detect", [box("cat", 0, 0, 40, 20)], cat) == [1]
    assert rights("detect", [box("cat", 0, 0, 40, 19)], cat) == [0]
    assert rights("detect", [box("dog", 0, 0, 40, 40)], cat) == [0]
    assert rights("detect", [box("cat", 0, 0, 40, 30), cat], cat) == [0, 1]  # the better one takes it
    assert rights("propose", [box("", 0, 0, 40, 40)], cat) == [1]  # names nothing
    assert rights("ground", [cat, box("dog", 0, 0, 40, 40)], cat) == [1, 0]


def test_what_lies_in_a_crowd_is_not_judged():
    said = [box("cat", 0, 0, 40, 40), box("cat", 60, 60, 80, 80)]
    assert rights("detect", said, said[0], crowds=(box("cat", 50, 50, 100, 100),)) == [1]


def test_a_line_is_right_where_it_stands_as_it_is_spelt():
    said = [quad("STOP", 0, 0), quad("STOP", 50, 50), quad("SLOW", 0, 30)]
    assert rights("read_regions", said, quad("STOP", 1, 0), quad("SHOW", 0, 30)) == [1, 0, 0]
    assert rights("read_regions", said, quad("###", 50, 50)) == [0, 0]  # nobody is asked to read it


def test_an_outline_is_right_when_its_mask_overlaps_by_half():
    # By hand: rings add up, 400 + 400 pixels of 900; without the second one 400 of 900.
    there = outline((0, 0, 30, 30))
    assert rights("segment", [outline((0, 0, 20, 20), (20, 0, 30, 30))], there) == [1]
    assert rights("segment", [outline((0, 0, 20, 20))], there) == [0]
    assert rights("segment", [], there) == []


def test_a_region_without_a_score_is_not_judged():
    assert rights("detect", [box("cat", 0, 0, 9, 9, score=None)], box("cat", 0, 0, 9, 9)) == []


def test_the_judged_tasks_are_all_but_those_with_many_right_answers():
    names = {"read", "describe_region", "caption", "detailed_caption", "more_detailed_caption"}
    assert len(JUDGED) == 11
    assert not names & {task.name for task in JUDGED}


# ---- asking


class Knowing:
    """Says what it is told to about a request."""

    def __init__(self, say: Callable[[Request], Any]) -> None:
        self.say = say

    def predict_many(self, requests: Any, *_: Any, **__: Any) -> Iterator[Any]:
        yield from map(self.say, requests)


def test_scores_about_the_drawn_world_are_judged_task_by_task():
    def say(request: Request) -> Any:
        if find_task(request.task).form == "text":
            return Answer(find_task(request.task), request.image.size, "no such thing", score=0.25)
        return BadImage("gone") if request.image.size == (1, 1) else Answer(find_task(request.task), request.image.size)

    tasks = [find_task(name) for name in ("detect", "classify_region", "answer")]
    pairs = world_pairs(Knowing(say), 3, 7, tasks, world=WORLD)
    assert pairs["classify_region"] == [Pair(image, 0.25, 0.0) for image in range(3)]
    assert pairs["detect"] == []


def records(root: Path, count: int) -> list[Record]:
    """Pictures with a cat each and a question; the answer is red, or as good, scarlet."""
    Image.new("RGB", SIZE).save(root / "a.png")
    cat = RegionNote(label="cat", box=Box(10.0, 10.0, 50.0, 50.0))
    asked = QuestionNote(question="What color?", answers=("red", "scarlet"))
    one = Record(image="a.png", image_wh=SIZE, regions=(cat,), questions=(asked,), whole=frozenset({"objects"}))
    return [one] * count


def told(request: Request) -> Any:
    task = find_task(request.task)
    if task.name == "answer":
        return Answer(task, SIZE, "scarlet", score=0.75)
    if task.name == "detect":
        return Answer(task, SIZE, regions=(box("cat", 12, 10, 50, 50), box("dog", 0, 0, 9, 9, score=0.1)))
    return BadImage("gone") if task.name == "propose" else Answer(task, (7, 7))  # about a picture of another size


def test_scores_about_records_are_judged_and_errors_left_out(tmp_path):
    pairs = record_pairs(Knowing(told), records(tmp_path, 2), tmp_path)
    assert pairs == {
        "answer": [Pair(0, 0.75, 1.0), Pair(1, 0.75, 1.0)],
        "detect": [Pair(0, 0.5, 1.0), Pair(0, 0.1, 0.0), Pair(1, 0.5, 1.0), Pair(1, 0.1, 0.0)],
    }


def test_records_that_nothing_can_be_judged_about_are_refused(tmp_path):
    bare = [Record(image="a.png", image_wh=SIZE)]
    with pytest.raises(BadConfig, match="1 records, and no answer about them can be judged"):
        calibrate_records(Knowing(told), bare, tmp_path)


def test_a_calibrated_model_is_asked_for_its_raw_scores(answering_folder):
    checkpoint = load_checkpoint(answering_folder)
    settled = Florence(replace(checkpoint, calibration=Calibration(fits={}, data="", date="")), side_px=64)
    raw = uncalibrated(settled)
    assert raw.checkpoint.calibration is None
    assert (raw.network, raw.side_px) == (settled.network, 64)


def test_calibrated_scores_are_never_fitted_again(answering_folder):
    checkpoint = load_checkpoint(answering_folder)
    halved = Fit(curve=Curve(method="temperature", temperature=9.0), n=99, error_before=0.0, error_after=0.0)
    settled = replace(checkpoint, calibration=Calibration(fits={"propose": halved}, data="", date=""))
    options = AskOptions(beams=1, max_regions=3)
    fits = [calibrate_world(Florence(one), 2, 0, options=options, world=WORLD).tasks for one in (checkpoint, settled)]
    raw = [next(fit.raw for fit in tasks if fit.task == "propose") for tasks in fits]
    assert len(raw[0]) > 0
    assert raw[0].tolist() == raw[1].tolist()


def test_of_several_right_answers_the_closest_one_judges(tmp_path):
    # The same caption was annotated twice, and only the second time as it is answered.
    (cat,) = records(tmp_path, 1)
    places = [box("a cat", 60, 60, 90, 90), box("a cat", 10, 10, 50, 50)]
    notes = [GroundingNote(text="a cat", phrases=(PhraseNote(phrase="a cat", boxes=(one.box,)),)) for one in places]
    said = Answer(find_task("ground"), SIZE, regions=(places[1],))
    pairs = record_pairs(
        Knowing(lambda request: said if find_task(request.task).name == "ground" else BadImage("gone")),
        [replace(cat, groundings=tuple(notes))],
        tmp_path,
    )
    assert pairs == {"ground": [Pair(0, 0.5, 1.0)]}


# ---- curves


def drawn(n: int, worth: Callable[[Any], Any], seed: int = 0) -> Any:
    """Scores, and answers that are right as often as `worth` says of them."""
    random = np.random.default_rng(seed)
    scores = random.random(n)
    return np.stack([scores, (random.random(n) < worth(scores)).astype(float)], axis=1)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40))
def test_pooling_gives_the_closest_fit_that_never_falls(pairs):
    scores, right = np.array(pairs, float).T
    blocks = pool(scores, right)
    worth = [next(block.worth for block in blocks if block.low <= score <= block.high) for score in scores]
    # Equal scores are one value for scipy only when they are given as one, weighted.
    place = np.unique(scores, return_inverse=True)[1]
    counts = np.bincount(place)
    fitted = isotonic_regression(np.bincount(place, weights=right) / counts, weights=counts).x
    assert worth == pytest.approx(fitted[place].tolist())


def test_the_temperature_is_the_one_that_is_most_likely():
    # Right as often as the cube root of the score says: T is 3, up to chance; exactly where scipy finds it too.
    pairs = drawn(4000, lambda scores: scores ** (1 / 3))
    curve = fit_curve(pairs, "temperature")

    def unlikely(temperature: float) -> float:
        worth = pairs[:, 0] ** (1 / temperature)
        return -float(np.log(np.where(pairs[:, 1] > 0, worth, 1 - worth)).sum())

    assert curve.temperature == pytest.approx(minimize_scalar(unlikely, bounds=(0.1, 20), method="bounded").x, rel=1e-3)
    assert curve.temperature == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_a_curve_makes_scores_honest(method):
    pairs, others = (drawn(5000, lambda scores: scores ** (1 / 3), seed) for seed in (0, 1))
    curve = fit_curve(pairs, method)
    settled = np.array([(curve.apply(score), right) for score, right in others])
    # The mean of cbrt(s) - s over 0..1 is 3/4 - 1/2. Of 500 answers a bin the right share is 0.02 off by chance alone,
    # in the half that was fitted and in the other.
    assert reliability(others).error == pytest.approx(0.25, abs=0.02)
    assert reliability(settled).error < 0.03


def test_no_score_is_worth_exactly_nothing_or_everything():
    pairs = np.array([[0.1, 0.0]] * 30 + [[0.9, 1.0]] * 30)
    curve = fit_curve(pairs, "isotonic")
    # By hand: one right answer is added to the 30 wrong ones, and one wrong to the 30 right ones.
    assert curve.apply(0.1) == pytest.approx(1 / 31, abs=1e-5)
    assert curve.apply(0.9) == pytest.approx(30 / 31, abs=1e-5)
    assert 0 < curve.apply(0.0) < curve.apply(1.0) < 1


def test_isotonic_curves_keep_the_order_and_so_average_precision():
    pairs = drawn(600, lambda scores: 0.3 + 0.4 * scores)
    curve = fit_curve(pairs, "isotonic")
    scores = np.sort(pairs[:, 0]).tolist()
    assert np.all(np.diff([curve.apply(score) for score in scores]) > 0)
    found = [[box("cat", 0, 0, 10, 10 if right else 1, score=score)] for score, right in pairs.tolist()]
    settled = [[replace(one, score=curve.apply(one.score)) for one in row] for row in found]
    truths = [[box("cat", 0, 0, 10, 10)]] * len(found)
    before, after = (average_precision(rows, truths, rounds=0).figures["ap50"].value for rows in (found, settled))
    assert before == after


def test_answers_that_are_all_right_show_no_curve():
    with pytest.raises(BadConfig, match="3 answers that are all right or all wrong"):
        fit_curve(np.array([[0.5, 1.0]] * 3), "isotonic")


# ---- halves


def as_pairs(rows: Any, per_image: int = 4) -> list[Pair]:
    return [Pair(place // per_image, *row) for place, row in enumerate(rows.tolist())]


def test_the_errors_are_of_images_that_the_curve_had_not_seen():
    rows = drawn(400, lambda scores: scores**3)
    (fit,) = fit_tasks({"detect": as_pairs(rows)}, "isotonic")
    assert (fit.n, len(fit.raw), len(fit.settled)) == (400, 200, 200)
    assert fit.curve == fit_curve(rows, "isotonic")  # of all of them
    unseen = {tuple(row) for row in fit.raw.tolist()}
    images = [{tuple(row) for row in rows[start : start + 4].tolist()} for start in range(0, 400, 4)]
    assert sorted(len(image & unseen) for image in images) == [0] * 50 + [4] * 50  # no image is in both halves
    learnt = np.array([row for row in rows.tolist() if tuple(row) not in unseen])
    first = fit_curve(learnt, "isotonic")
    assert fit.settled[:, 0].tolist() == [first.apply(score) for score in fit.raw[:, 0]]
    assert fit.before == reliability(fit.raw).error > fit.after == reliability(fit.settled).error


def test_too_few_scores_give_no_curve_and_say_why():
    few = drawn(FEWEST - 1, lambda scores: scores)
    sure = np.array([[0.5, 1.0]] * FEWEST)
    assert "49 scores, 50 are needed" in too_few(few)
    assert too_few(np.zeros((0, 2)))
    assert "all 50 answers are right" in too_few(sure)
    fits = fit_tasks({"detect": as_pairs(few), "propose": as_pairs(sure), "find": []}, "temperature")
    assert [(fit.n, fit.curve, bool(fit.why)) for fit in fits] == [(49, None, True), (50, None, True), (0, None, True)]
    # All wrong ones about one image: whichever half that is in, the other has none.
    apart = np.array([[0.5, 0.0]] * 10 + [[0.6, 1.0]] * 90)
    (fit,) = fit_tasks({"detect": as_pairs(apart, 10)}, "isotonic")
    assert fit.curve is None or len(np.unique(fit.raw[:, 1])) == 1


# ---- from the command line to what is left


class Started:
    """What a run tells whoever started it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.bars: list[tuple[str, int]] = []
        self.notes: list[str] = []

    @property
    def machine(self) -> Machine:
        return Machine(lambda: self.model, self.progress, self.notes.append)

    @contextmanager
    def progress(self, unit: str, total: int) -> Iterator[Callable[[], None]]:
        self.bars.append((unit, total))
        yield lambda: None


def guess(request: Request) -> Any:
    """One box that is sometimes right: where the largest thing of a scene may be, surest in the middle."""
    task, (width, height) = find_task(request.task), request.image.size
    if task.name != "propose":
        return Answer(task, (width, height))
    whole = [box("", 0, 0, width * part / 8, height * part / 8, score=part / 10) for part in range(2, 9)]
    return Answer(task, (width, height), regions=tuple(whole))


def test_a_calibration_lies_beside_the_weights_with_its_page(tmp_path):
    started = Started(Knowing(guess))
    plan = CalibrationPlan("world", "tiny", "2025-01-31", limit=60, seed=0, out=tmp_path)
    markdown = calibrate(plan, started.machine)
    calibration = read_calibration(tmp_path)
    assert calibration is not None
    assert (list(calibration.fits), calibration.date) == (["propose"], "2025-01-31")
    assert calibration.data == "drawn scenes, seeds 0 to 59"
    assert calibration.fits["propose"].n == 60 * 7
    assert started.bars == [("scenes", 60)]
    (row,) = [line for line in markdown.splitlines() if line.startswith("| propose ")]
    assert f"{100 * calibration.fits['propose'].error_before:.1f}" in row
    assert "none: 0 scores, 50 are needed" in markdown
    page = (tmp_path / "calibration.html").read_text("utf-8")
    assert page.count("<svg") == 2  # before and after, of the one task
    assert "default-src 'none'" in page  # it loads nothing from elsewhere
    assert "calibration.json" in started.notes[-1]


def test_a_data_set_is_asked_about_too(tmp_path):
    rows = []
    for number in range(30):
        Image.new("RGB", SIZE, (number, 0, 0)).save(tmp_path / f"{number}.png")
        note = {"box": [10, 10, 50, 50], "label": "cat"}
        rows.append({"image": f"{number}.png", "image_wh": [*SIZE], "regions": [note], "whole": ["objects"]})
    rows.append(rows[0] | {"image": "gone.png"})
    (tmp_path / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    started = Started(Knowing(told))
    plan = CalibrationPlan(str(tmp_path / "val.jsonl"), "tiny", "", "temperature", out=tmp_path / "new")
    calibrate(replace(plan, page=tmp_path / "page.html"), started.machine)
    calibration = read_calibration(tmp_path / "new")
    assert calibration is not None
    assert (calibration.fits["detect"].n, calibration.data) == (60, "val, val")
    assert calibration.curves["detect"].method == "temperature"
    assert started.bars == [("images", 30)]
    assert "1 x image missing" in started.notes[0]
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["calibration.json"]
    assert (tmp_path / "page.html").exists()


def test_without_a_curve_nothing_is_written(tmp_path):
    plan = CalibrationPlan("world", "tiny", "2025-01-31", limit=2, seed=0, out=tmp_path / "new")
    with pytest.raises(BadConfig, match=r"no task .* gets a curve; nothing was written"):
        calibrate(plan, Started(Knowing(guess)).machine)
    assert not (tmp_path / "new").exists()


def test_the_embedded_checkpoint_is_written_to_only_by_name(tmp_path):
    with pytest.raises(BadConfig, match="belongs to this package; give --out"):
        _ = CalibrationPlan("world", None, "").folder
    assert CalibrationPlan("world", None, "", out=tmp_path).folder == tmp_path
    assert CalibrationPlan("world", str(tmp_path), "").folder == tmp_path
    assert CalibrationPlan("world", None, "", out=resolve(None)).folder == resolve(None)


@pytest.mark.slow
def test_the_command_leaves_what_scores_are_worth(tmp_path):
    # By the embedded weights: drawn ones are never right. Sixteen scenes have scores enough for boxes.
    page = tmp_path / "page.html"
    words = ["calibrate", "world", "--limit", "16", "--out", str(tmp_path / "new"), "--page", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    rows = {cells[1].strip(): cells for line in done.stdout.splitlines() if (cells := line.split("|"))[1:]}
    calibration = read_calibration(tmp_path / "new")
    assert calibration is not None
    assert set(calibration.fits) < set(rows)
    assert "none: 16 scores, 50 are needed" in rows["segment"][-2]
    assert (calibration.data, calibration.date) == ("drawn scenes, seeds 5000 to 5015", date.today().isoformat())
    assert {curve.method for curve in calibration.curves.values()} == {"isotonic"}
    assert "<svg" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "told"), [(["--method", "platt"], "allowed: isotonic, temperature"), ([], "belongs to this package")]
)
def test_a_mistake_in_the_command_is_told_before_anything_is_loaded(words, told, monkeypatch):
    monkeypatch.setattr("openflorence.cli.load", lambda *_, **__: pytest.fail("loaded"))
    done = CliRunner().invoke(app, ["calibrate", "world", *words])
    assert isinstance(done.exception, BadConfig)
    assert told in str(done.exception)
