"""What a language model is asked: a brief text made detailed from what is known of the regions, several texts made one.

    found = write_detailed(server, "a dog and a ball", regions, image_wh)
    if isinstance(found, Failure): ...                  # refused, malformed, an invented region, over budget: why
    found.text, found.grounding                         # the text, and its phrases tied to the regions

A reply may speak of regions by the numbers that they were given, and of nothing else: a number that was not given, or a
phrase that does not stand in the text, makes the whole reply a Failure. So no place is ever made up: every box of a
result is a box of the question.
Source: Florence-2 report, section 4.1: prompts of brief text and region-text pairs for detailed texts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openflorence.contract.answers import special_token
from openflorence.contract.records import GroundingNote, Level, Origin, PhraseNote, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure
from openflorence.engine.duplicates import plain_text
from openflorence.engine.server import Server
from openflorence.errors import BadConfig

INVENTED = "invented region"  # kind of a failure
SOURCE = "language"  # of the notes
MOST_REGIONS = 40  # told to the model, the largest ones

_WHAT_IS_GIVEN = (
    "You get texts about one picture that you cannot see, and its regions, each with a number, what it shows, and its "
    "place as left, top, right, bottom in percent of the picture. Say only what follows from these: add no thing, "
    "colour, number, action or place that is not given. Write plain English without region numbers or coordinates. "
)
_DETAILED = _WHAT_IS_GIVEN + (
    'Write a detailed description of two to four sentences as "text". In "phrases" list the phrases of your text that '
    "name regions, in order and letter by letter as they stand in it, each with the numbers of its regions."
)
_MERGED = _WHAT_IS_GIVEN + (
    "Several authors described the same picture. Write one text that keeps what they agree on or the regions confirm "
    'as "text"; where one of theirs is right as it stands, give it unchanged. In "from" list the numbers of the texts '
    "you used."
)
_NUMBERS = {"type": "array", "items": {"type": "integer"}}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_DETAILED_FORM = _object(
    text={"type": "string"},
    phrases={"type": "array", "items": _object(phrase={"type": "string"}, regions=_NUMBERS)},
)
_MERGED_FORM = _object(text={"type": "string"}, **{"from": _NUMBERS})

# Numbers that only the prompt knows: no reader of the text has them.
_NUMBERED = re.compile(r"\b(?:regions?|boxe?s?)\s*(?:#|no\.?|number)?\s*\d+|\[\d+\]", re.IGNORECASE)


@dataclass(frozen=True)
class Written:
    """A text by a language model."""

    text: TextNote
    grounding: GroundingNote | None = None  # its phrases and their regions; None when none was named
    used: tuple[int, ...] = ()  # places of the texts that were merged


def write_detailed(
    server: Server,
    brief: str,
    regions: Sequence[RegionNote],
    image_wh: tuple[int, int],
    level: Level = "detailed",
) -> Written | Failure:
    """Write a detailed text from a brief one and regions.

    brief     a sentence about the picture; "" when there is none.
    regions   with labels, descriptions or words; the largest MOST_REGIONS with a place are told.
    image_wh  width and height in pixels of the upright original.
    returns   text and grounding, or why there is none.
    raises    BadConfig without a brief text and without a region: there is nothing to write from.
    promise   every box of the grounding is the box around a region that was given.
    """
    told = tellable(regions)
    if not plain_text(brief) and not told:
        raise BadConfig("a detailed text is written from a brief text or regions; neither was given")
    asked = f"Text:\n1. {brief.strip() or '(none)'}\n\n{_list_regions(told, image_wh)}"
    reply = server.ask(_DETAILED, asked, _DETAILED_FORM)
    if isinstance(reply, Failure):
        return reply
    text, phrases = reply.value.get("text"), reply.value.get("phrases")
    wrong = _wrong_text(text)
    if wrong is not None or not isinstance(text, str):
        return wrong or _malformed("no text")
    tied = _tie(text, phrases, [box for box, _ in told])
    if isinstance(tied, Failure):
        return tied
    origin = _origin(server)
    grounding = GroundingNote(text=text, phrases=tied, level=level, origin=origin) if tied else None
    return Written(TextNote(text=text, level=level, origin=origin), grounding)


def merge_texts(
    server: Server,
    texts: Sequence[str],
    regions: Sequence[RegionNote],
    image_wh: tuple[int, int],
    level: Level = "brief",
) -> Written | Failure:
    """Make one text of several about the same picture, or choose one.

    returns   the text and which ones it was made of, or why there is none.
    raises    BadConfig when there are not two texts.
    """
    if len(texts) < 2:
        raise BadConfig(f"{len(texts)} texts to merge; give at least two")
    listed = "\n".join(f"{place}. {' '.join(text.split())}" for place, text in enumerate(texts, start=1))
    reply = server.ask(_MERGED, f"Texts:\n{listed}\n\n{_list_regions(tellable(regions), image_wh)}", _MERGED_FORM)
    if isinstance(reply, Failure):
        return reply
    text, used = reply.value.get("text"), reply.value.get("from")
    wrong = _wrong_text(text)
    if wrong is not None or not isinstance(text, str):
        return wrong or _malformed("no text")
    if not _are_numbers(used) or not used or not all(1 <= number <= len(texts) for number in used):
        return _malformed(f"made of texts {used!r}; 1 to {len(texts)} were given")
    places = tuple(dict.fromkeys(number - 1 for number in used))
    return Written(TextNote(text=text, level=level, origin=_origin(server)), used=places)


# ---- the question


def tellable(regions: Sequence[RegionNote]) -> list[tuple[Box, str]]:
    """Give boxes and names of the regions that a model can be told of, the largest, in the order they came."""
    named = [(box, _name(note)) for note in regions if (box := note.bounds) is not None and _name(note)]
    largest = sorted(range(len(named)), key=lambda place: -_area(named[place][0]))[:MOST_REGIONS]
    return [named[place] for place in sorted(largest)]


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def _name(note: RegionNote) -> str:
    words = note.description or note.label
    printed = f'printed text "{note.word}"' if note.word else ""
    return " ".join(" with ".join(part for part in (words, printed) if part).split())


def _list_regions(told: Sequence[tuple[Box, str]], image_wh: tuple[int, int]) -> str:
    width, height = image_wh
    lines = ["Regions:"]
    for number, (box, name) in enumerate(told, start=1):
        place = box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height
        lines.append(f"{number}. {name} at {', '.join(str(round(100 * value)) for value in place)}")
    return "\n".join(lines if told else [*lines, "(none)"])


# ---- the reply


def _wrong_text(text: Any) -> Failure | None:
    if not isinstance(text, str) or not plain_text(text):
        return _malformed(f"text is {text!r:.80}; words were asked for")
    token = special_token(text)
    if token:
        return _malformed(f"the text spells the special token {token!r}")
    numbered = _NUMBERED.search(text)
    return Failure(INVENTED, f"the text speaks of {numbered[0]!r}, which only the prompt knows") if numbered else None


def _tie(text: str, phrases: Any, boxes: Sequence[Box]) -> tuple[PhraseNote, ...] | Failure:
    """Tie phrases to the regions they name; a phrase that names none has no place, and is left out."""
    if not isinstance(phrases, list) or not all(isinstance(entry, Mapping) for entry in phrases):
        return _malformed(f"phrases are {phrases!r:.80}; a list of phrases with regions was asked for")
    found: list[PhraseNote] = []
    after = 0
    for entry in phrases:
        phrase, numbers = entry.get("phrase"), entry.get("regions")
        if not isinstance(phrase, str) or not plain_text(phrase) or not _are_numbers(numbers):
            return _malformed(f"phrase {entry!r:.120} is not words and numbers of regions")
        made_up = [number for number in numbers if not 1 <= number <= len(boxes)]
        if made_up:
            return Failure(INVENTED, f"{phrase!r} is tied to region {made_up[0]}; there are {len(boxes)}")
        start = text.find(phrase, after)
        start = text.find(phrase) if start < 0 else start
        if start < 0:
            return _malformed(f"phrase {phrase!r} does not stand in the text")
        after = start + len(phrase)
        places = tuple(dict.fromkeys(boxes[number - 1] for number in numbers))
        found += [PhraseNote(phrase=phrase, boxes=places, span=(start, after))] if places else []
    return tuple(found)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _malformed(message: str) -> Failure:
    return Failure("malformed", message)


def _origin(server: Server) -> Origin:
    return Origin(source=SOURCE, model=server.settings.model)
