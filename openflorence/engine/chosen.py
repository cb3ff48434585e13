"""What of a round goes into an export: which images, in which part, under which name, and what cannot be said.

A first pass reads the annotations alone and keeps a number for each image, every label and some counts. So memory grows
by eight bytes an image, and whatever writes files afterwards knows how many there will be.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from openflorence.contract.records import Record
from openflorence.data.folders import SPLITS
from openflorence.data.opened import part_of, stated_part
from openflorence.data.store import Store
from openflorence.data.store_ingest import read_stored
from openflorence.data.store_records import StoredRecords
from openflorence.data.store_rounds import Round, find_round
from openflorence.data.store_rows import Plain
from openflorence.engine.unsaid import OBJECTS_ALONE, SAYS, above, has_objects, unsaid
from openflorence.errors import BadConfig, BadImage
from openflorence.model.images import is_turned
from openflorence.model.listing import IMAGE_SUFFIXES

Pictures = Literal["copy", "reference"]
PICTURES: tuple[Pictures, ...] = get_args(Pictures)
REFERENCES = ("coco", "jsonl", "parquet")  # formats that can name a picture that lies elsewhere
_COLUMNS = ("image_id", "uri", "mime", "licence", "size_bytes")
_TAKEN = 16  # pictures in memory at once
_ENDINGS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/avif": ".avif",
    "image/jp2": ".jp2",
    "image/x-portable-anymap": ".ppm",
}
Advance = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is exported, and how."""

    to: str  # a name of SAYS
    number: int | None = None  # of the round; the latest for None
    least: float = 0.0  # notes of a lower score stay out; those without one are taken
    shares: tuple[float, ...] = ()  # of train, val and test; () keeps the parts that data sets came with
    seed: int = 0  # of the parts
    images: Pictures = "copy"  # "reference": only named, where they lie in a place of their own
    shard: int = 1000  # images in a file of those formats that pack them

    def __post_init__(self) -> None:
        if self.to not in SAYS:
            raise BadConfig(f"--to is {self.to!r}; allowed: {', '.join(SAYS)}")
        if self.images not in PICTURES or (self.images == "reference" and self.to not in REFERENCES):
            raise BadConfig(
                f"--images {self.images} with {self.to}: allowed are copy, and reference with {', '.join(REFERENCES)}"
            )
        sums = abs(sum(self.shares) - 1) < 1e-6 and len(self.shares) <= len(SPLITS) and min(self.shares) >= 0
        if self.shares and not sums:
            raise BadConfig(
                f"--split {','.join(map(str, self.shares))}: give shares of train, val and test that sum to 1, "
                "as 0.9,0.05,0.05"
            )
        if not 0 <= self.least <= 1 or self.shard < 1:
            raise BadConfig(f"--least-score {self.least}, --shard {self.shard}: a score is 0 to 1, a shard 1 or more")


@dataclass(frozen=True)
class Entry:
    """One image on its way out."""

    number: int  # of its row
    name: str  # of its file: unique, safe everywhere
    row: Plain  # image_id, uri, mime, licence
    record: Record  # its image is `name`
    data: bytes | None  # the file as it was; None where it is only named


@dataclass
class Chosen:
    """What goes out, part by part, and what was counted on the way."""

    settings: ExportSettings
    round: Round
    records: StoredRecords
    rows: "dict[str, array[int]]" = field(default_factory=lambda: {part: array("q") for part in SPLITS})
    labels: tuple[str, ...] = ()
    with_objects: Counter[str] = field(default_factory=Counter)  # part -> images with objects, or known to have none
    with_captions: Counter[str] = field(default_factory=Counter)  # part -> images with a brief text
    lost: Counter[str] = field(default_factory=Counter)  # what the format has no place for
    below: int = 0  # notes of a lower score than the least
    left_out: int = 0  # images of which nothing can be said in this format
    unsure: int = 0  # images that come with objects, of which nobody said that these are all
    turned: int = 0  # pictures that lie otherwise than they are looked at, of those written now
    copied: int = 0  # pictures that were to be named and have no place of their own
    gone: dict[int, str] = field(default_factory=dict)  # row -> why a picture could not be read

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have an image."""
        return tuple(part for part, rows in self.rows.items() if rows)

    def notes(self, part: str) -> Iterator[tuple[int, Plain, Record]]:
        """Give row, columns and record of every image of a part, without the pictures; may be called again."""
        for number, row, record in self.records.at(self.rows[part]).beside(_COLUMNS):
            if number not in self.gone:
                yield number, row, above(record, self.settings.least)[0]

    def entries(self, rows: Sequence[int]) -> Iterator[Entry]:
        """Give every image of these rows with its picture, a few in memory; those that cannot be read go to `gone`."""
        for number, row, record in self.records.at(rows).beside([*_COLUMNS, "image"], _TAKEN):
            name = file_name(number, row)
            data = None
            if not self.is_named(row):
                try:
                    data = read_stored(row)
                except BadImage as error:
                    self.gone[number] = str(error)
                    continue
                self.turned += is_turned(data)
                self.copied += self.settings.images == "reference"
            kept, _ = above(record, self.settings.least)
            yield Entry(number, name, row, replace(kept, image=name), data)

    def is_named(self, row: Plain) -> bool:
        """Tell whether a picture is only named: that is asked for, and it lies where its name says."""
        if self.settings.images != "reference":
            return False
        uri = str(row["uri"])
        if "://" in uri:
            return True
        path = Path(uri)
        return path.is_file() and path.stat().st_size == row["size_bytes"]


def choose(store: Store, settings: ExportSettings, advance: Advance = lambda: None) -> Chosen:
    """Look through a round: which images go out, and what of them cannot be said.

    raises    BadConfig when the round is not published, or nothing of it can be said in this format.
    """
    one = find_round(store.folder, settings.number)
    chosen = Chosen(settings, one, store.records(one.number))
    labels: set[str] = set()
    everything: Counter[str] = Counter()
    for number, row, read in chosen.records.beside(["image_id", "meta"]):
        record, below = above(read, settings.least)
        chosen.below += below
        objects = has_objects(record)
        captioned = settings.to == "coco" and any(note.level == "brief" for note in record.texts)
        lost = unsaid(record, settings.to)
        everything += lost
        chosen.lost += lost
        advance()
        if settings.to in OBJECTS_ALONE and not (objects or captioned):
            chosen.left_out += 1
            continue
        stated = "" if settings.shares else stated_part(row["meta"])
        part = stated or part_of(row["image_id"], settings.shares or (1.0,), settings.seed)
        chosen.rows[part].append(number)
        chosen.with_objects[part] += objects
        chosen.with_captions[part] += captioned
        chosen.unsure += objects and settings.to in OBJECTS_ALONE and "objects" not in record.whole
        labels.update(region.label for region in record.regions if region.label and region.bounds)
    chosen.labels = tuple(sorted(labels))
    if not chosen.parts or (settings.to == "yolo" and not labels):  # whose data.yaml must name a class
        said = ", ".join(f"{count} {name}" for name, count in everything.most_common()) or "no notes at all"
        raise BadConfig(
            f"{store.folder}, round {one.number}: nothing of it can be said as {settings.to}, it has {said}; "
            "jsonl, parquet, webdataset and hf hold everything"
        )
    return chosen


def file_name(number: int, row: Plain) -> str:
    """Name the file of an image: what it was called, as far as that is safe, and its row, which makes it unique.

    promise   letters, digits, "_" and "-" and one dot; the same in every round, and whatever else is exported.
    """
    last = PurePosixPath(re.split(r"[?#]", str(row["uri"]))[0] if "://" in row["uri"] else str(row["uri"])).name
    last = last.rpartition("#")[2].rpartition("/")[2]
    stem, dot, ending = last.rpartition(".")
    safe = re.sub(r"[^A-Za-z0-9_]+", "_", stem if dot else last)[:60].strip("_") or "image"
    own = f".{ending.lower()}" if f".{ending.lower()}" in IMAGE_SUFFIXES else ".img"
    return f"{safe}-{number:07d}{_ENDINGS.get(row['mime'], own)}"
