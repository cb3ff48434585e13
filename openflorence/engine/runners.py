"""Stages run over a store: in this process, in several, or on Ray. The same stages, the same rows whichever it is.

    run_stages([StageSpec(Factory("mine.stages:Detector"))], Factory("openflorence.data.store:Store.open", {...}))

Killed at any moment and started again, it goes on with what is not committed yet. What an inline run does in one
process, stage after stage, workers do side by side. A batch over its time limit is ended: inline by a signal, which
interrupts Python and waiting but not a library that never comes back, and only where there are signals and in the main
thread; a worker of the other two is killed, whatever it does.
"""

import gc
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal, get_args

from openflorence.engine.driver import Driver
from openflorence.engine.jobs import ATTEMPTS, Job, Store, plan_jobs
from openflorence.engine.process_crew import ProcessCrew, describe
from openflorence.engine.ray_crew import RayCrew
from openflorence.engine.schedule import Board, Progress, Tell
from openflorence.engine.stages import Context, Factory, StageSpec
from openflorence.engine.work import OverTime, UnitReport, Worker
from openflorence.errors import BadConfig, StageFailed

Runner = Literal["inline", "processes", "ray"]
RUNNERS: tuple[Runner, ...] = get_args(Runner)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Who runs the stages. Nothing of it is part of a run id: a run goes on under another runner."""

    runner: Runner = "inline"
    workers: int | None = None  # at once; None: one for each processor
    devices: tuple[str, ...] | None = None  # for stages with a share of a GPU: "cuda:0"; None: those there are
    address: str = ""  # of a Ray cluster; "" starts Ray here
    attempts: int = ATTEMPTS  # at a unit before the run is ended

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise BadConfig(f"there is no runner {self.runner!r}; allowed: {', '.join(RUNNERS)}")
        if self.workers is not None and self.workers < 1:
            raise BadConfig(f"workers is {self.workers}; at least one is needed")


DEFAULT_SETTINGS = RunSettings()


def run_stages(
    specs: Sequence[StageSpec],
    store: Factory,
    round: int = 0,
    settings: RunSettings = DEFAULT_SETTINGS,
    given: Mapping[str, str] | None = None,
    tell: Tell | None = None,
    retry: bool = False,
) -> Progress:
    """Do every unit of every stage that is not done, and seal the runs that are whole.

    store     what opens it; every worker does so for itself.
    round     of the data engine; 0 before the first.
    given     layers that earlier runs wrote: layer -> run id.
    tell      called with the progress after every unit.
    retry     do again what failed in runs that are whole; see plan_jobs.
    returns   the progress at the end, with the run id of every layer.
    raises    BadConfig for stages that do not fit together, or while another run writes the same;
              StageFailed when a stage cannot be set up, or the store fails. What is committed stays.
    promise   a row for every image, whatever one of them does to a stage; the same rows however often it was killed.
    """
    jobs = plan_jobs(specs, store, round, given, settings.attempts, retry)
    opened: Store = store.make()
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(job.open(opened).lock())
        board = Board(jobs, opened)
        if not board.is_finished:
            _RUN[settings.runner](board, settings, tell)
        return board.progress()


def _run_inline(board: Board, settings: RunSettings, tell: Tell | None) -> None:
    """Stage after stage, so that one model at a time is in memory."""
    for layer, job in board.jobs.items():
        if not board.left(layer):
            continue
        try:
            worker = Worker(job, Context(_inline_device(job, settings), job.cache), alarm)
        except Exception as error:
            raise StageFailed(f"stage {layer!r} failed while it was set up: {describe(error)}") from error
        while (unit := board.take(layer)) is not None:
            board.finish(_do(worker, unit))
            if tell is not None:
                tell(board.progress())
        del worker
        if not board.is_finished:
            gc.collect()  # a model that is part of a cycle would stay beside the next one


def _do(worker: Worker, unit: int) -> UnitReport:
    try:
        return worker.run(unit)
    except StageFailed:
        raise
    except Exception as error:  # not of the stage, whose errors are rows: the store cannot be read or written
        raise StageFailed(f"stage {worker.job.layer!r} failed at unit {unit}: {describe(error)}") from error


def _run_processes(board: Board, settings: RunSettings, tell: Tell | None) -> None:
    crew = ProcessCrew()
    devices = dict.fromkeys(_devices(board.jobs.values(), settings), 1.0)
    try:
        Driver(board, crew, settings.workers or os.cpu_count() or 1, devices, tell).run()
    finally:
        crew.close()


def _run_ray(board: Board, settings: RunSettings, tell: Tell | None) -> None:
    crew = RayCrew(list(board.jobs.values()), settings.workers or 1, settings.address)
    try:
        Driver(board, crew, settings.workers or crew.cpus, crew.devices, tell).run()
    finally:
        crew.close()


_RUN = {"inline": _run_inline, "processes": _run_processes, "ray": _run_ray}


# ---- what runners need -----------------------------------------------------------------------------------------------


@contextmanager
def alarm(limit_s: float | None) -> Iterator[None]:
    """Raise OverTime in here after so many seconds.

    limit_s   None for no limit. Without signals, and outside of the main thread, there is none either.
    """
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if limit_s is None or not able:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OverTime(f"the batch took longer than {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _inline_device(job: Job, settings: RunSettings) -> str:
    devices = _devices([job], settings)
    return devices[0] if devices and job.resources.gpus else "cpu"


def _devices(jobs: Iterable[Job], settings: RunSettings) -> tuple[str, ...]:
    """The accelerators of this machine, if any stage asks for one; torch is loaded only then."""
    if settings.devices is not None:
        return settings.devices
    if not any(job.resources.gpus for job in jobs):
        return ()
    import torch

    return tuple(f"cuda:{place}" for place in range(torch.cuda.device_count()))
