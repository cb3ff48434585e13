"""Data sets in the folders people have them in: which format, which part, where the images are."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from openflorence.contract.records import (
    GroundingNote,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.cleaning import usable_records
from openflorence.data.coco import write_coco
from openflorence.data.folders import keys_of, split_of
from openflorence.data.formats import FORMATS, hold_out, open_dataset
from openflorence.data.labelme import write_labelme
from openflorence.data.pairs import write_pairs, write_records
from openflorence.data.problems import Problems
from openflorence.data.voc import write_voc
from openflorence.data.vqa import write_vqa
from openflorence.data.yolo import write_yolo
from openflorence.errors import BadConfig, BadRecord

BOX = Box(2, 3, 12, 13)
WHOLE = frozenset({"objects"})


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16)).save(path)
    return path


def record(image: str = "a.jpg", label: str = "cat") -> Record:
    return Record(image=image, image_wh=(20, 16), regions=(RegionNote(box=BOX, label=label),), whole=WHOLE)


def images(path: Path, split: str, format: str | None = None) -> list[str]:
    return [kept.image for kept in open_dataset(path, split, format, Problems()).records]


# ---- which format


QUAD = (Point(2, 3), Point(12, 3), Point(12, 13), Point(2, 13))
SAMPLES = {  # format -> a record that it can hold
    "coco": record(),
    "yolo": record("images/train/a.jpg"),
    "voc": record("JPEGImages/a.jpg"),
    "labelme": record(),
    "pairs": Record(image="a.jpg", image_wh=(20, 16), pairs=(PairNote(prefix="<OD>", suffix="cat<loc_1>"),)),
    "records": record(),
    "refer": Record(
        image="a.jpg", image_wh=(20, 16), regions=(RegionNote(box=BOX, label="cat", expressions=("left cat",)),)
    ),
    "flickr": Record(
        image="a.jpg",
        image_wh=(20, 16),
        groundings=(GroundingNote(text="A cat .", phrases=(PhraseNote(phrase="A cat", boxes=(BOX,)),)),),
    ),
    "vqa": Record(image="a.jpg", image_wh=(20, 16), questions=(QuestionNote(question="Cat?", answers=("yes",)),)),
    "icdar": Record(image="a.jpg", image_wh=(20, 16), regions=(RegionNote(quad=QUAD, word="CAT"),)),
    "hiertext": Record(image="a.jpg", image_wh=(20, 16), regions=(RegionNote(quad=QUAD, word="CAT"),)),
    "funsd": Record(image="a.png", image_wh=(20, 16), regions=(RegionNote(quad=QUAD, word="CAT", label="other"),)),
}


def lay_out(folder: Path, name: str) -> Path:
    """Write the sample of a format as it usually lies, with its image."""
    sample, write = SAMPLES[name], FORMATS[name].write
    places = {"coco": "a.json", "pairs": "a.jsonl", "records": "b.jsonl", "hiertext": "c.jsonl"}
    if name == "yolo":
        write([sample], folder, "train", ["cat"])
    elif name == "voc":
        write([sample], folder, "train")
    else:
        write([sample], folder / places.get(name, ""))
    picture(folder / sample.image if name in ("yolo", "voc") else folder / "images" / sample.image)
    return folder


def test_every_format_has_a_sample():
    assert set(SAMPLES) == set(FORMATS)
    assert len(FORMATS) == 12


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_is_recognised_by_what_is_in_it_and_its_images_are_found(tmp_path, name):
    opened = open_dataset(lay_out(tmp_path / "cats", name), "train", None, Problems())
    assert (opened.name, opened.format, opened.split, opened.root) == ("cats", name, "train", tmp_path / "cats")
    (kept,) = list(opened.records)
    assert (opened.root / kept.image).is_file()
    assert not Path(kept.image).is_absolute()
    sample = SAMPLES[name]
    assert [note.label for note in kept.regions] == [note.label for note in sample.regions]
    assert len(kept.pairs + kept.questions + kept.groundings) == len(
        sample.pairs + sample.questions + sample.groundings
    )


def test_the_name_of_a_file_does_not_tell_its_format(tmp_path):
    write_records([record()], tmp_path / "_annotations.coco.jsonl")
    assert open_dataset(tmp_path, "train", None, Problems()).format == "records"
    write_pairs([SAMPLES["pairs"]], tmp_path / "b" / "records.jsonl")
    assert open_dataset(tmp_path / "b" / "records.jsonl", "train", None, Problems()).format == "pairs"


def test_what_is_not_recognised_says_what_was_seen_and_what_is_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("cat")
    (tmp_path / "other.json").write_text('{"a": 1}')
    picture(tmp_path / "pictures" / "a.jpg")
    with pytest.raises(BadRecord) as caught:
        open_dataset(tmp_path, "train", None, Problems())
    assert "it holds notes.txt, other.json, pictures/." in str(caught.value)
    assert all(f"  {name}: {kind.looks_like}" in str(caught.value) for name, kind in FORMATS.items())
    with pytest.raises(BadRecord, match="the keys a"):
        open_dataset(tmp_path / "other.json", "train", None, Problems())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRecord, match="it holds nothing"):
        open_dataset(tmp_path / "empty", "train", None, Problems())


def test_two_formats_in_one_folder_are_not_chosen_between(tmp_path):
    folder = lay_out(lay_out(tmp_path, "coco"), "yolo")
    with pytest.raises(BadRecord, match=r"several formats: coco \(a.json\); yolo \(data.yaml\). Say which"):
        open_dataset(folder, "train", None, Problems())
    assert open_dataset(folder, "train", "yolo", Problems()).format == "yolo"
    assert open_dataset(folder, "train", "coco", Problems()).format == "coco"
    with pytest.raises(BadRecord, match=r"What is looked for:\n  voc: Annotations"):
        open_dataset(folder, "train", "voc", Problems())


def test_a_file_of_a_format_that_is_named_is_read_whatever_it_looks_like(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(write_coco([record()], path).read_text().encode("utf-16"))
    with pytest.raises(BadRecord, match="not recognised"):
        open_dataset(path, "train", None, Problems())
    assert len(images(path, "train", "coco")) == 1


@pytest.mark.parametrize(
    ("split", "format", "seen"),
    [("dev", None, "allowed: train, val, test"), ("train", "coco.json", "allowed: coco, yolo")],
)
def test_a_split_or_format_that_is_not_known_is_said(tmp_path, split, format, seen):
    with pytest.raises(BadConfig, match=seen):
        open_dataset(tmp_path, split, format, Problems())


def test_a_path_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BadRecord, match="is not there"):
        open_dataset(tmp_path / "none", "train", None, Problems())


def test_a_broken_main_file_is_said_before_the_first_record(tmp_path):
    (tmp_path / "train.json").write_text('{"images": [], "annotations": [')
    with pytest.raises(BadRecord, match=r"train\.json is no JSON"):
        open_dataset(tmp_path, "train", None, Problems())


def test_a_long_file_is_glanced_at_from_both_ends(tmp_path):
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"first": 1, "middle": ["x" * 400_000, {"hidden": 2}, "x" * 400_000], "last": 3}))
    assert keys_of(path) == {"first", "middle", "last"}
    path.write_text('{"a": 1}')
    assert keys_of(path) == {"a"}
    path.write_text("")
    assert keys_of(path) == frozenset()


# ---- which part


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("instances_train2017.json", "train"),
        ("annotations/captions_val2014.json", "val"),
        ("valid/_annotations.coco.json", "val"),
        ("_annotations.train.jsonl", "train"),
        ("training_data", "train"),
        ("test/train/a.json", "train"),
        ("instances_minival2014.json", "val"),
        ("TEST.json", "test"),
        ("trainval.json", ""),
        ("constraint.json", ""),
        ("result.json", ""),
    ],
)
def test_the_words_of_a_name_tell_the_part(path, part):
    assert split_of(Path("/train") / path, Path("/train")) == part


def test_coco_beside_images_as_people_export_it(tmp_path):
    for part in ("train", "val", "test"):
        write_coco([record(f"{part}.jpg")], tmp_path / f"{part}.json")
        picture(tmp_path / "images" / f"{part}.jpg")
    assert images(tmp_path, "train") == ["images/train.jpg"]
    assert images(tmp_path, "valid") == ["images/val.jpg"]
    assert images(tmp_path, "test") == ["images/test.jpg"]


def test_coco_as_published_joins_captions_and_leaves_the_keypoints_of_the_same_people(tmp_path):
    # The files of annotations_trainval2017.zip. Names of images are the same in both parts, on purpose.
    folder = tmp_path / "annotations"
    for part in ("train2017", "val2017"):
        write_coco([record(label=part), record("b.jpg")], folder / f"instances_{part}.json")
        said = {"a.jpg": f"A {part}.", "c.jpg": "C."}
        captions = [Record(image=name, image_wh=(20, 16), texts=(TextNote(text=text),)) for name, text in said.items()]
        write_coco(captions, folder / f"captions_{part}.json")
        people = json.loads((folder / f"instances_{part}.json").read_text())
        people["annotations"][0]["keypoints"] = [0] * 51
        (folder / f"person_keypoints_{part}.json").write_text(json.dumps(people))
        (folder / f"panoptic_{part}.json").write_text(
            '{"images": [], "annotations": [{"image_id": 1, "segments_info": [{"category_id": 1, "bbox": []}]}]}'
        )
        for name in "abc":
            picture(tmp_path / part / f"{name}.jpg")
    opened = open_dataset(tmp_path, "val", None, Problems())
    first, second, third = opened.records
    assert first.image == "val2017/a.jpg"
    assert [region.label for region in first.regions] == ["val2017"]
    assert [text.text for text in first.texts] == ["A val2017."]
    assert (second.image, second.texts) == ("val2017/b.jpg", ())
    assert (third.image, third.whole) == ("val2017/c.jpg", frozenset())
    # One file by its own path: no other is read with it.
    alone = open_dataset(folder / "person_keypoints_val2017.json", "val", None, Problems())
    assert alone.root == tmp_path
    assert [(kept.image, kept.texts) for kept in alone.records] == [("val2017/a.jpg", ()), ("val2017/b.jpg", ())]


def test_a_panoptic_file_alone_is_refused(tmp_path):
    text = '{"images": [], "annotations": [{"image_id": 1, "segments_info": []}]}'
    (tmp_path / "panoptic_train2017.json").write_text(text)
    with pytest.raises(BadRecord, match="panoptic file, which is not read"):
        open_dataset(tmp_path, "train", None, Problems())


def test_two_files_of_objects_of_one_part_are_not_chosen_between(tmp_path):
    for name in ("train_old.json", "train_new.json"):
        write_coco([record()], tmp_path / name)
    with pytest.raises(BadRecord, match=r"several COCO files of one part \(train_new.json, train_old.json\)"):
        open_dataset(tmp_path, "train", None, Problems())
    assert len(images(tmp_path / "train_new.json", "train")) == 1


def test_coco_as_roboflow_exports_it(tmp_path):
    for part in ("train", "valid"):
        write_coco([record("a.jpg")], tmp_path / part / "_annotations.coco.json")
        picture(tmp_path / part / "a.jpg")
    assert images(tmp_path, "train") == ["train/a.jpg"]
    assert images(tmp_path, "val") == ["valid/a.jpg"]
    with pytest.raises(BadRecord, match="has no test part: it has train, val"):
        open_dataset(tmp_path, "test", None, Problems())


def test_yolo_and_voc_by_their_own_parts(tmp_path):
    for part in ("train", "val"):
        write_yolo([record(f"{part}.jpg")], tmp_path / "yolo", part, ["cat"])
        picture(tmp_path / "yolo" / "images" / part / f"{part}.jpg")
        write_voc([record(f"{part}.jpg")], tmp_path / "voc", part)
        picture(tmp_path / "voc" / "JPEGImages" / f"{part}.jpg")
    assert images(tmp_path / "yolo", "val") == ["images/val/val.jpg"]
    assert images(tmp_path / "yolo" / "data.yaml", "train") == ["images/train/train.jpg"]
    assert images(tmp_path / "voc", "val") == ["JPEGImages/val.jpg"]
    assert images(tmp_path / "voc", "train") == ["JPEGImages/train.jpg"]


def test_voc_and_labelme_in_a_folder_for_each_part(tmp_path):
    for part in ("train", "valid"):
        write_labelme([record("a.jpg", part)], tmp_path / "labelme" / part)
        write_voc([record("a.jpg", part)], tmp_path / part, "all")
        picture(tmp_path / "labelme" / part / "a.jpg")
        picture(tmp_path / "voc" / part / "a.jpg")
        (tmp_path / part / "Annotations" / "a.xml").rename(tmp_path / "voc" / part / "a.xml")
    for name in ("voc", "labelme"):
        opened = open_dataset(tmp_path / name, "val", None, Problems())
        assert opened.format == name
        assert [(kept.image, kept.regions[0].label) for kept in opened.records] == [("valid/a.jpg", "valid")]


def test_voc_without_lists_is_read_once_and_whole(tmp_path):
    write_voc([record(f"{number}.jpg") for number in range(20)], tmp_path, "train")
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    assert len(images(tmp_path, "train")) + len(images(tmp_path, "val")) == 20


def test_questions_and_answers_in_two_files_are_one_part(tmp_path):
    # VQAv2's names, whose images are COCO's.
    asked = (QuestionNote(question="Cat?", answers=("yes", "no")),)
    write_vqa(
        [Record(image="COCO_val2014_000000000042.jpg", image_wh=(20, 16), questions=asked)], tmp_path, "vqav2", "val"
    )
    picture(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    opened = open_dataset(tmp_path, "val", None, Problems())
    assert [(kept.image, kept.questions[0].answers) for kept in opened.records] == [
        ("val2014/COCO_val2014_000000000042.jpg", ("yes", "no"))
    ]


def test_several_files_of_pairs_of_one_part_are_read_one_after_another(tmp_path):
    for number, name in enumerate(("vqa_train.jsonl", "od_train.jsonl", "od_val.jsonl")):
        pair = PairNote(prefix="What?", suffix=str(number))
        write_pairs([Record(image="a.jpg", image_wh=(20, 16), pairs=(pair,))], tmp_path / name)
    picture(tmp_path / "a.jpg")
    opened = open_dataset(tmp_path, "train", None, Problems())
    assert [kept.pairs[0].suffix for kept in opened.records] == ["1", "0"]


# ---- a part that nobody set apart


def test_without_a_val_part_a_tenth_of_the_images_is_held_out_and_stays_so(tmp_path):
    everyone = [record(f"{number}.jpg") for number in range(1000)]
    path = write_coco(everyone[:500], tmp_path / "all.json")
    few = {split: set(images(path, split)) for split in ("train", "val")}
    assert few["train"] | few["val"] == {kept.image for kept in everyone[:500]}
    assert not few["train"] & few["val"]
    assert 30 <= len(few["val"]) <= 70  # 50 expected; three standard deviations of a binomial are 20
    write_coco(everyone[::-1], path)
    many = {split: set(images(path, split)) for split in ("train", "val")}
    assert few["train"] <= many["train"]
    assert few["val"] <= many["val"]


def test_a_train_part_is_shared_only_where_there_is_no_val_part(tmp_path):
    everyone = [record(f"{number}.jpg") for number in range(50)]
    write_coco(everyone, tmp_path / "train.json")
    write_coco(everyone[:1], tmp_path / "test.json")
    assert len(images(tmp_path, "train")) + len(images(tmp_path, "val")) == 50
    write_coco(everyone[:1], tmp_path / "val.json")
    assert len(images(tmp_path, "train")) == 50
    (tmp_path / "val.json").unlink()
    (tmp_path / "train.json").unlink()
    with pytest.raises(BadRecord, match="has no train part: it has test"):
        open_dataset(tmp_path, "train", None, Problems())


def apart(names: list[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each image is in val and in train."""
    records = [record(name) for name in names]
    held, learnt = (Counter(kept.image for kept in hold_out(records, split)) for split in ("val", "train"))
    assert held + learnt == Counter(names)
    assert not set(held) & set(learnt)
    return held, learnt


@pytest.mark.parametrize("count", range(2, 12))
def test_however_few_images_each_part_has_one_and_none_is_in_both(count):
    for start in range(0, 400, 20):
        # Every image twice, and not one after the other.
        held, learnt = apart([f"{start + number}.jpg" for number in range(count)] * 2)
        assert held
        assert learnt


def test_of_images_that_all_go_to_val_one_is_learnt_from_and_so_is_a_single_one():
    drawn, _ = apart([f"{number}.jpg" for number in range(300)])
    held, learnt = apart([*list(drawn)[:5], *list(drawn)[:5]])
    assert (len(held), len(learnt)) == (4, 1)
    for name in (*list(drawn)[:2], "other.jpg"):
        assert apart([name, name]) == (Counter(), Counter({name: 2}))


def test_where_the_folder_lies_does_not_matter():
    records = [record(f"/home/{number % 7}/{number}.jpg") for number in range(200)]
    moved = [record(f"/mnt/other/{number}.jpg") for number in range(200)]
    stems = [[Path(kept.image).name for kept in hold_out(some, "val")] for some in (records, moved)]
    assert stems[0] == stems[1]
    assert stems[0]


def test_problems_of_a_shared_file_are_counted_once(tmp_path):
    path = write_coco([record(f"{number}.jpg") for number in range(30)], tmp_path / "all.json")
    data = json.loads(path.read_text())
    data["annotations"][0]["category_id"] = 9
    path.write_text(json.dumps(data))
    problems = Problems()
    for split in ("train", "val"):
        list(open_dataset(path, split, None, problems).records)
    assert problems.counts == {"unknown category": 1}


# ---- where the images lie


@pytest.mark.parametrize(
    ("place", "stated"),
    [
        ("a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("train/a.jpg", "a.jpg"),
        ("images/train/a.jpg", "a.jpg"),
        ("train2017/a.jpg", "a.jpg"),
        ("images/sub/a.jpg", "sub/a.jpg"),
        ("images/sub/ü.jpg", "sub\\ü.jpg"),
        ("images/a.jpg", "C:\\home\\author\\a.jpg"),
        ("images/a.jpg", "/home/author/set/a.jpg"),
        ("images/a.jpg", "../elsewhere/a.jpg"),
    ],
)
def test_images_are_found_where_people_put_them(tmp_path, place, stated):
    write_coco([record(stated)], tmp_path / "train.json")
    write_coco([record("b.jpg")], tmp_path / "val.json")
    picture(tmp_path / place)
    assert images(tmp_path, "train") == [place]


def test_an_image_of_another_part_is_never_taken_for_one_of_its_own(tmp_path):
    for part in ("train", "val"):
        write_coco([record("a.jpg")], tmp_path / f"{part}.json")
    picture(tmp_path / "images" / "val" / "a.jpg")
    assert images(tmp_path, "val") == ["images/val/a.jpg"]
    problems = Problems()
    opened = open_dataset(tmp_path, "train", None, problems)
    with pytest.raises(BadRecord, match="nothing in it can be used"):
        usable_records(opened.records, opened.root, problems, opened.name)
    assert problems.counts == {"image missing": 1}


def test_one_file_over_the_images_of_all_parts_finds_them_all(tmp_path):
    write_coco([record("a.jpg"), record("b.jpg")], tmp_path / "all.json")
    picture(tmp_path / "images" / "train" / "a.jpg")
    picture(tmp_path / "images" / "val" / "b.jpg")
    found = set(images(tmp_path, "train")) | set(images(tmp_path, "val"))
    assert found == {"images/train/a.jpg", "images/val/b.jpg"}


def test_an_address_and_a_path_that_is_there_stay(tmp_path):
    elsewhere = picture(tmp_path / "elsewhere" / "a.jpg")
    address = "https://example.org/train/b.jpg"
    write_coco([record(str(elsewhere)), record(address)], tmp_path / "set" / "train.json")
    write_coco([record("c.jpg")], tmp_path / "set" / "val.json")
    assert images(tmp_path / "set", "train") == [str(elsewhere), address]


def test_an_image_that_is_nowhere_keeps_the_place_it_should_have(tmp_path):
    write_coco([record("a.jpg")], tmp_path / "train" / "a.json")
    write_coco([record("a.jpg")], tmp_path / "val" / "a.json")
    assert images(tmp_path, "train") == ["train/a.jpg"]


# ---- the real data

BCCD = Path(__file__).resolve().parents[3] / "shared" / "data" / "bccd"


@pytest.mark.skipif(not BCCD.is_dir(), reason="the blood cells are not beside this repository (shared/data/bccd)")
def test_the_blood_cells_open_without_a_word_about_their_format():
    problems = Problems()
    opened = open_dataset(BCCD, "train", None, problems)
    records = usable_records(opened.records, opened.root, problems, opened.name)
    assert (opened.name, opened.format) == ("bccd", "coco")
    assert len(records) == 205
    # The table in the data set's SOURCE.md.
    labels = Counter(region.label for kept in records for region in kept.regions)
    assert labels == {"RBC": 2381, "WBC": 214, "Platelets": 209}
    assert not problems.counts
