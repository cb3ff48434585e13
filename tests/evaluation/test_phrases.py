"""Phrases, expressions and names of regions, against values worked out by hand."""

import numpy as np
import pytest

from openflorence.contract.regions import Box, Point, Region
from openflorence.evaluation.metrics import Parts
from openflorence.evaluation.phrases import (
    PHRASE_TYPES,
    boxes_by_phrase,
    merge_boxes,
    plain_label,
    recalls,
    score_category,
    score_expression,
    score_mask,
    score_referred_mask,
)

A, B, C = Box(0, 0, 10, 10), Box(10, 0, 20, 10), Box(50, 50, 60, 60)
BOTH = Box(0, 0, 20, 10)


def say(*named: tuple[str, Box | None]) -> list[Region]:
    return [Region(label, box=box) for label, box in named]


def found(scored: dict[str, Parts]) -> dict[str, float]:
    assert {parts.whole for parts in scored.values()} == {1}
    return {name.removeprefix("recall_at_"): parts.right for name, parts in scored.items()}


# ---- phrases


def test_merged_is_the_smallest_box_around_all():
    assert merge_boxes([A, C, B]) == Box(0, 0, 60, 60)
    assert merge_boxes([B]) == B


def test_any_box_and_merged_boxes_by_hand():
    # A is one of the two: right for any-box; it has 100 of the 200 of both together: an IoU of just one half.
    assert found(recalls([A], [A, B])) == {"1": 1, "5": 1, "10": 1, "1_merged": 1, "5_merged": 1, "10_merged": 1}
    # 9.9 wide: 99 of 200.
    narrow = recalls([Box(0, 0, 9.9, 10)], [A, B])
    assert found(narrow) == {"1": 1, "5": 1, "10": 1, "1_merged": 0, "5_merged": 0, "10_merged": 0}
    # The box around both overlaps each by a half, and itself wholly; around three, neither protocol takes it.
    assert found(recalls([BOTH], [A, B]))["1"] == 1
    three = recalls([Box(0, 0, 30, 10)], [A, B, Box(20, 0, 30, 10)])
    assert (three["recall_at_1"], three["recall_at_1_merged"]) == (Parts(0, 1), Parts(1, 1))


@pytest.mark.parametrize(("place", "expected"), [(0, (1, 1, 1)), (4, (0, 1, 1)), (5, (0, 0, 1)), (10, (0, 0, 0))])
def test_only_the_first_boxes_count(place, expected):
    ranked = [C] * place + [A] + [C] * 3
    scored = recalls(ranked, [A])
    assert tuple(scored[f"recall_at_{rank}"].right for rank in (1, 5, 10)) == expected
    assert tuple(scored[f"recall_at_{rank}_merged"].right for rank in (1, 5, 10)) == expected


def test_a_phrase_without_a_box_is_a_miss():
    assert set(found(recalls([], [A])).values()) == {0}
    assert set(found(recalls([Box(3, 3, 3, 3)], [A])).values()) == {0}


def test_phrases_get_the_boxes_under_their_names():
    said = say(("a man", A), ("Мужчина ", B), ("a man", C), ("nobody", C))
    assert boxes_by_phrase(said, ["a man", "мужчина", "a dog"]) == [[A, C], [B], []]
    assert boxes_by_phrase([], ["a man"]) == [[]]
    # What has no geometry overlaps nothing, and takes its rank.
    assert boxes_by_phrase(say(("a man", None), ("a man", A)), ["a man"]) == [[Box(0, 0, 0, 0), A]]
    # Both spellings are asked for: each keeps its own.
    assert boxes_by_phrase(say(("A man", A), ("a man", B)), ["A man", "a man"]) == [[A], [B]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # Two runs, one for each; what follows belongs to the last.
        ([("a man", A), ("a dog", C), ("a man", B)], [[A], [C], [B]]),
        ([("a man", A), ("a man", C), ("a dog", C), ("a man", B)], [[A, C], [C], [B]]),
        ([("a man", A), ("a dog", C), ("a man", B), ("a dog", B), ("a man", C)], [[A], [C, B], [B, C]]),
        # One run of two boxes: one for each. One of one or three: who can tell.
        ([("a man", A), ("a man", B), ("a dog", C)], [[A], [C], [B]]),
        ([("a man", A), ("a dog", C)], [[A], [C], [A]]),
        ([("a man", A), ("a man", B), ("a man", C)], [[A, B, C], [], [A, B, C]]),
    ],
)
def test_a_phrase_that_stands_twice_gets_the_boxes_in_turn(said, expected):
    assert boxes_by_phrase(say(*said), ["a man", "a dog", "a man"]) == expected


def test_the_types_are_those_of_flickr30k_entities():
    # Plummer et al. 2015, table 2: eight coarse categories.
    assert len(set(PHRASE_TYPES)) == 8
    assert {"people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other"} == {
        *PHRASE_TYPES
    }


# ---- expressions


def test_the_first_box_of_an_expression_decides():
    assert score_expression(say(("x", A), ("x", C)), A) == {"accuracy": Parts(1, 1), "iou": Parts(1, 1)}
    assert score_expression(say(("x", C), ("x", A)), A) == {"accuracy": Parts(0, 1), "iou": Parts(0, 1)}
    assert score_expression(say(("x", BOTH)), A) == {"accuracy": Parts(1, 1), "iou": Parts(0.5, 1)}
    assert score_expression(say(("x", Box(0, 0, 21, 10))), A)["accuracy"] == Parts(0, 1)
    assert (
        score_expression([], A)
        == score_expression(say(("x", None)), A)
        == {"accuracy": Parts(0, 1), "iou": Parts(0, 1)}
    )


def ring(*points: tuple[float, float]) -> tuple[Point, ...]:
    return tuple(Point(*point) for point in points)


def square(width: float) -> Region:
    return Region(polygons=(ring((0, 0), (width, 0), (width, 10), (0, 10)),))


EXACT = np.zeros((20, 20), bool)
EXACT[:10, :10] = True


def test_masks_by_hand():
    # 7 of 10 columns: an IoU of 0.7. All instances of an answer make one mask.
    assert score_mask([square(7)], EXACT) == {
        "miou": Parts(0.7, 1),
        "oiou": Parts(70, 100),
        "iou_above_half": Parts(1, 1),
    }
    other = Region(polygons=(ring((7, 0), (9, 0), (9, 10), (7, 10)),))
    scored = score_referred_mask([square(7), other], EXACT)
    assert scored == {
        "miou": Parts(0.9, 1),
        "oiou": Parts(90, 100),
        "precision_at_50": Parts(1, 1),
        "precision_at_60": Parts(1, 1),
        "precision_at_70": Parts(1, 1),
        "precision_at_80": Parts(1, 1),
        "precision_at_90": Parts(1, 1),
    }
    right = {name: parts.right for name, parts in score_referred_mask([square(7)], EXACT).items()}
    assert [right[f"precision_at_{least}"] for least in (50, 60, 70, 80, 90)] == [1, 1, 1, 0, 0]


def test_no_mask_where_there_is_one_and_none_where_there_is_none():
    assert score_referred_mask([], EXACT)["miou"] == Parts(0, 1)
    assert score_referred_mask([], EXACT)["oiou"] == Parts(0, 100)
    nothing = score_referred_mask([], np.zeros((4, 4), bool))
    assert set(nothing.values()) == {Parts(0, 0)}
    # Where all masks of two images are taken together the large one weighs more: 70 + 0 of 100 + 4.
    small = np.zeros((20, 20), bool)
    small[15:17, 15:17] = True
    overall = [score_mask(*pair)["oiou"] for pair in (([square(7)], EXACT), ([], small))]
    assert np.sum(overall, axis=0).tolist() == [70, 104]


# ---- names


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("Traffic_Light.", "traffic light"),
        ("a  traffic light", "traffic light"),
        ("The T-shirt", "t shirt"),
        ("an", "an"),
        ("cars", "cars"),
        ("Кот", "кот"),
        (" ", ""),
    ],
)
def test_plain_labels(said, plain):
    assert plain_label(said) == plain


def test_categories_by_hand():
    assert score_category(" cat ", ["cat"]) == {"exact": Parts(1, 1), "plain": Parts(1, 1)}
    assert score_category("A Cat.", ["dog", "cat"]) == {"exact": Parts(0, 1), "plain": Parts(1, 1)}
    assert score_category("cats", ["cat"]) == {"exact": Parts(0, 1), "plain": Parts(0, 1)}
    assert score_category("", [""])["plain"] == Parts(0, 1)  # nothing was said
