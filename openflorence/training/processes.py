"""One process or several: who this process is, and how a module is copied or sharded over all of them.

Started by `torchrun` or `accelerate launch`, a run is spread over as many processes as were launched; otherwise it is
one. accelerate finds the device and joins the processes; it is imported only when a run begins.
"""

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from openflorence.errors import BadConfig
from openflorence.training.objectives import SequenceObjective

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TRACKERS = ("tensorboard", "wandb", "trackio")
_WAIT = timedelta(hours=3)  # for one another: longer than any validation, which one process does alone


class Processes:
    """All processes of a run, seen from one of them.

    folder    of the run; trackers that write files write them there.
    raises    BadConfig when accelerate or a tracker is not installed, or the precision is not for this device.
    """

    def __init__(self, precision: str, trackers: Sequence[str], folder: Path) -> None:
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
        except ImportError:
            raise BadConfig("training needs accelerate, which is not here: pip install openflorence[train]") from None
        if launched_with("DEEPSPEED"):
            raise BadConfig(
                "launched for DeepSpeed, which this loop does not use: what it would shard, `shard` does here; launch "
                "with FSDP, or as several plain processes with shard=true"
            )
        if missing := [name for name in trackers if find_spec(name) is None]:
            extra = "openflorence[train]" if missing == ["tensorboard"] else " ".join(missing)
            raise BadConfig(f"trackers name {', '.join(missing)}, not installed here: pip install {extra}")
        # Precision is handled here and not by accelerate, whose own cannot change within a process: a recipe may.
        self.accelerator = Accelerator(
            mixed_precision="no",
            cpu=not torch.accelerator.is_available(),  # untold, its processes do not meet on a CPU: each trains alone
            log_with=list(trackers) or None,
            project_dir=folder,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_WAIT)],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        if precision == "fp16" and self.device.type == "cpu":
            raise BadConfig("precision='fp16' needs a GPU, and this runs on the CPU: use 'bf16' or 'no'")
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None

    def autocast(self) -> torch.autocast:
        """A context in which the network computes in the chosen precision; weights stay float32."""
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "no")

    def sum(self, values: Tensor) -> Tensor:
        """Add up over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, thing: Any) -> list[Any]:
        """What each process has, on all of them."""
        if self.count == 1:
            return [thing]
        things: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(things, thing)
        return things

    def wait(self) -> None:
        """Go on when all are here."""
        self.accelerator.wait_for_everyone()

    def begin_log(self, name: str, settings: Mapping[str, Any]) -> None:
        """Start the trackers, telling them the settings."""
        if not self.accelerator.log_with:
            return
        plain = {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in settings.items()}
        self.accelerator.init_trackers("openflorence", config=plain, init_kwargs={"wandb": {"name": name}})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give numbers of a step to the trackers."""
        if self.accelerator.log_with:
            self.accelerator.log(dict(values), step=step)

    def end_log(self) -> None:
        """Close the trackers. accelerate's own end would also part the processes, which may have another stage."""
        for tracker in self.accelerator.trackers if self.accelerator.log_with else ():
            tracker.finish()


def is_first() -> bool:
    """Whether this process is the one of its run that scores, reports and writes what is kept."""
    return os.environ.get("RANK", "0") == "0"


def launched_with(what: str) -> bool:
    """Whether `accelerate launch` was told to use something: "FSDP" or "DEEPSPEED"."""
    return os.environ.get(f"ACCELERATE_USE_{what}", "false").lower() == "true"


@dataclass(frozen=True)
class Spread:
    """An objective over the processes of a run."""

    objective: nn.Module  # the caller's
    module: nn.Module  # whose parameters are trained: the objective itself, or a sharded copy of it
    model: nn.Module  # what is called: the module, or what sums its gradients over processes
    sharded: bool

    def sync(self, last: bool) -> AbstractContextManager[None]:
        """A context for one forward and backward; before the last of a step, gradients need not be summed."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        if self.sharded:
            cast(Any, self.model).set_requires_gradient_sync(last)
        return nullcontext()


def spread(objective: nn.Module, processes: Processes, shard: bool) -> Spread:
    """Copy an objective to all processes, or shard it over them.

    shard     keep only a share of weights, moments and averages on each process (FSDP); also after
              `accelerate launch --use_fsdp`, whose other options are not read. The weights are put together for a
              whole batch at a time: the network is small enough for that, and processes whose batches differ in their
              number of groups could not wait for one another in its middle.
    raises    BadConfig where sharding cannot be.
    """
    shard = shard or launched_with("FSDP")
    if not shard or processes.count == 1:
        objective.to(processes.device)
        if processes.count == 1:
            return Spread(objective, objective, objective, sharded=False)
        places = None if processes.device.type == "cpu" else [processes.device]
        # The sequence loss uses all of the network; what starts a tower leaves parts of it out.
        unused = not isinstance(objective, SequenceObjective)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch 2.13: the word will have another name
            # Buffers are constants here: nothing to send around.
            copied = DistributedDataParallel(
                objective, device_ids=places, broadcast_buffers=False, find_unused_parameters=unused
            )
        return Spread(objective, objective, copied, sharded=False)
    if processes.scaler is not None:
        raise BadConfig("precision='fp16' with shard: its scale is not kept over shards here; use 'bf16'")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    sharded = copy.deepcopy(objective).to(processes.device)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for parameter in sharded.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    fully_shard(sharded, mesh=mesh)
    return Spread(objective, sharded, sharded, sharded=True)
