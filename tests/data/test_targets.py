"""What a record can be asked: by hand for each task, and read back for records with odd words."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from odd import odd_record

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.prompts import write_prompt
from openflorence.contract.records import (
    GroundingNote,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.regions import Region
from openflorence.contract.shapes import Box, Point
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.budget import checked, on_centres
from openflorence.data.chance import dice
from openflorence.data.cleaning import clean_record
from openflorence.data.order import in_order, in_reading_order, ring_in_order, rings_in_order, signed_area
from openflorence.data.problems import Problems
from openflorence.data.targets import Policy, pose, pose_all, tasks_of
from openflorence.errors import BadConfig

NAMES = tuple(task.name for task in (*TASKS, FREE_TEXT))
SQUARE = (1000, 1000)  # a pixel is a bin
ODD = [cleaned for seed in range(200) if (cleaned := clean_record(odd_record(seed), Problems()))]

RECORD = Record(
    image="a.png",
    image_wh=SQUARE,
    texts=(TextNote(text="cars"), TextNote(text="A long text.", level="more_detailed")),
    regions=(
        RegionNote(box=Box(100, 100, 150, 150), label="car", description="a small car", expressions=("the far car",)),
        RegionNote(box=Box(500, 300, 900, 700), label="bus"),
        RegionNote(
            label="car",
            # Anticlockwise as seen, y being downwards, and closed.
            polygons=((Point(200, 0), Point(0, 200), Point(200, 400), Point(400, 200), Point(200, 0)),),
            expressions=("the near car",),
        ),
        RegionNote(box=Box(600, 400, 700, 450), word="BUS 7"),
        RegionNote(box=Box(0, 0, 999, 999), label="car", crowd=True),
    ),
    groundings=(
        GroundingNote(
            text="a bus beside a car",
            level="detailed",
            phrases=(
                PhraseNote(phrase="a car", boxes=(Box(100, 100, 150, 150), Box(0, 0, 400, 400))),
                PhraseNote(phrase="a bus", boxes=(Box(500, 300, 900, 700),)),
            ),
        ),
    ),
    questions=(QuestionNote(question="how many?", answers=("two", "three", "three")),),
    whole=frozenset({"objects", "words"}),
)


def said(record, task, policy=None):
    """Prompt and answer of everything that a task asks."""
    posed = [example for example in pose_all(record, policy or Policy()) if example.task.name == task]
    return [(write_prompt(one.task, one.text, one.region, record.image_wh), write_answer(one.answer)) for one in posed]


def box(*bins):
    return "".join(f"<loc_{one}>" for one in bins)


SMALL, LARGE, BUS, WORD = box(100, 100, 150, 150), box(0, 0, 400, 400), box(500, 300, 900, 700), box(600, 400, 700, 450)
DIAMOND = box(200, 0, 400, 200, 200, 400, 0, 200)  # clockwise from the top
# By hand from RECORD. The larger car is as large as the bus: 400 x 400, so "bus" comes first by its name.
BY_HAND = {
    "caption": [("What does the image describe?", "cars")],
    "detailed_caption": [("Describe in detail what is shown in the image.", "a bus beside a car")],
    "more_detailed_caption": [("Describe with a paragraph what is shown in the image.", "A long text.")],
    "detect": [("Locate the objects with category name in the image.", f"bus{BUS}car{LARGE}{SMALL}")],
    "dense_caption": [("Locate the objects in the image, with their descriptions.", f"a small car{SMALL}")],
    "propose": [("Locate the region proposals in the image.", LARGE + BUS + SMALL)],
    "read": [("What is the text in the image?", "BUS 7")],
    "read_regions": [
        ("What is the text in the image, with regions?", "BUS 7" + box(600, 400, 700, 400, 700, 450, 600, 450))
    ],
    "ground": [("Locate the phrases in the caption: a bus beside a car", f"a bus{BUS}a car{LARGE}{SMALL}")],
    "segment": [("Locate the near car in the image with mask", DIAMOND)],
    "segment_region": [(f"What is the polygon mask of region {LARGE}", DIAMOND)],
    "find": [
        ("Locate car in the image.", f"car{LARGE}car{SMALL}"),
        ("Locate bus in the image.", f"bus{BUS}"),
        ("Locate the far car in the image.", f"the far car{SMALL}"),
        ("Locate the near car in the image.", f"the near car{LARGE}"),
    ],
    "classify_region": [
        (f"What is the region {SMALL}?", "car"),
        (f"What is the region {BUS}?", "bus"),
        (f"What is the region {LARGE}?", "car"),
    ],
    "describe_region": [
        (f"What does the region {SMALL} describe?", "a small car"),
        (f"What does the region {SMALL} describe?", "the far car"),
        (f"What does the region {LARGE} describe?", "the near car"),
    ],
    "read_region": [(f"What text is in the region {WORD}?", "BUS 7")],
    "answer": [("how many?", "three")],
}


@pytest.mark.parametrize("task", NAMES)
def test_a_task_is_asked_and_answered_as_worked_out_by_hand(task):
    assert said(RECORD, task) == BY_HAND[task]


def test_the_record_by_hand_poses_every_task():
    assert set(BY_HAND) == set(NAMES) == set(tasks_of(RECORD))
    assert len(NAMES) == 16  # the published table of fifteen, and free text
    assert tasks_of(RECORD) == NAMES


@cache
def everything(record, policy):
    return pose_all(record, policy)


@pytest.mark.parametrize("task", NAMES)
def test_odd_words_read_back_as_written(task):
    seen = 0
    for record in ODD:
        policy = Policy(order=("area", "left", "given")[len(record.regions) % 3], categories=("tram", "é"))
        drawn = [pose(record, task, dice(seed), policy) for seed in range(3)]
        every = [one for one in everything(record, policy) if one.task.name == task]
        assert (drawn[0] is not None) == (task in tasks_of(record, policy))
        for example in [one for one in drawn if one is not None] + every:
            seen += 1
            assert example.task.name == task
            problems = Problems()
            assert checked(example, record, problems) is example, str(problems)
            answer = example.answer
            again = read_answer(write_answer(answer), task, record.image_wh, input=answer.input)
            assert replace(again, raw="") == on_centres(answer)
            prompt = write_prompt(example.task, example.text, example.region, record.image_wh)
            assert prompt == example.task.sentence.replace("{input}", answer.input or "")
    assert seen > 100


def test_the_sweep_saw_odd_words():
    asked = "".join(example.answer.text for record in ODD for example in pose_all(record))
    assert len(ODD) > 190
    assert all(word in asked for word in ("café", "a, b", "T-shirt", "50", "3<4", "<loc", "猫", "two\nlines"))


def test_detection_names_every_labelled_object_once_and_no_crowd():
    for record in ODD:
        example = pose(record, "detect", dice(0))
        if example is None or record.pairs:
            continue
        notes = {
            (note.label.strip(), tuple(on_centres(as_answer(example, note)).regions[0].box))
            for note in record.regions
            if note.label.strip() and not note.crowd
        }
        regions = on_centres(example.answer).regions
        assert Counter((one.label, tuple(one.box)) for one in regions) == Counter(notes)


def as_answer(example, note):
    return replace(example.answer, regions=(Region(note.label, box=note.bounds),))


# ---- when a task is not posed


def test_everything_is_asked_for_only_if_everything_is_known():
    partial = replace(RECORD, whole=frozenset())
    missing = set(NAMES) - set(tasks_of(partial))
    assert missing == {"detect", "propose", "read", "read_regions"}
    # Without the promise, "car" may have other places than those noted; an expression has one.
    assert [prompt for prompt, _ in said(partial, "find")] == [
        "Locate the far car in the image.",
        "Locate the near car in the image.",
    ]


def test_an_expression_names_its_own_place_and_not_those_with_a_label_like_it():
    notes = (
        RegionNote(box=Box(0, 0, 9, 9), expressions=("car",)),
        RegionNote(box=Box(20, 0, 29, 9), label="car"),
    )
    assert said(Record(image="a", image_wh=SQUARE, regions=notes), "find") == [
        ("Locate car in the image.", f"car{box(0, 0, 9, 9)}")
    ]


def test_an_image_in_which_nothing_is_listed_has_nothing_in_it():
    empty = Record(image="a", image_wh=SQUARE, whole=frozenset({"objects", "words"}))
    assert tasks_of(empty) == ("detect", "propose", "read", "read_regions")
    assert all(write_answer(example.answer) == "" for example in pose_all(empty))
    assert tasks_of(replace(empty, whole=frozenset())) == ()


def test_a_crowd_or_an_unsure_object_is_not_nothing():
    crowd = RegionNote(box=Box(0, 0, 9, 9), label="car", crowd=True)
    unsure = RegionNote(box=Box(0, 0, 9, 9), label="car", score=0.3)
    for note in (crowd, unsure):
        record = Record(image="a", image_wh=SQUARE, regions=(note,), whole=frozenset({"objects"}))
        assert tasks_of(record, Policy(min_score=0.5)) == ()
    assert "detect" in tasks_of(replace(record, regions=(unsure,)), Policy(min_score=0.3))


def test_a_printed_word_is_no_object_unless_it_is_also_named():
    word = RegionNote(box=Box(0, 0, 9, 9), word="STOP")
    sign = RegionNote(box=Box(10, 0, 29, 9), word="GO", label="sign")
    record = Record(image="a", image_wh=SQUARE, regions=(word, sign), whole=frozenset({"objects", "words"}))
    assert said(record, "propose")[0][1] == box(10, 0, 29, 9)
    assert said(record, "read")[0][1] == "STOP\nGO"


def test_a_region_is_written_once_if_it_would_be_written_twice_alike():
    notes = (
        RegionNote(box=Box(10.2, 10.2, 20, 20), label="car"),
        RegionNote(box=Box(10.4, 10.4, 20, 20), label="car"),  # the same four bins
        RegionNote(box=Box(10.4, 10.4, 20, 20), label="van"),
    )
    record = Record(image="a", image_wh=SQUARE, regions=notes, whole=frozenset({"objects"}))
    one = box(10, 10, 20, 20)
    assert said(record, "detect")[0][1] == f"car{one}van{one}"
    assert said(record, "propose")[0][1] == one


# ---- order

ROW = (
    RegionNote(box=Box(50, 0, 60, 10), label="b"),
    RegionNote(box=Box(0, 0, 20, 20), label="a"),
    RegionNote(box=Box(100, 0, 130, 30), label="b"),
    RegionNote(box=Box(100, 50, 105, 55), label="a"),
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("area", ["b 100", "b 50", "a 0", "a 100"]),  # b has the largest, so both b come first
        ("left", ["a 0", "b 50", "b 100", "a 100"]),  # at x0 = 100 by y0
        ("given", ["b 50", "a 0", "b 100", "a 100"]),
    ],
)
def test_boxes_stand_in_the_order_of_the_policy(order, expected):
    record = Record(image="a", image_wh=SQUARE, regions=ROW, whole=frozenset({"objects"}))
    posed = pose(record, "detect", dice(0), Policy(order=order))
    assert [f"{one.label} {one.box.x0:.0f}" for one in posed.answer.regions] == expected


def test_the_order_by_size_or_place_does_not_depend_on_the_record():
    regions = [Region(note.label, box=note.bounds) for note in ROW]
    for order in ("area", "left"):
        assert in_order(regions, order) == in_order(regions[::-1], order)


def test_words_are_read_in_rows():
    # Two rows; "a" starts lower than "b" but its middle, 12, is above the bottom of "b", 20.
    places = {"b": Box(50, 0, 90, 20), "a": Box(0, 4, 40, 20), "c": Box(0, 30, 40, 40), "d": Box(50, 31, 90, 41)}
    notes = [RegionNote(box=place, word=word) for word, place in places.items()]
    assert "".join(note.word for note in in_reading_order(notes[::-1])) == "abcd"


def test_a_ring_runs_clockwise_from_its_top_and_ends_before_it_closes():
    right, down, left = Point(9, 0), Point(9, 9), Point(0, 0)
    clockwise = (left, right, down)
    assert signed_area(clockwise) == 40.5  # half of 9 x 9, and clockwise as seen
    for ring in ((down, left, right), (down, right, left), (right, left, down, right)):
        assert ring_in_order(ring) == clockwise
    large = (Point(0, 50), Point(50, 50), Point(50, 99))
    assert rings_in_order([clockwise, (left, right), large]) == (large, clockwise)


# ---- chance


def test_the_same_dice_ask_the_same_and_others_ask_otherwise():
    policy = Policy(categories=("tram",))
    for task in NAMES:
        assert pose(RECORD, task, dice(7), policy) == pose(RECORD, task, dice(7), policy)
    for task in ("find", "classify_region", "describe_region", "answer"):
        assert len({str(pose(RECORD, task, dice(seed), policy)) for seed in range(40)}) > 1


def test_answers_are_drawn_as_often_as_people_gave_them():
    drawn = Counter(pose(RECORD, "answer", dice(seed)).answer.text for seed in range(600))
    assert set(drawn) == {"two", "three"}
    # Two of three said "three": 400 of 600; the standard deviation is sqrt(600 * 2/9), below 12.
    assert abs(drawn["three"] - 400) < 4 * 12


def test_what_is_absent_is_asked_for_where_that_is_known():
    policy = Policy(absent_share=0.5, categories=("car", "tram", "BUS"), phrases=1)
    posed = [pose(RECORD, "find", dice(seed), policy) for seed in range(300)]
    trams = [one for one in posed if one.text == "tram"]
    assert all(one.answer.regions == () for one in trams)
    assert all(one.answer.regions for one in posed if one.text != "tram")  # never "BUS", which differs in case alone
    assert abs(len(trams) - 150) < 4 * 9  # half of 300; the standard deviation is below 9
    for record, other in ((replace(RECORD, whole=frozenset()), policy), (RECORD, replace(policy, absent_share=0.0))):
        assert all(pose(record, "find", dice(seed), other).answer.regions for seed in range(100))


def test_find_asks_for_no_more_phrases_than_the_policy_says_and_for_each_once():
    counts = Counter()
    for seed in range(200):
        phrases = pose(RECORD, "find", dice(seed), Policy(phrases=3)).text.split("<and>")
        assert len(set(phrases)) == len(phrases)
        counts[len(phrases)] += 1
    assert set(counts) == {1, 2, 3}


# ---- pairs


def pair(prefix, suffix, image_wh=SQUARE):
    (example,) = pose_all(Record(image="a", image_wh=image_wh, pairs=(PairNote(prefix=prefix, suffix=suffix),)))
    return example


@pytest.mark.parametrize(
    ("prefix", "suffix", "task", "text"),
    [
        ("<OD>", f"5 of spades{SMALL}6 of clubs{LARGE}", "detect", None),  # as maestro's card data sets have it
        ("<CAPTION_TO_PHRASE_GROUNDING> a car", f"a car{SMALL}", "ground", "a car"),
        ("<OPEN_VOCABULARY_DETECTION>a<and>b", f"b{SMALL}", "find", "a<and>b"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>it", DIAMOND, "segment", "it"),
        (f"<REGION_TO_CATEGORY>{SMALL}", "car", "classify_region", None),
        ("<CAPTION>", "two cars", "caption", None),
        ("what is it?", "a car", "answer", "what is it?"),
        ("<DocVQA>who?", "nobody", "answer", "<DocVQA>who?"),
        ("see <OD>", "a car", "answer", "see <OD>"),
    ],
)
def test_a_pair_is_posed_as_the_task_that_opens_it(prefix, suffix, task, text):
    example = pair(prefix, suffix)
    assert (example.task.name, example.text, write_answer(example.answer)) == (task, text, suffix)
    assert checked(example, RECORD, Problems()) is example
    assert (
        pose(Record(image="a", image_wh=SQUARE, pairs=(PairNote(prefix=prefix, suffix=suffix),)), task, dice(0))
        == example
    )


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("<OD>", f"car {SMALL}"),  # written, the blank would be gone
        ("<OD>", f"car{SMALL}<loc_5>"),  # a location too many
        ("<OD>", box(9, 9, 5, 5)),  # swapped corners
        (f"<REGION_TO_CATEGORY>{SMALL}", f"car{SMALL}"),  # the region repeated, as published models do
        ("<REGION_TO_CATEGORY>no place", "car"),
    ],
)
def test_a_pair_that_would_be_written_otherwise_is_taught_as_it_stands(prefix, suffix):
    example = pair(prefix, suffix)
    assert example.task is FREE_TEXT
    assert write_answer(example.answer) == suffix
    # The network reads what it would read when asked with this prefix.
    sentence = {"<OD>": "Locate the objects with category name in the image."}
    asked = prefix.removeprefix("<REGION_TO_CATEGORY>")
    assert example.text == sentence.get(prefix, f"What is the region {asked}?")


def test_a_pair_that_cannot_be_written_is_counted():
    problems = Problems()
    assert checked(pair("say it", "a</s>b"), RECORD, problems) is None
    assert checked(pair("say it", "half \ud83d a pair"), RECORD, problems) is None  # no UTF-8
    assert problems.counts == {"target impossible": 2}
    assert problems.examples["target impossible"][0].startswith("a.png: answer: ")


def test_an_answer_that_was_cut_is_no_target():
    # As a model's own answer may be; written and read back, it would no longer say so.
    example, problems = pair("<CAPTION>", "two cars"), Problems()
    cut = replace(example, answer=replace(example.answer, truncated=True))
    assert checked(example, RECORD, problems) is example
    assert checked(cut, RECORD, problems) is None
    assert problems.counts == {"target impossible": 1}


def test_a_policy_outside_its_range_is_refused():
    for wrong in ({"order": "size"}, {"phrases": 0}, {"absent_share": 1.5}, {"min_score": -1}):
        with pytest.raises(BadConfig, match=re.escape(str(next(iter(wrong.values()))))):
            Policy(**wrong)
