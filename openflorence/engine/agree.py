"""Kinds of notes held against each other: places of phrases and regions, what texts name and regions show, words and
pixels.

The last is our stand-in for the report's region scorer, which is not published: the network's own likelihood of a text
about a place, against the same text about the same place of a blank image.

    fits = score_texts(model, picture, [(box, ("fish", "small red fish", "blue house"))])
    fits[0][1].total        # nats that the image speaks for "small red fish" there
    fits[0][2].least        # of the word it speaks for least: below 0 here

Source: Florence-2 report, section 4.2, selection of region texts; Grounding DINO's boxes against a detector's are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from openflorence.contract.locations import points_to_bins, spell_all
from openflorence.contract.overlaps import box_iou
from openflorence.contract.prompts import fill_sentence
from openflorence.contract.records import RegionNote
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import find_task
from openflorence.data.notes import Verdict
from openflorence.engine.duplicates import plain_text
from openflorence.engine.filters import Pool, is_word
from openflorence.engine.parse import DEFAULT_PARSE, Parse, ParseSettings, parse
from openflorence.errors import BadConfig
from openflorence.model.predict import Florence
from openflorence.model.presence import Row, least_gain, score_answers, word_numbers

# What people are called, for detectors that know only persons.
_NAMES = ("man", "woman", "boy", "girl", "child", "kid", "baby", "guy", "lady", "player", "people", "rider")
PEOPLE = dict.fromkeys(_NAMES, "person")


@dataclass(frozen=True, kw_only=True)
class AgreeSettings:
    """What kinds of notes have to agree in. Where nobody looked nothing is held against a note."""

    support: float | None = 0.5  # least overlap of a phrase's box with some region; None: not asked for
    named: bool = False  # that region must also bear the name: for labels that are the words of the texts
    # What the detector can name: a text that names one of these which no region shows is dropped. Empty: not asked for.
    vocabulary: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=lambda: dict(PEOPLE))  # word of a text -> of the vocabulary
    likelihood: float | None = 0.0  # least gain of a region's text over a blank image, in nats; where one was measured
    parser: ParseSettings = DEFAULT_PARSE

    def __post_init__(self) -> None:
        if self.support is not None and not 0 < self.support <= 1:
            raise BadConfig(f"support is {self.support}; allowed are overlaps above 0 up to 1, or None")


# ---- phrases and regions


def drop_unsupported(notes: Pool, settings: AgreeSettings, seen: Mapping[str, RegionNote]) -> list[Verdict]:
    """Drop phrases of which some box is no region's. Nothing, where no region was noted and none was ruled out.

    seen      all regions that anyone saw, also those that were dropped: two who are unsure of the same agree.
    """
    regions = [note for note in seen.values() if note.bounds is not None and not is_word(note)]
    if settings.support is None or not (regions or notes.lists_objects):
        return []
    found = []
    boxes = [box for note in regions if (box := note.bounds) is not None]
    for name, phrase in notes.phrases.items():
        fits = [settings.named is False or _bears(note, phrase.note.phrase, settings) for note in regions]
        overlaps = box_iou(phrase.note.boxes, boxes)
        best = [max((o for o, fit in zip(row, fits, strict=True) if fit), default=0.0) for row in overlaps.tolist()]
        least = min(best, default=0.0)
        if least < settings.support:
            place = phrase.note.boxes[best.index(least)]
            shown = ", ".join(f"{value:.0f}" for value in place)
            reason = f"no region supports {phrase.note.phrase!r} at {shown}: overlap {least:.2f}"
            found.append(Verdict(name, "unsupported", f"{reason} is below {settings.support:g}", least))
    return found


def _bears(note: RegionNote, phrase: str, settings: AgreeSettings) -> bool:
    """Whether the label of a region is the name of what a phrase is about: of its first object."""
    parsed = parse(phrase, settings.parser)
    names = parsed.name(parsed.objects[0]) if parsed.objects else (plain_text(phrase),)
    known = {settings.synonyms.get(name, name) for name in (*names, *parsed.words(parsed.objects[:1]))}
    label = plain_text(note.label)
    return label in known or settings.synonyms.get(label, label) in known


# ---- texts and regions


def drop_unshown(notes: Pool, settings: AgreeSettings, seen: Mapping[str, RegionNote]) -> list[Verdict]:
    """Drop texts that name a thing of the vocabulary which no region shows.

    seen      all regions that anyone saw, as for `drop_unsupported`.
    """
    shown = {plain_text(note.label) for note in seen.values() if note.label}
    if not settings.vocabulary or not (shown or notes.lists_objects):
        return []
    shown |= {settings.synonyms.get(label, label) for label in shown}
    found = []
    for name, note in notes.texts.items():
        missing = [one for one in named_things(note.text, settings) if one not in shown]
        if missing:
            found.append(Verdict(name, "unshown", f"names {missing[0]!r}, which no region shows", len(missing)))
    return found


def named_things(text: str, settings: AgreeSettings) -> tuple[str, ...]:
    """Give the words of the vocabulary that a text names, each once, the longest that fit: "hot dog", not "dog".

    Words in capitals are what a sign says, and name nothing: "a sign that says FISH".
    """
    parsed = parse(text, settings.parser)
    known = {plain_text(word) for word in settings.vocabulary}
    found = []
    for place in parsed.objects:
        if len(word := parsed.tokens[place].text) > 1 and word.isupper():
            continue
        names = [either for name in parsed.name(place) for either in (name, settings.synonyms.get(name, name))]
        found += [name for name in names if name in known][:1]
    return tuple(dict.fromkeys(found))


# ---- words and pixels


class Fit(NamedTuple):
    """How much likelier an image makes a text about a place than a blank image does, in nats."""

    total: float  # over all tokens: the greater of two texts says more that is true
    least: float  # of the word that gains least: what is wrong in "blue fish" at a red one


def score_texts(model: Florence, picture: Any, asked: Sequence[tuple[Box, Sequence[str]]]) -> list[tuple[Fit, ...]]:
    """Score texts about places of one picture by teacher forcing: what `describe_region` would say.

    picture   anything `Florence.open` takes.
    asked     a place in pixels of the upright picture, and texts about it.
    returns   one Fit for each text, in order.
    """
    view = model.open(picture)
    text = model.checkpoint.text
    rows: list[Row] = []
    for box, texts in asked:
        words = spell_all(points_to_bins(((box.x0, box.y0), (box.x1, box.y1)), view.image_wh))
        prompt = fill_sentence(find_task("describe_region"), words)
        for one in texts:
            ids = tuple(text.encode(one.strip())[1:-1])
            rows += [Row(image, prompt, ids) for image in (0, 1)]
    if not rows:
        return [() for _ in asked]
    with model.runner.at_rest():
        images = torch.stack([view.image_tokens, model.runner.blank_tokens()])
        scores = score_answers(model.network, text, images, rows)
    fits = iter(
        [
            Fit(sum(here) - sum(blank), least_gain(here, blank, word_numbers(text, row.answer)))
            for row, here, blank in zip(rows[::2], scores[::2], scores[1::2], strict=True)
        ]
    )
    return [tuple(next(fits) for _ in texts) for _, texts in asked]


def likelihoods(model: Florence, picture: Any, regions: Mapping[str, RegionNote]) -> dict[str, float]:
    """Say of every region how far the network believes what is said of it: the least gain of a word, in nats.

    regions   by id; of each the description counts, without one the label. Words and bare places have no score.
    """
    said = {
        name: (box, (note.description or note.label,))
        for name, note in regions.items()
        if (box := note.bounds) is not None and plain_text(note.description or note.label) and not is_word(note)
    }
    return {
        name: fits[0].least for name, fits in zip(said, score_texts(model, picture, list(said.values())), strict=True)
    }


def candidates(note: RegionNote, settings: ParseSettings = DEFAULT_PARSE) -> tuple[str, ...]:
    """List what a region may be called: its label, its description, and the noun phrases in that.

    source    Florence-2 report, section 4.2: category phrase, brief text, noun chunks of the brief text.
    """
    parsed: Parse = parse(note.description, settings)
    chunks = [parsed.name(place)[0] for place in parsed.objects]
    return tuple(dict.fromkeys(text for text in (note.label, note.description, *chunks) if plain_text(text)))


def choose_texts(model: Florence, picture: Any, asked: Sequence[tuple[Box, Sequence[str]]]) -> list[str]:
    """Choose for every place the text that the picture speaks for most; "" where there was none to choose from."""
    return [
        max(zip(fits, texts, strict=True), key=lambda pair: pair[0].total)[1] if texts else ""
        for fits, (_, texts) in zip(score_texts(model, picture, asked), asked, strict=True)
    ]


def drop_unlikely(notes: Pool, settings: AgreeSettings, measured: Mapping[str, float]) -> list[Verdict]:
    """Drop regions whose text the picture speaks against, among those that were measured by `likelihoods`."""
    least = settings.likelihood
    if least is None:
        return []
    return [
        Verdict(name, "unlike", f"the picture speaks against what is said: {value:.2f} nats, below {least:g}", value)
        for name in notes.regions
        if (value := measured.get(name)) is not None and value < least
    ]
