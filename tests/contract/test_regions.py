"""An answer in the shapes others want: published, supervision, a row of JSON, a picture."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from PIL import Image

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import spell_all
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.tasks import TASKS, find_task
from openflorence.errors import BadImage
from tests.hearing import said

CAR, WHEEL = spell_all((52, 332, 932, 774)), spell_all((702, 575, 866, 771))
QUAD = spell_all((100, 100, 500, 150, 490, 250, 90, 200))
RING, RING2 = spell_all((100, 100, 500, 100, 500, 500)), spell_all((750, 750, 900, 750, 820, 950))
GREY = (128, 128, 128)

# One raw answer of every form, with labels of several scripts.
RAW = {
    "caption": "a green car parked in front of a yellow building",
    "detect": f"car{CAR}wheel{WHEEL}{WHEEL}猫 é{WHEEL}",
    "propose": CAR + WHEEL,
    "ground": f"a green car{CAR}",
    "segment": f"{RING}<sep>{RING2}",
    "find": f"cat<poly>{RING}</poly>dog{WHEEL}",
    "read_regions": f"HELLO{QUAD}العربية{QUAD}",
}


def read(task, image_wh=(640, 480), raw=None, **given):
    return read_answer(RAW[task] if raw is None else raw, task, image_wh, **given)


def picture(image_wh=(640, 480), mode="RGB"):
    return Image.new("RGB", image_wh, GREY).convert(mode)


def colours(image):
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def test_bounds_hold_every_vertex():
    ring, ring2 = (Point(5, 1), Point(9, 4), Point(2, 3)), (Point(0, 7), Point(1, 7), Point(1, 8))
    assert Region(box=Box(1, 2, 3, 4)).bounds == (1, 2, 3, 4)
    assert Region(quad=(*ring, Point(4, 6))).bounds == (2, 1, 9, 6)
    assert Region(polygons=(ring, ring2)).bounds == (0, 1, 9, 8)
    assert Region("nowhere").bounds is None


def test_an_answer_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        read("detect").text = "dog"


# Published result shapes; numbers are bin centres of 640 x 480 in 32 bits, by the published arithmetic.
CAR_PX = [33.599998474121094, 159.59999084472656, 596.7999877929688, 371.7599792480469]


@pytest.mark.parametrize(
    ("task", "raw", "value"),
    [
        ("caption", "a car", "a car"),
        ("detect", f"car{CAR}", {"bboxes": [CAR_PX], "labels": ["car"]}),
        ("propose", CAR, {"bboxes": [CAR_PX], "labels": [""]}),
        ("ground", f"a{CAR}{CAR}", {"bboxes": [CAR_PX, CAR_PX], "labels": ["a", "a"]}),
        ("read_regions", f"l{CAR}{CAR}", {"quad_boxes": [CAR_PX * 2], "labels": ["l"]}),
        ("segment", f"{CAR}{CAR}<sep>{CAR * 2}", {"polygons": [[CAR_PX * 2, CAR_PX * 2]], "labels": [""]}),
        (
            "find",
            f"car{CAR}dog<poly>{CAR}{CAR}</poly>",
            {"bboxes": [CAR_PX], "bboxes_labels": ["car"], "polygons": [[CAR_PX * 2]], "polygons_labels": ["dog"]},
        ),
    ],
)
def test_the_published_shape(task, raw, value):
    assert read(task, raw=raw).to_published() == {find_task(task).token: value}


def test_published_scores_are_given_when_every_box_has_one():
    answer = read("detect", said=said(RAW["detect"], 0.0, 0.0))
    assert answer.to_published()["<OD>"]["scores"] == [1.0] * 4
    some = replace(answer, regions=(answer.regions[0], replace(answer.regions[1], score=None)))
    assert set(some.to_published()["<OD>"]) == {"bboxes", "labels"}
    assert set(read("ground", said=said(RAW["ground"], 0.0)).to_published().popitem()[1]) == {"bboxes", "labels"}


def test_published_integers_are_cut_not_rounded():
    # 596.79 and 371.75 are cut to 596 and 371, as the transformers library does.
    assert read("propose", raw=CAR).to_published(integers=True)["<REGION_PROPOSAL>"]["bboxes"] == [[33, 159, 596, 371]]


def test_detections_number_labels_by_first_appearance():
    found = read("detect").to_detections()
    assert found["class_name"].tolist() == ["car", "wheel", "wheel", "猫 é"]
    assert found.class_id.tolist() == [0, 1, 1, 2]
    assert found.xyxy[0] == pytest.approx([33.6, 159.6, 596.8, 371.76], abs=1e-4)
    assert found.confidence is None
    assert found.mask is None


def test_detections_have_confidence_if_every_region_has_a_score():
    answer = read("detect", said=said(RAW["detect"], -1.0, 0.0))
    assert answer.to_detections().confidence == pytest.approx([np.exp(-1)] * 4)
    some = replace(answer, regions=(*answer.regions, Region("x", box=Box(1, 2, 3, 4))))
    assert some.to_detections().confidence is None


def test_detections_keep_the_corners_of_quads():
    found = read("read_regions", (1000, 1000)).to_detections()
    assert found.data["quad"].shape == (2, 4, 2)
    assert found.data["quad"][0].tolist() == [[100.5, 100.5], [500.5, 150.5], [490.5, 250.5], [90.5, 200.5]]
    assert found.xyxy[0].tolist() == [90.5, 100.5, 500.5, 250.5]


def test_trap_22_masks_are_height_by_width_and_cover_what_the_rings_do():
    found = read("segment", (1000, 500)).to_detections()
    assert found.mask.shape == (1, 500, 1000)
    # A right triangle of 400 x 200 px and a triangle of 150 wide and 100 high: 40000 + 7500, less or more an outline.
    assert found.mask[0].sum() == pytest.approx(47500, rel=0.02)
    assert found.mask[0][60, 480]  # row 60, column 480: inside the first ring
    assert not found.mask[0][240, 110]
    assert found.mask[0][380, 820]  # and inside the second


def test_a_region_without_polygons_is_masked_by_its_box():
    found = read("find", (1000, 1000)).to_detections()
    # Dog: bins 702..866 by 575..771, both edges included.
    assert found.mask[1].sum() == 165 * 197


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_trap_17_an_empty_answer_becomes_empty_shapes(task):
    answer = Answer(task, (640, 480), image=picture())
    found = answer.to_detections()
    assert (len(found), found.xyxy.shape, found.class_id.shape) == (0, (0, 4), (0,))
    assert answer.draw().size == (640, 480)
    row = answer.as_row()
    assert (row["width"], row["height"], row["regions"]) == (640, 480, [])


def test_a_row_has_the_documented_keys_in_order():
    row = read("detect", raw=f"car{CAR}", said=said(f"car{CAR}", -0.1, 0.0)).as_row()
    assert list(row) == ["width", "height", "task", "input", "text", "score", "truncated", "cut", "regions"]
    assert row["regions"] == [
        {
            "label": "car",
            "score": 0.9048,
            "label_score": 1.0,
            "place_score": 0.9048,
            "box": [33.6, 159.6, 596.8, 371.76],
            "quad": None,
            "polygons": None,
        }
    ]


@pytest.mark.parametrize("task", RAW)
def test_a_row_is_json_and_says_where_everything_is(task):
    answer = read(task, input="what", truncated=True)
    row = json.loads(json.dumps(answer.as_row()))
    assert (row["task"], row["input"], row["truncated"], row["text"]) == (task, "what", True, answer.text)
    for region, told in zip(answer.regions, row["regions"], strict=True):
        assert told["box"] == (region.box and pytest.approx(list(region.box), abs=5e-4))  # rounded to a thousandth
        assert len(told["quad"] or []) == len(region.quad or [])
        assert [len(ring) for ring in told["polygons"] or []] == [len(ring) for ring in region.polygons]


@pytest.mark.parametrize("image_wh", [(96, 96), (640, 480), (1500, 40), (3, 900), (1, 1)])
@pytest.mark.parametrize("task", RAW)
def test_every_form_is_drawn_at_every_size(task, image_wh):
    image = picture(image_wh)
    drawn = read(task, image_wh, image=image).draw()
    assert drawn.mode == "RGB"
    assert max(drawn.size) >= 480
    assert drawn.width % image.width == 0
    if max(image_wh) > 3:
        assert len(colours(drawn)) > 1
    assert colours(image) == {GREY}  # the user's picture is left alone


def test_the_labels_of_a_crowd_leave_the_picture_to_be_seen():
    # Sixty boxes of 20 px. With letters as large as for a few, boxes and labels cover 23 % of the picture; so, 14 %.
    boxes = [Box(x, y, x + 20, y + 20) for y in range(20, 500, 80) for x in range(10, 500, 50)]
    regions = tuple(Region("cat", box, score=0.5) for box in boxes)
    drawn = Answer(find_task("detect"), (512, 512), regions=regions, image=picture((512, 512))).draw()
    covered = (np.asarray(drawn) != GREY).any(axis=2).mean()
    assert len(regions) == 60
    assert 0.05 < covered < 0.18


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_a_picture_of_any_mode_is_drawn_on(mode):
    assert read("detect", image=picture(mode=mode)).draw().mode == "RGB"


@pytest.mark.parametrize(
    "label", ["猫", "العربية", "é\u0301", "😀", "\x00\x07", "a\nb\tc", "\ud800", "w" * 500, "many words " * 50, "‮x"]
)
@pytest.mark.parametrize("task", ["detect", "caption"])
def test_any_script_is_drawn(task, label):
    # Cases that stop cv2.putText or a font: no letters, no glyphs, half a surrogate pair, no place to break.
    box = Box(600, 400, 640, 480)
    answer = Answer(find_task(task), (640, 480), text=label, image=picture())
    if task == "detect":
        answer = replace(answer, regions=(Region(label, box=box), Region("", box=box)))
    assert answer.draw().width == 640


def colour_at(image, x, y):
    return image.getpixel((int(x), int(y)))


def test_regions_of_one_label_share_a_colour():
    left, right, low = Box(50, 100, 150, 200), Box(300, 100, 400, 200), Box(300, 300, 400, 400)
    regions = (Region("wheel", left), Region("wheel", right), Region("door", low))
    drawn = Answer(find_task("detect"), (640, 480), regions=regions, image=picture()).draw()
    wheel, other, door = colour_at(drawn, 100, 200), colour_at(drawn, 350, 200), colour_at(drawn, 350, 400)
    assert wheel == other
    assert len({wheel, door, GREY}) == 3
    nameless = replace(read("propose"), regions=(Region("", left), Region("", low)), image=picture()).draw()
    assert colour_at(nameless, 100, 200) != colour_at(nameless, 350, 400)


def test_a_caption_stands_below_the_picture():
    drawn = read("caption", image=picture()).draw()
    assert drawn.height > 480
    assert colours(drawn.crop((0, 0, 640, 480))) == {GREY}
    strip = np.asarray(drawn.crop((0, 480, 640, drawn.height)).convert("L"))
    assert strip.min() < 60  # ink
    assert strip.max() > 240  # paper


def test_a_region_that_was_asked_about_is_outlined():
    drawn = read_answer("car", "describe_region", (640, 480), input=CAR, image=picture()).draw()
    assert colour_at(drawn, 34, 200) != GREY
    assert colour_at(drawn, 300, 200) == GREY


def test_drawing_needs_the_image_the_answer_is_about():
    with pytest.raises(BadImage, match="carries no image"):
        read("detect").draw()
    with pytest.raises(BadImage, match="unrotated copy"):
        read("detect", image=picture((480, 640))).draw()
