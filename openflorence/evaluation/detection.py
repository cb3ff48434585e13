"""Average precision of boxes, as COCO defines it, by the library that defines it.

Average precision ranks boxes by confidence, and the answers of this network are lists: the same answers score
differently by how their boxes are ranked. So the ranking has a name, and the name stands beside the number.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Region
from openflorence.errors import BadConfig
from openflorence.evaluation.metrics import Figure, image_weights, middle_half

# "constant": all alike, so that the earlier image and in it the earlier box goes first; "order": the first box of every
# image, then the second one of every image; "probability": Region.score, last where the decoder gave none.
ScoreProtocol = Literal["constant", "order", "probability"]
SCORE_PROTOCOLS: tuple[ScoreProtocol, ...] = get_args(ScoreProtocol)

Regions = Sequence[Sequence[Region]]  # by image
OVERLAPS = {"map": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # of 0.50, 0.55, ... 0.95


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision over all categories, and of each."""

    figures: dict[str, Figure]  # "map", "ap50", "ap75"; n counts true boxes
    categories: dict[str, Figure]  # AP50 by label; None for a label that only crowds have


def average_precision(
    predictions: Regions,
    truths: Regions,
    crowds: Regions | None = None,
    protocol: ScoreProtocol = "probability",
    rounds: int = 200,
) -> AveragePrecision:
    """Score the boxes of many images: the mean over categories, for "map" also over the overlaps 0.50 to 0.95.

    predictions  by image, an empty row where nothing was found. Labels are equal when they are after trimming; a label
                 that no truth has belongs to no category and is left out, as COCO does: F1 counts it, this cannot.
                 The surest 100 of an image and category count.
    truths       by image, an empty row where there is nothing. A category never predicted counts as 0.
    crowds       by image, boxes that stand for many: a prediction that lies in one is neither right nor wrong.
    rounds       resamplings of the images for the half-widths; 0 leaves them out.
    raises       BadConfig for an unknown protocol, or without pycocotools.
    source       Lin et al. 2014 (COCO); COCOeval of pycocotools: all areas, 101 recall points.
    """
    if protocol not in SCORE_PROTOCOLS:
        raise BadConfig(f"score protocol is {protocol!r}; allowed: {', '.join(SCORE_PROTOCOLS)}")
    crowds = [()] * len(truths) if crowds is None else crowds
    assert len(predictions) == len(truths) == len(crowds), "one row an image"
    labels = sorted({region.label.strip() for rows in (truths, crowds) for row in rows for region in row})
    if not labels:
        return AveragePrecision({name: Figure(None, None, 0) for name in OVERLAPS}, {})
    true = _entries(truths, labels, "constant", 0) + _entries(crowds, labels, "constant", 1)
    evaluation = _evaluate(_entries(predictions, labels, protocol, 0), true, len(truths), labels)
    values = evaluation.eval["precision"][:, :, :, 0, 0].mean(axis=1)  # over recalls
    values = np.where(values < 0, np.nan, values)  # -1 stands where nothing is true
    drawn = _resampled(evaluation, len(truths), len(labels), rounds)
    counts = np.bincount([entry["category_id"] for entry in true if not entry["iscrowd"]], minlength=len(labels))
    figures = {name: _figure(values[rows], drawn[:, rows], int(counts.sum())) for name, rows in OVERLAPS.items()}
    rows = OVERLAPS["ap50"]
    each = {
        label: _figure(values[rows, i : i + 1], drawn[:, rows, i : i + 1], int(counts[i]))
        for i, label in enumerate(labels)
    }
    return AveragePrecision(figures, each)


def _entries(by_image: Regions, labels: Sequence[str], protocol: ScoreProtocol, crowd: int) -> list[dict[str, Any]]:
    """Regions as the annotations of COCO, but for their ids; what has no geometry is left out."""
    numbers = {label: i for i, label in enumerate(labels)}
    entries = []
    for image, row in enumerate(by_image):
        for place, region in enumerate(row):
            box, category = region.bounds, numbers.get(region.label.strip())
            if box is None or category is None:
                continue
            width, height = box.x1 - box.x0, box.y1 - box.y0
            entry = {"image_id": image, "category_id": category, "bbox": [box.x0, box.y0, width, height]}
            score = {"constant": 1.0, "order": 1 / (1 + place), "probability": region.score or 0.0}[protocol]
            entries.append(entry | {"area": width * height, "iscrowd": crowd, "score": score})
    return entries


def _evaluate(found: list[dict[str, Any]], true: list[dict[str, Any]], images: int, labels: Sequence[str]) -> Any:
    """Run COCOeval on all areas; it keeps what it judged of every image and category."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BadConfig("average precision needs pycocotools: pip install openflorence[train]") from error

    def index(entries: list[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(images)],
            "categories": [{"id": i, "name": label} for i, label in enumerate(labels)],
            "annotations": [entry | {"id": i} for i, entry in enumerate(entries, start=1)],  # 0 means "not matched"
        }
        coco.createIndex()
        return coco

    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(true), index(found), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _figure(values: NDArray[np.float64], drawn: NDArray[np.float64], n: int) -> Figure:
    """Mean over what has a value, and how far it went when other images were drawn."""
    value = None if np.isnan(values).all() else float(np.nanmean(values))
    flat = drawn.reshape(len(drawn), drawn.shape[1] * drawn.shape[2])
    flat = flat[~np.isnan(flat).all(axis=1)]
    return Figure(value, None if value is None else middle_half(np.nanmean(flat, axis=1)), n)


def _resampled(evaluation: Any, images: int, categories: int, rounds: int, seed: int = 0) -> NDArray[np.float64]:
    """Average precision of images drawn with replacement: (rounds, overlaps, categories).

    One image alone has no spread, and gives no rounds.
    promise   with every image drawn once it is what COCOeval gives.
    """
    if images < 2:
        rounds = 0
    weights = image_weights(images, rounds, seed)
    judged = [evaluation.evalImgs[i * images : (i + 1) * images] for i in range(categories)]
    return np.stack([_weighted(rows, weights, evaluation.params.recThrs) for rows in judged], axis=2)


def _weighted(
    judged: Sequence[dict[str, Any] | None], weights: NDArray[np.int64], recalls: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average precision of one category, its images counted as often as they were drawn: (rounds, overlaps)."""
    rows = [(image, row) for image, row in enumerate(judged) if row is not None]
    averages = np.full((len(weights), 10), np.nan)
    true = np.zeros(weights.shape[1])
    for image, row in rows:
        true[image] = (np.asarray(row["gtIgnore"]) == 0).sum()
    whole = weights @ true
    some = whole > 0
    averages[some] = 0.0
    if not rows or not some.any() or not any(row["dtScores"] for _, row in rows):
        return averages
    images = np.concatenate([np.full(len(row["dtScores"]), image) for image, row in rows])
    surest = np.argsort(-np.concatenate([row["dtScores"] for _, row in rows]), kind="stable")
    matched = np.concatenate([row["dtMatches"] for _, row in rows], axis=1)[:, surest] > 0
    counted = ~np.concatenate([row["dtIgnore"] for _, row in rows], axis=1)[:, surest].astype(bool)
    drawn = weights[some][:, images[surest]]
    for overlap in range(len(matched)):
        right = np.cumsum(drawn * (matched[overlap] & counted[overlap]), axis=1)
        wrong = np.cumsum(drawn * (~matched[overlap] & counted[overlap]), axis=1)
        precision = right / np.maximum(right + wrong, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best from here on
        reached = np.searchsorted(recalls, right / whole[some, None], side="right")
        averages[some, overlap] = (np.diff(reached, prepend=0) * precision).sum(axis=1) / len(recalls)
    return averages
