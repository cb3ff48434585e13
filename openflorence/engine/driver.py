"""Who does what next: units given to the workers of a crew until all are done, whoever dies or hangs on the way.

Every worker has one unit in flight and holds one stage, until that has nothing to do while another has: what is in
memory does not depend on how many units there are.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from openflorence.engine.jobs import Job
from openflorence.engine.schedule import Board, Crew, Event, Tell
from openflorence.engine.stages import Context
from openflorence.engine.trail import Trail, mark_hung
from openflorence.errors import BadConfig, StageFailed

DEATHS = 3  # of workers of one stage while they were set up, in a row, or over one unit with no image in flight


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
        found: list[tuple[int, Job]] = []
        for layer, job in self.board.jobs.items():
            own = [hand for hand in self.hands.values() if hand.job.layer == layer]
            coming = sum(hand.unit is None for hand in own)
            if len(self.board.ready[layer]) > coming and self._place(job, take=False) is not None:
                found.append((len(own), job))
        return min(found, key=lambda pair: pair[0])[1] if found else None

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
