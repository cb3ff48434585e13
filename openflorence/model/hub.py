"""A name to a folder: the embedded checkpoint, a folder of one's own, or a repository of the Hugging Face hub."""

import re
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from openflorence.errors import BadCheckpoint
from openflorence.model.files import INDEX, SINGLE, find_weights

EMBEDDED = "nano"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SAFETENSORS = (SINGLE, INDEX, "model-*-of-*.safetensors")
_ZIP = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")


def resolve(name: str | Path | None = None, revision: str | None = None) -> Path:
    """Give the folder of a checkpoint.

    name      None or "nano" for the embedded one; a folder; or "owner/name" on the hub, which is the only case that
              uses the network. Without network, or with HF_HUB_OFFLINE set, the local cache answers.
    revision  branch, tag or commit on the hub.
    raises    BadCheckpoint saying what was looked for and what to do.
    """
    if name is None or name == EMBEDDED:
        folder = Path(__file__).parent / "weights" / EMBEDDED
        if not folder.is_dir():
            raise BadCheckpoint(f"this copy of openflorence has no embedded checkpoint ({folder}): install it again")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BadCheckpoint(f"{name} is a file: give the folder that holds it, with config.json and tokenizer.json")
    if isinstance(name, str) and _REPOSITORY.fullmatch(name):
        return _from_hub(name, revision)
    raise BadCheckpoint(f"no checkpoint {str(name)!r}: give {EMBEDDED!r}, a folder, or a hub repository 'owner/name'")


def wanted_files(names: list[str]) -> list[str]:
    """Pick what loading needs from the files of a repository: its JSON files and the weights in one format."""
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if any(fnmatch(name, pattern) for pattern in _SAFETENSORS)]
    weights = weights or [name for name in top if any(fnmatch(name, pattern) for pattern in _ZIP)]
    other_index = {INDEX, "pytorch_model.bin.index.json"} - set(weights)
    return sorted({name for name in top if name.endswith(".json") and name not in other_index} | set(weights))


def _from_hub(name: str, revision: str | None) -> Path:
    try:
        names = HfApi().list_repo_files(name, revision=revision)
    except Exception as error:  # no network, offline by wish, no access, no such repository: the cache may have it
        return _from_cache(name, revision, error)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted_files(names)))
    except Exception as error:
        raise BadCheckpoint(f"{name} could not be fetched from the hub: {_first_line(error)}") from error


def _from_cache(name: str, revision: str | None, why: Exception) -> Path:
    """Give the cached folder of a repository; `why` the hub itself could not be asked goes into the error."""
    needed = ["config.json", "tokenizer.json"]
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=needed))
        find_weights(folder)
    except (OSError, BadCheckpoint) as error:
        at = f" at revision {revision}" if revision else ""
        raise BadCheckpoint(
            f"{name}{at} is not in the local cache, and the hub cannot be asked ({_first_line(why)}): check the name, "
            "connect once with HF_HUB_OFFLINE unset, or give a folder"
        ) from error
    return folder


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
