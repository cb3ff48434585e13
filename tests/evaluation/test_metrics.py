"""Metrics against values worked out by hand; the sums stand beside them."""

from collections import Counter

import numpy as np
import pytest

from openflorence.contract.overlaps import box_iou
from openflorence.contract.shapes import Box, Point
from openflorence.errors import BadConfig
from openflorence.evaluation.metrics import (
    Figure,
    Parts,
    anls,
    box_covered,
    common_length,
    edit_distance,
    edit_similarity,
    f1_parts,
    figure_of,
    half_width,
    mask_parts,
    match,
    plain_answer,
    quad_iou,
    rasterise,
    ratio,
    rouge_l,
    shared_count,
    textvqa_answer,
    vqa_accuracy,
    word_f1,
    words_of,
)


def ring(*points: tuple[float, float]) -> tuple[Point, ...]:
    return tuple(Point(*point) for point in points)


SQUARE = ring((0, 0), (10, 0), (10, 10), (0, 10))


def test_box_iou_by_hand():
    boxes = [Box(0, 0, 10, 10), Box(5, 0, 15, 10), Box(20, 20, 30, 30)]
    # The first two share 5 x 10 of 100 + 100 - 50; the third touches neither.
    assert box_iou(boxes, boxes) == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))
    assert box_iou([Box(0, 0, 4, 4)], [Box(4, 0, 8, 4)])[0, 0] == 0.0  # a common edge has no area


def test_boxes_without_area_and_no_boxes_overlap_nothing():
    assert box_iou([Box(3, 3, 3, 3)], [Box(3, 3, 3, 3), Box(0, 0, 9, 9)]).tolist() == [[0, 0]]
    assert box_iou([], [Box(0, 0, 1, 1)]).shape == (0, 1)
    assert box_iou([Box(0, 0, 1, 1)], []).shape == (1, 0)


def test_quad_iou_sees_the_turn_that_boxes_do_not():
    diamond = ring((5, 0), (10, 5), (5, 10), (0, 5))
    # The same bounds; the diamond has half of the square's area and lies inside it.
    assert quad_iou(diamond, SQUARE) == pytest.approx(0.5)
    assert quad_iou(SQUARE, SQUARE) == pytest.approx(1.0)
    assert quad_iou(SQUARE, ring((5, 0), (15, 0), (15, 10), (5, 10))) == pytest.approx(1 / 3)


def test_quads_that_are_lines_crossed_or_apart():
    assert quad_iou(ring((0, 0), (5, 5), (10, 10), (2, 2)), SQUARE) == 0.0
    assert quad_iou(ring((0, 0), (10, 10), (10, 0), (0, 10)), SQUARE) == pytest.approx(1.0)  # two corners swapped
    assert quad_iou(ring((20, 0), (30, 0), (30, 9), (20, 9)), SQUARE) == 0.0


def test_matching_takes_the_best_first_and_each_once():
    # 0.9 first; then 0.85 and 0.6 are taken, for their truth or prediction is.
    assert match(np.array([[0.6, 0.9], [0.8, 0.85]])) == [(0, 1), (1, 0)]
    assert match(np.array([[0.7, 0.7], [0.7, 0.7]])) == [(0, 0), (1, 1)]
    assert match(np.array([[0.5, 0.0], [0.9, 0.49]])) == [(1, 0)]
    assert match(np.array([[0.5]])) == [(0, 0)]  # exactly half counts
    assert match(np.zeros((0, 3))) == match(np.zeros((3, 0))) == []


def test_a_pixel_is_in_a_ring_when_its_centre_is():
    mask = rasterise([ring((2, 1), (5, 1), (5, 3), (2, 3))], (8, 4))
    assert mask.shape == (4, 8)
    assert mask.sum() == 6
    assert mask[1:3, 2:5].all()
    # Centres of the staircase x + y < 3.9 are (i + 0.5, j + 0.5) with i + j <= 2: six of them.
    assert rasterise([ring((0, 0), (3.9, 0), (0, 3.9))], (8, 8)).sum() == 6
    assert rasterise([ring((0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4))], (4, 4)).sum() == 0


def test_rings_add_up_and_may_leave_the_image():
    one, other = ring((0, 0), (4, 0), (4, 4), (0, 4)), ring((2, 0), (6, 0), (6, 4), (2, 4))
    assert rasterise([one, other], (8, 8)).sum() == 24  # 16 + 16 - 8
    assert rasterise([ring((-5, -5), (3, -5), (3, 2), (-5, 2))], (8, 8)).sum() == 6  # 3 x 2 are inside
    assert rasterise([ring((-9, 0), (-2, 0), (-2, 5)), ring((20, 20), (30, 20), (30, 30)), ()], (8, 8)).sum() == 0


def test_a_raster_has_the_area_of_its_circle():
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    circle = ring(*((50.3 + 40 * np.cos(a), 49.8 + 40 * np.sin(a)) for a in angles))
    # pi * 1600 is 5026.5; one part in two hundred is less than a tenth of a pixel around.
    assert rasterise([circle], (100, 100)).sum() == pytest.approx(np.pi * 1600, rel=0.005)


def test_mask_parts_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:, :2], b[:2] = True, True
    assert mask_parts(a, b) == Parts(4, 12)  # 8 + 8 - 4
    assert mask_parts(a, ~a) == Parts(0, 16)


def test_multisets_share_the_lesser_counts():
    assert shared_count(Counter(fish=2, cat=1), Counter(fish=3, dog=1)) == 2
    assert shared_count(Counter(), Counter(fish=1)) == 0


def test_f1_is_the_harmonic_mean():
    # 2 of 3 predicted are right, 2 of 5 true are found: 2 * 2/3 * 2/5 / (2/3 + 2/5) is 1/2.
    assert ratio(*f1_parts(2, 3, 5)) == pytest.approx(0.5)
    assert ratio(*f1_parts(0, 0, 5)) == 0.0
    assert ratio(*f1_parts(0, 0, 0)) is None


def test_the_half_width_is_the_one_of_a_coin():
    coin = np.stack([np.arange(400) % 2, np.ones(400)], axis=1)
    # 1.96 * sqrt(0.5 * 0.5 / 400) is 0.049; a thousand resamplings know it to a tenth.
    assert half_width(coin) == pytest.approx(0.049, rel=0.1)
    assert half_width(coin) == half_width(coin)
    assert half_width(coin[:100]) == pytest.approx(0.098, rel=0.1)


def test_the_half_width_counts_images_not_boxes():
    coin = np.stack([np.arange(400) % 2, np.ones(400)], axis=1)
    assert half_width(coin * 50) == half_width(coin)  # fifty boxes an image, all right or all wrong


def test_what_is_certain_or_unknown_has_no_width():
    assert half_width(np.ones((10, 2))) == 0.0
    assert half_width(np.ones((1, 2))) is None
    assert half_width(np.zeros((10, 2))) is None
    # One image of thirty has a say: resamplings without it say nothing, the others all say 1.
    assert half_width(np.eye(30)[:, :1].repeat(2, axis=1)) == 0.0


def test_what_is_covered_by_hand():
    small, large = Box(0, 0, 10, 10), Box(5, 0, 45, 40)
    # 5 x 10 are shared: half of the small box, 50 of the 1600 of the large one.
    assert box_covered([small, large], [large, small]) == pytest.approx(np.array([[0.5, 1.0], [1.0, 50 / 1600]]))
    assert box_covered([Box(3, 3, 3, 9)], [small]).tolist() == [[0.0]]
    assert box_covered([], [small]).shape == (0, 1)


def test_a_figure_is_the_sum_over_the_sum():
    # 3 of 4 and 1 of 6 are 4 of 10, not the mean of 3/4 and 1/6.
    figure = figure_of(np.array([[3, 4], [1, 6], [0, 0]]))
    assert (figure.value, figure.n) == (0.4, 10)
    assert figure.half_width is not None
    assert figure_of(np.zeros((3, 2))) == Figure(None, None, 0)


# ---- words


def test_words_are_letters_and_digits_of_any_script():
    assert words_of("A red Fish, 12 px; don't!") == ["a", "red", "fish", "12", "px", "don", "t"]
    assert words_of("Straße кот 猫 — é") == ["straße", "кот", "猫", "é"]
    assert words_of(" .,! ") == []


def test_word_f1_by_hand():
    # "a red fish" and "a red red cat" share "a" and one "red": 2 * 2 / (3 + 4).
    assert word_f1("a red fish", "a red red cat") == Parts(4, 7)
    assert ratio(*word_f1("Fish, red.", "red fish")) == 1.0
    assert word_f1("", "") == Parts(0, 0)
    assert word_f1("", "red fish") == Parts(0, 2)


def test_common_length_by_hand():
    assert common_length("ABCBDAB", "BDCABA") == 4  # the example of Cormen et al., Introduction to Algorithms, 15.4
    assert common_length("", "abc") == common_length("abc", "") == common_length("abc", "xyz") == 0
    assert common_length("aaa", "aa") == 2


def test_rouge_l_by_hand():
    # "police kill the gunman" has "police the gunman" in common with the truth: 3 of 4 both ways, Lin 2004, 3.1; with
    # "the gunman kill police" only "the gunman".
    assert rouge_l("police kill the gunman", ["police killed the gunman"]) == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", ["police killed the gunman"]) == pytest.approx(0.5)
    # 2 of 2 said, 2 of 4 true: (1 + 1.44) * 1 * 0.5 / (0.5 + 1.44) is 1.22 / 1.94.
    assert rouge_l("the gunman", ["police killed the gunman"]) == pytest.approx(1.22 / 1.94)
    # Best precision from one truth (2/2), best recall from the other (1/1): 1.
    assert rouge_l("the gunman", ["police killed the gunman", "gunman"]) == pytest.approx(1.0)
    assert rouge_l("The gunman!", ["the gunman", "the gunman"]) == pytest.approx(1.0)
    assert rouge_l("", ["the gunman"]) == rouge_l("fish", ["the gunman"]) == rouge_l("fish", [""]) == 0.0


def test_edit_distance_by_hand():
    assert edit_distance("kitten", "sitting") == 3  # s for k, i for e, g at the end: the example of everyone
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("abc", "abc") == edit_distance("", "") == 0
    assert edit_distance("abcdef", "bcdefa") == 2  # a goes from the front to the end
    assert edit_distance("Straße", "Strasse") == 2
    assert edit_distance("猫とねこ", "猫ねこ") == 1


def test_edit_similarity_by_hand():
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("abc", "") == 0.0


def test_anls_by_hand():
    # kitten and sitting: 4/7 is above a half. "cat" and "dog" share no letter in place. The best truth counts.
    assert anls("kitten", ["sitting"]) == pytest.approx(4 / 7)
    assert anls("cat", ["dog"]) == 0.0
    assert anls("cat", ["dog", "cut"]) == pytest.approx(2 / 3)
    assert anls(" The  Cat ", ["the cat"]) == 1.0
    # Exactly a half stays, as in the evaluation program of DocVQA.
    assert anls("ab", ["ax"]) == 0.5
    assert anls("abcde", ["axyze"]) == 0.0  # 2/5


# ---- the VQA challenge


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("The Two cats", "2 cats"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("isn't", "isn't"),
        ("t-shirt", "t shirt"),
        ("left/right", "left right"),
        ("left / right, up", "left right up"),
        ("yes.", "yes"),
        ("3.5 m", "3.5 m"),
        ("U.S.", "us"),
        ("1,000", "1000"),  # a comma between digits: marks vanish
        ("1,000 t-shirts", "1000 tshirts"),
        ("somebody'd", "somebodyd"),  # a slip of the table
        ("Café", "café"),
        ("a", ""),
    ],
)
def test_answers_are_made_plain_as_the_challenge_does(said, plain):
    # Worked out with processPunctuation and processDigitArticle of the challenge's own program.
    assert plain_answer(said) == plain


def test_vqa_accuracy_by_hand():
    people = ["red"] * 2 + ["blue"] * 8
    # Without one of the two, 1 other said red: 1/3, twice; without one of the eight, 2 others: 2/3, eight times.
    assert vqa_accuracy("red", people) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("The red.", people) == vqa_accuracy("red", people)
    assert vqa_accuracy("blue", people) == 1.0
    assert vqa_accuracy("green", people) == 0.0
    # Four of ten: without one of them 3 others, without another person 4: always 1.
    assert vqa_accuracy("two", ["2"] * 4 + ["3"] * 6) == 1.0


def test_vqa_accuracy_takes_texts_as_they_are_when_all_agree():
    # So does the challenge's program: only answers that differ are made plain.
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0.0
    assert vqa_accuracy("yes\n", ["yes"] * 10) == 1.0
    assert vqa_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1.0


def test_fewer_than_four_people_never_give_one():
    assert vqa_accuracy("yes", ["yes"] * 3) == pytest.approx(2 / 3)
    assert vqa_accuracy("yes", ["yes"]) == 0.0
    assert vqa_accuracy("yes", ["yes"] * 4) == 1.0


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("The Two cats", "2 cats"),
        ("1,000 t-shirts", "1000 t shirts"),  # the comma goes first, so that no mark stands between digits
        ("Macy's", "macy 's"),
        ("what's up?", "what 's up"),
        ("she's", "she 's"),
        ("dont know", "don't know"),
        ("bud\nlight", "bud light"),
        ("3.5 oz.", "3.5 oz"),
        ("a", ""),
    ],
)
def test_answers_are_made_plain_as_textvqa_does(said, plain):
    # Worked out with EvalAIAnswerProcessor of MMF.
    assert textvqa_answer(said) == plain


def test_the_three_rules_of_vqa_accuracy_differ_where_their_programs_do():
    # All agree: the challenge compares texts as they are; TextVQA makes all plain; VizWiz what was said.
    agreed = ["Stop"] * 10
    assert [vqa_accuracy("stop", agreed, rule) for rule in ("vqa", "textvqa", "vizwiz")] == [0.0, 1.0, 0.0]
    assert [vqa_accuracy("The stop", ["stop"] * 10, rule) for rule in ("vqa", "textvqa", "vizwiz")] == [0.0, 1.0, 1.0]
    # They differ: the challenge makes people's answers plain too, VizWiz does not. 9 of 10 said the same.
    mixed = ["the stop"] * 9 + ["no"]
    assert [vqa_accuracy("stop", mixed, rule) for rule in ("vqa", "textvqa", "vizwiz")] == [1.0, 1.0, 0.0]
    # "'s" becomes a word in TextVQA: "macy's" and "macy 's" are one answer there.
    apart = ["macy 's"] * 9 + ["no"]
    assert [vqa_accuracy("macy's", apart, rule) for rule in ("vqa", "textvqa", "vizwiz")] == [0.0, 1.0, 0.0]
    # 2 of 10, leave-one-out as by hand above, whatever the rule.
    few = ["red"] * 2 + ["blue"] * 8
    for rule in ("vqa", "textvqa", "vizwiz"):
        assert vqa_accuracy("red", few, rule) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)


def test_an_unknown_rule_of_vqa_accuracy_is_named():
    with pytest.raises(BadConfig, match="allowed: vqa, textvqa, vizwiz"):
        vqa_accuracy("yes", ["yes"], "okvqa")  # type: ignore[arg-type]
