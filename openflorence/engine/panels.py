"""Notes of an image as answers that draw themselves: objects, outlines, words and phrases, each kind by itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from openflorence.contract.records import GroundingNote, Record, RegionNote
from openflorence.contract.regions import Answer, Point, Quad, Region
from openflorence.contract.tasks import find_task
from openflorence.data.store_records import image_source
from openflorence.errors import OpenFlorenceError
from openflorence.model.images import read_image
from openflorence.pages.pictures import data_uri, draw_sheet, draw_small
from openflorence.pages.pieces import Shot, shorten

GROUNDED = 3  # texts of an image whose phrases are drawn
LETTERS = 60  # of such a text in a caption

Panel = tuple[str, Answer]  # what is drawn, and the answer that draws it


def panels(record: Record) -> list[Panel]:
    """Give what can be drawn of an image, a panel for each kind; one without regions where there is none."""
    words = [note for note in record.regions if note.word]
    others = [note for note in record.regions if not note.word]
    outlines = [note for note in others if note.polygons]
    boxes = [note for note in others if not note.polygons]
    found: list[Panel] = []
    drawn_as = (("objects", "detect", boxes), ("outlines", "segment", outlines), ("words", "read_regions", words))
    for name, task, notes in drawn_as:
        if notes:
            found.append((f"{name}: {len(notes)}", _answer(record, task, map(_region, notes))))
    found += [_grounded(record, note) for note in record.groundings[:GROUNDED]]
    return found or [("no regions", _answer(record, "caption", []))]


def open_image(record: Record) -> Image.Image:
    """Give the upright picture of a record of a store.

    raises    BadImage when it is gone or is none.
    """
    return read_image(image_source(record.image, Path()))


def shots(record: Record, panels: Sequence[Panel]) -> list[Shot]:
    """Draw panels small enough for a page; a picture that cannot be drawn says why."""
    try:
        picture = open_image(record)
        return [Shot(name, data_uri(draw_small(answer, picture))) for name, answer in panels]
    except (OSError, OpenFlorenceError) as error:
        return [Shot("", "", f"The picture cannot be shown: {error}")]


def drawn(record: Record) -> Image.Image:
    """Draw everything, each panel beside the others.

    raises    BadImage when the picture is gone or is none.
    """
    return draw_sheet(panels(record), open_image(record))


def _answer(record: Record, task: str, regions: Iterable[Region]) -> Answer:
    return Answer(find_task(task), record.image_wh, "", tuple(regions))


def _region(note: RegionNote) -> Region:
    label = note.word or note.label or note.description or " / ".join(note.expressions)
    label = f"{label} (crowd)".strip() if note.crowd else label
    if note.word:
        return Region(label, quad=_quad(note), score=note.score)
    box = None if note.polygons else note.bounds
    return Region(label, box=box, polygons=note.polygons, score=note.score)


def _quad(note: RegionNote) -> Quad | None:
    """The quad of a word; the corners of its box where it has none."""
    if note.quad is not None or note.bounds is None:
        return note.quad
    x0, y0, x1, y1 = note.bounds
    return Point(x0, y0), Point(x1, y0), Point(x1, y1), Point(x0, y1)


def _grounded(record: Record, note: GroundingNote) -> Panel:
    regions = [Region(one.phrase, box=box, score=one.score) for one in note.phrases for box in one.boxes]
    return f"phrases of “{shorten(note.text, LETTERS)}”", _answer(record, "ground", regions)
