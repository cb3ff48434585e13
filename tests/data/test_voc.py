"""Pascal VOC folders as the development kit lays them out: read file by file, written, read back."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.problems import Problems
from openflorence.data.voc import read_voc, voc_parts, write_voc
from openflorence.errors import BadRecord

# As in VOC2007, with a part and a pose; the object is marked difficult.
OFFICIAL = """<annotation>
	<folder>VOC2007</folder>
	<filename>000032.jpg</filename>
	<source><database>The VOC2007 Database</database></source>
	<size><width>500</width><height>281</height><depth>3</depth></size>
	<segmented>1</segmented>
	<object>
		<name>person</name>
		<pose>Frontal</pose>
		<truncated>0</truncated>
		<difficult>1</difficult>
		<bndbox><xmin>1</xmin><ymin>78</ymin><xmax>500</xmax><ymax>183</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
	</object>
</annotation>
"""


def build(folder: Path, *texts: str | bytes) -> Path:
    """Write annotations 000032, 000033, ... in the official layout."""
    (folder / "Annotations").mkdir(parents=True)
    for number, text in enumerate(texts, start=32):
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "Annotations" / f"{number:06}.xml").write_bytes(data)
    return folder


def read(path: Path, split: str | None = None) -> tuple[list[Record], Problems]:
    problems = Problems()
    return list(read_voc(path, problems, split)), problems


def test_pixels_from_1_with_both_ends_become_edges(tmp_path):
    # xmin 1, xmax 500 is the whole width of 500: Detectron2's comment on VOC's boxes says the same.
    (record,), problems = read(build(tmp_path, OFFICIAL))
    assert record.image == "JPEGImages/000032.jpg"
    assert record.image_wh == (500, 281)
    assert record.regions == (RegionNote(box=Box(0, 77, 500, 183), label="person"),)
    assert record.whole == {"objects"}
    assert not problems.counts


def test_a_picture_without_objects_is_a_background(tmp_path):
    (record,), problems = read(build(tmp_path, OFFICIAL[: OFFICIAL.index("\t<object>")] + "</annotation>"))
    assert record == Record(image="JPEGImages/000032.jpg", image_wh=(500, 281), whole=frozenset({"objects"}))
    assert not problems.counts


def test_a_list_says_which_pictures_and_in_which_order(tmp_path):
    folder = build(tmp_path, OFFICIAL, OFFICIAL)
    (folder / "Annotations" / "my photo.xml").write_text(OFFICIAL)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("000033\nmy photo\n000040\n")
    (folder / "ImageSets" / "Main" / "cat_val.txt").write_text("000032 -1\n000033  1\n")  # as the lists of one class
    records, problems = read(folder, "train")
    assert [record.image for record in records] == ["JPEGImages/000033.jpg", "JPEGImages/my photo.jpg"]
    assert problems.counts == {"file not readable": 1}
    assert "000040.xml" in problems.examples["file not readable"][0]
    assert len(read(folder, "cat_val")[0]) == 2
    assert voc_parts(folder) == ("cat_val", "train")


def test_the_picture_is_that_of_the_annotation_s_own_name(tmp_path):
    # LabelImg leaves the old name inside when files are renamed.
    folder = build(tmp_path, OFFICIAL.replace("000032.jpg", r"C:\old\name.jpg"), OFFICIAL)
    (folder / "images").mkdir()
    Image.new("RGB", (500, 281)).save(folder / "images" / "000032.png")
    records, _ = read(folder)
    assert [record.image for record in records] == ["images/000032.png", "JPEGImages/000033.jpg"]


def test_xml_files_may_lie_beside_their_pictures(tmp_path):
    (tmp_path / "a.xml").write_text(OFFICIAL)
    Image.new("RGB", (500, 281)).save(tmp_path / "a.jpg")
    (record,), _ = read(tmp_path)
    assert record.image == "a.jpg"


def test_a_size_of_zero_is_asked_of_the_picture(tmp_path):
    text = OFFICIAL.replace("<width>500", "<width>0")
    folder = build(tmp_path, text)
    records, problems = read(folder)
    assert records == []
    assert problems.counts == {"image missing": 1}
    (folder / "JPEGImages").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / "000032.jpg")
    (record,), problems = read(folder)
    assert record.image_wh == (40, 30)
    assert not problems.counts


def test_odd_boxes_are_given_as_they_are_for_cleaning_to_judge(tmp_path):
    objects = "".join(
        f"<object><name>a</name><bndbox><xmin>{x0}</xmin><ymin>1</ymin><xmax>{x1}</xmax><ymax>9</ymax></bndbox></object>"
        for x0, x1 in (("0", "900"), ("5", "4"), ("9", "4.75"), ("nan", "5"), ("1e400", "5"))
    )
    (record,), problems = read(build(tmp_path, OFFICIAL[: OFFICIAL.index("\t<object>")] + objects + "</annotation>"))
    boxes = [region.box for region in record.regions]
    assert boxes[:3] == [Box(-1, 0, 900, 9), Box(4, 0, 4, 9), Box(8, 0, 4.75, 9)]
    assert math.isnan(boxes[3].x0)
    assert math.isinf(boxes[4].x0)
    assert not problems.counts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<xmin>1<", "<xmin>left<"),
        ("<xmin>1<", "<xmin>sNaN<"),
        ("<xmin>1<", "<xmin><"),
        ("<xmax>500</xmax>", ""),
        ("<name>person</name>", ""),
        ("<name>person</name>", "<name> </name>"),
    ],
)
def test_a_bad_object_is_counted_with_file_and_number(tmp_path, old, new):
    (record,), problems = read(build(tmp_path, OFFICIAL.replace(old, new, 1)))
    assert record.regions == ()
    assert problems.counts == {"entry not readable": 1}
    assert "000032.xml, object 1" in problems.examples["entry not readable"][0]


LATIN = OFFICIAL.replace("person", "café").encode("latin-1")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "entry not readable"),
        ("<annotation>", "entry not readable"),
        ("<html></html>", "entry not readable"),
        (LATIN, "text not readable"),
        ('<?xml version="1.0" encoding="klingon"?>' + OFFICIAL, "entry not readable"),
        # Ten million letters from eighty, were it read.
        (
            "<!DOCTYPE a [<!ENTITY a '" + "x" * 10 + "'>"
            "<!ENTITY b '" + "&a;" * 1000 + "'><!ENTITY c '" + "&b;" * 1000 + "'>]><annotation>&c;</annotation>",
            "entry not readable",
        ),
    ],
)
def test_a_file_that_is_no_annotation_is_counted_and_the_next_is_read(tmp_path, text, kind):
    (record,), problems = read(build(tmp_path, text, OFFICIAL))
    assert record.regions[0].label == "person"
    assert problems.counts == {kind: 1}
    assert "000032.xml" in problems.examples[kind][0]


def test_a_declared_encoding_is_used_and_unicode_stays(tmp_path):
    declared = b'<?xml version="1.0" encoding="ISO-8859-1"?>' + LATIN
    records, problems = read(build(tmp_path, declared, OFFICIAL.replace("person", "猫")))
    assert [record.regions[0].label for record in records] == ["café", "猫"]
    assert not problems.counts


def test_a_folder_without_annotations_and_a_missing_list_are_named_before_the_first_record(tmp_path):
    with pytest.raises(BadRecord, match="has no XML files"):
        read_voc(tmp_path, Problems())
    with pytest.raises(BadRecord, match="it has none"):
        read_voc(build(tmp_path, OFFICIAL), Problems(), "train")


# ---- writing


def record(image: str, *regions: RegionNote) -> Record:
    return Record(image=image, image_wh=(500, 281), regions=regions, whole=frozenset({"objects"}))


RECORDS = [
    record(
        "JPEGImages/b & c.jpg",
        RegionNote(box=Box(0, 0, 500, 281), label="a < b"),
        RegionNote(box=Box(0.1, 1 / 3, 100.7, 99.999999999), label="猫"),
    ),
    record("JPEGImages/a.png"),
]


def test_what_was_written_reads_back_exactly(tmp_path):
    path = write_voc(RECORDS, tmp_path, "train")
    assert path == tmp_path / "ImageSets" / "Main" / "train.txt"
    records, problems = read(tmp_path, "train")
    assert records == RECORDS
    assert not problems.counts


def test_edges_are_written_in_pixels_from_1_and_in_no_more_digits_than_they_have(tmp_path):
    write_voc(RECORDS, tmp_path, "train")
    tree = ElementTree.parse(tmp_path / "Annotations" / "b & c.xml").getroot()
    first, second = ([edge.text for edge in box] for box in tree.iter("bndbox"))
    assert first == ["1", "1", "500", "281"]  # by hand
    assert second[0] == "1.1"  # of 0.1
    assert tree.findtext("filename") == "b & c.jpg"
    assert [side.text for side in tree.find("size")] == ["500", "281", "3"]


def test_a_crowd_is_written_as_difficult_and_what_voc_cannot_say_left_out(tmp_path):
    triangle = (Point(1, 1), Point(9, 1), Point(9, 9))
    regions = RegionNote(polygons=(triangle,), label="cat", crowd=True), RegionNote(box=Box(1, 2, 3, 4), word="STOP")
    write_voc([record("a.jpg", *regions, RegionNote(label="nowhere"))], tmp_path, "val")
    assert "<difficult>1</difficult>" in (tmp_path / "Annotations" / "a.xml").read_text()
    (back,), _ = read(tmp_path, "val")
    assert back.regions == (RegionNote(box=Box(1, 1, 9, 9), label="cat"),)


@pytest.mark.parametrize(
    ("records", "seen"),
    [
        ([record("a.jpg", RegionNote(box=Box(0, 0, math.nan, 1), label="cat"))], "not finite"),
        ([record("x/a.jpg"), record("y/a.png")], "second picture called 'a'"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, records, seen):
    with pytest.raises(BadRecord, match=seen):
        write_voc(records, tmp_path, "train")
