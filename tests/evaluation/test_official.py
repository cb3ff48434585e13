"""The official files of benchmarks, tiny ones in their own layout: what is asked, and what is right."""

from pathlib import Path

import pytest
from layouts import LAYOUTS, WH, dump, write_entities, write_expressions, write_instances, write_karpathy, write_vqav2

from openflorence.contract.shapes import Box
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadRecord
from openflorence.evaluation.benchmarks import BENCHMARKS, open_benchmark
from openflorence.evaluation.official import read_karpathy, read_nocaps, read_vqav2
from openflorence.evaluation.official_regions import read_entities, read_expressions, read_instances


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_its_questions_with_images_that_are_there(tmp_path, name):
    right = LAYOUTS[name](tmp_path / "data")
    opened = open_benchmark(name, tmp_path / "data")
    assert {question.key for question in opened.questions} == set(right)
    assert all(question.image.is_file() for question in opened.questions)
    assert {question.image_wh for question in opened.questions} <= {WH, None}
    assert opened.split == next(iter(BENCHMARKS[name].splits))


def test_the_sweep_saw_every_benchmark():
    assert set(LAYOUTS) == set(BENCHMARKS)
    assert len(LAYOUTS) == 18


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_missing_is_named_with_the_layout_that_was_looked_for(tmp_path, name):
    with pytest.raises(BadRecord, match=r"(is not there|is no folder).*Expected is"):
        open_benchmark(name, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRecord, match=r"has no .*Expected is"):
        open_benchmark(name, tmp_path / "empty")


def test_what_is_not_known_is_named(tmp_path):
    write_karpathy(tmp_path)
    with pytest.raises(BadConfig, match="benchmark is 'coco'; allowed: coco-caption"):
        open_benchmark("coco", tmp_path)
    with pytest.raises(BadConfig, match="split of coco-caption is 'testA'; allowed: test, val"):
        open_benchmark("coco-caption", tmp_path, "testA")
    with pytest.raises(BadConfig, match="task of coco-caption is 'detect'; allowed: caption"):
        open_benchmark("coco-caption", tmp_path, task="detect")


def test_a_limit_takes_images_at_equal_steps_and_all_their_questions(tmp_path):
    write_karpathy(tmp_path / "captions")
    opened = open_benchmark("coco-caption", tmp_path / "captions", limit=2)
    assert [question.key for question in opened.questions] == ["1", "3"]  # of 1, 2, 3, 5
    assert opened.all_keys == {"1", "2", "3", "5"}
    write_vqav2(tmp_path / "questions")
    assert len(open_benchmark("vqav2", tmp_path / "questions", limit=1).questions) == 2


def test_karpathy_s_split_keeps_captions_as_they_are(tmp_path):
    write_karpathy(tmp_path)
    problems = Problems()
    questions = read_karpathy(tmp_path, "test", problems).questions
    texts = [question.truth.texts for question in questions]
    assert texts[1] == ("A bowl of soup.", "A bowl of soup.")  # two alike stay two
    assert texts[2] == ("Ein Café in Zürich – 駅前。", "A café at the station.")
    assert problems.counts == {"no annotation": 1}
    assert questions[3].image == tmp_path / "train2014" / "COCO_train2014_000000000005.jpg"
    (val,) = read_karpathy(tmp_path / "dataset_coco.json", "val", problems).questions
    assert val.key == "6"


def test_nocaps_has_domains(tmp_path):
    LAYOUTS["nocaps"](tmp_path)
    domains = [question.kinds["domain"] for question in read_nocaps(tmp_path, "val", Problems()).questions]
    assert domains == ["in", "near", "out"] * 2


def test_coco_detection_keeps_what_the_file_says(tmp_path):
    write_instances(tmp_path)
    sheet = read_instances(tmp_path, "val2017", Problems())
    assert [question.key for question in sheet.questions] == ["632", "139", "285"]
    assert sheet.categories == {1: "person", 18: "dog", 21: "traffic light"}
    empty, dogs, crowd = (question.truth for question in sheet.questions)
    assert empty.regions == ()
    assert [note.label for note in dogs.regions] == ["dog", "dog", "person"]
    assert dogs.regions[1].box == Box(200, 20, 320, 140)
    assert [entry["area"] for entry in dogs.entries] == [10000, 14400, 400]
    assert [note.crowd for note in crowd.regions] == [False, True]


def test_sentences_without_a_boxed_phrase_are_not_asked(tmp_path):
    write_entities(tmp_path)
    questions = read_entities(tmp_path, "test", Problems()).questions
    assert [question.text for question in questions] == ["Two men near a car .", "A man looks at a man .", "Ein Fuß ."]
    assert [len(phrase.boxes) for phrase in questions[0].truth.phrases] == [2, 1]
    assert [phrase.phrase for phrase in questions[1].truth.phrases] == ["A man", "a man"]


def test_expressions_have_the_ids_of_their_sentences(tmp_path):
    write_expressions(tmp_path / "refcoco+")
    for data in (tmp_path, tmp_path / "refcoco+"):
        questions = read_expressions(data, "val", Problems(), "refcoco+", "unc", "ground").questions
        assert [(question.key, question.text) for question in questions] == [
            ("10", "left man"),
            ("11", "the man in red"),
            ("20", "der Mann rechts, größer"),
        ]
        assert questions[2].truth.regions[0].box == Box(200, 20, 320, 140)
    assert [
        one.key for one in read_expressions(tmp_path, "testA", Problems(), "refcoco+", "unc", "find").questions
    ] == ["30"]


def test_questions_with_one_id_are_asked_once_and_those_with_one_text_twice(tmp_path):
    write_vqav2(tmp_path)
    problems = Problems()
    questions = read_vqav2(tmp_path, "val", problems).questions
    assert [(question.key, question.text) for question in questions] == [
        ("42000", "Is it day?"),
        ("42001", "Is it day?"),
        ("73000", "Wie heißt das?"),
    ]
    assert problems.counts == {"doubled entry": 1, "no annotation": 1}
    assert questions[1].kinds == {"answer type": "yes/no", "question type": "is it"}
    assert questions[1].truth.texts == ("yes",) * 6 + ("no",) * 4


def test_vqav2_is_read_from_the_folders_its_archives_make(tmp_path):
    write_vqav2(tmp_path / "flat")
    for kind, name in (
        ("questions", "OpenEnded_mscoco_val2014_questions"),
        ("annotations", "mscoco_val2014_annotations"),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / "flat" / f"v2_{name}.json").rename(tmp_path / kind / f"v2_{name}.json")
    (tmp_path / "flat" / "val2014").rename(tmp_path / "val2014")
    questions = read_vqav2(tmp_path, "val", Problems()).questions
    assert len(questions) == 3
    assert all(question.image.is_file() for question in questions)


def test_nothing_to_ask_is_an_error_that_says_why(tmp_path):
    dump(tmp_path / "dataset_coco.json", {"images": [{"split": "test", "filepath": "val2014"}]})
    with pytest.raises(BadRecord, match=r"nothing in split 'test'(?s:.*)has no 'filename'"):
        open_benchmark("coco-caption", tmp_path)


def test_a_folder_may_be_named_by_its_file(tmp_path: Path):
    write_instances(tmp_path)
    sheet = read_instances(tmp_path / "annotations" / "instances_val2017.json", "val2017", Problems())
    assert all(question.image.is_file() for question in sheet.questions)
