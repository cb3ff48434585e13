"""Detailed texts from a brief one and regions, by a template: for rounds without a language model, and for images that
no network has described at length.

detailed        BRIEF. There are two dogs and a ball. The text "EXIT" can be read.
more_detailed   DETAILED A brown dog is on the left. A red ball is in the middle.

Dull, but true where its parts are: nothing is said that no note says. The phrases of each text are tied to the boxes
that they were made of, so that it is a grounding as well. Its score is the lowest of those parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openflorence.contract.lines import reading_order
from openflorence.contract.records import LEVELS, GroundingNote, Level, Origin, PhraseNote, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes, kept_by_all
from openflorence.data.words import NUMBERS, with_article
from openflorence.engine.stages import Context, Row, Stage
from openflorence.engine.votes import fold, place_kind
from openflorence.errors import BadConfig

COMPOSED: tuple[Level, ...] = LEVELS[1:]
MOST_KINDS, MOST_LINES, MOST_PLACES = 8, 4, 6  # named in one text: categories, lines of text, described places

_IRREGULAR = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "foot": "feet"}
_IRREGULAR |= {"tooth": "teeth", "goose": "geese", "knife": "knives", "leaf": "leaves", "shelf": "shelves"}
_IRREGULAR |= {word: word for word in ("sheep", "fish", "deer", "aircraft", "scissors", "skis")}
_ACROSS, _DOWN = ("left", "", "right"), ("top", "", "bottom")


@dataclass(eq=False)
class _Text:
    """A text as it grows, with what its phrases are about."""

    text: str = ""
    phrases: list[PhraseNote] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    def say(self, words: str) -> None:
        self.text += words

    def name(self, phrase: str, notes: Sequence[RegionNote]) -> None:
        start = len(self.text)
        self.text += phrase
        boxes = tuple(box for note in notes if (box := note.bounds) is not None)
        self.phrases.append(PhraseNote(phrase=phrase, boxes=boxes, span=(start, len(self.text))))
        self.scores += [note.score for note in notes]


def compose(notes: Notes, image_wh: tuple[int, int], level: Level, origin: Origin, least: float = 0.5) -> Notes:
    """Write a text of one level from the surest brief text and the regions.

    image_wh  width and height in pixels, for where things are.
    level     "detailed" or "more_detailed".
    least     regions of a lower score are not mentioned; those without one are.
    returns   the text and its grounding; no notes where no region can be mentioned.
    """
    placed = [note for note in notes.regions if note.bounds is not None and not note.crowd]
    sure = [note for note in placed if note.score is None or note.score >= least]
    built = _Text()
    brief = max(
        (note for note in notes.texts if note.level == "brief" and note.text.strip()),
        key=lambda note: (1.0 if note.score is None else note.score, note.text),
        default=None,
    )
    if brief is not None:
        built.say(_sentence(brief.text))
        built.scores.append(brief.score)
    _count(built, [note for note in sure if place_kind(note) == "object"])
    _read(built, [note for note in sure if note.word.strip()])
    if level == "more_detailed":
        _place(built, [note for note in sure if note.description.strip()], image_wh)
    if not built.phrases:
        return Notes()
    scores = [score for score in built.scores if score is not None]
    score, text = min(scores, default=None), built.text.strip()
    grounding = GroundingNote(text=text, phrases=tuple(built.phrases), level=level, score=score, origin=origin)
    return Notes(texts=(TextNote(text=text, level=level, score=score, origin=origin),), groundings=(grounding,))


class Compose(Stage):
    """Writes detailed texts by the template, for images that the needed layers have none for."""

    reads = ()

    def __init__(
        self,
        needs: Sequence[str],
        layer: str = "compose",
        levels: Sequence[Level] = COMPOSED,
        least: float = 0.5,
        round: int = 0,
    ) -> None:
        """Name the layers with texts and regions, which texts to write, and the least score of what they mention."""
        if not set(levels) <= set(COMPOSED) or not levels or not 0 <= least <= 1:
            raise BadConfig(
                f"levels={list(levels)!r}, least={least}; allowed are {', '.join(COMPOSED)}, and scores from 0 to 1"
            )
        self.needs, self.layer, self.levels, self.least = tuple(needs), layer, tuple(levels), least
        self.batch, self.round, self.model, self.revision = 256, round, "template", "1"

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the texts that each image lacks."""
        return [self._compose(row) for row in rows]

    def _compose(self, row: Row) -> Notes:
        parts = [kept_by_all(row.layers, name) for name in sorted(row.layers)]
        told = Notes(
            texts=tuple(note for part in parts for note in part.texts),
            regions=tuple(note for part in parts for note in part.regions),
        )
        there = {note.level for note in told.texts}
        origin = Origin(source="template", version=self.revision, round=self.round)
        made = [
            compose(told, row.image.image_wh, level, origin, self.least) for level in self.levels if level not in there
        ]
        return Notes(
            texts=tuple(note for one in made for note in one.texts),
            groundings=tuple(note for one in made for note in one.groundings),
        )


def _count(built: _Text, objects: Sequence[RegionNote]) -> None:
    """There are two dogs and a ball. The most frequent first, then by name."""
    alike: dict[str, list[RegionNote]] = {}
    for note in objects:
        alike.setdefault(fold(note.label), []).append(note)
    order = sorted(alike, key=lambda label: (-len(alike[label]), label))[:MOST_KINDS]
    if not order:
        return
    built.say(" There are " if len(alike[order[0]]) > 1 else " There is ")
    for place, label in enumerate(order):
        if place:
            built.say(" and " if place == len(order) - 1 else ", ")
        built.name(counted(label, len(alike[label])), alike[label])
    built.say(".")


def _read(built: _Text, words: Sequence[RegionNote]) -> None:
    """The texts "EXIT" and "HOTEL" can be read."""
    lines = reading_order(words, lambda note: note.bounds or Box(0, 0, 0, 0))[:MOST_LINES]
    if not lines:
        return
    built.say(" The text " if len(lines) == 1 else " The texts ")
    for place, note in enumerate(lines):
        if place:
            built.say(" and " if place == len(lines) - 1 else ", ")
        built.name(f'"{note.word.strip()}"', [note])
    built.say(" can be read.")


def _place(built: _Text, described: Sequence[RegionNote], image_wh: tuple[int, int]) -> None:
    """A brown dog is on the left. The largest first."""

    def size(note: RegionNote) -> float:
        x0, y0, x1, y1 = note.bounds or Box(0, 0, 0, 0)
        return (x1 - x0) * (y1 - y0)

    for note in sorted(described, key=lambda note: (-size(note), note.description))[:MOST_PLACES]:
        phrase = note.description.strip().rstrip(".")
        built.say(" ")
        built.name(phrase[:1].upper() + phrase[1:], [note])
        built.say(f" is {where(note.bounds or Box(0, 0, 0, 0), image_wh)}.")


def where(box: Box, image_wh: tuple[int, int]) -> str:
    """Say in which ninth of the picture the middle of a box is: "at the top left", "on the right", "in the middle"."""
    across = _ACROSS[min(max(int(3 * (box.x0 + box.x1) / 2 / image_wh[0]), 0), 2)]
    down = _DOWN[min(max(int(3 * (box.y0 + box.y1) / 2 / image_wh[1]), 0), 2)]
    if down:
        return f"at the {down} {across}".strip()
    return f"on the {across}" if across else "in the middle"


def counted(label: str, count: int) -> str:
    """Name one or several: "a dog", "two buses", "11 people"."""
    if count == 1:
        return with_article(label)
    head, _, last = label.rpartition(" ")
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {head} {_plural(last)}".replace("  ", " ")


def _plural(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
