"""The generalist: one fine-tuned network for all tasks, on the paper's mixture of data sets by name.

    openflorence train generalist --set data=DIR --set model=microsoft/Florence-2-base

hardware   a machine with several GPUs (accelerate launch -m openflorence.cli train generalist ...); never run in full
           here
data       DIR holds a folder for each data set of MIXTURE below, in its official layout; those that are there are used,
           those that are not are named
scores     none of this recipe; what this project trained is in docs/results.md
Source: Florence-2 report, table 14 (which data for which task). Shares, rate and length are not published: ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from openflorence.data.album import write_scenes
from openflorence.data.augment import Augment
from openflorence.data.world import WorldConfig
from openflorence.errors import BadRecord
from openflorence.experiments.pretrain import Named, Shape, Stage, read_sources, train_stages
from openflorence.model.predict import load
from openflorence.training.train import TrainSettings

_CAPTIONS = {"caption": 1.0, "detailed_caption": 1.0, "more_detailed_caption": 1.0}
_DETECTION = {"detect": 1.0, "classify_region": 0.5, "find": 0.5}
_REFERRING = {"find": 1.0, "segment": 1.0}

# Folder, share of the images, tasks. What the paper marks as FLD-5B annotations is any annotation in that folder.
MIXTURE: tuple[tuple[str, float, dict[str, float]], ...] = (
    ("coco_captions", 1.0, _CAPTIONS),
    ("textcaps", 0.5, _CAPTIONS),
    ("stanford_paragraph", 0.3, _CAPTIONS),
    ("localized_narratives", 0.7, _CAPTIONS),
    ("coco_detection", 1.5, _DETECTION | {"segment_region": 0.5}),  # without what RefCOCO validates on
    ("objects365", 1.5, _DETECTION | {"ground": 0.5}),
    ("open_images", 1.5, _DETECTION | {"ground": 0.5}),
    ("flickr30k", 0.7, {"ground": 1.0}),
    ("refcoco", 0.5, _REFERRING),
    ("refcoco+", 0.5, _REFERRING),
    ("refcocog", 0.5, _REFERRING),
    ("vqav2", 1.5, {"answer": 1.0}),
    ("okvqa", 0.3, {"answer": 1.0}),
    ("aokvqa", 0.3, {"answer": 1.0}),
    ("textvqa", 0.5, {"answer": 1.0}),
    ("vizwiz", 0.3, {"answer": 1.0}),
    ("ocr", 1.0, {"read": 1.0, "read_regions": 1.0, "read_region": 0.3}),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be changed from the command line."""

    data: Path = Path("data")  # folder with a folder for each data set of MIXTURE
    model: str = ""  # checkpoint to start from: "" is the embedded nano, or a folder, or a hub id
    out: Path = Path("runs/generalist")
    samples: float = 2e7  # (image, target) pairs to see
    side_px: int = 0  # side of the input; 0 for the checkpoint's own
    images: int = 16  # in a batch, on each process
    targets: int = 4  # things asked per image, on one encoding
    accumulate: int = 1  # batches in a step
    peak_rate: float = 1e-5  # highest learning rate
    warmup: int = 1000  # steps
    precision: str = "bf16"  # no, bf16 or fp16
    recompute: bool = False  # gradient checkpointing
    flip: float = 0.5  # share of images mirrored, where nothing forbids it
    trackers: str = ""  # tensorboard, wandb, trackio; several with commas
    workers: int = 8  # processes that read images, on each process
    threads: int = 0  # processor threads of the network; 0 leaves torch's own choice
    seed: int = 0


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune on all that is there; gives the folder of the checkpoint."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    named = datasets_of(settings.data, report)
    sources = read_sources(named, report, Augment(flip=settings.flip, crop=0.0, colour=0.0))
    florence = load(settings.model or None)
    side_px = settings.side_px or florence.checkpoint.config.side_px
    stage = Stage(
        name="tasks",
        side_px=side_px,
        samples=settings.samples,
        peak_rate=settings.peak_rate,
        warmup=settings.warmup,
    )
    common = TrainSettings(
        precision=settings.precision,
        recompute=settings.recompute,
        trackers=tuple(filter(None, settings.trackers.split(","))),
        workers=settings.workers,
        seed=settings.seed,
    )
    shape = Shape(images=settings.images, targets=settings.targets, accumulate=settings.accumulate)
    return train_stages(
        florence.network, florence.checkpoint.text, sources, [stage], shape, common, settings.out, report
    )


def datasets_of(folder: Path, report: Callable[[str], None]) -> list[Named]:
    """The data sets of MIXTURE that lie in a folder.

    raises    BadRecord when none does.
    """
    there = [row for row in MIXTURE if (folder / row[0]).exists()]
    missing = [name for name, _, _ in MIXTURE if not (folder / name).exists()]
    if not there:
        raise BadRecord(f"{folder} has none of the data sets {', '.join(missing)}: give a folder with at least one")
    if missing:
        report(f"not in {folder}, so not learnt from: {', '.join(missing)}")
    return [Named(name=name, path=folder / name, share=share, weights=weights) for name, share, weights in there]


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    for seed, name in enumerate(("coco_detection", "vqav2", "ocr")):
        write_scenes(4, out / "data" / name, seed=40 + 10 * seed, config=WorldConfig(side_px=64, sign_share=1.0))
    return replace(Settings(), data=out / "data", out=out, samples=8, images=2, targets=2, precision="no", workers=0)
