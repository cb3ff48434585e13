"""Several specialists on one image: what is one place, what the score says, and that no order matters."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import GroundingNote, Origin, PhraseNote, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point, Quad
from openflorence.data.notes import Notes, kept, note_ids
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.engine.fuse import fuse, members
from openflorence.engine.votes import FuseRule, Voter, place_kind
from openflorence.errors import BadConfig

OBJECTS = ("object",)
TWO = FuseRule((Voter("a", OBJECTS), Voter("b", OBJECTS)))


def seen(label: str, box: tuple[float, float, float, float], score: float | None = 0.8, source: str = "") -> RegionNote:
    return RegionNote(label=label, box=Box(*box), score=score, origin=Origin(source=source))


def regions(*notes: RegionNote) -> Notes:
    return Notes(regions=notes)


def square(x: float, y: float, side: float) -> tuple[Point, ...]:
    return Point(x, y), Point(x + side, y), Point(x + side, y + side), Point(x, y + side)


def test_two_boxes_of_one_thing_become_their_weighted_mean():
    # By hand: weights 0.9 and 0.3 give x0 = (0.9 * 0 + 0.3 * 4) / 1.2 = 1, x1 = (0.9 * 10 + 0.3 * 14) / 1.2 = 11.
    a, b = seen("dog", (0, 0, 10, 10), 0.9, "detr"), seen("dog", (4, 0, 14, 10), 0.3, "owl")
    rule = FuseRule(TWO.voters, least=0.4)  # 6 of 14 columns are shared: 0.43
    notes, _ = fuse({"a": regions(a), "b": regions(b)}, rule)
    (note,) = notes.regions
    assert note.box == pytest.approx((1, 0, 11, 10))
    assert note.score == pytest.approx((0.9 + 0.3) / 2)
    assert note.origin == Origin(source="fused", model="detr+owl")


def test_what_overlaps_less_than_least_stays_apart():
    a, b = seen("dog", (0, 0, 10, 10)), seen("dog", (4, 0, 14, 10))  # 0.43, by hand above
    assert len(fuse({"a": regions(a), "b": regions(b)}, TWO)[0].regions) == 2


def test_one_voice_of_three_has_a_third_of_its_score():
    rule = FuseRule(tuple(Voter(name, OBJECTS) for name in "abc"))
    notes, _ = fuse({"a": regions(seen("dog", (0, 0, 9, 9), 0.9)), "b": Notes(), "c": Notes()}, rule)
    assert notes.regions[0].score == pytest.approx(0.3)
    # A layer that failed on the image is left out: it did not look, so its silence says nothing.
    notes, _ = fuse({"a": regions(seen("dog", (0, 0, 9, 9), 0.9)), "b": Notes()}, rule)
    assert notes.regions[0].score == pytest.approx(0.45)


def test_silence_of_who_cannot_say_it_does_not_count():
    rule = FuseRule((Voter("a", OBJECTS), Voter("reader", ("word",)), Voter("c", OBJECTS, labels=("cat", "Auto"))))
    told = {"a": regions(seen("dog", (0, 0, 9, 9), 0.9)), "reader": Notes(), "c": Notes()}
    assert fuse(told, rule)[0].regions[0].score == pytest.approx(0.9)
    told["a"] = regions(seen("car", (0, 0, 9, 9), 0.9))
    rule = FuseRule(rule.voters, synonyms={"auto": "car"})
    assert fuse(told, rule)[0].regions[0].score == pytest.approx(0.45)


def test_a_layer_does_not_vote_for_itself():
    a = regions(seen("dog", (0, 0, 10, 10), 0.8), seen("dog", (0, 0, 10, 10), 0.6))
    notes, _ = fuse({"a": a, "b": regions(seen("dog", (0, 0, 10, 10), 0.5))}, TWO)
    assert [note.score for note in notes.regions] == pytest.approx([(0.8 + 0.5) / 2, 0.6 / 2])


def test_labels_are_compared_by_synonyms_and_without_case():
    rule = FuseRule(TWO.voters, synonyms={"Automobile": "car"})
    a, b = regions(seen("automobile", (0, 0, 9, 9))), regions(seen("Car", (0, 0, 9, 9)), seen("cat", (0, 0, 9, 9)))
    notes, _ = fuse({"a": a, "b": b}, rule)
    assert sorted(note.label.lower() for note in notes.regions) == ["car", "cat"]
    alone, _ = fuse({"a": a}, rule)
    assert alone.regions[0].label == "car"


def test_a_certain_voice_stays_certain():
    notes, _ = fuse({"a": regions(seen("dog", (0, 0, 9, 9), None)), "b": regions(seen("dog", (0, 0, 9, 9), 0.4))}, TWO)
    assert notes.regions[0].score is None
    rule = FuseRule((Voter("a", OBJECTS, unscored=0.6), Voter("b", OBJECTS)))
    notes, _ = fuse({"a": regions(seen("dog", (0, 0, 9, 9), None)), "b": regions(seen("dog", (0, 0, 9, 9), 0.4))}, rule)
    assert notes.regions[0].score == pytest.approx(0.5)


def test_outlines_are_what_most_of_the_weight_covers():
    a, b, c = (
        RegionNote(label="dog", polygons=(square(x, 0, 20),), score=0.5, origin=Origin(source=name))
        for x, name in ((0, "a"), (2, "b"), (4, "c"))
    )
    rule = FuseRule(tuple(Voter(name, OBJECTS) for name in "abc"))
    notes, _ = fuse({"a": regions(a), "b": regions(b), "c": regions(c)}, rule)
    (note,) = notes.regions
    # By hand: columns 2 to 22 are covered by at least two of three. Outlines are traced to a quarter of a pixel.
    assert note.bounds == pytest.approx((2, 0, 22, 20), abs=0.25)


def test_two_outlines_of_equal_weight_are_united():
    a, b = (RegionNote(label="dog", polygons=(square(x, 0, 20),), score=0.7) for x in (0, 2))
    (note,) = fuse({"a": regions(a), "b": regions(b)}, TWO)[0].regions
    # By hand: each is half of the weight, so all that one of them covers is in: columns 0 to 22.
    assert note.bounds == pytest.approx((0, 0, 22, 20), abs=0.25)


def line(word: str, x: float, score: float, up: bool = True) -> RegionNote:
    corners = [Point(x, 0), Point(x + 40, 0), Point(x + 40, 10), Point(x, 10)]
    a, b, c, d = corners if up else corners[2:] + corners[:2]
    quad: Quad = (a, b, c, d)
    return RegionNote(word=word, quad=quad, score=score)


def test_lines_of_text_are_put_to_the_vote():
    rule = FuseRule(tuple(Voter(name, ("word",)) for name in "abc"))
    told = {
        "a": regions(line("HELL0", 0, 0.9)),
        "b": regions(line("HELLO", 1, 0.8)),
        "c": regions(line("hello", 2, 0.7)),
    }
    notes, verdicts = fuse(told, rule)
    (note,) = notes.regions
    assert note.word == "HELLO"  # 1.5 of weight against 0.9; the surest spelling of those
    assert note.score == pytest.approx((0.8 + 0.7) / 3)
    assert note.quad is not None
    assert note.quad[0].x == pytest.approx((0.8 * 1 + 0.7 * 2) / 2.4)  # place is a mean of all three
    assert len(members(verdicts)["fuse/region0"]) == 3


def test_text_that_is_read_upside_down_is_another_line():
    rule = FuseRule(tuple(Voter(name, ("word",)) for name in "ab"))
    notes, _ = fuse({"a": regions(line("NO", 0, 0.9)), "b": regions(line("ON", 0, 0.9, up=False))}, rule)
    assert len(notes.regions) == 2


def test_texts_stay_side_by_side_and_groundings_of_one_text_are_united():
    def grounded(*phrases: PhraseNote) -> Notes:
        return Notes(
            texts=(TextNote(text="A dog."),), groundings=(GroundingNote(text="a dog on a mat", phrases=phrases),)
        )

    dog, mat = Box(0, 0, 10, 10), Box(0, 8, 30, 20)
    a = grounded(PhraseNote(phrase="a dog", boxes=(dog,), span=(0, 5), score=0.8))
    b = grounded(
        PhraseNote(phrase="a mat", boxes=(mat,), span=(9, 14), score=0.6),
        PhraseNote(phrase="a dog", boxes=(Box(2, 0, 12, 10),), span=(0, 5), score=0.8),
    )
    notes, _ = fuse({"a": a, "b": b}, TWO)
    assert [note.text for note in notes.texts] == ["A dog.", "A dog."]
    (note,) = notes.groundings
    assert [(one.phrase, one.score) for one in note.phrases] == [("a dog", 0.8), ("a mat", 0.3)]
    assert note.phrases[0].boxes == (Box(1, 0, 11, 10),)


def test_every_note_is_part_of_exactly_one_fused_note():
    parts = noisy(3)
    notes, verdicts = fuse(parts, DETECTORS)
    told = sorted(name for layer, each in parts.items() for name in note_ids(layer, each))
    assert sorted(name for inside in members(verdicts).values() for name in inside) == told
    assert set(members(verdicts)) == set(note_ids("fuse", notes))
    assert all(kept(each, verdicts, layer).is_empty for layer, each in parts.items())  # nothing is said twice


def test_a_layer_without_a_voter_and_rules_out_of_range_are_refused():
    with pytest.raises(BadConfig, match="layer 'c' has no voter"):
        fuse({"c": Notes()}, TWO)
    with pytest.raises(BadConfig, match="votes twice"):
        FuseRule((TWO.voters[0], TWO.voters[0]))
    with pytest.raises(BadConfig, match="no kind 'boxes'"):
        Voter("a", ("boxes",))  # type: ignore[arg-type]
    with pytest.raises(BadConfig, match="least"):
        FuseRule(TWO.voters, least=0)


def test_what_a_region_is_about():
    box = Box(0, 0, 1, 1)
    assert place_kind(RegionNote(box=box, label="sign", word="STOP")) == "object"
    assert place_kind(RegionNote(box=box, word="STOP")) == "word"
    assert place_kind(RegionNote(box=box, description="a red sign")) == "phrase"
    assert place_kind(RegionNote(box=box)) == "place"


# ---- any order


def some_regions() -> st.SearchStrategy[RegionNote]:
    corner, side = st.integers(0, 4), st.integers(3, 6)
    # Few values, so that equal scores, equal boxes and chains of overlaps are common.
    return st.builds(
        lambda label, x, y, w, h, score, word: RegionNote(
            label=label, word=word, box=Box(x, y, x + w, y + h), score=score, origin=Origin(source=label)
        ),
        st.sampled_from(("dog", "cat", "")),
        corner,
        corner,
        side,
        side,
        st.sampled_from((None, 0.3, 0.5, 0.9)),
        st.sampled_from(("", "UP", "DOWN")),
    )


def said(layer: int) -> Notes:
    """A text and a grounding; the grounding is of the same text in every second layer, its phrase of every score."""
    phrase = PhraseNote(phrase="dog", boxes=(Box(layer, 0, layer + 9, 9),), span=(2, 5), score=0.1 + 0.2 * layer)
    note = GroundingNote(text=f"a dog {layer % 2}", phrases=(phrase,), origin=Origin(source=str(layer)))
    return Notes(texts=(TextNote(text=f"text {layer}"),), groundings=(note,))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(some_regions(), max_size=4), min_size=4, max_size=4), st.permutations(range(4)))
def test_the_order_of_specialists_changes_nothing(lists, order):
    kinds = ("object", "word", "place")
    rule = FuseRule(tuple(Voter(f"l{i}", kinds) for i in range(4)), least=0.3)
    turned = FuseRule(tuple(rule.voters[i] for i in order), least=0.3)
    parts = {f"l{i}": replace(said(i), regions=tuple(each)) for i, each in enumerate(lists)}
    assert fuse(parts, rule) == fuse({f"l{i}": parts[f"l{i}"] for i in order}, turned)


# ---- what it is worth, on scenes whose truth is known

WORLD = WorldConfig(side_px=96, min_objects=3, max_objects=7, sign_share=0)
# Each misses objects, calls some by another name, sees what is not there, and is off by a share of an object's side.
ERRORS = {"a": (0.20, 0.10, 1.0, 0.05), "b": (0.30, 0.05, 0.6, 0.08), "c": (0.15, 0.10, 1.4, 0.06)}
DETECTORS = FuseRule(tuple(Voter(name, OBJECTS) for name in ERRORS))


def noisy(seed: int) -> Mapping[str, Notes]:
    scene = draw_scene(seed, WORLD)
    return {name: _look(scene, name, np.random.default_rng([seed, place])) for place, name in enumerate(ERRORS)}


def _look(scene, name, rng) -> Notes:
    misses, misnames, ghosts, off = ERRORS[name]
    found = []
    for thing in scene.objects:
        if rng.random() < misses:
            continue
        wrong = rng.random() < misnames
        label = str(rng.choice([kind for kind in WORLD.kinds if kind != thing.kind])) if wrong else thing.kind
        x0, y0, x1, y1 = thing.box
        sides = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        box = np.array(thing.box) + off * sides * rng.standard_normal(4)
        found.append((label, box, rng.beta(3, 3) if wrong else rng.beta(5, 2)))
    for _ in range(rng.poisson(ghosts)):
        x, y, w, h = rng.uniform([0, 0, 10, 10], [70, 70, 26, 26])
        found.append((str(rng.choice(WORLD.kinds)), np.array([x, y, x + w, y + h]), rng.beta(2, 4)))
    notes = [seen(label, tuple(box.tolist()), float(score), name) for label, box, score in found]
    return regions(*notes)


def judged(scenes, found) -> list[tuple[float, bool]]:
    """Score and right or not of every region; right: half overlapped with a thing of its label that is not taken."""
    rows = []
    for seed, notes in zip(scenes, found, strict=True):
        things = list(draw_scene(seed, WORLD).objects)
        for note in sorted(notes.regions, key=lambda note: -note.score):
            overlaps = [box_iou([note.box], [t.box])[0, 0] if t.kind == note.label else 0 for t in things]
            hit = bool(overlaps) and max(overlaps) >= 0.5
            rows.append((note.score, hit))
            if hit:
                del things[int(np.argmax(overlaps))]
    return rows


def precision_recall(rows, least, truths) -> tuple[float, float]:
    right = [hit for score, hit in rows if score >= least]
    return sum(right) / max(len(right), 1), sum(right) / truths


def best_f1(rows, truths) -> tuple[float, float, float]:
    """F1, precision and recall at the threshold that is best."""
    points = [precision_recall(rows, least, truths) for least in sorted({score for score, _ in rows})]
    return max((2 * p * r / max(p + r, 1e-9), p, r) for p, r in points)


def test_fusing_raises_precision_and_recall_over_every_single_detector():
    scenes = range(60)
    truths = sum(len(draw_scene(seed, WORLD).objects) for seed in scenes)
    told = [noisy(seed) for seed in scenes]
    alone = {name: best_f1(judged(scenes, [each[name] for each in told]), truths) for name in ERRORS}
    together = best_f1(judged(scenes, [fuse(each, DETECTORS)[0] for each in told]), truths)
    assert all(together[part] > max(one[part] for one in alone.values()) for part in (0, 1, 2)), (alone, together)
