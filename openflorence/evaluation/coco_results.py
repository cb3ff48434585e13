"""Average precision from COCO's own files: annotations and results, as any program writes them.

precision = coco_precision(annotations, results)           # the twelve figures that pycocotools prints
rows = coco_results(predictions, images, categories)       # answers in that form
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openflorence.data.entries import read_json
from openflorence.errors import BadRecord
from openflorence.evaluation.detection import (
    AveragePrecision,
    Regions,
    ScoreProtocol,
    Sizes,
    check_settings,
    corners,
    entries_of,
    filled,
    summed,
)
from openflorence.evaluation.judged import Kind, Row, evaluate, library


def coco_precision(
    annotations: Path | Mapping[str, Any],
    results: Path | Sequence[Row],
    kind: Kind = "boxes",
    images: Sequence[int] | None = None,
    rounds: int = 0,
) -> AveragePrecision:
    """Score results in COCO's own form: the twelve figures that COCOeval prints.

    annotations  the file of instances, or what is in it.
    results      a list of {"image_id", "category_id", "score", "bbox" or "segmentation"}, or a file with one. For
                 masks, run-length codes or polygons; a result without is its box.
    images       ids of those to score; all in the annotations unless given.
    rounds       resamplings of the images for half-widths and draws.
    raises       BadRecord naming the entry that does not fit; BadConfig for an unknown kind, or without pycocotools.
    source       cocodataset.org, "Results Format"; COCO.loadRes and COCOeval of pycocotools.
    """
    check_settings("probability", kind, rounds)
    sheet = read_json(annotations) if isinstance(annotations, Path) else annotations
    rows = read_json(results) if isinstance(results, Path) else results
    if not isinstance(sheet, Mapping) or not {"images", "annotations", "categories"} <= set(sheet):
        raise BadRecord(f"{_named(annotations)} is no file of instances: give images, annotations and categories")
    if not isinstance(rows, Sequence):
        raise BadRecord(f"{_named(results)} holds no list; results are a list of entries, one for each object")
    pictures = {picture["id"]: picture for picture in sheet["images"]}
    strangers = sorted(set(images or ()) - set(pictures))
    if strangers:
        raise BadRecord(f"no image {strangers[0]} in {_named(annotations)}; leave `images` out to score all")
    chosen = pictures if images is None else {image: pictures[image] for image in sorted(set(images))}
    ids = _category_ids(sheet["categories"])
    true = [_true_entry(row, kind, i) for i, row in enumerate(sheet["annotations"]) if row["image_id"] in chosen]
    found = [_found_entry(row, pictures, kind, i) for i, row in enumerate(rows)]
    found = [entry for entry in found if entry["image_id"] in chosen]
    return summed(evaluate(list(chosen.values()), ids, true, found, kind), list(ids), rounds)


def coco_results(
    predictions: Regions,
    images: Sequence[int],
    categories: Mapping[str, int],
    protocol: ScoreProtocol = "probability",
    images_wh: Sizes | None = None,
) -> list[dict[str, Any]]:
    """Give answers as COCO's results, for coco_precision or for the server of the challenge.

    predictions  by image, in the order of `images`, their ids.
    categories   ids by name; labels are trimmed, and what has no id is left out.
    images_wh    sizes of the images, for masks; without them the results are boxes.
    raises       BadConfig for an unknown protocol, or for masks without pycocotools.
    """
    check_settings(protocol, "boxes", 0)
    rows = []
    for image, row in zip(images, entries_of(predictions, categories, protocol, images_wh), strict=True):
        for entry in row:
            kept = {"image_id": image, "category_id": entry["category_id"], "score": entry["score"]}
            if images_wh is None:
                rows.append(kept | {"bbox": entry["bbox"]})
            else:
                code = entry["segmentation"]  # its counts are bytes, which JSON cannot hold
                rows.append(kept | {"segmentation": code | {"counts": code["counts"].decode("ascii")}})
    return rows


def mask_of(
    segmentation: Mapping[str, Any] | Sequence[Sequence[float]], image_wh: tuple[int, int]
) -> NDArray[np.bool_]:
    """Give the mask of an annotation, (H, W), filled as COCO fills it: what referring segmentation is judged by.

    segmentation  run lengths, as numbers or as text, or polygons of x, y, x, y, ...
    raises        BadConfig without pycocotools.
    source        annToMask of pycocotools, getMask of github.com/lichengunc/refer: parts add up.
    """
    masks = library()[2]
    code: Any = segmentation
    if not isinstance(code, Mapping):
        code = filled([list(outline) for outline in code], image_wh)["segmentation"]
    elif isinstance(code["counts"], Sequence) and not isinstance(code["counts"], (str, bytes)):
        code = masks.frPyObjects(dict(code), *code["size"])
    return np.asarray(masks.decode(dict(code)), bool)


def _category_ids(categories: Sequence[Row]) -> dict[str, int]:
    """Ids by name; a name that stands twice gets its id beside it."""
    ids: dict[str, int] = {}
    for row in sorted(categories, key=lambda row: int(row["id"])):
        name = str(row.get("name", row["id"]))
        ids[f"{name} #{row['id']}" if name in ids else name] = row["id"]
    return ids


def _true_entry(row: Row, kind: Kind, place: int) -> dict[str, Any]:
    needed = "bbox" if kind == "boxes" else "segmentation"
    if not row.get(needed):
        raise BadRecord(f"annotations[{place}] of image {row['image_id']} has no {needed}, which {kind} are judged by")
    area = row["bbox"][2] * row["bbox"][3] if row.get("bbox") else 0.0
    return {"iscrowd": 0, "area": area} | dict(row)


def _found_entry(row: Row, pictures: Mapping[Any, Row], kind: Kind, place: int) -> dict[str, Any]:
    """A result with the area that COCO.loadRes gives it."""
    shape = next((name for name in ("segmentation", "bbox") if kind == "masks" and row.get(name)), "bbox")
    missing = [name for name in ("image_id", "category_id", "score", shape) if name not in row]
    if missing:
        raise BadRecord(f"results[{place}] has no {missing[0]!r}; give image_id, category_id, score and {shape}")
    if row["image_id"] not in pictures:
        raise BadRecord(f"results[{place}] is about image {row['image_id']}, which the annotations do not have")
    entry = {name: row[name] for name in ("image_id", "category_id", "score")} | {"iscrowd": 0}
    if kind == "boxes":
        return entry | {"bbox": row["bbox"], "area": row["bbox"][2] * row["bbox"][3]}
    code = row.get(shape)
    if isinstance(code, Mapping):
        return entry | {"segmentation": code, "area": float(library()[2].area(code))}
    outlines = code if shape == "segmentation" else [[v for point in corners(row) for v in point]]
    picture = pictures[row["image_id"]]
    return entry | filled([list(outline) for outline in outlines or []], (picture["width"], picture["height"]))


def _named(source: Any) -> str:
    return str(source) if isinstance(source, Path) else "what was given"
