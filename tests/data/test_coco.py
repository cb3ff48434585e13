"""COCO files as the data format page of COCO lays them out: read, judged entry by entry, written, read back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as library
from pycocotools.coco import COCO

from openflorence.contract.records import Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.coco import read_coco, ring_area, trace_mask, write_coco
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

IMAGE = {"id": 139, "file_name": "000000000139.jpg", "width": 64, "height": 48}
CATEGORIES = [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
BOX = {"id": 1768, "image_id": 139, "category_id": 90, "bbox": [10, 20, 30.5, 8], "area": 244, "iscrowd": 0}


def put(folder: Path, annotations: list, images: list | None = None, categories: list | None = None) -> Path:
    """Write an instances file."""
    data = {"info": {"year": 2017}, "licenses": [], "images": images or [IMAGE], "annotations": annotations}
    path = folder / "instances.json"
    path.write_text(json.dumps(data | {"categories": categories or CATEGORIES}), encoding="utf-8")
    return path


def read(path: Path) -> tuple[list[Record], Problems]:
    problems = Problems()
    return list(read_coco(path, problems)), problems


def regions(folder: Path, *annotations: dict) -> tuple[tuple[RegionNote, ...], Problems]:
    """What one image's annotations become; fields not given are BOX's."""
    (record,), problems = read(put(folder, [BOX | annotation for annotation in annotations]))
    return record.regions, problems


def test_x_y_width_height_become_corners_and_ids_with_holes_become_names(tmp_path):
    # Data format page: bbox is [x, y, width, height]; ids of the 80 categories run to 90.
    (record,), problems = read(put(tmp_path, [BOX]))
    assert record.image == "000000000139.jpg"
    assert record.image_wh == (64, 48)
    assert record.regions == (RegionNote(box=Box(10, 20, 40.5, 28), label="toothbrush"),)
    assert record.whole == {"objects"}
    assert not problems.counts


def test_an_image_without_annotations_promises_that_nothing_is_there(tmp_path):
    (record, empty), _ = read(put(tmp_path, [BOX], [IMAGE, IMAGE | {"id": 7, "file_name": "b.jpg"}]))
    assert record.regions
    assert empty == Record(image="b.jpg", image_wh=(64, 48), whole=frozenset({"objects"}))


def test_polygons_are_rings_and_a_closing_vertex_goes(tmp_path):
    flat = [[10, 20, 30, 20, 30, 28], [40, 20, 44, 20, 44, 24, 40, 20]]
    (region,), problems = regions(tmp_path, {"segmentation": flat})
    assert region.polygons == (
        (Point(10, 20), Point(30, 20), Point(30, 28)),
        (Point(40, 20), Point(44, 20), Point(44, 24)),
    )
    assert not problems.counts


@pytest.mark.parametrize("form", ["counts as numbers", "counts as text"])
def test_a_run_length_mask_becomes_the_outline_of_its_pixels(tmp_path, form):
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[20:28, 10:40] = 1
    mask[3:5, 50:51] = 1
    coded = library.encode(mask)
    counts: object = coded["counts"].decode()
    if form == "counts as numbers":
        # By hand: runs down the columns of a 48 x 64 picture, first of 0.
        counts = [10 * 48 + 20] + [8, 40] * 29 + [8, 11 * 48 - 28 + 3, 2, 14 * 48 - 5]
    (region,), problems = regions(tmp_path, {"segmentation": {"size": [48, 64], "counts": counts}, "iscrowd": 1})
    assert not problems.counts
    assert region.crowd
    # Clockwise as seen: from a corner on, y is downwards.
    large, small = region.polygons
    assert set(large) == {Point(10, 20), Point(40, 20), Point(40, 28), Point(10, 28)}
    assert set(small) == {Point(50, 3), Point(51, 3), Point(51, 5), Point(50, 5)}
    start = large.index(Point(10, 20))
    assert (large * 2)[start + 1] == Point(40, 20)


def test_a_traced_mask_fills_exactly_its_pixels_again():
    # The filling is pycocotools', which counts a pixel as COCO's own evaluation does.
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    for _ in range(20):
        mask = np.zeros((60, 80), np.uint8)
        for _ in range(3):
            x, y, radius = rng.uniform(15, 65), rng.uniform(15, 45), rng.uniform(2, 14)
            mask |= ((columns - x) ** 2 + 2 * (rows - y) ** 2 < radius**2).astype(np.uint8)
        flat = [[value for point in ring for value in point] for ring in trace_mask(mask)]
        filled = library.decode(library.merge(library.frPyObjects(flat, 60, 80)))
        assert (filled != mask).sum() == 0


def test_a_hole_is_filled_and_an_empty_mask_has_no_ring():
    mask = np.ones((9, 9), np.uint8)
    mask[3:6, 3:6] = 0
    (ring,) = trace_mask(mask)
    assert ring_area(ring) == 81
    assert trace_mask(np.zeros((4, 4), np.uint8)) == ()


@pytest.mark.parametrize(
    "coded",
    [
        {"size": [64, 48], "counts": [64 * 48]},  # of another image
        {"size": [48, 64], "counts": [5, 5]},  # too short
        {"size": [48, 64], "counts": [-5, 48 * 64 + 5]},
        {"size": [48, 64], "counts": ""},
        {"size": [48, 64], "counts": "abc"},
        {"size": [48, 64], "counts": None},
        {"size": [48, 64]},
        {},
        [[1, 2, 3]],
        [["a", "b"]],
        [[1, 2, 3, 4, 5, 10**400]],
        [[1, 2, 3, 4, 5, True]],
        "abc",
    ],
)
def test_a_broken_segmentation_is_counted_and_the_box_stays(tmp_path, coded):
    (region,), problems = regions(tmp_path, {"segmentation": coded})
    assert region.box == Box(10, 20, 40.5, 28)
    assert region.polygons == ()
    assert problems.counts == ({"entry not readable": 1} if coded else {})


def test_a_segmentation_without_a_box_is_enough(tmp_path):
    triangle = ((Point(1, 1), Point(9, 1), Point(9, 9)),)
    (region,), problems = regions(tmp_path, {"bbox": [], "segmentation": [[1, 1, 9, 1, 9, 9]]})
    assert region == RegionNote(label="toothbrush", polygons=triangle)
    assert not problems.counts


def test_odd_boxes_are_given_as_they_are_for_cleaning_to_judge(tmp_path):
    path = put(tmp_path, [BOX | {"bbox": box} for box in ([60, 40, 10, 10], [5, 5, 0, 3], [5, 5, -2, 3], [1, 2, 3, 4])])
    path.write_text(path.read_text().replace("[1, 2, 3, 4]", "[NaN, 2, Infinity, 4]"))
    (record,), problems = read(path)
    boxes = [region.box for region in record.regions]
    assert boxes[:3] == [Box(60, 40, 70, 50), Box(5, 5, 5, 8), Box(5, 5, 3, 8)]
    assert math.isnan(boxes[3].x0)
    assert not problems.counts


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ({"category_id": 2}, "unknown category"),
        ({"category_id": None}, "unknown category"),
        ({"category_id": [90]}, "unknown category"),
        ({"image_id": 140}, "unknown image"),
        ({"image_id": None}, "unknown image"),
        ({"image_id": {}}, "unknown image"),
        ({"bbox": [1, 2, 3]}, "entry not readable"),
        ({"bbox": [1, 2, "3", 4]}, "entry not readable"),
        ({"bbox": [1, 2, 10**400, 4]}, "entry not readable"),
        ({"bbox": "all of it"}, "entry not readable"),
        ({"bbox": None}, "entry not readable"),
        ({"caption": 3}, "text not readable"),
        ({"caption": "\ud800"}, "text not readable"),
    ],
)
def test_a_bad_annotation_is_counted_with_file_and_entry_and_the_next_is_read(tmp_path, annotation, kind):
    kept, problems = regions(tmp_path, annotation, {})
    assert kept == (RegionNote(box=Box(10, 20, 40.5, 28), label="toothbrush"),)
    assert problems.counts == {kind: 1}
    assert str(tmp_path / "instances.json") in problems.examples[kind][0]


def test_an_annotation_that_is_no_object_is_counted(tmp_path):
    (record,), problems = read(put(tmp_path, [5, BOX]))
    assert len(record.regions) == 1
    assert problems.counts == {"entry not readable": 1}


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ({"id": 139, "file_name": "other.jpg"}, "doubled entry"),
        ({"id": 1, "width": None}, "entry not readable"),
        ({"id": 1, "height": 0}, "entry not readable"),
        ({"id": 1, "height": 4.5}, "entry not readable"),
        ({"id": None}, "entry not readable"),
        ({"id": 1, "file_name": ""}, "entry not readable"),
        ({"id": 1, "file_name": "\udce9.jpg"}, "text not readable"),
    ],
)
def test_a_bad_image_entry_is_counted_and_the_first_stays(tmp_path, image, kind):
    (record,), problems = read(put(tmp_path, [BOX], [IMAGE, IMAGE | image]))
    assert record.image == "000000000139.jpg"
    assert len(record.regions) == 1
    assert problems.counts == {kind: 1}


def test_annotations_of_an_image_that_was_left_out_are_not_counted_again(tmp_path):
    records, problems = read(put(tmp_path, [BOX], [IMAGE | {"width": None}]))
    assert records == []
    assert problems.counts == {"entry not readable": 1}


def test_unicode_names_stay_and_a_latin_1_name_costs_only_its_own_regions(tmp_path):
    categories = [{"id": 1, "name": "café"}, {"id": 2, "name": "猫"}]
    path = put(tmp_path, [BOX | {"category_id": 1}, BOX | {"category_id": 2}], categories=categories)
    whole = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    path.write_text(whole, encoding="utf-8-sig")
    (record,), problems = read(path)
    assert [region.label for region in record.regions] == ["café", "猫"]
    assert not problems.counts
    path.write_bytes(whole.encode().replace("é".encode(), b"\xe9"))
    (record,), problems = read(path)
    assert [region.label for region in record.regions] == ["猫"]
    assert problems.counts == {"text not readable": 1, "unknown category": 1}


def test_doubled_and_broken_categories_are_counted(tmp_path):
    categories = [*CATEGORIES, {"id": 90, "name": "brush"}, {"name": "no id"}, {"id": 5, "name": 5}, "cat"]
    (record,), problems = read(put(tmp_path, [BOX], categories=categories))
    assert record.regions[0].label == "toothbrush"
    assert problems.counts == {"doubled entry": 1, "entry not readable": 3}


def test_a_captions_file_gives_brief_texts_and_promises_nothing(tmp_path):
    captions = [{"id": 3, "image_id": 139, "caption": "A toothbrush."}, {"id": 4, "image_id": 139, "caption": "Pink."}]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [IMAGE, IMAGE | {"id": 1}], "annotations": captions}))
    (record, bare), problems = read(path)
    assert record.texts == (TextNote(text="A toothbrush."), TextNote(text="Pink."))
    assert record.whole == bare.whole == frozenset()
    assert not problems.counts


def test_a_caption_with_a_box_describes_the_region(tmp_path):
    (region,), _ = regions(tmp_path, {"caption": "a pink toothbrush"})
    assert (region.label, region.description) == ("toothbrush", "a pink toothbrush")


def test_keypoints_are_read_as_the_boxes_of_their_people(tmp_path):
    (region,), problems = regions(tmp_path, {"category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0})
    assert region == RegionNote(box=Box(10, 20, 40.5, 28), label="person")
    assert not problems.counts


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "as results do"),
        ("5", "has int"),
        ('{"images": [], "questions": []}', "'questions'"),
        ('{"images": {}, "annotations": []}', "'images'"),
        ('{"images": [], "annotations": [{"segments_info": []}]}', "panoptic"),
    ],
)
def test_a_file_that_is_none_is_named_before_the_first_record(tmp_path, text, seen):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadRecord, match=seen) as caught:
        read_coco(path, Problems())
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadRecord, match=r"none\.json cannot be read"):
        read_coco(tmp_path / "none.json", Problems())


# ---- writing

RECORDS = [
    Record(
        image="猫/a b.jpg",
        image_wh=(64, 48),
        texts=(TextNote(text="Two cats."),),
        regions=(
            RegionNote(box=Box(1, 2, 11.5, 22), label="cat", score=0.5, description="the grey one"),
            RegionNote(
                box=Box(0, 0, 20, 10),
                label="ant",
                crowd=True,
                polygons=((Point(0, 0), Point(20, 0), Point(20, 10)), (Point(0, 5), Point(5, 5), Point(5, 10))),
            ),
        ),
        whole=frozenset({"objects"}),
    ),
    Record(image="empty.jpg", image_wh=(5, 6), whole=frozenset({"objects"})),
]


def test_what_was_written_reads_back_the_same(tmp_path):
    records, problems = read(write_coco(RECORDS, tmp_path / "new" / "coco.json"))
    assert records == RECORDS
    assert not problems.counts
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["coco.json"]


def test_captions_alone_read_back_the_same_and_promise_nothing(tmp_path):
    record = Record(image="a.jpg", image_wh=(5, 6), texts=(TextNote(text="Nothing."), TextNote(text="At all.")))
    assert read(write_coco([record], tmp_path / "a.json"))[0] == [record]


def test_pycocotools_reads_what_was_written(tmp_path):
    seen = COCO(write_coco(RECORDS, tmp_path / "coco.json"))
    assert sorted(seen.anns) == [1, 2, 3]
    assert {number: entry["name"] for number, entry in seen.cats.items()} == {1: "ant", 2: "cat"}
    (cat,) = seen.loadAnns(seen.getAnnIds(catIds=[2]))
    assert cat["bbox"] == [1, 2, 10.5, 20]
    assert cat["area"] == 210  # by hand: 10.5 x 20
    (ants,) = seen.loadAnns(seen.getAnnIds(catIds=[1]))
    assert ants["area"] == 112.5  # by hand: triangles of 100 and 12.5
    assert ants["iscrowd"] == 1


def test_what_coco_has_no_place_for_is_left_out(tmp_path):
    record = Record(
        image="a.jpg",
        image_wh=(64, 48),
        texts=(TextNote(text="Long.", level="detailed"),),
        regions=(
            RegionNote(box=Box(1, 2, 3, 4), word="STOP"),
            RegionNote(label="cat"),
            RegionNote(label="cat", polygons=((Point(1, 1), Point(9, 1), Point(9, 9)),)),
        ),
    )
    (back,), _ = read(write_coco([record], tmp_path / "a.json"))
    assert back.texts == ()
    assert [region.box for region in back.regions] == [Box(1, 1, 9, 9)]


def test_a_coordinate_that_is_not_finite_is_not_written(tmp_path):
    record = Record(image="a.jpg", image_wh=(5, 5), regions=(RegionNote(box=Box(0, 0, math.nan, 1), label="a"),))
    with pytest.raises(BadRecord, match="not finite"):
        write_coco([record], tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
