"""The task table: what can be asked, in which words, and in which form the answer comes.

Sentences are the published ones, word for word; three of them lack their final full stop or question mark,
as published. Source: the processor shipped with microsoft/Florence-2-*, prompts and post-processing tables.
"""

from dataclasses import dataclass
from typing import Literal

from openflorence.errors import BadPrompt

TaskInput = Literal["none", "text", "region", "free"]
AnswerForm = Literal["text", "boxes", "bare_boxes", "phrases", "polygons", "boxes_or_polygons", "quads"]


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    name: str  # plain name, as in `model.predict(image, "detect")`
    token: str  # published task token; also the key of `Answer.to_published()`
    sentence: str  # the prompt; `{input}` is replaced by the text or by four location tokens
    input: TaskInput  # what the sentence needs besides the image
    form: AnswerForm  # how the answer is spelt, see contract/answers.py


TASKS: tuple[Task, ...] = (
    Task("caption", "<CAPTION>", "What does the image describe?", "none", "text"),
    Task("detailed_caption", "<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", "none", "text"),
    Task(
        "more_detailed_caption",
        "<MORE_DETAILED_CAPTION>",
        "Describe with a paragraph what is shown in the image.",
        "none",
        "text",
    ),
    Task("detect", "<OD>", "Locate the objects with category name in the image.", "none", "boxes"),
    Task(
        "dense_caption",
        "<DENSE_REGION_CAPTION>",
        "Locate the objects in the image, with their descriptions.",
        "none",
        "boxes",
    ),
    Task("propose", "<REGION_PROPOSAL>", "Locate the region proposals in the image.", "none", "bare_boxes"),
    Task("read", "<OCR>", "What is the text in the image?", "none", "text"),
    Task("read_regions", "<OCR_WITH_REGION>", "What is the text in the image, with regions?", "none", "quads"),
    Task("ground", "<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {input}", "text", "phrases"),
    Task(
        "segment",
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "Locate {input} in the image with mask",
        "text",
        "polygons",
    ),
    Task(
        "segment_region",
        "<REGION_TO_SEGMENTATION>",
        "What is the polygon mask of region {input}",
        "region",
        "polygons",
    ),
    Task("find", "<OPEN_VOCABULARY_DETECTION>", "Locate {input} in the image.", "text", "boxes_or_polygons"),
    Task("classify_region", "<REGION_TO_CATEGORY>", "What is the region {input}?", "region", "text"),
    Task("describe_region", "<REGION_TO_DESCRIPTION>", "What does the region {input} describe?", "region", "text"),
    Task("read_region", "<REGION_TO_OCR>", "What text is in the region {input}?", "region", "text"),
)

# Questions and the prompts of fine-tuned checkpoints: the user's words are the whole prompt, as published.
FREE_TEXT = Task("answer", "<VQA>", "{input}", "free", "text")

_BY_WORD = {word: task for task in (*TASKS, FREE_TEXT) for word in (task.name, task.token)}


def find_task(word: str | Task) -> Task:
    """Look a task up by its plain name ("detect") or its published token ("<OD>").

    raises    BadPrompt naming what was seen and the names that exist.
    """
    if isinstance(word, Task):
        return word
    task = _BY_WORD.get(word.strip()) if isinstance(word, str) else None
    if task is None:
        names = ", ".join(task.name for task in (*TASKS, FREE_TEXT))
        raise BadPrompt(f"no task {word!r}; the tasks are {names} (or their published tokens, such as '<OD>')")
    return task
