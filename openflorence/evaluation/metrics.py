"""Metrics as plain functions on numbers: overlaps, matching, shares, and how sure a share is.

Every figure of this project is a sum over a sum (`Parts`): correct boxes over boxes, shared pixels over pixels. Parts
of images add up, so a figure and its uncertainty come from the same table of parts, one row an image.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from openflorence.contract.overlaps import shared_areas
from openflorence.contract.shapes import Box, Polygon, Quad
from openflorence.errors import BadConfig


class Parts(NamedTuple):
    """One image's share in a figure: what was right, out of what there was."""

    right: float
    whole: float


@dataclass(frozen=True)
class Figure:
    """One figure of many images."""

    value: float | None  # a share in 0..1; None when no image had anything to judge
    half_width: float | None  # of the 95 % bootstrap interval over images
    n: float  # what was judged, in the figure's own unit: boxes, phrases, answers, pixels


def box_covered(a_px: Sequence[Box], b_px: Sequence[Box]) -> NDArray[np.float64]:
    """Share of every box of a that lies in each box of b: (len(a), len(b)).

    returns   0 where the box of a is without area.
    source    The overlap with a crowd in pycocotools, Lin et al. 2014.
    """
    a = np.array(a_px, np.float64).reshape(-1, 1, 4)
    shared = shared_areas(a_px, b_px)
    own = np.broadcast_to((a[..., 2:] - a[..., :2]).prod(axis=-1), shared.shape)
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def quad_iou(a_px: Quad, b_px: Quad) -> float:
    """Intersection over union of the convex hulls of two quads; the area two quads share as polygons, not as boxes.

    source    ICDAR 2015 robust reading, task 4.1: overlap of text quads as polygons.
    """
    shared, a, b = _quad_areas(a_px, b_px)
    return shared / (a + b - shared) if shared else 0.0


def quad_covered(a_px: Quad, b_px: Quad) -> float:
    """Share of quad a that lies in quad b, both as their convex hulls; 0 where one is without area.

    source    ICDAR 2015 robust reading: how a detection is found to lie in a word that is not to be read.
    """
    shared, a, _ = _quad_areas(a_px, b_px)
    return shared / a if shared else 0.0


def _quad_areas(a_px: Quad, b_px: Quad) -> tuple[float, float, float]:
    """The area that two quads share, and that of each; nothing is shared with a quad without area."""
    a, b = (cv2.convexHull(np.array(quad, np.float32)) for quad in (a_px, b_px))
    areas = float(cv2.contourArea(a)), float(cv2.contourArea(b))
    return (float(cv2.intersectConvexConvex(a, b)[0]) if min(areas) > 0 else 0.0, *areas)


def match(overlap: NDArray[np.float64], least: float = 0.5) -> list[tuple[int, int]]:
    """Pair predictions with truths one to one, the best overlap first.

    overlap   (predictions, truths); 0 where two may not be paired, as when their labels differ.
    least     smallest overlap that counts.
    returns   (prediction, truth) pairs; among equal overlaps the earlier prediction, then the earlier truth goes first.
    """
    pairs: list[tuple[int, int]] = []
    places = np.argwhere(overlap >= least)
    best_first = np.argsort(-overlap[places[:, 0], places[:, 1]], kind="stable")
    for prediction, truth in places[best_first].tolist():
        if all(prediction != one and truth != other for one, other in pairs):
            pairs.append((prediction, truth))
    return pairs


def rasterise(rings: Iterable[Polygon], image_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels whose centre lies in one of the rings: (H, W).

    rings     parts of one mask, in pixels; they add up, so overlapping parts do not cancel out.
    source    Even-odd rule, Shimrat 1962, exact. cv2.fillPoly also fills every pixel that an edge runs through: at
              20 px a side, the outline of half a pixel that this adds is a tenth of the area.
    """
    width, height = image_wh
    mask = np.zeros((height, width), bool)
    centres = np.arange(width) + 0.5
    for ring in rings:
        inside = np.zeros_like(mask)
        for (ax, ay), (bx, by) in zip(ring, (*ring[1:], *ring[:1]), strict=True):
            # The rows whose centre is between the ends; pixels left of the edge change sides there.
            first, last = (min(max(math.ceil(y - 0.5), 0), height) for y in sorted((ay, by)))
            if first < last:
                x = ax + (np.arange(first, last) + 0.5 - ay) * (bx - ax) / (by - ay)
                inside[first:last] ^= centres < x[:, None]
        mask |= inside
    return mask


def mask_parts(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Parts:
    """Pixels in both masks, out of the pixels in either.

    source    Their ratio is the IoU of an image; the ratio of their sums over images the overall IoU (oIoU) of
              referring segmentation, Yu et al. 2018 (MAttNet), where large masks weigh more.
    """
    return Parts(float((a & b).sum()), float((a | b).sum()))


def shared_count(a: Counter[str], b: Counter[str]) -> int:
    """How many members two multisets have in common: 2 red fish and 3 red fish share 2."""
    return (a & b).total()


def ratio(right: float, whole: float) -> float | None:
    """Give a share; None when there was nothing to judge."""
    return right / whole if whole else None


def f1_parts(right: float, predicted: float, true: float) -> Parts:
    """F1 as a sum over a sum: the harmonic mean of precision and recall is twice the right over all that was counted.

    source    van Rijsbergen 1979; Dice 1945. With nothing predicted it is 0 where precision has no value.
    """
    return Parts(2 * right, predicted + true)


def image_weights(images: int, rounds: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each image is drawn when as many are drawn with replacement: (rounds, images).

    promise   the same for the same three numbers: figures of two models on the same images are resampled in pairs.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.multinomial(images, np.full(images, 1 / images), size=rounds)


def half_width(parts: NDArray[np.float64], rounds: int = 1000, seed: int = 0) -> float | None:
    """Half of the 95 % interval of a figure, had other images of the same kind been drawn.

    parts     (images, 2): right and whole of each image; both 0 where an image has no say.
    returns   None when there was nothing to judge, or one image alone; 0 when all images agree, which at 0 or 1 says
              that the figure is at the end of its range, not that it is certain.
    source    Percentile bootstrap over images, Efron and Tibshirani 1993; the middle 95 % of `rounds` resamplings.
    """
    if len(parts) < 2 or not parts[:, 1].any():
        return None
    right, whole = (image_weights(len(parts), rounds, seed) @ parts).T
    return middle_half(right[whole > 0] / whole[whole > 0])


def middle_half(figures: NDArray[np.float64]) -> float | None:
    """Half of the width that the middle 95 % of resampled figures span; None without any."""
    if not len(figures):
        return None
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(high - low) / 2


def figure_of(parts: NDArray[np.float64]) -> Figure:
    """Sum up the parts of images, (images, 2), as a figure with its half-width."""
    total = Parts(*parts.sum(axis=0).tolist())
    return Figure(ratio(*total), half_width(parts), total.whole)


# ---- words


def words_of(text: str) -> list[str]:
    """Split a text into lower-case runs of letters and digits, of any script; "don't" is two.

    source    None: the tokenisation of the Penn Treebank, which published caption scores use, comes with them.
    """
    return re.findall(r"\w+", text.lower())


def word_f1(said: str, true: str) -> Parts:
    """Words in common, as multisets, twice, out of the words of both."""
    a, b = Counter(words_of(said)), Counter(words_of(true))
    return f1_parts(shared_count(a, b), a.total(), b.total())


def rouge_l(said: str, truths: Sequence[str]) -> float:
    """Longest common subsequence of words: F with recall weighted 1.2, best precision and best recall over the truths.

    source    Lin 2004; as coco-caption has it (beta 1.2, the two maxima taken apart), but on `words_of`, which reads
              any script; `captions.rouge_l` is the same on the tokens that published scores stand on.
    """
    return rouge_l_of(words_of(said), [words_of(true) for true in truths])


def rouge_l_of(words: Sequence[str], truths: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of texts that are split already."""
    precision = recall = 0.0
    for true in truths:
        if words and true:
            shared = common_length(words, true)
            precision, recall = max(precision, shared / len(words)), max(recall, shared / len(true))
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0.0


def common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    source    Crochemore et al. 2001: a row of the table as the bits of one number, 0 where the length goes up.
    """
    places: dict[str, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    whole = row = (1 << len(a)) - 1
    for item in b:
        met = row & places.get(item, 0)
        row = (row + met | row - met) & whole
    return len(a) - row.bit_count()


def edit_distance(a: str, b: str) -> int:
    """Fewest letters to insert, delete or replace that turn a into b.

    source    Levenshtein 1966; a letter is a Unicode code point.
    """
    other, places = np.array([ord(letter) for letter in b], np.int64), np.arange(len(b) + 1)
    row = places.copy()
    for i, letter in enumerate(a, start=1):
        cost = np.minimum(row[1:] + 1, row[:-1] + (other != ord(letter)))
        row = np.concatenate(([i], cost))
        row = np.minimum.accumulate(row - places) + places  # insertions, from left to right
    return int(row[-1])


def edit_similarity(said: str, true: str) -> float:
    """One less the edit distance over the length of the longer text; 1 when both are empty.

    source    "1-N.E.D." of the ICDAR 2019 competitions ArT and ReCTS.
    """
    return 1 - edit_distance(said, true) / max(len(said), len(true), 1)


def anls(said: str, truths: Sequence[str], least: float = 0.5) -> float:
    """Edit similarity to the closest truth; 0 when it is below `least`. Case and the width of spaces do not count.

    source    Biten et al. 2019 (ST-VQA); at exactly `least`, where the paper gives 0, as the evaluation program of
              DocVQA, which keeps it.
    """
    best = max(edit_similarity(*(" ".join(text.lower().split()) for text in (said, true))) for true in truths)
    return best if best >= least else 0.0


# ---- answers of several people, as the VQA challenge judges them

_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(i) for i, word in enumerate(_COUNTED.split())} | {"none": "0"}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're "
    "you've"
)
# Each with one of its apostrophes missing; the last pair is a slip of the challenge's table, kept.
_MENDED = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def plain_answer(text: str) -> str:
    """An answer without what the VQA challenge does not judge: marks, articles, case, "two" for 2, "dont" for "don't".

    source    processPunctuation and processDigitArticle of the challenge's vqaEval.py, quirks included: a mark that
              stands beside a space somewhere vanishes everywhere, any other becomes a space; at most 32 full stops go.
    """
    commas = re.search(r"\d,\d", text) is not None
    plain = text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside or commas else " ")
    plain = re.sub(r"\.(?!\d)", "", plain, count=32)
    words = (_NUMBERS.get(word, word) for word in plain.lower().split())
    return " ".join(_MENDED.get(word, word) for word in words if word not in ("a", "an", "the"))


def textvqa_answer(text: str) -> str:
    """An answer as TextVQA's evaluation makes it plain: commas and question marks go first, "'s" becomes a word.

    source    EvalAIAnswerProcessor of Pythia and MMF, which TextVQA is scored with: after these steps the same as
              `plain_answer`.
    """
    tokens = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return plain_answer(re.sub(r"[\n\t]", " ", tokens).strip())


# Which answers are made plain before they are compared. "vqa": VQAv2, OK-VQA: all of them, unless all people agree;
# then none. "textvqa": all of them, always, by `textvqa_answer`. "vizwiz": what was said, always; people's as they are.
VqaRule = Literal["vqa", "textvqa", "vizwiz"]
VQA_RULES: tuple[VqaRule, ...] = get_args(VqaRule)


def vqa_accuracy(said: str, people: Sequence[str], rule: VqaRule = "vqa") -> float:
    """Accuracy against the answers of several people: right when three of the others said so, in part when fewer did.

    people    what each person said; of fewer than four, no answer reaches 1.
    rule      whose evaluation; they differ in what is made plain.
    returns   the mean over leaving each person out of min(matching / 3, 1).
    raises    BadConfig for an unknown rule.
    source    Antol et al. 2015. "vqa": vqaEval.py of the challenge. "textvqa": TextVQAAccuracyEvaluator of MMF.
              "vizwiz": vqaEval.py of the VizWiz API, but for the curly apostrophes of its table.
    """
    if rule not in VQA_RULES:
        raise BadConfig(f"rule of VQA accuracy is {rule!r}; allowed: {', '.join(VQA_RULES)}")
    answer, *truths = (re.sub(r"[\n\t]", " ", text).strip() for text in (said, *people))
    if rule == "textvqa":
        answer, *truths = map(textvqa_answer, (said, *people))
    elif rule == "vizwiz":
        answer, truths = plain_answer(answer), [*people]
    elif len(set(truths)) > 1:
        answer, *truths = map(plain_answer, (answer, *truths))
    matching = truths.count(answer)
    return sum(min((matching - (truth == answer)) / 3, 1) for truth in truths) / len(truths)
