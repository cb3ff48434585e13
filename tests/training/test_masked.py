"""Guessing hidden pixels: what is hidden, what it costs, and that the tower learns from it."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import Tensor, nn

from openflorence.data.mixture import Batch, DrawnSource, Mixture, MixtureConfig
from openflorence.errors import BadConfig
from openflorence.training.masked import MaskedObjective, draw_patches, enlarge, masked_features


def drawn_pixels(images: int, side_px: int = SIDE_PX) -> Tensor:
    config = MixtureConfig(side_px=side_px, images=images, targets=0)
    source = DrawnSource(worlds=(WORLD,), side_px=side_px)
    return Mixture([(source, 1.0)], config, world_text(), 1)[0].pixels


# ---- what is hidden


@pytest.mark.parametrize(("share", "hidden"), [(0.6, 10), (0.5, 8), (0.01, 1), (0.99, 16)])
def test_every_picture_hides_the_published_number_of_patches(share, hidden):
    # By hand, as in SimMIM's mask generator: ceil(share * 16) of 4x4 patches.
    mask = draw_patches(50, (4, 4), share)
    assert mask.shape == (50, 4, 4)
    assert (mask.flatten(1).sum(dim=1) == hidden).all()


def test_patches_are_hidden_anywhere_and_by_the_seed_of_torch():
    torch.manual_seed(1)
    first, second = draw_patches(400, (2, 4), 0.5), draw_patches(400, (2, 4), 0.5)
    assert not torch.equal(first, second)
    # A patch is hidden in half of 400 pictures: 200, with a spread of 10.
    assert ((first.sum(dim=0) - 200).abs() < 50).all()
    torch.manual_seed(1)
    assert torch.equal(draw_patches(400, (2, 4), 0.5), first)


@torch.no_grad()
def test_with_nothing_hidden_the_features_are_the_towers_own_bit_for_bit():
    network, pixels = tiny_network().eval(), drawn_pixels(3)
    token = torch.full((16,), 7.0)
    nothing = torch.zeros(3, 2, 2, dtype=torch.bool)
    assert torch.equal(masked_features(network.tower, pixels, nothing, token), network.tower(pixels))


@torch.no_grad()
def test_what_stands_in_a_hidden_patch_does_not_reach_the_features():
    network, pixels = tiny_network().eval(), drawn_pixels(1)
    mask, token = torch.tensor([[[True, False], [False, False]]]), torch.zeros(16)
    seen = masked_features(network.tower, pixels, mask, token)
    # The kernel of the first convolution is 7 px at a stride of 4: tokens outside see the last 3 px of the patch.
    inside, edge = pixels.clone(), pixels.clone()
    inside[:, :, :29, :29] = 5.0
    edge[:, :, 29:32, :29] = 5.0
    assert torch.equal(masked_features(network.tower, inside, mask, token), seen)
    assert not torch.equal(masked_features(network.tower, edge, mask, token), seen)
    assert not torch.equal(masked_features(network.tower, pixels, mask, token + 1.0), seen)


# ---- what it costs


class Fixed(nn.Module):
    """A head that says the same of every cell."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(*x.shape[:-1], -1)


def test_only_hidden_pixels_cost_and_each_costs_the_mean_over_its_colours():
    objective = MaskedObjective(tiny_network(), share=0.5)
    objective.head = Fixed(torch.zeros(3 * 16 * 16))
    pixels = torch.zeros(1, 3, 32, 64)  # two patches, 1 hidden
    pixels[0, :, :, :32] = torch.tensor([1.0, -2.0, 3.0])[:, None, None]  # off by (1 + 2 + 3) / 3 = 2 a pixel
    pixels[0, :, :, 32:] = torch.tensor([0.5, 0.5, -0.5])[:, None, None]  # off by 0.5 a pixel
    costs = set()
    for seed in range(8):
        torch.manual_seed(seed)
        parts = objective(Batch(pixels, ()))
        assert parts["units"].item() == 32 * 32
        costs.add(round(parts["loss"].item(), 3))
    assert costs == {32 * 32 * 2.0, 32 * 32 * 0.5}  # by hand: the left patch, or the right one


def test_the_head_is_a_1x1_convolution_and_a_pixel_shuffle():
    objective = MaskedObjective(tiny_network())
    convolution = nn.Conv2d(64, 3 * 16**2, 1)
    objective.head.bias.data = torch.randn(3 * 16**2, generator=torch.Generator().manual_seed(0))
    convolution.weight.data = objective.head.weight.data[..., None, None]
    convolution.bias.data = objective.head.bias.data
    features = torch.randn(2, 4, 3, 64, generator=torch.Generator().manual_seed(1))
    wanted = nn.PixelShuffle(16)(convolution(features.permute(0, 3, 1, 2)))
    assert wanted.shape == (2, 3, 64, 48)
    assert torch.allclose(objective.paint(features), wanted, atol=1e-5)  # sums of 64 products in another order


def test_the_cost_of_a_batch_is_that_of_its_pictures_hidden_alike(monkeypatch):
    objective, pixels = MaskedObjective(tiny_network()), drawn_pixels(3)
    masks = draw_patches(3, (2, 2), 0.6)
    monkeypatch.setattr("openflorence.training.masked.draw_patches", lambda count, grid_hw, share: masks)
    together = objective(Batch(pixels, ()))
    alone = []
    for row in range(3):
        one = masks[row : row + 1]
        monkeypatch.setattr("openflorence.training.masked.draw_patches", lambda count, grid_hw, share, one=one: one)
        alone.append(objective(Batch(pixels[row : row + 1], ())))
    assert together["units"] == sum(parts["units"] for parts in alone)
    assert together["loss"].item() == pytest.approx(sum(parts["loss"].item() for parts in alone), rel=1e-5)


# ---- what it teaches


def test_gradients_reach_all_of_the_tower_the_token_and_the_head():
    objective = MaskedObjective(tiny_network())
    objective(Batch(drawn_pixels(4), ()))["loss"].backward()
    taught = {name for name, value in objective.named_parameters() if value.grad is not None and value.grad.any()}
    wanted = {name for name, _ in objective.named_parameters() if name.startswith(("network.tower.", "token", "head."))}
    assert taught == wanted


def test_the_same_seed_is_the_same_objective_and_the_same_cost():
    batch, costs = Batch(drawn_pixels(2), ()), []
    for seed in (3, 3, 4):
        objective = MaskedObjective(tiny_network(), seed=seed)
        torch.manual_seed(0)
        costs.append(objective(batch)["loss"].item())
    assert costs[0] == costs[1] != costs[2]


def test_fresh_plain_pictures_are_guessed_from_the_patches_that_are_seen():
    objective, costs = MaskedObjective(tiny_network()), []
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for step in range(60):
        torch.manual_seed(step)
        colours = torch.randn(8, 3, 1, 1)  # of the whole picture: only what is seen tells what is hidden
        parts = objective(Batch(colours.expand(-1, -1, SIDE_PX, SIDE_PX), ()))
        cost = parts["loss"] / parts["units"]
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        costs.append(cost.item())
    # Without a look at the picture the best guess is 0, at the mean of |x| of a normal: sqrt(2 / pi) = 0.80.
    assert sum(costs[-8:]) / 8 < 0.75 * math.sqrt(2 / math.pi)


# ---- what cannot be


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_hides_nothing_or_everything_is_refused(share):
    with pytest.raises(BadConfig, match="share"):
        MaskedObjective(tiny_network(), share=share)


@pytest.mark.parametrize("patch_px", [0, 6, 30])
def test_a_patch_that_cuts_a_token_is_refused(patch_px):
    with pytest.raises(BadConfig, match=f"{patch_px} px .*multiple"):
        MaskedObjective(tiny_network(), patch_px=patch_px)


@pytest.mark.parametrize(("patch_px", "side_px"), [(32, 48), (12, 64), (16, 72), (24, 72)])
def test_a_side_that_does_not_divide_is_refused(patch_px, side_px):
    # 48 px are one and a half patches; 12 px do not divide 64; 72 px are four and a half cells of 16 px.
    objective = MaskedObjective(tiny_network(), patch_px=patch_px)
    with pytest.raises(BadConfig, match=f"{side_px}x{side_px} px"):
        objective(Batch(torch.zeros(1, 3, side_px, side_px), ()))


def test_a_picture_with_no_patch_left_to_see_is_refused():
    with pytest.raises(BadConfig, match="hides all 1 patches"):
        MaskedObjective(tiny_network())(Batch(torch.zeros(1, 3, 32, 32), ()))


def test_a_first_convolution_without_its_padding_is_refused():
    network = tiny_network()
    vision = replace(network.config.vision, paddings=(0, 1, 1, 1))
    network.config = replace(network.config, vision=vision)
    with pytest.raises(BadConfig, match="do not divide"):
        MaskedObjective(network).patches((64, 64))


def test_a_mask_is_enlarged_entry_by_entry():
    mask = torch.tensor([[[True, False]]])
    assert enlarge(mask, 2).tolist() == [[[True, True, False, False], [True, True, False, False]]]
