"""A store that the engine made trains by its path alone: recipes, pre-training's sources, replay and scores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lance")

from openflorence.data.album import write_scenes
from openflorence.data.notes import Notes
from openflorence.data.problems import Problems
from openflorence.data.store import Store
from openflorence.data.world import WorldConfig
from openflorence.engine.plan import Plan, Specialist, run_round
from openflorence.engine.stages import Row
from openflorence.errors import BadConfig
from openflorence.evaluation.heldout import evaluate_records, open_part
from openflorence.experiments.finetune import label_records, read_parts
from openflorence.experiments.pretrain import parse_datasets, read_sources
from openflorence.model.predict import load
from recipes import finetune_detection


def nothing(rows: list[Row]) -> list[Notes]:
    return [Notes() for _ in rows]


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Twelve drawn scenes, their truth as the labels of people, made by the engine."""
    folder = tmp_path_factory.mktemp("from_store")
    write_scenes(12, folder / "scenes", seed=40, config=WorldConfig(side_px=64, sign_share=1.0, max_objects=2))
    plan = Plan(
        specialists=(Specialist(name="own", settings={"function": f"{__name__}:nothing"}),),
        copies=None,
        filter={"texts": False, "sizes": False},
    )
    done = run_round(str(folder / "scenes"), folder / "fld", plan)
    assert done.ingested.stored == 12
    return folder / "fld"


def test_a_recipe_trains_from_a_store_by_its_path(store, tmp_path, call):
    sets = {"data": store, "out": tmp_path, "steps": 4, "images": 2, "targets": 2, "validations": 1, "held_out": 2}
    words = [
        word for name, value in (sets | {"workers": 0, "threads": 1}).items() for word in ("--set", f"{name}={value}")
    ]
    done = call("train", "finetune_detection", *words)
    assert done.code == 0, done.err
    assert "fld, round 0: " in done.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {"detect.map"} <= set(scores["before"]) & set(scores["after"])
    assert Path(done.out.strip()) == tmp_path / "checkpoint"
    before, after = load(None).network.state_dict(), load(tmp_path / "checkpoint").network.state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())


def test_a_store_gives_the_records_that_the_engine_published(store):
    parts = read_parts(store, None)
    published = {record.image: record for record in Store.open(store).records()}
    assert {record.image: record for record in (*parts.train, *parts.held_out)} == published
    assert len(parts.train) + len(parts.held_out) == 12
    assert parts.categories


def test_a_store_is_a_source_of_pre_training_named_with_its_round(store, tmp_path):
    lines: list[str] = []
    write_scenes(4, tmp_path / "set", seed=1, config=WorldConfig(side_px=64))
    sources = read_sources(parse_datasets(f"{store}=2,{tmp_path / 'set'}"), lines.append)
    assert [(source.name, share) for source, share in sources] == [("fld, round 0", 2.0), ("set", 1.0)]
    assert lines[0].startswith("fld, round 0: ")


def test_a_store_is_scored_and_labelled_like_any_data_set(store):
    part, records = open_part(store, "val", None, Problems())
    florence = load(None)
    scored = evaluate_records(florence, records, part.root, ["detect"], limit=2)
    assert (scored.images, scored.skipped) == (min(2, len(records)), 0)
    labelled = list(label_records(florence, records[:1], part.root))
    assert [one.image for one in labelled] == [records[0].image]


def test_an_image_that_is_gone_from_its_store_is_skipped_and_counted(store, monkeypatch):
    part, records = open_part(store, "val", None, Problems())
    gone = replace(records[0], image=f"store:{store}#999")
    scored = evaluate_records(load(None), [records[0], gone], part.root, ["detect"])
    assert (scored.images, scored.skipped) == (1, 1)


def test_a_store_without_a_round_is_told(tmp_path):
    Store.create(tmp_path / "fld")
    with pytest.raises(BadConfig, match="publish"):
        finetune_detection.run(replace(finetune_detection.Settings(), data=tmp_path / "fld", out=tmp_path / "out"))
