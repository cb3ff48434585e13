"""The task table is the published one."""

import pytest

from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadPrompt, OpenFlorenceError

# Published processor, tables of prompts with and without input, and of answer types.
PUBLISHED = {
    "none": [
        *("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>"),
        *("<REGION_PROPOSAL>", "<OCR>", "<OCR_WITH_REGION>"),
    ],
    "text": ["<CAPTION_TO_PHRASE_GROUNDING>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"],
    "region": ["<REGION_TO_SEGMENTATION>", "<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REGION_TO_OCR>"],
}


def test_the_table_has_the_published_fifteen():
    assert len(TASKS) == 15
    assert {task.token: task.input for task in TASKS} == {t: k for k, tokens in PUBLISHED.items() for t in tokens}


def test_names_and_tokens_are_distinct():
    words = [word for task in (*TASKS, FREE_TEXT) for word in (task.name, task.token)]
    assert len(set(words)) == len(words) == 32


def test_no_token_hides_inside_another():
    # The published processor looks for tokens anywhere in the text, so one inside another would be found first.
    tokens = [task.token for task in TASKS]
    assert not [(a, b) for a in tokens for b in tokens if a != b and a in b]


def test_a_sentence_has_a_place_for_its_input_exactly_when_it_needs_one():
    assert all(("{input}" in task.sentence) == (task.input != "none") for task in (*TASKS, FREE_TEXT))


@pytest.mark.parametrize("task", [*TASKS, FREE_TEXT], ids=lambda task: task.name)
def test_a_task_is_found_by_name_token_and_itself(task):
    assert find_task(task.name) is find_task(task.token) is find_task(task) is find_task(f" {task.name}\n") is task


@pytest.mark.parametrize("word", ["od", "", "OD", "<od>", None, 3])
def test_an_unknown_task_is_named_with_those_that_exist(word):
    with pytest.raises(BadPrompt, match="detect") as caught:
        find_task(word)
    assert repr(word) in str(caught.value)
    assert isinstance(caught.value, OpenFlorenceError)
