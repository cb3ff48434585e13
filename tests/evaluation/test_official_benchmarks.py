"""Official benchmarks end to end on tiny files: asked by a scripted model, kept, taken up after a kill, scored."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering import drawn_network, words_text
from layouts import LAYOUTS, WH, Right, dump, write_karpathy
from PIL import Image

from openflorence.contract.answers import read_answer
from openflorence.contract.tasks import TASKS, find_task
from openflorence.errors import BadConfig, BadPrompt, BadRecord
from openflorence.evaluation.benchmarks import (
    BENCHMARKS,
    Opened,
    ask_benchmark,
    open_benchmark,
    score_answers,
)
from openflorence.evaluation.drawn import evaluate_world
from openflorence.evaluation.drawn_file import Scenes, ask_world, score_world
from openflorence.evaluation.results import Results
from openflorence.evaluation.transcript import read_transcript
from openflorence.model.predict import AskOptions, Request, live_florence

ABOUT = {"model": "told"}


class Told:
    """Answers by the picture and the words it is asked with, as the questions of a benchmark are told apart."""

    def __init__(self, opened: Opened, say: Callable[[str], Any]) -> None:
        self.keys: dict[Any, list[str]] = {}
        for question in opened.questions:
            self.keys.setdefault((str(question.image), question.text), []).append(question.key)
        self.say = say
        self.asked: list[str] = []

    def predict_many(
        self, requests: Iterable[Request], options: Any = None, batch: int = 8, on_error: str = "raise"
    ) -> Iterator[Any]:
        for request in requests:
            key = self.keys[request.image, request.text].pop(0)  # of two questions in the same words the first
            self.asked.append(key)
            said = self.say(key)
            yield read_answer(said, request.task, WH, input=request.text) if isinstance(said, str) else said


def opened_with(name: str, folder: Path, **options: Any) -> tuple[Opened, Right]:
    right = LAYOUTS[name](folder)
    return open_benchmark(name, folder, **options), right


def scored(name: str, tmp_path: Path, say: Callable[[Right, str], Any]) -> Results:
    opened, right = opened_with(name, tmp_path / "data")
    path = ask_benchmark(Told(opened, lambda key: say(right, key)), opened, tmp_path / "out", ABOUT)
    return score_answers(opened, path, rounds=20)


def headline(results: Results) -> Any:
    return next(iter(results.measured.values())).figure.value


def value(results: Results, name: str) -> Any:
    return results.measured[name].figure.value


# ---- every benchmark


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_truth_scores_most_and_nothing_scores_nothing(tmp_path, name):
    right = scored(name, tmp_path / "right", lambda right, key: right[key])
    empty = scored(name, tmp_path / "empty", lambda right, key: "")
    assert (right.asked, right.missing, right.refused, right.invalid) == (empty.asked, 0, 0, 0)
    assert headline(empty) == 0
    # Captions are compared with several people, of whom only one is repeated; detection has a crowd's category, that
    # has no object in one image, and all else is found. Masks are rasterised from bins, half a pixel wide.
    assert headline(right) > 0.9 if "caption" in name or name in ("nocaps", "textcaps") else headline(right) > 0.98
    for results in (right, empty):
        assert len(results.images) == len(set(results.images))
        for measured in results.measured.values():
            assert measured.by_image.shape == (len(results.images),)
            assert measured.draws.ndim == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_exhibits_can_be_looked_at(tmp_path, name):
    results = scored(name, tmp_path, lambda right, key: right[key])
    assert len(results.exhibits) == results.asked
    assert {exhibit.image for exhibit in results.exhibits} == set(results.images)
    for exhibit in results.exhibits:
        picture = exhibit.picture()
        assert isinstance(picture, Image.Image)
        assert picture.size == exhibit.true.image_wh == exhibit.said.image_wh == WH
        assert exhibit.question
        assert exhibit.true.text or exhibit.true.regions or exhibit.image == "000000000632.jpg"  # it shows nothing


@pytest.mark.parametrize("name", ["coco-caption", "coco-detect", "flickr30k", "refcoco-segment", "vqav2"])
def test_after_a_kill_each_question_is_asked_once_and_the_scores_are_those_of_one_run(tmp_path, name):
    opened, right = opened_with(name, tmp_path / "data")
    count = len(opened.questions)

    def killed(key: str) -> str:
        if len(first.asked) == 2:
            raise KeyboardInterrupt
        return right[key]

    first = Told(opened, killed)
    with pytest.raises(KeyboardInterrupt):
        ask_benchmark(first, opened, tmp_path / "out", ABOUT)
    with (tmp_path / "out" / "answers.jsonl").open("a") as file:
        file.write('{"key": "12", "te')
    second = Told(
        Opened(opened.name, opened.split, opened.questions[1:], {}, opened.all_keys, opened.problems), right.get
    )
    path = ask_benchmark(second, opened, tmp_path / "out", ABOUT)
    assert len(first.asked) == 2
    assert [*first.asked[:1], *second.asked] == [question.key for question in opened.questions]
    assert len(path.read_text("utf-8").splitlines()) == count
    whole = ask_benchmark(Told(opened, right.get), opened, tmp_path / "whole", ABOUT)
    once, twice = (score_answers(opened, file, rounds=5) for file in (whole, path))
    assert {name: one.figure for name, one in once.measured.items()} == {
        name: one.figure for name, one in twice.measured.items()
    }
    third = Told(opened, right.get)
    ask_benchmark(third, opened, tmp_path / "out", ABOUT)
    assert third.asked == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_network_is_asked_and_scored(tmp_path, name):
    opened, _ = opened_with(name, tmp_path / "data")
    florence = live_florence(drawn_network(), words_text())
    told = list[int]()
    path = ask_benchmark(
        florence, opened, tmp_path / "out", ABOUT, AskOptions(beams=1, max_tokens=8), lambda: told.append(1)
    )
    assert len(told) == len(opened.questions)
    results = score_answers(opened, path, rounds=5)
    assert (results.asked, results.missing) == (len(opened.questions), 0)
    assert headline(results) is not None


# ---- what did not come back


def test_a_missing_image_is_counted_and_asked_once_it_is_there(tmp_path):
    opened, right = opened_with("coco-caption", tmp_path / "data")
    gone = tmp_path / "data" / "val2014" / "COCO_val2014_000000000002.jpg"
    kept = gone.rename(tmp_path / "kept.jpg")
    first = Told(opened, right.get)
    path = ask_benchmark(first, opened, tmp_path / "out", ABOUT)
    assert "2" not in first.asked
    results = score_answers(opened, path, rounds=5)
    assert (results.asked, results.missing, len(results.images)) == (3, 1, 3)
    kept.rename(gone)
    second = Told(opened, right.get)
    ask_benchmark(second, opened, tmp_path / "out", ABOUT)
    assert second.asked == ["2"]
    assert score_answers(opened, path, rounds=5).missing == 0


def test_images_that_are_nowhere_are_an_error_before_anything_is_asked(tmp_path):
    write_karpathy(tmp_path / "data")
    for folder in ("val2014", "train2014"):
        (tmp_path / "data" / folder).rename(tmp_path / folder)
    opened = open_benchmark("coco-caption", tmp_path / "data")
    with pytest.raises(BadRecord, match=r"none of the 4 images .* looked for .*COCO_val2014_000000000001\.jpg"):
        ask_benchmark(Told(opened, str), opened, tmp_path / "out", ABOUT)


def test_errors_count_as_refused_and_score_as_empty_answers(tmp_path):
    results = scored("vqav2", tmp_path, lambda right, key: BadPrompt("no") if key == "42000" else right[key])
    assert (results.asked, results.refused) == (3, 1)
    # By hand: of three questions the first scores 0; the two others 1.
    assert value(results, "accuracy") == pytest.approx(2 / 3)


def test_what_is_unreadable_is_counted_and_the_rest_is_scored(tmp_path):
    results = scored("coco-detect", tmp_path, lambda right, key: right[key] + "<loc_1>" * (key == "139"))
    assert results.invalid == 1
    assert value(results, "f1") == 1.0


def test_a_folder_of_another_model_is_refused(tmp_path):
    opened, right = opened_with("vizwiz", tmp_path / "data")
    ask_benchmark(Told(opened, right.get), opened, tmp_path / "out", ABOUT)
    with pytest.raises(BadConfig, match="model was 'told' and is 'other'"):
        ask_benchmark(Told(opened, right.get), opened, tmp_path / "out", {"model": "other"})


# ---- what each benchmark has of its own


def test_nocaps_is_scored_by_domain(tmp_path):
    # The two images of the domain "in" are answered as people did, all others with what nobody said.
    results = scored("nocaps", tmp_path, lambda right, key: right[key] if key in "03" else "xyz")
    assert value(results, "cider_d_in") > 0.5
    assert value(results, "cider_d_near") == value(results, "cider_d_out") == 0
    assert 0 < headline(results) < value(results, "cider_d_in")
    inside = results.measured["cider_d_in"].by_image
    assert [name for name, one in zip(results.images, inside, strict=True) if not np.isnan(one)] == [
        f"{place:016x}.jpg" for place in (0, 3)
    ]
    assert list(results.tables["domain"]) == ["in", "near", "out"]


def test_detection_has_three_protocols_and_counts_labels_that_are_no_category(tmp_path):
    def say(right: Right, key: str) -> str:
        return right[key].replace("dog", " DOG ").replace("person", "Person").replace("traffic light", "lantern")

    results = scored("coco-detect", tmp_path, say)
    # By hand: dogs are found at all overlaps, half a bin is 0.25 px; so is the person; the traffic light is not.
    for name in ("map", "map_order", "map_constant", "ap50"):
        assert value(results, name) == pytest.approx(2 / 3)
    assert (value(results, "unknown_labels"), results.measured["unknown_labels"].figure.n) == (1 / 5, 5)
    assert results.tables["category"]["traffic light"].value == 0  # never predicted
    assert results.tables["category"]["dog"].value == pytest.approx(1)
    assert results.tables["ap by size"]["small"].value == pytest.approx(1)  # the person of 20 x 20
    # By hand: 4 objects and 4 predictions outside the crowd, 3 of them right.
    assert value(results, "f1") == pytest.approx(3 / 4)
    assert value(results, "recall") == pytest.approx(3 / 4)


def test_average_precision_is_that_of_pycocotools(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    opened, _ = opened_with("coco-detect", tmp_path / "data")
    rng = np.random.default_rng(0)
    rows = [
        {"image_id": int(image), "category_id": int(category), "bbox": box.tolist(), "score": float(score)}
        for image, category, score in zip(
            rng.choice([139, 285, 632], 60), rng.choice([1, 18, 21], 60), rng.random(60).round(1), strict=True
        )
        for box in [np.array([10, 20, 100, 100]) + rng.integers(0, 12, 4)]
    ]
    dump(tmp_path / "results.json", rows)
    truth = COCO(str(tmp_path / "data" / "annotations" / "instances_val2017.json"))
    reference = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    results = score_answers(opened, tmp_path / "results.json", rounds=5)
    names = ["map", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100"]
    names += ["ar_small", "ar_medium", "ar_large"]
    for name, expected in zip(names, reference.stats, strict=True):
        assert value(results, name) == (None if expected == -1 else pytest.approx(expected, abs=1e-12)), name
    assert 0 < value(results, "map") < 1
    assert results.confidences.shape == (60 - len(inside_the_crowd(rows)), 2)


def inside_the_crowd(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """People in the image of the crowd, which is everywhere: neither right nor wrong."""
    return [row for row in rows if (row["image_id"], row["category_id"]) == (285, 1)]


def test_each_image_keeps_its_own_share_whatever_the_order_of_ids(tmp_path):
    results = scored("coco-detect", tmp_path, lambda right, key: right[key] if key == "139" else "")
    # The file has the images 632, 139, 285; the library sorts them. The first has no object and no prediction.
    by_image = results.measured["map"].by_image
    assert np.isnan(by_image[0])
    assert by_image[1:].tolist() == [1.0, 0.0]


def test_masks_of_another_program_are_scored_as_masks(tmp_path):
    opened, _ = opened_with("coco-detect", tmp_path / "data")
    square = [[10, 20, 110, 20, 110, 120, 10, 120]]
    rows = [{"image_id": 139, "category_id": 18, "bbox": [10, 20, 100, 100], "score": 0.9, "segmentation": square}]
    dump(tmp_path / "results.json", rows)
    results = score_answers(opened, tmp_path / "results.json", rounds=5)
    assert value(results, "mask_ap50") == value(results, "ap50") > 0


def test_images_without_an_entry_were_answered_with_nothing(tmp_path):
    opened, _ = opened_with("coco-detect", tmp_path / "data")
    dump(tmp_path / "results.json", [{"image_id": 139, "category_id": 18, "bbox": [10, 20, 100, 100], "score": 0.9}])
    results = score_answers(opened, tmp_path / "results.json", rounds=5)
    assert (results.asked, results.missing, len(results.images)) == (3, 0, 3)
    # By hand: 1 right of 4 objects outside the crowd.
    assert value(results, "recall") == pytest.approx(1 / 4)


def test_a_phrase_that_stands_twice_is_told_apart(tmp_path):
    def say(right: Right, key: str) -> str:
        return right[key].replace("A man", "?").replace("a man", "A man").replace("?", "a man")

    results = scored("flickr30k", tmp_path, say)
    # By hand: of five phrases "A man" and "a man" have the box of the other.
    assert value(results, "recall_at_1") == value(results, "recall_at_10") == pytest.approx(3 / 5)
    # The box around both men is 310 x 120, of which neither of their boxes covers half.
    assert value(results, "recall_at_1_merged") == pytest.approx(2 / 5)
    table = results.tables["phrase type"]
    assert {kind: (one.value, one.n) for kind, one in table.items()} == {
        "people": (pytest.approx(1 / 3), 3),
        "vehicles": (1, 1),
        "other": (1, 1),
    }


def test_expressions_are_right_when_the_first_box_is(tmp_path):
    def say(right: Right, key: str) -> str:
        return {"10": right["10"], "11": right["20"] + right["11"], "20": "no box at all"}[key]

    results = scored("refcoco", tmp_path, say)
    assert value(results, "accuracy") == pytest.approx(1 / 3)
    assert results.invalid == 1  # words that name no place


def test_another_task_may_ask_for_the_box(tmp_path):
    opened, right = opened_with("refcoco", tmp_path / "data", task="find")
    assert {question.task.name for question in opened.questions} == {"find"}
    path = ask_benchmark(Told(opened, right.get), opened, tmp_path / "out", ABOUT)
    assert value(score_answers(opened, path, rounds=5), "accuracy") == 1.0
    usual = open_benchmark("refcoco", tmp_path / "data")
    with pytest.raises(BadRecord, match="answers 'find' to question '10', which is asked as 'ground'"):
        score_answers(usual, path)
    with pytest.raises(BadConfig, match="task was 'find' and is 'ground'"):
        ask_benchmark(Told(usual, right.get), usual, tmp_path / "out", ABOUT)


@pytest.mark.parametrize(("name", "accuracy"), [("vqav2", 2 / 3), ("textvqa", 1.0), ("vizwiz", 1.0)])
def test_questions_are_judged_by_the_rule_of_their_challenge(tmp_path, name, accuracy):
    # In capitals and with a full stop; only the VQA challenge takes it as it stands where all people agree, which they
    # do on one of the three questions.
    results = scored(name, tmp_path, lambda right, key: right[key].upper() + ".")
    assert [value(results, "accuracy"), value(results, "exact")] == [pytest.approx(accuracy), 0.0]
    assert value(results, "invalid") == 0.0


def test_accuracy_of_the_vqa_challenge_by_kinds_of_questions(tmp_path):
    results = scored("vqav2", tmp_path, lambda right, key: {"42000": "yes", "42001": "no", "73000": "cafe"}[key])
    # By hand: 10 of 10; 4 of 10: leaving one of the four out 3/3, one of the six 3/3 at most; "a cafe" is "cafe" when
    # articles go, of which there are seven.
    assert value(results, "accuracy") == pytest.approx(1.0)
    wrong = scored("vqav2", tmp_path / "wrong", lambda right, key: {"42000": "no", "42001": "yes", "73000": "x"}[key])
    assert value(wrong, "accuracy") == pytest.approx(1 / 3)
    assert {kind: one.value for kind, one in wrong.tables["answer type"].items()} == {"yes/no": 0.5, "other": 0.0}
    assert {kind: one.n for kind, one in wrong.tables["question type"].items()} == {"is it": 2, "wie": 1}


# ---- answers of other programs


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("coco-caption", lambda key, text: {"image_id": int(key), "caption": text}),
        ("nocaps", lambda key, text: {"image_id": int(key), "caption": text}),
        ("textcaps", lambda key, text: {"image_id": key, "caption": text}),
        ("vqav2", lambda key, text: {"question_id": int(key), "answer": text}),
        ("textvqa", lambda key, text: {"question_id": int(key), "answer": text}),
        ("vizwiz", lambda key, text: {"image": key, "answer": text}),
        ("refcoco", lambda key, text: {"sent_id": int(key), "text": text}),
        ("flickr30k", lambda key, text: {"key": key, "text": text}),
        ("coco-detect", lambda key, text: {"image_id": int(key), "text": text}),
    ],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_answers_of_another_program_score_like_our_own_without_images(tmp_path, name, entry, as_list):
    opened, right = opened_with(name, tmp_path / "data")
    own = score_answers(opened, ask_benchmark(Told(opened, right.get), opened, tmp_path / "out", ABOUT), rounds=5)
    rows = [entry(key, text) for key, text in right.items()]
    path = tmp_path / "theirs"
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)))
    for image in {question.image for question in opened.questions}:
        image.unlink()
    theirs = score_answers(open_benchmark(name, tmp_path / "data"), path, rounds=5)
    assert {name: one.figure for name, one in theirs.measured.items()} == {
        name: one.figure for name, one in own.measured.items()
    }
    assert theirs.exhibits == ()


def test_answers_to_other_questions_are_counted_or_refused(tmp_path):
    opened, right = opened_with("coco-caption", tmp_path / "data", limit=2)
    rows = [{"image_id": int(key), "caption": text} for key, text in right.items()]
    dump(tmp_path / "said.json", [*rows, {"image_id": 99, "caption": "?"}])
    results = score_answers(opened, tmp_path / "said.json", rounds=5)
    assert (results.asked, results.missing, results.about["unknown answers"]) == (2, 0, 1)
    dump(tmp_path / "said.json", [{"image_id": 99, "caption": "?"}])
    with pytest.raises(BadRecord, match=r"none of the 2 questions asked of coco-caption: it has '99', asked was '1'"):
        score_answers(opened, tmp_path / "said.json")


# ---- the drawn world


def test_the_world_kept_in_a_file_scores_as_in_one_go(tmp_path):
    florence = live_florence(drawn_network(), words_text())
    options = AskOptions(beams=1, max_tokens=8)
    straight = evaluate_world(florence, 2, options=options)
    path = ask_world(florence, tmp_path, ABOUT, Scenes(2, 0), options)
    judged, results = score_world(path, Scenes(2, 0), rounds=5)
    assert judged.scores == straight.tasks
    by_task = {scores.task: scores for scores in straight.tasks}
    assert [one.benchmark for one in results] == [f"world {name}" for name, one in by_task.items() if one.asked]
    for one in results:
        scores = by_task[one.benchmark.removeprefix("world ")]
        assert (one.asked, one.invalid, one.truncated) == (scores.asked, scores.invalid, scores.truncated)
        assert {name: one.measured[name].figure.value for name in scores.figures if name in one.measured} == {
            name: pytest.approx(figure.value) if figure.value is not None else None
            for name, figure in scores.figures.items()
        }
        assert one.images == ("scene 0", "scene 1")
        assert len(one.exhibits) == one.asked
    detect = next(one for one in results if one.benchmark == "world detect")
    assert detect.exhibits[1].picture().size == (128, 128)
    assert detect.exhibits[0].question == find_task("detect").sentence


def test_a_stopped_world_goes_on(tmp_path):
    said: list[str] = []

    class Empty:
        def predict_many(self, requests: Iterable[Request], *_: Any, **__: Any) -> Iterator[Any]:
            for request in requests:
                if len(said) == 20:
                    said.append("killed")
                    raise KeyboardInterrupt
                said.append(find_task(request.task).name)
                yield read_answer("", request.task, (128, 128))

    drawn = Scenes(3, 7)
    with pytest.raises(KeyboardInterrupt):
        ask_world(Empty(), tmp_path, ABOUT, drawn)
    path = ask_world(Empty(), tmp_path, ABOUT, drawn)
    keys = list(read_transcript(path))
    assert len(keys) == len(set(keys)) == len(said) - 1
    assert keys[0] == f"7/{TASKS[0].name}"
    _, results = score_world(path, Scenes(4, 7), rounds=5)
    assert next(one for one in results if one.benchmark == "world caption").missing == 1  # of scene 10
    with pytest.raises(BadRecord, match="no answer about scenes 50 to 51"):
        score_world(path, Scenes(2, 50))
