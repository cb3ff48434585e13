"""A store of four pictures whose notes are few enough to be counted by hand; round 0 is published.

row 0  a.png  two texts, a cat and a printed word, a grounded text
row 1  b.png  two cats, of which the filter drops the second, and a question
row 2  c.png  the specialist failed
row 3  d.png  nothing is noted
       broken.jpg could not be taken in
"""

import io
from pathlib import Path

from PIL import Image

from openflorence.contract.records import (
    GroundingNote,
    Origin,
    PhraseNote,
    QuestionNote,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.notes import Failure, LayerRow, Notes, Verdict
from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn
from tests.small_store import write

WH = (100, 50)
EVIL = "<script>alert(1)</script> & \"q\" <img src=x onerror='alert(2)'>"
OWN = Origin(source="own", model="m", version="1")
_QUAD = (Point(60, 10), Point(80, 10), Point(80, 15), Point(60, 15))

A = Notes(
    texts=(
        TextNote(text="a red cat sleeps", level="brief", score=0.9, origin=OWN),
        TextNote(text="A red cat sleeps on a mat.", level="detailed", origin=OWN),
    ),
    regions=(
        RegionNote(box=Box(0, 0, 50, 50), label="cat", description="a red cat", score=0.95, origin=OWN),
        RegionNote(quad=_QUAD, word="EXIT", score=0.5, origin=OWN),
    ),
    groundings=(
        GroundingNote(
            text="a red cat sleeps",
            phrases=(PhraseNote(phrase="a red cat", boxes=(Box(0, 0, 50, 50), Box(50, 25, 100, 50)), span=(0, 9)),),
            origin=OWN,
        ),
    ),
)
B = Notes(
    regions=(
        RegionNote(box=Box(40, 20, 60, 30), label="cat", score=1.0, origin=OWN),
        RegionNote(box=Box(40, 20, 61, 31), label="cat", score=0.2, origin=OWN),
    ),
    questions=(QuestionNote(question="What is it?", answers=("a cat", "a cat", "cat"), origin=OWN),),
)


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", WH, (shade, shade, 200)).save(file, "PNG")
    return file.getvalue()


def noted(folder: Path, a: Notes = A, b: Notes = B) -> Store:
    """The store; two images a unit, so that counts run over units."""
    store = Store.create(folder, unit_images=2)
    pictures = [ImageIn(uri=f"/pictures/{name}.png", data=png(40 * n), licence="CC0") for n, name in enumerate("abcd")]
    store.ingest([*pictures, ImageIn(uri="/pictures/broken.jpg", data=b"broken")])
    failed = Failure("Timeout", "took more than 5 s", "own", 3)
    said = {0: ("ok", None, a), 1: ("ok", None, b), 2: ("failed", failed, Notes()), 3: ("ok", None, Notes())}
    lost = {1: (Verdict("own/region1", "score", "score 0.20 is below 0.50", 0.2),)}

    def own(unit: int) -> list[LayerRow]:
        ids = store.corpus.ids(unit)
        return [LayerRow(name, *said[2 * unit + place]) for place, name in enumerate(ids)]  # type: ignore[arg-type]

    def filtered(unit: int) -> list[LayerRow]:
        ids = store.corpus.ids(unit)
        return [LayerRow(name, verdicts=lost.get(2 * unit + place, ())) for place, name in enumerate(ids)]

    write(store.layer("own", "r0-a"), store, own)
    write(store.layer("filter", "r0-b"), store, filtered)
    store.define_round(0, {"own": "r0-a", "filter": "r0-b"}, notes_from=["own"])
    store.publish(0)
    return store


def empty(folder: Path) -> Store:
    """The same pictures with a round that says nothing."""
    return noted(folder, Notes(), Notes())
