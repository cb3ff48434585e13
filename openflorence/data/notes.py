"""What one stage of the data engine says about one image: notes, measures, what a rule drops, and why it failed.

Notes are never deleted. A rule that drops one gives a Verdict with its reason and the value it saw, so a later run with
another threshold brings the note back without annotating again. A note is called by layer, kind and place, as
"rapidocr/region3"; a phrase of a grounding as "grounder/grounding0.phrase2". These names hold as long as the layer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from openflorence.contract.records import (
    GroundingNote,
    PairNote,
    QuestionNote,
    RegionNote,
    TextNote,
    Whole,
)

Status = Literal["ok", "failed", "filtered", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)

Note = TextNote | RegionNote | GroundingNote | QuestionNote | PairNote

# Field of Notes -> what its notes are called in an id.
KINDS = {
    "texts": "text",
    "regions": "region",
    "groundings": "grounding",
    "questions": "question",
    "pairs": "pair",
}
FIELDS: dict[type, str] = dict(zip(get_args(Note), KINDS, strict=True))  # class of a note -> field of Notes


@dataclass(frozen=True)
class Notes:
    """What is said about one image, of all kinds."""

    texts: tuple[TextNote, ...] = ()
    regions: tuple[RegionNote, ...] = ()
    groundings: tuple[GroundingNote, ...] = ()
    questions: tuple[QuestionNote, ...] = ()
    pairs: tuple[PairNote, ...] = ()
    whole: frozenset[Whole] = frozenset()  # what `regions` lists completely, as in a Record

    @property
    def is_empty(self) -> bool:
        """True when nothing is said."""
        return not (self.texts or self.regions or self.groundings or self.questions or self.pairs or self.whole)


@dataclass(frozen=True)
class Verdict:
    """A note that a rule drops."""

    note_id: str  # as note_ids gives them
    rule: str  # name of the rule: "score", "nms"
    reason: str  # in words: "score 0.12 is below 0.30"
    value: float | None = None  # what was held against the threshold


@dataclass(frozen=True)
class Measure:
    """What was measured of a note or of an image, for a rule to hold against its threshold."""

    note_id: str  # as note_ids gives them; "" for the image as a whole
    name: str  # "likelihood", "print"
    value: float | None = None
    text: str = ""  # where it is no number


@dataclass(frozen=True)
class Failure:
    """Why an image has no notes."""

    kind: str  # class of the error, or "timeout", "killed"
    message: str
    stage: str = ""  # name of the stage that failed
    attempts: int = 1  # how often it was tried


@dataclass(frozen=True)
class ImageRow:
    """An image as a stage gets it."""

    image_id: str  # SHA-256 of the bytes, in hexadecimal
    data: bytes  # the file as it was, encoded
    mime: str  # "image/jpeg"
    image_wh: tuple[int, int]  # width, height in pixels of the upright original
    uri: str  # where it came from
    problem: str = ""  # why `data` is empty: the file that the store refers to is gone, or is no longer the same
    meta: Mapping[str, str] = field(default_factory=dict)  # what else was known about it when it was taken in


@dataclass(frozen=True)
class LayerRow:
    """What a stage gave for one image. Its verdicts may be about notes of another layer."""

    image_id: str
    status: Status = "ok"
    error: Failure | None = None  # with status "failed" or "filtered"
    notes: Notes = Notes()
    verdicts: tuple[Verdict, ...] = ()
    measures: tuple[Measure, ...] = ()


def numbered(layer: str, notes: Notes) -> Iterator[tuple[str, Note]]:
    """Give every note with its id: texts, regions, groundings, questions, pairs, each in order."""
    for name, kind in KINDS.items():
        for place, note in enumerate(getattr(notes, name)):
            yield f"{layer}/{kind}{place}", note


def note_ids(layer: str, notes: Notes) -> tuple[str, ...]:
    """Name every note, in the order of `numbered`."""
    return tuple(name for name, _ in numbered(layer, notes))


def phrase_ids(grounding_id: str, grounding: GroundingNote) -> tuple[str, ...]:
    """Name the phrases of a grounding, for verdicts about a phrase alone."""
    return tuple(f"{grounding_id}.phrase{place}" for place in range(len(grounding.phrases)))


def kept(notes: Notes, verdicts: Iterable[Verdict], layer: str | None = None) -> Notes:
    """Give the notes that no verdict drops; a grounding without a phrase left is dropped with its last one.

    layer     whose notes these are: verdicts about other layers do not count. None: all verdicts are about these notes.
    promise   without a verdict these are the same notes; what is kept stays in order.
    """
    left: dict[str, list[Note]] = {name: [] for name in KINDS}
    for note in _left(notes, verdicts, layer).values():
        left[FIELDS[type(note)]].append(note)
    listed: dict[str, Any] = {name: tuple(found) for name, found in left.items()}
    return replace(notes, **listed)


def kept_by_all(rows: Mapping[str, LayerRow], layer: str) -> Notes:
    """Give what a layer says of an image, but for what any of these layers drops."""
    return kept(rows[layer].notes, _verdicts(rows), layer)


def kept_by_id(rows: Mapping[str, LayerRow], layer: str) -> dict[str, Note]:
    """Give the same note by note, by their ids."""
    return _left(rows[layer].notes, _verdicts(rows), layer)


def kind_of(note_id: str) -> str:
    """Name the kind of a note by its id: "fuse/region3" is a region, "fuse/grounding0.phrase2" a phrase."""
    return _within(note_id).rpartition(".")[2].rstrip("0123456789")


def _verdicts(rows: Mapping[str, LayerRow]) -> list[Verdict]:
    return [verdict for row in rows.values() for verdict in row.verdicts]


def _left(notes: Notes, verdicts: Iterable[Verdict], layer: str | None) -> dict[str, Note]:
    dropped = {_within(verdict.note_id) for verdict in verdicts if layer in (None, _layer(verdict.note_id))}
    found: dict[str, Note] = {}
    for name, note in numbered(layer or "", notes):
        if _within(name) not in dropped:
            left = _with_phrases(note, _within(name), dropped) if isinstance(note, GroundingNote) else note
            found |= {} if left is None else {name: left}
    return found


def _with_phrases(note: GroundingNote, name: str, dropped: set[str]) -> GroundingNote | None:
    """A grounding without its dropped phrases; None when that leaves none of those it had."""
    named = zip(phrase_ids(name, note), note.phrases, strict=True)
    phrases = tuple(phrase for phrase_id, phrase in named if phrase_id not in dropped)
    if len(phrases) == len(note.phrases):
        return note
    return replace(note, phrases=phrases) if phrases else None


def _layer(note_id: str) -> str:
    return note_id.rpartition("/")[0]


def _within(note_id: str) -> str:
    """The part of an id that names the note within its layer."""
    return note_id.rpartition("/")[2]
