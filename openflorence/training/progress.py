"""What a run says of itself: the table of its parameters, `train.jsonl`, and a line of progress."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openflorence.data.mixture import Batch
from openflorence.data.problems import Problems
from openflorence.model.adapters import part_of
from openflorence.training.processes import Processes

Report = Callable[[str], None]
_NOT_LOGGED = ("loss", "units")  # of what an objective gives: the loop divides one by the other


def parameter_report(network: nn.Module) -> str:
    """Table of what is trained: a line for each part of the network, and for its adapters, trainable and frozen."""
    counts: dict[str, list[int]] = {}
    for name, parameter in network.named_parameters():
        part = counts.setdefault(part_of(name), [0, 0])
        part[not parameter.requires_grad] += parameter.numel()
    counts["total"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    lines = [f"{part:<18}{trained:>12,}{frozen:>12,}" for part, (trained, frozen) in counts.items()]
    return "\n".join([f"{'parameters':<18}{'trainable':>12}{'frozen':>12}", *lines])


class Meter:
    """Means since the last line, over all processes; writes train.jsonl and tells the trackers.

    Tensors are kept as they are and read once a line, so that no step waits for a device to say a number.
    """

    def __init__(self, folder: Path, processes: Processes, report: Report, steps: int, start: int) -> None:
        self.path, self.processes, self.report, self.steps = folder / "train.jsonl", processes, report, steps
        self.values: dict[str, list[Tensor]] = {}
        self.losses: list[float] = []
        self.images, self.targets, self.clock, self.last = 0, 0, time.perf_counter(), start
        self.problems = Problems()  # of all batches of this process so far

    def add_batch(self, parts: Mapping[str, Tensor], batch: Batch) -> None:
        """Take in a batch of this process, and what an objective gave for it."""
        for name, value in parts.items():
            if name not in _NOT_LOGGED:
                self.values.setdefault(name, []).append(value.detach())
        self.images += len(batch.pixels)
        self.targets += sum(len(group.tasks) for group in batch.pairs)
        self.problems.take(batch.problems)

    def add_step(self, loss: float) -> None:
        """Take in the loss of a step, over all processes."""
        self.losses.append(loss)

    def write(self, step: int, facts: Mapping[str, float]) -> None:
        """Write the line of a step and begin anew; every process must call.

        step      how many were taken.
        facts     what else the line should say, as it is.
        """
        sums = [torch.stack(values).float().sum() for values in self.values.values()]
        numbers = torch.stack(sums).tolist() if sums else []
        own = {name: (total, len(self.values[name])) for name, total in zip(self.values, numbers, strict=True)}
        shares = self.processes.gather((own, self.images, self.targets, dict(self.problems.counts)))
        passed_s = time.perf_counter() - self.clock
        seen: dict[str, tuple[float, int]] = {}
        for values, *_ in shares:
            for name, (total, count) in values.items():
                before = seen.get(name, (0.0, 0))
                seen[name] = before[0] + total, before[1] + count
        means = {"loss": sum(self.losses) / len(self.losses)}
        means |= {name: total / count for name, (total, count) in sorted(seen.items())}
        row = {
            "step": step,
            "images_per_s": round(sum(share[1] for share in shares) / passed_s, 1),
            "targets_per_s": round(sum(share[2] for share in shares) / passed_s, 1),
            "left_s": round((self.steps - step) * passed_s / (step - self.last)),
        }
        row |= {name: float(f"{value:.4g}") for name, value in facts.items()}
        row |= {name: round(value, 4) for name, value in means.items()}
        problems = sum((Counter(share[3]) for share in shares), Counter())
        self.append(row | ({"problems": problems} if problems else {}))
        self.processes.log({f"train/{name}": value for name, value in row.items() if name != "step"}, step)
        if self.processes.is_main:
            shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            pace = f"{row['images_per_s']:.0f} images/s, {row['left_s'] / 60:.0f} min left"
            self.report(f"{step}/{self.steps} {pace}: {shown}")
        self.values, self.losses, self.last = {}, [], step
        self.images, self.targets, self.clock = 0, 0, time.perf_counter()

    def append(self, row: Mapping[str, Any]) -> None:
        """Put a row into train.jsonl, once for all processes."""
        if self.processes.is_main:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
