"""Average precision against values worked out by hand, and the resampling against the library."""

import numpy as np
import pytest

from openflorence.contract.regions import Region
from openflorence.contract.shapes import Box
from openflorence.errors import BadConfig
from openflorence.evaluation.detection import SCORE_PROTOCOLS, _entries, _evaluate, _weighted, average_precision

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


def test_images_counted_once_give_what_the_library_gives():
    found, truths, crowds = noise(60)
    labels = sorted({region.label for rows in (truths, crowds) for row in rows for region in row})
    true = _entries(truths, labels, "constant", 0) + _entries(crowds, labels, "constant", 1)
    evaluation = _evaluate(_entries(found, labels, "probability", 0), true, 60, labels)
    theirs = evaluation.eval["precision"][:, :, :, 0, 0].mean(axis=1)
    once = np.ones((1, 60), np.int64)
    for place in range(len(labels)):
        ours = _weighted(evaluation.evalImgs[place * 60 : (place + 1) * 60], once, evaluation.params.recThrs)
        assert ours[0] == pytest.approx(theirs[:, place], abs=1e-12)
    assert 0.1 < theirs.mean() < 0.9
    assert len(labels) == 5


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
