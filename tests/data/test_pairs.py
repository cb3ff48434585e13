"""JSONL of pairs and of records: nothing is lost, and every line that cannot be read is named by its number."""

import json

import pytest
from PIL import Image

from openflorence.contract.records import (
    GroundingNote,
    Origin,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.pairs import read_pairs, read_records, write_pairs, write_records
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

# As maestro's documentation of its JSONL format shows them, locations and task tokens in place.
LINES = [
    {"image": "a.png", "prefix": "<OD>", "suffix": "car<loc_52><loc_332><loc_932><loc_774>"},
    {"image": "a.png", "prefix": "what colour is it?", "suffix": "grün, „wie Gras“ 绿色\u2028"},
    {"image": "b.png", "prefix": "detect person", "suffix": "", "id": 7},
    {"image": "a.png", "prefix": "count", "suffix": "2"},
]


def write(path, lines, end="\n"):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + end for line in lines), encoding="utf-8", newline="")
    return path


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    Image.new("RGB", (10, 20)).save(tmp_path / "b.png")
    return tmp_path


@pytest.mark.parametrize("name", ["annotations.jsonl", "dataset.jsonl"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_lines_of_one_image_that_follow_one_another_are_one_record(folder, name, end):
    write(folder / name, LINES, end)
    problems = Problems()
    records = list(read_pairs(folder, problems))
    assert [(record.image, record.image_wh) for record in records] == [
        ("a.png", (64, 48)),
        ("b.png", (10, 20)),
        ("a.png", (64, 48)),
    ]
    notes = [note for record in records for note in record.pairs]
    assert [(note.prefix, note.suffix) for note in notes] == [(line["prefix"], line["suffix"]) for line in LINES]
    assert not problems.counts


def test_pairs_read_back_as_written(folder):
    records = list(read_pairs(write(folder / "in.jsonl", LINES), Problems()))
    assert list(read_pairs(write_pairs(records, folder / "out.jsonl"), Problems())) == records


def test_images_may_lie_in_images(folder):
    (folder / "images").mkdir()
    Image.new("RGB", (5, 6)).save(folder / "images" / "c.png")
    path = write(folder / "p.jsonl", [{"image": "c.png", "prefix": "p", "suffix": "s"}])
    (record,) = read_pairs(path, Problems())
    assert (record.image, record.image_wh) == ("images/c.png", (5, 6))


def test_bad_lines_are_counted_with_their_numbers_and_the_rest_is_read(folder):
    path = folder / "p.jsonl"
    good = json.dumps(LINES[0]).encode()
    bad = [
        b'{"image": "a.png", "prefix": "x"}',
        b'["a.png", "x", "y"]',
        b'{"image": "a.png", "prefix": "x", "suffix": 5}',
        b'{"image": "", "prefix": "x", "suffix": "y"}',
        b'{"image": "a.png", "prefix": "caf\xe9", "suffix": "y"}',  # Latin-1
        b'{"image": "gone.png", "prefix": "x", "suffix": "y"}',
        good[:40],  # a killed writer
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, *bad[:-1], good, bad[-1]]))
    problems = Problems()
    records = list(read_pairs(path, problems))
    assert [len(record.pairs) for record in records] == [1, 1]
    assert problems.counts == {"entry not readable": 5, "text not readable": 1, "image missing": 1}
    assert "p.jsonl:2 has no 'suffix'" in problems.examples["entry not readable"][0]
    assert "p.jsonl:3" in problems.examples["entry not readable"][1]
    assert "p.jsonl:6: byte 0xe9" in problems.examples["text not readable"][0]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.png", "\ud83d.png", "https://example.org/a.png", "."])
def test_a_name_that_no_file_can_have_is_a_missing_image(folder, name):
    path = folder / "p.jsonl"
    path.write_text(json.dumps({"image": name, "prefix": "p", "suffix": "s"}) + "\n")
    problems = Problems()
    assert list(read_pairs(path, problems)) == []
    assert problems.counts == {"image missing": 1}


def test_a_missing_file_is_an_error_that_names_it(folder):
    with pytest.raises(BadRecord, match=r"nowhere\.jsonl"):
        list(read_pairs(folder / "nowhere.jsonl", Problems()))
    with pytest.raises(BadRecord, match=r"annotations\.jsonl"):
        list(read_pairs(folder, Problems()))
    with pytest.raises(BadRecord, match=r"nowhere\.jsonl"):
        list(read_records(folder / "nowhere.jsonl", Problems()))


def test_an_empty_file_has_no_records_and_no_problems(folder):
    (folder / "p.jsonl").touch()
    problems = Problems()
    assert list(read_pairs(folder / "p.jsonl", problems)) == list(read_records(folder / "p.jsonl", problems)) == []
    assert not problems.counts


def full_record() -> Record:
    quad = (Point(1, 2), Point(3, 2), Point(3, 4), Point(1, 4.5))
    return Record(
        image="a.png",
        image_wh=(64, 48),
        texts=(TextNote(text="ein “Bild” 图\u2028", level="detailed", score=0.5, origin=Origin(source="x", round=2)),),
        regions=(
            RegionNote(box=Box(1, 2, 3.25, 4), label="car", expressions=("the left", "car"), crowd=True),
            RegionNote(quad=quad, polygons=(quad, quad[:3]), word="a,b"),
        ),
        groundings=(
            GroundingNote(text="a car", phrases=(PhraseNote(phrase="car", boxes=(Box(0, 0, 1, 1),), span=(2, 5)),)),
        ),
        questions=(QuestionNote(question="?", answers=("a", "a", "b")),),
        pairs=(PairNote(prefix="<OD>", suffix="car<loc_1>"),),
        whole=frozenset({"words", "objects"}),
    )


def test_records_read_back_as_written(tmp_path):
    records = [full_record(), Record(image="b.png", image_wh=(1, 1)), full_record()]
    path = write_records(iter(records), tmp_path / "new" / "r.jsonl")
    problems = Problems()
    assert list(read_records(path, problems)) == records
    assert not problems.counts
    assert [item.name for item in path.parent.iterdir()] == ["r.jsonl"]


def test_a_writer_killed_in_the_last_line_costs_that_record_only(tmp_path):
    path = write_records([full_record(), full_record()], tmp_path / "r.jsonl")
    path.write_bytes(path.read_bytes()[:-30])
    problems = Problems()
    assert list(read_records(path, problems)) == [full_record()]
    assert "r.jsonl:2 is not JSON" in problems.examples["entry not readable"][0]


def test_a_record_that_does_not_fit_is_counted_with_its_line(tmp_path):
    path = write(tmp_path / "r.jsonl", [{"image": "a.png", "image_wh": [0, 5]}, {"image": "b.png", "image_wh": [1, 2]}])
    problems = Problems()
    assert [record.image for record in read_records(path, problems)] == ["b.png"]
    assert "r.jsonl:1: image_wh is [0, 5]" in problems.examples["entry not readable"][0]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = write_records([full_record()], tmp_path / "r.jsonl")
    before = path.read_bytes()

    def failing():
        yield full_record()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_records(failing(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["r.jsonl"]


def test_half_a_surrogate_pair_can_be_written_and_read(tmp_path):
    # JSON spells it, UTF-8 cannot hold it; read_pairs lets it in.
    record = Record(image="a.png", image_wh=(1, 1), texts=(TextNote(text=json.loads('"\\ud83d"')),))
    assert list(read_records(write_records([record], tmp_path / "r.jsonl"), Problems())) == [record]
