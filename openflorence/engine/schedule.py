"""What can be done next, and how far a run is: stages are chained by data, not by plan.

A unit of a stage is ready once the same unit of every layer it needs is committed, so stages that do not need each
other run side by side, and none waits for all of another.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from openflorence.engine.jobs import Job, LayerRun, Store
from openflorence.engine.stages import Context
from openflorence.engine.work import UnitReport, count_rows
from openflorence.errors import BadConfig


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    runs: Mapping[str, str]  # layer -> run id
    done: int  # units of all stages, earlier runs included
    total: int
    seconds: float  # since this run began
    rows_per_s: float  # of all stages, in this run
    left_s: float | None  # seconds to go, at the pace of each stage; None before the first unit
    statuses: Mapping[str, Mapping[str, int]]  # layer -> "ok", "failed", "filtered", "skipped" -> rows, in this run
    reasons: Mapping[str, Mapping[str, int]]  # layer -> "failed: ValueError", "dropped: nms" -> how many, in this run
    deaths: Mapping[str, int]  # layer -> workers that died, or were ended for taking too long


Tell = Callable[[Progress], None]


class Board:
    """What is done, what can be done now, and what came of it."""

    def __init__(self, jobs: Sequence[Job], store: Store) -> None:
        """Look at what the store has.

        jobs      each after those that it needs.
        raises    BadConfig when a layer that no job writes lacks a unit.
        """
        self.jobs = {job.layer: job for job in jobs}
        self.runs: dict[str, LayerRun] = {job.layer: job.open(store) for job in jobs}
        units = tuple(store.units())
        self.total = len(units) * len(jobs)
        self.done = {layer: {unit for unit in units if run.is_done(unit)} for layer, run in self.runs.items()}
        for job in jobs:
            for layer, run_id in job.needs.items():
                if layer not in self.jobs:
                    _check_given(job, layer, run_id, store, units)
        self.ready = {job.layer: deque(u for u in units if self._is_ready(job, u)) for job in jobs}
        self.waiting = {layer: len(units) - len(self.done[layer]) - len(queue) for layer, queue in self.ready.items()}
        self.units = len(units)
        self.statuses, self.reasons = ({layer: Counter[str]() for layer in self.jobs} for _ in range(2))
        self.deaths: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {layer: [0.0, 0.0] for layer in self.jobs}  # sum, units
        self.started = time.monotonic()
        for layer in self.jobs:
            self._seal(layer)

    @property
    def is_finished(self) -> bool:
        """True when every unit of every stage is committed."""
        return sum(map(len, self.done.values())) == self.total

    def left(self, layer: str) -> int:
        """Units of a layer that nobody has taken yet, ready or not."""
        return len(self.ready[layer]) + self.waiting[layer]

    def take(self, layer: str) -> int | None:
        """Give the next unit that is ready; None when none is."""
        return self.ready[layer].popleft() if self.ready[layer] else None

    def give_back(self, layer: str, unit: int) -> None:
        """Put a unit first again, unless its worker committed it before it died."""
        run = self.runs[layer]
        if run.is_done(unit):
            self.finish(count_rows(layer, unit, run.read(unit), 0.0))
        else:
            self.ready[layer].appendleft(unit)

    def finish(self, report: UnitReport) -> None:
        """Note that a unit is committed: others may be ready now, and the last one seals its run."""
        layer, unit = report.layer, report.unit
        self.done[layer].add(unit)
        self.statuses[layer].update(report.statuses)
        self.reasons[layer].update(report.reasons)
        if report.seconds:
            self.seconds[layer][0] += report.seconds
            self.seconds[layer][1] += 1
        for job in self.jobs.values():
            if layer in job.needs and self._is_ready(job, unit):
                self.ready[job.layer].append(unit)
                self.waiting[job.layer] -= 1
        self._seal(layer)

    def progress(self, workers: int = 1) -> Progress:
        """Say how far it is; the time left is reckoned for so many workers."""
        seconds = time.monotonic() - self.started
        rows = sum(sum(counts.values()) for counts in self.statuses.values())
        return Progress(
            runs={layer: job.run_id for layer, job in self.jobs.items()},
            done=sum(map(len, self.done.values())),
            total=self.total,
            seconds=seconds,
            rows_per_s=rows / max(seconds, 1e-9),
            left_s=self._left_s(workers),
            statuses={layer: dict(counts) for layer, counts in self.statuses.items()},
            reasons={layer: dict(counts) for layer, counts in self.reasons.items()},
            deaths=dict(self.deaths),
        )

    def _left_s(self, workers: int) -> float | None:
        spent, count = (sum(column) for column in zip(*self.seconds.values(), strict=True))
        if not count:
            return None
        total = 0.0
        for layer, (own, units) in self.seconds.items():
            pace = own / units if units else spent / count
            total += (self.units - len(self.done[layer])) * pace
        return total / max(workers, 1)

    def _is_ready(self, job: Job, unit: int) -> bool:
        ours = [layer for layer in job.needs if layer in self.jobs]
        return unit not in self.done[job.layer] and all(unit in self.done[layer] for layer in ours)

    def _seal(self, layer: str) -> None:
        run = self.runs[layer]
        if self.units and len(self.done[layer]) == self.units and not run.is_sealed:
            for unit in self.done[layer]:  # of a worker that died between its rows and the end of their trail
                run.write_breadcrumb(unit, None)
            run.seal()


def _check_given(job: Job, layer: str, run_id: str, store: Store, units: Sequence[int]) -> None:
    run = store.layer(layer, run_id)
    lacking = [unit for unit in units if not run.is_done(unit)]
    if lacking:
        raise BadConfig(
            f"stage {job.layer!r} needs layer {layer!r}, and its run {run_id} lacks {len(lacking)} of {len(units)} "
            f"units, the first is {lacking[0]}; finish that run, or put its stage into this one"
        )


# ---- workers elsewhere -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """What was heard of a worker."""

    key: int
    kind: Literal["ready", "done", "failed", "died"]
    report: UnitReport | None = None  # with "done"
    message: str = ""  # with "failed" and "died"


class Crew(Protocol):
    """Workers that are elsewhere, each called by a number."""

    def start(self, key: int, job: Job, context: Context) -> None:
        """Begin a worker; it will be heard of as ready, failed or died."""
        ...

    def give(self, key: int, unit: int) -> None:
        """Give a unit to a worker that is ready; it will be heard of as done, failed or died."""
        ...

    def end(self, key: int) -> None:
        """End a worker, whatever it does; when this returns it writes nothing more and is not heard of again."""
        ...

    def wait(self, timeout_s: float | None) -> list[Event]:
        """Wait until something is heard of a worker, or for so long."""
        ...
