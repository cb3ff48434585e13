"""Adapters: where they stand, that merged they say the same, and that others' folders are read as they were meant."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from answering import SIDE_PX, drawn_network, drawn_picture, words_text, write_checkpoint
from reference import TINY_SIDE_PX, ours_from, reference_logits, tiny_reference, tiny_text
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openflorence import cli
from openflorence.contract.tasks import TASKS
from openflorence.errors import BadCheckpoint, BadConfig
from openflorence.model.adapter_files import read_adapter
from openflorence.model.adapters import (
    PRESETS,
    AdapterConfig,
    add_adapter,
    has_adapter,
    load_adapter,
    merge_adapter,
    merged_copy,
    part_of,
    preset_modules,
    remove_adapter,
    save_adapter,
    unmerge_adapter,
)
from openflorence.model.checkpoint import empty_network, save_checkpoint
from openflorence.model.config import BASE, NANO
from openflorence.model.davit import DepthwiseConv
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.linear import Linear
from openflorence.model.predict import AskOptions, live_florence, load

KINDS = ("lora", "dora")
# Logits are up to 8 in size. Merged and not, the same products are summed in another order: 5e-6 was measured.
CLOSE = 1e-4
SHORT = AskOptions(max_tokens=24)


def inputs(side_px: int = SIDE_PX, entries: int = 300) -> tuple[Tensor, Tensor, None, Tensor]:
    """Pixels, a prompt and an answer so far."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(2, 3, side_px, side_px, generator=generator)
    prompt, answer = (torch.randint(4, entries, (2, length), generator=generator) for length in (7, 9))
    return pixels, prompt, None, answer


@torch.no_grad()
def logits(network: Network) -> Tensor:
    return network(*inputs())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def learnt(network: Network, kind: str = "lora", preset: str = "all", std: float = 0.1) -> Network:
    """Put an adapter in that has learnt something: every number of it moved."""
    add_adapter(network, AdapterConfig(kind=kind, rank=4, preset=preset))
    move(network, std)
    return network


@torch.no_grad()
def move(network: nn.Module, std: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * std)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved LoRA adapter of the drawn network."""
    save_adapter(learnt(drawn_network()), tmp_path / "adapter", base="the/drawn-one")
    return tmp_path / "adapter"


def change(folder: Path, **settings: object) -> Path:
    """Rewrite some of the settings of an adapter folder."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Put other tensors into an adapter folder."""
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


# ---- where an adapter stands


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        # By hand. Decoder: 2 attentions of 4 projections and 2 layers of feed-forward, 10 a layer; an encoder layer has
        # 6. Tower: two blocks of 4 linear layers for each depth, and a convolution before each of the 4 stages.
        pytest.param(NANO, {"decoder": 20, "language": 26, "tower": 44, "all": 71}, id="nano"),
        pytest.param(BASE, {"decoder": 60, "language": 96, "tower": 100, "all": 197}, id="base"),
    ],
)
def test_a_preset_has_as_many_layers_as_the_network(config, sizes):
    network = empty_network(config)
    assert {preset: len(preset_modules(network, preset)) for preset in PRESETS} == sizes
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    convolutions = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not isinstance(module, DepthwiseConv)
    }
    assert set(preset_modules(network, "all")) == linear | convolutions
    assert set(preset_modules(network, "language")) == {name for name in linear if name.startswith("seq2seq.")}
    assert set(preset_modules(network, "tower")) == {n for n in linear | convolutions if n.startswith("tower.")}


def test_names_of_the_public_recipe_that_match_nothing():
    # The recipe that people copy (spec, section 7) lists these names; peft takes a module when its name ends with one.
    names = [name for name, _ in empty_network(BASE).named_modules()]
    found = {
        word: sum(name.endswith(f".{word}") for name in names)
        for word in ("q_proj", "k_proj", "v_proj", "fc2", "o_proj", "linear", "Conv2d", "lm_head")
    }
    assert found == {"q_proj": 18, "k_proj": 18, "v_proj": 18, "fc2": 36} | dict.fromkeys(
        ("o_proj", "linear", "Conv2d", "lm_head"), 0
    )


def test_a_preset_that_no_longer_fits_the_network_is_an_error():
    network = drawn_network()
    network.seq2seq.decoder.layers[0].ffn.first = network.seq2seq.decoder.layers[0].ffn.fc1
    del network.seq2seq.decoder.layers[0].ffn.fc1
    with pytest.raises(BadConfig, match="'decoder' matches 9 modules of this network, expected 10"):
        add_adapter(network, AdapterConfig(preset="decoder"))
    assert not has_adapter(network)


@pytest.mark.parametrize("preset", PRESETS)
def test_peft_takes_exactly_the_layers_of_a_preset(preset):
    network = drawn_network()
    wanted = preset_modules(network, preset)
    add_adapter(network, AdapterConfig(rank=2, preset=preset))
    layers = {name.split(".lora_A")[0] for name, _ in network.named_parameters() if ".lora_A" in name}
    assert layers == set(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing_and_learns_alone(kind):
    network = drawn_network()
    before, said, state = weights_of(network), logits(network), torch.get_rng_state()
    assert add_adapter(network, AdapterConfig(kind=kind)) is network
    assert isinstance(network, Network)
    assert not any(module.training for module in network.modules())  # it answers, and goes on to
    torch.testing.assert_close(logits(network), said, atol=CLOSE, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)  # chance elsewhere goes on as without
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (".lora_" in name), name
    stays = {name.replace(".base_layer", ""): value for name, value in network.state_dict().items()}
    assert all(torch.equal(stays[name], value) for name, value in before.items())


def test_an_adapter_starts_from_its_seed():
    def start(seed: int) -> Tensor:
        torch.manual_seed(torch.seed())
        network = add_adapter(drawn_network(), AdapterConfig(seed=seed))
        return network.get_parameter("projector.project.lora_A.default.weight")

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_parts_are_told_by_the_names_of_parameters():
    network = learnt(drawn_network())
    found = {part_of(name) for name, _ in network.named_parameters()}
    parts = {"tower", "projector", "embed", "encoder", "decoder"}
    assert found == parts | {f"{part} adapter" for part in parts - {"embed"}}
    assert part_of("network.seq2seq.decoder.norm.weight") == "decoder"  # inside an objective


# ---- merged, unmerged, taken out


@pytest.mark.parametrize("kind", KINDS)
def test_merging_changes_no_answer_and_can_be_undone(kind):
    network = drawn_network()
    before, plain = weights_of(network), logits(network)
    learnt(network, kind)
    said, apart = logits(network), weights_of(network)
    assert (said - plain).abs().max() > 1  # it says something else than without
    merged = merge_adapter(network)
    assert not has_adapter(network)
    assert network.state_dict().keys() == before.keys()
    torch.testing.assert_close(logits(network), said, atol=CLOSE, rtol=0)
    unmerge_adapter(network, merged)
    now = weights_of(network)
    assert now.keys() == apart.keys()
    assert all(torch.equal(now[name], value) for name, value in apart.items())  # bit for bit, the base's weights too
    assert torch.equal(logits(network), said)
    torch.testing.assert_close(logits(merged_copy(network)), said, atol=CLOSE, rtol=0)
    assert has_adapter(network)


@pytest.mark.parametrize("kind", KINDS)
def test_taking_an_adapter_out_gives_the_base_back_bit_for_bit(kind):
    network = drawn_network()
    before, plain = weights_of(network), logits(network)
    remove_adapter(learnt(network, kind))
    now = weights_of(network)
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert torch.equal(logits(network), plain)
    learnt(network, kind)  # and it can take another one


@torch.no_grad()
def test_merged_layers_take_the_fast_path_again():
    network = learnt(drawn_network())
    with pytest.raises(AssertionError, match="merge it first"):
        FastDecoder(network)
    merge_adapter(network)
    assert type(network.seq2seq.decoder.layers[0].ffn.fc1) is Linear
    pixels, prompt, _, answer = inputs()
    memory, mask = network.encode(network.encode_image(pixels), prompt)
    session = FastDecoder(network).begin(memory, mask)
    for token in range(answer.shape[1]):
        x = session.step(answer[:, token])
    torch.testing.assert_close(x, network.seq2seq.decode(answer, memory, mask)[:, -1], atol=1e-5, rtol=0)


def test_a_network_has_one_adapter_or_none():
    network = drawn_network()
    for needs_one in (merge_adapter, remove_adapter, lambda network: save_adapter(network, "nowhere", "nano")):
        with pytest.raises(BadConfig, match="no adapter"):
            needs_one(network)
    assert merged_copy(network) is network
    merged = merge_adapter(learnt(network))
    learnt(network)
    for second in (lambda: learnt(network), lambda: unmerge_adapter(network, merged)):
        with pytest.raises(BadConfig, match="merge or remove it first"):
            second()


def test_an_adapter_that_overflows_is_not_merged():
    network = learnt(drawn_network())
    with torch.no_grad():
        network.get_parameter("projector.project.lora_B.default.weight").fill_(3e38)
    before = weights_of(network)
    with pytest.raises(BadCheckpoint, match="cannot be merged"):
        merge_adapter(network)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(network).items())


def test_a_network_with_an_adapter_is_not_saved_as_a_checkpoint(tmp_path):
    with pytest.raises(BadConfig, match="save_adapter writes it alone"):
        save_checkpoint(learnt(drawn_network()), words_text(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings", [{"kind": "lora+"}, {"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"preset": "head"}], ids=str
)
def test_a_setting_outside_its_range_is_refused(settings):
    with pytest.raises(BadConfig, match="allowed"):
        AdapterConfig(**settings)


# ---- folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_loaded_as_it_was(kind, tmp_path):
    network = learnt(drawn_network(), kind)
    save_adapter(network, tmp_path / "adapter", base="nano")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = drawn_network()
    adapter = load_adapter(again, tmp_path / "adapter")
    assert (adapter.kind, adapter.base, set(adapter.ranks.values())) == (kind, "nano", {4})
    assert torch.equal(logits(again), logits(network))
    assert not any(module.training for module in again.modules())
    assert [name for name, p in again.named_parameters() if p.requires_grad] == [
        name for name, p in network.named_parameters() if p.requires_grad
    ]
    save_adapter(again, tmp_path / "again", base="nano")
    first, second = tensors_of(tmp_path / "adapter"), tensors_of(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_reads_what_is_saved(kind, tmp_path):
    from peft import PeftConfig, PeftModel

    network = learnt(drawn_network(), kind)
    save_adapter(network, tmp_path / "adapter", base="nano")
    config = PeftConfig.from_pretrained(tmp_path / "adapter")
    assert (config.peft_type, config.r, config.base_model_name_or_path, config.use_dora) == (
        "LORA", 4, "nano", kind == "dora"
    )  # fmt: skip
    assert all(key.startswith("base_model.model.") for key in tensors_of(tmp_path / "adapter"))
    theirs = PeftModel.from_pretrained(drawn_network(), tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(theirs(*inputs()), logits(network))


# What others wrote into LoraConfig; the first is the public recipe without its head (spec, section 7).
OTHERS = {
    "the public recipe": {
        "target_modules": ["q_proj", "o_proj", "k_proj", "v_proj", "linear", "Conv2d", "fc2"],
        "r": 8, "lora_alpha": 8, "lora_dropout": 0.05, "bias": "none", "init_lora_weights": "gaussian",
        "use_rslora": True, "task_type": "CAUSAL_LM",
    },
    "patterns": {
        "target_modules": ["out_proj", "fc1", "qkv", "image_projection", "conv"], "r": 4, "lora_alpha": 16,
        "rank_pattern": {"decoder.layers.1.fc1": 2, "qkv": 3}, "alpha_pattern": {"self_attn.out_proj": 5},
    },
    "dora": {"target_modules": "all-linear", "r": 3, "lora_alpha": 3, "use_dora": True},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("layout", ["transformers", "microsoft"])
def test_an_adapter_trained_on_published_names_says_what_it_said_there(name, layout, tmp_path):
    from peft import LoraConfig, get_peft_model

    reference = tiny_reference()
    ours = ours_from(reference, tmp_path / "base").network
    # "all-linear" leaves the head out by itself, as it does for every transformers model. The microsoft code keeps the
    # projection as a bare parameter, beside which peft puts no adapter.
    without = ["image_projection"] if layout == "microsoft" else None
    adapted = get_peft_model(reference, LoraConfig(**OTHERS[name], exclude_modules=without)).eval()
    move(adapted, 0.2)
    pixels, prompt, mask, answer = inputs(TINY_SIDE_PX, tiny_text().size)
    said = reference_logits(adapted.get_base_model(), pixels, prompt, mask, answer)
    adapted.save_pretrained(tmp_path / "adapter")
    assert ".model.language_model.decoder.layers." in " ".join(tensors_of(tmp_path / "adapter"))
    if layout == "microsoft":
        as_microsoft(tmp_path / "adapter")
    with torch.no_grad():
        plain = ours(pixels, prompt, mask, answer)
        load_adapter(ours, tmp_path / "adapter")
        torch.testing.assert_close(ours(pixels, prompt, mask, answer), said, atol=CLOSE, rtol=0)
        merge_adapter(ours)
        torch.testing.assert_close(ours(pixels, prompt, mask, answer), said, atol=CLOSE, rtol=0)
    assert (said - plain).abs().max() > 0.1


def as_microsoft(folder: Path) -> None:
    """Rename the keys of an adapter as one trained on the microsoft code has them, by the table of the spec."""
    tensors = tensors_of(folder)
    renames = [
        (r"base_model\.model\.model\.language_model\.", "base_model.model.language_model.model."),
        (r"base_model\.model\.model\.vision_tower\.", "base_model.model.vision_tower."),
        (r"(vision_tower\..*_attn)\.(qkv|proj)\.", r"\1.fn.\2."),
        (r"(vision_tower\..*\.ffn)\.(fc[12])\.", r"\1.fn.net.\2."),
        (r"(vision_tower\.convs\.\d+)\.conv\.", r"\1.proj."),
    ]
    for old, new in renames:
        tensors = {re.sub(old, new, key): value for key, value in tensors.items()}
    rewrite(folder, tensors)


def test_keys_without_the_prefix_of_peft_are_read(folder):
    network, again = drawn_network(), drawn_network()
    load_adapter(network, folder)
    rewrite(folder, {key.removeprefix("base_model.model."): value for key, value in tensors_of(folder).items()})
    load_adapter(again, folder)
    assert torch.equal(logits(again), logits(network))


HEAD = "base_model.model.language_model.lm_head.lora_A.weight"
FIRST = "base_model.model.seq2seq.decoder.layers.0.ffn.fc1.lora_A.weight"


def test_what_does_not_fit_is_named_with_the_base_and_changes_nothing(folder):
    network, tensors = drawn_network(), tensors_of(folder)
    before = weights_of(network)
    cases = {
        "unknown key base_model.model.decoder.q.lora_A.weight": tensors
        | {"base_model.model.decoder.q.lora_A.weight": torch.zeros(4, 32)},
        f"{HEAD} changes the output head or the embedding alone": tensors | {HEAD: torch.zeros(4, 32)},
        "unknown key base_model.model.tower.stages.0.blocks.0.spatial.conv1.lora_A.weight": tensors
        | {"base_model.model.tower.stages.0.blocks.0.spatial.conv1.lora_A.weight": torch.zeros(4, 1, 3, 3)},
        "unknown key base_model.model.seq2seq.decoder.norm.weight": tensors
        | {"base_model.model.seq2seq.decoder.norm.weight": torch.zeros(32)},
        "missing seq2seq.decoder.layers.0.ffn.fc1.lora_A": {k: v for k, v in tensors.items() if k != FIRST},
        "misshapen seq2seq.decoder.layers.0.ffn.fc1.lora_A (4, 33), expected (4, 32)": tensors
        | {FIRST: torch.zeros(4, 33)},
        "misshapen seq2seq.decoder.layers.0.ffn.fc1.lora_A (5, 32), expected (4, 32)": tensors
        | {FIRST: torch.zeros(5, 32)},
        "seq2seq.decoder.layers.0.ffn.fc1.lora_A is not finite": tensors | {FIRST: torch.full((4, 32), torch.nan)},
        "extra seq2seq.decoder.layers.0.ffn.fc1.lora_magnitude_vector": tensors
        | {FIRST.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(64)},
        "adapter_model.safetensors is empty": {},
    }
    for words, changed in cases.items():
        rewrite(folder, changed)
        with pytest.raises(BadCheckpoint, match=re.escape(words)) as caught:
            load_adapter(network, folder)
        assert "its base is the/drawn-one" in str(caught.value)
    assert not has_adapter(network)
    assert weights_of(network).keys() == before.keys()


def test_an_adapter_of_another_base_says_which(folder):
    # By hand: nano is 192 wide, the drawn network 32.
    with pytest.raises(BadCheckpoint, match=r"does not fit this network.*192.*It says that its base is the/drawn-one"):
        load(adapter=folder)


def test_a_dora_adapter_without_its_lengths_is_refused(folder):
    with pytest.raises(BadCheckpoint, match=r"missing .*lora_magnitude_vector; "):
        load_adapter(drawn_network(), change(folder, use_dora=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"init_lora_weights": "pissa"}, "changes the base as well"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\] would change"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"of_a_later_peft": True}, "of_a_later_peft=True would change"),
        ({"r": "8"}, "three numbers"),
        ({"r": 8}, r"expected \(8, "),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_obeyed_is_refused(settings, words, folder):
    with pytest.raises(BadCheckpoint, match=words):
        read_adapter(empty_network(drawn_network().config), change(folder, **settings))


def test_a_pickle_is_not_read(folder):
    torch.save(tensors_of(folder), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        BadCheckpoint, match=r"no adapter_model\.safetensors; other forms, as adapter_model\.bin, are not"
    ):
        load_adapter(drawn_network(), folder)


def test_a_folder_that_is_no_adapter_is_named(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"no adapter .*nowhere"):
        load_adapter(drawn_network(), tmp_path / "nowhere")
    with pytest.raises(BadCheckpoint, match=r"no adapter_config\.json"):
        load_adapter(drawn_network(), tmp_path)


def test_an_interrupted_save_leaves_what_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("openflorence.model.adapters.write_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(learnt(drawn_network(), "dora"), folder, base="another")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_adapter_is_not_saved_into_a_checkpoint(tmp_path):
    write_checkpoint(tmp_path / "whole")
    with pytest.raises(BadConfig, match="folder of its own"):
        save_adapter(learnt(drawn_network()), tmp_path / "whole", base="nano")
    assert load(tmp_path / "whole").checkpoint.adapter is None


def test_without_peft_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for wants in (lambda: add_adapter(drawn_network(), AdapterConfig()), lambda: load_adapter(drawn_network(), folder)):
        with pytest.raises(BadConfig, match=r"pip install openflorence\[train\]"):
            wants()


# ---- the face


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_an_adapter_answers_as_the_network_does_unmerged(kind, answering_folder, tmp_path):
    plain = load(answering_folder)
    network = learnt(drawn_network(), kind)
    save_adapter(network, tmp_path / "adapter", base=str(answering_folder))
    model = load(answering_folder, adapter=tmp_path / "adapter")
    assert model.checkpoint.adapter == tmp_path / "adapter"
    assert plain.checkpoint.adapter is None
    torch.testing.assert_close(logits(model.network), logits(network), atol=CLOSE, rtol=0)
    assert all(parameter.requires_grad for parameter in model.network.parameters())  # as after loading without
    assert not any(module.training for module in model.network.modules())
    live = live_florence(network, words_text())
    differ = 0
    for task in TASKS[:3]:
        answer = model.predict(drawn_picture(1), task, options=SHORT)
        assert answer == live.predict(drawn_picture(1), task, options=SHORT)
        differ += answer.raw != plain.predict(drawn_picture(1), task, options=SHORT).raw
    assert differ
    assert has_adapter(network)  # the live model answers with a copy


def test_the_command_line_takes_an_adapter(answering_folder, folder, tmp_path, monkeypatch, capfd):
    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["openflorence", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return left.value.code, out + err

    drawn_picture(1).save(tmp_path / "a.png")
    run = ("run", tmp_path / "a.png", "-t", "caption", "--max-tokens", 24, "-m", answering_folder)
    code, said = call(*run, "--adapter", folder)
    answer = load(answering_folder, adapter=folder).predict(tmp_path / "a.png", "caption", options=SHORT)
    assert (code, said.splitlines()[0]) == (0, answer.text.splitlines()[0])
    assert said != call(*run)[1]
    scored = ("evaluate", "world", "--limit", 1, "--task", "caption", "-m", answering_folder, "--adapter", folder)
    code, said = call(*scored)
    assert code == 0
    assert f"{answering_folder} with {folder}" in said
    code, said = call("doctor", answering_folder, "--adapter", folder)
    # By hand: one encoder and one decoder layer, two stages of one depth: 6 + 10 + 2 + 16 + 1 layers.
    assert code == 0
    assert f"adapter: lora in {folder}, trained on the/drawn-one" in said
    assert "adapter: rank 4 on 35 layers" in said
    code, said = call("doctor", "nano", "--adapter", folder)
    assert code == 1
    assert "loads: yes" in said
    assert re.search("^problem: adapter .* does not fit this network", said, re.MULTILINE)
    code, said = call("run", tmp_path / "a.png", "-t", "caption", "--adapter", folder)
    assert code == 2
    assert said.startswith("BadCheckpoint: adapter")
