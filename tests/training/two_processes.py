"""Runs of three steps over two processes: `torchrun --nproc_per_node 2 two_processes.py FOLDER`.

Every process leaves the weights and averages it ended with; test_processes.py compares them with runs of one process.
"""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import Tensor, nn
from torch.utils.data import Dataset

from openflorence.data.mixture import Batch, DrawnSource, Mixture, MixtureConfig
from openflorence.training.objectives import SequenceObjective
from openflorence.training.tower import TowerStart
from openflorence.training.train import TrainSettings, Validator, train

STEPS = 3
SETTINGS = TrainSettings(steps=STEPS, warmup=1, workers=0, log_every=1, save_every=2, average=0.5, clip=0.5)


def score(module: nn.Module) -> dict[str, float]:
    """A figure that follows the weights."""
    return {"size": float(module.network.projector.project.weight.norm())}


JUDGE = Validator(every=2, score=score, headline="size")


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


def run(folder: Path, batches: Dataset[Batch], settings: TrainSettings = SETTINGS) -> tuple[dict, dict[str, Tensor]]:
    """One run on the sequence loss; gives its averaged weights, and the weights of the network it was given."""
    objective = SequenceObjective(tiny_network(seed=3))
    averaged = train(objective, batches, settings, folder, validate=JUDGE)
    return averaged, {name: value.detach() for name, value in objective.named_parameters()}


def main(folder: Path) -> None:
    """All runs of two processes."""
    torch.set_num_threads(1)
    shard = replace(SETTINGS, shard=True)
    ended = {
        "copied": run(folder / "copied", Changed(2)),
        "sharded": run(folder / "sharded", Changed(2), shard),
        "accumulated": run(folder / "accumulated", Changed(1), replace(SETTINGS, accumulate=2)),
        "sharded and accumulated": run(folder / "both", Changed(1), replace(shard, accumulate=2, recompute=True)),
        "one empty": run(folder / "empty", Changed(2, empty=True)),
        "one empty, sharded": run(folder / "empty sharded", Changed(2, empty=True), shard),
    }
    with suppress(Stopped):  # at the last step; the state is of the second
        run(folder / "stopped", Changed(2, end=2 * (STEPS - 1)), shard)
    ended["taken up copied"] = run(folder / "stopped", Changed(2))
    start = TowerStart(tiny_network(seed=3), blur_bins=5.0, first_location=world_text().first_location)
    train(start, Changed(2, scenes=True), SETTINGS, folder / "tower")
    ended["tower"] = {}, {name: value.detach() for name, value in start.named_parameters()}
    rank = torch.distributed.get_rank()
    for name, (averaged, weights) in ended.items():
        tensors = {f"average/{key}": value for key, value in averaged.items()}
        save_file(tensors | {f"weights/{key}": value for key, value in weights.items()}, folder / f"{name}.{rank}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
