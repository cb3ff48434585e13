"""Runs of three steps over two processes: `torchrun --nproc_per_node 2 two_processes.py FOLDER`.

Every process leaves the weights and averages it ended with; test_processes.py compares them with runs of one process.
"""

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import Dataset

from openflorence.data.mixture import Batch, DrawnSource, Mixture, MixtureConfig
from openflorence.training.objectives import SequenceObjective
from openflorence.training.tower import TowerStart
from openflorence.training.train import TrainSettings, Validator, train

STEPS = 3
SETTINGS = TrainSettings(steps=STEPS, warmup=1, workers=0, log_every=1, save_every=STEPS, average=0.5, clip=0.5)


def score(module: nn.Module) -> dict[str, float]:
    """A figure that follows the weights."""
    return {"size": float(module.network.projector.project.weight.norm())}


JUDGE = Validator(every=STEPS, score=score, headline="size")


class Stopped(Exception):
    """Raised where a run is stopped."""


class Changed(Dataset[Batch]):
    """Batches of a mixture; some without pairs, or none from a number on."""

    def __init__(self, images: int, end: int = 1000, empty: bool = False, scenes: bool = False) -> None:
        source = DrawnSource(worlds=(WORLD,), side_px=SIDE_PX)
        settings = MixtureConfig(side_px=SIDE_PX, images=images, targets=2, keep_scenes=scenes)
        self.mixture, self.end, self.empty = Mixture([(source, 1.0)], settings, world_text(), 1), end, empty

    def __getitem__(self, number: int) -> Batch:
        if number >= self.end:
            raise Stopped
        batch = self.mixture[number]
        return replace(batch, pairs=()) if self.empty and number % 2 else batch


class Watched(SequenceObjective):
    """Notes whether it was one of a sharded kind when it was called."""

    sharded = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        Watched.sharded = isinstance(self, FSDPModule)
        return super().forward(batch)


def run(folder: Path, batches: Dataset[Batch], settings: TrainSettings = SETTINGS) -> tuple[dict, dict[str, Tensor]]:
    """One run on the sequence loss; gives its averaged weights, and the weights of the network it was given."""
    objective = Watched(tiny_network(seed=3))
    averaged = train(objective, batches, settings, folder, validate=JUDGE)
    return averaged, {name: value.detach() for name, value in objective.named_parameters()}


def keep(name: str, folder: Path, averaged: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Leave what this process ended with."""
    tensors = {f"average/{key}": value for key, value in averaged.items()}
    tensors |= {f"weights/{key}": value for key, value in weights.items()}
    rank = torch.distributed.get_rank()
    save_file(tensors | {"sharded": torch.tensor(Watched.sharded)}, folder / f"{name}.{rank}")


def main(folder: Path) -> None:
    """All runs of two processes."""
    torch.set_num_threads(1)
    shard, twice = replace(SETTINGS, shard=True), replace(SETTINGS, accumulate=2, recompute=True)
    keep("copied", folder, *run(folder / "copied", Changed(2)))
    keep("sharded", folder, *run(folder / "sharded", Changed(2), shard))
    keep("accumulated", folder, *run(folder / "accumulated", Changed(1), twice))
    os.environ["ACCELERATE_USE_FSDP"] = "true"  # as `accelerate launch --use_fsdp` does
    keep("sharded and accumulated", folder, *run(folder / "both", Changed(1), twice))
    del os.environ["ACCELERATE_USE_FSDP"]
    keep("one empty", folder, *run(folder / "empty", Changed(2, empty=True)))
    keep("one empty, sharded", folder, *run(folder / "empty sharded", Changed(2, empty=True), shard))
    with suppress(Stopped):  # at the last step; the state is of the one before
        run(folder / "stopped", Changed(2, end=2 * (STEPS - 1)), replace(shard, save_every=STEPS - 1))
    keep("taken up copied", folder, *run(folder / "stopped", Changed(2)))
    start = TowerStart(tiny_network(seed=3), blur_bins=5.0, first_location=world_text().first_location)
    train(start, Changed(2, scenes=True), SETTINGS, folder / "tower")
    keep("tower", folder, {}, {name: value.detach() for name, value in start.named_parameters()})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
