"""A unit of work: batches, what is bad isolated, and what the trail of a dead worker means for the next attempt."""

import time
from dataclasses import asdict

import pytest
from plain_store import Echo, all_rows, echo, join, plain

from openflorence.data.notes import Failure
from openflorence.engine.jobs import plan_jobs
from openflorence.engine.runners import alarm, run_stages
from openflorence.engine.stages import Context
from openflorence.engine.trail import Trail, mark_hung
from openflorence.engine.work import Worker
from openflorence.errors import StageFailed

ONE_UNIT = 12  # images


class Bench:
    """A worker of Echo over one unit of twelve images, what it was given, and the trail of the unit."""

    def __init__(self, folder, attempts=200, **settings):
        self.store = plain(folder, ONE_UNIT, ONE_UNIT)
        self.log = folder / "log"
        (self.job,) = plan_jobs([echo(log=str(self.log), **settings)], self.store, 1, attempts=attempts)
        self.worker = Worker(self.job, Context(), alarm)
        self.run = self.worker.layer

    def leave(self, *numbers, **facts):
        """What a worker leaves that dies with these in flight."""
        trail = Trail(**{"attempts": 1, "in_flight": ids(*numbers), **facts})
        self.run.write_breadcrumb(0, asdict(trail))

    def given(self):
        """The batches that the stage was given since the last time."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return [line.split()[1] for line in lines if "setup" not in line]

    def statuses(self):
        return {int(row.image_id): row.status for row in self.run.read(0) if row.status != "ok"}


def ids(*numbers):
    return tuple(f"{number:07}" for number in numbers)


def test_batches_are_full_but_for_the_last_and_rows_stay_in_order(tmp_path):
    bench = Bench(tmp_path, batch=5)
    report = bench.worker.run(0)
    assert bench.given() == ["0,1,2,3,4", "5,6,7,8,9", "10,11"]
    assert [row.notes.texts[0].text for row in bench.run.read(0)] == [f"image {number}" for number in range(12)]
    assert (report.statuses, report.reasons, report.rows) == ({"ok": 12}, {}, 12)


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("raise", "ValueError"),
        ("exit", "SystemExit"),
        ("recursion", "RecursionError"),
        ("memory", "MemoryError"),
        ("short", "BadOutcome"),
        ("long", "BadOutcome"),
        ("none", "BadOutcome"),
        ("type", "BadOutcome"),
        ("verdicts", "BadOutcome"),
    ],
)
def test_only_the_bad_row_of_a_batch_fails_and_its_reason_is_kept(tmp_path, what, kind):
    bench = Bench(tmp_path, bad={"6": what})
    report = bench.worker.run(0)
    assert bench.given() == ["0,1,2,3", "4,5,6,7", "4", "5", "6", "7", "8,9,10,11"]
    assert bench.statuses() == {6: "failed"}
    failure = bench.run.read(0)[6].error
    assert (failure.kind, failure.stage, failure.attempts) == (kind, "echo", 2)
    assert failure.message
    assert (report.statuses, report.reasons) == ({"ok": 11, "failed": 1}, {f"failed: {kind}": 1})


def test_a_batch_over_its_time_is_interrupted_and_only_the_slow_row_fails(tmp_path):
    bench = Bench(tmp_path, bad={"6": "hang"}, time_limit_s=0.5)
    began = time.monotonic()
    bench.worker.run(0)
    assert time.monotonic() - began > 1.0  # the limit twice: in company, and alone
    assert bench.statuses() == {6: "failed"}
    assert bench.run.read(0)[6].error == Failure("timeout", "the batch took longer than 0.5 s", "echo", 2)


def test_what_a_rule_drops_and_what_is_left_out_whole_are_counted(tmp_path):
    bench = Bench(tmp_path, bad={"2": "verdict", "3": "drop"})
    report = bench.worker.run(0)
    assert report.statuses == {"ok": 11, "filtered": 1}
    assert report.reasons == {"dropped: short": 1, "filtered: duplicate": 1}
    assert bench.run.read(0)[2].verdicts[0].rule == "short"


def test_images_in_flight_at_a_death_come_first_and_alone(tmp_path):
    bench = Bench(tmp_path)
    bench.leave(4, 5, 6, 7)
    bench.worker.run(0)
    assert bench.given() == ["4", "5", "6", "7", "0,1,2,3", "8,9,10,11"]
    assert bench.statuses() == {}  # one death condemns nobody
    assert bench.run.read_breadcrumb(0) is None  # done: nothing is left to say


def test_an_image_is_blamed_after_two_deaths_alone_and_not_looked_at_again(tmp_path):
    bench = Bench(tmp_path)
    bench.leave(5, ends={**dict.fromkeys(ids(4, 6, 7), 1), ids(5)[0]: 2}, alone={ids(5)[0]: 1})
    bench.worker.run(0)
    assert bench.given() == ["4", "6", "7", "0,1,2,3", "8,9,10,11"]
    assert bench.statuses() == {5: "failed"}
    failure = bench.run.read(0)[5].error
    assert (failure.kind, failure.stage, failure.attempts) == ("killed", "echo", 3)


def test_two_deaths_in_company_blame_nobody(tmp_path):
    bench = Bench(tmp_path)
    bench.leave(4, 5, 6, 7, ends=dict.fromkeys(ids(4, 5, 6, 7), 1))
    bench.worker.run(0)
    assert bench.statuses() == {}


def test_one_death_alone_blames_nobody(tmp_path):
    bench = Bench(tmp_path)
    bench.leave(5, ends=dict.fromkeys(ids(4, 5, 6, 7), 1))
    bench.worker.run(0)
    assert bench.given()[:4] == ["4", "5", "6", "7"]
    assert bench.statuses() == {}


def test_an_image_that_hangs_in_company_and_alone_is_blamed_for_its_time(tmp_path):
    bench = Bench(tmp_path)
    bench.leave(5, ends={ids(5)[0]: 1}, attempts=2, step=7)
    mark_hung(bench.run, 0, (2, 6))  # of a batch that has ended since: nothing is marked
    assert not Trail.read(bench.run, 0).hung
    mark_hung(bench.run, 0, (2, 7))
    bench.worker.run(0)
    assert bench.statuses() == {5: "failed"}
    assert bench.run.read(0)[5].error.kind == "timeout"


def test_the_ids_in_flight_are_on_disk_while_a_batch_is_under_way(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    seen = []

    def look(self, rows):
        seen.append(Trail.read(bench.run, 0).in_flight)
        return process(self, rows)

    process = Echo.process
    monkeypatch.setattr(Echo, "process", look)
    write = type(bench.run).write
    monkeypatch.setattr(
        type(bench.run), "write", lambda *given: seen.append(Trail.read(bench.run, 0).in_flight) or write(*given)
    )
    bench.worker.run(0)
    assert seen == [ids(0, 1, 2, 3), ids(4, 5, 6, 7), ids(8, 9, 10, 11), ()]  # nothing while rows are committed


def test_a_run_that_was_stopped_blames_nothing(tmp_path, monkeypatch):
    bench = Bench(tmp_path)

    def stop(self, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Echo, "process", stop)
        with pytest.raises(KeyboardInterrupt):
            bench.worker.run(0)
    assert Trail.read(bench.run, 0).in_flight == ()
    bench.worker.run(0)
    assert bench.given() == ["0,1,2,3", "4,5,6,7", "8,9,10,11"]


def test_attempts_end_the_run_and_begin_anew(tmp_path):
    bench = Bench(tmp_path, attempts=3)
    bench.leave(4, 5, attempts=3)
    with pytest.raises(StageFailed, match="died 3 times over unit 0"):
        bench.worker.run(0)
    assert bench.given() == []
    bench.worker.run(0)  # whoever has looked into it starts again, and what was learnt is kept
    assert bench.given()[:2] == ["4", "5"]


def test_rows_follow_what_their_layers_say(tmp_path):
    store = plain(tmp_path, 4, 4)
    first = echo("first", bad={"0": "raise", "1": "raise", "2": "drop"})
    second = echo("second", bad={"0": "raise"})
    runs = run_stages([first, second, join("first", "second")], store, 1).runs
    rows = all_rows(store, "join", runs["join"])
    # Nothing from either: left out. One of two is enough. Filtered by one: left out, whatever the other says.
    assert [row["status"] for row in rows] == ["skipped", "ok", "skipped", "ok"]
    assert rows[0]["error"] == ["needs", "first failed, second failed", "join", 0]
    assert rows[2]["error"] == ["filtered", "left out by first", "join", 0]
    assert [row["texts"] for row in rows] == [[], ["image 1"], [], ["image 3 + image 3"]]
