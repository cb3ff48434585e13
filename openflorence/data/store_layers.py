"""One run of one layer: a file of rows for every unit, committed by renaming; no other state.

A unit is done if and only if its file is there. Names follow from layer, run and unit, so a second writer replaces the
same rows and nothing is ever appended. Rows are never changed: other settings give another run id.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openflorence.data.entries import parse_json
from openflorence.data.notes import KINDS, Failure, LayerRow
from openflorence.data.store_corpus import Corpus
from openflorence.data.store_files import clear_parts, commit, commit_json, locked
from openflorence.data.store_place import parquet_file, read_kept, read_whole
from openflorence.data.store_rows import Plain, arrow, layer_row_from_plain, layer_row_to_plain, layer_schema
from openflorence.errors import BadConfig, BadRecord

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class LayerRun:
    """One run of one layer, begun or not."""

    def __init__(
        self, folder: Path, corpus: Corpus, layer: str, run_id: str, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Name a run.

        folder    of the store.
        facts     what the run was made with, for people: it is written into its files. Plain values.
        raises    BadConfig for a layer or run id that cannot be a folder.
        """
        for name in (layer, run_id):
            if not _NAME.fullmatch(name):
                raise BadConfig(f"{name!r} cannot name a layer or a run; use letters, digits, '_', '-' and '.'")
        self.corpus, self.layer, self.run_id, self.facts = corpus, layer, run_id, dict(facts or {})
        self.folder = folder / "layers" / layer / run_id
        self._attempts = folder / "attempts" / layer / run_id
        self._seal = folder / "sealed" / layer / f"{run_id}.json"

    def path(self, unit: int) -> Path:
        """Name the file of a unit."""
        return self.folder / f"{unit:06d}.parquet"

    def is_done(self, unit: int) -> bool:
        """Tell whether the rows of a unit are there."""
        return self.path(unit).exists()

    def write(self, unit: int, rows: Sequence[LayerRow]) -> list[LayerRow]:
        """Commit the rows of a unit, one for each image and in the same order.

        returns   the rows as they are kept: one that cannot be (it holds NaN) has failed, with the reason.
        raises    BadRecord when these are not the images of the unit.
        promise   after a kill there is the whole file or none.
        """
        expected = self.corpus.ids(unit)
        given = tuple(row.image_id for row in rows)
        if given != expected:
            place = next((at for at, (a, b) in enumerate(zip(given, expected, strict=False)) if a != b), len(given))
            raise BadRecord(
                f"unit {unit} of layer {self.layer!r} has {len(expected)} images, {len(given)} rows were given, and "
                f"row {place} is the first that differs: give one row for each image, in their order"
            )
        place_of = {"layer": self.layer, "run_id": self.run_id, "unit": unit}
        stored, plain = zip(*(self._storable(row) for row in rows), strict=True) if rows else ((), ())
        about = json.dumps({"format": 1, **place_of, "facts": self.facts})
        table = arrow().Table.from_pylist([place_of | row for row in plain], schema=layer_schema())
        commit(self.path(unit), lambda beside: _write(table, about, beside))
        return list(stored)

    def read(self, unit: int) -> list[LayerRow]:
        """Give the rows of a unit, one for each image.

        raises    BadRecord when they are not there.
        """
        return [layer_row_from_plain(row) for row in self._columns(unit, None)]

    def read_outcomes(self, unit: int) -> tuple[list[LayerRow], int]:
        """Give the rows of a unit without notes and measures, and how many notes there are; faster than `read`.

        raises    BadRecord when they are not there.
        """
        columns = ["image_id", "status", "error", "verdicts"]
        table = self._table(unit, [*columns, *KINDS])
        nothing = {**dict.fromkeys(KINDS), "whole": (), "measures": ()}
        rows = [layer_row_from_plain(row | nothing) for row in table.select(columns).to_pylist()]
        lists = (chunk for kind in KINDS for chunk in table[kind].chunks)
        return rows, sum(len(chunk.flatten()) for chunk in lists)

    def _storable(self, row: LayerRow) -> tuple[LayerRow, Plain]:
        try:
            return row, layer_row_to_plain(row)
        except (BadRecord, TypeError, ValueError) as error:
            failure = Failure("BadRecord", f"its notes cannot be kept: {error}", self.layer)
            failed = LayerRow(row.image_id, "failed", failure)
            return failed, layer_row_to_plain(failed)

    def _columns(self, unit: int, columns: list[str] | None) -> list[Plain]:
        found: list[Plain] = self._table(unit, columns).to_pylist()
        return found

    def _table(self, unit: int, columns: list[str] | None) -> Any:
        """Columns of the rows of a unit; all for None."""
        path = self.path(unit)
        if not path.exists():
            raise BadRecord(f"layer {self.layer!r}, run {self.run_id}, has no unit {unit}: {path} is not there; run it")
        with parquet_file(path) as file:
            return file.read(columns=columns, use_threads=False)

    # ---- attempts

    def read_breadcrumb(self, unit: int) -> dict[str, Any] | None:
        """Give what an earlier attempt at a unit left; None when there is nothing."""
        path = self._attempts / f"{unit:06d}.json"
        try:
            left = read_whole(path)
        except FileNotFoundError:  # also when its worker took it away a moment ago
            return None
        found: dict[str, Any] = parse_json(path, lambda: left)
        return found

    def write_breadcrumb(self, unit: int, crumb: Mapping[str, Any] | None) -> None:
        """Leave something for the next attempt at a unit, whole or not at all; None takes it away."""
        path = self._attempts / f"{unit:06d}.json"
        if crumb is None:
            path.unlink(missing_ok=True)
        else:
            # One for every batch: it need not outlive a loss of power, which blames nobody.
            commit_json(path, dict(crumb), to_disk=False)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one who drives this run, while a `with` block runs; what killed writers left is deleted first.

        raises    BadConfig when another process is.
        """
        with locked(self._attempts / "driver.lock", f"run {self.run_id} of layer {self.layer!r}"):
            clear_parts(self.folder)
            clear_parts(self._attempts)
            clear_parts(self._seal.parent, self._seal.name)  # other runs of the layer lie there too
            yield

    # ---- seals

    @property
    def is_sealed(self) -> bool:
        """True when it was sealed with all the units there are now."""
        return self._seal.exists() and self.sealed()["units"] == self.corpus.units

    def sealed(self) -> dict[str, Any]:
        """Give what was written down when it was sealed.

        returns   layer, run_id, units, rows, statuses, reasons, dropped (rule -> notes), facts.
        raises    BadConfig when it is not sealed.
        """
        if not self._seal.exists():
            raise BadConfig(f"run {self.run_id} of layer {self.layer!r} is not sealed: let it end first")
        found: dict[str, Any] = read_kept(self._seal)
        return found

    def seal(self) -> dict[str, Any]:
        """Say that every unit is there, and count what they hold. Sealed again when there are more units.

        returns   as `sealed`.
        raises    BadConfig naming the first unit that lacks.
        """
        units = self.corpus.units
        lacking = [unit for unit in range(units) if not self.is_done(unit)]
        if lacking:
            raise BadConfig(
                f"run {self.run_id} of layer {self.layer!r} cannot be sealed: {len(lacking)} of {units} units lack, "
                f"the first is {lacking[0]}; run them"
            )
        statuses: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for unit in range(units):
            for row in self._columns(unit, ["status", "error", "verdicts"]):
                statuses[row["status"]] += 1
                reasons.update([f"{row['status']}: {row['error']['kind']}"] if row["error"] else [])
                dropped.update(verdict["rule"] for verdict in row["verdicts"])
        counts = {"statuses": dict(statuses), "reasons": dict(reasons), "dropped": dict(dropped)}
        named = {"layer": self.layer, "run_id": self.run_id, "units": units, "rows": statuses.total()}
        commit_json(self._seal, {**named, **counts, "facts": self.facts})
        return self.sealed()


def _write(table: Any, about: str, path: Path) -> None:
    """Write rows as a Parquet file that says what they are."""
    import pyarrow.parquet as parquet

    # Nobody asks for the smallest value of a column, and Parquet's own types are ours: without these two, a file of
    # seventy columns with little in them takes 13 KB, not 21.
    lean = {"compression": "zstd", "store_schema": False, "write_statistics": False}
    with parquet.ParquetWriter(path, table.schema, **lean) as file:
        file.write_table(table)
        file.add_key_value_metadata({"openflorence": about})
