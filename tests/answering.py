"""A checkpoint of 60 thousand drawn numbers that answers nonsense, differently for each image and task, in a moment."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.config import FlorenceConfig, TextConfig, VisionConfig
from openflorence.model.florence import Network
from openflorence.model.tokenizer import Text, train_text

SIDE_PX, POSITIONS = 32, 96
# What each task is asked with.
TEXTS = {
    "ground": "a red car beside a bus",
    "segment": "the blue bus",
    "find": "car<and>bus",
    "answer": "how many cars?",
}
REGION = (4.0, 5.0, 30.0, 20.0)


@cache
def words_text() -> Text:
    """A small tokenizer in the published arrangement, with real merges."""
    words = "a red car stands beside the blue bus; what is in the image? locate the objects " * 3
    return train_text([words], 4 + 256 + 24 + 1 + 1024)


@torch.no_grad()
def drawn_network(seed: int = 0) -> Network:
    """A network with every parameter drawn; what it says ends on its own, mostly."""
    config = FlorenceConfig(
        vision=VisionConfig(
            widths=(8, 16),
            depths=(1, 1),
            heads=(2, 4),
            groups=(2, 4),
            kernels=(7, 3),
            strides=(4, 2),
            paddings=(3, 1),
            prenorms=(False, True),
            window=4,
            max_side=12,
        ),
        text=TextConfig(
            vocab=words_text().size,
            width=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_heads=4,
            decoder_heads=4,
            encoder_ffn=64,
            decoder_ffn=64,
            positions=POSITIONS,
        ),
        side_px=SIDE_PX,
    )
    network = Network(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name and name.endswith("weight")
        scale = 1.0 if "positions" in name else 0.3 if "embed" in name else 0.2
        parameter.copy_(1 + 0.1 * noise if is_norm else scale * noise)
    ending = network.seq2seq.embed.weight[config.text.eos]
    for step, row in enumerate(network.seq2seq.decoder.positions.weight):  # the later, the more like </s>
        row += 0.3 * step * ending / ending.norm()
    ending *= 2.0
    return network.eval()


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Save it; gives the folder."""
    save_checkpoint(drawn_network(seed), words_text(), folder)
    return folder


def drawn_picture(seed: int = 0, image_wh: tuple[int, int] = (48, 32)) -> Image.Image:
    """Blocks of colour."""
    width, height = image_wh
    levels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST)
