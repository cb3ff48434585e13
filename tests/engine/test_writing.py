"""A language model in a round: what it is given, what becomes of its texts, and what its failures do."""

import pytest
from language_server import LanguageServer
from PIL import Image
from rows import row_of

from openflorence.contract.records import Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import LayerRow, Notes, Verdict
from openflorence.engine.server import NoReply
from openflorence.engine.stages import Context, Row
from openflorence.engine.writing import Writer
from openflorence.errors import BadConfig

pytest.importorskip("openai")
DOG = RegionNote(box=Box(0, 0, 50, 50), label="dog", score=0.9)
CAT = RegionNote(box=Box(50, 50, 99, 99), label="cat", score=0.9)
BRIEF = TextNote(text="a dog", score=0.8)
DETAILED = {"text": "A dog lies on the left.", "phrases": [{"phrase": "A dog", "regions": [1]}]}


@pytest.fixture
def model():
    made = LanguageServer()
    yield made
    made.close()


def stage_of(model: LanguageServer, **settings) -> Writer:
    made = Writer(**{"needs": ["fuse", "filter"], "server": model.settings, "at_once": 1} | settings)
    made.setup(Context())
    return made


def told(request: dict) -> str:
    return request["messages"][-1]["content"]


def judged(notes: Notes, *verdicts: Verdict) -> Row:
    """A row of a layer "fuse", of which "filter" drops some."""
    row = row_of(Image.new("RGB", (100, 100)), fuse=notes)
    return Row(row.image, {**row.layers, "filter": LayerRow(row.image.image_id, verdicts=verdicts)})


def test_a_detailed_text_is_written_from_what_was_kept(model):
    model.says = [DETAILED]
    row = judged(Notes(texts=(BRIEF,), regions=(CAT, DOG)), Verdict("fuse/region0", "score", "too low"))
    ((notes, verdicts),) = stage_of(model, round=3).process([row])
    origin = Origin(source="language", model="m", round=3)
    assert notes.texts == (TextNote(text="A dog lies on the left.", level="detailed", origin=origin),)
    (grounding,) = notes.groundings
    assert [(phrase.phrase, phrase.boxes) for phrase in grounding.phrases] == [("A dog", (DOG.box,))]
    assert grounding.origin == origin
    assert verdicts == ()
    assert "a dog" in told(model.asked[0])
    assert "cat" not in told(model.asked[0])


def test_texts_of_one_level_become_one_and_the_others_are_dropped_by_name(model):
    model.says = [{"text": "a dog on a lawn", "from": [1, 2]}, DETAILED]
    texts = (BRIEF, TextNote(text="a lawn", score=0.5))
    ((notes, verdicts),) = stage_of(model, merge=["brief"]).process([judged(Notes(texts=texts, regions=(DOG,)))])
    assert [(note.text, note.level) for note in notes.texts] == [
        ("a dog on a lawn", "brief"),
        ("A dog lies on the left.", "detailed"),
    ]
    assert [(one.note_id, one.rule) for one in verdicts] == [("fuse/text0", "merged"), ("fuse/text1", "merged")]
    assert "a dog on a lawn" in told(model.asked[1])  # the merged text is what the longer one is written from


def test_a_text_that_is_chosen_stays_as_it_was(model):
    model.says = [{"text": "A dog.", "from": [1]}]
    texts = (BRIEF, TextNote(text="a lawn", score=0.5))
    ((notes, verdicts),) = stage_of(model, merge=["brief"], levels=[]).process([judged(Notes(texts=texts))])
    assert notes == Notes()
    assert [one.note_id for one in verdicts] == ["fuse/text1"]


def test_without_anything_to_write_from_nobody_is_asked(model):
    model.says = [DETAILED]
    assert stage_of(model).process([judged(Notes())]) == [(Notes(), ())]
    assert model.asked == []


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (500, "status: status 500"),
        (429, "status: status 429"),
        ("no JSON", "malformed: "),
        ("", "malformed: "),
        ({"text": "A dog.", "phrases": [{"phrase": "A dog", "regions": [7]}]}, "invented region: "),
    ],
)
def test_what_a_server_does_wrong_fails_the_image_with_its_reason(model, says, told):
    model.says = [says]
    with pytest.raises(NoReply, match=told):
        stage_of(model).process([judged(Notes(texts=(BRIEF,), regions=(DOG,)))])


def test_settings_that_ask_for_nothing_are_told(model):
    with pytest.raises(BadConfig, match="levels=\\[\\]"):
        stage_of(model, levels=[])
    with pytest.raises(BadConfig, match="has the fields of ServerSettings"):
        Writer(needs=["fuse"], server={"modle": "m"})
