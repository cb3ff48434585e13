"""Kinds of notes held against each other, by hand; words against pixels with the embedded nano on drawn scenes."""

import pytest
from PIL import Image
from tiny import SIDE_PX, tiny_network, world_text

import openflorence
from openflorence.contract.records import GroundingNote, PhraseNote, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes
from openflorence.data.sentences import name
from openflorence.data.world import draw_scene
from openflorence.engine.agree import (
    AgreeSettings,
    Fit,
    candidates,
    choose_texts,
    drop_unlikely,
    drop_unshown,
    drop_unsupported,
    likelihoods,
    named_things,
    score_texts,
)
from openflorence.engine.filters import pool
from openflorence.engine.parse import ParseSettings
from openflorence.errors import BadConfig
from openflorence.model.predict import live_florence

RULE_PARSER = ParseSettings(reader="rules")
CAT, DOG = Box(0, 0, 40, 40), Box(100, 0, 140, 40)


def seen(*labels_boxes: tuple[str, Box]) -> Notes:
    return Notes(regions=tuple(RegionNote(label=label, box=box) for label, box in labels_boxes))


def grounded(*phrases: tuple[str, tuple[Box, ...]]) -> Notes:
    notes = tuple(PhraseNote(phrase=phrase, boxes=boxes) for phrase, boxes in phrases)
    return Notes(groundings=(GroundingNote(text="a text", phrases=notes),))


def unsupported(layers: dict[str, Notes], **settings) -> list[str]:
    notes = pool(layers)
    found = drop_unsupported(notes, AgreeSettings(parser=RULE_PARSER, **settings), notes.regions)
    return [verdict.note_id.rpartition(".")[2] for verdict in found]


def test_a_phrase_needs_a_region_at_every_box():
    shifted = Box(8, 0, 48, 40)  # shares 32 of 48 columns: 0.67
    phrases = grounded(
        ("a cat", (CAT,)), ("a cat", (shifted,)), ("two pets", (CAT, DOG)), ("a fish", (Box(50, 50, 90, 90),))
    )
    layers = {"d": seen(("cat", CAT)), "g": phrases}
    assert unsupported(layers) == ["phrase2", "phrase3"]
    assert unsupported(layers, support=0.7) == ["phrase1", "phrase2", "phrase3"]
    assert unsupported(layers, support=None) == []
    (verdict, *_) = drop_unsupported(pool(layers), AgreeSettings(support=0.7), pool(layers).regions)
    assert verdict.value == pytest.approx(32 / 48)
    with pytest.raises(BadConfig, match="support is 2"):
        AgreeSettings(support=2)


def test_nothing_is_held_against_a_phrase_where_nobody_looked():
    phrases = grounded(("a cat", (CAT,)))
    assert unsupported({"g": phrases}) == []
    word = Notes(regions=(RegionNote(word="STOP", box=Box(0, 0, 9, 9)),))  # a reader looks for no cats
    assert unsupported({"g": phrases, "r": word}) == []
    assert unsupported({"g": phrases, "d": Notes(whole=frozenset({"objects"}))}) == ["phrase0"]


def test_the_region_may_have_to_bear_the_name():
    layers = {
        "d": seen(("cat", CAT), ("person", DOG)),
        "g": grounded(("a small dog", (CAT,)), ("a red cat", (CAT,)), ("the man", (DOG,))),
    }
    assert unsupported(layers) == []
    assert unsupported(layers, named=True) == ["phrase0"]


def test_a_text_may_only_name_what_a_region_shows_among_what_can_be_named():
    settings = AgreeSettings(vocabulary=("cat", "dog", "hot dog", "person"), parser=RULE_PARSER)
    texts = ("a cat on a mat", "a cat and two dogs", "a man with a cat", "a cat and a hot dog", "the sky")
    notes = Notes(texts=tuple(TextNote(text=text) for text in texts))
    shown = pool({"d": seen(("cat", CAT), ("person", DOG)), "t": notes})
    found = drop_unshown(shown, settings, shown.regions)
    assert [(v.note_id, v.reason) for v in found] == [
        ("t/text1", "names 'dog', which no region shows"),
        ("t/text3", "names 'hot dog', which no region shows"),
    ]
    assert drop_unshown(shown, settings, {}) == []  # nobody looked
    assert drop_unshown(shown, AgreeSettings(), shown.regions) == []  # nothing it can name is known
    dogs = {**shown.regions, "dropped": RegionNote(label="dog", box=DOG, score=0.1)}
    assert [v.note_id for v in drop_unshown(shown, settings, dogs)] == ["t/text3"]  # someone was unsure of a dog


def test_the_longest_name_is_the_one_that_is_meant():
    settings = AgreeSettings(vocabulary=("dog", "hot dog", "person"), parser=RULE_PARSER)
    assert named_things("two hot dogs and a dog beside a woman", settings) == ("hot dog", "dog", "person")
    assert named_things("a cat and a sign that says DOG", settings) == ()  # printed, not there


def test_candidates_are_the_category_the_text_and_its_chunks():
    note = RegionNote(box=CAT, label="fish", description="a small red fish near a house")
    assert candidates(note, RULE_PARSER) == ("fish", "a small red fish near a house", "small red fish", "house")


# ---- words and pixels


def test_the_network_tells_what_is_there_from_what_is_not():
    model, scene = openflorence.load(), draw_scene(5)
    thing = next(thing for thing in scene.things if not thing.word)
    other = "purple snowman" if thing.kind != "snowman" else "purple fish"
    picture = Image.fromarray(scene.image)
    (fits,) = score_texts(model, picture, [(thing.box, (name(thing), other))])
    assert fits[0].total > fits[1].total
    assert fits[1].least < 0 < fits[0].least
    assert choose_texts(model, picture, [(thing.box, (other, name(thing), thing.kind)), (thing.box, ())])[1] == ""
    notes = {
        "a/region0": RegionNote(box=thing.box, label=thing.kind, description=name(thing)),
        "a/region1": RegionNote(box=thing.box, label=other),
        "a/region2": RegionNote(box=thing.box, word="STOP"),
        "a/region3": RegionNote(label="cat"),
    }
    measured = likelihoods(model, picture, notes)
    assert set(measured) == {"a/region0", "a/region1"}
    found = drop_unlikely(pool({"a": Notes(regions=tuple(notes.values()))}), AgreeSettings(), measured)
    assert [(verdict.note_id, verdict.rule) for verdict in found] == [("a/region1", "unlike")]


def test_scores_do_not_depend_on_what_else_is_scored():
    model = live_florence(tiny_network().eval(), world_text(), SIDE_PX)
    picture = Image.new("RGB", (64, 64), (200, 30, 30))
    asked = [(Box(0, 0, 30, 30), ("red fish", "a house")), (Box(10, 10, 60, 60), ("sign",))]
    together = score_texts(model, picture, asked)
    alone = [score_texts(model, picture, [one])[0] for one in asked]
    for one, other in zip(sum(together, ()), sum(alone, ()), strict=True):
        assert one == pytest.approx(other, abs=1e-4)  # padding changes the rounding of sums
    assert score_texts(model, picture, []) == []
    blank = score_texts(model, Image.new("RGB", (64, 64), (128, 128, 128)), asked[:1])
    assert blank[0][0] == pytest.approx(Fit(0.0, 0.0), abs=1e-4)  # a blank image against itself
