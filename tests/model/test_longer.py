"""More than one pass gives: cut answers go on where they ended, or are asked again in tiles."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import jaxtyping
import pytest
from answering import POSITIONS, REGION, TEXTS, drawn_picture, words_text

from openflorence.contract.answers import read_answer
from openflorence.contract.regions import Answer, Box, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.errors import BadConfig
from openflorence.model import longer
from openflorence.model.decode import Batch
from openflorence.model.longer import opening_of, without_repeats
from openflorence.model.predict import AskOptions, Florence, load

ALL = (*TASKS, FREE_TEXT)


@pytest.fixture(scope="module")
def model(answering_folder: Path) -> Florence:
    return load(answering_folder)


def question(task: Task) -> tuple:
    """A task with the words or the region it takes."""
    return task, TEXTS.get(task.name), REGION if task.input == "region" else None


# ---- where a pass begins

OPENINGS = {
    "from the first label that fits": ("detect", "car<b>bus<b><b>a car<b>", 14, "a car<b>"),
    "two labels": ("detect", "car<b>bus<b><b>a car<b>", 22, "bus<b><b>a car<b>"),
    "all of it": ("detect", "car<b>bus<b>", 99, "car<b>bus<b>"),
    "a label too far back comes along": ("detect", "bus<b>car<b><b><b>", 14, "car<b><b>"),
    "as many boxes as there is room": ("detect", "car<b><b><b>", 10, "car<b>"),
    "no room for a box": ("detect", "car<b><b><b>", 6, ""),
    "no label at all": ("detect", "<b><b><b>", 9, "<b><b>"),
    "no label any more": ("detect", "car<b><sep><b><b>", 9, ""),
    "a list of lines": ("read_regions", "car<b><b><b><b><b><b>", 20, "car<b><b><b><b>"),
    "a polygon before the boxes": ("find", "car<poly><b><b></poly><b><b>", 9, ""),
    "quads": ("read_regions", "car<b><b>bus<b><b>", 17, "bus<b><b>"),
    "phrases": ("ground", "a red car<b>a bus<b>", 16, "a bus<b>"),
    "bare boxes": ("propose", "<b><b><b>", 9, "<b><b>"),
    "one bare box": ("propose", "<b><b><b>", 4, "<b>"),
    "less than a box": ("propose", "<b><b><b>", 3, ""),
    "polygons": ("segment", "<poly><b><b></poly><poly><b><b><sep><b><b></poly>", 20, "<poly><b><b><sep><b><b></poly>"),
    "one bare polygon": ("segment", "<b><b>", 99, ""),
    "boxes or polygons": ("find", "car<b>bus<poly><b><b></poly>", 15, "bus<poly><b><b></poly>"),
    "text": ("caption", "a red car", 2, "ar"),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_pass_opens_with_the_end_of_what_was_said(name):
    task, said, keep, wanted = OPENINGS[name]
    spelling = words_text().spelling

    def ids(text: str) -> list[int]:
        """One token a letter, and <b> for four locations."""
        found, special = [], {"<sep>": spelling.sep, "<poly>": spelling.poly, "</poly>": spelling.end_poly}
        while text:
            word = next((word for word in ("<b>", *special) if text.startswith(word)), text[0])
            boxed = [spelling.first_location + bin_ for bin_ in (10, 20, 30, 40)]
            found += boxed if word == "<b>" else [special[word] if word in special else spelling.ids[word.encode()]]
            text = text[len(word) :]
        return found

    assert opening_of(ids(said), find_task(task), spelling, keep) == tuple(ids(wanted))


def test_regions_said_again_are_left_out():
    # By hand: of 100 x 100 px, 95 px of width overlap by 0.95, 80 px by 0.8.
    first = Region("car", box=Box(0, 0, 100, 100))
    again, wide, other = (
        replace(first, box=Box(0, 0, 95, 100)),
        replace(first, box=Box(0, 0, 80, 100)),
        replace(first, label="bus"),
    )
    answer = Answer(find_task("detect"), (200, 200), text="car, car, car, bus", regions=(first, again, wide, other))
    kept = without_repeats(answer)
    assert kept.regions == (first, wide, other)
    assert kept.text == "car, car, bus"
    caption = Answer(find_task("caption"), (200, 200), text="a car")
    assert without_repeats(caption) == caption


# ---- going on


def overlap(one: Region, other: Region) -> float:
    """Overlap over union of the bounds, by hand; 1 for what is the same."""
    a, b = one.bounds, other.bounds
    if a == b:
        return 1.0
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(0.0, width) * max(0.0, height)
    areas = (a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0)
    return shared / (areas - shared) if areas > shared else 0.0


def has(regions: Sequence[Region], region: Region) -> bool:
    return any(one.label == region.label and overlap(one, region) >= 0.9 for one in regions)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("more", [{}, {"max_regions": 3}, {"labels": ("car", "bus")}], ids=["any", "few", "closed"])
def test_a_continued_answer_loses_nothing_and_ends(model, beams, more, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # all other tests check shapes; twice the time
    gained, longer_texts, view = 0, 0, model.open(drawn_picture(3))
    for limit in (7, 13, 26):
        options = AskOptions(beams=beams, max_tokens=limit, **more)
        once = view.ask_many([question(task) for task in ALL], options)
        on = view.ask_many([question(task) for task in ALL], replace(options, more="continue"))
        for first, answer in zip(once, on, strict=True):
            assert answer.truncated == bool(answer.cut)
            if answer.task.input != "free":
                assert answer.invalid == 0
            if first.cut != "tokens":
                assert answer == first
                continue
            assert answer.raw.startswith(first.raw.rstrip("\ufffd"))
            assert all(has(answer.regions, region) for region in first.regions)
            read_back = read_answer(answer.raw, answer.task, answer.image_wh).regions
            assert all(any((r.label, r.points) == (one.label, one.points) for r in read_back) for one in answer.regions)
            if answer.raw != first.raw:  # a pass added something
                assert not any(has([one], other) for one, other in combinations(answer.regions, 2))
            assert len(answer.regions) <= more.get("max_regions", 10**6)
            gained += len(answer.regions) > len(first.regions)
            longer_texts += len(answer.text) > len(first.text) and answer.task.form == "text"
    assert gained > 0
    assert longer_texts > 0


def test_a_free_continuation_finishes_the_box_that_was_cut(model):
    options = AskOptions(beams=1, max_tokens=9, grammar=False)
    view = model.open(drawn_picture(3))
    first = view.ask("propose", options=options)
    answer = view.ask("propose", options=replace(options, more="continue"))
    assert first.cut == "tokens"
    assert first.invalid > 0  # seven locations: a box, and three of the next
    assert len(answer.regions) > len(first.regions)
    assert answer.raw.startswith(first.raw)


def test_no_answer_takes_more_passes_than_it_may(model, monkeypatch):
    monkeypatch.setattr(longer, "PASSES", 3)
    openings, plain = [], Batch.join

    def join(batch, jobs, memory, mask):
        openings.extend(job.opening for job in jobs)
        plain(batch, jobs, memory, mask)

    monkeypatch.setattr(Batch, "join", join)
    passes = []
    for task in ALL:
        openings.clear()
        model.open(drawn_picture(1)).ask(*question(task), AskOptions(beams=1, max_tokens=12, more="continue"))
        assert openings[0] == ()
        # Ten new ids a pass, and all that was said opens the next: there is room for it among 96 positions.
        assert all(0 < len(opening) <= 10 * place for place, opening in enumerate(openings[1:], start=1))
        passes.append(len(openings))
    assert max(passes) == 3
    assert min(passes) == 1


def test_an_answer_is_opened_with_half_a_table_once_the_table_is_full(model, monkeypatch):
    openings, plain = [], Batch.join

    def join(batch, jobs, memory, mask):
        openings.extend((len(job.opening), job.settings.max_tokens) for job in jobs)
        plain(batch, jobs, memory, mask)

    monkeypatch.setattr(Batch, "join", join)
    view = model.open(drawn_picture(1))
    view.ask("detect", options=AskOptions(beams=1, max_tokens=40, more="continue"))
    assert openings[:2] == [(0, 40), (pytest.approx(36, abs=4), pytest.approx(76, abs=4))]  # all of it, and 40 more
    openings.clear()
    view.ask("detect", options=AskOptions(beams=1, more="continue"))
    assert openings[0] == (0, None)
    assert 0 < openings[1][0] <= POSITIONS // 2
    assert openings[1][1] == POSITIONS


def test_continued_answers_of_a_batch_are_those_of_each_alone(model, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    options = AskOptions(beams=1, max_tokens=14, more="continue")
    requests = [(drawn_picture(2), *question(task)) for task in ALL]
    together = list(model.predict_many(requests, options, batch=5))
    for answer, (picture, task, text, region) in zip(together, requests, strict=True):
        alone = model.predict(picture, task, text, region, options)
        assert (answer.raw, answer.text, answer.cut) == (alone.raw, alone.text, alone.cut)
        assert [one.points for one in answer.regions] == [one.points for one in alone.regions]


# ---- tiles

WIDE = (120, 90)
TILED = AskOptions(beams=1, max_tokens=30, tiles=(2, 2))


def inside(answer: Answer) -> None:
    width, height = answer.image_wh
    for region in answer.regions:
        for x, y in region.points:
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_an_answer_of_tiles_is_about_the_whole_picture(model, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    picture = drawn_picture(2, WIDE)
    view, beyond = model.open(picture), 0
    for task in ALL:
        plain = view.ask(*question(task), replace(TILED, tiles=None))
        answer = view.ask(*question(task), TILED)
        if task.form in ("text", "polygons") or task.input == "region":
            assert answer == plain
            continue
        assert answer.image is view.image
        assert (answer.task, answer.image_wh, answer.input) == (task, WIDE, plain.input)
        assert answer.raw.count("\n") == 3  # of four tiles
        assert answer.truncated == bool(answer.cut)
        inside(answer)
        beyond += any(max(x for x, _ in region.points) > 75 for region in answer.regions)  # right of the left tiles
        (many,) = model.predict_many([(picture, *question(task))], TILED)
        (of_view,) = view.ask_many([question(task)], TILED)
        for other in (many, of_view):
            assert (other.raw, other.image_wh, other.input) == (answer.raw, answer.image_wh, answer.input)
            assert [one.points for one in other.regions] == [one.points for one in answer.regions]
            assert other.image is not None
            assert other.image.size == WIDE
    assert beyond > 3


def test_only_a_cut_answer_is_asked_in_tiles(model):
    view = model.open(drawn_picture(3, WIDE))
    whole = view.ask("detect", options=AskOptions(beams=1))
    assert not whole.truncated, "pick a picture of which the drawn network ends its list by itself"
    assert view.ask("detect", options=AskOptions(beams=1, more="tiles")) == whole
    cut = view.ask("detect", options=AskOptions(beams=1, max_tokens=8, more="tiles"))
    assert cut.raw.count("\n") > 0
    assert len(cut.regions) > 1
    few = view.ask("detect", options=AskOptions(beams=1, max_regions=1, more="tiles"))  # cut as was asked for
    assert (len(few.regions), few.cut, few.raw.count("\n")) == (1, "regions", 0)


def test_the_limit_of_regions_holds_for_all_tiles_together(model):
    answer = model.predict(drawn_picture(2, WIDE), "detect", options=replace(TILED, max_regions=2))
    every = model.predict(drawn_picture(2, WIDE), "detect", options=replace(TILED, max_regions=9))
    assert len(every.regions) > 2
    assert (len(answer.regions), answer.cut, answer.truncated) == (2, "regions", True)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_more_requests_than_slots_are_tiled_in_order(model, batch):
    pictures = [drawn_picture(seed, WIDE) for seed in range(5)]
    requests = [(picture, task) for picture in pictures[:3] for task in ("detect", "caption")]
    answers = list(model.predict_many(requests, replace(TILED, max_tokens=12), batch))
    assert [answer.raw for answer in answers] == [
        model.predict(picture, task, options=replace(TILED, max_tokens=12)).raw for picture, task in requests
    ]


def test_a_picture_too_small_for_its_tiles(model):
    tiny, requests = drawn_picture(1, (20, 48)), [(drawn_picture(1, (20, 48)), "detect"), (drawn_picture(), "caption")]
    with pytest.raises(BadConfig, match="16 px or more"):
        model.predict(tiny, "detect", options=TILED)
    with pytest.raises(BadConfig, match="16 px or more"):
        list(model.predict_many(requests, TILED))
    refused, fine = model.predict_many(requests, TILED, on_error="give")
    assert isinstance(refused, BadConfig)
    assert isinstance(fine, Answer)
    # Where nobody said how many tiles, a picture that cannot be cut is answered as it was.
    narrow, options = drawn_picture(1, (10, 48)), AskOptions(beams=1, max_tokens=8)
    plain = model.predict(narrow, "detect", options=options)
    assert plain.cut == "tokens"
    assert model.predict(narrow, "detect", options=replace(options, more="tiles")) == plain


def test_what_is_said_of_presence_stays(model):
    options = replace(TILED, presence=True)
    answer = model.predict(drawn_picture(2, WIDE), "find", TEXTS["find"], options=options)
    assert [phrase for phrase, _ in answer.presence] == ["car", "bus"]
