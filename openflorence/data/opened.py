"""Data by its path, whatever lies there: a data set in any format, or a store, whose latest round is read.

    part = open_data("fld/", "train", None, problems)
    records, root = part.usable(problems), part.root        # as RecordSource and evaluate_records take them

The parts of a store follow from its images alone, so that every process and every round cuts them alike.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.cleaning import usable_records
from openflorence.data.folders import SPLIT_WORDS, SPLITS
from openflorence.data.formats import open_dataset
from openflorence.data.problems import Problems
from openflorence.data.store import Store, is_store
from openflorence.data.store_records import StoredRecords
from openflorence.data.store_rounds import find_round
from openflorence.errors import BadConfig, BadRecord

PART = "part"  # in the `meta` of an image of a store: the part that its data set put it into
_HELD_OUT = 0.1  # of the images, where none was put into val


@dataclass(frozen=True)
class Opened:
    """One part of a data set or store, opened."""

    name: str  # of a store with its round, since another one is other data
    format: str  # a name of FORMATS, or "store"
    split: str
    root: Path  # relative image paths start here; a store's records name their images whole
    records: Iterator[Record] | Sequence[Record]  # of a data set: as read, to be gone through once

    def usable(self, problems: Problems) -> Sequence[Record]:
        """Give the records that can be asked about, cleaned; those of a store are so, and are read when asked for.

        raises    BadRecord when there is none, saying what was wrong.
        """
        if isinstance(self.records, StoredRecords):
            return self.records
        return usable_records(self.records, self.root, problems, f"{self.name}, {self.split} part")


def open_data(path: str | Path, split: str, format: str | None, problems: Problems) -> Opened:
    """Open one part of a data set as `open_dataset` does, or of the latest round of a store.

    The parts of a store: an image that came with a data set stays in the part that this put it into. Where none is in
    val, it is a tenth of the others by `part_of`, and train is the rest. Images of which the round says nothing are in
    no part.

    raises    BadRecord when there is no data set, or the part has no image; BadConfig for a split or format that is
              not known, a format beside a store, or a store without a published round.
    """
    if not is_store(path):
        part = open_dataset(path, split, format, problems)
        return Opened(part.name, part.format, part.split, part.root, part.records)
    wanted = SPLIT_WORDS.get(split)
    if wanted is None:
        raise BadConfig(f"split {split!r} is not known; allowed: {', '.join(SPLITS)}")
    if format is not None:
        raise BadConfig(f"{path} is a store, which has no format; leave format={format!r} out")
    store = Store.open(path)
    number = find_round(store.folder, None).number
    parts = _parts(store.records(number))
    if not parts[wanted]:
        there = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
        raise BadRecord(f"{path}, round {number}, has no image in its {wanted} part that something is said of: {there}")
    name = f"{store.folder.name}, round {number}"
    return Opened(name, "store", wanted, Path(), store.records(number).at(parts[wanted]))


def part_of(image_id: str, shares: Sequence[float], seed: int = 0) -> str:
    """Name the part of an image by a hash of its id, so that more images move none.

    shares    of train, val and test; they sum to one.
    """
    digest = hashlib.sha256(f"part {seed}: {image_id}".encode()).digest()
    place, least = int.from_bytes(digest[:6]) / 2**48, 0.0
    for name, share in zip(SPLITS, shares, strict=False):
        least += share
        if place < least:
            return name
    return SPLITS[max(at for at, share in enumerate(shares) if share)]  # shares sum to one but for rounding


def stated_part(meta: str | None) -> str:
    """Name the part that the data set of an image put it into, by its `meta` as it is kept; "" where none did."""
    part = json.loads(meta or "{}").get(PART, "")
    return part if part in SPLITS else ""


def _parts(records: StoredRecords) -> "dict[str, array[int]]":
    """The rows of every part, of images that something is said of."""
    parts = {name: array("q") for name in SPLITS}
    train, val = array("q"), array("q")  # of the images that are not put into another part
    for number, row, record in records.beside(["image_id", "meta"]):
        if record.is_empty:
            continue
        stated = stated_part(row["meta"])
        if stated in ("val", "test"):
            parts[stated].append(number)
            continue
        parts["train"].append(number)
        side = part_of(row["image_id"], (1 - _HELD_OUT, _HELD_OUT))
        (val if side == "val" else train).append(number)
    if not parts["val"] and train and val:
        parts |= {"train": train, "val": val}
    elif not parts["val"] and len(parts["train"]) > 1:
        # So few that one side has none: of two images each part has one; a single one is learnt from.
        parts |= {"train": parts["train"][1:], "val": parts["train"][:1]}
    return parts
