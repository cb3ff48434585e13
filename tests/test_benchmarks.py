"""The benchmarks run, at a size that means nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_against_transformers_runs_and_writes_what_it_prints(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.against_transformers", "--size", "tiny", "--threads", "1"]
    command += ["--images", "2", "--answers", "2", "--tokens", "6", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-against-transformers.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert results["encode"]["max_difference"] < 1e-4  # one network on both sides
    assert results["greedy"]["same_tokens"]
    assert results["beams"]["same_tokens"]
    assert min(side["peak_mb"] for side in results["memory"].values()) > 50


def test_training_runs_and_both_sides_have_one_loss(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.training", "--sizes", "tiny", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-training.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert [row["targets"] for row in results["rows"]] == [1, 6]
    for row in results["rows"]:
        assert row["losses"]["ours"] == pytest.approx(row["losses"]["transformers"], rel=1e-5)
        assert row["pairs"] >= 4


def test_long_answers_runs_and_tiles_find_more_than_one_look(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.long_answers", "--pictures", "1", "--kinds", "objects"]
    command += ["--ways", "one", "3x3", "--threads", "1", "--look", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-long-answers.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    one, tiles = (row["figures"]["recall"]["value"] for row in results["rows"])
    assert tiles > one + 0.2  # a scene of sixty: nano was taught six at most
    assert {path.name for path in tmp_path.glob("*.png")} == {"objects-one.png", "objects-3x3.png"}
