"""An answer about a drawn scene -> its part in every figure of its task.

A scorer gives `Parts` by the name of the figure; summed over scenes, right over whole is the figure. A scene that has
no say in a figure, as one without signs in the reading of words, leaves it out or gives nothing as the whole.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from openflorence.contract.prompts import AND
from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Box, Region
from openflorence.data.sentences import name
from openflorence.data.truth import LABELS, polygons
from openflorence.data.words import COLOURS, NUMBERS, SIZES, plural
from openflorence.data.world import Scene
from openflorence.evaluation.metrics import (
    Parts,
    box_iou,
    f1_parts,
    mask_parts,
    match,
    quad_iou,
    rasterise,
    shared_count,
)

LEAST = 0.5  # overlap from which a place counts as found
Scored = dict[str, Parts]
Scorer = Callable[[Scene, Example, Answer], Scored]


def score(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Score one answer: the part of this scene in every figure of the task, the headline figure first."""
    return SCORERS[example.task.name](scene, example, answer)


def _same(scene: Scene, example: Example, answer: Answer) -> Scored:
    return {"exact": Parts(float(answer.text.strip() == example.answer.text), 1)}


# ---- boxes


def _score_boxes(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Found boxes: F1, precision and recall with equal labels, F1 without labels, mean IoU of what was found.

    source    IoU of 0.5 as in PASCAL VOC; greedy one-to-one matching, best overlap first, no confidence needed.
    """
    predicted, true = answer.regions, example.answer.regions
    overlap = box_iou(_bounds(predicted), _bounds(true))
    alike = np.array([[p.label.strip() == t.label for t in true] for p in predicted], bool).reshape(overlap.shape)
    found = match(overlap * alike, LEAST)
    counts = len(predicted), len(true)
    return {
        "f1": f1_parts(len(found), *counts),
        "precision": Parts(len(found), len(predicted)),
        "recall": Parts(len(found), len(true)),
        "f1_unlabelled": f1_parts(len(match(overlap, LEAST)), *counts),
        "iou_of_found": Parts(sum(float(overlap[pair]) for pair in found), len(found)),
    }


def _score_propose(scene: Scene, example: Example, answer: Answer) -> Scored:
    """As boxes; nothing has a label here, so the figure without labels would say the same twice."""
    scored = _score_boxes(scene, example, answer)
    del scored["f1_unlabelled"]
    return scored


def _score_ground(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Phrases whose first box overlaps any true box of theirs (R@1, any-box protocol), then the figures of boxes.

    source    Flickr30k Entities as MDETR scores it, Kamath et al. 2021, "any-box" protocol.
    """
    phrases = list(dict.fromkeys(region.label for region in example.answer.regions))
    right = 0
    for phrase in phrases:
        first = [region for region in answer.regions if region.label.strip() == phrase][:1]
        true = [region for region in example.answer.regions if region.label == phrase]
        right += bool((box_iou(_bounds(first), _bounds(true)) >= LEAST).any())
    return {"recall_at_1": Parts(right, len(phrases))} | _score_boxes(scene, example, answer)


def _score_find(scene: Scene, example: Example, answer: Answer) -> Scored:
    """The figures of boxes, and the share of phrases for what is not there that got no region."""
    there = {region.label for region in example.answer.regions}
    said = {region.label.strip() for region in answer.regions}
    absent = [phrase for phrase in (example.answer.input or "").split(AND) if phrase not in there]
    silent = sum(phrase not in said for phrase in absent)
    return _score_boxes(scene, example, answer) | {"absent_left_out": Parts(silent, len(absent))}


def _bounds(regions: Sequence[Region]) -> list[Box]:
    """The boxes of regions; what has no geometry gets an empty one, which overlaps nothing."""
    return [region.bounds or Box(0, 0, 0, 0) for region in regions]


# ---- masks


def _score_mask(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Mean IoU, overall IoU and share of IoU >= 0.5 against the exact visible pixels; all instances make one mask.

    `miou_of_truth` is what the true outline scores: the most that an answer of twenty vertices a ring can reach.
    source    Figures of RefCOCO as in Yu et al. 2018 (MAttNet) and the "mIoU" of the Florence-2 report.
    """
    traced = example.answer.regions[0].polygons
    asked = next(thing for thing in scene.things if polygons(scene, thing) == traced)
    exact = scene.mask(asked)
    own = mask_parts(rasterise([ring for region in answer.regions for ring in region.polygons], scene.image_wh), exact)
    best = mask_parts(rasterise(traced, scene.image_wh), exact)
    iou = own.right / own.whole
    return {
        "miou": Parts(iou, 1),
        "oiou": own,
        "iou_above_half": Parts(float(iou >= LEAST), 1),
        "miou_of_truth": Parts(best.right / best.whole, 1),
    }


# ---- printed words


def _score_read(scene: Scene, example: Example, answer: Answer) -> Scored:
    """All words in order, where there are some; where there are none, no word at all."""
    right, empty = _same(scene, example, answer)["exact"], not scene.signs
    return {"exact": Parts(0, 0) if empty else right, "silent_without_text": right if empty else Parts(0, 0)}


def _score_read_regions(scene: Scene, example: Example, answer: Answer) -> Scored:
    """Words that are spelt right and lie right, over all words; F1; and silence where nothing is printed.

    source    End-to-end reading of ICDAR 2015: equal transcription, IoU of the quads at least 0.5.
    """
    predicted, true = answer.regions, example.answer.regions
    overlap = np.zeros((len(predicted), len(true)))
    for i, one in enumerate(predicted):
        for j, other in enumerate(true):
            if one.quad and other.quad:
                overlap[i, j] = quad_iou(one.quad, other.quad)
    alike = np.array([[p.label.strip() == t.label for t in true] for p in predicted], bool).reshape(overlap.shape)
    right = len(match(overlap * alike, LEAST))
    return {
        "words_right": Parts(right, len(true)),
        "f1": f1_parts(right, len(predicted), len(true)),
        "f1_unread": f1_parts(len(match(overlap, LEAST)), len(predicted), len(true)),
        "silent_without_text": Parts(0, 0) if true else Parts(float(not predicted), 1),
    }


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
    "detect": _score_boxes,
    "dense_caption": _score_boxes,
    "propose": _score_propose,
    "read": _score_read,
    "read_regions": _score_read_regions,
    "ground": _score_ground,
    "segment": _score_mask,
    "segment_region": _score_mask,
    "find": _score_find,
    "classify_region": _same,
    "describe_region": _same,
    "read_region": _same,
    "answer": _score_answer,
}
