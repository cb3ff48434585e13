"""Is it there? What a network knows about whether a phrase is true of an image, as log-odds.

    blank = model.open(BLANK).image_tokens                             # once a model
    sought = [Sought("a giraffe", boxes), Sought("a red fish")]        # with the places it was found at, or without
    there = presence(network, text, image_tokens, blank, image_wh, sought)
    there[0].probability                                               # 0..1

A task that points, points at something whatever is asked. Three other questions tell whether it is there:

    place     does the network say the phrase of the place it was found at? "What does the region ... describe?", each
              word on the image against the same word on a blank image. The word that gains least decides: at a red
              fish, "blue fish" is half right, and wrong.
    question  "Is there a red fish?", yes against no.
    find      "Locate red fish in the image.", anything against nothing.

A checkpoint that was never taught to answer questions, or to find nothing, is not believed there: `question` counts as
much as yes and no are probable at all, `find` as much as the network finds nothing on a blank image.

Axes: B rows, T answer tokens, N image tokens, D width.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from openflorence.contract.locations import points_to_bins, spell_all
from openflorence.contract.prompts import fill_sentence
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import find_task
from openflorence.model.florence import Network
from openflorence.model.tokenizer import Text

BLANK = Image.new("RGB", (64, 64), (128, 128, 128))  # shows nothing; stretched to the side of the model like any image
NOTHING = "object"  # what is looked for on it: a word that names no kind
LIMIT = 5.0  # nats that one kind of evidence is believed: no answer is surer than 1 in 150
MOST_PLACES = 4  # boxes of one phrase that are looked at, the first ones
ROWS = 32  # answers scored at a time

_ARTICLES = ("a", "an", "the")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "some", "many")
# Begin what is said about the surroundings of a thing, which a description of its place leaves out.
_TURNS: tuple[str, ...] = (
    "of",
    "on",
    "in",
    "at",
    "by",
    "with",
    "to",
    "from",
    "near",
    "beside",
    "behind",
    "under",
    "over",
    "above",
)
_TURNS += ("below", "left", "right", "next", "that")


@dataclass(frozen=True)
class Sought:
    """A phrase, and where it was found."""

    phrase: str  # "a red fish", "the fish left of the house", "two blue houses"
    boxes: Sequence[Box] | None = None  # pixels, the surest first; empty: nothing was found; None: nobody looked


@dataclass(frozen=True, kw_only=True)
class Presence:
    """How much speaks for a phrase being true of an image: log-odds in nats, each within LIMIT."""

    place: float | None  # None when nobody looked for a place
    question: float
    find: float
    answers: float  # 0..1, what `question` counts: how probable yes and no are together
    finds_nothing: float  # 0..1, what `find` counts: how probable it is that nothing is found on a blank image

    @property
    def log_odds(self) -> float:
        """The mean of all evidence, as much of each as it counts; 0 when nothing counts."""
        parts = [(self.answers, self.question), (self.finds_nothing, self.find)]
        parts += [] if self.place is None else [(1.0, self.place)]
        whole = sum(weight for weight, _ in parts)
        return sum(weight * value for weight, value in parts) / whole if whole else 0.0

    @property
    def probability(self) -> float:
        """Log-odds as a probability, if being there and not being there were equally likely before."""
        return 1 / (1 + math.exp(-self.log_odds))


class Row(NamedTuple):
    """One answer to be scored."""

    image: int  # which image it is about
    prompt: str
    answer: tuple[int, ...]  # ids, without <s> and </s>


def presence(
    network: Network,
    text: Text,
    image_tokens: Float[Tensor, "N D"],
    blank_tokens: Float[Tensor, "N D"],
    image_wh: tuple[int, int],
    sought: Sequence[Sought],
) -> list[Presence]:
    """Say of each phrase how much speaks for its being there.

    image_tokens  of the image, as `network.encode_image` gives them; `blank_tokens` those of BLANK at the same side.
    image_wh      width and height in pixels of the upright original, which the boxes are in.
    returns       one a phrase, in order; the same for each phrase alone, up to the rounding of sums.
    promise       no chance in it; on the blank image itself `place` is 0 wherever a place is given.
    """
    asked = [_rows(text, one, image_wh) for one in sought]
    nothing = Row(1, fill_sentence(find_task("find"), NOTHING), ())
    rows = [nothing, *(row for one in asked for row in one)]
    scored = score_answers(network, text, torch.stack([image_tokens, blank_tokens]), rows)
    finds_nothing = math.exp(scored[0][0])
    results, start = [], 1
    for one, own in zip(sought, asked, strict=True):
        found = scored[start : start + len(own)]
        start += len(own)
        yes, no, none = sum(found[0]), sum(found[1]), found[2][0]
        places = zip(found[3::2], found[4::2], strict=True)
        words = word_numbers(text, own[3].answer) if len(own) > 3 else []
        gains = [least_gain(here, blank, words) for here, blank in places]
        results.append(
            Presence(
                place=None if one.boxes is None else _within(max(gains, default=-LIMIT)),
                question=_within(yes - no),
                find=_within(_log_odds_against(none)),
                answers=min(math.exp(yes) + math.exp(no), 1.0),
                finds_nothing=finds_nothing,
            )
        )
    return results


@torch.inference_mode()
def score_answers(
    network: Network, text: Text, images: Float[Tensor, "I N D"], rows: Sequence[Row]
) -> list[tuple[float, ...]]:
    """Give the log-probability of every token of given answers, </s> as the last.

    images    image tokens that the rows number.
    returns   natural logarithms, one more than the answer has ids, from one plain forward pass; as `decode` gives them
              of answers that it finds itself.
    """
    assert not network.training, "the network is in training mode: call network.eval() first"
    scored: list[tuple[float, ...]] = []
    for start in range(0, len(rows), ROWS):
        scored += _score(network, text, images, rows[start : start + ROWS])
    return scored


def _score(
    network: Network, text: Text, images: Float[Tensor, "I N D"], rows: Sequence[Row]
) -> list[tuple[float, ...]]:
    config, device = network.config.text, images.device
    asked = list(dict.fromkeys((row.image, row.prompt) for row in rows))  # each read once, whatever is answered
    prompts = [text.encode(prompt) for _, prompt in asked]
    prompt_ids = _padded(prompts, config.pad, device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    prompt_mask = torch.arange(prompt_ids.shape[1], device=device) < lengths[:, None]
    memory, mask = network.encode(images[[image for image, _ in asked]], prompt_ids, prompt_mask)
    places = [asked.index((row.image, row.prompt)) for row in rows]
    before = [config.decoder_start] + ([] if config.forced_bos is None else [config.forced_bos])
    ids = _padded([[*before, *row.answer, config.eos] for row in rows], config.pad, device)
    x = network.seq2seq.decode(ids[:, :-1], memory[places], None if mask is None else mask[places])
    logprobs = network.seq2seq.logits(x).float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # (B, T)
    first = len(before) - 1
    return [
        tuple(values[first : first + len(row.answer) + 1]) for values, row in zip(logprobs.tolist(), rows, strict=True)
    ]


def _padded(lines: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tensor:
    longest = max(map(len, lines))
    return torch.tensor([[*line, *[pad] * (longest - len(line))] for line in lines], device=device)


# ---- what is asked about a phrase


def _rows(text: Text, sought: Sought, image_wh: tuple[int, int]) -> list[Row]:
    """Yes, no, nothing found; then, place by place, the head of the phrase on the image and on the blank one."""
    bare, several = bare_phrase(sought.phrase)
    question = f"Are there {sought.phrase.strip()}?" if several else f"Is there {_with_article(bare)}?"
    rows = [Row(0, question, _ids(text, word)) for word in ("yes", "no")]
    rows.append(Row(0, fill_sentence(find_task("find"), bare), ()))
    head = _ids(text, head_of(bare))
    for x0, y0, x1, y1 in (sought.boxes or ())[:MOST_PLACES]:
        words = spell_all(points_to_bins(((x0, y0), (x1, y1)), image_wh))
        prompt = fill_sentence(find_task("describe_region"), words)
        rows += [Row(image, prompt, head) for image in (0, 1)]
    return rows


def bare_phrase(phrase: str) -> tuple[str, bool]:
    """Take the article or the number off a phrase; also say whether it was a number, so that several are meant.

    returns   "red fish" and False for "the red fish", "blue houses" and True for "two blue houses".
    """
    words = phrase.split()
    first = words[0].lower() if len(words) > 1 else ""
    several = first in _COUNTS or (first.isdecimal() and int(first) > 1)
    return " ".join(words[1:] if several or first in _ARTICLES or first in ("one", "1") else words), several


def head_of(bare: str) -> str:
    """Cut a phrase before what it says of the surroundings: "fish" of "fish left of the red house"."""
    words = bare.split()
    end = next((place for place, word in enumerate(words) if place and word.lower() in _TURNS), len(words))
    return " ".join(words[:end])


def _with_article(bare: str) -> str:
    return f"{'an' if bare[:1].lower() in tuple('aeiou') else 'a'} {bare}"


def _ids(text: Text, words: str) -> tuple[int, ...]:
    return tuple(text.encode(words)[1:-1])


# ---- what the scores say


def word_numbers(text: Text, ids: Iterable[int]) -> list[int]:
    """Number the word that each token is part of: a token that begins with a space begins a word."""
    numbers: list[int] = []
    for token in ids:
        begins = bool(numbers) and text.decode([token]).startswith(" ")
        numbers.append(numbers[-1] + begins if numbers else 0)
    return numbers


def least_gain(here: Sequence[float], blank: Sequence[float], words: Sequence[int]) -> float:
    """How much likelier the image makes the word that it makes least likelier; </s> has no say."""
    gains = [0.0] * (words[-1] + 1)
    for place, word in enumerate(words):
        gains[word] += here[place] - blank[place]
    return min(gains)


def _log_odds_against(logprob: float) -> float:
    """Log-odds of anything else; finite at both ends."""
    return math.log(max(-math.expm1(logprob), 1e-9)) - max(logprob, -1e9)


def _within(value: float) -> float:
    return min(max(value, -LIMIT), LIMIT)
