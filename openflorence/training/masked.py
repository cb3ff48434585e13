"""The image tower's own start from pictures alone: parts of them are hidden, and their pixels guessed.

SimMIM's way (Xie et al. 2022), which suits a tower of stages: all tokens stay where they are. Behind the tower's first
convolution the tokens of random patches are replaced by one learnt token, the tower runs as ever, and one linear layer
reads all pixels of a cell off its features. Nothing but pixels is asked of a batch, so any folder of images will do.

Axes: B batch, H W pixels, h w cells of the tower's last stage, C channels.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openflorence.data.mixture import Batch
from openflorence.errors import BadConfig
from openflorence.model.config import VisionConfig
from openflorence.model.davit import DaViT, Stage
from openflorence.model.florence import Network


def draw_patches(count: int, grid_hw: tuple[int, int], share: float) -> Bool[Tensor, "B rows columns"]:
    """Choose the patches that each of `count` pictures hides: as many in each, ceil(share * patches) as published.

    promise   drawn on the CPU from torch's global generator. A training loop seeds that by the step, so a step hides
              the same patches on every device and after a resume.
    """
    rows, columns = grid_hw
    hidden = math.ceil(share * rows * columns)
    order = torch.rand(count, rows * columns).argsort(dim=1)
    return torch.zeros(count, rows * columns, dtype=torch.bool).scatter_(1, order[:, :hidden], True).view(-1, *grid_hw)


def enlarge(mask: Bool[Tensor, "B rows columns"], times: int) -> Bool[Tensor, "B h w"]:
    """The same mask with every entry `times` as high and as wide."""
    return mask.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)


def masked_features(
    tower: DaViT,
    pixels: Float[Tensor, "B 3 H W"],
    mask: Bool[Tensor, "B rows columns"],
    token: Float[Tensor, "C1"],
) -> Float[Tensor, "B h w C"]:
    """The tower's features of pictures of which it sees only a part.

    mask      True where a patch is hidden; a patch is a whole number of tokens of the first convolution.
    token     what stands in place of a hidden token.
    promise   with nothing hidden, the tower's own features, bit for bit.

    The first convolution overlaps: a token beside a hidden patch sees up to three pixels of its edge.
    """
    first, *rest = tower.stages
    assert isinstance(first, Stage)
    x = first.embed(pixels.permute(0, 2, 3, 1))
    hidden = enlarge(mask, x.shape[1] // mask.shape[1])
    x = torch.where(hidden[..., None], token.to(x.dtype), x)
    for part in (*first.blocks, *rest):
        x = part(x)
    return x


class MaskedObjective(nn.Module):
    """Guess hidden pixels; only the tower inside is kept.

    seed      of the mask token and of the head.
    share     of the patches of a picture that is hidden.
    patch_px  side of a patch; a multiple of the tower's first stride.
    raises    BadConfig when share or patch_px cannot be, here or for the first batch of another side.
    source    SimMIM: 0.6 of patches of 32 px, one linear layer, the mean absolute error of hidden pixels.
    """

    def __init__(self, network: Network, seed: int = 0, share: float = 0.6, patch_px: int = 32) -> None:
        super().__init__()
        vision = network.config.vision
        if not 0 < share < 1:
            raise BadConfig(f"share {share} of the patches cannot be hidden: give more than 0 and less than 1")
        if patch_px < 1 or patch_px % vision.strides[0]:
            raise BadConfig(
                f"patches of {patch_px} px cannot be hidden: a token of the tower's first stage has {vision.strides[0]}"
                " px, give a multiple of it"
            )
        self.network, self.share, self.patch_px = network, share, patch_px
        self.cell_px = math.prod(vision.strides)
        generator = torch.Generator().manual_seed(seed)
        self.token = nn.Parameter(torch.empty(vision.widths[0]))
        self.head = nn.Linear(vision.widths[-1], 3 * self.cell_px**2)
        nn.init.trunc_normal_(self.token, std=0.02, generator=generator)
        nn.init.trunc_normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cost of one batch.

        returns   "loss", the sum over hidden pixels of their error, the mean over the three colours; and "units", how
                  many pixels were hidden. Both in normalised pixels: a colour's unit is its spread over ImageNet.
        """
        pixels = batch.pixels
        mask = draw_patches(len(pixels), self.patches((pixels.shape[2], pixels.shape[3])), self.share).to(pixels.device)
        guessed = self.paint(masked_features(self.network.tower, pixels, mask, self.token))
        hidden = enlarge(mask, self.patch_px)[:, None]
        errors = (guessed.float() - pixels).abs() * hidden
        return {"loss": errors.sum() / 3, "units": hidden.sum().float()}

    def paint(self, features: Float[Tensor, "B h w C"]) -> Float[Tensor, "B 3 H W"]:
        """Guess every pixel: a 1x1 convolution and a pixel shuffle, as published, in one linear layer."""
        x = self.head(features).unflatten(-1, (3, self.cell_px, self.cell_px))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, h, w, 3, y, x) -> (B, 3, h*y, w*x)

    def patches(self, side_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of a picture.

        raises    BadConfig when patches or cells do not divide it, or all of it would be hidden.
        """
        height, width = side_hw
        vision, patch_px = self.network.config.vision, self.patch_px
        tokens, cells = first_grid_hw(vision, side_hw), vision.grid_hw(side_hw)
        fits = all(
            side % patch_px == 0 and side == token * vision.strides[0] and side == cell * self.cell_px
            for side, token, cell in zip(side_hw, tokens, cells, strict=True)
        )
        if not fits:
            raise BadConfig(
                f"pictures of {width}x{height} px do not divide into patches of {patch_px} px and cells of "
                f"{self.cell_px} px: give sides that are multiples of both"
            )
        rows, columns = height // patch_px, width // patch_px
        if math.ceil(self.share * rows * columns) == rows * columns:
            raise BadConfig(
                f"share {self.share} hides all {rows * columns} patches of {patch_px} px of {width}x{height} px: "
                "give a smaller share or patch_px"
            )
        return rows, columns


def first_grid_hw(vision: VisionConfig, side_hw: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens behind the tower's first convolution."""
    kernel, stride, padding = vision.kernels[0], vision.strides[0], vision.paddings[0]
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in side_hw)
    return height, width
