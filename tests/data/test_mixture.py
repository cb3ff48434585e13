"""Batches: the same everywhere, every target as it was written, no padding and no bin 1000 anywhere."""

import json
import re
from collections import Counter
from dataclasses import fields, replace
from itertools import chain
from math import floor
from pathlib import Path

import pytest
import torch
from tiny import ALL, SIDE_PX, WORLD, drawn_examples, scene_with_sign, world_text
from torch import Tensor
from torch.utils.data import DataLoader

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import BINS, spell
from openflorence.contract.records import Example, Record, TextNote, record_from_row
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.data import mixture
from openflorence.data.album import RECORDS_FILE, write_scenes
from openflorence.data.mixture import (
    FIRST_TRAINING_SEED,
    IGNORED,
    TASK_WEIGHTS,
    Batch,
    DrawnSource,
    Mixture,
    MixtureConfig,
    Pairs,
    RecordSource,
    collate,
    share_out,
    slot_of,
    spell_example,
)
from openflorence.data.world import draw_scene
from openflorence.errors import BadConfig, BadRecord

BOS, PAD, EOS = 0, 1, 2  # published ids
SCENES = [draw_scene(seed, replace(WORLD, sign_share=0.5)) for seed in range(100)]
POSED = [(scene, example) for scene in SCENES for example in drawn_examples(scene)]
SOURCE = DrawnSource(worlds=(WORLD,), side_px=SIDE_PX)
CONFIG = MixtureConfig(side_px=SIDE_PX, images=4, targets=5, seed=3)


def drawn_mixture(**changes: object) -> Mixture:
    """Drawn scenes alone; each change goes to the source or to the mixture, whichever knows it."""
    of_source = {name: value for name, value in changes.items() if name in {field.name for field in fields(SOURCE)}}
    of_config = {name: value for name, value in changes.items() if name not in of_source}
    return Mixture([(replace(SOURCE, **of_source), 1.0)], replace(CONFIG, **of_config), world_text(), batches=10)


def drawn(step: int, **changes: object) -> Batch:
    return drawn_mixture(**changes)[step]


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
    mixtures = [drawn_mixture() for _ in range(2)]
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
    mixture_ = drawn_mixture()
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
    for first in (0, 1000):
        for step in range(3):
            drawn(step, first=first, targets=0)
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


# ---- several sources


def dataset(folder: Path, count: int, first: int = 0) -> RecordSource:
    """Scenes on disk, as any data set is."""
    write_scenes(count, folder, first, replace(WORLD, sign_share=0.0))
    rows = (json.loads(line) for line in (folder / RECORDS_FILE).read_text("utf-8").splitlines())
    return RecordSource(folder.name, [record_from_row(row) for row in rows], folder, {"detect": 1.0, "caption": 1.0})


def test_slots_are_shared_out_by_weight_to_the_slot():
    # By hand: 7 slots in the ratio 2:1:1 are 3.5, 1.75, 1.75; two are left over and go to the two larger remainders.
    assert share_out([2.0, 1.0, 1.0], 7) == (3, 2, 2)
    assert share_out([1.0, 0.0], 5) == (5, 0)
    with pytest.raises(BadConfig, match="above 0"):
        share_out([0.0], 5)


def test_every_slot_of_a_source_is_counted_once():
    counts = (3, 2, 1)
    dealt = [slot_of(slot, counts, seed=5) for slot in range(4 * 6)]
    for which, count in enumerate(counts):
        assert [index for source, index in dealt if source == which] == list(range(4 * count))
    assert [source for source, _ in dealt[:6]] != [source for source, _ in dealt[6:12]]  # each round its own order


def test_a_data_set_is_gone_through_before_it_comes_again(tmp_path, monkeypatch):
    source = dataset(tmp_path / "data", 6)
    places = []
    plain = RecordSource.item

    def noted(self, place, targets, rng, problems):
        places.append(place)
        return plain(self, place, targets, rng, problems)

    monkeypatch.setattr(RecordSource, "item", noted)
    mixed = Mixture([(source, 1.0)], replace(CONFIG, images=3), world_text(), batches=4)
    for number in range(4):
        mixed[number]
    assert sorted(places[:6]) == sorted(places[6:]) == list(range(6))
    assert places[:6] != places[6:]


def test_two_ranks_make_the_images_of_one_that_takes_twice_as_many(tmp_path):
    sources = [(dataset(tmp_path / "data", 5), 1.0), (SOURCE, 2.0)]
    one = Mixture(sources, replace(CONFIG, images=8), world_text(), batches=2)
    halves = Mixture(sources, replace(CONFIG, images=4), world_text(), batches=4)
    for number in range(2):
        both = torch.cat([halves[2 * number].pixels, halves[2 * number + 1].pixels])
        assert torch.equal(one[number].pixels, both)


def test_an_image_that_cannot_be_read_is_counted_and_another_one_comes(tmp_path):
    source = dataset(tmp_path / "data", 4)
    (tmp_path / "data" / "000002.png").write_bytes(b"no picture")
    mixed = Mixture([(source, 1.0)], replace(CONFIG, images=4), world_text(), batches=1)
    batch = mixed[0]
    assert len(batch.pixels) == 4
    assert batch.problems.counts == {"image not readable": 1}
    assert "000002.png" in batch.problems.examples["image not readable"][0]


def test_a_data_set_without_a_readable_image_says_so(tmp_path):
    source = dataset(tmp_path / "data", 2)
    for picture in (tmp_path / "data").glob("*.png"):
        picture.unlink()
    with pytest.raises(BadRecord, match="none of its 2 images can be read"):
        Mixture([(source, 1.0)], CONFIG, world_text(), batches=1)[0]


def test_a_data_set_that_cannot_be_asked_is_refused(tmp_path):
    records = [Record(image="a.png", image_wh=(4, 4), texts=(TextNote(text="a cat"),))]
    with pytest.raises(BadRecord, match="none of 1 images can be asked detect; they can be asked caption"):
        RecordSource("cats", records, tmp_path, {"detect": 1.0})


def test_a_task_with_input_is_asked_again_about_something_else(tmp_path):
    source = dataset(tmp_path / "data", 3)
    boxes = RecordSource("boxes", source.records, source.root, {"classify_region": 1.0})
    batch = Mixture([(boxes, 1.0)], replace(CONFIG, images=3, targets=8), world_text(), batches=1)[0]
    prompts = Counter(
        (row, tuple(ids))
        for pairs in batch.pairs
        for row, ids in zip(pairs.image_rows.tolist(), pairs.prompt_ids.tolist(), strict=True)
    )
    assert set(prompts.values()) == {1}
    assert len(prompts) > 3


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


def test_more_targets_than_tasks_asks_a_task_without_input_once():
    assert asked(drawn(0, weights={"caption": 1.0, "detect": 0.1}, targets=9, images=1)) in (
        ["caption", "detect"],
        ["detect", "caption"],
    )


def test_a_batch_in_which_nothing_can_be_asked_has_no_pairs():
    mute = replace(WORLD, sign_share=0.0)
    assert drawn(0, weights={"read_region": 1.0}, worlds=(mute,)).pairs == ()


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
        ({"longest_answer": 3}, "longest_answer=3"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(BadConfig, match=message):
        drawn_mixture(**changes)


def test_a_mixture_says_what_it_is_made_of():
    one, other = drawn_mixture(), drawn_mixture(weights={"detect": 1.0})
    assert one.config.mixed != other.config.mixed
    assert one.config.mixed == drawn_mixture().config.mixed
    assert one.config.mixed[0].startswith("240/240 DrawnSource(")
