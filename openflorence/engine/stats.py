"""What a round of a store holds, as a table: annotations by kind, how long and how many, what was dropped and why.

Source: the statistics that the Florence-2 report gives of FLD-5B, section 4.4: annotations, tokens and regions a kind.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openflorence.contract.records import LEVELS, Level, Record
from openflorence.data.store import Store
from openflorence.data.store_rounds import find_round


@dataclass(frozen=True)
class Kind:
    """One kind of annotation."""

    name: str
    annotations: int
    images: int  # that have one
    words: float | None  # of its text, on average; None where it has none
    regions: float | None  # of each of them, on average


@dataclass(frozen=True)
class Stats:
    """What there is."""

    round: int
    images: int
    failed_inputs: int  # that could not be taken in
    kinds: tuple[Kind, ...]
    labels: Mapping[str, int]  # the most frequent ones
    dropped: Mapping[str, int]  # layer: rule -> notes


def measure(store: Store, number: int | None = None, labels: int = 10) -> Stats:
    """Count what a published round holds, record by record.

    number    of the round; the latest for None.
    raises    BadConfig when there is none.
    """
    one = find_round(store.folder, number)
    tallies, names, images = {name: _Tally() for name in _KINDS}, Counter[str](), 0
    for record in store.records(one.number):
        images += 1
        names.update(region.label for region in record.regions if region.label)
        for name, texts in _KINDS.items():
            tallies[name].take(texts(record))
        tallies[_GROUNDED].regions += sum(len(phrase.boxes) for note in record.groundings for phrase in note.phrases)
    kinds = tuple(tally.kind(name) for name, tally in tallies.items())
    most, dropped = dict(names.most_common(labels)), _dropped(store, one.runs)
    return Stats(one.number, images, len(store.failures()), kinds, most, dropped)


def _level(level: Level) -> Callable[[Record], list[str]]:
    return lambda record: [note.text for note in record.texts if note.level == level]


_GROUNDED = "texts with phrases and regions"
_KINDS: dict[str, Callable[[Record], list[str]]] = {
    **{f"texts, {level}": _level(level) for level in LEVELS},
    "regions with labels": lambda record: [note.label for note in record.regions if note.label],
    "regions with descriptions": lambda record: [note.description for note in record.regions if note.description],
    "regions with words": lambda record: [note.word for note in record.regions if note.word],
    _GROUNDED: lambda record: [note.text for note in record.groundings],
    "questions": lambda record: [note.question for note in record.questions],
}


@dataclass
class _Tally:
    """What was counted of one kind so far."""

    annotations: int = 0
    images: int = 0
    words: int = 0
    regions: int = 0

    def take(self, texts: Sequence[str]) -> None:
        self.annotations += len(texts)
        self.images += bool(texts)
        self.words += sum(len(text.split()) for text in texts)

    def kind(self, name: str) -> Kind:
        words = self.words / self.annotations if self.annotations else None
        regions = self.regions / self.annotations if self.annotations and name == _GROUNDED else None
        return Kind(name, self.annotations, self.images, words, regions)


def _dropped(store: Store, runs: Mapping[str, str]) -> dict[str, int]:
    """Notes that a rule dropped; that a note was fused with others is no loss."""
    counts: Counter[str] = Counter()
    for layer, run_id in runs.items():
        run = store.layer(layer, run_id)
        for unit in store.units():
            if run.is_done(unit):
                counts.update(f"{layer}: {one.rule}" for row in run.read(unit) for one in row.verdicts)
    return {name: count for name, count in counts.most_common() if not name.endswith(": fused")}


def as_markdown(stats: Stats) -> str:
    """Give the counts as tables."""
    lines = [f"Round {stats.round}: {stats.images} images, {stats.failed_inputs} inputs could not be taken in.", ""]
    lines += ["| annotations | how many | images | words each | regions each |", "|---|---|---|---|---|"]
    for kind in stats.kinds:
        averages = ("–" if value is None else f"{value:.1f}" for value in (kind.words, kind.regions))
        lines.append(f"| {kind.name} | {kind.annotations} | {kind.images} | {' | '.join(averages)} |")
    for title, counts in (("label", stats.labels), ("dropped by", stats.dropped)):
        if counts:
            lines += ["", f"| {title} | how many |", "|---|---|"]
            lines += [f"| {name} | {count} |" for name, count in counts.items()]
    return "\n".join(lines)
