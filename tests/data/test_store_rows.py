"""Rows of a layer through a Parquet file and back."""

import math
from dataclasses import fields
from pathlib import Path

import pytest

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
from openflorence.data.notes import Failure, LayerRow, Measure, Notes, Verdict
from openflorence.data.store_rows import layer_row_from_plain, layer_row_to_plain, layer_schema
from openflorence.errors import BadRecord

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

BOX = Box(0.1, 2.25, 639.9999, 480)
QUAD = (Point(1, 2), Point(3.5, 2), Point(3.5, 4), Point(1, 4))
RING = (Point(0, 0), Point(10.125, 0), Point(5, 7.3))
ORIGIN = Origin(source="rapidocr", model="PP-OCRv4", version="3.10", round=2)
EMOJI = '👩‍👩‍👧 e\u0301 \x00 "quoted"\n日本語 \U0001f600'

ROWS = {
    "nothing": LayerRow("a" * 64),
    "measures": LayerRow(
        "a1", measures=(Measure("fuse/region0", "likelihood", -1.25), Measure("", "print", None, EMOJI))
    ),
    "failed": LayerRow("b", "failed", Failure("timeout", "took longer than 3 s", "detect", 2)),
    "empty words": LayerRow("c", "filtered", Failure("", "", "", 0)),
    "texts": LayerRow("d", notes=Notes(texts=(TextNote(text=EMOJI, level="more_detailed", score=1.0, origin=ORIGIN),))),
    "a box alone": LayerRow("e", notes=Notes(regions=(RegionNote(box=BOX, label="car", score=0.3),))),
    "a quad alone": LayerRow("f", notes=Notes(regions=(RegionNote(quad=QUAD, word="EXIT", score=0.0),))),
    "rings alone": LayerRow("g", notes=Notes(regions=(RegionNote(polygons=(RING, (), RING[:1]), crowd=True),))),
    "no place": LayerRow("h", notes=Notes(regions=(RegionNote(label="car"),))),
    "expressions": LayerRow("i", notes=Notes(regions=(RegionNote(box=BOX, expressions=("", EMOJI)), RegionNote()))),
    "no phrase": LayerRow("j", notes=Notes(groundings=(GroundingNote(text="", phrases=()),))),
    "phrases": LayerRow(
        "k",
        notes=Notes(
            groundings=(
                GroundingNote(
                    text="a car by a car",
                    level="detailed",
                    phrases=(
                        PhraseNote(phrase="a car", boxes=(BOX, BOX), span=(0, 5), score=0.123456789012345),
                        PhraseNote(phrase="nowhere", boxes=()),
                    ),
                    score=0.7,
                    origin=ORIGIN,
                ),
            )
        ),
    ),
    "questions": LayerRow("l", notes=Notes(questions=(QuestionNote(question="?", answers=()),))),
    "answers": LayerRow("m", notes=Notes(questions=(QuestionNote(question="q", answers=("2", "2", "two")),))),
    "pairs": LayerRow("n", notes=Notes(pairs=(PairNote(prefix="<OD>", suffix="car<loc_1>", score=0.5),))),
    "whole": LayerRow("o", notes=Notes(whole=frozenset(("words", "objects")))),
    "verdicts": LayerRow("p", verdicts=(Verdict("ocr/region0", "nms", "overlaps", 0.9), Verdict("x", "r", EMOJI))),
}


def there_and_back(rows: list[LayerRow], folder: Path) -> list[LayerRow]:
    place = {"layer": "test", "run_id": "r1-a", "unit": 0}
    table = pa.Table.from_pylist([place | layer_row_to_plain(row) for row in rows], schema=layer_schema())
    parquet.write_table(table, folder / "rows.parquet", compression="zstd")
    return [layer_row_from_plain(plain) for plain in parquet.ParquetFile(folder / "rows.parquet").read().to_pylist()]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_comes_back_as_it_was(name, tmp_path):
    assert there_and_back([ROWS[name]], tmp_path) == [ROWS[name]]


def test_all_rows_come_back_from_one_file(tmp_path):
    assert there_and_back(list(ROWS.values()), tmp_path) == list(ROWS.values())


def test_the_rows_hold_every_field_of_every_note():
    # A field that is added to a note and not to the table would come back as its default.
    kinds = {"texts": TextNote, "regions": RegionNote, "groundings": GroundingNote, "questions": QuestionNote}
    schema = layer_schema()
    for kind, note in (kinds | {"pairs": PairNote}).items():
        written = {field.name for field in schema.field(kind).type.value_type}
        assert written == {field.name for field in fields(note)}, kind
    assert {field.name for field in fields(Notes)} <= set(schema.names)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "note",
    [
        lambda bad: Notes(regions=(RegionNote(box=Box(0, 0, bad, 1)),)),
        lambda bad: Notes(regions=(RegionNote(polygons=((Point(0, bad), *RING),)),)),
        lambda bad: Notes(regions=(RegionNote(quad=(*QUAD[:3], Point(bad, 0))),)),
        lambda bad: Notes(texts=(TextNote(text="a", score=bad),)),
        lambda bad: Notes(
            groundings=(GroundingNote(text="a", phrases=(PhraseNote(phrase="a", boxes=(), score=bad),)),)
        ),
    ],
)
def test_a_number_that_is_none_is_refused(note, bad):
    with pytest.raises(BadRecord, match=r"\[0\] holds (nan|-?inf)"):
        layer_row_to_plain(LayerRow("a", notes=note(bad)))


def test_a_value_of_a_verdict_that_is_none_is_refused():
    with pytest.raises(BadRecord, match=r"verdicts\[0\] holds nan"):
        layer_row_to_plain(LayerRow("a", verdicts=(Verdict("a/text0", "r", "r", math.nan),)))


def test_a_score_that_is_no_probability_is_refused():
    with pytest.raises(BadRecord, match=r"texts\[1\]: its score is 1.5"):
        layer_row_to_plain(LayerRow("a", notes=Notes(texts=(TextNote(text="a"), TextNote(text="b", score=1.5)))))


def test_half_a_character_becomes_one_that_can_be_written_and_spans_stay(tmp_path):
    text = "a \ud83d car"  # as a server spells it that cuts its answer within an emoji
    note = GroundingNote(text=text, phrases=(PhraseNote(phrase="car", boxes=(BOX,), span=(4, 7)),))
    (back,) = there_and_back([LayerRow("a", notes=Notes(groundings=(note,)))], tmp_path)
    (grounding,) = back.notes.groundings
    assert grounding.text == "a \ufffd car"
    assert grounding.text[slice(*grounding.phrases[0].span)] == "car"


def test_no_list_has_a_fixed_length():
    # pyarrow up to 25 wrote those, null inside a struct, into files that nobody could read: Arrow issue 35692.
    def kinds(kind: pa.DataType) -> list[pa.DataType]:
        inner = [kind.field(place).type for place in range(kind.num_fields)]
        return [kind, *(found for one in inner for found in kinds(one))]

    found = [kind for field in layer_schema() for kind in kinds(field.type)]
    assert len(found) > 50
    assert not any(pa.types.is_fixed_size_list(kind) for kind in found)
