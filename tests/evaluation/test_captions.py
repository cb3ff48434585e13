"""Caption scores against values worked out by hand, and against what the programs behind published figures give."""

import math
from collections import Counter
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflorence.errors import BadRecord
from openflorence.evaluation import metrics
from openflorence.evaluation.captions import (
    bleu,
    bleu_counts,
    bleu_of,
    cider,
    cider_d,
    measure_captions,
    rouge_l,
)
from openflorence.evaluation.metrics import image_weights
from openflorence.evaluation.treebank import MARKS, ptb_tokens, token_lists

# ---- tokens

# Frozen: PTBTokenizer of stanford-corenlp-3.4.1.jar as pycocoevalcap 1.2 ships and calls it (-preserveLines -lowerCase,
# then its list of punctuation), on OpenJDK 17.0.15. Tokens stand apart by a space.
TOKENS = {
    "A man can't ride; they won't, it's OK.": "a man ca n't ride they wo n't it 's ok",
    "The dogs' owner doesn't know what she'd do": "the dogs owner does n't know what she 'd do",
    "I'm sure they've said we'll go, you're late.": "i 'm sure they 've said we 'll go you 're late",
    "He cannot wait, gonna stay, wanna eat": "he can not wait gon na stay wan na eat",
    "'Tis a boy's t-shirt with rock 'n' roll": "'t is a boy 's t-shirt with rock 'n' roll",
    "rock'n'roll at 5 o'clock with O'Brien from Hawai'i": "rock 'n' roll at 5 o'clock with o'brien from hawai'i",
    "The dog says 'hello' and \"goodbye\".": "the dog says hello and goodbye",
    "A “curly” quote, the girl’s hat, don’t": "a curly quote the girl 's hat do n't",
    "A man (left) and a cow [right] {behind}": "a man -lrb- left -rrb- and a cow -lsb- right -rsb- -lcb- behind -rcb-",
    "Wait... what?! No!!! Yes?": "wait what ?! no !!! yes",
    "one -- two — three – four - five --- six ----- seven": "one two three four five six ----- seven",
    "A well-known 5-year-old in a T-shirt": "a well-known 5-year-old in a t-shirt",
    "The U.S. flag. The U.K. flag.": "the u.s. flag the u.k. flag",
    "Mr. Smith and Dr. Jones Jr. of Acme Inc.": "mr. smith and dr. jones jr. of acme inc.",
    "It is 10:30 a.m. on Jan. 5 and 11:45pm": "it is 10:30 a.m. on jan. 5 and 11:45 pm",
    "a sign at St.Louis, end.The next,the one": "a sign at st.louis end.the next the one",
    "No. 5 on it, no. It says no. one": "no. 5 on it no it says no one",
    "vitamin c. A vitamin c. Dogs": "vitamin c a vitamin c. dogs",
    "1,000 apples for $5.00, 50% off, £3 and €4, 25¢": "1,000 apples for $ 5.00 50 % off # 3 and $ 4 25 cents",
    "1/2 of 1 1/2 pizzas, 24/7 since the '80s and 1990's": "1/2 of 1\xa01/2 pizzas 24/7 since the '80s and 1990 's",
    "call 555-1234 or (555) 555-1234": "call 555-1234 or -lrb-555-rrb-\xa0555-1234",
    "#1 @home and #selfie by @user1": "# 1 @home and #selfie by @user1",
    "R&B, AT&T, black & white, salt&pepper, cats &amp; dogs": "r&b at&t black & white salt & pepper cats & dogs",
    "and/or his/her a/b/c w/ w/o": "and/or his/her a/b/c w / w/o",
    "at http://www.example.com/a?b=c. or example.com,": "at http://www.example.com/a?b=c or example.com",
    "mail me@x.com": "mail me@x.com",
    "photo.jpg IMG_123.jpg 5.jpg under_score __": "photo.jpg img_123 jpg 5.jpg under_score __",
    '<br> <b>bold</b> <a href="x"> <3 a < b': '<br> <b> bold </b> <a\xa0href="x"> < 3 a < b',
    "happy :) sad :-( wink ;) :D ^_^": "happy :-rrb- sad :--lrb- wink ;-rrb- :d ^_^",
    "café naïve Straße 東京 привет": "café naïve straße 東京 привет",
    "90°F ½ cup, m², ©2014, 5×6": "90 ° f 1/2 cup m ² © 2014 5 × 6",
    "a 😀 dog ❤️ and ★ star": "a dog ❤ and ★ star",
    "* bold * **very** ~ 5*6=30 a+b C++ C#": "* bold * ** very ** ~ 5 * 6 = 30 a + b c++ c#",
    "F-16, 747s, 3D, 4x4, 2nd, 6'2\", 5ft, 12p.m.": "f-16 747s 3d 4x4 2nd 6 2 5ft 12p m.",
    "STOP SIGN IN ALL CAPS.": "stop sign in all caps",
    "two  spaces and\ta tab ": "two spaces and a tab",
    ".": "",
    "": "",
}

# By the same program, on a file of these lines: what stands after a caption can change its last token.
LINES = ["the letter A.", "A dog in row b.", "Dogs in row c.", "", "the sign says no.", "5 dogs"]
LINE_TOKENS = ["the letter a", "a dog in row b.", "dogs in row c.", "", "the sign says no.", "5 dogs"]

SAID = [
    "a man is riding a horse on the beach",
    "two dogs' toys (red) lie there",
    "a woman can't reach the top shelf",
    "",
    "a a a a cat",
    "stop sign",
]
TRUTHS = [
    ["A man rides a horse on a beach.", "A man riding a brown horse along the beach.", "Someone on a horse."],
    ["Two dogs' toys lie on the floor.", "Toys (red ones) of two dogs."],
    ["A woman can't reach a shelf.", "The woman is too short, she cannot reach the top shelf!", "A woman reaching up"],
    ["An empty street at night."],
    ["A cat.", "A black cat sleeps on a mat."],
    ["A red stop sign.", "A stop sign", "stop sign"],
]
# What pycocoevalcap 1.2 gives for them, to 6 digits; CIDEr by the authors' cider_scorer.py under Python 3.
PEER_BLEU = [0.7254, 0.633181, 0.494422, 0.359483]
PEER_ROUGE_L = [0.777778, 0.539823, 0.809735, 0.0, 0.619289, 1.0]
PEER_CIDER_D = [2.300322, 3.04933, 3.22371, 0.0, 1.693507, 4.230014]
PEER_CIDER = [2.467489, 3.068829, 3.541391, 0.0, 2.110345, 4.316371]
HALF = 5e-7  # of the last digit that is written down; twice for BLEU, written to 6 digits that matter


@pytest.mark.parametrize("text", TOKENS)
def test_a_caption_is_split_as_by_the_reference(text):
    assert " ".join(ptb_tokens(text)) == TOKENS[text]


def test_the_next_caption_decides_on_a_full_stop_as_in_the_reference():
    assert [" ".join(tokens) for tokens in token_lists(LINES)] == LINE_TOKENS
    assert ptb_tokens("the letter A.") == ["the", "letter", "a."]
    assert ptb_tokens("the letter A.", after="The dog") == ["the", "letter", "a"]


@given(st.text(max_size=40))
def test_any_text_gives_tokens_that_a_space_can_join(text):
    for token in ptb_tokens(text):
        assert token
        assert token not in MARKS
        assert not set(" \n\t") & set(token)


def test_a_newline_is_a_space():
    assert ptb_tokens("a 2nd dog\nand\r\na cat\n") == ["a", "2nd", "dog", "and", "a", "cat"]


# ---- scores by the reference


def test_scores_are_those_of_the_reference():
    np.testing.assert_allclose(bleu(SAID, TRUTHS), PEER_BLEU, atol=2 * HALF, rtol=0)
    np.testing.assert_allclose(rouge_l(SAID, TRUTHS), PEER_ROUGE_L, atol=HALF, rtol=0)
    np.testing.assert_allclose(cider_d(SAID, TRUTHS), PEER_CIDER_D, atol=HALF, rtol=0)
    np.testing.assert_allclose(cider(SAID, TRUTHS), PEER_CIDER, atol=HALF, rtol=0)


# ---- scores by hand


def test_cider_d_by_hand():
    # Two images; "dog" is in both, so it weighs log(2/2) = 0; "red", "blue" and both pairs weigh log 2.
    # "red dog" for "red dog": words alike 1, pairs alike 1, longer runs 0: 10 * (1 + 1 + 0 + 0) / 4 = 5.
    # "dog" for "blue dog": nothing that weighs was said: 0.
    np.testing.assert_allclose(cider_d(["red dog", "dog"], [["Red dog."], ["blue dog"]]), [5.0, 0.0], atol=1e-12)


def test_repeating_a_word_pays_in_cider_but_not_in_cider_d():
    # "red red dog" for "red dog", L = log 2. Words: said (red 2L, dog 0), true (red L, dog 0).
    #   CIDEr    2L * L / (2L * L) = 1;   CIDEr-D  min(2L, L) * L / (2L * L) = 1/2
    # Pairs: said ("red red" L, which no reference has, "red dog" L), true ("red dog" L): L * L / (sqrt(2) L * L).
    # One pair more was said than is true: CIDEr-D times exp(-1 / (2 * 6 * 6)).
    said, truths = ["red red dog", "dog"], [["red dog"], ["blue dog"]]
    plain, clipped = 10 * (1 + 1 / math.sqrt(2)) / 4, 10 * (1 / 2 + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)
    np.testing.assert_allclose(cider(said, truths), [plain, 0.0], atol=1e-12)
    np.testing.assert_allclose(cider_d(said, truths), [clipped, 0.0], atol=1e-12)


def test_one_image_alone_has_no_rare_words():
    assert cider_d(["a dog"], [["a dog", "the dog"]]).tolist() == cider(["a dog"], [["a dog"]]).tolist() == [0.0]


def test_images_counted_elsewhere_make_words_rare():
    # Alone "dog" weighs 0. Counted in three images, of which one has it, it weighs log 3: words alike, 10 * 1 / 4.
    elsewhere = [["a dog"], ["a cat"], ["a cow", "cows"]]
    assert cider_d(["dog"], [["Dog"]], elsewhere)[0] == pytest.approx(2.5)
    part = cider_d(SAID[:3], TRUTHS[:3], TRUTHS)
    np.testing.assert_allclose(part, PEER_CIDER_D[:3], atol=HALF, rtol=0)
    assert (abs(part - cider_d(SAID[:3], TRUTHS[:3])) > 1e-3).all()


def runs_of(text: str, length: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def plain_cider_d(said: str, truths: list[str], everything: list[list[str]]) -> float:
    """The formulas of Vedantam et al. 2015 as they stand, with dictionaries."""
    scores = []
    for true in truths:
        alike = 0.0
        for length in range(1, 5):
            having = Counter(
                run for some in everything for run in {run for one in some for run in runs_of(one, length)}
            )
            a, b = (
                {run: n * math.log(len(everything) / max(1, having[run])) for run, n in runs_of(text, length).items()}
                for text in (said, true)
            )
            norms = math.hypot(*a.values()) * math.hypot(*b.values())
            alike += sum(min(a[run], b[run]) * b[run] for run in a.keys() & b.keys()) / norms if norms else 0.0
        longer = runs_of(said, 2).total() - runs_of(true, 2).total()
        scores.append(10 * alike / 4 * math.exp(-(longer**2) / (2 * 6**2)))
    return sum(scores) / len(scores)


def drawn_captions(images: int, references: int) -> tuple[list[str], list[list[str]]]:
    """Captions of 5 to 15 words, some words much more frequent than others, as in English."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(
            f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in (400 * rng.random(length) ** 3).astype(int).tolist()
        )
        for length in rng.integers(5, 16, images * (references + 1))
    ]
    return texts[:images], [texts[images + i * references :][:references] for i in range(images)]


def test_arrays_give_what_dictionaries_give():
    said, truths = drawn_captions(30, 3)
    plain = [plain_cider_d(*pair, truths) for pair in zip(said, truths, strict=True)]
    assert max(plain) > 0.1
    np.testing.assert_allclose(cider_d(said, truths), plain, atol=1e-12)


def test_bleu_by_hand():
    # The example of Papineni et al. 2002: "the" counts as often as in the reference that has it most, 2 of 7; the
    # second reference is as long as the answer. No pair is in a reference: 1e-15 / 6 in the place of 0.
    said, truths = ["the the the the the the the"], [["The cat is on the mat.", "There is a cat on the mat."]]
    assert bleu_counts(said, truths).tolist() == [[2, 0, 0, 0, 7, 6, 5, 4, 7, 7]]
    one, two, *_ = bleu(said, truths)
    assert one == pytest.approx(2 / 7)
    assert two == pytest.approx(math.sqrt(2 / 7 * 1e-15 / 6))
    # Two words for six: no run of three could be said, which counts as 1e-15 / 1e-9; exp(1 - 6 / 2) for being short.
    np.testing.assert_allclose(
        bleu(["the cat"], [["the cat is on the mat"]]), np.exp(-2) * np.array([1, 1, 1e-6 ** (1 / 3), 1e-12 ** (1 / 4)])
    )


def test_of_two_references_equally_close_the_shorter_is_due():
    assert bleu_counts(["a b c"], [["a b c d", "a b", "a"]])[0, -1] == 2
    assert bleu_counts(["a b c"], [["a", "a b c d"]])[0, -1] == 4


def test_rouge_l_by_hand_on_these_tokens():
    # "police killed the gunman" of Lin 2004: 3 of 4 words in order, both ways: 0.75. "don't" is "do n't" here.
    said, truths = ["police kill the gunman", "Don't!"], [["police killed the gunman."], ["do n't"]]
    np.testing.assert_allclose(rouge_l(said, truths), [0.75, 1.0])
    assert metrics.rouge_l("Don't!", ["do n't"]) < 1  # on runs of letters: "don", "t"; "do", "n", "t"


def test_an_empty_answer_scores_nothing_but_is_scored():
    said, truths = ["", "a dog", "..."], [["a cat"], ["a dog"], ["a red cow"]]
    for score in (cider_d, cider, rouge_l):
        assert score(said, truths)[[0, 2]].tolist() == [0.0, 0.0]
    assert bleu_counts(said, truths)[[0, 2]].tolist() == [[0] * 9 + [2], [0] * 9 + [3]]
    assert (bleu_of(bleu_counts(said, truths))[0] < 1e-300).all()
    assert rouge_l([""], [["."]]).tolist() == [1.0]  # as pycocoevalcap 1.2: an empty text is one empty word
    assert bleu([""], [[""]]).tolist() == [0.0] * 4  # the same there: 1e-15 words said over 1e-9 due are too short


def test_two_captions_alike_count_twice():
    # The mean over references: (10 + 10 + 0) / 3 of what one run of words alone gives; see the first test by hand.
    said, truths = ["red dog", "dog"], [["red dog", "red dog", "a cow"], ["blue dog"]]
    assert cider_d(said, truths)[0] == pytest.approx(2 / 3 * cider_d(said, [truths[0][:1], truths[1]])[0])


# ---- what is measured


def test_every_score_is_measured_with_the_headline_first():
    measured = measure_captions(SAID, TRUTHS, rounds=20)
    assert list(measured) == ["cider_d", "cider", "bleu_4", "bleu_3", "bleu_2", "bleu_1", "rouge_l"]
    for name, values in (("cider_d", PEER_CIDER_D), ("cider", PEER_CIDER), ("rouge_l", PEER_ROUGE_L)):
        assert measured[name].figure.value == pytest.approx(np.mean(values), abs=HALF)
        np.testing.assert_allclose(measured[name].by_image, values, atol=HALF, rtol=0)
    for n in (1, 2, 3, 4):
        assert measured[f"bleu_{n}"].figure.value == pytest.approx(PEER_BLEU[n - 1], abs=2 * HALF)
    assert all(one.figure.n == len(SAID) and one.figure.half_width > 0 for one in measured.values())


def test_bleu_of_a_draw_is_bleu_of_the_images_drawn():
    draws = measure_captions(SAID, TRUTHS, rounds=5)["bleu_2"].draws
    for times, value in zip(image_weights(len(SAID), 5), draws, strict=True):
        drawn = [place for place, n in enumerate(times) for _ in range(n)]
        assert bleu([SAID[i] for i in drawn], [TRUTHS[i] for i in drawn])[1] == pytest.approx(value)


def test_one_image_is_measured_without_draws():
    measured = measure_captions(["a dog"], [["a dog runs"]])
    assert measured["bleu_1"].figure.value == pytest.approx(math.exp(-1 / 2))  # 2 of 2 words, for 3
    assert measured["cider_d"].figure.value == 0
    assert all(one.draws.size == 0 and one.figure.half_width is None for one in measured.values())


@pytest.mark.parametrize(
    ("said", "truths", "message"),
    [
        (["a", "b", "c"], [["a"], [], []], "2 of 3 images have no reference caption, the first at place 1"),
        (["a"], [["a"], ["b"]], "1 answers for 2 images"),
        ([], [], "0 answers for 0 images"),
    ],
)
def test_what_cannot_be_scored_is_named(said, truths, message):
    for score in (cider_d, cider, bleu, bleu_counts, rouge_l, measure_captions):
        with pytest.raises(BadRecord, match=message):
            score(said, truths)


def test_captions_are_scored_fast_enough_for_all_of_coco():
    # 40,000 images with five references each in a minute is 2,000 in three seconds.
    said, truths = drawn_captions(2000, 5)
    start = process_time()
    assert cider_d(said, truths).shape == (2000,)
    assert process_time() - start < 3
