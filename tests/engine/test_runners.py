"""Stages run inline, in processes and on Ray: the same rows, whoever dies; nothing lost, nothing twice."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress

import plain_store
import psutil
import pytest
from plain_store import PlainRun, all_rows, echo, files_of, join, plain
from real_store import real

from openflorence.engine.driver import Driver
from openflorence.engine.jobs import plan_jobs
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.schedule import Board, Event
from openflorence.engine.stages import Factory, Resources, StageSpec
from openflorence.engine.trail import Trail
from openflorence.engine.work import UnitReport
from openflorence.errors import BadConfig, StageFailed

# Processes forked from one that has imported everything and used nothing: a start costs little, and no thread is lost.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(["plain_store", "real_store"])
PROCESSES = RunSettings(runner="processes", workers=2)
RAY = RunSettings(runner="ray", workers=2)


def run_two(folder, settings):
    store = plain(folder / "store", 24, 6)
    seen = []
    stages = [join("echo"), echo(log=str(folder / "log"))]
    last = run_stages(stages, store, 1, settings, tell=seen.append)
    return store, last, seen


# ---- what every runner must do ---------------------------------------------------------------------------------------


def test_inline_does_every_unit_once_seals_and_tells(tmp_path):
    store, last, seen = run_two(tmp_path, RunSettings())
    assert [row["texts"] for row in all_rows(store, "join", last.runs["join"])] == [[f"image {n}"] for n in range(24)]
    assert (tmp_path / "log").read_text().count("setup") == 1
    assert [(progress.done, progress.total) for progress in seen] == [(done, 8) for done in range(1, 9)]
    assert all(progress.left_s > 0 for progress in seen[:-1])
    assert last.left_s == 0
    assert last.statuses == {"echo": {"ok": 24}, "join": {"ok": 24}}
    assert last.rows_per_s == pytest.approx(48 / last.seconds)
    opened = store.make()
    assert all(opened.layer(layer, run_id).is_sealed for layer, run_id in last.runs.items())


def test_a_finished_run_is_not_set_up_again(tmp_path):
    _, first, _ = run_two(tmp_path, RunSettings())
    before = files_of(tmp_path)
    _, again, seen = run_two(tmp_path, RunSettings())
    assert (again.runs, again.done, seen) == (first.runs, 8, [])
    assert files_of(tmp_path) == before


def test_a_run_goes_on_under_another_runner(tmp_path):
    store, first, _ = run_two(tmp_path, RunSettings())
    rows = all_rows(store, "echo", first.runs["echo"])
    lost = next((tmp_path / "store").glob("echo/*/2.json"))
    lost.unlink()
    _, second, _ = run_two(tmp_path, PROCESSES)
    assert second.runs == first.runs
    assert second.statuses["echo"] == {"ok": 6}  # the one unit
    assert all_rows(store, "echo", first.runs["echo"]) == rows


@pytest.mark.parametrize("settings", [RunSettings(), PROCESSES], ids=["inline", "processes"])
def test_a_stage_that_cannot_be_set_up_ends_the_run_at_once_with_its_reason(tmp_path, settings):
    log = tmp_path / "log"
    unset = StageSpec(Factory("plain_store:Unset", {"log": str(log)}))
    with pytest.raises(StageFailed, match="'echo' failed while it was set up: OSError: there is no such model"):
        run_stages([unset], plain(tmp_path, 8, 2), 1, settings)
    assert log.read_text().count("setup") <= (settings.workers or 1)


def test_a_worker_that_dies_in_its_setup_ends_the_run_after_three(tmp_path):
    unset = StageSpec(Factory("plain_store:Unset", {"bad": {"0": "die"}}))
    with pytest.raises(StageFailed, match="died 3 times in a row while it was set up: exit code 12"):
        run_stages([unset], plain(tmp_path, 8, 2), 1, RunSettings(runner="processes", workers=1))


def test_workers_that_die_while_they_read_a_unit_end_the_run_after_three(tmp_path):
    deadly = Factory("plain_store:DeadlyStore", {**plain(tmp_path, 8, 2).settings, "deadly": 2})
    with pytest.raises(StageFailed, match="died 3 times while it read or wrote unit 2: exit code 13"):
        run_stages([echo()], deadly, 1, RunSettings(runner="processes", workers=1))


def test_a_store_that_cannot_be_written_ends_the_run_with_its_reason(tmp_path, monkeypatch):
    def full(self, unit, rows):
        raise OSError("no space left on device")

    monkeypatch.setattr(PlainRun, "write", full)
    with pytest.raises(StageFailed, match="failed at unit 0: OSError: no space left on device"):
        run_two(tmp_path, RunSettings())


def test_two_drivers_cannot_write_one_run(tmp_path):
    store = plain(tmp_path / "store", 24, 6)
    (job,) = plan_jobs([echo(log=str(tmp_path / "log"))], store, 1)
    with job.open(store.make()).lock(), pytest.raises(BadConfig, match="another process"):
        run_two(tmp_path, RunSettings())


def test_a_layer_of_an_earlier_run_must_be_whole(tmp_path):
    store = plain(tmp_path, 8, 2)
    done = run_stages([echo()], store, 1).runs
    later = run_stages([join("echo")], store, 1, given=done).runs
    assert [row["texts"] for row in all_rows(store, "join", later["join"])][:2] == [["image 0"], ["image 1"]]
    next(tmp_path.glob("echo/*/3.json")).unlink()
    with pytest.raises(BadConfig, match="lacks 1 of 4 units, the first is 3"):
        run_stages([join("echo", layer="other")], store, 1, given=done)


def test_settings_that_mean_nothing_are_told():
    with pytest.raises(BadConfig, match="allowed: inline, processes, ray"):
        RunSettings(runner="threads")
    with pytest.raises(BadConfig, match="at least one"):
        RunSettings(workers=0)


# ---- one bad item never stops a run ----------------------------------------------------------------------------------

KINDS = {
    "raise": (33, "ValueError"),
    "exit": (10, "SystemExit"),
    "recursion": (5, "RecursionError"),
    "memory": (5, "MemoryError"),
    "short": (10, "BadOutcome"),
    "long": (8, "BadOutcome"),
    "none": (8, "BadOutcome"),
    "type": (8, "BadOutcome"),
    "verdicts": (8, "BadOutcome"),
    "hang": (2, "timeout"),
    "die": (2, "killed"),
    "segfault": (1, "killed"),
}


def broken(kinds):
    """So many images of each kind, spread over a thousand by chance that repeats."""
    whats = [what for what in kinds for _ in range(KINDS[what][0])]
    return dict(zip(random.Random(7).sample(range(1000), len(whats)), whats, strict=True))


@pytest.mark.parametrize("runner", ["inline", "processes", pytest.param("ray", marks=pytest.mark.long)])
def test_of_a_thousand_images_the_broken_ones_fail_and_no_other(tmp_path, runner):
    kinds = [what for what in KINDS if runner != "inline" or what not in ("die", "segfault")]
    bad = broken(kinds)
    assert len(bad) == (97 if runner == "inline" else 100)
    store = plain(tmp_path, 1000, 50) if runner == "processes" else real(tmp_path / "store", 1000, 50)
    spec = echo(batch=8, time_limit_s=2.0, bad={str(number): what for number, what in bad.items()})
    last = run_stages([spec], store, 1, RunSettings(runner=runner, workers=2))
    rows = all_rows(store, "echo", last.runs["echo"])
    assert len({row["id"] for row in rows}) == 1000
    failed = {number: row["error"][0] for number, row in enumerate(rows) if row["status"] != "ok"}
    assert failed == {number: KINDS[what][1] for number, what in bad.items()}
    assert all(row["texts"] == [f"image {number}"] for number, row in enumerate(rows) if number not in bad)
    assert last.reasons["echo"] == Counter(f"failed: {kind}" for kind in failed.values())


def test_inline_a_deadly_image_is_named_after_a_few_starts(tmp_path):
    store = plain(tmp_path, 24, 12)
    spec = echo(bad={"5": "die", "14": "segfault"})
    starts = 0
    while starts < 20:
        starts += 1
        child = APART.Process(target=plain_store.run_one, args=(spec, store))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
    # By hand: each dies once in company and twice alone; the seventh start ends the run.
    assert starts == 7
    rows = all_rows(store, "echo", plan_jobs([spec], store, 1)[0].run_id)
    assert {row["id"]: row["error"][0] for row in rows if row["error"]} == {"0000005": "killed", "0000014": "killed"}
    assert rows[5]["error"][3] == 3


# ---- nothing lost, nothing twice -------------------------------------------------------------------------------------

PER_UNIT = 6


@pytest.mark.timeout(900)  # starts of processes take their time on a machine that does other things
@pytest.mark.parametrize(
    ("runner", "kind", "kills", "size"),
    [
        ("inline", "plain", 20, 600),
        pytest.param("inline", "real", 20, 300, marks=pytest.mark.slow),
        pytest.param("processes", "plain", 20, 900, marks=pytest.mark.slow),
        pytest.param("processes", "real", 20, 900, marks=pytest.mark.long),
        pytest.param("ray", "real", 20, 900, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_killed_at_random_and_resumed_it_leaves_the_same_store(tmp_path, runner, kind, kills, size):
    whole, killed = (STORES[kind](tmp_path / name, size, PER_UNIT) for name in ("whole", "killed"))
    log = tmp_path / "log"
    given = {"log": str(log), "runner": runner, "wait_s": 0.002}
    expected = plain_store.run_two(whole, **(given | {"runner": "inline"}))
    log.write_text("")
    dice = random.Random(kills)
    for landed in range(kills):
        kill_tree(start(killed, given), log, dice, tmp_path / "killed")
        assert not is_complete(killed, expected), f"done after {landed} kills: make it longer"
    runs = plain_store.run_two(killed, **given)
    assert runs == expected
    for layer, run_id in runs.items():
        rows = all_rows(killed, layer, run_id)
        assert [without_attempts(row) for row in rows] == [
            without_attempts(row) for row in all_rows(whole, layer, run_id)
        ]
        assert len({row["id"] for row in rows}) == size
    assert names_in(tmp_path / "killed") == names_in(tmp_path / "whole")  # no trail, no half file
    words = [line.split()[1] for line in log.read_text().splitlines()]
    looked_at = sum(len(word.split(",")) for word in words if word[0].isdigit())
    workers = 1 if runner == "inline" else 2
    # A kill costs a unit a worker at most, and the row that is looked at alone after it.
    assert size < looked_at <= size + 4 + kills * workers * (PER_UNIT + 1)


STORES = {"plain": plain, "real": real}


def without_attempts(row):
    """How often a failed image was tried is true of a run, not of an image."""
    return {**row, "error": row["error"] and row["error"][:3]}


def names_in(folder):
    """Files of a store but for its images, whose names are drawn."""
    return {name for name in files_of(folder) if not name.startswith(("corpus.lance", "ingest"))}


def is_complete(store, runs):
    opened = store.make()
    last = opened.layer("join", runs["join"])
    return all(last.is_done(unit) for unit in opened.units())


def start(store, given):
    """A driver in a process of its own."""
    child = APART.Process(target=plain_store.run_two, args=(store,), kwargs=given)
    child.start()
    return psutil.Process(child.pid)


def kill_tree(driver, log, dice, folder):
    """Kill -9 a driver and all below it at a random moment after its first sign of life.

    Everybody is stopped first, and goes on for a moment if the kill would be the second to hit one image alone: that
    image would be blamed, as the rule says, and not by mistake.
    """
    before = log.read_text().count("\n")
    signs = dice.choice([1, 3, 3])  # to be set up is one, a batch is another
    deadline = time.monotonic() + 120
    while log.read_text().count("\n") < before + signs and time.monotonic() < deadline:
        assert driver.status() != psutil.STATUS_ZOMBIE, "it ended before it did anything"
        time.sleep(0.002)
    while True:
        time.sleep(dice.uniform(0, 0.06))
        everybody = [driver, *driver.children(recursive=True)]
        each(everybody, signal.SIGSTOP)
        left = [*folder.glob("echo/*/trails/*.json"), *folder.glob("attempts/echo/*/*.json")]
        trails = [Trail(**json.loads(path.read_text())) for path in left]
        if not any(len(trail.in_flight) == 1 and trail.alone.get(trail.in_flight[0]) for trail in trails):
            break
        each(everybody, signal.SIGCONT)
    each(everybody, signal.SIGKILL)
    psutil.wait_procs(everybody, timeout=10)


def each(processes, sign):
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(sign)


def test_workers_are_gone_when_their_driver_is(tmp_path):
    log = tmp_path / "log"
    log.touch()
    given = {"log": str(log), "runner": "processes", "wait_s": 4.0}  # a batch of four takes sixteen seconds
    driver = start(plain(tmp_path / "store", 400, 100), given)
    deadline = time.monotonic() + 60
    while log.read_text().count("\n") < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [psutil.Process(int(pid)) for pid in {line.split()[0] for line in log.read_text().splitlines()}]
    assert len(workers) == 2
    driver.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []


# ---- who does what next ----------------------------------------------------------------------------------------------


class Pretend:
    """A crew without workers: each unit is done when it is asked for the second time."""

    def __init__(self, board):
        self.board, self.starts, self.busy, self.told, self.most = board, [], {}, [], 0

    def start(self, key, job, context):
        self.starts.append((job.layer, context.device))
        self.busy[key] = (job, None)
        self.told.append(Event(key, "ready"))

    def give(self, key, unit):
        job, before = self.busy[key]
        assert before is None  # one unit in flight for each worker
        for layer in job.needs:
            assert unit in self.board.done[layer]
        self.busy[key] = (job, unit)
        self.told.append(Event(key, "done", UnitReport(job.layer, unit, {"ok": 1}, {}, 1.0)))
        self.most = max(self.most, len(self.busy))

    def end(self, key):
        del self.busy[key]

    def wait(self, timeout_s):
        assert self.told, "everybody waits for everybody"
        event = self.told.pop(0)
        if event.kind == "done":
            self.busy[event.key] = (self.busy[event.key][0], None)
        return [event]


def drive(tmp_path, specs, workers, devices=None):
    store = plain(tmp_path, 40, 2)
    board = Board(plan_jobs(specs, store, 1), store.make())
    crew = Pretend(board)
    seen = []
    Driver(board, crew, workers, devices or {}, seen.append).run()
    assert board.is_finished
    assert not crew.busy
    return crew, seen


def test_a_worker_keeps_its_stage_until_that_has_nothing_to_do(tmp_path):
    specs = [echo("a"), echo("b"), join("a", "b", layer="c"), join("c", layer="d")]
    crew, _ = drive(tmp_path, specs, workers=2)
    # By hand: one worker for a, one for b, side by side; then c; d at the latest when c is done. Models are loaded
    # once for each worker, not for each unit.
    assert [layer for layer, _ in crew.starts[:2]] == ["a", "b"]
    assert len(crew.starts) <= 8
    assert crew.most == 2


def test_one_worker_is_enough_for_any_chain(tmp_path):
    crew, seen = drive(tmp_path, [join("b", layer="c"), join("a", layer="b"), echo("a")], workers=1)
    assert [layer for layer, _ in crew.starts] == ["a", "b", "c"]
    assert seen[-1].done == 60


def test_a_stage_goes_on_behind_one_that_has_all_the_gpus_there_are(tmp_path):
    slow = StageSpec(Factory("plain_store:Echo", {"layer": "a"}), resources=Resources(1, 1))
    crew, seen = drive(tmp_path, [slow, join("a", layer="b")], workers=3, devices={"cuda:0": 1.0})
    assert crew.starts[0] == ("a", "cuda:0")
    assert [layer for layer, _ in crew.starts].count("a") == 1  # one GPU, one worker
    mixed = [progress for progress in seen if progress.statuses["b"] and progress.statuses["a"].get("ok", 0) < 20]
    assert mixed, "b waited for all of a"


def test_halves_of_gpus_are_shared_and_more_than_there_is_cannot_be_had(tmp_path):
    half = StageSpec(Factory("plain_store:Echo", {"layer": "a"}), resources=Resources(1, 0.5))
    crew, _ = drive(tmp_path, [half], workers=8, devices={"cuda:0": 1.0, "cuda:1": 1.0})
    assert crew.starts == [("a", "cuda:0"), ("a", "cuda:0"), ("a", "cuda:1"), ("a", "cuda:1")]
    two = StageSpec(Factory("plain_store:Echo", {"layer": "b"}), resources=Resources(1, 2))
    with pytest.raises(BadConfig, match="asks for 2 GPUs"):
        drive(tmp_path, [two], workers=8, devices={"cuda:0": 1.0})


def test_a_stage_for_a_gpu_runs_where_there_is_none(tmp_path):
    half = StageSpec(Factory("plain_store:Echo", {"layer": "a"}), resources=Resources(1, 0.5))
    crew, _ = drive(tmp_path, [half], workers=2)
    assert {device for _, device in crew.starts} == {"cpu"}


# ---- Ray -------------------------------------------------------------------------------------------------------------


def test_ray_listens_on_loopback_only_tells_nobody_and_outlives_its_workers(tmp_path):
    listening: dict[str, str] = {}
    environments: list[dict[str, str]] = []

    def look(progress):
        if listening:
            return
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                for socket in process.net_connections("inet"):
                    if socket.status == psutil.CONN_LISTEN:
                        listening[f"{process.name()} {socket.laddr.port}"] = socket.laddr.ip
                if "raylet" in process.name():
                    environments.append(process.environ())

    store = plain(tmp_path / "store", 24, 6)
    stages = [join("echo"), echo(bad={"5": "die", "9": "raise"})]
    last = run_stages(stages, store, 1, RAY, tell=look)
    assert len(listening) >= 4  # the sweep saw Ray: its control store, its node, its workers
    assert set(listening.values()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    assert environments
    assert all(environment["RAY_USAGE_STATS_ENABLED"] == "0" for environment in environments)
    rows = all_rows(store, "join", last.runs["join"])
    assert [row["status"] for row in rows] == ["skipped" if n in (5, 9) else "ok" for n in range(24)]
    assert last.reasons["echo"] == {"failed: killed": 1, "failed: ValueError": 1}
    assert last.deaths["echo"] >= 2


@pytest.mark.long
def test_a_worker_killed_from_outside_does_not_end_a_run_on_ray(tmp_path):
    log = tmp_path / "log"
    store = plain(tmp_path / "store", 240, 12)
    killed: list[int] = []

    def kill(progress):
        if len(killed) < 3 and progress.done > 2 + 3 * len(killed):
            pid = int(log.read_text().splitlines()[-1].split()[0])
            if pid not in killed:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    last = run_stages([echo(log=str(log), wait_s=0.005)], store, 1, RAY, tell=kill)
    assert len(killed) == 3
    assert last.statuses == {"echo": {"ok": 240}}
    assert [row["texts"] for row in all_rows(store, "echo", last.runs["echo"])] == [[f"image {n}"] for n in range(240)]
