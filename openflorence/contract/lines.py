"""Lines of text that were read in pieces, as by two overlapping crops, and put together again; and reading order.

Pieces need not be whole words: where a picture ends, half a letter is read as another letter or not at all. So what is
sought is the place at which two texts fit best, not one at which they are equal, and of what both say the left half is
taken from the left piece and the right half from the right: each from where it was not cut.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from openflorence.contract.shapes import Box, Point, Quad

_OFF = 0.6  # of a wrong letter: what it costs to share a letter more or less than the places of two pieces say
Item = TypeVar("Item")


def join_texts(left: str, right: str, shared: float) -> str:
    """Join two pieces of one line that overlap.

    left, right  what each piece says; the last word of `left` and the first of `right` may be damaged.
    shared       about how many letters the pieces have in common, by where they lie; spaces count.
    returns      the words of both, those that they share once. Of a word that only one piece shows whole, that one.
    """
    a, b = left.split(), right.split()
    if not a or not b:
        return " ".join(a or b)
    joined = [(_OFF * shared, [*a, *b])]
    joined += [_join_inside(a, b, letters, shared) for letters in range(1, min(len(a[-1]), len(b[0])) + 1)]
    joined += [_join_words(a, b, words, shared) for words in range(2, min(len(a), len(b)) + 1)]
    return " ".join(min(joined, key=lambda priced: priced[0])[1])


def _join_inside(a: list[str], b: list[str], letters: int, shared: float) -> tuple[float, list[str]]:
    """Let the pieces share the last letters of one word and the first of another: "STAT" and "ATION"."""
    kept = letters - letters // 2  # of the left word's share
    word = a[-1][: len(a[-1]) - letters + kept] + b[0][kept:]
    wrong = edits(a[-1][-letters:], b[0][:letters])
    return wrong + _OFF * abs(letters - shared), [*a[:-1], word, *b[1:]]


def _join_words(a: list[str], b: list[str], words: int, shared: float) -> tuple[float, list[str]]:
    """Let the pieces share so many words: "Hello wor" and "o world" share two."""
    ours, theirs = a[-words:], b[:words]
    wrong = edits(ours[0][-len(theirs[0]) :], theirs[0])  # the right piece may lack the beginning of its first word
    wrong += edits(ours[-1], theirs[-1][: len(ours[-1])])  # and the left one the end of its last
    wrong += sum(edits(*pair) for pair in zip(ours[1:-1], theirs[1:-1], strict=True))
    letters = len(theirs[0]) + sum(map(len, theirs[1:-1])) + len(ours[-1]) + words - 1
    half = words - words // 2
    return wrong + _OFF * abs(letters - shared), [*a[:-words], *ours[:half], *theirs[half:], *b[words:]]


@cache
def edits(one: str, other: str) -> int:
    """Count the letters to put in, take out or change to make one text of another.

    source    Levenshtein 1966.
    """
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
    return row[-1]


def direction(quad: Quad) -> Point:
    """Give the unit vector in which a quad is read: from the middle of its left edge to the middle of its right one."""
    a, b, c, d = quad
    x, y = (b.x + c.x - a.x - d.x) / 2, (b.y + c.y - a.y - d.y) / 2
    length = math.hypot(x, y)
    return Point(x / length, y / length) if length > 0 else Point(1.0, 0.0)


def extent(quad: Quad, along: Point) -> tuple[float, float]:
    """Give where a quad begins and ends along a direction, in pixels: the middles of its left and right edges."""
    a, b, c, d = ((point.x * along.x + point.y * along.y) for point in quad)
    return (a + d) / 2, (b + c) / 2


def letter_px(quad: Quad) -> float:
    """Give about the width of a letter in a quad around a line of text: half the line's height, in pixels."""
    a, b, c, d = quad
    return (math.dist(a, d) + math.dist(b, c)) / 4


def join_lines(pieces: Sequence[tuple[str, Quad]]) -> tuple[str, Quad]:
    """Put the pieces of one line together.

    pieces    text and quad of one or more, in any order; together they show all of the line.
    returns   the joined text, and the quad from the left edge of the first piece to the right edge of the last.
    """
    longest = max(pieces, key=lambda piece: _length(piece[1]))
    along = direction(longest[1])
    spans = {place: extent(quad, along) for place, (_, quad) in enumerate(pieces)}
    order = sorted(spans, key=lambda place: (spans[place][0], -spans[place][1]))
    text, quad = pieces[order[0]]
    end = spans[order[0]][1]
    for place in order[1:]:
        more, (_, b, c, _) = pieces[place]
        begin, stop = spans[place]
        if stop <= end:  # all that this piece shows stands in what is there already
            continue
        text = join_texts(text, more, max(end - begin, 0.0) / _letter_px(pieces[place]))
        quad, end = (quad[0], b, c, quad[3]), stop
    return text, quad


def _length(quad: Quad) -> float:
    begin, end = extent(quad, direction(quad))
    return end - begin


def _letter_px(piece: tuple[str, Quad]) -> float:
    text, quad = piece
    return max(_length(quad) / max(len(text), 1), 1e-6)


def reading_order(items: Sequence[Item], bounds: Callable[[Item], Box]) -> list[Item]:
    """Order what was read as one reads: rows from top to bottom, each from left to right.

    bounds    gives the upright box around an item.
    returns   all items. A row is what has its middle above the bottom of the topmost item that is left.
    """
    boxes = {place: bounds(item) for place, item in enumerate(items)}
    left = sorted(boxes, key=lambda place: (boxes[place].y0 + boxes[place].y1, boxes[place].x0))
    order: list[int] = []
    while left:
        bottom = boxes[left[0]].y1
        row = [place for place in left if place == left[0] or (boxes[place].y0 + boxes[place].y1) / 2 < bottom]
        order += sorted(row, key=lambda place: boxes[place].x0)
        taken = set(row)
        left = [place for place in left if place not in taken]
    return [items[place] for place in order]
