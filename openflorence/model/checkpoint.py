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

import torch
from torch import Tensor

from openflorence.errors import BadCheckpoint, BadConfig
from openflorence.model.calibration import FILE as CALIBRATION_FILE
from openflorence.model.calibration import Calibration, read_calibration, write_calibration
from openflorence.model.config import FlorenceConfig, Layout, native_rows, with_vocab
from openflorence.model.files import find_weights, read_tensors, replace_files, write_tensors
from openflorence.model.florence import Network, cosine_table
from openflorence.model.layouts import EMBED, FRAMES, LOGITS_BIAS, MARKS, PROJECT, TIED, Key, key_table
from openflorence.model.settings import read_settings, write_settings
from openflorence.model.tokenizer import Text

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
    adapter: Path | None = None  # folder of the adapter that was merged into the network, if any
    calibration: Calibration | None = None  # what its scores are worth; None: they stay raw

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
    network: Network  # shapes without numbers
    weights: dict[str, Tensor]
    calibration: Calibration | None = None

    @property
    def dtype(self) -> str:
        """Number type of the embedding, which stands for the file."""
        return dtype_name(self.weights[EMBED])


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
    network = stored.network
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
        calibration=stored.calibration,
    )


def save_checkpoint(
    network: Network,
    text: Text,
    folder: str | Path,
    layout: Layout = "openflorence",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write a folder with all that is needed to load it again, here and, in its layout, in transformers.

    dtype            number type to store; the network's own unless given.
    max_shard_bytes  more weights than this are split over numbered files.
    calibration      of these very weights. After training there is none yet, and one that the folder had is removed.
    raises           BadCheckpoint naming a weight that is not finite, or becomes so in `dtype`.
                     BadConfig when an adapter stands in the network, not merged.
    promise          an interrupted save leaves what was there: files are written beside it and renamed.
    """
    if any(hasattr(module, "base_layer") for module in network.modules()):
        raise BadConfig(
            "an adapter stands in this network: save_adapter writes it alone, merge_adapter makes the network whole"
        )
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    write_folder(weights, network.config, text, Path(folder), layout, dtype, max_shard_bytes, calibration)


def convert(
    source: str | Path,
    target: str | Path,
    layout: Layout,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Write the checkpoint of one folder into another folder and layout.

    dtype     number type to store; as in the source unless given.
    raises    BadCheckpoint or BadConfig when the source cannot be read exactly.
    promise   every weight of the network is the same, bit for bit, and stays so on the way back. What is not: rows
              that belong to no vocabulary entry. Leaving the transformers layout drops them, entering it adds them.
              A calibration goes with the weights.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise BadCheckpoint(f"{source} cannot be converted into itself: give another folder")
    stored = read_folder(Path(source))
    weights, config = dict(stored.weights), stored.config
    if stored.layout == "transformers" and layout != "transformers":
        weights[EMBED] = weights[EMBED][: stored.text.size]
        config = with_vocab(config, stored.text.size)
    write_folder(weights, config, stored.text, Path(target), layout, dtype, max_shard_bytes, stored.calibration)


def write_folder(
    weights: Mapping[str, Tensor],
    config: FlorenceConfig,
    text: Text,
    folder: Path,
    layout: Layout,
    dtype: torch.dtype | None,
    max_shard_bytes: int | None,
    calibration: Calibration | None = None,
) -> None:
    """Write weights under our names, and all that goes with them, into a folder of any layout."""
    cast = {name: cast_exactly(name, tensor, dtype) for name, tensor in weights.items()}
    renamed = rename_from_ours(cast, layout, config, text.size)
    config = with_vocab(config, len(renamed[TIED[layout][0]]))

    def write(fresh: Path) -> None:
        write_settings(config, text, fresh, layout, dtype_name(cast[EMBED]))
        write_tensors(renamed, fresh, max_shard_bytes)
        if calibration is not None:
            write_calibration(calibration, fresh)

    replace_files(folder, write, outdated=[CALIBRATION_FILE])


def cast_exactly(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Cast a weight for storage; None keeps its number type.

    raises    BadCheckpoint when numbers are, or would become, infinite or not numbers.
    """
    cast = tensor if dtype is None else tensor.to(dtype)
    if not cast.isfinite().all():
        largest = tensor.abs().max().item()
        raise BadCheckpoint(
            f"{name} is not finite as {dtype_name(cast)} (largest entry {largest:g}): nothing was written"
        )
    return cast


def dtype_name(tensor: Tensor) -> str:
    """Number type as config.json spells it."""
    return str(tensor.dtype).removeprefix("torch.")


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
    network = empty_network(config)
    weights = rename_to_ours(tensors, layout, config, network)
    calibration = read_calibration(folder)
    return Stored(
        folder=folder,
        layout=layout,
        config=config,
        text=text,
        network=network,
        weights=weights,
        calibration=calibration,
    )


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


def rename_to_ours(
    tensors: Mapping[str, Tensor], layout: Layout, config: FlorenceConfig, network: Network | None = None
) -> dict[str, Tensor]:
    """Give every tensor our name and orientation; tied copies, the logits bias and the frame table are checked.

    network   of this config, if there is one already: says which weights there must be; it is not filled.
    raises    BadCheckpoint listing missing, extra and misshapen keys, all in one message.
    """
    shapes = (network or empty_network(config)).state_dict()
    table = key_table(config, shapes)
    rest = dict(tensors)
    embed = take_tied(rest, layout)
    check_logits_bias(rest.pop(LOGITS_BIAS, None) if layout == "microsoft" else None, config)
    ours: dict[str, Tensor] = {}
    problems: list[str] = []
    for key in table:
        name = key.name(layout)
        tensor = embed if key.openflorence == EMBED else rest.pop(name, None)
        wanted = shape_in(layout, key, shapes[key.openflorence])
        if tensor is None:
            if key.openflorence != FRAMES:  # recomputable
                problems.append(f"missing {name} {wanted}")
        elif tuple(tensor.shape) != wanted:
            problems.append(f"misshapen {name} {tuple(tensor.shape)}, expected {wanted}")
        else:
            ours[key.openflorence] = tensor.T if is_transposed(key, layout) else tensor
    problems += [f"extra {name} {tuple(tensor.shape)}" for name, tensor in rest.items()]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "; ".join(problems[:SHOWN])
        raise BadCheckpoint(f"weights of layout {layout!r} do not fit config.json: {shown}{more}")
    check_frames(ours, config)
    return ours


def rename_from_ours(
    weights: Mapping[str, Tensor], layout: Layout, config: FlorenceConfig, entries: int
) -> dict[str, Tensor]:
    """Give every tensor the name and orientation of a layout; the inverse of rename_to_ours.

    entries   of the tokenizer: says which embedding rows are filler.
    returns   the embedding once, under its preferred name: safetensors cannot hold one tensor under four.
    """
    theirs: dict[str, Tensor] = {}
    for key in key_table(config, weights):
        tensor = weights[key.openflorence]
        if key.openflorence == EMBED:
            tensor = fit_rows(tensor, layout, entries)
            if layout == "microsoft":
                theirs[LOGITS_BIAS] = tensor.new_zeros(1, len(tensor))
        theirs[key.name(layout)] = tensor.T if is_transposed(key, layout) else tensor
    return theirs


def fit_rows(embed: Tensor, layout: Layout, entries: int) -> Tensor:
    """Give the embedding the rows that a layout wants; rows of real entries are never touched.

    microsoft     exactly the entries: filler rows cannot be kept.
    transformers  at least one more, and a multiple of 64: rows that are new hold the mean of the real ones.
    openflorence  as they are.
    """
    if layout == "microsoft":
        return embed[:entries]
    if layout == "openflorence":
        return embed
    rows = native_rows(max(entries, len(embed) - 1))
    filler = embed[:entries].float().mean(dim=0).to(embed.dtype)
    return torch.cat([embed, filler.expand(rows - len(embed), -1)])


def shape_in(layout: Layout, key: Key, ours: Tensor) -> tuple[int, ...]:
    """The shape a layout stores a weight with."""
    shape = tuple(ours.shape)
    return shape[::-1] if is_transposed(key, layout) else shape


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
