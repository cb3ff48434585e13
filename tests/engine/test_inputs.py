"""What a source turns out to be: data sets with their labels, plain folders, packed images with captions."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("lance")

from openflorence.contract.records import Record, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.coco import write_coco
from openflorence.data.notes import Notes
from openflorence.data.pairs import write_records
from openflorence.data.store import Store
from openflorence.data.voc import write_voc
from openflorence.data.yolo import write_yolo
from openflorence.engine.inputs import joined, open_source, remembered
from openflorence.engine.plan import Done, Plan, Specialist, run_round
from openflorence.engine.stages import Row
from openflorence.errors import BadRecord

WH = (64, 48)
CAT, DOG = (RegionNote(box=Box(8, 8, 40, 32), label="cat"), RegionNote(box=Box(16, 12, 56, 40), label="dog"))
WHOLE = frozenset(("objects",))
QUIET = Plan(  # a specialist that sees the cat a little to the right, everywhere
    specialists=(Specialist(name="own", settings={"function": f"{__name__}:see", "says": ["object"]}),), copies=None
)


def see(rows: list[Row]) -> list[Notes]:
    return [Notes(regions=(RegionNote(box=Box(10, 8, 42, 32), label="cat", score=0.6),)) for _ in rows]


def picture(path: Path, shade: int, wh: tuple[int, int] = WH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", wh, (shade, 60, 255 - shade)).save(path)
    return path


def record(image: str, *regions: RegionNote, **more) -> Record:
    return Record(image=image, image_wh=WH, regions=regions, whole=WHOLE, **more)


def coco(folder: Path, names: tuple[str, ...] = ("a.png", "b.png"), region: RegionNote = CAT, first: int = 10) -> Path:
    """A COCO folder of pictures, a file of objects beside them."""
    for number, name in enumerate(names):
        picture(folder / "images" / name, first + 20 * number)
    write_coco([record(name, region) for name in names], folder / "annotations.json")
    return folder


def labels_of(store: Store, layer: str, run_id: str) -> dict[str, list[str]]:
    """The labels that a layer has of each image, by its name."""
    found = {}
    for unit in store.units():
        rows = zip(store.images(unit, data=False), store.layer(layer, run_id).read(unit), strict=True)
        found |= {Path(image.uri).name: [region.label for region in row.notes.regions] for image, row in rows}
    return found


def said(done: Done, folder: Path, layer: str = "people") -> dict[str, list[str]]:
    return labels_of(Store.open(folder), layer, done.progress.runs[layer])


# ---- data sets


def test_a_data_set_is_told_with_its_images_and_annotations(tmp_path):
    source = open_source(str(coco(tmp_path / "set")))
    wanted = "a data set (coco) 'set': 2 images, 2 annotations; its labels are the specialist 'people'"
    assert source.told == wanted
    assert sorted(Path(one.uri) for one in source.images) == [
        tmp_path / "set" / "images" / name for name in ("a.png", "b.png")
    ]


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "records", "file"])
def test_labels_of_people_are_a_layer_whatever_the_format(tmp_path, format):
    folder = tmp_path / "set"
    records = [record("a.png", CAT), record("b.png", CAT, DOG)]
    places = {"yolo": "images/train", "voc": "JPEGImages"}
    for shade, one in enumerate(records):
        picture(folder / places.get(format, "images") / one.image, 40 * shade)
    if format == "yolo":
        write_yolo(records, folder, "train", ["cat", "dog"])
    elif format == "voc":
        write_voc(records, folder, "train")
    elif format == "records":
        write_records((record(f"images/{one.image}", *one.regions) for one in records), folder / "all.jsonl")
    else:
        write_coco(records, folder / "labels.json")
    source = folder / "labels.json" if format == "file" else folder
    done = run_round(str(source), tmp_path / "fld", QUIET)
    assert (done.ingested.stored, done.ingested.failed) == (2, 0)
    assert said(done, tmp_path / "fld") == {"a.png": ["cat"], "b.png": ["cat", "dog"]}


def test_labels_of_people_are_fused_and_stay_as_they_were(tmp_path):
    done = run_round(str(coco(tmp_path / "set", ("a.png",))), tmp_path / "fld", QUIET)
    (found,) = Store.open(tmp_path / "fld").records(done.round.number)
    # People's box and the specialist's overlap by 30 of 34 columns: one cat, certain since people are behind it.
    assert [(region.label, region.score) for region in found.regions] == [("cat", None)]
    assert "people" in found.regions[0].origin.model or "set" in found.regions[0].origin.model
    assert said(done, tmp_path / "fld") == {"a.png": ["cat"]}


def test_images_that_only_are_called_alike_get_no_labels(tmp_path):
    run_round(str(coco(tmp_path / "set", ("a.png",))), tmp_path / "fld", QUIET)
    picture(tmp_path / "photos" / "a.png", 200)
    done = run_round(str(tmp_path / "photos"), tmp_path / "fld", QUIET)
    store = Store.open(tmp_path / "fld")
    assert [len(row.notes.regions) for row in layer(store, "people", done)] == [1, 0]


def layer(store: Store, name: str, done: Done):
    return [row for unit in store.units() for row in store.layer(name, done.progress.runs[name]).read(unit)]


def test_labels_speak_in_every_later_round_whatever_comes_next(tmp_path):
    fld = tmp_path / "fld"
    run_round(str(coco(tmp_path / "first", ("a.png",))), fld, QUIET)
    run_round(str(coco(tmp_path / "second", ("b.png",), DOG, first=120)), fld, QUIET)
    done = run_round(str(picture(tmp_path / "photos" / "c.png", 250).parent), fld, QUIET)
    assert said(done, fld) == {"a.png": ["cat"], "b.png": [], "c.png": []}
    assert said(done, fld, "people_2") == {"a.png": [], "b.png": ["dog"], "c.png": []}
    assert [one["settings"]["layer"] for one in remembered(fld)] == ["people", "people_2"]
    again = run_round(str(tmp_path / "first"), fld, QUIET)
    assert dict(again.progress.runs) == dict(done.progress.runs)


def test_a_data_set_that_is_known_keeps_its_layer():
    first = {"name": "people", "settings": {"path": "a", "says": []}}
    known = joined([], [first, {"name": "people", "settings": {"path": "b"}}, {"name": "captions", "settings": {}}])
    assert [one["settings"]["layer"] for one in known] == ["people", "people_2", "captions"]
    more = joined(known, [{"name": "people", "settings": {"path": "b", "says": ["object"]}}])
    assert more == [
        known[0],
        {"name": "people", "settings": {"path": "b", "says": ["object"], "layer": "people_2"}},
        known[2],
    ]


def test_the_parts_of_a_data_set_are_kept_and_a_tenth_that_we_cut_is_none(tmp_path):
    for part in ("train", "val", "test"):
        picture(tmp_path / "set" / part / f"{part}.png", {"train": 10, "val": 90, "test": 170}[part])
        write_coco([record(f"{part}.png", CAT)], tmp_path / "set" / f"{part}.json")
    source = open_source(str(tmp_path / "set"))
    assert {Path(one.uri).name: dict(one.meta) for one in source.images} == {
        f"{part}.png": {"part": part} for part in ("train", "val", "test")
    }
    assert "3 images in train, val, test, 3 annotations" in source.told
    alone = open_source(str(coco(tmp_path / "alone")))
    assert [dict(one.meta) for one in alone.images] == [{}, {}]


def test_pictures_that_a_data_set_does_not_name_are_told(tmp_path):
    folder = coco(tmp_path / "set")
    picture(folder / "images" / "more.png", 222)
    source = open_source(str(folder))
    assert "1 more pictures lie there that it does not name" in source.told
    assert len(list(source.images)) == 2


def test_what_is_wrong_with_annotations_is_told_and_what_lacks_is_listed(tmp_path):
    folder = coco(tmp_path / "set")
    data = json.loads((folder / "annotations.json").read_text())
    data["images"].append({"id": 3, "file_name": "gone.png", "width": 64, "height": 48})
    data["annotations"].append({"id": 9, "image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]})
    (folder / "annotations.json").write_text(json.dumps(data))
    source = open_source(str(folder))
    assert "1 x unknown image" in source.told
    done = run_round(source, tmp_path / "fld", QUIET)
    assert (done.ingested.stored, done.ingested.failed) == (2, 1)
    assert "gone.png" in Store.open(tmp_path / "fld").failures()[0]["uri"]


def test_two_entries_of_one_image_are_put_together(tmp_path):
    picture(tmp_path / "set" / "a.png", 10)
    records = [record("a.png", CAT), record("a.png", DOG, texts=(TextNote(text="Two pets."),))]
    write_records(records, tmp_path / "set" / "all.jsonl")
    done = run_round(str(tmp_path / "set"), tmp_path / "fld", QUIET)
    assert said(done, tmp_path / "fld") == {"a.png": ["cat", "dog"]}


def test_people_who_listed_no_objects_do_not_speak_against_them(tmp_path):
    picture(tmp_path / "set" / "a.png", 10)
    text = TextNote(text="A pet.")
    write_records([Record(image="a.png", image_wh=WH, texts=(text,))], tmp_path / "set" / "all.jsonl")
    done = run_round(str(tmp_path / "set"), tmp_path / "fld", QUIET)
    (found,) = Store.open(tmp_path / "fld").records(done.round.number)
    # Had they looked for objects and named none, half of the voices would be against the cat: 0.3.
    assert [(region.label, region.score) for region in found.regions] == [("cat", 0.6)]
    assert [note.text for note in found.texts] == ["A pet."]


# ---- what is none


def test_a_folder_of_pictures_is_a_folder_of_pictures(tmp_path):
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.png", 50 * number)
    (tmp_path / "photos" / "settings.json").write_text('{"camera": {"names": ["a"]}, "images": 3}')
    (tmp_path / "photos" / "notes.txt").write_text("my holidays")
    (tmp_path / "photos" / "compose.yaml").write_text("services: {names: 1}")
    source = open_source(str(tmp_path / "photos"))
    assert (source.labels, source.told) == ((), "")
    assert len(list(source.images)) == 3


def test_a_folder_of_two_formats_is_not_guessed(tmp_path):
    folder = coco(tmp_path / "set")
    write_voc([record("a.png", CAT)], folder, "train")
    with pytest.raises(BadRecord, match="several formats"):
        open_source(str(folder))


# ---- WebDataset


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", WH, (shade, 10, 10)).save(file, "PNG")
    return file.getvalue()


def test_texts_beside_images_of_a_tar_are_captions(tmp_path):
    # The text may stand before or behind its image; x/1 and y/1 are two samples, and a sample may have none.
    members = {"x/1.png": png(1), "x/1.txt": "Füchse, rot.\n".encode(), "x/1.json": b"{}"}
    members |= {"y/1.txt": b"A dog sits before a house.", "y/1.png": png(2), "z.png": png(3), "w.txt": b"of nothing"}
    path = tar(tmp_path / "a.tar", members)
    source = open_source(str(path))
    assert source.told == (
        "WebDataset: the .txt beside an image is its caption, the specialist 'captions'; not read: .json"
    )
    assert [(one.uri, one.meta.get("caption")) for one in source.images] == [
        ("a.tar#x/1.png", "Füchse, rot."),
        ("a.tar#y/1.png", "A dog sits before a house."),
        ("a.tar#z.png", None),
    ]
    done = run_round(open_source(str(path)), tmp_path / "fld", QUIET)
    records = Store.open(tmp_path / "fld").records(done.round.number)
    assert [[note.text for note in one.texts] for one in records] == [
        ["Füchse, rot."],
        ["A dog sits before a house."],
        [],
    ]
    assert records[0].texts[0].origin.source == "captions"


def test_a_tar_of_images_alone_has_no_specialist_of_captions(tmp_path):
    source = open_source(str(tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2)})))
    assert (source.labels, source.told) == ((), "WebDataset")
    assert len(list(source.images)) == 2


def test_the_command_line_says_what_was_recognised(tmp_path, call):
    (tmp_path / "plan.toml").write_text(
        f'copies = false\n[[specialist]]\nname = "own"\nfunction = "{__name__}:see"\nsays = ["object"]\n'
    )
    words = ("engine", "run", coco(tmp_path / "set"), tmp_path / "fld", "--plan", tmp_path / "plan.toml")
    done = call(*words)
    assert done.code == 0, done.err
    assert done.err.startswith(
        "a data set (coco) 'set': 2 images, 2 annotations; its labels are the specialist 'people'\n"
    )
    assert "2 images new" in done.err
