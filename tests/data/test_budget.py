"""Targets that do not fit: what is done about them, and that nothing of them is lost in silence."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import pytest
from odd import odd_record

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.prompts import fill_sentence
from openflorence.contract.records import GroundingNote, PhraseNote, Record, RegionNote, TextNote
from openflorence.contract.shapes import Box, Point
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.budget import checked, fit, simplify_ring
from openflorence.data.chance import dice
from openflorence.data.cleaning import clean_record
from openflorence.data.problems import Problems
from openflorence.data.targets import Policy, pose, pose_all

NAMES = tuple(task.name for task in (*TASKS, FREE_TEXT))
SQUARE = (1000, 1000)


def count(text):
    """Two for the frame, one for each location or marker, one for each other character."""
    return 2 + len(re.sub(r"<(loc_\d+|sep|and|/?poly)>", "#", text))


@dataclass
class Heard(Problems):
    """Keeps everything that was said, not the first three."""

    said: list[str] = field(default_factory=list)

    def add(self, kind: str, what: str) -> None:
        super().add(kind, what)
        self.said.append(what)

    @property
    def lost(self) -> int:
        """Regions that were reported as left out."""
        numbers = [re.search(r"(\d+) of (\d+) regions stay", what) for what in self.said]
        return sum(int(found[2]) - int(found[1]) for found in numbers if found)


def listing(*notes, whole=("objects", "words"), **others):
    return Record(image="a.png", image_wh=SQUARE, regions=notes, whole=frozenset(whole), **others)


def boxes(label, *sizes, name="label"):
    """Squares of these sides, from the left."""
    return [RegionNote(box=Box(50 * n, 0, 50 * n + side, side), **{name: label}) for n, side in enumerate(sizes)]


def fitted(record, task, limit, prompt_limit=None):
    problems = Heard()
    parts = fit(pose(record, task, dice(0)), record, limit, count, problems, prompt_limit)
    return [(fill_sentence(one.task, one.answer.input), write_answer(one.answer)) for one in parts], problems


def sides(answer, task="detect"):
    return [(one.label, round(one.box.x1 - one.box.x0)) for one in read_answer(answer, task, SQUARE).regions]


@cache
def odd_examples():
    records = (clean_record(odd_record(seed, largest=20), Problems()) for seed in range(80))
    return [(record, pose_all(record)) for record in records]


@pytest.mark.parametrize("task", NAMES)
def test_nothing_is_too_long_and_nothing_is_lost_in_silence(task):
    shortened = 0
    for record, posed in odd_examples():
        for example in [one for one in posed if one.task.name == task][:4]:
            for limit, prompt_limit in ((4, None), (12, 60), (40, 80), (10**6, 10**6)):
                problems = Heard()
                parts = fit(example, record, limit, count, problems, prompt_limit)
                for part in parts:
                    assert count(write_answer(part.answer)) <= limit
                    assert prompt_limit is None or count(fill_sentence(part.task, part.answer.input)) <= prompt_limit
                    assert checked(part, record, Problems()) is part
                kept = [region.label for part in parts for region in part.answer.regions]
                given = [region.label for region in example.answer.regions]
                assert len(kept) + problems.lost == len(given)
                assert not Counter(kept) - Counter(given)
                assert (parts == [example]) == (not problems.counts)
                assert set(problems.counts) <= {"target too long"}
                assert all(what.startswith(f"{record.image}: {task}: ") for what in problems.said)
                shortened += bool(problems.counts)
    assert shortened > 30


# ---- by hand: a box is four tokens, the frame two


def test_detection_is_split_by_label_and_each_part_is_complete():
    record = listing(*boxes("a", 30, 20), *boxes("bb", 25), *boxes("c", 10, 5))
    # All: 2 + (1+8) + (2+4) + (1+8) = 26 tokens.
    assert len(fitted(record, "detect", 26)[0]) == 1
    parts, problems = fitted(record, "detect", 25)
    # In `find` the label stands before each box: "a" and "bb" take 2 + 10 + 6 = 18, with "c" 28.
    assert [prompt for prompt, _ in parts] == ["Locate a<and>bb in the image.", "Locate c in the image."]
    assert sides(parts[0][1], "find") == [("a", 30), ("a", 20), ("bb", 25)]
    assert sides(parts[1][1], "find") == [("c", 10), ("c", 5)]
    assert problems.said == ["a.png: detect: 26 tokens, 25 fit: split into 2 'find'"]


def test_a_label_that_does_not_fit_alone_keeps_its_largest_boxes():
    record = listing(*boxes("a", 5, 30, 20), *boxes("b", 8))
    parts, problems = fitted(record, "detect", 13)  # two boxes of `find`: 2 + 5 + 5 = 12
    assert [sides(answer, "find") for _, answer in parts] == [[("a", 30), ("a", 20)], [("b", 8)]]
    assert problems.said == [
        "a.png: detect: 20 tokens, 13 fit: split into 2 'find'",
        "a.png: detect: 17 tokens, 13 fit: 2 of 3 regions stay",
    ]


def test_detection_of_one_label_stays_detection():
    parts, problems = fitted(listing(*boxes("a", 5, 30, 20)), "detect", 14)
    assert [prompt for prompt, _ in parts] == ["Locate the objects with category name in the image."]
    assert sides(parts[0][1]) == [("a", 30), ("a", 20)]
    assert problems.lost == 1


@pytest.mark.parametrize(
    ("task", "name"), [("dense_caption", "description"), ("propose", "label"), ("read_regions", "word")]
)
def test_what_cannot_be_asked_in_parts_keeps_its_largest_regions_in_their_order(task, name):
    record = listing(*boxes("a", 5, 30, 20, name=name))
    limit = {"dense_caption": 11, "propose": 10, "read_regions": 20}[task]  # 2 + 1 + 8; 2 + 8; 2 + 2 * (1 + 8)
    parts, problems = fitted(record, task, limit)
    regions = read_answer(parts[0][1], task, SQUARE).regions
    kept = [round(one.bounds.x1 - one.bounds.x0) for one in regions]
    assert kept == [30, 20]
    assert problems.said[0].endswith("2 of 3 regions stay")
    assert fitted(record, task, limit + 100)[1].said == []


def test_the_largest_boxes_stay_in_the_order_of_the_policy():
    record = listing(*boxes("a", 20, 5, 30))
    parts = fit(pose(record, "propose", dice(0), Policy(order="left")), record, 10, count, Problems())
    assert [round(one.box.x1 - one.box.x0) for one in parts[0].answer.regions] == [20, 30]


def test_grounding_is_split_and_each_caption_names_its_phrases():
    phrases = tuple(PhraseNote(phrase=name, boxes=(Box(0, 0, 9, 9), Box(0, 0, 5, 5))) for name in ("a", "b", "c"))
    record = listing(groundings=(GroundingNote(text="a with b on c", phrases=phrases),))
    parts, problems = fitted(record, "ground", 20)  # two phrases: 2 + 9 + 9
    assert [prompt for prompt, _ in parts] == [
        "Locate the phrases in the caption: a and b",
        "Locate the phrases in the caption: c",
    ]
    assert "".join(answer for _, answer in parts) == fitted(record, "ground", 99)[0][0][1]
    assert problems.said == ["a.png: ground: 29 tokens, 20 fit: split into 2 'ground'"]


def test_a_text_is_never_cut():
    record = listing(texts=(TextNote(text="four"),))
    assert fitted(record, "caption", 6)[0][0][1] == "four"
    parts, problems = fitted(record, "caption", 5)
    assert parts == []
    assert problems.said == ["a.png: caption: 6 tokens, 5 fit: left out"]


def test_a_prompt_that_is_too_long_is_left_out():
    phrases = (PhraseNote(phrase="car", boxes=(Box(0, 0, 9, 9),)),)
    record = listing(groundings=(GroundingNote(text="a car", phrases=phrases),))
    prompt = 2 + len("Locate the phrases in the caption: a car")
    assert len(fitted(record, "ground", 99, prompt)[0]) == 1
    parts, problems = fitted(record, "ground", 99, prompt - 1)
    assert parts == []
    assert problems.said == [f"a.png: ground: a prompt of {prompt} tokens, {prompt - 1} fit: 0 of 1 regions stay"]


# ---- outlines


def circle(centre, radius, vertices):
    angles = 2 * np.pi * np.arange(vertices) / vertices
    return tuple(Point(centre + radius * np.cos(a), centre + radius * np.sin(a)) for a in angles.tolist())


def mask(answer):
    drawn = np.zeros(SQUARE, np.uint8)
    for ring in read_answer(answer, "segment_region", SQUARE).regions[0].polygons:
        cv2.fillPoly(drawn, [np.round(np.array(ring)).astype(np.int32)], 1)
    return drawn > 0


def test_an_outline_is_simplified_until_it_fits():
    record = listing(RegionNote(polygons=(circle(500, 400, 300),)))
    fine = mask(fitted(record, "segment_region", 10**6)[0][0][1])
    # OpenCV leaves out whole vertices: with half as many tokens the shape stays, with few it becomes a polygon that
    # still covers what a regular octagon would (its area is 0.9003 of the circle's).
    for limit, least in ((602, 0.99), (300, 0.99), (50, 0.97), (20, 0.88)):
        (part,), problems = fitted(record, "segment_region", limit)
        assert count(part[1]) <= limit
        rough = mask(part[1])
        assert (rough & fine).sum() / (rough | fine).sum() >= least
        assert len(problems.said) == (limit < 602)  # 2 + 300 vertices of two


def test_only_what_does_not_fit_when_simplified_is_dropped_the_smallest_ring_first():
    square = (Point(0, 0), Point(600, 0), Point(600, 600), Point(0, 600))
    small = (Point(700, 700), Point(750, 700), Point(750, 750), Point(700, 750))
    tiny = (Point(900, 900), Point(910, 900), Point(910, 910))
    record = listing(RegionNote(polygons=(tiny, small, square)))
    # 2 + 8 + 1 + 8 + 1 + 6 = 26 in full.
    (part,), problems = fitted(record, "segment_region", 19)
    assert part[1].count("<sep>") == 1
    assert problems.said == ["a.png: segment_region: 26 tokens, 19 fit: 8 of 11 vertices and 2 of 3 rings stay"]
    assert fitted(record, "segment_region", 7)[0] == []  # no ring of three fits into 7


def test_simplified_rings_keep_three_vertices():
    flat = (Point(0, 0), Point(5, 0), Point(10, 0), Point(7, 0))
    assert len(simplify_ring(flat, 100.0)) == 3
    assert len(simplify_ring(circle(50, 40, 60), 10**6)) >= 3
    # By hand: the vertex half a pixel off the edge goes, the corners stay.
    bumped = (Point(0, 0), Point(50, 0.5), Point(100, 0), Point(100, 100), Point(0, 100))
    assert simplify_ring(bumped, 1.0) == (Point(0, 0), Point(100, 0), Point(100, 100), Point(0, 100))
