"""Texts by a template: what they say, that nothing else is said, and that their phrases are tied to places."""

import pytest
from PIL import Image
from rows import row_of

from openflorence.contract.records import Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.notes import Notes
from openflorence.engine.compose import Compose, compose, counted, where
from openflorence.engine.stages import Context
from openflorence.errors import BadConfig

WH = (90, 90)
ORIGIN = Origin(source="template")


def thing(label: str, x: float, y: float = 40, score: float | None = 0.9, description: str = "", side: float = 10):
    box = Box(x, y, x + side, y + side)
    return RegionNote(label=label, description=description, box=box, score=score)


def line(word: str, x: float, y: float, score: float = 0.8) -> RegionNote:
    corners = (Point(x, y), Point(x + 20, y), Point(x + 20, y + 8), Point(x, y + 8))
    return RegionNote(word=word, quad=corners, score=score)


NOTES = Notes(
    texts=(TextNote(text="an unsure text", score=0.2), TextNote(text="animals on a lawn", score=0.7)),
    regions=(
        thing("dog", 5, description="a brown dog", side=20),
        thing("Dog", 70, score=0.6),
        thing("ball", 40, description="a red ball."),
        thing("cat", 20, score=0.3, description="a cat"),
        line("HOTEL", 40, 2),
        line("EXIT", 5, 2),
    ),
)
DETAILED = 'Animals on a lawn. There are two dogs and a ball. The texts "EXIT" and "HOTEL" can be read.'


def test_a_detailed_text_counts_things_and_reads_words():
    # The template as the file states it; the cat's score is below the least.
    (text,) = compose(NOTES, WH, "detailed", ORIGIN).texts
    assert text.text == DETAILED
    assert text.score == 0.6  # the lowest of the parts, the second dog's
    assert (text.level, text.origin) == ("detailed", ORIGIN)


def test_a_more_detailed_text_says_where_things_are_largest_first():
    (text,) = compose(NOTES, WH, "more_detailed", ORIGIN).texts
    assert text.text == f"{DETAILED} A brown dog is on the left. A red ball is in the middle."


def test_the_phrases_of_a_text_are_tied_to_the_boxes_they_were_made_of():
    (note,) = compose(NOTES, WH, "detailed", ORIGIN).groundings
    assert note.text == DETAILED
    boxes = {phrase.phrase: phrase.boxes for phrase in note.phrases}
    assert boxes["two dogs"] == (Box(5, 40, 25, 60), Box(70, 40, 80, 50))
    assert boxes['"EXIT"'] == (Box(5, 2, 25, 10),)
    for phrase in note.phrases:
        assert note.text[slice(*phrase.span)] == phrase.phrase


def test_without_a_region_nothing_is_said():
    assert compose(Notes(texts=NOTES.texts), WH, "detailed", ORIGIN) == Notes()
    assert compose(Notes(regions=(thing("cat", 5, score=0.1),)), WH, "detailed", ORIGIN) == Notes()


def test_one_thing_and_no_brief_text():
    (text,) = compose(Notes(regions=(thing("owl", 5, score=None),)), WH, "detailed", ORIGIN).texts
    assert text.text == "There is an owl."
    assert text.score is None


@pytest.mark.parametrize(
    ("label", "count", "words"),
    [
        ("bus", 2, "two buses"),
        ("person", 3, "three people"),
        ("police officer", 2, "two police officers"),
        ("butterfly", 12, "12 butterflies"),
        ("toy", 2, "two toys"),
        ("sheep", 2, "two sheep"),
        ("umbrella", 1, "an umbrella"),
    ],
)
def test_things_are_counted_in_english(label, count, words):
    assert counted(label, count) == words


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0, 0, "at the top left"),
        (40, 0, "at the top"),
        (80, 40, "on the right"),
        (40, 40, "in the middle"),
        (40, 80, "at the bottom"),
        (200, 200, "at the bottom right"),  # as far as a box may go wrong, the words stay
    ],
)
def test_ninths_of_the_picture_have_names(x, y, words):
    assert where(Box(x, y, x + 10, y + 10), WH) == words


def test_only_levels_that_are_lacking_are_written():
    stage = Compose(["looked", "said"])
    stage.setup(Context())
    said = Notes(texts=(TextNote(text="A long text.", level="more_detailed"),))
    row = row_of(Image.new("RGB", WH), looked=NOTES, said=said)
    (notes,) = stage.process([row])
    assert [note.level for note in notes.texts] == ["detailed"]
    assert notes.texts[0].origin.source == "template"
    assert len(notes.groundings) == 1


def test_levels_that_cannot_be_written_are_refused():
    with pytest.raises(BadConfig, match="levels"):
        Compose(["looked"], levels=["brief"])
