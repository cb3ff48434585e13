"""Sources of annotated images -> seeded batches of token ids: batch n is the same everywhere, also after a resume.

What a batch holds follows from the settings and its number alone, so a run needs no memory of what it has seen. Images
have numbers, slots, over the whole run; batch n holds the slots from n * images on, whatever worker or rank makes it.
Slots are dealt to the sources in rounds, in each round exactly as often as they weigh and in a new order; a source
with an end is gone through in a new order each time.

Axes: B images, P (image, target) pairs, S prompt tokens, T answer tokens.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from openflorence.contract.answers import write_answer
from openflorence.contract.prompts import fill_sentence
from openflorence.contract.records import Example, Record
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.augment import Augment, augment
from openflorence.data.budget import fit
from openflorence.data.chance import chance, deal, dice, pick, shuffled
from openflorence.data.problems import Problems
from openflorence.data.store_records import StoredRecords, image_source
from openflorence.data.targets import Policy, pose, tasks_of
from openflorence.data.truth import ask
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig, BadImage, BadRecord
from openflorence.model.images import read_image, to_pixels
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
TASK_NAMES = tuple(task.name for task in (*TASKS, FREE_TEXT))
_ROUND = 240  # slots in which every source gets exactly its share; its many divisors keep small shares exact
_WITHOUT_INPUT = {task.name for task in TASKS if task.input == "none"}


@dataclass(frozen=True)
class Pairs:
    """(image, target) pairs of similar answer length, right-padded."""

    image_rows: Int[Tensor, "P"]  # which image of the batch each pair asks about
    prompt_ids: Int[Tensor, "P S"]
    prompt_mask: Bool[Tensor, "P S"]
    decoder_ids: Int[Tensor, "P T"]  # the labels shifted right once, with the start token in front
    labels: Int[Tensor, "P T"]  # <s> answer </s>, then IGNORED
    tasks: tuple[str, ...]  # plain task name of each pair

    def to(self, device: torch.device | str) -> "Pairs":
        """Give the same pairs on another device."""
        return Pairs(
            image_rows=self.image_rows.to(device),
            prompt_ids=self.prompt_ids.to(device),
            prompt_mask=self.prompt_mask.to(device),
            decoder_ids=self.decoder_ids.to(device),
            labels=self.labels.to(device),
            tasks=self.tasks,
        )


@dataclass(frozen=True)
class Batch:
    """Images, and what is asked about them; every image is encoded once for all of its targets."""

    pixels: Float[Tensor, "B 3 H W"]
    pairs: tuple[Pairs, ...]
    scenes: tuple[Scene, ...] = ()
    problems: Problems = field(default_factory=Problems)  # met while the batch was made

    def to(self, device: torch.device | str) -> "Batch":
        """Give the same batch on another device."""
        return replace(self, pixels=self.pixels.to(device), pairs=tuple(pairs.to(device) for pairs in self.pairs))


# ---- sources


@dataclass(frozen=True)
class Item:
    """One image and what is asked about it."""

    image: Image.Image  # upright RGB
    examples: list[Example]
    scene: Scene | None = None  # a drawn one
    record: Record | None = None  # or what is known about the image, after it was changed


@runtime_checkable
class Source(Protocol):
    """Annotated images by number."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    @property
    def size(self) -> int:
        """Images of one pass; 0 when there is no end."""

    @property
    def facts(self) -> str:
        """All that its items depend on, as far as it can be told: a run is not taken up with another source."""

    def item(self, place: int, targets: int, rng: np.random.Generator, problems: Problems) -> Item:
        """Give the image of a place and up to `targets` examples about it.

        raises    BadImage when its file cannot be read.
        """


def weigh_tasks(weights: Mapping[str, float]) -> dict[str, int]:
    """Turn task weights into whole numbers for dealing, in the order of the task table; tasks of weight 0 are left out.

    raises    BadConfig for a name that is no task, a weight below 0, or no weight above it.
    """
    unknown = sorted(set(weights) - set(TASK_NAMES))
    if unknown or not any(weight > 0 for weight in weights.values()):
        raise BadConfig(f"task weights name {unknown or 'nothing'}; give a weight above 0 to {', '.join(TASK_NAMES)}")
    if min(weights.values()) < 0:
        raise BadConfig(f"task weights {dict(weights)}: none may be below 0")
    return {name: max(1, round(1000 * weights[name])) for name in TASK_NAMES if weights.get(name, 0.0) > 0}


def choose_tasks(weights: Mapping[str, int], targets: int, rng: np.random.Generator) -> list[str]:
    """Choose the tasks of one image: different ones first, then those again that can ask for something else.

    weights   as weigh_tasks gives them.
    """
    names, left = list(weights), targets
    chosen: list[str] = []
    while left > 0 and names:
        dealt = deal(rng, [weights[name] for name in names], min(left, len(names)))
        chosen += [names[place] for place in dealt]
        left -= len(dealt)
        names = [name for name in names if name not in _WITHOUT_INPUT]
    return chosen


@dataclass(frozen=True, kw_only=True)
class DrawnSource:
    """Freshly drawn scenes without end; a place is a seed, counted from FIRST_TRAINING_SEED."""

    name: str = "drawn"
    size: int = 0
    worlds: tuple[WorldConfig, ...] = (WorldConfig(),)  # each scene is drawn from one of them, all alike often
    weights: Mapping[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))  # task name -> how often
    side_px: int = 128  # short side of the pictures; the worlds' own is not used
    large_share: float = 0.15  # share of scenes painted at twice the side and resized, as photographs are
    first: int = 0  # places start here; runs that should not meet start far apart

    def __post_init__(self) -> None:
        weigh_tasks(self.weights)
        if not 0 <= self.large_share <= 1:
            raise BadConfig(f"large_share {self.large_share}: a share is from 0 to 1")

    @property
    def facts(self) -> str:
        """All that its items depend on."""
        return repr(self)

    def item(self, place: int, targets: int, rng: np.random.Generator, problems: Problems) -> Item:
        """Draw the scene of a place and pose `targets` tasks, fewer where the scene cannot pose some."""
        side_px = self.side_px * (2 if chance(rng, self.large_share) else 1)
        world = replace(pick(rng, self.worlds), side_px=side_px)
        scene = draw_scene(FIRST_TRAINING_SEED + self.first + place, world)
        posed = (ask(scene, task, rng) for task in choose_tasks(weigh_tasks(self.weights), targets, rng))
        return Item(Image.fromarray(scene.image), _different(posed), scene)


class RecordSource:
    """Records of a data set, gone through again and again; images are read when they are asked for.

    raises    BadRecord when no record can pose any of the tasks.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Record],
        root: Path,
        weights: Mapping[str, float] | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen, so it can be shared
        change: Augment | None = None,
    ) -> None:
        """Keep the records that can pose a task.

        records  cleaned, see data/cleaning.py; those of a store are, and are read when they are asked for.
        root     folder that relative image paths start at; images of a store have names of their own.
        weights  task name -> how often; TASK_WEIGHTS by default. Tasks that a record cannot pose are not asked of it.
        policy   order of regions and choice of notes.
        change   augmentation; None shows images as they are.
        """
        self.name, self.root, self.policy, self.change = name, root, policy, change
        self.weights = weigh_tasks(TASK_WEIGHTS if weights is None else weights)
        self.records = records
        self.fork_safe = not isinstance(records, StoredRecords)
        wanted = set(self.weights)
        usable = (place for place, record in enumerate(records) if wanted & set(tasks_of(record, self.policy)))
        self.places = array("q", usable)  # of the records that can pose a task; eight bytes each
        if not self.places:
            can = sorted({task for record in records for task in tasks_of(record, self.policy)})
            raise BadRecord(
                f"{name}: none of {len(records)} images can be asked {', '.join(self.weights)}; "
                f"they can be asked {', '.join(can) or 'nothing'}"
            )

    @property
    def size(self) -> int:
        """Images of one pass."""
        return len(self.places)

    @property
    def facts(self) -> str:
        """All that its items depend on, but for the notes themselves: of those only how many images there are."""
        return f"{self.name}: {self.size} images, {self.weights}, {self.policy}, {self.change}"

    def item(self, place: int, targets: int, rng: np.random.Generator, problems: Problems) -> Item:
        """Read the image of a place, change it with its regions, and pose up to `targets` tasks, each only once."""
        record = self.records[self.places[place]]
        image = read_image(image_source(record.image, self.root))
        if self.change is not None:
            image, record = augment(image, record, rng, self.change)
        can = set(tasks_of(record, self.policy))
        weights = {name: weight for name, weight in self.weights.items() if name in can}
        posed = (pose(record, task, rng, self.policy) for task in choose_tasks(weights, targets, rng))
        return Item(image, _different(posed), record=record)


def _different(posed: Iterable[Example | None]) -> list[Example]:
    """Leave out what could not be posed, and what was asked before."""
    found = {(example.task.name, example.answer.input): example for example in posed if example is not None}
    return list(found.values())


# ---- the mixture


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What a batch is made of."""

    side_px: int = 128  # side of the network's input
    images: int = 24  # B, images a batch
    targets: int = 4  # K, things asked per image, on one encoding; 0 for batches of images alone
    buckets: int = 2  # groups of similar answer length that a batch is cut into, to save padding
    longest_answer: int = 1024  # tokens, <s> and </s> included; see data/budget.py for what does not fit
    longest_prompt: int = 1024  # tokens; a longer question is left out
    keep_scenes: bool = False  # put drawn scenes into the batch, for losses on their exact truth
    seed: int = 0
    mixed: tuple[str, ...] = ()  # filled in by the mixture: share and facts of every source

    def __post_init__(self) -> None:
        if min(self.images, self.buckets, self.side_px) < 1 or min(self.targets, self.seed) < 0:
            raise BadConfig(
                f"side_px={self.side_px}, images={self.images}, buckets={self.buckets}, targets={self.targets}, "
                f"seed={self.seed}: allowed are at least 1 pixel, image and bucket, and nothing below 0"
            )
        if min(self.longest_answer, self.longest_prompt) < 4:
            raise BadConfig(
                f"longest_answer={self.longest_answer}, longest_prompt={self.longest_prompt}: give 4 tokens or more"
            )


class Mixture(Dataset[Batch]):
    """Batches of a weighted mixture; item n depends on the settings and on n alone."""

    def __init__(
        self, sources: Sequence[tuple[Source, float]], config: MixtureConfig, text: Text, batches: int
    ) -> None:
        """Mix sources by weight.

        sources  each with its share of the images; shares need not sum to one.
        batches  what len() says; any number has a batch.
        raises   BadConfig for no source, a share below 0, or one so small that it would never come.
        """
        self.sources = [source for source, _ in sources]
        self.text, self.batches = text, batches
        self.counts = share_out([share for _, share in sources], _ROUND)
        shares = zip(self.counts, self.sources, strict=True)
        self.config = replace(config, mixed=tuple(f"{count}/{_ROUND} {source.facts}" for count, source in shares))
        for source, (_, share), count in zip(self.sources, sources, self.counts, strict=True):
            if share > 0 and count == 0:
                raise BadConfig(f"source {source.name!r} has a share below 1 in {_ROUND}: raise it, or leave it out")

    def __len__(self) -> int:
        return self.batches

    @property
    def fork_safe(self) -> bool:
        """False when workers must not be forked: those that read a store would hang or crash now and then."""
        return all(getattr(source, "fork_safe", True) for source in self.sources)

    def __getitem__(self, number: int) -> Batch:
        """Make one batch. Any number has one; `batches` only says how many a loader takes by itself."""
        cv2.setNumThreads(1)  # the worker shares its cores with the network
        config, problems = self.config, Problems()
        pixels, scenes, pairs = [], [], []
        for row in range(config.images):
            item = self._take(number * config.images + row, problems)
            pixels.append(to_pixels(item.image, config.side_px))
            pairs += [(row, example) for example in item.examples]
            scenes += [item.scene] if item.scene is not None and config.keep_scenes else []
        return Batch(torch.stack(pixels), collate(pairs, self.text, config.buckets), tuple(scenes), problems)

    def _take(self, slot: int, problems: Problems) -> Item:
        """Give the item of a slot; where its image cannot be read, the next one of its source that can be."""
        which, index = slot_of(slot, self.counts, self.config.seed)
        source = self.sources[which]
        rng = dice([self.config.seed, slot])
        for step in range(max(source.size, 1)):
            place = _place(index, source.size, (self.config.seed, which))
            place = (place + step) % source.size if source.size else place
            try:
                item = source.item(place, self.config.targets, rng, problems)
            except BadImage as error:
                problems.add("image not readable", str(error))
                continue
            return replace(item, examples=self._fitting(item, problems))
        raise BadRecord(f"{source.name}: none of its {source.size} images can be read. What was seen:\n{problems}")

    def _fitting(self, item: Item, problems: Problems) -> list[Example]:
        """Keep what can be taught of an item's examples; scenes are small, and written by the same rules as read."""
        if item.record is None:
            return item.examples
        answer, prompt = self.config.longest_answer, self.config.longest_prompt
        found: list[Example] = []
        for example in item.examples:
            found += fit(example, item.record, answer, self._count, problems, prompt)
        return found

    def _count(self, words: str) -> int:
        return len(self.text.encode(words))


def share_out(shares: Sequence[float], slots: int) -> tuple[int, ...]:
    """Share out slots by weight: whole numbers that sum to `slots`, the largest remainders rounded up.

    raises    BadConfig for no share above 0, or one below.
    """
    if not shares or min(shares) < 0 or sum(shares) <= 0:
        raise BadConfig(f"shares {list(shares)}: give at least one above 0, and none below")
    exact = [share * slots / sum(shares) for share in shares]
    counts = [int(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: slots - sum(counts)]:
        counts[place] += 1
    return tuple(counts)


def slot_of(slot: int, counts: tuple[int, ...], seed: int) -> tuple[int, int]:
    """Say which source a slot belongs to, and how many slots that source had before it."""
    round_, place = divmod(slot, sum(counts))
    order = _dealt(round_, counts, seed)
    which = order[place]
    return which, round_ * counts[which] + order[:place].count(which)


@lru_cache(maxsize=4)
def _dealt(round_: int, counts: tuple[int, ...], seed: int) -> list[int]:
    """The sources of one round in their order."""
    return shuffled(dice([seed, round_, 1]), [which for which, count in enumerate(counts) for _ in range(count)])


def _place(index: int, size: int, seed: tuple[int, int]) -> int:
    """Say which image of a source has the number `index` when it is gone through again and again, reshuffled."""
    if size == 0:
        return index
    pass_, place = divmod(index, size)
    return _order(size, (*seed, pass_))[place]


@lru_cache(maxsize=16)
def _order(size: int, seed: tuple[int, ...]) -> list[int]:
    return shuffled(dice([*seed, 2]), range(size))


# ---- padding


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
