"""Everything a store knows about one image: its facts, what every layer said, what rules drop of it, what rounds hold.

shown = describe(store, "street.jpg")     # or the beginning of its id, or its row
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from openflorence.contract.records import GroundingNote, Record, RegionNote, TextNote, record_to_row
from openflorence.contract.shapes import Box
from openflorence.data.notes import KINDS, LayerRow, Note, Verdict, numbered, phrase_ids
from openflorence.data.store import Store
from openflorence.data.store_corpus import IMAGE_COLUMNS
from openflorence.data.store_records import STORED
from openflorence.data.store_rounds import Round
from openflorence.data.store_rows import Plain
from openflorence.engine.fuse import members
from openflorence.engine.panels import drawn
from openflorence.engine.tables import origin_name
from openflorence.engine.votes import FUSED
from openflorence.errors import BadConfig
from openflorence.model.answer_folder import save_png

_PREFIX = 4  # letters of an id that may name an image
_NAMED = 5  # images that are listed when several fit


@dataclass(frozen=True)
class Said:
    """One note, and what became of it."""

    note_id: str
    note: Note
    verdicts: tuple[tuple[str, Verdict], ...]  # layer of the rule, and what it says; of the round that is shown
    members: tuple[str, ...]  # notes that it was fused from


@dataclass(frozen=True)
class ShownLayer:
    """What one layer says of the image."""

    layer: str
    run_id: str
    row: LayerRow
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Shown:
    """Everything known about one image."""

    facts: Plain  # row, unit, place, image_id, uri, mime, width, height, size_bytes, licence, meta
    inputs: tuple[str, ...]  # all names it came in under
    round: int | None  # whose layers these are; None before the first
    layers: tuple[ShownLayer, ...]
    records: Mapping[int, Record]  # by published round; of those that the image is in
    other_runs: Mapping[str, tuple[str, ...]]  # runs of no round, by layer


def describe(store: Store, name: str, number: int | None = None) -> Shown:
    """Tell everything about an image.

    name      its id or the beginning of it, its uri or the end of one, its row in the store.
    number    of the round whose layers are told; the latest for None.
    raises    BadConfig when no image or several have this name, or there is no such round.
    """
    row, unit, place = find_image(store, name)
    facts = {"row": row, "place": place} | store.corpus.take([row], list(IMAGE_COLUMNS))[0]
    rounds = store.rounds()
    if number is not None and number not in rounds:
        raise BadConfig(f"{store.folder} has no round {number}; it has {', '.join(map(str, rounds)) or 'none yet'}")
    chosen = max(rounds, default=None) if number is None else number
    runs = {} if chosen is None else dict(rounds[chosen].runs)
    used = {run for one in rounds.values() for run in one.runs.items()}
    others = {layer: tuple(one for one in found if (layer, one) not in used) for layer, found in store.runs().items()}
    asked = store.sql("SELECT DISTINCT uri FROM inputs WHERE sha256 = ? ORDER BY uri", [facts["image_id"]])
    return Shown(
        facts=facts,
        inputs=tuple(line["uri"] for line in asked),
        round=chosen,
        layers=_layers(store, runs, unit, place),
        records=_records(store, rounds, row),
        other_runs={layer: found for layer, found in others.items() if found},
    )


# ---- finding


def find_image(store: Store, name: str) -> tuple[int, int, int]:
    """Give row, unit and place in it of an image; see `describe`."""
    store.corpus.refresh()
    total = store.corpus.rows
    number = name.rpartition("#")[2] if name.startswith(STORED) else name
    if number.isdecimal() and int(number) < total:
        return int(number), *store.corpus.place_of(int(number))
    exact = store.find(name) or store.find(os.path.abspath(os.path.expanduser(name)))
    unit, place = exact or _found_by_part(store, name, total)
    return store.corpus.row_of(unit, place), unit, place


def _found_by_part(store: Store, name: str, total: int) -> tuple[int, int]:
    """The one image whose id begins so, or whose uri ends so after a slash."""
    tests, values = ["ends_with(uri, $end)"], {"end": f"/{name}"}
    if re.fullmatch(rf"[0-9a-f]{{{_PREFIX},}}", name):
        tests, values = [*tests, "starts_with(image_id, $begin)"], {**values, "begin": name}
    question = f"SELECT image_id, uri FROM images WHERE {' OR '.join(tests)} LIMIT {_NAMED + 1}"
    found = store.sql(question, values) if name else []
    place = store.find(found[0]["image_id"]) if len(found) == 1 else None
    if place is None:
        what = "several images" if found else "no image"
        listed = "".join(f", {one['image_id'][:12]} {one['uri']}" for one in found[:_NAMED])
        raise BadConfig(
            f"{what} of {store.folder} fit {name!r}{listed}{' and more' if len(found) > _NAMED else ''}; give a row "
            f"from 0 to {total - 1}, the first {_PREFIX} letters or more of an id, a uri, or the last parts of one"
        )
    return place


# ---- layers and rounds


def _layers(store: Store, runs: Mapping[str, str], unit: int, place: int) -> tuple[ShownLayer, ...]:
    rows = {}
    for layer, run_id in runs.items():
        run = store.layer(layer, run_id)
        if run.is_done(unit):
            rows[layer] = run.read(unit)[place]
    verdicts: dict[str, list[tuple[str, Verdict]]] = defaultdict(list)
    for layer, row in rows.items():
        for verdict in row.verdicts:
            verdicts[verdict.note_id].append((layer, verdict))
    parts = members(verdict for row in rows.values() for verdict in row.verdicts)
    return tuple(
        ShownLayer(
            layer,
            runs[layer],
            row,
            tuple(
                Said(name, note, _about(verdicts, name, note), parts.get(name, ()))
                for name, note in numbered(layer, row.notes)
            ),
        )
        for layer, row in rows.items()
    )


def _about(verdicts: Mapping[str, list[tuple[str, Verdict]]], name: str, note: Note) -> tuple[tuple[str, Verdict], ...]:
    """The verdicts about a note and about its phrases."""
    phrases = phrase_ids(name, note) if isinstance(note, GroundingNote) else ()
    return tuple(one for each in (name, *phrases) for one in verdicts.get(each, ()))


def _records(store: Store, rounds: Mapping[int, Round], row: int) -> dict[int, Record]:
    found = {}
    for number, one in rounds.items():
        if one.published:
            records = store.records(number)
            if row < len(records):
                found[number] = records[row]
    return found


def draw_image(shown: Shown, path: Path) -> Path:
    """Write a picture with what the round holds; a file of the same name is replaced, and never half there.

    raises    BadConfig when the round is not published or has not the image; BadImage when the picture is gone.
    """
    record = None if shown.round is None else shown.records.get(shown.round)
    if record is None:
        raise BadConfig(
            f"round {shown.round} holds nothing of image {shown.facts['row']} to draw; published rounds with it: "
            f"{', '.join(map(str, shown.records)) or 'none'}"
        )
    if path.suffix.lower() != ".png":
        raise BadConfig(f"{path} does not end in .png; pictures are written as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(drawn(record), path)
    return path


# ---- as JSON


def as_row(shown: Shown) -> Plain:
    """Give it as plain values for JSON."""
    facts = {**shown.facts, "meta": json.loads(shown.facts["meta"] or "{}"), "inputs": list(shown.inputs)}
    layers = [
        {
            "layer": one.layer,
            "run_id": one.run_id,
            "status": one.row.status,
            "error": asdict(one.row.error) if one.row.error else None,
            "notes": [_note_row(said) for said in one.said],
            "measures": [asdict(measure) for measure in one.row.measures],
        }
        for one in shown.layers
    ]
    records = {str(number): record_to_row(record) for number, record in shown.records.items()}
    others = {layer: list(runs) for layer, runs in shown.other_runs.items()}
    return {"image": facts, "round": shown.round, "layers": layers, "records": records, "other_runs": others}


def _note_row(said: Said) -> Plain:
    verdicts = [{"layer": layer, **asdict(verdict)} for layer, verdict in said.verdicts]
    return {"id": said.note_id, "note": asdict(said.note), "verdicts": verdicts, "members": list(said.members)}


# ---- as text


def as_text(shown: Shown) -> str:
    """Give it as lines for people."""
    return "\n".join(_lines(shown))


def _lines(shown: Shown) -> Iterator[str]:
    facts = shown.facts
    yield f"image {facts['row']}  {_shown(facts['uri'])}"
    yield f"  id       {facts['image_id']}"
    yield f"  size     {facts['width']} x {facts['height']} px, {facts['mime']}, {facts['size_bytes']:,} bytes"
    yield f"  licence  {_shown(facts['licence']) or 'not known'}"
    yield f"  place    unit {facts['unit']}, place {facts['place']}"
    yield from (f"  also as  {_shown(uri)}" for uri in shown.inputs if uri != facts["uri"])
    yield from (f"  {_shown(name)}  {_shown(str(value))}" for name, value in json.loads(facts["meta"] or "{}").items())
    yield ""
    yield "no round was made yet" if shown.round is None else f"layers of round {shown.round}"
    for one in shown.layers:
        yield from _layer_lines(one)
    for layer, runs in shown.other_runs.items():
        yield f"  {layer}: {len(runs)} more of no round ({', '.join(runs)})"
    for number, record in shown.records.items():
        yield ""
        yield f"round {number}, published" + (": nothing about this image" if record.is_empty else "")
        for note in (note for kind in KINDS for note in getattr(record, kind)):
            yield f"  {_in_words(note)}"
            yield from (f"      {line}" for line in _phrase_lines(note))


def _layer_lines(one: ShownLayer) -> Iterator[str]:
    error = one.row.error
    drops = sum(verdict.rule != FUSED for verdict in one.row.verdicts)
    counts = f"{len(one.said)} notes" + (f", drops {drops}" if drops else "")
    yield f"  {one.layer}  {one.run_id}  {one.row.status}, {counts}"
    if error:
        yield f"      {error.kind} in {error.stage or one.layer}, tried {error.attempts} times: {_shown(error.message)}"
    for measure in one.row.measures:
        value = measure.text if measure.value is None else f"{measure.value:.4g}"
        yield f"      measured {measure.name} {value} of {measure.note_id or 'the image'}"
    for said in one.said:
        yield f"    {said.note_id}  {_in_words(said.note)}"
        yield from (f"        {line}" for line in _phrase_lines(said.note))
        yield from ([f"        from {', '.join(said.members)}"] if said.members else [])
        for layer, verdict in said.verdicts:
            about = "" if verdict.note_id == said.note_id else f"{verdict.note_id.rpartition('.')[2]} "
            if verdict.rule == FUSED:
                overlap = "" if verdict.value in (None, 1.0) else f", overlap {verdict.value:.2f}"
                yield f"        {verdict.reason}{overlap}"
            else:
                yield f"        DROPPED {about}by {verdict.rule} of {layer}: {_shown(verdict.reason)}"


def _in_words(note: Note) -> str:
    """One note on a line: what it says, where, how sure, and who said it."""
    parts = [_says(note)]
    if isinstance(note, RegionNote):
        parts.append(_where(note))
    parts += [] if note.score is None else [f"{note.score:.2f}"]
    parts += [f"({origin_name(note.origin)})"]
    return "  ".join(part for part in parts if part)


def _says(note: Note) -> str:
    if isinstance(note, RegionNote):
        said = {"word": note.word, "label": note.label, "description": note.description}
        said["expressions"] = " / ".join(note.expressions)
        crowd = " crowd" if note.crowd else ""
        return ", ".join(f"{name} {_quoted(text)}" for name, text in said.items() if text) + crowd or "no words"
    if isinstance(note, TextNote | GroundingNote):
        kind = "text" if isinstance(note, TextNote) else "grounded text"
        return f"{note.level.replace('_', ' ')} {kind} {_quoted(note.text)}"
    answers = getattr(note, "answers", None)
    if answers is not None:
        return f"question {_quoted(getattr(note, 'question', ''))}  answers {', '.join(map(_quoted, answers))}"
    return f"pair {_quoted(getattr(note, 'prefix', ''))} -> {_quoted(getattr(note, 'suffix', ''))}"


def _phrase_lines(note: Note) -> Iterator[str]:
    for phrase in note.phrases if isinstance(note, GroundingNote) else ():
        score = "" if phrase.score is None else f"  {phrase.score:.2f}"
        yield f"{_quoted(phrase.phrase)}  {', '.join(map(_box, phrase.boxes)) or 'nowhere'}{score}"


def _where(note: RegionNote) -> str:
    parts = [] if note.box is None else [f"box {_box(note.box)}"]
    parts += [] if note.quad is None else ["quad " + " ".join(f"{x:.0f},{y:.0f}" for x, y in note.quad)]
    rings, points = len(note.polygons), sum(map(len, note.polygons))
    parts += [f"outline of {rings} rings, {points} points"] if rings else []
    return ", ".join(parts) or "nowhere"


def _box(box: Box) -> str:
    return "({:.0f} {:.0f} {:.0f} {:.0f})".format(*box)


def _shown(text: str) -> str:
    """A text as it stands, unless it has letters that steer a terminal."""
    return text if text.isprintable() else _quoted(text)


def _quoted(text: str) -> str:
    """A text on one line, without letters that steer a terminal."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
