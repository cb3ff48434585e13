"""Data by its path: a data set or a store, and how a store is cut into parts."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from small_store import images, made

from openflorence.data.album import write_scenes
from openflorence.data.opened import is_store, open_data, part_of
from openflorence.data.problems import Problems
from openflorence.data.store_records import StoredRecords
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig, BadRecord

pytest.importorskip("lance")

from small_store import fill, truth

from openflorence.data.notes import Notes
from openflorence.data.store import Store


def opened(path: Path, split: str, format: str | None = None):
    return open_data(path, split, format, Problems())


def rows(path: Path, split: str) -> list[int]:
    records = opened(path, split).records
    assert isinstance(records, StoredRecords)
    return list(records.rows)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return made(tmp_path_factory.mktemp("opened") / "fld", 24)


def test_a_store_is_cut_by_a_hash_of_each_image_alone(store):
    train, val = rows(store.folder, "train"), rows(store.folder, "valid")
    assert sorted(train + val) == list(range(24))
    # By the stated rule, spelt out here: val is where the hash of the id lies in the last tenth.
    shares = {}
    for number, name in enumerate(store.records().ids()):
        digest = hashlib.sha256(f"part 0: {name}".encode()).digest()
        shares[number] = int.from_bytes(digest[:6]) / 2**48
    assert val == [number for number in range(24) if shares[number] >= 0.9]
    assert val


def test_parts_have_their_shares_and_another_seed_cuts_otherwise():
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    counts = Counter(part_of(name, (0.8, 0.15, 0.05)) for name in names)
    # Binomial: five standard deviations of 4000 draws are 126, 113 and 69.
    assert abs(counts["train"] - 3200) < 126
    assert abs(counts["val"] - 600) < 113
    assert abs(counts["test"] - 200) < 69
    same = sum(part_of(name, (0.5, 0.5)) == part_of(name, (0.5, 0.5), seed=1) for name in names)
    assert abs(same - 2000) < 158
    assert {part_of(name, (0.0, 1.0)) for name in names[:50]} == {"val"}
    assert {part_of(name, (1.0,)) for name in names[:50]} == {"train"}


def test_parts_that_came_with_the_images_are_kept(tmp_path):
    store = Store.create(tmp_path / "fld")
    parts = ["test", "train", "val", "", "train"]
    store.ingest(replace(one, meta={"part": part}) for one, part in zip(images(range(5)), parts, strict=True))
    fill(store.layer("truth", "r1"), store, truth)
    store.define_round(1, {"truth": "r1"})
    store.publish(1)
    assert {part: rows(store.folder, part) for part in ("train", "val", "test")} == {
        "train": [1, 3, 4],
        "val": [2],
        "test": [0],
    }


def test_few_images_still_have_both_parts_and_one_is_learnt_from(tmp_path):
    two = made(tmp_path / "two", 2)
    assert (len(rows(two.folder, "train")), len(rows(two.folder, "val"))) == (1, 1)
    one = made(tmp_path / "one", 1)
    assert rows(one.folder, "train") == [0]
    with pytest.raises(BadRecord, match="no image in its val part"):
        opened(one.folder, "val")


def test_the_latest_round_is_read_and_named(store, tmp_path):
    part = opened(store.folder, "train")
    assert (part.name, part.format, part.root) == ("fld, round 1", "store", Path())
    assert part.usable(Problems()) is part.records
    empty = Store.create(tmp_path / "fld")
    with pytest.raises(BadConfig, match="not published"):
        opened(empty.folder, "train")


def test_images_of_which_nothing_is_said_are_in_no_part(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest(images(range(6)))
    fill(store.layer("truth", "r1"), store, lambda uri: truth(uri) if uri != "drawn:3" else Notes())
    store.define_round(1, {"truth": "r1"})
    store.publish(1)
    assert sorted(rows(store.folder, "train") + rows(store.folder, "val")) == [0, 1, 2, 4, 5]


def test_a_data_set_is_opened_as_before(tmp_path):
    write_scenes(6, tmp_path / "set", seed=1, config=WorldConfig(side_px=64))
    assert not is_store(tmp_path / "set")
    part = opened(tmp_path / "set", "train")
    problems = Problems()
    usable = part.usable(problems)
    held_out = opened(tmp_path / "set", "val").usable(problems)
    assert len(usable) + len(held_out) == 6
    assert part.name == "set"


def test_mistakes_are_told(store, tmp_path):
    with pytest.raises(BadConfig, match="split 'dev' is not known"):
        opened(store.folder, "dev")
    with pytest.raises(BadConfig, match="is a store, which has no format"):
        opened(store.folder, "train", "coco")
    with pytest.raises(BadRecord, match="no image in its test part"):
        opened(store.folder, "test")
    (tmp_path / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(BadConfig, match="format 99"):
        opened(tmp_path, "train")
