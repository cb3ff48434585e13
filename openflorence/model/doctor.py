"""Say what a checkpoint folder is, line by line, also when it cannot be loaded."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from openflorence.errors import OpenFlorenceError
from openflorence.model.checkpoint import dtype_name, layout_of, read_folder
from openflorence.model.files import find_weights, read_tensors
from openflorence.model.layouts import TIED
from openflorence.model.settings import read_settings
from openflorence.model.tokenizer import Text


def explain_folder(folder: str | Path) -> list[str]:
    """Describe weights, sizes and vocabulary; what is wrong becomes a line that starts with "problem:"."""
    lines = [f"folder: {folder}"]
    steps: tuple[Callable[[Path], list[str]], ...] = (_weights, _sizes, _vocabulary, _verdict)
    for step in steps:
        try:
            lines += step(Path(folder))
        except OpenFlorenceError as error:
            lines.append(f"problem: {error}")
    return list(dict.fromkeys(lines))  # a problem that several steps meet is told once


def _weights(folder: Path) -> list[str]:
    tensors = read_tensors(folder)
    layout = layout_of(tensors)
    dtypes = Counter(dtype_name(tensor) for tensor in tensors.values())
    size_mib = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 2**20
    numbers = ", ".join(f"{count} {name}" for name, count in dtypes.most_common())
    tied = [name for name in TIED[layout] if name in tensors]
    return [
        f"weights: {find_weights(folder).name}, {len(tensors)} tensors ({numbers}), {size_mib:.1f} MiB",
        f"layout: {layout}",
        f"embedding: stored under {len(tied)} of {len(TIED[layout])} names: {', '.join(tied) or 'none'}",
    ]


def _sizes(folder: Path) -> list[str]:
    config, _ = read_settings(folder)
    vision, text = config.vision, config.text
    return [
        f"tower: widths {vision.widths}, depths {vision.depths}, window {vision.window}",
        f"language: width {text.width}, layers {text.encoder_layers}+{text.decoder_layers}, "
        f"{text.positions} positions, {text.vocab} embedding rows",
        f"input: {config.side_px} px, {config.image_tokens} image tokens, {config.max_prompt_tokens} left for a prompt",
    ]


def _vocabulary(folder: Path) -> list[str]:
    text, (config, _) = Text.read(folder), read_settings(folder)
    return [
        f"vocabulary: {text.size} entries, first location {text.first_location}, "
        f"{config.text.vocab - text.size} filler rows"
    ]


def _verdict(folder: Path) -> list[str]:
    calibration = read_folder(folder).calibration
    lines = ["loads: yes, every key and shape fits"]
    if calibration is not None:
        about = ", ".join(filter(None, (calibration.data, calibration.date)))
        lines.append(f"scores: calibrated on {about}, for {', '.join(calibration.fits) or 'no task'}")
    return lines
