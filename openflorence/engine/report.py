"""A round as a page for people: tables, charts, and pictures with what is noted of them. It holds all that it shows.

write_report(store, measure(store), Path("report.html"))
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from openflorence.contract.records import GroundingNote, Record, RegionNote
from openflorence.data.notes import FIELDS, KINDS, Note, numbered, phrase_ids
from openflorence.data.problems import write_text
from openflorence.data.store import Store
from openflorence.data.store_records import StoredRecords
from openflorence.engine.outcomes import DropCount, DroppedNote, FailureCount
from openflorence.engine.panels import panels, shots
from openflorence.engine.stats import Stats
from openflorence.engine.tables import (
    annotations,
    coverage,
    dropped,
    failures,
    layers,
    names,
    overview,
    sources,
    texts,
    title,
)
from openflorence.pages.pieces import Card, Gallery, Heading, Page, Piece, Table, as_html

PICTURES = 24
LISTED = 200  # failed images that are listed
_NOTE_ID = re.compile(r"[\w.-]+/region\d+")
LINES = 8  # texts of one image that are shown


def write_report(store: Store, stats: Stats, path: Path, pictures: int = PICTURES, seed: int = 0) -> Path:
    """Write a page about a round; a reader never sees half of it.

    stats     of the round, as `measure` gives them.
    pictures  how many images are drawn; of what rules drop half as many are drawn besides.
    seed      another one draws others.
    """
    records = store.records(stats.round)
    page = Page(title(stats), overview(stats))
    page.add(*annotations(stats), *texts(stats), *coverage(stats), *names(stats), *sources(stats), *layers(stats))
    page.add(*failures(stats), *_failed(stats.failures))
    page.add(*dropped(stats), *_dropped(store, stats, records, pictures // 2))
    page.add(*_galleries(store, stats, records, pictures, seed))
    return write_text(path, as_html(page))


# ---- images


def _galleries(store: Store, stats: Stats, records: StoredRecords, pictures: int, seed: int) -> list[Piece]:
    """Images from all over the store, those with most annotations, and those with fewest."""
    if pictures < 1 or not records:
        return []
    if len(records) <= pictures:
        return [Heading("Pictures"), _gallery(store, records, range(len(records)))]
    few = max(pictures // 4, 1)
    groups = {
        "Pictures from all over the store": spread(len(records), max(pictures - 2 * few, 1), seed),
        "Pictures with most annotations": stats.most[:few],
        "Pictures with fewest annotations": stats.fewest[:few],
    }
    found: list[Piece] = [Heading("Pictures")]
    for name, rows in groups.items():
        found += [Heading(name, 3), _gallery(store, records, rows)]
    return found


def spread(size: int, many: int, seed: int) -> list[int]:
    """Give places of a list, one drawn from each of so many equal parts of it."""
    dice = random.Random(seed)
    ends = [size * part // many for part in range(many + 1)]
    return [dice.randrange(low, high) for low, high in pairwise(ends) if low < high]


def _gallery(store: Store, records: StoredRecords, rows: Iterable[int]) -> Gallery:
    return Gallery([_card(records[row], _name(store, row)) for row in rows])


def _card(record: Record, name: str) -> Card:
    """Show one image: its regions drawn, its texts beside them."""
    notes = sum(len(getattr(record, kind)) for kind in KINDS)
    count = {0: "no notes", 1: "1 note"}.get(notes, f"{notes:,} notes")
    return Card(name, count, shots(record, panels(record)), _lines(record))


def _lines(record: Record) -> list[tuple[str, str]]:
    lines = [(note.level.replace("_", " "), note.text) for note in record.texts]
    read = [note.word + ("" if note.score is None else f" ({note.score:.2f})") for note in record.regions if note.word]
    lines += [("read", " · ".join(read))] if read else []
    lines += [(f"grounded, {note.level.replace('_', ' ')}", note.text) for note in record.groundings]
    lines += [("asked", f"{note.question} → {', '.join(dict.fromkeys(note.answers))}") for note in record.questions]
    lines += [("pair", f"{note.prefix} → {note.suffix}") for note in record.pairs]
    lines += [
        (note.label or "described", note.description) for note in record.regions if note.description and not note.word
    ]
    more = [("not shown", f"{len(lines) - LINES} more texts about this image")] if len(lines) > LINES else []
    return lines[:LINES] + more


def _name(store: Store, row: int) -> str:
    (found,) = store.corpus.take([row], ["uri"])
    return f"{short_uri(found['uri'])} · {row}"


def short_uri(uri: str) -> str:
    """Give the last two parts of a path or URL."""
    return "/".join(uri.split("/")[-2:])


# ---- what failed


def _failed(counts: Sequence[FailureCount]) -> list[Piece]:
    """List images without notes, with the reason; those that only wait for another layer's are left out."""
    rows = [
        [short_uri(one.uri) + ("" if one.row is None else f" · {one.row}"), count.stage, count.kind, one.message]
        for count in counts
        if count.status != "skipped"
        for one in count.first
    ][:LISTED]
    if not rows:
        return []
    head = ("image", "stage", "reason", "what it says")
    return [Heading("Images that failed", 3), Table(head, rows, sortable=True, words=frozenset({1, 2, 3}))]


# ---- what was dropped


def _dropped(store: Store, stats: Stats, records: StoredRecords, pictures: int) -> list[Piece]:
    """Show some of the notes that each rule drops, with the reason."""
    chosen = list(_in_turn(stats.dropped, pictures))
    if not chosen:
        return []
    runs = {one.layer: one.run_id for one in stats.layers}
    cards = [_dropped_card(store, records, runs, count, one) for count, one in chosen]
    return [Heading("Some dropped notes", 3), Gallery(cards)]


def _in_turn(counts: Sequence[DropCount], many: int) -> Iterator[tuple[DropCount, DroppedNote]]:
    """One of each rule, then a second one of each, and so on."""
    rounds = max((len(count.sample.kept) for count in counts), default=0)
    order = [(count, place) for place in range(rounds) for count in counts if place < len(count.sample.kept)]
    return ((count, count.sample.kept[place]) for count, place in order[:many])


def _dropped_card(
    store: Store, records: StoredRecords, runs: dict[str, str], count: DropCount, one: DroppedNote
) -> Card:
    record = records[one.row]
    bare = Record(image=record.image, image_wh=record.image_wh)
    note = find_note(store, runs, one.row, one.note_id)
    shown = bare if note is None else _alone(bare, note)
    for name in _NOTE_ID.findall(one.reason):  # what stands for it
        other = find_note(store, runs, one.row, name)
        if isinstance(note, RegionNote) and isinstance(other, RegionNote):
            shown = replace(shown, regions=(*shown.regions, replace(other, label=f"{other.label} stays".strip())))
    lines = [("reason", one.reason), ("note", one.note_id), *_lines(shown)]
    return Card(_name(store, one.row), f"{count.rule}: {count.kind}", shots(shown, panels(shown)[:1]), lines)


def find_note(store: Store, runs: dict[str, str], row: int, note_id: str) -> Note | None:
    """Give a note of an image by its id; of a phrase, the grounding with that phrase alone. None when there is none.

    runs      layer -> run id of the round.
    """
    layer = note_id.rpartition("/")[0]
    if layer not in runs:
        return None
    unit, place = store.corpus.place_of(row)
    for name, note in numbered(layer, store.layer(layer, runs[layer]).read(unit)[place].notes):
        if name == note_id:
            return note
        if isinstance(note, GroundingNote) and note_id in (phrases := phrase_ids(name, note)):
            return replace(note, phrases=(note.phrases[phrases.index(note_id)],))
    return None


def _alone(bare: Record, note: Note) -> Record:
    """A record of one note."""
    field: Any = {FIELDS[type(note)]: (note,)}
    return replace(bare, **field)
