"""One loop for every objective: any number of processes and of batches in a step, one arithmetic.

A run lives in a folder: `state.safetensors` is replaced by rename every `save_every` steps, `train.jsonl` gets a line
every `log_every`, and where there is a validation `best.safetensors` holds the averaged weights that scored best.
Started again with the same settings, a run that was killed goes on from its last state and reaches the weights it would
have reached: a batch depends on its number alone, and chance inside the network is seeded by that number. Steps that
were lost with the kill are logged again.

A step minimises sum(loss) / sum(units) over all its batches on all processes. So one process with batches of 2B images,
two with B, and one that accumulates two of B differ by the rounding of sums alone. For several processes all must see
the run's folder.
Source: spec section 7 (AdamW, cosine with linear warm-up); averaging and clipping are ours.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from openflorence.data.mixture import Batch
from openflorence.errors import BadConfig, TrainingDiverged
from openflorence.model.davit import DualBlock
from openflorence.model.seq2seq import Seq2Seq
from openflorence.training.processes import PRECISIONS, TRACKERS, Processes, Spread, spread
from openflorence.training.progress import Meter, Report, parameter_report
from openflorence.training.states import (
    Holdings,
    Progress,
    averaged_weights,
    best_scores,
    describe,
    load_state,
    save_best,
    save_state,
    whole,
)

# Embedding and position tables: rows that a batch does not touch should not shrink.
TABLES = ("embed.weight", "positions.weight", "rows.weight", "columns.weight")
LENGTHS = "lora_magnitude_vector"  # of the rows of weights, in DoRA: in the name of a parameter

# Settings that a run may be taken up with other values of: they change no batch and no step, but for `steps`, which
# stretches the rest of the schedule, so that a run can be made longer; accumulated batches count with the processes.
FREE = ("steps", "save_every", "log_every", "workers", "trackers", "recompute", "shard", "accumulate")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run goes. Steps, not epochs: the drawn world does not end."""

    steps: int = 10_000  # optimizer steps in all
    peak_rate: float = 1e-3  # learning rate after warm-up; a cosine takes it down to the floor at the last step
    floor: float = 0.0  # share of the rate that is left at the end
    tower_rate: float = 1.0  # times the rate, for the image tower; 0 freezes it (requires_grad is taken off)
    warmup: int = 300  # steps of linear warm-up
    weight_decay: float = 0.02  # on matrices; not on norms, biases and embeddings
    betas: tuple[float, float] = (0.9, 0.98)  # of Adam
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.999  # how much of the averaged weights, the ones to keep, stays at a step; 0 keeps the last
    accumulate: int = 1  # batches in a step, on each process
    precision: str = "no"  # the network computes in bf16 or fp16; weights, losses and moments stay float32
    recompute: bool = False  # gradient checkpointing: keep only the inputs of layers, run them again for the gradient
    shard: bool = False  # over several processes, give each a share of weights, moments and averages (FSDP)
    trackers: tuple[str, ...] = ()  # tensorboard, wandb, trackio, beside train.jsonl
    save_every: int = 250  # steps
    log_every: int = 50  # steps
    workers: int = 1  # processes that draw ahead of the network; 0 draws in between
    seed: int = 0  # of dropout and drop-path

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup <= self.steps or not 0 <= self.average < 1:
            raise BadConfig(
                f"steps={self.steps}, warmup={self.warmup}, average={self.average}: "
                "allowed are steps >= 1, warm-up within them, an average from 0 to below 1"
            )
        if min(self.peak_rate, self.tower_rate, self.weight_decay, self.workers) < 0 or self.clip <= 0:
            raise BadConfig(
                f"peak_rate={self.peak_rate}, tower_rate={self.tower_rate}, weight_decay={self.weight_decay}, "
                f"workers={self.workers}, clip={self.clip}: none below 0, clip above 0"
            )
        if min(self.save_every, self.log_every, self.accumulate) < 1 or not 0 <= self.floor <= 1:
            raise BadConfig(
                f"save_every={self.save_every}, log_every={self.log_every}, accumulate={self.accumulate}, "
                f"floor={self.floor}: give 1 step or batch or more, and a floor from 0 to 1"
            )
        if self.precision not in PRECISIONS or not set(self.trackers) <= set(TRACKERS):
            raise BadConfig(
                f"precision={self.precision!r}, trackers={self.trackers}: allowed are {', '.join(PRECISIONS)}, and of "
                f"trackers {', '.join(TRACKERS)}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: a linear warm-up times a cosine that ends after the last."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        left = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.peak_rate * warm * (self.floor + (1 - self.floor) * left)


@dataclass(frozen=True)
class Validator:
    """How a run is judged on its way: on averaged weights, by whatever `score` measures."""

    every: int  # steps between two scores; after the last step there is one anyway
    score: Callable[[nn.Module], dict[str, float]]  # of the objective, in evaluation mode; called by one process
    headline: str  # the figure that says which weights are best: the highest

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadConfig(f"every={self.every}: validate after 1 step or more")


def parameter_groups(network: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Split the parameters by weight decay and by rate.

    What is frozen stays frozen and is left out; the tower is what stands under the name "tower".
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not name.endswith(TABLES) and LENGTHS not in name
        groups.setdefault((decays, in_tower(name)), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "scale": settings.tower_rate if tower else 1.0,
        }
        for (decays, tower), parameters in groups.items()
    ]


def in_tower(name: str) -> bool:
    """Whether a parameter is of the image tower, also where the network is inside another module."""
    return ".tower." in f".{name}"


def train(
    objective: nn.Module,
    batches: Dataset[Batch],
    settings: TrainSettings,
    folder: Path,
    report: Report = lambda line: None,
    validate: Validator | None = None,
) -> dict[str, Tensor]:
    """Run, or go on with, one training run; called by every process of it.

    objective  a module whose forward gives the "loss" of a batch, a sum, and the "units" it is a sum over; trained in
               place, on the device there is.
    batches    batch `part` of step `step` on process `rank` is batches[(step * accumulate + part) * processes + rank].
               If it has a dataclass `config`, a run is only taken up with the same.
    folder     where the run lives; a state found there is taken up.
    report     gets the table of parameters, and then a line of progress every log_every steps; of the first process.
    validate   scores the averaged weights on the way; the best are kept in folder/best.safetensors.
    returns    the averaged weights (or the last ones when settings.average is 0), by parameter name, on the CPU.
    raises     BadConfig when the folder holds the state of another network or of other settings.
               TrainingDiverged when loss or gradient are not finite; the weights are those of the step before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes = Processes(settings.precision, settings.trackers, folder)
    run = Run(objective, settings, folder, processes, _facts(objective, batches, settings, processes.count))
    start = run.take_up()
    if start >= settings.steps:
        return run.finish()
    meter = Meter(folder, processes, report, settings.steps, start)
    if processes.is_main:
        report(parameter_report(objective))
    processes.begin_log(folder.name, asdict(settings))
    try:
        stream = _from(batches, start, settings, processes)
        for step in range(start, settings.steps):
            norm = run.step(step, stream, meter)
            taken, last = step + 1, step + 1 == settings.steps
            if taken % settings.log_every == 0:
                meter.write(taken, {"rate": settings.rate(step), "norm": norm})
            if validate is not None and (taken % validate.every == 0 or last):
                run.judge(taken, validate, meter, report)
            if taken % settings.save_every == 0 or last:
                run.save(taken)
    finally:
        processes.end_log()
        if meter.problems.counts:
            report(f"met in the data, on process {processes.rank}:\n{meter.problems}")
    return run.finish()


def _facts(objective: nn.Module, batches: Dataset[Batch], settings: TrainSettings, processes: int) -> dict[str, Any]:
    """All that the arithmetic of a run depends on and that can be told: a resume with anything else is refused."""
    config = getattr(batches, "config", None)
    plain = {name: value for name, value in vars(objective).items() if isinstance(value, (int, float, str))}
    known = {name: value for name, value in plain.items() if name != "training" and not name.startswith("_")}
    parts = {
        "train": {name: value for name, value in asdict(settings).items() if name not in FREE},
        "step": {"batches": settings.accumulate * processes},
        "objective": {"is": type(objective).__name__} | known,
        "data": asdict(config) if is_dataclass(config) and not isinstance(config, type) else {},
    }
    return describe(parts)


def _from(batches: Dataset[Batch], start: int, settings: TrainSettings, processes: Processes) -> Iterator[Batch]:
    """Give this process its batches from a step on, drawn ahead by the workers, always in order."""
    each = settings.accumulate * processes.count
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start * each + processes.rank, settings.steps * each, processes.count),
        num_workers=settings.workers,
        prefetch_factor=6 if settings.workers else None,
        multiprocessing_context=_context(batches) if settings.workers else None,
    )
    return iter(loader)


def _context(batches: Dataset[Batch]) -> BaseContext | None:
    """How workers start: as torch does it, but from a process of their own where they must not be forked from this."""
    if getattr(batches, "fork_safe", True) or "forkserver" not in get_all_start_methods():
        return None
    context = get_context("forkserver")
    context.set_forkserver_preload(["openflorence.data.mixture"])  # once, and not in every worker
    return context


class Run:
    """The state of a run on one process, and what a step does to it."""

    def __init__(
        self, objective: nn.Module, settings: TrainSettings, folder: Path, processes: Processes, facts: dict[str, Any]
    ) -> None:
        self.settings, self.folder, self.processes, self.facts = settings, folder, processes, facts
        for name, parameter in objective.named_parameters():
            if in_tower(name) and settings.tower_rate == 0:
                parameter.requires_grad_(False)
        for part in objective.modules():
            if isinstance(part, (DualBlock, Seq2Seq)):
                part.recompute = settings.recompute
        objective.train()
        self.spread: Spread = spread(objective, processes, settings.shard)
        module = self.spread.module
        # One pass over all weights instead of one each: on a CPU torch does not choose it by itself.
        fused = processes.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(parameter_groups(module, settings), betas=settings.betas, fused=fused)
        parameters = dict(module.named_parameters())
        average = {name: value.detach().clone() for name, value in parameters.items() if value.requires_grad}
        self.holdings = Holdings(parameters, optimizer, average)
        self.trained = [value for value in parameters.values() if value.requires_grad]
        self.scores: dict[str, float] = {}  # of the best weights so far

    def take_up(self) -> int:
        """Go on from what the folder holds; gives the next step."""
        progress = load_state(self.folder, self.holdings, self.facts)
        if self.processes.scaler is not None and progress.scaler:
            self.processes.scaler.load_state_dict(dict(progress.scaler))
        self.scores = best_scores(self.folder)
        return progress.step

    def save(self, taken: int) -> None:
        """Put the state after so many steps on disk."""
        scaler = self.processes.scaler
        progress = Progress(taken, scaler.state_dict() if scaler is not None else {})
        save_state(self.folder, self.holdings, progress, self.facts, self.processes.is_main)

    def step(self, step: int, stream: Iterator[Batch], meter: Meter) -> float:
        """Take one optimizer step; gives the norm of its gradient before it was clipped.

        raises    TrainingDiverged for numbers that are not finite, before they reach the weights or a saved state.
        """
        optimizer, scaler, settings = self.holdings.optimizer, self.processes.scaler, self.settings
        optimizer.zero_grad(set_to_none=True)
        sums = self._sum_gradients(step, stream, meter)
        if scaler is not None:
            scaler.unscale_(optimizer)
        gradients = [value.grad for value in self.trained if value.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if self.spread.sharded else norm
        loss, units, length = torch.cat([sums, norm.to(sums)[None]]).tolist()  # the one wait for the device in a step
        # Several processes have averaged their sums.
        scale = self.processes.count / units if units else 1.0
        loss, length = loss / (units or 1.0), length * scale
        overflow = scaler is not None and not math.isfinite(length)  # half precision skips such steps and scales down
        self._check_finite(step, loss, 0.0 if overflow else length)
        torch._foreach_mul_(gradients, scale * min(1.0, settings.clip / (length + 1e-6)))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step) * group["scale"]
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if not overflow:
            self._follow(step)
        meter.add_step(loss)
        return length

    def _sum_gradients(self, step: int, stream: Iterator[Batch], meter: Meter) -> Tensor:
        """Run all batches of a step forward and backward; gives the sums of their losses and units."""
        processes, settings = self.processes, self.settings
        sums = torch.zeros(2, device=processes.device)
        for part in range(settings.accumulate):
            batch = next(stream)
            batch = batch if batch.pixels.device == processes.device else batch.to(processes.device)
            number = (step * settings.accumulate + part) * processes.count + processes.rank
            torch.manual_seed(settings.seed * 1_000_003 + number)
            with self.spread.sync(last=part + 1 == settings.accumulate):
                with processes.autocast():
                    parts = self.spread.model(batch)
                loss = parts["loss"]
                (loss if processes.scaler is None else processes.scaler.scale(loss)).backward()
            sums += torch.stack([loss.detach().float(), parts["units"].float()])
            meter.add_batch(parts, batch)
        return processes.sum(sums)

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        scaler = self.processes.scaler
        lost = scaler is not None and scaler.get_scale() < 2.0**-20  # halved at every step that was skipped
        if lost or not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"step {step + 1}: the loss is {loss:g} and the norm of its gradient {norm:g}; both must be finite. "
                f"The state in {self.folder} is from before this: go on from it with a lower peak_rate or a lower clip"
            )

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average to part of itself and the rest of the new weights: a mean over about 1 / (1 - part) steps.

        It irons out the jitter of single steps, as a lower learning rate would, while the weights themselves stay fast.
        """
        kept = min(self.settings.average, (step + 1) / (step + 10))  # a young average follows faster
        torch._foreach_lerp_(_local(list(self.holdings.average.values())), _local(self.trained), 1.0 - kept)

    def judge(self, taken: int, validate: Validator, meter: Meter, report: Report) -> None:
        """Score the averaged weights and keep them when they are the best; every process must call."""
        began = time.perf_counter()
        weights = averaged_weights(self.holdings)
        if self.processes.is_main:
            scores = self._score(weights, validate)
            if validate.headline not in scores:
                raise BadConfig(f"headline {validate.headline!r} is none of the scores: {', '.join(scores) or 'none'}")
            best = self.scores.get(validate.headline, -math.inf)
            if scores[validate.headline] > best:
                save_best(self.folder, weights, taken, scores)
                self.scores = scores
            meter.append({"step": taken, "scores": {name: round(value, 4) for name, value in scores.items()}})
            self.processes.log({f"validation/{name}": value for name, value in scores.items()}, taken)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            report(f"{taken}/{self.settings.steps} validation: {shown}")
        self.processes.wait()
        meter.clock += time.perf_counter() - began  # the pace is that of training

    def _score(self, weights: Mapping[str, Tensor], validate: Validator) -> dict[str, float]:
        """Score with averaged weights in place; afterwards everything is as it was, bit for bit."""
        objective, sharded = self.spread.objective, self.spread.sharded
        kept = {} if sharded else {name: value.detach().clone() for name, value in self.holdings.parameters.items()}
        place(objective.to(self.processes.device), weights)
        objective.eval()
        try:
            with torch.no_grad():
                return validate.score(objective)
        finally:
            objective.train()
            if sharded:
                objective.cpu()
            else:
                place(objective, kept)

    def finish(self) -> dict[str, Tensor]:
        """Leave the last weights in the caller's objective; gives the averaged ones."""
        if self.spread.sharded:
            place(self.spread.objective, {name: whole(value) for name, value in self.holdings.parameters.items()})
        return averaged_weights(self.holdings)


def _local(tensors: list[Any]) -> list[Tensor]:
    """This process's shards of tensors, or the tensors themselves; written to, they change."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


@torch.no_grad()
def place(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights, by parameter name, into a module."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])
