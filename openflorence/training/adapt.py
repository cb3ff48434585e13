"""What learns and what stays: whole networks, frozen parts, and adapters beside frozen weights.

report(prepare(network, "lora", rank=16))             # before training
whole = finish(network, "lora", folder, base="nano")  # after it: the adapter in its folder, and a network to save
"""

from collections.abc import Iterable
from pathlib import Path

from openflorence.errors import BadConfig
from openflorence.model.adapter_files import KINDS
from openflorence.model.adapters import (
    PARTS,
    AdapterConfig,
    adapted_layers,
    add_adapter,
    merge_adapter,
    part_of,
    save_adapter,
)
from openflorence.model.florence import Network

HOW = ("full", "frozen_tower", *KINDS)


def freeze(network: Network, parts: Iterable[str]) -> None:
    """Take requires_grad off every parameter of some parts, which is what torch obeys; other parts stay as they are.

    parts     names in PARTS. The output head is the embedding: "embed" freezes both.
    raises    BadConfig naming a part that there is not.
    """
    names = set(parts)
    if unknown := sorted(names - set(PARTS)):
        raise BadConfig(f"no part {', '.join(map(repr, unknown))} to freeze; allowed: {', '.join(PARTS)}")
    for name, parameter in network.named_parameters():
        if part_of(name) in names:
            parameter.requires_grad_(False)


def prepare(network: Network, how: str, rank: int = AdapterConfig.rank, preset: str = AdapterConfig.preset) -> str:
    """Settle what learns, in place.

    how       "full": everything; "frozen_tower": all but the image tower; "lora" or "dora": an adapter alone.
    rank      of the adapter, and `preset` where it stands; see AdapterConfig.
    returns   what was done, for the log.
    raises    BadConfig for another word, or a network that has an adapter already.
    """
    if how not in HOW:
        raise BadConfig(f"how is {how!r}; allowed: {', '.join(HOW)}")
    network.requires_grad_(True)
    done = how
    if how == "frozen_tower":
        freeze(network, ["tower"])
    elif how in KINDS:
        config = AdapterConfig(kind=how, rank=rank, preset=preset)
        add_adapter(network, config)
        done += f" of rank {rank}, scale {config.scale:g}, on the {len(adapted_layers(network))} layers of {preset!r}"
    learning, whole = (
        sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad or not only)
        for only in (True, False)
    )
    return f"{done}: {learning:,} of {whole:,} numbers learn"


def finish(network: Network, how: str, folder: str | Path, base: str) -> Network:
    """Keep what was learnt: an adapter is written to its folder and then merged.

    folder    of the adapter; not touched by "full" and "frozen_tower".
    base      the checkpoint that was started from, noted in the folder.
    returns   the network, whole and with nothing frozen, to be saved as a checkpoint.
    """
    if how in KINDS:
        save_adapter(network, folder, base)
        merge_adapter(network)
    return network.requires_grad_(True)
