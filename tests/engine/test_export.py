"""What goes out of a store, read back by the readers that the formats have, and held against the store's records."""

import hashlib
import io
import json
import os
import signal
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("lance")
pytest.importorskip("pyarrow.parquet")

import small_store

from openflorence.contract.records import (
    UNKNOWN,
    GroundingNote,
    Origin,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
    record_from_row,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.formats import open_dataset
from openflorence.data.notes import KINDS, Notes
from openflorence.data.problems import Problems
from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn, IngestSettings
from openflorence.data.store_rows import notes_from_plain
from openflorence.engine.chosen import ExportSettings, file_name
from openflorence.engine.export import FORMATS, Exported, export
from openflorence.engine.unsaid import SAYS
from openflorence.errors import BadConfig, BadRecord

WIDTH, HEIGHT = 40, 30
HUMAN, MACHINE = Origin(source="people", version="2"), Origin(source="seen", model="m", version="1", round=0)
RING = (Point(2, 3), Point(20, 3), Point(20, 13), Point(2, 13))
QUAD = (Point(4, 4), Point(24, 5), Point(24, 9), Point(4, 8))

# Of image i what its notes say; 40 x 30 px. Written by hand, numbers that every format holds exactly.
CAR = RegionNote(box=Box(5, 6, 25, 21), label="car", score=0.75, origin=MACHINE)
SHAPE = RegionNote(box=Box(2, 3, 20, 13), polygons=(RING,), label="bus", origin=HUMAN)
SIGN = RegionNote(quad=QUAD, word="STOP", score=0.5, origin=MACHINE)
NAMED = RegionNote(box=Box(10, 10, 30, 20), label="car", description="a red car", expressions=("the left one",))
CROWD = RegionNote(box=Box(0, 0, 40, 15), label="bus", crowd=True)
WHOLE = frozenset(("objects",))
SAID: dict[int, Notes] = {
    0: Notes(regions=(CAR,), whole=WHOLE),
    1: Notes(regions=(SHAPE,), texts=(TextNote(text="A bus, “late”.", origin=HUMAN),), whole=WHOLE),
    2: Notes(regions=(SIGN, replace(CAR, score=0.25))),
    3: Notes(
        regions=(NAMED, CROWD),
        texts=(TextNote(text="Short."), TextNote(text="A longer text.", level="detailed", score=0.9)),
        groundings=(
            GroundingNote(
                text="a car stands", phrases=(PhraseNote(phrase="a car", boxes=(Box(5, 6, 25, 21),), span=(0, 5)),)
            ),
        ),
        questions=(QuestionNote(question="How many?", answers=("2", "2")),),
        pairs=(PairNote(prefix="<OD>", suffix="car<loc_1><loc_2><loc_3><loc_4>"),),
        whole=WHOLE,
    ),
    4: Notes(whole=WHOLE),  # somebody looked, and there is nothing
    5: Notes(),  # nobody knows anything
    6: Notes(texts=(TextNote(text="Only a text."),)),
    7: Notes(regions=(RegionNote(quad=QUAD, label="bus"),)),
}


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (20 * number, 90, 10)).save(file, "JPEG")
    return file.getvalue()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (20 * number, 90, 10)).save(file, "PNG")
    return file.getvalue()


# Names that are not safe, or not unique: a file of a tar, a URL, two of one name in different folders, no ending.
URIS = ["a/same.jpg", "b/same.jpg", "shard.tar#../odd name é.png", "https://x.org/a.b.png?size=1#frag", "no ending"]
URIS += ["CON.jpg", "七.png", "x" * 300 + ".jpg"]
DATA = [png(number) if ".png" in uri else jpeg(number) for number, uri in enumerate(URIS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("export") / "fld")


def filled(folder: Path) -> Store:
    made = Store.create(folder, unit_images=3)
    made.ingest(ImageIn(uri=uri, data=data) for uri, data in zip(URIS, DATA, strict=True))
    published(made, 1, lambda uri: SAID[URIS.index(uri)])
    return made


def published(store: Store, number: int, say) -> None:
    small_store.fill(store.layer("said", f"r{number}"), store, say)
    store.define_round(number, {"said": f"r{number}"})
    store.publish(number)


def settings(to: str, **given) -> ExportSettings:
    return ExportSettings(to=to, **given)


def sent(store: Store, out: Path, to: str, **given) -> Exported:
    return export(store, out, settings(to, **given))


def back(path: Path, split: str = "train", format: str | None = None) -> tuple[Path, list[Record]]:
    """What our own reader finds there; nothing may be wrong with it. All of it where there is no val part."""
    problems = Problems()
    opened = [open_dataset(path, part, format, problems) for part in ((split,) if split != "train" else ("train",))]
    records = [record for one in opened for record in one.records]
    held_out: list[Record] = []
    if split == "train":
        try:
            held_out = list(open_dataset(path, "val", format, problems).records)
        except BadRecord:  # there is a val part with none, or none is needed
            held_out = []
    assert not problems.counts, str(problems)
    return opened[0].root, sorted([*records, *held_out], key=lambda record: row_of(record.image))


def row_of(image: str) -> int:
    """Names end in a hyphen and the number of the row."""
    return int(Path(image).stem.rpartition("-")[2])


def pictures_are_the_originals(root: Path, records: list[Record]) -> None:
    for record in records:
        assert (root / record.image).read_bytes() == DATA[row_of(record.image)]


def notes_of(record: Record) -> Notes:
    return Notes(**{name: getattr(record, name) for name in KINDS}, whole=record.whole)


def plain(region: RegionNote, score: bool = False) -> RegionNote:
    return replace(region, origin=UNKNOWN, score=region.score if score else None)


def tree(folder: Path) -> dict[str, str]:
    """Every file with a hash of what it holds; the lock is none of the export."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".export.lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- each format, read back


def test_coco_gives_objects_and_captions_back_and_says_what_it_cannot_hold(store, tmp_path):
    done = sent(store, tmp_path / "out", "coco")
    root, records = back(tmp_path / "out")
    pictures_are_the_originals(root, records)
    # Image 5 says nothing. Image 6 has a caption alone, so it is no image without objects: it is in one file only.
    assert [row_of(record.image) for record in records] == [0, 1, 2, 3, 4, 6, 7]
    regions = {row_of(record.image): record.regions for record in records}
    assert regions[0] == (plain(CAR, score=True),)
    assert regions[1] == (plain(SHAPE),)
    assert regions[2] == (plain(replace(CAR, score=0.25), score=True),)
    assert regions[3] == (replace(NAMED, expressions=()), CROWD)
    assert regions[4] == regions[6] == ()
    assert [region.box for region in regions[7]] == [Box(4, 4, 24, 9)]  # around the quad: by hand
    texts = {row_of(record.image): [note.text for note in record.texts] for record in records}
    assert texts == {0: [], 1: ["A bus, “late”."], 2: [], 3: ["Short."], 4: [], 6: ["Only a text."], 7: []}
    instances = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [row_of(image["file_name"]) for image in instances["images"]] == [0, 1, 2, 3, 4, 7]
    assert all("bbox" in row for row in instances["annotations"])  # what trainers of detectors take for granted
    assert done.pictures == {"train": 7}
    lost, left_out, unsure = done.remarks
    wanted = "2 quads, 1 detailed texts, 1 expressions, 1 groundings, 1 pairs, 1 questions, 1 words"
    assert lost == f"not exported, coco has no place for them: {wanted}"
    assert left_out.startswith("left out: 1 images")
    assert "of 2 images nobody said so" in unsure


def test_pycocotools_reads_the_coco_file(store, tmp_path):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    sent(store, tmp_path / "out", "coco")
    seen = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    assert {seen.cats[key]["name"] for key in seen.getCatIds()} == {"bus", "car"}
    (key,) = [key for key, image in seen.imgs.items() if row_of(image["file_name"]) == 1]
    (found,) = seen.loadAnns(seen.getAnnIds([key]))
    assert (found["bbox"], found["area"], found["iscrowd"]) == ([2, 3, 18, 10], 180, 0)
    assert seen.annToMask(found).sum() == 180  # 18 x 10 pixels
    captions = COCO(tmp_path / "out" / "annotations" / "captions_train.json")
    assert sorted(row["caption"] for row in captions.anns.values()) == ["A bus, “late”.", "Only a text.", "Short."]


def test_categories_have_one_number_in_all_parts(tmp_path):
    # Image 0 alone has a zebra, and the parts are cut by a hash: with numbers of their own the files would disagree.
    store = Store.create(tmp_path / "fld")
    store.ingest(ImageIn(uri=f"{number}.png", data=png(number)) for number in range(10))
    published(store, 1, lambda uri: Notes(regions=(replace(CAR, label="ant" if uri == "0.png" else "car"),)))
    sent(store, tmp_path / "out", "coco", shares=(0.5, 0.5))
    files = [
        json.loads((tmp_path / "out/annotations" / f"instances_{part}.json").read_text()) for part in ("train", "val")
    ]
    assert files[0]["categories"] == files[1]["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "car"}]
    assert Counter(row["category_id"] for file in files for row in file["annotations"]) == {1: 1, 2: 9}


def test_yolo_gives_boxes_and_outlines_back(store, tmp_path):
    done = sent(store, tmp_path / "out", "yolo")
    root, records = back(tmp_path / "out")
    pictures_are_the_originals(root, records)
    assert [row_of(record.image) for record in records] == [0, 1, 2, 3, 4, 7]
    seen = [[(region.label, region.bounds) for region in record.regions] for record in records]
    wanted = (
        [("car", CAR.box)],
        [("bus", SHAPE.box)],
        [("car", CAR.box)],
        [("car", NAMED.box)],
        [],
        [("bus", Box(4, 4, 24, 9))],
    )
    for mine, theirs in zip(seen, wanted, strict=True):
        assert [label for label, _ in mine] == [label for label, _ in theirs]
        for (_, box), (_, other) in zip(mine, theirs, strict=True):
            assert box == pytest.approx(other, abs=1e-6)  # a millionth of a pixel, as write_yolo promises
    assert len(records[1].regions[0].polygons[0]) == 4
    assert "3 texts" not in done.remarks[0]
    assert "3 brief texts" in done.remarks[0]
    assert "1 crowds" in done.remarks[0]
    assert "2 scores" in done.remarks[0]


def test_outlines_beside_boxes_are_told_to_be_lost_in_yolo(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri="a.png", data=png(1))])
    published(store, 1, lambda uri: Notes(regions=(plain(CAR), plain(SHAPE)), whole=WHOLE))
    done = sent(store, tmp_path / "out", "yolo")
    assert done.remarks == ("not exported, yolo has no place for them: 1 outlines of pictures that have boxes too",)
    (label,) = (tmp_path / "out" / "labels" / "train").iterdir()
    assert [len(line.split()) for line in label.read_text().splitlines()] == [5, 5]


def test_voc_gives_labels_and_boxes_back(store, tmp_path):
    pytest.importorskip("defusedxml")
    done = sent(store, tmp_path / "out", "voc")
    root, records = back(tmp_path / "out")
    pictures_are_the_originals(root, records)
    seen = {row_of(record.image): [(region.label, region.box) for region in record.regions] for record in records}
    assert seen == {
        0: [("car", CAR.box)],
        1: [("bus", SHAPE.box)],
        2: [("car", CAR.box)],
        3: [("car", NAMED.box), ("bus", CROWD.box)],
        4: [],
        7: [("bus", Box(4, 4, 24, 9))],
    }
    assert "1 outlines" in done.remarks[0]


def test_jsonl_gives_everything_back(store, tmp_path):
    done = sent(store, tmp_path / "out", "jsonl")
    assert done == Exported(1, {"train": 8}, ())
    root, records = back(tmp_path / "out")
    pictures_are_the_originals(root, records)
    assert [notes_of(record) for record in records] == [notes_of(record) for record in store.records()]
    assert {record.image_wh for record in records} == {(WIDTH, HEIGHT)}


def test_parquet_gives_everything_back_in_columns_and_as_json(store, tmp_path):
    import pyarrow.parquet as parquet

    sent(store, tmp_path / "out", "parquet", shard=3)
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert [path.name for path in files] == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    rows = [row for path in files for row in parquet.read_table(path).to_pylist()]
    wanted = [notes_of(record) for record in store.records()]
    assert [notes_from_plain(row) for row in rows] == wanted
    size = {"image": "x", "image_wh": [WIDTH, HEIGHT]}
    assert [notes_of(record_from_row(json.loads(row["annotations"]) | size)) for row in rows] == wanted
    assert [row["image"] for row in rows] == DATA
    assert [row["image_id"] for row in rows] == [hashlib.sha256(data).hexdigest() for data in DATA]
    assert [(row["uri"], row["width"], row["height"]) for row in rows] == [(uri, WIDTH, HEIGHT) for uri in URIS]


def test_duckdb_counts_regions_of_the_parquet_files(store, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    sent(store, tmp_path / "out", "parquet", shard=3)
    question = (
        "SELECT region.label, count(*), max(region.box.x1) "
        f"FROM (SELECT unnest(regions) AS region FROM '{tmp_path}/out/*.parquet') WHERE region.label <> '' "
        "GROUP BY ALL ORDER BY ALL"
    )
    # By hand: buses of images 1, 3 and 7, the last without a box; cars of 0, 2 and 3.
    assert duckdb.sql(question).fetchall() == [("bus", 3, 40.0), ("car", 3, 30.0)]


def test_webdataset_gives_everything_back_by_its_convention(store, tmp_path):
    sent(store, tmp_path / "out", "webdataset", shard=5)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["train-000000.tar", "train-000001.tar"]
    samples = list(by_convention(tmp_path / "out"))
    assert [next(sample[kind] for kind in ("jpg", "png") if kind in sample) for sample in samples] == DATA
    wanted = list(store.records())
    for sample, record in zip(samples, wanted, strict=True):
        row = json.loads(sample["json"])
        assert hashlib.sha256(DATA[row_of(sample["__key__"])]).hexdigest() == row.pop("image_id")
        assert URIS[row_of(sample["__key__"])] == row.pop("uri")
        del row["licence"]
        assert notes_of(record_from_row(row)) == notes_of(record)
    texts = [sample["txt"].decode() if "txt" in sample else None for sample in samples]
    assert texts == [None, "A bus, “late”.", None, "Short.", None, None, "Only a text.", None]


def by_convention(folder: Path) -> Iterator[dict]:
    """Samples as the webdataset library groups them: members one after another with one name up to the first dot."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            sample: dict = {}
            for member in tar:
                key, _, kind = member.name.partition(".")
                if sample and sample["__key__"] != key:
                    yield sample
                    sample = {}
                file = tar.extractfile(member)
                assert file is not None
                sample |= {"__key__": key, kind: file.read()}
            yield sample


def test_datasets_loads_the_folder_with_images_and_class_labels(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    sent(store, tmp_path / "out", "hf", shard=3)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert isinstance(found.features["image"], datasets.Image)
    assert found.features["objects"]["category"].feature.names == ["bus", "car"]
    assert [row["image"].size for row in found] == [(WIDTH, HEIGHT)] * 8
    raw = found.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == DATA
    objects = [row["objects"] for row in found]
    assert objects[3] == {
        "id": [0, 1],
        "bbox": [[10, 10, 20, 10], [0, 0, 40, 15]],
        "area": [200, 600],
        "category": [1, 0],
        "iscrowd": [False, True],
        "score": [None, None],
    }
    assert objects[0]["score"] == [0.75]
    assert found[3]["texts"] == {"text": ["Short.", "A longer text."], "level": ["brief", "detailed"]}
    size = {"image": "x", "image_wh": [WIDTH, HEIGHT]}
    read = [notes_of(record_from_row(json.loads(row["annotations"]) | size)) for row in found]
    assert read == [notes_of(record) for record in store.records()]


# ---- what is chosen


@pytest.mark.parametrize("to", FORMATS)
def test_names_are_safe_and_unique(store, tmp_path, to):
    sent(store, tmp_path / "out", to, shard=100)
    names = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(len(name) < 100 and name.isascii() and not set(name) & set(' #?%:"\\') for name in names)


def test_a_picture_keeps_what_it_was_called():
    names = [file_name(number, {"uri": uri, "mime": "image/jpeg"}) for number, uri in enumerate(URIS)]
    assert names[:4] == ["same-0000000.jpg", "same-0000001.jpg", "odd_name-0000002.jpg", "a_b-0000003.jpg"]
    assert names[4:7] == ["no_ending-0000004.jpg", "CON-0000005.jpg", "image-0000006.jpg"]
    assert file_name(12345678, {"uri": "/x/a.qoi", "mime": "application/octet-stream"}) == "a-12345678.qoi"


def test_the_split_is_seeded_and_more_images_move_none(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest(ImageIn(uri=f"{number}.png", data=png(number)) for number in range(12))
    published(store, 1, lambda uri: Notes(regions=(CAR,), whole=WHOLE))

    def parts(out: str, seed: int = 0, number: int | None = None) -> dict[str, set[str]]:
        sent(store, tmp_path / out, "coco", shares=(0.5, 0.25, 0.25), seed=seed, number=number)
        folders = (tmp_path / out / part for part in ("train", "val", "test"))
        return {folder.name: {path.name for path in folder.glob("*")} for folder in folders}

    first = parts("a")
    assert sum(map(len, first.values())) == 12
    assert all(first.values())
    assert parts("b", seed=1) != first
    store.ingest(ImageIn(uri=f"{number}.png", data=png(number)) for number in range(12, 13))
    published(store, 2, lambda uri: Notes(regions=(CAR,), whole=WHOLE))
    more = parts("c")
    assert sum(map(len, more.values())) == 13
    assert all(first[part] <= more[part] for part in first)
    assert parts("d", number=1) == first  # an earlier round, as it was


def test_images_stay_in_the_part_that_they_came_in(tmp_path):
    store = Store.create(tmp_path / "fld")
    parts = ("val", "train", "test", "", "nonsense")
    store.ingest(ImageIn(uri=f"{at}.png", data=png(at), meta={"part": part}) for at, part in enumerate(parts))
    published(store, 1, lambda uri: Notes(regions=(CAR,), whole=WHOLE))
    assert sent(store, tmp_path / "a", "coco").pictures == {"train": 3, "val": 1, "test": 1}
    assert sent(store, tmp_path / "b", "coco", shares=(0.0, 1.0)).pictures == {"val": 5}


def test_notes_of_a_lower_score_stay_out_and_are_counted(store, tmp_path):
    done = sent(store, tmp_path / "out", "jsonl", least=0.6)
    assert done.remarks == ("not exported, their score is below 0.6: 2 notes",)  # the sign 0.5, a car 0.25
    records = back(tmp_path / "out")[1]
    assert [len(record.regions) for record in records] == [1, 1, 0, 2, 0, 0, 0, 1]


def test_pictures_are_named_where_they_lie_and_copied_where_they_do_not(tmp_path):
    lies, moved, changed = (tmp_path / name for name in ("lies.png", "moved.png", "changed.png"))
    for number, path in enumerate((lies, moved, changed)):
        path.write_bytes(png(number))
    store = Store.create(tmp_path / "fld")
    store.ingest(
        [*(ImageIn(uri=str(path)) for path in (lies, moved, changed)), ImageIn(uri="a.tar#1.png", data=png(3))]
    )
    published(store, 1, lambda uri: Notes(regions=(CAR,), whole=WHOLE))
    moved.unlink()
    changed.write_bytes(png(2) + b"more")
    for to in ("coco", "jsonl"):
        done = sent(store, tmp_path / to, to, images="reference")
        assert done.remarks == ("3 pictures have no place of their own any more and were copied",)
        problems = Problems()
        parts = [open_dataset(tmp_path / to, part, None, problems) for part in ("train", "val")]
        found = {(one.root / record.image) for one in parts for record in one.records}
        assert lies in found
        assert {path.read_bytes() for path in found} == {png(number) for number in range(4)}
        assert not list((tmp_path / to).rglob("lies*"))
    import pyarrow.parquet as parquet

    sent(store, tmp_path / "parquet", "parquet", images="reference")
    rows = parquet.read_table(next((tmp_path / "parquet").glob("*.parquet"))).to_pylist()
    assert [row["image"] for row in rows] == [None, png(1), png(2), png(3)]
    assert rows[0]["uri"] == str(lies)


def test_a_picture_that_is_gone_is_left_out_by_name(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri=str(tmp_path / f"{n}.png")) for n in range(3)], IngestSettings(keep="reference"))
    published(store, 1, lambda uri: Notes(regions=(CAR,), whole=WHOLE))
    (tmp_path / "1.png").unlink()
    for to in FORMATS:
        done = sent(store, tmp_path / to, to)
        assert done.pictures == {"train": 2}
        assert [remark for remark in done.remarks if "1.png" in remark and "cannot be read" in remark]
    assert [row_of(record.image) for record in back(tmp_path / "coco")[1]] == [0, 2]


def test_turned_pictures_are_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a right angle
    file = io.BytesIO()
    Image.new("RGB", (30, 40)).save(file, "JPEG", exif=exif)
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri="a.jpg", data=file.getvalue()), ImageIn(uri="b.png", data=png(1))])
    published(store, 1, lambda uri: Notes(regions=(CAR,), whole=WHOLE))
    done = sent(store, tmp_path / "out", "coco")
    assert done.remarks[0].startswith("1 pictures lie turned in their files")
    assert {record.image_wh for record in back(tmp_path / "out")[1]} == {(40, 30)}


# ---- folders, kills, mistakes


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BadConfig, match=r"thesis\.txt"):
        sent(store, tmp_path / "mine", "coco")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(BadConfig, match="is a file"):
        sent(store, tmp_path / "mine" / "thesis.txt", "coco")
    sent(store, tmp_path / "out", "coco")
    before = tree(tmp_path / "out")
    for other in ({"to": "yolo"}, {"to": "coco", "least": 0.5}, {"to": "coco", "shares": (0.5, 0.5)}):
        with pytest.raises(BadConfig, match="holds another export"):
            sent(store, tmp_path / "out", **other)
    again = sent(store, tmp_path / "out", "coco")
    assert again.pictures == {"train": 7}
    assert len(again.remarks) == 3
    assert tree(tmp_path / "out") == before


def test_a_mistake_is_told_before_anything_is_written(store, tmp_path):
    for given, words in (
        ({"to": "tfrecord"}, "allowed: coco, yolo"),
        ({"to": "yolo", "images": "reference"}, "reference with coco, jsonl, parquet"),
        ({"to": "coco", "shares": (0.9, 0.2)}, "sum to 1"),
        ({"to": "coco", "least": 1.5}, "0 to 1"),
        ({"to": "coco", "number": 9}, "round 9 is not published"),
    ):
        with pytest.raises(BadConfig, match=words):
            sent(store, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_round_of_printed_words_is_no_set_of_objects(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri="a.png", data=png(1))])
    published(store, 1, lambda uri: Notes(regions=(SIGN,), whole=frozenset(("words",))))
    for to in ("coco", "yolo", "voc"):
        with pytest.raises(BadConfig, match=r"it has (1 quads, 1 words|1 words, 1 quads); jsonl, parquet"):
            sent(store, tmp_path / to, to)
    assert sent(store, tmp_path / "jsonl", "jsonl").remarks == ()


def test_every_format_has_a_writer_and_a_table_of_what_it_says():
    assert set(FORMATS) == set(SAYS)


def deadly(folder: Path, out: Path, to: str, step: int) -> None:
    """Export, and be killed before or after the step-th file is moved to its place."""
    small_store.die_at("before" if step % 2 else "after", "replace", step)
    sent(Store.open(folder), out, to, shard=2, shares=(0.6, 0.4))


APART = get_context("forkserver")
APART.set_forkserver_preload(["small_store", "lance", "openflorence.engine.export"])


@pytest.mark.parametrize("to", FORMATS)
def test_killed_and_begun_again_it_ends_with_the_same_files(store, tmp_path, to):
    sent(store, tmp_path / "straight", to, shard=2, shares=(0.6, 0.4))
    out, kills = tmp_path / "killed", 0
    for step in (1, 2, 3, 4, 6):  # counted anew in each process, which goes on where the last one was killed
        process = APART.Process(target=deadly, args=(store.folder, out, to, step))
        process.start()
        process.join(120)
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert kills >= 3
    sent(store, out, to, shard=2, shares=(0.6, 0.4))
    assert tree(out) == tree(tmp_path / "straight")


def test_the_command_line_exports(store, tmp_path, call):
    words = ("engine", "export", store.folder, tmp_path / "out", "--to", "coco", "--split", "0.6,0.4", "--round", 1)
    done = call(*words)
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}: round 1 as coco, images: {counts(tmp_path / 'out')}\n")
    assert "not exported, coco has no place for them: 2 quads" in done.err
    wrong = call("engine", "export", store.folder, tmp_path / "x", "--to", "coco", "--split", "half")
    assert (wrong.code, wrong.out) == (2, "")
    assert "0.9,0.05,0.05" in wrong.err
    assert call("engine", "export", tmp_path / "none", tmp_path / "x", "--to", "coco").code == 2


def counts(out: Path) -> str:
    return ", ".join(f"{part} {len(os.listdir(out / part))}" for part in ("train", "val"))
