"""The tower as a file: back exactly, into networks that it fits and no other."""

import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_network

from openflorence.errors import BadCheckpoint
from openflorence.model.florence import Network
from openflorence.training.tower_file import load_tower, save_tower

ABOUT = {"start": "contrast", "scenes": "24,000"}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Network, Path]:
    network, path = tiny_network(seed=1), tmp_path / "towers" / "tower.safetensors"
    save_tower(network, path, ABOUT)
    return network, path


def rewritten(path: Path, change) -> Path:
    """The same file with other weights or metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    change(weights, metadata)
    other = path.with_name("other.safetensors")
    save_file(weights, other, metadata)
    return other


def test_a_tower_comes_back_bit_for_bit_and_the_rest_of_the_network_stays(saved):
    source, path = saved
    network = tiny_network(seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_tower(network, path) == ABOUT
    after = network.state_dict()
    for name, value in source.state_dict().items():
        wanted = value if name.startswith(("tower.", "projector.")) else before[name]
        assert torch.equal(after[name], wanted), name
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.eval().encode_image(pixels), source.eval().encode_image(pixels))
        other = tiny_network(seed=2).eval()
        assert not torch.equal(other.encode_image(pixels), source.encode_image(pixels))


def test_the_file_holds_the_tower_and_the_projector_under_our_names_and_no_table(saved):
    source, path = saved
    names = {name for name, _ in source.named_parameters() if not name.startswith("seq2seq.")}
    assert load_file(path).keys() == names
    assert "projector.rows.weight" in names
    assert not any("frames" in name for name in names)


def test_a_tower_goes_into_another_number_type(saved):
    source, path = saved
    network = tiny_network(seed=2).bfloat16()
    load_tower(network, path)
    weight = network.tower.stages[0].embed.conv.weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, source.tower.stages[0].embed.conv.weight.bfloat16())


def test_a_tower_fits_whatever_its_drop_path_was(saved):
    source, path = saved
    network = tiny_network(seed=5, dropout=0.3)
    load_tower(network, path)
    weights = source.tower.state_dict()
    assert weights
    assert all(torch.equal(value, weights[name]) for name, value in network.tower.state_dict().items())


def test_a_save_that_fails_leaves_what_was_there(saved):
    network, path = saved
    before = path.read_bytes()
    network.tower.stages[0].embed.conv.bias.data[0] = torch.nan
    with pytest.raises(BadCheckpoint, match=re.escape("tower.stages.0.embed.conv.bias is not finite")):
        save_tower(network, path, {})
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_save_replaces_the_file_and_others_may_read_it(saved):
    _, path = saved
    save_tower(tiny_network(seed=5), path, {"round": "2"})
    assert load_tower(tiny_network(), path) == {"round": "2"}
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def refuse(network: Network, path: Path) -> str:
    """The message of a load that is refused; nothing was changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(BadCheckpoint) as caught:
        load_tower(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_extra_and_misshapen_keys_are_all_named(saved):
    def change(weights, metadata):
        del weights["tower.stages.0.embed.conv.bias"]
        weights["tower.stages.9.embed.conv.bias"] = torch.zeros(3)
        weights["projector.rows.weight"] = torch.zeros(7, 32)

    message = refuse(tiny_network(), rewritten(saved[1], change))
    assert "missing tower.stages.0.embed.conv.bias (16,)" in message
    assert "extra tower.stages.9.embed.conv.bias (3,)" in message
    assert "misshapen projector.rows.weight (7, 32), expected (50, 32)" in message


def test_a_network_of_another_text_width_names_the_projection(saved):
    message = refuse(tiny_network(width=32), saved[1])
    assert "misshapen projector.project.weight (64, 64), expected (32, 64)" in message
    assert "tower.stages" not in message


@pytest.mark.parametrize(("field", "value"), [("window", 8), ("strides", (4, 2, 1, 1)), ("heads", (2, 4, 4, 8))])
def test_a_tower_that_computes_otherwise_is_refused_though_its_shapes_fit(saved, field, value):
    config = tiny_network().config
    network = Network(replace(config, vision=replace(config.vision, **{field: value})))
    seen = json.loads(json.dumps(getattr(config.vision, field)))
    asked = json.loads(json.dumps(value))
    assert f"{field} {seen} there and {asked} here" in refuse(network, saved[1])


def test_more_than_ten_keys_are_counted(saved):
    def change(weights, metadata):
        for name in [name for name in weights if name.startswith("tower.stages.1.")]:
            del weights[name]

    lost = sum(name.startswith("tower.stages.1.") for name in load_file(saved[1]))
    message = refuse(tiny_network(), rewritten(saved[1], change))
    assert message.count("missing") == 10
    assert f"and {lost - 10} more" in message


@pytest.mark.parametrize("metadata", [{}, {"vision": "[1]", "about": "{}"}, {"vision": "{", "about": "{}"}])
def test_weights_that_do_not_say_what_they_are_are_refused(saved, metadata):
    def change(weights, said):
        said.clear()
        said |= metadata

    assert "does not say what tower" in refuse(tiny_network(), rewritten(saved[1], change))


def test_a_damaged_and_a_missing_file_are_refused(saved, tmp_path):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-10])
    assert "damaged" in refuse(tiny_network(), path)
    assert "not a file" in refuse(tiny_network(), tmp_path / "none.safetensors")
    assert "not a file" in refuse(tiny_network(), tmp_path)
