"""Adapters: small matrices that learn beside frozen weights (LoRA, DoRA), in the folders that `peft` reads and writes.

add_adapter(network, AdapterConfig(kind="lora", rank=16))  # from here on only the adapter learns
save_adapter(network, "runs/mine/adapter", base="nano")    # adapter_config.json and adapter_model.safetensors
merge_adapter(network)                                     # into the weights: as fast as without, the same answers

The layers are peft's, put into the network itself, which stays a Network. Adapters that others trained on the published
names of the modules are given ours by model/layouts.py. Source: LoRA (Hu et al. 2021), DoRA (Liu et al. 2024).
"""

import copy
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openflorence.errors import BadCheckpoint, BadConfig
from openflorence.model.adapter_files import KINDS, PREFIX, WEIGHTS, Adapter, read_adapter
from openflorence.model.checkpoint import Checkpoint, cast_exactly
from openflorence.model.config import FlorenceConfig
from openflorence.model.files import WEIGHT_FILES, replace_files, write_safetensors
from openflorence.model.florence import Network

_NAME = "default"  # of the one adapter that a network has, as peft calls it

# Which layers an adapter stands beside, matched against the whole name of a module. The recipes that people pass around
# list names of which three match nothing in this network, silently: o_proj is called out_proj here, and "linear" and
# "Conv2d" are classes, not names; their lm_head is the embedding itself. Depthwise convolutions are left out:
# they have nine numbers a channel, and peft cannot merge them.
_LANGUAGE = r"seq2seq\.{stack}\.layers\.\d+\.((self|cross)_attn\.(q|k|v|out)_proj|ffn\.fc[12])"
PRESETS = {
    "decoder": _LANGUAGE.format(stack="decoder"),
    "language": _LANGUAGE.format(stack="(encoder|decoder)"),
    "tower": r"tower\.stages\.\d+\.(embed\.conv|blocks\.\d+\.(spatial|channel)\.(attn\.(qkv|proj)|fc[12]))",
}
PRESETS["all"] = f"{PRESETS['language']}|{PRESETS['tower']}|projector\\.project"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What an adapter is and where it stands."""

    kind: str = "lora"  # one of KINDS; "dora" learns the length of every row of a weight apart from its direction
    rank: int = 16  # inner width of the two matrices
    alpha: int | None = None  # the product of the matrices is added alpha / rank times; None is twice the rank
    dropout: float = 0.05  # of the adapter's input, training only
    preset: str = "all"  # which layers: a name in PRESETS
    seed: int = 0  # of the numbers it starts from; it starts by changing nothing

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadConfig(f"kind is {self.kind!r}; allowed are {' and '.join(map(repr, KINDS))}")
        if self.rank < 1 or self.scale <= 0 or not 0 <= self.dropout < 1:
            raise BadConfig(
                f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}: "
                "allowed are rank >= 1, alpha above 0 and a dropout from 0 to below 1"
            )
        if self.preset not in PRESETS:
            raise BadConfig(f"preset is {self.preset!r}; allowed: {', '.join(PRESETS)}")

    @property
    def scale(self) -> float:
        """How many times the product of the two matrices is added."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class Merged:
    """What merge_adapter took off a network, for unmerge_adapter."""

    settings: dict[str, Any]  # peft's
    layers: dict[str, Any]  # peft's layers, by module
    weights: dict[str, nn.Parameter]  # the base's own, by module


PARTS = ("tower", "projector", "embed", "encoder", "decoder")  # of a network, as freeze and the reports name them


def part_of(parameter: str) -> str:
    """The part of the network that a parameter belongs to, by its name; adapters are parts of their own."""
    part = parameter.removeprefix("network.").removeprefix("seq2seq.").partition(".")[0]
    return f"{part} adapter" if ".lora_" in parameter else part


# ---- put in and taken out


def preset_modules(network: Network, preset: str) -> list[str]:
    """Name the modules that a preset adapts.

    raises    BadConfig when there are not as many as a network of this config has.
    """
    found = [name for name, _ in network.named_modules() if re.fullmatch(PRESETS[preset], name)]
    wanted = preset_size(network.config, preset)
    if len(found) != wanted:
        raise BadConfig(
            f"preset {preset!r} matches {len(found)} modules of this network, expected {wanted} by its config: "
            "its modules were renamed, added or taken away"
        )
    return found


def preset_size(config: FlorenceConfig, preset: str) -> int:
    """How many modules a preset adapts in a network of a config."""
    vision, text = config.vision, config.text
    decoder = 10 * text.decoder_layers  # two attentions of four projections, and two layers of feed-forward
    language = decoder + 6 * text.encoder_layers
    tower = len(vision.depths) + 8 * sum(vision.depths)  # a convolution a stage; two blocks of four layers a depth
    return {"decoder": decoder, "language": language, "tower": tower, "all": language + tower + 1}[preset]


def add_adapter(network: Network, config: AdapterConfig) -> Network:
    """Put a new adapter into a network, in place; from here on only the adapter requires gradients.

    returns   the network, which answers as before until the adapter has learnt something.
    raises    BadConfig when there is an adapter already, or peft is not installed.
    promise   the weights of the network stay as they are, bit for bit, whatever the adapter learns.
    """
    preset_modules(network, config.preset)
    settings = _peft().LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank if config.alpha is None else config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.kind == "dora",
        target_modules=PRESETS[config.preset],
    )
    _inject(network, settings, config.seed)
    return network


def has_adapter(network: Network) -> bool:
    """Whether an adapter stands in the network, not merged."""
    return bool(adapted_layers(network))


def adapted_layers(network: nn.Module) -> dict[str, Any]:
    """Peft's layers by the name of the module that each stands around."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "base_layer")}


def remove_adapter(network: Network) -> None:
    """Take the adapter out. The weights are those from before it, bit for bit, and are still frozen."""
    for name, layer in _layers_of(network).items():
        network.set_submodule(name, layer.base_layer)
    del vars(network)["peft_config"]


@torch.no_grad()
def merge_adapter(network: Network) -> Merged:
    """Add the adapter to the weights and take its layers off: plain layers, the same answers, as fast as without.

    returns   what unmerge_adapter needs to go back; let go of it when there is no way back.
    raises    BadConfig when there is no adapter; BadCheckpoint when a merged weight is not finite, and then nothing
              was changed.
    promise   float32 logits differ by the rounding of another order of sums. Weights that were frozen stay frozen.
    """
    layers = _layers_of(network)
    own = {name: layer.base_layer.weight for name, layer in layers.items()}
    merged = Merged(settings=vars(network)["peft_config"], layers=layers, weights=own)
    try:
        for layer in layers.values():
            weight = layer.base_layer.weight
            # A parameter of its own, of which peft replaces the data: the base's own is never written to.
            layer.base_layer.weight = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
            layer.merge(safe_merge=True)
    except ValueError as error:
        _put_back(merged)
        raise BadCheckpoint(f"the adapter cannot be merged: {error}") from error
    for name, layer in layers.items():
        network.set_submodule(name, layer.base_layer)
    del vars(network)["peft_config"]
    return merged


@torch.no_grad()
def unmerge_adapter(network: Network, merged: Merged) -> None:
    """Put back what merge_adapter took off: adapter and weights as they were before it, bit for bit.

    raises    BadConfig when another adapter stands in the network by now.
    """
    _refuse_second(network)
    _put_back(merged)
    for name, layer in merged.layers.items():
        network.set_submodule(name, layer)
    vars(network)["peft_config"] = merged.settings


def merged_copy(network: Network) -> Network:
    """A copy with plain layers that answers as the network does; the network itself when it has no adapter."""
    if not has_adapter(network):
        return network
    copied = copy.deepcopy(network)
    merge_adapter(copied)
    return copied


def _put_back(merged: Merged) -> None:
    for name, layer in merged.layers.items():
        if layer.merged:
            layer.unmerge()  # clears what peft remembers; the weight that it computes back is rounded, and replaced
        layer.base_layer.weight = merged.weights[name]


def _layers_of(network: Network) -> dict[str, Any]:
    layers = adapted_layers(network)
    if not layers:
        raise BadConfig("this network has no adapter: put one in with add_adapter or load_adapter first")
    return layers


def _refuse_second(network: Network) -> None:
    if has_adapter(network):
        raise BadConfig("this network has an adapter already: merge or remove it first")


def _inject(network: Network, settings: Any, seed: int) -> None:
    _refuse_second(network)
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        _peft().inject_adapter_in_model(settings, network)
    finally:
        torch.set_rng_state(state)
    network.train(network.training)  # peft's layers come in training mode, also into a network that answers


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise BadConfig(
            f"adapters need peft, which is not installed: pip install openflorence[train] ({error})"
        ) from error
    return peft


# ---- folders


def save_adapter(network: Network, folder: str | Path, base: str) -> None:
    """Write the adapter of a network as a folder of peft's: its settings and its weights, nothing of the network.

    base      what it was trained on, as openflorence.load takes it; kept for whoever finds the folder.
    raises    BadConfig when there is no adapter, or the folder holds a checkpoint.
              BadCheckpoint naming a weight that is not finite.
    promise   an interrupted save leaves what was there.
    """
    _layers_of(network)
    folder = Path(folder)
    if held := [name for name in WEIGHT_FILES if (folder / name).exists()]:
        raise BadConfig(f"{folder} holds a checkpoint ({held[0]}): an adapter needs a folder of its own")
    settings = copy.copy(vars(network)["peft_config"][_NAME])
    settings.base_model_name_or_path, settings.inference_mode = base, True
    # Embeddings are never adapted here; asked for "auto", peft would look the base up on the hub.
    found = _peft().get_peft_model_state_dict(network, save_embedding_layers=False)
    weights = {PREFIX + name: cast_exactly(name, value.detach(), None).contiguous() for name, value in found.items()}

    def write(fresh: Path) -> None:
        settings.save_pretrained(str(fresh))
        write_safetensors(weights, fresh / WEIGHTS, {"format": "pt"})

    replace_files(folder, write)


def load_adapter(network: Network, folder: str | Path) -> Adapter:
    """Put the adapter of a folder into a network, in place, ready to answer or to be trained on.

    returns   what was read.
    raises    as read_adapter, and BadConfig when there is an adapter already; the network was not changed then.
    """
    _refuse_second(network)
    adapter = read_adapter(network, folder)
    rank, alpha = (Counter(some.values()).most_common(1)[0][0] for some in (adapter.ranks, adapter.alphas))
    settings = _peft().LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.square_root,
        target_modules=sorted(adapter.ranks),
        rank_pattern={name: own for name, own in adapter.ranks.items() if own != rank},
        alpha_pattern={name: own for name, own in adapter.alphas.items() if own != alpha},
        base_model_name_or_path=adapter.base or None,
    )
    _inject(network, settings, seed=0)
    found = _peft().set_peft_model_state_dict(
        network, {PREFIX + name: value for name, value in adapter.weights.items()}
    )
    assert not found.unexpected_keys, f"peft did not take {found.unexpected_keys}"
    return adapter


def apply_adapter(checkpoint: Checkpoint, folder: str | Path) -> Checkpoint:
    """Load the adapter of a folder into a checkpoint and merge it; the checkpoint then says so.

    returns   without calibration: that of the base is not what scores of other weights are worth.
    raises    as load_adapter and merge_adapter.
    """
    adapter = load_adapter(checkpoint.network, folder)
    merge_adapter(checkpoint.network)
    checkpoint.network.requires_grad_(True)  # as after loading without
    return replace(checkpoint, adapter=adapter.folder, calibration=None)
