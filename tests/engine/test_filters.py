"""Rules that drop notes: each on notes written by hand, with the verdict worked out by hand."""

from dataclasses import replace

import pytest

from openflorence.contract.records import GroundingNote, Origin, PhraseNote, QuestionNote, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.notes import Notes, kept
from openflorence.engine.filters import (
    BlacklistSettings,
    NmsSettings,
    ScoreSettings,
    SizeSettings,
    TextSettings,
    blacklisted,
    drop_blacklisted,
    drop_doubles,
    drop_empty,
    drop_misshapen,
    drop_poor_texts,
    drop_repeated,
    drop_unsure,
    pool,
)
from openflorence.engine.judge import RULES, JudgeSettings, judge
from openflorence.engine.parse import ParseSettings
from openflorence.errors import BadConfig

SIZE = (200, 100)
RULE_PARSER = ParseSettings(reader="rules")


def region(
    x0: float, y0: float, x1: float, y1: float, label: str = "cat", score: float | None = 0.9, **more
) -> RegionNote:
    return RegionNote(box=Box(x0, y0, x1, y1), label=label, score=score, **more)


def regions(*notes: RegionNote):
    return pool({"a": Notes(regions=notes)})


def dropped(verdicts) -> dict[str, str]:
    return {verdict.note_id: verdict.rule for verdict in verdicts}


# ---- scores


def test_the_most_exact_threshold_counts():
    settings = ScoreSettings(objects=0.5, exact={"cat": 0.2, "owl": 0.7, "owl: cat": 0.6})
    owl, detr = Origin(source="owl"), Origin(model="detr")
    notes = regions(
        region(0, 0, 9, 9, "dog", 0.45),  # below 0.5, the default
        region(0, 0, 9, 9, "cat", 0.45, origin=detr),  # above 0.2, by class
        region(0, 0, 9, 9, "cat", 0.55, origin=owl),  # below 0.6, by both
        region(0, 0, 9, 9, "dog", 0.65, origin=owl),  # below 0.7, by source
        region(0, 0, 9, 9, "dog", None, origin=owl),  # said by people
        RegionNote(box=Box(0, 0, 9, 9), word="EXIT", score=0.25),  # below 0.3 of words
    )
    verdicts = drop_unsure(notes, settings)
    assert [verdict.note_id for verdict in verdicts] == ["a/region0", "a/region2", "a/region3", "a/region5"]
    assert verdicts[0].reason == "score 0.4500 is below 0.5"
    assert verdicts[0].value == 0.45
    with pytest.raises(BadConfig, match=r"'owl' is 7; allowed are 0 to 1"):
        ScoreSettings(exact={"owl": 7})


def test_texts_phrases_and_questions_have_scores_too():
    phrase = PhraseNote(phrase="a cat", boxes=(Box(0, 0, 9, 9),), score=0.1)
    notes = Notes(
        texts=(TextNote(text="a cat", score=0.1),),
        groundings=(GroundingNote(text="a cat", phrases=(phrase, replace(phrase, score=0.9))),),
        questions=(QuestionNote(question="What?", answers=("a cat",), score=0.1),),
    )
    found = drop_unsure(pool({"a": notes}), ScoreSettings(texts=0.2, questions=0.2, phrases=0.2))
    assert dropped(found) == dict.fromkeys(("a/text0", "a/grounding0.phrase0", "a/question0"), "score")


# ---- sizes


@pytest.mark.parametrize(
    ("note", "rule"),
    [
        (region(10, 10, 60, 60), None),
        (region(10, 10, 13.5, 60), "small"),  # 3.5 px wide
        (region(0, 0, 200, 99), "large"),  # 99% of the image
        (region(0, 0, 5, 60), None),  # 2.5% deep
        (region(0.5, 20, 3.9, 60), "small"),
        (region(40, 96, 120, 100), None),  # 4 of 100 px deep
        (region(40, 40, 190, 47), "aspect"),  # 150 x 7
        (RegionNote(box=Box(40, 40, 190, 47), word="A LONG LINE"), None),
    ],
)
def test_sizes_by_hand(note, rule):
    found = drop_misshapen(regions(note), SIZE, SizeSettings())
    assert [verdict.rule for verdict in found] == ([rule] if rule else [])


@pytest.mark.parametrize(("size", "rule"), [((640, 480), "large"), ((320, 100), None), ((60, 200), None)])
def test_a_word_as_large_as_the_picture_is_one_where_the_picture_has_the_shape_of_a_line(size, rule):
    word = RegionNote(box=Box(0, 0, *size), word="8", score=0.9)
    found = drop_misshapen(regions(word), size, SizeSettings())
    assert [verdict.rule for verdict in found] == ([rule] if rule else [])


def test_a_sliver_along_an_edge_is_an_artefact():
    # 15 of 1000 px deep: 1.5%. The same strip away from the edge is a thing.
    settings = SizeSettings(longest=100)
    edge, inside = region(985, 100, 1000, 700), region(900, 100, 915, 700)
    found = drop_misshapen(regions(edge, inside), (1000, 1000), settings)
    assert dropped(found) == {"a/region0": "border"}
    assert found[0].value == pytest.approx(0.015)


# ---- doubles


def test_the_surer_of_two_of_a_class_stays():
    # By hand: 90 x 100 shared of 110 x 100.
    notes = regions(region(0, 0, 100, 100, score=0.6), region(10, 0, 110, 100, score=0.8), region(150, 0, 190, 90))
    (verdict,) = drop_doubles(notes, NmsSettings())
    assert (verdict.note_id, verdict.rule) == ("a/region0", "nms")
    assert verdict.value == pytest.approx(90 / 110)
    assert "a/region1" in verdict.reason


def test_classes_are_suppressed_apart_until_they_coincide():
    # 80 of 120 shared is 0.67; 96 of 104 is 0.92.
    apart = regions(region(0, 0, 100, 100, "cat"), region(20, 0, 120, 100, "dog", 0.5))
    assert drop_doubles(apart, NmsSettings()) == []
    assert len(drop_doubles(apart, NmsSettings(any_class=0.6))) == 1
    same = regions(region(0, 0, 100, 100, "cat"), region(4, 0, 104, 100, "dog", 0.5))
    assert dropped(drop_doubles(same, NmsSettings())) == {"a/region1": "nms"}
    assert drop_doubles(same, NmsSettings(any_class=1.0)) == []


def test_what_people_said_outranks_any_score_and_crowds_are_left_alone():
    notes = regions(region(0, 0, 90, 90, score=1.0), region(0, 0, 90, 90, score=None))
    assert dropped(drop_doubles(notes, NmsSettings())) == {"a/region0": "nms"}
    crowd = regions(region(0, 0, 90, 90), region(0, 0, 90, 90, crowd=True))
    assert drop_doubles(crowd, NmsSettings()) == []


def test_what_is_suppressed_suppresses_nothing():
    # Each shares 0.67 with the next, the first and the third 0.43: only the middle one goes.
    notes = regions(*(region(x, 0, x + 100, 50, score=s) for x, s in ((0, 0.9), (20, 0.8), (40, 0.7))))
    assert dropped(drop_doubles(notes, NmsSettings())) == {"a/region1": "nms"}


def triangle(*points: tuple[float, float], score: float = 0.9) -> RegionNote:
    xs, ys = zip(*points, strict=True)
    ring = tuple(Point(*point) for point in points)
    return RegionNote(box=Box(min(xs), min(ys), max(xs), max(ys)), polygons=(ring,), label="cat", score=score)


def test_outlines_tell_apart_what_boxes_do_not():
    # The two halves of a square have one box and share nothing; half and three quarters share 2/3.
    lower = triangle((0, 0), (80, 80), (0, 80))
    upper = triangle((0, 0), (80, 0), (80, 80), score=0.5)
    assert drop_doubles(regions(lower, upper), NmsSettings()) == []
    more = triangle((0, 0), (40, 0), (80, 80), (0, 80), score=0.5)
    (verdict,) = drop_doubles(regions(lower, more), NmsSettings())
    assert verdict.value == pytest.approx(2 / 3, abs=0.02)  # on a raster


def test_two_readings_of_one_place_are_one_and_a_sign_keeps_its_word():
    def word(text: str, score: float) -> RegionNote:
        quad = (Point(0, 0), Point(60, 0), Point(60, 20), Point(0, 20))
        return RegionNote(quad=quad, word=text, score=score)

    notes = regions(word("STOP", 0.9), word("ST0P", 0.7), region(0, 0, 60, 20, "sign", 0.5))
    assert dropped(drop_doubles(notes, NmsSettings())) == {"a/region1": "nms"}


# ---- words


@pytest.mark.parametrize("phrase", ["it", "They", "the image", "a group", "the background", "a plain gray background",
                                    "the atmosphere of the scene", "left", "Lots"])  # fmt: skip
def test_phrases_that_name_nothing_are_dropped(phrase):
    assert blacklisted(phrase, BlacklistSettings())


@pytest.mark.parametrize(
    "phrase", ["a cat", "a red top", "a group of people", "a picture frame", "the left hand", "oneself-made"]
)
def test_phrases_that_name_something_stay(phrase):
    assert blacklisted(phrase, BlacklistSettings()) == ""


def test_the_blacklist_holds_the_published_72():
    # The published parser's list: pronouns, and "the image" among its last line.
    assert {"it", "each other", "the image", "other objects"} <= BlacklistSettings().phrases
    assert len(BlacklistSettings().phrases) > 72


def test_printed_words_are_not_judged_as_phrases():
    one = RegionNote(box=Box(0, 0, 50, 20), word="ONE")
    assert drop_blacklisted(regions(one, region(0, 0, 9, 9, "one")), BlacklistSettings())[0].note_id == "a/region1"


# ---- texts


def test_texts_that_name_too_much_or_too_little_are_dropped():
    settings = TextSettings(most_objects={"brief": 3}, action_complexity=2, parser=RULE_PARSER)
    texts = (
        "a cat is chasing a bird",
        "a cat, a dog, a bird and a fish",  # four objects
        "very nice",  # none
        "snow",  # hangs together with nothing
        "a red cat and a blue dog",  # no action
    )
    notes = pool({"a": Notes(texts=tuple(TextNote(text=text) for text in texts))})
    found = drop_poor_texts(notes, settings)
    assert [(v.note_id, v.reason) for v in found] == [
        ("a/text1", "4 objects; a brief text has at most 3"),
        ("a/text2", "objects 0; at least 1"),
        ("a/text3", "object complexity 0; at least 1"),
        ("a/text4", "action complexity 0; at least 2"),
    ]


def test_of_texts_that_say_the_same_the_surest_stays():
    said = [("A cat.", 0.5, "brief"), ("a cat", 0.8, "brief"), ("a cat", 0.1, "detailed"), ("a dog", None, "brief")]
    asked = QuestionNote(question="What is it?", answers=("a cat",))
    notes = Notes(
        texts=tuple(TextNote(text=text, score=score, level=level) for text, score, level in said),  # type: ignore[arg-type]
        questions=(asked, replace(asked, question="what is it"), replace(asked, answers=("a dog",))),
    )
    assert dropped(drop_repeated(pool({"a": notes}))) == {"a/text0": "same text", "a/question1": "same text"}


def test_what_says_nothing_is_dropped():
    good = PhraseNote(phrase="a cat", boxes=(Box(0, 0, 9, 9),))
    notes = Notes(
        texts=(TextNote(text=" ... "), TextNote(text="猫")),
        regions=(RegionNote(label="cat"), region(5, 5, 5, 9), region(0, 0, float("nan"), 9), region(0, 0, 9, 9)),
        groundings=(GroundingNote(text="a cat", phrases=(good, replace(good, boxes=()), replace(good, phrase="!"))),),
        questions=(QuestionNote(question="What?", answers=("",)),),
    )
    found = dropped(drop_empty(pool({"a": notes})))
    lost = ["text0", "region0", "region1", "region2", "grounding0.phrase1", "grounding0.phrase2", "question0"]
    assert found == {f"a/{name}": "empty" for name in lost}


# ---- all rules


def a_bundle() -> dict[str, Notes]:
    phrase = PhraseNote(phrase="a cat", boxes=(Box(10, 10, 60, 60),), score=0.9)
    return {
        "detect": Notes(
            regions=(
                region(10, 10, 60, 60, "cat", 0.9),
                region(12, 10, 62, 60, "cat", 0.2),  # unsure, and a double
                region(11, 10, 61, 60, "cat", 0.8),  # a double
                region(100, 10, 150, 60, "dog", 0.8),
            )
        ),
        "ground": Notes(
            texts=(TextNote(text="a cat and it"),),
            groundings=(
                GroundingNote(
                    text="a cat and it",
                    phrases=(
                        phrase,
                        replace(phrase, phrase="it"),
                        replace(phrase, boxes=(Box(120, 70, 160, 95),)),  # where nothing is
                    ),
                ),
            ),
        ),
    }


def test_rules_run_in_order_and_each_note_gets_one_verdict():
    verdicts = judge(a_bundle(), SIZE)
    assert [(verdict.note_id, verdict.rule) for verdict in verdicts] == [
        ("detect/region1", "score"),
        ("ground/grounding0.phrase1", "blacklist"),
        ("detect/region2", "nms"),
        ("ground/grounding0.phrase2", "unsupported"),
    ]
    order = [RULES.index(verdict.rule) for verdict in verdicts]
    assert order == sorted(order)
    assert judge(a_bundle(), SIZE) == verdicts


def test_other_thresholds_bring_notes_back_and_notes_stay_as_they_are():
    layers = a_bundle()
    strict = kept(layers["detect"], judge(layers, SIZE), "detect")
    assert len(strict.regions) == 2
    mild = JudgeSettings(scores=ScoreSettings(objects=0.1), nms=None)
    assert kept(layers["detect"], judge(layers, SIZE, mild), "detect") == layers["detect"]
    assert layers == a_bundle()


def test_every_rule_can_be_turned_off_but_emptiness():
    off = JudgeSettings(scores=None, sizes=None, blacklist=None, nms=None, texts=None, repeated=False, agree=None)
    layers = a_bundle() | {"caption": Notes(texts=(TextNote(text=""),))}
    assert dropped(judge(layers, SIZE, off)) == {"caption/text0": "empty"}


def test_what_a_network_measured_counts_before_doubles():
    # The surer double is not what the picture shows, so the other one stays.
    verdicts = judge({"detect": a_bundle()["detect"]}, SIZE, measured={"detect/region0": -2.0, "detect/region2": 1.0})
    assert dropped(verdicts) == {"detect/region1": "score", "detect/region0": "unlike"}


def test_what_nobody_was_sure_of_still_supports_a_phrase():
    # The unsure detector and the grounder saw the same: the region goes, the phrase stays.
    layers = {
        "detect": Notes(regions=(region(10, 10, 60, 60, "cat", 0.2), region(100, 10, 150, 60, "dog", 0.8))),
        "ground": Notes(
            groundings=(
                GroundingNote(text="a cat here", phrases=(PhraseNote(phrase="a cat", boxes=(Box(10, 10, 60, 60),)),)),
            )
        ),
    }
    assert dropped(judge(layers, SIZE)) == {"detect/region0": "score"}
