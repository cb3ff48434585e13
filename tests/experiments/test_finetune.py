"""Fine-tuning: scores before and after, replay, and data of which nothing can be used."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openflorence.data.album import write_scenes
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig, BadRecord
from openflorence.experiments.finetune import finetune, label_records, read_parts
from openflorence.model.predict import AskOptions, load
from recipes.finetune_detection import Settings, smoke


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(settings, lines=None):
    return finetune(settings, {"detect": 1.0}, ("detect.map",), (lines if lines is not None else []).append)


@pytest.mark.parametrize("how", ["full", "frozen_tower", "lora", "dora"])
def test_every_way_of_learning_gives_a_checkpoint_and_scores(how, tmp_path):
    settings = replace(smoke(tmp_path), how=how, threads=1)
    before = load(None).network.state_dict()
    checkpoint = run(settings)
    after = load(checkpoint).network.state_dict()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "detect.map" in scores["before"]
    assert "detect.map" in scores["after"]
    moved = {name.split(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert "seq2seq" in moved
    assert ("tower" in moved) == (how != "frozen_tower")
    assert (tmp_path / "adapter").exists() == (how in ("lora", "dora"))


def test_replay_shows_other_images_in_its_share(tmp_path):
    lines = []
    run(replace(smoke(tmp_path), replay=0.5, replay_from="world", threads=1), lines)
    rows = [json.loads(line) for line in (tmp_path / "train" / "train.jsonl").read_text().splitlines()]
    tasks = {name for row in rows for name in row} - {"step", "loss", "rate", "norm", "left_s", "scores"}
    assert "detect" in tasks
    assert len(tasks & {"caption", "ground", "answer", "segment", "find", "dense_caption", "classify_region"}) >= 2


def test_a_checkpoint_can_be_its_own_teacher(tmp_path):
    write_scenes(3, tmp_path, seed=20, config=WorldConfig(side_px=128, sign_share=0.0))
    parts = read_parts(tmp_path, None)
    florence = load(None)
    records = [*parts.train, *parts.held_out]
    labelled = list(label_records(florence, records, tmp_path))
    assert [record.image for record in labelled] == [record.image for record in records]
    for record in labelled:
        said = florence.predict(tmp_path / record.image, "detect", options=AskOptions(beams=1))
        assert [note.label for note in record.regions if note.label] == [region.label for region in said.regions]
        assert {note.origin.source for note in (*record.texts, *record.regions)} == {"replay"}


def test_data_without_anything_usable_is_an_error_before_training(tmp_path):
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, -3, 4], "iscrowd": 0, "area": 1}
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 64} for number in (1, 2)]
    table = {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.json").write_text(json.dumps(table))
    with pytest.raises(BadRecord, match="nothing in it can be used") as caught:
        run(Settings(data=tmp_path / "data", out=tmp_path / "out"))
    assert "image missing" in str(caught.value)
    assert not (tmp_path / "out" / "train").exists()


@pytest.mark.parametrize("changes", [{"how": "magic"}, {"replay": 1.0}, {"epochs": 0.0}])
def test_settings_that_mean_nothing_are_refused(changes):
    with pytest.raises(BadConfig):
        Settings(**changes)


@pytest.mark.slow
def test_of_two_processes_one_speaks_and_writes(tmp_path):
    write_scenes(8, tmp_path / "data", seed=40, config=WorldConfig(side_px=64, sign_share=0.0, max_objects=2))
    changes = [f"data={tmp_path / 'data'}", f"out={tmp_path / 'out'}", "steps=2", "images=1", "held_out=2", "workers=0"]
    sets = [word for change in (*changes, "validations=1") for word in ("--set", change)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    places = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "-m", "openflorence.cli", "train", "finetune_detection", *sets],
        env=os.environ | places,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(tmp_path / "out" / "checkpoint")]
    assert [done.stderr.count(word) for word in ("before: ", "after: ", "2/2 ")] == [1, 1, 2]  # progress, validation
    assert set(json.loads((tmp_path / "out" / "scores.json").read_text())) == {"before", "after", "problems"}
    assert load(tmp_path / "out" / "checkpoint").checkpoint.config == load(None).checkpoint.config
