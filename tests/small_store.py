"""Small stores of drawn scenes, and a job that fills one and may be killed at any of its steps."""

import io
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from openflorence.contract.records import Record
from openflorence.data.album import scene_record
from openflorence.data.notes import LayerRow, Notes, Verdict
from openflorence.data.store import Store, is_store
from openflorence.data.store_corpus import Corpus
from openflorence.data.store_ingest import ImageIn
from openflorence.data.store_layers import LayerRun
from openflorence.data.world import WorldConfig, draw_scene

SIDE_PX = 64
UNIT = 8


@cache
def record(seed: int, side_px: int = SIDE_PX) -> Record:
    return scene_record(draw_scene(seed, WorldConfig(side_px=side_px)), uri(seed))


@cache
def jpeg(seed: int, side_px: int = SIDE_PX, grain: float = 0.0, quality: int = 88) -> bytes:
    """A drawn scene as a file; with grain it takes as much room as a photograph."""
    image = draw_scene(seed, WorldConfig(side_px=side_px)).image.astype(np.float64)
    image += np.random.default_rng(seed).normal(0, grain, image.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def uri(seed: int) -> str:
    return f"drawn:{seed}"


def seed_of(uri: str) -> int:
    return int(uri.removeprefix("drawn:"))


def images(seeds: Iterable[int]) -> list[ImageIn]:
    return [ImageIn(uri=uri(seed), data=jpeg(seed)) for seed in seeds]


def notes_of(record: Record) -> Notes:
    return Notes(record.texts, record.regions, record.groundings, record.questions, record.pairs, record.whole)


def truth(uri: str) -> Notes:
    return notes_of(record(seed_of(uri)))


def fill(run: LayerRun, store: Store, say: Callable[[str], Notes] = truth) -> LayerRun:
    """Write what `say` notes of every image, by its uri, and seal."""

    def rows(unit: int) -> list[LayerRow]:
        return [LayerRow(row.image_id, notes=say(row.uri)) for row in store.images(unit, data=False)]

    return write(run, store, rows)


def drop(run: LayerRun, store: Store, note_ids: Iterable[str]) -> LayerRun:
    """Write a layer of verdicts that drop notes of every image, and seal."""
    verdicts = tuple(Verdict(name, "test", "by hand", 0.1) for name in note_ids)
    return write(run, store, lambda unit: [LayerRow(name, verdicts=verdicts) for name in store.corpus.ids(unit)])


def write(run: LayerRun, store: Store, rows: Callable[[int], list[LayerRow]]) -> LayerRun:
    """Write the units that lack, and seal."""
    with run.lock():
        for unit in store.units():
            if not run.is_done(unit):
                run.write(unit, rows(unit))
        if not run.is_sealed:
            run.seal()
    return run


def made(folder: Path, scenes: int = 12) -> Store:
    """A store of drawn scenes with their truth as round 1."""
    store = Store.create(folder, unit_images=UNIT)
    store.ingest(images(range(scenes)))
    fill(store.layer("truth", "r1-a"), store)
    store.define_round(1, {"truth": "r1-a"})
    store.publish(1)
    return store


# ---- a job that dies

INPUTS = 21
Death = tuple[str, str, int]  # "before" or "after", a step, and which one of this name


def job(folder: Path, death: Death | None = None) -> None:
    """Fill a store with images, layers and two rounds; what is there already is not done again."""
    if death is not None:
        die_at(*death)
    store = Store.open(folder) if is_store(folder) else Store.create(folder, unit_images=UNIT)
    taken = images(range(INPUTS))
    broken = ImageIn(uri="broken", data=b"no image")
    twin = ImageIn(uri="twin", data=taken[3].data)
    store.ingest([*taken[:6], broken, *taken[6:12], twin, *taken[12:]])
    first = fill(store.layer("truth", "r1-a"), store)
    second = drop(store.layer("filter", "r1-b"), store, ["truth/text0", "truth/grounding0.phrase0"])
    store.define_round(1, {first.layer: first.run_id})
    store.publish(1)
    store.define_round(2, {first.layer: first.run_id, second.layer: second.run_id})
    store.publish(2)


def die_at(when: str, name: str, number: int) -> None:
    """Kill this process before or after a step that changes the disk: "replace", or one of Corpus."""
    step = os.replace if name == "replace" else getattr(Corpus, name)
    calls = count(1)

    def deadly(*given: object, **named: object) -> object:
        call = next(calls)
        if call == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = step(*given, **named)
        if call == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    if name == "replace":
        os.replace = deadly  # type: ignore[assignment]
    else:
        setattr(Corpus, name, deadly)


def killed_at_random(
    write: Callable[..., None],
    given: tuple[str, ...],
    place: str,
    seed: int,
    most: int,
    within_s: tuple[float, float],
) -> int:
    """Start a writer of a store again and again, each killed some time after the store is there, until one ends.

    most      kills; the writer after them is left alone.
    returns   how many were killed.
    """
    context, chance = multiprocessing.get_context("spawn"), random.Random(seed)
    for kills in range(most + 1):
        writer = context.Process(target=write, args=given)
        writer.start()
        deadline = time.monotonic() + 60
        while writer.is_alive() and not is_store(place) and time.monotonic() < deadline:
            time.sleep(0.05)
        writer.join(chance.uniform(*within_s) if kills < most else 120)
        if not writer.is_alive():
            assert writer.exitcode == 0
            return kills
        writer.kill()
        writer.join()
    raise AssertionError(f"the writer that nobody killed did not end: {place}")


def everything(store: Store) -> dict[str, object]:
    """All that a store holds, as plain values to compare; no version numbers and no names of files."""
    units = store.units()
    files = Counter(path.parent for path in (store.folder / "corpus.lance" / "data").rglob("*") if path.is_file())
    return {
        "images": [[(row.image_id, row.data, row.image_wh, row.uri) for row in store.images(unit)] for unit in units],
        "inputs": store.sql("SELECT uri, sha256, outcome, kind, message FROM inputs ORDER BY ALL"),
        "failures": store.failures(),
        "layers": {
            (layer, run_id): [store.layer(layer, run_id).read(unit) for unit in units]
            for layer, runs in store.runs().items()
            for run_id in runs
        },
        "rounds": store.rounds(),
        "records": {
            number: [(one.texts, one.regions, one.groundings, one.questions) for one in store.records(number)]
            for number in store.rounds()
        },
        "files": sorted(files.values()),
        "parts": [path.name for path in store.folder.rglob("*.part")],
        "staged": [path.name for path in (store.folder / "rounds" / "staged").rglob("*")],
    }
