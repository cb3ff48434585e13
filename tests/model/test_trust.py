"""What an answer promises: it parses, it says what cut it, and its scores are the network's own probabilities."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import pytest
import torch
from answering import REGION, TEXTS, drawn_network, drawn_picture
from torch import Tensor

import openflorence
from openflorence.contract.grammar import grammar_for
from openflorence.contract.regions import Answer
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.chance import dice
from openflorence.data.truth import examples
from openflorence.data.world import draw_scene
from openflorence.evaluation.drawn import WORLD
from openflorence.model.asking import make_question
from openflorence.model.decode import NEAR, decode
from openflorence.model.fast import FastDecoder
from openflorence.model.predict import AskOptions, Florence, Request, View, load
from openflorence.model.search import DecodeSettings, Sampling

ALL = (*TASKS, FREE_TEXT)
NAMING = [task.name for task in TASKS if task.form in ("boxes", "phrases", "quads", "boxes_or_polygons")]
LABELS = ("car", "car park", "bus")


@pytest.fixture(scope="module")
def model(answering_folder: Path) -> Florence:
    return load(answering_folder)


@pytest.fixture(scope="module")
def another(answering_folder: Path) -> Florence:
    """Other weights, the same words."""
    return Florence(replace(load(answering_folder).checkpoint, network=drawn_network(seed=3)))


def asked(task: Task, image: object) -> Request:
    """Ask a task with the words or the region it takes."""
    return Request(image, task, TEXTS.get(task.name), REGION if task.input == "region" else None)


# ---- every answer parses

SEARCHES = {
    "greedy": AskOptions(beams=1),
    "beams": AskOptions(beams=3),
    "drawn": AskOptions(sampling=Sampling(seed=1)),
    "wild": AskOptions(sampling=Sampling(seed=2, temperature=3.0)),
}
LIMITS = {
    "tiny": {"max_tokens": 4},
    "short": {"max_tokens": 13},
    "free": {"max_tokens": 60},
    "few": {"max_tokens": 40, "max_regions": 2},
    "closed": {"max_tokens": 30, "labels": LABELS},
    "closed tiny": {"max_tokens": 3, "labels": LABELS},
}


def check(answer: Answer, options: AskOptions) -> None:
    """Nothing in an answer that could not be: what is invalid, outside, swapped, unlisted or cut without a word."""
    if answer.task.input != "free":
        assert answer.invalid == 0, answer.raw
    width, height = answer.image_wh
    for region in answer.regions:
        if region.box is not None:
            x0, y0, x1, y1 = region.box
            assert 0 <= x0 <= x1 <= width, answer.raw
            assert 0 <= y0 <= y1 <= height, answer.raw
        assert all(0 <= x <= width and 0 <= y <= height for x, y in region.points)
        assert region.points, answer.raw
        assert all(len(ring) >= 3 for ring in region.polygons)
        assert region.place_score is not None
        assert 0 <= region.place_score <= 1
    if options.labels is not None and answer.task.name in (*NAMING, "classify_region"):
        said = [answer.text] * bool(answer.text) if answer.task.form == "text" else [r.label for r in answer.regions]
        assert set(said) <= set(options.labels), answer.raw
    if answer.task.name == "ground" and options.labels is None:
        assert all(region.label in TEXTS["ground"] for region in answer.regions)
    assert options.max_regions is None or len(answer.regions) <= options.max_regions
    assert answer.truncated == bool(answer.cut)
    assert answer.cut in {"", "tokens"} | ({"regions"} if options.max_regions else set())


@pytest.mark.parametrize("limit", LIMITS)
def test_every_answer_parses(model, another, limit):
    # 2 networks, 16 tasks, 2 pictures, 4 searches, 6 limits: 1,536 answers, beside the walks of the grammars' tests.
    pictures = [drawn_picture(1), drawn_picture(2, (31, 77))]
    seen, cut = 0, set()
    for one, search in product((model, another), SEARCHES.values()):
        options = replace(search, **LIMITS[limit])
        requests = [asked(task, picture) for task, picture in product(ALL, pictures)]
        for answer in one.predict_many(requests, options, batch=32):
            check(answer, options)
            seen += 1
            cut.add(answer.cut)
    assert seen == 2 * 4 * 16 * 2
    assert cut >= {"tokens"} | ({"regions"} if limit == "few" else set())


def test_an_answer_that_says_nothing_of_a_cut_is_the_one_without_limits(model):
    # Greedy, so that a search with a limit takes the same way until the limit bars it.
    requests = [asked(task, drawn_picture(seed)) for task, seed in product(ALL, range(4))]
    whole = list(model.predict_many(requests, AskOptions(beams=1), batch=64))
    uncut = 0
    for limits in [{"max_tokens": size} for size in (3, 5, 8, 13, 21)] + [{"max_regions": size} for size in (1, 2)]:
        cut = list(model.predict_many(requests, AskOptions(beams=1, **limits), batch=64))
        for one, other in zip(cut, whole, strict=True):
            if one.raw == other.raw:
                assert one.cut == other.cut, one.raw
            else:
                assert one.cut, (one.raw, other.raw)
        assert any(one.cut and not other.cut for one, other in zip(cut, whole, strict=True))
        uncut += sum(not one.cut for one in cut)
    assert uncut > 20


def test_a_ban_never_takes_the_last_way_on(model):
    # By hand: <loc_999> three times leaves no bin but 999 for the lower side, which a ban on equal trigrams forbids.
    network, text = drawn_network(), model.checkpoint.text
    last = text.first_location + 999
    with torch.no_grad():
        norm = network.seq2seq.decoder.layers[-1].ffn_norm
        norm.weight.mul_(0.01)  # whatever it saw, it says the last bin
        norm.bias.copy_(network.seq2seq.embed.weight[last])
    grammar = grammar_for(find_task("describe_region"), text.spelling)
    settings = replace(DecodeSettings.for_task(network.config.text, "describe_region", text.size), max_tokens=20)
    assert settings.no_repeat_ngram == 3
    for beams in (1, 3):
        memory = torch.randn(1, 5, network.config.text.width)
        (answer,) = decode(FastDecoder(network), memory, None, replace(settings, beams=beams), [grammar])
        assert answer.ids == (last,) * 4


# ---- with a trained network


@pytest.fixture(scope="module")
def nano() -> Florence:
    return openflorence.load()


def test_what_was_valid_is_the_same_with_a_grammar(nano):
    # Valid is what the grammar of a task is about: readable, and of a caption only its own phrases.
    valid = 0
    for seed in (1, 2):
        scene = draw_scene(seed, WORLD)
        view, posed = nano.open(scene.image), examples(scene, dice(seed))
        questions = [(example.task, example.text, example.region) for example in posed]
        for beams in (1, 3):
            free, kept = (
                view.ask_many(questions, AskOptions(beams=beams, grammar=grammar, max_tokens=100))
                for grammar in (False, True)
            )
            for one, other in zip(free, kept, strict=True):
                assert other.invalid == 0
                strange = one.task.name == "ground" and any(region.label not in one.input for region in one.regions)
                if one.invalid == 0 and not one.cut and not strange:
                    assert (one.raw, one.regions, one.text) == (other.raw, other.regions, other.text)
                    valid += 1
    assert valid > 55  # of 64


# ---- scores


class Heard:
    """What was decoded for each answer that was read, beside the answer."""

    def __init__(self, model: Florence, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded, plain = [], model.runner.read

        def read(question, decoded):
            self.decoded.append(decoded)
            return plain(question, decoded)

        monkeypatch.setattr(model.runner, "read", read)


@torch.no_grad()
def plain_logprobs(model: Florence, view: View, request: Request, ids: Sequence[int]) -> Tensor:
    """Log-probabilities of every token at every place of an answer, </s> included, by one plain pass: (T + 1, V)."""
    question = make_question(model.checkpoint, view.image, request, AskOptions(), model.runner.image_tokens)
    seq2seq = model.network.seq2seq
    memory, _ = model.network.encode(view.image_tokens[None], torch.tensor([question.prompt_ids]))
    logits = seq2seq.logits(seq2seq.decode(torch.tensor([[2, 0, *ids]]), memory))[0]
    return logits.float().log_softmax(-1)[1:]  # place 0 reads the start and says <s>


def by_hand(ids: Sequence[int], logprobs: Sequence[float], model: Florence, task: Task) -> list[tuple]:
    """(label_score, place_score) of every region: the tokens parted by what they are."""
    spelling = model.checkpoint.text.spelling

    def kind(token: int) -> str:
        if token in (spelling.sep, spelling.poly, spelling.end_poly):
            return {spelling.sep: "sep", spelling.poly: "poly", spelling.end_poly: "end"}[token]
        return "bin" if token >= spelling.first_location and token < spelling.first_location + 1000 else "word"

    runs = [
        (name, [value for _, value in group])
        for name, group in groupby(zip(map(kind, ids), logprobs, strict=True), key=lambda one: one[0])
    ]
    found, label, rings = [], None, []
    inside = task.form == "polygons"
    for name, values in runs:
        if name == "word":
            label = math.exp(sum(values))
        elif name == "poly":
            inside, rings = True, []
        elif name == "end":
            found.append((label, rings))
            inside, rings = task.form == "polygons", []
        elif name == "sep" and not inside:
            label = None
        elif name == "bin" and inside:
            rings = rings + values
        elif name == "bin":
            size = 8 if task.form == "quads" else 4
            found += [(label, values[at : at + size]) for at in range(0, len(values), size)]
    found += [(label, rings)] * bool(rings)
    return [(label, math.exp(sum(values) / len(values))) for label, values in found]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("which", ["model", "another"])
def test_scores_are_those_of_a_plain_pass(which, beams, request, monkeypatch):
    model: Florence = request.getfixturevalue(which)
    heard, regions = Heard(model, monkeypatch), 0
    for task, limit, seed in product(ALL, (14, 50), (1,)):
        view, one = model.open(drawn_picture(seed)), asked(task, None)
        answer = view.ask(one.task, one.text, one.region, AskOptions(beams=beams, max_tokens=limit))
        ids = heard.decoded[-1].ids
        table = plain_logprobs(model, view, one, ids)
        values = table[torch.arange(len(ids) + 1), torch.tensor([*ids, 2])].tolist()
        forced_end = len(ids) + 2 == limit  # <s>, the ids, </s>: the last one was not chosen, and adds nothing
        # Sums in another order: float32 has 24 bits, and an answer up to sixty summands of up to ten.
        assert answer.logprob == pytest.approx(sum(values[:-1]) + (0 if forced_end else values[-1]), abs=1e-3)
        assert answer.score == (pytest.approx(math.exp(sum(values[:-1]) / len(ids)), rel=1e-4) if ids else None)
        if task.form == "text":
            continue
        wanted = by_hand(ids, values[:-1], model, task)
        assert len(wanted) == len(answer.regions)
        for region, (label, place) in zip(answer.regions, wanted, strict=True):
            assert region.label_score == (None if label is None else pytest.approx(label, rel=1e-3))
            assert region.place_score == pytest.approx(place, rel=1e-3)
            assert region.score == pytest.approx((1 if label is None else label) * place, rel=1e-3)
            regions += 1
    assert regions > 30


def test_scores_of_a_batch_are_those_of_each_alone(model):
    requests = [asked(task, drawn_picture(2)) for task in ALL]
    for together, one in zip(model.predict_many(requests, AskOptions(max_tokens=30), batch=32), requests, strict=True):
        alone = model.predict(one.image, one.task, one.text, one.region, AskOptions(max_tokens=30))
        assert together.logprob == pytest.approx(alone.logprob, abs=1e-3)
        for region, other in zip(together.regions, alone.regions, strict=True):
            assert region.score == pytest.approx(other.score, rel=1e-3)
            assert region.label_score == (other.label_score and pytest.approx(other.label_score, rel=1e-3))
            assert region.place_score == pytest.approx(other.place_score, rel=1e-3)
            assert region.spread_px == pytest.approx(other.spread_px, abs=1e-3)


def test_the_published_score_is_that_of_the_place(model):
    for task in ALL:
        one = asked(task, drawn_picture(1))
        answer = model.predict(one.image, task, one.text, one.region, AskOptions(max_tokens=40), decoding="published")
        assert [region.score for region in answer.regions] == [region.place_score for region in answer.regions]
        assert all(region.spread_px is None for region in answer.regions)


# ---- between bins


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_thought_of_neighbouring_bins_is_the_networks_own(model, monkeypatch, beams):
    heard, first, checked = Heard(model, monkeypatch), model.checkpoint.text.first_location, 0
    for name, seed in product(("detect", "propose", "ground", "read_regions"), (1, 2)):
        view, one = model.open(drawn_picture(seed)), asked(find_task(name), None)
        view.ask(one.task, one.text, None, AskOptions(beams=beams, max_tokens=40))
        decoded = heard.decoded[-1]
        table, run = plain_logprobs(model, view, one, decoded.ids).exp(), 0
        for at, (token, place) in enumerate(zip(decoded.ids, decoded.places, strict=True)):
            if not first <= token < first + 1000:
                assert place is None
                run = 0
                continue
            least = decoded.ids[at - 2] - first if name != "read_regions" and run % 4 >= 2 else 0
            bins = [bin_ for bin_ in range(token - first - 10, token - first + 11) if least <= bin_ < 1000]
            chances = [float(table[at, first + bin_]) for bin_ in bins]
            mass = sum(chances)
            mean = sum(bin_ * chance for bin_, chance in zip(bins, chances, strict=True)) / mass
            variance = sum((bin_ - mean) ** 2 * chance for bin_, chance in zip(bins, chances, strict=True)) / mass
            assert place is not None
            assert place.mass == pytest.approx(mass, rel=1e-3)
            assert place.mean == pytest.approx(mean, abs=2e-3)
            assert place.spread == pytest.approx(math.sqrt(variance), abs=2e-3)
            run, checked = run + 1, checked + 1
    assert checked > 100


@pytest.mark.parametrize("name", ["detect", "propose", "ground", "find", "dense_caption", "read_regions"])
def test_expected_coordinates_are_the_means_of_the_bins(model, monkeypatch, name):
    heard, moved = Heard(model, monkeypatch), 0
    for seed in (1, 2):
        one = asked(find_task(name), drawn_picture(seed))
        options = AskOptions(max_tokens=50)
        plain = model.predict(one.image, name, one.text, None, options)
        exact = model.predict(one.image, name, one.text, None, replace(options, coordinates="expected"))
        assert exact.raw == plain.raw
        assert [region.score for region in exact.regions] == [region.score for region in plain.regions]
        check(exact, options)
        places = [place for place in heard.decoded[-1].places if place is not None]
        points = [value for region in exact.regions for point in region.points for value in point]
        assert len(points) == len(places)
        spreads = [spread for region in exact.regions for spread in region.spread_px]
        for at, (value, place, spread) in enumerate(zip(points, places, spreads, strict=True)):
            size = exact.image_wh[at % 2]
            # The box of two means is put in order, so that a corner may be the mean of the other.
            both = [place.mean, places[at + (2 if at % 4 < 2 else -2)].mean] if name != "read_regions" else [place.mean]
            assert value == pytest.approx(
                min(((mean + 0.5) * size / 1000 for mean in both), key=lambda x: abs(x - value))
            )
            assert spread == pytest.approx(place.spread * size / 1000)
        before = [value for region in plain.regions for point in region.points for value in point]
        sizes = [exact.image_wh[at % 2] for at in range(len(points))]
        shifts = [abs(a - b) / size * 1000 for a, b, size in zip(points, before, sizes, strict=True)]
        moved += sum(shift > 0.1 for shift in shifts)
        assert max(shifts, default=0) <= NEAR
    assert moved > 0


def test_a_bin_that_nothing_spoke_for_still_has_a_place(model):
    # Log-probabilities under -104 are 0 as a number of 32 bits: a mean over them must not be 0 / 0.
    network, text = drawn_network(), model.checkpoint.text
    with torch.no_grad():
        network.seq2seq.decoder.layers[-1].ffn_norm.weight.mul_(200.0)
        network.seq2seq.decoder.layers[-1].ffn_norm.bias.copy_(2000.0 * network.seq2seq.embed.weight[2])
    settings = replace(DecodeSettings.for_task(network.config.text, "detect", text.size), max_tokens=30)
    settings = replace(settings, first_location=text.first_location, banned=(2,), forced_eos=2, beams=1)
    grammar = grammar_for(find_task("propose"), text.spelling)
    (answer,) = decode(FastDecoder(network), torch.randn(1, 5, network.config.text.width), None, settings, [grammar])
    assert min(answer.logprobs) < -200
    for token, place in zip(answer.ids, answer.places, strict=True):
        assert place is not None
        assert abs(place.mean - (token - text.first_location)) <= NEAR
        assert 0 <= place.mass <= 1
        assert 0 <= place.spread <= 2 * NEAR


def test_the_sweep_saw_every_task():
    assert len(ALL) == 16  # the published table of 15, and free text
    assert len(NAMING) == 5
