"""What became of the images of a round, layer by layer: notes made, images that failed and why, notes that rules drop.

The layers are read unit by unit; what is kept of them does not grow with the store.
"""

from collections import Counter
from dataclasses import dataclass, field

from openflorence.data.notes import LayerRow, kind_of
from openflorence.data.store import Store
from openflorence.data.store_rounds import Round
from openflorence.engine.tallies import Sample
from openflorence.engine.votes import FUSED

FIRST = 20  # failures of one kind that are kept
INGEST = "ingest"  # the stage of failures before the first layer
DROPPED = 8  # dropped notes of one rule that are kept


@dataclass
class LayerCount:
    """What one layer of a round came to."""

    layer: str
    run_id: str
    statuses: Counter[str] = field(default_factory=Counter)
    notes: int = 0
    dropped: int = 0  # notes that it drops, of whatever layer


@dataclass(frozen=True)
class FailedImage:
    """An image without notes, and why."""

    row: int | None  # of the image in the store; None when it did not come so far
    uri: str
    message: str


@dataclass
class FailureCount:
    """Failures of one kind in one stage."""

    layer: str
    stage: str
    status: str  # "failed", "filtered" or "skipped"
    kind: str  # class of the error, or "timeout", "killed"
    count: int = 0
    first: list[FailedImage] = field(default_factory=list)


@dataclass(frozen=True)
class DroppedNote:
    """A note that a rule drops."""

    row: int  # of the image in the store
    note_id: str
    reason: str
    value: float | None


@dataclass
class DropCount:
    """Notes of one kind that one rule drops."""

    layer: str
    rule: str
    kind: str  # "text", "region", "grounding", "phrase", "question", "pair"
    sample: Sample[DroppedNote] = field(default_factory=lambda: Sample(DROPPED))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.sample.n


@dataclass(frozen=True)
class Outcomes:
    """All of it."""

    layers: tuple[LayerCount, ...]
    failures: tuple[FailureCount, ...]  # the most frequent first
    dropped: tuple[DropCount, ...]  # the most frequent first; what was fused with others is not lost, and not here


def read_outcomes(store: Store, one: Round) -> Outcomes:
    """Count what the layers of a round say."""
    layers = {layer: LayerCount(layer, run_id) for layer, run_id in one.runs.items()}
    failures: dict[tuple[str, ...], FailureCount] = {}
    dropped: dict[tuple[str, ...], DropCount] = {}
    start = 0
    for unit in range(one.units):
        uris = [row.uri for row in store.images(unit, data=False)]
        for layer, count in layers.items():
            rows, notes = store.layer(layer, one.runs[layer]).read_outcomes(unit)
            count.notes += notes
            for place, row in enumerate(rows):
                count.statuses[row.status] += 1
                _take_failure(failures, layer, row, start + place, uris[place])
                count.dropped += _take_verdicts(dropped, layer, row, start + place)
        start += len(uris)
    return Outcomes(
        tuple(layers.values()),
        tuple(sorted(failures.values(), key=lambda one: -one.count)),
        tuple(sorted(dropped.values(), key=lambda one: -one.count)),
    )


def _take_failure(
    failures: dict[tuple[str, ...], FailureCount], layer: str, row: LayerRow, number: int, uri: str
) -> None:
    if row.status == "ok":
        return
    stage, kind, message = (row.error.stage, row.error.kind, row.error.message) if row.error else ("", "", "")
    key = (layer, stage or layer, row.status, kind)
    count = failures.setdefault(key, FailureCount(*key))
    count.count += 1
    if len(count.first) < FIRST:
        count.first.append(FailedImage(number, uri, message))


def _take_verdicts(dropped: dict[tuple[str, ...], DropCount], layer: str, row: LayerRow, number: int) -> int:
    """Count the notes that a row drops; gives how many."""
    lost = [one for one in row.verdicts if one.rule != FUSED]
    for one in lost:
        key = (layer, one.rule, kind_of(one.note_id))
        dropped.setdefault(key, DropCount(*key)).sample.take(DroppedNote(number, one.note_id, one.reason, one.value))
    return len(lost)


def failed_inputs(store: Store) -> tuple[FailureCount, ...]:
    """Count what could not be taken into a store, the most frequent kind first."""
    found: dict[str, FailureCount] = {}
    for line in store.failures():
        count = found.setdefault(line["kind"], FailureCount("", INGEST, "failed", line["kind"]))
        count.count += 1
        if len(count.first) < FIRST:
            count.first.append(FailedImage(None, line["uri"], line["message"]))
    return tuple(sorted(found.values(), key=lambda one: -one.count))
