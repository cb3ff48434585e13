"""The shape of the network: sizes as literals, read from and written as the published config.json.

Saved beside the weights; change a field that sets a shape and the weights no longer fit.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from openflorence.errors import BadConfig

Layout = Literal["microsoft", "transformers", "openflorence"]

NATIVE_ROWS_MULTIPLE = 64  # the transformers conversion pads the vocabulary to a multiple of this


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Shape of the image tower and of the step from its features to image tokens."""

    widths: tuple[int, ...] = (128, 256, 512, 1024)  # channels, one per stage
    depths: tuple[int, ...] = (1, 1, 9, 1)  # dual blocks (spatial then channel), one per stage
    heads: tuple[int, ...] = (4, 8, 16, 32)  # window-attention heads, one per stage
    groups: tuple[int, ...] = (4, 8, 16, 32)  # channel-attention groups, one per stage
    kernels: tuple[int, ...] = (7, 3, 3, 3)  # convolutional embedding kernel, one per stage
    strides: tuple[int, ...] = (4, 2, 2, 2)  # its stride
    paddings: tuple[int, ...] = (3, 1, 1, 1)  # its zero padding
    prenorms: tuple[bool, ...] = (False, True, True, True)  # LayerNorm before the convolution instead of after
    window: int = 12  # side of an attention window, in cells
    drop_path: float = 0.1  # highest stochastic-depth rate; grows linearly with depth, training only
    max_side: int = 50  # rows of the row and column position tables: the largest grid side, in cells
    max_frames: int = 100  # rows of the cosine temporal table; one image uses row 0

    def __post_init__(self) -> None:
        stages = len(self.widths)
        for name in ("depths", "heads", "groups", "kernels", "strides", "paddings", "prenorms"):
            if len(getattr(self, name)) != stages:
                raise BadConfig(f"{stages} widths but {len(getattr(self, name))} {name}: give one per stage")
        for name in ("widths", "depths", "heads", "groups", "kernels", "strides"):
            if min(getattr(self, name)) < 1:
                raise BadConfig(f"{name} {getattr(self, name)}: every stage needs at least 1")
        for width, heads, groups in zip(self.widths, self.heads, self.groups, strict=True):
            if width % heads or width % groups:
                raise BadConfig(f"width {width} is not divisible by {heads} heads and {groups} groups")

    def grid_hw(self, side_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of cells that an input of (height, width) pixels becomes after the last stage."""
        rows, columns = side_hw
        for kernel, stride, padding in zip(self.kernels, self.strides, self.paddings, strict=True):
            rows = (rows + 2 * padding - kernel) // stride + 1
            columns = (columns + 2 * padding - kernel) // stride + 1
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Shape of the encoder-decoder and the published decoding defaults that are stored with it."""

    vocab: int = 51289  # rows of the embedding; 51289 as published, 51328 after the transformers conversion
    width: int = 768  # D of the encoder, the decoder and the image tokens
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_heads: int = 12
    decoder_heads: int = 12
    encoder_ffn: int = 3072
    decoder_ffn: int = 3072
    positions: int = 1024  # longest encoder sequence (image and prompt) and longest answer, in tokens
    dropout: float = 0.1  # training only, like the two below
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    init_std: float = 0.02
    bos: int = 0
    pad: int = 1
    eos: int = 2
    decoder_start: int = 2  # the decoder reads </s> first
    forced_bos: int | None = 0  # the first produced token is <s>
    forced_eos: int | None = 2  # the last allowed token is </s>
    beams: int = 3  # published decoding
    no_repeat_ngram: int = 3  # published decoding
    early_stopping: bool = True  # published decoding

    def __post_init__(self) -> None:
        for heads in (self.encoder_heads, self.decoder_heads):
            if heads < 1 or self.width % heads:
                raise BadConfig(f"width {self.width} is not divisible by {heads} attention heads")


@dataclass(frozen=True, kw_only=True)
class FlorenceConfig:
    """One whole network."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    side_px: int = 768  # side of the square input image

    @property
    def image_tokens(self) -> int:
        """Image tokens at the usual input side: the mean token and one per cell, 577 at 768 px."""
        rows, columns = self.vision.grid_hw((self.side_px, self.side_px))
        return 1 + rows * columns

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt beside a square image, with both of its special tokens."""
        return self.text.positions - self.image_tokens


NANO = FlorenceConfig(
    vision=VisionConfig(
        widths=(32, 64, 128, 192),
        depths=(1, 1, 2, 1),
        heads=(2, 4, 8, 12),
        groups=(2, 4, 8, 12),
        strides=(4, 2, 2, 1),  # cells of 16 px: small objects keep a cell of their own
        window=8,
        drop_path=0.0,
    ),
    text=TextConfig(
        vocab=2048,
        width=192,
        encoder_layers=1,
        decoder_layers=2,
        encoder_heads=6,
        decoder_heads=6,
        encoder_ffn=768,
        decoder_ffn=768,
        positions=512,
        no_repeat_ngram=0,  # true captions of the drawn world repeat: "a white sign, a yellow sign, ..."
        early_stopping=False,  # with it, three short junk beams end the search before the right one is done
        dropout=0.0,  # the drawn world never repeats a scene: there is nothing to overfit
        attention_dropout=0.0,
        activation_dropout=0.0,
    ),
    side_px=128,
)

BASE = FlorenceConfig()

LARGE = FlorenceConfig(
    vision=VisionConfig(
        widths=(256, 512, 1024, 2048),
        heads=(8, 16, 32, 64),
        groups=(8, 16, 32, 64),
    ),
    text=TextConfig(
        width=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_heads=16,
        decoder_heads=16,
        encoder_ffn=4096,
        decoder_ffn=4096,
    ),
)

SIZES: dict[str, FlorenceConfig] = {"nano": NANO, "base": BASE, "large": LARGE}

# Published names of our fields. `embed_dim` replaced `dim_embed` in the transformers layout; either is read.
_VISION_KEYS = {
    "widths": "dim_embed",
    "depths": "depths",
    "heads": "num_heads",
    "groups": "num_groups",
    "kernels": "patch_size",
    "strides": "patch_stride",
    "paddings": "patch_padding",
    "prenorms": "patch_prenorm",
    "window": "window_size",
    "drop_path": "drop_path_rate",
}
_TEXT_KEYS = {
    "vocab": "vocab_size",
    "width": "d_model",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_heads": "encoder_attention_heads",
    "decoder_heads": "decoder_attention_heads",
    "encoder_ffn": "encoder_ffn_dim",
    "decoder_ffn": "decoder_ffn_dim",
    "positions": "max_position_embeddings",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "init_std": "init_std",
    "bos": "bos_token_id",
    "pad": "pad_token_id",
    "eos": "eos_token_id",
    "decoder_start": "decoder_start_token_id",
    "forced_bos": "forced_bos_token_id",
    "forced_eos": "forced_eos_token_id",
    "beams": "num_beams",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "early_stopping": "early_stopping",
}
# Settings of the published code that this network does not offer; any other value would be another network.
_FIXED: dict[str, dict[str, Any]] = {
    "vision_config": {"mlp_ratio": 4.0, "qkv_bias": True, "in_channels": 3},
    "text_config": {
        "activation_function": "gelu",
        "scale_embedding": False,
        "normalize_before": False,
        "add_final_layer_norm": False,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
    },
}


def _read_part(part: dict[str, Any], keys: dict[str, str], kind: str, defaults: object) -> dict[str, Any]:
    """Pick our fields out of one published section; refuse a setting this network cannot have."""
    for key, wanted in _FIXED[kind].items():
        if part.get(key, wanted) != wanted:
            raise BadConfig(f"config.json {kind}.{key} is {part[key]!r}; this network only has {wanted!r}")
    read = {}
    for ours, theirs in keys.items():
        value = part.get(theirs)
        optional = ours in ("forced_bos", "forced_eos")
        if value is not None:
            read[ours] = _checked(value, getattr(defaults, ours), f"{kind}.{theirs}")
        elif optional and theirs in part:  # null turns the rule off; elsewhere it means the default
            read[ours] = None
    return read


def _checked(value: Any, default: Any, name: str) -> Any:
    """Give the value of a setting, lists as tuples, if it is of the same kind as the default."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or not value:
            raise BadConfig(f"config.json {name} is {value!r}; expected a list with one entry per stage")
        return tuple(_checked(item, default[0], name) for item in value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool) or value < 0:
        raise BadConfig(f"config.json {name} is {value!r}; expected something like {default!r}")
    return value


def read_config(published: dict[str, Any], side_px: int = 768) -> FlorenceConfig:
    """Read a published config.json, of either layout.

    published  the parsed JSON; `vision_config` and `text_config` are needed.
    side_px    input side, which the published files keep in preprocessor_config.json.
    raises     BadConfig naming the section or setting that does not fit.
    """
    for section in ("vision_config", "text_config"):
        if not isinstance(published.get(section), dict):
            seen = ", ".join(sorted(published)) or "nothing"
            raise BadConfig(f"config.json has no {section!r} section (it has {seen}): not a Florence-2 checkpoint")
    vision, text = dict(published["vision_config"]), dict(published["text_config"])
    if "embed_dim" in vision:
        vision["dim_embed"] = vision["embed_dim"]
    position, temporal = vision.get("image_pos_embed"), vision.get("visual_temporal_embedding")
    vision_fields = _read_part(vision, _VISION_KEYS, "vision_config", VisionConfig())
    vision_fields["max_side"] = (position or {}).get(
        "max_pos_embeddings", vision.get("max_position_embeddings", VisionConfig.max_side)
    )
    vision_fields["max_frames"] = (temporal or {}).get(
        "max_temporal_embeddings", vision.get("max_temporal_embeddings", VisionConfig.max_frames)
    )
    text_fields = _read_part(text, _TEXT_KEYS, "text_config", TextConfig())
    width = text_fields.get("width", TextConfig.width)
    if vision.get("projection_dim", width) != width:
        raise BadConfig(f"projection_dim {vision['projection_dim']} differs from d_model {width}: they are one width")
    return FlorenceConfig(vision=VisionConfig(**vision_fields), text=TextConfig(**text_fields), side_px=side_px)


def write_config(config: FlorenceConfig, layout: Layout, dtype: str, entries: int) -> dict[str, Any]:
    """Write the config.json of a layout; read_config gives `config` back.

    layout    "microsoft" and "openflorence" share the original form, "transformers" has its own.
    dtype     name of the stored number type: "float32", "float16" or "bfloat16".
    entries   of the tokenizer. The transformers layout puts its `<image>` placeholder right behind them; embedding
              rows from there on are filler.
    """
    vision = {theirs: _plain(getattr(config.vision, ours)) for ours, theirs in _VISION_KEYS.items()}
    text: dict[str, Any] = {theirs: getattr(config.text, ours) for ours, theirs in _TEXT_KEYS.items()}
    vision["projection_dim"] = config.text.width
    text |= _FIXED["text_config"] | {"is_encoder_decoder": True, "num_hidden_layers": config.text.encoder_layers}
    special = {"bos_token_id": config.text.bos, "eos_token_id": config.text.eos, "pad_token_id": config.text.pad}
    common = {"architectures": ["Florence2ForConditionalGeneration"], "model_type": "florence2"} | special
    if layout == "transformers":
        vision["embed_dim"] = vision.pop("dim_embed")
        vision |= {"model_type": "florence_vision", "initializer_range": 0.02, "activation_function": "gelu"}
        vision |= {"max_position_embeddings": config.vision.max_side, **_FIXED["vision_config"]}
        vision["max_temporal_embeddings"] = config.vision.max_frames
        extra: dict[str, Any] = {"image_token_id": entries, "tie_word_embeddings": True, "dtype": dtype}
        text |= {"model_type": "bart", "tie_word_embeddings": True}
    else:
        vision |= {
            "model_type": "davit",
            "enable_checkpoint": False,
            "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": config.vision.max_frames},
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": config.vision.max_side},
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        }
        text["model_type"] = "florence2_language"
        extra = {"ignore_index": -100, "projection_dim": config.text.width, "vocab_size": config.text.vocab}
        extra |= {"torch_dtype": dtype, "layout": layout}
    return common | extra | {"is_encoder_decoder": True, "vision_config": vision, "text_config": text}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def native_rows(entries: int) -> int:
    """Embedding rows of the transformers layout: one more entry for `<image>`, then up to a multiple of 64."""
    return -(-(entries + 1) // NATIVE_ROWS_MULTIPLE) * NATIVE_ROWS_MULTIPLE


def with_vocab(config: FlorenceConfig, rows: int) -> FlorenceConfig:
    """The same network with another number of embedding rows."""
    return replace(config, text=replace(config.text, vocab=rows))
