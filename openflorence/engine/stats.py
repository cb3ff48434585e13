"""What a round of a store holds, as a table: annotations by kind, how long and how many, what was dropped and why.

Source: the statistics that the Florence-2 report gives of FLD-5B, section 4.4: annotations, tokens and regions a kind.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from openflorence.contract.records import LEVELS, Record
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
    """Count what a published round holds.

    number    of the round; the latest for None.
    raises    BadConfig when there is none.
    """
    one = find_round(store.folder, number)
    records = list(store.records(one.number))
    names = Counter(region.label for record in records for region in record.regions if region.label)
    most, dropped = dict(names.most_common(labels)), _dropped(store, one.runs)
    return Stats(one.number, len(records), len(store.failures()), _kinds(records), most, dropped)


def _kinds(records: Sequence[Record]) -> tuple[Kind, ...]:
    kinds = []
    for level in LEVELS:
        texts = [[note.text for note in record.texts if note.level == level] for record in records]
        kinds.append(_kind(f"texts, {level}", texts))
    for name, field in (("labels", "label"), ("descriptions", "description"), ("words", "word")):
        found = [[getattr(note, field) for note in record.regions if getattr(note, field)] for record in records]
        kinds.append(_kind(f"regions with {name}", found))
    grounded = [[note.text for note in record.groundings] for record in records]
    boxes = [float(sum(len(phrase.boxes) for phrase in note.phrases)) for r in records for note in r.groundings]
    kinds.append(_kind("texts with phrases and regions", grounded, boxes))
    kinds.append(_kind("questions", [[note.question for note in record.questions] for record in records]))
    return tuple(kinds)


def _kind(name: str, texts: Iterable[Sequence[str]], regions: Sequence[float] = ()) -> Kind:
    by_image = list(texts)
    lengths = [len(text.split()) for image in by_image for text in image]
    average = fmean(lengths) if lengths else None
    return Kind(name, len(lengths), sum(map(bool, by_image)), average, fmean(regions) if regions else None)


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
