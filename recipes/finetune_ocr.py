"""Fine-tune a checkpoint to read what is printed in your own data.

    openflorence train finetune_ocr --set data=DIR --set model=M

data       ICDAR, HierText or FUNSD files, or records with words
hardware   nano: a processor, minutes. base: as finetune_detection (not measured here)
scores     words read and placed right, edit distance, before and after; see docs/results.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openflorence.experiments.finetune import FinetuneSettings, finetune, smoke_settings

WEIGHTS = {"read_regions": 1.0, "read": 0.5, "read_region": 0.5}
HEADLINES = ("read_regions.words_right", "read_region.exact", "read.exact")


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    """What may be changed from the command line."""

    out: Path = Path("runs/finetune_ocr")
    targets: int = 3  # things asked per image, on one encoding


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune; gives the folder of the checkpoint."""
    return finetune(settings, WEIGHTS, HEADLINES, report)


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    return smoke_settings(Settings(), out)
