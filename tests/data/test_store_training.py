"""A store trains as it is: its records are a source of the mixture, without a step in between."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_store import jpeg, made
from tiny import SIDE_PX, tiny_network, world_text

from openflorence.data.mixture import Batch, Mixture, MixtureConfig, RecordSource
from openflorence.data.store import Store
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import TrainSettings, train

pytest.importorskip("lance")

SCENES = 12
WEIGHTS = {"detect": 1.0, "caption": 1.0, "classify_region": 1.0, "ground": 1.0}
SETTINGS = TrainSettings(steps=6, peak_rate=3e-3, warmup=1, workers=0, save_every=3, log_every=1, average=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("training") / "fld", SCENES)


def mixture(source: RecordSource) -> Mixture:
    return Mixture([(source, 1.0)], MixtureConfig(side_px=SIDE_PX, images=4, targets=2), world_text(), 6)


def from_store(store: Store) -> RecordSource:
    return RecordSource("fld", store.records(), store.folder, WEIGHTS)


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(one.pairs, other.pairs, strict=True)
    return torch.equal(one.pixels, other.pixels) and all(torch.equal(a.labels, b.labels) for a, b in pairs)


def weights_after(batches: Mixture, settings: TrainSettings, folder: Path) -> dict[str, torch.Tensor]:
    return train(SequenceObjective(tiny_network()), batches, settings, folder)


def test_batches_from_a_store_are_those_from_files(store, tmp_path):
    records = []
    for seed, record in enumerate(store.records()):
        (tmp_path / f"{seed}.jpg").write_bytes(jpeg(seed))
        records.append(replace(record, image=f"{seed}.jpg"))
    stored = mixture(from_store(store))
    plain = mixture(RecordSource("fld", records, tmp_path, WEIGHTS))
    assert all(same(stored[number], plain[number]) for number in range(6))  # two passes over twelve images


def test_workers_of_a_run_on_a_store_are_not_forked_and_read_the_same(store, tmp_path):
    # Forked after Lance was used, one worker in some tens hangs or crashes: pylance 14.0.2 warns of it.
    batches = mixture(from_store(store))
    assert not batches.fork_safe
    between = weights_after(batches, SETTINGS, tmp_path / "between")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ahead = weights_after(batches, replace(SETTINGS, workers=2), tmp_path / "ahead")
    assert not [str(one.message) for one in seen if "fork-safe" in str(one.message)]
    assert all(torch.equal(between[name], ahead[name]) for name in between)


def test_a_short_run_on_a_store_learns_and_goes_on_where_it_stopped(store, tmp_path):
    straight = weights_after(mixture(from_store(store)), SETTINGS, tmp_path / "straight")
    lines = [json.loads(line) for line in (tmp_path / "straight" / "train.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    # Nothing is known at first: the loss is near the logarithm of 1600 tokens, 7.4.
    assert losses[-1] < losses[0] - 0.5, losses

    class Stop(Exception):
        pass

    class Breaking(Mixture):
        def __getitem__(self, number: int) -> Batch:
            if number == 4:
                raise Stop
            return super().__getitem__(number)

    whole = mixture(from_store(store))
    breaking = Breaking([(whole.sources[0], 1.0)], replace(whole.config, mixed=()), whole.text, 6)
    with pytest.raises(Stop):
        weights_after(breaking, SETTINGS, tmp_path / "stopped")
    resumed = weights_after(mixture(from_store(Store.open(store.folder))), SETTINGS, tmp_path / "stopped")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_only_images_that_can_be_asked_are_in_the_source(store):
    records = store.records()
    source = RecordSource("fld", records, store.folder, {"read_region": 1.0})  # of printed words alone
    signs = [place for place, record in enumerate(records) if any(note.word for note in record.regions)]
    assert 0 < len(signs) < SCENES
    assert list(source.places) == signs
