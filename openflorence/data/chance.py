"""Chance that is the same everywhere: taken from the raw words of a bit generator.

numpy promises to keep what PCG64 gives; it does not promise that for the methods of Generator.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def dice(seed: int | Sequence[int]) -> np.random.Generator:
    """Begin a row of chances; the same seed, or seeds, give the same row on every machine."""
    return np.random.Generator(np.random.PCG64(seed))


def below(rng: np.random.Generator, count: int) -> int:
    """Draw an int in 0..count-1."""
    return (int(rng.bit_generator.random_raw()) >> 32) * count >> 32


def chance(rng: np.random.Generator, share: float) -> bool:
    """Say yes with this probability."""
    return below(rng, 1 << 20) < round(share * (1 << 20))


def pick(rng: np.random.Generator, items: Any) -> Any:
    """Choose one item of a sequence."""
    return items[below(rng, len(items))]


def deal(rng: np.random.Generator, weights: Sequence[int], count: int) -> list[int]:
    """Draw `count` different places, each next one among those left, as often as it weighs.

    weights   whole numbers of 0 or more; a place of weight 0 is drawn only when no other is left.
    """
    left, drawn = dict(enumerate(weights)), []
    for _ in range(count):
        total = sum(left.values())
        lot = below(rng, total) if total else 0
        place = next(iter(left))
        for place, weight in left.items():  # noqa: B007 - the place where it stops is the one drawn
            lot -= weight
            if lot < 0:
                break
        drawn.append(place)
        del left[place]
    return drawn


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw an int in low..high, both included."""
    return low + below(rng, high - low + 1)


def shuffled(rng: np.random.Generator, items: Iterable[Any]) -> list[Any]:
    """Give the items in a chance order."""
    deck = list(items)
    for i in range(len(deck) - 1, 0, -1):
        j = below(rng, i + 1)
        deck[i], deck[j] = deck[j], deck[i]
    return deck
