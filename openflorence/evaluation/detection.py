"""Average precision and recall of boxes and masks, as COCO defines them, by the library that defines them.

Average precision ranks boxes by confidence, and the answers of this network are lists: the same answers score
differently by how their boxes are ranked. So the ranking has a name, and the name stands beside the number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Point, Quad, Region
from openflorence.errors import BadConfig
from openflorence.evaluation.judged import (
    KINDS,
    Judged,
    Kind,
    Row,
    evaluate,
    image_tallies,
    judged_in,
    library,
    mean_known,
    precision_draws,
    recall_draws,
    shares,
)
from openflorence.evaluation.metrics import Figure, image_weights, middle_half
from openflorence.evaluation.results import Measured

# "constant": all alike, so that the earlier image and in it the earlier box goes first; "order": the first box of every
# image, then the second one of every image; "probability": Region.score, last where the decoder gave none.
ScoreProtocol = Literal["constant", "order", "probability"]
SCORE_PROTOCOLS: tuple[ScoreProtocol, ...] = get_args(ScoreProtocol)

Regions = Sequence[Sequence[Region]]  # by image
Sizes = Sequence[tuple[int, int]]  # width and height of every image, in pixels

SIZES = ("all", "small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, and the rest; in the library's order
MOST = (1, 10, 100)  # predictions of a category that count in an image, from the surest on


class _Which(NamedTuple):
    """One of the library's tables: (overlaps, categories)."""

    recall: bool = False  # or precision
    size: int = 0  # place in SIZES
    most: int = 2  # place in MOST


class _Part(NamedTuple):
    """What of it a figure is the mean of."""

    which: _Which = _Which()
    overlaps: slice = slice(None)  # of 0.50, 0.55, ... 0.95


# In the order in which the library prints them.
TWELVE: dict[str, _Part] = {
    "map": _Part(),
    "ap50": _Part(overlaps=slice(0, 1)),
    "ap75": _Part(overlaps=slice(5, 6)),
    **{f"ap_{SIZES[place]}": _Part(_Which(size=place)) for place in (1, 2, 3)},
    **{f"ar_{MOST[place]}": _Part(_Which(recall=True, most=place)) for place in (0, 1, 2)},
    **{f"ar_{SIZES[place]}": _Part(_Which(recall=True, size=place)) for place in (1, 2, 3)},
}


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """The twelve figures of COCO, and what they are made of."""

    images: tuple[int, ...]  # ids in the order of the rows of by_image: of COCO's file, else places
    # By name, as in TWELVE; n counts true objects of that size. by_image of a precision is F1 of all that was predicted
    # in the image, of a recall the recall, both in the mean over the figure's overlaps.
    measured: dict[str, Measured]
    # "ap", "ap50" and "ar" by "category"; "ap" and "ar" by "size". No value where only crowds have a category.
    tables: dict[str, dict[str, Figure]]

    @property
    def figures(self) -> dict[str, Figure]:
        """The three figures of all sizes: "map", over the overlaps 0.50 to 0.95, "ap50" and "ap75"."""
        return {name: self.measured[name].figure for name in ("map", "ap50", "ap75")}

    @property
    def categories(self) -> dict[str, Figure]:
        """AP50 by label."""
        return self.tables["ap50 by category"]


def average_precision(
    predictions: Regions,
    truths: Regions,
    crowds: Regions | None = None,
    protocol: ScoreProtocol = "probability",
    rounds: int = 200,
    kind: Kind = "boxes",
    images_wh: Sizes | None = None,
) -> AveragePrecision:
    """Score the regions of many images: means over categories, for "map" also over the overlaps 0.50 to 0.95.

    predictions  by image, an empty row where nothing was found. Labels are equal when they are after trimming; a label
                 that no truth has belongs to no category and is left out, as COCO does: F1 counts it, this cannot.
                 The surest 100 of an image and category count. What has no geometry is left out.
    truths       by image, an empty row where there is nothing. A category never predicted counts as 0. Their size is
                 that of the box, or of the mask: only COCO's own file has areas of its own.
    crowds       by image, regions that stand for many: a prediction that lies in one is neither right nor wrong.
    rounds       resamplings of the images for half-widths and draws; 0 leaves them out.
    kind         "masks": outlines filled as COCO fills them; a region without polygons is its quad or box.
    images_wh    for masks: the sizes of the images.
    raises       BadConfig for an unknown protocol or kind, for masks without sizes, or without pycocotools.
    source       Lin et al. 2014 (COCO); COCOeval of pycocotools: 101 recall points.
    """
    check_settings(protocol, kind, rounds)
    if kind == "masks" and images_wh is None:
        raise BadConfig("average precision of masks fills outlines; give images_wh, (width, height) of every image")
    crowds = [()] * len(truths) if crowds is None else crowds
    assert len(predictions) == len(truths) == len(crowds), "one row an image"
    labels = sorted({region.label.strip() for rows in (truths, crowds) for row in rows for region in row})
    ids = {label: i for i, label in enumerate(labels)}
    sizes = images_wh if kind == "masks" else None
    true = [entry for row in entries_of(truths, ids, "constant", sizes) for entry in row]
    true += [entry | {"iscrowd": 1} for row in entries_of(crowds, ids, "constant", sizes) for entry in row]
    found = [entry for row in entries_of(predictions, ids, protocol, sizes) for entry in row]
    pictures = [{"id": image} for image in range(len(truths))]
    if sizes is not None:
        pictures = [{"id": i, "width": width, "height": height} for i, (width, height) in enumerate(sizes)]
    evaluation = evaluate(pictures, ids, true, found, kind)
    return summed(evaluation, labels, rounds)


def check_settings(protocol: str, kind: str, rounds: int) -> None:
    """Refuse what is none of the protocols or kinds.

    raises    BadConfig naming what is allowed.
    """
    if protocol not in SCORE_PROTOCOLS:
        raise BadConfig(f"score protocol is {protocol!r}; allowed: {', '.join(SCORE_PROTOCOLS)}")
    if kind not in KINDS:
        raise BadConfig(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    if rounds < 0:
        raise BadConfig(f"rounds is {rounds}; give 0 or more resamplings")


# ---- regions and rows -> entries of the library


def entries_of(
    by_image: Regions, ids: Mapping[str, int], protocol: ScoreProtocol, images_wh: Sizes | None
) -> list[list[dict[str, Any]]]:
    """Give regions as annotations of COCO without ids, by image; with the sizes of the images, as masks.

    What has no geometry, or a label without an id, is left out.
    """
    entries: list[list[dict[str, Any]]] = [[] for _ in by_image]
    for image, row in enumerate(by_image):
        for place, region in enumerate(row):
            box, category = region.bounds, ids.get(region.label.strip())
            if box is None or category is None:
                continue
            width, height = box.x1 - box.x0, box.y1 - box.y0
            score = {"constant": 1.0, "order": 1 / (1 + place), "probability": region.score or 0.0}[protocol]
            entry = {"image_id": image, "category_id": category, "score": score, "iscrowd": 0}
            shape = {"bbox": [box.x0, box.y0, width, height], "area": width * height}
            if images_wh is not None:
                outlines = [ring for ring in region.polygons if len(ring) > 2] or [region.quad or corners(shape)]
                shape |= filled([[float(v) for point in ring for v in point] for ring in outlines], images_wh[image])
            entries[image].append(entry | shape)
    return entries


def corners(entry: Row) -> Quad:
    """Give the four corners of the box of an entry."""
    x, y, width, height = entry["bbox"]
    return Point(x, y), Point(x + width, y), Point(x + width, y + height), Point(x, y + height)


def filled(outlines: list[list[float]], image_wh: tuple[int, int]) -> dict[str, Any]:
    """Give outlines as one mask in run-length code, and its area.

    outlines  x, y, x, y, ... of three vertices or more each; they add up.
    """
    masks = library()[2]
    code = masks.merge(masks.frPyObjects(outlines, image_wh[1], image_wh[0]))
    return {"segmentation": code, "area": float(masks.area(code))}


# ---- its tables -> figures


def summed(evaluation: Any, labels: Sequence[str], rounds: int) -> AveragePrecision:
    """Give the twelve figures and the tables from what COCOeval judged and accumulated.

    labels    names of its categories, in the order of their ids.
    rounds    resamplings of the images; one image alone has no spread, and gives no draws.
    """
    images = tuple(evaluation.params.imgIds)
    weights = image_weights(len(images), rounds if len(images) > 1 else 0) if images else np.zeros((0, 0), np.int64)
    judged = [judged_in(evaluation, size) for size in range(len(SIZES))]
    drawn = {
        which: _draws(judged[which.size], which, weights, evaluation.params.recThrs)
        for which in dict.fromkeys(part.which for part in TWELVE.values())
    }
    tallies = {which: image_tallies(judged[which.size], len(images), MOST[which.most]) for which in drawn}
    measured = {}
    for name, part in TWELVE.items():
        draws = mean_known(drawn[part.which][:, part.overlaps], axis=(1, 2))
        n = sum(int(one.true.sum()) for one in judged[part.which.size])
        by_image = _by_image(*tallies[part.which], part)
        measured[name] = Measured(_figure(_values(evaluation, part), draws, n), draws, by_image)
    tables = {}
    for name, part in (("ap", TWELVE["map"]), ("ap50", TWELVE["ap50"]), ("ar", TWELVE["ar_100"])):
        values, draws = _values(evaluation, part), drawn[part.which][:, part.overlaps]
        tables[f"{name} by category"] = {
            label: _figure(values[:, k], mean_known(draws[:, :, k], axis=1), int(judged[0][k].true.sum()))
            for k, label in enumerate(labels)
        }
    for name in ("ap", "ar"):
        tables[f"{name} by size"] = {size: measured[f"{name}_{size}"].figure for size in SIZES[1:]}
    return AveragePrecision(images, measured, tables)


def _values(evaluation: Any, part: _Part) -> NDArray[np.float64]:
    """What the library gives: (overlaps, categories); NaN, there -1, where nothing is true."""
    table = evaluation.eval["recall" if part.which.recall else "precision"][part.overlaps]
    table = table[..., part.which.size, part.which.most]
    values = table if part.which.recall else table.mean(axis=1)  # over recalls
    return np.where(values < 0, np.nan, values)


def _draws(
    judged: Sequence[Judged], which: _Which, weights: NDArray[np.int64], recalls: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same of resampled images: (rounds, overlaps, categories)."""
    if not judged:
        return np.zeros((len(weights), 10, 0))
    if which.recall:
        return np.stack([recall_draws(one, weights, MOST[which.most]) for one in judged], axis=2)
    return np.stack([precision_draws(one, weights, recalls) for one in judged], axis=2)


def _by_image(
    right: NDArray[np.float64], predicted: NDArray[np.float64], true: NDArray[np.float64], part: _Part
) -> NDArray[np.float64]:
    """F1 or recall of each image, (images,); NaN where the image has nothing to judge."""
    right, predicted = right[part.overlaps], predicted[part.overlaps]
    return mean_known(shares(right, true) if part.which.recall else shares(2 * right, predicted + true), axis=0)


def _figure(values: NDArray[np.float64], draws: NDArray[np.float64], n: int) -> Figure:
    """Mean over what has a value, and how far it went when other images were drawn."""
    value = float(mean_known(values))
    if np.isnan(value):
        return Figure(None, None, n)
    return Figure(value, middle_half(draws[~np.isnan(draws)]), n)
