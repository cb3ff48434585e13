"""Scenes and their truth -> batches of token ids, seeded: batch number n is the same everywhere, also after a resume.

Axes: B images, P (image, target) pairs, S prompt tokens, T answer tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from openflorence.contract.answers import write_answer
from openflorence.contract.prompts import fill_sentence
from openflorence.contract.records import Example
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.chance import chance, deal, dice, pick
from openflorence.data.truth import ask
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig
from openflorence.model.images import to_pixels
from openflorence.model.tokenizer import BASE_TOKENS, Text

IGNORED = -100  # a label that is not in the loss: padding
_PAD, _START = BASE_TOKENS.index("<pad>"), BASE_TOKENS.index("</s>")  # </s> starts the decoder, as published

# Seeds below are for evaluation only; training draws from here up, so that no score is of a scene that was learnt.
FIRST_TRAINING_SEED = 1_000_000

# How often each task is drawn. Long answers carry more tokens each, so they are drawn less.
TASK_WEIGHTS: dict[str, float] = {
    "caption": 1.0,
    "detailed_caption": 0.5,
    "more_detailed_caption": 0.3,
    "detect": 1.6,
    "dense_caption": 1.2,
    "propose": 0.4,
    "read": 0.6,
    "read_regions": 0.6,
    "ground": 1.0,
    "segment": 0.6,
    "segment_region": 0.4,
    "find": 0.9,
    "classify_region": 1.0,
    "describe_region": 1.0,
    "read_region": 0.6,
    "answer": 0.9,
}
_NAMES = tuple(task.name for task in (*TASKS, FREE_TEXT))


@dataclass(frozen=True)
class Pairs:
    """(image, target) pairs of similar answer length, right-padded."""

    image_rows: Int[Tensor, "P"]  # which image of the batch each pair asks about
    prompt_ids: Int[Tensor, "P S"]
    prompt_mask: Bool[Tensor, "P S"]
    decoder_ids: Int[Tensor, "P T"]  # the labels shifted right once, with the start token in front
    labels: Int[Tensor, "P T"]  # <s> answer </s>, then IGNORED
    tasks: tuple[str, ...]  # plain task name of each pair


@dataclass(frozen=True)
class Batch:
    """Images, and what is asked about them; every image is encoded once for all of its targets."""

    pixels: Float[Tensor, "B 3 H W"]
    pairs: tuple[Pairs, ...]
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What a batch of drawn scenes is made of."""

    worlds: tuple[WorldConfig, ...] = (WorldConfig(),)  # each scene is drawn from one of them, all alike often
    side_px: int = 128  # side of the network's input; the world's own side_px is not used
    images: int = 24  # B, images a batch
    targets: int = 4  # different tasks asked per image, on one encoding; 0 for batches of scenes alone
    keep_scenes: bool = False  # put the scenes into the batch, for losses on their exact truth
    buckets: int = 2  # groups of similar answer length that a batch is cut into, to save padding
    weights: Mapping[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))  # task name -> how often
    large_share: float = 0.15  # share of scenes painted at twice the side and resized, as photographs are
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(_NAMES))
        if unknown or not any(weight > 0 for weight in self.weights.values()):
            raise BadConfig(f"task weights name {unknown or 'nothing'}; give a weight above 0 to {', '.join(_NAMES)}")
        if min(self.images, self.buckets) < 1 or min(self.targets, self.seed, *self.weights.values()) < 0:
            raise BadConfig(
                f"images={self.images}, buckets={self.buckets}, targets={self.targets}, seed={self.seed}, weights "
                f"{dict(self.weights)}: allowed are at least 1 image and bucket, and nothing below 0"
            )
        if not 0 <= self.large_share <= 1:
            raise BadConfig(f"large_share {self.large_share}: a share is from 0 to 1")


class DrawnMixture(Dataset[Batch]):
    """Batches of freshly drawn scenes; item n depends on the config and on n alone."""

    def __init__(self, config: MixtureConfig, text: Text, steps: int) -> None:
        self.config, self.text, self.steps = config, text, steps
        names = [name for name in _NAMES if config.weights.get(name, 0.0) > 0]
        self.names = names
        self.weights = [max(1, round(1000 * config.weights[name])) for name in names]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the batch of a step. Any step has one; `steps` only says how many a loader takes by itself."""
        cv2.setNumThreads(1)  # the worker shares its cores with the network
        config = self.config
        rng = dice([config.seed, step])
        first = FIRST_TRAINING_SEED + config.seed * 1_000_000_000 + step * config.images
        scenes, pixels, pairs = [], [], []
        for row in range(config.images):
            scene = self._draw(first + row, rng)
            scenes.append(scene)
            pixels.append(to_pixels(Image.fromarray(scene.image), config.side_px))
            pairs += [(row, example) for example in self._pose(scene, rng)]
        return Batch(
            torch.stack(pixels), collate(pairs, self.text, config.buckets), tuple(scenes) if config.keep_scenes else ()
        )

    def _draw(self, seed: int, rng: np.random.Generator) -> Scene:
        side_px = self.config.side_px * (2 if chance(rng, self.config.large_share) else 1)
        return draw_scene(seed, replace(pick(rng, self.config.worlds), side_px=side_px))

    def _pose(self, scene: Scene, rng: np.random.Generator) -> list[Example]:
        """Pose `targets` different tasks, fewer where the scene cannot pose some."""
        count = min(self.config.targets, len(self.names))
        posed = (ask(scene, self.names[place], rng) for place in deal(rng, self.weights, count))
        return [example for example in posed if example is not None]


def spell_example(example: Example, text: Text) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer, each as `<s>` .. `</s>`."""
    prompt = fill_sentence(example.task, example.answer.input)
    return text.encode(prompt), text.encode(write_answer(example.answer))


def collate(examples: Sequence[tuple[int, Example]], text: Text, buckets: int = 1) -> tuple[Pairs, ...]:
    """Spell (image row, example) pairs and pad them.

    buckets   groups of similar answer length to cut them into; the loss is a sum over tokens, so it is the same.
    returns   one Pairs a group, short answers first; nothing for no examples.
    """
    spelt = [(row, example.task.name, *spell_example(example, text)) for row, example in examples]
    spelt.sort(key=lambda item: len(item[3]))
    if not spelt:
        return ()
    size = -(-len(spelt) // buckets)
    return tuple(_pad(spelt[start : start + size]) for start in range(0, len(spelt), size))


def _pad(spelt: Sequence[tuple[int, str, list[int], list[int]]]) -> Pairs:
    rows, tasks, prompts, answers = zip(*spelt, strict=True)
    prompt_ids = _rectangle(prompts, fill=_PAD)
    labels = _rectangle(answers, fill=IGNORED)
    decoder_ids = labels.roll(1, dims=1)
    decoder_ids[:, 0] = _START
    return Pairs(
        image_rows=torch.tensor(rows),
        prompt_ids=prompt_ids,
        prompt_mask=_rectangle([[1] * len(prompt) for prompt in prompts], fill=0).bool(),
        decoder_ids=decoder_ids.masked_fill(decoder_ids == IGNORED, _PAD),
        labels=labels,
        tasks=tasks,
    )


def _rectangle(rows: Sequence[list[int]], fill: int) -> Int[Tensor, "P L"]:
    length = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])
