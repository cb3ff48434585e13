"""The published files as the specification lists them, written out apart from the package.

Keys and shapes of both published layouts, the names between them, and config.json of every published checkpoint.
Source: the tables of the specification, read from both modeling files and a dump of all 921 tensors of large-ft.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Size:
    """The numbers in which published checkpoints differ."""

    dims: tuple[int, ...]
    d: int
    f: int
    layers: int
    positions: int
    heads: int
    depths: tuple[int, ...] = (1, 1, 9, 1)


BASE = Size((128, 256, 512, 1024), 768, 3072, 6, 1024, 12)
LARGE = Size((256, 512, 1024, 2048), 1024, 4096, 12, 1024, 16)
LARGE_4K = Size((256, 512, 1024, 2048), 1024, 4096, 12, 4096, 16)

PUBLISHED = {"base": BASE, "base-ft": BASE, "large, first": LARGE, "large, since 2024-12": LARGE_4K, "large-ft": LARGE}


def _both(shapes: Shapes, key: str, weight: tuple[int, ...], bias: int) -> None:
    shapes[f"{key}.weight"], shapes[f"{key}.bias"] = weight, (bias,)


def microsoft_keys(size: Size, vocab: int = 51289) -> Shapes:
    """Every key of the ORIGINAL layout with its shape, all four tied names included."""
    keys: Shapes = {}
    before = 3
    for s, (c, depth) in enumerate(zip(size.dims, size.depths, strict=True)):
        k = 7 if s == 0 else 3
        _both(keys, f"vision_tower.convs.{s}.proj", (c, before, k, k), c)
        norm = c if s == 0 else before
        _both(keys, f"vision_tower.convs.{s}.norm", (norm,), norm)
        for b in range(depth):
            for block, attn in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
                p = f"vision_tower.blocks.{s}.{b}.{block}"
                _both(keys, f"{p}.conv1.fn.dw", (c, 1, 3, 3), c)
                _both(keys, f"{p}.{attn}.norm", (c,), c)
                _both(keys, f"{p}.{attn}.fn.qkv", (3 * c, c), 3 * c)
                _both(keys, f"{p}.{attn}.fn.proj", (c, c), c)
                _both(keys, f"{p}.conv2.fn.dw", (c, 1, 3, 3), c)
                _both(keys, f"{p}.ffn.norm", (c,), c)
                _both(keys, f"{p}.ffn.fn.net.fc1", (4 * c, c), 4 * c)
                _both(keys, f"{p}.ffn.fn.net.fc2", (c, 4 * c), c)
        before = c
    keys["image_projection"] = (before, size.d)
    _both(keys, "image_proj_norm", (size.d,), size.d)
    keys["image_pos_embed.row_embeddings.weight"] = (50, before // 2)
    keys["image_pos_embed.column_embeddings.weight"] = (50, before - before // 2)
    keys["visual_temporal_embed.pos_idx_to_embed"] = (100, before)
    for tied in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        keys[f"language_model.{tied}.weight"] = (vocab, size.d)
    keys["language_model.final_logits_bias"] = (1, vocab)
    for stack in ("encoder", "decoder"):
        keys[f"language_model.model.{stack}.embed_positions.weight"] = (size.positions + 2, size.d)
        _both(keys, f"language_model.model.{stack}.layernorm_embedding", (size.d,), size.d)
        for layer in range(size.layers):
            p = f"language_model.model.{stack}.layers.{layer}"
            attentions = ("self_attn", "encoder_attn") if stack == "decoder" else ("self_attn",)
            for attn in attentions:
                for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                    _both(keys, f"{p}.{attn}.{name}", (size.d, size.d), size.d)
                _both(keys, f"{p}.{attn}_layer_norm", (size.d,), size.d)
            _both(keys, f"{p}.fc1", (size.f, size.d), size.f)
            _both(keys, f"{p}.fc2", (size.d, size.f), size.d)
            _both(keys, f"{p}.final_layer_norm", (size.d,), size.d)
    return keys


# ORIGINAL -> NATIVE, first match wins.
RENAMES = (
    (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
    (r"^(vision_tower\..*)\.(conv[12])\.fn\.dw\.", r"model.\1.\2."),
    (r"^(vision_tower\..*)\.(window|channel)_attn\.norm\.", r"model.\1.norm1."),
    (r"^(vision_tower\..*)\.(window|channel)_attn\.fn\.", r"model.\1.\2_attn."),
    (r"^(vision_tower\..*)\.ffn\.norm\.", r"model.\1.norm2."),
    (r"^(vision_tower\..*)\.ffn\.fn\.net\.", r"model.\1.ffn."),
    (r"^vision_tower\.", r"model.vision_tower."),
    (r"^image_projection$", r"model.multi_modal_projector.image_projection.weight"),
    (r"^image_pos_embed\.", r"model.multi_modal_projector.image_position_embed."),
    (r"^(image_proj_norm|visual_temporal_embed)\.", r"model.multi_modal_projector.\1."),
    (r"^language_model\.model\.", r"model.language_model."),
    (r"^language_model\.lm_head\.", r"lm_head."),
)


def to_transformers_name(key: str) -> str | None:
    """The NATIVE name of an ORIGINAL key; None for the logits bias, which is dropped."""
    for pattern, new in RENAMES:
        if re.match(pattern, key):
            return re.sub(pattern, new, key)
    assert key == "language_model.final_logits_bias", key
    return None


def transformers_keys(size: Size) -> Shapes:
    """Every key of the NATIVE layout with its shape: 51328 rows, the projection transposed."""
    keys = {}
    for key, shape in microsoft_keys(size, vocab=51328).items():
        if name := to_transformers_name(key):
            keys[name] = shape[::-1] if key == "image_projection" else shape
    return keys


def to_microsoft(native: dict[str, Tensor], entries: int) -> dict[str, Tensor]:
    """A NATIVE state dict of any size as an ORIGINAL one, with all four tied names and the logits bias."""
    depths: dict[int, int] = {}
    layers = {"encoder": 0, "decoder": 0}
    for key in native:
        if match := re.match(r"model\.vision_tower\.blocks\.(\d+)\.(\d+)\.", key):
            depths[int(match[1])] = int(match[2]) + 1
        if match := re.match(r"model\.language_model\.(encoder|decoder)\.layers\.(\d+)\.", key):
            layers[match[1]] = int(match[2]) + 1
    shape = Size((4,) * len(depths), 4, 4, max(layers.values()), 4, 1, tuple(depths[s] for s in sorted(depths)))
    tensors = {"language_model.final_logits_bias": torch.zeros(1, entries)}
    for key in microsoft_keys(shape):
        name = to_transformers_name(key)
        if name in native:  # a stack with fewer layers has fewer keys
            tensor = native[name]
            tensors[key] = tensor.T.contiguous() if key == "image_projection" else tensor.clone()
    for key in list(tensors):
        if re.search(r"shared|embed_tokens|lm_head", key):
            tensors[key] = tensors[key][:entries].clone()
    return tensors


def microsoft_config(size: Size) -> dict[str, Any]:
    """config.json as published, ORIGINAL."""
    text = {
        "vocab_size": 51289, "d_model": size.d, "encoder_layers": size.layers, "decoder_layers": size.layers,
        "num_hidden_layers": size.layers, "encoder_attention_heads": size.heads, "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": size.f, "decoder_ffn_dim": size.f, "max_position_embeddings": size.positions,
        "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1,
        "classif_dropout": 0.1, "classifier_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
        "init_std": 0.02, "scale_embedding": False, "normalize_before": False, "add_final_layer_norm": False,
        "add_bias_logits": False, "gradient_checkpointing": False, "bos_token_id": 0, "eos_token_id": 2,
        "pad_token_id": 1, "decoder_start_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2,
        "num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True, "is_encoder_decoder": True,
    }  # fmt: skip
    heads = [c // 32 for c in size.dims]
    vision = {
        "model_type": "davit", "drop_path_rate": 0.1, "patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2],
        "patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "enable_checkpoint": False,
        "dim_embed": list(size.dims), "num_heads": heads, "num_groups": heads, "depths": list(size.depths),
        "window_size": 12, "projection_dim": size.d,
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }  # fmt: skip
    return {
        "architectures": ["Florence2ForConditionalGeneration"], "model_type": "florence2", "bos_token_id": 0,
        "eos_token_id": 2, "pad_token_id": 1, "ignore_index": -100, "projection_dim": size.d, "vocab_size": 51289,
        "torch_dtype": "float16", "is_encoder_decoder": True, "transformers_version": "4.41.0.dev0",
        "text_config": text, "vision_config": vision,
    }  # fmt: skip


def transformers_config(size: Size) -> dict[str, Any]:
    """config.json of the converted checkpoints, NATIVE; the old `dim_embed` stands beside the new name, as seen."""
    original = microsoft_config(size)
    vision = original["vision_config"]
    for key in ("visual_temporal_embedding", "image_pos_embed", "image_feature_source", "enable_checkpoint"):
        del vision[key]
    vision |= {"model_type": "florence_vision", "in_channels": 3, "embed_dim": vision["dim_embed"], "mlp_ratio": 4.0}
    vision |= {"qkv_bias": True, "activation_function": "gelu", "initializer_range": 0.02}
    vision |= {"max_temporal_embeddings": 100, "max_position_embeddings": 50}
    text = original["text_config"] | {"model_type": "bart", "vocab_size": 51328}
    return {
        "model_type": "florence2", "image_token_id": 51289, "is_encoder_decoder": True, "tie_word_embeddings": True,
        "dtype": "float16", "text_config": text, "vision_config": vision,
    }  # fmt: skip


def zeros_of(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that take no memory: one zero, seen many times."""
    zero = torch.zeros((), dtype=torch.float16)
    return {name: zero.expand(shape) for name, shape in shapes.items()}
