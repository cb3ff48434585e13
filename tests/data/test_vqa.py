"""Questions in the layouts of VQAv2 and OK-VQA, TextVQA and VizWiz."""

import json

import pytest
from PIL import Image

from openflorence.contract.records import QuestionNote, Record
from openflorence.data.problems import Problems
from openflorence.data.vqa import read_vqa, write_vqa
from openflorence.errors import BadConfig, BadRecord

TEN = ("down", "down", "at table", "skateboard", "down", "table", "“unten”, 下", "down", "down", "down")
ABOUT = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": "val2014"}
COCO = "COCO_val2014_000000262148.jpg"


def confident(answers):
    # As distributed: numbered from 1, each with how sure the person was.
    return [
        {"answer": answer, "answer_confidence": "maybe", "answer_id": place} for place, answer in enumerate(answers, 1)
    ]


def posed(*asked):
    questions = [{"image_id": image, "question": text, "question_id": number} for number, image, text in asked]
    return ABOUT | {"task_type": "Open-Ended", "questions": questions}


def said(*given):
    annotations = [
        {
            "question_id": number,
            "image_id": 262148,
            "question_type": "what",
            "answer_type": "other",
            "multiple_choice_answer": "down",
            "answers": confident(answers),
        }
        for number, answers in given
    ]
    return ABOUT | {"annotations": annotations}


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def read(path, **options):
    problems = Problems()
    return list(read_vqa(path, problems, **options)), problems


@pytest.mark.parametrize("version", ["v2_", ""], ids=["VQAv2", "OK-VQA"])
@pytest.mark.parametrize("place", ["", "val2014", "images", "images/val2014"])
def test_questions_and_their_ten_answers_meet_in_one_record(tmp_path, version, place):
    picture(tmp_path / place / COCO)
    asked = posed((262148000, 262148, "Where is he looking?"), (262148001, 262148, "What?"), (7, 9, "Gone?"))
    put(tmp_path / f"{version}OpenEnded_mscoco_val2014_questions.json", asked)
    path = put(tmp_path / f"{version}mscoco_val2014_annotations.json", said((262148000, TEN), (7, TEN)))
    records, problems = read(path)
    notes = (QuestionNote(question="Where is he looking?", answers=TEN), QuestionNote(question="What?", answers=()))
    image = f"{place}/{COCO}" if place else COCO
    assert records == [Record(image=image, image_wh=(40, 30), questions=notes)]
    assert problems.counts == {"image missing": 1}  # number 9


def test_questions_alone_have_no_answers(tmp_path):
    picture(tmp_path / "elsewhere" / "COCO_test2015_000000000001.jpg")
    # test-dev2015 is a part of test2015 and has its images.
    asked = posed((10, 1, "Why?")) | {"data_subtype": "test-dev2015"}
    path = put(tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json", asked)
    (record,), _ = read(path, images=tmp_path / "elsewhere")
    assert record.questions == (QuestionNote(question="Why?", answers=()),)


def test_questions_under_another_name_are_named(tmp_path):
    picture(tmp_path / COCO)
    put(tmp_path / "q.json", posed((1, 262148, "Why?")))
    path = put(tmp_path / "a.json", said((1, TEN)))
    with pytest.raises(BadRecord, match=r"a\.json.*questions="):
        read(path)
    assert read(path, questions=tmp_path / "q.json")[0][0].questions[0].answers == TEN


def test_doubled_and_lost_numbers_are_counted(tmp_path):
    picture(tmp_path / COCO)
    put(tmp_path / "q.json", posed((1, 262148, "first"), (1, 262148, "second"), (2, "x", "third")))
    path = put(tmp_path / "a.json", said((1, ("yes",)), (1, ("no",)), (5, ("lost",))))
    (record,), problems = read(path, questions=tmp_path / "q.json")
    assert record.questions == (QuestionNote(question="first", answers=("yes",)),)
    assert problems.counts == {"doubled entry": 2, "entry not readable": 2}
    assert "annotation of question 5, which nobody asks" in problems.examples["entry not readable"][1]


def textvqa(number, image="0054c91397f2fe05", **other):
    # Keys of TextVQA_0.5.1_train.json.
    return {
        "question": "what brand is it?",
        "image_id": image,
        "image_classes": ["Person"],
        "flickr_original_url": "https://example.org/a_o.jpg",
        "flickr_300k_url": "https://example.org/a.jpg",
        "image_width": 1024,
        "image_height": 730,
        "answers": ["nokia"] * 9 + ["toshiba"],
        "question_tokens": ["what"],
        "question_id": number,
        "set_name": "train",
    } | other


def test_textvqa_states_its_sizes_and_needs_no_image(tmp_path):
    bad = [
        textvqa(3, image_width=0),
        textvqa(4, answers="x"),
        textvqa(5, answers=[1]),
        textvqa(6, image=7),
        textvqa("8"),
        9,
    ]
    test = textvqa(2, "b")
    del test["answers"]
    value = {"dataset_type": "train", "dataset_name": "textvqa", "data": [textvqa(1), textvqa(1), test, *bad]}
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "0054c91397f2fe05.jpg").touch()
    records, problems = read(put(tmp_path / "TextVQA_0.5.1_train.json", value))
    assert [(record.image, record.image_wh) for record in records] == [
        ("train_images/0054c91397f2fe05.jpg", (1024, 730)),
        ("b.jpg", (1024, 730)),
    ]
    assert records[0].questions == (QuestionNote(question="what brand is it?", answers=("nokia",) * 9 + ("toshiba",)),)
    assert records[1].questions[0].answers == ()
    assert problems.counts == {"doubled entry": 1, "entry not readable": 6}


def test_vizwiz_is_a_list_by_file_names(tmp_path):
    # Keys of VizWiz's train.json; answers that say that there is none are answers.
    entry = {
        "image": "VizWiz_train_00000000.jpg",
        "question": "What's the name of this product?",
        "answers": [
            {"answer_confidence": "yes", "answer": "basil leaves"},
            {"answer_confidence": "no", "answer": "unanswerable"},
        ],
        "answer_type": "other",
        "answerable": 1,
    }
    test = {"image": "VizWiz_train_00000000.jpg", "question": "And this?"}
    bad = [
        {"image": "x.jpg"},
        {"image": "", "question": "?"},
        entry | {"answers": ["x"]},
        entry | {"answers": {}},
        None,
    ]
    picture(tmp_path / "train" / "VizWiz_train_00000000.jpg")
    (record,), problems = read(put(tmp_path / "train.json", [entry, test, *bad]))
    assert record.image == "train/VizWiz_train_00000000.jpg"
    assert record.questions == (
        QuestionNote(question="What's the name of this product?", answers=("basil leaves", "unanswerable")),
        QuestionNote(question="And this?", answers=()),
    )
    assert problems.counts == {"entry not readable": 5}


@pytest.mark.parametrize(("layout", "name"), [("vizwiz", "a b/ü.png"), ("textvqa", "images/a.jpg"), ("vqav2", COCO)])
def test_every_layout_reads_back_what_it_wrote(tmp_path, layout, name):
    picture(tmp_path / name)
    notes = (QuestionNote(question="Wo, “wer”? 谁", answers=TEN), QuestionNote(question="?", answers=()))
    records = [Record(image=name, image_wh=(40, 30), questions=notes)]
    again, problems = read(write_vqa(records, tmp_path, layout))
    assert again == records
    assert not problems.counts


@pytest.mark.parametrize(
    ("layout", "name"), [("textvqa", "a.png"), ("vqav2", "a.jpg"), ("vqav2", "COCO_train2014_9.jpg")]
)
def test_a_layout_that_cannot_hold_a_name_says_which_can(tmp_path, layout, name):
    with pytest.raises(BadRecord, match="vizwiz"):
        write_vqa([Record(image=name, image_wh=(1, 1))], tmp_path, layout)
    assert not list(tmp_path.iterdir())


def test_one_file_of_vqav2_holds_one_subtype(tmp_path):
    notes = (QuestionNote(question="?", answers=("a",)),)
    names = (COCO, COCO.replace("val", "train"))
    with pytest.raises(BadRecord, match="train2014"):
        write_vqa([Record(image=name, image_wh=(1, 1), questions=notes) for name in names], tmp_path, "vqav2")
    with pytest.raises(BadConfig, match="vizwiz, textvqa, vqav2"):
        write_vqa([], tmp_path, "coco")


@pytest.mark.parametrize("text", ["", "{", "{}", '{"images": []}', "5", '{"questions": 3, "data_subtype": "x"}'])
def test_a_file_of_another_kind_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(BadRecord, match=r"train\.json"):
        read(tmp_path / "train.json")
    with pytest.raises(BadRecord, match=r"gone\.json"):
        read(tmp_path / "gone.json")
