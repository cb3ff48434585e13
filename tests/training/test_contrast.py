"""Contrast of pictures and texts: which texts are true of which picture, what it costs, and that the tower learns."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import SIDE_PX, WORLD, tiny_network, world_text
from torch import Tensor, multiprocessing, nn

from openflorence.data.mixture import IGNORED, Batch, DrawnSource, Mixture, MixtureConfig, Pairs
from openflorence.data.world import WorldConfig
from openflorence.training.contrast import ContrastObjective, read_texts, spread_losses, true_matches

# One large circle a scene, on a plain ground: "a red circle".
PLAIN = replace(
    WORLD, max_objects=1, sign_share=0.0, kinds=("circle",), sizes=("large",), texture_share=0.0, pattern_share=0.0
)


def captions(images: int, steps: int = 1, world: WorldConfig = PLAIN) -> Mixture:
    """Scenes and what is said of them."""
    config = MixtureConfig(side_px=SIDE_PX, images=images, targets=1)
    source = DrawnSource(worlds=(world,), side_px=SIDE_PX, weights={"caption": 1.0})
    return Mixture([(source, 1.0)], config, world_text(), steps)


def pairs_of(rows: list[int], texts: list[list[int]]) -> Pairs:
    """Pairs whose answers are given as ids; the prompts are not read by the contrast."""
    length = max(map(len, texts))
    labels = torch.tensor([text + [IGNORED] * (length - len(text)) for text in texts])
    prompts = torch.zeros(len(rows), 1, dtype=torch.long)
    tasks = ("caption",) * len(rows)
    return Pairs(torch.tensor(rows), prompts, prompts.bool(), labels.clamp(min=1), labels, tasks)


# ---- which texts are true of which picture


def test_pairs_of_equal_texts_are_all_right_answers_of_each_other():
    # Three pictures, "a" "b" "a". By hand: the first and the third text are true of both of their pictures.
    texts = torch.tensor([[0, 7, 2], [0, 8, 2], [0, 7, 2]])
    matches = true_matches(torch.tensor([0, 1, 2]), texts)
    assert matches.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    # Probabilities 1/2, 1/4, 1/4 in each row, the picture's own text first in line. By hand, row 0 against 1/2, 0, 1/2:
    # (ln 2 + ln 4) / 2 = 1.5 ln 2; row 1 against 0, 1, 0: ln 2; row 2 as row 0.
    logits = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]).log()
    wanted = [1.5 * math.log(2), math.log(2), 1.5 * math.log(2)]
    assert spread_losses(logits, matches).tolist() == pytest.approx(wanted, rel=1e-6)


def test_all_texts_of_a_picture_are_true_of_it_and_of_who_shares_one():
    # Pairs (0, a), (0, b), (1, b), (2, c). By hand: a and b are true of 0, b of 1, c of 2.
    texts = torch.tensor([[5], [6], [6], [7]])
    matches = true_matches(torch.tensor([0, 0, 1, 2]), texts)
    assert matches.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_texts_of_groups_of_other_lengths_are_compared_without_their_padding():
    short, long = pairs_of([0, 2], [[0, 7, 2], [0, 8, 2]]), pairs_of([1, 3], [[0, 7, 2], [0, 7, 9, 9, 2]])
    rows, ids = read_texts((short, long))
    assert rows.tolist() == [0, 2, 1, 3]
    assert ids.shape == (4, 5)
    matches = true_matches(rows, ids)
    assert matches.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2], [3, 3]]


# ---- what it costs


def cost(objective: ContrastObjective, batch: Batch) -> Tensor:
    parts = objective(batch)
    return parts["loss"] / parts["units"]


def rewritten(batch: Batch, turned: bool = False) -> Batch:
    """The same pairs in one group, in the same order or from the last to the first."""
    rows, ids = read_texts(batch.pairs)
    texts = [[number for number in row if number != IGNORED] for row in ids.tolist()]
    order = range(len(texts))[::-1] if turned else range(len(texts))
    return Batch(batch.pixels, (pairs_of([int(rows[place]) for place in order], [texts[place] for place in order]),))


@torch.no_grad()
def test_with_texts_that_all_differ_the_cost_is_that_of_clip():
    objective = ContrastObjective(tiny_network()).eval()
    network, pixels = objective.network, captions(6, world=WORLD)[0].pixels
    said = [[0, 300 + row, *range(310, 310 + row), 2] for row in range(6)]  # of six lengths
    # CLIP as its paper writes it, one picture and one text at a time.
    images = [objective.of_image(network.tower(picture[None]).mean(dim=(0, 1, 2))) for picture in pixels]
    read = [network.seq2seq.encode(network.seq2seq.embed(torch.tensor([text])))[0] for text in said]
    texts = [objective.of_text(tokens.mean(dim=0)) for tokens in read]
    image_rows, text_rows = (torch.stack([row / row.norm() for row in side]) for side in (images, texts))
    logits, labels = image_rows @ text_rows.T / 0.07, torch.arange(6)
    wanted = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    parts = objective(Batch(pixels, (pairs_of(list(range(6)), said),)))
    assert parts["units"] == 6
    assert (parts["loss"] / parts["units"]).item() == pytest.approx(wanted.item(), rel=1e-4)
    assert parts["image_to_text"] == (logits.argmax(dim=1) == labels).float().mean()
    assert parts["scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_a_text_that_another_picture_shares_counts_as_found():
    # Pictures 0 and 1 are the same and have the same text; whichever of the two is closest, it is right.
    batch = captions(2)[0]
    pixels = batch.pixels[[0, 0, 1]]
    objective = ContrastObjective(tiny_network())
    shared = Batch(pixels, (pairs_of([0, 1], [[0, 7, 2], [0, 7, 2]]),))
    assert objective(shared)["image_to_text"] == 1
    # By hand: both texts are equally close to both pictures and wanted as much, ln 2 each way.
    assert cost(objective, shared).item() == pytest.approx(math.log(2), rel=1e-5)


@torch.no_grad()
def test_an_image_is_held_to_all_its_texts_and_a_text_to_all_its_images():
    # Pairs (0, a), (0, b), (1, b): from image 0 both texts are right, thrice written; from text a only image 0, twice.
    objective = ContrastObjective(tiny_network()).eval()
    pixels = captions(2, world=WORLD)[0].pixels
    parts = objective(Batch(pixels, (pairs_of([0, 0, 1], [[0, 7, 2], [0, 8, 2], [0, 8, 2]]),)))
    images = objective.place_images(pixels)
    texts = objective.place_texts(torch.tensor([[0, 7, 2], [0, 8, 2]]))
    logits = images[[0, 0, 1]] @ texts[[0, 1, 1]].T / 0.07
    of_image, of_text = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
    by_image = of_image[0].mean() + of_image[1].mean() + of_image[2, 1:].mean()
    by_text = of_text[:2, 0].mean() + of_text[:, 1].mean() + of_text[:, 2].mean()
    assert parts["loss"].item() == pytest.approx(-(by_image + by_text).item() / 2, rel=1e-5)


@torch.no_grad()
def test_buckets_and_the_order_of_pairs_change_nothing():
    batch = captions(12)[0]
    assert len(batch.pairs) == 2
    objective = ContrastObjective(tiny_network())
    wanted = cost(objective, batch).item()
    assert cost(objective, rewritten(batch)).item() == pytest.approx(wanted, rel=1e-5)
    assert cost(objective, rewritten(batch, turned=True)).item() == pytest.approx(wanted, rel=1e-5)


def test_the_scale_stops_at_a_hundred_and_can_come_back():
    objective, batch = ContrastObjective(tiny_network()), captions(8)[0]
    objective.log_scale.data.fill_(20.0)
    parts = objective(batch)
    assert parts["scale"].item() == pytest.approx(100.0, rel=1e-5)
    parts["loss"].backward()
    assert objective.log_scale.grad.abs().item() > 0


def test_a_batch_without_pairs_costs_nothing_and_has_gradients_of_zero():
    objective = ContrastObjective(tiny_network())
    parts = objective(Batch(captions(2)[0].pixels, ()))
    assert parts["loss"] == 0
    assert parts["units"] == 0
    assert "image_to_text" not in parts
    parts["loss"].backward()
    assert all(not value.grad.any() for value in objective.parameters() if value.grad is not None)


# ---- what it teaches


def test_gradients_reach_the_tower_the_embedding_and_the_encoder():
    objective = ContrastObjective(tiny_network())
    objective(captions(8)[0])["loss"].backward()
    taught = {name for name, value in objective.named_parameters() if value.grad is not None and value.grad.any()}
    mine = ("network.tower.", "network.seq2seq.e", "of_", "log_scale")  # embed and encoder
    named = {name for name, _ in objective.named_parameters() if name.startswith(mine)}
    # A key's bias moves all scores of a query alike, so its gradient is zero up to rounding: it may be either.
    assert named - taught <= {name for name in named if name.endswith("k_proj.bias")}
    assert taught <= named


def test_the_same_seed_is_the_same_objective():
    batch = captions(4)[0]
    costs = [cost(ContrastObjective(tiny_network(), seed=seed), batch).item() for seed in (3, 3, 4)]
    assert costs[0] == costs[1] != costs[2]


def test_captions_of_fresh_scenes_are_found_after_a_few_dozen_steps():
    objective, mixture, rows = ContrastObjective(tiny_network()), captions(12, 50), []
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    for step in range(50):
        parts = objective(mixture[step])
        loss = parts["loss"] / parts["units"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        rows.append((loss.item(), parts["image_to_text"].item()))
    before, after = (torch.tensor(part).mean(dim=0) for part in (rows[:10], rows[-10:]))
    # Measured: cost 2.56 -> 1.34, found 0.18 -> 0.69. A guess finds an eighth, as there are eight colours, and a bit.
    assert after[0] < 0.75 * before[0]
    assert after[1] > 0.5


# ---- several processes

SHARDS = (slice(0, 5), slice(5, 8))  # as many processes, with other numbers of pairs and other lengths
SAID = [
    [0, 300, 2],
    [0, 301, 2],
    [0, 302, 2],
    [0, 300, 2],
    [0, 303, 2],
    [0, 300, 2],
    [0, 301, 304, 305, 2],
    [0, 302, 2],
]


def shard(places: slice) -> Batch:
    """Some of eight pictures, each with its text."""
    said = SAID[places]
    return Batch(captions(8, world=WORLD)[0].pixels[places], (pairs_of(list(range(len(said))), said),))


def work(rank: int, meeting: Path, folder: Path) -> None:
    """One of two processes: its part of the batch, then cost and gradients summed over both."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    objective = ContrastObjective(tiny_network())
    parts = objective(shard(SHARDS[rank]))
    parts["loss"].backward()
    sums = {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}
    sums |= {"loss": parts["loss"].detach(), "units": parts["units"]}
    for name in sorted(sums):
        torch.distributed.all_reduce(sums[name])
    save_file(sums, folder / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_cost_and_teach_as_one_with_the_joined_batch(tmp_path):
    multiprocessing.spawn(work, (tmp_path / "meeting", tmp_path), nprocs=2)
    objective = ContrastObjective(tiny_network())
    parts = objective(shard(slice(0, 8)))
    parts["loss"].backward()
    wanted = {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}
    largest = max(value.abs().max() for value in wanted.values())
    for rank in range(2):
        sums = load_file(tmp_path / f"{rank}.safetensors")
        assert sums.pop("units") == parts["units"] == 8
        assert sums.pop("loss").item() == pytest.approx(parts["loss"].item(), rel=1e-5)
        assert sums.keys() == wanted.keys()
        difference = max((sums[name] - wanted[name]).abs().max() for name in wanted)
        assert difference < 1e-4 * largest  # float32 sums in another order
