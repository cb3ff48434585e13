"""COCO's own files, against what pycocotools prints for them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from openflorence.contract.regions import Region
from openflorence.contract.shapes import Box, Point
from openflorence.errors import BadConfig, BadRecord
from openflorence.evaluation.coco_results import coco_precision, coco_results, mask_of
from openflorence.evaluation.detection import TWELVE, average_precision

SIDE = 300


def printed(
    sheet: dict[str, Any], results: list[dict[str, Any]], kind: str, images: list[int] | None = None
) -> list[float]:
    """The twelve numbers of pycocotools, by its own path from files to figures."""
    truth = COCO()
    truth.dataset = json.loads(json.dumps(sheet))
    truth.createIndex()
    found = truth.loadRes(json.loads(json.dumps(results)))
    evaluation = COCOeval(truth, found, {"boxes": "bbox", "masks": "segm"}[kind])
    if images is not None:
        evaluation.params.imgIds = images
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


def ours(sheet: Any, results: Any, kind: Any, images: list[int] | None = None) -> list[float]:
    """The same twelve; -1 where nothing was to be judged, as pycocotools has it."""
    measured = coco_precision(sheet, results, kind, images).measured
    return [-1 if one.figure.value is None else one.figure.value for one in measured.values()]


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + 0.2 * h, x + 0.8 * w, y + h, x, y + 0.7 * h]


def drawn_files(seed: int, images: int, kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results of a few images; the first image and the last category have nothing."""
    rng = np.random.default_rng(seed)
    true, found = [], []
    for image in range(2, images + 1):
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = *rng.uniform(0, 100, 2), *rng.choice([20, 60, 150], 2) * rng.uniform(0.8, 1.2, 2)
            category, crowd = int(rng.choice([3, 7])), bool(rng.random() < 0.2)
            row: dict[str, Any] = {"id": len(true) + 1, "image_id": image * 11, "category_id": category}
            row |= {
                "bbox": [x, y, w, h],
                "area": 0.7 * w * h,
                "iscrowd": int(crowd),
                "segmentation": [polygon(x, y, w, h)],
            }
            if crowd:  # as COCO has them: run lengths, column by column
                mask = masks.decode(masks.merge(masks.frPyObjects(row["segmentation"], SIDE, SIDE)))
                flat = mask.T.reshape(-1)
                ends = np.flatnonzero(np.diff(flat, prepend=0, append=0))
                row["segmentation"] = {
                    "size": [SIDE, SIDE],
                    "counts": np.diff(ends, prepend=0, append=len(flat)).tolist(),
                }
            true.append(row)
            for _ in range(rng.integers(0, 3)):
                x, y, w, h = np.add((x, y, w, h), rng.normal(0, 0.08, 4) * (w, h, w, h)).clip(1, 190).tolist()
                entry = {
                    "image_id": image * 11,
                    "category_id": int(rng.choice([category, category, 7, 9])),
                    "score": int(rng.integers(1, 9)) / 9,
                }
                if kind == "boxes":
                    found.append(entry | {"bbox": [x, y, w, h]})
                else:
                    code = masks.merge(masks.frPyObjects([polygon(x, y, w, h)], SIDE, SIDE))
                    found.append(entry | {"segmentation": code | {"counts": code["counts"].decode()}})
    pictures = [{"id": image * 11, "width": SIDE, "height": SIDE} for image in range(1, images + 1)]
    categories = [{"id": 9, "name": "кот"}, {"id": 3, "name": "dog"}, {"id": 7, "name": "t-rex"}]
    return {"images": pictures, "categories": categories, "annotations": true}, found


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 6))
def test_the_twelve_figures_are_those_of_pycocotools(kind, seed, images):
    sheet, results = drawn_files(seed, images, kind)
    if results:  # pycocotools takes no empty list
        assert ours(sheet, results, kind) == pytest.approx(printed(sheet, results, kind), abs=1e-12)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_the_sweep_saw_figures_of_every_size(kind):
    sheet, results = drawn_files(5, 30, kind)
    values = printed(sheet, results, kind)
    assert ours(sheet, results, kind) == pytest.approx(values, abs=1e-12)
    assert all(0.05 < value < 0.95 for value in values)
    assert len(set(values)) > 10
    assert len(values) == len(TWELVE) == 12


def test_files_are_read_and_some_images_are_chosen(tmp_path):
    sheet, results = drawn_files(5, 30, "boxes")
    (tmp_path / "instances.json").write_text(json.dumps(sheet), "utf-8")
    (tmp_path / "results.json").write_text(json.dumps(results), "utf-8")
    some = [33, 22, 110, 22]
    found = coco_precision(tmp_path / "instances.json", tmp_path / "results.json", images=some)
    theirs = printed(sheet, results, "boxes", some)
    assert ours(sheet, results, "boxes", some) == pytest.approx(theirs, abs=1e-12)
    assert found.figures["map"].value == pytest.approx(theirs[0], abs=1e-12)
    assert found.images == (22, 33, 110)
    assert found.measured["map"].by_image.shape == (3,)
    assert list(found.categories) == ["dog", "t-rex", "кот"]  # by their ids
    assert found.categories["кот"].value is None


def test_more_than_a_hundred_results_of_a_category_are_cut_as_pycocotools_cuts_them():
    true = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
    sheet = {
        "images": [{"id": 1, "width": 99, "height": 99}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [true],
    }
    wrong = [{"image_id": 1, "category_id": 1, "bbox": [60, 60, 9, 9], "score": 0.9} for _ in range(100)]
    right = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.1}
    assert coco_precision(sheet, [*wrong, right]).figures["map"].value == 0.0
    # The hundredth is right: precision 1/100 at every recall.
    assert coco_precision(sheet, [*wrong[1:], right]).figures["map"].value == pytest.approx(0.01)
    assert ours(sheet, [*wrong[1:], right], "boxes") == pytest.approx(printed(sheet, [*wrong[1:], right], "boxes"))


def test_what_files_may_leave_out_and_what_they_may_have_twice():
    # No area, no iscrowd; id 0, which pycocotools would take for "not matched"; a name twice; an unknown category.
    true = [{"id": 0, "image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20]}]
    sheet = {"images": [{"id": 1}], "categories": [{"id": 4, "name": "a"}, {"id": 5, "name": "a"}], "annotations": true}
    result = {"image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20], "score": 1}
    found = coco_precision(sheet, [result, result | {"category_id": 77}])
    assert found.figures["map"].value == pytest.approx(1.0)
    assert list(found.categories) == ["a", "a #5"]
    # The same result twice: the second is wrong, but recall is already 1.
    assert coco_precision(sheet, [result, result]).figures["map"].value == pytest.approx(1.0)
    assert coco_precision(sheet, []).figures["map"].value == 0.0
    assert coco_precision(sheet | {"annotations": []}, [result]).figures["map"].value is None
    assert result == {"image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20], "score": 1}  # left as it was


def test_results_without_a_mask_are_their_box_and_polygons_are_filled():
    sheet, _ = drawn_files(5, 8, "masks")
    rows = [{k: row[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for row in sheet["annotations"]]
    assert ours(sheet, rows, "masks") == pytest.approx(printed(sheet, rows, "masks"), abs=1e-12)
    some = [row for row in sheet["annotations"] if isinstance(row["segmentation"], list)]
    outlined = [{k: row[k] for k in ("image_id", "category_id", "segmentation")} | {"score": 1.0} for row in some]
    assert coco_precision(sheet, outlined, "masks").figures["map"].value == pytest.approx(1.0)


CATEGORIES = {"cat": 17, "собака": 18}


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_answers_as_results_score_what_they_score_as_regions(kind):
    square = tuple(Point(*point) for point in ((10, 10), (60, 10), (60, 60), (10, 60)))
    found = [
        [Region(" cat", polygons=(square,), score=0.9), Region("cat", box=Box(70, 70, 90, 90), score=0.95)],
        [],
        [Region("собака", box=Box(10, 10, 60, 60)), Region("unicorn", box=Box(0, 0, 9, 9)), Region("cat")],
    ]
    true = [[Region("cat", box=Box(10, 10, 60, 60))], [], [Region("собака", box=Box(10, 10, 60, 64))]]
    wh = [(SIDE, SIDE)] * 3
    outlines = [[10, 10, 60, 10, 60, 60, 10, 60], [10, 10, 60, 10, 60, 64, 10, 64]]
    sheet = {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in (5, 6, 8)],
        "categories": [{"id": i, "name": name} for name, i in CATEGORIES.items()],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 17, "bbox": [10, 10, 50, 50], "segmentation": [outlines[0]]},
            {"id": 2, "image_id": 8, "category_id": 18, "bbox": [10, 10, 50, 54], "segmentation": [outlines[1]]},
        ],
    }
    rows = coco_results(found, [5, 6, 8], CATEGORIES, "order", wh if kind == "masks" else None)
    rows = json.loads(json.dumps(rows))
    assert [(row["image_id"], row["category_id"], row["score"]) for row in rows] == [
        (5, 17, 1),
        (5, 17, 0.5),
        (8, 18, 1),
    ]
    direct = average_precision(found, true, protocol="order", kind=kind, images_wh=wh)
    by_files = coco_precision(sheet, rows, kind)
    for name, one in by_files.measured.items():
        assert one.figure.value == pytest.approx(direct.measured[name].figure.value), name
    assert 0.9 < by_files.figures["map"].value < 1  # 50 of 54 is no IoU of 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": [{"image_id": 1, "category_id": 1, "score": 1}]}, r"results\[0\] has no 'bbox'"),
        ({"results": [{"image_id": 2, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}]}, "about image 2"),
        ({"results": {"a": 1}}, "holds no list"),
        ({"annotations": {"images": []}}, "give images, annotations and categories"),
        ({"images": [1, 12]}, "no image 12"),
        ({"kind": "masks"}, r"annotations\[0\] of image 1 has no segmentation"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    true = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": []}]
    sheet = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": true}
    with pytest.raises(BadRecord, match=message):
        coco_precision(**({"annotations": sheet, "results": []} | change))


def test_an_unknown_kind_is_named():
    with pytest.raises(BadConfig, match="allowed: boxes, masks"):
        coco_precision({}, [], "segm")  # type: ignore[arg-type]


def test_masks_of_annotations_in_every_form():
    # 10 x 5 pixels from (10, 20) on; run lengths go down the columns.
    outline = [[10, 20, 20, 20, 20, 25, 10, 25]]
    lengths = [10 * 40 + 20] + [5, 35] * 9 + [5, 15 + 10 * 40]
    assert sum(lengths) == 30 * 40
    exact = np.zeros((40, 30), bool)
    exact[20:25, 10:20] = True
    packed = masks.encode(np.asfortranarray(exact.astype(np.uint8)))
    text = packed | {"counts": packed["counts"].decode()}
    for form in (outline, {"size": [40, 30], "counts": lengths}, packed, text):
        mask = mask_of(form, (30, 40))
        assert mask.shape == (40, 30)
        assert (mask == exact).all()
    # Parts add up.
    assert mask_of([*outline, [0, 0, 4, 0, 4, 4, 0, 4]], (30, 40)).sum() == 50 + 16
