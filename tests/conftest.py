"""Every test: shapes in signatures are checked, seeds are fixed, one thread beside others and two alone."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: tests never reach for the network

from jaxtyping import install_import_hook

install_import_hook(["openflorence.model", "openflorence.data.mixture", "openflorence.training"], "beartype.beartype")

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from answering import write_checkpoint  # noqa: E402
from called import Called  # noqa: E402

ALONE = "PYTEST_XDIST_WORKER" not in os.environ
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2" if ALONE else "1")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def answering_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that answers nonsense; see tests/answering.py. Read it, never write to it."""
    return write_checkpoint(tmp_path_factory.mktemp("answering"))


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the command line in this process."""

    from openflorence import cli  # not with this file: most tests do not need all that it imports

    def run(*words: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["openflorence", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Called(left.value.code, out, err)

    return run
