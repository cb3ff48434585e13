"""An answer written is the answer read: every form, every script, up to the bin."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from openflorence.contract.answers import CONTROLS, MARKERS, Said, join_labels, read_answer, write_answer
from openflorence.contract.locations import spell, spell_all
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadRegion
from tests.hearing import said

EVERY_TASK = (*TASKS, FREE_TEXT)
SPECIAL = (*CONTROLS, *MARKERS)
NAMELESS = ("bare_boxes", "polygons")

# Any text at all, and often the pieces that come closest to a special token.
NEAR = st.sampled_from(
    ["<", ">", "<loc_", "loc_5>", "<s", "/s>", "<sep", "<loc_x>", "<poly ", "é", "猫", ",", "-", "\n"]
)
TEXTS = st.lists(st.one_of(NEAR, st.text(max_size=6)), max_size=4).map("".join)


def spells_a_token(text):
    return any(token in text for token in SPECIAL) or re.search("<loc_[0-9]+>", text) is not None


LABELS = TEXTS.filter(lambda text: not spells_a_token(text))


@st.composite
def answers(draw, task, labels=LABELS):
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))

    def point():
        return Point(draw(st.floats(0, width)), draw(st.floats(0, height)))

    def box():
        (x0, x1), (y0, y1) = (sorted((draw(st.floats(0, s)), draw(st.floats(0, s)))) for s in (width, height))
        assume(x0 < x1 and y0 < y1)
        return Box(x0, y0, x1, y1)

    def region():
        # Labels repeat: runs of one label share it.
        label = draw(st.one_of(st.sampled_from(["", "car"]), labels))
        rings = task.form == "polygons" or (task.form == "boxes_or_polygons" and draw(st.booleans()))
        if task.form == "quads":
            points = (point(), point(), point(), point())
            assume(seen_from(points, width, height))
            return Region(label, quad=points)
        if rings:
            polygons = tuple(
                tuple(point() for _ in range(draw(st.integers(3, 5)))) for _ in range(draw(st.integers(1, 2)))
            )
            assume(all(seen_from(ring, width, height) for ring in polygons))
            return Region(label, polygons=polygons)
        return Region(label, box=box())

    if task.form == "text":
        return Answer(task, (width, height), text=draw(labels))
    return Answer(task, (width, height), regions=tuple(region() for _ in range(draw(st.integers(0, 4)))))


def seen_from(points, width, height):
    return min(x for x, _ in points) < width and min(y for _, y in points) < height


def centre(value, size):
    """The rule, once more and by hand: floor of value over bin size, kept in 0..999, and half a bin on."""
    return (min(max(math.floor(value / (size / 1000)), 0), 999) + 0.5) * (size / 1000)


def on_centres(region, image_wh, named):
    def moved(points):
        return tuple(Point(centre(x, image_wh[0]), centre(y, image_wh[1])) for x, y in points)

    return Region(
        region.label.strip() if named else "",
        box=region.box and Box(*(centre(v, s) for v, s in zip(region.box, image_wh * 2, strict=True))),
        quad=region.quad and moved(region.quad),
        polygons=tuple(moved(ring) for ring in region.polygons),
    )


@pytest.mark.parametrize("task", EVERY_TASK, ids=lambda task: task.name)
@given(data=st.data())
def test_a_task_reads_back_what_it_wrote(task, data):
    answer = data.draw(answers(task))
    raw = write_answer(answer)
    again = read_answer(f"</s><s>{raw}</s><pad>", task, answer.image_wh)
    assert again.invalid == 0
    assert again.raw == raw
    assert again.image_wh == answer.image_wh
    if task.form == "text":
        assert again.text == answer.text.strip()
    named = task.form not in NAMELESS
    assert again.regions == tuple(on_centres(region, answer.image_wh, named) for region in answer.regions)
    assert write_answer(again) == raw  # what was read is on bin centres, and stays there


def test_the_sweep_saw_every_task_and_form():
    assert len(EVERY_TASK) == 16
    assert len({task.form for task in EVERY_TASK}) == 7


@pytest.mark.parametrize("task", EVERY_TASK, ids=lambda task: task.name)
@given(pieces=st.lists(st.one_of(st.sampled_from(SPECIAL), st.integers(0, 1200).map(spell), NEAR), max_size=20))
@example(pieces=["<poly>"])
@example(pieces=["</poly>", spell(1)])
@example(pieces=["a<loc_", "9" * 5000, ">"])
def test_no_answer_stops_the_reader_or_makes_an_impossible_box(task, pieces):
    answer = read_answer("".join(pieces), task, (640, 480))
    for region in answer.regions:
        assert all(0 < x < 640 and 0 < y < 480 for x, y in region.points)
        x0, y0, x1, y1 = region.bounds
        assert x0 <= x1
        assert y0 <= y1
        assert all(len(ring) >= 3 for ring in region.polygons)
    if task.form != "text":  # a text may keep half a token, which another half could complete
        again = read_answer(write_answer(answer), task, (640, 480))
        assert again.regions == answer.regions
        assert again.invalid == 0


# How each form is spelt. The first four are observed in published checkpoints; image of 1000 x 1000.
A, B = Box(1, 2, 3, 4), Box(5, 6, 7, 8)
RING, RING2 = (Point(1, 2), Point(3, 4), Point(5, 6)), (Point(7, 8), Point(9, 10), Point(11, 12))
a, b = spell_all((1, 2, 3, 4)), spell_all((5, 6, 7, 8))
ring, ring2 = spell_all(range(1, 7)), spell_all(range(7, 13))
SPELLINGS = [
    ("detect", [Region("car", A), Region("car", B), Region("dog", A)], f"car{a}{b}dog{a}"),
    ("find", [Region("car", A), Region("car", B)], f"car{a}car{b}"),
    ("propose", [Region("ignored", A), Region("", B)], f"{a}{b}"),
    ("segment", [Region("ignored", polygons=(RING, RING2))], f"{ring}<sep>{ring2}"),
    (
        "segment",
        [Region(polygons=(RING,)), Region(polygons=(RING2, RING))],
        f"<poly>{ring}</poly><poly>{ring2}<sep>{ring}</poly>",
    ),
    ("find", [Region("car", polygons=(RING, RING2))], f"car<poly>{ring}<sep>{ring2}</poly>"),
    ("find", [Region("car", A), Region("", polygons=(RING,))], f"car{a}<sep><poly>{ring}</poly>"),
    ("detect", [Region("", A), Region("car", B), Region("", A), Region("", B)], f"{a}car{b}<sep>{a}{b}"),
    ("read_regions", [Region("l", quad=(*RING, RING2[0]))] * 2, f"l{ring}{spell_all((7, 8))}" * 2),
]


@pytest.mark.parametrize(("task", "regions", "raw"), SPELLINGS)
def test_the_spelling_of_a_form_is_fixed(task, regions, raw):
    assert write_answer(Answer(find_task(task), (1000, 1000), regions=tuple(regions))) == raw


@pytest.mark.parametrize(
    "label", ["café", "naïve-looking", "1,000 m², 5%", "a<b>c", "猫と犬", "été\nneige", "סוס", "", "🐎"]
)
@pytest.mark.parametrize("task", ["detect", "ground", "find", "read_regions"])
def test_trap_10_labels_of_any_script_survive(task, label):
    form = find_task(task).form
    shape = {"quad": (*RING, RING2[0])} if form == "quads" else {"box": A}
    answer = Answer(find_task(task), (1000, 1000), regions=(Region("x", **shape), Region(label, **shape)))
    assert read_answer(write_answer(answer), task, (1000, 1000)).regions[1].label == label


@pytest.mark.parametrize("task", ["classify_region", "describe_region", "read_region"])
@pytest.mark.parametrize("raw", ["car" + a, f"</s><s>car{a}</s><pad>", f"car {a}", "car"])
def test_trap_11_the_echoed_region_is_not_part_of_the_text(task, raw):
    answer = read_answer(raw, task, (640, 480))
    assert (answer.text, answer.invalid) == ("car", 0)


@pytest.mark.parametrize(
    ("task", "raw", "text"),
    [("caption", f"a car{a} here", "a car here"), ("classify_region", f"car{a}{b}", "car"), ("read", "a<sep>b", "a b")],
)
def test_locations_where_words_belong_are_counted(task, raw, text):
    answer = read_answer(raw, task, (640, 480))
    assert (answer.text, answer.invalid) == (text, 1)


def test_free_text_keeps_its_tokens():
    raw = f"<od>car{a}</od>"  # a fine-tuned prompt may mean anything by them
    answer = read_answer(f"<s>{raw}</s>", "answer", (640, 480))
    assert (answer.text, answer.invalid) == (raw, 0)
    assert write_answer(answer) == raw


@pytest.mark.parametrize(("bins", "ordered"), [((3, 2, 1, 4), (1, 2, 3, 4)), ((3, 4, 1, 2), (1, 2, 3, 4))])
def test_trap_12_swapped_corners_are_put_in_order_and_counted(bins, ordered):
    answer = read_answer("car" + spell_all(bins), "detect", (1000, 1000))
    assert answer.regions == (Region("car", box=Box(*(bin_ + 0.5 for bin_ in ordered))),)
    assert answer.invalid == 1


def test_equal_corners_are_legal():
    answer = read_answer("dot" + spell_all((5, 5, 5, 5)), "detect", (1000, 1000))
    assert (answer.regions[0].box, answer.invalid) == ((5.5, 5.5, 5.5, 5.5), 0)


@pytest.mark.parametrize(
    ("task", "raw", "regions", "invalid"),
    [
        ("detect", f"car{a}<loc_9>", 1, 1),  # a box begun and not ended
        ("detect", "car<loc_9><loc_9><loc_9>", 0, 1),
        ("detect", "car", 0, 1),
        ("detect", f"car<sep>dog{a}", 1, 1),  # a label that names nothing
        ("detect", f"<od>car{a}</od>", 1, 2),
        ("detect", f"car<poly>{a}", 1, 1),
        ("propose", f"car{a}", 1, 1),
        ("detect", "sky<loc_0><loc_0><loc_1000><loc_300>", 1, 1),
        ("detect", "sky<loc_00><loc_0><loc_10><loc_300>", 1, 1),
        ("read_regions", f"A{a}{spell_all((5, 6, 7))}", 0, 1),
        ("segment", a, 0, 1),  # two vertices
        ("segment", f"{ring}<loc_9>", 1, 1),  # an x without its y
        ("segment", f"<poly>{ring}", 1, 1),  # not closed
        ("segment", f"{ring}</poly>", 1, 1),  # not opened
        ("segment", "<poly></poly>", 0, 1),
        ("segment", f"a car{ring}", 1, 1),
        ("segment", f"{ring}and{ring2}", 2, 1),
        ("find", f"car<poly>{ring}dog{a}", 2, 1),
        ("find", f"car<poly><poly>{ring}</poly>", 1, 2),
        ("find", "car<poly></poly>", 0, 1),
        ("find", f"car<poly>{ring}</poly>", 1, 0),
        ("find", f"car{a}dog<poly>{ring}</poly>", 2, 0),
    ],
)
def test_what_cannot_be_read_is_counted(task, raw, regions, invalid):
    answer = read_answer(raw, task, (640, 480))
    assert (len(answer.regions), answer.invalid) == (regions, invalid)


def test_trap_2_a_location_past_the_last_is_the_edge():
    answer = read_answer("sky<loc_0><loc_0><loc_1000><loc_300>", "detect", (1000, 1000))
    assert answer.regions[0].box == (0.5, 0.5, 999.5, 300.5)


@pytest.mark.parametrize("task", EVERY_TASK, ids=lambda task: task.name)
@pytest.mark.parametrize(
    ("raw", "published"), [("", False), ("</s><s></s><pad>", False), ("", True), ("<s></s>", True)]
)
def test_trap_17_an_empty_answer_is_typed_and_knows_its_image(task, raw, published):
    answer = read_answer(raw, task, (640, 480), published=published)
    assert answer == Answer(task, (640, 480))
    assert write_answer(replace(answer, text="")) == ""
    assert len(answer.to_detections()) == 0
    (value,) = answer.to_published().values()
    assert value == "" or not any(value.values())


@pytest.mark.parametrize("token", [*SPECIAL, "<loc_0>", "<loc_999>", "<loc_1000>"])
@pytest.mark.parametrize("task", ["detect", "caption", "read_regions"])
def test_a_label_may_not_spell_a_special_token(task, token):
    label = f"see {token}!"
    shape = {"quad": (*RING, RING2[0])} if task == "read_regions" else {"box": A}
    answer = Answer(find_task(task), (1000, 1000), text=label, regions=(Region(label, **shape),))
    with pytest.raises(BadRegion, match=f"special token {token!r}"):
        write_answer(answer)


def test_the_vocabulary_of_markers_is_the_published_one():
    # 1024 added tokens less 1000 locations, and the two base specials that do not frame an answer.
    assert len(set(MARKERS)) == 24 + 2
    assert {"<region_to_desciption>", "</poly>", "<ncap>", "<and>", "<mask>"} < set(MARKERS)


@pytest.mark.parametrize(
    ("task", "region", "seen"),
    [
        ("detect", Region("car"), "a box"),
        ("read_regions", Region("car", box=A), "a quad"),
        ("segment", Region("car", box=A), "polygons of 3"),
        ("segment", Region(polygons=(RING[:2],)), "polygons of 3"),
        ("detect", Region("car", box=Box(5, 5, 5, 9)), "empty"),
        ("detect", Region("car", box=Box(2000, 5, 3000, 9)), "outside"),
        ("read_regions", Region("car", quad=(Point(math.nan, 0), *RING)), "finite"),
        ("segment", Region(polygons=((Point(-1, 0), Point(-2, 5), Point(-3, 9)),)), "outside"),
    ],
)
def test_a_region_that_cannot_be_written_is_named(task, region, seen):
    with pytest.raises(BadRegion, match=seen):
        write_answer(Answer(find_task(task), (1000, 1000), regions=(region,)))


def test_polygons_partly_beyond_the_image_are_clipped():
    ring = (Point(-5, -5), Point(2000, -5), Point(2000, 500))
    answer = Answer(find_task("segment"), (1000, 1000), regions=(Region(polygons=(ring,)),))
    assert write_answer(answer) == spell_all((0, 0, 999, 0, 999, 500))


def test_the_text_of_an_answer_is_its_labels():
    assert read_answer(f"car{a}{b}dog{a}", "detect", (9, 9)).text == "car, car, dog"
    assert read_answer(f"HELLO{ring}{spell_all((1, 2))}WORLD{a}{b}", "read_regions", (9, 9)).text == "HELLO\nWORLD"
    assert join_labels([Region("", A), Region("car", A)], find_task("detect")) == "car"


def test_what_was_asked_travels_with_the_answer():
    answer = read_answer("car", "answer", (9, 9), input="what is it?", truncated=True, image="picture")
    assert (answer.input, answer.truncated, answer.image) == ("what is it?", True, "picture")


def test_a_region_is_scored_by_its_label_its_place_and_both():
    # By hand: means of the logarithms of (1/2)^2 (1/8)^2 and of 1/4 four times are both those of 1/4; labels have 1/2.
    logs = [math.log(p) for p in (0.5, 0.5, 0.125, 0.125, 0.25, 0.25, 0.25, 0.25, 0.9)]
    raw = f"<s>car{a}{b}dog<loc_9>"
    answer = read_answer(raw, "detect", (9, 9), said=said(raw, logs, words=math.log(0.5)))
    assert [region.place_score for region in answer.regions] == pytest.approx([0.25, 0.25])
    assert [region.label_score for region in answer.regions] == pytest.approx([0.5, 0.5])
    assert [region.score for region in answer.regions] == pytest.approx([0.125, 0.125])
    raw = f"<loc_9>x<poly>{ring}<sep>{ring2}</poly>"
    polygons = read_answer(raw, "segment", (9, 9), said=said(raw, [0.0] + [math.log(0.3)] * 12))
    assert [region.score for region in polygons.regions] == pytest.approx([0.3])  # nothing is named: the place alone
    assert [region.label_score for region in polygons.regions] == [None]


def test_a_label_is_scored_for_all_that_it_names_and_for_nothing_else():
    raw = f"car{a}{b}<sep>{a}dog{b}"
    stretches = said(raw, 0.0)
    stretches[0] = stretches[0]._replace(logprob=math.log(0.5))
    stretches[-5] = stretches[-5]._replace(logprob=math.log(0.2))
    regions = read_answer(raw, "detect", (9, 9), said=stretches).regions
    assert [region.label for region in regions] == ["car", "car", "", "dog"]
    assert [region.label_score for region in regions] == [
        pytest.approx(0.5),
        pytest.approx(0.5),
        None,
        pytest.approx(0.2),
    ]


def test_a_text_is_scored_by_the_mean_probability_of_its_tokens():
    # By hand: three tokens of 1/8 in all are 1/2 each.
    answer = read_answer("a red car", "caption", (9, 9), said=[Said("words", math.log(0.125), tokens=3)])
    assert answer.score == pytest.approx(0.5)
    assert read_answer("", "caption", (9, 9), said=[]).score is None
    assert read_answer("a red car", "caption", (9, 9)).score is None


def test_scores_that_do_not_fit_the_answer_are_not_believed():
    for stretches in (said(f"car{a}", 0.0)[:-1], said(a, 0.0), said(f"{a}car", 0.0)):
        answer = read_answer(f"car{a}", "detect", (9, 9), said=stretches)
        assert [(region.score, region.label_score) for region in answer.regions] == [(None, None)]


def test_a_coordinate_may_lie_between_bins():
    # By hand: an image of 1000 px has bins of 1 px; the expected places are put as they are, half a bin further on.
    stretches = [Said("words", 0.0)]
    stretches += [Said("location", 0.0, bin=place, spread=0.5) for place in (10.25, 20.0, 29.5, 41.75)]
    raw = "car<loc_10><loc_20><loc_30><loc_42>"
    (region,) = read_answer(raw, "detect", (1000, 1000), said=stretches).regions
    assert region.box == pytest.approx((10.75, 20.5, 30.0, 42.25))
    assert region.spread_px == pytest.approx((0.5, 0.5, 0.5, 0.5))
    (wide,) = read_answer(raw, "detect", (2000, 500), said=stretches).regions
    assert wide.spread_px == pytest.approx((1.0, 0.25, 1.0, 0.25))  # bins of 2 px and of half a pixel
