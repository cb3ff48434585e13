"""A store on object storage: the same as in a folder, killed or not, and alone at it or not."""

import sys
import threading
import time
from pathlib import Path

import pytest
import small_store

from openflorence.data import store_lease
from openflorence.data.opened import open_data
from openflorence.data.problems import Problems
from openflorence.data.store import Store, is_store
from openflorence.data.store_files import locked
from openflorence.data.store_place import local_cache, place_of
from openflorence.data.store_records import image_source, image_to_ask
from openflorence.errors import BadConfig, BadImage

pytest.importorskip("lance")
pytest.importorskip("duckdb")
pytest.importorskip("s3fs")


def job(place: str) -> None:
    """Fill a store as small_store does, where the dead are found dead soon."""
    store_lease.LEASE_S, store_lease.RENEW_S = 1.5, 0.25
    small_store.job(place)


@pytest.fixture
def soon(monkeypatch):
    """Leases that end soon."""
    monkeypatch.setattr(store_lease, "LEASE_S", 1.5)
    monkeypatch.setattr(store_lease, "RENEW_S", 0.25)


def test_a_store_in_a_bucket_is_the_store_in_a_folder(bucket, tmp_path):
    small_store.job(f"{bucket}/fld")
    small_store.job(tmp_path / "fld")
    there, here = Store.open(f"{bucket}/fld"), Store.open(tmp_path / "fld")
    assert small_store.everything(there) == small_store.everything(here)
    assert [*there.records(2).ids()] == [*here.records(2).ids()]
    assert there.diff(1, 2).total == here.diff(1, 2).total
    assert is_store(f"{bucket}/fld")
    assert not is_store(f"{bucket}/other")


def test_what_was_taken_in_is_known_again_also_from_another_machine(bucket, tmp_path, monkeypatch):
    store = small_store.made(f"{bucket}/deep/fld")
    assert (store.cache / "seen.sqlite").is_file()
    assert store.ingest(small_store.images(range(12))).known == 12
    monkeypatch.setenv("OPENFLORENCE_CACHE", str(tmp_path / "another"))
    again = Store.open(f"{bucket}/deep/fld")
    assert again.cache != store.cache
    taken = again.ingest(small_store.images(range(14)))
    assert (taken.known, taken.stored) == (12, 2)
    taken = store.ingest(small_store.images(range(14)))  # the index here is behind by one log
    assert (taken.known, taken.stored) == (14, 0)


def test_records_name_their_images_and_train_parts_are_the_same(bucket, tmp_path):
    small_store.made(f"{bucket}/fld")
    small_store.made(tmp_path / "fld")
    problems = Problems()
    there, here = (open_data(place, "train", None, problems) for place in (f"{bucket}/fld", tmp_path / "fld"))
    names = [record.image for record in there.usable(problems)]
    assert names[0].startswith(f"store:{bucket}/fld#")
    bytes_there = [image_source(name, Path()) for name in names]
    assert bytes_there == [image_source(record.image, Path()) for record in here.usable(problems)]
    assert image_to_ask(names[1], Path()) == bytes_there[1]
    with pytest.raises(BadImage, match="the store has 12 images"):
        image_source(f"store:{bucket}/fld#12", Path())
    with pytest.raises(BadImage, match="is no store"):
        image_source(f"store:{bucket}/other#0", Path())


@pytest.mark.slow
def test_writers_killed_at_any_moment_leave_the_store_of_an_undisturbed_one(bucket, tmp_path):
    small_store.job(tmp_path / "fld")
    place = f"{bucket}/fld"
    kills = small_store.killed_at_random(job, (place,), place, seed=4, most=8, within_s=(0.1, 5.0))
    assert kills >= 3
    assert small_store.everything(Store.open(place)) == small_store.everything(Store.open(tmp_path / "fld"))


def test_one_writer_at_a_time(bucket, soon):
    small_store.made(f"{bucket}/fld", 3)
    place = place_of(f"{bucket}/fld") / "store.lock"
    with (
        locked(place, "store"),
        pytest.raises(BadConfig, match=r"store .* is being written by another process"),
    ):
        Store.open(f"{bucket}/fld").ingest(small_store.images(range(5)))
    began = time.monotonic()
    assert Store.open(f"{bucket}/fld").ingest(small_store.images(range(5))).stored == 2
    assert time.monotonic() - began < 10


def test_of_many_who_wait_for_a_dead_one_a_single_one_follows(bucket, soon):
    place = place_of(f"{bucket}/fld/store.lock")
    store_lease._take(place, "it")  # and dies
    holders, refused, together = 0, 0, []

    def follow() -> None:
        nonlocal holders, refused
        try:
            with locked(place, "it"):
                holders += 1
                together.append(holders)
                time.sleep(3)
                holders -= 1
        except BadConfig:
            refused += 1

    waiting = [threading.Thread(target=follow) for _ in range(4)]
    for one in waiting:
        one.start()
    for one in waiting:
        one.join()
    assert (together, refused) == ([1], 3)


def test_who_was_taken_for_dead_is_told(bucket, soon, monkeypatch):
    place = place_of(f"{bucket}/fld/store.lock")

    def asleep() -> None:
        with locked(place, "store fld"):
            monkeypatch.setattr(store_lease, "RENEW_S", 0.25)
            with locked(place, "store fld"):  # it was not heard of for long enough
                time.sleep(8)

    monkeypatch.setattr(store_lease, "RENEW_S", 6.0)
    with pytest.raises(BadConfig, match="store fld: another process took over"):
        asleep()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs://bucket/fld", "cannot be a store; give a folder, or s3://bucket/folder"),
        ("s3://", "cannot be a store"),
        ("s3:///", "cannot be a store"),
    ],
)
def test_what_is_no_place_for_a_store(name, said):
    with pytest.raises(BadConfig, match=said):
        Store.open(name)


def test_errors_of_object_storage_are_told(bucket, monkeypatch):
    with pytest.raises(BadConfig, match="there is no bucket 'nobody-made-this'"):
        Store.create("s3://nobody-made-this/fld")
    with pytest.raises(BadConfig, match=r"is no store: it has no store\.json"):
        Store.open(f"{bucket}/fld")
    small_store.made(f"{bucket}/fld", 2)
    with pytest.raises(BadConfig, match="is not empty, it has"):
        Store.create(f"{bucket}/fld")


def test_stores_of_one_name_do_not_share_a_cache(bucket):
    first = Store.create(f"{bucket}/fld")
    second = Store.create(f"{bucket}/other/fld")
    assert first.cache != second.cache
    assert local_cache(first.folder, "another that lay there") != first.cache


def test_without_its_packages_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadConfig, match=r"pip install openflorence\[s3\]"):
        Store.open("s3://bucket/fld")


def test_a_server_that_is_not_there_is_told(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()  # connections last as long as a process
    with pytest.raises(BadConfig, match="cannot reach s3://bucket/fld: Could not connect"):
        Store.create("s3://bucket/fld")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_listing_that_fails_is_no_empty_listing(bucket, monkeypatch):
    import s3fs

    store = small_store.made(f"{bucket}/fld", 3)

    async def refused(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden")

    assert list(store.rounds()) == [1]
    monkeypatch.setattr(s3fs.S3FileSystem, "_lsdir", refused)
    with pytest.raises(PermissionError):
        store.rounds()
