"""Weight files: safetensors or PyTorch zip, whole or in shards, read lazily and written by renaming.

Nothing here knows what a weight is for. A pickle that asks for anything but tensors is refused.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openflorence.errors import BadCheckpoint

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WEIGHT_FILES = (SINGLE, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")  # in order of preference


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    raises    BadCheckpoint when the file is missing or is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint(f"{path.parent} has no {path.name}: is it a checkpoint folder?") from None
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def find_weights(folder: Path) -> Path:
    """Name the weight file, or the index of its shards, that a folder is read from.

    raises    BadCheckpoint saying what the folder has instead.
    """
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder: give the folder that holds config.json and the weights")
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    seen = ", ".join(sorted(item.name for item in folder.iterdir())[:12]) or "nothing"
    raise BadCheckpoint(f"{folder} has no weights (it has {seen}): expected one of {', '.join(WEIGHT_FILES)}")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder under the names and in the number types they are stored with.

    returns   tensors mapped from the file where its format allows: nothing is copied before it is used.
    raises    BadCheckpoint when a file is missing, damaged, or a pickle of anything but tensors.
    """
    path = find_weights(folder)
    if path.suffix != ".json":
        return read_file(path)
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise BadCheckpoint(f"{path} has no 'weight_map' from keys to file names")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise BadCheckpoint(f"{path.name} names the shard {shard!r}, which is not in {folder}: fetch all shards")
        tensors |= read_file(folder / shard)
    if lost := sorted(set(shards) - set(tensors)):
        raise BadCheckpoint(f"{path.name} promises {len(lost)} keys that no shard has: {', '.join(lost[:10])}")
    return tensors


def read_file(path: Path) -> dict[str, Tensor]:
    """Read all tensors of one weight file; as read_tensors."""
    with path.open("rb") as file:
        if file.read(20).startswith(b"version https://git-"):
            raise BadCheckpoint(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its repository")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError) as error:
            raise BadCheckpoint(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error
    return _read_zip(path)


def _read_zip(path: Path) -> dict[str, Tensor]:
    try:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of the time before PyTorch's zip form cannot be mapped
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may provoke anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadCheckpoint(
            f"{path} is damaged, or a pickle that asks for more than tensors, which is never run: fetch it again, or "
            f"use a safetensors file of the same weights ({why})"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadCheckpoint(f"{path} is not a plain table of tensors: save the model's state dict alone")
    return tensors


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, max_shard_bytes: int | None = None) -> None:
    """Write tensors as safetensors; more than `max_shard_bytes` become numbered shards and an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        size_bytes = tensor.numel() * tensor.element_size()
        if room is not None and max_shard_bytes is not None:
            if size_bytes > room and shards[-1]:
                shards.append({})
                room = max_shard_bytes
            room -= size_bytes
        shards[-1][name] = tensor.contiguous()
    if len(shards) == 1:
        write_safetensors(shards[0], folder / SINGLE, {"format": "pt"})
        return
    places: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05}-of-{len(shards):05}.safetensors"
        write_safetensors(shard, folder / file, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json({"metadata": {"total_size": total}, "weight_map": places}, folder / INDEX)


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write one safetensors file anew, with the permissions that any new file gets here.

    The library writes beside the path and renames, by a temporary file that only its owner may read.
    """
    path.unlink(missing_ok=True)
    path.touch()  # the umask cannot be asked without changing it for every thread; a new file tells it
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write a JSON object, two spaces deep."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace_files(folder: Path, write: Callable[[Path], None], outdated: Collection[str] = ()) -> None:
    """Let `write` fill an empty folder beside `folder`, then move its files in by renaming.

    An interrupted write leaves what was there. Safetensors files of an earlier save that the new one does not have
    are removed, since a loader would prefer them; every other file of the folder stays.

    outdated  names of files that say something about the weights that were there: they go before any file moves in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        write(fresh)
        names = {item.name for item in fresh.iterdir()}
        stale = {item.name for item in folder.glob("model*.safetensors")} | {INDEX}
        for name in outdated:
            (folder / name).unlink(missing_ok=True)
        for name in sorted(names):
            os.replace(fresh / name, folder / name)
        for name in stale - names:
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
