"""What learns and what stays: frozen is frozen, an adapter learns alone, and what is kept afterwards says the same."""

import pytest
import torch
from PIL import Image
from tiny import SIDE_PX, drawn_examples, scene_with_sign, tiny_network, world_text
from torch import Tensor, nn

from openflorence.data.mixture import Batch, collate
from openflorence.errors import BadConfig
from openflorence.model.adapters import PARTS, has_adapter, load_adapter
from openflorence.model.checkpoint import load_checkpoint, save_checkpoint
from openflorence.model.florence import Network
from openflorence.model.images import to_pixels
from openflorence.training.adapt import HOW, finish, freeze, prepare
from openflorence.training.progress import parameter_report
from openflorence.training.train import TrainSettings, parameter_groups

SCENE = scene_with_sign()
ADAPTERS = ("lora", "dora")


def batch() -> Batch:
    asked = [(0, example) for example in drawn_examples(SCENE, ("detect", "classify_region", "read_region"))]
    return Batch(to_pixels(Image.fromarray(SCENE.image), SIDE_PX)[None], collate(asked, world_text(), buckets=1))


def loss_of(network: Network, given: Batch) -> Tensor:
    """Plain cross-entropy by torch, apart from the loop."""
    pairs = given.pairs[0]
    memory, mask = network.encode(
        network.encode_image(given.pixels)[pairs.image_rows], pairs.prompt_ids, pairs.prompt_mask
    )
    logits = network.seq2seq.logits(network.seq2seq.decode(pairs.decoder_ids, memory, mask))
    return nn.functional.cross_entropy(logits.flatten(0, 1), pairs.labels.flatten())


def learn(network: Network, steps: int = 8) -> tuple[float, float]:
    """Take some steps with the parameter groups of the loop; the loss before and after."""
    torch.manual_seed(0)
    given = batch()
    groups = parameter_groups(network, TrainSettings())
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network, given).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        return float(loss_of(tiny_network().eval(), given)), float(loss_of(network, given))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@torch.no_grad()
def logits(network: Network) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    prompt, answer = (torch.randint(4, 900, (1, length), generator=generator) for length in (6, 5))
    return network(batch().pixels, prompt, None, answer)


def rows_of(report: str) -> dict[str, tuple[int, int]]:
    """A parameter report as part -> (trainable, frozen)."""
    rows = [line.rsplit(maxsplit=2) for line in report.replace(",", "").splitlines()[1:]]
    return {part.strip(): (int(trained), int(frozen)) for part, trained, frozen in rows}


# ---- frozen


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_does_not_move_and_everything_else_does(part):
    network = tiny_network()
    inside = {
        "tower": network.tower, "projector": network.projector, "embed": network.seq2seq.embed,
        "encoder": network.seq2seq.encoder, "decoder": network.seq2seq.decoder,
    }  # fmt: skip
    before = weights_of(network)
    freeze(network, [part])
    learn(network, steps=1)
    for name, module in inside.items():
        parameters = dict(module.named_parameters())
        assert parameters
        assert {parameter.requires_grad for parameter in parameters.values()} == {name != part}
        assert {parameter.grad is None for parameter in parameters.values()} == {name == part}
        still = [torch.equal(parameter, old) for parameter, old in pairs_in(network, before, module)]
        assert all(still) if name == part else not all(still), name


def pairs_in(network: Network, before: dict[str, Tensor], module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The parameters of a part, now and before."""
    inside = {id(parameter) for parameter in module.parameters()}
    return [(parameter, before[name]) for name, parameter in network.named_parameters() if id(parameter) in inside]


def test_parts_are_frozen_one_after_the_other_and_shown():
    network = tiny_network()
    sizes = {
        part: sum(parameter.numel() for parameter in module.parameters())
        for part, module in (("tower", network.tower), ("decoder", network.seq2seq.decoder))
    }
    freeze(network, ["tower"])
    freeze(network, ["decoder"])
    rows = rows_of(parameter_report(network))
    assert list(rows) == ["tower", "projector", "embed", "encoder", "decoder", "total"]
    assert rows["tower"] == (0, sizes["tower"])
    assert rows["decoder"] == (0, sizes["decoder"])
    assert rows["total"][1] == sum(sizes.values())
    assert all(frozen == 0 for part, (_, frozen) in rows.items() if part in ("projector", "embed", "encoder"))


def test_a_part_that_there_is_not_is_named_and_nothing_is_frozen():
    network = tiny_network()
    with pytest.raises(BadConfig, match=r"'head'.*allowed: tower, projector, embed, encoder, decoder"):
        freeze(network, ["tower", "head"])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_rate_of_the_tower_does_not_thaw_it():
    network = tiny_network()
    freeze(network, ["tower"])
    groups = parameter_groups(network, TrainSettings(tower_rate=0.5))
    assert {group["scale"] for group in groups} == {1.0}
    assert not any(parameter.requires_grad for parameter in network.tower.parameters())


# ---- adapters


@pytest.mark.parametrize("how", ADAPTERS)
def test_only_the_adapter_learns_and_the_base_stays_bit_for_bit(how):
    network = tiny_network()
    base = weights_of(network)
    prepare(network, how, rank=4)
    start = weights_of(network)
    before, after = learn(network)
    assert after < 0.95 * before  # 9.1 to 8.3 was measured, in eight steps
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            assert not torch.equal(parameter, start[name]), name
        else:
            assert torch.equal(parameter, base[name.replace(".base_layer", "")]), name
            assert parameter.grad is None


@pytest.mark.parametrize("how", ADAPTERS)
def test_the_report_shows_adapters_in_rows_of_their_own(how):
    network = tiny_network()
    size = sum(parameter.numel() for parameter in network.parameters())
    said = prepare(network, how, rank=2, preset="decoder")
    # By hand, one layer 64 wide with a feed-forward of 128: rank times inputs and outputs, of eight projections and two
    # layers of feed-forward; DoRA has one length for each output more.
    numbers = 2 * (8 * (64 + 64) + 2 * (64 + 128)) + (0 if how == "lora" else 8 * 64 + 64 + 128)
    rows = rows_of(parameter_report(network))
    assert rows["decoder adapter"] == (numbers, 0)
    assert rows["total"] == (numbers, size)
    assert {part for part, (trained, _) in rows.items() if trained} == {"decoder adapter", "total"}
    assert said == (
        f"{how} of rank 2, scale 2, on the 10 layers of 'decoder': {numbers:,} of {size + numbers:,} numbers learn"
    )


def test_lengths_of_rows_do_not_decay():
    network = tiny_network()
    prepare(network, "dora", rank=2)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, TrainSettings(weight_decay=0.3))
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert decayed == {name for name in learning if ".lora_A" in name or ".lora_B" in name}
    assert {len(network.get_parameter(name).shape) for name in learning - decayed} == {1, 4}  # linear and convolution


@pytest.mark.parametrize("how", ADAPTERS)
def test_what_is_kept_says_what_was_learnt(how, tmp_path):
    network = tiny_network()
    prepare(network, how, rank=4)
    learn(network)
    said = logits(network)
    whole = finish(network, how, tmp_path / "adapter", base="tiny")
    assert whole is network
    assert not has_adapter(whole)
    assert all(parameter.requires_grad for parameter in whole.parameters())
    # Logits are of order 1; the same products in another order.
    torch.testing.assert_close(logits(whole), said, atol=1e-4, rtol=0)
    save_checkpoint(whole, world_text(), tmp_path / "checkpoint")
    torch.testing.assert_close(logits(load_checkpoint(tmp_path / "checkpoint").network), said, atol=1e-4, rtol=0)
    again = tiny_network().eval()
    assert load_adapter(again, tmp_path / "adapter").base == "tiny"
    assert torch.equal(logits(again), said)


@pytest.mark.parametrize("how", ["full", "frozen_tower"])
def test_without_an_adapter_there_is_no_folder(how, tmp_path):
    network = tiny_network()
    freeze(network, ["decoder"])  # of an earlier run: forgotten
    said = prepare(network, how)
    rows = rows_of(parameter_report(network))
    assert said == f"{how}: {rows['total'][0]:,} of {sum(rows['total']):,} numbers learn"
    assert {part for part, (_, frozen) in rows.items() if frozen} == (set() if how == "full" else {"tower", "total"})
    assert finish(network, how, tmp_path / "adapter", base="tiny") is network
    assert not (tmp_path / "adapter").exists()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_another_word_is_refused():
    with pytest.raises(BadConfig, match=f"'half'; allowed: {', '.join(HOW)}"):
        prepare(tiny_network(), "half")
    with pytest.raises(BadConfig, match="preset is 'head'"):
        prepare(tiny_network(), "lora", preset="head")
