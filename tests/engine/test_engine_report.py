"""A round as a page: it stands alone, data stays data, and what was drawn is where the notes are."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lance")

from openflorence.contract.records import GroundingNote, PhraseNote, Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.data.notes import Notes
from openflorence.data.store import Store
from openflorence.engine.panels import panels, shots
from openflorence.engine.report import find_note, spread, write_report
from openflorence.engine.stats import measure
from tests.noted_store import EVIL, A, B, empty, noted
from tests.webpage import Reader, standing_alone


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return noted(tmp_path_factory.mktemp("report") / "fld")


def page_of(store: Store, folder: Path, pictures: int = 24) -> Reader:
    path = write_report(store, measure(store), folder / "new" / "report.html", pictures)
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    return standing_alone(path.read_text("utf-8"))


def pictures_of(reader: Reader) -> list[Image.Image]:
    sources = [one["src"] or "" for one in reader.named("img")]
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB") for source in sources]


def test_a_page_shows_tables_charts_and_pictures(store, tmp_path):
    reader = page_of(store, tmp_path)
    for words in ("Round 0 of fld", "text-phrase-region, brief", "FLD-5B for comparison", "Where phrases are"):
        assert words in reader.words
    assert ["region-text, all", "2", "–", "–", "3", "1.50", "–"] in reader.rows
    assert len([one for one in reader.named("svg") if one["class"] == "chart"]) == 4 + 4 + 2  # regions, phrases, scores
    # The dropped cat; of a.png objects, words and the phrases; the others as they are.
    assert len(reader.named("img")) == 1 + 3 + 3
    assert "read EXIT (0.50)" in reader.words
    assert "What is it? → a cat, cat" in reader.words


def test_a_dropped_note_is_drawn_where_it_is_with_the_reason(store, tmp_path):
    reader = page_of(store, tmp_path)
    assert ["score", "region", "filter", "1", "score 0.20 is below 0.50"] in reader.rows
    assert "pictures/b.png · 1 score: region" in reader.words
    picture = np.asarray(pictures_of(reader)[0]).astype(int)
    assert picture.shape == (240, 480, 3)
    # 40, 20, 61, 31 of 100 x 50, drawn 4.8 times as large in the first colour, on a picture of 40, 40, 200.
    blue = np.argwhere(np.abs(picture - (0x25, 0x63, 0xEB)).sum(axis=2) < 30)
    inside = blue[blue[:, 0] > 110]  # below its label
    assert np.abs(inside[:, 1].min() - 192) <= 3
    assert np.abs(inside[:, 1].max() - 293) <= 3
    assert np.abs(inside[:, 0].max() - 149) <= 3


def test_failed_images_are_listed_with_their_reasons(store, tmp_path):
    reader = page_of(store, tmp_path)
    assert ["pictures/c.png · 2", "own", "Timeout", "took more than 5 s"] in reader.rows
    (broken,) = [row for row in reader.rows if row[0] == "pictures/broken.jpg"]
    assert broken[1:3] == ["ingest", "BadImage"]
    assert "not an image of a known format" in broken[3]


def test_nothing_from_data_becomes_markup(tmp_path):
    text = TextNote(text=EVIL, level="brief")
    region = replace(A.regions[0], label=EVIL, description=EVIL, origin=replace(A.regions[0].origin, source=EVIL))
    grounding = GroundingNote(text=EVIL, phrases=(PhraseNote(phrase=EVIL[:8], boxes=(Box(0, 0, 9, 9),)),))
    word = replace(A.regions[1], word=EVIL)
    hostile = Notes((text,), (region, word), (grounding,), B.questions)
    store = noted(tmp_path / "<script>fld", hostile, B)
    path = write_report(store, measure(store), tmp_path / "report.html")
    reader = standing_alone(path.read_text("utf-8"))
    assert len(reader.named("script")) == 1
    assert {"onerror"} & {name for _, attrs in reader.tags for name in attrs} == set()
    assert EVIL in reader.words
    assert "Round 0 of <script>fld" in reader.words


def test_a_round_without_notes_has_a_page(tmp_path):
    reader = page_of(empty(tmp_path / "fld"), tmp_path)
    assert "Where regions are" not in reader.words
    assert reader.words.count("no notes") == 4
    assert len(reader.named("img")) == 4 + 1  # the rule still drops what is no longer there
    assert "nan" not in reader.words


def test_without_pictures_there_are_tables_alone(store, tmp_path):
    reader = page_of(store, tmp_path, pictures=0)
    assert reader.named("img") == []
    assert "Pictures" not in reader.words


def test_of_many_images_some_are_shown_in_groups(store, tmp_path):
    reader = page_of(store, tmp_path, pictures=3)
    for name in ("from all over the store", "with most annotations", "with fewest annotations"):
        assert f"Pictures {name}" in reader.words
    # b.png is dropped on; one of each group: somewhere, a.png with most, c.png with fewest.
    assert "pictures/a.png · 0 5 notes" in reader.words
    assert "pictures/c.png · 2 no notes" in reader.words


def test_a_picture_that_is_gone_is_said(tmp_path):
    store = noted(tmp_path / "fld")
    gone = replace(store.records()[0], image=f"store:{store.folder}#99")
    (shot,) = shots(gone, panels(gone))
    assert shot.data == ""
    assert "the store has 4 images" in shot.missing


def test_a_sample_is_spread_over_the_store():
    assert [place // 10 for place in spread(100, 10, 0)] == list(range(10))
    assert spread(100, 10, 0) == spread(100, 10, 0) != spread(100, 10, 1)
    assert spread(3, 3, 0) == [0, 1, 2]
    assert len(spread(2, 5, 0)) == 2


def test_a_note_is_found_by_its_id(store):
    runs = {"own": "r0-a"}
    assert [store.corpus.place_of(row) for row in range(4)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert find_note(store, runs, 1, "own/region1") == B.regions[1]
    assert find_note(store, runs, 0, "own/grounding0.phrase0") == A.groundings[0]
    assert find_note(store, runs, 0, "own/region9") is None
    assert find_note(store, runs, 0, "other/region0") is None


def test_each_kind_is_a_panel_of_its_own():
    ring = (Point(0, 0), Point(9, 0), Point(9, 9))
    cut = RegionNote(polygons=(ring,), label="hill")
    boxed = RegionNote(box=Box(1, 2, 3, 4), word="STOP")
    record = Record(image="x", image_wh=(100, 50), regions=(*A.regions, cut, boxed), groundings=A.groundings)
    found = panels(record)
    names = ["objects: 1", "outlines: 1", "words: 2", "phrases of “a red cat sleeps”"]
    assert [name for name, _ in found] == names
    answers = dict(found)
    assert [region.label for region in answers["words: 2"].regions] == ["EXIT", "STOP"]
    assert answers["words: 2"].regions[1].quad == (Point(1, 2), Point(3, 2), Point(3, 4), Point(1, 4))
    assert answers["outlines: 1"].regions[0].polygons == (ring,)
    assert len(answers[names[3]].regions) == 2
