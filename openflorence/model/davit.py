"""DaViT, the image tower: four stages, each a convolution and then blocks that attend within windows and over channels.

Axes: B batch, H W cells of the current stage, C channels. Maps are kept (B, H, W, C): tokens for the linear layers,
and the same memory read as channels-last for the depthwise convolutions, so nothing is copied in between.
Source: the published modeling file; the channel attention differs from the public DaViT code (see ChannelAttention).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openflorence.model.config import VisionConfig
from openflorence.model.linear import Linear, add_into, gelu_into


class DropPath(nn.Module):
    """Leave a whole residual branch out for some samples while training, and scale the rest up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        kept = branch.new_empty((branch.shape[0], 1, 1, 1)).bernoulli_(keep)
        return branch * (kept / keep)


class ConvEmbed(nn.Module):
    """A strided convolution between stages, with its LayerNorm before or after."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        width_in = config.widths[stage - 1] if stage else 3
        width = config.widths[stage]
        self.prenorm = config.prenorms[stage]
        self.conv = nn.Conv2d(
            width_in, width, config.kernels[stage], stride=config.strides[stage], padding=config.paddings[stage]
        )
        self.norm = nn.LayerNorm(width_in if self.prenorm else width)

    def forward(self, x: Float[Tensor, "B H W Cin"]) -> Float[Tensor, "B H2 W2 C"]:
        if self.prenorm:
            x = self.norm(x)
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x if self.prenorm else self.norm(x)


class DepthwiseConv(nn.Conv2d):
    """A 3x3 depthwise convolution added to its input: the tower's only position signal inside a stage."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1, groups=width)

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        return add_into(super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), x)


class WindowAttention(nn.Module):
    """Attention among the cells of one window; windows do not overlap, shift or know their position."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        b, h, w, c = x.shape
        side = self.window
        # Right and bottom only, with zeros, after the norm and before qkv: padded cells carry the qkv bias and take
        # part in the softmax. No mask, as published.
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.view(b, rows, side, columns, side, c).transpose(2, 3).reshape(-1, side * side, c)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, c // self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (windows, cells, 3, A, c/A) -> 3 of (windows, A, cells, c/A)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.proj(x).view(b, rows, columns, side, side, c).transpose(2, 3)
        return x.reshape(b, rows * side, columns * side, c)[:, :h, :w]


class ChannelAttention(nn.Module):
    """Attention among the channels of one group, over all cells of the image.

    Scaled by the number of cells, not of channels, and softmax(q^T k) v^T: the public DaViT code has other roles and
    another scale, so its ImageNet weights do not fit. The scale makes the temperature follow the resolution.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        b, h, w, c = x.shape
        qkv = self.qkv(x).view(b, h * w, 3, self.groups, c // self.groups)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, N, 3, G, c/G) -> 3 of (B, G, N, c/G)
        # Scaled first: in half precision the sum over all cells would overflow.
        attention = ((q * (h * w) ** -0.5).transpose(-1, -2) @ k).softmax(
            dim=-1
        )  # (B, G, c/G, c/G), channels with channels
        x = v @ attention.transpose(-1, -2)
        return self.proj(x.transpose(1, 2).reshape(b, h, w, c))  # (B, G, N, c/G) -> (B, H, W, C)


class Block(nn.Module):
    """Convolution, attention, convolution, feed-forward, each added to its input; spatial or channel by its `attn`."""

    def __init__(self, width: int, attn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.conv1 = DepthwiseConv(width)
        self.norm1 = nn.LayerNorm(width)
        self.attn = attn
        self.conv2 = DepthwiseConv(width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        x = self.conv1(x)
        x = add_into(self.drop_path(self.attn(self.norm1(x))), x)
        x = self.conv2(x)
        return add_into(self.drop_path(self.fc2(gelu_into(self.fc1(self.norm2(x))))), x)


class DualBlock(nn.Module):
    """A spatial block and then a channel block, always in this order."""

    def __init__(self, config: VisionConfig, stage: int, rates: tuple[float, float]) -> None:
        super().__init__()
        width = config.widths[stage]
        self.spatial = Block(width, WindowAttention(width, config.heads[stage], config.window), rates[0])
        self.channel = Block(width, ChannelAttention(width, config.groups[stage]), rates[1])
        self.recompute = False  # for a gradient, keep only the input and run again, with the same chance

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(nn.Sequential(self.spatial, self.channel), x, use_reentrant=False)
        return self.channel(self.spatial(x))


class Stage(nn.Module):
    """One resolution: the convolution that reaches it, and its dual blocks."""

    def __init__(self, config: VisionConfig, stage: int, rates: list[float]) -> None:
        super().__init__()
        self.embed = ConvEmbed(config, stage)
        pairs = zip(rates[::2], rates[1::2], strict=True)
        self.blocks = nn.ModuleList([DualBlock(config, stage, pair) for pair in pairs])

    def forward(self, x: Float[Tensor, "B H W Cin"]) -> Float[Tensor, "B H2 W2 C"]:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x


class DaViT(nn.Module):
    """The image tower: pixels to a map of features, without a final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        blocks = 2 * sum(config.depths)
        step = config.drop_path / max(blocks - 1, 1)
        rates = [step * index for index in range(blocks)]  # 0 for the first block, drop_path for the last
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            start = 2 * sum(config.depths[:stage])
            self.stages.append(Stage(config, stage, rates[start : start + 2 * depth]))

    def forward(self, pixels: Float[Tensor, "B 3 Hpx Wpx"]) -> Float[Tensor, "B h w C"]:
        x = pixels.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return x
