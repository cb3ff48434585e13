"""Answers kept as they come, and taken up after a kill; answers of any other program."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openflorence.contract.answers import read_answer
from openflorence.contract.regions import Region
from openflorence.contract.shapes import Box, Point
from openflorence.contract.tasks import find_task
from openflorence.errors import BadConfig, BadImage, BadPrompt, BadRecord
from openflorence.evaluation.transcript import ask_all, claim_folder, read_answers, read_transcript
from openflorence.model.predict import Request
from tests.hearing import said

SIZE = (1000, 1000)  # a bin is a pixel
RAW = "café<loc_10><loc_20><loc_110><loc_120><loc_1><loc_2>"


class Told:
    """Says what it is told to about a request; keeps what it was asked."""

    def __init__(self, say: Callable[[Request], Any]) -> None:
        self.say = say
        self.asked: list[Any] = []

    def predict_many(
        self, requests: Iterable[Request], options: Any = None, batch: int = 8, on_error: str = "raise"
    ) -> Iterator[Any]:
        for request in requests:
            self.asked.append(request.image)
            yield self.say(request)


def detected(request: Request) -> Any:
    return read_answer(RAW, "detect", SIZE, truncated=True, said=said(RAW, -0.5, 0.0))


def requests(count: int) -> list[tuple[str, Request]]:
    return [(f"q{number}", Request(f"{number}.png", find_task("detect"))) for number in range(count)]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_an_answer_reads_back_as_it_was_given(tmp_path):
    path = tmp_path / "new" / "answers.jsonl"
    ask_all(Told(detected), requests(1), path)
    (said,) = read_transcript(path).values()
    given = detected(requests(1)[0][1])
    assert said.answer(given.task, SIZE) == given  # scores, the cut and the piece that could not be read included
    assert (given.regions[0].score, given.truncated, given.invalid) == (pytest.approx(0.6065, abs=1e-4), True, 1)
    row = json.loads(path.read_text("utf-8"))
    assert (row["key"], row["task"], row["text"], row["truncated"], row["invalid"]) == ("q0", "detect", RAW, True, 1)
    assert "café" in path.read_text("utf-8")


def kept_and_read(tmp_path: Path, given: Any) -> tuple[Any, dict[str, Any]]:
    """An answer through the file, and its line."""
    path = tmp_path / "answers.jsonl"
    ask_all(Told(lambda request: given), [("q", Request("0.png", given.task))], path)
    (told,) = read_transcript(path).values()
    return told.answer(given.task, given.image_wh), json.loads(path.read_text("utf-8"))


def test_what_cut_an_answer_and_how_sure_it_is_read_back(tmp_path):
    text = read_answer("a red car", "caption", SIZE, truncated=True, said=said("a red car", 0.0, -0.3))
    given = replace(text, cut="tokens", logprob=-1.7)
    assert given.score == pytest.approx(0.7408, abs=1e-4)  # exp(-0.3)
    assert kept_and_read(tmp_path, given)[0] == given


RING = "<loc_1><loc_2><loc_30><loc_4><loc_50><loc_60>"
MOVED = (Region("dog", box=Box(1.25, 2.0, 3.1, 4.0)), Region("", box=Box(0.0, 0.0, 9.0, 1 / 3)))
LINE = Point(1.1, 2.0), Point(3.0, 4.5), Point(5.0, 6.0), Point(7.0, 8.0)


@pytest.mark.parametrize(
    ("task", "raw", "regions"),
    [
        ("detect", RAW, MOVED),  # as of tiles
        ("detect", RAW, ()),
        ("propose", "<loc_1><loc_2><loc_3><loc_4>", MOVED[1:]),
        ("ground", RAW, MOVED[:1]),  # a region that was said twice, left out
        ("read_regions", "café", (Region("café", quad=LINE),)),
        ("segment", RING, (Region(polygons=(LINE[:3], LINE)),)),
        ("find", f"dog<poly>{RING}</poly>", (Region("dog", polygons=(LINE[:3],)), *MOVED)),
    ],
)
def test_regions_that_the_text_does_not_spell_read_back(tmp_path, task, raw, regions):
    scored = tuple(replace(one, score=0.5, label_score=0.25, place_score=place) for place, one in enumerate(regions))
    given = replace(read_answer(raw, task, SIZE), regions=scored, text="of the whole picture", invalid=3)
    found, row = kept_and_read(tmp_path, given)
    assert found == given
    assert len(row["regions"]) == len(regions)


def test_a_line_says_regions_once(tmp_path):
    # Reading the text again gives them: a second copy could only differ.
    _, row = kept_and_read(tmp_path, detected(requests(1)[0][1]))
    assert set(row) == {
        *("key", "task", "text", "truncated", "invalid", "score", "image_wh"),
        *("scores", "label_scores", "place_scores"),
    }


def test_a_line_of_an_earlier_version_reads_as_it_did(tmp_path):
    # As written before places had scores of their own.
    old = {"key": "q", "task": "detect", "text": RAW, "truncated": True, "invalid": 1, "scores": [0.5]}
    path = write(tmp_path / "a.jsonl", old | {"image_wh": list(SIZE)})
    answer = read_transcript(path)["q"].answer(find_task("detect"), SIZE)
    (region,) = read_answer(RAW, "detect", SIZE).regions
    assert answer.regions == (replace(region, score=0.5),)
    assert (answer.truncated, answer.invalid, answer.score, answer.cut) == (True, 1, None, "")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"regions": [{"label": "x", "box": [1, 2, 3]}]}, "box"),
        ({"regions": [{"box": [1, 2, 3, 4]}]}, "has no 'label'"),
        ({"regions": [{"label": "x", "quad": [[1, 2]]}]}, "quad"),
        ({"regions": [{"label": "x", "polygons": [[1, 2]]}]}, "polygons"),
        ({"regions": "none"}, "'regions' is 'none'"),
        ({"score": "high"}, "score is 'high'"),
        ({"label_scores": [True]}, "label_scores"),
        ({"words": 5}, "'words' is 5"),
        ({"invalid": "many"}, "'invalid' is 'many'"),
    ],
)
def test_a_line_of_ours_that_was_changed_is_named(tmp_path, changed, words):
    path = write(tmp_path / "a.jsonl", {"key": "q", "text": RAW, "image_wh": [10, 10]} | changed)
    with pytest.raises(BadRecord, match=r"a\.jsonl:1.*" + words):
        read_transcript(path)


def test_every_answer_is_in_the_file_before_the_next_is_asked(tmp_path):
    path = tmp_path / "answers.jsonl"
    seen: list[int] = []

    def count(request: Request) -> Any:
        seen.append(len(path.read_bytes().splitlines()))
        return detected(request)

    ask_all(Told(count), requests(4), path)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "torn", ["", '{"key": "q2", "task": "det', '{"key": "q2", "text": "caf\\u00', '{"key": "q2", "text": ""}']
)
def test_after_a_kill_each_question_was_asked_once(tmp_path, torn):
    path = tmp_path / "answers.jsonl"

    def killed(request: Request) -> Any:
        if request.image == "2.png":
            raise KeyboardInterrupt
        return detected(request)

    first, told = Told(killed), list[int]()
    with pytest.raises(KeyboardInterrupt):
        ask_all(first, requests(5), path)
    with path.open("ab") as file:
        file.write(torn.encode())
    second = Told(detected)
    ask_all(second, requests(5), path, advance=lambda: told.append(1))
    assert first.asked == ["0.png", "1.png", "2.png"]  # the last one without an answer
    assert second.asked == ["2.png", "3.png", "4.png"]
    assert list(read_transcript(path)) == ["q0", "q1", "q2", "q3", "q4"]
    assert len(path.read_bytes().splitlines()) == len(told) == 5


def test_half_a_letter_is_a_torn_line_too(tmp_path):
    path = write(tmp_path / "answers.jsonl", {"key": "q0", "text": "é"})
    path.write_bytes(path.read_bytes() + '{"key": "q1", "text": "é'.encode()[:-1])
    assert list(read_transcript(path)) == ["q0"]
    again = Told(detected)
    ask_all(again, requests(2), path)
    assert again.asked == ["1.png"]


def test_a_key_that_stands_twice_is_asked_once(tmp_path):
    model, told = Told(detected), list[int]()
    ask_all(model, [*requests(2), *requests(2)], tmp_path / "a.jsonl", advance=lambda: told.append(1))
    assert model.asked == ["0.png", "1.png"]
    assert len(told) == 4


def test_errors_are_kept_and_only_images_that_could_not_be_read_are_asked_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    errors = [BadPrompt("too long"), BadImage("gone")]
    ask_all(Told(lambda request: errors[int(request.image[0])]), requests(2), path)
    said = read_transcript(path)
    assert (said["q0"].error, said["q1"].error) == ("BadPrompt: too long", "BadImage: gone")
    assert [one.is_unread for one in said.values()] == [False, True]
    assert said["q0"].answer(find_task("detect"), SIZE).regions == ()
    again = Told(detected)
    ask_all(again, requests(2), path)
    assert again.asked == ["1.png"]
    assert read_transcript(path)["q1"].error == ""  # the later line counts


def test_half_of_a_first_line_is_a_torn_line_too(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "q0", "te')
    ask_all(Told(detected), requests(1), path)
    assert list(read_transcript(path)) == ["q0"]


@pytest.mark.parametrize("notes", ["a shopping list\nmilk", "a shopping list"])
def test_a_file_that_holds_something_else_is_left_as_it_is(tmp_path, notes):
    path = tmp_path / "notes.jsonl"
    path.write_text(notes)
    model = Told(detected)
    with pytest.raises(BadRecord, match=r"notes\.jsonl.* is not JSON"):
        ask_all(model, requests(1), path)
    assert model.asked == []
    assert path.read_text() == notes


def test_a_folder_holds_the_answers_of_one_run(tmp_path):
    about = {"model": "nano", "beams": 3, "sizes": (1, 2)}
    claim_folder(tmp_path / "run", about)
    claim_folder(tmp_path / "run", about)
    with pytest.raises(BadConfig, match="model was 'nano' and is 'base'"):
        claim_folder(tmp_path / "run", about | {"model": "base"})
    with pytest.raises(BadConfig, match="seed was None and is 1"):
        claim_folder(tmp_path / "run", about | {"seed": 1})


# ---- answers of other programs


@pytest.mark.parametrize(
    "entries",
    [
        [{"image_id": 7, "caption": "Ein Fuß"}, {"image_id": 8, "caption": ""}],
        [{"key": "7", "text": "Ein Fuß", "model": "other"}, {"key": "8", "text": ""}],
        [{"image_id": "7", "answer": "Ein Fuß"}, {"image_id": 8, "answer": ""}],
    ],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_texts_are_read_from_lines_and_from_a_list(tmp_path, entries, as_list):
    path = tmp_path / "said"
    lines = "\n".join(json.dumps(entry) for entry in entries)  # without a last line end
    path.write_text(json.dumps(entries, indent=1) if as_list else lines, "utf-8-sig")
    said = read_answers(path, "image_id")
    assert {key: one.text for key, one in said.items()} == {"7": "Ein Fuß", "8": ""}
    assert said["7"].answer(find_task("caption"), SIZE).text == "Ein Fuß"


def test_the_official_results_of_questions_are_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "no"}]))
    assert [one.text for one in read_answers(path, "question_id").values()] == ["yes", "no"]


def test_the_official_results_of_detection_are_read(tmp_path):
    path = tmp_path / "results.json"
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    entries = [
        {"image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 7, "category_id": 1, "segmentation": square, "score": 1},
        {"image_id": 8, "label": "cat", "bbox": [0, 0, 5, 5]},
    ]
    path.write_text(json.dumps(entries))
    said = read_answers(path, "image_id", {1: "person", 18: "dog"})
    ring = tuple(Point(x, y) for x, y in ((0, 0), (10, 0), (10, 10), (0, 10)))
    assert said["7"].regions == (
        Region("dog", box=Box(1, 2, 4, 6), score=0.5),
        Region("person", polygons=(ring,), score=1),
    )
    assert said["8"].answer(find_task("detect"), SIZE) == replace(
        read_answer("", "detect", SIZE), text="cat", regions=(Region("cat", box=Box(0, 0, 5, 5)),)
    )


def test_a_run_length_mask_is_read(tmp_path):
    # By hand: 4 x 3 pixels, columns first: 4 of background, 2 inside (rows 1, 2 of column 1), the rest outside.
    coded = {"size": [3, 4], "counts": [4, 2, 6]}
    path = write(tmp_path / "said.jsonl", {"image_id": 1, "label": "x", "segmentation": coded})
    (region,) = read_answers(path, "image_id")["1"].regions or ()
    assert region.bounds == Box(1, 1, 2, 3)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"caption": "a cat"}, "'key' or 'image_id' must name the question"),
        ({"image_id": True, "caption": "a cat"}, "image_id True"),
        ({"image_id": 1}, "text, answer, caption"),
        ({"image_id": 1, "caption": 5}, "as a text"),
        ({"image_id": 1, "category_id": 99, "bbox": [1, 2, 3, 4]}, "category_id 99 is none of the benchmark's 1"),
        ({"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}, "bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [1, 2, -3, 4]}, "x, y, width and height"),
        ({"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}, "score 'high'"),
        ({"image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3]]}, "list of rings"),
        ({"image_id": 1, "category_id": 1, "segmentation": {"counts": [1]}}, "no run-length mask"),
        ({"image_id": 1, "text": "cat", "scores": ["high"]}, "scores"),
        ({"image_id": 0, "caption": "again"}, "question '0' was answered above"),
        ("a cat", "an object is needed"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(tmp_path, entry, words):
    path = write(tmp_path / "said.jsonl", {"image_id": 0, "caption": "a dog"}, entry)
    with pytest.raises(BadRecord, match=r"said\.jsonl:2.*" + words):
        read_answers(path, "image_id", {1: "person"})
    as_list = tmp_path / "said.json"
    as_list.write_text(json.dumps([{"image_id": 0, "caption": "a dog"}, entry]))
    with pytest.raises(BadRecord, match=r"said\.json, entry 1.*" + words):
        read_answers(as_list, "image_id", {1: "person"})


def test_a_file_that_is_no_answers_is_named(tmp_path):
    with pytest.raises(BadRecord, match=r"cannot read .*none"):
        read_answers(tmp_path / "none", "image_id")
    path = tmp_path / "half.json"
    path.write_text('[{"image_id": 1,')
    with pytest.raises(BadRecord, match=r"half\.json is not JSON"):
        read_answers(path, "image_id")
