"""What the engine costs beside its specialists: over a plain loop, with two workers, in memory, and on the disk.

    python -m benchmarks.engine                        # a quiet machine; six minutes
    python -m benchmarks.engine --parts cost memory    # some of it; --images 40 shows that it runs

cost      A specialist that sleeps 5 ms an image, inline over a store on disk, against a plain loop that calls the same
          specialist with the same batches, its images in memory and its notes in a list. In turns, medians. `cpu_share`
          is the same in processor time, which other work on the machine hardly touches.
workers   The same specialist with one worker and with two, as processes and on Ray, in turns, medians. Images a second
          in the second half of the units, when all workers are there; what it took in all, with starts, stands beside.
memory    Peak memory of a run over ten times as many images, each in a fresh process: a driver with a stage of no cost
          over a store of made-up images, so that nothing but the engine can grow.
publish   Bytes that publishing a round adds to a store of drawn scenes with the grain of photographs, as a share of the
          image bytes: with texts, boxes and phrases as specialists give them, and with all that is known of a scene.
          Then with as many notes as FLD-5B has of an image, 43 annotations, the images being stubs: bytes and processor
          time an image of a layer, of all rules of the filter, of the published column, and of reading it; in units of
          256 and of 1024 images.
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

from benchmarks.engine_notes import IMAGE_WH, all_notes, annotations, blank, grainy, many_notes, specialist_notes
from benchmarks.engine_stub import BATCH, UNIT, Sleeper
from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.data.notes import LayerRow, Notes
from openflorence.data.store import ImageIn, Store
from openflorence.engine.judge import judge
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.schedule import Progress
from openflorence.engine.stages import Factory, Outcome, Row, StageSpec

PARTS = ("cost", "workers", "memory", "publish")
RUNNERS = ("processes", "ray")
UNITS = 32  # that workers share: with a few, what is left for the last of them would count
PICTURE_PX = 160  # a side of noise: as JPEG about 20 KB


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    parts: tuple[str, ...] = PARTS
    images: int = 2048  # of the store on disk: eight units
    stub_images: int = 5000  # of the smaller run for memory; the larger has ten times as many
    scenes: int = 512  # of the store that is published
    wait_ms: float = 5.0  # of the specialist, for an image
    repeats: int = 5
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
    parser.add_argument("--scenes", type=int, default=plan.scenes)
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
    if "cost" in plan.parts:
        results["cost"] = measure_cost(fill(folder / "cost", plan.images, UNIT), plan)
    if "workers" in plan.parts:
        store = fill(folder / "workers", plan.images, max(plan.images // UNITS, 1))
        results["workers"] = [measure_workers(runner, store, plan) for runner in RUNNERS]
    if "memory" in plan.parts:
        results["memory"] = [measure_memory(runner, folder, plan) for runner in ("inline", "processes")]
    if "publish" in plan.parts:
        results["publish"] = measure_publishing(folder / "scenes", plan.scenes)
    return results


def fill(folder: Path, images: int, unit: int) -> Store:
    """A store of so many pictures of noise, no two the same."""
    store = Store.create(folder, unit_images=unit)
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
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "engine": []}
    for repeat in range(plan.repeats):
        seconds["plain"].append(timed(lambda: plain_loop(rows, plan.wait_ms)))
        seconds["engine"].append(timed(lambda: run_stages([spec], opened, repeat + 1)))  # noqa: B023 - called at once
    (plain, plain_cpu), (engine, engine_cpu) = (
        [median(column) for column in zip(*found, strict=True)] for found in seconds.values()
    )
    return {
        "plain_s": plain,
        "engine_s": engine,
        "share": engine / plain - 1,
        "us_per_image": 1e6 * (engine - plain) / len(rows),
        "cpu_share": (engine_cpu - plain_cpu) / plain,
        "cpu_us_per_image": 1e6 * (engine_cpu - plain_cpu) / len(rows),
        "seconds": seconds,
    }


def plain_loop(rows: Sequence[Row], wait_ms: float) -> list[Outcome]:
    """What one would write without an engine."""
    specialist = Sleeper(wait_ms)
    notes: list[Outcome] = []
    for start in range(0, len(rows), BATCH):
        notes += specialist.process(rows[start : start + BATCH])
    return notes


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, and seconds of the processor."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def measure_workers(runner: str, store: Store, plan: Plan) -> dict[str, Any]:
    """Images a second of one worker and of two, in turns."""
    runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for repeat in range(plan.repeats):
        for workers, found in runs.items():
            settings = RunSettings(runner=runner, workers=workers)  # type: ignore[arg-type]
            number = 1000 * RUNNERS.index(runner) + 10 * repeat + workers + 100  # a round of its own: nothing is there
            found.append(paced(store, plan.wait_ms, number, settings))
    paces = {workers: median(pace for pace, _ in found) for workers, found in runs.items()}
    return {
        "runner": runner,
        **{f"images_per_s_{workers}": pace for workers, pace in paces.items()},
        **{f"total_s_{workers}": median(total for _, total in found) for workers, found in runs.items()},
        "ratio": paces[2] / paces[1],
        "runs": runs,
    }


def paced(store: Store, wait_ms: float, number: int, settings: RunSettings) -> tuple[float, float]:
    """Images a second in the second half of a run, when all workers are there, and the seconds of all of it."""
    ticks: list[tuple[float, Progress]] = []
    start = time.perf_counter()
    run_stages(
        [sleeper(wait_ms)],
        opener(store),
        number,
        settings,
        tell=lambda progress: ticks.append((time.perf_counter(), progress)),
    )
    total_s = time.perf_counter() - start
    (first_s, first), (last_s, last) = ticks[len(ticks) // 2 - 1], ticks[-1]
    rows = sum(last.statuses["sleeper"].values()) - sum(first.statuses["sleeper"].values())
    return rows / (last_s - first_s), total_s


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


def measure_publishing(folder: Path, scenes: int) -> list[dict[str, Any]]:
    """What rounds add to a store: of drawn scenes, and of as many notes as FLD-5B has, in small units and in large."""
    store = Store.create(folder)
    store.ingest(ImageIn(uri=str(seed), data=grainy(seed)) for seed in range(scenes))
    kinds = {"scenes, as specialists": specialist_notes, "scenes, everything": all_notes}
    found = [publish_round(store, number, name, say) for number, (name, say) in enumerate(kinds.items())]
    for unit in (UNIT, 4 * UNIT):
        images = (ImageIn(uri=str(number), data=blank(number)) for number in range(2 * scenes))
        store = Store.create(folder / str(unit), unit_images=unit)
        store.ingest(images)
        found.append(publish_round(store, 0, f"as FLD-5B, units of {unit}", many_notes))
    return found


def publish_round(store: Store, number: int, name: str, say: Callable[[int], Notes]) -> dict[str, Any]:
    """Bytes and processor time of one layer, of its round as it is published, and of its records as they are read."""
    run = store.layer("notes", f"r{number}")
    count, seconds = 0, dict.fromkeys(("write", "filter", "publish", "read"), 0.0)
    for unit in store.units():
        notes = [say(int(image.uri)) for image in store.images(unit, data=False)]
        count += sum(map(annotations, notes))
        rows = [LayerRow(one, notes=said) for one, said in zip(store.corpus.ids(unit), notes, strict=True)]
        seconds["write"] += timed(lambda: run.write(unit, rows))[1]  # noqa: B023 - called at once
        seconds["filter"] += timed(lambda: [judge({"notes": said}, IMAGE_WH) for said in notes])[1]  # noqa: B023
    run.seal()
    store.define_round(number, {"notes": run.run_id})
    before = bytes_of(store.folder)
    seconds["publish"] = timed(lambda: store.publish(number))[1]
    added = bytes_of(store.folder) - before
    records = store.records(number)
    seconds["read"] = timed(lambda: [record.texts for record in records])[1]
    (images,) = store.sql("SELECT count(*) AS number, sum(size_bytes) AS bytes FROM images")
    each = {
        "image_bytes": images["bytes"],
        "annotations": count,
        "layer_bytes": bytes_of(run.folder),
        "published_bytes": added,
        **{f"{what}_cpu_us": 1e6 * spent for what, spent in seconds.items()},
    }
    shares = {"share": added / images["bytes"], "layer_bytes_per_annotation": bytes_of(run.folder) / count}
    return {"notes": name, **{what: value / images["number"] for what, value in each.items()}, **shares}


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_rows(part: str, found: Any) -> None:
    """One line a measurement."""
    for row in found if isinstance(found, list) else [found]:
        print(f"{part:9}" + "  ".join(f"{name} {shown}" for name, shown in cells(row)))


def cells(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of a row, without the single repeats."""
    for name, value in row.items():
        if not isinstance(value, dict | list):
            yield name, f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
