"""One image, and everything that is known about it."""

import json
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("lance")

from openflorence.contract.records import RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import LayerRow, Notes
from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn
from openflorence.engine.fuse import fuse
from openflorence.engine.show import as_row, as_text, describe, draw_image, find_image
from openflorence.engine.votes import FuseRule, Voter
from openflorence.errors import BadConfig
from tests.noted_store import noted, png
from tests.small_store import write


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return noted(tmp_path_factory.mktemp("show") / "fld")


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_an_image_is_found_by_row_id_uri_and_their_parts(store):
    ids = [name for unit in store.units() for name in store.corpus.ids(unit)]
    there = (2, 1, 0)  # row, unit, place
    for name in ("2", ids[2], ids[2][:10], "/pictures/c.png", "c.png", "pictures/c.png", f"store:{store.folder}#2"):
        assert find_image(store, name) == there, name


@pytest.mark.parametrize("name", ["4", "nowhere.png", "", "png", "%", "abc"])
def test_a_name_that_no_image_has_is_told(store, name):
    with pytest.raises(BadConfig, match=r"no image of .*give a row from 0 to 3"):
        find_image(store, name)


def test_a_name_that_several_have_lists_them(tmp_path):
    store = noted(tmp_path / "fld")
    store.ingest([ImageIn(uri="/other/a.png", data=png(7))])
    with pytest.raises(BadConfig, match=r"several images .*/pictures/a\.png.*/other/a\.png"):
        find_image(store, "a.png")
    assert find_image(store, "other/a.png") == (4, 2, 0)


def test_everything_is_told_in_lines(store):
    found = lines(as_text(describe(store, "b.png")))
    size = len(png(40))
    assert found[0] == "image 1 /pictures/b.png"
    assert f"size 100 x 50 px, image/png, {size:,} bytes" in found
    assert "licence CC0" in found
    assert "place unit 0, place 1" in found
    assert "own r0-a ok, 3 notes" in found
    assert 'own/region0 label "cat" box (40 20 60 30) 1.00 (own, m 1, round 0)' in found
    dropped = found.index('own/region1 label "cat" box (40 20 61 31) 0.20 (own, m 1, round 0)')
    assert found[dropped + 1] == "DROPPED by score of filter: score 0.20 is below 0.50"
    assert 'own/question0 question "What is it?" answers "a cat", "a cat", "cat" (own, m 1, round 0)' in found
    assert "filter r0-b ok, 0 notes, drops 1" in found
    published = found[found.index("round 0, published") :]
    assert len([line for line in published if line.startswith('label "cat"')]) == 1


def test_texts_quads_and_phrases_are_told(store):
    found = lines(as_text(describe(store, "0")))
    assert 'own/text0 brief text "a red cat sleeps" 0.90 (own, m 1, round 0)' in found
    assert 'own/region1 word "EXIT" quad 60,10 80,10 80,15 60,15 0.50 (own, m 1, round 0)' in found
    assert '"a red cat" (0 0 50 50), (50 25 100 50)' in found


def test_why_an_image_failed_is_told(store):
    found = lines(as_text(describe(store, "c.png")))
    assert "own r0-a failed, 0 notes" in found
    assert "Timeout in own, tried 3 times: took more than 5 s" in found
    assert "round 0, published: nothing about this image" in found


def test_programs_get_the_same_as_json(store):
    row = json.loads(json.dumps(as_row(describe(store, "b.png"))))
    assert row["image"]["row"] == 1
    assert (row["image"]["width"], row["image"]["height"], row["image"]["licence"]) == (100, 50, "CC0")
    own = row["layers"][0]
    assert (own["layer"], own["run_id"], own["status"], own["error"]) == ("own", "r0-a", "ok", None)
    assert [note["id"] for note in own["notes"]] == ["own/region0", "own/region1", "own/question0"]
    (verdict,) = own["notes"][1]["verdicts"]
    assert verdict == {
        "layer": "filter",
        "note_id": "own/region1",
        "rule": "score",
        "reason": "score 0.20 is below 0.50",
        "value": 0.2,
    }
    assert [region["box"] for region in row["records"]["0"]["regions"]] == [[40, 20, 60, 30]]
    failed = as_row(describe(store, "c.png"))["layers"][0]
    assert failed["error"] == {"kind": "Timeout", "message": "took more than 5 s", "stage": "own", "attempts": 3}


def test_a_fused_note_names_what_it_came_from(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri="a.png", data=png(3))])
    (name,) = store.corpus.ids(0)
    said = {
        "one": Notes(regions=(RegionNote(box=Box(0, 0, 50, 50), label="cat", score=0.9),)),
        "two": Notes(regions=(RegionNote(box=Box(0, 0, 50, 48), label="cat", score=0.7),)),
    }
    for layer, notes in said.items():
        write(store.layer(layer, "r0"), store, lambda _, notes=notes: [LayerRow(name, notes=notes)])
    notes, verdicts = fuse(said, FuseRule((Voter("one", ("object",)), Voter("two", ("object",)))))
    write(store.layer("fuse", "r0"), store, lambda _: [LayerRow(name, notes=notes, verdicts=verdicts)])
    store.define_round(0, {"one": "r0", "two": "r0", "fuse": "r0"}, notes_from=["fuse"])
    shown = describe(store, "0")  # not published yet
    assert shown.records == {}
    found = lines(as_text(shown))
    assert "from one/region0, two/region0" in found
    assert len([line for line in found if line.startswith("part of fuse/region0")]) == 2
    with pytest.raises(BadConfig, match="published rounds with it: none"):
        draw_image(shown, tmp_path / "x.png")


def test_runs_of_no_round_and_other_names_are_told(tmp_path):
    store = noted(tmp_path / "fld")
    store.ingest([ImageIn(uri="/copies/of a.png", data=png(0))])
    write(store.layer("own", "r1-new"), store, lambda unit: [LayerRow(name) for name in store.corpus.ids(unit)])
    found = lines(as_text(describe(store, "0")))
    assert "also as /copies/of a.png" in found
    assert "own: 1 more of no round (r1-new)" in found


def test_an_image_without_a_round_and_a_round_that_there_is_none_of(tmp_path):
    store = Store.create(tmp_path / "fld")
    store.ingest([ImageIn(uri="a.png", data=png(3), meta={"camera": "X\x1b[2J"})])
    text = as_text(describe(store, "0"))
    assert "no round was made yet" in text
    assert "\x1b" not in text  # what steers a terminal is spelt
    with pytest.raises(BadConfig, match="has no round 3; it has none yet"):
        describe(store, "0", 3)


def test_a_text_cannot_steer_the_terminal(tmp_path):
    store = noted(tmp_path / "fld", Notes(texts=(TextNote(text="red \x1b[31m\nnew line"),)))
    text = as_text(describe(store, "0"))
    assert "\x1b" not in text
    assert '"red \\u001b[31m\\nnew line"' in text


def test_a_picture_is_drawn_with_all_there_is(store, tmp_path):
    path = draw_image(describe(store, "a.png"), tmp_path / "new" / "a.png")
    drawn = Image.open(path)
    # Objects, words and phrases: 100 px are drawn five times as large, in two columns twelve pixels apart.
    assert drawn.width == 2 * 500 + 12
    assert [one.name for one in path.parent.iterdir()] == ["a.png"]
    alone = Image.open(draw_image(describe(store, "b.png"), tmp_path / "b.png"))
    assert alone.size == (500, 250)
    with pytest.raises(BadConfig, match="as PNG"):
        draw_image(describe(store, "a.png"), tmp_path / "a.jpg")


def test_the_commands_tell_draw_and_write_a_page(store, tmp_path: Path, call):
    told = call("engine", "show", store.folder, "b.png", "--out", tmp_path / "b.png")
    assert told.code == 0
    assert "DROPPED by score" in told.out
    assert (tmp_path / "b.png").exists()
    (row,) = call("engine", "show", store.folder, "1", "--json").rows
    assert row["image"]["uri"] == "/pictures/b.png"
    missing = call("engine", "show", store.folder, "x.png")
    assert (missing.code, missing.out) == (2, "")
    counted = call("engine", "stats", store.folder, "--page", tmp_path / "report.html", "--pictures", "2")
    assert counted.code == 0
    assert "- annotations: 8" in counted.out
    assert "report.html" in counted.err
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
    other = call("engine", "stats", store.folder, "--round", "7")
    assert other.code == 2
    assert "round 7 is not published" in other.err
