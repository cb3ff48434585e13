"""The command line in processes of its own: readers that leave, signals, mistakes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from answering import drawn_picture
from test_cli import KEYS, answered

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures."""
    (tmp_path / "in").mkdir()
    for seed in (1, 2):
        drawn_picture(seed, (47 + seed, 32)).save(tmp_path / "in" / f"{'_ab'[seed]}.png")
    return tmp_path / "in"


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "openflorence.cli", *map(str, words)]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_reader_that_has_seen_enough_is_no_error_message(folder, answering_folder):
    words = command("run", *[folder / "a.png"], folder, "-t", "caption", "-m", answering_folder, "--json", "--batch", 1)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=folder
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert list(json.loads(process.stdout.readline())) == KEYS
        process.stdout.close()  # as `| head -1` does
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)  # 0 if all was written before the reader left


def test_ctrl_c_stops_at_once_and_keeps_what_was_done(folder, answering_folder, tmp_path):
    for seed in range(400):  # far more than is answered before the signal
        os.link(folder / "a.png", folder / f"more{seed:03}.png")
    out = tmp_path / "out"
    words = command("run", folder, "-t", "caption", "-m", answering_folder, "--json", "--out", out, "--batch", 1)
    # What a shell starts in its background ignores the signal, and so does whatever that starts.
    listening = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=folder)
    finally:
        signal.signal(signal.SIGINT, listening)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"stopped\n")
    assert 1 <= len(answered(out)) < 400
    assert not list(out.glob(".*"))


def test_a_mistake_in_a_real_process_is_one_line():
    done = subprocess.run(
        command("run", "a.png", "-t", "detekt"), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
