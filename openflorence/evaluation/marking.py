"""Answers to the questions of official benchmarks -> figures, tables, and how sure the model was.

Marking takes every question with its answer and gives the headline figure first. Every figure comes with its draws
over resampled images and its value on each image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Answer
from openflorence.evaluation.captions import measure_captions
from openflorence.evaluation.metrics import Figure, Parts, VqaRule, anls, figure_of, vqa_accuracy
from openflorence.evaluation.official import Question, Row
from openflorence.evaluation.results import Measured, measure

Table = Mapping[str, Figure]


@dataclass(frozen=True, eq=False)
class Answered:
    """Questions with their answers; every image has one question or more."""

    images: tuple[str, ...]
    rows: tuple[int, ...]  # the image of each question
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...]
    entries: tuple[tuple[Row, ...], ...]  # of each answer the places as another program wrote them, where it did
    categories: Mapping[int, str] = field(default_factory=dict)  # names by id

    def sums(self, parts: Iterable[Parts]) -> NDArray[np.float64]:
        """Add up the parts of questions, one each, by image: (images, 2)."""
        table = np.zeros((len(self.images), 2))
        np.add.at(table, np.array(self.rows, np.int64), np.array([*parts], np.float64).reshape(-1, 2))
        return table

    def only(self, kind: str, value: str) -> "Answered":
        """Keep the questions of one kind, and their images."""
        kept = [place for place, question in enumerate(self.questions) if question.kinds.get(kind) == value]
        rows = {row: number for number, row in enumerate(dict.fromkeys(self.rows[place] for place in kept))}
        return Answered(
            tuple(self.images[row] for row in rows),
            tuple(rows[self.rows[place]] for place in kept),
            tuple(self.questions[place] for place in kept),
            tuple(self.answers[place] for place in kept),
            tuple(self.entries[place] for place in kept),
        )

    def kinds(self) -> dict[str, list[str]]:
        """What the questions can be told by, and the values of each, the most frequent first."""
        counts: dict[str, dict[str, int]] = {}
        for question in self.questions:
            for kind, value in question.kinds.items():
                values = counts.setdefault(kind, {})
                values[value] = values.get(value, 0) + 1
        return {kind: sorted(values, key=lambda value: -values[value]) for kind, values in counts.items()}


@dataclass(frozen=True, eq=False)
class Marks:
    """What marking gives; the fields are those of Results."""

    measured: Mapping[str, Measured]
    tables: Mapping[str, Table] = field(default_factory=dict)
    confidences: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))


Mark = Callable[[Answered, int], Marks]  # (questions and answers, rounds of the bootstrap)


# ---- captions


def mark_captions(answered: Answered, rounds: int) -> Marks:
    """Caption scores of all images; where images have a domain, also within each, as if there were no others.

    source    NoCaps is scored within each domain by itself: Agrawal et al. 2019.
    """
    measured = _captions(answered, rounds)
    table: dict[str, Figure] = {}
    for domain in answered.kinds().get("domain", ()):
        part = answered.only("domain", domain)
        places = [answered.images.index(name) for name in part.images]
        within = {name: _spread(one, places, len(answered.images)) for name, one in _captions(part, rounds).items()}
        measured |= {f"{name}_{domain}": one for name, one in within.items() if name.startswith("cider")}
        table[domain] = next(iter(within.values())).figure
    return Marks(measured, {"domain": table} if table else {})


def _captions(answered: Answered, rounds: int) -> dict[str, Measured]:
    said = [answer.text for answer in answered.answers]
    return measure_captions(said, [question.truth.texts for question in answered.questions], rounds)


def _spread(measured: Measured, places: Sequence[int], images: int) -> Measured:
    """A figure of some images among all of them."""
    by_image = np.full(images, np.nan)
    by_image[list(places)] = measured.by_image
    return Measured(measured.figure, measured.draws, by_image)


# ---- questions


def mark_answers(answered: Answered, rounds: int, rule: VqaRule = "vqa") -> Marks:
    """Accuracy by the rule of a challenge, ANLS, and equality with what one person said, by the kinds of questions."""
    scored = [_parts(*pair, rule) for pair in zip(answered.questions, answered.answers, strict=True)]
    names = ("accuracy", "anls", "exact")
    measured = {name: measure(answered.sums(one[name] for one in scored), rounds) for name in names}
    right = [one["accuracy"] for one in scored]
    return Marks(measured, {kind: by_kind(answered, kind, right) for kind in answered.kinds()})


def _parts(question: Question, answer: Answer, rule: VqaRule) -> dict[str, Parts]:
    people = question.truth.texts
    said = answer.text.strip()
    return {
        "accuracy": Parts(vqa_accuracy(said, people, rule), 1),
        "anls": Parts(anls(said, people), 1),
        "exact": Parts(float(said in (text.strip() for text in people)), 1),
    }


def by_kind(answered: Answered, kind: str, parts: Sequence[Parts]) -> Table:
    """A figure by one kind of the questions, each over the images that have such a question."""
    table = {}
    for value in answered.kinds()[kind]:
        chosen = (question.kinds.get(kind) == value for question in answered.questions)
        sums = answered.sums(part if ours else Parts(0, 0) for part, ours in zip(parts, chosen, strict=True))
        table[value] = figure_of(sums[sums[:, 1] > 0])
    return table
