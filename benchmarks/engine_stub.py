"""A specialist that sleeps, and a store without images: what benchmarks/engine.py runs, with little to import.

python -m benchmarks.engine_stub FOLDER IMAGES RUNNER    # one run over made-up images; peak memory as JSON
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_of_process_mb
from openflorence.contract.records import TextNote
from openflorence.data.notes import ImageRow, LayerRow, Notes
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.stages import Factory, Outcome, Row, Stage, StageSpec

BATCH = 16
UNIT = 256  # images, as a store has them by default


def main() -> None:
    """Run, and print the peaks of driver and workers in MB, and the seconds."""
    folder, images, runner = sys.argv[1:]
    store = Factory("benchmarks.engine_stub:Stub", {"folder": folder, "size": int(images)})
    spec = StageSpec(Factory("benchmarks.engine_stub:Sleeper", {"wait_ms": 0.0}))
    settings = RunSettings(runner=runner, workers=1 if runner == "inline" else 2)  # type: ignore[arg-type]
    start = time.perf_counter()
    run_stages([spec], store, 0, settings)
    seconds = time.perf_counter() - start
    workers = max(float(path.read_text()) for path in Path(folder).rglob("peak-*"))
    print(json.dumps({"driver_mb": peak_of_process_mb(), "worker_mb": workers, "s": seconds}))


class Sleeper(Stage):
    """A specialist that takes its time and says one thing."""

    layer, batch = "sleeper", BATCH

    def __init__(self, wait_ms: float) -> None:
        self.wait_ms = wait_ms

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Sleep for every row."""
        time.sleep(self.wait_ms / 1e3 * len(rows))
        return [Notes(texts=(TextNote(text=f"{len(row.image.data)} bytes"),)) for row in rows]


class Stub:
    """A store without images: they are made when they are asked for, and of notes only the texts are kept."""

    corpus_id = "stub"

    def __init__(self, folder: str, size: int) -> None:
        self.folder, self.size = Path(folder), size

    @property
    def cache(self) -> Path:
        """Nobody pays for anything."""
        return self.folder / "cache"

    def units(self) -> range:
        """As many as it takes."""
        return range(-(-self.size // UNIT))

    def images(self, unit: int, data: bool = True) -> list[ImageRow]:
        """Twenty kilobytes each."""
        numbers = range(unit * UNIT, min((unit + 1) * UNIT, self.size))
        return [ImageRow(f"{n:09}", bytes(20_000) if data else b"", "image/jpeg", (1, 1), str(n)) for n in numbers]

    def layer(self, layer: str, run_id: str, facts: Mapping[str, Any] | None = None) -> "StubRun":
        """A folder of files."""
        return StubRun(self.folder / layer / run_id)


@dataclass(frozen=True)
class StubRun:
    """A run of a layer: a file of texts for each unit."""

    folder: Path

    def is_done(self, unit: int) -> bool:
        """True when the file is there."""
        return (self.folder / str(unit)).exists()

    def write(self, unit: int, rows: Sequence[LayerRow]) -> Sequence[LayerRow]:
        """One line a row."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"peak-{os.getpid()}").write_text(str(peak_of_process_mb()))
        (self.folder / str(unit)).write_text("\n".join(row.notes.texts[0].text for row in rows))
        return rows

    def read(self, unit: int) -> list[LayerRow]:
        """Nobody needs this layer."""
        return []

    def read_breadcrumb(self, unit: int) -> None:
        """Nobody dies here."""

    def write_breadcrumb(self, unit: int, crumb: Mapping[str, Any] | None) -> None:
        """Nobody dies here."""

    def lock(self) -> AbstractContextManager[None]:
        """Nobody else is here."""
        return nullcontext()

    def seal(self) -> None:
        """One more file."""
        (self.folder / "sealed").touch()

    @property
    def is_sealed(self) -> bool:
        """True when the file is there."""
        return (self.folder / "sealed").exists()


if __name__ == "__main__":
    main()
