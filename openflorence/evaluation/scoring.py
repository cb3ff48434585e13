"""An answer about a drawn scene -> its part in every figure of its task.

A scorer gives `Parts` by the name of the figure; summed over scenes, right over whole is the figure. A scene that has
no say in a figure, as one without signs in the reading of words, leaves it out or gives nothing as the whole.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from openflorence.contract.overlaps import box_iou
from openflorence.contract.prompts import AND
from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Region
from openflorence.data.sentences import name
from openflorence.data.truth import LABELS, polygons
from openflorence.data.words import COLOURS, NUMBERS, SIZES, plural
from openflorence.data.world import Scene
from openflorence.evaluation.figures import Scored
from openflorence.evaluation.metrics import (
    Parts,
    f1_parts,
    mask_parts,
    match,
    rasterise,
    shared_count,
)
from openflorence.evaluation.phrases import boxes_by_phrase, recalls, score_mask
from openflorence.evaluation.places import LEAST, alike, bounds
from openflorence.evaluation.reading import score_words

Scorer = Callable[[Scene, Example, Answer], Scored]


def score(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Score one answer: the part of this scene in every figure of the task, the headline figure first."""
    return SCORERS[example.task.name](scene, example, answer)


def _same(scene: Scene, example: Example, answer: Answer) -> Scored:
    return {"exact": Parts(float(answer.text.strip() == example.answer.text), 1)}


# ---- regions, of the drawn world or of any other


def score_boxes(predicted: Sequence[Region], true: Sequence[Region]) -> Scored:
    """Found boxes: F1, precision and recall with equal labels, F1 without labels, mean IoU of what was found.

    source    IoU of 0.5 as in PASCAL VOC; greedy one-to-one matching, best overlap first, no confidence needed.
    """
    overlap = box_iou(bounds(predicted), bounds(true))
    found = match(overlap * alike(predicted, true), LEAST)
    counts = len(predicted), len(true)
    return {
        "f1": f1_parts(len(found), *counts),
        "precision": Parts(len(found), len(predicted)),
        "recall": Parts(len(found), len(true)),
        "f1_unlabelled": f1_parts(len(match(overlap, LEAST)), *counts),
        "iou_of_found": Parts(sum(float(overlap[pair]) for pair in found), len(found)),
    }


def sure_and_right(
    predicted: Sequence[Region], true: Sequence[Region], labelled: bool = True
) -> list[tuple[float, float]]:
    """The score of each region that has one, and 1 or 0: whether it was found right, as `score_boxes` has it."""
    same = alike(predicted, true) if labelled else np.ones((len(predicted), len(true)), bool)
    right = {place for place, _ in match(box_iou(bounds(predicted), bounds(true)) * same, LEAST)}
    return [(one.score, float(place in right)) for place, one in enumerate(predicted) if one.score is not None]


def score_proposals(predicted: Sequence[Region], true: Sequence[Region]) -> Scored:
    """As boxes; nothing has a label here, so the figure without labels would say the same twice."""
    scored = score_boxes(predicted, true)
    del scored["f1_unlabelled"]
    return scored


def score_phrases(predicted: Sequence[Region], true: Sequence[Region]) -> Scored:
    """Phrases whose first box overlaps any true box of theirs (R@1, any-box protocol), then the figures of boxes.

    source    Flickr30k Entities as MDETR scores it, Kamath et al. 2021, "any-box" protocol.
    """
    phrases = list(dict.fromkeys(region.label.strip() for region in true))
    right = 0.0
    for phrase, found in zip(phrases, boxes_by_phrase(predicted, phrases), strict=True):
        theirs = [region for region in true if region.label.strip() == phrase]
        right += recalls(found, bounds(theirs))["recall_at_1"].right
    return {"recall_at_1": Parts(right, len(phrases))} | score_boxes(predicted, true)


def score_find(asked: str, predicted: Sequence[Region], true: Sequence[Region]) -> Scored:
    """The figures of boxes, and the share of phrases for what is not there that got no region.

    asked     the phrases, joined by AND.
    """
    there = {region.label.strip() for region in true}
    said = {region.label.strip() for region in predicted}
    absent = [phrase for phrase in asked.split(AND) if phrase.strip() not in there]
    silent = sum(phrase.strip() not in said for phrase in absent)
    return score_boxes(predicted, true) | {"absent_left_out": Parts(silent, len(absent))}


def score_quads(predicted: Sequence[Region], true: Sequence[Region]) -> Scored:
    """Words that are spelt right and lie right, over all words; F1; and silence where nothing is printed."""
    scored = score_words(predicted, true)
    return {
        "words_right": scored["recall"],
        "f1": scored["f1"],
        "f1_unread": scored["f1_unread"],
        "silent_without_text": Parts(0, 0) if true else Parts(float(not predicted), 1),
    }


# ---- regions of the drawn world


def _score_drawn_mask(scene: Scene, example: Example, answer: Answer) -> Scored:
    """The figures of masks against the exact visible pixels.

    `miou_of_truth` is what the true outline scores: the most that an answer of twenty vertices a ring can reach.
    """
    traced = example.answer.regions[0].polygons
    asked = next(thing for thing in scene.things if polygons(scene, thing) == traced)
    exact = scene.mask(asked)
    best = mask_parts(rasterise(traced, scene.image_wh), exact)
    return score_mask(answer.regions, exact) | {"miou_of_truth": Parts(best.right / best.whole, 1)}


def _score_read(scene: Scene, example: Example, answer: Answer) -> Scored:
    """All words in order, where there are some; where there are none, no word at all."""
    right, empty = _same(scene, example, answer)["exact"], not scene.signs
    return {"exact": Parts(0, 0) if empty else right, "silent_without_text": right if empty else Parts(0, 0)}


def _of_regions(score_regions: Callable[[Sequence[Region], Sequence[Region]], Scored]) -> Scorer:
    """A scorer that needs to know no more than the regions."""
    return lambda scene, example, answer: score_regions(answer.regions, example.answer.regions)


def _score_drawn_find(scene: Scene, example: Example, answer: Answer) -> Scored:
    return score_find(example.answer.input or "", answer.regions, example.answer.regions)


# ---- captions


def _score_caption(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Captions that say the truth word for word, that name exactly what is there, and how much of it they name."""
    said = named_objects(answer.text)
    true = Counter(name(thing, "colour") for thing in scene.things)
    return _same(scene, example, answer) | {
        "objects_right": Parts(float(said == true), 1),
        "objects_f1": f1_parts(shared_count(said, true), said.total(), true.total()),
    }


_OPENING = re.compile(r"The image shows (.+?) on an? [^.]* background\.")
_THERE_IS = re.compile(r"There is (.+?)(?: in the middle| at the [a-z ]+?)?(?: that says [^.]*)?\.")
_FIRST_WORD = {"a": 1, "an": 1} | {word: count for count, word in enumerate(NUMBERS)}
_SINGULAR = {plural(kind): kind for kind in LABELS}


def named_objects(text: str) -> Counter[str]:
    """Count the coloured kinds that a caption of any of the three lengths names.

    returns   "red fish" -> 2; a phrase that is no colour and kind of the drawn world is counted as it stands, so
              that it is never right and never lost.
    source    The grammar of data/sentences.py.
    """
    text = text.strip()
    opening = _OPENING.match(text)
    if opening:
        listed = opening[1]
    elif "There is " in text:
        return sum((_counted(phrase) for phrase in _THERE_IS.findall(text)), Counter())
    else:
        listed = text
    return sum((_counted(phrase) for phrase in re.split(r", | and ", listed) if phrase), Counter())


def _counted(phrase: str) -> Counter[str]:
    """Read "two small red fish" as two times "red fish"."""
    first, _, rest = phrase.partition(" ")
    if rest.split(" ")[0] in SIZES:
        rest = rest.partition(" ")[2]
    colour, _, kind = rest.partition(" ")
    count = _FIRST_WORD.get(first, 0)
    if count > 1:
        kind = _SINGULAR.get(kind, "")
    if not count or colour not in COLOURS or kind not in LABELS:
        return Counter({phrase: 1})
    return Counter({f"{colour} {kind}": count})


# ---- questions

# How a question begins -> what it asks about; the first that fits, so the longer beginning stands first.
QUESTION_KINDS: dict[str, str] = {
    r"How many objects ": "count",
    rf"How many (?:{'|'.join(COLOURS)}) objects ": "count_colour",
    r"How many ": "count_kind",
    r"What (?:color )?is the background": "background",
    r"What color is the ": "colour",
    r"Is there ": "is_there",
    r"What is (?:left of|above|on) ": "relation",
    r"How big is ": "size",
    r"Where is ": "place",
    r"What does .* say": "word",
}


def _score_answer(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Equal answers, of all questions and of each kind."""
    right = _same(scene, example, answer)["exact"]
    return {"exact": right, f"exact_{question_kind(example.text or '')}": right}


def question_kind(question: str) -> str:
    """Name what a question of data/questions.py asks about; "other" for any other question."""
    return next((kind for start, kind in QUESTION_KINDS.items() if re.match(start, question)), "other")


SCORERS: dict[str, Scorer] = {
    "caption": _score_caption,
    "detailed_caption": _score_caption,
    "more_detailed_caption": _score_caption,
    "detect": _of_regions(score_boxes),
    "dense_caption": _of_regions(score_boxes),
    "propose": _of_regions(score_proposals),
    "read": _score_read,
    "read_regions": _of_regions(score_quads),
    "ground": _of_regions(score_phrases),
    "segment": _score_drawn_mask,
    "segment_region": _score_drawn_mask,
    "find": _score_drawn_find,
    "classify_region": _same,
    "describe_region": _same,
    "read_region": _same,
    "answer": _score_answer,
}
