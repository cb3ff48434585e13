"""The one-token decoder against the plain one."""

import random
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from openflorence.model import fast, linear
from openflorence.model.config import NANO
from openflorence.model.fast import FIRST_ROOM, FastDecoder, Session
from openflorence.model.florence import Network, init_weights


def small_network(positions: int = 160) -> Network:
    """Nano with few words; weights of a fresh network."""
    network = Network(replace(NANO, text=replace(NANO.text, vocab=50, positions=positions)))
    init_weights(network, seed=1)
    return network.eval()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_torch_without_the_operators_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch):
    network, memory, ids = small_network(), drawn(1, 9, NANO.text.width), torch.tensor([2, 5])
    packed = FastDecoder(network).begin(memory, None, 2).step(ids)
    monkeypatch.setattr(linear, "_pack", lambda weight: None)
    plain = FastDecoder(network)
    assert not plain.head.is_packed
    with torch.no_grad():
        torch.testing.assert_close(plain.begin(memory, None, 2).step(ids), packed, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_step_by_step_is_the_whole_at_once_whichever_beam_goes_on(beams: int):
    # Long enough for the cache to grow twice; every step the beams part and die at random.
    network, steps, requests = small_network(), 2 * FIRST_ROOM + 9, 2
    memory, mask = drawn(requests, 11, NANO.text.width), torch.arange(11) < torch.tensor([[11], [6]])
    generator = torch.Generator().manual_seed(7)
    lines: list[list[int]] = [[] for _ in range(requests * beams)]
    session, parents = FastDecoder(network).begin(memory, mask, beams), None
    for _ in range(steps):
        ids = torch.randint(4, 50, (requests * beams,), generator=generator)
        if parents is not None:
            flat = (parents + beams * torch.arange(requests)[:, None]).flatten().tolist()
            lines = [list(lines[row]) for row in flat]
        for line, token in zip(lines, ids.tolist(), strict=True):
            line.append(token)
        x = session.step(ids, parents)
        parents = torch.randint(0, beams, (requests, beams), generator=generator)
    rows = [row for row in range(requests) for _ in range(beams)]
    whole = network.seq2seq.decode(torch.tensor(lines), memory[rows], mask[rows])[:, -1]
    torch.testing.assert_close(x, whole, atol=1e-5, rtol=0)  # float32, sums in another order


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
def test_a_request_that_leaves_takes_nothing_along(beams: int):
    network, memory = small_network(), drawn(4, 11, NANO.text.width)
    mask = torch.arange(11) < torch.tensor([[11], [4], [7], [9]])
    decoder, generator = FastDecoder(network), torch.Generator().manual_seed(3)
    ids = torch.randint(4, 50, (4, 6, beams), generator=generator)
    parents = torch.randint(0, beams, (4, 6, beams), generator=generator)  # different ones for each request
    session = decoder.begin(memory, mask, beams)
    here = [0, 1, 2, 3]
    for step, leaving in enumerate([None, 1, None, 0, 0, None]):
        x = session.step(ids[here, step].flatten(), parents[here, step])
        if leaving is not None:
            session.leave(leaving)
            here[leaving] = here[-1]
            here.pop()
    assert here == [3]  # it was moved twice
    alone = decoder.begin(memory[3:], mask[3:], beams)
    for step in range(6):
        wanted = alone.step(ids[3, step].flatten(), parents[3:, step])
    torch.testing.assert_close(x, wanted, atol=1e-5, rtol=0)


@dataclass
class Guest:
    """A request in a session: its memory, when it leaves, and what each of its beams said."""

    memory: Tensor
    steps: int
    lines: list[list[int]] = field(default_factory=list)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_requests_come_and_go_for_long_in_little_room(beams: int, monkeypatch: pytest.MonkeyPatch):
    # Nobody stays longer than 14 steps, so that columns are given back: shifted, not only added.
    monkeypatch.setattr(fast, "FIRST_ROOM", 4)
    moves, plain = [], Session._make_room

    def make_room(session: Session) -> None:
        before = session.room, session.column
        plain(session)
        moves.append("more" if session.room > before[0] else "shifted" if session.column < before[1] else "nothing")

    monkeypatch.setattr(Session, "_make_room", make_room)
    network, chance = small_network(), random.Random(beams)
    session, guests, checked, seed = Session(FastDecoder(network), beams), list[Guest](), 0, 0
    for step in range(150):
        arriving = chance.randint(1, 2) if len(guests) < 4 and chance.random() < 0.4 and step < 130 else 0
        if arriving:
            lengths, seed = [chance.randint(3, 9) for _ in range(arriving)], seed + 1
            memory = drawn(arriving, max(lengths), NANO.text.width, seed=seed)
            session.join(memory, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
            guests += [
                Guest(memory[row : row + 1, :length], chance.randint(1, 14), [[] for _ in range(beams)])
                for row, length in enumerate(lengths)
            ]
        if not guests:
            continue
        # A beam of a request that just came has no past to go on from but its own.
        parents = [
            [chance.randrange(beams) for _ in range(beams)] if guest.lines[0] else list(range(beams))
            for guest in guests
        ]
        for guest, chosen in zip(guests, parents, strict=True):
            guest.lines = [[*guest.lines[parent], chance.randrange(4, 50)] for parent in chosen]
        ids = torch.tensor([line[-1] for guest in guests for line in guest.lines])
        x = session.step(ids, torch.tensor(parents)).view(len(guests), beams, -1)
        for place in reversed(range(len(guests))):
            guest = guests[place]
            if len(guest.lines[0]) == guest.steps:
                whole = network.seq2seq.decode(torch.tensor(guest.lines), guest.memory.expand(beams, -1, -1))[:, -1]
                torch.testing.assert_close(x[place], whole, atol=1e-5, rtol=0)  # float32, sums in another order
                checked += 1
                session.leave(place)
                guests[place] = guests[-1]
                guests.pop()
    assert checked > 40
    assert moves.count("shifted") > 2
    assert "nothing" not in moves
    assert session.room <= 2 * 14 * 2  # twice what a column's request may last, and the doubling


def test_a_change_of_the_weights_is_noticed():
    network, memory = small_network(), drawn(1, 5, NANO.text.width)
    decoder = FastDecoder(network)
    decoder.begin(memory)
    with torch.no_grad():
        network.seq2seq.decoder.layers[0].ffn.fc1.bias.add_(1.0)
    with pytest.raises(AssertionError, match="build a new FastDecoder"):
        decoder.begin(memory)


def test_a_network_in_training_is_refused():
    decoder = FastDecoder(small_network())
    decoder.network.train()
    with pytest.raises(AssertionError, match="eval"):
        decoder.begin(drawn(1, 5, NANO.text.width))


def test_an_adapter_is_not_silently_left_out():
    # Adapters stand around a linear layer and show its weight as their own: reading that would answer without them.
    network = small_network()
    layer = network.seq2seq.decoder.layers[0].ffn
    layer.fc1 = torch.nn.Sequential(layer.fc1)
    with pytest.raises(AssertionError, match="merge it first"):
        FastDecoder(network)
