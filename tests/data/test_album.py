"""Scenes as files."""

import json

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.album import write_scenes
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.errors import BadConfig


def test_pictures_and_truth_are_written_together(tmp_path):
    steps = []
    config = WorldConfig(side_px=64, aspect=(3, 2), sign_share=1.0)
    path = write_scenes(3, tmp_path / "new", 40, config, lambda: steps.append(1))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(steps) == 3
    assert sorted(p.name for p in path.parent.iterdir()) == ["000000.png", "000001.png", "000002.png", "scenes.jsonl"]
    for index, row in enumerate(rows):
        assert row["seed"] == 40 + index
        assert (row["width"], row["height"]) == (96, 64)
        assert np.array_equal(np.asarray(Image.open(path.parent / row["image"])), draw_scene(40 + index, config).image)
        assert set(row["tasks"]) == {task.name for task in (*TASKS, FREE_TEXT)}
        assert row["tasks"]["detect"]["answer"]["regions"][0]["box"]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(BadConfig):
        write_scenes(0, tmp_path)
