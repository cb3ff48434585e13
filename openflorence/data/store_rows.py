"""Notes <-> rows of Arrow tables: how layers lie on disk.

A box is a struct of four floats, never a list of fixed length: Parquet files with those inside a struct that may be
null were written and could not be read. Lists of points lie flat, x before y. Places of a note within its list are not
written: they are what its id is made of, so they are given back by counting.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from openflorence.contract.records import (
    GroundingNote,
    Origin,
    PairNote,
    PhraseNote,
    QuestionNote,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point, Polygon, Quad
from openflorence.data.notes import Failure, LayerRow, Measure, Notes, Verdict
from openflorence.errors import BadConfig, BadRecord

Plain = dict[str, Any]
_HALF = re.compile("[\ud800-\udfff]")  # half a character: JSON can spell it, UTF-8 cannot


def arrow() -> Any:
    """Give the module pyarrow.

    raises    BadConfig when it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise BadConfig(f"a store needs pyarrow: pip install openflorence[engine] ({error})") from error
    return pyarrow


# ---- schemas


def notes_type() -> Any:
    """Give the Arrow type of the notes of one image."""
    pa = arrow()
    number, text = pa.float64(), pa.string()
    origin = pa.struct([("source", text), ("model", text), ("version", text), ("round", pa.int32())])
    box = pa.struct([(name, number) for name in Box._fields])
    span = pa.struct([("start", pa.int32()), ("end", pa.int32())])
    said = [("score", number), ("origin", origin)]
    region = [
        ("box", box),
        ("quad", pa.list_(number)),
        ("polygons", pa.list_(pa.list_(number))),
        *((name, text) for name in ("label", "description", "word")),
        ("expressions", pa.list_(text)),
        ("crowd", pa.bool_()),
        *said,
    ]
    phrase = [("phrase", text), ("boxes", pa.list_(box)), ("span", span), ("score", number)]
    grounding = [("text", text), ("level", text), ("phrases", pa.list_(pa.struct(phrase))), *said]
    kinds = {
        "texts": [("text", text), ("level", text), *said],
        "regions": region,
        "groundings": grounding,
        "questions": [("question", text), ("answers", pa.list_(text)), *said],
        "pairs": [("prefix", text), ("suffix", text), *said],
    }
    fields = [(name, pa.list_(pa.struct(kind))) for name, kind in kinds.items()]
    return pa.struct([*fields, ("whole", pa.list_(text))])


def layer_schema() -> Any:
    """Give the Arrow schema of a layer file: one row an image; the first three say where it belongs."""
    pa = arrow()
    text = pa.string()
    place = [("layer", text), ("run_id", text), ("unit", pa.int32())]
    error = pa.struct([("kind", text), ("message", text), ("stage", text), ("attempts", pa.int32())])
    verdict = pa.struct([("note_id", text), ("rule", text), ("reason", text), ("value", pa.float64())])
    measure = pa.struct([("note_id", text), ("name", text), ("value", pa.float64()), ("text", text)])
    row = [("image_id", text), ("status", text), ("error", error), *notes_type()]
    return pa.schema([*place, *row, ("verdicts", pa.list_(verdict)), ("measures", pa.list_(measure))])


# ---- rows


def layer_row_to_plain(row: LayerRow) -> Plain:
    """Give a row of a layer as plain values that fit layer_schema, without where it belongs.

    raises    BadRecord for a number that is not finite, or a score outside 0..1.
    """
    error = row.error
    return {
        "image_id": row.image_id,
        "status": row.status,
        "error": None
        if error is None
        else {
            "kind": whole_text(error.kind),
            "message": whole_text(error.message),
            "stage": whole_text(error.stage),
            "attempts": error.attempts,
        },
        **notes_to_plain(row.notes),
        "verdicts": [_verdict(verdict, place) for place, verdict in enumerate(row.verdicts)],
        "measures": [_measure(measure, place) for place, measure in enumerate(row.measures)],
    }


def layer_row_from_plain(plain: Mapping[str, Any]) -> LayerRow:
    """Read what layer_row_to_plain gave."""
    error = plain["error"]
    return LayerRow(
        image_id=plain["image_id"],
        status=plain["status"],
        error=None if error is None else Failure(**error),
        notes=notes_from_plain(plain),
        verdicts=tuple(Verdict(**verdict) for verdict in plain["verdicts"]),
        measures=tuple(Measure(**measure) for measure in plain["measures"]),
    )


def notes_to_plain(notes: Notes) -> Plain:
    """Give notes as plain values that fit notes_type.

    raises    BadRecord naming the note, for a number that is not finite or a score outside 0..1.
    promise   notes_from_plain gives equal notes back, but that half characters have become U+FFFD.
    """
    plain: Plain = {
        name: [write(note, f"{name}[{place}]") for place, note in enumerate(getattr(notes, name))]
        for name, write in _WRITERS.items()
    }
    return plain | {"whole": sorted(notes.whole)}


def notes_from_plain(plain: Mapping[str, Any]) -> Notes:
    """Read what notes_to_plain gave; what else stands there is let be."""
    found = {name: tuple(read(note) for note in plain[name] or ()) for name, read in _READERS.items()}
    return Notes(**found, whole=frozenset(plain["whole"] or ()))


def whole_text(text: str) -> str:
    """Give a text that UTF-8 can hold: each half character becomes one U+FFFD, so that spans stay as they are."""
    return _HALF.sub("�", text)


# ---- writing


def _text(note: TextNote, where: str) -> Plain:
    return {"text": whole_text(note.text), "level": note.level, **_said(note, where)}


def _region(note: RegionNote, where: str) -> Plain:
    return {
        "box": None if note.box is None else _box(note.box, where),
        "quad": None if note.quad is None else _points(note.quad, where),
        "polygons": [_points(ring, where) for ring in note.polygons],
        "label": whole_text(note.label),
        "description": whole_text(note.description),
        "word": whole_text(note.word),
        "expressions": [whole_text(words) for words in note.expressions],
        "crowd": bool(note.crowd),
        **_said(note, where),
    }


def _grounding(note: GroundingNote, where: str) -> Plain:
    phrases = [
        {
            "phrase": whole_text(phrase.phrase),
            "boxes": [_box(box, where) for box in phrase.boxes],
            "span": None if phrase.span is None else {"start": int(phrase.span[0]), "end": int(phrase.span[1])},
            "score": _score(phrase.score, where),
        }
        for phrase in note.phrases
    ]
    return {"text": whole_text(note.text), "level": note.level, "phrases": phrases, **_said(note, where)}


def _question(note: QuestionNote, where: str) -> Plain:
    answers = [whole_text(answer) for answer in note.answers]
    return {"question": whole_text(note.question), "answers": answers, **_said(note, where)}


def _pair(note: PairNote, where: str) -> Plain:
    return {"prefix": whole_text(note.prefix), "suffix": whole_text(note.suffix), **_said(note, where)}


def _said(note: Any, where: str) -> Plain:
    origin = note.origin
    return {
        "score": _score(note.score, where),
        "origin": {
            "source": whole_text(origin.source),
            "model": whole_text(origin.model),
            "version": whole_text(origin.version),
            "round": origin.round,
        },
    }


def _verdict(verdict: Verdict, place: int) -> Plain:
    value = None if verdict.value is None else _number(verdict.value, f"verdicts[{place}]")
    words = (verdict.note_id, verdict.rule, verdict.reason)
    return dict(zip(("note_id", "rule", "reason"), map(whole_text, words), strict=True)) | {"value": value}


def _measure(measure: Measure, place: int) -> Plain:
    value = None if measure.value is None else _number(measure.value, f"measures[{place}]")
    words = (measure.note_id, measure.name, measure.text)
    return dict(zip(("note_id", "name", "text"), map(whole_text, words), strict=True)) | {"value": value}


def _box(box: Box, where: str) -> Plain:
    return {name: _number(value, where) for name, value in zip(Box._fields, box, strict=True)}


def _points(points: Iterable[Point], where: str) -> list[float]:
    return [_number(value, where) for point in points for value in (point[0], point[1])]


def _score(score: float | None, where: str) -> float | None:
    if score is None:
        return None
    number = _number(score, where)
    if not 0 <= number <= 1:
        raise BadRecord(f"{where}: its score is {number}; a score is a probability, 0 to 1")
    return number


def _number(value: float, where: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise BadRecord(f"{where} holds {number}; coordinates, scores and values are finite numbers: leave it out")
    return number


# ---- reading


def _read_text(plain: Plain) -> TextNote:
    return TextNote(text=plain["text"], level=plain["level"], **_read_said(plain))


def _read_region(plain: Plain) -> RegionNote:
    quad = plain["quad"]
    return RegionNote(
        box=None if plain["box"] is None else _read_box(plain["box"]),
        quad=None if quad is None else _read_quad(quad),
        polygons=tuple(_read_points(ring) for ring in plain["polygons"]),
        label=plain["label"],
        description=plain["description"],
        word=plain["word"],
        expressions=tuple(plain["expressions"]),
        crowd=plain["crowd"],
        **_read_said(plain),
    )


def _read_grounding(plain: Plain) -> GroundingNote:
    phrases = tuple(
        PhraseNote(
            phrase=phrase["phrase"],
            boxes=tuple(_read_box(box) for box in phrase["boxes"]),
            span=None if phrase["span"] is None else (phrase["span"]["start"], phrase["span"]["end"]),
            score=phrase["score"],
        )
        for phrase in plain["phrases"]
    )
    return GroundingNote(text=plain["text"], level=plain["level"], phrases=phrases, **_read_said(plain))


def _read_question(plain: Plain) -> QuestionNote:
    return QuestionNote(question=plain["question"], answers=tuple(plain["answers"]), **_read_said(plain))


def _read_pair(plain: Plain) -> PairNote:
    return PairNote(prefix=plain["prefix"], suffix=plain["suffix"], **_read_said(plain))


def _read_said(plain: Plain) -> Plain:
    return {"score": plain["score"], "origin": Origin(**plain["origin"])}


def _read_box(plain: Plain) -> Box:
    return Box(plain["x0"], plain["y0"], plain["x1"], plain["y1"])


def _read_points(flat: list[float]) -> Polygon:
    return tuple(Point(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True))


def _read_quad(flat: list[float]) -> Quad:
    a, b, c, d = _read_points(flat)
    return a, b, c, d


_WRITERS: dict[str, Callable[[Any, str], Plain]] = {
    "texts": _text,
    "regions": _region,
    "groundings": _grounding,
    "questions": _question,
    "pairs": _pair,
}
_READERS: dict[str, Callable[[Plain], Any]] = {
    "texts": _read_text,
    "regions": _read_region,
    "groundings": _read_grounding,
    "questions": _read_question,
    "pairs": _read_pair,
}
