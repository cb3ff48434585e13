"""A checkpoint folder: weights, configuration and tokenizer, in any of three layouts, read exactly or not at all.

    microsoft      the published repositories `microsoft/Florence-2-*`
    transformers   the converted ones, `florence-community/Florence-2-*`
    openflorence   our own names; what this project trains

The layout is told by the keys of the weights, never by a name. A folder without weights is an error, and so is a
missing, extra or misshapen weight.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openflorence.errors import BadCheckpoint
from openflorence.model.config import FlorenceConfig, Layout, read_config
from openflorence.model.files import DTYPES, find_weights, read_json, read_tensors
from openflorence.model.florence import Network, cosine_table
from openflorence.model.layouts import EMBED, FRAMES, LOGITS_BIAS, MARKS, PROJECT, TIED, Key, key_table
from openflorence.model.tokenizer import Text

MEAN = [0.485, 0.456, 0.406]  # the one normalisation images.py offers: ImageNet's
STD = [0.229, 0.224, 0.225]
SHOWN = 10  # keys named in an error before it says how many more


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network ready to answer, with the tokenizer of its vocabulary and where both came from."""

    network: Network
    text: Text
    config: FlorenceConfig
    layout: Layout
    folder: Path
    stored: str  # number type of the weights in the file: "float32", "float16" or "bfloat16"

    @property
    def filler_rows(self) -> int:
        """Embedding rows after the last vocabulary entry: `<image>` and padding of the transformers layout.

        They were never trained, and as published they are not masked: their logits exist and may be banned.
        """
        return self.config.text.vocab - self.text.size


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A folder as it is stored, under our names, before any number is changed."""

    folder: Path
    layout: Layout
    config: FlorenceConfig
    text: Text
    weights: dict[str, Tensor]

    @property
    def dtype(self) -> str:
        """Number type of the embedding, which stands for the file."""
        return str(self.weights[EMBED].dtype).removeprefix("torch.")


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Load a folder into a network in evaluation mode.

    dtype     number type to compute in; float32 unless asked for, also where the file stores less.
    device    where the weights go.
    raises    BadCheckpoint or BadConfig naming the file, key or setting that does not fit.
    promise   nothing is drawn at random, and no code of the folder is run.
    """
    stored = read_folder(Path(folder))
    network = empty_network(stored.config)
    wanted = dtype or torch.float32
    weights = {name: tensor.to(device=device, dtype=wanted) for name, tensor in stored.weights.items()}
    table = cosine_table(stored.config.vision.max_frames, stored.config.vision.widths[-1])
    weights[FRAMES] = table.to(device=device, dtype=wanted)
    network.load_state_dict(weights, assign=True)
    return Checkpoint(
        network=network.eval(),
        text=stored.text,
        config=stored.config,
        layout=stored.layout,
        folder=stored.folder,
        stored=stored.dtype,
    )


def empty_network(config: FlorenceConfig) -> Network:
    """The network with shapes but without numbers (on the meta device)."""
    with torch.device("meta"):
        return Network(config)


def read_folder(folder: Path) -> Stored:
    """Read a folder under our names, in the number types it is stored with; everything is checked, nothing cast.

    raises    BadCheckpoint or BadConfig naming the file, key or setting that does not fit.
    """
    find_weights(folder)
    config, published = read_settings(folder)
    text = Text.read(folder)
    tensors = read_tensors(folder)
    layout = layout_of(tensors)
    if layout == "transformers" and published.get("image_token_id", text.size) != text.size:
        raise BadCheckpoint(
            f"{folder}: config.json says image_token_id {published['image_token_id']}, but the tokenizer has "
            f"{text.size} entries before it: tokenizer and weights are of different checkpoints"
        )
    if config.text.vocab < text.size:
        raise BadCheckpoint(
            f"{folder}: the tokenizer has {text.size} entries, the embedding {config.text.vocab} rows: "
            "tokenizer and weights are of different checkpoints"
        )
    weights = rename_to_ours(tensors, layout, config)
    return Stored(folder=folder, layout=layout, config=config, text=text, weights=weights)


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
        settings = read_json(folder / "processor_config.json").get("image_processor", {})
    for name, wanted in (("image_mean", MEAN), ("image_std", STD)):
        if settings.get(name, wanted) != wanted:
            raise BadCheckpoint(f"{folder}: {name} is {settings[name]}, but images are normalised with {wanted} only")
    size = settings.get("size", FlorenceConfig.side_px)
    sides = {size.get("height"), size.get("width")} if isinstance(size, dict) else {size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise BadCheckpoint(f"{folder}: input size is {size}, expected equal height and width in pixels")
    return side


def layout_of(keys: Iterable[str]) -> Layout:
    """Tell the layout by its keys.

    raises    BadCheckpoint naming some keys when they are of no layout, or of several.
    """
    names = set(keys)
    found = [layout for mark, layout in MARKS.items() if mark in names]
    if len(found) == 1:
        return found[0]
    some = ", ".join(sorted(names)[:3]) or "no key at all"
    raise BadCheckpoint(
        f"weights of {'several layouts' if found else 'no known layout'} (keys such as {some}): "
        f"expected exactly one of the keys {', '.join(MARKS)}"
    )


def rename_to_ours(tensors: Mapping[str, Tensor], layout: Layout, config: FlorenceConfig) -> dict[str, Tensor]:
    """Give every tensor our name and orientation; tied copies, the logits bias and the frame table are checked.

    raises    BadCheckpoint listing missing, extra and misshapen keys, all in one message.
    """
    network = empty_network(config).state_dict()
    table = key_table(config, network)
    rest = dict(tensors)
    embed = take_tied(rest, layout)
    check_logits_bias(rest.pop(LOGITS_BIAS, None) if layout == "microsoft" else None, config)
    ours: dict[str, Tensor] = {}
    problems: list[str] = []
    for key in table:
        name = key.name(layout)
        tensor = embed if key.openflorence == EMBED else rest.pop(name, None)
        if tensor is None:
            if key.openflorence != FRAMES:  # recomputable
                problems.append(f"missing {name}")
            continue
        wanted = tuple(network[key.openflorence].shape)
        transposed = is_transposed(key, layout)
        if tuple(tensor.shape) != (wanted[::-1] if transposed else wanted):
            expected = wanted[::-1] if transposed else wanted
            problems.append(f"misshapen {name}: {tuple(tensor.shape)}, expected {expected}")
            continue
        ours[key.openflorence] = tensor.T if transposed else tensor
    problems += [f"extra {name}" for name in rest]
    if problems:
        shown = "; ".join(problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise BadCheckpoint(f"weights of layout {layout!r} do not fit config.json: {shown}{more}")
    check_frames(ours, config)
    return ours


def is_transposed(key: Key, layout: Layout) -> bool:
    """Whether a layout stores a weight the other way round: the microsoft projection is used as x @ W."""
    return layout == "microsoft" and key.openflorence == PROJECT


def take_tied(tensors: dict[str, Tensor], layout: Layout) -> Tensor | None:
    """Take the embedding out under all its names; None when it has none of them.

    raises    BadCheckpoint when two copies differ: the head of the file was trained or drawn apart from the embedding.
    """
    found = {name: tensors.pop(name) for name in TIED[layout] if name in tensors}
    if not found:
        return None
    first, *others = found
    for name in others:
        if found[name].shape != found[first].shape or not torch.equal(found[name], found[first]):
            raise BadCheckpoint(
                f"{name} differs from {first}: in this network they are one tensor. The file was probably saved by a "
                "library that broke the tying; ask its author which copy was trained and delete the other"
            )
    return found[first]


def check_logits_bias(bias: Tensor | None, config: FlorenceConfig) -> None:
    """Refuse a bias on the logits that is not zero: this network has none."""
    if bias is None:
        return
    if tuple(bias.shape) != (1, config.text.vocab):
        raise BadCheckpoint(f"misshapen {LOGITS_BIAS}: {tuple(bias.shape)}, expected {(1, config.text.vocab)}")
    if bias.count_nonzero():
        raise BadCheckpoint(f"{LOGITS_BIAS} has {int(bias.count_nonzero())} nonzero entries; all published ones are 0")


def check_frames(weights: Mapping[str, Tensor], config: FlorenceConfig) -> None:
    """Refuse a stored frame table that is not the published one: it is recomputed, not read."""
    stored = weights.get(FRAMES)
    if stored is None or stored.is_meta:
        return
    table = cosine_table(config.vision.max_frames, config.vision.widths[-1])
    # bfloat16 keeps 8 bits: values up to 1 are within 2**-9 of the truth, and angles are computed in float32.
    if (stored.float() - table).abs().max() > 4e-3:
        raise BadCheckpoint(f"{FRAMES}: the stored frame table is not the published cosine table: another network")


def dtype_named(name: str) -> torch.dtype:
    """The number type of a name such as "float16"."""
    if name not in DTYPES:
        raise BadCheckpoint(f"number type {name!r}: allowed are {', '.join(DTYPES)}")
    return DTYPES[name]
