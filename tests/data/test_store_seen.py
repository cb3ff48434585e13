"""What a store has taken in is found again, whatever became of the index."""

import pytest
from small_store import UNIT, images, uri

from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn, IngestSettings
from openflorence.data.store_seen import Seen, seen_key

pytest.importorskip("lance")


@pytest.fixture
def empty(tmp_path):
    return Store.create(tmp_path / "store", unit_images=UNIT)


def keys(*names):
    return [seen_key("input", name) for name in names]


def test_what_stands_in_a_log_is_found_again_and_what_stands_in_none_is_not(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.add(keys("a", "b"))
    seen.logged("000000.parquet")
    seen.add(keys("c"))
    assert all(seen.has(key) for key in keys("a", "b", "c"))
    seen.close()
    again = Seen(tmp_path / "seen.sqlite")
    assert [again.has(key) for key in keys("a", "b", "c")] == [True, True, False]
    assert again.has(*keys("c", "a"))
    assert again.lacks(["000000.parquet", "000001.parquet"]) == ["000001.parquet"]
    again.close()


def test_few_keys_wait_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("openflorence.data.store_seen._WAITING", 100)
    seen = Seen(tmp_path / "seen.sqlite")
    most = 0
    for log in range(50):
        seen.add(keys(*(f"{log}/{place}" for place in range(30))))
        seen.logged(str(log))
        most = max(most, len(seen.waiting))
    assert most < 100
    assert all(seen.has(*keys(f"{log}/{place}")) for log in range(50) for place in range(30))
    seen.close()


def test_an_image_and_an_input_of_one_name_are_two_things(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.add([seen_key("image", "a")])
    assert not seen.has(seen_key("input", "a"), seen_key("failed", "a"))
    seen.close()


@pytest.mark.parametrize("damage", ["gone", "no database", "of an earlier time"])
def test_an_index_that_lacks_something_is_filled_from_the_logs(empty, damage):
    path = empty.folder / "ingest" / "seen.sqlite"
    empty.ingest(images(range(UNIT)))
    earlier = path.read_bytes()
    empty.ingest([*images(range(UNIT, 2 * UNIT)), ImageIn(uri="bad", data=b"x")])
    path.write_bytes(earlier if damage == "of an earlier time" else b"no database, but as long as one" * 200)
    if damage == "gone":
        path.unlink()
    done = empty.ingest([*images(range(2 * UNIT + 1)), ImageIn(uri="bad", data=b"x")])
    assert (done.stored, done.duplicates, done.failed, done.known) == (1, 0, 0, 2 * UNIT + 1)
    twin = empty.ingest([ImageIn(uri="twin", data=images([3])[0].data)])
    assert twin.duplicates == 1
    assert empty.ingest([ImageIn(uri="bad", data=b"x")], IngestSettings(retry=True)).failed == 1


def test_a_log_stays_short_where_nearly_all_inputs_fail(empty, monkeypatch):
    monkeypatch.setattr("openflorence.data.store_ingest._LINES", 2)
    bad = [ImageIn(uri=f"bad {number}", data=b"x") for number in range(7 * UNIT)]
    done = empty.ingest([*bad[:-1], *images([1]), bad[-1]])
    assert (done.stored, done.failed) == (1, 7 * UNIT)
    lines = empty.sql("SELECT outcome, count(*) AS lines FROM inputs GROUP BY outcome ORDER BY outcome")
    assert lines == [{"outcome": "failed", "lines": 7 * UNIT}, {"outcome": "stored", "lines": 1}]
    # By hand: logs of 16 lines each; the three full ones hold failures alone, so they are no units.
    logs = sorted(path.name[:4] for path in (empty.folder / "ingest").glob("*.parquet"))
    assert logs == ["0000", "rest", "rest", "rest"]
    assert [row.uri for row in empty.images(0)] == [uri(1)]
    assert len(empty.failures()) == 7 * UNIT
    assert empty.ingest([*bad, *images([1])]).known == 7 * UNIT + 1
