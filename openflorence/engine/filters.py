"""Rules that drop notes, each with its reason. Pure functions of notes, image size and settings; nothing is removed.

A rule gets a Pool, what is left of the notes of one image, and gives Verdicts. `judge.py` runs all rules in order, each
on what the ones before it left. The defaults are ours: the report names the rules and no thresholds.
Source: Florence-2 report, section 4.2.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openflorence.contract.overlaps import box_iou
from openflorence.contract.published import NOT_GROUNDED
from openflorence.contract.records import (
    GroundingNote,
    Level,
    Origin,
    PairNote,
    PhraseNote,
    QuestionNote,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box
from openflorence.data.notes import FIELDS, Notes, Verdict, numbered, phrase_ids
from openflorence.engine.duplicates import plain_text
from openflorence.engine.lexicon import INTANGIBLE, PARTS, PREPOSITIONS
from openflorence.engine.overlaps import region_overlap
from openflorence.engine.parse import DEFAULT_PARSE, ParseSettings, parse
from openflorence.errors import BadConfig


@dataclass(frozen=True)
class Phrase:
    """A phrase with what it is part of."""

    note: PhraseNote
    text: str  # of the grounding
    origin: Origin


@dataclass(frozen=True)
class Pool:
    """Notes of one image by their ids, in order."""

    texts: Mapping[str, TextNote] = field(default_factory=dict)
    regions: Mapping[str, RegionNote] = field(default_factory=dict)
    groundings: Mapping[str, GroundingNote] = field(default_factory=dict)
    phrases: Mapping[str, Phrase] = field(default_factory=dict)
    questions: Mapping[str, QuestionNote] = field(default_factory=dict)
    lists_objects: bool = False  # some layer promises that its regions are all objects there are

    def without(self, ids: Iterable[str]) -> "Pool":
        """Give what is left; with a grounding its phrases go."""
        gone = set(ids)

        def left(notes: Mapping[str, Any]) -> dict[str, Any]:
            return {name: note for name, note in notes.items() if not gone & {name, name.rpartition(".phrase")[0]}}

        return replace(
            self,
            texts=left(self.texts),
            regions=left(self.regions),
            groundings=left(self.groundings),
            phrases=left(self.phrases),
            questions=left(self.questions),
        )


def pool(layers: Mapping[str, Notes]) -> Pool:
    """Gather the notes of one image.

    layers    name of each layer and what it says. Of layers that were fused give the fused one alone: two layers
              that say the same would be duplicates of one another.
    """
    kinds: dict[str, dict] = {"texts": {}, "regions": {}, "groundings": {}, "questions": {}}
    phrases: dict[str, Phrase] = {}
    for layer, notes in layers.items():
        for name, note in numbered(layer, notes):
            if isinstance(note, PairNote):  # a prompt and its answer, as someone wants them: there is no rule for these
                continue
            kinds[FIELDS[type(note)]][name] = note
            if isinstance(note, GroundingNote):
                for phrase_id, phrase in zip(phrase_ids(name, note), note.phrases, strict=True):
                    phrases[phrase_id] = Phrase(phrase, note.text, note.origin)
    return Pool(**kinds, phrases=phrases, lists_objects=any("objects" in notes.whole for notes in layers.values()))


# ---- what says nothing


def drop_empty(notes: Pool) -> list[Verdict]:
    """Drop texts without a letter or digit, and regions and phrases without a sound place."""
    found = []
    for name, text in notes.texts.items():
        if not plain_text(text.text):
            found.append(Verdict(name, "empty", f"text {text.text!r} has no word"))
    for name, region in notes.regions.items():
        if not _sound(region.bounds):
            found.append(Verdict(name, "empty", "no place, or one without an area"))
    for name, phrase in notes.phrases.items():
        if not plain_text(phrase.note.phrase) or not phrase.note.boxes or not all(map(_sound, phrase.note.boxes)):
            found.append(Verdict(name, "empty", "no word, or a place without an area"))
    for name, question in notes.questions.items():
        if not plain_text(question.question) or not any(map(plain_text, question.answers)):
            found.append(Verdict(name, "empty", "no question, or no answer"))
    return found


def _sound(box: Box | None) -> bool:
    return box is not None and all(map(math.isfinite, box)) and box.x1 > box.x0 and box.y1 > box.y0


# ---- scores


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Least scores. What has no score was said by people, or is certain, and stays."""

    objects: float = 0.3
    words: float = 0.3  # after fusing, a word that one of two readers is sure of has half of its score
    texts: float = 0.0
    phrases: float = 0.3
    questions: float = 0.0
    # Instead of these: by class "person", by source "detr", or by both, "detr: person"; the most exact one counts. A
    # source is the origin's source or its model.
    exact: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in ("objects", "words", "texts", "phrases", "questions")}
        for name, value in {**values, **self.exact}.items():
            if not 0 <= value <= 1:
                raise BadConfig(f"least score of {name!r} is {value}; allowed are 0 to 1")

    def least(self, default: float, origin: Origin, label: str = "") -> float:
        """Give the threshold of one note."""
        sources = [name for name in (origin.source, origin.model) if name]
        keys = [f"{source}: {label}" for source in sources if label] + [label] * bool(label) + sources
        return next((self.exact[key] for key in keys if key in self.exact), default)


def drop_unsure(notes: Pool, settings: ScoreSettings) -> list[Verdict]:
    """Drop what its own source is not sure of."""
    found: list[Verdict] = []

    def look(name: str, score: float | None, least: float) -> None:
        if score is not None and score < least:
            found.append(Verdict(name, "score", f"score {score:.4f} is below {least:g}", score))

    for name, text in notes.texts.items():
        look(name, text.score, settings.least(settings.texts, text.origin))
    for name, region in notes.regions.items():
        default = settings.words if is_word(region) else settings.objects
        look(name, region.score, settings.least(default, region.origin, region.label))
    for name, phrase in notes.phrases.items():
        look(name, phrase.note.score, settings.least(settings.phrases, phrase.origin))
    for name, question in notes.questions.items():
        look(name, question.score, settings.least(settings.questions, question.origin))
    return found


def is_word(note: RegionNote) -> bool:
    """True for printed text: it has a word and no label."""
    return bool(note.word.strip()) and not note.label.strip()


# ---- sizes


_LINE = 2  # longer side over shorter side of an image that may be one line of text


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """How large regions may be, and where."""

    least_px: float = 4.0  # of the shorter side of the box around a region
    # Of the image: more is the image itself. A word may be it, where the image has the shape of a line; in others, half
    # of what a reader found on blood cells was a "0" or an "8" as large as the picture.
    largest_share: float = 0.98
    longest: float = 20.0  # longer side over shorter side; words are exempt, for lines are long
    edge_px: float = 1.5  # so near to an edge of the image a region touches it
    sliver_share: float = 0.02  # of the side: what touches an edge and reaches no further in is an artefact of it

    def __post_init__(self) -> None:
        sound = 0 < self.largest_share <= 1 and self.longest >= 1 and 0 <= self.sliver_share < 0.5
        if not sound or self.least_px < 0 or self.edge_px < 0:
            raise BadConfig(f"{self} leaves its range: shares are 0 to 1 (a sliver below 0.5), longest at least 1")


def drop_misshapen(notes: Pool, image_wh: tuple[int, int], settings: SizeSettings) -> list[Verdict]:
    """Drop regions that are too small, too large, too long, or mere slivers along an edge."""
    found = []
    for name, region in notes.regions.items():
        box = region.bounds
        if box is not None:
            seen = _misshapen(box, image_wh, settings, is_word(region))
            found += [Verdict(name, *seen)] if seen else []
    return found


def _misshapen(
    box: Box, image_wh: tuple[int, int], settings: SizeSettings, word: bool
) -> tuple[str, str, float] | None:
    """Name the rule, the reason and the value."""
    width, height = box.x1 - box.x0, box.y1 - box.y0
    short, long = sorted((width, height))
    share = width * height / (image_wh[0] * image_wh[1])
    if short < settings.least_px:
        return "small", f"{width:.1f} x {height:.1f} px; a side is at least {settings.least_px:g}", short
    is_line = max(image_wh) >= _LINE * min(image_wh)
    if share > settings.largest_share and not (word and is_line):
        return "large", f"covers {share:.1%} of the image; at most {settings.largest_share:.1%}", share
    depth = _depth(box, image_wh, settings.edge_px)
    if depth < settings.sliver_share:
        return (
            "border",
            f"reaches {depth:.1%} into the image from its edge; at least {settings.sliver_share:.1%}",
            depth,
        )
    if not word and long > settings.longest * short:
        return "aspect", f"{long / short:.1f} times as long as wide; at most {settings.longest:g}", long / short
    return None


def _depth(box: Box, image_wh: tuple[int, int], near: float) -> float:
    """How far a box reaches in from the edge it touches, as a share of that side; 1 when it touches none."""
    depths = [1.0]
    for low, high, side in ((box.x0, box.x1, image_wh[0]), (box.y0, box.y1, image_wh[1])):
        if low <= near:
            depths.append(high / side)
        if high >= side - near:
            depths.append((side - low) / side)
    return min(depths)


# ---- duplicates


@dataclass(frozen=True, kw_only=True)
class NmsSettings:
    """From which overlap on two regions are one, as intersection over union; 1 turns a rule off."""

    same: float = 0.6  # of one class, by boxes
    same_outline: float = 0.5  # of one class, by outlines where both have them: these tell neighbours apart
    words: float = 0.5  # two readings of one place
    any_class: float = 0.85  # of different classes: one thing is not two things

    def __post_init__(self) -> None:
        for name in ("same", "same_outline", "words", "any_class"):
            if not 0 < getattr(self, name) <= 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; allowed are overlaps above 0, up to 1")


def drop_doubles(notes: Pool, settings: NmsSettings) -> list[Verdict]:
    """Suppress regions that a surer one stands for: class by class, then across classes where they nearly coincide.

    What has no score comes first, then by score, then in order. Crowds suppress nothing and are not suppressed. Words
    and things are never the same.
    """
    names = [name for name, note in notes.regions.items() if note.bounds is not None and not note.crowd]
    ranked = sorted(names, key=lambda name: _rank(notes.regions[name].score))
    regions = [notes.regions[name] for name in ranked]
    boxes = [box for region in regions if (box := region.bounds) is not None]
    overlaps = box_iou(boxes, boxes)
    kept: list[int] = []
    found = []
    for place, region in enumerate(regions):
        for other in kept:
            if overlaps[place, other] <= 0:
                continue
            limit, overlap = _limit(region, regions[other], float(overlaps[place, other]), settings)
            if overlap >= limit < 1:
                shared = f"{overlap:.2f} of it and {ranked[other]} is shared; from {limit:g} on they are one"
                found.append(Verdict(ranked[place], "nms", shared, overlap))
                break
        else:
            kept.append(place)
    return found


def _rank(score: float | None) -> float:
    """Surest first; what has no score is certain."""
    return -2.0 if score is None else -score


def _limit(one: RegionNote, other: RegionNote, boxes: float, settings: NmsSettings) -> tuple[float, float]:
    """From which overlap on these two are one, and their overlap."""
    if is_word(one) != is_word(other):
        return 1.0, 0.0
    if is_word(one):
        return settings.words, region_overlap(one, other)
    outlined = bool(one.polygons and other.polygons)
    overlap = region_overlap(one, other) if outlined else boxes
    if class_of(one) != class_of(other):
        return settings.any_class, overlap
    return (settings.same_outline if outlined else settings.same), overlap


def class_of(note: RegionNote) -> str:
    """Say what a region is of: its label, without one its description."""
    return plain_text(note.label or note.description)


# ---- words


@dataclass(frozen=True, kw_only=True)
class BlacklistSettings:
    """Phrases that name nothing one could point at."""

    phrases: frozenset[str] = NOT_GROUNDED | PARTS | INTANGIBLE  # whole, with or without an article, in small letters
    heads: frozenset[str] = INTANGIBLE  # whatever describes them: "a plain gray background"


_ARTICLES = ("a", "an", "the")


def drop_blacklisted(notes: Pool, settings: BlacklistSettings) -> list[Verdict]:
    """Drop phrases, labels and descriptions on the blacklist: pronouns, abstract concepts."""
    said = {name: phrase.note.phrase for name, phrase in notes.phrases.items()}
    said |= {name: note.label or note.description for name, note in notes.regions.items() if not is_word(note)}
    return [
        Verdict(name, "blacklist", f"{phrase!r} names nothing to point at: {word!r}")
        for name, phrase in said.items()
        if (word := blacklisted(phrase, settings))
    ]


def blacklisted(phrase: str, settings: BlacklistSettings) -> str:
    """Give the part of a phrase that is on the blacklist; "" when none is."""
    plain = plain_text(phrase)
    words = plain.split()
    bare = words[1:] if len(words) > 1 and words[0] in _ARTICLES else words
    for whole in (plain, " ".join(bare)):
        if whole in settings.phrases:
            return whole
    end = next((place for place, word in enumerate(bare) if place and word in PREPOSITIONS), len(bare))
    head = bare[end - 1] if bare else ""
    return head if head in settings.heads else ""


# ---- texts


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """The text filter: how much a text may and must say. The limits on objects are three times the report's means."""

    most_objects: Mapping[Level, int] = field(
        default_factory=lambda: {"brief": 10, "detailed": 40, "more_detailed": 85}
    )
    least_objects: int = 1
    object_complexity: int = 1  # degree of the best connected object; 1: it hangs together with something
    action_complexity: int = 0  # of the best connected action; 0: a text may be without one
    parser: ParseSettings = DEFAULT_PARSE


def drop_poor_texts(notes: Pool, settings: TextSettings) -> list[Verdict]:
    """Drop texts, and groundings of texts, that name too much or too little, or say too little of it."""
    listed: list[tuple[str, TextNote | GroundingNote]] = [*notes.texts.items(), *notes.groundings.items()]
    return [
        Verdict(name, "complexity", *why) for name, note in listed if (why := _poor(note.text, note.level, settings))
    ]


def _poor(text: str, level: Level, settings: TextSettings) -> tuple[str, float] | None:
    parsed = parse(text, settings.parser)
    objects, most = len(parsed.objects), settings.most_objects.get(level)
    if most is not None and objects > most:
        return f"{objects} objects; a {level} text has at most {most}", objects
    for what, seen, least in (
        ("objects", objects, settings.least_objects),
        ("object complexity", parsed.object_complexity, settings.object_complexity),
        ("action complexity", parsed.action_complexity, settings.action_complexity),
    ):
        if seen < least:
            return f"{what} {seen}; at least {least}", seen
    return None


def drop_repeated(notes: Pool) -> list[Verdict]:
    """Drop texts of one level, and questions with their answers, that say what one before says; the surest stays."""
    said: list[tuple[str, float | None, Sequence[str]]] = [
        (name, note.score, (note.level, plain_text(note.text))) for name, note in notes.texts.items()
    ]
    said += [
        (name, note.score, ("?", plain_text(note.question), *map(plain_text, note.answers)))
        for name, note in notes.questions.items()
    ]
    said.sort(key=lambda row: _rank(row[1]))
    first: dict[Sequence[str], str] = {}
    found = []
    for name, _, words in said:
        before = first.setdefault(words, name)
        if before != name:
            found.append(Verdict(name, "same text", f"says what {before} says"))
    return found
