"""Lines of text in pieces. Every expected text is by hand."""

import random

import pytest

from openflorence.contract.lines import direction, edits, join_lines, join_texts, reading_order
from openflorence.contract.shapes import Box, Point
from openflorence.data.words import SIGN_WORDS

JOINED = {
    # left, right, letters shared: what a reader of both says
    ("Hello wor", "o world", 5): "Hello world",
    ("STAT", "ATION", 2): "STATION",
    ("STAI", "ATION", 2): "STATION",  # half a T looks like an I
    ("Hello wor", "world", 3): "Hello world",
    ("Hello wo", "rld", 0.5): "Hello wo rld",  # nothing was seen twice: two words, for all that is known
    ("the cat sat on", "at on the mat", 5): "the cat sat on the mat",
    ("the cat sat on the m", "he mat", 4): "the cat sat on the mat",
    ("ha ha ha ha", "ha ha ha", 5): "ha ha ha ha ha",
    ("ha ha ha ha", "ha ha ha", 8): "ha ha ha ha",
    ("one two", "three four", 0): "one two three four",
    ("one two th", "vo three four", 5): "one two three four",
    ("", "o world", 0): "o world",
    ("Hello", "", 3): "Hello",
    ("Grüße aus dem Al", "em Allgäu", 5): "Grüße aus dem Allgäu",
}


@pytest.mark.parametrize(("left", "right", "shared"), JOINED)
def test_two_pieces_say_together_what_the_line_says(left, right, shared):
    assert join_texts(left, right, shared) == JOINED[left, right, shared]


def test_the_sweep_saw_every_joint():
    assert len(JOINED) == 14


def test_lines_cut_anywhere_between_letters_join_to_themselves():
    # Every letter is as wide as every other, so the places say exactly how many letters are shared.
    rng = random.Random(0)
    for _ in range(500):
        line = " ".join(rng.choices(SIGN_WORDS, k=rng.randint(2, 9)))
        begin = rng.randint(1, len(line) - 5)
        end = rng.randint(min(begin + 3, len(line) - 1), len(line) - 1)
        left, right = line[:end], line[begin:]
        if not left.strip() or not right.strip() or line[begin:end] != line[begin:end].strip():
            continue  # a space at the cut is not seen, and the text would not fit the place
        assert join_texts(left, right, end - begin) == line, (left, right)


def test_edits_are_counted_as_by_hand():
    assert edits("kitten", "sitting") == 3  # the textbook's: k -> s, e -> i, + g
    assert edits("", "abc") == edits("abc", "") == 3
    assert edits("same", "same") == 0


def quad(x0, y0, x1, y1):
    return Point(x0, y0), Point(x1, y0), Point(x1, y1), Point(x0, y1)


def test_three_pieces_of_a_line_are_one_quad_from_the_first_edge_to_the_last():
    # 10 px a letter: "one two three four" is 180 px long.
    pieces = [("o three f", quad(60, 5, 150, 25)), ("hree four", quad(90, 5, 180, 25)), ("one two", quad(0, 5, 70, 25))]
    assert join_lines(pieces) == ("one two three four", quad(0, 5, 180, 25))


def test_a_piece_that_shows_no_more_adds_nothing():
    pieces = [("one two", quad(0, 5, 70, 25)), ("on2 tw", quad(0, 5, 60, 25))]
    assert join_lines(pieces) == pieces[0]


def test_a_line_that_runs_upwards_is_joined_upwards():
    # Turned by 90 degrees: it is read from y = 150 up to y = 20, its letters' tops to the left.
    low = Point(10, 150), Point(10, 40), Point(30, 40), Point(30, 150)  # "one two thr", 10 px a letter
    high = Point(10, 110), Point(10, 20), Point(30, 20), Point(30, 110)  # "two three", from the fifth letter on
    assert direction(low) == Point(0, -1)
    text, joined = join_lines([("two three", high), ("one two thr", low)])
    assert text == "one two three"
    assert joined == (Point(10, 150), Point(10, 20), Point(30, 20), Point(30, 150))


def test_what_is_read_is_ordered_by_rows_and_then_from_the_left():
    # The second row is not quite level; its middles lie above the bottom of its topmost word.
    rows = {"a": Box(50, 10, 90, 30), "b": Box(100, 14, 140, 34), "c": Box(5, 42, 40, 62), "d": Box(60, 38, 90, 58)}
    assert reading_order(list("dcba"), rows.__getitem__) == list("abcd")
