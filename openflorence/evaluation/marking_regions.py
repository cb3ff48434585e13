"""Places as answers to official questions -> figures: COCO detection, Flickr30k Entities, RefCOCO and its kin."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from openflorence.contract.regions import Answer, Region
from openflorence.evaluation.coco_results import coco_precision, coco_results
from openflorence.evaluation.detection import ScoreProtocol
from openflorence.evaluation.heldout import outside_crowds
from openflorence.evaluation.judged import Kind
from openflorence.evaluation.marking import Answered, Marks
from openflorence.evaluation.metrics import Figure, Parts, figure_of, rasterise
from openflorence.evaluation.official import Question
from openflorence.evaluation.phrases import (
    PHRASE_TYPES,
    boxes_by_phrase,
    recalls,
    score_expression,
    score_referred_mask,
)
from openflorence.evaluation.places import bounds
from openflorence.evaluation.results import Measured, measure
from openflorence.evaluation.scoring import score_boxes, sure_and_right

Found = Sequence[Sequence[Region]]  # regions of each question

_SUFFIX: dict[ScoreProtocol, str] = {"probability": "", "order": "_order", "constant": "_constant"}
_SHORT = ("map", "ap50", "ap75")  # figures of the other protocols


# ---- COCO detection


def mark_detection(answered: Answered, rounds: int) -> Marks:
    """The twelve figures of COCO by the scores of the answers, the first three by the other two protocols, and F1.

    Labels are names of categories, after trimming and without regard to case; any other label is counted in
    `unknown_labels`, a share of all regions, and belongs to no category. Where another program gave masks, they are
    scored too, as `mask_map` and so on.
    source    Lin et al. 2014, COCOeval of pycocotools.
    """
    names = {name.strip().lower(): name for name in answered.categories.values()}
    found = [[_named(region, names) for region in answer.regions] for answer in answered.answers]
    true = [_regions(question, crowd=False) for question in answered.questions]
    crowds = [_regions(question, crowd=True) for question in answered.questions]
    marks = _average_precision(answered, found, "boxes", rounds)
    measured, tables = dict(marks.measured), dict(marks.tables)
    if any("segmentation" in entry for row in answered.entries for entry in row):
        masks = _average_precision(answered, found, "masks", rounds)
        measured |= {f"mask_{name}": one for name, one in masks.measured.items()}
        tables |= {f"mask {name}": table for name, table in masks.tables.items()}
    judged = [outside_crowds(*row) for row in zip(found, true, crowds, strict=True)]
    parts = [score_boxes(*row) for row in zip(judged, true, strict=True)]
    for name in ("f1", "precision", "recall"):
        measured[name] = measure(answered.sums(one[name] for one in parts), rounds)
    unknown = (Parts(sum(not region.label for region in row), len(row)) for row in found)
    measured["unknown_labels"] = measure(answered.sums(unknown), rounds)
    sure = [pair for row in zip(judged, true, strict=True) for pair in sure_and_right(*row)]
    return Marks(measured, tables, np.array(sure, np.float64).reshape(-1, 2))


def _named(region: Region, names: Mapping[str, str]) -> Region:
    """A region under the name of its category; "" for one that is none."""
    return replace(region, label=names.get(region.label.strip().lower(), ""))


def _regions(question: Question, crowd: bool) -> list[Region]:
    notes = (note for note in question.truth.regions if note.crowd == crowd)
    return [Region(note.label, box=note.bounds) for note in notes]


def _average_precision(answered: Answered, found: Found, kind: Kind, rounds: int) -> Marks:
    """Run COCO's own evaluation, once for each protocol of scores."""
    ids = _image_ids(answered)
    sheet = _sheet(answered, ids)
    measured: dict[str, Measured] = {}
    tables: Mapping[str, Mapping[str, Figure]] = {}
    for protocol in _SUFFIX:
        precision = coco_precision(sheet, _results(answered, found, ids, protocol), kind, rounds=rounds)
        places = {image: place for place, image in enumerate(precision.images)}
        order = [places[image] for image in ids]
        for name in _SHORT if tables else precision.measured:
            one = precision.measured[name]
            measured[name + _SUFFIX[protocol]] = replace(one, by_image=one.by_image[order])
        tables = tables or {"category" if name == "ap by category" else name: t for name, t in precision.tables.items()}
    return Marks(measured, tables)


def _image_ids(answered: Answered) -> list[int]:
    """The ids of the files, since ties of scores are settled by their order; numbers in turn where they are words."""
    keys = [question.key for question in answered.questions]
    return [int(key) for key in keys] if all(key.isdecimal() for key in keys) else list(range(len(keys)))


def _sheet(answered: Answered, ids: Sequence[int]) -> dict[str, Any]:
    """The images that were answered, in the form of COCO's file."""
    images, annotations = [], []
    for number, question in zip(ids, answered.questions, strict=True):
        width, height = question.image_wh or (1, 1)
        images.append({"id": number, "width": width, "height": height})
        for note, entry in zip(question.truth.regions, question.truth.entries, strict=True):
            box = note.bounds
            if box is not None:
                bbox = [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]
                annotations.append({"bbox": bbox} | dict(entry) | {"image_id": number})
    categories = [{"id": number, "name": name} for number, name in answered.categories.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _results(answered: Answered, found: Found, ids: Sequence[int], protocol: ScoreProtocol) -> list[dict[str, Any]]:
    """The answers in the form of COCO's results: the entries of another program as they stand, but for their scores."""
    numbers = {name: number for number, name in answered.categories.items()}
    own = [[] if entries else row for row, entries in zip(found, answered.entries, strict=True)]
    rows = coco_results(own, ids, numbers, protocol)
    for number, row, entries in zip(ids, found, answered.entries, strict=True):
        for place, (region, entry) in enumerate(zip(row, entries, strict=False)):
            if region.label in numbers and region.bounds is not None:
                x0, y0, x1, y1 = region.bounds
                score = {"probability": region.score or 0.0, "order": 1 / (1 + place), "constant": 1.0}[protocol]
                told = {"image_id": number, "category_id": numbers[region.label], "score": score}
                rows.append({"bbox": [x0, y0, x1 - x0, y1 - y0]} | dict(entry) | told)
    return rows


# ---- phrases and expressions


def mark_phrases(answered: Answered, rounds: int) -> Marks:
    """Recall of phrases among their first 1, 5 and 10 boxes, by both protocols; R@1 also by the types of phrases.

    source    Kamath et al. 2021 (MDETR): any box; Plummer et al. 2015: the boxes of a phrase merged.
    """
    scored = [_recalls(*pair) for pair in zip(answered.questions, answered.answers, strict=True)]
    names = [name for rows in scored[:1] for name in rows[0]]
    measured = {
        name: measure(answered.sums(_sum(row[name] for row in rows) for rows in scored), rounds) for name in names
    }
    types = {kind for question in answered.questions for own in question.truth.types for kind in own}
    table = {}
    for kind in sorted(types, key=lambda kind: (*PHRASE_TYPES, kind).index(kind)):
        parts = (
            _sum(row[names[0]] for row, own in zip(rows, question.truth.types, strict=True) if kind in own)
            for rows, question in zip(scored, answered.questions, strict=True)
        )
        sums = answered.sums(parts)
        table[kind] = figure_of(sums[sums[:, 1] > 0])
    sure = []
    for question, answer in zip(answered.questions, answered.answers, strict=True):
        true = [Region(phrase.phrase, box=box) for phrase in question.truth.phrases for box in phrase.boxes]
        sure += sure_and_right(answer.regions, true)
    return Marks(measured, {"phrase type": table}, np.array(sure, np.float64).reshape(-1, 2))


def _recalls(question: Question, answer: Answer) -> list[dict[str, Parts]]:
    """The part of every phrase of one sentence in every recall."""
    phrases = question.truth.phrases
    found = boxes_by_phrase(answer.regions, [phrase.phrase for phrase in phrases])
    return [recalls(boxes, phrase.boxes) for boxes, phrase in zip(found, phrases, strict=True)]


def _sum(parts: Iterable[Parts]) -> Parts:
    rows = [*parts]
    return Parts(sum(part.right for part in rows), sum(part.whole for part in rows))


def mark_expressions(answered: Answered, rounds: int) -> Marks:
    """Accuracy at an IoU of 0.5, and the mean IoU, of the first box of each answer."""
    parts, sure = [], []
    for question, answer in zip(answered.questions, answered.answers, strict=True):
        (true,) = bounds(_regions(question, crowd=False))
        parts.append(score_expression(answer.regions, true))
        first = answer.regions[0].score if answer.regions else None
        sure += [] if first is None else [(first, parts[-1]["accuracy"].right)]
    return Marks(_measured(answered, parts, rounds), {}, np.array(sure, np.float64).reshape(-1, 2))


def mark_masks(answered: Answered, rounds: int) -> Marks:
    """Mean IoU, overall IoU, and precision at five overlaps, of all outlines of an answer as one mask."""
    parts = []
    for question, answer in zip(answered.questions, answered.answers, strict=True):
        (true,) = question.truth.regions
        parts.append(score_referred_mask(answer.regions, rasterise(true.polygons, answer.image_wh)))
    return Marks(_measured(answered, parts, rounds))


def _measured(answered: Answered, parts: Sequence[Mapping[str, Parts]], rounds: int) -> dict[str, Measured]:
    """Every figure of questions that have a part in all of them."""
    names = list(parts[0]) if parts else []
    return {name: measure(answered.sums(one[name] for one in parts), rounds) for name in names}
