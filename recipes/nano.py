"""nano: the smallest Florence-2, trained from nothing on the drawn world. It is the embedded default checkpoint.

    openflorence train nano --set out=runs/nano

hardware   2 cores of an AMD EPYC; docs/results.md has the hours, scores and seeds of what ships
stages     tower   every cell of the image tower learns to name, read and outline what it shows (training/tower.py)
           naming  short answers on scenes of one object, the tower frozen: what to say before where to look
         words   the same for printed words, names beside them so that they stay
           tasks   all 15 tasks and questions; several targets on one encoding, one cross-entropy (training/train.py)
Stopped, it goes on from its last state; a finished stage is not run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from openflorence.data.mixture import FIRST_TRAINING_SEED, DrawnSource, Mixture, MixtureConfig, Source
from openflorence.data.truth import vocabulary_texts
from openflorence.data.world import WorldConfig
from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.config import NANO, with_vocab
from openflorence.model.florence import Network, init_weights
from openflorence.model.predict import load
from openflorence.model.tokenizer import Text, train_text
from openflorence.training.objectives import SequenceObjective
from openflorence.training.processes import is_first
from openflorence.training.tower import TowerStart
from openflorence.training.train import TrainSettings, place, train

# Short answers that name: the pointing tasks first, and no long runs of locations to drown the words.
NAMING_WEIGHTS = {"classify_region": 1.0, "describe_region": 1.0, "caption": 1.0, "detect": 1.0, "answer": 0.5}

# Words: three in four images have one object and one or two signs; the others are whole scenes, asked for names.
WORD_WEIGHTS = {"read_region": 1.0, "read": 0.7, "read_regions": 0.4, "answer": 0.3}
BESIDE_WEIGHTS = {"classify_region": 1.0, "describe_region": 0.5, "caption": 1.0, "answer": 1.0, "detect": 0.3}

# One scene in three has a sign, and words are many: without these scenes reading had not begun after 60,000 images.
READING = WorldConfig(sign_share=1.0, max_signs=4, min_objects=1, max_objects=2)

# How often each task is drawn: outlines, words, names and questions are learnt last, so they come more often.
WEIGHTS = {
    "caption": 1.6,
    "detailed_caption": 0.4,
    "more_detailed_caption": 0.3,
    "detect": 1.0,
    "dense_caption": 0.9,
    "propose": 0.1,
    "read": 0.5,
    "read_regions": 1.1,
    "ground": 0.5,
    "segment": 1.5,
    "segment_region": 1.0,
    "find": 0.6,
    "classify_region": 1.4,
    "describe_region": 1.0,
    "read_region": 1.0,
    "answer": 2.4,
}

_STAGE_SCENES = 1_000_000_000  # each stage draws scenes of its own


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be changed from the command line."""

    out: Path = Path("runs/nano")  # run folder; the checkpoint is written to out/checkpoint
    model: str = ""  # checkpoint to go on from, such as the embedded "nano"; "" begins with drawn weights
    tower_steps: int = 4000  # batches of the first stage
    tower_images: int = 24  # images in each of them
    tower_peak: float = 1.5e-3  # highest learning rate of the first stage
    naming_steps: int = 500  # batches of the second stage
    naming_peak: float = 1.5e-3  # its highest learning rate
    word_steps: int = 600  # batches of the third stage
    word_peak: float = 1e-3  # its highest learning rate
    task_steps: int = 8000  # batches of the last stage
    task_images: int = 16  # images in each batch of all stages but the first, on each process
    targets: int = 6  # targets per image, on one encoding
    task_peak: float = 1e-3  # highest learning rate of the last stage
    tower_rate: float = 0.5  # times that, for the image tower
    blur_bins: float = 3.0  # width of a location's target, in bins; nano's pixels are 7.8 bins wide
    workers: int = 1  # processes that draw scenes
    threads: int = 2  # processor threads of the network
    seed: int = 0


Report = Callable[[str], None]


def run(settings: Settings, report: Report = print) -> Path:
    """Train nano; gives the folder of the checkpoint."""
    torch.set_num_threads(settings.threads)
    if settings.model:
        start = load(settings.model)
        network, text = start.network, start.checkpoint.text
    else:
        text = train_text(vocabulary_texts(seed=FIRST_TRAINING_SEED), NANO.text.vocab)
        network = Network(with_vocab(NANO, text.size))
        init_weights(network, settings.seed, text.first_location)
    if settings.tower_steps:
        start_tower(network, text, settings, report)
    if settings.naming_steps:
        learn_names(network, text, settings, report)
    if settings.word_steps:
        learn_words(network, text, settings, report)
    if settings.task_steps:
        learn_tasks(network, text, settings, report)
    checkpoint = settings.out / "checkpoint"
    if is_first():
        save_checkpoint(network.eval(), text, checkpoint, dtype=torch.float16)
    return checkpoint


def start_tower(network: Network, text: Text, settings: Settings, report: Report) -> None:
    """Train the tower to name its cells; half of the scenes have many signs."""
    source = DrawnSource(worlds=(WorldConfig(), READING), side_px=NANO.side_px, first=_first(settings, 0))
    config = MixtureConfig(
        side_px=NANO.side_px, images=settings.tower_images, targets=0, keep_scenes=True, seed=settings.seed
    )
    plan = _plan(settings, settings.tower_steps, settings.tower_peak)
    objective = TowerStart(network, settings.blur_bins, text.first_location)
    init_head(objective, settings.seed)
    mixture = Mixture([(source, 1.0)], config, text, plan.steps)
    place(objective, train(objective, mixture, plan, settings.out / "tower", report))


def learn_names(network: Network, text: Text, settings: Settings, report: Report) -> None:
    """Teach the decoder to say what the tower shows, where there is one object only."""
    world = WorldConfig(max_objects=1, max_signs=1, sign_share=0.25)
    source = DrawnSource(worlds=(world,), weights=NAMING_WEIGHTS, side_px=NANO.side_px, first=_first(settings, 1))
    plan = replace(_plan(settings, settings.naming_steps, settings.naming_peak), tower_rate=0.0)
    _learn(network, text, [(source, 1.0)], plan, _fewer_targets(settings), "naming", report)


def learn_words(network: Network, text: Text, settings: Settings, report: Report) -> None:
    """Teach the decoder to spell what the tower reads, where there is little else."""
    world = WorldConfig(min_objects=1, max_objects=1, sign_share=1.0, max_signs=2)
    first = _first(settings, 3)
    words = DrawnSource(worlds=(world,), weights=WORD_WEIGHTS, side_px=NANO.side_px, first=first)
    beside = DrawnSource(weights=BESIDE_WEIGHTS, side_px=NANO.side_px, first=first + _STAGE_SCENES // 2)
    plan = replace(_plan(settings, settings.word_steps, settings.word_peak), tower_rate=0.0)
    _learn(network, text, [(words, 0.75), (beside, 0.25)], plan, _fewer_targets(settings), "words", report)


def learn_tasks(network: Network, text: Text, settings: Settings, report: Report) -> None:
    """Train every task on whole scenes, none seen before; one scene in three has many signs."""
    worlds = (WorldConfig(), WorldConfig(), replace(READING, max_signs=3, max_objects=4))
    source = DrawnSource(worlds=worlds, weights=WEIGHTS, side_px=NANO.side_px, first=_first(settings, 2))
    plan = replace(_plan(settings, settings.task_steps, settings.task_peak), tower_rate=settings.tower_rate)
    _learn(network, text, [(source, 1.0)], plan, settings, "tasks", report)


def _learn(
    network: Network,
    text: Text,
    sources: Sequence[tuple[Source, float]],
    plan: TrainSettings,
    settings: Settings,
    stage: str,
    report: Report,
) -> None:
    """Run one stage on the sequence loss."""
    config = MixtureConfig(
        side_px=NANO.side_px,
        images=settings.task_images,
        targets=settings.targets,
        buckets=6 if settings.task_images * settings.targets >= 48 else 2,
        longest_answer=network.config.text.positions,
        longest_prompt=network.config.max_prompt_tokens,
        seed=settings.seed,
    )
    network.requires_grad_(True)  # the stage before may have frozen the tower
    objective = SequenceObjective(network, settings.blur_bins, text.first_location)
    mixture = Mixture(sources, config, text, plan.steps)
    place(objective, train(objective, mixture, plan, settings.out / stage, report))


def _plan(settings: Settings, steps: int, peak: float) -> TrainSettings:
    return TrainSettings(
        steps=steps, peak_rate=peak, warmup=min(200, steps), workers=settings.workers, seed=settings.seed
    )


def _first(settings: Settings, stage: int) -> int:
    return (4 * settings.seed + stage) * _STAGE_SCENES


def _fewer_targets(settings: Settings) -> Settings:
    """Scenes of one object have not much to ask."""
    return replace(settings, targets=min(4, settings.targets))


def init_head(start: TowerStart, seed: int) -> None:
    """Draw the read-outs of the first stage from the seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in start.head.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
        else:
            nn.init.zeros_(parameter)


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
        word_steps=2,
        task_steps=2,
        workers=0,
    )
