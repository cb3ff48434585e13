"""Files that are there whole or not at all, whatever kills the writer; and locks that end with who holds them."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from openflorence.data.store_lease import leased
from openflorence.data.store_place import file_system, is_remote, key_of
from openflorence.errors import BadConfig


def commit(path: Path, write: Callable[[Path], object], to_disk: bool = True) -> Path:
    """Write a file beside its place and move it there; folders are made.

    path      on object storage, the file is written on this machine and sent in one piece.
    write     is given the path beside.
    to_disk   wait until it is on the disk, so that it also outlives a loss of power.
    promise   after a kill there is the old file or the new one, and nothing in between.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="openflorence-") as folder:
            here = Path(folder) / path.name
            write(here)
            file_system(path).pipe_file(key_of(path), here.read_bytes())
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        write(beside)
        if to_disk:
            _to_disk(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if to_disk:
        _to_disk(path.parent)
    return path


def commit_json(path: Path, value: Any, to_disk: bool = True) -> Path:
    """Write a JSON value as `commit` does; gives the path."""
    text = json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False)
    return commit(path, lambda beside: beside.write_text(text + "\n", encoding="utf-8"), to_disk)


def clear_parts(folder: Path, name: str = "") -> None:
    """Delete what killed writers left in a folder, of one file or of all. Call it while nobody else writes there."""
    if is_remote(folder):
        return  # nothing lies beside
    for part in folder.glob(f".{name}*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs. The system takes it back when the process ends, also by kill -9.

    path      on object storage, the lock is a lease; see data/store_lease.py.
    what      that is locked, for the message.
    raises    BadConfig when another process holds it.
    """
    if is_remote(path):
        with leased(path, what):
            yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if not _lock(file):
            raise BadConfig(f"{what} is being written by another process ({path} is locked); wait for it, or end it")
        yield


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; False when another one has."""
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with suppress(OSError):  # not every system can do this with a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
