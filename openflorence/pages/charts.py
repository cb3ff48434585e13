"""Charts as SVG that stands in a page: no scripts, no fonts, colours by classes that the page sets for day and night.

Lengths in a chart are in its own units, which are pixels when it is shown at its size.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

# ---- shapes


def svg(width: float, height: float, parts: Iterable[str], words: str, look: str) -> str:
    """Put shapes together to a drawing.

    words     what the chart shows, for who cannot see it; "" where a table beside it says the same.
    look      class of the drawing.
    """
    role = f'role="img" aria-label="{escape(words)}"' if words else 'aria-hidden="true"'
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg class="{look}" {size} {role}>{"".join(parts)}</svg>'


def line(x0: float, y0: float, x1: float, y1: float, look: str) -> str:
    """Draw a line; the page gives its class a colour."""
    return f'<line class="{look}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, look: str) -> str:
    """Draw a rectangle; the page gives its class a colour."""
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Write words; `anchor` is the part of them that stands at x: start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


# ---- one figure, in a row of a table

_STRIP, _HIGH, _EDGE = 150, 22, 6


def interval_svg(
    value: float, interval: tuple[float, float] | None, ends: tuple[float, float], zero: bool = False
) -> str:
    """Draw one value with its interval on a line from one end to the other.

    zero      mark where 0 is, as for a difference.
    """
    place = _scale(ends)
    parts = [line(_EDGE, _HIGH / 2, _STRIP - _EDGE, _HIGH / 2, "grid")]
    if zero:
        parts.append(line(place(0), 2, place(0), _HIGH - 2, "axis"))
    parts += _whisker(place, value, interval)
    return svg(_STRIP, _HIGH, parts, "", "strip")


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
    parts = [line(_EDGE, _HIGH / 2, _STRIP - _EDGE, _HIGH / 2, "grid")]
    for name, value, filled in others:
        look = "dot theirs" if filled else "dot hollow"
        title = f"<title>{escape(name)}: {100 * value:.1f}</title>"
        parts.append(f'<circle class="{look}" cx="{place(value):.1f}" cy="{_HIGH / 2}" r="4">{title}</circle>')
    for value, interval in ours:
        parts += _whisker(place, value, interval)
    return svg(_STRIP, _HIGH, parts, "", "strip")


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
        parts.append(line(place(interval[0]), _HIGH / 2, place(interval[1]), _HIGH / 2, "whisker"))
    return [*parts, f'<circle class="dot ours" cx="{place(value):.1f}" cy="{_HIGH / 2}" r="4"/>']


# ---- how many of what

_BAR, _TALL, _TOP, _FOOT = 32, 150, 20, 22  # width of a bar with its gap, height, room above for counts and below
_LETTER = 6.5  # width of one in a chart


def bars_svg(counts: Sequence[int], names: Sequence[str], words: str, between: bool = False) -> str:
    """Draw counts as bars, each with its count above.

    names     of the bars; with `between`, of the edges between them, one less than there are bars.
    words     what is drawn, for who cannot see it.
    """
    most, bottom = max(counts, default=0), _TOP + _TALL
    bar = max(_BAR, _LETTER * max(map(len, names), default=0) + 6)
    width = max(len(counts), 1) * bar + 12
    parts = [line(6, bottom, width - 6, bottom, "axis")]
    for place, count in enumerate(counts):
        x, high = 6 + place * bar, _TALL * count / most if most else 0.0
        if count:
            parts.append(rect(x + 2, bottom - max(high, 1.0), bar - 4, max(high, 1.0), "count"))
            parts.append(text(x + bar / 2, bottom - max(high, 1.0) - 5, short_count(count), "middle"))
    for place, name in enumerate(names):
        parts.append(text(6 + (place + (1 if between else 0.5)) * bar, bottom + 15, name, "middle"))
    return svg(width, bottom + _FOOT, parts, words, "chart")


def heat_svg(grid: Sequence[Sequence[int]], words: str) -> str:
    """Draw counts of places of an image, by rows, the more the darker; the darkness grows with the square root.

    words     what is drawn, for who cannot see it.
    """
    most = max((count for row in grid for count in row), default=0)
    side = _TALL + _TOP
    parts = []
    for y, row in enumerate(grid):
        for x, count in enumerate(row):
            if count:
                wide, high = side / len(row), side / len(grid)
                cell = rect(x * wide, y * high, wide, high, "heat")
                parts.append(cell.replace("/>", f' fill-opacity="{math.sqrt(count / most):.2f}"/>'))
    parts.append(rect(0.5, 0.5, side - 1, side - 1, "frame"))
    return svg(side, side + _FOOT, parts, words, "chart")


def short_count(count: int) -> str:
    """Give a count in four letters or less: 999, 1.2k, 12k, 3.4M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size - size // 2000:  # so that what rounds to a thousand is written as one of the next
            value = count / size
            return f"{value:.1f}{letter}" if value < 9.95 else f"{value:.0f}{letter}"
    return str(count)
