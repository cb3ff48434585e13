"""Fine-tune a checkpoint to describe images the way your own data does.

    openflorence train finetune_caption --set data=DIR --set model=M

data       COCO captions, or records with texts; every length of caption that the data has is learnt
hardware   nano: a processor, minutes. base: as finetune_detection (not measured here)
scores     ROUGE-L, word F1 and exact captions, before and after; figures that were measured are in docs/results.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openflorence.experiments.finetune import FinetuneSettings, finetune, smoke_settings

WEIGHTS = {"caption": 1.0, "detailed_caption": 1.0, "more_detailed_caption": 1.0}
HEADLINES = ("caption.rouge_l", "detailed_caption.rouge_l", "more_detailed_caption.rouge_l")


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    """What may be changed from the command line."""

    out: Path = Path("runs/finetune_caption")


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune; gives the folder of the checkpoint."""
    return finetune(settings, WEIGHTS, HEADLINES, report)


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    return smoke_settings(Settings(), out)
