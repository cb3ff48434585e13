"""One annotated image: everything that is known about it, and where each piece came from.

A Record is what every foreign format is read into, what the store keeps, the data engine adds to, and what training
targets are made of. It says what is in the picture, not how a task is worded: `data/targets.py` does that. Geometry is
in pixels of the upright original, as read: `data/cleaning.py` says what is usable.
Source: the three annotation kinds of the Florence-2 report, section 4: text, region-text, text-phrase-region.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from openflorence.contract.regions import Answer
from openflorence.contract.shapes import Box, Point, Polygon, Quad
from openflorence.contract.tasks import Task
from openflorence.errors import BadRecord

Level = Literal["brief", "detailed", "more_detailed"]  # the three granularities of a text
Whole = Literal["objects", "words"]  # what a record may list completely

LEVELS: tuple[Level, ...] = get_args(Level)
WHOLES: tuple[Whole, ...] = get_args(Whole)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an annotation came from. All empty: not known."""

    source: str = ""  # data set, specialist or person: "coco", "drawn", "rapidocr"
    model: str = ""  # name of the model that said it; "" for people
    version: str = ""  # of the data set or model
    round: int = 0  # of the data engine; 0 before the first


UNKNOWN = Origin()


@dataclass(frozen=True, kw_only=True)
class TextNote:
    """A text about the whole image."""

    text: str
    level: Level = "brief"
    score: float | None = None  # probability in 0..1; None when nobody gave one
    origin: Origin = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class RegionNote:
    """A place and what is said about it. It has a box, a quad or polygons; several only if they are one place."""

    box: Box | None = None
    quad: Quad | None = None  # of a line of text, from the top left, clockwise in the text's own frame
    polygons: tuple[Polygon, ...] = ()  # the rings of one instance
    label: str = ""  # category: "car"
    description: str = ""  # phrase or sentence: "a green car with round lights"
    word: str = ""  # what is printed there
    expressions: tuple[str, ...] = ()  # that refer to this place and no other: "the car on the left"
    crowd: bool = False  # stands for many instances, as COCO's iscrowd: no target, but no error to find
    score: float | None = None
    origin: Origin = UNKNOWN

    @property
    def points(self) -> tuple[Point, ...]:
        """Every vertex: of the box if it has one, else of the quad, else of the polygons."""
        if self.box is not None:
            return Point(*self.box[:2]), Point(*self.box[2:])
        return self.quad or tuple(point for ring in self.polygons for point in ring)

    @property
    def bounds(self) -> Box | None:
        """The box, or the smallest one around the quad or the polygons; None without geometry."""
        if self.box is not None or not self.points:
            return self.box
        xs, ys = zip(*self.points, strict=True)
        return Box(min(xs), min(ys), max(xs), max(ys))


@dataclass(frozen=True, kw_only=True)
class PhraseNote:
    """A phrase of a text and the places it names."""

    phrase: str  # as it stands in the text
    boxes: tuple[Box, ...]
    span: tuple[int, int] | None = None  # first character and the one after the last, in the text
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroundingNote:
    """A text with its phrases tied to places: text-phrase-region triplets."""

    text: str
    phrases: tuple[PhraseNote, ...]
    level: Level = "brief"
    score: float | None = None
    origin: Origin = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class QuestionNote:
    """A question and what people answered; the same answer as often as it was given."""

    question: str
    answers: tuple[str, ...]
    score: float | None = None
    origin: Origin = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class PairNote:
    """A prompt and its answer as they stand, for prompts of one's own; a published task token may open the prompt."""

    prefix: str
    suffix: str
    score: float | None = None
    origin: Origin = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image with all its annotations."""

    image: str  # path or URL; a relative path starts at the folder of the data set
    image_wh: tuple[int, int]  # width, height in pixels of the upright original
    texts: tuple[TextNote, ...] = ()
    regions: tuple[RegionNote, ...] = ()
    groundings: tuple[GroundingNote, ...] = ()
    questions: tuple[QuestionNote, ...] = ()
    pairs: tuple[PairNote, ...] = ()
    # What `regions` lists completely: "objects" of the known categories, "words" that are printed. Without it, that
    # nothing is noted of a kind does not mean that there is nothing, and "find everything" is not asked.
    whole: frozenset[Whole] = frozenset()

    @property
    def is_empty(self) -> bool:
        """True when nothing can be asked: no note, and no promise that there is nothing."""
        return not (self.texts or self.regions or self.groundings or self.questions or self.pairs or self.whole)


@dataclass(frozen=True)
class Example:
    """One thing to ask about an image, and the right answer."""

    task: Task
    text: str | None  # what is asked with the task: a caption, a phrase, a question
    region: Box | None  # or the region that is asked about
    answer: Answer


# ---- as plain values, and back

_NOTES: dict[str, type] = {
    "texts": TextNote,
    "regions": RegionNote,
    "groundings": GroundingNote,
    "questions": QuestionNote,
    "pairs": PairNote,
}


def record_to_row(record: Record) -> dict[str, Any]:
    """Give a record as plain values for JSON; fields that say nothing are left out."""
    row: dict[str, Any] = {"image": record.image, "image_wh": list(record.image_wh)}
    for name in _NOTES:
        notes = [_plain(note) for note in getattr(record, name)]
        if notes:
            row[name] = notes
    return row | ({"whole": sorted(record.whole)} if record.whole else {})


def record_from_row(row: Mapping[str, Any]) -> Record:
    """Read what record_to_row gave.

    raises    BadRecord naming the field that does not fit.
    promise   record_from_row(record_to_row(record)) == record, for coordinates that JSON can hold.
    """
    unknown = sorted(set(row) - {"image", "image_wh", "whole", *_NOTES})
    if unknown:
        raise BadRecord(f"a record has no field {unknown[0]!r}; it has image, image_wh, whole, {', '.join(_NOTES)}")
    image, size, whole = row.get("image"), row.get("image_wh"), row.get("whole", [])
    if not isinstance(image, str) or not image:
        raise BadRecord(f"image is {image!r}; give a path or URL")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise BadRecord(f"image_wh is {size!r}; give [width, height] in pixels")
    if not isinstance(whole, list) or not set(whole) <= set(WHOLES):
        raise BadRecord(f"whole is {whole!r}; give a list of {', '.join(WHOLES)}")
    notes: dict[str, Any] = {}
    for name, kind in _NOTES.items():
        entries = row.get(name, [])
        if not isinstance(entries, list):
            raise BadRecord(f"{name} is {entries!r}; give a list")
        notes[name] = tuple(_note(kind, entry, f"{name}[{place}]") for place, entry in enumerate(entries))
    return Record(image=image, image_wh=(size[0], size[1]), whole=frozenset(whole), **notes)


def _plain(note: Any) -> dict[str, Any]:
    """A note without the fields that are as they are by themselves."""
    kept: dict[str, Any] = {}
    for field in fields(note):
        value = getattr(note, field.name)
        if value == field.default:
            continue
        if isinstance(value, Origin):
            kept[field.name] = {name: part for name, part in vars(value).items() if part != getattr(UNKNOWN, name)}
        elif field.name == "phrases":
            kept[field.name] = [_plain(phrase) for phrase in value]
        else:
            kept[field.name] = value
    return kept


def _note(kind: type, entry: Any, where: str) -> Any:
    """Build a note from plain values, checked field by field."""
    if not isinstance(entry, Mapping):
        raise BadRecord(f"{where} is {entry!r}; give an object")
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(entry) - known)
    if unknown:
        raise BadRecord(f"{where} has a field {unknown[0]!r}; a {kind.__name__} has {', '.join(sorted(known))}")
    try:
        return kind(**{name: _READERS[name](value, f"{where}.{name}") for name, value in entry.items()})
    except TypeError as error:  # a field without which there is no note
        raise BadRecord(f"{where} is not whole: {error}") from error


def _words(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"{where} is {value!r}; give a text")
    return value


def _all_words(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise BadRecord(f"{where} is {value!r}; give a list of texts")
    return tuple(_words(item, where) for item in value)


def _numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    fits = isinstance(value, list | tuple) and len(value) == count
    if not fits or not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        raise BadRecord(f"{where} is {value!r}; give {count} numbers in pixels")
    return tuple(float(item) for item in value)


def _box(value: Any, where: str) -> Box:
    return Box(*_numbers(value, 4, where))


def _boxes(value: Any, where: str) -> tuple[Box, ...]:
    if not isinstance(value, list | tuple):
        raise BadRecord(f"{where} is {value!r}; give a list of boxes")
    return tuple(_box(item, where) for item in value)


def _ring(value: Any, where: str) -> Polygon:
    if not isinstance(value, list | tuple):
        raise BadRecord(f"{where} is {value!r}; give a list of points")
    return tuple(Point(*_numbers(item, 2, where)) for item in value)


def _quad(value: Any, where: str) -> Quad:
    points = _ring(value, where)
    if len(points) != 4:
        raise BadRecord(f"{where} has {len(points)} points; give four")
    return points[0], points[1], points[2], points[3]


def _rings(value: Any, where: str) -> tuple[Polygon, ...]:
    if not isinstance(value, list | tuple):
        raise BadRecord(f"{where} is {value!r}; give a list of rings")
    return tuple(_ring(item, where) for item in value)


def _phrases(value: Any, where: str) -> tuple[PhraseNote, ...]:
    if not isinstance(value, list | tuple):
        raise BadRecord(f"{where} is {value!r}; give a list of phrases")
    return tuple(_note(PhraseNote, item, f"{where}[{place}]") for place, item in enumerate(value))


def _span(value: Any, where: str) -> tuple[int, int]:
    first, after = _numbers(value, 2, where)
    return int(first), int(after)


def _level(value: Any, where: str) -> Level:
    if value not in LEVELS:
        raise BadRecord(f"{where} is {value!r}; allowed: {', '.join(LEVELS)}")
    level: Level = value
    return level


def _score(value: Any, where: str) -> float:
    score = _numbers([value], 1, where)[0]
    if not 0 <= score <= 1:
        raise BadRecord(f"{where} is {score}; a score is a probability, 0 to 1")
    return score


def _crowd(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadRecord(f"{where} is {value!r}; give true or false")
    return value


def _origin(value: Any, where: str) -> Origin:
    if not isinstance(value, Mapping) or not set(value) <= {field.name for field in fields(Origin)}:
        raise BadRecord(f"{where} is {value!r}; give any of source, model, version, round")
    if not all(isinstance(part, int if name == "round" else str) for name, part in value.items()):
        raise BadRecord(f"{where} is {value!r}; source, model and version are texts, round is a whole number")
    return Origin(**value)


_READERS: dict[str, Any] = {
    **dict.fromkeys(("text", "label", "description", "word", "phrase", "question", "prefix", "suffix"), _words),
    **dict.fromkeys(("expressions", "answers"), _all_words),
    "box": _box,
    "boxes": _boxes,
    "quad": _quad,
    "polygons": _rings,
    "phrases": _phrases,
    "span": _span,
    "level": _level,
    "score": _score,
    "crowd": _crowd,
    "origin": _origin,
}
