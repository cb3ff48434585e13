"""What a round of a store holds: how much of each kind, what texts say, where regions are, who said it, what was lost.

stats = measure(Store.open("fld"))

Records are read one after the other and the layers unit by unit, so memory does not grow with the store.
Source: the statistics that the Florence-2 report gives of FLD-5B, section 4.4.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from openflorence.contract.records import LEVELS, GroundingNote, Level, Origin, Record, RegionNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import KINDS
from openflorence.data.store import Store
from openflorence.data.store_rounds import find_round
from openflorence.engine.outcomes import DropCount, FailureCount, LayerCount, failed_inputs, read_outcomes
from openflorence.engine.parse import parse
from openflorence.engine.tallies import TENTHS, Coverage, Histogram, Mean, Names

PARSED = 10_000  # images whose texts are parsed: a text takes about a millisecond
EXTREMES = 24  # images with most and with fewest annotations that are named

TEXT, REGION, TRIPLET = "text", "region-text", "text-phrase-region"  # the three kinds of the report
# What is named, by the field that holds it; the first two are lists of categories more often than sentences.
SAID = {"label": "labels", "description": "descriptions", "word": "words read", "expressions": "expressions"}


@dataclass(frozen=True)
class Kind:
    """One row of the report's table."""

    group: str  # TEXT, REGION, TRIPLET, "question" or "pair"
    name: str  # "brief", "label"
    annotations: int  # texts; of region-text the images that have one
    images: int  # that have one
    tokens: float | None = None  # of a text, on average: words and marks; None where it has none
    regions: int = 0  # in all; of a triplet each box of each phrase
    region_tokens: float | None = None  # of what is said of a region, on average

    @property
    def regions_each(self) -> float | None:
        """Regions of an annotation, on average; None for a kind that has none."""
        return self.regions / self.annotations if self.annotations and self.group in (REGION, TRIPLET) else None

    @property
    def total(self) -> int:
        """How many annotations it adds: texts, regions, or triplets."""
        return self.regions if self.group in (REGION, TRIPLET) else self.annotations


@dataclass(frozen=True)
class Meaning:
    """What texts of one level talk about, each figure a mean over the texts that were parsed."""

    level: Level
    texts: int  # that were parsed
    figures: Mapping[str, float]  # by the names of FIGURES


@dataclass(frozen=True)
class Stats:
    """What there is."""

    store: str  # name of its folder
    round: int
    images: int
    annotated: int  # images with any annotation
    kinds: tuple[Kind, ...]
    meanings: tuple[Meaning, ...]  # of levels that have texts
    parsed_every: int  # texts of every so many-th image were parsed
    coverage: Mapping[str, Coverage]  # REGION, TRIPLET -> boxes
    named: Mapping[str, Names]  # "labels", "words read", "phrases", ...
    scores: Mapping[str, Histogram]  # "texts", "regions", "phrases" -> those that have one
    unscored: Mapping[str, int]
    origins: Mapping[Origin, Mapping[str, int]]  # -> notes by kind
    layers: tuple[LayerCount, ...]
    failures: tuple[FailureCount, ...]
    dropped: tuple[DropCount, ...]
    most: tuple[int, ...]  # rows of the images with most annotations, the first the most
    fewest: tuple[int, ...]

    @property
    def failed_inputs(self) -> int:
        """How many inputs could not be taken in."""
        return sum(one.count for one in self.failures if one.layer == "")

    @property
    def annotations(self) -> int:
        """Texts, regions and triplets, as the report adds them up; questions and pairs also."""
        regions = max((kind.regions for kind in self.kinds if kind.group == REGION and kind.name == ALL), default=0)
        return regions + sum(kind.total for kind in self.kinds if kind.group != REGION)


ALL = "all"
FIGURES = ("objects", "attributes", "actions", "proper nouns", "object complexity", "action complexity")
_TOKEN = re.compile(r"\w+|[^\w\s]")  # as the published samples of FLD-5B set spaces: "semi - detached"


def measure(store: Store, number: int | None = None, parsed: int = PARSED) -> Stats:
    """Count what a published round holds.

    number    of the round; the latest for None.
    parsed    images whose texts are parsed, at most, spread evenly over the store.
    raises    BadConfig when there is no such round.
    """
    one = find_round(store.folder, number)
    records = store.records(one.number)
    count = _Count(every=max(1, -(-len(records) // max(parsed, 1))))
    for row, record in enumerate(records):
        count.take(row, record)
    outcomes = read_outcomes(store, one)
    return Stats(
        store=store.folder.name,
        round=one.number,
        images=len(records),
        annotated=count.annotated,
        kinds=count.kinds(),
        meanings=count.meanings(),
        parsed_every=count.every,
        coverage=count.coverage,
        named=count.named,
        scores=count.scores,
        unscored=count.unscored,
        origins=count.origins,
        layers=outcomes.layers,
        failures=(*failed_inputs(store), *outcomes.failures),
        dropped=outcomes.dropped,
        most=tuple(-row for _, row in sorted(count.most, reverse=True)),
        fewest=tuple(-row for _, row in sorted(count.fewest, reverse=True)),
    )


def tokens(text: str) -> int:
    """Count words and marks."""
    return len(_TOKEN.findall(text))


class _Row:
    """One kind as it is counted."""

    def __init__(self) -> None:
        self.annotations, self.images, self.regions = 0, 0, 0
        self.tokens, self.region_tokens = Mean(), Mean()

    def take(self, texts: Iterable[str]) -> None:
        """Count the texts of one image."""
        before = self.annotations
        for text in texts:
            self.annotations += 1
            self.tokens.take(tokens(text))
        self.images += self.annotations > before

    def take_regions(self, said: Iterable[str | None]) -> None:
        """Count the regions of one image, each with what is said of it; None where that does not matter."""
        before = self.regions
        for text in said:
            self.regions += 1
            if text is not None:
                self.region_tokens.take(tokens(text))
        self.images += self.regions > before
        self.annotations = self.images

    def kind(self, group: str, name: str) -> Kind:
        """Give the row."""
        counts = self.annotations, self.images, self.tokens.value, self.regions, self.region_tokens.value
        return Kind(group, name, *counts)


class _Count:
    """All counts over records."""

    def __init__(self, every: int) -> None:
        self.every = every
        names = [*((TEXT, level) for level in LEVELS), *((REGION, name) for name in (ALL, *SAID))]
        names += [*((TRIPLET, level) for level in LEVELS), ("question", "questions"), ("pair", "pairs")]
        self.rows = {name: _Row() for name in names}
        self.figures = {level: [Mean() for _ in FIGURES] for level in LEVELS}
        self.coverage = {REGION: Coverage(), TRIPLET: Coverage()}
        self.named = {name: Names() for name in (*SAID.values(), "phrases")}
        self.scores = {name: Histogram(TENTHS) for name in ("texts", "regions", "phrases")}
        self.unscored: Counter[str] = Counter()
        self.origins: dict[Origin, Counter[str]] = defaultdict(Counter)
        self.annotated = 0
        # Heaps of how many and minus the row: of equally many, the first images stay.
        self.most: list[tuple[int, int]] = []
        self.fewest: list[tuple[int, int]] = []

    def take(self, number: int, record: Record) -> None:
        """Count one image."""
        boxes = [box for note in record.groundings for phrase in note.phrases for box in phrase.boxes]
        notes = len(record.texts) + len(record.regions) + len(boxes) + len(record.questions) + len(record.pairs)
        self.annotated += notes > 0
        for heap, rank in ((self.most, (notes, -number)), (self.fewest, (-notes, -number))):
            (heapq.heappush if len(heap) < EXTREMES else heapq.heappushpop)(heap, rank)
        self.coverage[REGION].take(_bounds(record.regions), record.image_wh)
        self.coverage[TRIPLET].take(boxes, record.image_wh)
        self._take_texts(record, parsed=number % self.every == 0)
        self._take_regions(record.regions)
        for level in LEVELS:
            self._take_groundings(level, [note for note in record.groundings if note.level == level])
        self.rows["question", "questions"].take(note.question for note in record.questions)
        self.rows["pair", "pairs"].take(f"{note.prefix} {note.suffix}" for note in record.pairs)
        self._take_origins(record)

    def _take_texts(self, record: Record, parsed: bool) -> None:
        for level in LEVELS:
            texts = [note.text for note in record.texts if note.level == level]
            self.rows[TEXT, level].take(texts)
            for text in texts if parsed else ():
                for mean, value in zip(self.figures[level], _meaning(text), strict=True):
                    mean.take(value)
        for note in record.texts:
            self._take_score("texts", note.score)

    def _take_regions(self, regions: Sequence[RegionNote]) -> None:
        said = {name: [text for note in regions for text in _said(note, name)] for name in SAID}
        for name, texts in said.items():
            self.rows[REGION, name].take_regions(texts)
            for text in texts:
                self.named[SAID[name]].take(text)
        self.rows[REGION, ALL].take_regions(None for _ in regions)
        for note in regions:
            self._take_score("regions", note.score)

    def _take_groundings(self, level: Level, groundings: list[GroundingNote]) -> None:
        row = self.rows[TRIPLET, level]
        row.take(note.text for note in groundings)
        for phrase in (phrase for note in groundings for phrase in note.phrases):
            self._take_score("phrases", phrase.score)
            self.named["phrases"].take(phrase.phrase)
            row.regions += len(phrase.boxes)
            for _ in phrase.boxes:  # of a triplet, so as often as it stands somewhere
                row.region_tokens.take(tokens(phrase.phrase))

    def _take_score(self, name: str, score: float | None) -> None:
        if score is None:
            self.unscored[name] += 1
        else:
            self.scores[name].take(score)

    def _take_origins(self, record: Record) -> None:
        for kind in KINDS:
            for note in getattr(record, kind):
                self.origins[note.origin][kind] += 1

    def kinds(self) -> tuple[Kind, ...]:
        """Give the rows of the table."""
        return tuple(row.kind(*name) for name, row in self.rows.items())

    def meanings(self) -> tuple[Meaning, ...]:
        """Give what texts talk about, by level."""
        return tuple(
            Meaning(level, means[0].n, {name: mean.value or 0.0 for name, mean in zip(FIGURES, means, strict=True)})
            for level, means in self.figures.items()
            if means[0].n
        )


def _bounds(regions: Iterable[RegionNote]) -> Iterator[Box]:
    return (note.bounds for note in regions if note.bounds is not None)


def _said(note: RegionNote, name: str) -> tuple[str, ...]:
    """What a field of a region says: nothing, one text or several."""
    value = getattr(note, name)
    return value if isinstance(value, tuple) else (value,) if value else ()


def _meaning(text: str) -> tuple[int, ...]:
    """The figures of one text, in the order of FIGURES."""
    found = parse(text)
    counts = len(found.objects), len(found.attributes), len(found.actions), len(found.proper_nouns)
    return *counts, found.object_complexity, found.action_complexity
