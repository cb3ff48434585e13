"""Scenes as files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.records import record_from_row
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.album import RECORDS_FILE, scene_record, scene_row, write_scenes
from openflorence.data.sentences import caption
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.errors import BadConfig


def test_pictures_and_truth_are_written_together(tmp_path):
    steps = []
    config = WorldConfig(side_px=64, aspect=(3, 2), sign_share=1.0)
    path = write_scenes(3, tmp_path / "new", 40, config, lambda: steps.append(1))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(steps) == 3
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "records.jsonl",
        "scenes.jsonl",
    ]
    for index, row in enumerate(rows):
        assert row["seed"] == 40 + index
        assert (row["width"], row["height"]) == (96, 64)
        assert np.array_equal(np.asarray(Image.open(path.parent / row["image"])), draw_scene(40 + index, config).image)
        assert set(row["tasks"]) == {task.name for task in (*TASKS, FREE_TEXT)}
        assert row["tasks"]["detect"]["answer"]["regions"][0]["box"]


def test_the_example_pictures_are_the_scenes_their_readme_says():
    folder = Path(__file__).parents[2] / "examples"
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == list(range(9, 15))
    for row in rows:
        scene = draw_scene(row["seed"], WorldConfig(side_px=384))
        assert np.array_equal(np.asarray(Image.open(folder / row["image"])), scene.image)
        assert row["tasks"] == json.loads(json.dumps(scene_row(scene)["tasks"]))
        assert f"| {row['image']} | {row['seed']} | {caption(scene)} |" in (folder / "README.md").read_text()
        assert (folder / row["image"]).stat().st_size < 60_000


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(BadConfig):
        write_scenes(0, tmp_path)


def test_the_records_of_a_folder_are_its_scenes(tmp_path):
    write_scenes(4, tmp_path, seed=3, config=WorldConfig(side_px=64))
    rows = [json.loads(line) for line in (tmp_path / RECORDS_FILE).read_text("utf-8").splitlines()]
    records = [record_from_row(row) for row in rows]
    scenes = [draw_scene(3 + index, WorldConfig(side_px=64)) for index in range(4)]
    assert [record.image for record in records] == [f"{index:06d}.png" for index in range(4)]
    assert records == [scene_record(scene, record.image) for scene, record in zip(scenes, records, strict=True)]
    for scene, record in zip(scenes, records, strict=True):
        assert [note.box for note in record.regions] == [thing.box for thing in scene.things]
        (grounding,) = record.groundings
        assert [grounding.text[slice(*phrase.span)] for phrase in grounding.phrases] == [
            phrase.phrase for phrase in grounding.phrases
        ]
        assert sum(len(phrase.boxes) for phrase in grounding.phrases) == len(scene.things)
