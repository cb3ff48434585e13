"""Two models on the same images: how far apart they are, how sure that is, and where one looks to see it.

comparison = compare(before, after)
comparison.verdict                               # "after is better: +1.3 points, 95 % interval 0.4 to 2.2"

The draws of a figure are its values on resampled images, and the resamplings are the same for the same number of
images; so the difference of two models' draws is the paired bootstrap (Efron and Tibshirani 1993; for scores of texts
Koehn 2004). What makes some images hard for both models cancels out, and differences show that two intervals side by
side would hide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from openflorence.errors import BadConfig
from openflorence.evaluation.results import Exhibit, Measured, Results

MISTAKES = frozenset({"unknown_labels", "invalid"})  # figures that count what is wrong: less is better


@dataclass(frozen=True)
class Difference:
    """How far two models are apart in one figure: b less a, in shares."""

    names: tuple[str, str]  # of the models a and b
    values: tuple[float | None, float | None]
    interval: tuple[float, float] | None  # the middle 95 % of the paired draws; None without any
    alike: bool  # both score the same on every image
    lower: bool = False  # less is better

    @property
    def value(self) -> float | None:
        """The second less the first; None where one has no value."""
        a, b = self.values
        return None if a is None or b is None else b - a

    @property
    def better(self) -> str | None:
        """The name of the model that is better beyond the interval; None when neither is."""
        if self.value is None or self.interval is None:
            return None
        low, high = self.interval
        a, b = reversed(self.names) if self.lower else self.names
        return b if low > 0 else a if high < 0 else None

    @property
    def verdict(self) -> str:
        """The difference in words, with its interval, in points of 100."""
        if self.value is None:
            return "nothing to compare: at least one of the two has no value"
        if self.alike:
            return "no difference: both score the same on every image"
        if self.interval is None:
            return f"nothing can be shown: {signed(self.value)} points on one image, which has no interval"
        sure = f"95 % interval {span(self.interval)}"
        if self.better is None:
            return f"no difference could be shown: {signed(self.value, self.interval)} points, {sure}"
        sign = 1 if self.better == self.names[1] else -1
        low, high = sorted(sign * end for end in self.interval)
        sure = f"95 % interval {span((low, high))}"
        return f"{self.better} is better: {signed(sign * self.value, self.interval)} points, {sure}"


@dataclass(frozen=True, eq=False)
class Apart:
    """One image on which two models differ."""

    image: str
    values: tuple[float, float]  # of the headline figure, on this image alone
    exhibits: tuple[tuple[Exhibit, Exhibit], ...]  # the questions about it: what a and what b said


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on one benchmark."""

    benchmark: str
    names: tuple[str, str]  # of the models a and b
    images: int
    missing: tuple[int, int]  # questions without an answer, not scored: more on one side tilt the scales
    differences: Mapping[str, Difference]  # by figure, the headline figure first
    apart: tuple[Apart, ...]  # the images on which they differ most, the furthest first

    @property
    def headline(self) -> Difference:
        """The difference in the headline figure, the one to decide by."""
        return next(iter(self.differences.values()))

    @property
    def verdict(self) -> str:
        """The difference in the headline figure in words, with its interval."""
        return self.headline.verdict


def compare(a: Results, b: Results, most: int = 8) -> Comparison:
    """Compare two models on the same images: b less a, in every figure that both have.

    most      how many images to give of those on which the headline figure differs most.
    raises    BadConfig for two benchmarks, other images, the same images in another order, or no figure in common.
    source    Paired bootstrap over images, the middle 95 % of the differences; one interval a figure, without a
              correction for looking at many: of twenty figures that are the same, one will seem to differ.
    """
    _check(a, b)
    names = _names(a, b)
    shared = [name for name in a.measured if name in b.measured]
    if not shared:
        raise BadConfig(
            f"{a.benchmark}: {names[0]} has the figures {', '.join(a.measured) or 'none'}, {names[1]} "
            f"{', '.join(b.measured) or 'none'}; two models are compared by a figure that both have"
        )
    differences = {
        name: replace(_difference(names, a.measured[name], b.measured[name]), lower=name in MISTAKES) for name in shared
    }
    headline = (a.measured[shared[0]].by_image, b.measured[shared[0]].by_image)
    return Comparison(
        a.benchmark, names, len(a.images), (a.missing, b.missing), differences, _apart(a, b, headline, most)
    )


def _check(a: Results, b: Results) -> None:
    if a.benchmark != b.benchmark:
        raise BadConfig(f"{a.benchmark} and {b.benchmark} are two benchmarks; compare two models on one of them")
    lacking = [len(set(one.images) - set(other.images)) for one, other in ((b, a), (a, b))]
    if any(lacking):
        raise BadConfig(
            f"{a.benchmark}: the first model was scored on {len(a.images)} images and lacks {lacking[0]} of the "
            f"second's, the second on {len(b.images)} and lacks {lacking[1]} of the first's. A comparison needs the "
            "same images, and scores of some images cannot be worked out from scores of all (average precision and "
            "CIDEr look at all images together): score the answers of both again on the images they share"
        )
    if a.images != b.images:
        raise BadConfig(
            f"{a.benchmark}: both models were scored on the same {len(a.images)} images, but in another order, so "
            "their resamplings do not pair up: score the answers of both again from one list of images"
        )


def _names(a: Results, b: Results) -> tuple[str, str]:
    """What to call two models: by their own names where these tell them apart, else the first and the second."""
    one, other = (" ".join(str(each.about.get("model", "")).split()) for each in (a, b))
    return (one, other) if one and other and one != other else (f"A {one}".strip(), f"B {other}".strip())


def _difference(names: tuple[str, str], a: Measured, b: Measured) -> Difference:
    # The first draws are the same however many follow, so more of them on one side do no harm.
    rounds = min(len(a.draws), len(b.draws))
    draws = b.draws[:rounds] - a.draws[:rounds]
    draws = draws[~np.isnan(draws)]
    interval = (float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))) if draws.size else None
    values = tuple(None if one is None or math.isnan(one) else one for one in (a.figure.value, b.figure.value))
    alike = values[0] == values[1] and np.array_equal(a.by_image, b.by_image, equal_nan=True) and not draws.any()
    return Difference(names, (values[0], values[1]), interval, alike)


def _apart(
    a: Results, b: Results, headline: tuple[NDArray[np.float64], NDArray[np.float64]], most: int
) -> tuple[Apart, ...]:
    gaps = np.nan_to_num(np.abs(headline[1] - headline[0]))  # an image without a say on one side cannot be ranked
    furthest = [row for row in np.argsort(-gaps, kind="stable")[:most].tolist() if gaps[row] > 0]
    return tuple(
        Apart(a.images[row], (float(headline[0][row]), float(headline[1][row])), _pairs(a, b, a.images[row]))
        for row in furthest
    )


def _pairs(a: Results, b: Results, image: str) -> tuple[tuple[Exhibit, Exhibit], ...]:
    """The questions about an image that can be looked at on both sides."""
    theirs = {(one.question, one.true.input): one for one in b.exhibits if one.image == image}
    ours = (one for one in a.exhibits if one.image == image)
    return tuple(
        (one, theirs[(one.question, one.true.input)]) for one in ours if (one.question, one.true.input) in theirs
    )


# ---- in words


def signed(share: float, interval: tuple[float, float] | None = None) -> str:
    """Write a difference of shares in points, with its sign: "+1.3"; as many digits as the interval has."""
    digits = _digits(interval)
    return f"{round(100 * share, digits) + 0.0:+.{digits}f}".replace("-", "−")  # no "−0.0"


def span(interval: tuple[float, float]) -> str:
    """Write the ends of an interval in points: "0.4 to 2.2"."""
    digits = _digits(interval)
    low, high = (f"{round(100 * end, digits) + 0.0:.{digits}f}".replace("-", "−") for end in interval)
    return f"{low} to {high}"


def _digits(interval: tuple[float, float] | None) -> int:
    """Digits after the point: one, or as many as show two of a narrow interval's width; four at most."""
    width = 100 * (interval[1] - interval[0]) if interval else 0.0
    return min(max(1, 1 - math.floor(math.log10(width))), 4) if width > 1e-9 else 1  # less is rounding
