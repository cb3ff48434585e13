"""Pre-training as the paper describes it: every task, one loss, 384 px first, then a shorter time at 768 px.

    openflorence train pretrain --set size=base --set data=DIR=2,OTHER=1 --set tower=FILE

hardware   a cluster (accelerate launch -m openflorence.cli train pretrain ...): 3.5 billion samples at the paper's
           batch of 2048 are about 1.7 million steps. Never run in full here; every part of it is run by the tests at
           the size of a toy
data       folders in any format of data/formats.py, with their shares of the images
start      model=M takes a checkpoint; without one the weights are drawn, and tower=FILE puts a started tower in
           (training/masked.py, training/contrast.py). The paper starts from UniCL and BART
scores     none of this recipe; what this project trained is in docs/results.md
Source: Florence-2 report, section 6.1: AdamW, cosine, 5000 steps of warm-up; base 1e-4 and a batch of 2048 for 3
billion samples at 384 px and 0.5 billion at 768 px; large 1e-5, 3072, 3 and 0.1 billion. Betas, weight decay, clipping,
the rate of the second stage and the shares of the tasks are not published: ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from openflorence.data.album import write_scenes
from openflorence.data.augment import Augment
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig
from openflorence.experiments.pretrain import (
    Shape,
    Stage,
    learn_text,
    parse_datasets,
    read_sources,
    train_stages,
)
from openflorence.model.config import SIZES, with_vocab
from openflorence.model.florence import Network, init_weights
from openflorence.model.predict import load
from openflorence.model.tokenizer import Text
from openflorence.training.tower_file import load_tower
from openflorence.training.train import TrainSettings

SAMPLES = {"nano": (1e6, 1e5), "base": (3e9, 0.5e9), "large": (3e9, 0.1e9)}  # of the two stages; nano's are ours
PEAKS = {"nano": 1e-3, "base": 1e-4, "large": 1e-5}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be changed from the command line."""

    size: str = "base"  # base or large; nano to try it out
    data: str = "data"  # folders with their shares: DIR=2,OTHER=1
    out: Path = Path("runs/pretrain")
    model: str = ""  # checkpoint to start from; "" draws the weights
    tokenizer: str = ""  # folder with the tokenizer.json to use with drawn weights; "" learns one from the data
    tower: str = ""  # file of a started tower, for drawn weights
    sides: str = "384,768"  # px of the input, a stage each
    samples: str = ""  # (image, target) pairs of each stage; "" for the paper's
    images: int = 64  # in a batch, on each process; images x targets x accumulate x processes is the paper's batch
    targets: int = 4  # things asked per image, on one encoding
    accumulate: int = 1  # batches in a step
    peak_rate: float = 0.0  # highest learning rate; 0 for the paper's
    warmup: int = 5000  # steps
    precision: str = "bf16"  # no, bf16 or fp16
    recompute: bool = False  # gradient checkpointing
    flip: float = 0.0  # share of images mirrored, where nothing forbids it
    trackers: str = ""  # tensorboard, wandb, trackio; several with commas
    workers: int = 8  # processes that read images, on each process
    threads: int = 0  # processor threads of the network; 0 leaves torch's own choice
    seed: int = 0


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Pre-train; gives the folder of the checkpoint."""
    if settings.size not in SAMPLES:
        raise BadConfig(f"size is {settings.size!r}; allowed: {', '.join(SAMPLES)}")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sources = read_sources(parse_datasets(settings.data), report, Augment(flip=settings.flip, crop=0.0, colour=0.0))
    if settings.model:
        start = load(settings.model)
        network, text = start.network, start.checkpoint.text
    else:
        config = SIZES[settings.size]
        text = Text.read(Path(settings.tokenizer)) if settings.tokenizer else learn_text(sources, config.text.vocab)
        network = Network(with_vocab(config, text.size))
        init_weights(network, settings.seed, text.first_location)
        if settings.tower:
            load_tower(network, Path(settings.tower))
    common = TrainSettings(
        precision=settings.precision,
        recompute=settings.recompute,
        average=0.0,
        trackers=tuple(filter(None, settings.trackers.split(","))),
        workers=settings.workers,
        seed=settings.seed,
    )
    shape = Shape(images=settings.images, targets=settings.targets, accumulate=settings.accumulate)
    return train_stages(network, text, sources, stages_of(settings), shape, common, settings.out, report)


def stages_of(settings: Settings) -> list[Stage]:
    """The stages that the settings describe, one for each side.

    raises    BadConfig when sides and samples are not as many, or no numbers.
    """
    usual = settings.samples or ",".join(map(str, SAMPLES[settings.size]))
    try:
        sides = [int(side) for side in settings.sides.split(",")]
        samples = [float(count) for count in usual.split(",")]
        peak = settings.peak_rate or PEAKS[settings.size]
        return [
            Stage(name=f"{side}px-{number}", side_px=side, samples=count, peak_rate=peak, warmup=settings.warmup)
            for number, (side, count) in enumerate(zip(sides, samples, strict=True), start=1)
        ]
    except ValueError as error:
        raise BadConfig(
            f"sides={settings.sides!r}, samples={usual!r}: give as many numbers as sides, as 384,768 and 3e9,5e8"
        ) from error


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes at the size of nano, small enough for a test."""
    write_scenes(6, out / "data", seed=40, config=WorldConfig(side_px=64, sign_share=1.0))
    return Settings(
        size="nano",
        data=str(out / "data"),
        out=out,
        sides="64,96",
        samples="8,4",
        images=2,
        targets=2,
        warmup=1,
        precision="no",
        workers=0,
    )
