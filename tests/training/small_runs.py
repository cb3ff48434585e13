"""Short runs of a tiny network on one batch, and what they leave behind."""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from tiny import SIDE_PX, WORLD, Same, drawn_examples, scene_with_sign, world_text
from torch import Tensor, nn

from openflorence.data.mixture import Batch, collate
from openflorence.data.world import draw_scene
from openflorence.model.florence import Network
from openflorence.model.images import to_pixels
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import TrainSettings, train

SCENES = [scene_with_sign(), *(draw_scene(seed, WORLD) for seed in (1, 2, 3))]
FEW = ("detect", "classify_region", "read_region", "find")
SHORT = TrainSettings(steps=4, warmup=1, workers=0, save_every=2, log_every=2, average=0.9)


def batch_of(scenes: list, names: tuple[str, ...] = FEW) -> Batch:
    pixels = torch.stack([to_pixels(Image.fromarray(scene.image), SIDE_PX) for scene in scenes])
    asked = [(row, example) for row, scene in enumerate(scenes) for example in drawn_examples(scene, names)]
    return Batch(pixels, collate(asked, world_text(), buckets=2))


BATCHES = Same(batch_of(SCENES[:2]))


def run(network: Network, settings: TrainSettings, folder: Path, **rest) -> dict[str, Tensor]:
    """Train a network on the sequence loss; gives the averaged weights under the network's own names."""
    averaged = train(SequenceObjective(network), BATCHES, settings, folder, **rest)
    return {name.removeprefix("network."): value for name, value in averaged.items()}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def state_of(folder: Path) -> tuple[int, dict[str, Tensor]]:
    with safe_open(folder / "state.safetensors", framework="pt") as file:
        return int(file.metadata()["step"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
