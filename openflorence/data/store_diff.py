"""Two rounds held against each other, note by note.

Two notes are the same when they say the same words of the same place. What is compared is what they say: scores and
origins do not count.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from openflorence.contract.overlaps import iou
from openflorence.contract.records import Record
from openflorence.contract.shapes import Box
from openflorence.data.store_records import StoredRecords

SAME_PLACE = 0.9  # boxes are one place when intersection over union is at least this
_NAMED = 20  # changed images that are named

Said = tuple[tuple[str, ...], Box | None]  # words, and a place


@dataclass(frozen=True)
class Changes:
    """What became of notes of one kind."""

    same: int = 0
    added: int = 0
    removed: int = 0

    @property
    def share(self) -> float:
        """Share that is not the same, of all there are in either round; 0 without notes."""
        changed = self.added + self.removed
        return changed / (changed + self.same) if changed else 0.0

    def plus(self, other: "Changes") -> "Changes":
        """Give the sum."""
        return Changes(self.same + other.same, self.added + other.added, self.removed + other.removed)


@dataclass(frozen=True)
class RoundDiff:
    """What another round says otherwise."""

    images: int  # in both rounds
    changed: int  # of these, with any note added or removed
    only_first: int  # images that the other round does not have
    only_second: int
    kinds: dict[str, Changes]  # "texts", "regions", "phrases" (text, phrase and place), "questions", "pairs"
    examples: tuple[str, ...]  # ids of changed images, the first few

    @property
    def total(self) -> Changes:
        """All kinds together."""
        total = Changes()
        for changes in self.kinds.values():
            total = total.plus(changes)
        return total


def compare(first: StoredRecords, second: StoredRecords, overlap: float = SAME_PLACE) -> RoundDiff:
    """Compare two rounds of one store, image by image.

    overlap   intersection over union from which two boxes are one place.
    """
    kinds = {name: Changes() for name in _KINDS}
    changed = 0
    examples: list[str] = []
    common = min(len(first), len(second))
    pairs = zip(islice(first, common), islice(second, common), islice(second.ids(), common), strict=True)
    for before, after, image_id in pairs:
        found = {name: _changes(say(before), say(after), overlap) for name, say in _KINDS.items()}
        kinds = {name: kinds[name].plus(found[name]) for name in kinds}
        if any(changes.added or changes.removed for changes in found.values()):
            changed += 1
            examples += [image_id] if len(examples) < _NAMED else []
    return RoundDiff(common, changed, len(first) - common, len(second) - common, kinds, tuple(examples))


def _changes(before: Iterable[Said], after: Iterable[Said], overlap: float) -> Changes:
    """Pair the notes of equal words, the best overlapping first."""
    left: dict[tuple[str, ...], list[Box | None]] = defaultdict(list)
    for words, place in before:
        left[words].append(place)
    right: dict[tuple[str, ...], list[Box | None]] = defaultdict(list)
    for words, place in after:
        right[words].append(place)
    same = sum(_paired(left[words], right[words], overlap) for words in left.keys() & right.keys())
    counts = sum(map(len, left.values())), sum(map(len, right.values()))
    return Changes(same, counts[1] - same, counts[0] - same)


def _paired(before: list[Box | None], after: list[Box | None], overlap: float) -> int:
    fits = sorted(((_overlap(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(after)), reverse=True)
    used: tuple[set[int], set[int]] = (set(), set())
    for fit, i, j in fits:
        if fit >= overlap and i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
    return len(used[0])


def _overlap(one: Box | None, other: Box | None) -> float:
    """Intersection over union; 1 for two notes without a place."""
    if one is None or other is None:
        return float(one is other)
    return iou(one, other)


def _texts(record: Record) -> Iterator[Said]:
    return (((note.level, note.text), None) for note in record.texts)


def _regions(record: Record) -> Iterator[Said]:
    for note in record.regions:
        yield (note.label, note.description, note.word, *note.expressions), note.bounds


def _phrases(record: Record) -> Iterator[Said]:
    for note in record.groundings:
        for phrase in note.phrases:
            yield from (((note.text, phrase.phrase), box) for box in phrase.boxes)


def _questions(record: Record) -> Iterator[Said]:
    return (((note.question, *note.answers), None) for note in record.questions)


def _pairs(record: Record) -> Iterator[Said]:
    return (((note.prefix, note.suffix), None) for note in record.pairs)


_KINDS = {"texts": _texts, "regions": _regions, "phrases": _phrases, "questions": _questions, "pairs": _pairs}
