"""The records of a published round, by number: what training reads, from any process and in any order.

The image of a record is called `store:<folder>#<row>`; `image_source` turns that name into what read_image takes, and
leaves every other name a path. A row holds for ever, so a name does too.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

from openflorence.contract.records import Record, record_from_row
from openflorence.data.store_corpus import Corpus
from openflorence.data.store_ingest import read_stored
from openflorence.data.store_place import place_of
from openflorence.data.store_rows import Plain
from openflorence.data.store_text import text_to_row
from openflorence.errors import BadConfig, BadImage

STORED = "store:"
CORPUS = "corpus.lance"  # folder of the images within a store
_TAKEN = 256  # records read at once when they are gone through


class StoredRecords(Sequence[Record]):
    """Records of a round, one for every image the store had then; one without notes where it says nothing.

    Nothing is kept in memory: a record is read when it is asked for. A slice is a view: `records[3::8]` is what the
    fourth of eight workers reads, and `records[start:]` goes on where another run stopped. Send it to processes that
    are spawned, or come from a fork server: in ones forked from here Lance hung once and crashed once in some forty
    tries.
    """

    def __init__(self, folder: Path, tag: str, column: str, rows: Sequence[int] | None = None) -> None:
        """Name the records of a round; see Store.records."""
        self.folder, self.tag, self.column = folder, tag, column
        self.corpus = Corpus(folder / CORPUS, tag)
        self.rows: Sequence[int] = range(self.corpus.rows) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> "StoredRecords": ...

    def __getitem__(self, place: int | slice) -> "Record | StoredRecords":
        if isinstance(place, slice):
            return StoredRecords(self.folder, self.tag, self.column, self.rows[place])
        return self._records([self.rows[place]])[0]

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self.rows), _TAKEN):
            yield from self._records(self.rows[start : start + _TAKEN])

    def shard(self, index: int, count: int, start: int = 0) -> "StoredRecords":
        """Give every `count`-th record from `start` + `index` on.

        start     how many records all shards together have read before; another `count` may go on from there.
        raises    BadConfig when there is no such shard.
        promise   the shards 0 to count - 1 hold every record from `start` on exactly once.
        """
        if not 0 <= index < count or start < 0:
            raise BadConfig(f"shard {index} of {count} from record {start}: give 0 <= index < count, and start >= 0")
        return self[start + index :: count]

    def at(self, rows: Sequence[int]) -> "StoredRecords":
        """Give the records of these rows of the store, in this order."""
        return StoredRecords(self.folder, self.tag, self.column, rows)

    def beside(self, columns: Sequence[str], taken: int = _TAKEN) -> Iterator[tuple[int, Plain, Record]]:
        """Give every record with the number of its row and columns of its image.

        columns   of IMAGE_COLUMNS, or "image" for the file as it was, None for one that is kept by reference.
        taken     rows read at once: with "image", so many files are in memory.
        """
        wanted = list(dict.fromkeys([*columns, "width", "height", self.column]))
        for start in range(0, len(self.rows), taken):
            rows = self.rows[start : start + taken]
            for number, row in zip(rows, self.corpus.take(rows, wanted), strict=True):
                yield number, row, self._record(number, row)

    def ids(self) -> Iterator[str]:
        """Give the image ids of the records, in order."""
        for start in range(0, len(self.rows), _TAKEN):
            for row in self.corpus.take(self.rows[start : start + _TAKEN], ["image_id"]):
                yield row["image_id"]

    def _records(self, rows: Sequence[int]) -> list[Record]:
        found = self.corpus.take(rows, ["width", "height", self.column])
        return [self._record(number, row) for number, row in zip(rows, found, strict=True)]

    def _record(self, number: int, row: Plain) -> Record:
        said = text_to_row(row[self.column])
        name = f"{STORED}{self.folder}#{number}"
        return record_from_row({"image": name, "image_wh": [row["width"], row["height"]], **said})


def image_source(name: str, root: Path) -> Path | bytes:
    """Turn the image of a record into what read_image takes: the bytes from a store, or a path.

    root      folder that relative paths start at.
    raises    BadImage for an image that a store does not have, or refers to and is no longer there.
    """
    if not name.startswith(STORED):
        path = Path(name)
        return path if path.is_absolute() else root / path
    folder, _, row = name.removeprefix(STORED).rpartition("#")
    if not row.isdecimal():
        raise BadImage(f"{name!r} names no image of a store; the form is {STORED}<folder>#<row>")
    corpus = _corpus(folder)
    if int(row) >= corpus.rows:
        corpus.refresh()
    if int(row) >= corpus.rows:
        raise BadImage(f"{name}: the store has {corpus.rows} images, counted from 0")
    return read_stored(corpus.take([int(row)], ["image", "image_id", "uri"])[0])


def image_to_ask(name: str, root: Path) -> str | bytes:
    """Turn the image of a record into what a request takes: bytes from a store, a path, or a URL.

    root      folder that relative paths start at.
    returns   the name as it is for an image that is not in its store any more: whoever reads it says so.
    """
    if "://" in name and not name.startswith(STORED):
        return name
    try:
        source = image_source(name, root)
    except BadImage:
        return name
    return source if isinstance(source, bytes) else str(source)


@lru_cache(maxsize=16)
def _corpus(folder: str) -> Corpus:
    path = place_of(folder) / CORPUS
    if not path.exists():
        raise BadImage(f"{folder} is no store: {path} is not there")
    return Corpus(path)
