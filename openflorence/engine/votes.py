"""Who has a voice in what stands where, which voices are about one place, and what they say together.

Two regions are one place when they come from different layers, say the same, and overlap enough. Coordinates are means
weighted by score and voter; outlines are what at least half of the weight covers. The score is the weight behind what
is said over the weight of all who could have said it, so one voice of three gives at most a third.
Source: weighted boxes fusion, Solovyev, Wang and Gabruseva 2021; but a layer has at most one member in a place, since
it told its own regions apart, and pairs that overlap most are joined first.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from openflorence.contract.lines import direction
from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import UNKNOWN, Origin, RegionNote
from openflorence.contract.rings import majority
from openflorence.contract.shapes import Box, Point, Polygon, Quad
from openflorence.engine.overlaps import region_overlap
from openflorence.errors import BadConfig

PlaceKind = Literal["object", "word", "phrase", "place"]  # has a label; else is read; else described; else only there
PLACE_KINDS: tuple[PlaceKind, ...] = get_args(PlaceKind)
FUSED = "fused"  # the source of what has several members, and the rule that verdicts about these name


@dataclass(frozen=True)
class Voter:
    """A layer, and what it has a voice in."""

    layer: str  # its name
    kinds: tuple[PlaceKind, ...]  # of regions that it looks for: its silence counts against these
    labels: tuple[str, ...] | None = None  # the only labels it knows; None: any
    weight: float = 1.0  # of its voice, against 1 of the others
    unscored: float | None = None  # what its notes without a score count as; None: they are certain, and stay so
    partial: bool = False  # has not looked at every image: of one that it says nothing about at all it has no voice

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(PLACE_KINDS))
        if unknown:
            raise BadConfig(f"voter {self.layer!r}: no kind {unknown[0]!r}; allowed: {', '.join(PLACE_KINDS)}")
        if not 0 < self.weight < float("inf") or not (self.unscored is None or 0 <= self.unscored <= 1):
            raise BadConfig(
                f"voter {self.layer!r}: weight={self.weight}, unscored={self.unscored}; allowed are a weight above 0, "
                "and a score from 0 to 1 or None"
            )


@dataclass(frozen=True)
class FuseRule:
    """Who votes, and when two regions are one place."""

    voters: tuple[Voter, ...]
    least: float = 0.55  # smallest overlap of two regions that are one, as intersection over union
    synonyms: Mapping[str, str] = field(default_factory=dict)  # label -> the label to use for it: "automobile" -> "car"

    def __post_init__(self) -> None:
        twice = [layer for layer, count in Counter(voter.layer for voter in self.voters).items() if count > 1]
        if twice:
            raise BadConfig(f"layer {twice[0]!r} votes twice; name every layer once")
        if not 0 < self.least <= 1:
            raise BadConfig(f"least is {self.least}; allowed are shares above 0 and up to 1")

    def voter(self, layer: str) -> Voter:
        """Look a layer's voter up; raises BadConfig when there is none."""
        found = next((voter for voter in self.voters if voter.layer == layer), None)
        if found is None:
            known = ", ".join(voter.layer for voter in self.voters) or "nobody"
            raise BadConfig(f"layer {layer!r} has no voter; voters are {known}: say what kinds it has a voice in")
        return found

    def same_label(self, label: str) -> str:
        """Give the label that stands for all that mean the same; as it is written when it has no synonym."""
        known = {fold(word): common for word, common in self.synonyms.items()}
        return known.get(fold(label), label)


def fold(text: str) -> str:
    """Give a text as it is compared: small letters, single spaces."""
    return " ".join(text.casefold().split())


def place_kind(note: RegionNote) -> PlaceKind:
    """Say what a region is mainly about."""
    if note.label.strip():
        return "object"
    if note.word.strip():
        return "word"
    return "phrase" if note.description.strip() or note.expressions else "place"


def meaning_of(note: RegionNote, rule: FuseRule) -> tuple[str, str]:
    """Say what has to be equal in two regions that are one: the kind of place, and what is said; of words nothing."""
    kind = place_kind(note)
    said = {"object": rule.same_label(note.label), "phrase": note.description or " ".join(note.expressions)}
    return kind, fold(said.get(kind, ""))


@dataclass(frozen=True, eq=False)
class Voice:
    """One region of one layer."""

    note_id: str
    voter: Voter
    note: RegionNote
    bounds: Box
    meaning: tuple[str, str]  # kind of place, and what is said there; of words nothing: what is read is voted on

    @property
    def score(self) -> float | None:
        """How sure it is; None when it is certain."""
        return self.voter.unscored if self.note.score is None else self.note.score

    @property
    def weight(self) -> float:
        """Of its coordinates. Not zero, so that places of nothing but scores of 0 have a mean."""
        return self.voter.weight * max(1.0 if self.score is None else self.score, 1e-6)

    @property
    def said(self) -> str:
        """What has to be equal for a voice to be behind it."""
        return fold(self.note.word) if self.meaning[0] == "word" else ""

    @property
    def rank(self) -> tuple[Any, ...]:
        """Surest first; of equal ones by place, then by the name of the layer."""
        return -self.weight, self.bounds, self.note_id


def clusters(
    bounds: Sequence[Box],
    owners: Sequence[tuple[str, Any]],
    overlap: Callable[[int, int], float],
    least: float,
) -> list[list[int]]:
    """Put together what is one place, the largest overlaps first.

    bounds    box around each item, in pixels.
    owners    layer and meaning of each: only equal meanings of different layers are joined.
    overlap   of two items, from 0 to 1; asked for where boxes touch.
    returns   places of the items, in order; clusters in the order of their first.
    """
    pairs = []
    shared = box_iou(bounds, bounds)
    for i, j in np.argwhere(np.triu(shared > 0, 1)).tolist():
        if owners[i][0] != owners[j][0] and owners[i][1] == owners[j][1] and (found := overlap(i, j)) >= least:
            pairs.append((-found, i, j))
    home = list(range(len(bounds)))
    inside = {place: [place] for place in home}
    for _, i, j in sorted(pairs):
        a, b = sorted((home[i], home[j]))
        layers = [owners[place][0] for place in inside[a] + inside[b]] if a != b else []
        if a != b and len(set(layers)) == len(layers):
            for place in inside[b]:
                home[place] = a
            inside[a] = sorted(inside[a] + inside.pop(b))
    return [inside[first] for first in sorted(inside)]


def merge(voices: Sequence[Voice], voters: Mapping[str, Voter], rule: FuseRule) -> RegionNote:
    """Make one note of the voices about one place, surest first."""
    weights: dict[str, float] = defaultdict(float)  # the first is the surest voice's, and wins where weights are equal
    for voice in voices:
        weights[voice.said] += voice.weight
    said = max(weights, key=weights.__getitem__)
    behind = [voice for voice in voices if voice.said == said]
    first = behind[0].note
    label = rule.same_label(first.label)
    score = _score(behind, [voice.voter for voice in voices], voters.values(), rule)
    if len(voices) == 1:
        return replace(first, label=label, score=score)
    boxes = [(voice.note.box, voice.weight) for voice in voices if voice.note.box]
    quads = [(voice.note.quad, voice.weight) for voice in voices if voice.note.quad]
    rings = [(voice.note.polygons, voice.weight) for voice in voices if voice.note.polygons]
    return RegionNote(
        box=Box(*mean(boxes)) if boxes else None,
        quad=_quad(quads) if quads else None,
        polygons=_outline(rings),
        label=label,
        description=next((voice.note.description for voice in behind if voice.note.description), ""),
        word=next((voice.note.word for voice in behind if voice.note.word), ""),
        expressions=tuple(sorted({words for voice in behind for words in voice.note.expressions})),
        score=score,
        origin=origin_of([voice.note.origin for voice in voices]),
    )


def _score(behind: Sequence[Voice], inside: Iterable[Voter], present: Iterable[Voter], rule: FuseRule) -> float | None:
    """The weight behind what is said, over that of all who could have said it; None once somebody is certain."""
    scores = [voice.score for voice in behind]
    if None in scores:
        return None
    kind, said = behind[0].meaning
    able = {voter.layer: voter.weight for voter in present if _could_say(voter, kind, said, rule)}
    able |= {voter.layer: voter.weight for voter in inside}
    total = sum(able[layer] for layer in sorted(able))
    return sum(voice.voter.weight * (voice.score or 0.0) for voice in behind) / total


def _could_say(voter: Voter, kind: str, said: str, rule: FuseRule) -> bool:
    if kind != "object" or voter.labels is None:
        return kind in voter.kinds
    return kind in voter.kinds and said in {fold(rule.same_label(label)) for label in voter.labels}


def mean(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Weighted mean of rows of numbers."""
    values, weights = np.array([row for row, _ in rows], np.float64), [weight for _, weight in rows]
    found: list[float] = np.average(values, axis=0, weights=weights).tolist()
    return found


def _quad(quads: Sequence[tuple[Quad, float]]) -> Quad:
    flat = mean([([value for point in quad for value in point], weight) for quad, weight in quads])
    a, b, c, d = (Point(*flat[i : i + 2]) for i in range(0, 8, 2))
    return a, b, c, d


def _outline(rings: Sequence[tuple[tuple[Polygon, ...], float]]) -> tuple[Polygon, ...]:
    if len(rings) < 2:
        return rings[0][0] if rings else ()
    return majority([mask for mask, _ in rings], [weight for _, weight in rings])


def sources_of(origin: Origin) -> frozenset[str]:
    """Name who is behind a note: its source, of a fused one all of them; nobody where that is not known."""
    names = origin.model.split("+") if origin.source == FUSED else [origin.source or origin.model]
    return frozenset(names) - {""}


def origin_of(origins: Iterable[Origin]) -> Origin:
    """Say who is behind a fused note: source "fused", the sources as its model, joined by "+"."""
    known = {origin for origin in origins if origin != UNKNOWN}
    sources = sorted(frozenset[str]().union(*map(sources_of, known)))
    return Origin(source=FUSED, model="+".join(sources), round=max((origin.round for origin in known), default=0))


def same_place(one: RegionNote, other: RegionNote) -> float:
    """How much two regions overlap, from 0 to 1; lines of text read in directions 90 degrees apart or more do not."""
    if one.quad and other.quad:
        a, b = direction(one.quad), direction(other.quad)
        if a.x * b.x + a.y * b.y <= 0:
            return 0.0
    return region_overlap(one, other)
