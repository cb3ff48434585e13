"""Records scored by models that know everything, nothing, or what a test tells them; the sums stand beside them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import SIDE_PX, tiny_network, world_text

from openflorence.contract.answers import read_answer, write_answer
from openflorence.contract.prompts import input_of
from openflorence.contract.records import (
    GroundingNote,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
)
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box, Point
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadConfig, BadImage, BadPrompt
from openflorence.evaluation.heldout import (
    HeldOut,
    evaluate_records,
    outside_crowds,
    pose_records,
    spread,
    validator,
)
from openflorence.model.predict import AskOptions, live_florence

ALL = (*TASKS, FREE_TEXT)
ROOT = Path("pictures")
SIZE = (1000, 1000)  # a bin is a pixel, so that what is read back is half a pixel off at most


def box(*edges: float) -> Box:
    return Box(*map(float, edges))


def square(x: float, y: float) -> Box:
    return box(x, y, x + 200, y + 200)


def ring(box: Box) -> tuple[Point, ...]:
    return Point(box.x0, box.y0), Point(box.x1, box.y0), Point(box.x1, box.y1), Point(box.x0, box.y1)


def quad(box: Box) -> Any:
    return ring(box)


FULL = Record(
    image="full.png",
    image_wh=SIZE,
    texts=(
        TextNote(text="two cats and a dog"),
        TextNote(text="two cats and a dog"),
        TextNote(text="a dog beside two cats"),
        TextNote(text="Two cats lie on a sofa, and a dog sits.", level="detailed"),
        TextNote(text="Two cats lie on a sofa. A dog sits beside them. Café.", level="more_detailed"),
    ),
    regions=(
        RegionNote(box=square(100, 100), label="cat", description="a black cat", expressions=("the cat on the left",)),
        RegionNote(
            box=square(400, 100),
            label="cat",
            description="a white cat",
            expressions=("the white one",),
            polygons=(ring(square(400, 100)),),
        ),
        RegionNote(box=square(700, 100), label="dog", description="a dog that sits"),
        RegionNote(box=box(0, 600, 1000, 800), label="dog", crowd=True),
        RegionNote(quad=quad(box(100, 850, 300, 900)), word="КОТ"),
        RegionNote(quad=quad(box(400, 850, 600, 900)), word="Straße 5"),
    ),
    groundings=(
        GroundingNote(
            text="two cats and a dog",
            phrases=(
                PhraseNote(phrase="two cats", boxes=(square(100, 100), square(400, 100))),
                PhraseNote(phrase="a dog", boxes=(square(700, 100),)),
            ),
        ),
    ),
    questions=(
        QuestionNote(question="How many cats are there?", answers=("2",) * 7 + ("two", "2", "3")),
        QuestionNote(question="Where does the dog sit?", answers=("beside the cats",)),
    ),
    whole=frozenset({"objects", "words"}),
)
EMPTY = Record(image="empty.png", image_wh=SIZE, whole=frozenset({"objects", "words"}))


class Told:
    """Answers what it is told to: (record, task, what was asked with it, true text) -> text, or an error."""

    def __init__(self, records: Iterable[Record], say: Callable[..., Any]) -> None:
        self.say, self.asked = say, []
        self.truth = {
            (str(ROOT / posed.record.image), posed.task.name, posed.text, posed.region): posed
            for row, record in enumerate(records)
            for posed in pose_records(record, row, ALL)
        }

    def predict_many(
        self, requests: Iterable[Any], options: Any = None, batch: int = 8, on_error: str = "raise"
    ) -> Iterator[Any]:
        for request in requests:
            task = find_task(request.task)
            posed = self.truth[request.image, task.name, request.text, request.region]
            self.asked.append((posed.record.image, task.name, request.text or request.region))
            said = self.say(posed.record, task.name, request.text or request.region, write_answer(posed.answers[0]))
            if not isinstance(said, str):
                yield said
                continue
            words = input_of(task, request.text, request.region, posed.record.image_wh)
            yield read_answer(said, task, posed.record.image_wh, input=words)


def truth(record: Record, task: str, asked: Any, text: str) -> str:
    return text


def scored(say: Callable[..., Any], *records: Record, tasks: Any = None, **options: Any) -> HeldOut:
    return evaluate_records(Told(records, say), records, ROOT, tasks, **options)


def values(scores: HeldOut, task: str) -> dict[str, float | None]:
    (found,) = (one for one in scores.tasks if one.task == task)
    return {name: figure.value for name, figure in found.figures.items()}


# ---- the whole truth, and nothing


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_the_truth_scores_one_in_every_figure(task):
    scores = scored(truth, FULL, EMPTY)
    (found,) = (one for one in scores.tasks if one.task == task.name)
    assert found.asked > 0
    assert found.invalid == found.truncated == found.refused == 0
    for name, figure in found.figures.items():
        if name == "absent_left_out":
            continue  # whether something absent is asked for is up to the targets
        assert figure.value is not None, name
        # Half a bin at each end of 200 px.
        assert figure.value == pytest.approx(1.0, abs=0.011 if "iou" in name else 1e-9), name
        assert figure.n > 0


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_nothing_scores_nothing(task):
    figures = values(scored(lambda *_: "", FULL, EMPTY), task.name)
    headline = next(iter(figures.values()))
    assert headline == 0.0
    for name, value in figures.items():
        expected = 1.0 if name in ("silent_without_text", "absent_left_out") else 0.0
        assert value in (expected, None), name


def test_the_sweep_saw_every_task():
    assert [one.task for one in scored(truth, FULL).tasks] == [task.name for task in ALL]
    assert len(ALL) == 16


def test_only_the_tasks_that_were_named_are_asked_in_their_order():
    told = Told([FULL, EMPTY], truth)
    scores = evaluate_records(told, [FULL, EMPTY], ROOT, ["<OD>", "caption", "detect"])
    assert [one.task for one in scores.tasks] == ["detect", "caption"]
    # Two captions alike and one more are one question; an image without annotations is asked what it shows.
    assert [(image, task) for image, task, _ in told.asked] == [
        ("full.png", "detect"),
        ("full.png", "caption"),
        ("empty.png", "detect"),
    ]
    with pytest.raises(BadPrompt, match="no task 'detct'"):
        evaluate_records(told, [FULL], ROOT, ["detct"])
    with pytest.raises(BadConfig, match="none of them can pose caption"):
        evaluate_records(told, [EMPTY], ROOT, ["caption"])


# ---- boxes


def test_boxes_by_hand():
    # One cat of two, a dog called a cat, a box where nothing is, one in the crowd: 1 of 3 right (the crowd's is left
    # out) and 1 of 3 found. Without labels 2 of 3.
    said = (
        "cat<loc_100><loc_100><loc_300><loc_300><loc_700><loc_100><loc_900><loc_300><loc_0><loc_400><loc_50><loc_500>"
    )
    said += "dog<loc_500><loc_620><loc_600><loc_780>"
    scores = scored(lambda *_: said, FULL, tasks=["detect"])
    figures = values(scores, "detect")
    assert figures["precision"] == figures["recall"] == figures["f1"] == pytest.approx(1 / 3)
    assert figures["f1_unlabelled"] == pytest.approx(2 / 3)
    # By category: of the cats the first is right and half are found, 51 of 101 recall points; of the dogs none.
    assert figures["ap50"] == pytest.approx(51 / 101 / 2)
    assert scores.categories["cat"].value == pytest.approx(51 / 101)
    assert scores.categories["dog"].value == 0.0
    assert (scores.categories["cat"].n, scores.categories["dog"].n) == (2, 1)
    assert next(iter(figures)) == "map"


def test_a_box_in_an_image_without_annotations_costs():
    def say(record: Record, task: str, asked: Any, text: str) -> str:
        return text if record is FULL else "cat<loc_1><loc_1><loc_99><loc_99>"

    figures = values(scored(say, FULL, EMPTY, tasks=["detect"]), "detect")
    assert figures["precision"] == pytest.approx(3 / 4)
    assert figures["recall"] == 1.0
    assert figures["f1"] == pytest.approx(6 / 7)


def test_a_crowd_excuses_its_own_label_only():
    boxes = [Region("dog", box=box(0, 600, 100, 700)), Region("cat", box=box(0, 600, 100, 700)), Region("dog")]
    crowd = [Region("dog", box=box(0, 600, 1000, 800))]
    assert outside_crowds(boxes, [], crowd) == boxes[1:]
    assert outside_crowds(boxes, [], crowd, labelled=False) == boxes[2:]
    # A dog of its own inside the crowd is found, not excused; 49 % inside is outside.
    assert outside_crowds(boxes[:1], boxes[:1], crowd) == boxes[:1]
    partly = [Region("dog", box=box(0, 549, 100, 649))]
    assert outside_crowds(partly, [], crowd) == partly
    assert outside_crowds(boxes, [], []) == boxes


def test_grounding_by_hand():
    # "two cats" first lies on the second cat, which is one of its boxes; "a dog" lies where nothing is.
    said = "two cats<loc_400><loc_100><loc_600><loc_300>a dog<loc_0><loc_400><loc_50><loc_500>"

    def say(record: Record, task: str, asked: Any, text: str) -> str:
        return said if asked == "two cats and a dog" else text

    record = replace(FULL, regions=())
    figures = values(scored(say, record, tasks=["ground"]), "ground")
    assert figures["recall_at_1"] == 0.5
    assert figures["recall"] == pytest.approx(1 / 3)


def test_places_are_scored_by_the_truth_that_fits_best():
    # The same text twice, each time about another cat: either is right.
    notes = [
        GroundingNote(text="a cat", phrases=(PhraseNote(phrase="a cat", boxes=(square(x, 100),)),)) for x in (100, 400)
    ]
    record = Record(image="two.png", image_wh=SIZE, groundings=tuple(notes))
    for said in ("a cat<loc_100><loc_100><loc_300><loc_300>", "a cat<loc_400><loc_100><loc_600><loc_300>"):
        scores = scored(lambda *_, said=said: said, record, tasks=["ground"])
        assert (scores.tasks[0].asked, scores.figure("ground").value) == (1, 1.0)


def test_masks_by_hand():
    # The left half of the square: IoU 1/2, up to half a pixel of 200.
    half = "<loc_400><loc_100><loc_500><loc_100><loc_500><loc_300><loc_400><loc_300>"
    figures = values(scored(lambda *_: half, FULL, tasks=["segment_region"]), "segment_region")
    assert figures["miou"] == figures["oiou"] == pytest.approx(0.5, abs=0.005)


# ---- texts


def test_captions_are_scored_by_the_closest():
    # "two cats and a bird": 4 of 5 words in order; 2 * 4 / (5 + 5) of them.
    figures = values(scored(lambda *_: "two cats and a bird", FULL, tasks=["caption"]), "caption")
    assert figures["rouge_l"] == pytest.approx(0.8)
    assert figures["word_f1"] == pytest.approx(0.8)
    assert figures["exact"] == 0.0
    other = values(scored(lambda *_: " a dog beside two cats ", FULL, tasks=["caption"]), "caption")
    assert other == {"rouge_l": pytest.approx(1.0), "word_f1": 1.0, "exact": 1.0}


def test_answers_by_hand():
    def say(record: Record, task: str, asked: Any, text: str) -> str:
        return "two" if asked.startswith("How many") else "beside a cat"

    figures = values(scored(say, FULL, tasks=["answer"]), "answer")
    # Nine of ten said 2 or two, which is the same to the challenge; the other question has one answer, too few for it.
    assert figures["vqa_accuracy"] == 1.0
    assert figures["exact"] == 0.5  # somebody said "two"
    # "beside a cat" to "beside the cats": t, h, e for a, and s are 4 edits of 15.
    assert figures["anls"] == pytest.approx((1 + 11 / 15) / 2)
    assert scored(say, FULL, tasks=["answer"]).figure("answer", "vqa_accuracy").n == 1


def test_questions_that_few_people_answered_are_led_by_equality():
    record = replace(FULL, questions=FULL.questions[1:])
    figures = values(scored(truth, record, tasks=["answer"]), "answer")
    assert figures == {"exact": 1.0, "anls": 1.0, "vqa_accuracy": None}
    assert next(iter(figures)) == "exact"


def test_a_question_that_stands_twice_is_asked_once_and_judged_twice():
    twice = QuestionNote(question="How many cats are there?", answers=("3",) * 10)
    record = replace(FULL, questions=(FULL.questions[0], twice))
    told = Told([record], lambda *_: "2")
    scores = evaluate_records(told, [record], ROOT, ["answer"])
    assert len(told.asked) == 1
    figure = scores.figure("answer", "vqa_accuracy")
    assert (figure.value, figure.n) == (0.5, 2)


def test_reading_by_hand():
    # Of two lines one is right. "КОТ" to "КИТ" is one of three letters; with the line break and "Straße 5" one of 12.
    def say(record: Record, task: str, asked: Any, text: str) -> str:
        return text.replace("КОТ", "КИТ")

    scores = scored(say, FULL, EMPTY, tasks=["read", "read_regions", "read_region"])
    assert values(scores, "read_regions")["words_right"] == 0.5
    assert values(scores, "read_regions")["f1_unread"] == 1.0
    assert values(scores, "read_regions")["word_f1"] == pytest.approx(2 / 3)  # of the words кит, straße, 5
    assert values(scores, "read")["exact"] == 0.0
    assert values(scores, "read")["edit_similarity"] == pytest.approx(11 / 12)
    assert values(scores, "read")["silent_without_text"] == 1.0
    assert values(scores, "read_region")["exact"] == 0.5


# ---- what goes wrong


def test_images_that_cannot_be_read_or_have_another_size_are_skipped_and_counted():
    records = [FULL, replace(FULL, image="gone.png"), replace(FULL, image="other.png")]

    def say(record: Record, task: str, asked: Any, text: str) -> Any:
        if record.image == "other.png":
            return Answer(find_task(task), (640, 480))
        return BadImage("no such file") if record.image == "gone.png" else text

    scores = scored(say, *records)
    assert (scores.images, scores.skipped) == (1, 2)
    assert values(scores, "detect")["recall"] == 1.0
    assert scores.figure("detect", "ap50").n == 3


def test_what_is_broken_or_refused_is_counted_and_scored():
    def say(record: Record, task: str, asked: Any, text: str) -> Any:
        return BadPrompt("too long") if record is EMPTY else text + "<loc_5>"

    scores = scored(say, FULL, EMPTY, tasks=["detect"])
    (detect,) = scores.tasks
    assert (detect.asked, detect.refused, detect.invalid, scores.images) == (2, 1, 1, 2)
    assert detect.figures["f1"].value == 1.0


def test_a_limit_takes_images_from_the_whole_list():
    records = [replace(EMPTY, image=f"{number}.png") for number in range(10)]
    assert [record.image for record in spread(records, 4)] == ["0.png", "2.png", "5.png", "7.png"]
    assert spread(records, None) is spread(records, 10) is records
    told: list[int] = []
    scores = scored(truth, *records, tasks=["detect"], limit=3, advance=lambda: told.append(1))
    assert (scores.images, len(told)) == (3, 3)


# ---- the report


def test_the_report_names_the_protocol_and_the_worst_category_first():
    def say(record: Record, task: str, asked: Any, text: str) -> str:
        return text.split("dog")[0] if task == "detect" else text

    scores = scored(say, FULL, EMPTY, protocol="order", options=AskOptions(beams=1))
    scores = replace(scores, model="nano", data="cats", date="2025-01-31")
    row = scores.as_row()
    assert (row["benchmark"], row["protocol"], row["images"], row["model"]) == ("data", "order", 2, "nano")
    assert row["tasks"]["detect"]["figures"]["recall"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    assert row["categories"]["cat"] == {"value": 1.0, "half_width": pytest.approx(0, abs=1e-5), "n": 2}
    assert scores.values()["detect.recall"] == pytest.approx(2 / 3)
    lines = scores.as_markdown().splitlines()
    assert lines[0].startswith("nano, cats, 2 images, 0 skipped, default decoding, 1 beam(s), boxes ranked by order")
    categories = [line.split("|")[1].strip() for line in lines[-2:]]
    assert categories == ["dog", "cat"]


# ---- a network


@pytest.fixture
def pictures(tmp_path: Path) -> list[Record]:
    records = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((90, 60), 60 + number).convert("RGB").save(path)
        records.append(
            Record(
                image=path.name,
                image_wh=(90, 60),
                texts=(TextNote(text=f"picture {number}"),),
                regions=(RegionNote(box=box(10, 10, 50, 40), label="fish"),),
                whole=frozenset({"objects"}),
            )
        )
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [*records, replace(records[0], image="broken.png"), replace(records[0], image="gone.png")]


QUICK = AskOptions(beams=1, max_tokens=8)


def test_a_network_is_asked_about_files_and_bad_ones_are_counted(pictures, tmp_path):
    scores = evaluate_records(live_florence(tiny_network(), world_text()), pictures, tmp_path, options=QUICK)
    assert (scores.images, scores.skipped) == (3, 2)
    assert {"detect", "caption", "classify_region"} <= {one.task for one in scores.tasks}
    assert all(one.refused == 0 for one in scores.tasks)
    (detect,) = (one for one in scores.tasks if one.task == "detect")
    assert detect.asked == 3
    assert detect.truncated == 3  # nothing was learnt, so answers run to the limit


def test_validation_follows_the_weights_and_leaves_the_modes(pictures, tmp_path):
    network = tiny_network(dropout=0.3).train()
    network.tower.eval()  # as a frozen part may be
    modes = [module.training for module in network.modules()]
    validate = validator(world_text(), pictures[:2], tmp_path, ["caption"], QUICK)
    live = live_florence(network, world_text())
    before = [live.predict(tmp_path / "0.png", "caption", options=QUICK).raw]
    assert validate(network) == validate(network)  # no dropout
    assert [module.training for module in network.modules()] == modes
    with torch.no_grad():
        network.seq2seq.embed.weight.copy_(tiny_network(seed=1).seq2seq.embed.weight)
    after = [live.predict(tmp_path / "0.png", "caption", options=QUICK).raw]
    fresh = live_florence(network, world_text()).predict(tmp_path / "0.png", "caption", options=QUICK).raw
    assert after == [fresh] != before
    assert set(validate(network)) == {"caption.rouge_l", "caption.word_f1", "caption.exact"}


def test_a_network_can_be_scored_at_another_size(pictures, tmp_path):
    assert live_florence(tiny_network(), world_text()).side_px == SIDE_PX
    assert live_florence(tiny_network(), world_text(), 2 * SIDE_PX).side_px == 2 * SIDE_PX
    assert validator(world_text(), pictures[:1], tmp_path, ["caption"], QUICK, side_px=2 * SIDE_PX)(tiny_network())
    with pytest.raises(BadConfig, match="side_px 10000"):
        validator(world_text(), pictures[:1], tmp_path, ["caption"], QUICK, side_px=10_000)(tiny_network())


def test_adapters_are_merged_into_a_copy(tmp_path, pictures):
    peft = pytest.importorskip("peft")
    network = tiny_network()
    plain = live_florence(network, world_text()).predict(tmp_path / "0.png", "caption", options=QUICK).raw
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, network)
    wrapped = type(network.seq2seq.decoder.layers[0].self_attn.q_proj)
    live = live_florence(network, world_text())
    answer = live.predict(tmp_path / "0.png", "caption", options=QUICK)
    assert answer.raw != plain  # the adapters speak
    assert type(network.seq2seq.decoder.layers[0].self_attn.q_proj) is wrapped is not torch.nn.Linear
    assert not network.seq2seq.decoder.layers[0].self_attn.q_proj.merged
    # The merged copy gives the logits of the wrapped network; one rounding more in each weight.
    pixels, ids = torch.rand(1, 3, SIDE_PX, SIDE_PX), torch.tensor([[0, 5, 6, 2]])
    with torch.no_grad():
        merged, whole = (net.eval()(pixels, ids, None, ids) for net in (live.network, network))
    torch.testing.assert_close(merged, whole, atol=1e-4, rtol=1e-4)
