"""nano: the smallest Florence-2, trained from nothing on the drawn world. It is the embedded default checkpoint.

    openflorence train nano --set out=runs/nano

hardware   2 cores of an AMD EPYC; about 2 processor hours; docs/results.md has the scores and seeds of what ships
stages     tower   every cell of the image tower learns to name what it shows (training/tower.py)
           naming  short answers on scenes of one object, the tower frozen: what to say before where to look
           tasks   all 15 tasks and questions; several targets on one encoding, one cross-entropy (training/train.py)
Stopped, it goes on from its last state; a finished stage is not run again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from openflorence.data.mixture import FIRST_TRAINING_SEED, DrawnMixture, MixtureConfig
from openflorence.data.truth import vocabulary_texts
from openflorence.data.world import WorldConfig
from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.config import NANO, with_vocab
from openflorence.model.florence import Network, init_weights
from openflorence.model.tokenizer import Text, train_text
from openflorence.training.tower import TowerStart
from openflorence.training.train import TrainSettings, location_blur, sequence_loss, train

# Short answers that name: the pointing tasks first, and no long runs of locations to drown the words.
NAMING_WEIGHTS = {"classify_region": 1.0, "describe_region": 1.0, "caption": 1.0, "detect": 1.0, "answer": 0.5}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be changed from the command line."""

    out: Path = Path("runs/nano")  # run folder; the checkpoint is written to out/checkpoint
    tower_steps: int = 2600  # batches of the first stage
    tower_images: int = 24  # images in each of them
    tower_peak: float = 1.5e-3  # highest learning rate of the first stage
    naming_steps: int = 500  # batches of the second stage
    naming_peak: float = 1.5e-3  # its highest learning rate
    task_steps: int = 3700  # batches of the third stage
    task_images: int = 16  # images in each batch of the second and third
    targets: int = 6  # targets per image, on one encoding
    task_peak: float = 1e-3  # highest learning rate of the third stage
    blur_bins: float = 5.0  # width of a location's target, in bins; nano's pixels are 7.8 bins wide
    workers: int = 1  # processes that draw scenes
    threads: int = 2  # processor threads of the network
    seed: int = 0


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Train nano; gives the folder of the checkpoint."""
    torch.set_num_threads(settings.threads)
    text = train_text(vocabulary_texts(seed=FIRST_TRAINING_SEED), NANO.text.vocab)
    network = Network(with_vocab(NANO, text.size))
    init_weights(network, settings.seed, text.first_location)
    adopt(network, start_tower(network, text, settings, report))
    adopt(network, learn_names(network, text, settings, report))
    adopt(network, learn_tasks(network, text, settings, report))
    checkpoint = settings.out / "checkpoint"
    save_checkpoint(network.eval(), text, checkpoint, dtype=torch.float16)
    return checkpoint


def start_tower(network: Network, text: Text, settings: Settings, report: Callable[[str], None]) -> dict[str, Tensor]:
    """Train the tower to name its cells; gives the averaged weights of the whole network."""
    mixture = MixtureConfig(
        side_px=NANO.side_px, images=settings.tower_images, targets=0, keep_scenes=True, seed=settings.seed
    )
    plan = TrainSettings(
        steps=settings.tower_steps,
        peak_rate=settings.tower_peak,
        warmup=min(200, settings.tower_steps),
        blur_bins=settings.blur_bins,
        workers=settings.workers,
    )
    start = TowerStart(network)
    init_head(start, settings.seed)
    loss = start.loss(location_blur(plan.blur_bins), text.first_location)
    weights = train(start, loss, DrawnMixture(mixture, text, plan.steps), plan, settings.out / "tower", report)
    return {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}


def learn_names(network: Network, text: Text, settings: Settings, report: Callable[[str], None]) -> dict[str, Tensor]:
    """Teach the decoder to say what the tower shows, where there is one object only; gives the averaged weights."""
    mixture = MixtureConfig(
        world=WorldConfig(max_objects=1, max_signs=1, sign_share=0.25),
        side_px=NANO.side_px,
        images=settings.task_images,
        targets=4,
        buckets=2,
        weights=NAMING_WEIGHTS,
        seed=settings.seed + 1,
    )
    plan = TrainSettings(
        steps=settings.naming_steps,
        peak_rate=settings.naming_peak,
        tower_rate=0.0,
        warmup=min(100, settings.naming_steps),
        blur_bins=settings.blur_bins,
        workers=settings.workers,
    )
    return learn(network, text, mixture, plan, settings.out / "naming", report)


def learn_tasks(network: Network, text: Text, settings: Settings, report: Callable[[str], None]) -> dict[str, Tensor]:
    """Train every task on whole scenes, none seen before; gives the averaged weights."""
    mixture = MixtureConfig(
        side_px=NANO.side_px,
        images=settings.task_images,
        targets=settings.targets,
        buckets=4,
        seed=settings.seed + 2,
    )
    plan = TrainSettings(
        steps=settings.task_steps,
        peak_rate=settings.task_peak,
        tower_rate=0.5,
        warmup=min(200, settings.task_steps),
        blur_bins=settings.blur_bins,
        workers=settings.workers,
    )
    return learn(network, text, mixture, plan, settings.out / "tasks", report)


def learn(
    network: Network,
    text: Text,
    mixture: MixtureConfig,
    plan: TrainSettings,
    folder: Path,
    report: Callable[[str], None],
) -> dict[str, Tensor]:
    """Run one stage on the sequence loss; gives the averaged weights."""
    loss = sequence_loss(network, location_blur(plan.blur_bins), text.first_location)
    return train(network, loss, DrawnMixture(mixture, text, plan.steps), plan, folder, report)


def init_head(start: TowerStart, seed: int) -> None:
    """Draw the read-outs of the first stage from the seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in start.head.parameters():
        if parameter.ndim > 1:
            torch.nn.init.trunc_normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
        else:
            torch.nn.init.zeros_(parameter)


def adopt(network: Network, weights: dict[str, Tensor]) -> None:
    """Put averaged weights into the network."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])


def smoke(out: Path) -> Settings:
    """The same recipe, small enough for a test."""
    return replace(
        Settings(),
        out=out,
        tower_images=2,
        task_images=2,
        targets=3,
        tower_steps=2,
        naming_steps=2,
        task_steps=2,
        workers=0,
    )
