"""The small files beside the weights: config, generation and image preparation, read and written together."""

from pathlib import Path
from typing import Any

from openflorence.contract.published import NOT_GROUNDED
from openflorence.errors import BadCheckpoint
from openflorence.model.config import FlorenceConfig, Layout, read_config, write_config
from openflorence.model.files import read_json, write_json
from openflorence.model.images import MEAN, STD
from openflorence.model.tokenizer import Text


def read_settings(folder: Path) -> tuple[FlorenceConfig, dict[str, Any]]:
    """Read the configuration of a folder and, beside it, config.json as it stands.

    A decoding default that config.json lacks is taken from generation_config.json; where both have it, config.json's
    `text_config` governs, as in the published code.
    """
    published = read_json(folder / "config.json")
    if (folder / "generation_config.json").is_file() and isinstance(published.get("text_config"), dict):
        generation = read_json(folder / "generation_config.json")
        published["text_config"] = generation | published["text_config"]
    return read_config(published, read_side_px(folder)), published


def read_side_px(folder: Path) -> int:
    """Read the input side from preprocessor_config.json, or from processor_config.json as newer files have it.

    returns   768, as published, when a folder has neither.
    raises    BadCheckpoint when the images would be prepared in a way that this project does not offer.
    """
    settings: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").is_file():
        settings = read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        settings = read_json(folder / "processor_config.json").get("image_processor") or {}
    for name, wanted in (("image_mean", MEAN), ("image_std", STD)):
        if tuple(settings.get(name) or wanted) != wanted:
            raise BadCheckpoint(f"{folder}: {name} is {settings[name]}, but images are normalised with {wanted} only")
    size = settings.get("size") or FlorenceConfig.side_px
    sides = {size.get("height"), size.get("width")} if isinstance(size, dict) else {size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise BadCheckpoint(f"{folder}: input size is {size}, expected equal height and width in pixels")
    return side


def write_settings(config: FlorenceConfig, text: Text, folder: Path, layout: Layout, dtype: str) -> None:
    """Write every small file that we, or transformers, need to load the weights beside them."""
    native = layout == "transformers"
    write_json(write_config(config, layout, dtype, text.size), folder / "config.json")
    write_json(_generation(config), folder / "generation_config.json")
    write_json(_preprocessor(config), folder / "preprocessor_config.json")
    tokenizer = text.write(folder, with_image=native)
    tokenizer["model_max_length"] = config.text.positions
    if native:
        tokenizer["processor_class"] = "Florence2Processor"
        write_json(_processor(), folder / "processor_config.json")
    if layout != "openflorence":  # only others read it, and it repeats every added token
        write_json(tokenizer, folder / "tokenizer_config.json")


def _generation(config: FlorenceConfig) -> dict[str, Any]:
    text = config.text
    return {
        "bos_token_id": text.bos,
        "pad_token_id": text.pad,
        "eos_token_id": text.eos,
        "decoder_start_token_id": text.decoder_start,
        "forced_bos_token_id": text.forced_bos,
        "forced_eos_token_id": text.forced_eos,
        "num_beams": text.beams,
        "no_repeat_ngram_size": text.no_repeat_ngram,
        "early_stopping": text.early_stopping,
    }


def _preprocessor(config: FlorenceConfig) -> dict[str, Any]:
    side = {"height": config.side_px, "width": config.side_px}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Florence2Processor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": side,
        "resample": 3,
        "do_center_crop": False,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "image_seq_length": config.image_tokens,
    }


def _processor() -> dict[str, Any]:
    """What Florence2Processor of transformers asks for; its reader needs a key for every answer form."""
    forms = ("pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes")
    rules: dict[str, Any] = {form: {} for form in (*forms, "description_with_bboxes_or_polygons")}
    line = r"(.+?)" + r"<loc_(\d+)>" * 8
    rules["ocr"] = {"pattern": line, "area_threshold": 0.0}
    rules["phrase_grounding"] = {"banned_grounding_tokens": sorted(NOT_GROUNDED)}
    return {
        "processor_class": "Florence2Processor",
        "num_additional_image_tokens": 0,
        "post_processor_config": rules,
    }
