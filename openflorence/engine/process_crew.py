"""Workers as processes of this machine: spawned, a pipe each, gone as soon as the driver is.

One pipe for each worker, not a shared pool: a pool breaks all work under way when one of its workers dies.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from openflorence.engine.jobs import Job
from openflorence.engine.schedule import Event
from openflorence.engine.stages import Context
from openflorence.engine.work import Worker

_PATIENCE_S = 5.0  # for a process to go by itself


@dataclass
class _Process:
    """One worker, seen from the driver."""

    process: BaseProcess
    pipe: Connection
    lifeline: Connection  # nothing is ever sent on it: it closes when the driver is gone


class ProcessCrew:
    """Workers as spawned processes. Spawned, not forked: libraries with threads hang in forks."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.processes: dict[int, _Process] = {}
        self.spawning = multiprocessing.get_context("spawn")

    def start(self, key: int, job: Job, context: Context) -> None:
        """Spawn a worker."""
        pipe, their_pipe = self.spawning.Pipe()
        lifeline, their_lifeline = self.spawning.Pipe()
        arguments = their_pipe, their_lifeline, job, context
        process = self.spawning.Process(target=serve, args=arguments, name=f"{job.layer}-{key}")
        process.start()
        their_pipe.close()
        their_lifeline.close()
        self.processes[key] = _Process(process, pipe, lifeline)

    def give(self, key: int, unit: int) -> None:
        """Send the number of a unit; a worker that is no more will be heard of as died."""
        with suppress(OSError):
            self.processes[key].pipe.send(unit)

    def end(self, key: int) -> None:
        """Kill a worker, and wait until it is gone."""
        one = self.processes.pop(key)
        one.process.kill()
        one.process.join()
        one.pipe.close()
        one.lifeline.close()

    def wait(self, timeout_s: float | None) -> list[Event]:
        """Hear what workers sent, and which are gone."""
        pipes = {one.pipe: key for key, one in self.processes.items()}
        heard = []
        for pipe in wait(list(pipes), timeout_s):
            assert isinstance(pipe, Connection)
            key = pipes[pipe]
            try:
                event: Event = pipe.recv()
            except (EOFError, OSError):
                event = Event(key, "died", message=self._cause(key))
                self.end(key)
            heard.append(Event(key, event.kind, event.report, event.message))
        return heard

    def close(self) -> None:
        """End everybody."""
        for key in list(self.processes):
            self.end(key)

    def _cause(self, key: int) -> str:
        process = self.processes[key].process
        process.join(_PATIENCE_S)
        return f"exit code {process.exitcode}"


def serve(pipe: Connection, lifeline: Connection, job: Job, context: Context) -> None:
    """Be a worker: units come by the pipe, reports go back by it, and the end of the lifeline is the end."""
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, round(job.resources.cpus))))  # before any library counts cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then ends its workers
    with suppress(EOFError, OSError):  # of the pipe: the driver is gone
        for event in _events(pipe, job, context):
            pipe.send(event)


def _events(pipe: Connection, job: Job, context: Context) -> Iterator[Event]:
    """What becomes of the setup, and of each unit that comes by the pipe."""
    try:
        worker = Worker(job, context)
    except BaseException as error:
        yield Event(0, "failed", message=describe(error))
        return
    yield Event(0, "ready")
    while True:
        unit = pipe.recv()
        try:
            event = Event(0, "done", worker.run(unit))
        except BaseException as error:
            event = Event(0, "failed", message=describe(error))
        yield event


def describe(error: BaseException) -> str:
    """Say what was raised, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({frame.filename}:{frame.lineno})" for frame in place)
    return f"{type(error).__name__}: {error}{where}"


def _die_with(lifeline: Connection) -> None:
    """End this process, in the middle of whatever it does, when the other end of the line closes."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(0)
