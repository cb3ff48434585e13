"""The encoder-decoder: BART's shape, post-norm, learned positions with an offset of two.

Axes: B batch, M encoder tokens (image and prompt), T answer tokens, S prompt tokens, D width, A heads.
Source: the published modeling file and `facebook/bart-base`, whose topology it keeps.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openflorence.errors import BadPrompt
from openflorence.model.config import TextConfig
from openflorence.model.linear import Linear, linear

POSITION_OFFSET = 2  # rows 0 and 1 of the position tables are never read, as in BART


class Attention(nn.Module):
    """Multi-head attention; queries from one sequence, keys and values from the same or another."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def split(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B A L D/A"]:
        """Give every head its slice of the width."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        source: Float[Tensor, "B K D"],
        mask: Bool[Tensor, "B 1 1 K"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B L D"]:
        """Attend from `x` to `source`; `mask` is True where a source token may be seen."""
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(source)), self.split(self.v_proj(source))
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.fc2(F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added and then normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.encoder_heads, config.attention_dropout)
        self.self_norm = nn.LayerNorm(config.width)
        self.ffn = FeedForward(config.width, config.encoder_ffn, config.activation_dropout)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B M D"], mask: Bool[Tensor, "B 1 1 M"] | None) -> Float[Tensor, "B M D"]:
        x = self.self_norm(x + self.dropout(self.self_attn(x, x, mask)))
        x = self.ffn_norm(x + self.dropout(self.ffn(x)))
        if x.dtype == torch.float16:  # as published: half precision overflows here on some inputs
            limit = torch.finfo(x.dtype).max - 1000
            x = torch.nan_to_num(x, nan=0.0, posinf=limit, neginf=-limit)
        return x


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward, each added and then normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.decoder_heads, config.attention_dropout)
        self.self_norm = nn.LayerNorm(config.width)
        self.cross_attn = Attention(config.width, config.decoder_heads, config.attention_dropout)
        self.cross_norm = nn.LayerNorm(config.width)
        self.ffn = FeedForward(config.width, config.decoder_ffn, config.activation_dropout)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: Float[Tensor, "B M D"],
        memory_mask: Bool[Tensor, "B 1 1 M"] | None,
    ) -> Float[Tensor, "B T D"]:
        x = self.self_norm(x + self.dropout(self.self_attn(x, x, causal=True)))
        x = self.cross_norm(x + self.dropout(self.cross_attn(x, memory, memory_mask)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class Stack(nn.Module):
    """What the encoder and the decoder share: positions, the embedding norm, and the layers."""

    def __init__(self, config: TextConfig, layers: list[nn.Module]) -> None:
        super().__init__()
        self.limit = config.positions
        self.positions = nn.Embedding(config.positions + POSITION_OFFSET, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.dropout)

    def place(self, x: Float[Tensor, "B L D"], start: int = 0) -> Float[Tensor, "B L D"]:
        """Add positions start .. start+L-1 and normalise.

        raises    BadPrompt when the sequence is longer than this checkpoint's position table.
        """
        end = start + x.shape[1]
        if end > self.limit:
            raise BadPrompt(f"{end} tokens, but this checkpoint has {self.limit} positions: shorten the text or image")
        rows = self.positions.weight[POSITION_OFFSET + start : POSITION_OFFSET + end]
        return self.dropout(self.norm(x + rows))


class Seq2Seq(nn.Module):
    """The language part: one embedding shared by both stacks and, transposed, by the output head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.width, padding_idx=config.pad)
        self.encoder = Stack(config, [EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.decoder = Stack(config, [DecoderLayer(config) for _ in range(config.decoder_layers)])
        self.recompute = (
            False  # for a gradient, keep only the inputs of layers and run them again, with the same chance
        )

    def _run(self, layer: nn.Module, x: Tensor, *rest: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, x, *rest, use_reentrant=False)
        return layer(x, *rest)

    def encode(self, tokens: Float[Tensor, "B M D"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B M D"]:
        """Read image and prompt tokens together; `mask` is True at real tokens, False at padding."""
        wide = None if mask is None else mask[:, None, None, :]
        x = self.encoder.place(tokens)
        for layer in self.encoder.layers:
            x = self._run(layer, x, wide)
        return x

    def decode(
        self,
        ids: Int[Tensor, "B T"],
        memory: Float[Tensor, "B M D"],
        memory_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Run the decoder over whole answers at once; causal, so right padding changes nothing before it."""
        wide = None if memory_mask is None else memory_mask[:, None, None, :]
        x = self.decoder.place(self.embed(ids))
        for layer in self.decoder.layers:
            x = self._run(layer, x, memory, wide)
        return x

    def logits(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Score the vocabulary with the embedding itself: the head is tied by construction, in every load path."""
        return linear(x, self.embed.weight, None)
