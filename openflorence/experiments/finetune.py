"""A data set and a checkpoint -> a better checkpoint: what every `finetune_*` recipe does.

Read and clean the data, mix it with a share of replay, adapt the network as asked, train, and score the held-out part
before and after by decoding, not by loss alone.

Replay: a share of the images comes from somewhere else, with the tasks the checkpoint could do before, so that they are
not forgotten. "world" draws scenes, for nano; a folder is any data set; "self" asks the checkpoint itself, before
training, about images of the data set: its own answers are the targets, which needs no other data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from openflorence.contract.records import Level, Origin, Record, RegionNote, TextNote
from openflorence.contract.regions import Answer
from openflorence.data.album import write_scenes
from openflorence.data.augment import Augment
from openflorence.data.cleaning import clean_record
from openflorence.data.mixture import DrawnSource, Mixture, MixtureConfig, RecordSource, Source
from openflorence.data.opened import open_data
from openflorence.data.problems import Problems
from openflorence.data.store_records import image_to_ask
from openflorence.data.targets import Order, Policy
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig
from openflorence.evaluation.figures import write_report
from openflorence.evaluation.heldout import spread, validator
from openflorence.experiments.pretrain import set_side
from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.files import read_file
from openflorence.model.predict import AskOptions, Florence, Request, load
from openflorence.training.adapt import HOW, finish, prepare
from openflorence.training.objectives import SequenceObjective
from openflorence.training.processes import is_first
from openflorence.training.train import TrainSettings, Validator, place, train

Report = Callable[[str], None]
_SELF_IMAGES = 500  # images that a checkpoint labels itself for replay: one pass of it, not the whole data set
_SELF_LEVELS: dict[str, Level] = {"caption": "brief", "detailed_caption": "detailed"}


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """What may be changed from the command line."""

    data: str = "data"  # a data set, folder or file, in any format of data/formats.py; or a store
    format: str = ""  # its format; "" to tell it by its files
    model: str = ""  # checkpoint to start from: "" is the embedded nano, or a folder, or a hub id
    out: Path = Path("runs/finetune")  # run folder; the checkpoint is written to out/checkpoint
    how: str = "full"  # what learns: full, frozen_tower, lora or dora
    rank: int = 16  # of the adapters
    epochs: float = 10.0  # passes over the training part
    steps: int = 0  # steps instead of epochs, when above 0
    images: int = 8  # in each batch, on each process
    accumulate: int = 1  # batches in each step
    targets: int = 1  # things asked per image, on one encoding
    peak_rate: float = 1e-5  # highest learning rate; adapters and nano want ten to fifty times as much
    warmup_share: float = 0.05  # of the steps
    side_px: int = 0  # side of the input; 0 for the checkpoint's own
    blur_bins: float = 0.0  # width of a location's target, in bins; 0 as published, 3 as nano was taught
    order: str = "area"  # of regions in a target: area, left or given
    flip: float = 0.5  # share of images mirrored, where nothing forbids it
    crop: float = 0.3  # share of images cropped, where nothing forbids it
    colour: float = 0.2  # strength of colour changes, where nothing forbids them
    replay: float = 0.0  # share of the images that come from somewhere else, so that other tasks are not forgotten
    replay_from: str = "world"  # world, self, or the path of a data set
    precision: str = "no"  # no, bf16 or fp16
    recompute: bool = False  # gradient checkpointing: less memory, a third more work
    validations: int = 5  # how often the held-out part is scored on the way
    held_out: int = 200  # most images of it that are scored
    beams: int = 1  # of the search that scores
    trackers: str = ""  # tensorboard, wandb, trackio; several with commas
    workers: int = 2  # processes that read images
    threads: int = 0  # processor threads of the network; 0 leaves torch's own choice
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise BadConfig(f"how is {self.how!r}; allowed: {', '.join(HOW)}")
        if not 0 <= self.replay < 1 or not self.epochs > 0 or self.steps < 0:
            raise BadConfig(
                f"replay={self.replay}, epochs={self.epochs}, steps={self.steps}: "
                "a share of replay from 0 to below 1, and epochs above 0"
            )


@dataclass(frozen=True)
class Parts:
    """A data set, read and cleaned."""

    name: str
    train: Sequence[Record]
    held_out: Sequence[Record]
    train_root: Path
    held_out_root: Path
    problems: Problems = field(default_factory=Problems)

    @property
    def categories(self) -> tuple[str, ...]:
        """Every label of the training part, in order."""
        return tuple(sorted({note.label for record in self.train for note in record.regions if note.label}))


def finetune(
    settings: FinetuneSettings, weights: Mapping[str, float], headlines: Sequence[str], report: Report
) -> Path:
    """Fine-tune a checkpoint on a data set; gives the folder of the checkpoint.

    weights    the tasks to learn -> how often.
    headlines  figures of the held-out part, as "detect.map"; the first that it has decides which weights are best.
    raises     BadRecord when nothing of the data is usable, before anything is trained.
    promise    out/scores.json has the held-out figures before and after, and what was wrong with the data. Of several
               processes the first one scores and writes.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    parts = read_parts(settings.data, settings.format or None)
    report(f"{parts.name}: {len(parts.train)} images to learn from, {len(parts.held_out)} held out\n{parts.problems}")
    florence = load(settings.model or None)
    network, text = florence.network, florence.checkpoint.text
    set_side(network, settings.side_px or network.config.side_px)
    policy = Policy(order=cast(Order, settings.order), categories=parts.categories)
    options = AskOptions(beams=settings.beams)
    score = validator(text, parts.held_out, parts.held_out_root, tuple(weights), options, settings.held_out)
    before = score(network) if is_first() else {}
    report(f"before: {_in_words(before)}")
    sources = _sources(settings, parts, weights, policy, florence)
    plan = _plan(settings, len(parts.train))
    mixture = Mixture(sources, _batches(settings, florence), text, plan.steps * plan.accumulate)
    report(prepare(network, settings.how, rank=settings.rank))
    objective = SequenceObjective(network, settings.blur_bins, text.first_location)
    headline = next((name for name in headlines if name in before), "")
    if not headline and is_first():
        raise BadConfig(
            f"the held-out part of {parts.name} has none of {', '.join(headlines)}; it has {_in_words(before)}"
        )
    every = max(1, plan.steps // max(settings.validations, 1))

    def score_objective(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, SequenceObjective)
        return score(module.network)

    check = Validator(every=every, score=score_objective, headline=headline)
    last = train(objective, mixture, plan, settings.out / "train", report, check if settings.validations else None)
    checkpoint = settings.out / "checkpoint"
    if not is_first():
        return checkpoint
    place(objective, _best(settings.out / "train", last))
    whole = finish(network, settings.how, settings.out / "adapter", settings.model or "nano")
    save_checkpoint(whole.eval(), text, checkpoint)
    after = score(whole)
    report(f"after:  {_in_words(after)}")
    write_report({"before": before, "after": after, "problems": parts.problems.as_row()}, settings.out / "scores.json")
    return checkpoint


def read_parts(path: str | Path, format: str | None) -> Parts:
    """Read and clean both parts of a data set, or open those of the latest round of a store.

    raises    BadRecord when nothing of a part is usable, saying what was wrong.
    """
    problems = Problems()
    opened = [open_data(path, split, format, problems) for split in ("train", "val")]
    learnt, held_out = (one.usable(problems) for one in opened)
    return Parts(opened[0].name, learnt, held_out, opened[0].root, opened[1].root, problems)


def _sources(
    settings: FinetuneSettings, parts: Parts, weights: Mapping[str, float], policy: Policy, florence: Florence
) -> list[tuple[Source, float]]:
    """The data set, and the replay beside it."""
    change = Augment(flip=settings.flip, crop=settings.crop, colour=settings.colour)
    own = RecordSource(parts.name, parts.train, parts.train_root, weights, policy, change)
    if not settings.replay:
        return [(own, 1.0)]
    return [(own, 1.0 - settings.replay), (_replay(settings, parts, florence), settings.replay)]


def _replay(settings: FinetuneSettings, parts: Parts, florence: Florence) -> Source:
    if settings.replay_from == "world":
        return DrawnSource(name="replay", side_px=florence.network.config.side_px, first=settings.seed * 1_000_000)
    if settings.replay_from == "self":
        chosen = spread(parts.train, _SELF_IMAGES)
        return RecordSource("replay", list(label_records(florence, chosen, parts.train_root)), parts.train_root)
    problems = Problems()
    opened = open_data(settings.replay_from, "train", None, problems)
    return RecordSource("replay", opened.usable(problems), opened.root)


def label_records(florence: Florence, records: Sequence[Record], root: Path) -> Iterator[Record]:
    """Ask a checkpoint what it says about images: captions, objects, and their descriptions; greedy.

    returns   a record for every image of which it says something that can be taught.
    """
    tasks = (*_SELF_LEVELS, "detect", "dense_caption")
    origin = Origin(source="replay", model=str(florence.checkpoint.folder.name))
    images = (image_to_ask(record.image, root) for record in records)
    requests = (Request(image, task) for image in images for task in tasks)
    answers = florence.predict_many(requests, AskOptions(beams=1), on_error="give")
    for record in records:
        texts: list[TextNote] = []
        regions: list[RegionNote] = []
        for task, answer in zip(tasks, answers, strict=False):
            if not isinstance(answer, Answer) or answer.truncated:
                continue
            if task in _SELF_LEVELS and answer.text:
                texts.append(TextNote(text=answer.text, level=_SELF_LEVELS[task], origin=origin))
            for found in answer.regions:
                note = RegionNote(box=found.box, score=found.score, origin=origin)
                if found.label:
                    named = (
                        replace(note, label=found.label) if task == "detect" else replace(note, description=found.label)
                    )
                    regions.append(named)
        labelled = Record(image=record.image, image_wh=record.image_wh, texts=tuple(texts), regions=tuple(regions))
        cleaned = clean_record(replace(labelled, whole=frozenset(("objects",))), Problems())
        if cleaned is not None:
            yield cleaned


def _plan(settings: FinetuneSettings, images: int) -> TrainSettings:
    own = settings.images * settings.accumulate * (1.0 - settings.replay)
    steps = settings.steps or max(1, round(settings.epochs * images / own))
    return TrainSettings(
        steps=steps,
        peak_rate=settings.peak_rate,
        warmup=round(settings.warmup_share * steps),
        accumulate=settings.accumulate,
        average=min(0.999, 1.0 - 10.0 / (steps + 10)),  # a mean over a tenth of the run, at most a thousand steps
        precision=settings.precision,
        recompute=settings.recompute,
        trackers=tuple(filter(None, settings.trackers.split(","))),
        save_every=max(1, min(250, steps // 4)),
        log_every=max(1, min(50, steps // 20)),
        workers=settings.workers,
        seed=settings.seed,
    )


def _batches(settings: FinetuneSettings, florence: Florence) -> MixtureConfig:
    config = florence.network.config
    return MixtureConfig(
        side_px=config.side_px,
        images=settings.images,
        targets=settings.targets,
        buckets=min(2, settings.images),
        longest_answer=config.text.positions,
        longest_prompt=config.max_prompt_tokens,
        seed=settings.seed,
    )


def _best(folder: Path, last: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights that scored best on the way; the last ones where nothing was scored."""
    path = folder / "best.safetensors"
    return read_file(path) if path.exists() else last


def _in_words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items()) or "nothing to score"


Some = TypeVar("Some", bound=FinetuneSettings)


def smoke_settings(settings: Some, out: Path) -> Some:
    """Make the settings of a recipe small enough for a test: a few drawn scenes, four steps."""
    write_scenes(12, out / "data", seed=40, config=WorldConfig(side_px=64, sign_share=1.0, max_objects=2))
    return replace(
        settings, data=str(out / "data"), out=out, steps=4, images=2, targets=2, validations=1, held_out=2, workers=0
    )
