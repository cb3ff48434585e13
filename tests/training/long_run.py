"""A run of twelve steps with dropout, to be killed: `python long_run.py FOLDER` prints a line after every step."""

import sys
from pathlib import Path

import torch
from tiny import SIDE_PX, WORLD, tiny_network, world_text

from openflorence.data.mixture import DrawnMixture, MixtureConfig
from openflorence.training.train import TrainSettings, location_blur, sequence_loss, train

STEPS, SAVE_EVERY = 12, 2


def run(folder: Path, report=print) -> dict[str, torch.Tensor]:
    """Begin the run, or go on with it; gives the averaged weights."""
    network, text = tiny_network(seed=4, dropout=0.1), world_text()
    mixture = MixtureConfig(world=WORLD, side_px=SIDE_PX, images=2, targets=3)
    settings = TrainSettings(steps=STEPS, warmup=3, save_every=SAVE_EVERY, log_every=1, workers=0, average=0.9)
    loss = sequence_loss(network, location_blur(settings.blur_bins), text.first_location)
    return train(network, loss, DrawnMixture(mixture, text, STEPS), settings, folder, report)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), lambda line: print(line, flush=True))
