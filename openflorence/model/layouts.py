"""Every weight under its three names: ours, the microsoft files', the transformers files'. Names only; files are in
checkpoint.py.

The tables hold module names; `.weight` and `.bias` follow from the network. Source: spec of the published files, read
from both modeling files and from a dump of all 921 tensors of large-ft.
"""

from collections.abc import Iterable
from typing import NamedTuple

from openflorence.model.config import FlorenceConfig, Layout

FRAMES = "projector.frames"  # our name of the one buffer; recomputable, so a file may leave it out
EMBED = "seq2seq.embed.weight"  # our name of the embedding, which is also the output head
PROJECT = "projector.project.weight"  # stored transposed, without `.weight`, by the microsoft layout
LOGITS_BIAS = "language_model.final_logits_bias"  # microsoft only; zeros, or it is another network

# The embedding's four names, the preferred one first. A file holds any non-empty subset of them.
TIED: dict[str, tuple[str, ...]] = {
    "microsoft": (
        "language_model.model.shared.weight",
        "language_model.model.encoder.embed_tokens.weight",
        "language_model.model.decoder.embed_tokens.weight",
        "language_model.lm_head.weight",
    ),
    "transformers": (
        "model.language_model.shared.weight",
        "model.language_model.encoder.embed_tokens.weight",
        "model.language_model.decoder.embed_tokens.weight",
        "lm_head.weight",
    ),
    "openflorence": (EMBED,),
}

# A key that only one layout has.
MARKS: dict[str, Layout] = {
    "image_projection": "microsoft",
    "model.multi_modal_projector.image_projection.weight": "transformers",
    PROJECT: "openflorence",
}

_KINDS = {"spatial": "window", "channel": "channel"}  # block -> the name of its attention

# ours: (microsoft, transformers)
_EMBED = {"conv": ("proj", "conv"), "norm": ("norm", "norm")}
_BLOCK = {
    "conv1": ("conv1.fn.dw", "conv1"),
    "norm1": ("{kind}_attn.norm", "norm1"),
    "attn.qkv": ("{kind}_attn.fn.qkv", "{kind}_attn.qkv"),
    "attn.proj": ("{kind}_attn.fn.proj", "{kind}_attn.proj"),
    "conv2": ("conv2.fn.dw", "conv2"),
    "norm2": ("ffn.norm", "norm2"),
    "fc1": ("ffn.fn.net.fc1", "ffn.fc1"),
    "fc2": ("ffn.fn.net.fc2", "ffn.fc2"),
}
_PROJECTOR = {
    "rows": ("image_pos_embed.row_embeddings", "image_position_embed.row_embeddings"),
    "columns": ("image_pos_embed.column_embeddings", "image_position_embed.column_embeddings"),
    "norm": ("image_proj_norm", "image_proj_norm"),
}
# From here on both published layouts agree, so one name is enough.
_STACK = {"positions": "embed_positions", "norm": "layernorm_embedding"}
_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")
_ENCODER_LAYER = {
    **{f"self_attn.{name}": f"self_attn.{name}" for name in _ATTENTION},
    "self_norm": "self_attn_layer_norm",
    "ffn.fc1": "fc1",
    "ffn.fc2": "fc2",
    "ffn_norm": "final_layer_norm",
}
_DECODER_LAYER = {
    **_ENCODER_LAYER,
    **{f"cross_attn.{name}": f"encoder_attn.{name}" for name in _ATTENTION},
    "cross_norm": "encoder_attn_layer_norm",
}


class Key(NamedTuple):
    """One weight under its three names; the embedding's further names are in TIED."""

    openflorence: str
    microsoft: str
    transformers: str

    def name(self, layout: Layout) -> str:
        """Its name in one layout."""
        return str(getattr(self, layout))


def key_table(config: FlorenceConfig, ours: Iterable[str]) -> list[Key]:
    """Name every weight of a network in all layouts.

    ours      the names in the network's own state dict, which also say what has a bias.
    promise   one Key per name, in the same order.
    """
    modules = _modules(config)
    table = []
    for name in ours:
        if name == EMBED:
            table.append(Key(EMBED, TIED["microsoft"][0], TIED["transformers"][0]))
        elif name == PROJECT:
            table.append(Key(PROJECT, "image_projection", "model.multi_modal_projector.image_projection.weight"))
        elif name == FRAMES:
            buffer = "visual_temporal_embed.pos_idx_to_embed"
            table.append(Key(FRAMES, buffer, f"model.multi_modal_projector.{buffer}"))
        else:
            module, _, kind = name.rpartition(".")
            microsoft, transformers = modules[module]
            table.append(Key(name, f"{microsoft}.{kind}", f"{transformers}.{kind}"))
    return table


def _modules(config: FlorenceConfig) -> dict[str, tuple[str, str]]:
    """Every module that owns weights: our name to its (microsoft, transformers) names."""
    names: dict[str, tuple[str, str]] = {}
    for stage, depth in enumerate(config.vision.depths):
        for ours, (one, other) in _EMBED.items():
            base = f"vision_tower.convs.{stage}"
            names[f"tower.stages.{stage}.embed.{ours}"] = f"{base}.{one}", f"model.{base}.{other}"
        for block in range(depth):
            for half, kind in _KINDS.items():
                base = f"vision_tower.blocks.{stage}.{block}.{half}_block"
                for ours, (one, other) in _BLOCK.items():
                    pair = f"{base}.{one.format(kind=kind)}", f"model.{base}.{other.format(kind=kind)}"
                    names[f"tower.stages.{stage}.blocks.{block}.{half}.{ours}"] = pair
    for ours, (one, other) in _PROJECTOR.items():
        names[f"projector.{ours}"] = one, f"model.multi_modal_projector.{other}"
    layers = {
        "encoder": (config.text.encoder_layers, _ENCODER_LAYER),
        "decoder": (config.text.decoder_layers, _DECODER_LAYER),
    }
    for stack, (count, layer) in layers.items():
        parts = dict(_STACK)
        for index in range(count):
            parts |= {f"layers.{index}.{ours}": f"layers.{index}.{theirs}" for ours, theirs in layer.items()}
        for ours, theirs in parts.items():
            pair = f"language_model.model.{stack}.{theirs}", f"model.language_model.{stack}.{theirs}"
            names[f"seq2seq.{stack}.{ours}"] = pair
    return names
