"""A task and its input -> the sentence the network reads, and back from the published one-string form."""

from collections.abc import Sequence

from openflorence.contract.locations import box_to_bins, spell_all
from openflorence.contract.regions import Box, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.errors import BadPrompt

AND = "<and>"  # joins the phrases of one `find`; no spaces around it

Text = str | Sequence[str]


def write_prompt(
    task: str | Task,
    text: Text | None = None,
    region: Region | Sequence[float] | None = None,
    image_wh: tuple[int, int] | None = None,
) -> str:
    """Write the sentence that asks for a task.

    text      what to look for; for "find" also a list of phrases; for "answer" the whole question.
    region    for the region tasks: a Region, or x0, y0, x1, y1 in pixels of the upright original.
    image_wh  width and height in pixels; needed with a region.
    raises    BadPrompt if the task does not exist, misses its input, or was given one it does not take.
              BadRegion if the region is empty or outside the image.
    source    Published processor, prompt tables.
    """
    task = find_task(task)
    return fill_sentence(task, input_of(task, text, region, image_wh))


def input_of(
    task: str | Task,
    text: Text | None = None,
    region: Region | Sequence[float] | None = None,
    image_wh: tuple[int, int] | None = None,
) -> str | None:
    """Give the words that stand in for `{input}`, as `Answer.input` keeps them; None when the task asks for none."""
    task = find_task(task)
    if text is not None and task.input not in ("text", "free"):
        needs = "region=(x0, y0, x1, y1) in pixels" if task.input == "region" else "no input"
        raise BadPrompt(f"task {task.name!r} takes {needs}, got text={text!r}; leave text out")
    if region is not None and task.input != "region":
        needs = "no input" if task.input == "none" else "text only"
        raise BadPrompt(f"task {task.name!r} takes {needs}, got region={region!r}; leave region out")
    if task.input == "none":
        return None
    if task.input == "region":
        return _region_words(task, region, image_wh)
    return _text_words(task, text)


def fill_sentence(task: Task, words: str | None) -> str:
    """Put the input, as `input_of` gave it, into the sentence of the task."""
    return task.sentence.replace("{input}", words) if words is not None else task.sentence


def parse_published_prompt(text: str) -> tuple[Task, str | None]:
    """Split a published prompt, such as "<OPEN_VOCABULARY_DETECTION>wheels", into its task and its input.

    returns   the task and the words for `fill_sentence`, kept as typed; a text without a token is free text.
    raises    BadPrompt if anything stands beside the token of a task without input.
    source    Published processor: tokens are looked for anywhere in the text, tasks without input first.
    """
    for task in TASKS:  # the table lists those without input first
        if task.token not in text:
            continue
        if task.input != "none":
            return task, text.replace(task.token, "")
        if text != task.token:
            raise BadPrompt(f"task token {task.token!r} takes no input, got {text!r}; send the token alone")
        return task, None
    return FREE_TEXT, text


def _text_words(task: Task, text: Text | None) -> str:
    needs = f"task {task.name!r} needs text=" + ("the question" if task.input == "free" else "what to look for")
    if text is None:
        raise BadPrompt(f"{needs}, got nothing; use 'detect' or 'caption' if you have no words yet")
    if not isinstance(text, str) and task.name != "find":
        raise BadPrompt(f"{needs} as one string, got {text!r}; only 'find' takes a list of phrases")
    phrases = [text] if isinstance(text, str) else list(text)
    if not phrases or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise BadPrompt(f"{needs}, got {text!r}; give at least one word in each phrase")
    return AND.join(phrase.strip() for phrase in phrases)


def _region_words(task: Task, region: Region | Sequence[float] | None, image_wh: tuple[int, int] | None) -> str:
    needs = f"task {task.name!r} needs region=(x0, y0, x1, y1) in pixels"
    if region is None:
        raise BadPrompt(f"{needs}, got nothing; use 'detect' if you have no region yet")
    if image_wh is None:
        raise BadPrompt(f"{needs} and image_wh=(width, height), got no image_wh; give the size of the image")
    box = region.bounds if isinstance(region, Region) else region
    try:
        box = Box(*map(float, box))  # type: ignore[arg-type]  # None, and what does not count to four, is caught
    except (TypeError, ValueError):
        raise BadPrompt(f"{needs}, got {region!r}; give four numbers, or a Region with a box") from None
    return spell_all(box_to_bins(box, image_wh))
