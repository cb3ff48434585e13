"""The tower's start: cells labelled as the scene is painted, losses that stay finite, read-outs that learn."""

from dataclasses import replace
from math import floor

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SIDE_PX, WIDTH, WORLD, Same, scene_with_sign, tiny_network, world_text
from torch.nn.functional import one_hot

from openflorence.contract.locations import BINS
from openflorence.data.mixture import Batch, DrawnSource, Mixture, MixtureConfig
from openflorence.data.world import Scene, draw_scene
from openflorence.model.images import to_pixels
from openflorence.training.tower import NAMES, WEIGHTS, TowerStart, label_cells
from openflorence.training.train import TrainSettings, train

GRIDS = [(4, 4), (8, 8), (3, 5)]  # 3 and 5 do not divide 64
UNASKED = -100


def owner_of_cell(scene: Scene, row: int, column: int, grid_hw: tuple[int, int]) -> int:
    """Number of the thing with most of a cell and more than a fifth of it, 0 for none: counted pixel by pixel."""
    height, width = scene.owner.shape
    rows, columns = grid_hw
    ys = [y for y in range(height) if y * rows // height == row]
    xs = [x for x in range(width) if x * columns // width == column]
    cell = scene.owner[np.ix_(ys, xs)]
    counts = {thing.number: int((cell == thing.number).sum()) for thing in scene.things}
    best = max(counts, key=lambda number: counts[number])
    return best if counts[best] > 0.2 * cell.size else 0


@pytest.mark.parametrize("grid_hw", GRIDS)
def test_a_cell_is_labelled_with_the_thing_that_is_painted_there(grid_hw):
    scenes = [draw_scene(seed, replace(WORLD, sign_share=0.6)) for seed in range(12)]
    labels = label_cells(scenes, grid_hw)
    seen = set()
    for place, scene in enumerate(scenes):
        things = {thing.number: thing for thing in scene.things}
        for cell in range(grid_hw[0] * grid_hw[1]):
            number = owner_of_cell(scene, *divmod(cell, grid_hw[1]), grid_hw)
            said = {question: int(rows[place, cell]) for question, rows in labels.names.items()}
            assert bool(labels.filled[place, cell]) == (number > 0)
            if not number:
                assert set(said.values()) == {UNASKED}
                continue
            thing = things[number]
            named = {question: NAMES[question][row] if row != UNASKED else "" for question, row in said.items()}
            assert named == {"kind": thing.kind, "colour": thing.colour, "size": thing.size, "word": thing.word}
            edges = [min(floor(edge / 0.064), 999) for edge in thing.box]  # the published rule at 64 px
            assert labels.bins[place, cell].tolist() == edges
            seen.add(thing.is_sign)
    assert seen == {True, False}


def test_a_scene_painted_larger_has_the_same_labels_but_for_pixels_at_the_edges():
    small, large = (label_cells([draw_scene(7, replace(WORLD, side_px=side))], (8, 8)) for side in (128, 256))
    assert (small.names["kind"] == large.names["kind"]).float().mean() > 0.9
    both = small.filled & large.filled
    assert both.any()
    # One pixel of 128 is 7.8 bins; edges are rounded outwards to whole pixels.
    assert (small.bins - large.bins)[both].abs().max() <= 8


# ---- losses and scores


def batch_of(scenes: list[Scene]) -> Batch:
    pixels = [to_pixels(Image.fromarray(scene.image), SIDE_PX) for scene in scenes]
    return Batch(torch.stack(pixels), (), tuple(scenes))


def started() -> TowerStart:
    return TowerStart(tiny_network(), blur_bins=5.0, first_location=world_text().first_location)


def losses_of(scenes: list[Scene]) -> tuple[TowerStart, dict[str, torch.Tensor]]:
    start = started()
    return start, start(batch_of(scenes))


def emptied(scene: Scene) -> Scene:
    """The same picture, but no thing is said to be anywhere."""
    return replace(scene, owner=np.zeros_like(scene.owner))


MUTE = [scene for scene in (draw_scene(seed, WORLD) for seed in range(6)) if not scene.signs]


@pytest.mark.parametrize(
    "scenes",
    [[scene_with_sign()], MUTE, [emptied(MUTE[0])]],
    ids=["with a sign", "without signs", "no cell shows a thing"],
)
def test_losses_are_finite_and_scores_are_shares_whatever_the_scenes(scenes):
    start, parts = losses_of(scenes)
    parts["loss"].backward()
    assert set(WEIGHTS) < set(parts)
    assert all(value.isfinite() for value in parts.values()), parts
    assert all(parameter.grad.isfinite().all() for parameter in start.parameters() if parameter.grad is not None)
    shares = [value.item() for name, value in parts.items() if name.endswith("_right")]
    assert all(0 <= share <= 1 for share in shares)


def test_what_no_cell_is_asked_costs_nothing_and_has_no_score():
    _, parts = losses_of(MUTE)
    assert parts["word"] == 0
    assert "word_right" not in parts
    assert {"kind_right", "colour_right", "size_right", "side_bins"} <= set(parts)
    _, parts = losses_of([emptied(MUTE[0])])
    assert parts["box"] == 0
    assert [name for name in parts if name.endswith(("_right", "_bins"))] == []


def test_the_total_is_the_weighted_sum_of_the_parts():
    scenes = [scene_with_sign(), *MUTE]
    _, parts = losses_of(scenes)
    total = sum(WEIGHTS[name] * parts[name].item() for name in WEIGHTS)
    assert parts["units"] == len(scenes)
    assert (parts["loss"] / parts["units"]).item() == pytest.approx(total, rel=1e-6)
    assert not any(parts[name].requires_grad for name in WEIGHTS)


def test_the_scores_of_read_outs_made_by_hand():
    # Cells whose features are the answers, in read-outs that copy; and sides that always say bin 10.
    labels = label_cells([scene_with_sign(), *MUTE], (4, 4))
    head, locations = started().head, torch.eye(BINS, WIDTH)
    for part in (*head.names.values(), head.sides):
        torch.nn.init.eye_(part.weight)
        torch.nn.init.zeros_(part.bias)
    for question in ("kind", "colour", "size"):
        cells = one_hot(labels.names[question].clamp(min=0), WIDTH).float()
        assert head.scores(cells, locations, labels)[f"{question}_right"] == 1
        assert head.scores(cells.roll(1, dims=-1), locations, labels)[f"{question}_right"] == 0
    torch.nn.init.zeros_(head.sides.weight)
    head.sides.bias.data.view(4, WIDTH)[:, 10] = 1.0
    errors = sorted(abs(10 - bin_) for bin_ in labels.bins[labels.filled].flatten().tolist())
    scores = head.scores(torch.zeros(*labels.filled.shape, WIDTH), locations, labels)
    assert scores["side_bins"] == errors[(len(errors) - 1) // 2]


def test_the_start_reaches_the_tower_and_the_locations():
    start, parts = losses_of([scene_with_sign()])
    parts["loss"].backward()
    network = start.network
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.tower.parameters())
    rows = network.seq2seq.embed.weight.grad.abs().sum(dim=1)
    first = world_text().first_location
    assert (rows[first : first + BINS] > 0).all()
    assert rows[:first].sum() == 0


def test_a_few_steps_make_the_loss_smaller(tmp_path):
    source = DrawnSource(worlds=(WORLD,), side_px=SIDE_PX)
    config = MixtureConfig(side_px=SIDE_PX, images=4, targets=0, keep_scenes=True)
    batch = Mixture([(source, 1.0)], config, world_text(), 1)[0]
    start = started()
    before = start(batch)
    settings = TrainSettings(steps=30, peak_rate=3e-3, warmup=5, average=0.0, workers=0)
    train(start, Same(batch), settings, tmp_path)
    after = start(batch)
    assert after["loss"] < 0.7 * before["loss"]
    assert after["colour_right"] > before["colour_right"]
