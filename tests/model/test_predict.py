"""The face: every task end to end, mixed requests as one by one, bad requests, and what must not happen by itself."""

import io
import random
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from answering import POSITIONS, REGION, SIDE_PX, TEXTS, drawn_network, drawn_picture
from PIL import Image

import openflorence
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.errors import BadConfig, BadImage, BadPrompt, BadRegion, OpenFlorenceError
from openflorence.model.decode import Batch
from openflorence.model.images import to_batch
from openflorence.model.predict import AskOptions, Florence, Request, load
from openflorence.model.search import DecodeSettings, Sampling

ALL = (*TASKS, FREE_TEXT)
SHORT = AskOptions(max_tokens=24)


@pytest.fixture
def model(answering_folder: Path) -> Florence:
    return load(answering_folder)


def request_of(task: Task, image: object) -> Request:
    """Ask a task with the words or the region it takes."""
    return Request(image, task, TEXTS.get(task.name), REGION if task.input == "region" else None)


class Counted:
    """Counts the images that go through the tower, and how often it is called."""

    def __init__(self, model: Florence, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, self.calls, plain = 0, 0, model.network.encode_image

        def encode_image(pixels: torch.Tensor) -> torch.Tensor:
            self.calls, self.images = self.calls + 1, self.images + len(pixels)
            return plain(pixels)

        monkeypatch.setattr(model.network, "encode_image", encode_image)


# ---- every task


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_a_task_is_answered_from_end_to_end(model, task):
    asked = request_of(task, drawn_picture(1))
    answer = model.predict(asked.image, task.name, asked.text, asked.region, SHORT)
    assert (answer.task, answer.image_wh, answer.image.size) == (task, (48, 32), (48, 32))
    assert list(answer.to_published()) == [task.token]
    assert answer == model.predict(asked.image, task.token, asked.text, asked.region, SHORT)
    assert isinstance(answer.draw(), Image.Image)
    assert len(answer.to_detections()) == len(answer.regions)
    for region in answer.regions:
        assert 0 < region.score <= 1
        assert 0 <= min(x for x, _ in region.points) <= max(x for x, _ in region.points) <= 48
        assert 0 <= min(y for _, y in region.points) <= max(y for _, y in region.points) <= 32


def test_the_sweep_saw_every_task():
    assert len(ALL) == 16  # the published table of 15, and free text


def test_an_answer_keeps_what_was_asked(model):
    view = model.open(drawn_picture())
    assert view.ask("find", ["car", "bus"], options=SHORT).input == "car<and>bus"
    # By hand: 4 / (48 / 1000) is 83.3, 5 / (32 / 1000) is 156.25, and so on.
    assert view.ask("describe_region", region=REGION, options=SHORT).input == "<loc_83><loc_156><loc_625><loc_625>"
    assert view.ask("caption", options=SHORT).input is None
    assert view.image_wh == (48, 32)


def test_a_region_of_an_answer_can_be_asked_about(model):
    view = model.open(drawn_picture(1))
    found = view.ask("detect").regions
    assert found, "pick a picture of which the drawn network says a box"
    of_region = view.ask("describe_region", region=found[0], options=SHORT)
    assert of_region == view.ask("describe_region", region=found[0].box, options=SHORT)


def test_every_kind_of_image_gives_the_same_answer(model, tmp_path):
    picture = drawn_picture(3)
    picture.save(tmp_path / "a.png")
    data, array = (tmp_path / "a.png").read_bytes(), np.asarray(picture)
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), data, io.BytesIO(data), picture, array]
    kinds.append(torch.from_numpy(array.copy()).permute(2, 0, 1))
    answers = [model.predict(image, "detect", options=SHORT) for image in kinds]
    assert all(answer == answers[0] for answer in answers)


def test_the_network_makes_the_same_first_choice(model):
    picture, words = drawn_picture(2), "how many cars?"
    answer = model.predict(picture, "answer", words, options=AskOptions(beams=1, max_tokens=24))
    prompt = torch.tensor([model.checkpoint.text.encode(words)])
    with torch.no_grad():
        logits = model.network(to_batch([picture], SIDE_PX), prompt, None, torch.tensor([[2, 0]]))[0, -1]
    logits[[0, 1, 3]] = -torch.inf  # <s>, <pad> and <unk> are never chosen
    assert answer.raw.startswith(model.checkpoint.text.decode([int(logits.argmax())]))


def test_published_decoding_is_the_published_settings(model, monkeypatch):
    seen, plain = [], Batch.join

    def join(self, jobs, memory, mask):
        seen.extend((job.settings, job.grammar) for job in jobs)
        plain(self, jobs, memory, mask)

    monkeypatch.setattr(Batch, "join", join)
    model.predict(drawn_picture(), "detect", decoding="published")
    model.predict(drawn_picture(), "detect", options=AskOptions(decoding="published", beams=1, max_tokens=9))
    published = DecodeSettings.published(model.checkpoint.config.text)
    assert seen == [(published, None), (replace(published, beams=1, max_tokens=9), None)]
    assert published.no_repeat_ngram == 3  # trap 3: the ban is there by name, and only then


# ---- many at once


@pytest.mark.parametrize("seed", range(4))
def test_mixed_requests_are_answered_as_one_by_one(model, tmp_path, seed):
    chance = random.Random(seed)
    images = [drawn_picture(place, (chance.randint(8, 90), chance.randint(8, 90))) for place in range(4)]
    images[0].save(tmp_path / "a.png")
    images.append(tmp_path / "a.png")
    requests = [request_of(chance.choice(ALL), chance.choice(images)) for _ in range(9)]
    alone = [model.predict(one.image, one.task, one.text, one.region, SHORT) for one in requests]
    assert len({answer.raw for answer in alone}) > 4, "the network should not say the same everywhere"
    for batch in (1, 2, 4, 9, 50):
        together = list(model.predict_many(iter(requests), SHORT, batch=batch))
        assert [answer.raw for answer in together] == [answer.raw for answer in alone]
        assert [answer.task for answer in together] == [one.task for one in requests]
        for one, other in zip(together, alone, strict=True):
            assert (one.image_wh, one.truncated, one.input) == (other.image_wh, other.truncated, other.input)
            # Sums in another order: float32 has 24 bits, and a score is a mean of a few logs.
            assert [region.score for region in one.regions] == pytest.approx([r.score for r in other.regions], rel=1e-4)


def test_a_request_has_three_forms(model):
    picture = drawn_picture()
    forms = [
        Request(picture, "find", "car"),
        (picture, "find", "car"),
        [picture, "find", "car"],
        {"image": picture, "task": "find", "text": "car"},
    ]
    answers = list(model.predict_many(iter(forms), SHORT))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("bad", ["a.png", (1,), None, (1, 2, 3, 4, 5), {"image": 1}, {"picture": 1, "task": "detect"}])
def test_what_is_no_request_is_told(model, bad):
    with pytest.raises(BadPrompt, match=r"a request is a Request, a tuple \(image, task, text, region\)"):
        list(model.predict_many(iter([bad])))


def test_requests_may_be_endless(model):
    def endless():
        while True:
            yield drawn_picture(), "caption"

    answers = model.predict_many(endless(), SHORT, batch=2)
    assert next(answers) == next(answers) == next(answers)
    assert list(model.predict_many([])) == []


def test_an_image_is_encoded_once_per_view(model, monkeypatch):
    counted = Counted(model, monkeypatch)
    view = model.open(drawn_picture())
    for task in ALL[:5]:
        view.ask(task, options=SHORT)
    assert (counted.calls, counted.images) == (1, 1)


def test_equal_images_are_encoded_once(model, monkeypatch, tmp_path):
    one, other, path = drawn_picture(0), drawn_picture(1), tmp_path / "a.png"
    one.save(path)
    counted = Counted(model, monkeypatch)
    requests = [(image, task) for image in (one, path, other) for task in ("caption", "detect", "read")]
    list(model.predict_many(requests, SHORT, batch=9))
    assert (counted.calls, counted.images) == (1, 3)
    list(model.predict_many(requests, SHORT, batch=2))  # the tasks of one image lie in two groups
    assert counted.images == 6


def test_an_image_of_a_group_is_read_once_also_when_it_is_bad(model, monkeypatch):
    reads = []
    plain = openflorence.model.flow.read_image

    def read_image(source, limits):
        reads.append(source)
        return plain(source, limits)

    monkeypatch.setattr(openflorence.model.flow, "read_image", read_image)
    results = list(model.predict_many([("gone.png", task.name) for task in ALL[:5]], SHORT, 2, on_error="give"))
    assert [type(result) for result in results] == [BadImage] * 5
    assert reads == ["gone.png"]  # a dead URL is waited for once, not once a task


def test_a_recycled_object_is_not_taken_for_the_last_image(model):
    def fleeting():  # each picture is thrown away at once, so the next may get its id
        for seed in range(6):
            yield Request(drawn_picture(seed), "caption")

    alone = [model.predict(drawn_picture(seed), "caption", options=SHORT).raw for seed in range(6)]
    for batch in (1, 2, 3):
        assert [answer.raw for answer in model.predict_many(fleeting(), SHORT, batch)] == alone


# ---- bad requests

BAD = {
    "unknown task": (("detekt",), BadPrompt, "no task 'detekt'; the tasks are caption, "),
    "missing text": (("ground",), BadPrompt, "needs text="),
    "empty text": (("answer", "  "), BadPrompt, "at least one word"),
    "superfluous text": (("detect", "car"), BadPrompt, "leave text out"),
    "missing region": (("describe_region",), BadPrompt, "use 'detect' if you have no region yet"),
    "superfluous region": (("caption", None, REGION), BadPrompt, "leave region out"),
    "region outside": (("read_region", None, (100.0, 0.0, 120.0, 9.0)), BadRegion, "outside the image of 48 x 32 px"),
    "empty region": (("read_region", None, (5.0, 5.0, 5.0, 9.0)), BadRegion, "empty"),
    "region without geometry": (("read_region", None, Region("car")), BadPrompt, "give four numbers"),
    "long prompt": (("ground", "bus " * POSITIONS), BadPrompt, r"tokens; beside 17 image tokens the limit is 79"),
    "half a character": (("find", "caf\udce9"), BadPrompt, "surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_and_does_not_stop_the_others(model, name):
    (task, *rest), kind, message = BAD[name]
    picture = drawn_picture()
    with pytest.raises(kind, match=message):
        model.predict(picture, task, *rest)
    with pytest.raises(kind, match=message):
        list(model.predict_many([(picture, "caption"), (picture, task, *rest)], SHORT))
    requests = [(picture, "caption"), (picture, task, *rest), (picture, "detect")]
    for batch in (1, 3):
        first, error, last = model.predict_many(requests, SHORT, batch, on_error="give")
        assert isinstance(error, kind)
        assert first.raw == model.predict(picture, "caption", options=SHORT).raw
        assert last.raw == model.predict(picture, "detect", options=SHORT).raw


def test_a_bad_image_stands_in_its_place(model, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    requests = [(tmp_path / "broken.jpg", "detect"), (drawn_picture(), "detect"), (tmp_path / "none.png", "detect")]
    results = list(model.predict_many(requests, SHORT, on_error="give"))
    assert [type(result) for result in results] == [BadImage, Answer, BadImage]
    assert "broken.jpg" in str(results[0])
    assert "none.png" in str(results[2])
    with pytest.raises(BadImage, match=r"broken\.jpg"):
        list(model.predict_many(requests, SHORT))


@pytest.mark.parametrize(
    "options",
    [
        {"beams": 0},
        {"max_tokens": 1},
        {"sampling": Sampling(), "beams": 3},
    ],
    ids=str,
)
def test_bad_options_are_told_when_they_are_made(options):
    with pytest.raises(BadConfig):
        AskOptions(**options)


def test_what_no_request_can_be_answered_with_is_told_at_once(model):
    for options, batch, on_error in ((SHORT, 0, "give"), (AskOptions(max_tokens=POSITIONS + 1), 2, "give")):
        with pytest.raises(BadConfig):
            model.predict_many([], options, batch, on_error)  # before an answer is asked for
    with pytest.raises(BadConfig, match=f"has {POSITIONS} positions"):
        model.predict(drawn_picture(), "caption", options=AskOptions(max_tokens=POSITIONS + 1))


# ---- answers


def test_an_answer_that_was_cut_says_so(model):
    picture = drawn_picture(3)  # of which the drawn network ends its list by itself
    cut = model.predict(picture, "detect", options=AskOptions(beams=1, max_tokens=8))
    whole = model.predict(picture, "detect", options=AskOptions(beams=1))
    few = model.predict(picture, "detect", options=AskOptions(beams=1, max_regions=2))
    assert (cut.truncated, cut.cut, cut.invalid, len(cut.regions)) == (True, "tokens", 0, 1)
    assert (whole.truncated, whole.cut) == (False, "")
    assert (few.truncated, few.cut, len(few.regions)) == (True, "regions", 2)
    assert (cut.as_row()["truncated"], cut.as_row()["cut"]) == (True, "tokens")


def test_an_empty_answer_is_typed_and_knows_its_image(model):
    last = model.network.seq2seq.decoder.layers[-1].ffn_norm
    with torch.no_grad():  # whatever it saw, its last state is the one of </s>
        last.weight.zero_()
        last.bias.copy_(model.network.seq2seq.embed.weight[2])
    for task in ALL:
        asked = request_of(task, drawn_picture())
        answer = model.predict(asked.image, task, asked.text, asked.region)
        assert (answer.task, answer.image_wh, answer.text, answer.regions) == (task, (48, 32), "", ())
        assert (answer.truncated, answer.invalid) == (False, 0)
        assert len(answer.to_detections()) == 0
        assert list(answer.to_published()) == [task.token]
        assert isinstance(answer.draw(), Image.Image)


def test_boxes_of_a_turned_photograph_are_upright(model, tmp_path):
    picture = drawn_picture(1, (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; turn by 90 degrees to the right to see it upright
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = model.predict(tmp_path / "turned.png", "detect")
    upright = model.predict(picture.transpose(Image.Transpose.ROTATE_270), "detect")
    assert turned.image_wh == (40, 60)
    assert turned.regions
    assert turned == upright


# ---- what does not happen by itself


def test_the_same_question_gives_the_same_answer(model):
    options = AskOptions(sampling=Sampling(seed=1), max_tokens=24)
    for one in (SHORT, options):
        assert model.predict(drawn_picture(), "caption", options=one) == model.predict(
            drawn_picture(), "caption", options=one
        )
    assert SHORT.sampling is None  # trap 18: drawn only when asked


def test_sampling_draws_and_is_seeded(model):
    said = {
        model.predict(drawn_picture(), "caption", options=AskOptions(sampling=Sampling(seed=seed), max_tokens=24)).raw
        for seed in range(4)
    }
    assert len(said) > 1


def test_the_number_type_is_the_one_that_was_asked_for(answering_folder):
    for dtype, expected in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        model = load(answering_folder, dtype=dtype)
        assert {weight.dtype for weight in model.network.state_dict().values()} == {expected}  # trap 19
        assert isinstance(model.predict(drawn_picture(), "detect", options=SHORT), Answer)
    assert model.device == torch.device("cpu")


def test_a_folder_loads_and_answers_without_a_network(answering_folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("somebody opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    answer = load(answering_folder).predict(drawn_picture(), "caption", options=SHORT)  # trap 20
    assert answer.task.name == "caption"


def test_changed_weights_are_used(answering_folder):
    model = load(answering_folder)
    before = model.predict(drawn_picture(), "caption", options=SHORT)
    other = drawn_network(seed=1)
    expected = Florence(replace(model.checkpoint, network=other)).predict(drawn_picture(), "caption", options=SHORT)
    assert expected.raw != before.raw
    model.network.load_state_dict(other.state_dict())  # in place
    assert model.predict(drawn_picture(), "caption", options=SHORT).raw == expected.raw
    again = load(answering_folder).network.state_dict()
    model.network.load_state_dict(again, assign=True)  # by other tensors
    assert model.predict(drawn_picture(), "caption", options=SHORT).raw == before.raw
    model.network.to(torch.float64)  # the same parameters, elsewhere
    assert model.predict(drawn_picture(), "caption", options=SHORT).raw == before.raw


def test_unchanged_weights_are_packed_once(model, monkeypatch):
    packed = []
    plain = openflorence.model.runner.FastDecoder
    monkeypatch.setattr(openflorence.model.runner, "FastDecoder", lambda network: packed.append(1) or plain(network))
    view = model.open(drawn_picture())
    for task in ALL[:4]:
        view.ask(task, options=SHORT)
    assert len(packed) == 1


def test_a_training_loop_that_asks_goes_on_training(model):
    expected = model.predict(drawn_picture(), "caption", options=SHORT)
    view = model.open(drawn_picture())
    model.network.train()
    model.network.tower.eval()  # a frozen part
    assert model.predict(drawn_picture(), "caption", options=SHORT) == expected  # without dropout
    assert view.ask("caption", options=SHORT) == expected
    assert model.network.seq2seq.training
    assert not any(module.training for module in model.network.tower.modules())
    assert all(weight.requires_grad for weight in model.network.parameters())


# ---- input sizes


def test_the_input_may_have_another_size(answering_folder):
    wide = load(answering_folder, side_px=(24, 48))
    assert wide.runner.image_tokens == 1 + 3 * 6
    assert wide.open(drawn_picture()).image_tokens.shape == (19, 32)
    answer = wide.predict(drawn_picture(1), "detect", options=SHORT)
    assert answer.image_wh == (48, 32)
    assert answer.raw != load(answering_folder).predict(drawn_picture(1), "detect", options=SHORT).raw
    many = list(wide.predict_many([(drawn_picture(1), "detect"), (drawn_picture(2, (9, 70)), "caption")], SHORT))
    assert many[0].raw == answer.raw


@pytest.mark.parametrize("side_px", [0, -8, (0, 32), 200, (8, 8 * 13), 76], ids=str)
def test_an_input_size_without_positions_is_told(answering_folder, side_px):
    # 12 rows and columns in the position tables; 76 px are 10 x 10 cells and a mean token, of 96 positions.
    with pytest.raises(BadConfig, match="side_px"):
        load(answering_folder, side_px=side_px)


def test_the_front_door_is_this_face():
    assert openflorence.load is load
    assert openflorence.Florence is Florence
    assert issubclass(BadImage, OpenFlorenceError)
