"""What an updated model says of an image, merged with what is there: every rule, and nothing of stores.

Whose word it is tells the origin of a note. What the same source said in an earlier round is its own past: it is
replaced, never counted as a second voice. What others say is held against the update, one region against one, the
largest overlaps first:

    same place, same meaning     one region: the place is the mean weighted by score, the score rises (`agreed`)
    same place, other meaning    a contradiction: the surer stays with a lower score (`doubted`), the other is dropped
    only in the update           a gap, filled from a stated score on; below it is dropped as "unsure"
    only there                   it stays; where the update lists all there is of its kind, its score is lowered, once
    own past, said again         dropped as "replaced", and so is all that it said where it now says something else
    own past, no longer said     stays, its score lowered as above; it contradicts nobody any more
    agreed on in the past        what others and an earlier update made one region stays as it is when it is said again
    certain (no score, or of people)  never changed and never dropped by a model

Meaning is the label of an object, synonyms united, and what a line reads. Two descriptions of one place contradict
nothing, nor does a label where the boxes fit loosely: a rider sits on a horse. Texts: of each level one of the source,
the newest; groundings, questions and pairs likewise by their text, question and prefix. A grounding goes with its text;
to one of others with the same text the update adds the phrases that it lacks.

Every note of both sides has a verdict: of the rule "fused" where it is part of a note of the result, as fuse.py has it,
or of the rule that drops it. A region with a lower score has the measure "unconfirmed" or "contradicted" with the score
that it was said with; so no silence and no contradiction is counted a second time in the round after.
Source: a noisy or, Pearl 1988, for agreement; that silence and contradiction are weighed is our own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openflorence.contract.lines import reading_order
from openflorence.contract.records import GroundingNote, Origin, RegionNote, Whole
from openflorence.contract.shapes import Box
from openflorence.data.notes import FIELDS, KINDS, LayerRow, Measure, Note, Notes, Verdict, kept_by_id
from openflorence.engine.fuse import PART
from openflorence.engine.overlaps import shared_bounds
from openflorence.engine.votes import (
    FUSED,
    PLACE_KINDS,
    FuseRule,
    Voice,
    Voter,
    clusters,
    fold,
    meaning_of,
    merge,
    origin_of,
    place_kind,
    same_place,
    sources_of,
)
from openflorence.errors import BadConfig

Result = tuple[Notes, tuple[Verdict, ...], tuple[Measure, ...]]
Meaning = Callable[[RegionNote], Any]  # what is equal in regions that say the same

CONTRADICTION, REPLACED, UNSURE = "contradiction", "replaced", "unsure"  # rules that drop
UNCONFIRMED, CONTRADICTED = "unconfirmed", "contradicted"  # measures: the score before it was lowered for this
PEOPLE = "people"
_LISTS: dict[str, Whole] = {"object": "objects", "word": "words"}  # kinds of places that can be listed completely


@dataclass(frozen=True, kw_only=True)
class ReconcileSettings:
    """Where two regions are one place, and what agreement, contradiction and silence do to a score."""

    least: float = 0.55  # smallest overlap of two regions that agree, as intersection over union
    conflict: float = 0.75  # and of two that contradict each other
    trust: float = 0.5  # share of the surer's doubt that another voice of score 1 takes away
    doubt: float = 0.5  # share of the surer's score that a contradiction of score 1 takes away
    silence: float = 0.5  # what a score is multiplied with when a complete list lacks the region
    fill: float = 0.5  # least score of what the update alone says
    unscored: float = 0.5  # the score of a region of the update that has none
    synonyms: Mapping[str, str] = field(default_factory=dict)  # label -> the label to use for it

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("trust", "doubt", "silence", "fill", "unscored")}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise BadConfig(f"{name} is {value}; allowed are shares from 0 to 1")
        if not 0 < self.least <= self.conflict <= 1:
            raise BadConfig(
                f"least={self.least}, conflict={self.conflict}: allowed are overlaps above 0 and up to 1, and regions "
                "that contradict each other overlap at least as much as those that agree"
            )


DEFAULT_RECONCILE = ReconcileSettings()


def agreed(one: float, other: float, trust: float) -> float:
    """Give the score of what two say: 1 - (1 - surer) (1 - trust * other); by half for 0.6 and 0.5: 0.7.

    promise   at least the surer's, at most 1; it grows with either; the order does not matter.
    """
    surer, other = max(one, other), min(one, other)
    return 1 - (1 - surer) * (1 - trust * other)


def doubted(surer: float, other: float, doubt: float) -> float:
    """Give the score of what another contradicts: surer (1 - doubt * other); by half for 0.8 and 0.5: 0.6."""
    return surer * (1 - doubt * other)


@dataclass(frozen=True)
class Said:
    """What is said of one image: notes by their ids, in order, and what their regions list completely."""

    notes: Mapping[str, Note] = field(default_factory=dict)
    whole: frozenset[Whole] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Update:
    """What the updated model says, and who it is."""

    said: Said
    source: str  # as in the origin of its notes
    name: str = "the update"  # in reasons: its layer
    labels: tuple[str, ...] | None = None  # the only ones that it can say; None: any


def said_by(layers: Mapping[str, LayerRow], notes_from: Sequence[str]) -> Said:
    """Give what `combine` of data/store_rounds.py gives, with the ids of the notes.

    layers    of a round, for one image that none of them leaves out.
    """
    found = {name: note for layer in notes_from for name, note in kept_by_id(layers, layer).items()}
    return Said(found, frozenset().union(*(layers[layer].notes.whole for layer in notes_from)))


def is_own(origin: Origin, source: str) -> bool:
    """Tell whether a source said a note by itself; one that was fused may have others behind it that are not known."""
    return origin.source == source


def is_certain(note: Any) -> bool:
    """Tell whether no model may change a note: it has no score, or people are behind it."""
    return note.score is None or PEOPLE in sources_of(note.origin)


def as_said(said: Said, measures: Iterable[Measure]) -> Said:
    """Give notes of an earlier result with the scores they were said with.

    measures  of `reconcile`, among others.
    """
    scores = {one.note_id: one.value for one in measures if one.name in (UNCONFIRMED, CONTRADICTED)}
    return replace(said, notes={name: _scored(note, scores.get(name, note.score)) for name, note in said.notes.items()})


def reconcile(before: Said, update: Update, layer: str, settings: ReconcileSettings = DEFAULT_RECONCILE) -> Result:
    """Merge what is there with what an updated model says; the rules stand above.

    before    what others say, and the past of the update's source with its scores as they were said.
    layer     name of the layer that the result is for; its note ids start with it.
    returns   the notes; verdicts on all notes of both sides; measures of the notes whose score was lowered.
    promise   the same for the same arguments. With a model that says again what it said, and its past taken from the
              result, the result is the same again.
    """
    ledger = _Ledger(layer)
    _Regions(before, update, settings, ledger).settle()
    for kind, key in _KEYS.items():
        _newest(_of(before, kind), _of(update.said, kind), kind, key, update, ledger)
    return ledger.close(before.whole | update.said.whole)


def carry(there: Said, measures: Iterable[Measure], layer: str) -> Result:
    """Give the notes that are there as they are, for an image that the update could not look at.

    measures  of `reconcile` about them: they are carried on too.
    """
    ledger = _Ledger(layer)
    known = {one.note_id: one for one in measures if one.name in (UNCONFIRMED, CONTRADICTED)}
    for name, note in there.notes.items():
        ledger.keep(note, {name: note}, known.get(name))
    return ledger.close(there.whole)


@dataclass(frozen=True)
class _Made:
    """A note of the result, what it is made of, and what was measured of it."""

    note: Any
    members: Mapping[str, Any]
    measure: Measure | None = None


@dataclass
class _Ledger:
    """The result as it grows, and what is dropped."""

    layer: str
    made: dict[str, list[_Made]] = field(default_factory=lambda: {name: [] for name in KINDS})
    dropped: list[Verdict] = field(default_factory=list)

    def keep(self, note: Any, members: Mapping[str, Any], measure: Measure | None = None) -> None:
        """Take a note into the result, made of these by their ids."""
        self.made[FIELDS[type(note)]].append(_Made(note, members, measure))

    def drop(self, name: str, rule: str, reason: str, value: float | None) -> None:
        self.dropped.append(Verdict(name, rule, reason, value))

    def close(self, whole: frozenset[Whole]) -> Result:
        parts: list[Verdict] = []
        measures: list[Measure] = []
        self.made["regions"] = _in_order(self.made["regions"])
        for kind, word in KINDS.items():
            for place, made in enumerate(self.made[kind]):
                name = f"{self.layer}/{word}{place}"
                parts += [
                    Verdict(member, FUSED, f"{PART}{name}", shared_bounds(note, made.note))
                    for member, note in made.members.items()
                ]
                measures += [replace(made.measure, note_id=name)] if made.measure else []
        notes: dict[str, Any] = {kind: tuple(one.note for one in made) for kind, made in self.made.items()}
        return Notes(**notes, whole=whole), (*parts, *self.dropped), tuple(measures)


def _in_order(regions: list[_Made]) -> list[_Made]:
    """Objects first, then what is read in reading order, as after fusing."""
    placed = [one for one in regions if place_kind(one.note) == "word" and one.note.bounds]
    lines = reading_order(placed, lambda one: one.note.bounds or Box(0, 0, 0, 0))
    return [*(one for one in regions if not any(one is line for line in placed)), *lines]


# ---- regions


class _Regions:
    """The regions of both sides, and which of them are settled."""

    def __init__(self, before: Said, update: Update, settings: ReconcileSettings, ledger: _Ledger) -> None:
        self.update, self.settings, self.ledger = update, settings, ledger
        self.rule = FuseRule((), settings.least, settings.synonyms)
        regions = _of(before, "regions")
        own = {name: note for name, note in regions.items() if is_own(note.origin, update.source)}
        self.others = {name: note for name, note in regions.items() if name not in own}
        self.past, self.now = self._certain_of_nothing(own), self._certain_of_nothing(_of(update.said, "regions"))
        self.renewed: set[str] = set()  # of the update: what it said before, or in place of what it said before

    def _certain_of_nothing(self, notes: Mapping[str, RegionNote]) -> dict[str, RegionNote]:
        """What a model says without a score gets one: without, it would stand for the word of people."""
        unscored = self.settings.unscored
        return {name: replace(note, score=unscored) if note.score is None else note for name, note in notes.items()}

    def settle(self) -> None:
        """Pair, and take what comes of it into the ledger."""
        self._replace_past()
        left, free = dict(self.others), dict(self.now)
        for one, other in self._agreeing(left, free):
            self._agree(one, left.pop(one), other, free.pop(other))
        for one, other in self._contradicting(left, free):
            self._contradict((one, left.pop(one)), (other, free.pop(other)))
        for name, note in (left | self.past).items():
            self._confirm_or_not(name, note)
        for name, note in free.items():
            self._fill(name, note)

    def _replace_past(self) -> None:
        """Drop of its own past what the update says again, and all where it says something else of this kind."""
        for old, note in list(self.past.items()):
            again = _closest(note, self.now, self._meaning, self.settings.least)
            new = again + _closest(note, self.now, place_kind, self.settings.conflict)
            if new:
                self.renewed.add(new[0])
                told = f"{self.update.name} says {_words(self.now[new[0]])} there now"
                self.ledger.drop(old, REPLACED, told, self.past.pop(old).score)

    def _agree(self, one: str, note: RegionNote, other: str, new: RegionNote) -> None:
        members = {one: note, other: new}
        if is_certain(note) or self.update.source in sources_of(note.origin):
            self.ledger.keep(note, members)
            return
        voter = Voter(self.update.name, PLACE_KINDS)
        voices = [
            Voice(name, voter, each, each.bounds or Box(0, 0, 0, 0), meaning_of(each, self.rule))
            for name, each in members.items()
        ]
        fused = merge(sorted(voices, key=lambda voice: voice.rank), {}, self.rule)
        score = agreed(note.score or 0.0, new.score or 0.0, self.settings.trust)
        self.ledger.keep(replace(fused, score=score), members)

    def _contradict(self, other: tuple[str, RegionNote], mine: tuple[str, RegionNote]) -> None:
        """Keep the surer, and what is there where they are equally sure."""
        there, new = other[1].score, mine[1].score or 0.0
        certain = is_certain(other[1])
        if certain or (there or 0.0) >= new:
            (won, winner), (lost, loser) = other, mine
        else:
            (won, winner), (lost, loser) = mine, other
        score = there if certain else doubted(winner.score or 0.0, loser.score or 0.0, self.settings.doubt)
        teller = f"{self.update.name} says" if won == mine[0] else "was there"
        told = (
            f"{_words(loser)} {_number(loser.score)} against {_words(winner)} {_number(winner.score)} at the same "
            f"place (overlap {same_place(winner, loser):.2f}), which {teller}"
        )
        measure = None if certain else Measure("", CONTRADICTED, winner.score)
        self.ledger.keep(replace(winner, score=score), {won: winner}, measure)
        self.ledger.drop(lost, CONTRADICTION, told, loser.score)

    def _fill(self, name: str, note: RegionNote) -> None:
        score = note.score or 0.0
        if score >= self.settings.fill or name in self.renewed:
            self.ledger.keep(note, {name: note})
        else:
            told = f"nobody else says {_words(note)} there, and {score:.2f} is below {self.settings.fill:.2f}"
            self.ledger.drop(name, UNSURE, told, score)

    def _confirm_or_not(self, name: str, note: RegionNote) -> None:
        """Keep what the update does not say, with a lower score where it lists all there is of this kind."""
        certain = name in self.others and is_certain(note)
        if note.score is None or certain or not self._would_list(note):
            self.ledger.keep(note, {name: note})
        else:
            lower = replace(note, score=note.score * self.settings.silence)
            self.ledger.keep(lower, {name: note}, Measure("", UNCONFIRMED, note.score))

    def _would_list(self, note: RegionNote) -> bool:
        kind = place_kind(note)
        if note.bounds is None or note.crowd or _LISTS.get(kind) not in self.update.said.whole:
            return False
        if kind != "object" or self.update.labels is None:
            return True
        known = {fold(self.rule.same_label(label)) for label in self.update.labels}
        return fold(self.rule.same_label(note.label)) in known

    # ---- which are one place

    def _meaning(self, note: RegionNote) -> tuple[str, ...]:
        return (*meaning_of(note, self.rule), fold(note.word))

    def _agreeing(self, ones: Mapping[str, Any], others: Mapping[str, Any]) -> list[tuple[str, str]]:
        return _pairs(ones, others, self._meaning, self.settings.least)

    def _contradicting(self, ones: Mapping[str, Any], others: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Of objects and words alone. What means the same is left over only where it overlaps too little to agree."""
        those, these = (
            {name: note for name, note in side.items() if place_kind(note) in _LISTS} for side in (ones, others)
        )
        return _pairs(those, these, place_kind, self.settings.conflict)


def _pairs(
    ones: Mapping[str, RegionNote], others: Mapping[str, RegionNote], meaning: Meaning, least: float
) -> list[tuple[str, str]]:
    """Pair what is one place: equal in meaning, one with one, the largest overlaps first, of equal ones the surest."""
    sides = [
        (side, name, note)
        for side, notes in (("one", ones), ("other", others))
        for name, note in sorted(notes.items(), key=lambda item: -(1.0 if item[1].score is None else item[1].score))
        if note.bounds is not None and not note.crowd
    ]
    groups = clusters(
        [note.bounds for _, _, note in sides if note.bounds is not None],
        [(side, meaning(note)) for side, _, note in sides],
        lambda i, j: same_place(sides[i][2], sides[j][2]),
        least,
    )
    return [(sides[group[0]][1], sides[group[1]][1]) for group in groups if len(group) == 2]


def _closest(one: RegionNote, others: Mapping[str, RegionNote], meaning: Meaning, least: float) -> list[str]:
    """Name the others that are one place with a region and mean the same, the closest first, then the surest."""
    if one.bounds is None or one.crowd:
        return []
    found = [
        (-overlap, -(note.score or 0.0), name)
        for name, note in others.items()
        if meaning(note) == meaning(one) and not note.crowd and (overlap := same_place(one, note)) >= least
    ]
    return [name for *_, name in sorted(found)]


# ---- texts, groundings, questions, pairs

_KEYS: dict[str, Callable[[Any], Any]] = {  # what there is one of, of each source
    "texts": lambda note: note.level,
    "groundings": lambda note: (note.level, note.text),
    "questions": lambda note: note.question,
    "pairs": lambda note: note.prefix,
}


def _newest(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    kind: str,
    key: Callable[[Any], Any],
    update: Update,
    ledger: _Ledger,
) -> None:
    """Let the newer notes of the source take the place of its older ones; those of others stay as they are."""
    keys = {key(note) for note in now.values()}
    texts = {note.level: note.text for note in _of(update.said, "texts").values()}
    stay: dict[str, Any] = {}
    for name, note in before.items():
        stale = kind == "groundings" and texts.get(note.level, note.text) != note.text
        if is_own(note.origin, update.source) and (key(note) in keys or stale):
            told = f"its text is no longer what {update.name} says" if stale else f"{update.name} says it anew"
            ledger.drop(name, REPLACED, told, note.score)
        else:
            stay[name] = note
    twins = {key(note): name for name, note in stay.items()} if kind == "groundings" else {}
    pairs = {twins[key(note)]: name for name, note in now.items() if key(note) in twins}
    for name, note in stay.items():
        if name in pairs:
            new = now[pairs[name]]
            ledger.keep(_tied(note, new), {name: note, pairs[name]: new})
        else:
            ledger.keep(note, {name: note})
    for name, note in now.items():
        if name not in pairs.values():
            ledger.keep(note, {name: note})


def _tied(note: GroundingNote, new: GroundingNote) -> GroundingNote:
    """A grounding with the phrases more that an update ties to places; as it is where it is of people."""
    known = {(phrase.phrase, phrase.span) for phrase in note.phrases}
    more = [phrase for phrase in new.phrases if (phrase.phrase, phrase.span) not in known]
    certain = is_certain(note) and all(phrase.score is None for phrase in note.phrases)
    if certain or PEOPLE in sources_of(note.origin) or not more:
        return note
    phrases = sorted([*note.phrases, *more], key=lambda one: (one.span or (len(note.text), 0), one.phrase))
    return replace(note, phrases=tuple(phrases), origin=origin_of([note.origin, new.origin]))


# ---- what all need


def _of(said: Said, kind: str) -> dict[str, Any]:
    return {name: note for name, note in said.notes.items() if FIELDS[type(note)] == kind}


def _scored(note: Note, score: float | None) -> Note:
    return note if note.score == score else replace(note, score=score)


def _words(note: RegionNote) -> str:
    return repr(note.label or note.word or note.description)


def _number(score: float | None) -> str:
    return "without a score" if score is None else f"{score:.2f}"
