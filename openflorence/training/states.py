"""A run on disk: all that going on from a step needs, in one file that is replaced by renaming.

`state.safetensors` holds weights, averaged weights, Adam's moments and steps by parameter name, and in its metadata the
step (which is the place in the schedule and in the data, and the seed of all chance), the scale of half precision, and
what the arithmetic depends on. Whatever is sharded over processes is put together first, so that a state fits any
number of them. `best.safetensors` holds the averaged weights that scored best.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from openflorence.errors import BadConfig
from openflorence.model.files import write_safetensors

STATE, BEST = "state.safetensors", "best.safetensors"


@dataclass
class Holdings:
    """The tensors of a run, as one process has them: whole, or its shards."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]  # of the parameters that are trained


@dataclass(frozen=True)
class Progress:
    """The rest of a state: numbers and words."""

    step: int = 0  # steps taken
    scaler: Mapping[str, Any] = field(default_factory=dict)  # of torch.amp.GradScaler; empty without one


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, put together where it is sharded: every process must ask, at the same time."""
    tensor = tensor.detach()
    full = getattr(tensor, "full_tensor", None)
    return (tensor if full is None else full()).cpu()


def averaged_weights(holdings: Holdings) -> dict[str, Tensor]:
    """The weights to keep, on the CPU, by parameter name: averaged, or as they are where nothing is trained."""
    return {
        name: whole(holdings.average[name] if name in holdings.average else parameter.detach().clone())
        for name, parameter in holdings.parameters.items()
    }


def save_state(folder: Path, holdings: Holdings, progress: Progress, facts: Mapping[str, Any], write: bool) -> None:
    """Put the state of a run on disk; killed at any moment, a whole one is there.

    facts     what the arithmetic depends on, from `describe`.
    write     whether this process writes; every process must call, since shards are put together.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in _named(holdings):
        gathered = whole(tensor)
        if write:
            tensors[name] = gathered
    if write:
        metadata = {
            "step": str(progress.step),
            "scaler": json.dumps(dict(progress.scaler)),
            "facts": json.dumps(dict(facts)),
        }
        _replace(folder / STATE, tensors, metadata)


def _named(holdings: Holdings) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a state with its name in the file, in the same order on all processes."""
    for name, parameter in holdings.parameters.items():
        yield f"weights/{name}", parameter
        if name in holdings.average:
            yield f"average/{name}", holdings.average[name]
        moments = holdings.optimizer.state.get(parameter, {})
        yield from ((f"{moment}/{name}", moments[moment]) for moment in sorted(moments))


def load_state(folder: Path, holdings: Holdings, facts: Mapping[str, Any]) -> Progress:
    """Take up the state of a folder, in place.

    returns   where it stands; step 0 when there is none.
    raises    BadConfig when the state is of other settings or another network, naming what differs, or is no state.
    """
    path = folder / STATE
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            progress = Progress(int(metadata["step"]), json.loads(metadata["scaler"]))
            saved_facts, names = json.loads(metadata["facts"]), set(file.keys())
            _check_facts(path, saved_facts, facts)
            _check_names(path, names, holdings, file)
            _take(file, names, holdings)
    except (SafetensorError, TypeError, KeyError) as error:
        raise BadConfig(f"{path} is not the state of a run ({error}); remove it or use another run folder") from error
    return progress


def _check_names(path: Path, names: set[str], holdings: Holdings, file: Any) -> None:
    saved = {name.removeprefix("weights/") for name in names if name.startswith("weights/")}
    if extra := sorted(saved - set(holdings.parameters)):
        raise BadConfig(f"{path} is of another network: it has {extra[0]}, this one has not; use another run folder")
    for name, parameter in holdings.parameters.items():
        shape = tuple(file.get_slice(f"weights/{name}").get_shape()) if name in saved else None
        if shape != tuple(parameter.shape):
            raise BadConfig(
                f"{path} is of another network: {name} is {shape} there and {tuple(parameter.shape)} here; use another "
                "run folder"
            )
        if (f"average/{name}" in names) != (name in holdings.average):
            here, there = ("trained", "frozen") if name in holdings.average else ("frozen", "trained")
            raise BadConfig(
                f"{path} is of another run: {name} is {there} there and {here} here; use another run folder"
            )


@torch.no_grad()
def _take(file: Any, names: set[str], holdings: Holdings) -> None:
    steps_on_device = bool(holdings.optimizer.defaults.get("fused"))
    moments = sorted({name.partition("/")[0] for name in names} - {"weights", "average"})
    for name, parameter in holdings.parameters.items():
        parameter.copy_(_shard_as(parameter, file.get_tensor(f"weights/{name}")))
        if name in holdings.average:
            holdings.average[name].copy_(_shard_as(parameter, file.get_tensor(f"average/{name}")))
        state: dict[str, Tensor] = {}
        for moment in moments:
            if f"{moment}/{name}" in names:
                saved = file.get_tensor(f"{moment}/{name}")
                if moment != "step":
                    saved = _shard_as(parameter, saved)
                elif steps_on_device:
                    saved = saved.to(parameter.device)
                state[moment] = saved
        if state:
            holdings.optimizer.state[parameter] = state


def _shard_as(parameter: Any, saved: Tensor) -> Tensor:
    """A saved tensor where and as a parameter is: on its device, this process's shard where it is sharded."""
    saved = saved.to(parameter.device)
    if not hasattr(parameter, "placements"):
        return saved
    from torch.distributed.tensor import distribute_tensor  # asks for a torch that is built for several processes

    return distribute_tensor(saved, parameter.device_mesh, parameter.placements)


def _replace(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    partial = path.with_name(path.name + ".partial")
    write_safetensors({name: value.contiguous() for name, value in tensors.items()}, partial, metadata)
    partial.replace(path)


# ---- what the arithmetic depends on


def describe(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Flatten settings into what JSON can hold: {"train.peak_rate": 0.001, ...}."""
    flat: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                put(f"{name}.{key}", inner)
        else:
            flat[name] = value

    for name, part in parts.items():
        put(name, json.loads(json.dumps(dict(part), default=str)))
    return flat


def _check_facts(path: Path, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Do nothing for runs that compute alike."""
    differing = [
        name for name in {**here, **saved} if saved.get(name) != here.get(name) or (name in saved) != (name in here)
    ]
    if differing:
        seen = "; ".join(f"{name} is {saved.get(name)!r} there and {here.get(name)!r} here" for name in differing[:3])
        raise BadConfig(
            f"{path} is of a run with other settings: {seen}. Go on with the settings it was begun with, or use "
            "another run folder"
        )


# ---- the best


def save_best(folder: Path, weights: Mapping[str, Tensor], step: int, scores: Mapping[str, float]) -> None:
    """Keep the averaged weights that scored best, with their step and scores; best.json says the same to people."""
    metadata = {"step": str(step), "scores": json.dumps(dict(scores))}
    _replace(folder / BEST, weights, metadata)
    _tell_best(folder, step, scores)


def best_scores(folder: Path) -> dict[str, float]:
    """Scores of the best weights of a folder, empty without any.

    raises    BadConfig when the file is not one of ours.
    """
    path = folder / BEST
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            step, scores = int(file.metadata()["step"]), json.loads(file.metadata()["scores"])
    except (SafetensorError, TypeError, KeyError) as error:
        raise BadConfig(f"{path} has no scores ({error}); remove it or use another run folder") from error
    _tell_best(folder, step, scores)  # a kill may have come between the two files
    return scores


def _tell_best(folder: Path, step: int, scores: Mapping[str, float]) -> None:
    partial = folder / "best.json.partial"
    partial.write_text(json.dumps({"step": step, "scores": dict(scores)}) + "\n", encoding="utf-8")
    partial.replace(folder / "best.json")
