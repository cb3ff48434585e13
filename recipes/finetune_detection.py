"""Fine-tune a checkpoint to find the objects of your own data.

    openflorence train finetune_detection --set data=DIR --set model=M

data       a COCO, YOLO (detect or segment), Pascal VOC or LabelMe folder; its "val" part, or a tenth, is held out
hardware   nano: a processor, minutes. base: 12 GB of GPU memory at images=4; less with how=lora and recompute=true
           (not measured here). Several GPUs: accelerate launch -m openflorence.cli train finetune_detection ...
scores     AP, AP50, AP75 and AP50 of every category, before and after; what was measured is in docs/results.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openflorence.experiments.finetune import FinetuneSettings, finetune, smoke_settings

WEIGHTS = {"detect": 1.0}
HEADLINES = ("detect.map", "detect.f1")


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    """What may be changed from the command line."""

    out: Path = Path("runs/finetune_detection")


def run(settings: Settings, report: Callable[[str], None] = print) -> Path:
    """Fine-tune; gives the folder of the checkpoint."""
    return finetune(settings, WEIGHTS, HEADLINES, report)


def smoke(out: Path) -> Settings:
    """The same recipe on a few drawn scenes, small enough for a test."""
    return smoke_settings(Settings(), out)
