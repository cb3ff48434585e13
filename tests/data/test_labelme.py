"""LabelMe's JSON files as labelme writes them: read shape by shape, written, read back."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.labelme import read_labelme, write_labelme
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

SHAPE = {
    "label": "cat",
    "points": [[10, 20], [30.5, 60]],
    "group_id": None,
    "description": "",
    "shape_type": "rectangle",
    "flags": {},
    "mask": None,
}
TRIANGLE = {"shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}


def put(path: Path, *shapes: object, **fields: object) -> Path:
    """Write one file; fields given replace the usual ones."""
    data = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": "never read"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data | {"imageHeight": 80, "imageWidth": 100} | fields, ensure_ascii=False), "utf-8")
    return path


def read(path: Path) -> tuple[list[Record], Problems]:
    problems = Problems()
    return list(read_labelme(path, problems)), problems


def regions(folder: Path, *shapes: object) -> tuple[tuple[RegionNote, ...], Problems]:
    (record,), problems = read(put(folder / "a.json", *shapes))
    return record.regions, problems


def test_a_rectangle_is_a_box_whichever_corners_it_was_drawn_by(tmp_path):
    four = [[10, 20], [30.5, 20], [30.5, 60], [10, 60]]
    kept, problems = regions(tmp_path, SHAPE, SHAPE | {"points": [[30.5, 20], [10, 60]]}, SHAPE | {"points": four})
    assert kept == (RegionNote(box=Box(10, 20, 30.5, 60), label="cat"),) * 3
    assert not problems.counts


def test_polygons_of_one_label_and_group_are_one_region(tmp_path):
    # As labelme's shapes_to_label: (label, group_id) is the instance, and None is nobody's group.
    grouped = SHAPE | TRIANGLE | {"group_id": 0}
    old = {"label": "cat", "points": [[1, 1], [9, 1], [9, 9]]}  # without a type, as before 2019
    kept, problems = regions(tmp_path, grouped, old, grouped | {"label": "dog"}, grouped, SHAPE | TRIANGLE)
    ring = (Point(1, 1), Point(9, 1), Point(9, 9))
    assert kept == (
        RegionNote(label="cat", polygons=(ring, ring)),
        RegionNote(label="cat", polygons=(ring,)),
        RegionNote(label="dog", polygons=(ring,)),
        RegionNote(label="cat", polygons=(ring,)),
    )
    assert not problems.counts


def test_a_circle_is_a_ring_around_its_centre(tmp_path):
    (region,), _ = regions(tmp_path, SHAPE | {"shape_type": "circle", "points": [[50, 40], [53, 44]]})
    (ring,) = region.polygons
    assert len(ring) == 36
    assert [math.dist(point, (50, 40)) for point in ring] == [pytest.approx(5)] * 36  # by hand: 3, 4, 5
    assert tuple(region.bounds) == pytest.approx((45, 35, 55, 45))


def test_a_description_stays(tmp_path):
    (region,), _ = regions(tmp_path, SHAPE | {"description": "the grey one"})
    assert region.description == "the grey one"


def test_a_file_without_shapes_is_a_background(tmp_path):
    (record,), problems = read(put(tmp_path / "a.json"))
    assert record == Record(image="a.jpg", image_wh=(100, 80), whole=frozenset({"objects"}))
    assert not problems.counts


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (SHAPE | {"shape_type": "line"}, "entry not readable"),
        (SHAPE | {"shape_type": "point", "points": [[1, 1]]}, "entry not readable"),
        (SHAPE | {"shape_type": "linestrip"}, "entry not readable"),
        (SHAPE | {"shape_type": "mask"}, "entry not readable"),
        (SHAPE | {"shape_type": ["polygon"]}, "entry not readable"),
        (SHAPE | {"points": [[1, 1]]}, "entry not readable"),
        (SHAPE | {"points": [[1, 1], [2]]}, "entry not readable"),
        (SHAPE | {"points": [[1, 1], [2, "3"]]}, "entry not readable"),
        (SHAPE | {"points": None}, "entry not readable"),
        (SHAPE | {"shape_type": "polygon", "points": []}, "entry not readable"),
        ({"points": [[1, 1]]}, "entry not readable"),
        ("cat", "entry not readable"),
    ],
)
def test_a_bad_shape_is_counted_with_file_and_place_and_the_next_is_read(tmp_path, shape, kind):
    kept, problems = regions(tmp_path, shape, SHAPE)
    assert [region.label for region in kept] == ["cat"]
    assert problems.counts == {kind: 1}
    assert "a.json, shapes[0]" in problems.examples[kind][0]


def test_odd_points_are_given_as_they_are_for_cleaning_to_judge(tmp_path):
    path = put(tmp_path / "a.json", SHAPE | {"points": [[5, 5], [5, 5]]}, SHAPE | {"points": [[-5, 7777], [900, 1]]})
    path.write_text(path.read_text().replace("7777", "NaN"))
    (record,), problems = read(path)
    assert record.regions[0].box == Box(5, 5, 5, 5)
    assert any(math.isnan(value) for value in record.regions[1].box)
    assert not problems.counts


def test_the_picture_s_path_starts_at_the_file_and_may_be_written_on_windows(tmp_path):
    put(tmp_path / "labels" / "a.json", imagePath="..\\images\\ü.jpg")
    put(tmp_path / "labels" / "b.json", imagePath="b.jpg")
    put(tmp_path / "c.json", imagePath="../c.jpg")
    records, _ = read(tmp_path)
    assert [record.image for record in records] == ["../c.jpg", "images/ü.jpg", "labels/b.jpg"]


def test_a_size_that_is_not_stated_is_asked_of_the_picture(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    put(tmp_path / "a.json", imageHeight=None, imageWidth=None)
    put(tmp_path / "b.json", imageWidth=0, imagePath="gone.jpg")
    (record,), problems = read(tmp_path)
    assert record.image_wh == (40, 30)
    assert problems.counts == {"image missing": 1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", "entry not readable"),
        (b"{", "entry not readable"),
        (b"[" * 100_000, "entry not readable"),
        (b"[]", "entry not readable"),
        (b'{"shapes": [], "imagePath": 5}', "entry not readable"),
        (b'{"imagePath": "a.jpg"}', "entry not readable"),
        (b'{"shapes": [], "imagePath": "\\ud800.jpg", "imageWidth": 5, "imageHeight": 5}', "text not readable"),
        ('{"shapes": [], "imagePath": "é.jpg"}'.encode("latin-1"), "text not readable"),
    ],
)
def test_a_file_that_is_no_annotation_is_counted_and_the_next_is_read(tmp_path, text, kind):
    (tmp_path / "0.json").write_bytes(text)
    put(tmp_path / "a.json", SHAPE)
    (record,), problems = read(tmp_path)
    assert record.image == "a.jpg"
    assert problems.counts == {kind: 1}
    assert "0.json" in problems.examples[kind][0]


def test_a_label_of_half_a_letter_is_counted(tmp_path):
    path = put(tmp_path / "a.json", SHAPE | {"label": "HALF"}, SHAPE | {"label": "猫"})
    path.write_text(path.read_text("utf-8").replace("HALF", "\\ud800"), "utf-8")
    (record,), problems = read(path)
    assert [region.label for region in record.regions] == ["猫"]
    assert problems.counts == {"text not readable": 1}


def test_a_folder_without_files_is_named_before_the_first_record(tmp_path):
    with pytest.raises(BadRecord, match="has no JSON file"):
        read_labelme(tmp_path, Problems())
    with pytest.raises(BadRecord, match=r"none\.json has no JSON file"):
        read_labelme(tmp_path / "none.json", Problems())


# ---- writing


def record(image: str, *notes: RegionNote) -> Record:
    return Record(image=image, image_wh=(100, 80), regions=notes, whole=frozenset({"objects"}))


RING = (Point(1 / 3, 1), Point(9, 1), Point(9, 9.7))


def test_what_was_written_reads_back_exactly(tmp_path):
    two = RegionNote(label="猫", polygons=(RING, RING[::-1]))
    records = [
        record("a.jpg", RegionNote(box=Box(0.1, 1, 2, 3), label="cat", description="grey"), two, two),
        record("sub/b c.png", RegionNote(label="猫", polygons=(RING,))),
        record("sub/empty.jpg"),
    ]
    assert write_labelme(records, tmp_path) == tmp_path
    back, problems = read(tmp_path)
    assert back == records
    assert not problems.counts


def test_crowds_and_regions_without_label_are_left_out(tmp_path):
    box = Box(1, 2, 3, 4)
    notes = RegionNote(box=box, label="cat", crowd=True), RegionNote(box=box, word="STOP"), RegionNote(label="cat")
    write_labelme([record("a.jpg", *notes)], tmp_path)
    assert read(tmp_path)[0] == [record("a.jpg")]


@pytest.mark.parametrize(
    ("records", "seen"),
    [
        ([record("a.jpg", RegionNote(box=Box(0, 0, math.nan, 1), label="cat"))], "not finite"),
        ([record("a.jpg", RegionNote(polygons=((Point(0, math.inf), *RING),), label="cat"))], "not finite"),
        ([record("a.jpg"), record("a.png")], "second picture"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, records, seen):
    with pytest.raises(BadRecord, match=seen):
        write_labelme(records, tmp_path)


def test_a_path_never_leaves_the_folder(tmp_path):
    write_labelme([record("/elsewhere/a.jpg"), record("../../b.jpg")], tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a.json", "b.json"]
