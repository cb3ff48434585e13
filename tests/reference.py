"""The transformers implementation at sizes a test can afford: the oracle that the network is compared with.

tiny_reference(seed) builds a random transformers model; ours_from(reference, folder) is the same model, loaded by us.
Every weight is drawn, norms, biases and positions too, so that one that is left out or swapped shows in the logits.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration

from openflorence.model.checkpoint import Checkpoint, load_checkpoint
from openflorence.model.tokenizer import Text, train_text

# What differs from TINY_VISION and TINY_TEXT; each variant is there for one thing that can go wrong.
VARIANTS: dict[str, dict[str, dict]] = {
    "plain": {},
    "window_padding": {"vision": {"window_size": 3}},
    "deeper": {"vision": {"depths": [2, 1, 3, 1]}, "text": {"encoder_layers": 3, "decoder_layers": 1}},
    "uneven_widths": {
        "vision": {"embed_dim": [6, 20, 36, 50], "num_heads": [3, 5, 4, 2], "num_groups": [2, 4, 6, 10]},
        "text": {"encoder_attention_heads": 4, "decoder_attention_heads": 8, "encoder_ffn_dim": 40},
    },
    "nano_strides": {"vision": {"patch_stride": [4, 2, 2, 1], "window_size": 4}},
    "three_stages": {
        "vision": {
            "embed_dim": [8, 16, 24], "depths": [1, 1, 1], "num_heads": [2, 4, 3], "num_groups": [4, 2, 6],
            "patch_size": [7, 3, 3], "patch_stride": [4, 2, 2], "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
        }
    },
}  # fmt: skip

TINY_SIDE_PX = 64
TINY_VISION = {
    "embed_dim": [8, 16, 24, 32],
    "depths": [1, 1, 2, 1],
    "num_heads": [2, 4, 3, 4],
    "num_groups": [2, 2, 6, 8],
    "patch_size": [7, 3, 3, 3],
    "patch_stride": [4, 2, 2, 2],
    "patch_padding": [3, 1, 1, 1],
    "patch_prenorm": [False, True, True, True],
    "window_size": 2,
    "projection_dim": 32,
    "max_temporal_embeddings": 5,
    "max_position_embeddings": 12,
}
TINY_TEXT = {
    "model_type": "bart",
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 96,
    "forced_bos_token_id": 0,
}


@cache
def tiny_text() -> Text:
    """A small tokenizer in the published arrangement, with real merges."""
    words = "a red car stands beside the blue bus; what is in the image? locate the objects " * 3
    return train_text([words], 4 + 256 + 24 + 1 + 1024)


def native_rows(entries: int) -> int:
    """Embedding rows of the transformers layout: one more entry for `<image>`, then up to a multiple of 64."""
    return -(-(entries + 1) // 64) * 64


@torch.no_grad()
def draw_weights(model: torch.nn.Module, seed: int, std: float = 0.1, embed_std: float = 0.3) -> None:
    """Fill every parameter with normal numbers; norm weights lie around 1, the embedding is wide enough to see."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = embed_std if "shared" in name or "seq2seq.embed" in name else std
        noise = torch.randn(parameter.shape, generator=generator) * scale
        is_norm = "norm" in name and name.endswith("weight")
        parameter.copy_(noise + 1.0 if is_norm else noise)


def tiny_reference(
    seed: int = 0, variant: str = "plain", attention: str = "eager", **text_fields: object
) -> Florence2ForConditionalGeneration:
    """A small random transformers model in evaluation mode.

    variant      a name in VARIANTS.
    attention    "eager" or "sdpa".
    text_fields  of BartConfig, over the variant's.
    """
    entries = tiny_text().size
    changes = VARIANTS[variant]
    text = TINY_TEXT | {"vocab_size": native_rows(entries)} | changes.get("text", {}) | text_fields
    config = Florence2Config(
        vision_config=TINY_VISION | changes.get("vision", {}),
        text_config=text,
        image_token_id=entries,
        attn_implementation=attention,
    )
    model = Florence2ForConditionalGeneration(config)
    draw_weights(model, seed)
    return model.eval()


def ours_from(reference: Florence2ForConditionalGeneration, folder: Path) -> Checkpoint:
    """Save a tiny reference with transformers and load it with our loader."""
    reference.save_pretrained(folder)
    tiny_text().tokenizer.save(str(folder / "tokenizer.json"))
    size = {"height": TINY_SIDE_PX, "width": TINY_SIDE_PX}
    (folder / "preprocessor_config.json").write_text(f'{{"size": {size}}}'.replace("'", '"'))
    return load_checkpoint(folder)


@torch.no_grad()
def reference_logits(
    reference: Florence2ForConditionalGeneration,
    pixels: Tensor,
    prompt_ids: Tensor,
    prompt_mask: Tensor | None,
    decoder_ids: Tensor,
) -> Tensor:
    """What transformers gives for the arguments of `Network.forward`: placeholders are put before the prompt."""
    count = reference.model.get_image_features(pixels).pooler_output.shape[1]
    places = prompt_ids.new_full((len(pixels), count), reference.config.image_token_id)
    mask = torch.ones_like(prompt_ids) if prompt_mask is None else prompt_mask
    return reference(
        input_ids=torch.cat([places, prompt_ids], dim=1),
        attention_mask=torch.cat([torch.ones_like(places), mask], dim=1),
        pixel_values=pixels,
        decoder_input_ids=decoder_ids,
        use_cache=False,
    ).logits
