"""Fine-tune a checkpoint to find what the expressions of your own data refer to.

    openflorence train finetune_referring --set data=DIR --set model=M

data       RefCOCO, RefCOCO+, RefCOCOg or Flickr30k Entities
hardware   nano: a processor, minutes. base: as finetune_detection (not measured here)
scores     F1 of what was found, R@1 of phrases, mIoU of masks, before and after; see docs/results.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openflorence.experiments.finetune import FinetuneSettings, finetune, smoke_settings

WEIGHTS = {"find": 1.0, "segment": 0.5, "describe_region": 0.5, "ground": 0.5}
HEADLINES = ("find.f1", "ground.recall_at_1", "segment.miou")


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    """What may be changed from the command line."""

    out: Path = Path("runs/finetune_referring")
    targets: int = 4  # things asked per image, on one encoding


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune; gives the folder of the checkpoint."""
    return finetune(settings, WEIGHTS, HEADLINES, report)


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    return smoke_settings(Settings(), out)
