"""Images and records changed together: regions found again in the pixels, words stay true, and what is forbidden."""

from dataclasses import replace

import numpy as np
import pytest
from odd import odd_record
from PIL import Image, ImageDraw

from openflorence.contract.records import (
    GroundingNote,
    PairNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.shapes import Box, Point
from openflorence.data.augment import Augment, augment, clip_ring, crop_record, mirror, resize
from openflorence.data.chance import below, dice
from openflorence.data.cleaning import clean_record
from openflorence.data.order import signed_area
from openflorence.data.problems import Problems
from openflorence.data.wording import can_mirror, mirror_words, names_colours, names_places, swap_sides
from openflorence.errors import BadConfig

WIDTH, HEIGHT = 120, 80
COLOURS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
BOXES = {"a": Box(10, 12, 40, 30), "b": Box(50, 5, 90, 70), "c": Box(95, 40, 118, 79)}
OUTLINE = (Point(50, 5), Point(90, 20), Point(70, 40), Point(80, 70), Point(52, 60))  # with a bay on its right
STILL = Augment(flip=0, crop=0, colour=0)


def picture(outline=None):
    """Coloured rectangles on black, "b" with an outline if there is one."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    for label, (x0, y0, x1, y1) in BOXES.items():
        if label == "b" and outline:
            draw.polygon([tuple(point) for point in outline], fill=COLOURS[label])
        else:
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLOURS[label])
    return image


def record_of(*notes, **others):
    notes = notes or tuple(RegionNote(label=label, box=box) for label, box in BOXES.items())
    return Record(image="a.png", image_wh=(WIDTH, HEIGHT), regions=notes, whole=frozenset({"objects"}), **others)


def seen(image, label):
    """The edges of a colour, a pixel being where more than half of it is that colour; None when it is not there."""
    pixels = np.asarray(image).astype(int)
    ours = pixels[:, :, list(COLOURS).index(label)] > 127
    rows, columns = np.flatnonzero(ours.any(1)), np.flatnonzero(ours.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


# ---- pixels


@pytest.mark.parametrize(
    ("settings", "within_px"),
    [
        (Augment(flip=1, crop=0, colour=0), 0),
        (Augment(flip=0.5, crop=1, colour=0, min_visible=0.1), 0),
        (Augment(flip=0.5, crop=0.5, shrink=1, colour=0), 1),
        (Augment(flip=0, crop=1, colour=0.2, smallest_crop=0.3, min_visible=0), 0),
    ],
)
def test_every_box_is_where_its_pixels_are(settings, within_px):
    moved = sizes = 0
    for seed in range(60):
        image, record = augment(picture(), record_of(), dice(seed), settings)
        assert image.size == record.image_wh
        for note in record.regions:
            assert np.abs(np.subtract(seen(image, note.label), note.box)).max() <= within_px
        moved += [note.box for note in record.regions] != list(BOXES.values())
        sizes += record.image_wh != (WIDTH, HEIGHT)
    assert moved > 25
    assert sizes > 20 or settings.flip == 1


def test_an_outline_covers_its_pixels_after_a_crop_and_a_mirror():
    note = RegionNote(label="b", box=Box(50, 5, 90, 70), polygons=(OUTLINE,))
    settings = Augment(flip=0.5, crop=1, colour=0, min_visible=0.2, smallest_crop=0.4)
    turned = 0
    for seed in range(60):
        image, record = augment(picture(OUTLINE), record_of(note), dice(seed), settings)
        (after,) = record.regions
        (ring,) = after.polygons
        drawn = Image.new("1", image.size)
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in ring], fill=1)
        drawn, ours = np.asarray(drawn), np.asarray(image)[:, :, 1] > 127
        # PIL's polygons take their edge pixels in: mirrored, the edges differ by a pixel.
        assert (drawn & ours).sum() / (drawn | ours).sum() > 0.9
        assert np.abs(np.subtract(seen(image, "b"), after.box)).max() <= 1.5
        assert signed_area(ring) > 0  # clockwise as seen
        turned += image.size != (WIDTH, HEIGHT)
    assert turned > 30


def test_a_mirror_twice_is_nothing():
    for seed in range(40):
        record = clean_record(odd_record(seed), Problems())
        if record is None or not can_mirror(record):
            continue
        record = replace(record, texts=(TextNote(text="Left of the RIGHT car"),))
        image = Image.new("RGB", record.image_wh)
        again = mirror(*mirror(image, record))[1]
        assert again.texts == record.texts
        for one, other in zip(again.regions, record.regions, strict=True):
            assert np.allclose(one.points, other.points)
            assert len(one.polygons) == len(other.polygons)
            assert all(np.allclose(a, b) for a, b in zip(one.polygons, other.polygons, strict=True))


def test_a_mirror_by_hand():
    note = RegionNote(label="b", box=Box(10, 5, 30, 20), polygons=((Point(10, 5), Point(30, 5), Point(30, 20)),))
    grounded = GroundingNote(text="x", phrases=(PhraseNote(phrase="x", boxes=(Box(0, 0, 20, 10),)),))
    _, after = mirror(picture(), record_of(note, groundings=(grounded,)))
    assert after.regions[0].box == Box(90, 5, 110, 20)
    # Clockwise again: the vertices after the first in the other order.
    assert after.regions[0].polygons == ((Point(110, 5), Point(90, 20), Point(90, 5)),)
    assert after.groundings[0].phrases[0].boxes == (Box(100, 0, 120, 10),)


def test_a_resize_by_hand():
    image, after = resize(picture(), record_of(), (60, 20))
    assert image.size == after.image_wh == (60, 20)
    assert after.regions[0].box == Box(5, 3, 20, 7.5)


def test_a_ring_is_cut_at_the_window():
    diamond = (Point(50, 0), Point(100, 50), Point(50, 100), Point(0, 50))
    # By hand: the upper right quarter of a diamond is a triangle.
    assert set(clip_ring(diamond, Box(50, 0, 100, 50))) == {Point(50, 0), Point(100, 50), Point(50, 50)}
    assert clip_ring(diamond, Box(0, 0, 100, 100)) == diamond
    assert clip_ring(diamond, Box(0, 0, 20, 20)) == ()
    # What is cut off and what stays are the whole; the rings of a sweep are drawn by a seed.
    rng = np.random.default_rng(0)
    for _ in range(100):
        ring = tuple(Point(*point) for point in rng.uniform(0, 100, (6, 2)).tolist())
        parts = [signed_area(clip_ring(ring, Box(x, y, x + 50, y + 50))) for x in (0, 50) for y in (0, 50)]
        assert sum(parts) == pytest.approx(signed_area(ring))


# ---- crops


def test_what_is_hardly_visible_goes_away_and_the_rest_is_cut():
    notes = (
        RegionNote(label="half", box=Box(40, 0, 60, 10)),
        RegionNote(label="less", box=Box(41, 0, 61, 10)),
        RegionNote(label="out", box=Box(70, 0, 80, 10)),
        RegionNote(label="many", box=Box(49, 0, 99, 10), crowd=True),
    )
    after = crop_record(record_of(*notes), (20, 0, 50, 80), min_visible=0.5)
    assert [(note.label, note.box) for note in after.regions] == [
        ("half", Box(20, 0, 30, 10)),
        ("many", Box(29, 0, 30, 10)),
    ]
    assert after.image_wh == (30, 80)
    assert after.whole == {"objects"}
    assert crop_record(record_of(*notes[2:3]), (20, 0, 50, 80), 0.5) is None  # nothing would be left


def test_the_area_that_counts_is_that_of_the_outline():
    # A triangle in the left part of its box: 3/4 of it is in the left half.
    note = RegionNote(label="b", box=Box(0, 0, 40, 40), polygons=((Point(0, 0), Point(40, 40), Point(0, 40)),))
    after = crop_record(record_of(note), (0, 0, 20, 80), min_visible=0.7)
    assert after.regions[0].box == Box(0, 0, 20, 40)
    assert crop_record(record_of(note), (0, 0, 20, 80), min_visible=0.8) is None
    # The box is cut down to what is seen of the outline: above y = 20 it reaches to x = 20.
    assert crop_record(record_of(note), (0, 0, 120, 20), min_visible=0.1).regions[0].box == Box(0, 0, 20, 20)


def test_a_printed_word_stays_only_as_a_whole():
    inside = RegionNote(word="STOP", quad=(Point(10, 10), Point(20, 10), Point(20, 15), Point(10, 15)))
    cut = RegionNote(word="EXIT", label="sign", box=Box(30, 0, 52, 10), quad=inside.quad)
    outside = RegionNote(word="TAXI", box=Box(60, 0, 70, 10))
    record = replace(record_of(inside, cut, outside), whole=frozenset({"objects", "words"}))
    after = crop_record(record, (0, 0, 50, 80), min_visible=0.5)
    assert after.regions == (inside, RegionNote(label="sign", box=Box(30, 0, 50, 10)))
    assert after.whole == {"objects"}  # half a word is there to be read, and is not listed
    assert crop_record(replace(record, regions=(inside, outside)), (0, 0, 50, 80), 0.5).whole == record.whole


WHOLE_IMAGE = {
    "texts": (TextNote(text="three boxes"),),
    "groundings": (GroundingNote(text="a box", phrases=(PhraseNote(phrase="a box", boxes=(BOXES["a"],)),)),),
    "questions": (QuestionNote(question="how many?", answers=("3",)),),
    "pairs": (PairNote(prefix="how many?", suffix="3"),),
}


@pytest.mark.parametrize("kind", WHOLE_IMAGE)
def test_what_is_said_of_the_whole_image_forbids_to_lose_a_region(kind):
    record = record_of(**{kind: WHOLE_IMAGE[kind]})
    all_there, b_cut, c_lost = (5, 3, 120, 80), (0, 0, 104, 80), (0, 0, 93, 80)
    assert len(crop_record(record, all_there, 0.5).regions) == 3
    assert crop_record(record, c_lost, 0.5) is None
    assert crop_record(record, b_cut, 0.5) is None  # 9 of the 23 columns of "c" are left
    assert crop_record(record, b_cut, 0.3) is not None
    assert len(crop_record(record_of(), c_lost, 0.5).regions) == 2
    # Without a region, nothing says what a window would lose.
    bare = Record(image="a", image_wh=(WIDTH, HEIGHT), **{kind: WHOLE_IMAGE[kind]})
    assert (crop_record(bare, (5, 3, 120, 80), 0.5) is None) == (kind != "groundings")


def test_a_grounding_needs_its_boxes():
    record = Record(image="a", image_wh=(WIDTH, HEIGHT), groundings=WHOLE_IMAGE["groundings"])
    after = crop_record(record, (20, 0, 120, 80), 0.5)  # 20 of 30 columns
    assert after.groundings[0].phrases[0].boxes == (Box(0, 12, 20, 30),)
    assert crop_record(record, (30, 0, 120, 80), 0.5) is None


def test_expressions_places_and_locations_forbid_a_crop():
    everything = (5, 3, 120, 80)
    notes = tuple(replace(note, expressions=("the one",)) for note in record_of().regions)
    assert crop_record(record_of(*notes), everything, 0.5) is not None
    assert crop_record(record_of(*notes), (0, 0, 93, 80), 0.5) is None
    for words in ("the one on the left", "in the corner", "The centre box"):
        assert crop_record(record_of(replace(notes[0], expressions=(words,)), *notes[1:]), everything, 0.5) is None
    assert (
        crop_record(
            record_of(pairs=(PairNote(prefix="<OD>", suffix="a<loc_1><loc_2><loc_3><loc_4>"),)), everything, 0.5
        )
        is None
    )


def test_an_image_that_may_not_be_cropped_stays_whole():
    record = record_of(**WHOLE_IMAGE | {"texts": (TextNote(text="a box at the top"),)})
    settings = Augment(flip=1, crop=1, colour=0, smallest_crop=0.1)
    for seed in range(10):
        image, after = augment(picture(), record, dice(seed), settings)
        assert after == record
        assert image.tobytes() == picture().tobytes()


# ---- words


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("the left car", "the right car"),
        ("Left, RIGHT and left.", "Right, LEFT and right."),
        ("a left-hand drive", "a right-hand drive"),
        ("the Leftmost one, rightwards", "the Rightmost one, leftwards"),
        ("bright upright copyright", "bright upright copyright"),
        ("from left to right", "from right to left"),
    ],
)
def test_left_and_right_are_swapped(text, swapped):
    assert swap_sides(text) == swapped
    assert swap_sides(swapped) == text


def test_everything_that_is_said_is_swapped_and_phrases_stay_in_their_text():
    text = "left a car right a bus leftmost"
    phrases = tuple(
        PhraseNote(phrase=words, boxes=(), span=(text.index(words), text.index(words) + len(words)))
        for words in ("a car right", "a bus", "leftmost")
    )
    record = record_of(
        RegionNote(label="car", box=BOXES["a"], description="left car", expressions=("car on the left", "it")),
        texts=(TextNote(text="Left"),),
        groundings=(GroundingNote(text=text, phrases=(*phrases, PhraseNote(phrase="left", boxes=()))),),
        questions=(QuestionNote(question="which side, left?", answers=("right", "left")),),
        pairs=(PairNote(prefix="left", suffix="left"),),
    )
    after = mirror_words(record)
    assert after.regions[0].description == "right car"
    assert after.regions[0].expressions == ("car on the right", "it")
    assert after.texts[0].text == "Right"
    assert after.questions[0].question == "which side, right?"
    assert after.questions[0].answers == ("left", "right")
    assert after.pairs == record.pairs
    grounding = after.groundings[0]
    assert grounding.text == "right a car left a bus rightmost"
    assert [one.phrase for one in grounding.phrases] == ["a car left", "a bus", "rightmost", "right"]
    for one in grounding.phrases[:3]:
        assert grounding.text[slice(*one.span)] == one.phrase


FORBIDDEN = {
    "a word": record_of(RegionNote(box=BOXES["a"], word="STOP")),
    "a quad": record_of(RegionNote(quad=(Point(0, 0), Point(9, 0), Point(9, 9), Point(0, 9)))),
    "a pair": record_of(pairs=(PairNote(prefix="p", suffix="s"),)),
    "a label with a side": record_of(RegionNote(box=BOXES["a"], label="left shoe")),
    "no side": record_of(texts=(TextNote(text="A dog right next to a cat"),)),
    "no side either": record_of(texts=(TextNote(text="a bag left alone"),)),
    "turning": record_of(questions=(QuestionNote(question="Clockwise?", answers=("no",)),)),
    "reading": record_of(questions=(QuestionNote(question="What does the sign say?", answers=("stop",)),)),
}


@pytest.mark.parametrize("why", FORBIDDEN)
def test_an_image_that_would_be_told_wrongly_is_not_mirrored(why):
    record = FORBIDDEN[why]
    image, after = augment(picture(), record, dice(0), Augment(flip=1, crop=0, colour=0))
    assert after == record
    assert image.tobytes() == picture().tobytes()


def test_what_says_nothing_of_sides_is_mirrored():
    record = record_of(texts=(TextNote(text="a dog on the left, a bright cat next to it"),))
    image, after = augment(picture(), record, dice(0), Augment(flip=1, crop=0, colour=0))
    assert after.texts[0].text == "a dog on the right, a bright cat next to it"
    assert image.tobytes() != picture().tobytes()


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (record_of(texts=(TextNote(text="A RED car"),)), True),
        (record_of(RegionNote(box=BOXES["a"], label="orange")), True),
        (record_of(RegionNote(box=BOXES["a"], description="greyish fur")), True),
        (record_of(questions=(QuestionNote(question="what colour?", answers=("x",)),)), True),
        (record_of(texts=(TextNote(text="a predator in Redmond"),)), False),
    ],
)
def test_colours_stay_where_they_are_named(record, named):
    assert names_colours(record) == named
    image, after = augment(picture(), record, dice(0), replace(STILL, colour=0.2))
    assert (image.tobytes() == picture().tobytes()) == named
    assert after == record


def test_places_are_seen():
    assert names_places(record_of(texts=(TextNote(text="a car at the Top"),)))
    assert not names_places(record_of(texts=(TextNote(text="a car on a desktop"),)))


# ---- settings


def test_printed_words_are_not_made_smaller():
    settings = replace(STILL, shrink=1)
    assert augment(picture(), record_of(), dice(0), settings)[0].size != (WIDTH, HEIGHT)
    assert augment(picture(), FORBIDDEN["a word"], dice(0), settings)[0].size == (WIDTH, HEIGHT)


def test_nothing_changes_without_a_setting():
    for seed in range(5):
        image, record = augment(picture(), record_of(), dice(seed), STILL)
        assert record == record_of()
        assert image.tobytes() == picture().tobytes()


def test_the_same_dice_change_the_same_and_are_thrown_as_often_for_every_record():
    settings = Augment(flip=0.5, crop=0.5, colour=0.2, shrink=0.5)
    kept = []
    for record in (record_of(), *FORBIDDEN.values()):
        rng, again = dice(3), dice(3)
        image, after = augment(picture(), record, rng, settings)
        other, same = augment(picture(), record, again, settings)
        assert (image.tobytes(), after) == (other.tobytes(), same)
        kept.append(below(rng, 1 << 30))
    assert len(set(kept)) == 1


def test_the_share_of_mirrored_images_is_the_one_asked_for():
    changed = sum(
        augment(picture(), record_of(), dice(n), replace(STILL, flip=0.3))[1] != record_of() for n in range(400)
    )
    assert abs(changed - 120) < 4 * 9.2  # 400 * 0.3; the standard deviation is sqrt(400 * 0.3 * 0.7)


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"colour": -0.1}, {"smallest_crop": 0.0}, {"min_visible": 2}])
def test_a_setting_outside_its_range_is_refused(wrong):
    with pytest.raises(BadConfig, match="allowed are"):
        Augment(**wrong)
