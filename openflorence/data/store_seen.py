"""What a store has taken in, found by sixteen bytes of a hash: on the disk, so that memory does not grow with it.

The logs of a store say what was taken in; this is only their index. What it lacks of them is read when it is opened, so
a kill costs nothing but time, and if its file is deleted it is made again.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal

Kind = Literal["input", "failed", "image"]
_WAITING = 2**16  # keys in memory until they are written: a commit touches most pages of a small file, so it pays late
_CACHE_KB = 16 * 1024  # of pages
_FIND = "select 1 from seen where key = ?"
_TABLES = """
    create table if not exists seen (key blob primary key) without rowid;
    create table if not exists logs (name text primary key) without rowid;
"""


def seen_key(kind: Kind, text: str) -> bytes:
    """Name what was seen. That two of a billion share a name is a chance of one in 10^20."""
    return hashlib.blake2b(text.encode(), digest_size=16, person=kind.encode()).digest()


class Seen:
    """Keys of what stands in the logs, and of what will stand in the next one."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; one that is none is made again."""
        self.path = path
        self.fresh: set[bytes] = set()  # in no log yet
        self.waiting: set[bytes] = set()  # in logs, and not in the file
        self.names: list[str] = []  # of these logs
        self.written: set[bytes] = set()  # into the file, the last time
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = self._open()
        except sqlite3.DatabaseError:  # after a loss of power
            path.unlink()
            self._base = self._open()

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        base.execute(f"pragma cache_size = -{_CACHE_KB}")
        base.execute("pragma locking_mode = exclusive")  # the store is locked already: three times as fast
        base.executescript(_TABLES)
        return base

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Give the logs among these that it does not hold, in their order."""
        held = {name for (name,) in self._base.execute("select name from logs")}
        return [name for name in names if name not in held]

    def has(self, *keys: bytes) -> bool:
        """Tell whether any of these was seen."""
        return self.had_lately(*keys) or any(self._base.execute(_FIND, (key,)).fetchone() for key in keys)

    def had_lately(self, *keys: bytes) -> bool:
        """Tell whether any of these was seen a moment ago, without a look at the disk."""
        return not all(lately.isdisjoint(keys) for lately in (self.fresh, self.waiting, self.written))

    def add(self, keys: Iterable[bytes]) -> None:
        """Take keys in; they last once their log is named to `logged`."""
        self.fresh.update(keys)

    def logged(self, name: str) -> None:
        """Say that all keys so far stand in logs, the last of them in this one."""
        self.waiting |= self.fresh
        self.fresh = set()
        self.names.append(name)
        if len(self.waiting) >= _WAITING:
            self._write()

    def close(self) -> None:
        """Write what stands in logs, and close the file; keys without a log are forgotten."""
        with closing(self._base):
            if self.names:
                self._write()

    def _write(self) -> None:
        self._base.execute("begin")
        self._base.executemany("insert or ignore into seen values (?)", ((key,) for key in sorted(self.waiting)))
        self._base.executemany("insert or ignore into logs values (?)", ((name,) for name in self.names))
        self._base.execute("commit")
        self.waiting, self.names, self.written = set(), [], self.waiting
