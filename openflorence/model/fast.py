"""The decoder laid out for answering: packed weights, one token at a time, the encoder shared by all beams.

Axes: R requests, K beams of each, M encoder tokens, L past tokens of a request (all beams), D width, A heads, V
vocabulary. A row is one beam of one request; rows of a request lie next to one another.

No beam is ever copied. The cache of a request holds the keys and values of every beam at every step, and a small mask
says which of them are a beam's own past: when beams part or die, only that mask is rearranged.
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
        self.check()
        return Session(self, memory, mask, beams)


class Session:
    """Requests in the middle of their answers: what each beam said so far, as keys and values."""

    def __init__(
        self, decoder: FastDecoder, memory: Float[Tensor, "R M D"], mask: Bool[Tensor, "R M"] | None, beams: int
    ) -> None:
        self.decoder, self.beams = decoder, beams
        self.requests, self.steps, self.room = memory.shape[0], 0, 0
        self.cross = [layer.remember(memory) for layer in decoder.layers]
        self.memory_bias: Tensor | None = None  # (R, 1, 1, M), added to the scores: 0 at real tokens, -inf at padding
        if mask is not None and not bool(mask.all()):
            zeros = torch.zeros(mask.shape, dtype=memory.dtype, device=memory.device)
            self.memory_bias = zeros.masked_fill_(~mask.bool(), -torch.inf)[:, None, None]
        # Past keys and values, (R, A, room * K, D/A), one step's beams next to one another.
        self.past = [(key[:, :, :0], value[:, :, :0]) for key, value in self.cross]
        self.kin = memory.new_empty(
            (self.requests, 1, beams, 0)
        )  # 0 where a past token is a beam's own, -inf elsewhere
        self._grow(FIRST_ROOM)

    def _grow(self, room: int) -> None:
        """Make room for this many steps in all, keeping what is there."""
        used, wide = self.steps * self.beams, min(room, self.decoder.config.positions) * self.beams

        def wider(old: Tensor, dim: int, fill: float) -> Tensor:
            shape = list(old.shape)
            shape[dim] = wide
            new = old.new_full(shape, fill)
            new.narrow(dim, 0, used).copy_(old.narrow(dim, 0, used))
            return new

        self.past = [(wider(key, 2, 0.0), wider(value, 2, 0.0)) for key, value in self.past]
        self.kin = wider(self.kin, 3, -torch.inf)
        self.room = wide // self.beams

    def step(self, ids: Int[Tensor, "rows"], parents: Int[Tensor, "R K"] | None = None) -> Float[Tensor, "rows D"]:
        """Read one more token in every row; `head` of the decoder turns the result into logits.

        ids       the token each row reads.
        parents   which beam of its request (0..K-1) each row goes on from; None when every row goes on from itself.
        """
        if self.steps == self.room:
            self._grow(2 * self.room)
        start, end = self.steps * self.beams, (self.steps + 1) * self.beams
        kin = self._follow(parents, start, end) if self.beams > 1 else None
        seq2seq = self.decoder.network.seq2seq
        place = seq2seq.decoder.positions.weight[POSITION_OFFSET + self.steps]
        x = seq2seq.decoder.norm(F.embedding(ids, seq2seq.embed.weight) + place)
        for fast, past, cross in zip(self.decoder.layers, self.past, self.cross, strict=True):
            layer = fast.layer
            q, k, v = self._heads(fast.qkv(x), layer.self_attn, 3)
            past[0][: self.requests, :, start:end] = k
            past[1][: self.requests, :, start:end] = v
            x = layer.self_norm(x + fast.self_out(self._attend(q, past, end, kin)))
            (q,) = self._heads(fast.cross_q(x), layer.cross_attn, 1)
            bias = None if self.memory_bias is None else self.memory_bias[: self.requests]
            x = layer.cross_norm(x + fast.cross_out(self._attend(q, cross, cross[0].shape[2], bias)))
            x = layer.ffn_norm(x + fast.fc2(F.gelu(fast.fc1(x))))
        self.steps += 1
        return x

    def _heads(self, x: Float[Tensor, "rows _"], attention: Attention, parts: int) -> tuple[Tensor, ...]:
        """Cut joined projections into (R, A, K, D/A): the beams of a request are its queries."""
        return x.view(self.requests, self.beams, parts, attention.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(
        self, q: Float[Tensor, "R A K d"], source: tuple[Tensor, Tensor], end: int, bias: Tensor | None
    ) -> Float[Tensor, "rows D"]:
        key, value = source[0][: self.requests, :, :end], source[1][: self.requests, :, :end]
        x = F.scaled_dot_product_attention(q, key, value, attn_mask=bias)
        return x.transpose(1, 2).reshape(self.requests * self.beams, -1)

    def _follow(self, parents: Int[Tensor, "R K"] | None, start: int, end: int) -> Float[Tensor, "R 1 K L"]:
        """Give every row the past of its parent and, as its newest token, its own."""
        kin = self.kin[: self.requests, 0]
        if parents is not None:
            kin[:, :, :start] = kin[:, :, :start].gather(1, parents[:, :, None].expand(-1, -1, start))
        kin[:, :, start:end].diagonal(dim1=1, dim2=2).zero_()
        return kin[:, None, :, :end]

    def leave(self, place: int) -> None:
        """Take a request out; the last request moves into its place, so that only one is copied."""
        last, used = self.requests - 1, self.steps * self.beams
        if place != last:
            for tensor in (*(t for pair in self.past for t in pair), *(t for pair in self.cross for t in pair)):
                length = used if tensor.shape[2] == self.room * self.beams else tensor.shape[2]
                tensor[place, :, :length] = tensor[last, :, :length]
            self.kin[place, :, :, :used] = self.kin[last, :, :, :used]
            if self.memory_bias is not None:
                self.memory_bias[place] = self.memory_bias[last]
        self.requests = last
