"""Counts that take the same room however much is counted: means, histograms, names, samples, places of boxes."""

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

from openflorence.contract.shapes import Box

Thing = TypeVar("Thing")

GRID = 16  # rows and columns of the map of centres
TENTHS = tuple(place / 10 for place in range(11))
# Square root of the share of the image that a box covers: how long its side is against that of the image.
SIZES = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
ASPECTS = (0.0, 1 / 8, 1 / 4, 1 / 2, 4 / 5, 5 / 4, 2.0, 4.0, 8.0, math.inf)  # width over height
EACH = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, math.inf)  # boxes of an image


@dataclass
class Mean:
    """A mean as it grows."""

    total: float = 0.0
    n: int = 0

    def take(self, value: float) -> None:
        """Count one value."""
        self.total += value
        self.n += 1

    @property
    def value(self) -> float | None:
        """The mean; None without values."""
        return self.total / self.n if self.n else None


@dataclass
class Histogram:
    """How many values lie between edges: each bin holds its lower edge, the last one also its upper."""

    edges: Sequence[float]  # ascending; a value beyond the first or last counts in the bin there
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) - 1)

    def take(self, value: float) -> None:
        """Count one value."""
        place = bisect_right(self.edges, value) - 1
        self.counts[min(max(place, 0), len(self.counts) - 1)] += 1

    @property
    def n(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """Lower edge, upper edge and count of every bin."""
        return [(low, high, count) for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True)]


@dataclass
class Names:
    """How often each name came. So many names are told apart; those that come first after that are one, the others."""

    most: int = 100_000
    counts: Counter[str] = field(default_factory=Counter)
    others: int = 0

    def take(self, name: str) -> None:
        """Count one name."""
        if name in self.counts or len(self.counts) < self.most:
            self.counts[name] += 1
        else:
            self.others += 1

    @property
    def n(self) -> int:
        """How many were counted."""
        return self.counts.total() + self.others

    def top(self, many: int) -> list[tuple[str, int]]:
        """Give the most frequent names; of equally frequent ones, by the alphabet."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:many]


@dataclass
class Sample(Generic[Thing]):
    """A few of many, each of them with the same chance; the same ones for the same things in the same order."""

    size: int
    kept: list[Thing] = field(default_factory=list)
    n: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def take(self, thing: Thing) -> None:
        """Count one thing, and keep it or not."""
        self.n += 1
        place = len(self.kept) if len(self.kept) < self.size else self.dice.randrange(self.n)
        if place < self.size:
            self.kept[place : place + 1] = [thing]


@dataclass
class Coverage:
    """Where boxes are, how large and of what shape, and how many an image has.

    source    Florence-2 report, section 4.4 and figure 5.
    """

    grid: list[list[int]] = field(default_factory=lambda: [[0] * GRID for _ in range(GRID)])  # of centres, by rows
    sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    aspects: Histogram = field(default_factory=lambda: Histogram(ASPECTS))
    each: Histogram = field(default_factory=lambda: Histogram(EACH))

    def take(self, boxes: Iterable[Box], image_wh: tuple[int, int]) -> None:
        """Count the boxes of one image, none also."""
        width, height = image_wh
        count = 0
        for x0, y0, x1, y1 in boxes:
            count += 1
            wide, high = max(x1 - x0, 0.0), max(y1 - y0, 0.0)
            column, row = (x0 + x1) / 2 / width * GRID, (y0 + y1) / 2 / height * GRID
            self.grid[min(max(int(row), 0), GRID - 1)][min(max(int(column), 0), GRID - 1)] += 1
            self.sizes.take(math.sqrt(wide * high / (width * height)))
            self.aspects.take(wide / high if high else math.inf)
        self.each.take(count)

    @property
    def n(self) -> int:
        """How many boxes were counted."""
        return sum(map(sum, self.grid))

    def thirds(self) -> list[list[int]]:
        """Give the centres by thirds of the image: top, middle and bottom, each left to right."""
        found = [[0] * 3 for _ in range(3)]
        for y, row in enumerate(self.grid):
            for x, count in enumerate(row):
                found[(2 * y + 1) * 3 // (2 * GRID)][(2 * x + 1) * 3 // (2 * GRID)] += count
        return found
