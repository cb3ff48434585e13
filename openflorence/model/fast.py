"""The decoder laid out for answering: packed weights, one token at a time, the encoder shared by all beams.

Axes: R requests, K beams of each, M encoder tokens, L past tokens of a request (all beams), D width, A heads, V
vocabulary. A row is one beam of one request; rows of a request lie next to one another.

Requests may join and leave at any step. No beam is ever copied: the cache of a request holds the keys and values of
every beam at every step, and a small mask says which of them are a beam's own past: when beams part or die, only that
mask is rearranged.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openflorence.model.florence import Network
from openflorence.model.linear import PackedLinear
from openflorence.model.seq2seq import POSITION_OFFSET, Attention, DecoderLayer

FIRST_ROOM = 64  # steps the cache has room for at first; it doubles when full


def _packed(*modules: nn.Module) -> PackedLinear:
    """Pack linear layers that read the same input as one."""
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    assert len(layers) == len(modules), "an adapter stands around a linear layer: merge it first"
    if len(layers) == 1:
        return PackedLinear(layers[0].weight, layers[0].bias)
    return PackedLinear(torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))


class FastLayer:
    """One decoder layer for one new token a row."""

    def __init__(self, layer: DecoderLayer) -> None:
        own, cross = layer.self_attn, layer.cross_attn
        self.layer = layer
        self.qkv, self.self_out = _packed(own.q_proj, own.k_proj, own.v_proj), _packed(own.out_proj)
        self.cross_q, self.cross_out = _packed(cross.q_proj), _packed(cross.out_proj)
        self.fc1, self.fc2 = _packed(layer.ffn.fc1), _packed(layer.ffn.fc2)

    def remember(self, memory: Float[Tensor, "R M D"]) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's tokens, (R, A, M, D/A): once a request, for all its beams and steps."""
        cross = self.layer.cross_attn
        return cross.split(cross.k_proj(memory)).contiguous(), cross.split(cross.v_proj(memory)).contiguous()


class FastDecoder:
    """The decoder of a network, ready to answer. It holds packed copies: build it once the weights are at rest."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.config = network.config.text
        seq2seq = network.seq2seq
        with torch.no_grad():
            self.layers = [FastLayer(layer) for layer in seq2seq.decoder.layers]  # type: ignore[arg-type]
            self.head = PackedLinear(seq2seq.embed.weight)
        self._packed_from = self._state()

    def _state(self) -> list[tuple[int, int]]:
        weights = self.network.seq2seq.parameters()
        return [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]

    def check(self) -> None:
        """Fail when the weights moved or changed since they were packed."""
        assert self._state() == self._packed_from, "weights changed since they were packed: build a new FastDecoder"
        assert not self.network.training, "the network is in training mode: call network.eval() first"

    def begin(
        self, memory: Float[Tensor, "R M D"], mask: Bool[Tensor, "R M"] | None = None, beams: int = 1
    ) -> "Session":
        """Prepare to answer requests whose encoder output is `memory`; `mask` is True at real tokens."""
        session = Session(self, beams)
        session.join(memory, mask)
        return session


class Session:
    """Requests in the middle of their answers: what each beam said so far, as keys and values.

    All requests write their newest token into the same column of the cache, wherever they are in their answers; a
    request that joined later has nothing of its own in the columns before. So joining copies no past.
    """

    def __init__(self, decoder: FastDecoder, beams: int = 1) -> None:
        decoder.check()
        self.decoder, self.beams = decoder, beams
        self.column = 0  # the next one to be written
        self.starts: list[int] = []  # the first column of every request
        self.start_ids = torch.empty(0, dtype=torch.long)  # the same, where the weights are
        self.room = 0  # columns there is space for
        self.cross: list[tuple[Tensor, Tensor]] = []  # keys and values of the encoder's tokens, (R, A, M, D/A)
        self.memory_bias: Tensor | None = None  # (R, 1, 1, M), added to the scores: 0 at real tokens, -inf at padding
        self.past: list[tuple[Tensor, Tensor]] = []  # (R, A, room * K, D/A), one column's beams next to one another
        self.kin = torch.empty(0)  # (R, 1, K, room * K): 0 where a past token is a beam's own, -inf elsewhere

    @property
    def requests(self) -> int:
        """Those that are answered now."""
        return len(self.starts)

    def join(self, memory: Float[Tensor, "R M D"], mask: Bool[Tensor, "R M"] | None = None) -> None:
        """Take requests in, behind those that are here; `mask` is True at real tokens.

        raises    AssertionError when the weights changed since they were packed.
        """
        self.decoder.check()
        new = [layer.remember(memory) for layer in self.decoder.layers]
        zeros = torch.zeros(memory.shape[:2], dtype=memory.dtype, device=memory.device)[:, None, None]
        bias = zeros if mask is None else zeros.masked_fill_(~mask.bool()[:, None, None], -torch.inf)
        if not self.requests:
            self.cross, self.memory_bias, self.column = new, bias if bool(bias.any()) else None, 0
            if not self.past:
                self.past = [(key[:, :, :0], value[:, :, :0]) for key, value in new]
                self.kin = memory.new_empty((len(memory), 1, self.beams, 0))
        else:
            self._widen(new, bias)
        self.starts += [self.column] * len(memory)
        self.start_ids = torch.tensor(self.starts, device=memory.device)
        if self.kin.shape[0] < self.requests or not self.room:
            self._make_space(self.requests, max(self.room, FIRST_ROOM))
        self.kin[self.requests - len(memory) : self.requests] = -torch.inf

    def _widen(self, new: list[tuple[Tensor, Tensor]], bias: Float[Tensor, "R 1 1 M"]) -> None:
        """Put the encoder's keys and values of new requests behind those that are here; the shorter ones are padded."""
        here, width = self.requests, self.cross[0][0].shape[2]
        most = max(width, bias.shape[-1])
        old_bias = bias.new_zeros(here, 1, 1, width) if self.memory_bias is None else self.memory_bias[:here]
        if self.memory_bias is not None or bool(bias.any()) or width != bias.shape[-1]:
            both = (F.pad(one, (0, most - one.shape[-1]), value=-torch.inf) for one in (old_bias, bias))
            self.memory_bias = torch.cat(list(both))

        def joined(old: Tensor, added: Tensor) -> Tensor:
            wide = old.new_zeros(here + len(added), old.shape[1], most, old.shape[3])
            wide[:here, :, :width], wide[here:, :, : added.shape[2]] = old[:here], added
            return wide

        self.cross = [
            (joined(old[0], added[0]), joined(old[1], added[1])) for old, added in zip(self.cross, new, strict=True)
        ]

    def _make_space(self, requests: int, room: int) -> None:
        """Have space for so many requests and columns, keeping what is there."""

        def wider(old: Tensor, dim: int, fill: float) -> Tensor:
            shape = [max(requests, old.shape[0]), *old.shape[1:]]
            shape[dim] = room * self.beams
            new = old.new_full(shape, fill)
            new[: old.shape[0]].narrow(dim, 0, old.shape[dim]).copy_(old)
            return new

        self.past = [(wider(key, 2, 0.0), wider(value, 2, 0.0)) for key, value in self.past]
        self.kin = wider(self.kin, 3, -torch.inf)
        self.room = room

    def _make_room(self) -> None:
        """Make room for another column: by what no request needs any more, if that is much; else by more memory."""
        oldest = min(self.starts)
        if 2 * oldest < self.room:
            self._make_space(self.requests, 2 * self.room)
            return
        kept, shift = (self.column - oldest) * self.beams, oldest * self.beams
        for tensor in (t for pair in self.past for t in pair):
            tensor[:, :, :kept] = tensor[:, :, shift : shift + kept].clone()
        self.kin[..., :kept] = self.kin[..., shift : shift + kept].clone()
        self.kin[..., kept:] = -torch.inf
        self.column -= oldest
        self.starts = [start - oldest for start in self.starts]
        self.start_ids -= oldest

    def step(self, ids: Int[Tensor, "rows"], parents: Int[Tensor, "R K"] | None = None) -> Float[Tensor, "rows D"]:
        """Read one more token in every row; `head` of the decoder turns the result into logits.

        ids       the token each row reads.
        parents   which beam of its request (0..K-1) each row goes on from; None when every row goes on from itself.
        """
        if self.column == self.room:
            self._make_room()
        first, alike = min(self.starts), min(self.starts) == max(self.starts)
        columns = slice(first * self.beams, (self.column + 1) * self.beams)
        kin = self._follow(parents, columns)
        own = None if self.beams == 1 and alike else kin  # one beam of requests that began together: all is its own
        seq2seq = self.decoder.network.seq2seq
        places = POSITION_OFFSET + self.column - (first if alike else self.start_ids.repeat_interleave(self.beams))
        x = seq2seq.decoder.norm(F.embedding(ids, seq2seq.embed.weight) + seq2seq.decoder.positions.weight[places])
        bias = None if self.memory_bias is None else self.memory_bias[: self.requests]
        for fast, past, cross in zip(self.decoder.layers, self.past, self.cross, strict=True):
            layer = fast.layer
            q, k, v = self._heads(fast.qkv(x), layer.self_attn, 3)
            past[0][: self.requests, :, columns.stop - self.beams : columns.stop] = k
            past[1][: self.requests, :, columns.stop - self.beams : columns.stop] = v
            x = layer.self_norm(x + fast.self_out(self._attend(q, past, columns, own)))
            (q,) = self._heads(fast.cross_q(x), layer.cross_attn, 1)
            x = layer.cross_norm(x + fast.cross_out(self._attend(q, cross, slice(None), bias)))
            x = layer.ffn_norm(x + fast.fc2(F.gelu(fast.fc1(x))))
        self.column += 1
        return x

    def _heads(self, x: Float[Tensor, "rows _"], attention: Attention, parts: int) -> tuple[Tensor, ...]:
        """Cut joined projections into (R, A, K, D/A): the beams of a request are its queries."""
        return x.view(self.requests, self.beams, parts, attention.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(
        self, q: Float[Tensor, "R A K d"], source: tuple[Tensor, Tensor], columns: slice, bias: Tensor | None
    ) -> Float[Tensor, "rows D"]:
        key, value = source[0][: self.requests, :, columns], source[1][: self.requests, :, columns]
        x = F.scaled_dot_product_attention(q, key, value, attn_mask=bias)
        return x.transpose(1, 2).reshape(self.requests * self.beams, -1)

    def _follow(self, parents: Int[Tensor, "R K"] | None, columns: slice) -> Float[Tensor, "R 1 K L"]:
        """Give every row the past of its parent and, as its newest token, its own."""
        kin = self.kin[: self.requests, 0, :, columns]
        older = kin.shape[-1] - self.beams
        if parents is not None and self.beams > 1:
            kin[:, :, :older] = kin[:, :, :older].gather(1, parents[:, :, None].expand(-1, -1, older))
        kin[:, :, older:].diagonal(dim1=1, dim2=2).zero_()
        return kin[:, None]

    def leave(self, place: int) -> None:
        """Take a request out; the last request moves into its place, so that only one is copied."""
        last = self.requests - 1
        if place != last:
            used = slice(min(self.starts) * self.beams, self.column * self.beams)
            for tensor in (t for pair in self.past for t in pair):
                tensor[place, :, used] = tensor[last, :, used]
            for tensor in (t for pair in self.cross for t in pair):
                tensor[place] = tensor[last]
            self.kin[place] = self.kin[last]
            if self.memory_bias is not None:
                self.memory_bias[place] = self.memory_bias[last]
            self.starts[place] = self.starts[last]
        self.starts.pop()
        self.start_ids = torch.tensor(self.starts, device=self.start_ids.device)
