"""Referring expressions in the layouts of the refer tool and of MDETR."""

import json
import subprocess
import sys

import pytest

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.problems import Problems
from openflorence.data.refer import read_refer, write_refer
from openflorence.errors import BadRecord

IMAGE = "COCO_train2014_000000581857.jpg"
# The layout of the distributed files; a ref's file_name carries the number of its annotation.
INSTANCES = {
    "images": [{"id": 581857, "file_name": IMAGE, "width": 640, "height": 427, "license": 1, "coco_url": ""}],
    "annotations": [
        {
            "id": 1719310,
            "image_id": 581857,
            "category_id": 1,
            "bbox": [103.5, 299.0, 134.25, 122.0],
            "area": 1.0,
            "iscrowd": 0,
            "segmentation": [[103.5, 299, 237.75, 299, 237.75, 421], [110, 300, 120, 300, 120, 310, 110, 310]],
        },
        {"id": 17, "image_id": 581857, "category_id": 18, "bbox": [0, 0, 10, 20], "segmentation": [], "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 18, "name": "dog"}],
}


def ref(number, annotation, said, split="train", **other):
    sentences = [
        {"tokens": text.split(), "raw": text.upper(), "sent_id": 10 * number + place, "sent": text}
        for place, text in enumerate(said)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation,
        "category_id": 1,
        "image_id": 581857,
        "split": split,
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "sentences": sentences,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
    } | other


REFS = [
    ref(0, 1719310, ["the lady with the blue shirt", "lady w back to us"]),
    ref(1, 17, ["dog 狗"], "testA"),
    ref(2, 1719310, ["her"], "testB"),
    ref(3, 17, ["the only dog"], "val"),
]


def write(folder, refs=REFS, instances=INSTANCES, name="refs(unc).p", protocol=0):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
    if name.endswith(".json"):
        (folder / name).write_text(json.dumps(refs), encoding="utf-8")
    else:  # real bytes, from Python's own pickle in a process of its own
        code = (
            f"import pickle, json, sys; sys.stdout.buffer.write(pickle.dumps(json.loads(sys.stdin.read()), {protocol}))"
        )
        data = json.dumps(refs).encode()
        run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
        (folder / name).write_bytes(run.stdout)
    return folder


# By hand from INSTANCES: x1 = 103.5 + 134.25, y1 = 299 + 122.
LADY = RegionNote(
    box=Box(103.5, 299, 237.75, 421),
    polygons=(
        (Point(103.5, 299), Point(237.75, 299), Point(237.75, 421)),
        (Point(110, 300), Point(120, 300), Point(120, 310), Point(110, 310)),
    ),
    label="person",
    expressions=("the lady with the blue shirt", "lady w back to us", "her"),
)
DOG = RegionNote(box=Box(0, 0, 10, 20), label="dog", expressions=("dog 狗", "the only dog"))


@pytest.mark.parametrize("name", ["refs(unc).p", "refs(google).json", "refs.json"])
@pytest.mark.parametrize("protocol", [0, 2])
def test_the_refs_of_an_image_are_one_record(tmp_path, name, protocol):
    problems = Problems()
    (record,) = read_refer(write(tmp_path / "refcoco", name=name, protocol=protocol), problems)
    assert record == Record(image=IMAGE, image_wh=(640, 427), regions=(LADY, DOG))
    assert not problems.counts


def said(folder, split):
    regions = [note for record in read_refer(folder, Problems(), split) for note in record.regions]
    return sorted(text for note in regions for text in note.expressions)


def test_a_split_is_what_the_refer_tool_takes_for_it(tmp_path):
    refs = [*REFS, ref(4, 17, ["of refclef"], "testAB")]
    folder = write(tmp_path / "refcoco", refs)
    assert said(folder, "train") == ["lady w back to us", "the lady with the blue shirt"]
    assert said(folder, "val") == ["the only dog"]
    assert said(folder, "testA") == ["dog 狗", "of refclef"]
    assert said(folder, "testB") == ["her", "of refclef"]
    assert said(folder, "test") == ["dog 狗", "her", "of refclef"]


def test_who_split_it_must_be_said_when_there_are_two(tmp_path):
    folder = write(tmp_path / "refcoco", REFS[:1], name="refs(google).p")
    write(folder, REFS[1:], name="refs(unc).p")
    with pytest.raises(BadRecord, match=r"refs\(google\)\.p, refs\(unc\)\.p.*by="):
        list(read_refer(folder, Problems()))
    (record,) = read_refer(folder, Problems(), by="google")
    assert record.regions[0].expressions == LADY.expressions[:2]


@pytest.mark.parametrize("place", ["images/mscoco/images/train2014", "refcoco/train2014", "elsewhere"])
def test_images_are_found_where_the_refer_tool_has_them(tmp_path, place):
    folder = write(tmp_path / "refcoco")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / IMAGE).touch()
    images = tmp_path / place if place == "elsewhere" else None
    (record,) = read_refer(folder, Problems(), images=images)
    assert (folder / record.image).samefile(tmp_path / place / IMAGE)


def test_bad_entries_are_counted_and_the_rest_is_read(tmp_path):
    instances = json.loads(json.dumps(INSTANCES))
    instances["annotations"] += [
        {"id": 20, "image_id": 581857, "category_id": 1, "bbox": [1, 2, 3], "segmentation": []},
        {"id": 21, "image_id": 581857, "category_id": 99, "bbox": [1, 2, 3, 4], "segmentation": []},
        {"id": 22, "image_id": 581857, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]]},
        {"id": 23, "image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": []},
        {
            "id": 24,
            "image_id": 581857,
            "category_id": 18,
            "bbox": [1, 2, 3, 4],
            "segmentation": {"counts": "", "size": []},
        },
    ]
    refs = [
        REFS[0],
        ref(0, 17, ["doubled"]),
        ref(5, 20, ["three numbers"]),
        ref(6, 21, ["category 99"]),
        ref(7, 22, ["an odd ring"]),
        ref(8, 23, ["an image that is not there"], image_id=5),
        ref(9, 12345, ["no such annotation"]),
        ref(10, 17, [""]),
        ref(11, 17, ["no list"], sentences="x"),
        "no ref",
        ref(12, 24, ["a mask"]),
    ]
    problems = Problems()
    (record,) = read_refer(write(tmp_path / "refcoco", refs, instances), problems)
    assert record.regions[0] == RegionNote(
        box=LADY.box, polygons=LADY.polygons, label="person", expressions=LADY.expressions[:2]
    )
    assert [note.expressions for note in record.regions[1:]] == [("a mask",)]
    assert problems.counts == {
        "entry not readable": 5,
        "doubled entry": 1,
        "unknown category": 1,
        "unknown image": 1,
        "empty text": 1,
    }
    assert "refs(unc).p, ref 9: annotation 12345" in problems.examples["entry not readable"][0]


@pytest.mark.parametrize("name", ["instances.json", "refs(unc).p"])
@pytest.mark.parametrize("data", [None, b"", b"{", b"\xff\xfe", b"\x80\x02}."])
def test_a_main_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, name, data):
    folder = write(tmp_path / "refcoco")
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(BadRecord, match=name.replace("(", r"\(").replace(")", r"\)")):
        list(read_refer(folder, Problems()))


def test_what_is_written_reads_back_and_is_in_the_tool_s_layout(tmp_path):
    other = Record(
        image="images/b.png",
        image_wh=(30, 20),
        regions=(
            RegionNote(polygons=((Point(1, 2), Point(5, 2), Point(5, 9)),), expressions=("left, “links”",)),
            RegionNote(box=Box(0, 0, 4, 4), label="cat"),  # nothing refers to it
        ),
    )
    written = [Record(image=IMAGE, image_wh=(640, 427), regions=(LADY, DOG)), other]
    folder = write_refer(written, tmp_path / "out", split="val")
    read = list(read_refer(folder, Problems(), "val"))
    assert read[0] == written[0]
    assert read[1].regions == (
        RegionNote(box=Box(1, 2, 5, 9), polygons=other.regions[0].polygons, expressions=other.regions[0].expressions),
    )
    refs, instances = (json.loads((folder / name).read_text()) for name in ("refs.json", "instances.json"))
    assert set(REFS[0]) == set(refs[0])
    assert set(REFS[0]["sentences"][0]) == set(refs[0]["sentences"][0])
    assert [len(instances[name]) for name in ("images", "annotations", "categories")] == [2, 4, 4]
    assert list(read_refer(folder, Problems(), "train")) == []


def test_mdetr_s_file_is_read_with_one_region_for_one_box(tmp_path):
    # Layout of finetune_refcoco_train.json: every expression is an image.
    def image(number, caption, file=IMAGE):
        about = {"width": 640, "height": 427, "original_id": 581857, "dataset_name": "refcoco"}
        return {"id": number, "file_name": file, "caption": caption} | about

    def thing(number, image_id, bbox):
        return {"id": number, "image_id": image_id, "category_id": 1, "bbox": bbox, "tokens_positive": [[0, 4]]}

    value = {
        "images": [
            image(0, "lady"),
            image(1, "dog"),
            image(2, "her"),
            image(3, "x", "b.jpg"),
            image(4, "both of them"),
        ],
        "annotations": [
            *(
                thing(0, 0, [1, 2, 3, 4]),
                thing(1, 1, [5, 5, 1, 1]),
                thing(2, 2, [1, 2, 3, 4]),
                thing(3, 3, [1, 2, 3, 4]),
            ),
            *(thing(4, 4, [1, 2, 3, 4]), thing(5, 4, [5, 5, 1, 1])),
        ],
        "categories": [{"supercategory": "object", "id": 1, "name": "object"}],
    }
    path = tmp_path / "finetune_refcoco_train.json"
    path.write_text(json.dumps(value))
    problems = Problems()
    records = list(read_refer(path, problems))
    assert [(record.image, record.regions) for record in records] == [
        (
            IMAGE,
            (
                RegionNote(box=Box(1, 2, 4, 6), expressions=("lady", "her")),
                RegionNote(box=Box(5, 5, 6, 6), expressions=("dog",)),
            ),
        ),
        ("b.jpg", (RegionNote(box=Box(1, 2, 4, 6), expressions=("x",)),)),
    ]
    assert "both of them" in problems.examples["entry not readable"][0]
