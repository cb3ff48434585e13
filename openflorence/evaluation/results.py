"""What a benchmark gives: every figure with the draws of its bootstrap, and what each image has to do with it.

A figure alone cannot be compared: whether 81.2 is more than 80.7 depends on the images. So each comes with its value on
the same thousand resamplings of the images, drawn by `metrics.image_weights`; the difference of two models' draws is
the paired bootstrap of Efron and Tibshirani 1993.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openflorence.contract.regions import Answer
from openflorence.evaluation.metrics import Figure, Parts, image_weights, middle_half, ratio

ROUNDS = 1000  # resamplings of the images


@dataclass(frozen=True, eq=False)
class Measured:
    """One figure, and what it takes to compare it with that of another model."""

    figure: Figure
    draws: NDArray[np.float64]  # (rounds,) its value on resampled images; NaN where a draw held nothing to judge
    by_image: NDArray[np.float64]  # (images,) its value on each image alone; NaN where the image has no say

    @property
    def interval(self) -> tuple[float, float] | None:
        """The middle 95 % of the draws; None without any."""
        some = self.draws[~np.isnan(self.draws)]
        return (float(np.percentile(some, 2.5)), float(np.percentile(some, 97.5))) if some.size else None


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One question as it can be looked at."""

    image: str  # which image it is about, as in Results.images
    picture: Callable[[], Image.Image]  # opens or draws it
    question: str  # in words
    true: Answer
    said: Answer


@dataclass(frozen=True, eq=False)
class Results:
    """The scores of one model on one benchmark, and all that a report or a comparison needs."""

    benchmark: str
    images: tuple[str, ...]  # names of the images that were asked about; rows of by_image and of the bootstrap
    asked: int  # questions
    invalid: int  # answers with at least one piece that could not be read; what could be read is scored
    truncated: int  # answers that the token limit ended; scored as they stand
    refused: int  # questions that the model raised an error for; scored as empty answers
    missing: int  # questions without an answer in the file; not scored
    measured: Mapping[str, Measured]  # by name, the headline figure first
    tables: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)  # "category", "size", "question type", ...
    confidences: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))  # (n, 2): score, right or not
    exhibits: tuple[Exhibit, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # model, data, date, options, seconds: plain values


def measure(parts: NDArray[np.float64], rounds: int = ROUNDS) -> Measured:
    """A figure that is a sum over a sum, from what is right and what is whole on each image, (images, 2)."""
    right, whole = (image_weights(len(parts), rounds) @ parts).T if len(parts) > 1 else np.zeros((2, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws, by_image = (np.where(b > 0, a / b, np.nan) for a, b in ((right, whole), (parts[:, 0], parts[:, 1])))
    total = Parts(*parts.sum(axis=0).tolist())
    return Measured(Figure(ratio(*total), middle_half(draws[~np.isnan(draws)]), total.whole), draws, by_image)


def measure_mean(values: NDArray[np.float64], rounds: int = ROUNDS) -> Measured:
    """A figure that is the mean of what each image scores, (images,); NaN where an image has no say."""
    some = ~np.isnan(values)
    return measure(np.stack([np.where(some, values, 0.0), some.astype(float)], axis=1), rounds)
