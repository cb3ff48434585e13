"""Charts as SVG that stands in a page: no scripts, no fonts, colours by classes that the page sets for day and night.

Also reliability: how often answers of a certainty are right. Lengths in a chart are in its own units, which are pixels
when it is shown at its size.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

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
    parts = [_line(_LEFT + t * _SIDE / 4, _TOP, _LEFT + t * _SIDE / 4, bottom, "grid") for t in range(5)]
    parts += [_line(_LEFT, _TOP + t * _SIDE / 4, _LEFT + _SIDE, _TOP + t * _SIDE / 4, "grid") for t in range(5)]
    most = max((one.n for one in measured.bins), default=0)
    floor = bottom + 30 + _COUNTS
    for one in measured.bins:
        parts += _bin_marks(one, most, bottom, floor)
    parts.append(_line(_LEFT, bottom, _LEFT + _SIDE, _TOP, "ideal"))
    dots = [
        (_LEFT + one.score * _SIDE, bottom - one.right * _SIDE)
        for one in measured.bins
        if one.score is not None and one.right is not None
    ]
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in dots)}"/>')
    parts += [f'<circle class="dot ours" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in dots]
    for t in range(5):
        parts.append(_text(_LEFT + t * _SIDE / 4, bottom + 15, f"{25 * t}", "middle"))
        parts.append(_text(_LEFT - 6, bottom - t * _SIDE / 4 + 4, f"{25 * t}", "end"))
    parts.append(_text(_LEFT - 6, floor - _COUNTS + 8, f"{most:,}", "end"))
    parts.append(_text(_LEFT - 6, floor, "0", "end"))
    parts.append(_line(_LEFT, floor, _LEFT + _SIDE, floor, "axis"))
    parts.append(_text(_LEFT + _SIDE / 2, floor + 18, "score, % (above: right, %; below: how many)", "middle"))
    words = f"Reliability diagram of {measured.n:,} scores"
    return _svg(width, height, parts, words, "chart")


def _bin_marks(one: Bin, most: int, bottom: float, floor: float) -> list[str]:
    """The bar of one bin in the square, and that of its count below."""
    if not one.n or one.right is None or one.score is None:
        return []
    x, width = _LEFT + one.low * _SIDE + 1, (one.high - one.low) * _SIDE - 2
    words = f"{one.n:,} scores in {one.low:.1f}–{one.high:.1f}: on average {one.score:.1%}, right {one.right:.1%}"
    tall = max(1.0, _COUNTS * one.n / most)
    return [
        f"<g><title>{escape(words)}</title>{_rect(x, bottom - one.right * _SIDE, width, one.right * _SIDE, 'bar')}"
        f"{_rect(x, floor - tall, width, tall, 'count')}</g>"
    ]


# ---- one figure, in a row of a table

_STRIP, _HIGH, _EDGE = 150, 22, 6


def interval_svg(
    value: float, interval: tuple[float, float] | None, ends: tuple[float, float], zero: bool = False
) -> str:
    """Draw one value with its interval on a line from one end to the other.

    zero      mark where 0 is, as for a difference.
    """
    place = _scale(ends)
    parts = [_line(_EDGE, _HIGH / 2, _STRIP - _EDGE, _HIGH / 2, "grid")]
    if zero:
        parts.append(_line(place(0), 2, place(0), _HIGH - 2, "axis"))
    parts += _whisker(place, value, interval)
    return _svg(_STRIP, _HIGH, parts, "", "strip")


def others_svg(
    ours: Sequence[tuple[float, tuple[float, float] | None]],
    others: Iterable[tuple[str, float, bool]],
    ends: tuple[float, float],
) -> str:
    """Draw our values among those of others on one line.

    ours      values with their intervals.
    others    name, value, and whether to fill the dot.
    """
    place = _scale(ends)
    parts = [_line(_EDGE, _HIGH / 2, _STRIP - _EDGE, _HIGH / 2, "grid")]
    for name, value, filled in others:
        look = "dot theirs" if filled else "dot hollow"
        title = f"<title>{escape(name)}: {100 * value:.1f}</title>"
        parts.append(f'<circle class="{look}" cx="{place(value):.1f}" cy="{_HIGH / 2}" r="4">{title}</circle>')
    for value, interval in ours:
        parts += _whisker(place, value, interval)
    return _svg(_STRIP, _HIGH, parts, "", "strip")


def ends_of(intervals: Iterable[tuple[float, float]], least: float = 0.0) -> tuple[float, float]:
    """Give ends of a line around 0 that hold all of some differences, as far to the left as to the right."""
    far = max((abs(end) for interval in intervals for end in interval if math.isfinite(end)), default=0.0)
    far = max(far, least) or 1.0
    return -far, far


def _scale(ends: tuple[float, float]) -> Callable[[float], float]:
    """Values -> places on a strip; what is outside stands at its end."""
    low, high = ends

    def place(value: float) -> float:
        return _EDGE + min(max((value - low) / (high - low), 0.0), 1.0) * (_STRIP - 2 * _EDGE)

    return place


def _whisker(place: Callable[[float], float], value: float, interval: tuple[float, float] | None) -> list[str]:
    parts = []
    if interval is not None:
        parts.append(_line(place(interval[0]), _HIGH / 2, place(interval[1]), _HIGH / 2, "whisker"))
    return [*parts, f'<circle class="dot ours" cx="{place(value):.1f}" cy="{_HIGH / 2}" r="4"/>']


# ---- pieces


def _svg(width: float, height: float, parts: Iterable[str], words: str, look: str) -> str:
    """words     what the chart shows, for who cannot see it; "" where a table beside it says the same."""
    role = f'role="img" aria-label="{escape(words)}"' if words else 'aria-hidden="true"'
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg class="{look}" {size} {role}>{"".join(parts)}</svg>'


def _line(x0: float, y0: float, x1: float, y1: float, look: str) -> str:
    return f'<line class="{look}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
