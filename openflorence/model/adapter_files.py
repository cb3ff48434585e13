"""Adapter folders as `peft` writes them, read strictly: every setting obeyed or refused, every key placed or named.

Adapters that others trained on the published names of the modules get ours by model/layouts.py, so that they outlive a
change of names. Only safetensors files are read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from openflorence.errors import BadCheckpoint
from openflorence.model.checkpoint import SHOWN
from openflorence.model.davit import DepthwiseConv
from openflorence.model.files import read_file, read_json
from openflorence.model.florence import Network
from openflorence.model.layouts import TIED, key_table

KINDS = ("lora", "dora")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every key in a folder of peft's

# Fields of adapter_config.json that are obeyed, and those that have no say once there are weights; any other
# one that is set would make the adapter compute something else than is computed here.
_OBEYED = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern"}
_OBEYED |= {"base_model_name_or_path", "init_lora_weights", "bias"}
_SILENT = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "task_type"}
_SILENT |= {"inference_mode", "auto_mapping", "peft_version", "revision", "runtime_config", "megatron_core"}
_SILENT |= {"loftq_config", "eva_config", "qalora_group_size"}
# Beginnings that leave the weights of the base alone; all others, as "pissa", move a part of them into the adapter.
_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter folder that was read and fits a network, under our names."""

    folder: Path
    base: str  # the checkpoint that it says it was trained on
    kind: str  # one of KINDS
    ranks: dict[str, int]  # by module
    alphas: dict[str, int | float]  # by module
    square_root: bool  # scaled by alpha / sqrt(rank) instead of alpha / rank ("rank-stabilised")
    dropout: float
    weights: dict[str, Tensor]  # as "<module>.lora_A.weight"


def read_adapter(network: Network, folder: str | Path) -> Adapter:
    """Read an adapter folder, ours or another's, against a network that is not changed and may be without numbers.

    The keys may be of any layout in model/layouts.py, with or without peft's prefix.
    raises    BadCheckpoint naming the file, setting or keys that do not fit, and the base that the folder names.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise BadCheckpoint(f"no adapter {str(folder)!r}: give the folder that holds {CONFIG} and {WEIGHTS}")
    settings = read_json(folder / CONFIG)
    _check_settings(settings, folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise BadCheckpoint(f"{folder} has no {WEIGHTS}; other forms, as adapter_model.bin, are not read: save it anew")
    dora, base = bool(settings.get("use_dora")), str(settings.get("base_model_name_or_path") or "")
    layers, problems = _by_layer(read_file(folder / WEIGHTS), network)
    adapter = Adapter(
        folder=folder,
        base=base,
        kind="dora" if dora else "lora",
        ranks={ours: parts["lora_A"].shape[0] for (ours, _), parts in layers.items() if "lora_A" in parts},
        alphas={ours: _pattern(settings, "alpha_pattern", theirs, "lora_alpha") for ours, theirs in layers},
        square_root=bool(settings.get("use_rslora")),
        dropout=float(settings.get("lora_dropout", 0.0)),
        weights={_key(ours, part): value for (ours, _), parts in layers.items() for part, value in parts.items()},
    )
    for (ours, theirs), parts in layers.items():
        rank = _pattern(settings, "rank_pattern", theirs, "r")
        problems += _misfits(network.get_submodule(ours), theirs, parts, int(rank), dora)
    if problems or not layers:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "; ".join(problems[:SHOWN]) or f"{WEIGHTS} is empty"
        raise BadCheckpoint(
            f"adapter {folder} does not fit this network: {shown}{more}. It says that its base is {base or 'unknown'}"
        )
    return adapter


def explain_adapter(network: Network, folder: str | Path) -> list[str]:
    """Say what an adapter folder is, for whoever wants to know what is loaded.

    raises    BadCheckpoint as read_adapter.
    """
    adapter = read_adapter(network, folder)
    ranks = ", ".join(str(rank) for rank in sorted(set(adapter.ranks.values())))
    numbers = sum(value.numel() for value in adapter.weights.values())
    return [
        f"adapter: {adapter.kind} in {adapter.folder}, trained on {adapter.base or 'a base that it does not name'}",
        f"adapter: rank {ranks} on {len(adapter.ranks)} layers, {numbers:,} numbers; every key and shape fits",
    ]


def _check_settings(settings: dict[str, Any], path: Path) -> None:
    """Do nothing for settings that are obeyed, or have no say.

    raises    BadCheckpoint naming the setting otherwise.
    """
    if settings.get("peft_type") != "LORA":
        raise BadCheckpoint(f"{path}: peft_type is {settings.get('peft_type')!r}; only LORA (with DoRA) is read")
    numbers = [settings.get("r"), settings.get("lora_alpha"), settings.get("lora_dropout", 0.0)]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise BadCheckpoint(f"{path}: r, lora_alpha and lora_dropout are {numbers}; give three numbers")
    if settings.get("init_lora_weights", True) not in _BEGINNINGS:
        raise BadCheckpoint(
            f"{path}: init_lora_weights is {settings['init_lora_weights']!r}, which changes the base as well: let peft "
            "save it as a plain LoRA (path_initial_model_for_weight_conversion)"
        )
    if settings.get("bias", "none") != "none":
        raise BadCheckpoint(f"{path}: bias is {settings['bias']!r}; only 'none' is read")
    unknown = {name: value for name, value in settings.items() if value and name not in _OBEYED | _SILENT}
    if unknown:
        shown = ", ".join(f"{name}={value!r}" for name, value in unknown.items())
        raise BadCheckpoint(f"{path}: {shown} would change what is computed and cannot be obeyed here")


def _by_layer(
    tensors: dict[str, Tensor], network: Network
) -> tuple[dict[tuple[str, str], dict[str, Tensor]], list[str]]:
    """Sort the tensors of a file by module, under (our name, the file's); also says what belongs to no module."""
    names = _module_names(network)
    layers: dict[tuple[str, str], dict[str, Tensor]] = {}
    problems = []
    for key, value in tensors.items():
        match = re.fullmatch(
            r"(.+)\.(?:(lora_[AB])\.weight|(lora_magnitude_vector)(?:\.weight)?)", key.removeprefix(PREFIX)
        )
        if match and match[1] in names:
            layers.setdefault((names[match[1]], match[1]), {})[match[2] or match[3]] = value
        else:
            problems.append(_unknown(key))
    return layers, problems


def _unknown(key: str) -> str:
    """Say of a key that it has no place, and why if that is known."""
    tied = {name.removesuffix(".weight") for names in TIED.values() for name in names}
    module = re.split(r"\.(?:lora_|modules_to_save|base_layer|weight$)", key.removeprefix(PREFIX))[0]
    if module in tied:
        return f"{key} changes the output head or the embedding alone, and in this network they are one tensor"
    return f"unknown key {key}"


def _module_names(network: Network) -> dict[str, str]:
    """The modules that an adapter can stand beside, by their names in every layout -> our name."""
    ours = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, DepthwiseConv)
    ]
    names: dict[str, str] = {}
    for key in key_table(network.config, [f"{name}.weight" for name in ours]):
        names |= {name.removesuffix(".weight"): key.openflorence.removesuffix(".weight") for name in key}
    return names


def _pattern(settings: dict[str, Any], field: str, module: str, usual: str) -> int | float:
    """A setting that may differ from module to module; peft's rule: the first pattern that the name ends with."""
    patterns = settings.get(field) or {}
    value: int | float = next(
        (patterns[pattern] for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), settings[usual]
    )
    return value


def _misfits(module: Any, name: str, parts: dict[str, Tensor], rank: int, dora: bool) -> Iterable[str]:
    """Say what is missing, extra, misshapen or not finite in the adapter of one module."""
    out, *rest = module.weight.shape
    wanted: dict[str, tuple[int, ...]] = {"lora_A": (rank, *rest), "lora_B": (out, rank, *(1 for _ in rest[1:]))}
    if dora:
        wanted["lora_magnitude_vector"] = (1, out, 1, 1) if rest[1:] else (out,)
    for part in dict.fromkeys([*wanted, *parts]):
        value = parts.get(part)
        if value is None:
            yield f"missing {name}.{part}"
        elif part not in wanted:
            yield f"extra {name}.{part}, without use_dora"
        elif tuple(value.shape) != wanted[part]:
            yield f"misshapen {name}.{part} {tuple(value.shape)}, expected {wanted[part]}"
        elif not value.isfinite().all():
            yield f"{name}.{part} is not finite"


def _key(module: str, part: str) -> str:
    return f"{module}.{part}" if part == "lora_magnitude_vector" else f"{module}.{part}.weight"
