"""A lock on object storage, where no system takes one back when its holder dies: a lease that must be renewed.

    <name>/000007      one object a holder, made only if it is not there yet; the highest number holds the lock

The holder writes it anew every few seconds, and "free" into it in the end. Who finds one that is not free watches it:
if it changes, its holder lives; if not for as long as a lease lasts, it is dead, and whoever makes the next number
first holds the lock. Only changes are looked at, so clocks need not agree.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from openflorence.data.store_place import file_system, key_of, listed, network_errors, read_whole
from openflorence.errors import BadConfig

LEASE_S = 15.0  # without a change for so long, a holder is dead
RENEW_S = 3.0
_FREE = "free"


@contextmanager
def leased(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder on object storage while the block runs.

    what      that is locked, for the message.
    raises    BadConfig when another process holds it; or, at the end of the block, when one took it over, because
              this process could not renew it.
    """
    lease = _take(folder, what)
    ended, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, ended, lost), daemon=True, name="openflorence-lease")
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        if not lost.is_set():
            with suppress(*network_errors()):  # then it ends by itself
                lease.write(_FREE)
    if lost.is_set():
        raise BadConfig(f"{what}: another process took over, since this one was not heard of for {LEASE_S:.0f} s")


@dataclass(frozen=True)
class _Lease:
    """One turn at a lock."""

    folder: Path
    number: int
    owner: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.number:06d}"

    def write(self, state: str, mode: str = "overwrite") -> None:
        """Say that it is held, or free; the mode "create" raises FileExistsError when someone else was first."""
        said = json.dumps({"owner": self.owner, "state": state}).encode()
        file_system(self.folder).pipe_file(key_of(self.path), said, mode=mode)


def _take(folder: Path, what: str) -> _Lease:
    while True:
        numbers = _numbers(folder)
        last = numbers[-1] if numbers else 0
        if last and not _is_over(folder / f"{last:06d}"):
            raise BadConfig(f"{what} is being written by another process ({folder} is locked); wait for it, or end it")
        lease = _Lease(folder, last + 1, secrets.token_hex(8))
        with suppress(FileExistsError):
            lease.write("0", mode="create")
            for number in numbers:
                (folder / f"{number:06d}").unlink(missing_ok=True)
            return lease


def _is_over(path: Path) -> bool:
    """Tell whether the holder freed its lock, or does not renew it any more; watches it for as long as a lease."""
    seen, until = _read(path), time.monotonic() + LEASE_S
    while time.monotonic() < until:
        if not seen or json.loads(seen)["state"] == _FREE:
            return True
        time.sleep(RENEW_S / 4)
        now = _read(path)
        if now and now != seen and json.loads(now)["state"] != _FREE:
            return False
        seen = now
    return True


def _renew(lease: _Lease, ended: threading.Event, lost: threading.Event) -> None:
    beat = 0
    while not ended.wait(RENEW_S):
        beat += 1
        with suppress(*network_errors()):  # it may come back
            if _numbers(lease.folder)[-1:] != [lease.number]:
                lost.set()
                return
            lease.write(str(beat))


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in listed(folder, "*") if path.name.isdecimal())


def _read(path: Path) -> bytes:
    """The state of a lock; empty when the next holder cleared it away."""
    try:
        return read_whole(path)
    except FileNotFoundError:
        return b""
