"""Images that are nearly the same as an earlier one: hashed by a stage, found over the whole store, left out of rounds.

    run_stages([StageSpec(Factory("openflorence.engine.copies:Prints"))], ...)
    run_id = mark_copies(store, prints_run, near=8)      # a layer in which copies are filtered

Whether an image is a copy depends on the images before it alone, so what was decided holds when more images come.
"""

from collections.abc import Sequence
from typing import Any

from openflorence.data.notes import Failure, ImageRow, LayerRow, Measure, Notes
from openflorence.engine.duplicates import HASH_BITS, NEAR, Copy, find_copies, hash_image
from openflorence.engine.jobs import LayerRun, Store
from openflorence.engine.specialists import open_row
from openflorence.engine.stages import Context, Outcome, Row, Stage, fingerprint

PRINTS, COPIES = "prints", "copies"  # the layers
PRINT = "print"  # name of the measure: the hash, in hexadecimal
# An image with fewer steps is too plain to be told from another: a blank page, the sky. Photographs and micrographs
# that we measured have 26 or more; half of them have 54 or more.
FEWEST_STEPS = 2 * NEAR


class Prints(Stage):
    """Hashes every image by what it shows."""

    layer, batch = PRINTS, 32

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Give each image its hash as a measure."""
        return [(Notes(), (), (Measure("", PRINT, None, f"{hash_image(open_row(row)):032x}"),)) for row in rows]


def mark_copies(store: Store, prints_run: str, near: int = NEAR) -> str:
    """Write the layer in which near copies are filtered, each with the image that it is a copy of.

    prints_run  run id of Prints, every unit of which is there.
    near        bits of HASH_BITS that copies differ in at most.
    returns     the run id.
    raises      BadConfig for a number of bits that copies cannot be found by.
    promise     an image without a hash, or too plain for one, is no copy. More images change no row that is there.
    """
    facts: dict[str, Any] = {
        "layer": COPIES,
        "round": 0,
        "factory": f"{__name__}:mark_copies",
        "settings": {"near": near},
        "needs": {PRINTS: prints_run},
        "corpus": store.corpus_id,
        "code": "edition 1",
    }
    run_id = fingerprint(facts)
    run = store.layer(COPIES, run_id, facts)
    if not run.is_sealed:
        with run.lock():
            _mark(store, run, store.layer(PRINTS, prints_run), near)
            run.seal()
    return run_id


def _mark(store: Store, run: LayerRun, prints: LayerRun, near: int) -> None:
    """Write what is not there yet. What an image is a copy of always comes before it."""
    units = store.units()
    hashes = [_hash_of(row) for unit in units for row in prints.read(unit)]
    copies = {copy.place: copy for copy in find_copies([one for one in hashes if one is not None], near)}
    names = dict.fromkeys((copy.of for copy in copies.values()), "")
    known, place = iter(hashes), -1  # of images with a hash
    for unit in units:
        rows = []
        for image in store.images(unit, data=False):
            hashed = next(known) is not None
            place += hashed
            if hashed and place in names:
                names[place] = image.uri
            copy = copies.get(place) if hashed else None
            rows.append(LayerRow(image.image_id) if copy is None else _left_out(image, copy, names[copy.of]))
        if not run.is_done(unit):
            run.write(unit, rows)


def _left_out(image: ImageRow, copy: Copy, of: str) -> LayerRow:
    reason = f"{copy.bits} of {HASH_BITS} bits differ from {of}"
    return LayerRow(image.image_id, "filtered", Failure("near copy", reason, COPIES))


def _hash_of(row: LayerRow) -> int | None:
    found = next((int(one.text, 16) for one in row.measures if one.name == PRINT), 0)
    return found if found.bit_count() >= FEWEST_STEPS else None
