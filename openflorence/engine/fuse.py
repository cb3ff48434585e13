"""What several specialists say about one image -> one set of notes, in which those that agree are counted, not doubled.

rule = FuseRule(voters=(Voter("detr", ("object",)), Voter("owl", ("object",)), Voter("rapidocr", ("word",))))
notes, verdicts = fuse({"detr": a, "owl": b, "rapidocr": c}, rule)

What is one place, and what several voices about it say together, stands in votes.py. Texts stay side by side;
groundings of one text become one. What was fused keeps its members: each has a verdict of the rule "fused" whose reason
names the note that it is part of, and `members` reads them back.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openflorence.contract.lines import reading_order
from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import GroundingNote, PhraseNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import KINDS, Notes, Verdict
from openflorence.engine.overlaps import shared_bounds
from openflorence.engine.votes import (
    FUSED,
    FuseRule,
    Voice,
    Voter,
    clusters,
    mean,
    meaning_of,
    merge,
    origin_of,
    place_kind,
    same_place,
)

PART = "part of "  # how the reason of a verdict of the rule "fused" begins


def fuse(parts: Mapping[str, Notes], rule: FuseRule, layer: str = "fuse") -> tuple[Notes, tuple[Verdict, ...]]:
    """Merge the notes of several layers about one image.

    parts     layer -> its notes. A layer that failed on the image is left out, and has no vote.
    layer     name of the layer that the result is for; note ids start with it.
    returns   all notes, those of one member as they were but for score and common label; and for every note of `parts`
              a verdict naming the note that it is part of, its value the overlap with that one's box.
    raises    BadConfig for a layer without a voter.
    promise   does not depend on the order of the layers.
    """
    every = {name: rule.voter(name) for name in sorted(parts)}
    voters = {name: voter for name, voter in every.items() if not (voter.partial and parts[name].is_empty)}
    ordered = {name: parts[name] for name in voters}
    fused: dict[str, _Fused] = {name: _listed(ordered, name) for name in KINDS}  # texts, questions, pairs: as they are
    fused |= {"regions": _regions(ordered, voters, rule), "groundings": _groundings(ordered, rule)}
    verdicts: list[Verdict] = []
    for name, kind in KINDS.items():
        for place, (note, sources) in enumerate(fused[name]):
            for source, found in sources:
                verdicts.append(Verdict(source, FUSED, f"{PART}{layer}/{kind}{place}", shared_bounds(found, note)))
    merged: dict[str, Any] = {name: tuple(note for note, _ in each) for name, each in fused.items()}
    whole = frozenset(part for notes in parts.values() for part in notes.whole)
    return Notes(**merged, whole=whole), tuple(verdicts)


def members(verdicts: Iterable[Verdict]) -> dict[str, tuple[str, ...]]:
    """Read back from the verdicts of `fuse` which notes each fused note is made of: id -> ids of its members."""
    found: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.rule == FUSED:
            found[verdict.reason.removeprefix(PART)].append(verdict.note_id)
    return {name: tuple(ids) for name, ids in found.items()}


_Fused = list[tuple[Any, list[tuple[str, Any]]]]  # a note, and the ids and notes that it is made of


def _listed(parts: Mapping[str, Notes], name: str) -> _Fused:
    """All notes of a kind as they are, layer by layer."""
    return [
        (note, [(f"{layer}/{KINDS[name]}{place}", note)])
        for layer, notes in parts.items()
        for place, note in enumerate(getattr(notes, name))
    ]


# ---- regions


def _regions(parts: Mapping[str, Notes], voters: Mapping[str, Voter], rule: FuseRule) -> _Fused:
    voices, others = [], []
    for layer, notes in parts.items():
        for place, note in enumerate(notes.regions):
            name, bounds = f"{layer}/region{place}", note.bounds
            if bounds is None or note.crowd:  # many instances, or nowhere: nothing to compare
                others.append((note, [(name, note)]))
            else:
                voices.append(Voice(name, voters[layer], note, bounds, meaning_of(note, rule)))
    voices.sort(key=lambda voice: voice.rank)
    groups = clusters(
        [voice.bounds for voice in voices],
        [(voice.voter.layer, voice.meaning) for voice in voices],
        lambda i, j: same_place(voices[i].note, voices[j].note),
        rule.least,
    )
    fused = []
    for group in groups:
        inside = [voices[place] for place in group]
        fused.append((merge(inside, voters, rule), [(voice.note_id, voice.note) for voice in inside]))
    read = [one for one in fused if place_kind(one[0]) == "word"]
    return [
        *(one for one in fused if place_kind(one[0]) != "word"),
        *reading_order(read, lambda one: one[0].bounds or Box(0, 0, 0, 0)),
        *others,
    ]


# ---- groundings


def _groundings(parts: Mapping[str, Notes], rule: FuseRule) -> _Fused:
    """Those of one text and level are one: all their phrases, with the boxes of a phrase that agree fused."""
    alike: dict[tuple[str, str], list[tuple[str, str, GroundingNote]]] = defaultdict(list)
    for layer, notes in parts.items():
        for place, note in enumerate(notes.groundings):
            alike[note.text, note.level].append((layer, f"{layer}/grounding{place}", note))
    return [
        (_grounding([(layer, note) for layer, _, note in group], rule), [(name, note) for _, name, note in group])
        for group in alike.values()
    ]


def _grounding(group: Sequence[tuple[str, GroundingNote]], rule: FuseRule) -> GroundingNote:
    if len(group) == 1:
        return group[0][1]
    said: dict[tuple[str, tuple[int, int] | None], list[tuple[str, PhraseNote]]] = defaultdict(list)
    for layer, note in group:
        for phrase in note.phrases:
            said[phrase.phrase, phrase.span].append((layer, phrase))
    layers = len({layer for layer, _ in group})
    phrases = [_phrase(alike, layers, rule) for alike in said.values()]
    scores = [note.score for _, note in group]
    return replace(
        group[0][1],
        phrases=tuple(sorted(phrases, key=lambda one: (one.span or (len(group[0][1].text), 0), one.phrase))),
        score=None if None in scores else sum(score or 0.0 for score in scores) / len(scores),
        origin=origin_of([note.origin for _, note in group]),
    )


def _phrase(alike: Sequence[tuple[str, PhraseNote]], layers: int, rule: FuseRule) -> PhraseNote:
    """One phrase: its boxes fused, its score the layers' best ones over the number of layers that grounded the text."""
    boxes = sorted(
        (box, layer, rule.voter(layer).weight * max(1.0 if phrase.score is None else phrase.score, 1e-6))
        for layer, phrase in alike
        for box in phrase.boxes
    )
    places = [box for box, _, _ in boxes]
    overlaps = box_iou(places, places)
    groups = clusters(
        places,
        [(layer, "") for _, layer, _ in boxes],
        lambda i, j: float(overlaps[i, j]),
        rule.least,
    )
    scores = [phrase.score for _, phrase in alike]
    best: dict[str, float] = {}  # a layer that has the phrase twice has one voice
    for layer, phrase in alike:
        best[layer] = max(best.get(layer, 0.0), phrase.score or 0.0)
    return replace(
        alike[0][1],
        boxes=tuple(Box(*mean([(boxes[place][0], boxes[place][2]) for place in group])) for group in groups),
        score=None if None in scores else sum(best.values()) / layers,
    )
