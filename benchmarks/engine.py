"""What the engine costs beside its specialists: over a plain loop, with two workers, and in memory.

    python -m benchmarks.engine                        # a quiet machine; a few minutes
    python -m benchmarks.engine --parts cost memory    # some of it; --images 40 shows that it runs

cost      A specialist that sleeps 5 ms an image, inline over a store on disk, against a plain loop that calls the same
          specialist with the same batches, its images in memory and its notes in a list. In turns, medians.
workers   The same specialist with one worker and with two, as processes and on Ray. Images a second from when each
          has committed a unit until the last unit; what it took in all, starts included, stands beside.
memory    Peak memory of a run over ten times as many images, each in a fresh process: a driver with a stage of no cost
          over a store of made-up images, so that nothing but the engine can grow.
Prints a table and one line of JSON, and writes that line into a dated file.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.engine_stub import BATCH, UNIT, Sleeper
from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.data.store import ImageIn, Store
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.schedule import Progress
from openflorence.engine.stages import Factory, Outcome, Row, StageSpec

PARTS = ("cost", "workers", "memory")
PICTURE_PX = 160  # a side of noise: as JPEG about 20 KB


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    parts: tuple[str, ...] = PARTS
    images: int = 2048  # of the store on disk: eight units
    stub_images: int = 5000  # of the smaller run for memory; the larger has ten times as many
    wait_ms: float = 5.0  # of the specialist, for an image
    repeats: int = 3
    out: Path = ROOT / "benchmarks"  # where the dated file goes


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    folder = Path(tempfile.mkdtemp())
    try:
        results = measure(plan, folder)
    finally:
        shutil.rmtree(folder)
    for part in plan.parts:
        print_rows(part, results[part])
    keep(results, plan.out, "engine")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=plan.parts)
    parser.add_argument("--images", type=int, default=plan.images)
    parser.add_argument("--stub-images", type=int, default=plan.stub_images)
    parser.add_argument("--wait-ms", type=float, default=plan.wait_ms)
    parser.add_argument("--repeats", type=int, default=plan.repeats)
    parser.add_argument("--out", type=Path, default=plan.out)
    return Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in vars(parser.parse_args()).items()})


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Every part of the plan."""
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "versions": {name: version(name) for name in ("pylance", "pyarrow", "ray")},
        "images": plan.images,
        "wait_ms": plan.wait_ms,
        "batch": BATCH,
        "unit": UNIT,
        "repeats": plan.repeats,
    }
    if {"cost", "workers"} & set(plan.parts):
        store = fill(folder / "store", plan.images)
    if "cost" in plan.parts:
        results["cost"] = measure_cost(store, plan)
    if "workers" in plan.parts:
        results["workers"] = [measure_workers(runner, store, plan) for runner in ("processes", "ray")]
    if "memory" in plan.parts:
        results["memory"] = [measure_memory(runner, folder, plan) for runner in ("inline", "processes")]
    return results


def fill(folder: Path, images: int) -> Store:
    """A store of so many pictures of noise, no two the same; at least eight units, so that workers can share them."""
    store = Store.create(folder, unit_images=max(min(UNIT, images // 8), 1))
    store.ingest(ImageIn(uri=str(number), data=noise(number)) for number in range(images))
    return store


def noise(number: int) -> bytes:
    """One picture as JPEG."""
    pixels = np.random.default_rng(number).integers(0, 256, (PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def sleeper(wait_ms: float) -> StageSpec:
    """The specialist, by name."""
    return StageSpec(Factory("benchmarks.engine_stub:Sleeper", {"wait_ms": wait_ms}))


def opener(store: Store) -> Factory:
    """The store, by name."""
    return Factory("openflorence.data.store:Store.open", {"folder": str(store.folder)})


# ---- parts -----------------------------------------------------------------------------------------------------------


def measure_cost(store: Store, plan: Plan) -> dict[str, Any]:
    """The engine inline against a plain loop, in turns."""
    rows = [Row(image, {}) for unit in store.units() for image in store.images(unit)]
    spec, opened = sleeper(plan.wait_ms), opener(store)
    run_stages([spec], opened, 0)  # imports and first touches are paid once, whoever comes first
    seconds: dict[str, list[float]] = {"plain": [], "engine": []}
    for repeat in range(plan.repeats):
        seconds["plain"].append(timed(lambda: plain_loop(rows, plan.wait_ms)))
        seconds["engine"].append(timed(lambda: run_stages([spec], opened, repeat + 1)))  # noqa: B023 - called at once
    plain, engine = median(seconds["plain"]), median(seconds["engine"])
    return {
        "plain_s": plain,
        "engine_s": engine,
        "share": engine / plain - 1,
        "us_per_image": 1e6 * (engine - plain) / len(rows),
        "seconds": seconds,
    }


def plain_loop(rows: Sequence[Row], wait_ms: float) -> list[Outcome]:
    """What one would write without an engine."""
    specialist = Sleeper(wait_ms)
    notes: list[Outcome] = []
    for start in range(0, len(rows), BATCH):
        notes += specialist.process(rows[start : start + BATCH])
    return notes


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_workers(runner: str, store: Store, plan: Plan) -> dict[str, Any]:
    """Images a second of one worker and of two."""
    found: dict[str, Any] = {"runner": runner}
    for workers in (1, 2):
        ticks: list[tuple[float, Progress]] = []
        start = time.perf_counter()

        def tell(progress: Progress, ticks: list[tuple[float, Progress]] = ticks) -> None:
            ticks.append((time.perf_counter(), progress))

        settings = RunSettings(runner=runner, workers=workers)  # type: ignore[arg-type]
        number = 100 * workers + ["processes", "ray"].index(runner)  # a round of its own: nothing is there yet
        run_stages([sleeper(plan.wait_ms)], opener(store), number, settings, tell=tell)
        found[f"total_s_{workers}"] = time.perf_counter() - start
        # From when every worker has done a unit: the second one's first would else count as done in no time.
        (first_s, first), (last_s, last) = ticks[workers - 1], ticks[-1]
        rows = sum(last.statuses["sleeper"].values()) - sum(first.statuses["sleeper"].values())
        found[f"images_per_s_{workers}"] = rows / (last_s - first_s)
    found["ratio"] = found["images_per_s_2"] / found["images_per_s_1"]
    return found


def measure_memory(runner: str, folder: Path, plan: Plan) -> dict[str, Any]:
    """Peak memory of a run and of one ten times as long."""
    sizes = {"small": plan.stub_images, "large": 10 * plan.stub_images}
    found: dict[str, Any] = {"runner": runner, "images": list(sizes.values())}
    for name, images in sizes.items():
        command = [
            sys.executable,
            "-m",
            "benchmarks.engine_stub",
            str(folder / f"{runner}-{name}"),
            str(images),
            runner,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found |= {f"{name}_{key}": value for key, value in json.loads(done.stdout.splitlines()[-1]).items()}
    found["growth"] = found["large_driver_mb"] / found["small_driver_mb"] - 1
    found["worker_growth"] = found["large_worker_mb"] / found["small_worker_mb"] - 1
    return found


def print_rows(part: str, found: Any) -> None:
    """One line a measurement."""
    for row in found if isinstance(found, list) else [found]:
        print(f"{part:9}" + "  ".join(f"{name} {shown}" for name, shown in cells(row)))


def cells(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of a row, without the single repeats."""
    for name, value in row.items():
        if not isinstance(value, dict):
            yield name, f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
