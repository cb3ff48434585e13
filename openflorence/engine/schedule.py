"""Who does what next, and how far it is: stages are chained by data, not by plan.

A unit of a stage is ready once the same unit of every layer it needs is committed, so stages that do not need each
other run side by side, and none waits for all of another. Every worker has one unit in flight and holds one stage,
until that has nothing to do while another has: what is in memory does not depend on how many units there are.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from openflorence.engine.jobs import Job, LayerRun, Store
from openflorence.engine.stages import Context
from openflorence.engine.trail import Trail, mark_hung
from openflorence.engine.work import UnitReport, count_rows
from openflorence.errors import BadConfig, StageFailed

DEATHS = 3  # of workers of one stage while they were set up, in a row, or over one unit with no image in flight


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
        self.statuses: dict[str, Counter[str]] = {layer: Counter() for layer in self.jobs}
        self.reasons: dict[str, Counter[str]] = {layer: Counter() for layer in self.jobs}
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
        known = [spent for spent in self.seconds.values() if spent[1]]
        if not known:
            return None
        usual = sum(spent[0] for spent in known) / sum(spent[1] for spent in known)
        total = 0.0
        for layer, (spent, count) in self.seconds.items():
            total += (self.units - len(self.done[layer])) * (spent / count if count else usual)
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


@dataclass
class _Hand:
    """A worker of a crew, as the driver sees it."""

    job: Job
    device: str
    is_ready: bool = False
    unit: int | None = None  # in flight
    stamp: tuple[int, int] = (0, 0)  # of the trail when it was last seen to change
    since: float = field(default_factory=time.monotonic)


class Driver:
    """Gives units to a crew until all are done."""

    def __init__(
        self, board: Board, crew: Crew, workers: int, devices: Mapping[str, float], tell: Tell | None = None
    ) -> None:
        """Take what is needed.

        workers   at once, at most.
        devices   that stages with a share of a GPU are spread over: name -> GPUs.
        """
        self.board, self.crew, self.workers, self.tell = board, crew, workers, tell
        self.room = dict(devices)
        for job in board.jobs.values():
            if devices and job.resources.gpus > max(devices.values()):
                raise BadConfig(
                    f"stage {job.layer!r} asks for {job.resources.gpus:g} GPUs, there are {dict(devices)}; ask for less"
                )
        self.hands: dict[int, _Hand] = {}
        self.started = 0
        self.setup_deaths: Counter[str] = Counter()
        self.idle_deaths: Counter[tuple[str, int]] = Counter()  # layer and unit
        limits = [job.time_limit_s for job in board.jobs.values() if job.time_limit_s]
        self.poll_s = min(max(min(limits) / 5, 0.02), 1.0) if limits else None

    def run(self) -> None:
        """Drive to the end.

        raises    StageFailed when a stage cannot go on; whoever calls ends the crew.
        """
        while not self.board.is_finished:
            self._assign()
            for event in self.crew.wait(self.poll_s):
                self._hear(event)
            self._watch()
        for key in list(self.hands):
            self._dismiss(key)

    def _assign(self) -> None:
        for key, hand in list(self.hands.items()):
            if hand.is_ready and hand.unit is None:
                unit = self.board.take(hand.job.layer)
                if unit is not None:
                    hand.unit, hand.stamp, hand.since = unit, (0, 0), time.monotonic()
                    self.crew.give(key, unit)
                elif not self.board.left(hand.job.layer) or self._starving():
                    self._dismiss(key)
        while len(self.hands) < self.workers:
            job = self._wanted()
            device = None if job is None else self._place(job)
            if job is None or device is None:
                break
            self.started += 1
            self.hands[self.started] = _Hand(job, device)
            self.crew.start(self.started, job, Context(device, job.cache))

    def _starving(self) -> bool:
        """A stage has units ready and nobody to do them, and there is no room for one more worker of it."""
        served = {hand.job.layer for hand in self.hands.values()}
        full = len(self.hands) >= self.workers
        return any(
            self.board.ready[layer] and layer not in served and (full or self._place(job, take=False) is None)
            for layer, job in self.board.jobs.items()
        )

    def _wanted(self) -> Job | None:
        """The stage to start a worker of: one with units ready beyond those it will take, with the fewest workers."""
        best: tuple[int, Job] | None = None
        for layer, job in self.board.jobs.items():
            own = [hand for hand in self.hands.values() if hand.job.layer == layer]
            coming = sum(hand.unit is None for hand in own)
            fewer = best is None or len(own) < best[0]
            if fewer and len(self.board.ready[layer]) > coming and self._place(job, take=False) is not None:
                best = len(own), job
        return None if best is None else best[1]

    def _place(self, job: Job, take: bool = True) -> str | None:
        """A device with room for a worker; None when there is none now."""
        share = job.resources.gpus
        if not share or not self.room:
            return "cpu"
        free = [device for device, room in self.room.items() if room >= share - 1e-9]
        if free and take:
            self.room[free[0]] -= share
        return free[0] if free else None

    def _hear(self, event: Event) -> None:
        hand = self.hands.get(event.key)
        if hand is None:
            return
        if event.kind == "failed":
            what = f"at unit {hand.unit}" if hand.is_ready else "while it was set up"
            raise StageFailed(f"stage {hand.job.layer!r} failed {what}: {event.message}")
        if event.kind == "died":
            self._bury(event.key, hand, event.message)
        elif event.kind == "ready":
            hand.is_ready = True
            self.setup_deaths[hand.job.layer] = 0
        else:
            assert event.report is not None
            hand.unit = None
            self.board.finish(event.report)
            self._say()

    def _bury(self, key: int, hand: _Hand, message: str) -> None:
        """A worker is no more: its unit is to be done again."""
        layer, unit = hand.job.layer, hand.unit
        self._forget(key)
        self.board.deaths[layer] += 1
        if unit is not None:
            self._count_idle(layer, unit, message)
            self.board.give_back(layer, unit)
            self._say()
        elif not hand.is_ready:
            self.setup_deaths[layer] += 1
            if self.setup_deaths[layer] >= DEATHS:
                times = f"{DEATHS} times in a row"
                raise StageFailed(
                    f"stage {layer!r} died {times} while it was set up: {message}; is there memory for it?"
                )

    def _count_idle(self, layer: str, unit: int, message: str) -> None:
        """No image is to blame for a death with none in flight, nor is it a death if the driver is killed with it."""
        run = self.board.runs[layer]
        if Trail.read(run, unit).in_flight or run.is_done(unit):
            return
        self.idle_deaths[layer, unit] += 1
        if self.idle_deaths[layer, unit] >= DEATHS:
            raise StageFailed(
                f"stage {layer!r} died {DEATHS} times while it read or wrote unit {unit}: {message}; is there memory "
                "for a whole unit of images?"
            )

    def _watch(self) -> None:
        """End every worker whose batch takes longer than its stage allows."""
        for key, hand in list(self.hands.items()):
            limit_s = hand.job.time_limit_s
            if hand.unit is None or limit_s is None:
                continue
            run = self.board.runs[hand.job.layer]
            trail = Trail.read(run, hand.unit)
            if trail.stamp != hand.stamp or not trail.in_flight:
                hand.stamp, hand.since = trail.stamp, time.monotonic()
            elif time.monotonic() - hand.since > limit_s:
                self.crew.end(key)
                mark_hung(run, hand.unit, trail.stamp)
                self._bury(key, hand, "took too long")

    def _dismiss(self, key: int) -> None:
        self.crew.end(key)
        self._forget(key)

    def _forget(self, key: int) -> None:
        hand = self.hands.pop(key)
        if hand.device in self.room:
            self.room[hand.device] += hand.job.resources.gpus

    def _say(self) -> None:
        if self.tell is not None:
            self.tell(self.board.progress(len(self.hands)))
