"""The store: a folder of images, layers of notes about them, and rounds; nothing in it is ever changed.

    store.json                              how it is cut into units
    corpus.lance/                           the images; a published round is one column more
    ingest/                                 what became of every input, found by seen.sqlite; failures.parquet lists
                                            those that failed
    layers/<layer>/<run-id>/<unit>.parquet  what a run notes of the images of a unit
    attempts/<layer>/<run-id>/<unit>.json   left by whoever works on it
    sealed/<layer>/<run-id>.json            a run that is complete, with its counts
    rounds/<k>.json                         which runs make a round
    cache/                                  answers that cost money; of a store on object storage, on this machine

A file is there whole or not at all, and its name follows from what it holds. So whatever is killed and begun again ends
as if it had not been killed, without a list of what was done.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openflorence.data.notes import ImageRow, Notes
from openflorence.data.store_corpus import IMAGE_COLUMNS, Corpus
from openflorence.data.store_diff import SAME_PLACE, RoundDiff, compare
from openflorence.data.store_files import clear_parts, commit, commit_json, locked
from openflorence.data.store_ingest import ImageIn, Ingested, IngestSettings, failures, ingest, read_stored
from openflorence.data.store_layers import LayerRun
from openflorence.data.store_place import (
    check_bucket,
    is_remote,
    listed,
    local_cache,
    make_folder,
    place_of,
    reaching,
    read_kept,
)
from openflorence.data.store_records import CORPUS, StoredRecords
from openflorence.data.store_rounds import Round, combine_unit, define_round, find_round, publish, read_rounds
from openflorence.data.store_rows import Plain, arrow
from openflorence.data.store_sql import query
from openflorence.errors import BadConfig, BadImage

_FORMAT = 1
_FILE = "store.json"
UNIT_IMAGES = 256
UNIT_BYTES = 64 * 2**20


def is_store(path: str | Path) -> bool:
    """Tell whether a store lies at a path, or at a URL of object storage.

    raises    BadConfig for a URL that cannot be a store's, or when it cannot be reached.
    """
    place = place_of(path)
    with reaching(place):
        return (place / _FILE).exists()  # of object storage, `is_file` is also False when nothing can be reached


class Store:
    """A store that is there. It holds no state but the folder, so it may be sent to other processes."""

    def __init__(self, folder: str | Path) -> None:
        """Open a store; `Store.create` makes one.

        folder    a path, or a URL of object storage: s3://bucket/fld.
        raises    BadConfig when there is none, or one of another format.
        """
        self.folder = place_of(folder)
        path = self.folder / _FILE
        if not is_store(self.folder):
            raise BadConfig(f"{self.folder} is no store: it has no {_FILE}; make one with Store.create")
        facts = read_kept(path)
        if facts.get("format") != _FORMAT:
            raise BadConfig(f"{path} has format {facts.get('format')!r}; this version reads format {_FORMAT}")
        self.unit = (int(facts["unit_images"]), int(facts["unit_bytes"]))
        self.corpus = Corpus(self.folder / CORPUS)
        # What can be made again, and files that are written to in place: these lie on this machine.
        self.cache = local_cache(self.folder, str(facts.get("id"))) if is_remote(self.folder) else self.folder / "cache"

    @staticmethod
    def create(folder: str | Path, unit_images: int = UNIT_IMAGES, unit_bytes: int = UNIT_BYTES) -> "Store":
        """Make an empty store.

        folder       a path, or a URL of object storage: s3://bucket/fld.
        unit_images  most images of a unit: what is worked on, and lost by a kill, at once.
        unit_bytes   most bytes of a unit's images, unless one alone is larger: a worker holds them in memory.
        raises       BadConfig when there is a store, or other files; or no such bucket.
        """
        place = place_of(folder)
        if unit_images < 1 or unit_bytes < 1:
            raise BadConfig(f"unit_images={unit_images}, unit_bytes={unit_bytes}: give 1 or more of each")
        check_bucket(place)
        there = [path.name for path in listed(place, "*")]
        if set(there) - {CORPUS}:  # which a killed `create` leaves
            raise BadConfig(f"{place} is not empty, it has {there[0]!r}; open the store there, or give a new folder")
        make_folder(place)
        Corpus.create(place / CORPUS)
        facts: dict[str, Any] = {"format": _FORMAT, "unit_images": unit_images, "unit_bytes": unit_bytes}
        if is_remote(place):
            facts["id"] = secrets.token_hex(8)  # what this machine keeps of it is not another store's
        commit_json(place / _FILE, facts)
        return Store(place)

    @staticmethod
    def open(folder: str | Path) -> "Store":
        """Open a store that is there.

        raises    BadConfig when there is none.
        """
        return Store(folder)

    # ---- images

    @property
    def corpus_id(self) -> str:
        """How the images are cut into units; more images do not change it."""
        return f"{_FORMAT}-{self.unit[0]}-{self.unit[1]}"

    def ingest(
        self,
        images: Iterable[ImageIn],
        settings: IngestSettings = IngestSettings(),  # noqa: B008 - frozen, so it can be shared
        advance: Callable[[], object] = lambda: None,
    ) -> Ingested:
        """Take images in. Those that cannot be read are listed by `failures`, equal bytes are kept once.

        advance   called after each input.
        raises    BadConfig when another process is writing images or rounds.
        promise   an input that was taken in before is passed over. Killed and called again with the same images, the
                  store ends as without the kill.
        """
        folder = self.folder / "ingest"
        index = (self.cache if is_remote(folder) else folder) / "seen.sqlite"
        with self._lock():
            done = ingest(self.corpus, folder, images, self.unit, settings, advance, index)
            self._list_failures()
            self._tidy()
        return done

    def failures(self) -> list[Plain]:
        """Give uri, kind and message of every input that could not be taken in."""
        return failures(self.folder / "ingest")

    def units(self) -> tuple[int, ...]:
        """Name the units that the images are cut into, as they are now."""
        self.corpus.refresh()
        return tuple(range(self.corpus.units))

    def images(self, unit: int, data: bool = True) -> list[ImageRow]:
        """Give the images of a unit, always in the same order.

        data      with their bytes; otherwise these are empty.
        raises    BadConfig when there is no such unit.
        """
        columns = [*IMAGE_COLUMNS, *(["image"] if data else [])]
        return [_image(row, data) for row in self.corpus.read(unit, columns)]

    def find(self, name: str) -> tuple[int, int] | None:
        """Give unit and place in it of an image by its id or uri; None when there is none."""
        self.corpus.refresh()
        found = self.corpus.find(name)
        return None if found is None else (found[0], self.corpus.ids(found[0]).index(found[1]))

    # ---- layers

    def layer(self, layer: str, run_id: str, facts: Mapping[str, Any] | None = None) -> LayerRun:
        """Give a run of a layer, begun or not; see LayerRun."""
        return LayerRun(self.folder, self.corpus, layer, run_id, facts)

    def runs(self) -> dict[str, tuple[str, ...]]:
        """Name the runs that were begun, by layer."""
        found: dict[str, list[str]] = {}
        for path in listed(self.folder / "layers", "*/*"):
            found.setdefault(path.parent.name, []).append(path.name)
        return {layer: tuple(runs) for layer, runs in found.items()}

    # ---- rounds

    def rounds(self) -> dict[int, Round]:
        """Give all rounds by number, published or not."""
        return read_rounds(self.folder)

    def define_round(self, number: int, runs: Mapping[str, str], notes_from: Sequence[str] = ()) -> Round:
        """Say which sealed runs make a round.

        runs        layer -> run id.
        notes_from  layers whose notes its records hold, in this order; () for all. Verdicts of all layers count.
        raises      BadConfig for a run that is not sealed, or a round that is published with other runs.
        """
        self.corpus.refresh()
        return define_round(self.folder, number, [self.layer(*run) for run in runs.items()], notes_from)

    def publish(self, number: int) -> Round:
        """Write the records of a round beside the images, for good.

        raises    BadConfig when it is not defined, or another process is writing images or rounds.
        promise   image bytes are not written again; earlier rounds stay as they are; killed and called again, it goes
                  on.
        """
        one = self.rounds().get(number)
        if one is None:
            raise BadConfig(f"round {number} is not defined; say with define_round which runs make it")
        with self._lock():
            done = publish(self.folder, self.corpus, one, self._runs_of(one))
            self._tidy()
        return done

    def notes(self, number: int, unit: int) -> list[Notes | None]:
        """Give what a round, published or not, says of every image of a unit; None for one that it leaves out."""
        one = self.rounds().get(number)
        if one is None:
            raise BadConfig(f"round {number} is not defined; there are {sorted(self.rounds())}")
        return combine_unit(self._runs_of(one), one.notes_from, unit)

    def records(self, number: int | None = None) -> StoredRecords:
        """Give the records of a published round, the latest one for None: a sequence that reads when it is asked.

        raises    BadConfig when it is not published.
        """
        one = find_round(self.folder, number)
        return StoredRecords(self.folder, one.tag, one.column)

    def diff(self, first: int, second: int, overlap: float = SAME_PLACE) -> RoundDiff:
        """Compare two published rounds.

        overlap   intersection over union from which two boxes are one place.
        raises    BadConfig when one is not published.
        """
        return compare(self.records(first), self.records(second), overlap)

    def sql(self, question: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Plain]:
        """Ask in SQL; the tables are listed in data/store_sql.py.

        returns   one dictionary a row.
        raises    BadConfig for what DuckDB does not understand.
        """
        self.corpus.refresh()
        return query(self.folder, self.corpus, question, parameters)

    def _runs_of(self, one: Round) -> list[LayerRun]:
        return [self.layer(layer, run_id) for layer, run_id in one.runs.items()]

    def _lock(self) -> Any:
        return locked(self.folder / "store.lock", f"store {self.folder}")

    def _tidy(self) -> None:
        """Delete what kills left, unless something staged still waits for its commit."""
        clear_parts(self.folder)
        clear_parts(self.folder / "rounds")
        if not listed(self.folder / "rounds" / "staged", "*/*.json"):
            self.corpus.tidy()

    def _list_failures(self) -> None:
        import pyarrow.parquet as parquet

        fields = [(name, arrow().string()) for name in ("uri", "kind", "message")]
        table = arrow().Table.from_pylist(self.failures(), schema=arrow().schema(fields))
        commit(self.folder / "failures.parquet", lambda beside: parquet.write_table(table, beside))


def _image(row: Plain, data: bool) -> ImageRow:
    """Make what a stage gets of a row of the corpus; what cannot be read any more has its problem instead of bytes."""
    found, problem = b"", ""
    if data:
        try:
            found = read_stored(row)
        except BadImage as error:
            problem = str(error)
    size, meta = (row["width"], row["height"]), json.loads(row["meta"] or "{}")
    return ImageRow(row["image_id"], found, row["mime"], size, row["uri"], problem, meta)
