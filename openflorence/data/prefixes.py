"""Pairs of prompt and answer as people wrote them -> what is asked and answered.

A prefix that opens with a published task token is that task, with its input; what it means is then known, and its
regions can be scored, thinned and drawn. Any other prefix is the whole prompt, as the user's words are at inference.
"""

import re
from dataclasses import replace

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.locations import BINS, bins_to_box
from openflorence.contract.prompts import fill_sentence, parse_published_prompt
from openflorence.contract.records import Example, PairNote
from openflorence.contract.regions import Answer
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.errors import BadPrompt, BadRegion

_REGION = re.compile("<loc_([0-9]{1,3})>" * 4)


def pose_pair(note: PairNote, image_wh: tuple[int, int]) -> Example:
    """Pose a pair.

    returns   an example of the task that opens the prefix, if its answer is written exactly like the suffix. Otherwise
              an example of "answer" whose prompt is what the prefix expands to, so that the network reads the same
              prompt as when asked with that prefix, and whose text is the suffix.
    promise   what is taught is the suffix as it stands, but for white space at its ends.
    """
    prefix, suffix = note.prefix.strip(), note.suffix.strip()
    task, words = _opening(prefix)
    sentence = fill_sentence(task, words)
    region = _region(words, image_wh) if task.input == "region" else None
    answer = replace(read_answer(suffix, task, image_wh, input=words), raw="")
    if task is FREE_TEXT or not _is_written(answer, suffix) or (task.input == "region" and region is None):
        return Example(FREE_TEXT, sentence, None, Answer(FREE_TEXT, image_wh, suffix, input=sentence))
    return Example(task, words if task.input == "text" else None, region, answer)


def _opening(prefix: str) -> tuple[Task, str | None]:
    """Split a prefix into its task and its input; free text if it does not open with a token, or cannot be asked."""
    if not any(prefix.startswith(task.token) for task in TASKS):
        return FREE_TEXT, prefix
    try:
        task, words = parse_published_prompt(prefix)
    except BadPrompt:
        return FREE_TEXT, prefix
    words = words.strip() if words is not None else None
    return (FREE_TEXT, prefix) if words == "" else (task, words)


def _region(words: str | None, image_wh: tuple[int, int]) -> Box | None:
    """Read the region that is asked about; None if the input is not one region with its corners in order."""
    found = _REGION.fullmatch(words or "")
    if found is None:
        return None
    x0, y0, x1, y1 = map(int, found.groups())
    spelt = f"<loc_{x0}><loc_{y0}><loc_{x1}><loc_{y1}>"  # not <loc_007>, which is no token
    sound = x0 <= x1 < BINS and y0 <= y1 < BINS and spelt == words
    return bins_to_box((x0, y0, x1, y1), image_wh) if sound else None


def _is_written(answer: Answer, suffix: str) -> bool:
    try:
        return write_answer(answer) == suffix
    except BadRegion:
        return False
