"""Two models on the same images: verdicts worked out by hand, and the paired bootstrap against one written out."""

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.regions import Answer
from openflorence.contract.tasks import find_task
from openflorence.errors import BadConfig
from openflorence.evaluation.compare import Difference, compare, signed, span
from openflorence.evaluation.results import Exhibit, Results, measure, measure_mean


def results(scores, model="", benchmark="coco-caption", images=None, exhibits=(), missing=0, rounds=1000) -> Results:
    """A benchmark whose only figure is the mean of what each image scores."""
    images = tuple(f"{i}.jpg" for i in range(len(scores))) if images is None else tuple(images)
    measured = {"cider_d": measure_mean(np.array(scores, float), rounds)}
    return Results(
        benchmark, images, len(images), 0, 0, 0, missing, measured, exhibits=exhibits, about={"model": model}
    )


def exhibit(image: str, said: str, question: str = "What is there?") -> Exhibit:
    task = find_task("caption")
    true, answer = Answer(task, (8, 8), "a cat"), Answer(task, (8, 8), said)
    return Exhibit(image, lambda: Image.new("RGB", (8, 8)), question, true, answer)


def test_a_constant_gain_is_certain():
    # Every image gains a tenth, so every resampling does, and the interval has no width.
    comparison = compare(results([0.1, 0.5, 0.7], "old"), results([0.2, 0.6, 0.8], "new"))
    assert comparison.headline.value == pytest.approx(0.1)
    assert comparison.headline.interval == pytest.approx((0.1, 0.1))
    assert comparison.verdict == "new is better: +10.0 points, 95 % interval 10.0 to 10.0"


def test_a_loss_names_the_first_and_turns_the_signs():
    comparison = compare(results([0.2, 0.6, 0.8], "old"), results([0.1, 0.5, 0.7], "new"))
    assert comparison.headline.value == pytest.approx(-0.1)
    assert comparison.verdict == "old is better: +10.0 points, 95 % interval 10.0 to 10.0"


@pytest.mark.parametrize(
    ("interval", "value", "verdict"),
    [
        ((0.004, 0.022), 0.013, "B is better: +1.3 points, 95 % interval 0.4 to 2.2"),
        ((-0.022, -0.004), -0.013, "A is better: +1.3 points, 95 % interval 0.4 to 2.2"),
        ((-0.008, 0.014), 0.003, "no difference could be shown: +0.3 points, 95 % interval −0.8 to 1.4"),
        ((0.0, 0.014), 0.003, "no difference could be shown: +0.3 points, 95 % interval 0.0 to 1.4"),
        ((0.00012, 0.00048), 0.0003, "B is better: +0.030 points, 95 % interval 0.012 to 0.048"),
        (None, 0.003, "nothing can be shown: +0.3 points on one image, which has no interval"),
    ],
)
def test_the_verdict_states_the_interval(interval, value, verdict):
    assert Difference(("A", "B"), (0.5, 0.5 + value), interval, False).verdict == verdict


def test_less_is_better_where_mistakes_are_counted():
    # 3 and 1 of 10 regions: the second names fewer labels that do not exist.
    worse, better = (
        Difference(("A", "B"), pair, ends, False, lower=True)
        for pair, ends in (((0.1, 0.3), (0.15, 0.25)), ((0.3, 0.1), (-0.25, -0.15)))
    )
    assert worse.verdict == "A is better: −20.0 points, 95 % interval −25.0 to −15.0"
    assert better.verdict == "B is better: −20.0 points, 95 % interval −25.0 to −15.0"
    a, b = (
        Results("coco-detect", ("0", "1"), 2, 0, 0, 0, 0, {"unknown_labels": measure(np.array(parts, float))})
        for parts in ([[1, 1], [1, 1]], [[0, 1], [0, 1]])
    )
    assert compare(a, b).headline.better == "B"


def test_no_value_and_no_difference_are_said():
    assert "no value" in Difference(("A", "B"), (None, 0.5), None, False).verdict
    same = results([0.1, 0.5, 0.7])
    assert compare(same, same).verdict == "no difference: both score the same on every image"
    # Equal in the mean only: 0.1 and 0.5 against 0.5 and 0.1.
    assert "could be shown: +0.0 points" in compare(results([0.1, 0.5]), results([0.5, 0.1])).verdict
    assert "on one image" in compare(results([0.1]), results([0.5])).verdict
    assert "no value" in compare(results([np.nan, np.nan]), results([0.5, 0.1])).verdict
    assert "no value" in compare(results([]), results([])).verdict


def test_the_interval_is_that_of_a_bootstrap_written_out():
    rng = np.random.default_rng(3)
    a = rng.random(40)
    b = a + rng.normal(0.02, 0.05, 40)
    # The same resamplings, drawn here: PCG64 with seed 0, each a count of every image; no use is made of the pairing
    # of draws, the differences of the images are averaged.
    counts = np.random.Generator(np.random.PCG64(0)).multinomial(40, np.full(40, 1 / 40), size=1000)
    means = counts @ (b - a) / 40
    interval = compare(results(a), results(b)).headline.interval
    assert interval == pytest.approx(np.percentile(means, [2.5, 97.5]))
    # Unpaired, a difference this small could not be shown among images this unlike.
    apart = results(b).measured["cider_d"].interval[0] - results(a).measured["cider_d"].interval[1]
    assert interval[1] - interval[0] < 0.05 < -apart


def test_more_draws_on_one_side_change_nothing():
    # Draws come one after another from the same seed, so the first 200 of 1000 are the 200 of 200.
    a, b = [0.1, 0.5, 0.7, 0.2], [0.3, 0.4, 0.9, 0.8]
    few = compare(results(a, rounds=200), results(b, rounds=200)).headline.interval
    assert compare(results(a, rounds=200), results(b)).headline.interval == few
    assert compare(results(a), results(b, rounds=200)).headline.interval == few


def test_draws_without_a_value_are_left_out_in_pairs():
    # The figure of a has nothing to judge on image 1: where only that one is drawn, the draw is no pair.
    a = results([0.0, 0.0])
    a = Results(**(vars(a) | {"measured": {"cider_d": measure(np.array([[1.0, 2.0], [0.0, 0.0]]))}}))
    headline = compare(a, results([1.0, 1.0])).headline
    assert headline.value == headline.interval[0] == headline.interval[1] == 0.5


def test_other_images_are_an_error_that_counts_them():
    a, b = results([0, 0, 0], images="abc"), results([0, 0], images="bd")
    with pytest.raises(
        BadConfig, match=r"scored on 3 images and lacks 1 of .* on 2 and lacks 2 of .* score the answers"
    ):
        compare(a, b)
    with pytest.raises(BadConfig, match="another order"):
        compare(results([0, 1], images="ab"), results([0, 1], images="ba"))


def test_other_benchmarks_and_figures_are_errors():
    with pytest.raises(BadConfig, match="nocaps and coco-caption are two"):
        compare(results([0], benchmark="nocaps"), results([0]))
    bare = Results(**(vars(results([0, 0])) | {"measured": {}}))
    with pytest.raises(BadConfig, match="A has the figures cider_d, B none"):
        compare(results([0, 0]), bare)


def test_models_without_names_of_their_own_are_the_first_and_the_second():
    def names(a: str, b: str) -> tuple[str, str]:
        return compare(results([0, 1], a), results([1, 1], b)).names

    assert names("base", "large") == ("base", "large")
    assert names("", "") == ("A", "B")
    assert names("nano", "nano") == ("A nano", "B nano")
    assert names("nano", "") == ("A nano", "B")


def test_the_images_furthest_apart_come_first_with_what_was_said():
    a = results([0.5, 0.9, 0.1, np.nan, 0.3], exhibits=[exhibit("2.jpg", "a dog"), exhibit("1.jpg", "a cat")])
    b = results([0.5, 0.2, 1.0, 0.9, 0.4], exhibits=[exhibit("1.jpg", "a cow"), exhibit("2.jpg", "two dogs")])
    apart = compare(a, b, most=3).apart
    # 0.9 on image 2, 0.7 on image 1, 0.1 on image 4; image 0 is alike, image 3 has no say on one side.
    assert [one.image for one in apart] == ["2.jpg", "1.jpg", "4.jpg"]
    assert apart[0].values == (0.1, 1.0)
    assert [[(x.said.text, y.said.text) for x, y in one.exhibits] for one in apart] == [
        [("a dog", "two dogs")], [("a cat", "a cow")], []
    ]  # fmt: skip
    assert len(compare(a, b, most=1).apart) == 1


def test_questions_pair_up_by_what_was_asked():
    a = results([0, 0], exhibits=[exhibit("0.jpg", "one", "How many?"), exhibit("0.jpg", "red", "Which colour?")])
    b = results([1, 0], exhibits=[exhibit("0.jpg", "blue", "Which colour?")])
    (one,) = compare(a, b).apart
    assert [(x.said.text, y.said.text) for x, y in one.exhibits] == [("red", "blue")]


def test_missing_answers_are_carried_along():
    assert compare(results([0, 1], missing=2), results([0, 1], missing=5)).missing == (2, 5)


def test_points_are_written_with_a_sign_and_enough_digits():
    assert signed(0.013) == "+1.3"
    assert signed(-0.013) == "−1.3"
    assert signed(-0.0001) == "+0.0"
    assert span((-0.008, 0.0141)) == "−0.8 to 1.4"
    assert span((0.001, 0.0019)) == "0.100 to 0.190"  # 0.09 points wide: three digits show two of the width
