"""The whole network: pixels and prompt ids to logits over the vocabulary.

Axes: B batch, N image tokens (the mean token, then the cells row by row), S prompt tokens, T answer tokens,
V vocabulary.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openflorence.contract.locations import BINS
from openflorence.errors import BadImage
from openflorence.model.config import FlorenceConfig, VisionConfig
from openflorence.model.davit import DaViT
from openflorence.model.linear import Linear
from openflorence.model.seq2seq import Seq2Seq


def cosine_table(frames: int, width: int) -> Float[Tensor, "frames C"]:
    """The temporal table of the published files: sine at even channels, cosine at odd ones."""
    rates = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    angles = torch.arange(frames).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class Projector(nn.Module):
    """From the tower's map to image tokens: positions, the constant frame signal, the mean token, the projection."""

    def __init__(self, config: VisionConfig, width: int) -> None:
        super().__init__()
        channels = config.widths[-1]
        self.max_side = config.max_side
        self.rows = nn.Embedding(config.max_side, channels // 2)
        self.columns = nn.Embedding(config.max_side, channels - channels // 2)
        self.project = Linear(channels, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("frames", cosine_table(config.max_frames, channels))
        self.frames: Tensor

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B N D"]:
        _, h, w, _ = x.shape
        if max(h, w) > self.max_side:
            raise BadImage(
                f"input gives a grid of {w}x{h} cells, but the position tables have {self.max_side} rows and columns: "
                "use a smaller side"
            )
        columns = self.columns.weight[:w].expand(h, -1, -1)
        rows = self.rows.weight[:h, None].expand(-1, w, -1)
        position = torch.cat([columns, rows], dim=-1)  # the x half first, as published
        # "Temporal" is vestigial: one image is frame 0, which adds the constant 0, 1, 0, 1, ... to every cell.
        tokens = (x + position + self.frames[0]).flatten(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)  # mean token first, then the cells
        return self.norm(self.project(tokens))


class Network(nn.Module):
    """Florence-2. `forward` is what parity is measured on; the three steps below it are what everything else calls."""

    def __init__(self, config: FlorenceConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = DaViT(config.vision)
        self.projector = Projector(config.vision, config.text.width)
        self.seq2seq = Seq2Seq(config.text)

    def forward(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        prompt_ids: Int[Tensor, "B S"],
        prompt_mask: Bool[Tensor, "B S"] | Int[Tensor, "B S"] | None,
        decoder_ids: Int[Tensor, "B T"],
    ) -> Float[Tensor, "B T V"]:
        """Score every next token of given answers.

        pixels       normalised RGB, any size the position tables allow.
        prompt_ids   text only, `<s>` prompt `</s>`, without image placeholders; right-padded.
        prompt_mask  nonzero at real prompt tokens; None when there is no padding.
        decoder_ids  what the decoder reads: `</s>` and then the answer so far.
        returns      logits; position t scores the token after decoder_ids[:, t].
        """
        memory, mask = self.encode(self.encode_image(pixels), prompt_ids, prompt_mask)
        return self.seq2seq.logits(self.seq2seq.decode(decoder_ids, memory, mask))

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Turn pixels into image tokens: the costly step, paid once for all questions on an image."""
        return self.projector(self.tower(pixels))

    def encode(
        self,
        image_tokens: Float[Tensor, "B N D"],
        prompt_ids: Int[Tensor, "B S"],
        prompt_mask: Bool[Tensor, "B S"] | Int[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"] | None]:
        """Read image and prompt together; gives the memory the decoder attends to, and which of it is real."""
        tokens = torch.cat([image_tokens, self.seq2seq.embed(prompt_ids)], dim=1)
        mask = None
        if prompt_mask is not None:
            mask = torch.cat([prompt_mask.new_ones(image_tokens.shape[:2]), prompt_mask], dim=1).bool()
        return self.seq2seq.encode(tokens, mask), mask


@torch.no_grad()
def init_weights(network: Network, seed: int, first_location: int | None = None) -> None:
    """Fill a network with the weights training starts from.

    seed            of the generator; the same seed gives the same weights.
    first_location  id of `<loc_0>`: when given, the thousand location rows start as a smooth function of the bin,
                    so that neighbours start close; otherwise they are noise like all others.
    source          spec of the published code: std 0.02, biases 0, norms 1/0. Convolutions instead get fan-in scale:
                    0.02 is made for widths of a hundred and more, at nano's it starves the first stages.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            std = max(0.02, 0.5 * module.in_features**-0.5)
            nn.init.trunc_normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    embed = network.seq2seq.embed.weight
    nn.init.normal_(embed, std=embed.shape[1] ** -0.5, generator=generator)
    embed[network.config.text.pad] = 0.0
    if first_location is not None:
        embed[first_location : first_location + BINS] = location_rows(embed.shape[1], generator)


def location_rows(width: int, generator: torch.Generator) -> Float[Tensor, "1000 D"]:
    """Embeddings of the bins that vary smoothly: sinusoids of 1 to 64 periods over the axis, in a random rotation."""
    position = torch.arange(BINS).float()[:, None] / BINS
    periods = torch.logspace(-1.0, 6.0, width // 2, base=2.0)
    angles = 2 * math.pi * position * periods
    waves = torch.cat([angles.sin(), angles.cos()], dim=1) * (2 / width) ** 0.5
    rotation, _ = torch.linalg.qr(torch.randn(waves.shape[1], width, generator=generator).T)
    return waves @ rotation.T
