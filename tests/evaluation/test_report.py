"""Reports: what stands on the page, that it stands alone, and that data stays data."""

import base64
import hashlib
import io
import re
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.tasks import find_task
from openflorence.data.chance import dice
from openflorence.data.truth import ask
from openflorence.data.world import draw_scene
from openflorence.errors import BadConfig, BadImage
from openflorence.evaluation.captions import measure_captions
from openflorence.evaluation.compare import compare
from openflorence.evaluation.gallery import worst_and_best
from openflorence.evaluation.metrics import Figure
from openflorence.evaluation.paper import ZERO_SHOT
from openflorence.evaluation.phrases import recalls, score_expression, score_referred_mask
from openflorence.evaluation.reliability import reliability
from openflorence.evaluation.report import write_pages
from openflorence.evaluation.results import Exhibit, Results, measure_mean
from openflorence.pages.pieces import Heading
from tests.webpage import Reader, standing_alone

EVIL = """<script>alert(1)</script> <img src=x onerror="alert('2')"> & "q" 'p' ]]> --> | `c` ![i](http://e.x/i.png)"""


def grey(side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), "#808080")


def exhibit(image="a.jpg", said="a dog", task="caption", true="a cat", question="What is there?", side=64) -> Exhibit:
    """One question; of a task of regions, what is said and true are the labels of one box."""
    asked = find_task(task)

    def answer(words: str) -> Answer:
        regions = (Region(words, box=Box(4, 4, side / 2, side / 2)),) if asked.form != "text" else ()
        return Answer(asked, (side, side), words, regions)

    return Exhibit(image, partial(grey, side), question, answer(true), answer(said))


def results(scores=(0.0, 0.5, 1.0), benchmark="coco-caption", figure="cider_d", exhibits=None, **more) -> Results:
    names = tuple(f"{i}.jpg" for i in range(len(scores)))
    if exhibits is None:
        exhibits = tuple(exhibit(name) for name in names)
    measured = {figure: measure_mean(np.array(scores, float))}
    plain = Results(benchmark, names, len(names), 0, 0, 0, 0, measured, exhibits=exhibits, about={"model": "nano"})
    return replace(plain, **more)


def read(folder) -> tuple[Reader, str]:
    return standing_alone((folder / "report.html").read_text("utf-8")), (folder / "report.md").read_text("utf-8")


def pages(tmp_path, some, comparisons=(), pictures=4) -> tuple[Reader, str]:
    """Write and read a report; every page has to stand alone."""
    assert write_pages(some, tmp_path / "new", comparisons, pictures) == (
        tmp_path / "new" / "report.md",
        tmp_path / "new" / "report.html",
    )
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["report.html", "report.md"]
    return read(tmp_path / "new")


def cell(rows: list[list[str]], row: str, column: str) -> str:
    """A cell of the first table that has the column and the row."""
    head: list[str] = []
    for cells in rows:
        head = cells if column in cells else head
        if head and cells[0] == row and len(cells) == len(head):
            return cells[head.index(column)]
    raise AssertionError(f"no {row!r} by {column!r}")


# ---- what stands there


def test_figures_intervals_and_counts_stand_in_their_tables(tmp_path):
    some = results(asked=8, invalid=2, truncated=1, refused=0, missing=4)
    reader, markdown = pages(tmp_path, [some])
    assert cell(reader.rows, "coco-caption", "value") == "50.0"
    # Drawn anew three times from 0, 50 and 100: all alike in 2 of 27 drawings, more than 2.5 %, so the ends are theirs.
    assert cell(reader.rows, "coco-caption", "95 % interval") == "0.0 to 100.0"
    assert cell(reader.rows, "coco-caption", "invalid") == "2 (25.0 %)"
    assert cell(reader.rows, "coco-caption", "truncated") == "1 (12.5 %)"
    assert cell(reader.rows, "coco-caption", "refused") == "0"
    assert cell(reader.rows, "coco-caption", "missing") == "4 (50.0 %)"
    assert "| coco-caption | CIDEr-D | 50.0 | 0.0 to 100.0 | 3 |" in markdown
    assert "| coco-caption | 8 | 2 (25.0 %) | 1 (12.5 %) | 0 | 4 (50.0 %) |" in markdown


def test_what_was_run_is_said(tmp_path):
    about = {"model": "nano", "date": "2026-11-24", "seconds": 12.5, "options": {"beams": 3, "limit": None}, "data": ""}
    reader, markdown = pages(tmp_path, [results(about=about)])
    for line in ("model: nano", "date: 2026-11-24", "seconds: 12.5", "options: beams 3", "images: 3", "questions: 3"):
        assert f"- {line}\n" in markdown
    assert "- data" not in markdown
    assert {"nano", "2026-11-24", "12.5", "beams 3"} <= set(reader.text)
    assert "Evaluation of nano" in reader.words


def test_our_column_stands_beside_that_of_the_paper(tmp_path):
    some = [
        results((1.2, 1.4)),
        results((0.5, 0.7), "refcoco", "accuracy", about={"model": "nano", "split": "testB"}),
        results((0.5, 0.9), "vqav2", "accuracy", about={"model": "nano", "split": "val"}),
    ]
    reader, markdown = pages(tmp_path, some)
    captions = next(row for row in reader.rows if row[0] == "COCO captions Karpathy test, CIDEr")
    # Two images: their mean, and 120 and 140 as the ends. Table 4 prints 135.6, 133.0, nothing and 84.3.
    assert captions[1] == "130.0 ± 10.0"
    assert captions[3:] == ["135.6", "133.0", "–", "84.3"]
    assert cell(reader.rows, "RefCOCO testB, accuracy", "nano (ours)") == "60.0 ± 10.0"
    assert cell(reader.rows, "RefCOCO testA, accuracy", "nano (ours)") == "–"
    assert cell(reader.rows, "RefCOCO testB, accuracy", "Florence-2-L 0.77B") == "51.4"
    # Another part than the paper's names itself, and has no place in the chart.
    row = next(row for row in reader.rows if row[0] == "VQAv2 test-dev, accuracy")
    assert row[1:4] == ["70.0 ± 20.0 (on val)", "", "81.7"]
    assert "score protocol" in markdown
    assert "| RefCOCO testB, accuracy | 60.0 ± 10.0 | 51.4 | 49.7 | 47.3 | – |" in markdown


def test_protocols_that_the_paper_does_not_name_stand_side_by_side(tmp_path):
    one = results((0.2, 0.4), "coco-detect", "map")
    one = replace(one, measured=one.measured | {"map_constant": measure_mean(np.array([0.1, 0.3]))})
    reader, _ = pages(tmp_path, [one])
    assert cell(reader.rows, "COCO detection val2017, mAP", "nano (ours)") == (
        "mAP 30.0 ± 10.0; mAP constant 20.0 ± 10.0"
    )


def test_what_the_paper_is_compared_by_is_measured_under_that_name():
    # The names that the scorers give; a figure renamed there would leave its row of the paper empty.
    box = Box(0, 0, 4, 4)
    mask = np.ones((4, 4), bool)
    given = {
        "coco-caption": set(measure_captions(["a cat", "a dog"], [["a cat"], ["a cow"]], rounds=2)),
        "flickr30k": set(recalls([box], [box])),
        "refcoco": set(score_expression([Region(box=box)], box)),
        "refcoco-segment": set(score_referred_mask([], mask)),
    }
    for row in ZERO_SHOT.rows:
        assert set(row.ours) <= given.get(row.benchmark, set(row.ours)), row.title


def test_a_benchmark_of_our_own_has_no_tables_of_the_paper(tmp_path):
    reader, _ = pages(tmp_path, [results(benchmark="world detect")])
    assert "None of these benchmarks is in the tables" in reader.words
    assert "Flamingo" not in reader.words


def test_several_models_are_told_apart(tmp_path):
    reader, _ = pages(tmp_path, [results(), results((1, 1, 1), about={"model": "base"})])
    assert cell(reader.rows, "coco-caption · base", "value") == "100.0"
    assert cell(reader.rows, "COCO captions Karpathy test, CIDEr", "base (ours)") == "100.0 ± 0.0"


def test_tables_by_category_and_size_can_be_sorted(tmp_path):
    tables = {
        "category": {f"thing {i}": Figure(i / 80, 0.01, i) for i in range(80)} | {"": Figure(None, None, 0)},
        "size": {"small": Figure(0.25, None, 3)},
    }
    reader, markdown = pages(tmp_path, [results(tables=tables)])
    assert cell(reader.rows, "thing 40", "value") == "50.0"
    assert cell(reader.rows, "thing 40", "±") == "1.0"
    assert cell(reader.rows, "(no name)", "value") == "–"
    assert cell(reader.rows, "small", "judged") == "3"
    assert [table.get("class") for table in reader.named("table")].count("sortable") == 2
    assert "| small | 25.0 | – | 3 |" in markdown


def test_the_verdict_and_what_differs_stand_on_the_page(tmp_path):
    a = results((0.1, 0.5, 0.7), about={"model": "old"})
    b = results((0.3, 0.6, 0.8), about={"model": "new"}, missing=2)
    reader, markdown = pages(tmp_path, [a, b], [compare(a, b)])
    # 20, 10 and 10 points: the mean is 13.3, and drawn anew three times from 20 and 10 it is from 10 to 20.
    verdict = "CIDEr-D: new is better: +13.3 points, 95 % interval 10.0 to 20.0."
    assert verdict in reader.words
    assert f"**{verdict}**" in markdown
    assert "for they have no answer: 0 and 2 questions" in reader.words
    assert "10.0 → 30.0" in reader.words
    assert "| CIDEr-D | 10.0" not in markdown


# ---- pictures


def shown(pieces) -> dict[str, list[str]]:
    groups = [pieces[i : i + 3] for i, piece in enumerate(pieces) if isinstance(piece, Heading)]
    return {head.text: [card.title for card in gallery.cards] for head, _, gallery in groups}


def test_the_worst_and_the_best_are_different_images():
    some = results((0.4, 0.0, 1.0, 0.2, 0.9))
    assert shown(worst_and_best(some, 2)) == {
        "Worst pictures": ["1.jpg", "3.jpg"],
        "Best pictures": ["2.jpg", "4.jpg"],
    }
    assert shown(worst_and_best(results((0.4, 0.0, 1.0)), 4)) == {
        "Worst pictures": ["1.jpg"],
        "Best pictures": ["2.jpg"],
    }
    assert worst_and_best(some, 0) == worst_and_best(replace(some, exhibits=()), 2) == []


def test_images_that_score_the_same_are_one_group():
    assert shown(worst_and_best(results((1.0, 1.0)), 4)) == {
        "Pictures; every image scores the same": ["0.jpg", "1.jpg"]
    }
    assert shown(worst_and_best(results((1.0,)), 4)) == {"Pictures": ["0.jpg"]}
    assert shown(worst_and_best(results((np.nan, np.nan)), 1)) == {"Pictures": ["0.jpg"]}


def test_of_equal_scores_the_fuller_image_is_shown():
    full = exhibit("3.jpg", task="detect")
    full = replace(full, true=replace(full.true, regions=full.true.regions * 5))
    some = results((0, 0, 1, 1), exhibits=(*(exhibit(f"{i}.jpg", task="detect") for i in range(3)), full))
    assert shown(worst_and_best(some, 1)) == {"Worst pictures": ["0.jpg"], "Best pictures": ["3.jpg"]}


def test_truth_and_answer_are_drawn_side_by_side(tmp_path):
    scene = draw_scene(3)
    asked = ask(scene, "detect", dice(3))
    said = replace(asked.answer, regions=asked.answer.regions[:1], invalid=2, truncated=True)
    one = Exhibit("0.jpg", partial(Image.fromarray, scene.image), "Locate all.", asked.answer, said)
    reader, _ = pages(tmp_path, [results((0.5,), exhibits=(one,))])
    sources = [attrs["src"] for attrs in reader.named("img")]
    assert len(sources) == len(set(sources)) == 2
    for source in sources:
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert max(picture.size) == 480  # 128 px, enlarged so that its letters are those of other pictures
    assert f"truth: {len(asked.answer.regions)} regions" in reader.words
    assert "answer: 1 region (cut by a limit, pieces that could not be read: 2)" in reader.words


def test_a_large_picture_is_made_small_and_its_regions_with_it(tmp_path):
    big = exhibit("0.jpg", task="detect", side=2000)
    box = replace(big.true, regions=(Region(box=Box(500, 1000, 1500, 1800)),))
    reader, _ = pages(tmp_path, [results((0.5,), exhibits=(replace(big, true=box, said=box),))])
    source = reader.named("img")[0]["src"]
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
    assert picture.size == (480, 480)
    # A box without a name, of 2 px lines: at 120, 240, 360 and 432 of 480.
    coloured = np.argwhere(np.ptp(np.asarray(picture).astype(int), axis=2) > 60)
    assert np.abs(coloured.min(axis=0) - (240, 120)).max() <= 2
    assert np.abs(coloured.max(axis=0) - (432, 360)).max() <= 2


@pytest.mark.parametrize("task", ["segment", "read_regions", "ground"])
def test_every_geometry_can_be_drawn(tmp_path, task):
    ring = (Point(2, 2), Point(900, 9), Point(900, 700), Point(9, 700))
    region = {"segment": Region(polygons=(ring,)), "read_regions": Region("EXIT", quad=ring)}.get(
        task, Region("a sign", box=Box(2, 2, 900, 700))
    )
    answer = Answer(find_task(task), (1000, 800), "", (region,))
    one = Exhibit("0.jpg", lambda: Image.new("RGB", (1000, 800)), "What?", answer, replace(answer, regions=()))
    reader, _ = pages(tmp_path, [results((0.5,), exhibits=(one,))])
    assert len(reader.named("img")) == 2
    assert "answer: nothing" in reader.words


def test_words_stand_beside_one_picture_and_a_common_question_is_said_once(tmp_path):
    reader, _ = pages(tmp_path, [results((0.0, 1.0))])
    assert len(reader.named("img")) == 2  # one an image
    assert reader.words.count("What is there?") == 2  # one a group
    assert reader.words.count("a cat") == reader.words.count("a dog") == 2


def test_many_questions_about_one_image_are_counted(tmp_path):
    many = tuple(exhibit("0.jpg", said=f"answer {i}", question=f"question {i}?") for i in range(5))
    reader, _ = pages(tmp_path, [results((0.5,), exhibits=many)])
    assert "question 2?" in reader.words
    assert "question 3?" not in reader.words
    assert "2 more questions about this image" in reader.words


def test_a_picture_that_is_gone_is_said(tmp_path):
    def gone() -> Image.Image:
        raise BadImage("no file <b>x.jpg</b>")

    lost = replace(exhibit("0.jpg"), picture=gone)
    small = replace(exhibit("1.jpg", task="detect"), picture=partial(grey, 32))
    reader, _ = pages(tmp_path, [results((0.0, 1.0), exhibits=(lost, small))])
    assert reader.named("img") == []
    assert "The picture cannot be shown: no file <b>x.jpg</b>" in reader.words
    assert "the attached one has (32, 32)" in reader.words


# ---- data stays data


def test_nothing_from_data_becomes_markup(tmp_path):
    def evil(image: str, task: str) -> Exhibit:
        return exhibit(image, said=EVIL, task=task, true=EVIL, question=EVIL)

    a = results(
        (0.0, 1.0),
        benchmark=EVIL,
        figure=EVIL,
        images=(EVIL, "b"),
        exhibits=(evil(EVIL, "caption"), evil("b", "detect")),
        tables={EVIL: {EVIL: Figure(0.5, 0.1, 2)}},
        about={"model": EVIL, EVIL: {EVIL: EVIL}, "split": EVIL},
    )
    b = replace(a, measured={EVIL: measure_mean(np.array([1.0, 0.0]))}, about={"model": f"b {EVIL}"})
    reader, markdown = pages(tmp_path, [a, b], [compare(a, b)])
    allowed = {"html", "head", "meta", "title", "style", "body", "main", "h1", "nav", "a", "h2", "h3", "p", "div"}
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "svg", "g", "line", "circle", "dl", "dt", "dd", "article"}
    allowed |= {"header", "span", "figure", "img", "figcaption", "strong", "script"}
    assert {tag for tag, _ in reader.tags} <= allowed
    assert "onerror" not in {name for _, attrs in reader.tags for name in attrs}
    assert EVIL in reader.words
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)[`*]|(?<!\\)\]\(", markdown.replace("**", ""))
    assert {line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith(r"| \<")} <= {6, 7}


def test_the_policy_allows_the_one_script_and_nothing_from_elsewhere(tmp_path):
    reader, _ = pages(tmp_path, [results()])
    policy = next(one["content"] for one in reader.named("meta") if one.get("http-equiv") == "Content-Security-Policy")
    page = (tmp_path / "new" / "report.html").read_text("utf-8")
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_unicode_and_texts_without_end_stay_readable(tmp_path):
    long = "猫と犬 🐈 שלום " * 2000
    odd = exhibit("0.jpg", said=long, true="e\u0301 \x00 \x1b \ud800 \u202e", question="¿Qué?\nhay")
    reader, markdown = pages(tmp_path, [results((0.5,), exhibits=(odd,))])
    assert "猫と犬 🐈 שלום" in reader.words
    assert f"({len(long):,} letters)" in reader.words
    assert max(map(len, markdown.splitlines())) < 1500
    assert not {"\x00", "\x1b", "\ud800"} & set(reader.words)
    labels = exhibit("0.jpg", said="一" * 300, true="word " * 300, task="detect")
    pages(tmp_path, [results((0.5,), exhibits=(labels,))])


# ---- odd inputs


def test_without_results_there_is_no_report(tmp_path):
    with pytest.raises(BadConfig, match="at least one benchmark"):
        write_pages([], tmp_path)


@pytest.mark.parametrize("scores", [(), (0.5,), (np.nan,), (np.nan, np.nan)], ids=["none", "one", "nan", "nans"])
def test_few_images_and_no_value_are_dashes(tmp_path, scores):
    reader, _ = pages(tmp_path, [results(scores)])
    interval = cell(reader.rows, "coco-caption", "95 % interval")
    assert interval == "–"
    assert cell(reader.rows, "coco-caption", "value") == ("50.0" if scores == (0.5,) else "–")
    assert "nan" not in reader.words.lower().replace("nano", "")


def test_nothing_measured_and_figures_that_are_not_numbers(tmp_path):
    bare = results(measured={}, tables={"size": {"small": Figure(float("nan"), float("nan"), 0)}})
    strange = results((0.5, 0.5))
    figure = replace(strange.measured["cider_d"], figure=Figure(float("nan"), float("nan"), 2))
    reader, _ = pages(tmp_path, [bare, replace(strange, measured={"cider_d": figure})])
    assert cell(reader.rows, "small", "value") == "–"
    assert "nan" not in reader.words.lower().replace("nano", "")


def test_a_reader_never_sees_half_a_report(tmp_path, monkeypatch):
    write_pages([results()], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    target = sys.modules["openflorence.data.problems"].os
    monkeypatch.setattr(target, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_pages([results((1, 1, 1))], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- calibration


def test_the_calibration_error_by_hand():
    # Two scores of 0.85, one right: 0.35 apart. Two of 0.15, none right: 0.15 apart. Each half of the scores.
    rows = np.array([[0.85, 1], [0.85, 0], [0.15, 0], [0.15, 0]])
    measured = reliability(rows)
    assert measured.error == pytest.approx(0.25)
    assert [(one.low, one.n, one.right) for one in measured.bins if one.n] == [(0.1, 2, 0.0), (0.8, 2, 0.5)]
    assert reliability(np.array([[1.0, 1.0], [0.0, 0.0]])).error == 0.0  # the ends belong to the last and first bin
    assert reliability(np.zeros((0, 2))).error is None
    assert reliability(np.array([[np.nan, 1.0], [0.5, 1.0]])).n == 1


def test_the_reliability_diagram_stands_beside_its_numbers(tmp_path):
    rows = np.array([[0.85, 1], [0.85, 0], [0.15, 0], [0.15, 0]])
    reader, markdown = pages(tmp_path, [results(confidences=rows)])
    assert "calibration error: 25.0 points over 4 scores" in reader.words
    assert cell(reader.rows, "0.8 to 0.9", "right") == "50.0"
    assert "| 0.8 to 0.9 | 2 | 85.0 | 50.0 |" in markdown
    (chart,) = [one for one in reader.named("svg") if one["class"] == "chart"]
    assert chart["aria-label"] == "Reliability diagram of 4 scores"
    # The squares of 240 start at 44 and 12: 85 % lies at 248, half right at 132.
    dots = {(one["cx"], one["cy"]) for one in reader.named("circle") if one["r"] == "3.5"}
    assert ("248.0", "132.0") in dots


def test_without_scores_there_is_no_diagram(tmp_path):
    reader, _ = pages(tmp_path, [results()])
    assert "Calibration" not in reader.words
