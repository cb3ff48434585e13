"""Printed words in the layouts of ICDAR 2015, HierText and FUNSD."""

import json

import pytest
from PIL import Image

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.ocr import (
    read_funsd,
    read_hiertext,
    read_icdar,
    smallest_rectangle,
    write_funsd,
    write_hiertext,
    write_icdar,
)
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadRecord

WORDS = frozenset({"words"})


def picture(path, size=(1280, 720)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def read(reader, path, **options):
    problems = Problems()
    return list(reader(path, problems, **options)), problems


def quad(*flat):
    return tuple(Point(*pair) for pair in zip(flat[0::2], flat[1::2], strict=True))


# The first lines of the distributed gt_img_1.txt, then what transcriptions may hold.
ICDAR = (
    "377,117,463,117,465,130,378,130,Genaxis Theatre\r\n"
    "374,155,409,155,409,170,374,170,###\r\n"
    '1,2,30,2,30,9,1,9,"1,200", ok\r\n'
    "5,5,9,5,9,8,5,8,营业中\r\n"
)
ICDAR_NOTES = (
    RegionNote(quad=quad(377, 117, 463, 117, 465, 130, 378, 130), word="Genaxis Theatre"),
    RegionNote(quad=quad(374, 155, 409, 155, 409, 170, 374, 170), crowd=True),
    RegionNote(quad=quad(1, 2, 30, 2, 30, 9, 1, 9), word='"1,200", ok'),
    RegionNote(quad=quad(5, 5, 9, 5, 9, 8, 5, 8), word="营业中"),
)


@pytest.mark.parametrize("place", ["gt", "gt/images", "images", "ch4_training_images", "elsewhere"])
def test_icdar_is_read_with_its_byte_order_mark_and_line_ends(tmp_path, place):
    picture(tmp_path / place / "img_1.jpg")
    (tmp_path / "gt").mkdir(exist_ok=True)
    (tmp_path / "gt" / "gt_img_1.txt").write_bytes(b"\xef\xbb\xbf" + ICDAR.encode())
    (record,), problems = read(read_icdar, tmp_path / "gt", images=tmp_path / place if place == "elsewhere" else None)
    assert (record.image_wh, record.regions, record.whole) == ((1280, 720), ICDAR_NOTES, WORDS)
    assert (tmp_path / "gt" / record.image).samefile(tmp_path / place / "img_1.jpg")
    assert not problems.counts


def test_icdar_reads_back_as_written(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    record = Record(image="images/a.png", image_wh=(1280, 720), regions=ICDAR_NOTES, whole=WORDS)
    boxed = RegionNote(box=Box(1, 2, 3.5, 4.4), word="two\nlines")
    empty = Record(image="images/b.png", image_wh=(1280, 720), regions=(boxed,), whole=WORDS)
    again, _ = read(read_icdar, write_icdar([record, empty], tmp_path))
    assert again[0] == record
    # By hand: whole pixels, halves up; a line of the file is a line.
    assert again[1].regions == (RegionNote(quad=quad(1, 2, 4, 2, 4, 4, 1, 4), word="two lines"),)


def test_icdar_lines_that_cannot_be_read_end_the_promise_that_every_word_is_there(tmp_path):
    for name in ("img_1.jpg", "img_2.jpg", "img_3.jpg"):
        picture(tmp_path / name)
    bad = b"1,2,3\n1,2,3,4,5,6,7,x,word\n1,2,3,4,5,6,7,8\n1,2,3,4,5,6,7,8,caf\xe9\n"
    (tmp_path / "gt_img_1.txt").write_bytes(ICDAR.encode() + bad)
    (tmp_path / "gt_img_2.txt").write_bytes(b"")
    (tmp_path / "gt_img_3.txt").write_bytes(ICDAR.encode()[:-25])  # a killed last line: "5,5,9,5,9,8"
    (tmp_path / "gt_img_4.txt").write_bytes(ICDAR.encode())
    records, problems = read(read_icdar, tmp_path)
    assert [(record.regions, record.whole) for record in records] == [
        (ICDAR_NOTES, frozenset()),
        ((), WORDS),
        (ICDAR_NOTES[:3], frozenset()),
    ]
    assert problems.counts == {"entry not readable": 4, "text not readable": 1, "image missing": 1}
    assert "gt_img_1.txt:5" in problems.examples["entry not readable"][0]


def word(text, *flat, legible=True):
    vertices = [list(point) for point in quad(*flat)]
    return {"vertices": vertices, "text": text, "legible": legible, "handwritten": False, "vertical": False}


LINE = (10, 10, 90, 12, 90, 24, 10, 22)
# A word along an arc, in eight points; upright, its rectangle is 20..60, 30..50.
ARC = (20, 35, 30, 30, 50, 30, 60, 35, 60, 50, 50, 46, 30, 46, 20, 50)


def hiertext(folder, annotations=None):
    words = [word("Open", 10, 10, 40, 11, 40, 23, 10, 22), word("“24 h”", 50, 11, 90, 12, 90, 24, 50, 23)]
    lines = [
        word("Open “24 h”", *LINE) | {"words": words},
        word("", 0, 0, 5, 0, 5, 5, 0, 5, legible=False) | {"words": [word("", 0, 0, 5, 0, 5, 5, 0, 5, legible=False)]},
        word("ARC", 20, 30, 60, 30, 60, 50, 20, 50) | {"words": [word("ARC", *ARC)]},
    ]
    about = {"image_id": "a1b2", "image_width": 1600, "image_height": 1200}
    paragraphs = [{"vertices": [], "legible": True, "lines": lines[:2]}, {"legible": True, "lines": lines[2:]}]
    value = {"info": {"version": "v1.0"}, "annotations": annotations or [about | {"paragraphs": paragraphs}]}
    (folder / "gt").mkdir(exist_ok=True)
    path = folder / "gt" / "train.jsonl"  # one JSON object, whatever the name says
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_hiertext_lines_are_regions(tmp_path):
    (record,), problems = read(read_hiertext, hiertext(tmp_path))
    assert record == Record(
        image="a1b2.jpg",
        image_wh=(1600, 1200),
        regions=(
            RegionNote(quad=quad(*LINE), word="Open “24 h”"),
            RegionNote(quad=quad(0, 0, 5, 0, 5, 5, 0, 5), crowd=True),
            RegionNote(quad=quad(20, 30, 60, 30, 60, 50, 20, 50), word="ARC"),
        ),
        whole=WORDS,
    )
    assert not problems.counts


@pytest.mark.parametrize(("text", "legible"), [("blurred", False), (" ", True)])
def test_hiertext_text_that_is_not_legible_or_not_there_is_not_judged(tmp_path, text, legible):
    line = word(text, *LINE, legible=legible) | {"words": []}
    about = {"image_id": "a", "image_width": 99, "image_height": 99}
    (record,), _ = read(read_hiertext, hiertext(tmp_path, [about | {"paragraphs": [{"lines": [line]}]}]))
    assert record.regions == (RegionNote(quad=quad(*LINE), crowd=True),)


def test_hiertext_words_are_regions_on_request_and_an_outline_becomes_a_rectangle(tmp_path):
    picture(tmp_path / "train" / "a1b2.jpg", (4, 4))
    (record,), _ = read(read_hiertext, hiertext(tmp_path), level="words")
    assert [note.word for note in record.regions] == ["Open", "“24 h”", "", "ARC"]
    assert [note.crowd for note in record.regions] == [False, False, True, False]
    corners = [value for point in record.regions[3].quad for value in point]
    assert corners == pytest.approx([20, 30, 60, 30, 60, 50, 20, 50], abs=1e-3)  # float32 in OpenCV
    assert (tmp_path / "gt" / record.image).samefile(tmp_path / "train" / "a1b2.jpg")


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize(
    "corners", [(0, 0, 8, 6, 5, 10, -3, 4), (10, 20, 50, 20, 50, 30, 10, 30)], ids=["tilted", "upright"]
)
def test_a_rectangle_is_its_own_smallest_and_starts_where_the_outline_starts(corners, start):
    # Both are rectangles, by hand: (8, 6) and (-3, 4) are at right angles. Clockwise, y downwards.
    turned = [*corners[2 * start :], *corners[: 2 * start]]
    middle = [(turned[0] + turned[2]) / 2, (turned[1] + turned[3]) / 2]
    outline = [*turned[:2], *middle, *turned[2:]]
    assert [value for point in smallest_rectangle(outline) for value in point] == pytest.approx(turned, abs=1e-4)


def test_hiertext_reads_back_as_written_at_both_levels(tmp_path):
    records, _ = read(read_hiertext, hiertext(tmp_path))
    path = write_hiertext(records, tmp_path / "out.jsonl")
    assert read(read_hiertext, path)[0] == records
    assert read(read_hiertext, path, level="words")[0] == records
    with pytest.raises(BadRecord, match=r"a\.png"):
        write_hiertext([Record(image="a.png", image_wh=(1, 1))], path)


def test_hiertext_entries_that_cannot_be_read_are_counted(tmp_path):
    about = {"image_id": "a", "image_width": 9, "image_height": 9}
    good = word("x", *LINE) | {"words": []}
    bad = [
        word("two", 1, 2, 3, 4),
        word("wild", 0, 0, 1e300, 0, 5, 5, 0, 5, 1, 1),
        word("x", *LINE) | {"vertices": [[1], [2], [3]]},
        word("x", *LINE) | {"legible": "yes"},
        None,
    ]
    annotations = [
        about | {"paragraphs": [{"lines": [good, *bad]}]},
        about | {"paragraphs": [{"lines": [good]}], "image_width": 0},
        about | {"paragraphs": [{}]},
        {"paragraphs": []},
        5,
    ]
    (record,), problems = read(read_hiertext, hiertext(tmp_path, annotations))
    assert (len(record.regions), record.whole) == (1, frozenset())
    assert problems.counts == {"entry not readable": 9}
    assert "image 'a'" in problems.examples["entry not readable"][0]


def entry(number, text, *box, label="question", **other):
    words = [{"box": list(box), "text": part} for part in text.split()]
    return {"box": list(box), "text": text, "label": label, "words": words, "linking": [[0, 1]], "id": number} | other


FORM = [
    entry(0, "R&D :", 84, 109, 136, 119),
    entry(1, "Suggestion: “一”", 85, 110, 145, 120, label="answer"),
    entry(2, "", 1, 2, 30, 40, label="other"),
]
FORM_NOTES = (
    RegionNote(quad=quad(84, 109, 136, 109, 136, 119, 84, 119), word="R&D :", label="question"),
    RegionNote(quad=quad(85, 110, 145, 110, 145, 120, 85, 120), word="Suggestion: “一”", label="answer"),
    RegionNote(quad=quad(1, 2, 30, 2, 30, 40, 1, 40), label="other", crowd=True),
)


def funsd(folder, name, form):
    picture(folder / "images" / f"{name}.png", (754, 1000))
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations" / f"{name}.json"
    path.write_bytes(form if isinstance(form, bytes) else json.dumps({"form": form}).encode())
    return folder


def test_funsd_entries_are_regions_with_words_and_kinds(tmp_path):
    (record,), problems = read(read_funsd, funsd(tmp_path, "0000971160", FORM))
    assert record == Record(image="images/0000971160.png", image_wh=(754, 1000), regions=FORM_NOTES, whole=WORDS)
    assert not problems.counts


def test_funsd_reads_back_as_written(tmp_path):
    records, _ = read(read_funsd, funsd(tmp_path, "a", FORM))
    assert read(read_funsd, write_funsd(records, tmp_path))[0] == records
    written = json.loads((tmp_path / "annotations" / "a.json").read_text())["form"]
    assert [set(item) for item in written] == [set(item) for item in FORM]


def test_funsd_entries_and_files_that_cannot_be_read_are_counted(tmp_path):
    bad = [entry(3, "x", 1, 2, 3), entry(4, "x", 1, 2, 3, 4, label=5), {"text": "x"}, None, entry(5, "x", *"1234")]
    funsd(tmp_path, "a", [*FORM, *bad])
    funsd(tmp_path, "b", b"")
    funsd(tmp_path, "c", b'{"form": [caf\xe9]}')
    funsd(tmp_path, "d", FORM)
    (tmp_path / "images" / "d.png").write_bytes(b"no picture")
    (record,), problems = read(read_funsd, tmp_path)
    assert (record.regions, record.whole) == (FORM_NOTES, frozenset())
    assert problems.counts == {"entry not readable": 5, "file not readable": 2, "image not readable": 1}
    assert "a.json, entry 3: box" in problems.examples["entry not readable"][0]


def test_a_folder_without_annotations_is_an_error_and_so_is_an_unknown_level(tmp_path):
    with pytest.raises(BadRecord, match=r"gt_\*\.txt"):
        read(read_icdar, tmp_path)
    with pytest.raises(BadRecord, match=r"annotations has no \*\.json"):
        read(read_funsd, tmp_path)
    with pytest.raises(BadRecord, match=r"train\.jsonl"):
        read(read_hiertext, tmp_path / "train.jsonl")
    with pytest.raises(BadConfig, match="lines, words"):
        read(read_hiertext, tmp_path / "train.jsonl", level="paragraphs")


@pytest.mark.parametrize("write", [write_icdar, write_funsd])
def test_two_images_of_one_name_are_an_error(tmp_path, write):
    with pytest.raises(BadRecord, match="'a'"):
        write([Record(image=f"{name}/a.jpg", image_wh=(1, 1)) for name in "xy"], tmp_path)
