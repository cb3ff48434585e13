"""The images of a store, one row each, in one Lance data set; the only file that knows Lance.

A unit is one fragment: rows are only ever appended, in whole units, and never moved, so the number of a row holds for
ever. Nothing is compacted, for that would write the images again. A published round is one column more, of JSON texts,
because in Lance 14 those take less room than the same notes as nested columns: measured on 256 drawn scenes with three
captions, boxes and a grounding, 247 bytes an image against 609; with outlines and questions too, 747 against 1375.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from openflorence.data.store_place import lance_options, remove_folder
from openflorence.data.store_rows import Plain, arrow
from openflorence.errors import BadConfig

_FORMAT = "2.2"  # of Lance's files: "stable" moves, 2.3 is not stable yet, 2.0 holds no null structs
# Found by trying. Pieces of 128 KB are compressed, not of Lance's 4 KB: a third smaller, and a record is read as fast.
_PACKED = {
    "lance-encoding:compression": "zstd",
    "lance-encoding:compression-level": "15",
    "lance-encoding:structural-encoding": "miniblock",
    "lance-encoding:minichunk-size": "131072",
}
# What Lance keeps of files it has opened, some 27 KB a unit. Read in turn, none is needed again, and its own limit of
# 1 GB would look as if memory grew with the images; read at random, every one is needed again.
_IN_TURN_BYTES, _AT_RANDOM_BYTES = 16 * 2**20, 256 * 2**20
IMAGE_COLUMNS = ("image_id", "uri", "mime", "width", "height", "size_bytes", "licence", "meta", "unit")


def _lance() -> Any:
    try:
        import lance
    except ImportError as error:
        raise BadConfig(f"a store needs Lance: pip install openflorence[engine] ({error})") from error
    return lance


def corpus_schema() -> Any:
    """Give the Arrow schema of the images: `image` holds the file as it was, or null for one that stays where it is."""
    pa = arrow()
    kinds = {"width": pa.int32(), "height": pa.int32(), "size_bytes": pa.int64(), "unit": pa.int32()}
    fields = [(name, kinds.get(name, pa.string())) for name in IMAGE_COLUMNS]
    return pa.schema([*fields, ("image", pa.large_binary())])


class Corpus:
    """The images of a store, at their latest version or as they were when a round was published."""

    def __init__(self, path: Path, tag: str = "") -> None:
        """Name a corpus; it is opened when it is needed, once in each process."""
        self.path, self.tag = path, tag
        self._opened: dict[int, tuple[int, Any]] = {}  # bytes that are kept -> process, data set
        self._ends: list[int] = []
        self._ids = lru_cache(maxsize=4)(self._read_ids)

    def __getstate__(self) -> tuple[Path, str]:
        return self.path, self.tag

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty corpus; one without images that is there already is replaced.

        raises    BadConfig when there are images.
        """
        lance = _lance()
        if path.exists():
            try:
                rows = lance.dataset(str(path), storage_options=lance_options(path)).count_rows()
            except (ValueError, OSError):
                rows = 0  # it was killed before there was anything
            if rows:
                raise BadConfig(
                    f"{path} holds {rows} images of a store whose store.json is gone; choose another folder"
                )
            remove_folder(path)
        empty = corpus_schema().empty_table()
        lance.write_dataset(empty, str(path), data_storage_version=_FORMAT, storage_options=lance_options(path))

    @property
    def data(self) -> Any:
        """The Lance data set, as it was when it was opened; see `refresh`."""
        return self._data(_IN_TURN_BYTES)

    def _data(self, kept_bytes: int) -> Any:
        process, opened = self._opened.get(kept_bytes, (0, None))
        if process != os.getpid():
            lance, version = _lance(), self.tag or None
            opened = lance.dataset(
                str(self.path),
                version=version,
                metadata_cache_size_bytes=kept_bytes,
                storage_options=lance_options(self.path),
            )
            self._opened[kept_bytes] = (os.getpid(), opened)
        return opened

    def refresh(self) -> None:
        """Forget the opened version, so that the latest one is seen."""
        self._opened, self._ends = {}, []

    @property
    def units(self) -> int:
        """How many units there are; they count from 0."""
        return len(self.data.get_fragments())

    @property
    def rows(self) -> int:
        """How many images there are."""
        return int(self.data.count_rows())

    def ids(self, unit: int) -> tuple[str, ...]:
        """Give the image ids of a unit, in order."""
        return self._ids(unit)

    def read(self, unit: int, columns: Sequence[str]) -> list[Plain]:
        """Give columns of all rows of a unit.

        raises    BadConfig when there is no such unit.
        """
        return self._fragment(unit).to_table(columns=list(columns)).to_pylist()

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> list[Plain]:
        """Give columns of any rows, in the order asked for."""
        # Unit by unit: Lance's own `take` looks through the list of all units for every call, 2 ms with 4,000 of them.
        data = self._data(_AT_RANDOM_BYTES)
        places: dict[int, dict[int, int]] = {}  # unit -> row -> place in it
        for row in sorted(set(rows)):
            unit, place = self.place_of(row)
            places.setdefault(unit, {})[row] = place
        found: dict[int, Plain] = {}
        for unit, wanted in places.items():
            table = data.get_fragment(unit).take(list(wanted.values()), columns=list(columns))
            found |= zip(wanted, table.to_pylist(), strict=True)
        return [dict(found[row]) for row in rows]

    def place_of(self, row: int) -> tuple[int, int]:
        """Give the unit of a row, and its place in it."""
        unit = bisect_right(self._unit_ends(), row)
        return unit, row - self.row_of(unit, 0)

    def row_of(self, unit: int, place: int) -> int:
        """Give the row of a place in a unit."""
        return place + (self._unit_ends()[unit - 1] if unit else 0)

    def _unit_ends(self) -> list[int]:
        """The first row after each unit."""
        if not self._ends:
            fragments = self._data(_AT_RANDOM_BYTES).get_fragments()
            self._ends = list(accumulate(fragment.count_rows() for fragment in fragments))
        return self._ends

    def scan(self, columns: Sequence[str]) -> Iterator[Plain]:
        """Give columns of all rows in turn, a few hundred at a time in memory."""
        for batch in self.data.scanner(columns=list(columns), batch_size=256, scan_in_order=True).to_batches():
            yield from batch.to_pylist()

    def find(self, name: str) -> tuple[int, str] | None:
        """Give unit and id of the first image with this id or uri; None when there is none."""
        pa = arrow()
        import pyarrow.compute as pc

        either = (pc.field("image_id") == pa.scalar(name)) | (pc.field("uri") == pa.scalar(name))
        found = self.data.scanner(columns=["unit", "image_id"], filter=either, limit=1).to_table().to_pylist()
        return (found[0]["unit"], found[0]["image_id"]) if found else None

    def _read_ids(self, unit: int) -> tuple[str, ...]:
        return tuple(row["image_id"] for row in self.read(unit, ["image_id"]))

    def _fragment(self, unit: int) -> Any:
        found = self.data.get_fragment(unit)
        if found is None:
            raise BadConfig(f"{self.path} has no unit {unit}; it has {self.units}, counted from 0")
        return found

    # ---- writing: staged first, which changes nothing that can be seen; then committed, many at once

    def stage(self, rows: Sequence[Plain]) -> str:
        """Write the rows of a new unit; gives what `append` makes them visible with."""
        schema = corpus_schema()
        table = arrow().Table.from_pylist(list(rows), schema=schema)
        written = _lance().fragment.write_fragments(
            table,
            str(self.path),
            schema,
            mode="append",
            data_storage_version=_FORMAT,
            storage_options=lance_options(self.path),
        )
        assert len(written) == 1, f"{len(rows)} rows became {len(written)} fragments"
        return json.dumps(written[0].to_json())

    def append(self, staged: Sequence[str]) -> None:
        """Commit staged units in their order. Every commit writes the list of all units, so commit many at once."""
        lance = _lance()
        before = self.units
        fragments = [lance.fragment.FragmentMetadata.from_json(text) for text in staged]
        operation = lance.LanceOperation.Append(fragments)
        self._commit(operation)
        numbers = [fragment.fragment_id for fragment in self.data.get_fragments()]
        assert numbers == list(range(before + len(staged))), f"units are {numbers[-3:]} after {before}"

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in their order."""
        return list(self.data.schema.names)

    def stage_column(self, unit: int, name: str, texts: Sequence[str | None]) -> tuple[str, Any]:
        """Write one more column of texts for a unit; gives what `add_column` needs: the unit's, and the schema."""
        pa = arrow()
        field = pa.field(name, pa.string(), metadata=_PACKED)
        table = pa.table([pa.array(list(texts), pa.string())], schema=pa.schema([field]))
        metadata, schema = self._fragment(unit).merge_columns(table.to_reader())
        return json.dumps(metadata.to_json()), schema

    def add_column(self, staged: Mapping[int, str], schema: Any) -> None:
        """Commit a staged column; units that are not staged have null there."""
        lance = _lance()
        fragments = [
            lance.fragment.FragmentMetadata.from_json(staged[fragment.fragment_id])
            if fragment.fragment_id in staged
            else fragment.metadata
            for fragment in self.data.get_fragments()
        ]
        operation = lance.LanceOperation.Merge(fragments, schema)
        self._commit(operation)

    def _commit(self, operation: Any) -> None:
        """Make a new version, on top of the one that was read."""
        read, options = self.data.version, lance_options(self.path)
        _lance().LanceDataset.commit(str(self.path), operation, read_version=read, storage_options=options)
        self.refresh()

    def put_tag(self, tag: str) -> None:
        """Keep this version readable under a name for ever; a tag that is there stays."""
        if tag not in self.data.tags.list():
            self.data.tags.create(tag, self.data.version)

    def tidy(self) -> None:
        """Delete what killed writers left, and versions without a tag. Call it under the lock, with nothing staged."""
        self.refresh()
        self.data.cleanup_old_versions(
            older_than=timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
        )
        self.refresh()
