"""A record -> what can be asked about its image, and the right answers: prompt and target of all tasks.

Task                         is posed from
captions                     texts of their level, also those of groundings
detect, propose              all objects, if the record lists all
dense_caption                regions with a description
read, read_regions           all words, if the record lists all; a box stands for the quad of its corners
ground                       groundings, phrases in the order of the text
segment, segment_region      polygons with an expression; polygons
find                         labels, if the record lists all objects; expressions; now and then what is absent
classify_, describe_region   a label; a description or an expression
read_region                  a word
answer                       questions, and pairs; a pair that opens with a task token is posed as that task

Order, stated once: boxes stand as `Policy.order` says, `find` and `ground` phrase by phrase and so within one; words
in reading order. Rings run clockwise from their topmost and then leftmost vertex, the largest ring first.
A crowd is never in a target. A region that would be written twice in the same words and bins is written once.
Whether a target fits the position table, and reads back as written, `data/budget.py` says.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np

from openflorence.contract.answers import join_labels
from openflorence.contract.prompts import AND, input_of
from openflorence.contract.records import Example, GroundingNote, Level, PhraseNote, Record, RegionNote, TextNote
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box, Point, Quad
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.data.chance import below, chance, pick, shuffled
from openflorence.data.order import Order, in_order, in_reading_order, once, rings_in_order
from openflorence.data.prefixes import pose_pair
from openflorence.errors import BadConfig

_Note = TypeVar("_Note")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How targets are made of records."""

    order: Order = "area"  # of boxes: see data/order.py
    phrases: int = 3  # most phrases of one `find`
    absent_share: float = 0.1  # of the phrases of `find`: names of what is not there, where that is known
    categories: tuple[str, ...] = ()  # every label of the data set, to ask for absent ones; () never asks for them
    min_score: float = 0.0  # notes with a score below are not posed; notes without one are

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise BadConfig(f"order is {self.order!r}; allowed: {', '.join(get_args(Order))}")
        if self.phrases < 1 or not 0 <= self.absent_share <= 1 or not 0 <= self.min_score <= 1:
            raise BadConfig(
                f"phrases={self.phrases}, absent_share={self.absent_share}, min_score={self.min_score}: "
                "allowed are at least 1 phrase, and shares and scores from 0 to 1"
            )


DEFAULT = Policy()


def tasks_of(record: Record, policy: Policy = DEFAULT) -> tuple[str, ...]:
    """Name the tasks that a record can pose, in the order of the task table."""
    paired = {example.task.name for example in _pairs(record, policy)}
    return tuple(name for name in _POSERS if name in paired or _can_pose(record, name, policy))


def pose(record: Record, task: str, rng: np.random.Generator, policy: Policy = DEFAULT) -> Example | None:
    """Pose one task on a record; None if the record cannot pose it.

    rng       chooses what is asked, and among several answers of people, as often as each was given.
    raises    BadRegion or BadPrompt for a record that data/cleaning.py would have mended.
    promise   the example depends on the record, the task, the policy and the state of rng alone.
    """
    name = find_task(task).name
    paired = [example for example in _pairs(record, policy) if example.task.name == name]
    choices = _POSERS[name].choices(record, policy)
    can_find = name == "find" and bool(_absent(record, policy))
    place = below(rng, max(len(choices), can_find) + len(paired)) if choices or can_find or paired else -1
    if place < 0:
        return None
    if place < len(paired):
        return paired[place]
    if name == "find":
        return _example(record, name, _find(record, policy, _some_phrases(record, choices, rng, policy)))
    if name == "answer":
        question, answers = choices[place - len(paired)]
        return _example(record, name, _Posed(pick(rng, answers), text=question))
    return _example(record, name, _POSERS[name].build(record, policy, choices[place - len(paired)]))


def pose_all(record: Record, policy: Policy = DEFAULT) -> list[Example]:
    """Pose everything that a record can be asked, once, with nothing left to chance.

    returns   task by task; each label and each expression is asked for alone, and a question has the answer that was
              given most often, the first of those.
    raises    as `pose`.
    """
    paired = _pairs(record, policy)
    posed: list[Example] = []
    for name, poser in _POSERS.items():
        posed += [_example(record, name, poser.build(record, policy, one)) for one in poser.choices(record, policy)]
        posed += [example for example in paired if example.task.name == name]
    return posed


@dataclass
class _Posed:
    """A task's input and answer, before the task table has its say."""

    answer_text: str = ""
    regions: Iterable[Region] = ()
    text: str | None = None
    region: Box | None = None


@dataclass(frozen=True)
class _Poser:
    """One task: what there is to ask, and how one of these is asked and answered."""

    choices: Callable[[Record, Policy], Sequence[Any]]
    build: Callable[[Record, Policy, Any], _Posed]


def _example(record: Record, name: str, posed: _Posed) -> Example:
    task, image_wh, regions = find_task(name), record.image_wh, tuple(posed.regions)
    words = input_of(task, posed.text, posed.region, image_wh)
    text = posed.answer_text.strip() if task.form == "text" else join_labels(regions, task)
    asked = None if posed.text is None else words
    return Example(task, asked, posed.region, Answer(task, image_wh, text, regions, input=words))


def _pairs(record: Record, policy: Policy) -> list[Example]:
    return [pose_pair(note, record.image_wh) for note in _kept(record.pairs, policy)]


def _can_pose(record: Record, name: str, policy: Policy) -> bool:
    return bool(_POSERS[name].choices(record, policy)) or (name == "find" and bool(_absent(record, policy)))


# ---- notes


def _kept(notes: Iterable[_Note], policy: Policy) -> list[_Note]:
    """Leave out what has too low a score."""
    scores = ((note, getattr(note, "score", None)) for note in notes)
    return [note for note, score in scores if score is None or score >= policy.min_score]


def _regions(record: Record, policy: Policy) -> list[RegionNote]:
    return [note for note in _kept(record.regions, policy) if not note.crowd and (note.box or note.points)]


def _objects(record: Record, policy: Policy) -> list[RegionNote]:
    """Every region but those that are nothing but a word."""
    return [note for note in _regions(record, policy) if _is_object(note)]


def _is_object(note: RegionNote) -> bool:
    return bool(note.label.strip() or note.description.strip() or _expressions(note) or not note.word.strip())


def _saying(notes: Iterable[RegionNote], name: str) -> list[RegionNote]:
    """Those of which a field says something."""
    return [note for note in notes if getattr(note, name).strip()]


def _texts(record: Record, policy: Policy, level: Level) -> list[str]:
    notes: list[TextNote | GroundingNote] = [*_kept(record.texts, policy), *_kept(record.groundings, policy)]
    return list(dict.fromkeys(note.text.strip() for note in notes if note.level == level and note.text.strip()))


def _expressions(note: RegionNote) -> list[str]:
    return list(dict.fromkeys(words.strip() for words in note.expressions if words.strip()))


# ---- what there is to ask


def _if_whole(record: Record, policy: Policy, name: str) -> list[None]:
    """One thing to ask if all objects are listed, and can be named by a field; an empty list of them must be true."""
    if "objects" not in record.whole:
        return []
    listed = _objects(record, policy)
    named = _saying(listed, name) if name else listed
    return [None] if named or not any(map(_is_object, record.regions)) else []


def _if_words(record: Record, policy: Policy) -> list[None]:
    """One thing to ask if all words are listed; an empty list of them must be true."""
    if "words" not in record.whole:
        return []
    return [None] if _words(record, policy) or not _saying(record.regions, "word") else []


def _words(record: Record, policy: Policy) -> list[RegionNote]:
    return in_reading_order(_saying(_regions(record, policy), "word"))


def _grounded(note: GroundingNote, policy: Policy) -> list[PhraseNote]:
    """The phrases that are tied to a place, in the order of the text."""
    text = note.text
    kept = [one for one in _kept(note.phrases, policy) if one.boxes and one.phrase.strip()]
    starts = [one.span[0] if one.span else text.find(one.phrase) % (len(text) + 1) for one in kept]  # -1 is the end
    return [kept[place] for place in sorted(range(len(kept)), key=starts.__getitem__)]


def _groundings(record: Record, policy: Policy) -> list[GroundingNote]:
    return [note for note in _kept(record.groundings, policy) if note.text.strip() and _grounded(note, policy)]


def _outlined(record: Record, policy: Policy) -> list[RegionNote]:
    return [note for note in _regions(record, policy) if any(len(ring) >= 3 for ring in note.polygons)]


def _referred(record: Record, policy: Policy) -> list[tuple[RegionNote, str]]:
    return [(note, words) for note in _outlined(record, policy) for words in _expressions(note)]


def _described(record: Record, policy: Policy) -> list[tuple[RegionNote, str]]:
    """Regions with each text that describes them."""
    said = ((note, (note.description.strip(), *_expressions(note))) for note in _regions(record, policy))
    return [(note, words) for note, texts in said for words in dict.fromkeys(texts) if words]


def _phrases(record: Record, policy: Policy) -> list[str]:
    """Labels, of which all places are known only if all objects are listed, and expressions, which have one place."""
    notes = _objects(record, policy)
    labels = [note.label.strip() for note in notes if note.label.strip()] if "objects" in record.whole else []
    return list(dict.fromkeys((*labels, *(words for note in notes for words in _expressions(note)))))


def _absent(record: Record, policy: Policy) -> list[str]:
    """Categories that are nowhere in the image: all objects are listed, and no text of the record has the name."""
    if "objects" not in record.whole or not policy.categories or not policy.absent_share:
        return []
    said = [words for note in record.regions for words in (note.label, note.description, *note.expressions)]
    said += [note.text for note in record.texts] + [note.text for note in record.groundings]
    heard = "\n".join(said).lower()
    return [name for category in policy.categories if (name := category.strip()) and name.lower() not in heard]


def _questions(record: Record, policy: Policy) -> list[tuple[str, list[str]]]:
    kept = _kept(record.questions, policy)
    asked = ((note.question.strip(), [words.strip() for words in note.answers if words.strip()]) for note in kept)
    return [(question, answers) for question, answers in asked if question and answers]


# ---- how it is asked and answered


def _detect(record: Record, policy: Policy, name: str) -> _Posed:
    """All boxes with what one field of their notes says; "" for nothing."""
    listed = _objects(record, policy)
    named = _saying(listed, name) if name else listed
    boxes = [Region(getattr(note, name).strip() if name else "", box=note.bounds) for note in named]
    return _Posed(regions=once(in_order(boxes, policy.order), record.image_wh))


def _read(record: Record, policy: Policy) -> _Posed:
    return _Posed("\n".join(note.word.strip() for note in _words(record, policy)))


def _read_regions(record: Record, policy: Policy) -> _Posed:
    lines = [Region(note.word.strip(), quad=_quad(note)) for note in _words(record, policy)]
    return _Posed(regions=once(lines, record.image_wh))


def _quad(note: RegionNote) -> Quad:
    if note.quad is not None:
        return note.quad
    x0, y0, x1, y1 = note.bounds or Box(0, 0, 0, 0)
    return Point(x0, y0), Point(x1, y0), Point(x1, y1), Point(x0, y1)


def _ground(record: Record, policy: Policy, note: GroundingNote) -> _Posed:
    found: list[Region] = []
    for one in _grounded(note, policy):
        found += in_order([Region(one.phrase.strip(), box=box) for box in one.boxes], policy.order)
    return _Posed(text=note.text, regions=once(found, record.image_wh))


def _find(record: Record, policy: Policy, phrases: Sequence[str]) -> _Posed:
    whole = "objects" in record.whole
    found: list[Region] = []
    for phrase in phrases:
        fits = (
            note
            for note in _objects(record, policy)
            if (whole and note.label.strip() == phrase) or phrase in _expressions(note)
        )
        found += in_order([Region(phrase, box=note.bounds) for note in fits], policy.order)
    return _Posed(text=AND.join(phrases), regions=once(found, record.image_wh))


def _some_phrases(record: Record, present: Sequence[str], rng: np.random.Generator, policy: Policy) -> list[str]:
    """Choose what to look for: up to Policy.phrases, now and then what is not there."""
    absent, deck, chosen = _absent(record, policy), shuffled(rng, present), list[str]()
    for _ in range(1 + below(rng, policy.phrases)):
        if absent and (not present or chance(rng, policy.absent_share)):
            chosen.append(pick(rng, absent))
        elif deck:
            chosen.append(deck.pop())
    return list(dict.fromkeys(chosen))


def _outline(note: RegionNote) -> list[Region]:
    return [Region(polygons=rings_in_order(note.polygons))]


def _texts_of(level: Level) -> _Poser:
    return _Poser(lambda record, policy: _texts(record, policy, level), lambda record, policy, text: _Posed(text))


def _all_of(name: str) -> _Poser:
    return _Poser(partial(_if_whole, name=name), lambda record, policy, _: _detect(record, policy, name))


def _one_of(name: str) -> _Poser:
    """Ask about one region, and answer with a field of its note."""
    return _Poser(
        lambda record, policy: _saying(_regions(record, policy), name),
        lambda record, policy, note: _Posed(getattr(note, name), region=note.bounds),
    )


_POSERS: dict[str, _Poser] = {
    "caption": _texts_of("brief"),
    "detailed_caption": _texts_of("detailed"),
    "more_detailed_caption": _texts_of("more_detailed"),
    "detect": _all_of("label"),
    "dense_caption": _Poser(
        lambda record, policy: [None] if _saying(_objects(record, policy), "description") else [],
        lambda record, policy, _: _detect(record, policy, "description"),
    ),
    "propose": _all_of(""),
    "read": _Poser(_if_words, lambda record, policy, _: _read(record, policy)),
    "read_regions": _Poser(_if_words, lambda record, policy, _: _read_regions(record, policy)),
    "ground": _Poser(_groundings, _ground),
    "segment": _Poser(_referred, lambda record, policy, one: _Posed(text=one[1], regions=_outline(one[0]))),
    "segment_region": _Poser(
        _outlined, lambda record, policy, note: _Posed(region=note.bounds, regions=_outline(note))
    ),
    "find": _Poser(_phrases, lambda record, policy, phrase: _find(record, policy, [phrase])),
    "classify_region": _one_of("label"),
    "describe_region": _Poser(_described, lambda record, policy, one: _Posed(one[1], region=one[0].bounds)),
    "read_region": _one_of("word"),
    "answer": _Poser(
        _questions,
        lambda record, policy, one: _Posed(Counter(one[1]).most_common(1)[0][0], text=one[0]),
    ),
}
assert tuple(_POSERS) == tuple(task.name for task in (*TASKS, FREE_TEXT)), "tasks stand in the order of the task table"
