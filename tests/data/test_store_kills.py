"""Writers that are killed, and what is there when they are begun again."""

import multiprocessing
import os
import random
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import small_store

from openflorence.data.store import Store

pytest.importorskip("lance")
pytest.importorskip("duckdb")

# One after the other, in the order in which the job comes to them; what was killed goes on from where it was.
DEATHS = [
    ("before", "stage", 1),
    ("after", "stage", 1),  # an image file that nobody knows of
    ("before", "replace", 1),
    ("after", "replace", 1),  # the log of a unit is there, its images are not committed
    ("before", "append", 1),
    ("after", "append", 1),
    ("before", "tidy", 1),
    ("after", "tidy", 1),
    ("before", "replace", 2),  # the first is the list of failures; here the first file of a layer
    ("after", "replace", 3),
    ("before", "replace", 4),
    ("before", "stage_column", 1),
    ("after", "stage_column", 2),
    ("before", "add_column", 1),
    ("after", "add_column", 1),  # the column is there, its round is not published
    ("before", "put_tag", 1),
    ("after", "put_tag", 1),
    ("before", "replace", 2),  # here the file of the round
    ("before", "tidy", 1),  # of the published round: while something is staged, nothing is tidied
    ("after", "tidy", 2),
    ("after", "stage_column", 1),  # of the second round
    ("after", "put_tag", 1),
]


@pytest.fixture(scope="module")
def processes():
    """Children of a process that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["small_store", "lance", "duckdb"])
    with pytest.MonkeyPatch.context() as patch:
        # It imports before it is told where tests lie.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The store of a job that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert work(processes, folder, None) == 0
    return small_store.everything(Store.open(folder / "store"))


def work(processes, folder: Path, death: small_store.Death | None) -> int:
    child = processes.Process(target=small_store.job, args=(folder / "store", death))
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def test_the_undisturbed_store_is_what_was_put_in(undisturbed):
    held = undisturbed
    # By hand: 21 images in units of 8, one input that is no image, one with the bytes of another.
    assert [len(unit) for unit in held["images"]] == [8, 8, 5]
    assert [line["uri"] for line in held["inputs"] if line["outcome"] != "stored"] == ["broken", "twin"]
    assert [line["uri"] for line in held["failures"]] == ["broken"]
    assert [len(held["records"][number]) for number in (1, 2)] == [21, 21]


@pytest.mark.slow
def test_a_job_killed_at_every_kind_of_step_ends_as_if_it_had_not_been(processes, undisturbed, tmp_path):
    for death in DEATHS:
        assert work(processes, tmp_path, death) == -9, f"it never came to be killed {death}"
    assert work(processes, tmp_path, None) == 0
    assert small_store.everything(Store.open(tmp_path / "store")) == undisturbed


@pytest.mark.slow
def test_a_job_killed_from_outside_at_any_time_ends_as_if_it_had_not_been(processes, undisturbed, tmp_path):
    started = time.monotonic()
    assert work(processes, tmp_path / "timed", None) == 0  # not the first job of all, which takes its time to begin
    took_s = time.monotonic() - started
    dice = random.Random(6)
    killed = 0
    for _ in range(6):
        child = processes.Process(target=small_store.job, args=(tmp_path / "store",))
        child.start()
        child.join(dice.uniform(0.05, 0.6) * took_s)
        child.kill()
        child.join()
        killed += child.exitcode == -9
    assert killed, "no kill came in time"
    assert work(processes, tmp_path, None) == 0
    assert small_store.everything(Store.open(tmp_path / "store")) == undisturbed


def test_done_again_it_changes_nothing(processes, undisturbed, tmp_path):
    assert work(processes, tmp_path, None) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "layers").rglob("*.parquet")}
    assert work(processes, tmp_path, None) == 0
    assert small_store.everything(Store.open(tmp_path / "store")) == undisturbed
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(before) == 6  # three units, two layers
