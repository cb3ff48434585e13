"""Places that words name: phrases of a caption, expressions that refer to one object, and the names of given regions.

found = boxes_by_phrase(answer.regions, ["a man", "two dogs"])   # ranked boxes of each phrase
recalls(found[0], true_boxes)                                    # its part in R@1, R@5, R@10, by both protocols
"""

import re
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.overlaps import box_iou
from openflorence.contract.regions import Box, Region
from openflorence.evaluation.metrics import Parts, mask_parts, rasterise, ratio
from openflorence.evaluation.places import LEAST, bounds, rings

RANKS = (1, 5, 10)  # how many boxes of a phrase are looked at, in the order of the answer
# The types of phrases of Flickr30k Entities; a phrase may have several.
PHRASE_TYPES = ("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other")
MASK_LEASTS = (0.5, 0.6, 0.7, 0.8, 0.9)  # IoU from which a mask counts as right


# ---- phrases of a caption


def merge_boxes(boxes: Sequence[Box]) -> Box:
    """Give the smallest box around all boxes, of which there is at least one."""
    x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
    return Box(min(x0s), min(y0s), max(x1s), max(y1s))


def recalls(found: Sequence[Box], true: Sequence[Box]) -> dict[str, Parts]:
    """Say whether a phrase is found by its first 1, 5 and 10 boxes: its part in every recall.

    found     ranked boxes, from the surest on; none is a miss.
    true      all boxes of the phrase, at least one.
    returns   "recall_at_1" and so on by the any-box protocol, where a box that overlaps any true box is right;
              "recall_at_1_merged" and so on by the merged-boxes protocol, where it must overlap the smallest box
              around all of them. Predicted boxes are never merged.
    source    Kamath et al. 2021 (MDETR), its Flickr30k evaluator: IoU of at least 0.5, edges continuous. Merged boxes
              are the protocol of Plummer et al. 2015.
    """
    scored = {}
    for name, boxes in (("", true), ("_merged", [merge_boxes(true)])):
        best = box_iou(found, boxes).max(axis=1, initial=0.0)
        for rank in RANKS:
            scored[f"recall_at_{rank}{name}"] = Parts(float((best[:rank] >= LEAST).any()), 1)
    return scored


def boxes_by_phrase(predicted: Sequence[Region], phrases: Sequence[str]) -> list[list[Box]]:
    """Give each phrase of a caption its boxes, in the order of the answer.

    phrases   in the order of the caption. Labels are equal when they are after trimming, else without regard to case.
    returns   a list for each phrase. Of a phrase that stands n times in the caption, the k-th gets the k-th run of
              boxes under its name, the last also those that follow; where there are fewer runs but n boxes, the k-th
              box; else each gets all.
    """
    exact = {phrase.strip() for phrase in phrases}
    runs: dict[str, list[list[Box]]] = {}
    for label, run in groupby(predicted, key=lambda region: region.label.strip()):
        runs.setdefault(label if label in exact else label.casefold(), []).append(bounds([*run]))
    named = [phrase.strip() for phrase in phrases]
    boxes: list[list[Box]] = []
    for place, phrase in enumerate(named):
        own = runs.get(phrase) or runs.get(phrase.casefold()) or []
        times, before = named.count(phrase), named[:place].count(phrase)
        every = [box for run in own for box in run]
        if times > 1 and len(own) >= times:
            every = [box for run in (own[before:] if before == times - 1 else own[before : before + 1]) for box in run]
        elif times > 1 and len(every) == times:
            every = [every[before]]
        boxes.append(every)
    return boxes


# ---- expressions that refer to one object


def score_expression(predicted: Sequence[Region], true: Box) -> dict[str, Parts]:
    """Accuracy: the first box of the answer overlaps the true one by half or more; and their mean IoU.

    predicted  an answer without a box is wrong, with an IoU of 0.
    source     Yu et al. 2016 (RefCOCO), Mao et al. 2016 (RefCOCOg): IoU of at least 0.5. MDETR's evaluator asks for a
               *generalised* IoU of at least 0.5, which is never more than the IoU.
    """
    iou = float(box_iou(bounds(predicted[:1]), [true]).max(initial=0.0))
    return {"accuracy": Parts(float(iou >= LEAST), 1), "iou": Parts(iou, 1)}


def score_mask(predicted: Sequence[Region], exact: NDArray[np.bool_]) -> dict[str, Parts]:
    """Mean IoU, overall IoU and share of IoU >= 0.5; all instances of an answer make one mask.

    exact     (H, W) the true mask.
    source    Figures of RefCOCO as in Yu et al. 2018 (MAttNet) and the "mIoU" of the Florence-2 report.
    """
    own = mask_parts(rasterise(rings(predicted), (exact.shape[1], exact.shape[0])), exact)
    iou = ratio(*own)
    if iou is None:  # the true outline is so small that it holds no pixel's centre, and none was said
        return {"miou": Parts(0, 0), "oiou": own, "iou_above_half": Parts(0, 0)}
    return {"miou": Parts(iou, 1), "oiou": own, "iou_above_half": Parts(float(iou >= LEAST), 1)}


def score_referred_mask(predicted: Sequence[Region], exact: NDArray[np.bool_]) -> dict[str, Parts]:
    """Mean IoU, overall IoU, and the share of masks with an IoU of at least 0.5, 0.6, 0.7, 0.8 and 0.9.

    source    Precision@X of Hu et al. 2016 and of all since; LAVT's evaluation, where X itself counts.
    """
    scored = score_mask(predicted, exact)
    del scored["iou_above_half"]
    (iou, one), _ = scored.values()
    for least in MASK_LEASTS:
        scored[f"precision_at_{round(100 * least)}"] = Parts(float(one and iou >= least), one)
    return scored


# ---- names of given regions


def plain_label(text: str) -> str:
    """Give a category in lower case, without marks, the width of spaces and an article before it.

    returns   "Traffic_Light." and "a  traffic light" as "traffic light", "T-shirt" as "t shirt"; plurals stay.
    """
    words = re.sub(r"[\W_]+", " ", text.casefold()).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def score_category(said: str, truths: Sequence[str]) -> dict[str, Parts]:
    """Accuracy of the category of a region: equal to one of its names after trimming; and as plain labels."""
    plain = plain_label(said)
    return {
        "exact": Parts(float(said.strip() in [true.strip() for true in truths]), 1),
        "plain": Parts(float(bool(plain) and plain in map(plain_label, truths)), 1),
    }
