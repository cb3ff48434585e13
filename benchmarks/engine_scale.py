"""Up to a million stub records through the engine: is memory flat, does the cost grow with their number alone?

    nice -n 10 python -m benchmarks.engine_scale           # ten sizes; half an hour of one core, and 3 GB of disk
    python -m benchmarks.engine_scale --sizes 600 1200     # shows that it runs
    python -m benchmarks.engine_scale --work FOLDER        # taken up after a kill: sizes that are done are not repeated

The store and the runners are those of every run: images are read, hashed and appended as units of 256, each unit of a
layer is a file, each batch of 16 leaves its trail, runs are sealed, the round is published as a column and a tag. Only
what would take its own time is a stub: an image is a PNG of two pixels that spell its number, the specialist says one
line about it. Five parts, each in a process of its own, so that peaks and processor times are its own:

ingest     the images into a new store
inline     a stage in one process
processes  a stage in two worker processes; their peak is the larger of the two, times are summed over all processes
publish    the round of the inline run
read       every record of the round once, then some thousand by chance
copies     only when asked for: the search for near copies among so many hashes by chance, which does hold them all

Processor time stands beside wall time, for it does not depend on what else the machine does. `fit` holds the straight
line through the sizes: seconds before the first image, microseconds an image, and how far the furthest size is off.
Prints a table and one line of JSON, and writes that line into a dated file.
"""

import argparse
import json
import multiprocessing
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, commit, keep, peak_of_process_mb, processor
from openflorence.data.store import UNIT_IMAGES, ImageIn, IngestSettings, Store
from openflorence.engine.duplicates import HASH_BITS, find_copies
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.schedule import Progress
from openflorence.engine.stages import Factory, StageSpec

SIZES = (10_000, 15_000, 20_000, 30_000, 50_000, 80_000, 120_000, 200_000, 400_000, 1_000_000)
RANDOM = 2000  # records read by chance

Found = dict[str, float]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS)[:-1])
    parser.add_argument("--work", type=Path, help="a folder that outlives a kill; without one a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="where the dated file goes")
    parser.add_argument("--one", nargs=2, metavar=("PART", "IMAGES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        part, images = given.one
        print(json.dumps(measured(PARTS[part], given.work, int(images))))
        return
    work = given.work or Path(tempfile.mkdtemp())
    rows = [measure_size(work, images, given.parts) for images in given.sizes]
    if given.work is None:
        shutil.rmtree(work)
    fits = {part: fit(part, rows) for part in given.parts} if len(rows) > 1 else {}
    for line in table(rows, fits, given.parts):
        print(line)
    versions = {name: version(name) for name in ("pylance", "pyarrow")}
    facts = {"date": date.today().isoformat(), "commit": commit(), "processor": processor(), "versions": versions}
    keep(facts | {"unit": UNIT_IMAGES, "rows": rows, "fit": fits}, given.out, "engine-scale")


def measure_size(work: Path, images: int, parts: Sequence[str]) -> dict[str, Any]:
    """Every part over a store of so many images; from a file when it was measured before."""
    kept, folder = work / f"{images}.json", work / str(images)
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    shutil.rmtree(folder, ignore_errors=True)
    found = {"images": images, "commit": commit()}
    for part in parts:
        command = [sys.executable, "-m", "benchmarks.engine_scale", "--work", str(folder), "--one", part, str(images)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        found[part] = json.loads(done.stdout.splitlines()[-1])
        print(images, part, found[part], file=sys.stderr, flush=True)
    found["disk"] = disk(folder)
    shutil.rmtree(folder, ignore_errors=True)
    kept.write_text(json.dumps(found))
    return found


def measured(part: Callable[[Path, int], Found], folder: Path, images: int) -> Found:
    """Do one part; its own figures, seconds of wall and processors, and the peak of this process."""
    wall, own, children = time.perf_counter(), time.process_time(), time_of_children()
    found = part(folder, images)
    seconds = {
        "s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - own + time_of_children() - children,
        "peak_mb": peak_of_process_mb(),
    }
    return seconds | found


def time_of_children() -> float:
    """Seconds of processors that ended children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- parts -----------------------------------------------------------------------------------------------------------


def ingest(folder: Path, images: int) -> Found:
    """Take the images in."""
    entries = (ImageIn(uri=f"stub:{number}", data=picture(number)) for number in range(images))
    done = Store.create(folder).ingest(entries, IngestSettings(threads=1))
    assert done.stored == images, done
    return {}


def picture(number: int) -> bytes:
    """A PNG of two pixels, no two the same below 2^24."""
    colour = number.to_bytes(3, "big")
    header = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + colour + colour, 1)), (b"IEND", b"")
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def inline(folder: Path, images: int) -> Found:
    """A stage in this process."""
    return stage(folder, images, 1, RunSettings(runner="inline"))


def processes(folder: Path, images: int) -> Found:
    """The same stage in two other processes."""
    return stage(folder, images, 2, RunSettings(runner="processes", workers=2))


def stage(folder: Path, images: int, number: int, settings: RunSettings) -> Found:
    """Run the stage as a round of this number; the peak of its workers, where it has any."""
    peaks: list[float] = []

    def tell(progress: Progress) -> None:
        workers = [peak_of_process_mb(child.pid) for child in multiprocessing.active_children() if child.pid]
        peaks[:] = [max([*peaks, *workers])] if workers else peaks

    spec = StageSpec(Factory("benchmarks.engine_stub:Sleeper", {"wait_ms": 0.0}))
    opened = Factory("openflorence.data.store:Store.open", {"folder": str(folder)})
    last = run_stages([spec], opened, number, settings, tell=tell)
    assert last.statuses["sleeper"] == {"ok": images}, last
    Store.open(folder).define_round(number, last.runs)
    return {"worker_peak_mb": peaks[0]} if peaks else {}


def publish(folder: Path, images: int) -> Found:
    """Publish the round of the inline run."""
    done = Store.open(folder).publish(1)
    assert done.published is not None
    assert done.published["annotated"] == images
    return {}


def read(folder: Path, images: int) -> Found:
    """Every record once, then some by chance, one at a time."""
    records = Store.open(folder).records(1)
    texts = sum(len(record.texts) for record in records)
    assert texts == images
    start = time.process_time()
    for place in random.Random(images).choices(range(images), k=RANDOM):
        assert records[place].texts
    return {"random_us": 1e6 * (time.process_time() - start) / RANDOM}


def copies(folder: Path, images: int) -> Found:
    """Look for near copies where there are none."""
    dice = random.Random(images)
    assert find_copies([dice.getrandbits(HASH_BITS) for _ in range(images)]) == []
    return {}


PARTS: dict[str, Callable[[Path, int], Found]] = {
    part.__name__: part for part in (ingest, inline, processes, publish, read, copies)
}


def disk(folder: Path) -> dict[str, int]:
    """Files and bytes of the parts of a store, and of the latest list of its units."""
    found = {}
    for name in ("corpus.lance/data", "ingest", "layers"):
        sizes = [path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()]
        found |= {f"{name} files": len(sizes), f"{name} bytes": sum(sizes)}
    lists = sorted((folder / "corpus.lance" / "_versions").glob("*.manifest"), key=lambda path: path.stat().st_mtime)
    return found | {"manifest bytes": lists[-1].stat().st_size if lists else 0}


# ---- what comes of it ------------------------------------------------------------------------------------------------


def fit(part: str, rows: Sequence[dict[str, Any]]) -> Found:
    """The straight line through the processor time of the sizes, each as weighty as its own seconds are exact."""
    sizes = np.array([row["images"] for row in rows], float)
    seconds = np.array([row[part]["cpu_s"] for row in rows])
    slope, start = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    peaks = np.array([row[part]["peak_mb"] for row in rows])
    return {
        "start_s": float(start),
        "us_per_image": 1e6 * float(slope),
        "furthest": float(np.max(np.abs((start + slope * sizes) / seconds - 1))),
        "bytes_per_image": float(np.polyfit(sizes, peaks * 2**20, 1)[0]),  # of the peak
    }


def table(rows: Sequence[dict[str, Any]], fits: dict[str, Found], parts: Sequence[str]) -> Iterator[str]:
    """As Markdown: processor microseconds an image and peak MB of each part."""
    yield "| images | " + " | ".join(f"{part} µs | MB" for part in parts) + " |"
    yield "|---:|" + "---:|" * 2 * len(parts)
    for row in rows:
        cells = [f"{1e6 * row[part]['cpu_s'] / row['images']:.0f} | {memory(row[part])}" for part in parts]
        yield f"| {row['images']:,} | " + " | ".join(cells) + " |"
    for part, line in fits.items():
        shown = f"{line['start_s']:.1f} s and {line['us_per_image']:.0f} µs an image, {line['furthest']:.1%} off"
        yield f"{part}: {shown} at most; {line['bytes_per_image']:.1f} bytes of memory an image"


def memory(found: Found) -> str:
    """Peak of a part, and of its workers."""
    workers = f" + {found['worker_peak_mb']:.0f}" if "worker_peak_mb" in found else ""
    return f"{found['peak_mb']:.0f}{workers}"


if __name__ == "__main__":
    main()
