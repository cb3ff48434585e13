"""Many data sets, one network, stage after stage: pre-training as the paper describes it, and the generalist.

The paper trains at a low resolution first and then, shorter, at a high one. The network is the same at every size: the
tower takes any side, and the position tables have rows for the largest grid. So a stage is a side and a length.
Source: Florence-2 report, section 6.1 and appendices; what it does not state is marked where it is set.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from openflorence.contract.records import Record
from openflorence.data.augment import Augment
from openflorence.data.mixture import Mixture, MixtureConfig, RecordSource, Source
from openflorence.data.opened import open_data
from openflorence.data.problems import Problems
from openflorence.data.targets import Policy
from openflorence.errors import BadConfig
from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.config import FlorenceConfig
from openflorence.model.florence import Network
from openflorence.model.tokenizer import Text, train_text
from openflorence.training.objectives import SequenceObjective
from openflorence.training.processes import is_first
from openflorence.training.train import TrainSettings, place, train

Report = Callable[[str], None]
_TEXTS = 100_000  # records whose texts a new tokenizer learns from


@dataclass(frozen=True, kw_only=True)
class Named:
    """One data set of a mixture."""

    name: str
    path: str | Path
    share: float = 1.0  # of the images; shares need not sum to one
    format: str = ""  # "" to tell it by its files
    weights: Mapping[str, float] | None = None  # task -> how often; None for all that it can pose, as usual


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One resolution for a while."""

    name: str  # of its run folder
    side_px: int  # side of the input
    samples: float  # (image, target) pairs to see
    peak_rate: float
    warmup: int  # steps


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a step is made up, on every process."""

    images: int  # in a batch
    targets: int  # per image, on one encoding
    accumulate: int  # batches in a step

    def steps(self, samples: float) -> int:
        """How many steps show so many (image, target) pairs, over all processes of the run."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        return max(1, round(samples / (self.images * max(self.targets, 1) * self.accumulate * processes)))


def parse_datasets(words: str) -> list[Named]:
    """Read "DIR=2,OTHER": folders with their shares, 1 where none is given.

    raises    BadConfig for no folder, or a share that is no number above 0.
    """
    found = []
    for word in filter(None, (part.strip() for part in words.split(","))):
        path, _, share = word.partition("=")
        try:
            weight = float(share or 1)
        except ValueError:
            weight = 0.0
        if not path or weight <= 0:
            raise BadConfig(f"data {word!r}: give folders with shares above 0, as DIR=2,OTHER=1")
        found.append(Named(name=Path(path).name, path=path, share=weight))
    if not found:
        raise BadConfig("data is empty: give the folders of the data sets, as --set data=DIR=2,OTHER=1")
    return found


def read_sources(
    datasets: Iterable[Named],
    report: Report,
    change: Augment | None = None,
    policy: Policy = Policy(),  # noqa: B008
) -> list[tuple[Source, float]]:
    """Open and clean data sets, and the latest rounds of stores; says what was wrong with each.

    raises    BadRecord when nothing of one is usable.
    """
    sources: list[tuple[Source, float]] = []
    for named in datasets:
        problems = Problems()
        opened = open_data(named.path, "train", named.format or None, problems)
        records = opened.usable(problems)
        name = opened.name if opened.format == "store" else named.name  # with its round, which is other data each time
        report(f"{name}: {len(records)} images, share {named.share:g}" + (f"\n{problems}" if problems.counts else ""))
        sources.append((RecordSource(name, records, opened.root, named.weights, policy, change), named.share))
    return sources


def texts_of(records: Iterable[Record]) -> Iterable[str]:
    """Every text that records hold, for a tokenizer to learn from."""
    for record in islice(records, _TEXTS):
        yield from (note.text for note in record.texts)
        yield from (text for note in record.regions for text in (note.label, note.description, note.word) if text)
        yield from (expression for note in record.regions for expression in note.expressions)
        yield from (note.text for note in record.groundings)
        for question in record.questions:
            yield question.question
            yield from question.answers
        for pair in record.pairs:
            yield pair.prefix
            yield pair.suffix


def learn_text(sources: Iterable[tuple[Source, float]], rows: int) -> Text:
    """Learn a tokenizer in the published arrangement from the texts of data sets."""
    records = (record for source, _ in sources if isinstance(source, RecordSource) for record in source.records)
    return train_text(texts_of(records), rows)


def train_stages(
    network: Network,
    text: Text,
    sources: Sequence[tuple[Source, float]],
    stages: Sequence[Stage],
    shape: Shape,
    common: TrainSettings,
    out: Path,
    report: Report,
) -> Path:
    """Train stage after stage; gives the folder of the checkpoint.

    common    what all stages share: precision, clipping, trackers; steps, rate and warm-up are each stage's own.
    promise   stopped, it goes on from its last state; a finished stage is not run again.
    """
    for number, stage in enumerate(stages):
        set_side(network, stage.side_px)
        steps = shape.steps(stage.samples)
        report(f"stage {stage.name}: {stage.side_px} px, {steps} steps")
        plan = replace(
            common,
            steps=steps,
            peak_rate=stage.peak_rate,
            warmup=min(stage.warmup, steps),
            accumulate=shape.accumulate,
            seed=common.seed + number,
        )
        config = MixtureConfig(
            side_px=stage.side_px,
            images=shape.images,
            targets=shape.targets,
            buckets=min(4, shape.images),
            longest_answer=network.config.text.positions,
            longest_prompt=network.config.max_prompt_tokens,
            seed=plan.seed,
        )
        mixture = Mixture(sources, config, text, plan.steps * plan.accumulate)
        objective = SequenceObjective(network)
        place(objective, train(objective, mixture, plan, out / stage.name, report))
    checkpoint = out / "checkpoint"
    if is_first():
        save_checkpoint(network.eval(), text, checkpoint)
    return checkpoint


def set_side(network: Network, side_px: int) -> FlorenceConfig:
    """Let a network work at another input side, and be saved so.

    raises    BadConfig when the position tables have too few rows for that side.
    """
    config = replace(network.config, side_px=side_px)
    grid = config.vision.grid_hw((side_px, side_px))
    if max(grid) > config.vision.max_side or config.max_prompt_tokens < 8:
        raise BadConfig(
            f"side_px {side_px} makes {grid[0]} x {grid[1]} cells; this checkpoint has {config.vision.max_side} rows "
            f"and columns, and {config.text.positions} positions for image and prompt together: give a smaller side"
        )
    network.config = config
    return config
