"""A streamed answer: the same answer, earlier, each part once and for good."""

from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from answering import REGION, TEXTS, drawn_network, drawn_picture, words_text

import openflorence
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.errors import BadConfig
from openflorence.model.decode import Batch
from openflorence.model.predict import AskOptions, Event, Florence, live_florence, load
from openflorence.model.search import Sampling

ALL = (*TASKS, FREE_TEXT)
SEARCHES = {
    "greedy": AskOptions(beams=1, max_tokens=32),
    "beams": AskOptions(beams=3, max_tokens=32),
    "free": AskOptions(beams=1, grammar=False, max_tokens=32),
    "free beams": AskOptions(beams=3, grammar=False, max_tokens=32),
    "published": AskOptions(decoding="published", max_tokens=32),
    "drawn": AskOptions(sampling=Sampling(seed=5), max_tokens=32),
    "few": AskOptions(beams=3, max_regions=2, max_tokens=60),
    "expected": AskOptions(beams=1, coordinates="expected", max_tokens=32),
}


@pytest.fixture(scope="module")
def model(answering_folder: Path) -> Florence:
    return load(answering_folder)


def question(task: Task) -> tuple:
    """A task with the words or the region it takes."""
    return task, TEXTS.get(task.name), REGION if task.input == "region" else None


@pytest.mark.parametrize("search", SEARCHES)
def test_a_streamed_answer_is_the_answer_bit_by_bit(model, search, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # all other tests check shapes; twice the time
    options, given, view = SEARCHES[search], 0, model.open(drawn_picture(1))
    for task in ALL:
        *events, last = view.stream(*question(task), options)
        answer = view.ask(*question(task), options)
        assert last == Event(answer=answer)
        assert all(event.answer is None and bool(event.text) != (event.region is not None) for event in events)
        texts, regions = [e.text for e in events if e.text], [e.region for e in events if e.region is not None]
        assert "".join(texts) == (answer.text if task.form == "text" else "")
        assert tuple(regions) == answer.regions  # scores and spreads too
        given += len(events)
    assert given > 16


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many tokens were decoded so far."""
    steps, plain = [], Batch.step

    def step(batch: Batch) -> list:
        steps.append(1)
        return plain(batch)

    monkeypatch.setattr(Batch, "step", step)
    return lambda: len(steps)


@pytest.mark.parametrize(("name", "size"), [("detect", 4), ("propose", 4), ("read_regions", 8), ("ground", 4)])
def test_a_region_comes_the_moment_its_last_bin_is_said(model, monkeypatch, name, size):
    decoded, heard, plain = counted(monkeypatch), [], model.runner.read

    def read(question, found):
        heard.append(found.ids)
        return plain(question, found)

    monkeypatch.setattr(model.runner, "read", read)
    stream = model.open(drawn_picture(1)).stream(name, TEXTS.get(name), options=AskOptions(beams=1, max_tokens=60))
    steps = [decoded() for event in stream if event.region is not None]
    first, run, ends = model.checkpoint.text.first_location, 0, []
    for place, token in enumerate(heard[-1]):
        run = run + 1 if first <= token < first + 1000 else 0
        ends += [place] if run and run % size == 0 else []
    assert len(ends) > 1
    assert steps == [1 + place + 1 for place in ends]  # <s> is the first step, and places count from 0


def spelling_model(text: str) -> Florence:
    """A model that says the given bytes, one a token, and then ends."""
    words, network = words_text(), drawn_network()
    ids = [words.spelling.ids[bytes([byte])] for byte in text.encode()]
    with torch.no_grad():
        decoder, embed = network.seq2seq.decoder, network.seq2seq.embed.weight
        embed.copy_(torch.randn(embed.shape, generator=torch.Generator().manual_seed(1)))
        for layer in decoder.layers:  # each step reads its place alone, and says what was put there
            for part in (layer.self_attn.out_proj, layer.cross_attn.out_proj, layer.ffn.fc2):
                part.weight.zero_()
                part.bias.zero_()
        said = torch.zeros_like(decoder.positions.weight)
        for step, token in enumerate([0, *ids, 2]):
            said[step + 2] = 1000 * embed[token]  # so large that the token that was read does not matter
        decoder.positions.weight.copy_(said)
        for norm in (decoder.norm, *(getattr(one, name) for one in decoder.layers for name in NORMS)):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    return live_florence(network, words)


NORMS = ("self_norm", "cross_norm", "ffn_norm")


@pytest.mark.parametrize("text", ["Grüße 猫と犬", "a\u3000b \U0001f600 c", "no end 猫", "x < y </s> <od z", "x  y <"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("task", ["read", "answer"])
def test_letters_of_several_bytes_come_whole(text, beams, task):
    model = spelling_model(text)
    view = model.open(drawn_picture())
    options = AskOptions(beams=beams, grammar=False)
    *events, last = view.stream(task, "what?" if task == "answer" else None, options=options)
    wanted = view.ask(task, "what?" if task == "answer" else None, options=options).text
    assert wanted.startswith(text[:2].strip())
    assert "".join(event.text for event in events) == last.answer.text == wanted
    assert len(events) > (2 if beams == 1 else 1)
    assert not any("\ufffd" in event.text for event in events)


def test_a_letter_that_is_never_finished_is_given_at_the_end():
    model = spelling_model("ab猫")
    view = model.open(drawn_picture())
    options = AskOptions(beams=1, max_tokens=6)  # <s>, a, b, two bytes of three, </s>
    *events, last = view.stream("read", options=options)
    assert [event.text for event in events] == ["a", "b", "\ufffd"]
    assert last.answer.text == "ab\ufffd"
    assert last.answer.cut == "tokens"


def test_text_comes_as_it_is_said(model, monkeypatch):
    decoded = counted(monkeypatch)
    at = [decoded() for event in model.open(drawn_picture(1)).stream("caption", options=SEARCHES["greedy"])]
    assert len(set(at)) == len(at) - 1 > 3  # the last text and the answer come together


def test_presence_comes_with_the_answer(model):
    options = AskOptions(presence=True, max_tokens=30)
    view = model.open(drawn_picture(1))
    for task in ("find", "caption"):
        text = TEXTS.get(task)
        *_, last = view.stream(task, text, options=options)
        assert last.answer == view.ask(task, text, options=options)
    assert view.ask("caption", options=options).text  # a task that seeks nothing keeps its answer


@pytest.mark.parametrize("options", [{"more": "continue"}, {"more": "tiles"}, {"tiles": 2}, {"min_presence": 0.5}])
def test_what_needs_the_whole_answer_is_refused_at_once(model, options):
    view = model.open(drawn_picture())
    with pytest.raises(BadConfig, match="ask for it whole"):
        view.stream("detect", options=AskOptions(**options))


def test_nano_streams_what_it_answers():
    view = openflorence.load().open(drawn_picture(5, (200, 200)))
    for name in ("caption", "detect"):
        for beams in (1, 3):
            *events, last = view.stream(name, options=AskOptions(beams=beams))
            assert last.answer == view.ask(name, options=AskOptions(beams=beams))
            assert tuple(e.region for e in events if e.region) == last.answer.regions
