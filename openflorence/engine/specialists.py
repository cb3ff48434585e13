"""Who annotates, each a stage that writes a layer of its own: a reader of text, people, a function of one's own.

Our own network is in network.py, models of the transformers library in pipelines.py, servers in endpoints.py. What all
have in common: settings are plain values, models are loaded in `setup`, every note says where it is from, and what
cannot be done for an image is raised: the runner then does its batch again row by row.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from openflorence.contract.lines import reading_order
from openflorence.contract.records import LEVELS, UNKNOWN, Level, Origin, Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.cleaning import clean_record, scale_record
from openflorence.data.formats import open_dataset
from openflorence.data.notes import KINDS, Notes
from openflorence.data.problems import Problems
from openflorence.engine.stages import Context, Drop, Outcome, Resources, Row, Stage
from openflorence.engine.votes import PlaceKind
from openflorence.errors import BadConfig, BadImage, BadRecord
from openflorence.model.images import read_image

CAPTION = "caption"  # in the `meta` of an image: the text that came with it
_TALL = 1.5  # height over width from which the reader turns a line by a right angle before it reads it
_SAME = 0.01  # proportions of the stated and the real size may differ by this much


def open_row(row: Row) -> Image.Image:
    """Give the upright picture of a row.

    raises    BadImage when its bytes are gone or are no picture.
    """
    if not row.image.data:
        raise BadImage(f"{row.image.uri}: {row.image.problem or 'the row has no bytes'}")
    return read_image(row.image.data)


def version_of(package: str) -> str:
    """Give the version of an installed package; "" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def print_of(folder: Path) -> str:
    """Give twelve letters that change when files of a folder are replaced: from their names, sizes and times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


class TextReader(Stage):
    """Reads lines of printed text with RapidOCR, offline: its models come inside its package."""

    says: tuple[PlaceKind, ...] = ("word",)

    def __init__(
        self, layer: str = "rapidocr", round: int = 0, least: float = 0.5, threads: int = 1, batch: int = 4
    ) -> None:
        """Settle what is read.

        least     lines of a lower score are not noted.
        threads   of one worker.
        """
        if not 0 <= least <= 1 or threads < 1:
            raise BadConfig(f"least={least}, threads={threads}: allowed are scores from 0 to 1, and 1 thread or more")
        self.layer, self.round, self.least, self.threads, self.batch = layer, round, least, threads, batch
        self.resources = Resources(cpus=threads)
        self.model, self.revision = "rapidocr", version_of("rapidocr")
        self._read: Callable[..., Any] | None = None
        self._origin = UNKNOWN

    def setup(self, context: Context) -> None:
        """Load the three networks: where lines are, which are upside down, what they say."""
        try:
            importlib.import_module("onnxruntime")
            import rapidocr
        except ImportError as error:
            raise BadConfig(
                f"reading text needs rapidocr and onnxruntime ({error}): pip install openflorence[engine]"
            ) from error
        folder = Path(rapidocr.__file__).parent / "models"
        settings: dict[str, Any] = {
            "Global.log_level": "critical",
            "Global.text_score": self.least,
            "EngineConfig.onnxruntime.intra_op_num_threads": self.threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
        names = {}
        for part in ("det", "cls", "rec"):  # named, since the package would download what it does not find
            found = sorted(folder.glob(f"*_{part}_*.onnx"))
            if not found:
                raise BadConfig(f"{folder} holds no model for {part!r}; install rapidocr 3 again")
            settings[f"{part.capitalize()}.model_path"], names[part] = str(found[0]), found[0].stem
        self._read = rapidocr.RapidOCR(params=settings)
        self._origin = Origin(source="rapidocr", model=names["rec"], version=self.revision, round=self.round)

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the lines of each picture in reading order: quads, words, scores."""
        return [self._lines(open_row(row)) for row in rows]

    def _lines(self, picture: Image.Image) -> Notes:
        assert self._read is not None, "setup comes first"
        told = self._read(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))  # it wants blue first
        lines = []
        if told.boxes is not None and told.txts is not None:
            for corners, text, score in zip(told.boxes, told.txts, told.scores, strict=True):
                if text.strip():
                    lines.append(self._line(np.asarray(corners, np.float64), text.strip(), float(score)))
        lines = reading_order(lines, lambda note: note.bounds or Box(0, 0, 0, 0))
        return Notes(regions=tuple(lines), whole=frozenset(("words",)))

    def _line(self, corners: np.ndarray, text: str, score: float) -> RegionNote:
        """One line. A tall one is read from top to bottom; one that runs upwards gets the same quad, it is not told."""
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)  # top, right, bottom, left
        if max(sides[1], sides[3]) >= _TALL * max(sides[0], sides[2]):
            corners = np.roll(corners, -1, axis=0)
        a, b, c, d = (Point(x, y) for x, y in corners.tolist())
        return RegionNote(word=text, quad=(a, b, c, d), score=min(max(score, 0.0), 1.0), origin=self._origin)


class People(Stage):
    """What people said: a data set in any format of data/formats.py, matched to the images by path or name."""

    reads = ()
    partial = True  # most images of a pile were seen by nobody

    def __init__(
        self,
        path: str,
        layer: str = "people",
        format: str | None = None,
        splits: Sequence[str] = ("train", "val"),
        says: Sequence[PlaceKind] = ("object",),
        round: int = 0,
        exact: bool = False,
    ) -> None:
        """Name the data set.

        path      its folder or main file; format: one of FORMATS, None to tell it by the files.
        splits    its parts. Where there is no val part, it is a tenth of train, so the default takes all there is.
        says      kinds of places that people looked for, so that what they left out speaks against others.
        exact     the images came from this data set: theirs are the entries of their whole path, all of them; other
                  images have none, whatever they are called.
        """
        self.path, self.layer, self.format, self.splits, self.round = path, layer, format, tuple(splits), round
        self.says, self.exact = tuple(says), exact
        self.batch = 256
        self.model = f"people:{Path(path).name}"
        self.revision = print_of(Path(path)) if Path(path).is_dir() else _stamp(Path(path))
        self.problems = Problems()  # what was wrong with the annotations
        self._records: dict[str, list[tuple[tuple[str, ...], Record]]] = {}

    def setup(self, context: Context) -> None:
        """Read all records; raises BadRecord when that cannot be done."""
        for split in self.splits:
            data = open_dataset(self.path, split, self.format, self.problems)
            origin = Origin(source=data.name, version=data.format, round=self.round)
            for record in data.records:
                place = image_place(data.root, record.image) if self.exact else record.image
                parts = _parts(place)
                self._records.setdefault(place if self.exact else parts[-1], []).append(
                    (parts, _signed(record, origin))
                )

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give what is known of each image; nothing where the data set does not have it."""
        return [self._notes(row) for row in rows]

    def _notes(self, row: Row) -> Notes:
        record = self._find(row.image.uri)
        if record is None:
            return Notes()
        width, height = row.image.image_wh
        across, down = width / record.image_wh[0], height / record.image_wh[1]
        if abs(across / down - 1) > _SAME:
            raise BadRecord(
                f"{self.path}: {record.image} is {record.image_wh[0]} x {record.image_wh[1]} px there, the image "
                f"{width} x {height}; it was cut or turned, so its annotations do not fit"
            )
        if (width, height) != record.image_wh:
            record = scale_record(record, (across, down), (width, height))
        cleaned = clean_record(record, self.problems)
        if cleaned is None:
            return Notes()
        return Notes(**{name: getattr(cleaned, name) for name in KINDS}, whole=cleaned.whole)

    def _find(self, uri: str) -> Record | None:
        """The record whose path ends most like the image's; with `exact` all that is said of its whole path.

        raises    BadRecord when several do equally well.
        """
        if self.exact:
            same = [record for _, record in self._records.get(uri, [])]
            return _together(same) if same else None
        parts = _parts(uri)
        known = self._records.get(parts[-1], []) if parts else []
        fits = [(_shared(parts, theirs), record) for theirs, record in known]
        best = [record for length, record in fits if length == max(length for length, _ in fits)]
        if len(best) > 1:
            those = ", ".join(record.image for record in best[:3])
            raise BadRecord(f"{self.path}: {uri} fits {len(best)} entries equally well ({those}); give fuller paths")
        return best[0] if best else None


class Captions(Stage):
    """Texts that came with the images: the .txt beside an image of a WebDataset."""

    reads = ()
    says: tuple[PlaceKind, ...] = ()

    def __init__(self, layer: str = "captions", level: Level = "brief", round: int = 0) -> None:
        """Name the level that the texts have."""
        if level not in LEVELS:
            raise BadConfig(f"level is {level!r}; allowed: {', '.join(LEVELS)}")
        self.layer, self.level, self.batch = layer, level, 256
        self.model = self.revision = ""
        self._origin = Origin(source="captions", round=round)

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the text of each image that has one."""
        texts = [row.image.meta.get(CAPTION, "").strip() for row in rows]
        notes = [(TextNote(text=text, level=self.level, origin=self._origin),) if text else () for text in texts]
        return [Notes(texts=one) for one in notes]


class OwnFunction(Stage):
    """A function of one's own by "module:name": a list of rows in, one Notes (or any other Outcome) a row out."""

    def __init__(
        self,
        function: str,
        layer: str = "own",
        settings: Mapping[str, Any] | None = None,
        needs: Sequence[str] = (),
        reads: Sequence[str] = ("image",),
        says: Sequence[PlaceKind] = (),
        batch: int = 16,
    ) -> None:
        """Name the function; `settings` are given to it with every batch, `says` is what it looks for."""
        module, colon, name = function.partition(":")
        if not (module and colon and name):
            raise BadConfig(f"function is {function!r}; write module:name, as mine.look:annotate")
        self.function, self.layer, self.settings = function, layer, dict(settings or {})
        self.needs, self.reads, self.says, self.batch = tuple(needs), tuple(reads), tuple(says), batch
        self.model, self.revision = function, _code_print(module)
        self._call: Callable[..., Any] | None = None

    def setup(self, context: Context) -> None:
        """Import the function; raises BadConfig when there is none."""
        module, _, name = self.function.partition(":")
        try:
            self._call = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise BadConfig(f"{self.function} cannot be imported: {error}; is its folder on the path?") from error
        if not callable(self._call):
            raise BadConfig(f"{self.function} is {type(self._call).__name__}, not a function")

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Give what the function gives.

        raises    BadConfig when that is not one outcome a row; whatever the function raises.
        """
        assert self._call is not None, "setup comes first"
        told = list(self._call(list(rows), **self.settings))
        if len(told) != len(rows):
            raise BadConfig(f"{self.function} gave {len(told)} outcomes for {len(rows)} rows; give one a row, in order")
        for one in told:
            has_more = isinstance(one, tuple) and len(one) in (2, 3) and isinstance(one[0], Notes)
            if not (isinstance(one, Notes | Drop) or has_more):
                raise BadConfig(
                    f"{self.function} gave {type(one).__name__} for a row; give Notes, (Notes, verdicts, measures) or "
                    "Drop"
                )
        return told


def image_place(root: Path, image: str) -> str:
    """Name the image of a record by its whole path or URL, as a store names what it takes in."""
    return image if "://" in image else os.path.abspath(root / image)


def _together(records: Sequence[Record]) -> Record:
    """All that several records say of one image."""
    joined: dict[str, Any] = {name: tuple(note for one in records for note in getattr(one, name)) for name in KINDS}
    return replace(records[0], **joined, whole=frozenset().union(*(one.whole for one in records)))


def _signed(record: Record, origin: Origin) -> Record:
    """A record whose notes all say where they are from."""
    signed: dict[str, Any] = {
        name: tuple(
            replace(note, origin=replace(origin if note.origin == UNKNOWN else note.origin, round=origin.round))
            for note in getattr(record, name)
        )
        for name in KINDS
    }
    return replace(record, **signed)


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path or URL, without query and fragment of the latter."""
    plain = path.split("#")[0].split("?")[0] if "://" in path else path
    return tuple(part for part in PurePosixPath(plain.replace("\\", "/")).parts if part not in ("/", "."))


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common, counted from their ends."""
    same = [a == b for a, b in zip(reversed(one), reversed(other), strict=False)]
    return same.index(False) if False in same else len(same)


def _stamp(path: Path) -> str:
    """Twelve letters that change when a file is replaced; "" when there is none."""
    if not path.is_file():
        return ""
    facts = path.name, path.stat().st_size, path.stat().st_mtime_ns
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _code_print(module: str) -> str:
    """Twelve letters that change when a module's file is edited; "" where it has none that can be found."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    source = Path(found.origin) if found is not None and found.origin and found.has_location else None
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12] if source is not None else ""
