"""How often answers of a certainty are right, as numbers and as a diagram."""

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from openflorence.pages.charts import line, rect, svg, text

BINS = 10  # of certainty, equally wide


@dataclass(frozen=True)
class Bin:
    """The answers whose score lies between two tenths."""

    low: float
    high: float
    n: int
    score: float | None  # their mean score; None without any
    right: float | None  # the share of them that is right


@dataclass(frozen=True)
class Reliability:
    """Scores against what became of them."""

    bins: tuple[Bin, ...]
    n: int
    error: float | None  # expected calibration error in 0..1; None without any score


def reliability(confidences: NDArray[np.float64], bins: int = BINS) -> Reliability:
    """Compare scores with how often they were right.

    confidences  (n, 2): a score in 0..1, and 1 where the answer was right or 0 where not; rows with NaN are left out.
    source       Guo et al. 2017: mean distance of score and accuracy over bins of equal width, weighted by counts.
    """
    rows = confidences.reshape(-1, 2)
    rows = rows[~np.isnan(rows).any(axis=1)]
    places = np.clip((rows[:, 0] * bins).astype(int), 0, bins - 1)  # a score of 1 belongs to the last
    found = []
    for place in range(bins):
        inside = rows[places == place]
        score, right = (float(v) for v in inside.mean(axis=0)) if len(inside) else (None, None)
        found.append(Bin(place / bins, (place + 1) / bins, len(inside), score, right))
    gaps = [one.n * abs(one.score - one.right) for one in found if one.score is not None and one.right is not None]
    return Reliability(tuple(found), len(rows), sum(gaps) / len(rows) if len(rows) else None)


# ---- the reliability diagram

_SIDE, _LEFT, _TOP, _COUNTS = 240, 44, 12, 56  # of the square, its margins, and the height of the counts below


def reliability_svg(measured: Reliability) -> str:
    """Draw how often answers are right over their score, with the counts below; on the diagonal they are honest."""
    bottom = _TOP + _SIDE
    width, height = _LEFT + _SIDE + 12, bottom + 30 + _COUNTS + 26
    parts = [line(_LEFT + t * _SIDE / 4, _TOP, _LEFT + t * _SIDE / 4, bottom, "grid") for t in range(5)]
    parts += [line(_LEFT, _TOP + t * _SIDE / 4, _LEFT + _SIDE, _TOP + t * _SIDE / 4, "grid") for t in range(5)]
    most = max((one.n for one in measured.bins), default=0)
    floor = bottom + 30 + _COUNTS
    for one in measured.bins:
        parts += _bin_marks(one, most, bottom, floor)
    parts.append(line(_LEFT, bottom, _LEFT + _SIDE, _TOP, "ideal"))
    dots = [
        (_LEFT + one.score * _SIDE, bottom - one.right * _SIDE)
        for one in measured.bins
        if one.score is not None and one.right is not None
    ]
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in dots)}"/>')
    parts += [f'<circle class="dot ours" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in dots]
    for t in range(5):
        parts.append(text(_LEFT + t * _SIDE / 4, bottom + 15, f"{25 * t}", "middle"))
        parts.append(text(_LEFT - 6, bottom - t * _SIDE / 4 + 4, f"{25 * t}", "end"))
    parts.append(text(_LEFT - 6, floor - _COUNTS + 8, f"{most:,}", "end"))
    parts.append(text(_LEFT - 6, floor, "0", "end"))
    parts.append(line(_LEFT, floor, _LEFT + _SIDE, floor, "axis"))
    parts.append(text(_LEFT + _SIDE / 2, floor + 18, "score, % (above: right, %; below: how many)", "middle"))
    words = f"Reliability diagram of {measured.n:,} scores"
    return svg(width, height, parts, words, "chart")


def _bin_marks(one: Bin, most: int, bottom: float, floor: float) -> list[str]:
    """The bar of one bin in the square, and that of its count below."""
    if not one.n or one.right is None or one.score is None:
        return []
    x, width = _LEFT + one.low * _SIDE + 1, (one.high - one.low) * _SIDE - 2
    words = f"{one.n:,} scores in {one.low:.1f}–{one.high:.1f}: on average {one.score:.1%}, right {one.right:.1%}"
    tall = max(1.0, _COUNTS * one.n / most)
    return [
        f"<g><title>{escape(words)}</title>{rect(x, bottom - one.right * _SIDE, width, one.right * _SIDE, 'bar')}"
        f"{rect(x, floor - tall, width, tall, 'count')}</g>"
    ]
