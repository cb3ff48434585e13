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


def test_many_questions_runs_and_both_sides_say_the_same(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.many_questions", "--size", "tiny", "--threads", "1"]
    command += ["--images", "2", "--repeats", "1", "--tokens", "8", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-many-questions.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert results["eight_tasks"]["same_tokens"] == 8
    assert results["mixed"]["same_tokens"] == results["mixed"]["requests"] == 8
    assert set(results["grammar"]) == {"beams_1", "beams_3"}


def test_trust_is_measured(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.trust", "--scenes", "4", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-trust.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert results["grammar"]["invalid_with"] == 0
    assert set(results["detect"]["bin"]) == {
        "constant", "order", "probability", "label alone", "place alone, as published",
    }  # fmt: skip
    assert all(0 < row["ap50"] <= 100 for table in results["detect"].values() for row in table.values())
    assert 0 <= results["presence"]["all"]["all"] <= 100


def test_engine_filters_runs_and_filtering_raises_precision(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.engine_filters", "--scenes", "12", "--side-px", "128"]
    command += ["--reader", "rules", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-engine-filters.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert [row["kind"] for row in results["rows"]] == ["objects", "descriptions", "words", "texts", "phrases"]
    for row in results["rows"]:
        assert row["before"]["there"] == row["after"]["there"] > 0
        assert row["before"]["true"] >= row["after"]["true"]  # a filter finds nothing new
    for row in (results["rows"][0], *results["rows"][3:]):
        assert row["after"]["precision"] > row["before"]["precision"]


def test_engine_refine_runs_and_a_model_that_knows_better_finds_more(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.engine_refine", "--scenes", "8", "--side-px", "192"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-engine-refine.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    objects = results["rows"][0]
    assert objects["kind"] == "objects"
    assert objects["after"]["true"] > objects["before"]["true"]
    assert objects["after"]["precision"] > objects["before"]["precision"]
    assert results["rules"]["fused"] > 0


def test_engine_runs_and_memory_does_not_grow_with_the_images(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.engine", "--parts", "cost", "memory", "publish", "--repeats", "1"]
    command += ["--images", "32", "--stub-images", "600", "--scenes", "16", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-engine.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert results["cost"]["plain_s"] >= 32 * 0.005  # the specialist's own time
    for row in results["memory"]:
        assert row["images"] == [600, 6000]
        assert max(row["growth"], row["worker_growth"]) < 0.2  # 5400 images more, of 20 KB, are 108 MB
    some, all_known, small_units, large_units = results["publish"]
    assert 0 < some["published_bytes"] < all_known["published_bytes"]
    assert some["annotations"] == all_known["annotations"] > 5  # outlines and questions are not counted
    # From the report: 5.4 billion annotations of 126 million images; 32 images by chance come near.
    assert small_units["annotations"] == large_units["annotations"] == pytest.approx(5423 / 126, abs=1)


def test_engine_scale_runs_and_goes_on_with_the_sizes_that_lack(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.engine_scale", "--work", str(tmp_path / "work")]
    command += ["--parts", "ingest", "inline", "publish", "read", "--out", str(tmp_path)]
    first = subprocess.run([*command, "--sizes", "300"], capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert first.returncode == 0, first.stderr
    kept = (tmp_path / "work" / "300.json").read_bytes()
    done = subprocess.run([*command, "--sizes", "300", "600"], capture_output=True, text=True, cwd=ROOT, timeout=280)
    (written,) = tmp_path.glob("*-engine-scale.json")
    results = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(written.read_text()) == results
    assert [row["images"] for row in results["rows"]] == [300, 600]
    assert results["rows"][0] == json.loads(kept)
    for row in results["rows"]:  # by hand: units of 256, each a file of images and one of a published column
        assert row["disk"]["corpus.lance/data files"] == 2 * -(-row["images"] // 256)
        assert row["disk"]["layers files"] == -(-row["images"] // 256)
    assert set(results["fit"]) == {"ingest", "inline", "publish", "read"}


def test_the_page_about_scale_has_the_tables_of_its_program():
    command = [sys.executable, "-m", "benchmarks.engine_on_paper"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=280)
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    tables = [line for line in done.stdout.splitlines() if line]
    assert len(tables) > 30
    assert [line for line in tables if line not in page.splitlines()] == []
