"""Every test: shapes in signatures are checked, seeds are fixed, one thread beside others and two alone."""

import logging
import os
import uuid

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub is imported: tests never reach for the network

from jaxtyping import install_import_hook

install_import_hook(["openflorence.model", "openflorence.data.mixture", "openflorence.training"], "beartype.beartype")

import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
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


@pytest.fixture(scope="session")
def _object_storage() -> Iterator[str]:
    """An S3 server on this machine; gives its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells every request
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(_object_storage, monkeypatch, tmp_path) -> str:
    """A new bucket of an S3 server on this machine, and all that is asked of who uses it: s3://..."""
    import s3fs

    settings = {"ENDPOINT_URL": _object_storage, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
    for name, value in (settings | {"REGION": "us-east-1", "DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("OPENFLORENCE_CACHE", str(tmp_path / "cache"))
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"
