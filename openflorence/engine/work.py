"""A unit of work: its images read, given to a stage in batches, what is bad isolated, one file of rows committed.

A Worker holds one stage, set up once, and does unit after unit. It reads and writes the store itself, so whoever drives
it passes unit numbers only. A unit is done if and only if its rows are in the store: there is no other state but its
trail. A batch that raises is done again row by row, and only the row that raises alone has failed.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from openflorence.data.notes import Failure, LayerRow, Measure, Notes, Verdict
from openflorence.engine.jobs import Job, Store
from openflorence.engine.stages import Context, Drop, Outcome, Row, Stage, make_stage
from openflorence.engine.trail import Trail, begin

_MESSAGE = 500  # characters of a message that are kept


@dataclass(frozen=True)
class UnitReport:
    """What became of the rows of a unit."""

    layer: str
    unit: int
    statuses: Mapping[str, int]  # "ok", "failed", "filtered", "skipped" -> rows
    reasons: Mapping[str, int]  # "failed: ValueError" -> rows, "dropped: nms" -> notes
    seconds: float

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(self.statuses.values())


Guard = Callable[[float | None], AbstractContextManager[object]]


class OverTime(BaseException):
    """Raised into a batch that takes too long; no Exception, so that no stage takes it for one of its own."""


class BadOutcome(TypeError):
    """Raised when a stage does not give one outcome a row."""


class Worker:
    """One stage, set up, and where it reads and writes."""

    def __init__(self, job: Job, context: Context, guard: Guard | None = None) -> None:
        """Make the stage and set it up.

        guard     ends a batch by raising OverTime into it; None where another process watches over this one.
        raises    whatever `setup` raises, and BadConfig.
        """
        self.job = job
        self.guard: Guard = guard or (lambda limit_s: nullcontext())
        self.store: Store = job.store.make()
        self.layer = job.open(self.store)
        self.earlier = self.store.layer(job.layer, job.earlier) if job.earlier else None
        self.needs = {layer: self.store.layer(layer, run_id) for layer, run_id in job.needs.items()}
        self.stage: Stage = make_stage(job.spec)
        self.stage.setup(context)

    def run(self, unit: int) -> UnitReport:
        """Do a unit and commit its rows.

        raises    StageFailed when workers died over it too often; whatever the store raises.
        """
        started = time.monotonic()
        trail = begin(self.job, self.layer, unit)
        attempt = _Attempt(self, unit, trail, self._rows(unit), self._good(unit))
        try:
            rows = attempt.all_rows()
        finally:
            attempt.land()  # done or stopped, it did not die: nothing in flight is to blame
        kept = self.layer.write(unit, rows)
        self.layer.write_breadcrumb(unit, None)
        return count_rows(self.job.layer, unit, kept, time.monotonic() - started)

    def _rows(self, unit: int) -> list[Row]:
        images = self.store.images(unit, data="image" in self.stage.reads)
        layers = {layer: run.read(unit) for layer, run in self.needs.items()}
        for layer, rows in layers.items():
            names = [row.image_id for row in rows]
            assert names == [image.image_id for image in images], f"unit {unit} of {layer} has other images"
        return [Row(image, {layer: rows[at] for layer, rows in layers.items()}) for at, image in enumerate(images)]

    def _good(self, unit: int) -> dict[str, LayerRow]:
        """What an earlier run made well of a unit, by image id."""
        if self.earlier is None or not self.earlier.is_done(unit):
            return {}
        return {row.image_id: row for row in self.earlier.read(unit) if row.status != "failed"}


class _Attempt:
    """One attempt at a unit: outcomes as they come, and the trail kept up."""

    def __init__(self, worker: Worker, unit: int, trail: Trail, rows: list[Row], good: Mapping[str, LayerRow]) -> None:
        self.worker, self.unit, self.trail, self.rows, self.good = worker, unit, trail, rows, good
        self.done: dict[int, LayerRow] = {}

    def all_rows(self) -> list[LayerRow]:
        """Every row's outcome: suspects first, so that what kills does so before other work is done in vain."""
        todo = []
        for at, row in enumerate(self.rows):
            settled = self._settled(row)
            if settled is None:
                todo.append(at)
            else:
                self.done[at] = settled
        for at in todo:
            if self.rows[at].image.image_id in self.trail.ends:
                self._process([at], 1)
        others = [at for at in todo if at not in self.done]
        size = self.worker.job.batch
        for start in range(0, len(others), size):
            self._process(others[start : start + size], 1)
        return [self.done[at] for at in range(len(self.rows))]

    def land(self) -> None:
        """Nothing is in flight any more."""
        self._fly(())

    def _fly(self, names: tuple[str, ...]) -> None:
        self.trail = replace(self.trail, in_flight=names, step=self.trail.step + 1)
        self.trail.keep(self.worker.layer, self.unit)

    def _settled(self, row: Row) -> LayerRow | None:
        """What is known of a row without looking at it."""
        name, layer = row.image.image_id, self.worker.job.layer
        if name in self.good:
            return self.good[name]
        kind = self.trail.blamed.get(name)
        if kind is not None:
            what = "took longer than the time limit" if kind == "timeout" else "ended the process"
            times = self.trail.ends[name]
            failure = Failure(kind, f"the stage {what} with this image alone in flight", layer, times)
            return LayerRow(name, "failed", failure)
        return _left_out(row, layer)

    def _process(self, places: list[int], tried: int) -> None:
        rows = [self.rows[at] for at in places]
        self._fly(tuple(row.image.image_id for row in rows))
        worker = self.worker
        try:
            with worker.guard(worker.job.time_limit_s):
                outcomes = worker.stage.process(rows)
            made = [layer_row(row, outcome, worker.job.layer) for row, outcome in _paired(rows, outcomes)]
        except (Exception, SystemExit, OverTime) as error:
            if len(places) > 1:
                for at in places:
                    self._process([at], 2)
                return
            kind = "timeout" if isinstance(error, OverTime) else type(error).__name__
            attempts = tried + self.trail.ends.get(rows[0].image.image_id, 0)
            failure = Failure(kind, (str(error) or repr(error))[:_MESSAGE], worker.job.layer, attempts)
            made = [LayerRow(rows[0].image.image_id, "failed", failure)]
        self.done.update(zip(places, made, strict=True))


def layer_row(row: Row, outcome: Outcome, layer: str) -> LayerRow:
    """Make the row of the store from an outcome.

    raises    BadOutcome when it is none.
    """
    name = row.image.image_id
    if isinstance(outcome, Drop):
        return LayerRow(name, "filtered", Failure(outcome.rule, outcome.reason, layer))
    parts = outcome if isinstance(outcome, tuple) else (outcome,)
    notes, verdicts, measures = (*parts, (), ())[:3] if 0 < len(parts) < 4 else (None, (), ())
    listed = _are_all(verdicts, Verdict) and _are_all(measures, Measure)
    if not (isinstance(notes, Notes) and listed):
        raise BadOutcome(
            f"an outcome is {outcome!r:.80}; give Notes, (Notes, verdicts), (Notes, verdicts, measures) or a Drop"
        )
    return LayerRow(name, "ok", None, notes, tuple(verdicts), tuple(measures))


def _are_all(values: Any, kind: type) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(value, kind) for value in values)


def count_rows(layer: str, unit: int, rows: Sequence[LayerRow], seconds: float) -> UnitReport:
    """Count the rows of a unit by status, and by reason what has no notes and which notes are dropped."""
    reasons: Counter[str] = Counter()
    for row in rows:
        if row.error is not None:
            reasons[f"{row.status}: {row.error.kind}"] += 1
        reasons.update(f"dropped: {verdict.rule}" for verdict in row.verdicts)
    return UnitReport(layer, unit, dict(Counter(row.status for row in rows)), dict(reasons), seconds)


def _left_out(row: Row, layer: str) -> LayerRow | None:
    """A row that the needed layers leave nothing of: filtered by one, or without notes from any."""
    if not row.layers:
        return None
    for name, need in row.layers.items():
        if need.status == "filtered":
            return LayerRow(row.image.image_id, "skipped", Failure("filtered", f"left out by {name}", layer, 0))
    if all(need.status != "ok" for need in row.layers.values()):
        lacking = ", ".join(f"{name} {need.status}" for name, need in row.layers.items())
        return LayerRow(row.image.image_id, "skipped", Failure("needs", lacking, layer, 0))
    return None


def _paired(rows: Sequence[Row], outcomes: Any) -> list[tuple[Row, Any]]:
    if not isinstance(outcomes, list | tuple):
        raise BadOutcome(f"process gave {outcomes!r:.80}; give a list with one outcome a row")
    if len(outcomes) != len(rows):
        raise BadOutcome(f"process gave {len(outcomes)} outcomes for {len(rows)} rows; give one a row, in order")
    return list(zip(rows, outcomes, strict=True))
