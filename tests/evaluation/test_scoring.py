"""Every scorer on answers whose score can be counted by hand."""

from collections import Counter

import numpy as np
import pytest

from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.data.chance import dice
from openflorence.data.questions import QUESTIONS
from openflorence.data.sentences import name
from openflorence.data.truth import ask
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.evaluation.metrics import Parts
from openflorence.evaluation.scoring import SCORERS, named_objects, question_kind, score

WH = (100, 100)
SCENE = draw_scene(0, WorldConfig(sign_share=0.0))
A, B, C = Box(0, 0, 20, 20), Box(40, 0, 60, 20), Box(0, 60, 30, 90)
A_SHIFTED = Box(5, 0, 25, 20)  # shares 300 of 500 with A
NOWHERE = Box(80, 80, 95, 95)


def answer(task: str, *regions: Region, text: str = "", asked: str | None = None) -> Answer:
    return Answer(find_task(task), WH, text, regions, input=asked)


def scored(true: Answer, said: Answer) -> dict[str, Parts]:
    return score(SCENE, Example(true.task, true.input, None, true), said)


def car(box: Box) -> Region:
    return Region("car", box=box)


def test_every_task_has_a_scorer():
    assert list(SCORERS) == [task.name for task in (*TASKS, FREE_TEXT)]
    assert len(SCORERS) == 16


@pytest.mark.parametrize("task", ["detect", "dense_caption", "find"])
def test_boxes_by_hand(task):
    true = answer(task, car(A), Region("cat", box=B), car(C), asked="car<and>cat")
    said = answer(task, Region(" car", box=A_SHIFTED), car(B))
    figures = scored(true, said)
    # One of two is right; the other lies right under a wrong name. Three were to be found.
    assert figures["f1"] == Parts(2, 5)
    assert figures["precision"] == Parts(1, 2)
    assert figures["recall"] == Parts(1, 3)
    assert figures["f1_unlabelled"] == Parts(4, 5)
    assert figures["iou_of_found"] == pytest.approx(Parts(0.6, 1))
    assert next(iter(figures)) == "f1"


def test_a_double_is_wrong():
    assert scored(answer("detect", car(A)), answer("detect", car(A), car(A)))["f1"] == Parts(2, 3)


def test_proposals_have_no_names():
    figures = scored(answer("propose", Region(box=A), Region(box=B)), answer("propose", Region(box=B)))
    assert figures["f1"] == Parts(2, 3)
    assert "f1_unlabelled" not in figures


def test_the_first_box_of_a_phrase_decides():
    true = answer("ground", *(Region("two cars", box=box) for box in (A, B)), Region("a cat", box=C), asked="..")
    said = answer(
        "ground",
        Region("two cars", box=B),  # any of its true boxes will do
        Region("a cat", box=NOWHERE),
        Region("a cat", box=C),  # too late
    )
    figures = scored(true, said)
    assert figures["recall_at_1"] == Parts(1, 2)
    assert figures["f1"] == Parts(4, 6)
    assert next(iter(figures)) == "recall_at_1"


def test_absent_phrases_should_stay_without_a_box():
    true = answer("find", car(A), asked="car<and>red fish")
    assert scored(true, answer("find", car(A)))["absent_left_out"] == Parts(1, 1)
    assert scored(true, answer("find", car(A), Region("red fish", box=B)))["absent_left_out"] == Parts(0, 1)
    assert scored(answer("find", car(A), asked="car"), answer("find", car(A)))["absent_left_out"] == Parts(0, 0)


def test_a_polygon_among_found_boxes_counts_by_its_bounds():
    corners = tuple(Point(x, y) for x, y in ((0, 0), (20, 0), (20, 20), (0, 20)))
    assert scored(answer("find", car(A), asked="car"), answer("find", Region("car", polygons=(corners,))))[
        "f1"
    ] == Parts(2, 2)


@pytest.mark.parametrize("task", ["segment", "segment_region"])
def test_masks_are_held_against_the_visible_pixels(task):
    example = ask(SCENE, task, dice(1))
    everything = tuple(Point(x, y) for x, y in ((0, 0), (128, 0), (128, 128), (0, 128)))
    said = Answer(example.task, SCENE.image_wh, regions=(Region(polygons=(everything,)),))
    figures = score(SCENE, example, said)
    areas = [int(SCENE.mask(thing).sum()) for thing in SCENE.things]
    assert figures["oiou"].whole == 128 * 128
    assert figures["oiou"].right in areas
    assert figures["miou"] == pytest.approx(Parts(figures["oiou"].right / 128**2, 1))
    assert figures["iou_above_half"] == Parts(0, 1)
    assert figures["miou_of_truth"] == score(SCENE, example, example.answer)["miou"]
    assert score(SCENE, example, Answer(example.task, SCENE.image_wh))["miou"] == Parts(0, 1)


def test_two_instances_of_a_mask_are_one_mask():
    example = ask(SCENE, "segment", dice(1))
    (ring, *_) = example.answer.regions[0].polygons
    once = Answer(example.task, SCENE.image_wh, regions=(Region(polygons=(ring,)),))
    twice = Answer(example.task, SCENE.image_wh, regions=(Region(polygons=(ring,)), Region(polygons=(ring,))))
    assert score(SCENE, example, once) == score(SCENE, example, twice)


def quad(box: Box) -> tuple[Point, Point, Point, Point]:
    return Point(box.x0, box.y0), Point(box.x1, box.y0), Point(box.x1, box.y1), Point(box.x0, box.y1)


def test_words_need_their_letters_and_their_place():
    true = answer("read_regions", *(Region(w, quad=quad(b)) for w, b in (("STOP", A), ("EXIT", B), ("BUS", C))))
    said = answer(
        "read_regions",
        Region("STOP", quad=quad(A_SHIFTED)),
        Region("EXIT", quad=quad(NOWHERE)),
        Region("BOS", quad=quad(C)),
        Region("TAXI", quad=quad(NOWHERE)),
    )
    figures = scored(true, said)
    assert figures["words_right"] == Parts(1, 3)
    assert figures["f1"] == Parts(2, 7)
    assert figures["f1_unread"] == Parts(4, 7)
    assert figures["silent_without_text"] == Parts(0, 0)


def test_silence_is_right_only_where_nothing_is_printed():
    signs = draw_scene(1, WorldConfig(sign_share=1.0))
    for scene, silent in ((SCENE, True), (signs, False)):
        example = ask(scene, "read", dice(0))
        empty = score(scene, example, Answer(example.task, WH))
        assert empty["silent_without_text"] == Parts(silent, silent)
        assert empty["exact"] == Parts(0, not silent)
        assert score(scene, example, example.answer)["exact"] == Parts(not silent, not silent)
        loud = score(scene, example, Answer(example.task, WH, "STOPP"))
        assert loud["silent_without_text"].right == loud["exact"].right == 0
    assert scored(answer("read_regions"), answer("read_regions"))["silent_without_text"] == Parts(1, 1)


@pytest.mark.parametrize("task", ["classify_region", "describe_region", "read_region", "answer"])
def test_short_texts_are_right_or_wrong(task):
    true = answer(task, text="red fish", asked="Where is the cat?")
    assert scored(true, answer(task, text="red fish "))["exact"] == Parts(1, 1)
    assert scored(true, answer(task, text="Red fish"))["exact"] == Parts(0, 1)
    assert scored(true, answer(task))["exact"] == Parts(0, 1)


def test_captions_are_read_by_hand():
    assert named_objects("a red fish, two blue houses and an orange sign") == Counter(
        {"red fish": 1, "blue house": 2, "orange sign": 1}
    )
    assert named_objects("two white fish") == Counter({"white fish": 2})  # whose plural is bent by nothing
    assert named_objects(
        "The image shows three small red ice creams and a green sign on a plain pale blue background. "
        "The sign is left of the cat."
    ) == Counter({"red ice cream": 3, "green sign": 1})
    assert named_objects(
        "The background is plain gray. There is a small red fish at the top left. There is an orange sign in the "
        "middle that says STOP. There is a small red fish at the right. The sign is above the cat."
    ) == Counter({"red fish": 2, "orange sign": 1})


def test_what_is_not_the_grammar_is_never_right_and_never_lost():
    assert named_objects("") == Counter()
    assert named_objects("a red blob and a fish") == Counter({"a red blob": 1, "a fish": 1})
    assert named_objects("two red house") == Counter({"two red house": 1})
    assert named_objects("A man rides a horse.") == Counter({"A man rides a horse.": 1})
    assert named_objects("There is a dragon.") == Counter({"a dragon": 1})


@pytest.mark.parametrize("task", ["caption", "detailed_caption", "more_detailed_caption"])
def test_the_true_captions_name_what_is_there(task):
    for seed in range(150):
        scene = draw_scene(seed, WorldConfig(side_px=64, sign_share=0.5))
        example = ask(scene, task, dice(0))
        true = Counter(name(thing, "colour") for thing in scene.things)
        assert named_objects(example.answer.text) == true, example.answer.text
        figures = score(scene, example, example.answer)
        assert figures["exact"] == figures["objects_right"] == Parts(1, 1)
        assert figures["objects_f1"] == Parts(2 * len(scene.things), 2 * len(scene.things))


def test_a_caption_may_name_some_of_it():
    thing = SCENE.things[0]
    figures = score(SCENE, ask(SCENE, "caption", dice(0)), answer("caption", text=f"a {name(thing, 'colour')}"))
    assert len(SCENE.things) > 1
    assert figures["exact"] == figures["objects_right"] == Parts(0, 1)
    assert figures["objects_f1"] == Parts(2, 1 + len(SCENE.things))


def test_questions_are_sorted_by_what_they_ask():
    kinds = "count count_kind count_colour colour is_there relation relation relation size place word background"
    posed: Counter[str] = Counter()
    for seed in range(60):
        scene, rng = draw_scene(seed, WorldConfig(side_px=64, sign_share=0.5)), np.random.default_rng(seed)
        for kind, pose in zip(kinds.split(), QUESTIONS, strict=True):
            if asked := pose(scene, rng):
                assert question_kind(asked[0]) == kind, asked
                posed[kind] += 1
    assert set(posed) == set(kinds.split())
    assert question_kind("Who painted this?") == "other"


def test_an_answer_counts_for_its_kind_of_question():
    figures = scored(answer("answer", text="3", asked="How many red objects are there?"), answer("answer", text="3"))
    assert figures == {"exact": Parts(1, 1), "exact_count_colour": Parts(1, 1)}
