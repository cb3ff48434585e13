"""What an updated model says, merged with what is there: every rule by hand, and that nothing is counted twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflorence.contract.records import (
    GroundingNote,
    Origin,
    PairNote,
    PhraseNote,
    QuestionNote,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.notes import LayerRow, Measure, Notes, Verdict, note_ids, numbered
from openflorence.data.store_rounds import combine
from openflorence.engine.fuse import members
from openflorence.engine.reconcile import (
    ReconcileSettings,
    Said,
    Update,
    agreed,
    as_said,
    carry,
    doubted,
    is_own,
    reconcile,
    said_by,
)
from openflorence.errors import BadConfig

PLACE, BESIDE, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (50, 50, 60, 60)  # the first two overlap by 80 of 100: 0.8
SETTINGS = ReconcileSettings(
    least=0.55, conflict=0.75, trust=0.5, doubt=0.5, silence=0.7, fill=0.5, unscored=0.4, synonyms={"auto": "car"}
)


def seen(label: str, box=PLACE, score: float | None = 0.6, source: str = "detr", **more) -> RegionNote:
    return RegionNote(label=label, box=Box(*box), score=score, origin=Origin(source=source), **more)


def now(label: str, box=PLACE, score: float | None = 0.5) -> RegionNote:
    return replace(seen(label, box, score), origin=Origin(source="florence", model="m2", round=1))


def past(label: str, box=PLACE, score: float | None = 0.5) -> RegionNote:
    return replace(seen(label, box, score), origin=Origin(source="florence", model="m1"))


def fused(label: str, box=PLACE, score: float | None = 0.6, by: str = "detr+florence") -> RegionNote:
    return replace(seen(label, box, score), origin=Origin(source="fused", model=by))


def said(layer: str, notes: Notes) -> Said:
    return Said(dict(numbered(layer, notes)), notes.whole)


def merged(before, after, whole=(), labels=None) -> tuple[Notes, tuple[Verdict, ...]]:
    """Regions or notes of both sides, merged; `whole`: what the update lists completely."""
    return measured(before, after, whole, labels)[:2]


def measured(before, after, whole=(), labels=None):
    """The same, with what was measured."""
    sides = [side if isinstance(side, Notes) else Notes(regions=tuple(side)) for side in (before, after)]
    new = replace(said("florence_1", sides[1]), whole=frozenset(whole))
    update = Update(said=new, source="florence", name="florence_1", labels=labels)
    return reconcile(said("fuse", sides[0]), update, "refine_1", SETTINGS)


def dropped(verdicts) -> dict[str, str]:
    """Note -> rule, but for what is part of a note of the result."""
    return {one.note_id: one.rule for one in verdicts if one.rule != "fused"}


# ---- one place, one meaning


def test_two_that_agree_are_one_surer_region():
    # By hand: box, weights 0.6 and 0.5: y1 = (0.6 * 10 + 0.5 * 8) / 1.1; score 1 - (1 - 0.6) (1 - 0.5 * 0.5) = 0.7.
    notes, verdicts = merged([seen("car")], [now("Auto", BESIDE)])
    (region,) = notes.regions
    assert region.box == pytest.approx((0, 0, 10, 10 / 1.1))
    assert region.score == pytest.approx(0.7)
    assert region.label == "car"
    assert region.origin == Origin(source="fused", model="detr+florence", round=1)
    assert members(verdicts) == {"refine_1/region0": ("fuse/region0", "florence_1/region0")}
    # Overlaps with the new box, which is 100 / 11 high: of 10, and with 8 of it.
    assert [one.value for one in verdicts] == pytest.approx([10 / 11, 0.88])


def test_origins_of_a_fused_region_stay_apart_when_it_is_fused_again():
    notes, _ = merged([fused("car", by="detr+owl")], [now("car")])
    assert notes.regions[0].origin == Origin(source="fused", model="detr+florence+owl", round=1)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_agreement_raises_and_never_above_one(one: float, other: float, more: float, trust: float):
    score = agreed(one, other, trust)
    assert max(one, other) <= score + 1e-12
    assert score <= 1
    assert score == agreed(other, one, trust)
    assert agreed(max(one, more), other, trust) >= score - 1e-12


def test_one_region_agrees_with_one_the_largest_overlap_first():
    notes, verdicts = merged([seen("car", BESIDE), seen("car")], [now("car")])
    assert members(verdicts)["refine_1/region0"] == ("fuse/region1", "florence_1/region0")
    assert len(notes.regions) == 2


def test_an_update_without_a_score_counts_as_stated():
    # By hand: 1 - (1 - 0.6) (1 - 0.5 * 0.4) = 0.68.
    assert merged([seen("car")], [now("car", score=None)])[0].regions[0].score == pytest.approx(0.68)


def test_words_that_read_the_same_agree_and_others_contradict():
    quad = (Point(0, 0), Point(40, 0), Point(40, 10), Point(0, 10))
    read = RegionNote(word="STOP", quad=quad, score=0.6, origin=Origin(source="rapidocr"))
    same = replace(read, word="stop", score=0.5, origin=Origin(source="florence"))
    notes, _ = merged([read], [same])
    assert [(one.word, one.score) for one in notes.regions] == [("STOP", pytest.approx(0.7))]
    other = replace(same, word="SHOP", score=0.9)
    notes, verdicts = merged([read], [other])
    assert [(one.word, one.score) for one in notes.regions] == [("SHOP", pytest.approx(0.9 * (1 - 0.5 * 0.6)))]
    assert dropped(verdicts) == {"fuse/region0": "contradiction"}


# ---- contradictions


@pytest.mark.parametrize(
    ("there", "new", "stays", "score", "loser"),
    [
        # By hand: 0.8 (1 - 0.5 * 0.5) = 0.6; 0.9 (1 - 0.5 * 0.6) = 0.63; 0.5 (1 - 0.5 * 0.5) = 0.375.
        (0.8, 0.5, "dog", 0.6, "florence_1/region0"),
        (0.6, 0.9, "cat", 0.63, "fuse/region0"),
        (0.5, 0.5, "dog", 0.375, "florence_1/region0"),
    ],
    ids=["what is there is surer", "the update is surer", "equally sure"],
)
def test_of_two_that_contradict_the_surer_stays_with_less(there, new, stays, score, loser):
    notes, verdicts, measures = measured([seen("dog", score=there)], [now("cat", BESIDE, new)])
    (region,) = notes.regions
    assert (region.label, region.score) == (stays, pytest.approx(score))
    assert dropped(verdicts) == {loser: "contradiction"}
    (verdict,) = [one for one in verdicts if one.rule == "contradiction"]
    assert f"'dog' {there:.2f}" in verdict.reason
    assert f"'cat' {new:.2f}" in verdict.reason
    assert "overlap 0.80" in verdict.reason
    assert verdict.value == min(there, new)
    assert measures == (Measure("refine_1/region0", "contradicted", max(there, new)),)


def test_labels_of_places_that_fit_loosely_are_two_things():
    notes, verdicts = merged([seen("rider")], [now("horse", (0, 0, 10, 7))])  # 0.7
    assert [one.label for one in notes.regions] == ["rider", "horse"]
    assert not dropped(verdicts)


def test_who_agrees_does_not_contradict_a_third():
    notes, verdicts = merged([seen("person"), seen("coat")], [now("coat")])
    assert [one.label for one in notes.regions] == ["coat", "person"]
    assert not dropped(verdicts)


def test_two_descriptions_of_one_place_contradict_nothing():
    describe = {"label": "", "score": 0.9}
    notes, _ = merged([seen("", description="a red car")], [replace(now(""), description="an old car", **describe)])
    assert {one.description for one in notes.regions} == {"a red car", "an old car"}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_contradiction_lowers_and_the_surer_the_loser_the_more(surer: float, other: float, more: float):
    assert 0 <= doubted(surer, max(other, more), 0.5) <= doubted(surer, other, 0.5) <= surer


# ---- gaps, and silence


def test_a_gap_is_filled_from_a_stated_score_on():
    notes, verdicts = merged([seen("car")], [now("dog", FAR, 0.5), now("cat", FAR, 0.49)])
    assert [(one.label, one.score) for one in notes.regions] == [("car", 0.6), ("dog", 0.5)]
    assert dropped(verdicts) == {"florence_1/region1": "unsure"}
    assert "0.49 is below 0.50" in verdicts[-1].reason


def test_what_a_complete_list_lacks_is_less_sure():
    # By hand: 0.7 * 0.6 = 0.42.
    notes, verdicts, measures = measured([seen("car")], [], whole=("objects",))
    assert notes.regions[0].score == pytest.approx(0.42)
    assert not dropped(verdicts)
    assert measures == (Measure("refine_1/region0", "unconfirmed", 0.6),)


@pytest.mark.parametrize(
    ("note", "whole", "labels"),
    [
        (seen("car"), (), None),
        (seen("car"), ("words",), None),
        (seen("car"), ("objects",), ("dog",)),
        (seen("", description="a car"), ("objects", "words"), None),
        (replace(seen("car"), crowd=True), ("objects",), None),
        (replace(seen("car"), box=None), ("objects",), None),
    ],
    ids=["cut list", "list of words", "other labels", "description", "crowd", "nowhere"],
)
def test_silence_says_nothing_about_what_is_not_listed(note, whole, labels):
    notes, verdicts, measures = measured([note], [], whole, labels)
    assert notes.regions == (note,)
    assert [one.rule for one in verdicts] == ["fused"]
    assert measures == ()


def test_labels_that_mean_the_same_are_known_to_an_update():
    assert merged([seen("car")], [], ("objects",), ("Auto",))[0].regions[0].score == pytest.approx(0.42)


# ---- people


CERTAIN = [seen("dog", score=None, source="coco"), seen("dog", score=0.2, source="people"), fused("dog", score=None)]


@pytest.mark.parametrize("note", CERTAIN, ids=["no score", "people", "fused with people"])
def test_what_people_said_is_never_changed(note: RegionNote):
    same, _ = merged([note], [now("dog", BESIDE, 0.9)], ("objects",))
    assert same.regions == (note,)
    silent, _ = merged([note], [], ("objects",))
    assert silent.regions == (note,)
    other, verdicts = merged([note], [now("cat", PLACE, 0.99)], ("objects",))
    assert other.regions == (note,)
    assert dropped(verdicts) == {"florence_1/region0": "contradiction"}


# ---- its own past


def test_a_model_does_not_agree_with_its_own_past():
    notes, verdicts = merged([past("dog", score=0.9)], [now("dog", BESIDE, 0.4)])
    assert notes.regions == (now("dog", BESIDE, 0.4),)  # as it is said now; below `fill`, but no new gap
    assert dropped(verdicts) == {"fuse/region0": "replaced"}


def test_what_a_model_now_says_otherwise_is_replaced():
    notes, verdicts = merged([past("dog", score=0.9)], [now("cat", BESIDE, 0.4)])
    assert [one.label for one in notes.regions] == ["cat"]
    assert dropped(verdicts) == {"fuse/region0": "replaced"}


def test_what_a_model_no_longer_says_stays_with_less():
    notes, _ = merged([past("dog", score=0.9)], [], ("objects",))
    assert [(one.label, one.score) for one in notes.regions] == [("dog", pytest.approx(0.63))]


def test_what_it_was_agreed_with_before_is_not_raised_again():
    notes, verdicts = merged([fused("dog")], [now("dog", BESIDE, 0.9)])
    assert notes.regions == (fused("dog"),)
    assert members(verdicts) == {"refine_1/region0": ("fuse/region0", "florence_1/region0")}


def test_what_it_no_longer_says_contradicts_nobody():
    # By hand: neither is confirmed: 0.7 * 0.9 = 0.63, 0.7 * 0.8 = 0.56.
    notes, verdicts = merged([seen("dog", score=0.9), past("cat", score=0.8)], [], ("objects",))
    assert [(one.label, one.score) for one in notes.regions] == [
        ("dog", pytest.approx(0.63)),
        ("cat", pytest.approx(0.56)),
    ]
    assert not dropped(verdicts)


# ---- texts, groundings, questions, pairs


def text(words: str, level="brief", source: str = "florence") -> TextNote:
    return TextNote(text=words, level=level, origin=Origin(source=source))


def ground(words: str, source: str = "florence", level="brief") -> GroundingNote:
    phrases = (PhraseNote(phrase="car", boxes=(Box(*PLACE),)),)
    return GroundingNote(text=words, phrases=phrases, level=level, origin=Origin(source=source))


def test_of_each_level_there_is_one_text_of_a_source():
    before = Notes(texts=(text("old"), text("old, long", "detailed"), text("theirs", source="people")))
    notes, verdicts = merged(before, Notes(texts=(text("new"),)))
    assert [one.text for one in notes.texts] == ["old, long", "theirs", "new"]
    assert dropped(verdicts) == {"fuse/text0": "replaced"}


def test_a_grounding_goes_with_its_text():
    before = Notes(
        texts=(text("a car"), text("a car on a road", "detailed")),
        groundings=(
            ground("a car"),
            ground("a car", source="other"),
            ground("a car on a road", level="detailed"),
        ),
    )
    again, verdicts = merged(before, Notes(texts=(text("a car"),), groundings=(ground("a car"),)))
    assert [(one.text, one.origin.source) for one in again.groundings] == [
        ("a car", "other"),
        ("a car on a road", "florence"),
    ]
    assert dropped(verdicts) == {"fuse/text0": "replaced", "fuse/grounding0": "replaced"}
    # What another tied to places is not tied once more.
    assert members(verdicts)["refine_1/grounding0"] == ("fuse/grounding1", "florence_1/grounding0")
    other, verdicts = merged(before, Notes(texts=(text("a bus"),)))
    assert [(one.text, one.origin.source) for one in other.groundings] == [
        ("a car", "other"),
        ("a car on a road", "florence"),
    ]
    assert "its text is no longer" in next(one.reason for one in verdicts if one.note_id == "fuse/grounding0")


@pytest.mark.parametrize(
    ("score", "source", "phrases", "by"),
    [
        (0.8, "other", ["car", "road"], Origin(source="fused", model="florence+other")),
        (None, "other", ["car"], Origin(source="other")),
        (0.8, "people", ["car"], Origin(source="people")),
    ],
    ids=["a model", "certain", "people"],
)
def test_phrases_that_others_did_not_tie_are_added_to_theirs(score, source, phrases, by):
    there = ground("a car on a road", source)
    there = replace(there, phrases=(replace(there.phrases[0], span=(2, 5), score=score),))
    road = PhraseNote(phrase="road", boxes=(Box(*FAR),), span=(11, 15), score=0.5)
    elsewhere = PhraseNote(phrase="car", boxes=(Box(*FAR),), span=(2, 5), score=0.9)
    new = replace(ground("a car on a road"), phrases=(road, elsewhere))
    (note,) = merged(Notes(groundings=(there,)), Notes(groundings=(new,)))[0].groundings
    assert [one.phrase for one in note.phrases] == phrases
    assert note.phrases[0] == there.phrases[0]
    assert note.origin == by


def test_questions_and_pairs_are_answered_anew():
    who, them = Origin(source="florence"), Origin(source="people")
    before = Notes(
        questions=(
            QuestionNote(question="how many?", answers=("2",), origin=who),
            QuestionNote(question="how many?", answers=("3",), origin=them),
        ),
        pairs=(PairNote(prefix="name", suffix="a", origin=who), PairNote(prefix="size", suffix="b", origin=who)),
    )
    after = Notes(
        questions=(QuestionNote(question="how many?", answers=("4",), origin=who),),
        pairs=(PairNote(prefix="name", suffix="c", origin=who),),
    )
    notes, _ = merged(before, after)
    assert [one.answers for one in notes.questions] == [("3",), ("4",)]
    assert [one.suffix for one in notes.pairs] == ["b", "c"]


# ---- as a whole


BOXES = [PLACE, BESIDE, (0, 0, 10, 6), (2, 0, 12, 10), FAR]
REGIONS = st.builds(
    lambda label, box, score: seen(label, box, score),
    st.sampled_from(["car", "dog"]),
    st.sampled_from(BOXES),
    st.sampled_from([0.2, 0.4, 0.6, 0.8, None]),
)
SOURCES = st.sampled_from([Origin(source="detr"), Origin(source="people"), Origin(source="florence")])
TEXTS = st.builds(
    lambda words, level: text(words, level), st.sampled_from("ab"), st.sampled_from(["brief", "detailed"])
)
BEFORE = st.lists(st.builds(lambda note, origin: replace(note, origin=origin), REGIONS, SOURCES), max_size=5)
AFTER = st.lists(st.builds(lambda note: replace(note, origin=now("").origin), REGIONS), max_size=4)
WHOLE = st.sampled_from([(), ("objects",)])


@given(BEFORE, AFTER, st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=2), WHOLE)
def test_every_note_has_a_verdict_and_every_note_of_the_result_a_member(before, after, texts, new, whole):
    sides = Notes(texts=tuple(texts), regions=tuple(before)), Notes(texts=tuple(new), regions=tuple(after))
    notes, verdicts = merged(*sides, whole)
    every = {*note_ids("fuse", sides[0]), *note_ids("florence_1", sides[1])}
    lost = dropped(verdicts)
    inside = [name for ids in members(verdicts).values() for name in ids]
    assert sorted([*lost, *inside]) == sorted(every)
    assert members(verdicts).keys() == set(note_ids("refine_1", notes))
    assert all(one.score is None or 0 <= one.score <= 1 for one in notes.regions)
    # What nobody may change is there as it was.
    certain = [one for one in before if one.origin.source != "florence" and (one.score is None or "people" in str(one))]
    assert all(notes.regions.count(one) >= certain.count(one) for one in certain)


@given(BEFORE, AFTER, st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=2), WHOLE)
def test_a_model_that_says_the_same_again_changes_nothing(before, after, texts, new, whole):
    base = Notes(texts=tuple(texts), regions=tuple(before))
    new = tuple({one.level: one for one in new}.values())  # of each level one, as the network has it
    update = Notes(texts=new, regions=tuple(after), whole=frozenset(whole))
    first, _, measures = measured(base, update, whole)
    others = {name: note for name, note in numbered("fuse", base) if not is_own(note.origin, "florence")}
    for _ in range(2):
        own = as_said(said("refine_1", first), measures).notes
        there = Said(others | {name: note for name, note in own.items() if is_own(note.origin, "florence")}, base.whole)
        told = Update(said=said("florence_1", update), source="florence", name="florence_1")
        second, _, measures = reconcile(there, told, "refine_1", SETTINGS)
        assert _bag(second) == _bag(first)
        first = second


def _bag(notes: Notes) -> list[str]:
    return sorted(repr(note) for _, note in numbered("", notes))


def test_what_the_update_could_not_look_at_stays_as_it_is():
    there = said("refine_1", Notes(regions=(past("dog", score=0.4),)))
    notes, verdicts, measures = carry(there, [Measure("refine_1/region0", "unconfirmed", 0.9)], "refine_2")
    assert [one.score for one in notes.regions] == [0.4]
    assert members(verdicts) == {"refine_2/region0": ("refine_1/region0",)}
    # So the score as it was said is still known in the round after.
    again = as_said(said("refine_2", notes), measures)
    assert [one.score for one in again.notes.values()] == [0.9]


def test_said_is_what_a_round_says_with_ids():
    notes = Notes(
        texts=(text("a"), text("b")),
        regions=(seen("car"), seen("dog")),
        groundings=(ground("a"), ground("b")),
        whole=frozenset(("objects",)),
    )
    drops = tuple(
        Verdict(name, "test", "by hand")
        for name in ("fuse/text0", "fuse/region1", "fuse/grounding0.phrase0", "x/text1")
    )
    layers = {"fuse": LayerRow("i", notes=notes), "filter": LayerRow("i", verdicts=drops)}
    found = said_by(layers, ["fuse"])
    assert list(found.notes) == ["fuse/text1", "fuse/region0", "fuse/grounding1"]
    combined = combine(layers, ["fuse"])
    assert combined is not None
    assert list(found.notes.values()) == [*combined.texts, *combined.regions, *combined.groundings]
    assert found.whole == combined.whole


@pytest.mark.parametrize(
    "wrong",
    [{"trust": 1.1}, {"fill": -0.1}, {"least": 0.0}, {"conflict": 0.5}],
    ids=["trust", "fill", "least", "conflict"],
)
def test_settings_that_cannot_be_are_told(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        ReconcileSettings(**wrong)
