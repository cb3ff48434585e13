"""The truth of every task, worked out a second time from the things of the scene."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.locations import BINS
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.chance import dice
from openflorence.data.sentences import caption, place, relation
from openflorence.data.truth import COLOUR_NAMES, LABELS, ask, dense_truth, examples, polygons, vocabulary_texts
from openflorence.data.words import COLOURS, SIZES, counted, plural, with_article
from openflorence.data.world import Scene, Thing, WorldConfig, draw_scene

SCENES = [draw_scene(seed, WorldConfig(sign_share=0.5)) for seed in range(120)]
ALL = (*TASKS, FREE_TEXT)


def posed(task: str) -> list:
    return [(scene, example) for i, scene in enumerate(SCENES) if (example := ask(scene, task, dice(i)))]


def matches(thing: Thing, phrase: str) -> bool:
    """Does every word of "small red ice cream" fit this thing?"""
    for word in phrase.replace(thing.kind, "", 1).split():
        if word not in (thing.size, thing.colour):
            return False
    return phrase.endswith(thing.kind)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_every_task_is_posed_and_reads_back_what_it_wrote(task):
    found = posed(task.name)
    assert len(found) >= (len(SCENES) if task.name != "read_region" else 40) * 0.9
    for scene, example in found:
        answer = example.answer
        assert answer.task is example.task is task
        assert (example.text is not None) == (task.input in ("text", "free"))
        assert (example.region is not None) == (task.input == "region")
        again = read_answer(write_answer(answer), task, scene.image_wh, input=answer.input)
        assert again.invalid == 0
        assert again.text == answer.text
        assert again.input == answer.input
        assert [region.label for region in again.regions] == [region.label for region in answer.regions]
        for one, other in zip(again.regions, answer.regions, strict=True):
            assert len(one.points) == len(other.points)
            # Half a bin, and an edge on the border of the image is its last bin's centre.
            assert np.allclose(one.points, other.points, atol=0.51 * max(scene.image_wh) / BINS + 1e-9)


def test_the_sweep_saw_every_task():
    assert len(ALL) == 16  # the published table of fifteen, and free text


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_regions_lie_in_the_image(task):
    for scene, example in posed(task.name):
        w, h = scene.image_wh
        for region in example.answer.regions:
            for x, y in region.points:
                assert 0 <= x <= w
                assert 0 <= y <= h


def test_the_same_chance_asks_the_same():
    assert examples(SCENES[3], dice(5)) == examples(SCENES[3], dice(5))
    assert [example.task for example in examples(SCENES[3], dice(0), tasks=("read", "detect"))] == [ALL[6], ALL[3]]


def test_detection_names_everything_left_to_right():
    for scene, example in posed("detect"):
        regions = example.answer.regions
        assert [region.box.x0 for region in regions] == sorted(region.box.x0 for region in regions)
        assert Counter(region.label for region in regions) == Counter(thing.kind for thing in scene.things)


def test_captions_name_each_thing_once():
    for scene, example in posed("caption"):
        numbers = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
        named: Counter[str] = Counter()
        for phrase in re.split(r", | and ", example.answer.text):
            number, rest = phrase.split(" ", 1)
            named[rest] += numbers[number]
        singular = {plural(f"{thing.colour} {thing.kind}"): f"{thing.colour} {thing.kind}" for thing in scene.things}
        things = Counter(f"{thing.colour} {thing.kind}" for thing in scene.things)
        assert Counter({singular.get(key, key): n for key, n in named.items()}) == things


def test_articles_and_plurals():
    assert with_article("orange fish") == "an orange fish"
    assert with_article("red umbrella") == "a red umbrella"
    assert counted("umbrella", 1) == "an umbrella"
    assert counted("red fish", 2) == "two red fish"
    assert counted("ice cream", 3) == "three ice creams"
    assert counted("small snowman", 2) == "two small snowmen"
    assert plural("butterfly") == "butterflies"


def test_paragraphs_tell_the_words_of_signs_and_true_relations():
    for scene in SCENES:
        text = ask(scene, "more_detailed_caption", dice(0)).answer.text
        for sign in scene.signs:
            assert f"that says {sign.word}." in text
        for first, how, second in re.findall(r"The ([a-z ]+) is (left of|above|on) the ([a-z ]+)\.", text):
            (a,) = [thing for thing in scene.things if matches(thing, first)]
            (b,) = [thing for thing in scene.things if matches(thing, second)]
            check_relation(scene, a, how, b)


def check_relation(scene: Scene, a: Thing, how: str, b: Thing) -> None:
    """By the middles of the boxes, as a person would point."""
    ax, ay, bx, by = a.box.x0 + a.box.x1, a.box.y0 + a.box.y1, b.box.x0 + b.box.x1, b.box.y0 + b.box.y1
    if how == "left of":
        assert ax < bx
        assert abs(bx - ax) > abs(by - ay)
    elif how == "above":
        assert ay < by
        assert abs(by - ay) > abs(bx - ax)
    else:
        assert a.box.x0 < b.box.x1
        assert b.box.x0 < a.box.x1
        assert a.on == b.number


def test_relations_go_one_way_only():
    for scene in SCENES:
        for a in scene.things:
            assert relation(scene, a, a) is None
            for b in scene.things:
                assert relation(scene, a, b) is None or relation(scene, b, a) is None


def test_reading_goes_from_the_top_down_and_read_regions_agrees():
    for scene, example in posed("read"):
        regions = ask(scene, "read_regions", dice(0)).answer.regions
        assert example.answer.text == "\n".join(region.label for region in regions)
        for upper, lower in pairwise(regions):
            assert min(p.y for p in upper.quad) < max(p.y for p in lower.quad)
        assert Counter(region.label for region in regions) == Counter(sign.word for sign in scene.signs)


def test_grounded_phrases_stand_in_the_text_and_have_all_their_boxes():
    styles = set()
    for scene, example in posed("ground"):
        labels = list(dict.fromkeys(region.label for region in example.answer.regions))
        spots = [example.text.index(label) for label in labels]
        assert spots == sorted(spots)  # the order of the text
        for label in labels:
            boxes = [region.box for region in example.answer.regions if region.label == label]
            _, rest = label.split(" ", 1)
            fitting = [t.box for t in scene.things if matches(t, rest) or plural_matches(t, rest)]
            assert boxes == fitting
        styles.add(example.text.split()[0] == "The")
    assert styles == {True, False}


def plural_matches(thing: Thing, phrase: str) -> bool:
    return phrase.endswith(plural(thing.kind)) and matches(thing, phrase.removesuffix(plural(thing.kind)) + thing.kind)


def test_find_gives_every_match_and_nothing_for_what_is_absent():
    absent = 0
    for scene, example in posed("find"):
        phrases = example.text.split("<and>")
        assert len(set(phrases)) == len(phrases) <= 2
        expected = [(phrase, thing.box) for phrase in phrases for thing in scene.things if matches(thing, phrase)]
        assert [(region.label, region.box) for region in example.answer.regions] == expected
        absent += any(not any(matches(thing, phrase) for thing in scene.things) for phrase in phrases)
    assert 2 < absent < 40  # a tenth of the phrases


def test_a_referring_expression_means_the_thing_that_is_cut_out():
    kinds = set()
    for scene in SCENES:
        for seed in range(3):
            example = ask(scene, "segment", dice(seed))
            thing = meant(scene, example.text)
            kinds.add("relation" if re.search(" left of | above | on ", example.text) else "name")
            assert example.answer.regions[0].polygons == polygons(scene, thing)
    assert kinds == {"relation", "name"}


def meant(scene: Scene, text: str) -> Thing:
    phrase = text.removeprefix("the ")
    if found := re.fullmatch("sign that says ([A-Za-z]+)", phrase):
        (thing,) = [sign for sign in scene.signs if sign.word == found[1]]
    elif found := re.fullmatch("(.+) (left of|above|on) the (.+)", phrase):
        (anchor,) = [thing for thing in scene.things if matches(thing, found[3])]
        rivals = [t for t in scene.things if matches(t, found[1]) and relation(scene, t, anchor) == found[2]]
        (thing,) = rivals
        check_relation(scene, thing, found[2], anchor)
    else:
        (thing,) = [thing for thing in scene.things if matches(thing, phrase)]
    return thing


def test_polygons_cover_the_visible_mask():
    scores = []
    for scene in SCENES[:60]:
        for thing in scene.things:
            rings = polygons(scene, thing)
            assert 1 <= len(rings) <= 6
            assert [len(ring) for ring in rings] == [20] + [10] * (len(rings) - 1)
            drawn = np.zeros(scene.owner.shape, bool)
            for ring in rings:
                assert min(range(len(ring)), key=lambda i: (ring[i].y, ring[i].x)) == 0
                turn = sum(a.x * b.y - b.x * a.y for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))
                assert turn > 0  # clockwise, y pointing down
                drawn |= filled(ring, scene.image_wh)
            mask = scene.mask(thing)
            scores.append((drawn & mask).sum() / (drawn | mask).sum())
    # Measured: 0.94, 0.82, 0.77. Equal steps cut corners: with as many vertices placed at the corners it was 0.97, but
    # where those are cannot be learnt (docs/log.md).
    assert np.median(scores) > 0.93
    assert np.quantile(scores, 0.05) > 0.8
    assert min(scores) > 0.75


def filled(ring, image_wh) -> np.ndarray:
    """Fill a ring eight times enlarged; a pixel counts when its middle is inside."""
    sheet = Image.new("1", (image_wh[0] * 8, image_wh[1] * 8))
    ImageDraw.Draw(sheet).polygon([(p.x * 8, p.y * 8) for p in ring], fill=1)
    return np.asarray(sheet)[4::8, 4::8]


def test_a_ring_is_cut_in_two_so_that_its_hole_stays_open():
    scene = draw_scene(0, WorldConfig(kinds=("ring",), sizes=("large",), max_objects=1, sign_share=0, outline_share=0))
    rings = polygons(scene, scene.things[0])
    assert len(rings) == 2
    middle = (scene.things[0].box.x0 + scene.things[0].box.x1) / 2
    assert max(p.x for p in rings[0]) <= middle + 1 or min(p.x for p in rings[0]) >= middle - 1


def test_region_tasks_describe_the_thing_in_the_region():
    for scene in SCENES:
        for seed in range(3):
            for task in ("classify_region", "describe_region", "read_region", "segment_region"):
                example = ask(scene, task, dice(seed))
                if example is None:
                    assert task == "read_region"
                    assert not scene.signs
                    continue
                (thing,) = [thing for thing in scene.things if thing.box == example.region]
                expected = {
                    "classify_region": thing.kind,
                    "describe_region": f"{thing.size} {thing.colour} {thing.kind}".strip(),
                    "read_region": thing.word,
                    "segment_region": "",
                }
                assert example.answer.text == expected[task]


# ---- questions, answered again from the things


def again(scene: Scene, question: str) -> str:
    """Answer a question by its words alone; the asker's code is not used, but for relation and place."""
    if question == "How many objects are there?":
        return str(len([t for t in scene.things if t.kind != "sign"]))
    if m := re.fullmatch(r"How many (\w+) objects are there\?", question):
        return str(len([t for t in scene.things if t.kind != "sign" and t.colour == m[1]]))
    if m := re.fullmatch(r"How many (.+) are there\?", question):
        return str(len([t for t in scene.things if plural(t.kind) == m[1]]))
    if question == "What color is the background?":
        return scene.ground
    if question == "What is the background like?":
        return scene.texture
    if m := re.fullmatch(r"Is there an? (.+)\?", question):
        return "yes" if any(matches(t, m[1]) for t in scene.things) else "no"
    if m := re.fullmatch(r"What is (left of|above|on) the (.+)\?", question):
        (anchor,) = [t for t in scene.things if matches(t, m[2])]
        (found,) = [t for t in scene.things if relation(scene, t, anchor) == m[1]]
        check_relation(scene, found, m[1], anchor)
        return with_article(f"{found.colour} {found.kind}")
    patterns = {
        r"What color is the (.+)\?": lambda t: t.colour,
        r"How big is the (.+)\?": lambda t: t.size,
        r"Where is the (.+)\?": lambda t: place(scene, t),
        r"What does the (.+) say\?": lambda t: t.word,
    }
    for pattern, tell in patterns.items():
        if m := re.fullmatch(pattern, question):
            (thing,) = [t for t in scene.things if matches(t, m[1])]
            return tell(thing)
    raise AssertionError(f"a question of a new kind: {question}")


def test_questions_are_answered_right():
    kinds: Counter[str] = Counter()
    yes_no: Counter[str] = Counter()
    for number, scene in enumerate(SCENES):
        for seed in range(8):
            example = ask(scene, "answer", dice(8 * number + seed))
            assert example.answer.text == again(scene, example.text)
            kinds[" ".join(example.text.split()[:3])] += 1
            yes_no[example.answer.text] += example.text.startswith("Is there")
    assert len(kinds) >= 8
    assert 0.3 < yes_no["yes"] / (yes_no["yes"] + yes_no["no"]) < 0.7


def test_places_are_ninths_of_the_picture():
    scene = draw_scene(1, WorldConfig(max_objects=1, sign_share=0))
    (thing,) = scene.things

    def at(x: float, y: float) -> str:
        return place(scene, Thing(**{**vars(thing), "box": type(thing.box)(x - 5, y - 5, x + 5, y + 5)}))

    assert [at(20, 20), at(64, 20), at(110, 20)] == ["top left", "top", "top right"]
    assert [at(20, 64), at(64, 64), at(110, 64)] == ["left", "middle", "right"]
    assert [at(20, 110), at(64, 110), at(110, 110)] == ["bottom left", "bottom", "bottom right"]


# ---- arrays and words


def test_dense_truth_counts_the_pixels_of_each_cell():
    for scene in SCENES[:30]:
        for grid_hw in ((4, 4), (5, 3)):
            dense = dense_truth(scene, grid_hw)
            assert dense.shares.shape == (*grid_hw, 1 + len(scene.things))
            assert np.allclose(dense.shares.sum(axis=2), 1)
            for row, thing in enumerate(scene.things):
                assert LABELS[dense.kinds[row]] == thing.kind
                assert COLOUR_NAMES[dense.colours[row]] == thing.colour
        four = dense_truth(scene, (4, 4))
        assert four.shares[1, 2, 0] == pytest.approx((scene.owner[32:64, 64:96] == 0).mean())


def test_the_vocabulary_closes_over_other_scenes():
    def words(text: str) -> set[str]:
        return set(re.findall(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]", text))

    known: set[str] = set()
    for text in vocabulary_texts(scenes=200, seed=1000):
        known |= words(text)
    assert set(COLOURS) | set(SIZES) <= known
    for i, scene in enumerate(SCENES):
        for example in examples(scene, dice(i)):
            assert words(example.text or "") <= known
            assert words(example.answer.text) <= known


def test_a_world_of_one_name_can_still_be_asked_for_what_is_absent():
    config = WorldConfig(kinds=("circle",), colours=("red",), max_objects=3, absent_share=1.0, sign_share=0)
    scene = draw_scene(0, config)
    example = ask(scene, "find", dice(0))
    assert example.answer.regions == ()
    assert caption(scene) in ("a red circle", "two red circles", "three red circles")
