"""Rounds: published beside the images, read as records, held against each other."""

import multiprocessing
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_store import UNIT, drop, fill, images, jpeg, made, notes_of, record, seed_of, truth, uri, write

from openflorence.contract.records import GroundingNote, PhraseNote, QuestionNote, Record, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure, LayerRow, Notes
from openflorence.data.store import ImageIn, Store
from openflorence.data.store_diff import Changes
from openflorence.data.store_records import image_source
from openflorence.errors import BadConfig, BadImage

pytest.importorskip("lance")
pytest.importorskip("duckdb")

SCENES = 12


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Twelve drawn scenes with their truth as round 1; for reading only."""
    return made(tmp_path_factory.mktemp("full") / "store", SCENES)


@pytest.fixture
def store(tmp_path):
    return made(tmp_path / "store", SCENES)


def bytes_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def added(before: dict[Path, int], after: dict[Path, int]) -> int:
    return sum(size for path, size in after.items() if before.get(path) != size)


def without_name(record: Record) -> Record:
    return replace(record, image="")


def hundredths(record: Record) -> Record:
    """The same record with coordinates as a published round holds them: to a hundredth of a pixel."""

    def box(old: Box) -> Box:
        return Box(*(round(value, 2) for value in old))

    def region(note: RegionNote) -> RegionNote:
        rings = tuple(tuple(type(p)(round(p.x, 2), round(p.y, 2)) for p in ring) for ring in note.polygons)
        quad = note.quad and tuple(type(p)(round(p.x, 2), round(p.y, 2)) for p in note.quad)
        return replace(note, box=note.box and box(note.box), quad=quad, polygons=rings)

    groundings = (
        replace(note, phrases=tuple(replace(phrase, boxes=tuple(map(box, phrase.boxes))) for phrase in note.phrases))
        for note in record.groundings
    )
    return replace(record, regions=tuple(map(region, record.regions)), groundings=tuple(groundings))


# ---- records


def test_records_are_what_the_layers_say(full):
    records = full.records()
    assert len(records) == SCENES
    expected = [hundredths(record(seed)) for seed in range(SCENES)]
    assert list(map(without_name, records)) == list(map(without_name, expected))
    assert [records[place] for place in (7, 0, -1)] == [list(records)[place] for place in (7, 0, 11)]
    with pytest.raises(IndexError):
        records[SCENES]


def test_the_image_of_a_record_is_read_by_its_name(full):
    for seed in (0, 9):
        assert image_source(full.records()[seed].image, Path("/")) == jpeg(seed)
    assert image_source("a/b.jpg", Path("/root")) == Path("/root/a/b.jpg")
    assert image_source("/a/b.jpg", Path("/root")) == Path("/a/b.jpg")
    with pytest.raises(BadImage, match="the store has 12 images, counted from 0"):
        image_source(f"store:{full.folder}#12", Path("/"))
    with pytest.raises(BadImage, match="is no store"):
        image_source("store:/nowhere#1", Path("/"))
    with pytest.raises(BadImage, match="names no image of a store"):
        image_source("store:/nowhere", Path("/"))


@pytest.mark.parametrize("workers", [3, 4])
def test_shards_hold_every_record_once(full, workers):
    records = full.records()
    shards = [list(records.shard(index, workers)) for index in range(workers)]
    assert sorted(one.image for shard in shards for one in shard) == sorted(one.image for one in records)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_three_workers_go_on_where_four_stopped(full):
    records = full.records()
    read = [records.shard(index, 4)[place].image for place in range(1) for index in range(4)]  # one round of four
    rest = [one.image for index in range(3) for one in records.shard(index, 3, start=len(read))]
    assert sorted(read + rest) == sorted(one.image for one in records)
    with pytest.raises(BadConfig, match="shard 3 of 3"):
        records.shard(3, 3)


def test_a_slice_reads_nothing_but_its_own(full):
    records = full.records()
    assert [one.image for one in records[2:9][1::3]] == [records[place].image for place in (3, 6)]


def test_records_go_to_other_processes(full):
    context = multiprocessing.get_context("spawn")
    records = full.records()
    expected = records[5]
    with context.Pool(1) as pool:
        assert pool.apply_async(records.__getitem__, (5,)).get(timeout=120) == expected


# ---- rounds


def test_a_round_is_made_of_sealed_runs(store):
    with pytest.raises(BadConfig, match="run r2-a of layer 'truth' is not sealed"):
        store.define_round(2, {"truth": "r2-a"})
    with pytest.raises(BadConfig, match=r"takes notes from \['ocr'\]"):
        store.define_round(2, {"truth": "r1-a"}, ["ocr"])
    with pytest.raises(BadConfig, match="round 2 is not defined"):
        store.publish(2)
    with pytest.raises(BadConfig, match="round 2 is not published; published are: 1"):
        store.records(2)


def test_a_published_round_is_not_made_of_other_runs_later(store):
    fill(store.layer("truth", "r2-a"), store)
    with pytest.raises(BadConfig, match="round 1 is published"):
        store.define_round(1, {"truth": "r2-a"})
    again = store.define_round(1, {"truth": "r1-a"})
    assert again == store.publish(1)
    assert again.published["images"] == again.published["annotated"] == SCENES


def test_verdicts_hide_notes_and_without_them_they_are_back(store):
    drop(store.layer("filter", "r2-a"), store, ["truth/text0", "truth/region1", "truth/grounding0.phrase0"])
    store.define_round(2, {"truth": "r1-a", "filter": "r2-a"})
    store.publish(2)
    for before, after in zip(store.records(1), store.records(2), strict=True):
        assert after.texts == before.texts[1:]
        assert after.regions == before.regions[:1] + before.regions[2:]
        assert [note.phrases for note in after.groundings] == [
            note.phrases[1:] for note in before.groundings if note.phrases[1:]
        ]
    drop(store.layer("filter", "r3-a"), store, ["truth/text0"])  # another threshold; nothing is annotated again
    store.define_round(3, {"truth": "r1-a", "filter": "r3-a"})
    store.publish(3)
    assert [one.regions for one in store.records(3)] == [one.regions for one in store.records(1)]


def test_where_one_layer_fuses_others_only_its_notes_count(store):
    fused = Notes(texts=(TextNote(text="fused"),))
    fill(store.layer("fuse", "r2-a"), store, lambda uri: fused)
    store.define_round(2, {"truth": "r1-a", "fuse": "r2-a"}, notes_from=["fuse"])
    store.publish(2)
    assert {one.texts for one in store.records(2)} == {fused.texts}
    assert not any(one.regions for one in store.records(2))
    store.define_round(3, {"truth": "r1-a", "fuse": "r2-a"})
    store.publish(3)
    assert [one.texts for one in store.records(3)] == [one.texts + fused.texts for one in store.records(1)]
    assert store.records()[0] == store.records(3)[0]  # the latest one


def test_an_image_that_a_layer_leaves_out_has_no_notes(store):
    def rows(unit: int) -> list[LayerRow]:
        first, *rest = store.corpus.ids(unit)
        left_out = LayerRow(first, "filtered", Failure("duplicate", "of another", "duplicates"))
        return [left_out, *(LayerRow(name) for name in rest)]

    write(store.layer("duplicates", "r2-a"), store, rows)
    store.define_round(2, {"truth": "r1-a", "duplicates": "r2-a"})
    assert store.publish(2).published["annotated"] == SCENES - 2  # one of each unit
    assert [one.is_empty for one in store.records(2)] == [place in (0, UNIT) for place in range(SCENES)]
    assert store.notes(2, 0)[0] is None


def test_notes_that_cannot_be_learnt_from_are_mended_or_counted(store):
    width = record(0).image_wh[0]
    beyond = RegionNote(box=Box(1, 1, width + 9, 5), label="cat")
    outside = RegionNote(box=Box(width + 1, 0, width + 9, 5), label="cat")
    flat = RegionNote(box=Box(1, 1, 1.001, 5), label="cat")  # nothing is left of it in hundredths of a pixel
    token = TextNote(text="a cat <loc_3>")
    said = Notes((token, TextNote(text="a cat")), (beyond, outside, flat))
    fill(store.layer("bad", "r2-a"), store, lambda uri: said)
    store.define_round(2, {"bad": "r2-a"})
    problems = store.publish(2).published["problems"]
    seen = {kind: what["count"] for kind, what in problems.items()}
    assert seen == dict.fromkeys(("partly outside", "outside the image", "empty region", "special token"), SCENES)
    (one,) = {(one.texts, one.regions) for one in store.records(2)}
    assert one == ((TextNote(text="a cat"),), (replace(beyond, box=Box(1, 1, width, 5)),))


def test_an_earlier_round_is_read_as_it_was_after_later_ones_and_more_images(store):
    before = list(store.records(1))
    store.ingest(images(range(SCENES + 5)))
    fill(store.layer("truth", "r1-a"), store, truth)
    fill(store.layer("truth", "r2-a"), store, lambda uri: Notes(texts=(TextNote(text=uri),)))
    store.define_round(2, {"truth": "r2-a"})
    store.publish(2)
    assert list(store.records(1)) == before
    assert [one.texts[0].text for one in store.records(2)] == [uri(seed) for seed in range(SCENES + 5)]
    assert image_source(store.records(1)[3].image, Path("/")) == jpeg(3)
    assert image_source(store.records(2)[SCENES + 4].image, Path("/")) == jpeg(SCENES + 4)


def test_a_round_does_not_see_images_that_came_after_its_runs_were_sealed(store):
    store.define_round(2, {"truth": "r1-a"})
    store.ingest(images(range(SCENES + 5)))
    store.publish(2)
    assert [one.is_empty for one in store.records(2)] == [False] * SCENES + [True] * 5


def test_a_round_staged_before_another_was_published_loses_nothing(store):
    # Killed before its commit, round 2 has staged columns that know nothing of round 3.
    run = fill(store.layer("truth", "r2-a"), store, lambda uri: Notes(texts=(TextNote(text="two"),)))
    store.define_round(2, {"truth": "r2-a"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store.corpus), "add_column", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.publish(2)
    fill(store.layer("truth", "r3-a"), store, lambda uri: Notes(texts=(TextNote(text="three"),)))
    store.define_round(3, {"truth": "r3-a"})
    store.publish(3)
    store.publish(2)
    texts = [{one.texts[0].text for one in store.records(number)} for number in (2, 3)]
    assert texts == [{"two"}, {"three"}]
    assert run.is_sealed
    store.corpus.refresh()
    assert store.corpus.take([0], ["ann_r1", "ann_r2", "ann_r3"])[0]["ann_r3"] == '{"texts":[{"text":"three"}]}'


# ---- rooms and bytes


def annotated(uri: str) -> Notes:
    """What specialists note of a scene: three texts, boxes with names, a grounding; each with score and origin."""
    rng = np.random.default_rng(seed_of(uri))
    truth = record(seed_of(uri), 256)

    def scored(note):
        return replace(note, score=float(rng.random()))

    regions = tuple(
        scored(RegionNote(box=note.box, label=note.label, description=note.description, origin=note.origin))
        for note in truth.regions
    )
    return Notes(tuple(map(scored, truth.texts)), regions, tuple(map(scored, truth.groundings)))


@pytest.mark.slow
def test_publishing_writes_at_most_a_fiftieth_of_the_image_bytes(tmp_path, record_property):
    store = Store.create(tmp_path / "store")
    store.ingest(ImageIn(uri=uri(seed), data=jpeg(seed, 256, grain=16.0, quality=92)) for seed in range(300))
    image_bytes = store.sql("SELECT sum(size_bytes) AS n FROM images")[0]["n"]
    assert image_bytes > 300 * 30_000  # as files of photographs at this size
    fill(store.layer("all", "r1-a"), store, annotated)
    store.define_round(1, {"all": "r1-a"})
    before = bytes_of(store.folder)
    store.publish(1)
    share = added(before, bytes_of(store.folder)) / image_bytes
    record_property("share", share)
    assert share <= 0.02
    assert store.records(1)[299].regions
    # With outlines and questions too, as much as is known about a drawn scene.
    fill(store.layer("all", "r2-a"), store, lambda uri: notes_of(record(seed_of(uri), 256)))
    store.define_round(2, {"all": "r2-a"})
    before = bytes_of(store.folder)
    store.publish(2)
    everything = added(before, bytes_of(store.folder)) / image_bytes
    record_property("everything", everything)
    assert everything <= 0.025


# ---- differences


def differs(store: Store, say) -> object:
    fill(store.layer("truth", "r2-a"), store, say)
    store.define_round(2, {"truth": "r2-a"})
    store.publish(2)
    return store.diff(1, 2)


def test_a_round_does_not_differ_from_itself(full):
    diff = full.diff(1, 1)
    assert (diff.images, diff.changed, diff.total.added, diff.total.removed, diff.total.share) == (SCENES, 0, 0, 0, 0.0)
    assert diff.kinds["regions"].same == sum(len(record(seed).regions) for seed in range(SCENES))


def test_differences_are_counted_by_kind(store):
    def other(name: str) -> Notes:
        if seed_of(name) != 4:
            return truth(name)
        notes = truth(name)
        regions = (replace(notes.regions[0], label="zebra"), *notes.regions[1:])  # one away, one new
        return replace(notes, texts=notes.texts[1:], regions=regions, questions=())

    diff = differs(store, other)
    assert diff.changed == 1
    assert diff.examples == (store.corpus.ids(0)[4],)
    held = record(4)
    assert diff.kinds["texts"] == Changes(same=3 * SCENES - 1, added=0, removed=1)
    assert (diff.kinds["regions"].added, diff.kinds["regions"].removed) == (1, 1)
    assert diff.kinds["questions"].removed == len(held.questions)
    assert diff.kinds["phrases"].removed == 0
    assert 0 < diff.total.share < 0.1


def test_scores_do_not_count_and_places_by_their_overlap(store):
    def moved(by: float):
        def say(name: str) -> Notes:
            box = Box(10 + by, 10, 50 + by, 50)
            return Notes(regions=(RegionNote(box=box, label="cat", score=0.5 + by / 100),))

        return say

    for number, by in ((2, 0.0), (3, 1.0), (4, 10.0)):
        fill(store.layer("boxes", f"r{number}-a"), store, moved(by))
        store.define_round(number, {"boxes": f"r{number}-a"})
        store.publish(number)
    # By hand: 40 x 40 moved by 1 overlaps 39/41 = 0.951, moved by 10 it is 30/50 = 0.6.
    assert store.diff(2, 3).total == Changes(same=SCENES)
    assert store.diff(2, 4).total == Changes(added=SCENES, removed=SCENES)
    assert store.diff(2, 4, overlap=0.6).total == Changes(same=SCENES)


def test_images_of_one_round_alone_are_counted_apart(store):
    store.ingest(images(range(SCENES + 3)))
    fill(store.layer("truth", "r1-a"), store)
    diff = differs(store, truth)
    assert (diff.images, diff.changed, diff.only_first, diff.only_second) == (SCENES, 0, 0, 3)


def test_random_places_are_the_ones_read_in_turn(full):
    records = full.records()
    order = random.Random(0).sample(range(SCENES), SCENES)
    in_turn = list(records)
    assert [records[place] for place in order] == [in_turn[place] for place in order]


def test_a_round_holds_questions_and_groundings_with_spans(store):
    grounding = GroundingNote(text="a cat", phrases=(PhraseNote(phrase="cat", boxes=(Box(1, 2, 3, 4),), span=(2, 5)),))
    said = Notes(groundings=(grounding,), questions=(QuestionNote(question="what?", answers=("cat", "cat")),))
    fill(store.layer("said", "r2-a"), store, lambda uri: said)
    store.define_round(2, {"said": "r2-a"})
    store.publish(2)
    assert {(one.groundings, one.questions) for one in store.records(2)} == {(said.groundings, said.questions)}
