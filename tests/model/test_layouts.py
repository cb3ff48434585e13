"""Every key and shape of the published files, on a table written out apart from the package (tests/spec.py)."""

import pytest
import torch
from spec import (
    BASE,
    LARGE,
    PUBLISHED,
    microsoft_config,
    microsoft_keys,
    transformers_config,
    transformers_keys,
    zeros_of,
)
from transformers import Florence2Config, Florence2ForConditionalGeneration

from openflorence.errors import BadCheckpoint
from openflorence.model.checkpoint import empty_network, layout_of, rename_from_ours, rename_to_ours
from openflorence.model.config import SIZES, FlorenceConfig, read_config
from openflorence.model.florence import cosine_table
from openflorence.model.layouts import TIED, key_table


def test_the_written_tables_have_the_published_totals():
    # 669 and 921 include both buffers and all four tied names; the transformers layout drops the logits bias.
    assert [len(microsoft_keys(size)) for size in (BASE, LARGE)] == [669, 921]
    assert [len(transformers_keys(size)) for size in (BASE, LARGE)] == [668, 920]


@pytest.mark.parametrize("size", [BASE, LARGE], ids=["base", "large"])
def test_transformers_itself_has_exactly_the_written_keys(size):
    config = Florence2Config(**transformers_config(size))
    with torch.device("meta"):
        state = Florence2ForConditionalGeneration(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == transformers_keys(size)


def published_weights(size, layout: str) -> tuple[dict[str, torch.Tensor], FlorenceConfig]:
    """A whole published checkpoint as tensors without memory, and its configuration from its own config.json."""
    if layout == "microsoft":
        tensors, published = zeros_of(microsoft_keys(size)), microsoft_config(size)
    else:
        tensors, published = zeros_of(transformers_keys(size)), transformers_config(size)
    frames = next(name for name in tensors if name.endswith("pos_idx_to_embed"))
    tensors[frames] = cosine_table(100, size.dims[-1]).half()
    return tensors, read_config(published)


@pytest.mark.parametrize("layout", ["microsoft", "transformers"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_checkpoint_fits_key_by_key(name, layout):
    tensors, config = published_weights(PUBLISHED[name], layout)
    ours = rename_to_ours(tensors, layout, config)
    wanted = {name: tuple(tensor.shape) for name, tensor in empty_network(config).state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == wanted


def test_the_sweep_saw_every_published_checkpoint():
    assert len(PUBLISHED) == 5


@pytest.mark.parametrize("layout", ["microsoft", "transformers"])
def test_the_way_back_gives_every_key_but_the_repeated_ones(layout):
    tensors, config = published_weights(BASE, layout)
    back = rename_from_ours(rename_to_ours(tensors, layout, config), layout, config, entries=51289)
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in TIED[layout][1:]
    }


def test_four_thousand_positions_are_not_mistaken_for_one_thousand():
    tensors, _ = published_weights(PUBLISHED["large, since 2024-12"], "microsoft")
    _, config = published_weights(LARGE, "microsoft")
    with pytest.raises(BadCheckpoint, match=r"embed_positions\.weight \(4098, 1024\), expected \(1026, 1024\)"):
        rename_to_ours(tensors, "microsoft", config)


def test_the_published_rows_are_not_mistaken_for_the_padded_ones():
    tensors, _ = published_weights(BASE, "transformers")
    _, config = published_weights(BASE, "microsoft")
    with pytest.raises(BadCheckpoint, match=r"shared\.weight \(51328, 768\), expected \(51289, 768\)"):
        rename_to_ours(tensors, "transformers", config)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", ["microsoft", "transformers", "openflorence"])
def test_no_two_weights_share_a_name(size, layout):
    config = SIZES[size]
    table = key_table(config, empty_network(config).state_dict())
    assert len({key.name(layout) for key in table}) == len(table)


@pytest.mark.parametrize("layout", ["microsoft", "transformers"])
def test_the_layout_is_told_by_one_key(layout):
    tensors, _ = published_weights(BASE, layout)
    assert layout_of(tensors) == layout


def test_keys_of_another_model_or_of_two_layouts_are_refused():
    with pytest.raises(BadCheckpoint, match=r"no known layout.*encoder\.weight"):
        layout_of(["encoder.weight"])
    with pytest.raises(BadCheckpoint, match="several layouts"):
        layout_of(["image_projection", "projector.project.weight"])
    with pytest.raises(BadCheckpoint, match="no key at all"):
        layout_of([])
