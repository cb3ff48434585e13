"""COCOeval run, and what it judged image by image: its figures on resampled images, and each image's part in them.

The library matches objects image by image and then ranks the matches of all images by score. Resampling images changes
only the second step, so it is done here on the library's own matches, for all draws at once.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openflorence.errors import BadConfig

Kind = Literal["boxes", "masks"]
KINDS: dict[Kind, str] = {"boxes": "bbox", "masks": "segm"}  # as the library calls them
Row = Mapping[str, Any]  # of COCO's files

_BLOCK = 4_000_000  # numbers that are worked on at once

Array = NDArray[np.float64]


class Judged(NamedTuple):
    """One category at one size, its D predictions from the surest on; P images hold true objects of it."""

    images: NDArray[np.int64]  # (D,) row of the image
    places: NDArray[np.int64]  # (D,) place among those of its image, from the surest on
    matched: NDArray[np.bool_]  # (overlaps, D) matched to a true object
    counted: NDArray[np.bool_]  # (overlaps, D) right or wrong; the others are ignored
    holders: NDArray[np.int64]  # (P,) rows of images
    true: NDArray[np.int64]  # (P,) true objects of each


# ---- the library


def library() -> tuple[Any, Any, Any]:
    """COCO, COCOeval and the masks of pycocotools.

    raises    BadConfig when it is not installed.
    """
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BadConfig("average precision needs pycocotools: pip install openflorence[train]") from error
    return COCO, COCOeval, mask


def evaluate(
    pictures: Sequence[Row],
    ids: Mapping[str, int],
    true: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    kind: Kind,
) -> Any:
    """Run COCOeval; it keeps what it judged of every category, size and image.

    What its evaluate() does is done here for those images and categories that have anything of a size; of 400,000
    pairs of COCO's validation images five in six have nothing at all, and what is of another size is ignored.
    promise   accumulate() gives what it gives after evaluate().
    """
    coco, coco_eval, _ = library()

    def index(entries: Sequence[dict[str, Any]]) -> Any:
        one = coco()
        one.dataset = {
            "images": list(pictures),
            "categories": [{"id": i, "name": name} for name, i in ids.items()],
            "annotations": [entry | {"id": i} for i, entry in enumerate(entries, start=1)],  # 0 means "not matched"
        }
        one.createIndex()
        return one

    with redirect_stdout(io.StringIO()):
        evaluation = coco_eval(index(true), index(found), KINDS[kind])
        settings = evaluation.params
        evaluation._prepare()
        rows = {image: row for row, image in enumerate(settings.imgIds)}
        places = {category: place for place, category in enumerate(settings.catIds)}
        some = [pair for pair in {**evaluation._gts, **evaluation._dts} if pair[1] in places]
        evaluation.ious = {pair: evaluation.computeIoU(*pair) for pair in some}
        judged = np.full((len(places), len(settings.areaRng), len(rows)), None, object)
        for image, category in some:
            areas = {entry["area"] for side in (evaluation._gts, evaluation._dts) for entry in side[image, category]}
            for size, (least, largest) in enumerate(settings.areaRng):
                if any(least <= area <= largest for area in areas):
                    one = evaluation.evaluateImg(image, category, [least, largest], settings.maxDets[-1])
                    judged[places[category], size, rows[image]] = one
        evaluation.evalImgs = judged.reshape(-1).tolist()
        evaluation._paramsEval = deepcopy(settings)
        evaluation.accumulate()
    return evaluation


def judged_in(evaluation: Any, size: int) -> list[Judged]:
    """What COCOeval judged at one size, by category.

    size      place in its area ranges.
    """
    settings = evaluation.params
    images, sizes = len(settings.imgIds), len(settings.areaRng)
    starts = [(category * sizes + size) * images for category in range(len(settings.catIds))]
    return [_judged_by(evaluation.evalImgs[start : start + images], len(settings.iouThrs)) for start in starts]


def _judged_by(rows: Sequence[dict[str, Any] | None], overlaps: int) -> Judged:
    """Put together what COCOeval keeps of every image, evalImgs of one category and one size, in order."""
    some = [(image, row) for image, row in enumerate(rows) if row is not None]
    found = [(image, row) for image, row in some if len(row["dtScores"])]
    holders = np.array([image for image, _ in some], np.int64)
    true = np.array([np.count_nonzero(np.asarray(row["gtIgnore"]) == 0) for _, row in some], np.int64)
    if not found:
        nothing, none = np.zeros(0, np.int64), np.zeros((overlaps, 0), bool)
        return Judged(nothing, nothing, none, none, holders, true)
    # As accumulate() does: images in order, then a stable sort, so that ties keep their order.
    surest = np.argsort(-np.concatenate([row["dtScores"] for _, row in found]), kind="stable")
    counts = [len(row["dtScores"]) for _, row in found]
    images = np.repeat([image for image, _ in found], counts)
    places = np.concatenate([np.arange(count) for count in counts])
    matched = np.concatenate([row["dtMatches"] for _, row in found], axis=1) > 0
    ignored = np.concatenate([row["dtIgnore"] for _, row in found], axis=1).astype(bool)
    surest = surest[~ignored[:, surest].all(axis=0)]  # what is ignored at every overlap changes nothing
    return Judged(images[surest], places[surest], matched[:, surest], ~ignored[:, surest], holders, true)


# ---- figures of resampled images, and of each


def precision_draws(judged: Judged, weights: NDArray[np.int64], recalls: Array) -> Array:
    """Average precision with images counted as often as they were drawn: (rounds, overlaps).

    weights   (rounds, images).
    recalls   (101,) at which precision is read.
    returns   NaN where a draw holds no true object.
    promise   with every image counted once it is what COCOeval gives.
    """
    rounds, overlaps = len(weights), len(judged.matched)
    average = np.full((rounds, overlaps), np.nan)
    step = max(_BLOCK // max(len(judged.images), 1), 1)
    for start in range(0, rounds, step):
        part = weights[start : start + step].astype(np.int32)
        whole = part[:, judged.holders] @ judged.true
        # How many of the recalls are reached by 0, 1, 2, ... right ones.
        rising = np.arange(whole.max(initial=0) + 1) / np.maximum(whole, 1)[:, None]
        reached = np.searchsorted(recalls, rising, side="right").astype(np.int32)
        drawn = part[:, judged.images]
        seen = np.cumsum(drawn, axis=1, dtype=np.int32)
        for overlap in range(overlaps):
            values = _average(judged, overlap, drawn, seen, reached)
            average[start : start + step, overlap] = np.where(whole > 0, values / len(recalls), np.nan)
    return average


def _average(
    judged: Judged, overlap: int, drawn: NDArray[np.int32], seen: NDArray[np.int32], reached: NDArray[np.int32]
) -> Array:
    """Sum of the precision at every recall, at one overlap: (rounds,).

    drawn     (rounds, D) how often each prediction was drawn; `seen` is how many until there.
    reached   (rounds, right ones) how many recalls they reach.
    """
    right = np.flatnonzero(judged.matched[overlap] & judged.counted[overlap])
    idle = np.flatnonzero(~judged.counted[overlap])
    if not len(right):
        return np.zeros(len(drawn))
    # Recall rises, and precision is at its best, only at what is right: nothing else need be looked at.
    counted = seen[:, right]
    if len(idle):
        ignored = np.cumsum(np.pad(drawn[:, idle], ((0, 0), (1, 0))), axis=1, dtype=np.int32)
        counted -= ignored[:, np.searchsorted(idle, right)]
    rising = np.cumsum(drawn[:, right], axis=1, dtype=np.int32)
    precision = rising / np.maximum(counted, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best from here on
    steps = np.diff(np.take_along_axis(reached, rising, axis=1), axis=1, prepend=0)
    result: Array = np.einsum("ij,ij->i", steps, precision)
    return result


def recall_draws(judged: Judged, weights: NDArray[np.int64], most: int) -> Array:
    """Share of true objects that the surest `most` predictions of their image find: (rounds, overlaps).

    returns   NaN where a draw holds no true object.
    """
    hit = judged.matched & judged.counted & (judged.places < most)
    some, where = np.unique(judged.images, return_inverse=True)
    parts = np.array([np.bincount(where, weights=row, minlength=len(some)) for row in hit]).reshape(len(hit), len(some))
    return shares(weights[:, some] @ parts.T, (weights[:, judged.holders] @ judged.true)[:, None])


def image_tallies(judged: Sequence[Judged], images: int, most: int) -> tuple[Array, Array, Array]:
    """What is right, (overlaps, images), what was predicted, (overlaps, images), and what is true, (images,).

    judged    the categories of one size.
    """
    overlaps = len(judged[0].matched) if judged else 10
    right, predicted, true = np.zeros((overlaps, images)), np.zeros((overlaps, images)), np.zeros(images)
    for one in judged:
        np.add.at(true, one.holders, one.true)
        counted = one.counted & (one.places < most)
        for overlap in range(overlaps):
            predicted[overlap] += np.bincount(one.images, weights=counted[overlap], minlength=images)
            right[overlap] += np.bincount(one.images, weights=counted[overlap] & one.matched[overlap], minlength=images)
    return right, predicted, true


def shares(right: NDArray[Any], whole: NDArray[Any]) -> Array:
    """Divide; NaN where the whole is 0."""
    shape = np.broadcast_shapes(right.shape, whole.shape)
    share: Array = np.divide(right, whole, out=np.full(shape, np.nan), where=whole > 0)
    return share


def mean_known(values: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Mean of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return shares(np.asarray(np.where(known, values, 0.0).sum(axis=axis)), np.asarray(known.sum(axis=axis)))
