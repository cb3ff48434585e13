"""What a run says of itself."""

import json
from pathlib import Path

from tiny import SIDE_PX, WORLD, tiny_network, world_text

from openflorence.contract.records import record_from_row
from openflorence.data.album import RECORDS_FILE, write_scenes
from openflorence.data.mixture import Mixture, MixtureConfig, RecordSource
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import TrainSettings, train


def test_what_is_wrong_with_images_is_logged_and_said_at_the_end(tmp_path: Path):
    write_scenes(4, tmp_path, config=WORLD)
    (tmp_path / "000001.png").write_bytes(b"no picture")
    rows = (json.loads(line) for line in (tmp_path / RECORDS_FILE).read_text("utf-8").splitlines())
    source = RecordSource("drawn", [record_from_row(row) for row in rows], tmp_path, {"caption": 1.0})
    batches = Mixture(
        [(source, 1.0)], MixtureConfig(side_px=SIDE_PX, images=2, targets=1, buckets=1), world_text(), batches=4
    )
    lines: list[str] = []
    plan = TrainSettings(steps=4, warmup=0, log_every=2, workers=0)
    train(SequenceObjective(tiny_network()), batches, plan, tmp_path / "run", lines.append)
    logged = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    # Two passes over four images, one of which is broken: it is met once in each.
    assert [row.get("problems") for row in logged] == [{"image not readable": 1}, {"image not readable": 2}]
    assert "2 x image not readable: the image is left out" in lines[-1]
    assert "000001.png" in lines[-1]
