"""The engine over a store on object storage, from the command line: taken in, labelled, refined, read and exported."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_store import killed_at_random
from test_plan import png, write_photos

from openflorence.contract.records import RegionNote
from openflorence.contract.shapes import Box
from openflorence.data import store_lease
from openflorence.data.notes import Notes
from openflorence.data.store import Store, is_store
from openflorence.engine.plan import Plan, Specialist, run_round
from openflorence.engine.runners import RunSettings
from openflorence.engine.stages import Row

pytest.importorskip("lance")
pytest.importorskip("s3fs")

PLAN = f"""
copies = false
[[specialist]]
name = "own"
function = "{__name__}:look"
says = ["object"]
"""
IMAGES = 20


def look(rows: list[Row], pause_s: float = 0.0) -> list[Notes]:
    """A specialist: one box that fills most of the image, and that is all."""
    time.sleep(pause_s)
    places = (Box(5, 5, row.image.image_wh[0] - 5, row.image.image_wh[1] - 5) for row in rows)
    cars = (RegionNote(box=place, label="car", score=0.9) for place in places)
    return [Notes(regions=(car,), whole=frozenset(("objects",))) for car in cars]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def test_the_command_line_on_a_bucket(bucket, photos, tmp_path, call):
    plan, store = tmp_path / "plan.toml", f"{bucket}/deep/fld"
    plan.write_text(PLAN)
    done = call("engine", "run", photos, store, "--plan", plan)
    assert "5 images new, 0 known, 0 copies, 1 unreadable" in done.err
    assert call("engine", "run", photos, store, "--plan", plan).err.count("0 images new, 6 known") == 1
    refined = call("engine", "refine", store, "--model", "nano")
    assert refined.code == 0, refined.err
    stats = call("engine", "stats", store, "--page", tmp_path / "report.html")
    assert "# Round 1 of fld" in stats.out
    assert (tmp_path / "report.html").stat().st_size > 10_000
    (row,) = call("engine", "show", store, "0", "--json", "--out", tmp_path / "0.png").rows
    assert row["image"]["uri"] == str(photos / "0.png")
    assert (tmp_path / "0.png").is_file()
    assert "| regions |" in call("engine", "diff", store, 0, 1).out
    exported = call("engine", "export", store, tmp_path / "coco", "--to", "coco", "--round", "0")
    assert exported.code == 0, exported.err
    assert len(list((tmp_path / "coco").rglob("*.png"))) == 5


def test_a_recipe_trains_from_a_bucket(bucket, photos, tmp_path, call):
    store = f"{bucket}/fld"
    run_round(str(photos), store, _plan())
    sets = {"data": store, "out": tmp_path / "run", "steps": 2, "images": 2, "validations": 1, "held_out": 2}
    words = [
        word for name, value in (sets | {"workers": 1, "threads": 1}).items() for word in ("--set", f"{name}={value}")
    ]
    # In a process of its own: workers of a fork server know the environment as it was when that was started.
    line = [sys.executable, "-c", "from openflorence.cli import main; main()", "train", "finetune_detection"]
    done = subprocess.run([*line, *map(str, words)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "fld, round 0: " in done.stderr
    scored = call("evaluate", "data", "--data", store, "--split", "val", "--task", "detect")
    assert scored.code == 0, scored.err
    assert "detect" in scored.out


@pytest.mark.slow
def test_runs_killed_at_any_moment_end_as_an_undisturbed_one(bucket, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for shade in range(IMAGES):
        (folder / f"{shade:02}.png").write_bytes(png(8 * shade))
    Store.create(tmp_path / "fld", unit_images=5)
    run_round(str(folder), tmp_path / "fld", _plan(pause_s=0.2))
    place = f"{bucket}/fld"
    kills = killed_at_random(_drive, (str(folder), place), place, seed=1, most=6, within_s=(1.0, 8.0))
    assert kills >= 2
    there, here = Store.open(place), Store.open(tmp_path / "fld")
    assert [*there.records()] != []
    assert [record.regions for record in there.records()] == [record.regions for record in here.records()]
    assert dict(there.rounds()[0].runs) == dict(here.rounds()[0].runs)
    question = "SELECT layer, unit, image_id, status FROM layer_rows ORDER BY ALL"
    assert there.sql(question) == here.sql(question)


def _plan(**settings: float) -> Plan:
    own = {"function": f"{__name__}:look", "says": ["object"], "batch": 1, "settings": settings}
    return Plan(specialists=(Specialist(name="own", settings=own),), copies=None)


def _drive(source: str, place: str) -> None:
    store_lease.LEASE_S, store_lease.RENEW_S = 1.5, 0.25
    if not is_store(place):
        Store.create(place, unit_images=5)
    run_round(source, place, _plan(pause_s=0.2), RunSettings(runner="processes", workers=2))
