"""Workers as Ray actors: core actors only, never restarted or retried by Ray, for the driver does that and knows why.

Without an address Ray is started here for this run, and listens on loopback only; its statistics stay off.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from openflorence.engine.jobs import Job
from openflorence.engine.process_crew import describe
from openflorence.engine.schedule import Event
from openflorence.engine.stages import Context
from openflorence.engine.work import Worker
from openflorence.errors import BadConfig

_STORE_BYTES = 100 * 2**20  # of Ray's object store: only unit numbers and counts go through it
_PATIENCE_S = 10.0  # for an actor to be gone
# Read when Ray is imported: without it, a local Ray listens on every interface whatever address it is given.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class RayCrew:
    """Workers as Ray actors."""

    def __init__(self, jobs: Sequence[Job], workers: int, address: str = "") -> None:
        """Start Ray here, join the cluster at an address, or use what this process is joined to already.

        workers   that must have room where Ray is started here.
        raises    BadConfig when Ray is missing, or would listen on every interface, or has too little for a stage.
        """
        self.ray = _import_ray(local=not address)
        self.is_own = not self.ray.is_initialized()
        if self.is_own and address:
            self.ray.init(address=address, log_to_driver=False)
        elif self.is_own:
            cpus = max(workers * max(job.resources.cpus for job in jobs), os.cpu_count() or 1)
            self.ray.init(
                address="local",  # and not the one that RAY_ADDRESS names
                num_cpus=round(cpus),
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=_STORE_BYTES,
                _node_ip_address="127.0.0.1",
            )
        self.actor = self.ray.remote(max_restarts=0, max_task_retries=0)(Actor)
        self.actors: dict[int, Any] = {}
        self.calls: dict[Any, int] = {}  # what is awaited -> the worker
        total = self.ray.cluster_resources()
        self.cpus, gpus = int(total.get("CPU", 1)), float(total.get("GPU", 0))
        self.devices = {"cuda": gpus} if gpus else {}  # Ray shows each actor its own share
        for job in jobs:
            if job.resources.cpus > self.cpus:
                self.close()
                raise BadConfig(f"stage {job.layer!r} asks for {job.resources.cpus:g} CPUs, Ray has {self.cpus} in all")

    def start(self, key: int, job: Job, context: Context) -> None:
        """Place an actor, and set it up."""
        gpus = job.resources.gpus if self.devices else 0
        actor = self.actor.options(num_cpus=job.resources.cpus, num_gpus=gpus).remote()
        self.actors[key] = actor
        self.calls[actor.setup.remote(job, context, list(sys.path))] = key

    def give(self, key: int, unit: int) -> None:
        """Call an actor with the number of a unit."""
        self.calls[self.actors[key].run.remote(unit)] = key

    def end(self, key: int) -> None:
        """Kill an actor, and wait until Ray says that it is gone."""
        self.ray.kill(self.actors.pop(key), no_restart=True)
        pending = [call for call, other in self.calls.items() if other == key]
        if pending:
            self.ray.wait(pending, num_returns=len(pending), timeout=_PATIENCE_S)
        for call in pending:
            del self.calls[call]

    def wait(self, timeout_s: float | None) -> list[Event]:
        """Hear what calls gave, and of actors that are gone."""
        heard = []
        for call in self.ray.wait(list(self.calls), timeout=timeout_s)[0]:
            key = self.calls.pop(call)
            try:
                event: Event = self.ray.get(call)
            except (self.ray.exceptions.RayActorError, self.ray.exceptions.WorkerCrashedError) as error:
                event = Event(key, "died", message=str(error).splitlines()[0])
                self.end(key)
            heard.append(Event(key, event.kind, event.report, event.message))
        return heard

    def close(self) -> None:
        """End everybody, and Ray if it was started here."""
        for key in list(self.actors):
            self.end(key)
        if self.is_own:
            self.ray.shutdown()


class Actor:
    """A worker on the other side. What is raised goes back as an event, so that Ray's errors mean deaths only."""

    def setup(self, job: Job, context: Context, paths: Sequence[str]) -> Event:
        """Set the worker up; modules are found where the driver finds them.

        paths     of the driver's modules.
        """
        sys.path.extend(path for path in paths if path not in sys.path)
        try:
            self.worker = Worker(job, context)
        except BaseException as error:
            return Event(0, "failed", message=describe(error))
        return Event(0, "ready")

    def run(self, unit: int) -> Event:
        """Do a unit."""
        try:
            return Event(0, "done", self.worker.run(unit))
        except BaseException as error:
            return Event(0, "failed", message=describe(error))


def _import_ray(local: bool) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:
        os.environ.setdefault(_LOOPBACK, "0")
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise BadConfig("the runner 'ray' needs Ray: pip install openflorence[ray]") from error
    constants = importlib.import_module("ray._private.ray_constants")
    if local and not ray.is_initialized() and getattr(constants, "ENABLE_RAY_CLUSTER", False):
        raise BadConfig(
            f"Ray was imported before the engine and would listen on every interface; set {_LOOPBACK}=0 before it is "
            "imported, or join a cluster of your own with its address"
        )
    return ray
