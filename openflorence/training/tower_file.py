"""The image tower alone as one file: what its own start leaves behind, and any recipe can start from.

The projector goes with it: a start on the labels of cells trains its position tables and its projection together with
the tower, and a tower without them would have to learn again where its cells are. After a start that does not use it,
masked pictures or contrast, it is as it was drawn. The frame table is constant and is not stored.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from openflorence.errors import BadCheckpoint
from openflorence.model.checkpoint import SHOWN, cast_exactly
from openflorence.model.config import VisionConfig
from openflorence.model.files import write_safetensors
from openflorence.model.florence import Network

PARTS = ("tower.", "projector.")  # of a network, by the names of its parameters
_FREE = ("drop_path", "max_frames")  # fields of VisionConfig that change no answer


def save_tower(network: Network, path: str | Path, about: Mapping[str, str]) -> None:
    """Write the tower and the projector of a network into one safetensors file.

    about     where they come from, for whoever finds the file: load_tower gives it back.
    raises    BadCheckpoint naming a weight that is not finite.
    promise   an interrupted save leaves what was there.
    """
    path = Path(path)
    weights = {name: cast_exactly(name, value.detach(), None) for name, value in _parameters(network).items()}
    described = {"vision": json.dumps(_described(network.config.vision)), "about": json.dumps(dict(about))}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    write_safetensors({name: value.contiguous() for name, value in weights.items()}, partial, described)
    partial.replace(path)


def load_tower(network: Network, path: str | Path) -> dict[str, str]:
    """Put the tower and the projector of a file into a network; everything else of it stays.

    network   of the same vision config and text width, in any number type and on any device.
    returns   what the file says about itself.
    raises    BadCheckpoint naming the settings or the keys that do not fit; nothing was changed then.
    """
    path = Path(path)
    vision, about, weights = _read(path)
    _check_vision(vision, _described(network.config.vision), path)
    parameters = _parameters(network)
    problems = [f"missing {name} {tuple(value.shape)}" for name, value in parameters.items() if name not in weights]
    for name, value in weights.items():
        if name not in parameters:
            problems.append(f"extra {name} {tuple(value.shape)}")
        elif value.shape != parameters[name].shape:
            problems.append(f"misshapen {name} {tuple(value.shape)}, expected {tuple(parameters[name].shape)}")
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BadCheckpoint(
            f"{path} does not fit this network: {'; '.join(problems[:SHOWN])}{more}. A tower fits the networks of its "
            "own vision settings and text width"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return about


def _parameters(network: Network) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if name.startswith(PARTS)}


def _described(vision: VisionConfig) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return json.loads(json.dumps(asdict(vision)))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, Tensor]]:
    """Read the settings, what is said about the file, and the weights."""
    if not path.is_file():
        raise BadCheckpoint(f"{path} is not a file: give the file that the tower's start has written")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        vision, about = dict(json.loads(metadata["vision"])), dict(json.loads(metadata["about"]))
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path} is damaged or no safetensors file ({error}): write or fetch it again") from error
    except (KeyError, TypeError, ValueError):
        raise BadCheckpoint(
            f"{path} does not say what tower it holds (its first keys are {', '.join(sorted(weights)[:3]) or 'none'}): "
            "give the file that the tower's start has written; a whole checkpoint is loaded as a checkpoint"
        ) from None
    return vision, about, weights


def _check_vision(stored: dict[str, Any], ours: dict[str, Any], path: Path) -> None:
    """Do nothing for towers that compute alike."""
    differing = [name for name in ours if name not in _FREE and stored.get(name) != ours[name]]
    if differing:
        seen = "; ".join(f"{name} {stored.get(name)} there and {ours[name]} here" for name in differing)
        raise BadCheckpoint(f"{path} holds another tower: {seen}. Start from a tower of the same settings")
