"""Captions against the captions of people: CIDEr-D, CIDEr, BLEU-1 to 4 and ROUGE-L, on the tokens of the Penn Treebank.

measure_captions(["a man rides a horse"], [["A man riding a horse.", "A man on a brown horse."]])["bleu_1"].figure

The figures are those of the programs that papers quote, to the fourth decimal; shares, so that the CIDEr-D of 1.4 is
what papers print as 140. Runs of words are numbers here and images rows, so that 40,000 images take seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from openflorence.errors import BadRecord
from openflorence.evaluation.metrics import Figure, image_weights, middle_half, rouge_l_of
from openflorence.evaluation.results import ROUNDS, Measured, measure_mean
from openflorence.evaluation.treebank import token_lists

LONGEST = 4  # words in a run
_SIGMA = 6.0  # of CIDEr-D: words by which an answer may be longer or shorter
_TINY, _SMALL = 1e-15, 1e-9  # coco-caption adds them to what it divides, so that nothing over nothing is a number

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Runs:
    """How often each text has each run of so many words; one row for each pair, by text, then by run."""

    text: Ints
    run: Ints
    times: Floats
    kinds: int  # of runs, in all texts

    def of(self, first: int, end: int) -> "_Runs":
        """Rows of the texts first..end - 1; numbers stay."""
        rows = slice(*np.searchsorted(self.text, (first, end)).tolist())
        return _Runs(self.text[rows], self.run[rows], self.times[rows], self.kinds)


@dataclass(frozen=True, eq=False)
class _Table:
    """Captions as numbers. Texts: what was said, an image each; the truths, image by image; what else counts."""

    said: list[list[str]]  # tokens
    truths: list[list[list[str]]]  # tokens, by image
    image: Ints  # (texts,) which image a text is of; what else counts has images of its own
    words: Ints  # (texts,) how many words each text has
    runs: tuple[_Runs, ...]  # of one word, of two, ... LONGEST
    counted: tuple[int, int, int]  # first and end of the texts whose images count for CIDEr, and how many images

    @property
    def images(self) -> int:
        return len(self.said)

    @property
    def ends(self) -> int:
        """Where the truths end."""
        return self.images + sum(map(len, self.truths))


def cider_d(
    said: Sequence[str], truths: Sequence[Sequence[str]], counted_in: Sequence[Sequence[str]] | None = None
) -> Floats:
    """CIDEr-D of each image, (images,): how alike in the words that are rare. The corpus figure is its mean.

    counted_in  references, by image, in which it is counted how many images have a run of words; the truths if None.
                Give those of the whole set when a part of it is scored, or the part gets another score.
    returns   0..10; 0 where only one image is counted in, for nothing is rarer there than anything else.
    raises    BadRecord if there is no image, or one without reference.
    source    Vedantam et al. 2015, as coco-caption computes it: times 10, runs of one to four words; nearly every
              paper calls it CIDEr.
    """
    return _cider(_read(said, truths, counted_in), damped=True)


def cider(
    said: Sequence[str], truths: Sequence[Sequence[str]], counted_in: Sequence[Sequence[str]] | None = None
) -> Floats:
    """CIDEr of each image, (images,): as cider_d, but repeating a word pays and lengths do not count.

    source    Vedantam et al. 2015, equation 4, times 10 and without stemming, as the authors' program has it.
    """
    return _cider(_read(said, truths, counted_in), damped=False)


def bleu_counts(said: Sequence[str], truths: Sequence[Sequence[str]]) -> Floats:
    """What BLEU is made of, (images, 10): four times runs in common, four times runs said, words said, words due.

    returns   rows that add up: bleu_of the sum is the corpus figure, also of images drawn anew.
    raises    BadRecord if there is no image, or one without reference.
    source    Papineni et al. 2002; words due are those of the reference closest in length, the shorter of two.
    """
    return _bleu_counts(_read(said, truths))


def bleu_of(counts: Floats) -> Floats:
    """BLEU-1 to BLEU-4 from the counts of one image or of many, (..., 10) -> (..., 4).

    source    Papineni et al. 2002, as coco-caption computes it: geometric mean of the precisions, each with 1e-15 over
              1e-9 added, so that no run in common gives next to nothing, not 0; exp(1 - due / said) when too short.
    """
    precision = (counts[..., :4] + _TINY) / (counts[..., 4:8] + _SMALL)
    mean = np.exp(np.cumsum(np.log(precision), axis=-1) / np.arange(1, LONGEST + 1))
    share = (counts[..., 8:9] + _TINY) / (counts[..., 9:10] + _SMALL)
    brevity: Floats = np.exp(np.minimum(0.0, 1 - 1 / share))
    return mean * brevity


def bleu(said: Sequence[str], truths: Sequence[Sequence[str]]) -> Floats:
    """BLEU-1 to BLEU-4 of all images together, (4,)."""
    return bleu_of(bleu_counts(said, truths).sum(axis=0))


def rouge_l(said: Sequence[str], truths: Sequence[Sequence[str]]) -> Floats:
    """ROUGE-L of each image, (images,): `metrics.rouge_l` on these tokens. The corpus figure is its mean.

    returns   0..1; an empty answer scores 0, but 1 when a reference is empty too.
    raises    BadRecord if there is no image, or one without reference.
    source    Lin 2004, as coco-caption computes it; there an empty text is one empty word.
    """
    return _rouge_l(_read(said, truths))


def measure_captions(said: Sequence[str], truths: Sequence[Sequence[str]], rounds: int = ROUNDS) -> dict[str, Measured]:
    """Every score of captions with its bootstrap, CIDEr-D first.

    returns   cider_d, cider, bleu_4, bleu_3, bleu_2, bleu_1, rouge_l. On resampled images BLEU is computed anew; CIDEr
              keeps the rarity of words that all images give.
    raises    BadRecord if there is no image, or one without reference.
    """
    table = _read(said, truths)
    counts = _bleu_counts(table)
    weights = image_weights(table.images, rounds) if table.images > 1 else np.zeros((0, 1))
    value, draws, by_image = (bleu_of(part) for part in (counts.sum(axis=0), weights @ counts, counts))
    bleus = {
        f"bleu_{n}": Measured(
            Figure(float(value[n - 1]), middle_half(draws[:, n - 1]), float(table.images)),
            draws[:, n - 1],
            by_image[:, n - 1],
        )
        for n in range(LONGEST, 0, -1)
    }
    ciders = {name: _cider(table, damped) for name, damped in (("cider_d", True), ("cider", False))}
    means = {name: measure_mean(one, rounds) for name, one in (ciders | {"rouge_l": _rouge_l(table)}).items()}
    return {"cider_d": means["cider_d"], "cider": means["cider"]} | bleus | {"rouge_l": means["rouge_l"]}


# ---- texts -> numbers


def _read(
    said: Sequence[str], truths: Sequence[Sequence[str]], counted_in: Sequence[Sequence[str]] | None = None
) -> _Table:
    _check(said, truths)
    others = counted_in or ()
    mine, theirs, more = (_tokens(texts) for texts in ([[text] for text in said], truths, others))
    answers = [tokens for (tokens,) in mine]
    # Tokens may hold no-break spaces; coco-caption splits there for runs of words, but not for ROUGE-L.
    texts = [[word for token in tokens for word in token.split()] for tokens in chain(answers, *theirs, *more)]
    image = [*range(len(said)), *_places(truths), *(len(said) + place for place in _places(others))]
    ends = len(said) + sum(map(len, truths))
    counted = (len(said), ends, len(said)) if counted_in is None else (ends, len(texts), len(others))
    return _Table(
        answers,
        theirs,
        np.array(image, np.int64),
        np.array([len(text) for text in texts], np.int64),
        _runs(texts),
        counted,
    )


def _check(said: Sequence[str], truths: Sequence[Sequence[str]]) -> None:
    if len(said) != len(truths) or not said:
        raise BadRecord(
            f"captions cannot be scored: {len(said)} answers for {len(truths)} images; give one answer an image, "
            '"" where the model said nothing, and at least one image'
        )
    bare = [place for place, texts in enumerate(truths) if not texts]
    if bare:
        raise BadRecord(
            f"captions cannot be scored: {len(bare)} of {len(truths)} images have no reference caption, the first at "
            f"place {bare[0]}; each needs at least one, so leave these images out"
        )


def _tokens(texts: Sequence[Sequence[str]]) -> list[list[list[str]]]:
    """Tokens of every text, by image; in the order in which the reference would read them."""
    flat = iter(token_lists([text for some in texts for text in some]))
    return [[next(flat) for _ in some] for some in texts]


def _places(texts: Sequence[Sequence[str]]) -> list[int]:
    return [place for place, some in enumerate(texts) for _ in some]


def _runs(texts: Sequence[Sequence[str]]) -> tuple[_Runs, ...]:
    numbers: dict[str, int] = {}
    word = np.array([numbers.setdefault(one, len(numbers)) for text in texts for one in text], np.int64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    found: list[_Runs] = []
    run, kinds = word, len(numbers)
    for length in range(1, LONGEST + 1):
        if length > 1:  # a run is one word more after the run that is one shorter
            last = word[length - 1 :]
            _, run = np.unique(run[: len(last)] * len(numbers) + last, return_inverse=True)
            kinds = int(run.max(initial=0)) + 1
        first = owner[: len(run)]
        inside = first == owner[length - 1 :]  # runs that leave their text are numbered, but never counted
        pairs, times = np.unique(first[inside] * kinds + run[inside], return_counts=True)
        found.append(_Runs(pairs // max(kinds, 1), pairs % max(kinds, 1), times.astype(np.float64), kinds))
    return tuple(found)


# ---- scores


def _cider(table: _Table, damped: bool) -> Floats:
    owner, images, ends = table.image[table.images : table.ends], table.images, table.ends
    total = np.zeros(len(owner))
    for runs in table.runs:
        weight = runs.times * _rarity(runs, table)[runs.run]
        norm = np.sqrt(np.bincount(runs.text, weight**2, minlength=len(table.words)))
        weighed = _Runs(runs.text, runs.run, weight, runs.kinds)
        mine, theirs = weighed.of(0, images), weighed.of(images, ends)
        a = _looked_up(mine, table.image[theirs.text] * runs.kinds + theirs.run)
        product = (np.minimum(a, theirs.times) if damped else a) * theirs.times
        alike = np.bincount(theirs.text - images, product, minlength=len(owner))
        norms = norm[owner] * norm[images:ends]
        total += np.divide(alike, norms, out=np.zeros(len(owner)), where=norms > 0)
    if damped:
        total *= np.exp(-((table.words[owner] - table.words[images:ends]) ** 2) / (2 * _SIGMA**2))
    score: Floats = 10 * np.bincount(owner, total / LONGEST) / np.bincount(owner)
    return score


def _rarity(runs: _Runs, table: _Table) -> Floats:
    """Weight of each run: log of all images over those whose references have it; over 1 where none has."""
    first, end, images = table.counted
    references = runs.of(first, end)
    pairs = np.unique(table.image[references.text] * runs.kinds + references.run)
    having = np.bincount(pairs % max(runs.kinds, 1), minlength=runs.kinds)
    rarity: Floats = np.log(max(images, 1)) - np.log(np.maximum(having, 1))
    return rarity


def _looked_up(runs: _Runs, keys: Ints) -> Floats:
    """Times of each key, text times kinds plus run; 0 for what no row has."""
    return _at(runs.text * runs.kinds + runs.run, runs.times, keys)


def _at(known: Ints, values: Floats, keys: Ints) -> Floats:
    """Value of each key; `known` is sorted."""
    if not len(known):
        return np.zeros(len(keys))
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], 0.0)


def _bleu_counts(table: _Table) -> Floats:
    images, counts = table.images, np.zeros((table.images, 2 * LONGEST + 2))
    said = table.words[:images]
    for n, runs in enumerate(table.runs):
        mine, theirs = runs.of(0, images), runs.of(images, table.ends)
        keys = table.image[theirs.text] * runs.kinds + theirs.run
        order = np.lexsort((-theirs.times, keys))  # of each run in an image's references, the one that has it most
        known, first = np.unique(keys[order], return_index=True)
        most = _at(known, theirs.times[order][first], mine.text * runs.kinds + mine.run)
        counts[:, n] = np.bincount(mine.text, np.minimum(mine.times, most), minlength=images)
        counts[:, LONGEST + n] = np.maximum(said - n, 0)
    counts[:, -2] = said
    due, owner = table.words[images : table.ends], table.image[images : table.ends]
    order = np.lexsort((due, abs(due - said[owner]), owner))
    counts[:, -1] = due[order][np.unique(owner[order], return_index=True)[1]]
    return counts


def _rouge_l(table: _Table) -> Floats:
    pairs = zip(table.said, table.truths, strict=True)
    return np.array([rouge_l_of(said or [""], [true or [""] for true in truths]) for said, truths in pairs])
