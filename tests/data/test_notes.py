"""Names of notes, and what verdicts leave of them."""

from openflorence.contract.records import GroundingNote, PhraseNote, QuestionNote, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes, Verdict, kept, note_ids, numbered, phrase_ids

BOX = Box(1, 2, 3, 4)
A_CAR, A_DOG = PhraseNote(phrase="a car", boxes=(BOX,)), PhraseNote(phrase="a dog", boxes=(BOX,))
NOTES = Notes(
    texts=(TextNote(text="one"), TextNote(text="two")),
    regions=(RegionNote(box=BOX, label="car"), RegionNote(box=BOX, label="dog")),
    groundings=(GroundingNote(text="a car and a dog", phrases=(A_CAR, A_DOG)),),
    questions=(QuestionNote(question="how many?", answers=("2",)),),
    whole=frozenset(("objects",)),
)


def drop(*names: str) -> list[Verdict]:
    return [Verdict(name, "score", "by hand", 0.1) for name in names]


def test_notes_are_named_by_layer_kind_and_place():
    # The form of the design: "<layer>/<kind><index>".
    names = ("ocr/text0", "ocr/text1", "ocr/region0", "ocr/region1", "ocr/grounding0", "ocr/question0")
    assert note_ids("ocr", NOTES) == names
    assert dict(numbered("ocr", NOTES))["ocr/region1"] == NOTES.regions[1]
    assert phrase_ids("ocr/grounding0", NOTES.groundings[0]) == ("ocr/grounding0.phrase0", "ocr/grounding0.phrase1")


def test_a_verdict_drops_its_note_and_no_other():
    left = kept(NOTES, drop("ocr/text0", "ocr/region1"), "ocr")
    assert (left.texts, left.regions) == (NOTES.texts[1:], NOTES.regions[:1])
    assert (left.groundings, left.questions, left.whole) == (NOTES.groundings, NOTES.questions, NOTES.whole)


def test_without_the_verdict_the_note_is_back():
    verdicts = drop("ocr/text0", "ocr/region1")
    assert kept(NOTES, verdicts[:1], "ocr").regions == NOTES.regions
    assert kept(NOTES, [], "ocr") == NOTES


def test_a_verdict_about_another_layer_does_not_count():
    assert kept(NOTES, drop("detect/text0"), "ocr") == NOTES
    assert kept(NOTES, drop("detect/text0")).texts == NOTES.texts[1:]  # no layer: all verdicts are about these


def test_a_phrase_is_dropped_alone_and_a_grounding_with_its_last_one():
    left = kept(NOTES, drop("ocr/grounding0.phrase0"), "ocr")
    assert left.groundings[0].phrases == (A_DOG,)
    assert kept(NOTES, drop("ocr/grounding0.phrase0", "ocr/grounding0.phrase1"), "ocr").groundings == ()


def test_a_grounding_that_had_no_phrase_stays():
    bare = Notes(groundings=(GroundingNote(text="nothing", phrases=()),), texts=NOTES.texts)
    assert kept(bare, drop("ocr/text0"), "ocr").groundings == bare.groundings


def test_ten_is_not_one():
    many = Notes(texts=tuple(TextNote(text=str(number)) for number in range(11)))
    assert [note.text for note in kept(many, drop("ocr/text1"), "ocr").texts] == [*"023456789", "10"]


def test_notes_are_empty_only_when_nothing_is_said():
    assert Notes().is_empty
    assert not Notes(whole=frozenset(("words",))).is_empty  # that there are no words is something
    assert not NOTES.is_empty
