"""YOLO data sets in the layouts of Ultralytics and Roboflow: read line by line, written, read back."""

import math
from pathlib import Path

import pytest
import yaml
from PIL import Image

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.problems import Problems
from openflorence.data.yolo import join_rings, label_file, read_yolo, write_yolo, yolo_parts
from openflorence.errors import BadRecord

NAMES = "names:\n  0: cat\n  2: 猫\n"


def picture(path: Path, image_wh: tuple[int, int] = (200, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", image_wh).save(path)
    return path


def build(folder: Path, lines: str | bytes | None, config: str = "train: images/train\n" + NAMES) -> Path:
    """Write Ultralytics' layout with one labelled picture of 200 x 100 and one without a label file."""
    picture(folder / "images" / "train" / "a.png")
    picture(folder / "images" / "train" / "sub" / "b.JPG")
    (folder / "data.yaml").write_text(config, encoding="utf-8")
    if lines is not None:
        (folder / "labels" / "train").mkdir(parents=True)
        (folder / "labels" / "train" / "a.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    return folder


def read(path: Path, split: str | None = None) -> tuple[list[Record], Problems]:
    problems = Problems()
    return list(read_yolo(path, problems, split)), problems


def lines(folder: Path, text: str, config: str = "train: images/train\n" + NAMES) -> tuple[list[RegionNote], Problems]:
    """What the lines of one label file become."""
    records, problems = read(build(folder, text, config))
    return list(records[0].regions), problems


def test_centre_and_size_in_shares_of_the_picture_become_corners(tmp_path):
    # Ultralytics' guide: class x_center y_center width height, divided by width and height. By hand for 200 x 100.
    (labelled, bare), problems = read(build(tmp_path, "2 0.5 0.5 0.25 0.5\n"))
    assert labelled.image == "images/train/a.png"
    assert labelled.image_wh == (200, 100)
    assert labelled.regions == (RegionNote(box=Box(75, 25, 125, 75), label="猫"),)
    assert bare == Record(image="images/train/sub/b.JPG", image_wh=(200, 100), whole=frozenset({"objects"}))
    assert labelled.whole == {"objects"}
    assert not problems.counts


def test_outlines_and_boxes_may_stand_in_one_file(tmp_path):
    regions, problems = lines(tmp_path, "0 0.1 0.1 0.3 0.1 0.3 0.6\n\n0 .5 .5 .5 .5\n0 0 0 1 0 1 1 0 1 0 0\n")
    assert regions == [
        RegionNote(label="cat", polygons=((Point(20, 10), Point(60, 10), Point(60, 60)),)),
        RegionNote(label="cat", box=Box(50, 25, 150, 75)),
        RegionNote(label="cat", polygons=((Point(0, 0), Point(200, 0), Point(200, 100), Point(0, 100)),)),
    ]
    assert not problems.counts


def test_keypoints_behind_a_box_are_not_taken_for_an_outline(tmp_path):
    config = "train: images/train\nkpt_shape: [1, 2]\n" + NAMES
    regions, problems = lines(tmp_path, "0 0.5 0.5 0.25 0.5 0.9 0.9\n", config)
    assert regions == [RegionNote(box=Box(75, 25, 125, 75), label="cat")]
    assert not problems.counts


def test_odd_boxes_are_given_as_they_are_for_cleaning_to_judge(tmp_path):
    regions, problems = lines(tmp_path, "0 1 1 0.5 0.5\n0 0.5 0.5 0 0.5\n0 0.5 0.5 -0.5 0.5\n0 nan 0.5 0.5 0.5\n")
    assert [region.box for region in regions[:3]] == [
        Box(150, 75, 250, 125),
        Box(100, 25, 100, 75),
        Box(150, 25, 50, 75),
    ]
    assert math.isnan(regions[3].box.x0)
    assert not problems.counts


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("1 0.5 0.5 0.5 0.5", "unknown category"),  # ids with a hole
        ("-1 0.5 0.5 0.5 0.5", "unknown category"),
        ("0.5 0.5 0.5 0.5 0.5", "entry not readable"),
        ("nan 0.5 0.5 0.5 0.5", "entry not readable"),
        ("0 0.5 0.5 0.5", "entry not readable"),
        ("0 0.5 0.5 0.5 0.5 0.9", "entry not readable"),  # a box and a confidence: a prediction, no label
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "entry not readable"),
        ("cat 0.5 0.5 0.5 0.5", "entry not readable"),
        ("0", "entry not readable"),
        ("2  0.5 0.5 0.5  0.5", "doubled entry"),
    ],
)
def test_a_bad_line_is_counted_with_file_and_line_and_the_next_is_read(tmp_path, line, kind):
    regions, problems = lines(tmp_path, f"2 0.5 0.5 0.5 0.5\n{line}\n0 0.5 0.5 0.5 0.5\n")
    assert [region.label for region in regions] == ["猫", "cat"]
    assert problems.counts == {kind: 1}
    assert f"a.txt:2: {line}" in problems.examples[kind][0]


def test_a_label_file_that_is_no_text_makes_no_background(tmp_path):
    records, problems = read(build(tmp_path, b"0 0.5 0.5 0.5 0.5 \xe9\n"))
    assert [record.image for record in records] == ["images/train/sub/b.JPG"]
    assert problems.counts == {"text not readable": 1}


def test_an_empty_label_file_is_a_background(tmp_path):
    records, problems = read(build(tmp_path, ""))
    assert [record.regions for record in records] == [(), ()]
    assert not problems.counts


def test_missing_and_broken_pictures_are_counted(tmp_path):
    folder = build(tmp_path, "0 0.5 0.5 0.5 0.5")
    (folder / "images" / "train" / "sub" / "b.JPG").write_bytes(b"no picture")
    (folder / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.5 0.5")
    (folder / "labels" / "train" / "classes.txt").write_text("cat\n")
    records, problems = read(folder)
    assert [record.image for record in records] == ["images/train/a.png"]
    assert problems.counts == {"image missing": 1, "image not readable": 1}
    assert "gone.txt" in problems.examples["image missing"][0]


def test_names_are_texts_whatever_yaml_makes_of_them(tmp_path):
    # YAML 1.1 reads no as false and 1e3 as a number.
    regions, _ = lines(tmp_path, "0 .5 .5 .5 .5\n1 .5 .5 .5 .5", "train: images/train\nnc: 2\nnames: [no, 1e3]\n")
    assert [region.label for region in regions] == ["no", "1e3"]


def test_a_latin_1_name_costs_only_its_own_regions(tmp_path):
    folder = build(tmp_path, "0 .5 .5 .5 .5\n1 .5 .5 .5 .5")
    (folder / "data.yaml").write_bytes(b"train: images/train\nnames: [caf\xe9, cat]\n")
    records, problems = read(folder)
    assert [region.label for region in records[0].regions] == ["cat"]
    assert problems.counts == {"text not readable": 1, "unknown category": 1}


def test_roboflow_s_layout_is_found_by_its_own_wrong_paths(tmp_path):
    # Roboflow's export: train/images beside train/labels, and ../train/images in the data.yaml beside them.
    for part in ("train", "valid"):
        picture(tmp_path / part / "images" / f"{part}.jpg")
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / f"{part}.txt").write_text("0 0.5 0.5 1 1")
    config = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cell']\n"
    (tmp_path / "data.yaml").write_text(config)
    assert yolo_parts(tmp_path) == ("train", "val")
    (record,), problems = read(tmp_path, "val")
    assert record.image == "valid/images/valid.jpg"
    assert record.regions == (RegionNote(box=Box(0, 0, 200, 100), label="cell"),)
    assert len(read(tmp_path)[0]) == 2
    assert not problems.counts


def test_a_part_may_be_several_folders_or_a_list_and_the_path_that_of_another_machine(tmp_path):
    folder = build(tmp_path, "0 0.5 0.5 0.5 0.5")
    picture(folder / "more" / "c.png")
    (folder / "more" / "c.txt").write_text("0 0.5 0.5 0.5 0.5")  # the older layout: in one folder
    (folder / "list.txt").write_text("./images/train/a.png\n\nimages/train/gone.png\n")
    (folder / "data.yaml").unlink()
    config = "path: /home/author/set\ntrain: [images/train, more]\nval: list.txt\ntest:\n" + NAMES
    (folder / "blood.yaml").write_text(config, encoding="utf-8")
    records, problems = read(folder, "train")
    assert [(record.image, len(record.regions)) for record in records] == [
        ("images/train/a.png", 1),
        ("images/train/sub/b.JPG", 0),
        ("more/c.png", 1),
    ]
    assert not problems.counts
    records, problems = read(folder, "val")
    assert [record.image for record in records] == ["images/train/a.png"]
    assert problems.counts == {"image missing": 1}


def test_the_last_folder_of_images_is_the_one_with_labels_beside_it():
    # img2label_paths of Ultralytics, by hand.
    assert label_file(Path("/images/set/images/train/a.b.jpg")) == Path("/images/set/labels/train/a.b.txt")
    assert label_file(Path("pictures/a.jpg")) == Path("pictures/a.txt")


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ("", "holds None"),
        ("- a\n- b\n", "holds"),
        ("names: [cat\n", "is no YAML"),
        ("train: images/train\nnc: 3\n", "has no 'names'"),
        ("train: images/train\nnames: []\n", "has no 'names'"),
        ("train: elsewhere\nnames: [cat]\n", "has no part train"),
        ("train: images/train\nnames: [cat]\n", "none has a label file"),
    ],
)
def test_a_set_that_cannot_be_read_is_named_before_the_first_record(tmp_path, config, seen):
    folder = build(tmp_path, None, config)
    with pytest.raises(BadRecord, match=seen) as caught:
        read_yolo(folder / "data.yaml", Problems(), "train")
    assert str(folder / "data.yaml") in str(caught.value)


def test_a_missing_data_yaml_and_a_missing_part_are_named(tmp_path):
    with pytest.raises(BadRecord, match="has no data"):
        read_yolo(tmp_path, Problems())
    with pytest.raises(BadRecord, match=r"data\.yaml cannot be read"):
        read_yolo(tmp_path / "data.yaml", Problems())
    with pytest.raises(BadRecord, match="has no part test: it has train"):
        read_yolo(build(tmp_path, ""), Problems(), "test")


# ---- writing

SQUARE = (Point(10, 10), Point(20, 10), Point(20, 20), Point(10, 20))
FAR = (Point(40, 40), Point(50, 40), Point(50, 50), Point(40, 50))


def record(image: str, *regions: RegionNote) -> Record:
    return Record(image=image, image_wh=(200, 100), regions=regions, whole=frozenset({"objects"}))


def near(value: object) -> object:
    return pytest.approx(value, abs=1e-6)


def test_boxes_and_outlines_read_back_to_a_millionth_of_a_pixel(tmp_path):
    box = Box(1 / 3, 2 / 7, 100.123456789, 99.9)
    records = [
        record("images/train/a.png", RegionNote(box=box, label="no"), RegionNote(box=Box(0, 0, 200, 100), label="猫")),
        record("images/train/b.png", RegionNote(polygons=(SQUARE,), label='"x": {y}')),
        record("images/train/c.png"),
    ]
    for kept in records:
        picture(tmp_path / kept.image)
    path = write_yolo(records, tmp_path, "train", ["猫", "no", '"x": {y}'])
    back, problems = read(path)
    assert not problems.counts
    assert [(kept.image, [region.label for region in kept.regions]) for kept in back] == [
        ("images/train/a.png", ["no", "猫"]),
        ("images/train/b.png", ['"x": {y}']),
        ("images/train/c.png", []),
    ]
    assert [tuple(region.box) for region in back[0].regions] == [near(tuple(box)), near((0, 0, 200, 100))]
    (ring,) = back[1].regions[0].polygons
    assert [tuple(point) for point in ring] == [near(tuple(point)) for point in SQUARE]


def test_the_data_yaml_names_every_part_written_so_far_and_no_path(tmp_path):
    # Ultralytics takes a path that exists from where it runs: "." would be its own folder. Without one: the file's.
    write_yolo([record("a.jpg")], tmp_path, "train", ["cat"])
    path = write_yolo([record("sub/a.jpg")], tmp_path, "val", ["cat"])
    expected = {"train": "images/train", "val": "images/val", "names": {0: "cat"}}
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == expected
    assert (tmp_path / "labels" / "train" / "a.txt").read_text() == ""
    assert (tmp_path / "labels" / "val" / "sub" / "a.txt").is_file()


def test_a_picture_with_both_kinds_gets_boxes_alone(tmp_path):
    # verify_image_label of Ultralytics takes every line for an outline as soon as one has more than six columns.
    both = record("a.jpg", RegionNote(polygons=(SQUARE,), label="cat"), RegionNote(box=Box(0, 0, 100, 50), label="cat"))
    write_yolo([both], tmp_path, "train", ["cat"])
    text = (tmp_path / "labels" / "train" / "a.txt").read_text()
    assert text == "0 0.075 0.15 0.05 0.1\n0 0.25 0.25 0.5 0.5\n"  # by hand


def test_rings_of_one_region_are_joined_by_a_seam(tmp_path):
    joined = join_rings([SQUARE, FAR])
    # By hand: (20, 20) and (40, 40) are nearest; the seam runs there and back, so no area is won or lost.
    assert joined == (*SQUARE[:3], *FAR, FAR[0], *SQUARE[2:])
    assert join_rings([SQUARE]) == SQUARE


def test_crowds_and_regions_without_label_are_left_out(tmp_path):
    box = Box(0, 0, 100, 50)
    crowd = RegionNote(box=box, label="cat", crowd=True)
    write_yolo([record("a.jpg", crowd, RegionNote(box=box, word="STOP"), RegionNote(label="cat"))], tmp_path, "val", [])
    assert (tmp_path / "labels" / "val" / "a.txt").read_text() == ""


@pytest.mark.parametrize(
    ("records", "seen"),
    [
        ([record("a.jpg", RegionNote(box=Box(0, 0, 1, 1), label="dog"))], "'dog' is none of cat"),
        ([record("a.jpg", RegionNote(box=Box(0, 0, math.inf, 1), label="cat"))], "not finite"),
        ([record("a.jpg"), record("a.png")], "second picture"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, records, seen):
    with pytest.raises(BadRecord, match=seen):
        write_yolo(records, tmp_path, "train", ["cat"])


def test_a_path_never_leaves_the_folder(tmp_path):
    write_yolo([record("/elsewhere/a.jpg"), record("../../b.jpg")], tmp_path / "set", "train", ["cat"])
    assert sorted(path.name for path in (tmp_path / "set" / "labels" / "train").iterdir()) == ["a.txt", "b.txt"]
