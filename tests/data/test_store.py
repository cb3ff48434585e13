"""A store: images taken in, layers written, questions in SQL."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small_store import UNIT, fill, images, jpeg, made, notes_of, record, truth, uri

from openflorence.contract.records import RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure, LayerRow, Notes, Verdict
from openflorence.data.store import ImageIn, IngestSettings, Store
from openflorence.data.store_rows import layer_schema
from openflorence.errors import BadConfig, BadRecord
from openflorence.model.sources import ImageLimits

pytest.importorskip("lance")
pytest.importorskip("duckdb")


def picture(size: tuple[int, int] = (6, 4), colour: int = 0, **how: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(file, "PNG", **how)
    return file.getvalue()


@pytest.fixture
def empty(tmp_path):
    return Store.create(tmp_path / "store", unit_images=UNIT)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Twelve drawn scenes with their truth as round 1; for reading only."""
    return made(tmp_path_factory.mktemp("full") / "it's [a] store")


# ---- a store as such


def test_a_store_is_opened_with_the_units_it_was_made_with(empty):
    again = Store.open(empty.folder)
    assert (again.unit, again.corpus_id, again.units()) == (empty.unit, empty.corpus_id, ())


def test_there_is_no_store_where_none_was_made(tmp_path):
    with pytest.raises(BadConfig, match=r"is no store: it has no store\.json; make one with Store\.create"):
        Store.open(tmp_path)


def test_a_folder_with_other_files_is_not_made_a_store(tmp_path, empty):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(BadConfig, match=r"is not empty, it has .*; open the store there, or give a new folder"):
        Store.create(tmp_path)
    with pytest.raises(BadConfig, match="is not empty"):
        Store.create(empty.folder)


def test_a_store_of_a_later_format_is_refused(empty):
    (empty.folder / "store.json").write_text('{"format": 2}')
    with pytest.raises(BadConfig, match="has format 2; this version reads format 1"):
        Store.open(empty.folder)


# ---- images


def test_images_come_back_as_they_were_in_order_and_in_units(full):
    rows = [row for unit in full.units() for row in full.images(unit)]
    assert [len(full.images(unit)) for unit in full.units()] == [8, 4]  # twelve in units of eight
    assert [(row.uri, row.data) for row in rows] == [(uri(seed), jpeg(seed)) for seed in range(12)]
    assert [row.image_id for row in rows] == [hashlib.sha256(jpeg(seed)).hexdigest() for seed in range(12)]
    assert {(row.mime, row.image_wh, row.problem) for row in rows} == {("image/jpeg", record(0).image_wh, "")}


def test_images_without_bytes_are_the_same_images(full):
    assert full.images(1, data=False) == [replace(row, data=b"") for row in full.images(1)]


def test_an_image_is_found_by_its_id_and_its_name(full):
    (row,) = [row for row in full.images(1) if row.uri == uri(9)]
    assert full.find(uri(9)) == full.find(row.image_id) == (1, 1)
    assert full.find("nowhere") is None


def test_rows_are_taken_in_the_order_that_they_are_asked_for_also_twice(tmp_path):
    store = Store.create(tmp_path / "store", unit_images=UNIT)
    store.ingest(images(range(UNIT + 2)))  # two of the second unit, then a unit that ends early
    store.ingest(images(range(UNIT + 2, UNIT + 6)))
    asked = [UNIT + 3, 0, UNIT, UNIT + 3, UNIT - 1, UNIT + 2]
    assert [row["uri"] for row in store.corpus.take(asked, ["uri"])] == [uri(seed) for seed in asked]
    store.ingest(images(range(50, 53)))
    store.corpus.refresh()
    assert store.corpus.take([UNIT + 8], ["uri"]) == [{"uri": uri(52)}]
    assert store.corpus.take([], ["uri"]) == []


def test_a_picture_on_its_side_has_the_size_it_is_looked_at_with(empty):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned a quarter
    empty.ingest([ImageIn(uri="side", data=picture((6, 4), exif=exif))])
    assert empty.images(0)[0].image_wh == (4, 6)
    assert empty.images(0)[0].mime == "image/png"


def test_equal_bytes_are_kept_once_and_noted(empty):
    done = empty.ingest([*images([1, 2]), ImageIn(uri="twin", data=jpeg(1))])
    assert (done.stored, done.duplicates, done.failed, done.known) == (2, 1, 0, 0)
    assert [row.uri for row in empty.images(0)] == [uri(1), uri(2)]
    twins = empty.sql("SELECT uri, image_id FROM images JOIN inputs USING (uri) ORDER BY uri")
    assert [row["uri"] for row in twins] == [uri(1), uri(2)]
    seen = empty.sql("SELECT i.uri AS kept, n.uri AS other FROM inputs n JOIN images i ON i.image_id = n.sha256")
    assert {(row["kept"], row["other"]) for row in seen} == {(uri(1), uri(1)), (uri(2), uri(2)), (uri(1), "twin")}


def test_what_cannot_be_read_is_listed_with_its_reason_and_the_rest_is_there(empty, tmp_path):
    (tmp_path / "cut.png").write_bytes(picture((60, 40))[:-30])
    bad = {
        "empty": ImageIn(uri="empty", data=b""),
        "page": ImageIn(uri="page", data=b"<html>404</html>"),
        "gone": ImageIn(uri=str(tmp_path / "gone.jpg")),
        "cut": ImageIn(uri=str(tmp_path / "cut.png")),
    }
    done = empty.ingest([*images([1]), *bad.values(), *images([2])])
    assert (done.stored, done.failed) == (2, 4)
    listed = {row["uri"]: row for row in empty.failures()}
    assert list(listed) == [one.uri for one in bad.values()]
    assert {row["kind"] for row in listed.values()} == {"BadImage"}
    assert "a web page" in listed["page"]["message"]
    assert "no such file" in listed[bad["gone"].uri]["message"]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(empty.folder / "failures.parquet").to_pylist() == empty.failures()


def test_failures_after_the_last_image_are_listed_too(empty):
    empty.ingest([*images(range(UNIT)), ImageIn(uri="last", data=b"x")])
    empty.ingest([ImageIn(uri="alone", data=b"y")])
    assert {row["uri"] for row in empty.failures()} == {"last", "alone"}
    assert empty.units() == (0,)


def test_an_input_that_is_there_is_passed_over_and_the_next_ones_come_after(empty):
    empty.ingest(images(range(3)))
    done = empty.ingest([*images(range(5)), ImageIn(uri=uri(0), data=jpeg(7))])  # a known name with other bytes
    assert (done.stored, done.known) == (3, 3)
    assert [[row.uri for row in empty.images(unit)] for unit in empty.units()] == [
        [uri(0), uri(1), uri(2)],
        [uri(3), uri(4), uri(0)],
    ]


def test_a_failed_input_is_read_again_when_that_is_asked_for(empty, tmp_path):
    late = tmp_path / "late.png"
    empty.ingest([ImageIn(uri=str(late))])
    late.write_bytes(picture())
    assert empty.ingest([ImageIn(uri=str(late))]).known == 1
    assert empty.ingest([ImageIn(uri=str(late))], IngestSettings(retry=True)).stored == 1
    assert empty.failures() == []


def test_a_file_is_the_same_from_every_folder(empty, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(picture())
    empty.ingest([ImageIn(uri=str(tmp_path / "a.png"))])
    monkeypatch.chdir(tmp_path)
    assert empty.ingest([ImageIn(uri="a.png")]).known == 1


def test_a_unit_ends_before_its_bytes_are_too_many(tmp_path):
    size = max(len(jpeg(seed)) for seed in range(6))
    store = Store.create(tmp_path / "store", unit_images=5, unit_bytes=2 * size)
    store.ingest(images(range(6)))
    sizes = [sum(len(row.data) for row in store.images(unit)) for unit in store.units()]
    assert max(sizes) <= 2 * size
    assert sum(len(store.images(unit)) for unit in store.units()) == 6
    tight = Store.create(tmp_path / "tight", unit_bytes=1)  # one larger than a unit has a unit of its own
    tight.ingest(images(range(3)))
    assert [len(tight.images(unit)) for unit in tight.units()] == [1, 1, 1]


def test_the_order_does_not_depend_on_the_threads(tmp_path):
    seen = []
    for threads in (1, 7):
        store = Store.create(tmp_path / str(threads), unit_images=UNIT)
        store.ingest(images(range(20)), IngestSettings(threads=threads))
        seen.append([[row.uri for row in store.images(unit, data=False)] for unit in store.units()])
    assert seen[0] == seen[1]
    assert seen[0][0] == [uri(seed) for seed in range(UNIT)]


def test_limits_hold_for_images_that_are_taken_in(empty):
    empty.ingest([ImageIn(uri="big", data=picture((6, 4)))], IngestSettings(limits=ImageLimits(max_pixels=20)))
    assert "max_pixels is 20" in empty.failures()[0]["message"]


def test_an_image_kept_by_reference_is_read_from_where_it_is(empty, tmp_path):
    files = [tmp_path / name for name in ("same.png", "changed.png", "gone.png")]
    for colour, file in enumerate(files):
        file.write_bytes(picture(colour=colour))
    empty.ingest([ImageIn(uri=str(file)) for file in files], IngestSettings(keep="reference"))
    files[1].write_bytes(picture(colour=9))
    files[2].unlink()
    same, changed, gone = empty.images(0)
    assert (same.data, same.problem) == (picture(colour=0), "")
    assert (changed.data, gone.data) == (b"", b"")
    assert "has other bytes than when it was taken into the store" in changed.problem
    assert "there is no such file" in gone.problem


def test_bytes_without_a_file_cannot_be_kept_by_reference(empty):
    empty.ingest([ImageIn(uri="tar#1", data=picture())], IngestSettings(keep="reference"))
    assert "cannot be read again from its name; keep its bytes" in empty.failures()[0]["message"]


def test_whole_units_are_kept_when_the_source_breaks_off(empty):
    def breaking():
        yield from images(range(UNIT + 3))
        raise ConnectionError("the disk is gone")

    with pytest.raises(ConnectionError):
        empty.ingest(breaking())
    assert [len(empty.images(unit)) for unit in empty.units()] == [UNIT]
    empty.ingest(images(range(UNIT + 5)))
    assert [len(empty.images(unit)) for unit in empty.units()] == [UNIT, 5]


def test_licence_and_what_else_is_known_stay_with_the_image(empty):
    empty.ingest([ImageIn(uri="a", data=picture(), licence="CC-BY-4.0", meta={"author": "Ünal"})])
    (row,) = empty.sql("SELECT licence, meta->>'author' AS author, size_bytes FROM images")
    assert row == {"licence": "CC-BY-4.0", "author": "Ünal", "size_bytes": len(picture())}


def test_one_process_at_a_time_takes_images_in(empty):
    def meddling():
        with pytest.raises(BadConfig, match=r"is being written by another process .* wait for it, or end it"):
            Store.open(empty.folder).ingest(images([2]))
        yield from images([1])

    assert empty.ingest(meddling()).stored == 1


# ---- layers


def test_a_file_of_rows_says_what_it_is_and_has_the_types_that_are_written_down(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    store = made(tmp_path / "store", 3)
    run = fill(store.layer("other", "r1-b", {"model": "m"}), store)
    schema = parquet.read_schema(run.path(0))
    about = json.loads(schema.metadata[b"openflorence"])
    assert about == {"format": 1, "layer": "other", "run_id": "r1-b", "unit": 0, "facts": {"model": "m"}}
    assert parquet.read_table(run.path(0)).schema.equals(layer_schema())


def test_rows_come_back_as_they_were_written(full):
    run = full.layer("truth", "r1-a")
    for unit in full.units():
        assert run.is_done(unit)
        assert [row.notes for row in run.read(unit)] == [truth(row.uri) for row in full.images(unit)]
    assert not full.layer("truth", "r1-b").is_done(0)
    assert full.runs() == {"truth": ("r1-a",)}


@pytest.mark.parametrize("spoil", [lambda rows: rows[:-1], lambda rows: rows[::-1], lambda rows: [*rows, rows[0]]])
def test_rows_of_other_images_are_refused(full, spoil):
    run = full.layer("other", "r1-a")
    rows = [LayerRow(row.image_id) for row in full.images(0)]
    with pytest.raises(BadRecord, match="give one row for each image, in their order"):
        run.write(0, spoil(rows))
    assert not run.is_done(0)


def test_notes_that_cannot_be_kept_fail_their_image_alone(empty):
    empty.ingest(images(range(3)))
    run = empty.layer("detect", "r1-a")
    rows = [LayerRow(row.image_id, notes=truth(row.uri)) for row in empty.images(0)]
    nan = Notes(regions=(RegionNote(box=Box(0, 0, float("nan"), 1)),))
    written = run.write(0, [rows[0], replace(rows[1], notes=nan), rows[2]])
    assert written == run.read(0)
    assert [row.status for row in written] == ["ok", "failed", "ok"]
    assert written[1].error.kind == "BadRecord"
    assert "regions[0] holds nan" in written[1].error.message
    assert (written[0], written[2]) == (rows[0], rows[2])


def test_a_unit_that_was_not_written_cannot_be_read(full):
    with pytest.raises(BadRecord, match="has no unit 1"):
        full.layer("detect", "r1-a").read(1)


def test_a_layer_with_a_name_that_is_no_folder_is_refused(full):
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(BadConfig, match="cannot name a layer or a run"):
            full.layer(name, "r1-a")


def test_a_breadcrumb_is_there_until_it_is_taken_away(full):
    run = full.layer("detect", "r1-a")
    assert run.read_breadcrumb(3) is None
    run.write_breadcrumb(3, {"in_flight": ["a"], "deaths": 1})
    assert full.layer("detect", "r1-a").read_breadcrumb(3) == {"in_flight": ["a"], "deaths": 1}
    run.write_breadcrumb(3, None)
    assert run.read_breadcrumb(3) is None


def test_one_driver_at_a_time_and_it_sweeps_first(full):
    run = full.layer("detect", "r1-a")
    left = run.folder / ".000000.parquet.1-1.part"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    with run.lock():
        assert not left.exists()
        with pytest.raises(BadConfig, match="run r1-a of layer 'detect' is being written by another process"):
            full.layer("detect", "r1-a").lock().__enter__()
        with full.layer("detect", "r2-a").lock():
            pass
    with run.lock():
        pass


def test_a_seal_counts_what_is_there(empty):
    empty.ingest(images(range(3)))
    run = empty.layer("detect", "r1-a", {"model": "nano"})
    verdicts = (Verdict("detect/text0", "score", "low"), Verdict("detect/text1", "score", "low"))
    first, second, third = empty.corpus.ids(0)
    rows = [
        LayerRow(first, notes=Notes(texts=(TextNote(text="a"),)), verdicts=verdicts),
        LayerRow(second, "failed", Failure("ValueError", "no", "detect")),
        LayerRow(third, "filtered", Failure("duplicate", "of another", "detect")),
    ]
    with pytest.raises(BadConfig, match="1 of 1 units lack, the first is 0; run them"):
        run.seal()
    run.write(0, rows)
    assert not run.is_sealed
    sealed = run.seal()
    # Counted by hand from the rows above.
    assert sealed["statuses"] == {"ok": 1, "failed": 1, "filtered": 1}
    assert sealed["reasons"] == {"failed: ValueError": 1, "filtered: duplicate": 1}
    assert sealed["dropped"] == {"score": 2}
    assert (sealed["units"], sealed["rows"], sealed["facts"]) == (1, 3, {"model": "nano"})
    assert run.read_outcomes(0) == ([replace(row, notes=Notes()) for row in rows], 1)
    assert empty.layer("detect", "r1-a").is_sealed


def test_more_images_open_the_seal_and_what_was_written_stays(empty):
    empty.ingest(images(range(3)))
    run = fill(empty.layer("truth", "r1-a"), empty)
    empty.ingest(images(range(5)))
    assert not run.is_sealed
    assert (run.is_done(0), run.is_done(1)) == (True, False)
    assert fill(run, empty).sealed()["rows"] == 5


# ---- SQL


def test_notes_are_rows_of_tables(full):
    records = [record(seed) for seed in range(12)]
    expected = {
        "images": 12,
        "inputs": 12,
        "layer_rows": 12,
        "texts": sum(len(one.texts) for one in records),
        "regions": sum(len(one.regions) for one in records),
        "groundings": 12,
        "phrases": sum(len(note.phrases) for one in records for note in one.groundings),
        "questions": sum(len(one.questions) for one in records),
        "pairs": 0,
        "verdicts": 0,
        "rounds": 1,
    }
    assert {table: full.sql(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in expected} == expected


def test_a_note_is_found_by_what_it_says_and_has_its_name(full):
    label = record(3).regions[1].label
    found = full.sql(
        "SELECT note_id, box FROM regions JOIN images USING (image_id) WHERE uri = $uri AND label = $label",
        {"uri": uri(3), "label": label},
    )
    place = next(place for place, note in enumerate(record(3).regions) if note.label == label)
    assert found[0] == {"note_id": f"truth/region{place}", "box": record(3).regions[place].box._asdict()}


def test_a_question_that_is_no_sql_says_so_and_reaches_nowhere(full):
    with pytest.raises(BadConfig, match="cannot answer 'SELECT nothing FROM nowhere'"):
        full.sql("SELECT nothing FROM nowhere")
    with pytest.raises(BadConfig, match="cannot answer"):
        full.sql("SELECT * FROM st_read('x')")  # of an extension; it is not fetched


def test_only_sealed_layers_are_read(full):
    run = full.layer("half", "r1-a")
    run.write(0, [LayerRow(name) for name in full.corpus.ids(0)])
    assert {row["layer"] for row in full.sql("SELECT DISTINCT layer FROM layer_rows")} == {"truth"}


def test_an_empty_store_answers_too(empty):
    assert empty.sql("SELECT count(*) AS n FROM regions, images, inputs, rounds") == [{"n": 0}]


def test_a_store_goes_to_another_process_by_its_folder(full):
    again = Store(full.folder)
    assert again.corpus.__getstate__() == full.corpus.__getstate__()
    assert notes_of(record(0)) == again.layer("truth", "r1-a").read(0)[0].notes
    assert isinstance(again.folder, Path)
