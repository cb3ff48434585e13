"""What a format of annotations has no place for: counted before it is written, so that nothing is lost in silence.

Where a note came from is kept by our own formats alone, and is not counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openflorence.contract.records import LEVELS, GroundingNote, Record, RegionNote
from openflorence.data.notes import KINDS

_ALL = frozenset(
    {"outlines", "quads", "descriptions", "words", "expressions", "scores", "crowds", "groundings", "questions"}
    | {"pairs", "boxes without a label", *(f"{level} texts" for level in LEVELS)}
)
# Format -> what it can say beside boxes with labels.
SAYS: dict[str, frozenset[str]] = {
    "coco": frozenset({"outlines", "descriptions", "scores", "crowds", "brief texts"}),
    "yolo": frozenset({"outlines"}),
    "voc": frozenset({"crowds"}),
    "jsonl": _ALL,
    "parquet": _ALL,
    "webdataset": _ALL,
    "hf": _ALL,
}
OBJECTS_ALONE = tuple(name for name, says in SAYS.items() if says != _ALL)  # an image is a list of objects there


def has_objects(record: Record) -> bool:
    """Tell whether a record has a place with a label, or says that there is no object."""
    return "objects" in record.whole or any(region.label and region.bounds for region in record.regions)


def unsaid(record: Record, to: str) -> Counter[str]:
    """Count the notes of a record, and the parts of notes, that a format has no place for."""
    says = SAYS[to]
    lost = Counter(f"{note.level} texts" for note in record.texts)
    lost += Counter({name: len(getattr(record, name)) for name in ("groundings", "questions", "pairs")})
    # A YOLO file holds outlines when every region has some, otherwise boxes.
    boxed = to == "yolo" and not all(region.polygons for region in record.regions if region.label and region.bounds)
    for region in record.regions:
        lost += _of_region(region, says, boxed)
    return Counter({name: count for name, count in lost.items() if count and name not in says})


def _of_region(region: RegionNote, says: frozenset[str], boxed: bool) -> Counter[str]:
    """The parts of a region, or the whole of it where it has none that could be written."""
    parts = {
        "outlines": bool(region.polygons),
        "quads": region.quad is not None,
        "descriptions": bool(region.description),
        "words": bool(region.word),
        "expressions": len(region.expressions),
        "scores": region.score is not None,
    }
    if not region.label and says != _ALL:
        whole = [name for name in ("words", "descriptions", "expressions") if parts[name]]
        return Counter({whole[0] if whole else "boxes without a label": 1, "quads": int(parts["quads"])})
    if region.crowd and "crowds" not in says:
        return Counter({"crowds": 1})
    counted = Counter({name: int(count) for name, count in parts.items()})
    if boxed and region.polygons:
        counted["outlines of pictures that have boxes too"] = 1
    return counted


def above(record: Record, least: float) -> tuple[Record, int]:
    """Give a record without its notes of a lower score, and how many these are; notes without a score stay.

    returns   also groundings without the phrases of a lower score, and without those that this leaves empty.
    """
    dropped = 0
    left: dict[str, Any] = {}
    for name in KINDS:
        notes = getattr(record, name)
        kept = tuple(note for note in notes if note.score is None or note.score >= least)
        dropped += len(notes) - len(kept)
        left[name] = kept
    groundings: list[GroundingNote] = []
    for note in left["groundings"]:
        phrases = tuple(phrase for phrase in note.phrases if phrase.score is None or phrase.score >= least)
        dropped += len(note.phrases) - len(phrases)
        if phrases or not note.phrases:
            groundings.append(replace(note, phrases=phrases))
    return replace(record, **left | {"groundings": tuple(groundings)}), dropped


def in_words(counts: Mapping[str, int]) -> str:
    """Spell counts, the largest first: "12 brief texts, 3 quads"."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)
