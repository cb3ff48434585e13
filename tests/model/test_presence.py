"""Presence: what it is made of, by hand and against the decoder; that a batch is as one by one; and what nano knows."""

import math

import pytest
import torch
from PIL import Image
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import Tensor

import openflorence
from openflorence.contract.shapes import Box
from openflorence.data.world import draw_scene
from openflorence.evaluation.absent import evaluate_absent
from openflorence.model.decode import DecodeSettings, decode
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.images import to_batch
from openflorence.model.predict import AskOptions
from openflorence.model.presence import (
    BLANK,
    LIMIT,
    MOST_PLACES,
    ROWS,
    Presence,
    Row,
    Sought,
    _log_odds_against,
    bare_phrase,
    head_of,
    least_gain,
    presence,
    score_answers,
    word_numbers,
)

IMAGE_WH = (64, 64)
BOXES = [Box(4, 5, 30, 20), Box(10, 20, 60, 50), Box(30, 5, 40, 64)]
CLOSE = {"abs": 2e-4}  # float32, sums in another order, of logits up to a hundred


def spread(network: Network) -> Network:
    """Make what a fresh network says far from even and hang on the image, or every answer would be worth the same."""
    with torch.no_grad():
        network.seq2seq.embed.weight.mul_(4)
        for name, weight in network.named_parameters():
            if "cross_attn" in name and weight.ndim == 2:
                weight.mul_(6)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> Network:
    return spread(tiny_network(3))


@pytest.fixture(scope="module")
def images(network: Network) -> Tensor:
    """Image tokens of a scene and of the blank image."""
    scene = draw_scene(7, WORLD)
    with torch.inference_mode():
        return network.encode_image(to_batch([Image.fromarray(scene.image), BLANK], SIDE_PX))


def judge(network: Network, images: Tensor, *sought: Sought) -> list[Presence]:
    return presence(network, world_text(), images[0], images[1], IMAGE_WH, sought)


# ---- scores of given answers


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
def test_a_given_answer_is_worth_what_the_decoder_says_of_its_own(network, images, beams):
    text, prompts = world_text(), ["Locate red fish in the image.", "What does the image describe?", "Is it?"]
    settings = DecodeSettings(beams=beams, max_tokens=200, forced_bos=network.config.text.forced_bos)
    for prompt in prompts:
        memory, mask = network.encode(images[:1], torch.tensor([text.encode(prompt)]))
        (answer,) = decode(FastDecoder(network), memory, mask, settings)
        (scored,) = score_answers(network, text, images, [Row(0, prompt, answer.ids)])
        assert len(scored) == len(answer.ids) + 1
        assert scored[:-1] == pytest.approx(answer.logprobs, **CLOSE)
        if not answer.truncated:
            # score is the sum over tokens ** 1; the forced <s> and </s> are tokens, and <s> adds nothing.
            assert sum(scored) / (len(scored) + 1) == pytest.approx(answer.score, **CLOSE)


@torch.inference_mode()
def test_rows_of_many_lengths_and_images_are_scored_as_one_by_one(network, images):
    text = world_text()
    phrases = ["fish", "small red fish", "the sign that says STOP", ""]
    rows = [
        Row(place % 2, f"Is there {'a very ' * (place % 5)}big one?", tuple(text.encode(phrase)[1:-1]))
        for place in range(11)
        for phrase in phrases
    ]
    assert len(rows) > ROWS, "more rows than go through the network at a time"
    together = score_answers(network, text, images, rows)
    for row, scored in zip(rows, together, strict=True):
        (alone,) = score_answers(network, text, images, [row])
        assert scored == pytest.approx(alone, **CLOSE)
    assert len({round(sum(scored), 2) for scored in together}) > 20, "the rows should not be worth the same"


def test_a_network_in_training_is_refused(images):
    with pytest.raises(AssertionError, match="eval"):
        score_answers(tiny_network().train(), world_text(), images, [Row(0, "Is it?", ())])


# ---- presence


def test_phrases_are_judged_together_as_alone(network, images):
    sought = [
        Sought("a red fish", BOXES),
        Sought("two blue houses", BOXES[:1]),
        Sought("the fish left of the house", []),
        Sought("sign", None),
    ]
    together = judge(network, images, *sought)
    for one, judged in zip(sought, together, strict=True):
        (alone,) = judge(network, images, one)
        for part in ("place", "question", "find", "log_odds", "probability"):
            assert getattr(judged, part) == pytest.approx(getattr(alone, part), **CLOSE)
        assert judged.answers == pytest.approx(alone.answers, rel=1e-3)
        assert judged.finds_nothing == pytest.approx(alone.finds_nothing, rel=1e-3)
    assert judge(network, images) == []


def test_on_the_blank_image_a_place_says_nothing_of_any_phrase(network, images):
    both = images[[1, 1]]
    judged = judge(network, both, *(Sought(phrase, BOXES) for phrase in ("a red fish", "two keys", "sign")))
    assert [one.place for one in judged] == pytest.approx([0, 0, 0], abs=1e-5)  # one row beside another of its batch
    assert any(abs(one.place) > 0.1 for one in judge(network, images, Sought("a red fish", BOXES)))


def test_the_best_of_the_first_places_counts(network, images):
    many = [*BOXES, Box(1, 1, 9, 9), Box(2, 40, 20, 63)]
    alone = [judge(network, images, Sought("a red fish", [box]))[0].place for box in many]
    (judged,) = judge(network, images, Sought("a red fish", many))
    assert judged.place == pytest.approx(max(alone[:MOST_PLACES]), **CLOSE)
    assert len(set(alone)) == len(many)


def test_nothing_found_speaks_against_it_and_nobody_looked_does_not(network, images):
    nothing, nobody = judge(network, images, Sought("a red fish", []), Sought("a red fish"))
    assert (nothing.place, nobody.place) == (-LIMIT, None)
    assert nothing.log_odds < nobody.log_odds


def test_the_parts_are_the_answers_of_the_network(network, images, monkeypatch):
    # Each part once more by plain forward passes, without a batch and without our bookkeeping.
    monkeypatch.setattr(openflorence.model.presence, "LIMIT", 1e3)
    text, box = world_text(), BOXES[0]
    (judged,) = judge(network, images, Sought("the red fish above the house", [box]))
    start = [network.config.text.decoder_start, network.config.text.forced_bos]

    @torch.inference_mode()
    def logprobs(image: int, prompt: str, words: str) -> list[float]:
        ids = [*start, *text.encode(words)[1:]]
        memory, _ = network.encode(images[image : image + 1], torch.tensor([text.encode(prompt)]))
        scores = network.seq2seq.logits(network.seq2seq.decode(torch.tensor([ids]), memory))[0].log_softmax(-1)
        return [scores[place, ids[place + 1]].item() for place in range(1, len(ids) - 1)]

    yes, no = (sum(logprobs(0, "Is there a red fish above the house?", word)) for word in ("yes", "no"))
    assert judged.question == pytest.approx(yes - no, **CLOSE)
    assert judged.answers == pytest.approx(math.exp(yes) + math.exp(no), rel=1e-3)
    (nothing,) = logprobs(0, "Locate red fish above the house in the image.", "")
    assert judged.find == pytest.approx(math.log(1 - math.exp(nothing)) - nothing, **CLOSE)
    (blank,) = logprobs(1, "Locate object in the image.", "")
    assert judged.finds_nothing == pytest.approx(math.exp(blank), rel=1e-3)
    # By hand: bins of 0.064 px; 4 / 0.064 is 62.5, 5 is 78.1, 30 is 468.75, 20 is 312.5.
    prompt = "What does the region <loc_62><loc_78><loc_468><loc_312> describe?"
    here, there = logprobs(0, prompt, "red fish"), logprobs(1, prompt, "red fish")
    assert len(here) == 3, "one token a word and </s>"
    gain = min(a - b for a, b in zip(here[:2], there[:2], strict=True))
    assert judged.place == pytest.approx(gain, **CLOSE)


def test_no_evidence_is_surer_than_the_limit(network, images):
    (judged,) = judge(network, images, Sought("two keys", BOXES))
    assert (judged.question, judged.find) == (LIMIT, LIMIT)  # of this network, which says nothing in particular


def test_evidence_is_weighed_by_what_the_network_was_taught():
    # By hand: (1 * 2 + 1 * 4 + 1 * -3) / 3 is 1; a network that neither answers nor finds nothing has the place only.
    parts = {"place": -3.0, "question": 2.0, "find": 4.0}
    assert Presence(**parts, answers=1.0, finds_nothing=1.0).log_odds == pytest.approx(1.0)
    assert Presence(**parts, answers=0.0, finds_nothing=0.0).log_odds == pytest.approx(-3.0)
    assert Presence(**parts, answers=0.5, finds_nothing=0.0).log_odds == pytest.approx((0.5 * 2 - 3) / 1.5)
    unknown = Presence(place=None, question=2.0, find=4.0, answers=0.0, finds_nothing=0.0)
    assert (unknown.log_odds, unknown.probability) == (0.0, 0.5)
    # The logistic function at log 3 is 3 / 4.
    there = Presence(place=math.log(3), question=0.0, find=0.0, answers=0.0, finds_nothing=0.0)
    assert there.probability == pytest.approx(0.75)


# ---- words and numbers


@pytest.mark.parametrize(
    ("phrase", "bare", "several"),
    [
        ("a red fish", "red fish", False),
        ("The fish", "fish", False),
        ("red fish", "red fish", False),
        ("one fish", "fish", False),
        ("two  blue houses", "blue houses", True),
        ("12 keys", "keys", True),
        ("a", "a", False),
        ("two", "two", False),
        ("", "", False),
        ("²  fish", "² fish", False),  # a digit, but no number that int() reads
    ],
)
def test_articles_and_numbers_are_taken_off(phrase, bare, several):
    assert bare_phrase(phrase) == (bare, several)


@pytest.mark.parametrize(
    ("bare", "head"),
    [
        ("fish left of the red house", "fish"),
        ("small red fish", "small red fish"),
        ("man in a blue shirt", "man"),
        ("sign that says STOP", "sign"),
        ("left shoe", "left shoe"),  # the first word says what it is, not where
        ("", ""),
    ],
)
def test_the_surroundings_are_cut_off(bare, head):
    assert head_of(bare) == head


def test_a_word_is_all_its_tokens():
    text = world_text()
    ids = text.encode("red xylophones")[1:-1]
    assert len(ids) > 3, "a word the tokenizer does not have in one piece"
    assert word_numbers(text, ids) == [0] + [1] * (len(ids) - 1)
    assert word_numbers(text, []) == []


def test_the_word_that_gains_least_decides():
    # By hand: the first word gains 2; the second 3 - 4 = -1 over its two tokens; </s>, the last, has no say.
    assert least_gain([-1.0, -1.0, -5.0, -9.0], [-3.0, -4.0, -1.0, 0.0], [0, 1, 1]) == -1.0


def test_log_odds_are_finite_at_both_ends():
    assert _log_odds_against(math.log(0.25)) == pytest.approx(math.log(3))
    assert _log_odds_against(0.0) == pytest.approx(math.log(1e-9))
    assert _log_odds_against(-math.inf) == 1e9


# ---- nano


def test_nano_knows_what_is_there_from_what_is_not():
    # 0.97 on scenes 0 to 299; five scenes leave room for two or three of nano's mistakes.
    scores = evaluate_absent(openflorence.load(), scenes=5, seed=6000, options=AskOptions(beams=1))
    assert scores.figure().n == 45
    assert scores.figure().value > 0.9
