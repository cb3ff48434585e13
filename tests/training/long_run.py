"""A run of twelve steps with dropout, to be killed: `python long_run.py FOLDER` prints a line after every step."""

import sys
from pathlib import Path

import torch
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import nn

from openflorence.data.mixture import DrawnSource, Mixture, MixtureConfig
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import TrainSettings, Validator, train

STEPS, SAVE_EVERY = 12, 2


def score(objective: nn.Module) -> dict[str, float]:
    """A figure that falls and rises: the best is neither the first nor the last."""
    return {"tilt": -abs(objective.network.projector.project.weight.double().sum().item() - 0.3)}


def run(folder: Path, report=print) -> dict[str, torch.Tensor]:
    """Begin the run, or go on with it; gives the averaged weights."""
    network, text = tiny_network(seed=4, dropout=0.1), world_text()
    sources = [(DrawnSource(worlds=(WORLD,), side_px=SIDE_PX), 1.0)]
    settings = TrainSettings(
        steps=STEPS, warmup=3, save_every=SAVE_EVERY, log_every=1, workers=0, average=0.9, accumulate=2
    )
    objective = SequenceObjective(network, blur_bins=4.0, first_location=text.first_location)
    batches = Mixture(sources, MixtureConfig(side_px=SIDE_PX, images=1, targets=3), text, 2 * STEPS)
    return train(objective, batches, settings, folder, report, Validator(every=3, score=score, headline="tilt"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), lambda line: print(line, flush=True))
