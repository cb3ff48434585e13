"""What the words of a record allow to be done to its image: sides, places, colours, things that are read. English.

Words are looked for as whole words, in any case. A word that means something else here, as "left" in "he left", costs
at most a change that was not made, or a wrong word where it says "left" of no side; the commonest of those are listed.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from openflorence.contract.records import GroundingNote, PhraseNote, Record, RegionNote
from openflorence.data.words import COLOURS, GROUNDS

_SIDES = {"left": "right", "leftmost": "rightmost", "leftward": "rightward", "leftwards": "rightwards"}
_SIDES |= {"lefthand": "righthand", "lefty": "righty"}
_OTHER_SIDE = _SIDES | {right: left for left, right in _SIDES.items()}


def _any_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in words.split())})\b", re.IGNORECASE)


_SIDE = _any_of(" ".join(_OTHER_SIDE))
# Where "left" and "right" name no side, so that a mirrored image would be described wrongly by either word.
_NO_SIDE = re.compile(
    r"\bright (?:next|now|in front|behind|beside|above|below|under|underneath|after|before|away|over|there|here|out|"
    r"angles?|up)\b|\b(?:all|just|that's) right\b|\bleft (?:over|overs|alone|behind|open|out|unattended)\b",
    re.IGNORECASE,
)
# What looks otherwise in a mirror and is not mended by swapping sides.
_MIRRORED = _any_of("clockwise counterclockwise anticlockwise o'clock mirrored east west eastern western")
# A text that speaks of printed words, though the record has no place for them.
_READING = _any_of(
    "text texts word words letter letters number numbers digit digits say says said read reads reading written writing "
    "spell spells spelled spelt brand logo title name time license licence plate date price sign signs"
)
_PLACES = _any_of(
    "left right leftmost rightmost top bottom upper lower centre center middle corner edge side background foreground "
    "closest nearest furthest farthest far near"
)
_COLOUR = _any_of(
    " ".join((*COLOURS, *GROUNDS))
    + " grey gray brown pink violet cyan magenta turquoise beige gold golden silver maroon navy teal tan cream blond "
    "blonde reddish greenish bluish yellowish brownish grayish greyish colored coloured colorful colourful color "
    "colour colors colours dark bright light pale black-and-white monochrome sepia sunny cloudy night dusk dawn sunset"
)


def texts_of(record: Record) -> Iterator[str]:
    """Give everything that a record says in words, but for what is printed in its image."""
    for region in record.regions:
        yield from (region.label, region.description, *region.expressions)
    yield from image_texts(record)


def image_texts(record: Record) -> Iterator[str]:
    """Give the texts that speak of the image as a whole."""
    yield from (note.text for note in record.texts)
    for grounding in record.groundings:
        yield from (grounding.text, *(phrase.phrase for phrase in grounding.phrases))
    for question in record.questions:
        yield from (question.question, *question.answers)
    for pair in record.pairs:
        yield from (pair.prefix, pair.suffix)


def names_colours(record: Record) -> bool:
    """True when a text, label, description or question names a colour or the light."""
    return any(_COLOUR.search(text) for text in texts_of(record))


def names_places(record: Record) -> bool:
    """True when a text says where in the image something is."""
    return any(_PLACES.search(text) for text in texts_of(record))


def can_mirror(record: Record) -> bool:
    """True when mirror_words says the truth about the mirrored image.

    Not so with printed words, with pairs, whose meaning is not known, with a label that names a side ("left shoe"),
    and with a text that speaks of reading, or of what turns otherwise in a mirror.
    """
    if record.pairs or any(note.word or note.quad for note in record.regions):
        return False
    if any(_SIDE.search(note.label) for note in record.regions):
        return False
    texts = list(texts_of(record))
    return not any(seen.search(text) for text in texts for seen in (_NO_SIDE, _MIRRORED, _READING))


def swap_sides(text: str) -> str:
    """Swap left and right: whole words, in the case they were written in."""
    return _SIDE.sub(lambda found: _in_case(_OTHER_SIDE[found[0].lower()], found[0]), text)


def _in_case(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word


def mirror_words(record: Record) -> Record:
    """Swap the sides in all that a record says, pairs and printed words excepted; phrases stay in their texts."""
    return replace(
        record,
        texts=tuple(replace(note, text=swap_sides(note.text)) for note in record.texts),
        regions=tuple(map(_mirror_region, record.regions)),
        groundings=tuple(map(_mirror_grounding, record.groundings)),
        questions=tuple(
            replace(note, question=swap_sides(note.question), answers=tuple(map(swap_sides, note.answers)))
            for note in record.questions
        ),
    )


def _mirror_region(note: RegionNote) -> RegionNote:
    expressions = tuple(map(swap_sides, note.expressions))
    return replace(note, description=swap_sides(note.description), expressions=expressions)


def _mirror_grounding(note: GroundingNote) -> GroundingNote:
    text = swap_sides(note.text)

    def moved(place: int) -> int:
        """Where a place between two characters of the text is, now that words before it are longer or shorter."""
        ends = (found.end() for found in _SIDE.finditer(note.text) if found.end() <= place)
        return place + sum(len(swap_sides(note.text[:end])) - end for end in list(ends)[-1:])

    def phrase(one: PhraseNote) -> PhraseNote:
        if one.span is None:
            return replace(one, phrase=swap_sides(one.phrase))
        first, last = moved(one.span[0]), moved(one.span[1])
        as_written = note.text[one.span[0] : one.span[1]] == one.phrase
        return replace(one, phrase=text[first:last] if as_written else swap_sides(one.phrase), span=(first, last))

    return replace(note, text=text, phrases=tuple(map(phrase, note.phrases)))
