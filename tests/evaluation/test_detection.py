"""Average precision against values worked out by hand, and its resampling against the library."""

import numpy as np
import pytest

from openflorence.contract.regions import Region
from openflorence.contract.shapes import Box, Point
from openflorence.errors import BadConfig
from openflorence.evaluation.detection import SCORE_PROTOCOLS, TWELVE, average_precision
from openflorence.evaluation.metrics import image_weights

HERE, THERE, AWAY = Box(10, 10, 30, 30), Box(50, 50, 80, 80), Box(85, 5, 95, 15)


def at(box: Box | None, score: float | None = None, label: str = "cat") -> Region:
    return Region(label, box=box, score=score)


# Two images with one cat each. The first answer finds it and then sees one too many; the second finds it.
TRUTHS = [[at(HERE)], [at(THERE)]]
FOUND = [[at(HERE, 0.5), at(AWAY, 0.9)], [at(THERE, 0.6)]]


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        # Right, wrong, right: precision 1 up to recall 0.5, at 51 of 101 points, then 2/3 at 50.
        ("constant", (51 + 50 * 2 / 3) / 101),
        # The first boxes of both images come before the second of the first: right, right, wrong.
        ("order", 1.0),
        # 0.9 is wrong, then 0.6 and 0.5 are right: precision 1/2 and then 2/3, so 2/3 is the best at every recall.
        ("probability", 2 / 3),
    ],
)
def test_the_protocol_decides_what_the_same_boxes_score(protocol, expected):
    precision = average_precision(FOUND, TRUTHS, protocol=protocol)
    assert precision.figures["ap50"].value == pytest.approx(expected)
    # The boxes that fit do so exactly: all overlaps give the same.
    assert precision.figures["map"].value == pytest.approx(expected)
    assert precision.figures["ap75"].value == pytest.approx(expected)
    assert precision.categories["cat"].value == pytest.approx(expected)
    assert precision.figures["map"].n == 2


def test_the_sweep_saw_every_protocol():
    assert SCORE_PROTOCOLS == ("constant", "order", "probability")
    with pytest.raises(BadConfig, match="allowed: constant, order, probability"):
        average_precision(FOUND, TRUTHS, protocol="confidence")  # type: ignore[arg-type]


def test_overlaps_count_one_by_one():
    # 20 x 13.8 of 20 x 20 are found: an IoU of 0.69 reaches 0.50, 0.55, 0.60 and 0.65 of the ten overlaps.
    found = [[at(Box(10, 10, 30, 23.8), 1.0)]]
    figures = average_precision(found, [[at(HERE)]]).figures
    assert figures["ap50"].value == pytest.approx(1.0)
    assert figures["ap75"].value == 0.0
    assert figures["map"].value == pytest.approx(0.4)


def test_a_category_never_predicted_counts_and_one_never_true_does_not():
    truths = [[at(HERE), at(THERE, label="dog")]]
    found = [[at(HERE, 0.9), at(AWAY, 0.8, "unicorn")]]
    precision = average_precision(found, truths)
    assert precision.figures["map"].value == pytest.approx(0.5)  # of 1 and 0
    each = {label: figure.value for label, figure in precision.categories.items()}
    assert each == {"cat": pytest.approx(1.0), "dog": 0.0}


def test_a_box_where_there_is_nothing_costs_and_an_empty_answer_counts():
    truths = [[at(HERE)], [], [at(THERE)]]
    # Surest is wrong, in an image without a truth; then one right, and one cat is missed: precision 1/2 up to recall
    # 0.5, at 51 of 101 points.
    found = [[at(HERE, 0.5)], [at(AWAY, 0.9)], []]
    assert average_precision(found, truths).figures["ap50"].value == pytest.approx(51 / 2 / 101)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong():
    crowd = [[at(Box(40, 0, 100, 100))]]
    found = [[at(HERE, 0.5), at(AWAY, 0.9), at(THERE, 0.8)]]
    assert average_precision(found, [[at(HERE)]], crowd).figures["ap50"].value == pytest.approx(1.0)
    assert average_precision(found, [[at(HERE)]]).figures["ap50"].value == pytest.approx(1 / 3)
    # A crowd of dogs excuses no cat; a label that only crowds have has no average precision.
    dogs = [[at(Box(40, 0, 100, 100), label="dog")]]
    precision = average_precision(found, [[at(HERE)]], dogs)
    assert precision.figures["ap50"].value == pytest.approx(1 / 3)
    assert precision.categories["dog"].value is None
    assert precision.categories["dog"].n == 0


def test_regions_without_box_or_score_and_labels_with_spaces_or_of_any_script():
    truths = [[at(HERE, label="кот"), at(THERE, label="Straße")]]
    found = [[at(HERE, 0.2, " кот "), at(THERE, None, "Straße\n"), at(None, 0.9, "кот"), at(AWAY, None, "кот")]]
    # What has no score comes last, so that the stray box costs nothing.
    assert average_precision(found, truths).figures["map"].value == pytest.approx(1.0)


def test_nothing_to_judge_has_no_value():
    assert average_precision([], []).figures["map"].value is None
    precision = average_precision([[at(HERE, 1.0)]], [[]])
    assert precision.figures["map"].value is None
    assert precision.categories == {}
    assert average_precision([[], []], TRUTHS).figures["map"].value == 0.0


def noise(images: int) -> tuple[list[list[Region]], list[list[Region]], list[list[Region]]]:
    rng = np.random.default_rng(0)
    found, truths, crowds = ([[] for _ in range(images)] for _ in range(3))
    for row in range(images):
        for _ in range(rng.integers(0, 6)):
            (x, y), (w, h) = rng.uniform(0, 90, 2), rng.uniform(5, 40, 2)
            label = str(rng.integers(0, 5))
            (crowds if rng.random() < 0.1 else truths)[row].append(at(Box(x, y, x + w, y + h), None, label))
            x, y, w, h = np.add((x, y, w, h), rng.normal(0, 2, 4))
            if rng.random() < 0.8:
                found[row].append(at(Box(x, y, x + w, y + h), float(rng.integers(1, 9)) / 9, label))
    return found, truths, crowds


@pytest.mark.parametrize("row", [0, 1])
def test_a_draw_is_what_the_library_gives_for_the_drawn_images(row):
    # The images of one draw written out, each as often as it was drawn, and scored as any other images.
    sides = noise(40)
    measured = average_precision(*sides, rounds=2).measured
    drawn = [image for image, times in enumerate(image_weights(40, 2)[row]) for _ in range(times)]
    theirs = average_precision(*([side[image] for image in drawn] for side in sides), rounds=0).measured
    assert list(measured) == list(theirs) == list(TWELVE)
    for name, one in measured.items():
        value = theirs[name].figure.value
        assert one.draws[row] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), name
    assert 0.1 < measured["ap_small"].draws[row] < measured["ar_100"].draws[row] < 0.9


def test_the_half_width_shrinks_as_images_grow():
    # Four times the images, half the width, within what 200 resamplings know.
    few, many = (average_precision(*noise(images)).figures["ap50"].half_width for images in (100, 400))
    assert few is not None
    assert many is not None
    assert many == pytest.approx(few / 2, rel=0.35)
    assert average_precision(*noise(100)).figures["ap50"].half_width == few
    assert average_precision(*noise(100), rounds=0).figures["ap50"].half_width is None
    assert average_precision([[at(HERE, 1.0)]], [[at(HERE)]]).figures["ap50"].half_width is None  # one image


def test_nothing_is_printed(capsys):
    average_precision(FOUND, TRUTHS)
    assert capsys.readouterr() == ("", "")


# ---- the other figures of COCO

SMALL, MEDIUM, LARGE = Box(0, 0, 20, 20), Box(100, 0, 150, 50), Box(200, 0, 400, 200)  # below 32 x 32, 96 x 96, above


def test_the_twelve_figures_by_hand():
    # Two of three are found: precision 1 at the 67 recalls 0.00 to 0.66.
    found = [[at(SMALL, 0.9), at(LARGE, 0.8)]]
    values = {
        name: one.figure.value
        for name, one in average_precision(found, [[*map(at, (SMALL, MEDIUM, LARGE))]]).measured.items()
    }
    two_thirds = pytest.approx(67 / 101)
    assert values == {
        "map": two_thirds,
        "ap50": two_thirds,
        "ap75": two_thirds,
        "ap_small": pytest.approx(1),
        "ap_medium": 0,
        "ap_large": pytest.approx(1),
        "ar_1": pytest.approx(1 / 3),  # the surest of the image
        "ar_10": pytest.approx(2 / 3),
        "ar_100": pytest.approx(2 / 3),
        "ar_small": 1,
        "ar_medium": 0,
        "ar_large": 1,
    }
    assert list(values) == list(TWELVE)


def test_the_tables_by_hand():
    found, true = [[at(SMALL, 0.9), at(LARGE, 0.8, "dog")]], [[at(SMALL), at(MEDIUM), at(LARGE, label="dog")]]
    precision = average_precision(found, true)
    tables = {
        name: {row: (figure.value, figure.n) for row, figure in table.items()}
        for name, table in precision.tables.items()
    }
    half = pytest.approx(51 / 101), 2  # one of two cats
    assert tables == {
        "ap by category": {"cat": half, "dog": (pytest.approx(1), 1)},
        "ap50 by category": {"cat": half, "dog": (pytest.approx(1), 1)},
        "ar by category": {"cat": (0.5, 2), "dog": (1, 1)},
        "ap by size": {"small": (pytest.approx(1), 1), "medium": (0, 1), "large": (pytest.approx(1), 1)},
        "ar by size": {"small": (1, 1), "medium": (0, 1), "large": (1, 1)},
    }
    assert precision.categories == precision.tables["ap50 by category"]
    assert list(precision.figures) == ["map", "ap50", "ap75"]


def test_each_image_has_its_f1_and_its_recall():
    # One of two boxes is right and all is found: F1 is 2 of 3. Then nothing is true and nothing said; one that is
    # missed; and one that is too many.
    found, true = [[at(HERE, 0.5), at(AWAY, 0.9)], [], [], [at(AWAY, 0.1)]], [[at(HERE)], [], [at(THERE)], []]
    measured = average_precision(found, true).measured
    assert measured["map"].by_image == pytest.approx([2 / 3, np.nan, 0, 0], nan_ok=True)
    assert measured["ar_100"].by_image == pytest.approx([1, np.nan, 0, np.nan], nan_ok=True)
    assert measured["ar_1"].by_image == pytest.approx([0, np.nan, 0, np.nan], nan_ok=True)  # the surest is wrong
    # An IoU of 0.69 is right at four of the ten overlaps.
    measured = average_precision([[at(Box(10, 10, 30, 23.8), 1.0)]], [[at(HERE)]]).measured
    assert measured["map"].by_image == pytest.approx([0.4])
    assert measured["ap50"].by_image == pytest.approx([1])


def outline(*points: tuple[float, float], score: float | None = None) -> Region:
    return Region("cat", polygons=(tuple(Point(*point) for point in points),), score=score)


WHOLE = outline((0, 0), (20, 0), (20, 20), (0, 20))


def test_masks_are_not_boxes():
    # An L of 300 of the 400 pixels, with the bounds of the square: IoU 0.75, as boxes 1.
    corner = outline((0, 0), (20, 0), (20, 10), (10, 10), (10, 20), (0, 20), score=0.9)
    boxes = average_precision([[corner]], [[WHOLE]])
    masks = average_precision([[corner]], [[WHOLE]], kind="masks", images_wh=[(40, 30)])
    assert boxes.figures["map"].value == pytest.approx(1.0)
    assert masks.figures["ap50"].value == pytest.approx(1.0)
    assert masks.figures["map"].value == pytest.approx(0.6)  # the overlaps 0.50 to 0.75
    # 17 of 25 columns: an IoU of 0.68 reaches 0.50, 0.55, 0.60 and 0.65.
    wide, part = (outline((0, 0), (width, 0), (width, 20), (0, 20), score=1.0) for width in (25, 17))
    assert average_precision([[part]], [[wide]], kind="masks", images_wh=[(40, 30)]).figures[
        "map"
    ].value == pytest.approx(0.4)


def test_the_size_of_a_mask_is_its_area():
    # 40 x 40 within its bounds, but an L of 700 pixels: small, where its box is medium.
    thin = outline((0, 0), (40, 0), (40, 10), (10, 10), (10, 40), (0, 40), score=1.0)
    masks = average_precision([[thin]], [[thin]], kind="masks", images_wh=[(50, 50)])
    assert [masks.measured[f"ap_{size}"].figure.n for size in ("small", "medium", "large")] == [1, 0, 0]
    boxes = average_precision([[thin]], [[thin]])
    assert [boxes.measured[f"ap_{size}"].figure.n for size in ("small", "medium", "large")] == [0, 1, 0]


def test_masks_in_a_crowd_and_regions_without_an_outline():
    crowd = [[outline((0, 0), (40, 0), (40, 30), (0, 30))]]
    inside = outline((25, 5), (30, 5), (30, 10), (25, 10), score=0.95)
    found = [[Region("cat", box=Box(0, 0, 20, 20), score=0.9), inside, Region("cat", score=0.99)]]
    wh = [(40, 30)]
    assert average_precision(found, [[WHOLE]], crowd, kind="masks", images_wh=wh).figures["map"].value == pytest.approx(
        1
    )
    assert average_precision(found, [[WHOLE]], kind="masks", images_wh=wh).figures["map"].value == pytest.approx(0.5)
    bent = Region("cat", polygons=((Point(0, 0), Point(20, 20)),), score=0.9)  # no ring: its bounds
    assert average_precision([[bent]], [[WHOLE]], kind="masks", images_wh=wh).figures["map"].value == pytest.approx(1)


def test_wrong_settings_are_named():
    with pytest.raises(BadConfig, match="allowed: boxes, masks"):
        average_precision(FOUND, TRUTHS, kind="mask")  # type: ignore[arg-type]
    with pytest.raises(BadConfig, match="give images_wh"):
        average_precision(FOUND, TRUTHS, kind="masks")
    with pytest.raises(BadConfig, match="rounds is -1"):
        average_precision(FOUND, TRUTHS, rounds=-1)


def test_no_images_have_no_draws():
    precision = average_precision([], [])
    assert {one.figure.value for one in precision.measured.values()} == {None}
    assert precision.measured["map"].by_image.shape == (0,)
    assert precision.tables["ap by category"] == {}
    one = average_precision([[at(HERE, 1.0)]], [[at(HERE)]]).measured["map"]
    assert one.draws.shape == (0,)
    assert one.interval is None
