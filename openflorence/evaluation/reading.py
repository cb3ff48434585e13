"""What was read in a picture: words and lines with their places, and whole texts."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Region
from openflorence.errors import BadConfig
from openflorence.evaluation.metrics import (
    Parts,
    edit_similarity,
    f1_parts,
    match,
    quad_covered,
    quad_iou,
    shared_count,
    word_f1,
)
from openflorence.evaluation.places import LEAST

# When a word counts as read: "exact": equal after trimming. "caseless": without regard to case. "icdar2015": as that
# competition's program has it, see `score_words`.
ReadingRule = Literal["exact", "caseless", "icdar2015"]
READING_RULES: tuple[ReadingRule, ...] = get_args(ReadingRule)
UNREADABLE = "###"  # the transcription of a word that nobody is asked to read
_AT_THE_ENDS = "!?.:,*\"()·[]/'"  # marks that a transcription may have at its ends, and an answer need not


def score_words(predicted: Sequence[Region], true: Sequence[Region], rule: ReadingRule = "exact") -> dict[str, Parts]:
    """Words, or lines, that lie right and are spelt right: end-to-end F1, precision, recall; and F1 of places alone.

    predicted  quads with what is printed there. One that lies by more than half in a word that is not to be read is
               left out: it is neither right nor wrong.
    true       words that are not to be read have the transcription "###".
    returns    "f1", "precision", "recall", and "f1_unread" whatever the spelling.
    raises     BadConfig for an unknown rule.
    source     "exact", "caseless": the best overlap first among equal words, IoU at least 0.5. "icdar2015": the program
               of ICDAR 2015, challenge 4, task 4 (Karatzas et al. 2015): the first prediction with an IoU above 0.5
               takes a word, whatever it says, and then must say it, case aside, where the truth may have one of the
               marks !?.:,*"()·[]/' more at either end. That program cuts coordinates down to whole pixels, which is
               left to the reader of its files.
    """
    if rule not in READING_RULES:
        raise BadConfig(f"rule of reading is {rule!r}; allowed: {', '.join(READING_RULES)}")
    judged, asked = words_to_judge(predicted, true)
    overlap = _overlaps(judged, asked)
    if rule == "icdar2015":
        placed = _first_come(overlap)
        right = sum(_says(judged[i].label, asked[j].label) for i, j in placed)
    else:
        placed = match(overlap, LEAST)
        right = len(match(overlap * _equal(judged, asked, rule), LEAST))
    return {
        "f1": f1_parts(right, len(judged), len(asked)),
        "precision": Parts(right, len(judged)),
        "recall": Parts(right, len(asked)),
        "f1_unread": f1_parts(len(placed), len(judged), len(asked)),
    }


def words_to_judge(predicted: Sequence[Region], true: Sequence[Region]) -> tuple[list[Region], list[Region]]:
    """Leave out true words that are not to be read, and predictions that lie by more than half in one of them."""
    asked = [region for region in true if region.label.strip() != UNREADABLE]
    unasked = [region for region in true if region.label.strip() == UNREADABLE]
    return [one for one in predicted if not any(_covered(one, other) > LEAST for other in unasked)], asked


def _overlaps(predicted: Sequence[Region], true: Sequence[Region]) -> NDArray[np.float64]:
    """IoU of quads: (predicted, true); 0 where a quad is missing."""
    overlap = np.zeros((len(predicted), len(true)))
    for i, one in enumerate(predicted):
        for j, other in enumerate(true):
            if one.quad and other.quad:
                overlap[i, j] = quad_iou(one.quad, other.quad)
    return overlap


def _covered(one: Region, other: Region) -> float:
    return quad_covered(one.quad, other.quad) if one.quad and other.quad else 0.0


def _equal(predicted: Sequence[Region], true: Sequence[Region], rule: ReadingRule) -> NDArray[np.bool_]:
    fold = str.casefold if rule == "caseless" else str
    said, printed = ([fold(region.label.strip()) for region in some] for some in (predicted, true))
    return np.array([[one == other for other in printed] for one in said], bool).reshape(len(said), len(printed))


def _first_come(overlap: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Words in turn, each taking the first prediction that is free and overlaps it by more than half."""
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for j in range(overlap.shape[1]):
        for i in np.flatnonzero(overlap[:, j] > LEAST).tolist():
            if i not in taken:
                taken.add(i)
                pairs.append((i, j))
                break
    return pairs


def _says(said: str, printed: str) -> bool:
    said, printed = said.strip().upper(), printed.strip().upper()
    fits = {printed}
    if printed[:1] and printed[0] in _AT_THE_ENDS:
        fits.add(printed[1:])
    if printed[-1:] and printed[-1] in _AT_THE_ENDS:
        fits |= {text[:-1] for text in (printed, *fits) if text[-1:] == printed[-1]}
    return said in fits


def score_text(said: str, printed: str) -> dict[str, Parts]:
    """A whole text, lines as lines: equality, F1 of words and of lines as multisets, and edit similarity.

    source    Edit similarity is 1 - N.E.D. of the ICDAR 2019 competitions; its mean over images is theirs.
    """
    lines = [Counter(line.strip() for line in text.splitlines() if line.strip()) for text in (said, printed)]
    return {
        "exact": Parts(float(said.strip() == printed.strip()), 1),
        "word_f1": word_f1(said, printed),
        "line_f1": f1_parts(shared_count(*lines), lines[0].total(), lines[1].total()),
        "edit_similarity": Parts(edit_similarity(said.strip(), printed.strip()), 1),
    }
