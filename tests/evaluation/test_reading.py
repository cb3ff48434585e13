"""Words and texts that were read, against values worked out by hand."""

import pytest

from openflorence.contract.regions import Point, Region
from openflorence.errors import BadConfig
from openflorence.evaluation.metrics import Parts, quad_covered, ratio
from openflorence.evaluation.reading import READING_RULES, score_text, score_words


def word(label: str, x: float, width: float = 10, y: float = 0) -> Region:
    return Region(label, quad=(Point(x, y), Point(x + width, y), Point(x + width, y + 10), Point(x, y + 10)))


TRUE = [word("Stop", 0), word("Café", 20), word("red", 40)]


@pytest.mark.parametrize(
    ("rule", "right"),
    [("exact", 1), ("caseless", 2), ("icdar2015", 2)],
)
def test_words_by_hand(rule, right):
    # One is equal, one but for its case, one is misspelt; a fourth lies nowhere.
    said = [word("stop", 1), word(" Café", 20), word("rod", 40), word("red", 80)]
    assert score_words(said, TRUE, rule) == {
        "f1": Parts(2 * right, 7),
        "precision": Parts(right, 4),
        "recall": Parts(right, 3),
        "f1_unread": Parts(6, 7),
    }


def test_the_sweep_saw_every_rule():
    assert READING_RULES == ("exact", "caseless", "icdar2015")
    with pytest.raises(BadConfig, match="allowed: exact, caseless, icdar2015"):
        score_words([], [], "loose")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", READING_RULES)
def test_what_lies_in_a_word_that_is_not_to_be_read_is_left_out(rule):
    true = [word("red", 0), word("###", 20, 30)]
    # 6 of 10 columns lie in it; of the next just a half, which is not more than half, so that it is wrong.
    assert score_words([word("red", 0), word("x", 22), word("y", 44)], true, rule)["f1"] == Parts(2, 2)
    assert score_words([word("red", 0), word("blue", 15)], true, rule)["f1"] == Parts(2, 3)
    # Only what is not to be read: nothing to judge.
    assert ratio(*score_words([word("x", 22)], true[1:], rule)["f1"]) is None


def test_the_share_of_a_quad_that_lies_in_another():
    assert quad_covered(word("", 6).quad, word("", 10, 30).quad) == pytest.approx(0.6)
    assert quad_covered(word("", 10, 30).quad, word("", 6).quad) == pytest.approx(0.2)
    assert quad_covered(word("", 0, 0).quad, word("", 0).quad) == 0.0


@pytest.mark.parametrize("rule", READING_RULES)
def test_doubles_nothing_and_words_without_a_place(rule):
    assert score_words([word("Stop", 0), word("Stop", 0)], TRUE, rule)["f1"] == Parts(2, 5)
    assert score_words([], TRUE, rule)["f1"] == Parts(0, 3)
    assert score_words([word("Stop", 0)], [], rule)["f1"] == Parts(0, 1)
    assert ratio(*score_words([], [], rule)["f1"]) is None
    assert score_words([Region("Stop")], TRUE, rule)["f1"] == Parts(0, 4)


def test_the_first_to_come_takes_a_word_in_icdar_2015():
    # Both overlap the word by more than half; the first says it wrongly, and the word is taken.
    said = [word("Slop", 1), word("Stop", 0)]
    assert score_words(said, TRUE[:1], "icdar2015")["recall"] == Parts(0, 1)
    assert score_words(said, TRUE[:1])["recall"] == Parts(1, 1)
    # An IoU of just a half, 10 of 20 columns, is not above a half.
    half = [word("Stop", 0, 20)]
    assert score_words(half, TRUE[:1], "icdar2015")["f1_unread"] == Parts(0, 2)
    assert score_words(half, TRUE[:1])["f1_unread"] == Parts(2, 2)


@pytest.mark.parametrize(
    ("printed", "said", "right"),
    [
        ("(sale!", "sale!", True),  # one mark at the start
        ("(sale!", "(SALE", True),  # or at the end
        ("(sale!", "sale", True),  # or both
        ("sale!!", "sale", False),  # no more than one at an end
        ("sale", "sale!", False),  # the answer may not have more
        ("-sale", "sale", False),  # a dash is not among the marks
        ("!", "", True),
    ],
)
def test_marks_at_the_ends_in_icdar_2015(printed, said, right):
    # Worked out with transcription_match of the competition's program.
    assert score_words([word(said, 0)], [word(printed, 0)], "icdar2015")["precision"] == Parts(float(right), 1)


def test_texts_by_hand():
    scored = score_text("stop here\nred fish", "stop here\nred dish\n")
    assert scored["exact"] == Parts(0, 1)
    assert scored["word_f1"] == Parts(6, 8)  # stop, here, red
    assert scored["line_f1"] == Parts(2, 4)
    assert scored["edit_similarity"] == Parts(pytest.approx(1 - 1 / 18), 1)
    assert score_text(" stop ", "stop")["exact"] == Parts(1, 1)
    assert score_text("", "")["line_f1"] == Parts(0, 0)
    assert score_text("東京\n東京", "東京")["line_f1"] == Parts(2, 3)  # a line too many
