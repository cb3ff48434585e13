"""A prompt is the published sentence, word for word."""

import numpy as np
import pytest

from openflorence.contract.prompts import fill_sentence, input_of, parse_published_prompt, write_prompt
from openflorence.contract.regions import Box, Point, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadPrompt, BadRegion

# Published processor. Three sentences lack their final mark, as published.
SENTENCES = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
    "<OD>": "Locate the objects with category name in the image.",
    "<DENSE_REGION_CAPTION>": "Locate the objects in the image, with their descriptions.",
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
    "<OCR>": "What is the text in the image?",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<CAPTION_TO_PHRASE_GROUNDING>": "Locate the phrases in the caption: a green car",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "Locate a green car in the image with mask",
    "<OPEN_VOCABULARY_DETECTION>": "Locate a green car in the image.",
    "<REGION_TO_SEGMENTATION>": "What is the polygon mask of region <loc_52><loc_332><loc_932><loc_774>",
    "<REGION_TO_CATEGORY>": "What is the region <loc_52><loc_332><loc_932><loc_774>?",
    "<REGION_TO_DESCRIPTION>": "What does the region <loc_52><loc_332><loc_932><loc_774> describe?",
    "<REGION_TO_OCR>": "What text is in the region <loc_52><loc_332><loc_932><loc_774>?",
}
CAR = Box(33.6, 159.6, 596.8, 371.76)  # the centres of bins 52 332 932 774 at 640 x 480
LOCATIONS = "<loc_52><loc_332><loc_932><loc_774>"


def asked(task):
    return {"none": {}, "text": {"text": "a green car"}, "region": {"region": CAR, "image_wh": (640, 480)}}[task.input]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_prompt_is_the_published_sentence(task):
    assert write_prompt(task.name, **asked(task)) == SENTENCES[task.token]
    assert write_prompt(task.token, **asked(task)) == SENTENCES[task.token]


def test_the_sweep_saw_every_sentence():
    assert {task.token for task in TASKS} == set(SENTENCES)


def test_free_text_is_the_whole_prompt():
    assert write_prompt("answer", text=" What colour is the car? ") == "What colour is the car?"


def test_text_is_trimmed():
    assert write_prompt("find", text="\n wheels ") == "Locate wheels in the image."


def test_words_that_look_like_the_place_for_words_stay():
    assert write_prompt("find", text="{input}") == "Locate {input} in the image."


@pytest.mark.parametrize("phrases", [["cat", "dog"], ("cat ", " dog"), "cat<and>dog"])
def test_phrases_to_find_are_joined_without_spaces(phrases):
    # Ids 4758 51288 16319 of the published example hold no space token around <and>.
    assert write_prompt("find", text=phrases) == "Locate cat<and>dog in the image."


@pytest.mark.parametrize(
    "region",
    [
        CAR,
        list(CAR),
        np.array(CAR),
        Region("car", box=CAR),
        Region("car", polygons=((Point(33.6, 200), Point(596.8, 371.76), Point(300, 159.6)),)),
        Region("line", quad=(Point(33.6, 159.6), Point(596.8, 160), Point(596, 371.76), Point(34, 371))),
    ],
    ids=["box", "list", "array", "region", "polygon", "quad"],
)
def test_a_region_may_come_in_any_shape(region):
    assert input_of("classify_region", region=region, image_wh=(640, 480)) == LOCATIONS


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_input_fills_the_sentence(task):
    words = input_of(task, **asked(task))
    assert (words is None) == (task.input == "none")
    assert fill_sentence(task, words) == SENTENCES[task.token]


@pytest.mark.parametrize(
    ("task", "given", "needs"),
    [
        ("ground", {}, r"'ground' needs text="),
        ("find", {"text": "  "}, "at least one word"),
        ("find", {"text": ["cat", ""]}, "at least one word"),
        ("find", {"text": []}, "at least one word"),
        ("segment", {"text": ["cat", "dog"]}, "only 'find' takes a list"),
        ("answer", {}, "'answer' needs text="),
        ("describe_region", {"image_wh": (9, 9)}, r"needs region=\(x0, y0, x1, y1\)"),
        ("describe_region", {"region": CAR}, "got no image_wh"),
        ("describe_region", {"region": (1, 2, 3), "image_wh": (9, 9)}, "give four numbers"),
        ("describe_region", {"region": "1,2,3,4", "image_wh": (9, 9)}, "give four numbers"),
        ("describe_region", {"region": Region("car"), "image_wh": (9, 9)}, "give four numbers"),
        ("describe_region", {"text": "car", "region": CAR, "image_wh": (640, 480)}, "leave text out"),
        ("detect", {"text": "car"}, "leave text out"),
        ("detect", {"region": CAR, "image_wh": (640, 480)}, "leave region out"),
        ("find", {"text": "car", "region": CAR, "image_wh": (640, 480)}, "leave region out"),
        ("paint", {}, "no task 'paint'"),
    ],
)
def test_missing_and_superfluous_input_is_named(task, given, needs):
    with pytest.raises(BadPrompt, match=needs):
        write_prompt(task, **given)


def test_a_region_outside_the_image_is_refused():
    with pytest.raises(BadRegion, match="640 x 480 px"):
        write_prompt("describe_region", region=(700, 10, 800, 20), image_wh=(640, 480))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_published_prompt_is_taken_apart(task):
    words = input_of(task, **asked(task))
    assert parse_published_prompt(task.token + (words or "")) == (task, words)


@pytest.mark.parametrize(
    ("raw", "name", "words"),
    [
        ("<OPEN_VOCABULARY_DETECTION>wheels", "find", "wheels"),
        ("<OPEN_VOCABULARY_DETECTION> wheels", "find", " wheels"),  # the space is kept, as published
        ("wheels<OPEN_VOCABULARY_DETECTION>", "find", "wheels"),  # the token counts anywhere
        ("<OPEN_VOCABULARY_DETECTION>", "find", ""),
        ("<VQA>what colour?", "answer", "<VQA>what colour?"),  # no published token: passed through
        ("", "answer", ""),
    ],
)
def test_a_published_prompt_is_read_as_the_published_processor_does(raw, name, words):
    assert parse_published_prompt(raw) == (find_task(name), words)


@pytest.mark.parametrize("raw", ["<OD> ", "<OD>car", "<CAPTION_TO_PHRASE_GROUNDING>a cat <CAPTION>"])
def test_a_published_prompt_without_input_stands_alone(raw):
    with pytest.raises(BadPrompt, match="send the token alone"):
        parse_published_prompt(raw)


def test_free_text_needs_no_sentence():
    assert fill_sentence(FREE_TEXT, "what colour?") == "what colour?"
