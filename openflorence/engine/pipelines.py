"""Models of the transformers library as specialists: detectors, open-vocabulary detectors, captioners, mask makers.

Detector("facebook/detr-resnet-50"), OpenDetector(folder, labels=[...]), Captioner(folder), MaskMaker(folder)

A model is a folder, or a hub id: from the local cache, unless `online`. Weights are read from safetensors alone and
code from a repository is never run.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from PIL import Image

from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import LEVELS, Level, Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.coco import decode_mask, trace_mask
from openflorence.data.notes import Notes
from openflorence.engine.specialists import open_row, print_of
from openflorence.engine.stages import Context, Resources, Row, Stage
from openflorence.engine.votes import PlaceKind
from openflorence.errors import BadCheckpoint, BadConfig

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


class PipelineStage(Stage):
    """What the stages of this file share: where the model is, and how it becomes a pipeline."""

    task = ""  # the pipeline's
    says: tuple[PlaceKind, ...] = ()
    batch, resources = 8, Resources(cpus=1, gpus=1)

    def __init__(
        self, model: str, layer: str, revision: str | None = None, online: bool = False, round: int = 0
    ) -> None:
        """Name the model.

        model     a folder or a hub id.
        revision  branch, tag or commit on the hub.
        online    let it be fetched from the hub.
        """
        self.name, self.layer, self.online, self.round = model, layer, online, round
        self.model = model
        self.revision = revision or (print_of(Path(model)) if Path(model).is_dir() else "")
        self._hub_revision = revision
        self._pipe: Any = None
        self.origin = Origin(source="transformers", model=model, version=self.revision, round=round)

    def setup(self, context: Context) -> None:
        """Load the model to the worker's device.

        raises    BadConfig without the transformers library; BadCheckpoint naming what cannot be loaded.
        """
        try:
            import transformers
        except ImportError as error:
            raise BadConfig(f"{self.name} needs the transformers library: pip install transformers") from error
        folder = model_folder(self.name, self._hub_revision, self.online)
        _check_kind(folder, transformers.CONFIG_MAPPING.keys())
        transformers.logging.disable_progress_bar()  # a run has its own
        make: Any = transformers.pipeline
        try:
            self._pipe = make(
                task=self.task, model=str(folder), device=context.device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BadCheckpoint(f"{self.name} cannot be loaded for {self.task!r}: {_first_line(error)}") from error


class Detector(PipelineStage):
    """Any object detector: boxes with the labels that it was trained on."""

    task = "object-detection"
    says = ("object",)

    def __init__(
        self,
        model: str,
        layer: str = "detector",
        least: float = 0.3,
        revision: str | None = None,
        online: bool = False,
        round: int = 0,
    ) -> None:
        """Name the model; what has a score below `least` is not noted."""
        super().__init__(model, layer, revision, online, round)
        self.least = _score_limit(least)

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the boxes of each picture, surest first."""
        assert self._pipe is not None, "setup comes first"
        pictures = [open_row(row) for row in rows]
        found: dict[int, Notes] = {}
        for group in self._groups(pictures):
            told = self._pipe([pictures[place] for place in group], batch_size=len(group), threshold=self.least)
            found |= {place: boxes_of(one, self.origin) for place, one in zip(group, told, strict=True)}
        return [found[place] for place in range(len(rows))]

    def _groups(self, pictures: Sequence[Image.Image]) -> list[list[int]]:
        """Which pictures go through together: all where they are made one size, else those that are; none is padded."""
        fixed = {"height", "width"} <= set(dict(self._pipe.image_processor.size))
        groups: dict[Any, list[int]] = {}
        for place, picture in enumerate(pictures):
            groups.setdefault(None if fixed else picture.size, []).append(place)
        return list(groups.values())


class OpenDetector(PipelineStage):
    """A detector that is told in words what to look for."""

    task = "zero-shot-object-detection"
    says = ("object",)

    def __init__(
        self,
        model: str,
        labels: Sequence[str],
        layer: str = "open_detector",
        least: float = 0.1,
        revision: str | None = None,
        online: bool = False,
        round: int = 0,
    ) -> None:
        """Name the model and what it looks for; what has a score below `least` is not noted."""
        super().__init__(model, layer, revision, online, round)
        self.labels, self.least = tuple(labels), _score_limit(least)
        if not self.labels or not all(label.strip() for label in self.labels):
            raise BadConfig(f"labels is {self.labels!r}; give one or more, each with at least one word")

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the boxes of each picture, surest first."""
        assert self._pipe is not None, "setup comes first"
        found = []
        for row in rows:  # the pipeline takes the labels of one picture one by one, so a batch gains nothing
            told = self._pipe(open_row(row), candidate_labels=list(self.labels), threshold=self.least)
            found.append(boxes_of(told, self.origin))
        return found


class Captioner(PipelineStage):
    """A model that says something about the whole picture: a captioner, or a chat model that is asked."""

    task = "image-text-to-text"

    def __init__(
        self,
        model: str,
        layer: str = "captioner",
        prompt: str = "",
        level: Level = "brief",
        max_tokens: int = 64,
        revision: str | None = None,
        online: bool = False,
        round: int = 0,
    ) -> None:
        """Name the model.

        prompt    what a chat model is asked, or how the caption of another begins.
        level     which of the three granularities the text has.
        """
        super().__init__(model, layer, revision, online, round)
        self.prompt, self.level, self.max_tokens = prompt, level, max_tokens
        if level not in LEVELS or max_tokens < 1:
            raise BadConfig(f"level={level!r}, max_tokens={max_tokens}: allowed are {', '.join(LEVELS)}, and 1 or more")

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give one text a picture, without a score: the pipeline tells none."""
        assert self._pipe is not None, "setup comes first"
        return [self._caption(row) for row in rows]

    def _caption(self, row: Row) -> Notes:
        picture, limits = open_row(row), {"max_new_tokens": self.max_tokens}
        if getattr(self._pipe.processor, "chat_template", None):
            asked = [
                {"type": "image", "image": picture},
                {"type": "text", "text": self.prompt or "Describe the image."},
            ]
            told = self._pipe(text=[{"role": "user", "content": asked}], return_full_text=False, generate_kwargs=limits)
        else:
            told = self._pipe(images=picture, text=self.prompt, generate_kwargs=limits)
        text = str(told[0]["generated_text"]).strip()
        return Notes(texts=(TextNote(text=text, level=self.level, origin=self.origin),) if text else ())


class MaskMaker(PipelineStage):
    """Outlines of everything that stands out, without a name: Segment Anything and its like."""

    task = "mask-generation"
    says = ("place",)
    batch = 1

    def __init__(
        self,
        model: str,
        layer: str = "mask_maker",
        points: int = 32,
        least: float = 0.88,
        least_stable: float = 0.95,
        revision: str | None = None,
        online: bool = False,
        round: int = 0,
    ) -> None:
        """Name the model.

        points        a side of the grid of points that it is asked about.
        least         masks of a lower score, which is the overlap that the model expects, are not noted.
        least_stable  nor those that change more when the mask's own threshold moves a little.
        """
        super().__init__(model, layer, revision, online, round)
        self.points, self.least, self.least_stable = points, _score_limit(least), _score_limit(least_stable)
        if points < 1:
            raise BadConfig(f"points is {points}; give 1 or more a side")

    def process(self, rows: Sequence[Row]) -> list[Notes]:
        """Give the outlines of each picture, surest first; of masks whose boxes are nearly one, the surest."""
        assert self._pipe is not None, "setup comes first"
        return [self._masks(row) for row in rows]

    def _masks(self, row: Row) -> Notes:
        picture = open_row(row)
        found: list[RegionNote] = []
        # Step by step: the pipeline's own last step needs torchvision, for nothing but `without_doubles`.
        for part in self._pipe.preprocess(picture, points_per_crop=self.points):
            told = self._pipe.forward(part, pred_iou_thresh=self.least, stability_score_thresh=self.least_stable)
            for mask, score in zip(told["masks"], told["iou_scores"].flatten().tolist(), strict=True):
                counts = [int(run) for run in mask["counts"]]
                decoded = decode_mask({"size": list(mask["size"]), "counts": counts}, picture.size)
                rings = () if decoded is None else trace_mask(decoded)
                if rings:
                    score = min(max(score, 0.0), 1.0)
                    found.append(RegionNote(polygons=rings, score=score, origin=self.origin))
        return Notes(regions=tuple(without_doubles(found)))


def without_doubles(notes: Sequence[RegionNote], most: float = 0.7) -> list[RegionNote]:
    """Keep the surest of notes whose boxes overlap by more than `most`; surest first."""
    kept: list[RegionNote] = []
    boxes: list[Box] = []
    for note in sorted(notes, key=lambda note: -(note.score or 0.0)):
        box = note.bounds
        if box is not None and not (boxes and box_iou([box], boxes).max() > most):
            kept.append(note)
            boxes.append(box)
    return kept


def boxes_of(found: Sequence[dict[str, Any]], origin: Origin) -> Notes:
    """Make notes of what a detection pipeline gives, surest first."""
    notes = [
        RegionNote(
            label=str(one["label"]).strip(),
            box=Box(*(float(one["box"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))),
            score=min(max(float(one["score"]), 0.0), 1.0),
            origin=origin,
        )
        for one in found
    ]
    ordered = sorted(notes, key=lambda note: -(note.score or 0.0))
    return Notes(regions=tuple(ordered), whole=frozenset(("objects",)))


def model_folder(name: str, revision: str | None, online: bool) -> Path:
    """Give the folder of a model.

    raises    BadCheckpoint when it is no folder and not in the local cache, or cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(
            snapshot_download(name, revision=revision, local_files_only=not online, allow_patterns=list(_FILES))
        )
    except Exception as error:  # names that are none, no network, no such repository: a dozen classes
        there = "could not be fetched" if online else "is no folder and not in the local cache; set online to fetch it"
        raise BadCheckpoint(f"{name} {there}: {_first_line(error)}") from error


def _check_kind(folder: Path, known: Any) -> None:
    """Refuse what would need code of its own, before the library asks whether to run it."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BadCheckpoint(f"{folder} has no config.json that can be read: {_first_line(error)}") from error
    if kind not in known:
        raise BadCheckpoint(
            f"{folder} is of type {kind!r}, which this transformers library does not have, and code that comes with a "
            "model is not run; take another model or a newer library"
        )


def _score_limit(value: float) -> float:
    if not 0 <= value <= 1:
        raise BadConfig(f"a limit of scores is {value}; allowed are 0 to 1")
    return value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
