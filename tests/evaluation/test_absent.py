"""Phrases for what is not there: that they are not there, and the area under the ROC curve by hand."""

import numpy as np
import pytest

from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.sentences import LEVELS, groups, name, referring_phrases
from openflorence.data.words import COLOURS
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.errors import BadConfig
from openflorence.evaluation.absent import (
    KINDS,
    POINTING,
    AbsentScores,
    Judged,
    Posed,
    evaluate_absent,
    pose_phrases,
    roc_area,
    roc_areas,
)
from openflorence.evaluation.drawn import WORLD
from openflorence.model.predict import AskOptions

SEEDS = range(60)


def scores_of(*rows: tuple[int, str, str, float]) -> AbsentScores:
    judged = tuple(Judged(row, Posed(task, kind, "x", "x"), odds) for row, task, kind, odds in rows)
    return AbsentScores(1 + max(one.row for one in judged), 0, WORLD, AskOptions(), judged, 0.0)


# ---- the area under the ROC curve


@pytest.mark.parametrize(
    ("present", "absent", "area"),
    [
        ([3, 4], [1, 2], 1.0),
        ([1, 2], [3, 4], 0.0),
        ([1, 1], [1, 1, 1], 0.5),
        # By hand, pair by pair: 1 beats neither; 3 beats 2 and ties with 3: (0 + 0 + 1 + 0.5) / 4.
        ([1, 3], [2, 3], 0.375),
        # 5 beats all three; 2 ties with two 2s and loses to 4: (3 + 0.5 + 0.5) / 6.
        ([5, 2], [2, 4, 2], 4 / 6),
    ],
)
def test_the_area_is_the_share_of_pairs_in_the_right_order(present, absent, area):
    assert roc_area(np.array(present, float), np.array(absent, float)) == pytest.approx(area)


def test_the_area_is_that_under_the_curve():
    # The curve itself, threshold after threshold, by the trapezoid rule.
    rng = np.random.Generator(np.random.PCG64(0))
    present, absent = rng.integers(2, 9, 40) / 1.0, rng.integers(0, 7, 70) / 1.0
    steps = np.arange(10, -2, -1)[:, None]
    hits, false = (present >= steps).mean(axis=1), (absent >= steps).mean(axis=1)
    area = float(((hits[1:] + hits[:-1]) / 2 * np.diff(false)).sum())
    assert roc_area(present, absent) == pytest.approx(area)


def test_a_weight_is_how_often_a_score_counts():
    present, absent = np.array([1.0, 3.0]), np.array([2.0, 3.0])
    areas = roc_areas(present, absent, np.array([[2.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 3.0], [1.0, 1.0]]))
    assert areas[0] == pytest.approx(roc_area(np.array([1.0, 1, 3]), np.array([2.0, 3, 3, 3])))
    assert np.isnan(areas[1])  # no present phrase was drawn: there is no curve


def test_figures_are_taken_from_their_own_task_and_kind():
    scores = scores_of(
        (0, "find", "present", 2.0),
        (0, "find", "other", 1.0),
        (0, "find", "hard", 3.0),
        (1, "ground", "present", 0.0),
        (1, "ground", "other", -1.0),
        (1, "find", "present", 2.0),
        (1, "find", "hard", 0.0),
    )
    assert (scores.figure("find", "other").value, scores.figure("find", "other").n) == (1.0, 3)
    assert scores.figure("find", "hard").value == 0.5  # both present ones are below 3 and above 0
    assert scores.figure("ground").value == 1.0
    # All three present against all four absent, by hand: 2 beats 1, -1 and 0, twice; 0 beats -1 and ties with 0.
    assert scores.figure().value == pytest.approx((3 + 3 + 1.5) / 12)
    assert scores.figure("segment").value is None
    assert scores.figure("find", "hard").half_width > 0


# ---- what is posed


def test_what_is_absent_is_not_there_and_what_is_present_is():
    seen = set()
    for seed in SEEDS:
        scene = draw_scene(seed, WORLD)
        names = {name(thing, level) for thing in scene.things for level in LEVELS}
        phrases = {phrase for thing in scene.things for phrase in referring_phrases(scene, thing)}
        named = {phrase for level in LEVELS for phrase, _ in groups(scene.things, level)}
        for one in pose_phrases(scene):
            bare = one.phrase.removeprefix("the ").removeprefix("an ").removeprefix("a ")
            here = one.phrase in {"find": names, "segment": phrases, "ground": named}[one.task]
            assert here == (one.kind == "present"), one
            assert one.phrase in one.text
            if one.kind != "present":
                assert bare not in names
            words = bare.split()
            if one.kind == "hard":
                assert words[-1] in {thing.kind.split()[-1] for thing in scene.things}
                assert any(word in COLOURS for word in words)
            seen.add((one.task, one.kind))
    assert seen == {(task, kind) for task in POINTING for kind in KINDS}


def test_a_kind_that_is_elsewhere_is_not_on_the_image():
    for seed in SEEDS:
        scene = draw_scene(seed, WORLD)
        here = {thing.kind for thing in scene.things}
        for one in pose_phrases(scene):
            if one.kind == "other":
                subject = one.phrase
                for turn in (" left of ", " above ", " on "):
                    subject = subject.split(turn)[0]
                assert not any(subject.endswith(f" {kind}") or subject == kind for kind in here), one


def test_posing_is_the_same_at_every_call_and_for_every_choice_of_tasks():
    scene = draw_scene(3, WORLD)
    every = pose_phrases(scene)
    assert every == pose_phrases(scene)
    assert [one for one in every if one.task == "find"] == pose_phrases(scene, ["find"])


def test_a_world_of_one_colour_has_no_wrong_colour():
    scene = draw_scene(0, WorldConfig(colours=("red",), sign_share=0.0))
    assert {one.kind for one in pose_phrases(scene)} == {"present", "other"}


@pytest.mark.parametrize(
    "wrong", [{"scenes": 0}, {"seed": -1}, {"seed": FIRST_TRAINING_SEED}, {"tasks": ["detect"]}, {"tasks": []}]
)
def test_what_cannot_be_judged_is_refused_before_anything_is_asked(wrong):
    with pytest.raises(BadConfig):
        evaluate_absent(None, **wrong)
