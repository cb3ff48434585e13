"""The loop: killed and resumed it is the straight run, what is frozen stays, and a diverged step spoils nothing."""

import json
import math
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import long_run
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny import SIDE_PX, WORLD, Same, drawn_examples, scene_with_sign, tiny_network, world_text
from torch import Tensor, nn

from openflorence.contract.answers import write_answer
from openflorence.data.mixture import IGNORED, Batch, collate
from openflorence.data.world import draw_scene
from openflorence.errors import BadConfig, OpenFlorenceError, TrainingDiverged
from openflorence.model.checkpoint import save_checkpoint
from openflorence.model.images import to_pixels
from openflorence.model.predict import AskOptions, load
from openflorence.training import train as module
from openflorence.training.train import (
    Loss,
    TrainSettings,
    pairs_logits,
    parameter_groups,
    parameter_report,
    sequence_loss,
    train,
)

SCENES = [scene_with_sign(), *(draw_scene(seed, WORLD) for seed in (1, 2, 3))]
TESTS = Path(__file__).resolve().parents[1]
FEW = ("detect", "classify_region", "read_region", "find")
SHORT = TrainSettings(steps=4, warmup=1, workers=0, save_every=2, log_every=2, average=0.9)


def batch_of(scenes: list, names: tuple[str, ...] = FEW) -> Batch:
    pixels = torch.stack([to_pixels(Image.fromarray(scene.image), SIDE_PX) for scene in scenes])
    asked = [(row, example) for row, scene in enumerate(scenes) for example in drawn_examples(scene, names)]
    return Batch(pixels, collate(asked, world_text(), buckets=2))


BATCHES = Same(batch_of(SCENES[:2]))


def loss_of(network: nn.Module) -> Loss:
    return sequence_loss(network, None, world_text().first_location)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def state_of(folder: Path) -> tuple[int, dict[str, Tensor]]:
    with safe_open(folder / "state.safetensors", framework="pt") as file:
        return int(file.metadata()["step"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- killed and resumed


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[Path, dict[str, Tensor]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("straight")
    return folder, long_run.run(folder, lambda line: None)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_the_straight_run(straight, tmp_path):
    chance = random.Random(11)  # drawn, not random: a failure repeats as far as a clock allows
    command = [sys.executable, long_run.__file__, str(tmp_path)]
    places = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    for kill in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=places) as run:
            lines = (line for line in run.stdout if "/12 " in line)
            for _ in range(chance.randint(1, 4)):
                next(lines)
            time.sleep(chance.uniform(0.0, 0.1))  # into the save after a step, or the next step
            run.kill()
        assert run.returncode == -9
        if (tmp_path / "state.safetensors").exists():
            step, tensors = state_of(tmp_path)
            assert step % long_run.SAVE_EVERY == 0, kill
            assert all(tensor.isfinite().all() for tensor in tensors.values())
    averaged = long_run.run(tmp_path, lambda line: None)
    assert equal(averaged, straight[1])
    (step, tensors), (wanted_step, wanted) = state_of(tmp_path), state_of(straight[0])
    assert step == wanted_step == long_run.STEPS
    assert equal(tensors, wanted)


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_a_run_that_was_stopped_ends_as_the_straight_run(stop_at, straight, tmp_path):
    def stop(line: str) -> None:
        if line.startswith(f"{stop_at}/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        long_run.run(tmp_path, stop)
    seen = []
    averaged = long_run.run(tmp_path, seen.append)
    # Line 0 is the table. The step whose line stopped the run was not saved, so it comes again.
    assert seen[1].startswith(f"{(stop_at - 1) // 2 * 2 + 1}/12 ")
    assert equal(averaged, straight[1])
    assert equal(state_of(tmp_path)[1], state_of(straight[0])[1])


def test_a_finished_run_is_not_run_again(straight):
    folder, averaged = straight
    before = (folder / "state.safetensors").stat().st_mtime_ns
    assert equal(long_run.run(folder, lambda line: None), averaged)
    assert (folder / "state.safetensors").stat().st_mtime_ns == before


def test_the_state_may_be_read_by_whoever_may_read_the_log(tmp_path):
    network = tiny_network()
    train(network, loss_of(network), BATCHES, replace(SHORT, steps=2), tmp_path)
    state, log = ((tmp_path / name).stat().st_mode for name in ("state.safetensors", "train.jsonl"))
    assert state == log


def test_a_save_that_dies_half_way_leaves_the_state_before_it(monkeypatch, tmp_path):
    network = tiny_network()
    train(network, loss_of(network), BATCHES, replace(SHORT, steps=2), tmp_path)
    good = (tmp_path / "state.safetensors").read_bytes()

    def die(tensors, path, metadata):
        Path(path).write_bytes(good[: len(good) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_safetensors", die)
    with pytest.raises(OSError, match="no space"):
        train(network, loss_of(network), BATCHES, SHORT, tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == good
    monkeypatch.undo()
    train(network, loss_of(network), BATCHES, SHORT, tmp_path)
    assert state_of(tmp_path)[0] == 4


def test_the_state_of_another_network_is_refused(tmp_path):
    network = tiny_network()
    train(network, loss_of(network), BATCHES, replace(SHORT, steps=1), tmp_path)
    wider = tiny_network(width=32)
    with pytest.raises(BadConfig, match=r"another network.*\(.*64.*\(.*32"):
        train(wider, loss_of(wider), BATCHES, SHORT, tmp_path)
    smaller = nn.ModuleDict({"seq2seq": network.seq2seq})
    with pytest.raises(BadConfig, match=r"projector\.columns.*another run folder"):
        train(smaller, loss_of(network), BATCHES, SHORT, tmp_path)
    larger = nn.ModuleDict({**dict(network.named_children()), "head": nn.Linear(2, 2)})
    with pytest.raises(BadConfig, match=r"head\.weight is None there"):
        train(larger, loss_of(network), BATCHES, SHORT, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x02\0\0\0\0\0\0\0{}"], ids=["empty", "words", "no step"])
def test_a_file_that_is_no_state_is_refused(content, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(content)
    network = tiny_network()
    with pytest.raises(BadConfig, match="is not the state of a run"):
        train(network, loss_of(network), BATCHES, SHORT, tmp_path)


# ---- diverging


def spoilt(network: nn.Module, at: int, factor: str) -> Loss:
    """A loss that is fine until a step, and then is multiplied by something that is not finite."""
    loss = loss_of(network)

    def give(batch: Batch, step: int) -> dict[str, Tensor]:
        parts = loss(batch, step)
        if step == at:
            parts["loss"] = parts["loss"] * float(factor)
        return parts

    return give


def rooted(network: nn.Module, at: int) -> Loss:
    """A loss whose value is fine at a step, but not its gradient: the root of nothing."""
    loss = loss_of(network)

    def give(batch: Batch, step: int) -> dict[str, Tensor]:
        parts = loss(batch, step)
        if step == at:
            parts["loss"] = parts["loss"] + (0.0 * parts["loss"]).sqrt()
        return parts

    return give


@pytest.mark.parametrize("how", ["nan", "inf", "root"])
def test_a_step_that_is_not_finite_stops_the_run_and_spoils_nothing(how, tmp_path):
    network = tiny_network()
    settings = replace(SHORT, steps=6)
    bad = rooted(network, 3) if how == "root" else spoilt(network, 3, how)
    with pytest.raises(TrainingDiverged, match=r"step 4: .*nan.*lower peak_rate|step 4: .*inf.*lower peak_rate"):
        train(network, bad, BATCHES, settings, tmp_path)
    assert issubclass(TrainingDiverged, OpenFlorenceError)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    step, tensors = state_of(tmp_path)
    assert step == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    train(network, loss_of(network), BATCHES, settings, tmp_path)  # and the run can go on
    assert state_of(tmp_path)[0] == 6


# ---- what is trained, and how


def test_a_frozen_tower_has_no_gradients_and_does_not_move(tmp_path):
    network = tiny_network()
    before = weights_of(network)
    averaged = train(network, loss_of(network), BATCHES, replace(SHORT, tower_rate=0.0), tmp_path)
    for name, parameter in network.named_parameters():
        frozen = name.startswith("tower.")
        assert parameter.requires_grad != frozen
        assert (parameter.grad is None) == frozen
        assert torch.equal(averaged[name], before[name]) == torch.equal(parameter, before[name])
        if frozen:
            assert torch.equal(parameter, before[name])
    assert not torch.equal(network.projector.project.weight, before["projector.project.weight"])
    table = parameter_report(network)
    size = sum(parameter.numel() for parameter in network.tower.parameters())
    assert f"tower                        0{size:>12,}" in table
    assert table.splitlines()[-1].split()[0] == "total"
    assert f"{sum(parameter.numel() for parameter in network.parameters()) - size:,}" in table.splitlines()[-1]


def test_the_tower_follows_its_own_rate(tmp_path):
    network = tiny_network()
    before = weights_of(network)
    settings = replace(SHORT, steps=1, tower_rate=0.1, weight_decay=0.0, average=0.0)
    train(network, loss_of(network), BATCHES, settings, tmp_path)
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in network.named_parameters()}
    # Adam's first step is as long as the rate wherever there is a gradient, whatever its size.
    assert max(length for name, length in moved.items() if name.startswith("tower.")) == pytest.approx(1e-4, rel=0.01)
    assert max(length for name, length in moved.items() if "tower" not in name) == pytest.approx(1e-3, rel=0.01)


def decayed_names(network: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, TrainSettings(weight_decay=0.3))
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(names)  # everything once
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


def test_weights_decay_but_norms_biases_embeddings_and_positions_of_text_do_not():
    network = tiny_network()
    decayed = decayed_names(network)
    for path, part in network.named_modules():
        for name, _ in part.named_parameters(prefix=path, recurse=False):
            if isinstance(part, nn.Linear | nn.Conv2d):
                assert (name in decayed) == name.endswith("weight"), name
            elif not path.startswith("projector."):
                assert name not in decayed, name


def test_the_positions_of_the_image_do_not_decay():
    assert not {"projector.rows.weight", "projector.columns.weight"} & decayed_names(tiny_network())


def test_the_rate_warms_up_and_ends_at_nothing():
    settings = TrainSettings(steps=1000, warmup=100, peak_rate=2.0)
    # By hand: cos is 1 - 5e-6 * step ** 2 at the start, 0 in the middle, and 1 - cos is 5e-6 before the end.
    assert settings.rate(0) == pytest.approx(0.02)
    assert settings.rate(49) == pytest.approx(1.0, rel=0.01)
    assert settings.rate(99) == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 0.099)))
    assert settings.rate(500) == pytest.approx(1.0)
    assert settings.rate(999) == pytest.approx(5e-6, rel=0.02)
    rates = [settings.rate(step) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak == 99
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert TrainSettings(steps=10, warmup=0, peak_rate=2.0).rate(0) == 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"warmup": 5},
        {"warmup": -1},
        {"average": 1.0},
        {"average": -0.1},
        {"peak_rate": -1.0},
        {"tower_rate": -1.0},
        {"weight_decay": -0.1},
        {"blur_bins": -1.0},
        {"clip": 0.0},
        {"workers": -1},
        {"save_every": 0},
        {"log_every": 0},
    ],
    ids=str,
)
def test_settings_outside_their_range_are_refused(changes):
    name = next(iter(changes))
    with pytest.raises(BadConfig, match=f"{name}="):
        replace(SHORT, **changes)


# ---- averages and the log


def recorded(network: nn.Module, seen: list[dict[str, Tensor]], losses: list[float]) -> Loss:
    """A loss that keeps the weights it was asked with, and what it gave."""
    loss = loss_of(network)

    def give(batch: Batch, step: int) -> dict[str, Tensor]:
        seen.append(weights_of(network))
        parts = loss(batch, step)
        losses.append(parts["loss"].item())
        return parts

    return give


def test_the_average_follows_the_weights(tmp_path):
    network, seen = tiny_network(), []
    averaged = train(network, recorded(network, seen, []), BATCHES, replace(SHORT, average=0.25), tmp_path)
    seen.append(weights_of(network))
    name = "projector.project.weight"
    wanted = seen[0][name].double()
    # By hand: a quarter stays, but only 1/10 and 2/11 at the first two steps, while the average is young.
    for kept, weights in zip((1 / 10, 2 / 11, 0.25, 0.25), seen[1:], strict=True):
        wanted = kept * wanted + (1 - kept) * weights[name].double()
    assert torch.allclose(averaged[name].double(), wanted, atol=1e-7)
    assert not torch.allclose(averaged[name], seen[-1][name], atol=1e-5)


def test_without_an_average_the_last_weights_come_back(tmp_path):
    network = tiny_network()
    assert equal(train(network, loss_of(network), BATCHES, replace(SHORT, average=0.0), tmp_path), weights_of(network))


def test_the_log_has_a_line_every_so_many_steps_with_their_means(tmp_path):
    network, losses, said = tiny_network(), [], []
    train(network, recorded(network, [], losses), BATCHES, SHORT, tmp_path, said.append)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["loss"] for row in rows] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], abs=1e-4)
    assert set(rows[0]) == {"step", "images_per_s", "norm", "loss", *FEW}
    assert all(row["norm"] > 0 and row["images_per_s"] > 0 for row in rows)
    assert said[0] == parameter_report(network)
    assert [line.split()[0] for line in said[1:]] == ["2/4", "4/4"]


def test_workers_draw_the_run_that_is_drawn_in_between(tmp_path):
    runs = []
    for workers in (0, 1):
        network = tiny_network()
        runs.append(train(network, loss_of(network), BATCHES, replace(SHORT, workers=workers), tmp_path / str(workers)))
    assert equal(*runs)


# ---- it learns


@pytest.mark.slow
def test_a_few_scenes_are_learnt_to_the_letter(tmp_path):
    network, text = tiny_network(), world_text()
    names = (*FEW, "caption", "answer")
    batch = batch_of(SCENES, names)
    settings = TrainSettings(
        steps=220, peak_rate=4e-3, warmup=40, weight_decay=0.0, average=0.0, workers=0, log_every=20
    )
    train(network, loss_of(network), Same(batch), settings, tmp_path / "run")
    network.eval()
    with torch.no_grad():
        image_tokens = network.encode_image(batch.pixels)
        for pairs in batch.pairs:
            said = pairs_logits(network, image_tokens, pairs).argmax(dim=-1)
            asked = pairs.labels != IGNORED
            assert torch.equal(said[asked], pairs.labels[asked])  # every token, given those before it
    save_checkpoint(network, text, tmp_path / "checkpoint")
    florence = load(tmp_path / "checkpoint")
    answered = 0
    for scene in SCENES:
        view = florence.open(scene.image)
        for example in drawn_examples(scene, names):
            for beams in (1, 3):
                answer = view.ask(example.task, example.text, example.region, AskOptions(beams=beams))
                assert answer.raw == write_answer(example.answer)
                assert (answer.truncated, answer.invalid) == (False, 0)
            answered += 1
    assert answered == sum(len(pairs.tasks) for pairs in batch.pairs) > 20
