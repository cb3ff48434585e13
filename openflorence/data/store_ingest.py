"""Images into a store: read, looked at, told apart by their bytes, and committed unit by unit.

Every input leaves one line in a log: stored, a duplicate of what is there, or failed with the reason. The log of a unit
is written when its images lie on the disk, and it is what makes them count: taken up after a kill, inputs that are in a
log are passed over, and those after them come in the same order into the same units. Commits of Lance come in groups
that grow with the store, for each of them writes the list of all units.
"""

import hashlib
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from openflorence.data.store_corpus import Corpus
from openflorence.data.store_files import clear_parts, commit
from openflorence.data.store_place import listed, parquet_file
from openflorence.data.store_rows import Plain, arrow, whole_text
from openflorence.data.store_seen import Kind, Seen, seen_key
from openflorence.errors import BadConfig, BadImage
from openflorence.model.images import image_mime, read_image
from openflorence.model.sources import DEFAULT_LIMITS, ImageLimits, read_bytes

Keep = Literal["bytes", "reference"]
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # a letter and a colon is a drive
_LINES = 16  # of a log for each image of a full unit, at most
_GROUP = 16  # units are committed when those that wait are a sixteenth of those that are there


@dataclass(frozen=True, kw_only=True)
class ImageIn:
    """An image on its way into a store."""

    uri: str  # path or URL; with `data`, any name of where the bytes are from: "shard-3.tar#000017.jpg"
    data: bytes | None = None  # the file as it is; None: it is read from the uri
    licence: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)  # what else is known about it


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How images come into a store."""

    keep: Keep = "bytes"  # "reference": only where the image is; the store then needs the file to stay as it is
    limits: ImageLimits = DEFAULT_LIMITS
    retry: bool = False  # read inputs again that failed before
    threads: int = 4  # that read and decode; the order does not depend on them

    def __post_init__(self) -> None:
        if self.keep not in ("bytes", "reference") or self.threads < 1:
            raise BadConfig(
                f"keep={self.keep!r}, threads={self.threads}: keep is 'bytes' or 'reference', with 1 thread or more"
            )


@dataclass(frozen=True)
class Ingested:
    """What became of the inputs of one call."""

    stored: int
    duplicates: int  # other inputs with the bytes of a stored image
    failed: int
    known: int  # passed over: they were in the store before


@dataclass(frozen=True)
class _Looked:
    """An input that was read and looked at."""

    uri: str
    sha256: str = ""
    row: Plain | None = None  # of the corpus, without unit; None when it failed
    kind: str = ""
    message: str = ""
    size_bytes: int = 0


def ingest(
    corpus: Corpus,
    folder: Path,
    images: Iterable[ImageIn],
    unit: tuple[int, int],
    settings: IngestSettings,
    advance: Callable[[], object],
    index: Path,
) -> Ingested:
    """Take images into a corpus.

    folder    of the logs.
    unit      most images, and most bytes of them, before the next unit begins.
    advance   called after each input.
    index     file of this machine for the index of the logs; made again where it is not there.
    promise   killed and called again with the same images, this ends with the same units as without the kill.
    """
    intake = _Intake(corpus, folder, unit, settings.retry, index)
    inputs = (intake.counted(entry, advance) for entry in map(_named, images))
    new = (entry for entry in inputs if entry is not None)
    try:
        for looked in _in_order(new, partial(_look, settings=settings), settings.threads):
            intake.take(looked)
            advance()
    except BaseException:
        intake.commit()  # whole units can be used; the one that was filling comes again
        raise
    else:
        intake.finish()
    finally:
        intake.seen.close()
    counts = intake.counts
    return Ingested(counts["stored"], counts["duplicate"], counts["failed"], counts["known"])


class _Intake:
    """The unit that fills, and what the logs know."""

    def __init__(self, corpus: Corpus, folder: Path, unit: tuple[int, int], retry: bool, index: Path) -> None:
        self.corpus, self.folder = corpus, folder
        self.most_images, self.most_bytes = unit
        self.counts: Counter[str] = Counter()
        self.rows: list[Plain] = []
        self.log: list[Plain] = []
        self.bytes = 0
        clear_parts(folder)
        corpus.refresh()
        self.committed = corpus.units
        self.staged = self._staged()
        self.known: tuple[Kind, ...] = ("input",) if retry else ("input", "failed")  # what is passed over
        self.seen = Seen(index)
        for name in self.seen.lacks(path.name for path in listed(folder, "*.parquet")):
            for line in _read_lines(folder / name):
                self.seen.add(_keys(line))
            self.seen.logged(name)

    def _staged(self) -> list[str]:
        """The units whose log was written, and that were not committed yet."""
        staged: list[str] = []
        while (path := self._path(self.committed + len(staged))).exists():
            with parquet_file(path) as file:
                staged.append(file.schema_arrow.metadata[b"fragment"].decode())
        return staged

    def _path(self, unit: int) -> Path:
        return self.folder / f"{unit:06d}.parquet"

    def counted(self, entry: ImageIn, advance: Callable[[], object]) -> ImageIn | None:
        """Pass over an input that is in a log; one with bytes only if those are the same."""
        sha256 = "" if entry.data is None else hashlib.sha256(entry.data).hexdigest()
        if self.seen.has(*self._names(whole_text(entry.uri) + sha256)):
            self.counts["known"] += 1
            advance()
            return None
        return entry

    def _names(self, name: str) -> list[bytes]:
        return [seen_key(kind, name) for kind in self.known]

    def take(self, looked: _Looked) -> None:
        """Put a new input into the log, and its image into the unit unless its bytes are there already."""
        if self.seen.had_lately(*self._names(looked.uri + looked.sha256)):  # named twice within a few
            self.counts["known"] += 1
            return
        is_new = looked.row is not None and not self.seen.has(seen_key("image", looked.sha256))
        if self._is_full(looked.size_bytes if is_new else 0, is_new):
            self.close()
        outcome = "failed" if looked.row is None else "stored" if is_new else "duplicate"
        if looked.row is not None and is_new:
            self.rows.append(looked.row | {"unit": self.committed + len(self.staged)})
            self.bytes += looked.size_bytes
        self.counts[outcome] += 1
        texts = {"uri": looked.uri, "sha256": looked.sha256, "kind": looked.kind, "message": looked.message}
        self.log.append(texts | {"outcome": outcome})
        self.seen.add(_keys(self.log[-1]))

    def _is_full(self, more_bytes: int, one_more: bool) -> bool:
        """True when the next input needs another unit, or the log is long: of a million failures, too, few wait."""
        if len(self.log) >= _LINES * self.most_images:
            return True
        full = len(self.rows) >= self.most_images or (bool(self.rows) and self.bytes + more_bytes > self.most_bytes)
        return one_more and full

    def close(self) -> None:
        """End the unit: its images to the disk, then the log that makes them count; without images the log alone."""
        if not self.rows:
            self._keep_rest()
            return
        fragment = self.corpus.stage(self.rows)
        path = self._path(self.committed + len(self.staged))
        write_log(path, self.log, fragment)
        self.seen.logged(path.name)
        self.staged.append(fragment)
        self.rows, self.log, self.bytes = [], [], 0
        if len(self.staged) * _GROUP >= self.committed:
            self.commit()

    def commit(self) -> None:
        """Make staged units visible."""
        if self.staged:
            self.corpus.append(self.staged)
            self.committed += len(self.staged)
            self.staged = []

    def finish(self) -> None:
        """Close the last unit, and keep what was logged after it."""
        if self.rows:
            self.close()
        self.commit()
        if self.log:
            self._keep_rest()

    def _keep_rest(self) -> None:
        """Log what was no new image."""
        name = f"rest-{hashlib.sha256(json.dumps(self.log).encode()).hexdigest()[:12]}.parquet"
        write_log(self.folder / name, self.log, "")
        self.seen.logged(name)
        self.log = []


# ---- logs


def log_schema() -> Any:
    """Give the Arrow schema of a log: one row an input."""
    text = arrow().string()
    return arrow().schema([(name, text) for name in ("uri", "sha256", "outcome", "kind", "message")])


def write_log(path: Path, lines: list[Plain], fragment: str) -> None:
    """Commit a log, with what makes its unit visible."""
    import pyarrow.parquet as parquet

    schema = log_schema().with_metadata({"fragment": fragment})
    table = arrow().Table.from_pylist(lines, schema=schema)
    commit(path, lambda beside: parquet.write_table(table, beside, compression="zstd"))


def failures(folder: Path) -> list[Plain]:
    """Give uri, kind and message of every input that failed and was not stored later, with one reason each."""
    import pyarrow.compute as pc

    found: dict[str, Plain] = {}
    paths = listed(folder, "*.parquet")
    for path in paths:
        table = _read_table(path)
        for line in table.filter(pc.equal(table["outcome"], "failed")).to_pylist():
            found[line["uri"]] = {name: line[name] for name in ("uri", "kind", "message")}
    if not found:
        return []
    wanted = arrow().array(list(found), arrow().string())
    for path in paths:  # once more, and not in memory: nearly all were stored
        table = _read_table(path)
        stored = pc.and_(pc.not_equal(table["outcome"], "failed"), pc.is_in(table["uri"], value_set=wanted))
        for line in table.filter(stored).to_pylist():
            found.pop(line["uri"], None)
    return list(found.values())


def _read_lines(path: Path) -> list[Plain]:
    lines: list[Plain] = _read_table(path).to_pylist()
    return lines


def _read_table(path: Path) -> Any:
    with parquet_file(path) as file:
        return file.read(use_threads=False)


def _keys(line: Plain) -> Iterator[bytes]:
    """What a line of a log makes known: its input by name, and by name and bytes; its image if it is one."""
    kind: Kind = "failed" if line["outcome"] == "failed" else "input"
    yield seen_key(kind, line["uri"])
    yield seen_key(kind, line["uri"] + line["sha256"])
    if line["outcome"] == "stored":
        yield seen_key("image", line["sha256"])


# ---- one image


def read_stored(row: Plain, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Give the bytes of a row of the corpus; of one that is kept by reference, from where it lies.

    row       with image, uri and image_id.
    raises    BadImage when the file is gone, or has other bytes than when it was taken in.
    """
    if row["image"] is not None:
        kept: bytes = row["image"]
        return kept
    data = read_bytes(row["uri"], limits)
    if hashlib.sha256(data).hexdigest() != row["image_id"]:
        raise BadImage(f"{row['uri']} has other bytes than when it was taken into the store; take it in again")
    return data


def _named(entry: ImageIn) -> ImageIn:
    """Name a file by its whole path, so that it is the same from every folder."""
    if entry.data is not None or _SCHEME.match(entry.uri):
        return entry
    path = os.path.abspath(os.path.expanduser(entry.uri))
    return ImageIn(uri=path, licence=entry.licence, meta=entry.meta)


def _look(entry: ImageIn, settings: IngestSettings) -> _Looked:
    """Read, decode and describe one image. Whatever is wrong with it is its own failure."""
    uri, sha256 = whole_text(entry.uri), ""
    try:
        data = read_bytes(entry.uri if entry.data is None else entry.data, settings.limits)
        sha256 = hashlib.sha256(data).hexdigest()
        if settings.keep == "reference" and (entry.data is not None or uri != entry.uri):
            raise BadImage(f"{uri} cannot be read again from its name; keep its bytes")
        width, height = read_image(data, settings.limits).size
        mime = image_mime(data)
    except BadImage as error:
        return _Looked(uri, sha256, None, type(error).__name__, whole_text(str(error)))
    texts = {"image_id": sha256, "uri": uri, "mime": mime, "licence": whole_text(entry.licence)}
    meta = json.dumps(dict(entry.meta), sort_keys=True)
    sizes = {"width": width, "height": height, "size_bytes": len(data)}
    kept = data if settings.keep == "bytes" else None
    return _Looked(uri, sha256, {**texts, **sizes, "meta": meta, "image": kept}, size_bytes=len(data))


def _in_order(entries: Iterable[ImageIn], look: Callable[[ImageIn], _Looked], threads: int) -> Iterator[_Looked]:
    """Look at a few images ahead, in threads; results come in the order of the entries.

    raises    what the entries raise, after the last image that came before.
    """
    ahead: deque[Future[_Looked]] = deque()
    source, broken = iter(entries), None
    with ThreadPoolExecutor(threads, thread_name_prefix="openflorence-ingest") as pool:
        try:
            while broken is None:
                try:
                    ahead.append(pool.submit(look, next(source)))
                except Exception as error:  # StopIteration is one of them
                    broken = error
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()
    if not isinstance(broken, StopIteration):
        raise broken
