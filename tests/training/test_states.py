"""The state of a run: killed and resumed it is the straight run, and what does not fit is refused."""

import json
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
from safetensors.torch import load_file
from small_runs import BATCHES, SHORT, equal, rows_of, run, state_of
from tiny import tiny_network, world_text
from torch import Tensor, nn
from torch.utils.data import Dataset

from openflorence.data.mixture import Batch, MixtureConfig
from openflorence.errors import BadConfig
from openflorence.model.florence import Network
from openflorence.training import states
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import train

TESTS = Path(__file__).resolve().parents[1]


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
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=places) as process:
            lines = (line for line in process.stdout if "/12 " in line)
            for _ in range(chance.randint(1, 4)):
                next(lines)
            time.sleep(chance.uniform(0.0, 0.1))  # into the save after a step, or the next step
            process.kill()
        assert process.returncode == -9
        if (tmp_path / "state.safetensors").exists():
            step, tensors = state_of(tmp_path)
            assert step % long_run.SAVE_EVERY == 0, kill
            assert all(tensor.isfinite().all() for tensor in tensors.values())
    averaged = long_run.run(tmp_path, lambda line: None)
    assert equal(averaged, straight[1])
    (step, tensors), (wanted_step, wanted) = state_of(tmp_path), state_of(straight[0])
    assert step == wanted_step == long_run.STEPS
    assert equal(tensors, wanted)
    # Steps that were lost are logged again, with the same losses; the best weights are the same.
    losses = [
        {(row["step"], row["loss"]) for row in rows_of(folder) if "loss" in row} for folder in (tmp_path, straight[0])
    ]
    assert losses[0] == losses[1]
    assert len(losses[1]) == long_run.STEPS
    best = [load_file(folder / "best.safetensors") for folder in (tmp_path, straight[0])]
    assert equal(*best)
    assert (tmp_path / "best.json").read_text() == (straight[0] / "best.json").read_text()
    assert 1 < json.loads((tmp_path / "best.json").read_text())["step"] < long_run.STEPS


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
    run(network, replace(SHORT, steps=2), tmp_path)
    state, log = ((tmp_path / name).stat().st_mode for name in ("state.safetensors", "train.jsonl"))
    assert state == log


def test_a_save_that_dies_half_way_leaves_the_state_before_it(monkeypatch, tmp_path):
    network = tiny_network()
    run(network, replace(SHORT, steps=2), tmp_path)
    good = (tmp_path / "state.safetensors").read_bytes()

    def die(tensors, path, metadata):
        Path(path).write_bytes(good[: len(good) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(states, "write_safetensors", die)
    with pytest.raises(OSError, match="no space"):
        run(network, SHORT, tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == good
    monkeypatch.undo()
    run(network, SHORT, tmp_path)
    assert state_of(tmp_path)[0] == 4


class WithHead(SequenceObjective):
    """One layer more than the network."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.head = nn.Linear(2, 2)


class Half(nn.Module):
    """Some of the network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"seq2seq": network.seq2seq})


def test_the_state_of_another_network_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(states, "_check_facts", lambda *facts: None)  # they would tell before
    network = tiny_network()
    run(network, replace(SHORT, steps=1), tmp_path)
    with pytest.raises(BadConfig, match=r"another network.*\(.*64.*\(.*32"):
        run(tiny_network(width=32), SHORT, tmp_path)
    with pytest.raises(BadConfig, match=r"projector\.columns.*another run folder"):
        train(Half(network), BATCHES, SHORT, tmp_path)
    with pytest.raises(BadConfig, match=r"head\.bias is None there|head\.weight is None there"):
        train(WithHead(network), BATCHES, SHORT, tmp_path)
    with pytest.raises(BadConfig, match=r"tower\.stages.* is trained there and frozen here"):
        run(network, replace(SHORT, tower_rate=0.0), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x02\0\0\0\0\0\0\0{}"], ids=["empty", "words", "no step"])
def test_a_file_that_is_no_state_is_refused(content, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(BadConfig, match="is not the state of a run"):
        run(tiny_network(), SHORT, tmp_path)


class Described(Dataset[Batch]):
    """The same batch, and what it says of itself."""

    def __init__(self, **changes: object) -> None:
        self.config = MixtureConfig(**changes)

    def __getitem__(self, number: int) -> Batch:
        return BATCHES[number]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peak_rate": 2e-3}, r"train\.peak_rate is 0\.001 there and 0\.002 here"),
        ({"seed": 5}, r"train\.seed is 0 there and 5 here"),
        ({"accumulate": 2}, r"step\.batches is 1 there and 2 here"),
        ({"precision": "bf16"}, r"train\.precision is 'no' there and 'bf16' here"),
        ({"average": 0.0}, r"train\.average is 0\.9 there"),
        ({"betas": (0.9, 0.95)}, r"train\.betas is \[0\.9, 0\.98\] there"),
    ],
    ids=str,
)
def test_a_run_is_not_taken_up_with_settings_that_compute_something_else(changes, said, tmp_path):
    network = tiny_network()
    run(network, replace(SHORT, steps=1), tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(BadConfig, match=rf"other settings: {said}.*another run folder"):
        run(network, replace(SHORT, **changes), tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_run_is_not_taken_up_with_other_batches_or_another_objective(tmp_path):
    network, first = tiny_network(), world_text().first_location
    one = replace(SHORT, steps=1)
    train(SequenceObjective(network), Described(images=3), one, tmp_path)
    with pytest.raises(BadConfig, match=r"data\.images is 3 there and 4 here"):
        train(SequenceObjective(network), Described(images=4), SHORT, tmp_path)
    with pytest.raises(BadConfig, match=r"data\.side_px is 128 there and None here"):
        train(SequenceObjective(network), BATCHES, SHORT, tmp_path)
    with pytest.raises(BadConfig, match=r"objective\.blur_bins is 0\.0 there and 4\.0 here"):
        train(SequenceObjective(network, 4.0, first), Described(images=3), SHORT, tmp_path)
    train(SequenceObjective(network), Described(images=3), SHORT, tmp_path)
    assert state_of(tmp_path)[0] == SHORT.steps


def test_what_changes_no_step_may_change_and_a_run_may_be_made_longer(tmp_path):
    run(tiny_network(), replace(SHORT, steps=2), tmp_path)
    changes = {"steps": 5, "save_every": 1, "log_every": 1, "workers": 1, "recompute": True}
    run(tiny_network(), replace(SHORT, **changes), tmp_path)
    assert state_of(tmp_path)[0] == 5
