"""Fine-tune a checkpoint to answer the questions of your own data.

    openflorence train finetune_vqa --set data=DIR --set model=M

data       VQAv2, OK-VQA, TextVQA or VizWiz files, or JSONL lines of image, prefix, suffix
hardware   nano: a processor, minutes. base: as finetune_detection (not measured here)
scores     VQA accuracy, ANLS and exact answers, before and after; figures that were measured are in docs/results.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openflorence.experiments.finetune import FinetuneSettings, finetune, smoke_settings

WEIGHTS = {"answer": 1.0}
HEADLINES = ("answer.vqa_accuracy", "answer.exact")


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    """What may be changed from the command line."""

    out: Path = Path("runs/finetune_vqa")
    targets: int = 4  # questions per image, on one encoding


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune; gives the folder of the checkpoint."""
    return finetune(settings, WEIGHTS, HEADLINES, report)


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    return smoke_settings(Settings(), out)
