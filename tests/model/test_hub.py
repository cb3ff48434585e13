"""Names to folders, with the network off; the hub is a folder made by hand in its cache form."""

import huggingface_hub
import pytest

from openflorence.errors import BadCheckpoint
from openflorence.model import hub
from openflorence.model.hub import resolve, wanted_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache with one repository, as a finished download leaves it."""
    repository = tmp_path / "hub" / "models--someone--small"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_folder_is_itself(tmp_path):
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path


def test_a_cached_repository_answers_without_network(cache):
    assert resolve("someone/small") == cache
    assert resolve("someone/small", revision=COMMIT) == cache


def test_what_is_not_cached_says_what_to_do(cache):
    with pytest.raises(BadCheckpoint, match=r"someone/large is not in the local cache.*HF_HUB_OFFLINE"):
        resolve("someone/large")
    with pytest.raises(BadCheckpoint, match="at revision v2 is not in the local cache"):
        resolve("someone/small", revision="v2")


def test_a_cache_without_the_weights_is_not_enough(cache):
    (cache / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="not in the local cache"):
        resolve("someone/small")


def test_a_name_that_is_nothing_is_refused_without_asking_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("asked the hub"))
    for name in ("large", "a/b/c", "../up", str(tmp_path / "nowhere"), "https://example.org/x", ""):
        if name:  # "" is the current folder
            with pytest.raises(BadCheckpoint, match="'nano', a folder, or a hub repository"):
                resolve(name)


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_text("")
    with pytest.raises(BadCheckpoint, match="give the folder that holds it"):
        resolve(file)


def test_only_what_loading_needs_is_fetched(cache, monkeypatch):
    asked = {}

    class Api:
        def list_repo_files(self, name, revision):
            return ["config.json", "model.safetensors", "pytorch_model.bin", "README.md", "run/config.json"]

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, files=allow_patterns)
        return str(cache)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert resolve("someone/small", "v1") == cache
    assert asked == {"name": "someone/small", "revision": "v1", "files": ["config.json", "model.safetensors"]}


def test_one_weight_format_is_chosen():
    both = ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors", "pytorch_model.bin"]
    assert wanted_files([*both, "pytorch_model.bin.index.json", "modeling.py"]) == sorted(both[:3])
    assert wanted_files(["config.json", "pytorch_model.bin", "x/model.safetensors", "tf_model.h5"]) == [
        "config.json",
        "pytorch_model.bin",
    ]
