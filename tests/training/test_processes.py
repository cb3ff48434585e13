"""Two processes are one: the same losses and weights, copied or sharded, accumulated, with an empty batch, taken up."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import two_processes
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from two_processes import SETTINGS, STEPS, Changed

from openflorence.data.mixture import Batch
from openflorence.errors import BadConfig
from openflorence.training import processes as module
from openflorence.training.processes import Processes

TESTS = Path(__file__).resolve().parents[1]

# Another order of sums. Measured: losses equal to the four digits that are logged, weights to 3e-6 of moves of 1e-3.
# Biases of keys have no gradient but rounding, which Adam makes as long a step as any other: measured 2e-5.
CLOSE, KEYS_CLOSE = 2e-5, 2e-4


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    """The folder in which two processes have left what they ended with."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    places = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, two_processes.__file__, str(folder)]
    done = subprocess.run(command, env=os.environ | places | {"ACCELERATE_USE_CPU": "true"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return folder


Ended = tuple[dict[str, Tensor], dict[str, Tensor], Path]


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Ended:
    """One process whose batches have the images of both."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("joined")
    return *two_processes.run(folder, Changed(4)), folder


class First(Dataset[Batch]):
    """Of every two batches the first."""

    def __getitem__(self, step: int) -> Batch:
        return Changed(2)[2 * step]


@pytest.fixture(scope="module")
def halved(tmp_path_factory) -> Ended:
    """One process that never sees what the second process found empty."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("halved")
    return *two_processes.run(folder, First()), folder


def losses_of(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def check_alike(found: dict[str, Tensor], wanted: dict[str, Tensor], part: str) -> None:
    assert {name.removeprefix(part) for name in found if name.startswith(part)} == wanted.keys()
    for name, value in wanted.items():
        allowed = KEYS_CLOSE if name.endswith("k_proj.bias") else CLOSE
        assert (found[part + name] - value).abs().max() < allowed, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("copied", "copied"),
        ("sharded", "sharded"),
        ("accumulated", "accumulated"),
        ("sharded and accumulated", "both"),
        ("taken up copied", "stopped"),
    ],
)
def test_two_processes_end_as_one_with_the_joined_batch(name, folder, ended, joined):
    averaged, weights, one = joined
    states = [load_file(ended / f"{name}.{rank}") for rank in (0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert bool(states[0]["sharded"]) == ("shard" in name)
    check_alike(states[0], weights, "weights/")
    check_alike(states[0], averaged, "average/")
    assert losses_of(one) == pytest.approx(losses_of(ended / folder), abs=2e-4)
    assert len(losses_of(one)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder"), [("one empty", "empty"), ("one empty, sharded", "empty sharded")])
def test_a_process_whose_batch_is_empty_changes_nothing(name, folder, ended, halved):
    averaged, weights, one = halved
    found = load_file(ended / f"{name}.0")
    assert bool(found["sharded"]) == ("shard" in name)
    check_alike(found, weights, "weights/")
    check_alike(found, averaged, "average/")
    assert losses_of(one) == pytest.approx(losses_of(ended / folder), abs=2e-4)


@pytest.mark.slow
def test_an_objective_that_uses_a_part_of_the_network_is_copied_too(ended):
    first, second = (load_file(ended / f"tower.{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = dict(two_processes.tiny_network(seed=3).named_parameters())
    moved = {name for name, value in start.items() if not torch.equal(value, first[f"weights/network.{name}"])}
    assert "tower.stages.0.embed.conv.weight" in moved
    assert not any(name.startswith(("seq2seq.encoder", "seq2seq.decoder")) for name in moved)


@pytest.mark.slow
def test_a_sharded_run_leaves_whole_states_of_the_same_names_and_shapes(ended, joined):
    shapes = []
    for folder in (joined[2], ended / "sharded"):
        for file in ("state.safetensors", "best.safetensors"):
            shapes.append({name: value.shape for name, value in load_file(folder / file).items()})
    assert shapes[:2] == shapes[2:]
    scores = [json.loads((folder / "best.json").read_text()) for folder in (joined[2], ended / "sharded")]
    assert scores[0]["step"] == scores[1]["step"]
    assert scores[0]["scores"]["size"] == pytest.approx(scores[1]["scores"]["size"], rel=1e-5)


def test_batches_that_are_accumulated_are_one_batch(joined, tmp_path):
    averaged, weights, one = joined
    found = two_processes.run(tmp_path, Changed(2), replace(SETTINGS, accumulate=2, recompute=True))
    check_alike({f"w/{name}": value for name, value in found[1].items()}, weights, "w/")
    check_alike({f"a/{name}": value for name, value in found[0].items()}, averaged, "a/")
    assert losses_of(tmp_path) == pytest.approx(losses_of(one), abs=2e-4)


# ---- one process


def test_what_is_not_installed_is_named_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BadConfig, match=r"tensorboard, not installed here: pip install openflorence\[train\]"):
        Processes("no", ("tensorboard",), tmp_path)
    with pytest.raises(BadConfig, match="wandb, not installed here: pip install wandb"):
        Processes("no", ("wandb",), tmp_path)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(BadConfig, match=r"accelerate.*pip install openflorence\[train\]"):
        Processes("no", (), tmp_path)


def test_a_launch_for_deepspeed_is_refused_with_what_to_do_instead(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(BadConfig, match=r"DeepSpeed.*shard=true"):
        Processes("no", (), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_with_a_scale_is_refused_on_a_cpu(tmp_path):
    with pytest.raises(BadConfig, match=r"fp16.*needs a GPU.*bf16"):
        Processes("fp16", (), tmp_path)


def test_a_stage_may_have_another_precision_than_the_one_before_it(tmp_path):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    kinds = []
    for precision in ("no", "bf16", "no"):
        with Processes(precision, (), tmp_path).autocast():
            kinds.append(layer(x).dtype)
    assert kinds == [torch.float32, torch.bfloat16, torch.float32]
