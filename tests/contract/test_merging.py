"""Answers about crops put together. The truth is what was cut: drawn regions, seen exactly through each crop."""

import random
from dataclasses import replace

import numpy as np
import pytest

from openflorence.contract.answers import read_answer
from openflorence.contract.merging import merge_crops, shift_region
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.rings import shared_area, unite
from openflorence.contract.tasks import TASKS, find_task
from openflorence.data.words import SIGN_WORDS
from openflorence.errors import BadConfig, BadPrompt, BadRegion

KEPT = 0.3  # a crop answers with what shows at least so much of itself in it
LEFT, RIGHT, WH = Box(0, 0, 70, 100), Box(50, 0, 120, 100), (120, 100)


def area(box):
    return max(box.x1 - box.x0, 0) * max(box.y1 - box.y0, 0)


def clip(box, crop):
    return Box(max(box.x0, crop.x0), max(box.y0, crop.y0), min(box.x1, crop.x1), min(box.y1, crop.y1))


def shared(one, other):
    return area(clip(one, other))


def cuts(rng, size, count, overlap):
    """Random crops of an axis: edges in random places, each crop going on over them by about `overlap` of a crop."""
    step = size / count
    edges = [0, *(round(step * (i + rng.uniform(-0.15, 0.15))) for i in range(1, count)), size]
    over = [0, *(round(step * rng.uniform(overlap, overlap + 0.1) / 2) for _ in range(1, count)), 0]
    return [(edges[i] - over[i], edges[i + 1] + over[i + 1]) for i in range(count)]


def tiling(rng, image_wh, overlap=0.25):
    columns, rows = (cuts(rng, size, rng.randint(1, 4), overlap) for size in image_wh)
    return [Box(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]


def quad(box):
    return Point(box.x0, box.y0), Point(box.x1, box.y0), Point(box.x1, box.y1), Point(box.x0, box.y1)


def answer(crop, regions, task="detect", **given):
    """What a crop answers, given in pixels of the picture."""
    moved = tuple(shift_region(region, -crop.x0, -crop.y0) for region in regions)
    return crop, Answer(find_task(task), (crop.x1 - crop.x0, crop.y1 - crop.y0), regions=moved, **given)


def boxes_seen(crop, truth):
    seen = [(region, clip(region.box, crop)) for region in truth]
    return [replace(region, box=box) for region, box in seen if area(box) >= KEPT * area(region.box)]


def by_place(regions):
    return sorted(((region.label, region.box) for region in regions), key=str)


def restorable(box, crops):
    """All of it is seen by the crops that show enough of it, and these hang together."""
    views = [clip(box, crop) for crop in crops if shared(box, crop) >= KEPT * area(box)]
    hull = [min(v[i] for v in views) for i in (0, 1)] + [max(v[i] for v in views) for i in (2, 3)] if views else None
    linked = views[:1]
    for _ in views:
        linked += [v for v in views if v not in linked and any(shared(v, one) > 0 for one in linked)]
    return hull == list(box) and len(linked) == len(set(views))


def random_boxes(rng, crops, image_wh, count=25):
    """Boxes of two labels and all sizes; those of one label overlap by little."""
    boxes = []
    for _ in range(count * 20):
        w, h = (rng.uniform(8, rng.choice((30, 60, 0.7 * size))) for size in image_wh)
        x, y = rng.uniform(0, image_wh[0] - w), rng.uniform(0, image_wh[1] - h)
        region = Region(rng.choice(("car", "tree")), box=Box(x, y, x + w, y + h), score=round(rng.random(), 3))
        apart = all(
            shared(region.box, other.box) < 0.15 * min(area(region.box), area(other.box))
            for other in boxes
            if other.label == region.label
        )
        if apart and restorable(region.box, crops) and len(boxes) < count:
            boxes.append(region)
    return boxes


def almost(one, other, by):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


# ---- boxes


@pytest.mark.parametrize("task", ["detect", "propose", "ground", "find"])
def test_boxes_cut_by_any_tiling_come_back(task):
    rng = random.Random(task)
    whole = 0
    for _ in range(40):
        image_wh = rng.randint(200, 900), rng.randint(200, 900)
        crops = tiling(rng, image_wh)
        truth = random_boxes(rng, crops, image_wh)
        if task == "propose":  # without names, neighbours must be further apart
            truth = [replace(region, label="") for region in truth if region.label == "car"]
        merged = merge_crops([answer(crop, boxes_seen(crop, truth), task) for crop in crops], image_wh)
        found, wanted = by_place(merged.regions), by_place(truth)
        assert len(found) == len(wanted), (crops, found, wanted)
        for (label, box), (true_label, true_box) in zip(found, wanted, strict=True):
            assert label == true_label
            assert almost(box, true_box, 1e-9)
        assert sorted(region.score for region in merged.regions) == sorted(region.score for region in truth)
        whole += len(truth)
    assert whole > 400  # a sweep that shrinks must fail


def test_equal_neighbours_are_never_one():
    # A row of cars of one size and label, each over a tenth of the next; zones are wider than a third of one.
    rng = random.Random(1)
    for _ in range(200):
        side, count = rng.uniform(20, 40), rng.randint(2, 14)
        cars = [Region("car", box=Box(x, 30, x + side, 30 + 0.7 * side)) for x in np.arange(count) * 0.9 * side + 5]
        image_wh = round(count * side + 20), 90
        crops = [Box(x0, 0, x1, 90) for x0, x1 in cuts(rng, image_wh[0], max(1, round(image_wh[0] / 90)), 0.3)]
        merged = merge_crops([answer(crop, boxes_seen(crop, cars)) for crop in crops], image_wh)
        assert len(merged.regions) == count, (crops, cars)


def test_a_box_cut_in_both_crops_is_united_and_one_cut_in_one_yields():
    # By hand: the long one goes through the zone 50..70; the short one ends in it.
    long, short = Region("bus", box=Box(10, 10, 110, 30), score=0.4), Region("car", box=Box(30, 50, 65, 70), score=0.6)
    spread = (1.0, 1.0, 1.0, 1.0)  # of what the left crop says of the sides, its own edge among them
    left = answer(LEFT, [replace(long, box=Box(10, 10, 70, 30), spread_px=spread), short])
    right = answer(RIGHT, [replace(long, box=Box(50, 10, 110, 30), score=0.9), replace(short, box=Box(50, 50, 65, 70))])
    merged = merge_crops([left, right], WH)
    assert merged.regions == (replace(long, score=0.9), short)
    assert merged.text == "bus, car"


def test_a_cut_box_yields_to_the_whole_one_though_it_has_the_higher_score():
    whole, part = Region("car", box=Box(30, 10, 65, 30), score=0.3), Region("car", box=Box(50, 9, 66, 31), score=0.8)
    (merged,) = merge_crops([answer(LEFT, [whole]), answer(RIGHT, [part])], WH).regions
    assert merged == replace(whole, score=0.8)


def test_a_sliver_that_is_placed_badly_is_still_a_part():
    # 3 px of the box show in the right crop, which answers 6 px: an overlap of a half of the sliver alone.
    whole, part = Region("car", box=Box(20, 10, 56, 30)), Region("car", box=Box(50, 14, 56.5, 24))
    assert merge_crops([answer(LEFT, [whole]), answer(RIGHT, [part])], WH).regions == (whole,)


def test_half_of_a_thing_yields_whatever_it_is_called():
    whole, half = Region("cat", box=Box(30, 10, 65, 30), score=0.3), Region("cup", box=Box(50, 10, 65, 30), score=0.8)
    assert merge_crops([answer(LEFT, [whole]), answer(RIGHT, [half])], WH).regions == (whole,)
    # But what the right crop tells from the cat stands before it; in the left crop it was missed.
    both = answer(RIGHT, [replace(whole, box=Box(50, 10, 65, 30)), Region("cup", box=Box(50, 12, 58, 20))])
    merged = merge_crops([answer(LEFT, [whole]), both], WH)
    assert [region.label for region in merged.regions] == ["cat", "cup"]


def test_equal_places_with_other_names_stay_two():
    box = Box(52, 10, 68, 30)
    parts = [answer(LEFT, [Region("car", box=box)]), answer(RIGHT, [Region("tree", box=box)])]
    assert [region.label for region in merge_crops(parts, WH).regions] == ["car", "tree"]


def test_a_description_may_say_another_size_in_another_crop():
    parts = [
        answer(crop, [Region(label, box=Box(52, 10, 68, 30), score=score)], "dense_caption")
        for crop, label, score in ((LEFT, "small red car", 0.4), (RIGHT, "medium red car", 0.7))
    ]
    assert [region.label for region in merge_crops(parts, WH).regions] == ["medium red car"]


def test_two_regions_of_one_crop_are_never_merged():
    alike = Region("car", box=Box(52, 10, 68, 30))
    assert len(merge_crops([answer(LEFT, [alike, alike]), answer(RIGHT, [])], WH).regions) == 2
    assert len(merge_crops([answer(LEFT, [alike, alike]), answer(RIGHT, [alike])], WH).regions) == 2


def test_regions_stand_in_the_order_of_the_first_crop_that_shows_them():
    a, b, c = (Region(label, box=Box(52, y, 68, y + 9)) for label, y in (("a", 70), ("b", 10), ("c", 40)))
    merged = merge_crops([answer(LEFT, [a, b]), answer(RIGHT, [c, b, a])], WH)
    assert merged.regions == (a, b, c)


# ---- lines of text

LETTER, LINE = 6, 12  # px of a letter, and of the height of a line


def printed(text, x, y):
    return Region(text, quad=quad(Box(x, y, x + LETTER * len(text), y + LINE)))


def lines_seen(crop, truth):
    """Lines as a crop shows them: the letters wholly inside; of a line cut along its middle, no letter is right."""
    seen = []
    for region in truth:
        (x, y), text = region.quad[0], region.label
        first = max(0, -int((x - crop.x0) // LETTER))
        last = max(0, min(len(text), int((crop.x1 - x) // LETTER)))
        box = clip(Box(x, y, x + LETTER * len(text), y + LINE), crop)
        said = text[first:last].strip()
        if not said or box.y1 - box.y0 < KEPT * LINE:
            continue
        whole = box.y1 - box.y0 > LINE - 1e-6
        seen.append(Region(said if whole else "#" * len(said), quad=quad(box)))
    return seen


def page(rng, rows):
    """Rows of two columns of words that are no two alike next to each other."""
    found = []
    for row in range(rows):
        x = rng.uniform(2, 20)
        for _ in range(2):
            text = " ".join(rng.sample(SIGN_WORDS, rng.randint(2, 7)))
            found.append(printed(text, x, 5 + row * 20 + rng.uniform(-1, 1)))
            x += LETTER * (len(text) + rng.randint(4, 6))
    return found


def test_lines_cut_by_any_tiling_come_back_in_reading_order():
    rng = random.Random(2)
    whole = cut = 0
    for _ in range(40):
        truth = page(rng, rng.randint(3, 12))
        image_wh = round(max(region.bounds.x1 for region in truth)) + 9, round(truth[-1].bounds.y1) + 9
        crops = tiling(rng, image_wh, overlap=0.35)
        parts = [answer(crop, lines_seen(crop, truth), "read_regions") for crop in crops]
        shown = [region for region in truth if _spells_whole(region, crops)]
        merged = {region.label: region for region in merge_crops(parts, image_wh).regions}
        for region in shown:
            assert region.label in merged, (region, crops, sorted(merged))
            assert all(almost(a, b, 1e-9) for a, b in zip(merged[region.label].quad, region.quad, strict=True))
        if len(shown) == len(truth):
            assert [region.label for region in merge_crops(parts, image_wh).regions] == [one.label for one in truth]
            cut += 1
        whole += len(shown)
    assert whole > 300
    assert cut > 12


def _spells_whole(region, crops):
    """Every pixel column of a line is shown, whole in height, by crops that overlap in it by three letters."""
    box = region.bounds
    spans = sorted((max(c.x0, box.x0), min(c.x1, box.x1)) for c in crops if c.y0 <= box.y0 and box.y1 <= c.y1)
    spans = [span for span in spans if span[0] < span[1]]
    if not spans or spans[0][0] > box.x0:
        return False
    end = spans[0][1]
    for begin, stop in spans[1:]:
        if end < box.x1 and end - begin < 3 * LETTER:
            return False
        end = max(end, stop)
    return end >= box.x1


def test_a_line_through_the_seam_is_joined_and_its_neighbours_are_not():
    # "Hello world" from x = 14 on: the o is at 38..44, so a crop from 37 on begins with it, and one to 70 ends with r.
    left = answer(LEFT, [printed("STOP", 2, 40), printed("Hello wor", 14, 10)], "read_regions")
    right = answer(Box(37, 0, 120, 100), [printed("o world", 38, 10), printed("EXIT", 75, 40)], "read_regions")
    merged = merge_crops([left, right], WH)
    assert merged.text == "Hello world\nSTOP\nEXIT"
    assert merged.regions[0].quad == quad(Box(14, 10, 80, 22))


def test_half_of_the_height_of_a_line_yields_to_all_of_it():
    upper, lower = Box(0, 0, 120, 60), Box(0, 40, 120, 100)
    half = Region("HFII0", quad=quad(Box(10, 52, 40, 60)), score=0.9)
    whole = replace(printed("HELLO", 10, 52), score=0.5)
    merged = merge_crops([answer(upper, [half], "read_regions"), answer(lower, [whole], "read_regions")], WH)
    assert [(region.label, region.quad) for region in merged.regions] == [("HELLO", whole.quad)]


def test_a_short_word_in_the_box_around_a_slanted_line_is_kept():
    # The slanted line leaves the corners of its box free; the word stands in one of them, and in the other crop.
    line = Region("a slanted line", quad=(Point(5, 5), Point(110, 80), Point(104, 88), Point(0, 13)))
    word = Region("EXIT", quad=quad(Box(75, 10, 99, 22)))
    merged = merge_crops(
        [answer(Box(0, 0, 120, 100), [line], "read_regions"), answer(RIGHT, [word], "read_regions")], WH
    )
    assert {region.label for region in merged.regions} == {"a slanted line", "EXIT"}


# ---- outlines


def disc(x, y, rx, ry):
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return tuple(Point(x + rx * np.sin(t), y - ry * np.cos(t)) for t in turns.tolist())


def ring_in(ring, crop):
    """The part of a convex ring inside a crop: Sutherland and Hodgman, one edge of the crop after the other."""
    for axis, limit, sign in ((0, crop.x0, 1), (0, crop.x1, -1), (1, crop.y0, 1), (1, crop.y1, -1)):
        kept = []
        for here, after in zip(ring, ring[1:] + ring[:1], strict=True):
            a, b = sign * (here[axis] - limit), sign * (after[axis] - limit)
            if a >= 0:
                kept.append(here)
            if a * b < 0:
                share = a / (a - b)
                kept.append(Point(*(p + share * (q - p) for p, q in zip(here, after, strict=True))))
        ring = tuple(kept)
        if not ring:
            return ()
    return ring


def ring_area(ring):
    x, y = np.array(ring).reshape(-1, 2).T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


@pytest.mark.parametrize("task", ["segment", "find"])
def test_outlines_cut_by_any_tiling_come_back(task):
    rng = random.Random(task)
    seen = 0
    for _ in range(12):
        image_wh = rng.randint(200, 600), rng.randint(200, 600)
        crops = tiling(rng, image_wh)
        truth = []
        for _ in range(30):
            rx, ry = rng.uniform(10, image_wh[0] / 3), rng.uniform(10, image_wh[1] / 3)
            ring = disc(rng.uniform(rx, image_wh[0] - rx), rng.uniform(ry, image_wh[1] - ry), rx, ry)
            bounds = Region(polygons=(ring,)).bounds
            # Not near one another, and every part of it is shown by a crop that shows enough of it.
            parts = [piece for crop in crops if ring_area(piece := ring_in(ring, crop)) >= KEPT * ring_area(ring)]
            apart = all(shared(bounds, Region(polygons=(other,)).bounds) == 0 for other in truth)
            shown = ring_area(unite([[piece] for piece in parts])[0]) if parts else 0
            if apart and len(truth) < 5 and shown >= 0.995 * ring_area(ring) and restorable(bounds, crops):
                truth.append(ring)
        named = "disc" if task == "find" else ""
        answers = []
        for crop in crops:
            rings = [(ring, ring_in(ring, crop)) for ring in truth]
            kept = [part for ring, part in rings if part and ring_area(part) >= KEPT * ring_area(ring)]
            answers.append(answer(crop, [Region(named, polygons=(part,)) for part in kept], task))
        merged = merge_crops(answers, image_wh).regions
        assert len(merged) == len(truth)
        for ring in truth:
            overlaps = [_iou(region.polygons, (ring,), image_wh) for region in merged]
            # An outline that no crop shows whole is traced on a raster of a quarter of a pixel.
            assert max(overlaps) > 0.97, (max(overlaps), crops)
        seen += len(truth)
    assert seen > 25


def _iou(one, other, image_wh):
    both, a, b = shared_area(one, other, Box(0, 0, *image_wh))
    return both / (a + b - both)


def test_an_outline_that_one_crop_shows_whole_keeps_its_vertices():
    ring = disc(40, 50, 20, 20)
    left = answer(LEFT, [Region(polygons=(ring,))], "segment")
    right = answer(RIGHT, [Region(polygons=(ring_in(ring, RIGHT),))], "segment")
    (merged,) = merge_crops([left, right], WH).regions
    assert all(almost(a, b, 1e-9) for a, b in zip(merged.polygons[0], ring, strict=True))


# ---- the answer


def test_what_is_said_about_the_crops_is_said_about_the_picture():
    raw = "car<loc_0><loc_0><loc_500><loc_500>", "tree<loc_500>"
    parts = [
        (LEFT, replace(read_answer(raw[0], "detect", (70, 100), truncated=True), cut="tokens")),
        (RIGHT, read_answer(raw[1], "detect", (70, 100))),
    ]
    merged = merge_crops(parts, WH)
    assert merged.raw == "\n".join(raw)
    assert merged.truncated
    assert merged.cut == "tokens"
    assert merged.invalid == parts[0][1].invalid + parts[1][1].invalid == 1
    assert merged.image_wh == WH
    assert merged.image is None
    assert merged.task == find_task("detect")


@pytest.mark.parametrize("task", [task for task in TASKS if task.form != "text"], ids=lambda task: task.name)
def test_one_crop_that_is_the_picture_changes_nothing(task):
    shapes = {"quads": {"quad": quad(Box(5, 5, 50, 20))}, "polygons": {"polygons": (disc(50, 50, 20, 20),)}}
    region = Region("", **shapes.get(task.form, {"box": Box(0, 5, 120, 20)}), score=0.5)
    whole = answer(Box(0, 0, *WH), [region], task, input="what was asked")
    assert merge_crops([whole], WH) == whole[1]


WRONG = {
    "no crops": (BadConfig, lambda: merge_crops([], WH)),
    "different tasks": (BadPrompt, lambda: merge_crops([answer(LEFT, []), answer(RIGHT, [], "propose")], WH)),
    "text only": (BadPrompt, lambda: merge_crops([answer(LEFT, [], "caption")], WH)),
    "beyond the picture": (BadRegion, lambda: merge_crops([answer(Box(60, 0, 130, 100), [])], WH)),
    "empty": (BadRegion, lambda: merge_crops([answer(Box(60, 0, 60, 100), [])], WH)),
    "another size": (BadRegion, lambda: merge_crops([(RIGHT, answer(Box(0, 0, 60, 100), [])[1])], WH)),
    "a share": (BadConfig, lambda: merge_crops([answer(LEFT, [])], WH, least=0)),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named(mistake):
    error, call = WRONG[mistake]
    with pytest.raises(error, match=r"give|ask|allowed|cut"):
        call()
