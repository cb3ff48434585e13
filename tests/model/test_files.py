"""Weight files: preferred, mapped, sharded; and the ones that are refused."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from openflorence.errors import BadCheckpoint
from openflorence.model.files import find_weights, read_json, read_tensors, replace_files, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.zeros(3, 3)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Mischief:
    """Pickles as a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_unrun(zipped, tmp_path):
    trace = tmp_path / "trace"
    torch.save({"a": Mischief(trace)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadCheckpoint, match="asks for more than tensors"):
        read_tensors(tmp_path)
    assert not trace.exists()


def test_a_bare_pickle_is_refused_unrun(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Mischief(tmp_path / "trace"), protocol=2))
    with pytest.raises(BadCheckpoint):
        read_tensors(tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("wrapped", [[1, 2], {"state_dict": TENSORS}, {"epoch": 3}], ids=["list", "nested", "number"])
def test_a_pickle_that_is_no_table_of_tensors_is_refused(wrapped, tmp_path):
    torch.save(wrapped, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match="save the model's state dict alone"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x00" * 64], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadCheckpoint, match=name):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_cut_off_file_is_named(name, tmp_path):
    if name.endswith("bin"):
        torch.save(TENSORS, tmp_path / name)
    else:
        save_file(TENSORS, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-40])
    with pytest.raises(BadCheckpoint, match=name):
        read_tensors(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadCheckpoint, match="git lfs pull"):
        read_tensors(tmp_path)


def test_safetensors_are_preferred_to_pickles(tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read_tensors(tmp_path), TENSORS)


@pytest.mark.parametrize("limit_bytes", [1, 30, 40, 10**6])
def test_shards_hold_every_tensor_once(limit_bytes, tmp_path):
    write_tensors(TENSORS, tmp_path, limit_bytes)
    assert same(read_tensors(tmp_path), TENSORS)
    files = [item for item in tmp_path.iterdir() if item.suffix == ".safetensors"]
    assert len(files) == {1: 3, 30: 3, 40: 2, 10**6: 1}[limit_bytes]  # 24, 8 and 36 bytes, in this order


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_may_be_read_by_whoever_may_read_a_new_file(umask, mode, tmp_path):
    # By hand: a new file is 666 less the umask. The safetensors library alone writes 600, a server then cannot read.
    (tmp_path / "model.safetensors").touch(0o600)  # of an earlier save
    before = os.umask(umask)
    try:
        write_tensors(TENSORS, tmp_path)
        write_tensors(TENSORS, tmp_path, 1)
        replace_files(tmp_path / "checkpoint", lambda fresh: write_tensors(TENSORS, fresh))
    finally:
        os.umask(before)
    files = [item for item in tmp_path.rglob("*") if item.is_file()]
    assert len(files) == 1 + 3 + 1 + 1  # whole, three shards, their index, and in a folder
    assert {item.name: item.stat().st_mode & 0o777 for item in files} == {item.name: mode for item in files}
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o777 & ~umask


def test_shards_of_a_bin_are_read(tmp_path):
    places = {}
    for name, tensor in TENSORS.items():
        places[name] = f"pytorch_model-{name}.bin"
        torch.save({name: tensor}, tmp_path / places[name])
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(read_tensors(tmp_path), TENSORS)


def test_a_missing_shard_and_a_missing_key_are_named(tmp_path):
    write_tensors(TENSORS, tmp_path, 1)
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": places | {"ghost": places["a"]}}))
    with pytest.raises(BadCheckpoint, match="ghost"):
        read_tensors(tmp_path)
    (tmp_path / places["b"]).unlink()
    with pytest.raises(BadCheckpoint, match=r"model-00002-of-00003.*fetch all shards"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/outside.safetensors", "sub/x.safetensors", ""])
def test_an_index_cannot_point_outside_its_folder(shard, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(TENSORS, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(BadCheckpoint, match="names the shard"):
        read_tensors(folder)


@pytest.mark.parametrize("content", ["[]", "{", '"text"', '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_index_of_another_form_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadCheckpoint, match="index"):
        read_tensors(tmp_path)


def test_a_folder_without_weights_says_what_it_has(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(BadCheckpoint, match=r"it has readme\.txt.*expected one of model\.safetensors"):
        find_weights(tmp_path)


def test_json_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCheckpoint, match="not readable JSON"):
        read_json(tmp_path / "config.json")


def test_a_failed_write_leaves_no_trace(tmp_path):
    def write(fresh: Path) -> None:
        (fresh / "model.safetensors").write_text("half")
        raise RuntimeError("power cut")

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").write_text("old")
    with pytest.raises(RuntimeError):
        replace_files(tmp_path / "kept", write)
    assert (tmp_path / "kept" / "model.safetensors").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["kept"]
