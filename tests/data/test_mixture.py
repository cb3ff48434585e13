"""Batches: the same everywhere, every target as it was written, no padding and no bin 1000 anywhere."""

import re
from collections import Counter
from dataclasses import fields, replace
from itertools import chain
from math import floor

import pytest
import torch
from tiny import ALL, SIDE_PX, WORLD, drawn_examples, scene_with_sign, world_text
from torch import Tensor
from torch.utils.data import DataLoader

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import BINS, spell
from openflorence.contract.records import Example
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.data import mixture
from openflorence.data.mixture import (
    FIRST_TRAINING_SEED,
    IGNORED,
    TASK_WEIGHTS,
    Batch,
    DrawnMixture,
    MixtureConfig,
    Pairs,
    collate,
    spell_example,
)
from openflorence.data.world import draw_scene
from openflorence.errors import BadConfig

BOS, PAD, EOS = 0, 1, 2  # published ids
SCENES = [draw_scene(seed, replace(WORLD, sign_share=0.5)) for seed in range(100)]
POSED = [(scene, example) for scene in SCENES for example in drawn_examples(scene)]
CONFIG = MixtureConfig(world=WORLD, side_px=SIDE_PX, images=4, targets=5, seed=3)


def drawn(step: int, **changes: object) -> Batch:
    return DrawnMixture(replace(CONFIG, **changes), world_text(), steps=10)[step]


def tensors_of(batch: Batch) -> list[Tensor]:
    values = (getattr(pairs, field.name) for pairs in batch.pairs for field in fields(Pairs))
    return [batch.pixels, *(value for value in values if isinstance(value, Tensor))]


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and asked(one) == asked(other)


def asked(batch: Batch) -> list[str]:
    return [task for pairs in batch.pairs for task in pairs.tasks]


def padded() -> Pairs:
    """Answers of very different lengths in one rectangle."""
    return collate([(0, example) for example in drawn_examples(scene_with_sign())], world_text())[0]


# ---- labels


def test_the_decoder_reads_the_labels_one_behind():
    # By hand, for one target: labels <s> a b </s>, so the decoder reads </s> <s> a b.
    example = drawn_examples(SCENES[0], ("classify_region",))[0]
    pairs = collate([(0, example)], world_text())[0]
    labels = world_text().encode(example.answer.text)
    assert pairs.labels.tolist() == [labels]
    assert pairs.decoder_ids.tolist() == [[EOS, *labels[:-1]]]
    assert (labels[0], labels[-1]) == (BOS, EOS)


def test_padding_is_ignored_in_the_labels_and_is_pad_for_the_decoder():
    pairs = padded()
    assert pairs.labels.shape == pairs.decoder_ids.shape
    lengths = []
    for labels, decoder_ids in zip(pairs.labels.tolist(), pairs.decoder_ids.tolist(), strict=True):
        length = labels.index(EOS) + 1
        assert labels[length:] == [IGNORED] * (len(labels) - length)
        assert decoder_ids[: length + 1] == [EOS, *labels[:length]][: len(labels)]
        assert decoder_ids[length + 1 :] == [PAD] * (len(labels) - length - 1)
        assert PAD not in labels
        lengths.append(length)
    assert min(lengths) < max(lengths) / 4  # there was something to pad


def test_the_prompt_is_whole_and_its_mask_ends_where_it_ends():
    pairs = padded()
    wanted = sorted(world_text().encode(prompt_of(example)) for example in drawn_examples(scene_with_sign()))
    rows = [
        [index for index, real in zip(ids, mask, strict=True) if real]
        for ids, mask in zip(pairs.prompt_ids.tolist(), pairs.prompt_mask.tolist(), strict=True)
    ]
    assert sorted(rows) == wanted
    assert (pairs.prompt_ids[~pairs.prompt_mask] == PAD).all()
    assert (pairs.prompt_mask.int().diff(dim=1) <= 0).all()  # padding only on the right


def prompt_of(example: Example) -> str:
    """The published sentence with its input in it."""
    return example.task.sentence.replace("{input}", example.answer.input or "")


def test_the_question_is_in_the_prompt():
    for _, example in POSED:
        if example.text is not None:
            prompt, _ = spell_example(example, world_text())
            assert example.text in world_text().decode(prompt)


# ---- targets


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_a_target_reads_back_as_the_truth(task):
    text, found = world_text(), [(scene, example) for scene, example in POSED if example.task is task]
    assert len(found) >= 40  # reading needs a sign; all other tasks have all hundred
    for scene, example in found:
        _, ids = spell_example(example, text)
        again = read_answer(text.decode(ids), task, scene.image_wh)
        assert again.invalid == 0
        assert again.text == example.answer.text
        assert [region.label for region in again.regions] == [region.label for region in example.answer.regions]
        # The published rule at 64 px, where bins are 0.064 px wide; the far border belongs to bin 999.
        for one, other in zip(again.regions, example.answer.regions, strict=True):
            read = [value for point in one.points for value in point]
            wanted = [(min(floor(value / 0.064), 999) + 0.5) * 0.064 for point in other.points for value in point]
            assert read == pytest.approx(wanted, abs=1e-9)


def test_no_target_and_no_prompt_says_bin_1000():
    text = world_text()
    largest = 0
    for _, example in POSED:
        for ids in spell_example(example, text):
            said = text.decode(ids)
            bins = [int(digits) for digits in re.findall("<loc_([0-9]+)>", said)]
            # As many location ids as locations in the text: none was spelt out letter by letter.
            assert sum(0 <= index - text.first_location < BINS for index in ids) == len(bins)
            largest = max([largest, *bins])
    assert 900 < largest < BINS


EDGE = Box(10.0, 10.0, 64.0, 64.0)  # x = width and y = height, which are bin 999 by hand: 64 / 0.064 is 1000
BEYOND = Box(10.0, 10.0, 90.0, 65.5)
FORMS = {"detect": "box", "propose": "box", "ground": "box", "find": "box", "read_regions": "quad", "segment": "ring"}


@pytest.mark.parametrize("box", [EDGE, BEYOND], ids=["edge", "beyond"])
@pytest.mark.parametrize("name", FORMS)
def test_the_far_edge_is_bin_999_in_every_form(name, box):
    corners = (Point(box.x0, box.y0), Point(box.x1, box.y0), Point(box.x1, box.y1), Point(box.x0, box.y1))
    label = "" if name in ("propose", "segment") else "cat"
    shapes = {"box": Region(label, box=box), "quad": Region(label, quad=corners)}
    region = shapes.get(FORMS[name]) or Region(label, polygons=(corners,))
    task = next(task for task in ALL if task.name == name)
    answer = Answer(task, (64, 64), regions=(region,), input="a cat")
    _, ids = spell_example(Example(task, "a cat", None, answer), world_text())
    said = world_text().decode(ids)
    assert spell(BINS - 1) in said
    assert spell(BINS) not in said
    assert read_answer(said, task, (64, 64)).invalid == 0


# ---- batches


def test_a_batch_depends_on_the_config_and_the_step_alone():
    mixtures = [DrawnMixture(CONFIG, world_text(), steps=10) for _ in range(2)]
    forwards, backwards = [mixtures[0][step] for step in range(3)], [mixtures[1][step] for step in (2, 1, 0)]
    assert all(same(one, other) for one, other in zip(forwards, reversed(backwards), strict=True))
    assert not same(forwards[0], forwards[1])
    assert not torch.equal(forwards[0].pixels, forwards[1].pixels)
    assert not same(drawn(0, seed=4), forwards[0])


def test_every_step_asks_by_its_own_chance():
    def tasks_by_image(step: int) -> list[str]:
        batch = drawn(step, weights={"caption": 1.0, "detect": 1.0}, targets=1, images=20)
        rows = [
            (row, task)
            for pairs in batch.pairs
            for row, task in zip(pairs.image_rows.tolist(), pairs.tasks, strict=True)
        ]
        return [task for _, task in sorted(rows)]

    assert tasks_by_image(0) != tasks_by_image(1)


def test_a_worker_draws_the_same_batch():
    mixture_ = DrawnMixture(CONFIG, world_text(), steps=3)
    loader = DataLoader(mixture_, batch_size=None, sampler=range(3), num_workers=1)
    for step, batch in enumerate(loader):
        assert same(batch, mixture_[step])


def test_a_batch_holds_what_the_config_says():
    batch = drawn(1, keep_scenes=True)
    assert batch.pixels.shape == (4, 3, SIDE_PX, SIDE_PX)
    assert len(batch.scenes) == 4
    rows = Counter(chain.from_iterable(pairs.image_rows.tolist() for pairs in batch.pairs))
    assert set(rows) <= set(range(4))
    assert max(rows.values()) <= 5
    assert drawn(1).scenes == ()
    assert drawn(1, targets=0).pairs == ()


def test_every_image_is_asked_different_tasks():
    batch = drawn(0, targets=8, images=3)
    met = Counter(
        (row, task) for pairs in batch.pairs for row, task in zip(pairs.image_rows.tolist(), pairs.tasks, strict=True)
    )
    assert set(met.values()) == {1}


def test_training_never_draws_a_scene_of_the_evaluation(monkeypatch):
    seeds = []

    def record(seed, config):
        seeds.append(seed)
        return draw_scene(seed, config)

    monkeypatch.setattr(mixture, "draw_scene", record)
    for seed in (0, 1):
        for step in range(3):
            drawn(step, seed=seed, targets=0)
    assert min(seeds) == FIRST_TRAINING_SEED
    assert len(set(seeds)) == len(seeds) == 2 * 3 * CONFIG.images  # and none twice


def test_some_scenes_are_painted_at_twice_the_side():
    sides = Counter(
        scene.image_wh for step in range(6) for scene in drawn(step, keep_scenes=True, large_share=0.5).scenes
    )
    assert set(sides) == {(SIDE_PX, SIDE_PX), (2 * SIDE_PX, 2 * SIDE_PX)}
    once = [scene.image_wh for scene in drawn(0, keep_scenes=True, large_share=0.0).scenes]
    assert set(once) == {(SIDE_PX, SIDE_PX)}


def test_buckets_hold_the_same_targets_with_less_padding():
    def targets(batch: Batch) -> list[tuple]:
        rows = []
        for pairs in batch.pairs:
            for row, task, labels in zip(pairs.image_rows.tolist(), pairs.tasks, pairs.labels.tolist(), strict=True):
                rows.append((row, task, tuple(index for index in labels if index != IGNORED)))
        return sorted(rows)

    one, three = drawn(0, buckets=1), drawn(0, buckets=3)
    assert targets(one) == targets(three)
    assert (len(one.pairs), len(three.pairs)) == (1, 3)
    assert sum(pairs.labels.numel() for pairs in three.pairs) < one.pairs[0].labels.numel()


# ---- weights


def test_the_weights_cover_every_task():
    assert set(TASK_WEIGHTS) == {task.name for task in ALL}
    assert len(TASK_WEIGHTS) == 16  # the published table of fifteen, and free text
    assert min(TASK_WEIGHTS.values()) > 0


def test_tasks_come_as_often_as_they_weigh():
    weights = {"caption": 3.0, "detect": 1.0, "read": 0.0}
    met = Counter(chain.from_iterable(asked(drawn(step, weights=weights, targets=1, images=20)) for step in range(10)))
    assert set(met) == {"caption", "detect"}  # the one of weight 0, and those without a weight, never
    # 200 draws of 3 to 1: 150 expected, and four standard deviations of sqrt(200 * 0.75 * 0.25) are 24.5.
    assert abs(met["caption"] - 150) < 25


def test_more_targets_than_tasks_asks_each_task_once():
    assert asked(drawn(0, weights={"caption": 1.0, "detect": 0.1}, targets=9, images=1)) in (
        ["caption", "detect"],
        ["detect", "caption"],
    )


def test_a_batch_in_which_nothing_can_be_asked_has_no_pairs():
    mute = replace(WORLD, sign_share=0.0)
    assert drawn(0, weights={"read_region": 1.0}, world=mute).pairs == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"detekt": 1.0}}, "detekt.*detect"),
        ({"weights": {"detect": 0.0}}, "nothing"),
        ({"weights": {}}, "nothing"),
        ({"weights": {"detect": 1.0, "find": -1.0}}, "below 0"),
        ({"images": 0}, "images=0"),
        ({"buckets": 0}, "buckets=0"),
        ({"targets": -1}, "targets=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"large_share": 1.5}, "from 0 to 1"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(BadConfig, match=message):
        replace(CONFIG, **changes)
