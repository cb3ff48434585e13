"""A store as the engine sees it, of JSON files committed by renaming, and stages that misbehave on demand.

Images are numbers: the i-th has the id "000000i" and its number as bytes. Nothing here but JSON and file names, so that
a test of the engine says something about the engine alone.
"""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from openflorence.contract.records import TextNote
from openflorence.data.notes import Failure, ImageRow, LayerRow, Notes, Verdict
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.stages import Context, Drop, Factory, Outcome, Row, Stage, StageSpec
from openflorence.errors import BadConfig


def write_whole(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_text(json.dumps(value))
    os.replace(beside, path)


@dataclass(frozen=True)
class PlainRun:
    folder: Path  # of the run

    def is_done(self, unit: int) -> bool:
        return (self.folder / f"{unit}.json").exists()

    def write(self, unit: int, rows: list[LayerRow]) -> list[LayerRow]:
        write_whole(self.folder / f"{unit}.json", [row_to_json(row) for row in rows])
        return rows

    def read(self, unit: int) -> list[LayerRow]:
        return [row_from_json(row) for row in json.loads((self.folder / f"{unit}.json").read_text())]

    def read_breadcrumb(self, unit: int) -> dict | None:
        path = self.folder / "trails" / f"{unit}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_breadcrumb(self, unit: int, crumb: dict | None) -> None:
        path = self.folder / "trails" / f"{unit}.json"
        if crumb is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, crumb)

    @contextmanager
    def lock(self) -> Iterator[None]:
        path = self.folder / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadConfig("another process") from error
            for part in [*self.folder.glob("*.part"), *self.folder.glob("trails/*.part")]:
                part.unlink()
            yield

    def seal(self) -> None:
        write_whole(self.folder / "sealed", True)

    @property
    def is_sealed(self) -> bool:
        return (self.folder / "sealed").exists()


@dataclass(frozen=True)
class PlainStore:
    folder: Path
    size: int  # images
    per_unit: int
    data_bytes: int = 8  # of an image
    corpus_id: str = "plain"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def units(self) -> range:
        return range(-(-self.size // self.per_unit))

    def images(self, unit: int, data: bool = True) -> list[ImageRow]:
        numbers = range(unit * self.per_unit, min((unit + 1) * self.per_unit, self.size))
        return [image(number, self.data_bytes if data else 0) for number in numbers]

    def layer(self, layer: str, run_id: str, facts: dict | None = None) -> PlainRun:
        return PlainRun(self.folder / layer / run_id)


class DeadlyStore(PlainStore):
    """Ends the process that reads the images of one unit."""

    def __init__(self, folder: str, size: int, per_unit: int, data_bytes: int, deadly: int) -> None:
        super().__init__(Path(folder), size, per_unit, data_bytes)
        object.__setattr__(self, "deadly", deadly)

    def images(self, unit: int, data: bool = True) -> list[ImageRow]:
        if unit == self.deadly:
            os._exit(13)
        return super().images(unit, data)


def image(number: int, data_bytes: int) -> ImageRow:
    data = str(number).encode().rjust(data_bytes) if data_bytes else b""
    return ImageRow(f"{number:07}", data, "", (1, 1), str(number))


def open_plain(folder: str, size: int, per_unit: int, data_bytes: int = 8) -> PlainStore:
    return PlainStore(Path(folder), size, per_unit, data_bytes)


def plain(folder: Path, size: int, per_unit: int, data_bytes: int = 8) -> Factory:
    settings = {"folder": str(folder), "size": size, "per_unit": per_unit, "data_bytes": data_bytes}
    return Factory("plain_store:open_plain", settings)


def row_to_json(row: LayerRow) -> dict:
    error = row.error and [row.error.kind, row.error.message, row.error.stage, row.error.attempts]
    verdicts = [[verdict.note_id, verdict.rule, verdict.reason] for verdict in row.verdicts]
    texts = [note.text for note in row.notes.texts]
    return {"id": row.image_id, "status": row.status, "error": error, "texts": texts, "verdicts": verdicts}


def row_from_json(row: dict) -> LayerRow:
    error = row["error"] and Failure(*row["error"])
    notes = Notes(texts=tuple(TextNote(text=text) for text in row["texts"]))
    return LayerRow(row["id"], row["status"], error, notes, tuple(Verdict(*v) for v in row["verdicts"]))


def all_rows(store: Factory, layer: str, run_id: str) -> list[dict]:
    """Every row of a run, in order, as JSON."""
    opened = store.make()
    run = opened.layer(layer, run_id)
    return [row_to_json(row) for unit in opened.units() for row in run.read(unit)]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file that a run leaves and what is in it, but for locks."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and "lock" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


# ---- stages


class Echo(Stage):
    """Says the number of every image; misbehaves on those it is told to, by number."""

    def __init__(self, layer: str = "echo", wait_s: float = 0, bad: dict | None = None, log: str = "") -> None:
        self.layer, self.wait_s, self.log = layer, wait_s, log
        self.bad = {int(number): what for number, what in (bad or {}).items()}

    def setup(self, context: Context) -> None:
        note(self.log, "setup")

    def process(self, rows: list[Row]) -> list[Outcome]:
        note(self.log, ",".join(str(number_of(row)) for row in rows))
        time.sleep(self.wait_s * len(rows))
        outcomes: list = [Notes(texts=(TextNote(text=f"image {number_of(row)}"),)) for row in rows]
        for at, row in enumerate(rows):
            what = self.bad.get(number_of(row))
            if what is not None:
                outcomes = misbehave(what, outcomes, at)
        return outcomes


def note(log: str, words: str) -> None:
    if log:
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {words}\n")


def number_of(row: Row) -> int:
    return int(row.image.uri)


def misbehave(what: str, outcomes: list, at: int) -> object:
    if what == "raise":
        raise ValueError(f"cannot look at place {at}")
    if what == "exit":
        raise SystemExit(3)
    if what == "recursion":
        return misbehave(what, outcomes, at)
    if what == "memory":
        raise MemoryError
    if what == "die":
        os._exit(11)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(600)
    if what == "short":
        return outcomes[:-1]
    if what == "long":
        return [*outcomes, Notes()]
    if what == "none":
        return None
    if what == "type":
        return [*outcomes[:at], "a text", *outcomes[at + 1 :]]
    if what == "verdicts":
        return [*outcomes[:at], (Notes(), ["no verdict"]), *outcomes[at + 1 :]]
    if what == "score":
        return [*outcomes[:at], Notes(texts=(TextNote(text="too sure", score=2.0),)), *outcomes[at + 1 :]]
    if what == "drop":
        return [*outcomes[:at], Drop("duplicate", "seen before"), *outcomes[at + 1 :]]
    assert what == "verdict"
    return [*outcomes[:at], (outcomes[at], [Verdict("echo/text0", "short", "too short")]), *outcomes[at + 1 :]]


class Join(Stage):
    """Says what the layers it needs say, without looking at the image."""

    layer, reads, batch = "join", (), 3

    def __init__(self, needs: list[str], layer: str = "join", log: str = "") -> None:
        self.needs, self.layer, self.log = tuple(needs), layer, log

    def process(self, rows: list[Row]) -> list[Outcome]:
        note(self.log, "join")
        assert all(row.image.data == b"" for row in rows)
        texts = [[note.text for need in self.needs for note in row.layers[need].notes.texts] for row in rows]
        return [Notes(texts=(TextNote(text=" + ".join(some)),)) for some in texts]


class Unset(Echo):
    """Cannot be set up."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        if self.bad:
            os._exit(12)
        raise OSError("there is no such model")


def echo(layer: str = "echo", batch: int = 4, time_limit_s: float | None = None, **settings: object) -> StageSpec:
    return StageSpec(Factory("plain_store:Echo", {"layer": layer, **settings}), batch, time_limit_s)


def join(*needs: str, layer: str = "join", log: str = "") -> StageSpec:
    return StageSpec(Factory("plain_store:Join", {"needs": list(needs), "layer": layer, "log": log}))


# ---- runs that are killed, in processes of their own: called by name there


def run_two(store: Factory, log: str, runner: str, wait_s: float = 0.0) -> dict[str, str]:
    """Two stages, the second on the first's notes; gives the run ids."""
    stages = [join("echo", log=log), echo(log=log, wait_s=wait_s, bad={"3": "raise"})]
    return dict(run_stages(stages, store, 1, RunSettings(runner=runner, workers=2)).runs)  # type: ignore[arg-type]


def run_one(spec: StageSpec, store: Factory) -> None:
    run_stages([spec], store, 1)
