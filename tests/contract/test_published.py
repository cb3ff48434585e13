"""The published parser, vector by vector: recorded from the published code, losses included."""

import random

import pytest

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import spell_all
from openflorence.contract.published import NOT_GROUNDED, published_regions
from openflorence.contract.tasks import TASKS


def run(first, last):
    return spell_all(range(first, last + 1))


def flat(region):
    return [value for point in region.points for value in point]


def labelled(raw, task, image_wh=(1000, 1000)):
    return [(region.label, flat(region)) for region in read_answer(raw, task, image_wh, published=True).regions]


CAR = [33.599998474121094, 159.59999084472656, 596.7999877929688, 371.7599792480469]
PERSON = [6.71999979019165, 9.84000015258789, 19.520000457763672, 19.439998626708984]

# Executed with the published code; images of 1000 x 1000 unless stated.
VECTORS = [
    (
        "detect",
        (640, 480),
        f"<s>car{spell_all((52, 332, 932, 774))}person{spell_all((10, 20, 30, 40))}</s>",
        [("car", CAR), ("person", PERSON)],
    ),
    ("detect", None, "cat" + run(1, 8), [("cat", [1.5, 2.5, 3.5, 4.5]), ("cat", [5.5, 6.5, 7.5, 8.5])]),
    ("detect", None, "car" + run(1, 5), [("car", [1.5, 2.5, 3.5, 4.5])]),
    ("detect", None, f"<s>{run(1, 8)}</s>", [("loc_1>", [2.5, 3.5, 4.5, 5.5])]),
    ("detect", None, "it" + run(1, 4), [("it", [1.5, 2.5, 3.5, 4.5])]),  # only grounding has a blacklist
    ("detect", None, "a\nb" + run(1, 4), []),
    ("detect", None, "café" + run(1, 4), [("caf", [1.5, 2.5, 3.5, 4.5])]),
    ("detect", None, "a<b" + run(1, 4), [("b", [1.5, 2.5, 3.5, 4.5])]),
    ("propose", None, "dog" + run(1, 4), [("", [1.5, 2.5, 3.5, 4.5])]),
    ("ground", None, f"the image{run(1, 4)}a truck{run(5, 8)}", [("a truck", [5.5, 6.5, 7.5, 8.5])]),
    ("ground", None, "The Image" + run(1, 4), [("The Image", [1.5, 2.5, 3.5, 4.5])]),
    (
        "read_regions",
        (1000, 500),
        f"</s><s>HELLO{spell_all([0] * 8)}WORLD{spell_all(range(10, 81, 10))}</s>",
        [("</s>HELLO", [0.5, 0.25] * 4), ("WORLD", [10.5, 10.25, 30.5, 20.25, 50.5, 30.25, 70.5, 40.25])],
    ),
    ("read_regions", None, "A" + run(1, 7), []),
    ("read_regions", None, "l1\nl2" + run(1, 8), [("l2", [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5])]),
    ("detect", None, "sky<loc_0><loc_0><loc_1000><loc_300>", [("sky", [0.5, 0.5, 1000.5, 300.5])]),
    ("detect", None, "box<loc_9><loc_9><loc_1><loc_1>", [("box", [9.5, 9.5, 1.5, 1.5])]),
]


@pytest.mark.parametrize(("task", "image_wh", "raw", "expected"), VECTORS)
def test_boxes_and_lines_are_read_as_published(task, image_wh, raw, expected):
    assert labelled(raw, task, image_wh or (1000, 1000)) == expected


# Rings as lists of bins, in 1000 x 1000 px, where a centre is the bin and a half.
POLYGONS = [
    ("segment", f"{run(1, 4)}<sep>{run(5, 8)}", [("", [[1, 2, 3, 4], [5, 6, 7, 8]])]),
    ("segment", run(1, 5), [("", [[1, 2, 3, 4]])]),
    (
        "segment",
        f"<poly>{run(1, 6)}</poly><poly>{run(7, 10)}</poly>",
        [("", [[1, 2, 3, 4, 5, 6]]), ("", [[7, 8, 9, 10]])],
    ),
    (
        "find",
        f"car<poly>{run(1, 4)}<sep>{run(5, 6)}</poly>dog<poly>{run(7, 8)}</poly>",
        [("car", [[1, 2, 3, 4], [5, 6]]), ("dog", [[7, 8]])],
    ),
    ("find", f"car{run(1, 4)}dog<poly>{run(5, 8)}</poly>", [("car", [[1, 2, 3, 4]]), ("dog", [[5, 6, 7, 8]])]),
    ("find", f"café<poly>{run(1, 6)}</poly>", [("café", [[1, 2, 3, 4, 5, 6]])]),
]


@pytest.mark.parametrize(("task", "raw", "expected"), POLYGONS)
def test_polygons_are_read_as_published(task, raw, expected):
    regions = read_answer(raw, task, (1000, 1000), published=True).regions
    rings = [
        (region.label, [[value - 0.5 for point in ring for value in point] for ring in region.polygons])
        for region in regions
    ]
    assert rings == expected


def test_small_lines_of_text_were_dropped_until_july_2024():
    # The transformers test-suite: bins 1 1 2 2 2 2 1 1 are far below a hundredth of the image.
    raw = "Small" + spell_all((1, 1, 2, 2, 2, 2, 1, 1))
    assert published_regions(raw, "quads", (1000, 1000), quad_area=0.01) == ()
    assert len(published_regions(raw, "quads", (1000, 1000))) == 1
    # By hand: a square of 100 x 100 px is 0.010 of the image, but the published sum leaves out its left edge and
    # gets (-10050 + 20050 + 20050) / 2 = 15025 px, which is 0.015.
    square = "Square" + spell_all((100, 100, 200, 100, 200, 200, 100, 200))
    assert len(published_regions(square, "quads", (1000, 1000), quad_area=0.012)) == 1
    assert published_regions(square, "quads", (1000, 1000), quad_area=0.016) == ()


def test_the_transformers_library_cuts_to_whole_pixels():
    # The transformers test-suite: a raw decode with its frame, 1000 x 1000.
    raw = f"</s><s>car{spell_all((53, 334, 933, 775))}door handle{spell_all((425, 504, 474, 516))}</s><pad>"
    for published in (False, True):
        value = read_answer(raw, "detect", (1000, 1000), published=published).to_published(integers=True)
        boxes = [[53, 334, 933, 775], [425, 504, 474, 516]]
        assert value == {"<OD>": {"bboxes": boxes, "labels": ["car", "door handle"]}}
    sky = read_answer("sky<loc_0><loc_0><loc_1000><loc_300>", "detect", (1000, 1000), published=True)
    assert sky.to_published(integers=True)["<OD>"]["bboxes"] == [[0, 0, 1000, 300]]


# Raw strings recorded in another library's tests, image of 640 x 480.
RECORDED = [
    (
        "detect",
        "</s><s><s><s>car<loc_53><loc_333><loc_933><loc_774>door<loc_712><loc_203><loc_906><loc_545>"
        "wheel<loc_704><loc_576><loc_866><loc_772><loc_149><loc_584><loc_310><loc_773></s>",
        [
            ("car", [34.24, 160.08, 597.44, 371.76]),
            ("door", [456.0, 97.68, 580.16, 261.84]),
            ("wheel", [450.88, 276.72, 554.56, 370.8]),
            ("wheel", [95.68, 280.56, 198.72, 371.28]),
        ],
    ),
    (
        "dense_caption",
        "</s><s>turquoise Volkswagen Beetle<loc_52><loc_333><loc_932><loc_774>"
        "wheel<loc_704><loc_576><loc_864><loc_772><loc_148><loc_584><loc_308><loc_773></s>",
        [
            ("turquoise Volkswagen Beetle", [33.6, 160.08, 596.8, 371.76]),
            ("wheel", [450.88, 276.72, 553.28, 370.8]),
            ("wheel", [95.04, 280.56, 197.44, 371.28]),
        ],
    ),
    (
        "ground",
        "</s><s><s><s>A green car<loc_54><loc_330><loc_911><loc_780>"
        "a yellow building<loc_0><loc_8><loc_998><loc_635></s>",
        [
            ("A green car", [34.88, 158.64, 583.36, 374.64]),
            ("a yellow building", [0.32, 4.08, 639.04, 305.04]),
        ],
    ),
]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("task", "raw", "expected"), RECORDED)
def test_recorded_answers_are_read(task, raw, expected, published):
    answer = read_answer(raw, task, (640, 480), published=published)
    assert [region.label for region in answer.regions] == [label for label, _ in expected]
    for region, (_, box) in zip(answer.regions, expected, strict=True):
        assert region.box == pytest.approx(box, abs=1e-4)  # recorded with two decimals; 32 bits hold seven digits
    assert answer.invalid == 0


def test_published_text_keeps_locations_and_padding():
    answer = read_answer("</s><s>car<loc_1><loc_2><loc_3><loc_4></s><pad>", "classify_region", (9, 9), published=True)
    assert answer.to_published() == {"<REGION_TO_CATEGORY>": "car<loc_1><loc_2><loc_3><loc_4><pad>"}


def test_the_blacklist_has_72_phrases_and_only_the_published_reader_heeds_it():
    assert len(NOT_GROUNDED) == 72
    assert {"it", "the image", "each other", "lots", "a set", "I"} <= NOT_GROUNDED
    raw = "".join(phrase + run(1, 4) for phrase in sorted(NOT_GROUNDED))
    assert read_answer(raw, "ground", (9, 9), published=True).regions == ()
    assert len(read_answer(raw, "ground", (9, 9)).regions) == 72


def mixed_text(draw):
    """Draw an answer no checkpoint would give: words, runs of any length, markers in any order."""
    words = ["car", "the image", " a b ", "café", "a\nb", "\n x", "x<y", "<", "l\tq", "</od>", "a<od>b"]
    marks = ["<sep>", "<poly>", "</poly>", "<s>"]
    pieces = []
    for _ in range(draw.randint(1, 8)):
        bins = [draw.randint(0, 1003) for _ in range(draw.choice((1, 3, 4, 5, 8, 9)))]
        pieces.append(draw.choice((spell_all(bins), spell_all(bins), draw.choice(words), draw.choice(marks))))
    return "".join(pieces)


def shapes(found):
    """Give the geometry of what the transformers library found; a grounded phrase holds several boxes."""
    grounded = bool(found.get("bbox")) and isinstance(found["bbox"][0], list)
    return found["bbox"] if grounded else [found.get("polygons") or found.get("quad_box") or found["bbox"]]


@pytest.mark.slow
def test_the_published_reader_equals_the_transformers_library():
    module = pytest.importorskip("transformers.models.florence2.processing_florence2")
    kinds = {
        "detect": "description_with_bboxes",
        "propose": "bboxes",
        "ground": "phrase_grounding",
        "segment": "polygons",
        "find": "description_with_bboxes_or_polygons",
        "read_regions": "ocr",
    }

    class NoTokens:
        all_special_tokens = ()

    config = {kind: {} for kind in kinds.values()} | {"phrase_grounding": {"banned_grounding_tokens": NOT_GROUNDED}}
    theirs = module.Florence2PostProcessor(config, NoTokens())
    draw = random.Random(0)
    seen = 0
    for _ in range(300):
        raw, image_wh = mixed_text(draw), (draw.randint(1, 3000), draw.randint(1, 3000))
        for task, kind in kinds.items():
            found = theirs(text=raw, image_size=image_wh, parse_tasks=kind)[kind]
            expected = [shape for one in found for shape in shapes(one)]
            (value,) = read_answer(raw, task, image_wh, published=True).to_published(integers=True).values()
            ours = [shape for key in ("bboxes", "quad_boxes", "polygons") for shape in value.get(key, [])]
            assert ours == expected, raw
            seen += len(expected)
    assert seen > 1000


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_numbers_past_any_size_do_not_stop_the_published_reader(task):
    answer = read_answer(f"a<loc_{'9' * 5000}>{run(1, 8)}", task, (640, 480), published=True)
    assert (answer.task, answer.image_wh) == (task, (640, 480))
    assert bool(answer.regions) == (task.form not in ("text", "phrases"))  # "a" is on the blacklist of phrases
