"""Folders in and out: every layout, every number type, every way a file may be stored, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from reference import TINY_SIDE_PX, draw_weights, ours_from, tiny_reference, tiny_text
from safetensors.torch import load_file, save_file
from spec import to_microsoft
from torch import Tensor
from transformers import AutoTokenizer, Florence2ForConditionalGeneration

from openflorence.errors import BadCheckpoint
from openflorence.model.checkpoint import Checkpoint, convert, load_checkpoint, save_checkpoint
from openflorence.model.config import NANO, native_rows, with_vocab
from openflorence.model.florence import Network
from openflorence.model.tokenizer import Text

LAYOUTS = ("microsoft", "transformers", "openflorence")
SHARED = "language_model.model.shared.weight"
TIED = (
    SHARED,
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
)
BIAS = "language_model.final_logits_bias"


def write_microsoft(folder: Path, tensors: dict[str, Tensor], file: str = "model.safetensors", **text: int) -> Path:
    """A folder as microsoft publishes them, at tiny size; config.json is written by hand from the original form."""
    theirs = tiny_reference().config.to_dict()
    vision = {key: theirs["vision_config"][key] for key in ("depths", "num_heads", "num_groups", "window_size")}
    vision |= {key: theirs["vision_config"][key] for key in ("patch_size", "patch_stride", "patch_padding")}
    vision |= {"patch_prenorm": theirs["vision_config"]["patch_prenorm"], "projection_dim": 32}
    vision |= {"dim_embed": theirs["vision_config"]["embed_dim"], "drop_path_rate": 0.1}
    vision |= {"image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 12}}
    vision |= {"visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 5}}
    language = theirs["text_config"] | {"vocab_size": tiny_text().size} | text
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"vision_config": vision, "text_config": language}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": TINY_SIDE_PX}))
    tiny_text().tokenizer.save(str(folder / "tokenizer.json"))
    if file.endswith(".bin"):
        torch.save(tensors, folder / file)
    else:
        save_file(tensors, folder / file)
    return folder


def microsoft_tensors(seed: int = 0, **text: int) -> dict[str, Tensor]:
    """Every key of a tiny original checkpoint."""
    return to_microsoft(tiny_reference(seed, **text).state_dict(), tiny_text().size)


def same_weights(one: Network, other: Network) -> bool:
    """Whether two networks are equal bit for bit, under the same names."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def twin(tmp_path: Path) -> Checkpoint:
    """The transformers-layout model that microsoft_tensors() were made from."""
    return ours_from(tiny_reference(0), tmp_path / "twin")


def logits(network: Network) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        return network(pixels, torch.tensor([[0, 50, 60, 2]]), None, torch.tensor([[2, 0, 70]]))


@pytest.fixture
def nano() -> Checkpoint:
    """A network of the nano shape with a tokenizer that fills its vocabulary: no spare row for `<image>`."""
    text = tiny_text()
    config = with_vocab(NANO, text.size)
    network = Network(config).eval()
    draw_weights(network, seed=11)
    return Checkpoint(
        network=network, text=text, config=config, layout="openflorence", folder=Path("."), stored="float32"
    )


# --- the microsoft layout -------------------------------------------------------------------------------------------

KEPT = {
    "all four names": (TIED, True),
    "no logits bias": (TIED, False),
    "only shared": (TIED[:1], True),
    "only lm_head": (TIED[3:], False),
    "without lm_head, as re-saved in 2025": (TIED[:3], True),
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", KEPT)
def test_any_of_the_tied_names_is_enough(kept, file, tmp_path):
    names, bias = KEPT[kept]
    tensors = {n: t for n, t in microsoft_tensors().items() if (n in names or n not in TIED) and (bias or n != BIAS)}
    loaded = load_checkpoint(write_microsoft(tmp_path / "ms", tensors, file))
    rows = tiny_text().size
    assert loaded.layout == "microsoft"
    assert loaded.filler_rows == 0
    # The same matrix product over 35 rows fewer may be summed in another order.
    torch.testing.assert_close(logits(loaded.network), logits(twin(tmp_path).network)[..., :rows], atol=1e-5, rtol=0)


def test_tied_tensors_that_share_storage_in_a_bin_are_read(tmp_path):
    tensors = microsoft_tensors()
    tensors |= dict.fromkeys(TIED, tensors[SHARED])
    loaded = load_checkpoint(write_microsoft(tmp_path / "ms", tensors, "pytorch_model.bin"))
    assert torch.equal(loaded.network.seq2seq.embed.weight, tensors[SHARED])


def test_a_bin_of_the_old_form_is_read(tmp_path):
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors())
    (folder / "model.safetensors").unlink()
    torch.save(microsoft_tensors(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert same_weights(load_checkpoint(folder).network, load_checkpoint(write_bin(tmp_path)).network)


def write_bin(tmp_path: Path) -> Path:
    return write_microsoft(tmp_path / "bin", microsoft_tensors(), "pytorch_model.bin")


def test_half_precision_in_a_bin_is_computed_in_float32(tmp_path):
    halves = {name: tensor.half() for name, tensor in microsoft_tensors().items()}
    loaded = load_checkpoint(write_microsoft(tmp_path / "ms", halves, "pytorch_model.bin"))
    assert loaded.stored == "float16"
    assert loaded.network.seq2seq.embed.weight.dtype == torch.float32
    assert torch.equal(loaded.network.seq2seq.embed.weight.half(), halves[SHARED])


def test_positions_come_from_the_config_and_are_checked(tmp_path):
    tensors = microsoft_tensors(max_position_embeddings=400)
    loaded = load_checkpoint(write_microsoft(tmp_path / "long", tensors, max_position_embeddings=400))
    assert loaded.config.text.positions == 400
    with pytest.raises(BadCheckpoint, match=r"embed_positions\.weight \(402, 32\), expected \(98, 32\)"):
        load_checkpoint(write_microsoft(tmp_path / "short", tensors))


def test_the_original_bias_and_positions_need_no_tokens_in_the_tokenizer(tmp_path):
    # As published: tokenizer.json without the 1024 added tokens.
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors())
    parts = json.loads((folder / "tokenizer.json").read_text())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["id"] < tiny_text().size - 1024]
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    assert load_checkpoint(folder).text.encode("<loc_5>") == tiny_text().encode("<loc_5>")


def test_the_text_config_governs_and_the_generation_config_fills_in(tmp_path):
    # As published: early stopping is true in one file and false in the other, and the first is what takes effect.
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors(), early_stopping=True)
    (folder / "generation_config.json").write_text(json.dumps({"early_stopping": False, "num_beams": 5}))
    text = load_checkpoint(folder).config.text
    assert (text.early_stopping, text.beams) == (True, 5)


# --- what is refused ------------------------------------------------------------------------------------------------


def refusal(tmp_path: Path, tensors: dict[str, Tensor], **text: int) -> str:
    """What is said about a checkpoint that is refused."""
    with pytest.raises(BadCheckpoint) as caught:
        load_checkpoint(write_microsoft(tmp_path / "ms", tensors, **text))
    return str(caught.value)


def test_tied_names_that_differ_are_refused(tmp_path):
    tensors = microsoft_tensors()
    tensors[TIED[3]] = tensors[TIED[3]] + 1
    assert re.search("lm_head.weight differs from .*shared.weight.*broke the tying", refusal(tmp_path, tensors))


def test_no_embedding_at_all_is_refused(tmp_path):
    rest = {name: tensor for name, tensor in microsoft_tensors().items() if name not in TIED}
    assert re.search("missing .*shared", refusal(tmp_path, rest))


def test_a_bias_on_the_logits_is_refused(tmp_path):
    tensors = microsoft_tensors()
    tensors[BIAS][0, 3] = 0.5
    assert re.search("final_logits_bias has 1 nonzero", refusal(tmp_path, tensors))
    assert re.search("misshapen .*final_logits_bias", refusal(tmp_path, tensors | {BIAS: torch.zeros(3)}))


def test_missing_extra_and_misshapen_keys_are_all_named(tmp_path):
    tensors = microsoft_tensors()
    del tensors["image_proj_norm.bias"]
    tensors["vision_tower.head.weight"] = torch.zeros(2, 3)
    tensors["image_projection"] = tensors["image_projection"][:, :-1].contiguous()
    assert re.search(
        r"(?s)misshapen image_projection \(32, 31\), expected \(32, 32\).*missing image_proj_norm\.bias \(32,\)"
        r".*extra vision_tower\.head\.weight \(2, 3\)",
        refusal(tmp_path, tensors),
    )


def test_many_problems_are_cut_after_ten(tmp_path):
    few = {name: tensor for name, tensor in microsoft_tensors().items() if not name.startswith("vision_tower")}
    assert re.search("and [0-9]+ more", refusal(tmp_path, few))


def test_another_frame_table_is_refused(tmp_path):
    tensors = microsoft_tensors()
    tensors["visual_temporal_embed.pos_idx_to_embed"] = tensors["visual_temporal_embed.pos_idx_to_embed"] + 0.1
    assert re.search("frame table", refusal(tmp_path, tensors))


def test_a_missing_frame_table_is_recomputed(tmp_path):
    tensors = microsoft_tensors()
    table = tensors.pop("visual_temporal_embed.pos_idx_to_embed")
    loaded = load_checkpoint(write_microsoft(tmp_path / "ms", tensors))
    torch.testing.assert_close(loaded.network.projector.frames, table)


def test_a_tokenizer_of_another_checkpoint_is_refused(tmp_path):
    theirs = ours_from(tiny_reference(0), tmp_path / "native").folder
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(config | {"image_token_id": 1305}))
    with pytest.raises(BadCheckpoint, match=f"image_token_id 1305.*{tiny_text().size} entries"):
        load_checkpoint(theirs)
    tensors = {n: t[:1300].clone() if n in TIED else t for n, t in microsoft_tensors().items() if n != BIAS}
    told = refusal(tmp_path, tensors, vocab_size=1300)
    assert f"{tiny_text().size} entries, the embedding 1300 rows" in told


def test_images_prepared_in_another_way_are_refused(tmp_path):
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors())
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(BadCheckpoint, match="image_mean"):
        load_checkpoint(folder)
    settings.write_text(json.dumps({"size": {"height": 64, "width": 96}}))
    with pytest.raises(BadCheckpoint, match="equal height and width"):
        load_checkpoint(folder)
    settings.write_text(json.dumps({"size": {"shortest_edge": 64}}))
    with pytest.raises(BadCheckpoint, match="shortest_edge"):
        load_checkpoint(folder)


def test_the_input_side_is_found_where_either_library_writes_it(tmp_path):
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors())
    assert load_checkpoint(folder).config.side_px == TINY_SIDE_PX
    (folder / "preprocessor_config.json").unlink()
    assert load_checkpoint(folder).config.side_px == 768  # the published default
    processor = {"image_processor": {"size": {"height": 96, "width": 96}}}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    assert load_checkpoint(folder).config.side_px == 96


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    folder = write_microsoft(tmp_path / "ms", microsoft_tensors())
    (folder / name).unlink()
    with pytest.raises(BadCheckpoint, match=name):
        load_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BadCheckpoint, match="nowhere is not a folder"):
        load_checkpoint(tmp_path / "nowhere")


# --- saving and converting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_saved_loads_again(layout, dtype, nano, tmp_path):
    save_checkpoint(nano.network, nano.text, tmp_path / "saved", layout, dtype)
    again = load_checkpoint(tmp_path / "saved")
    rows = nano.text.size
    assert (again.layout, again.stored) == (layout, str(dtype).removeprefix("torch."))
    assert with_vocab(again.config, rows) == nano.config
    for name, weight in nano.network.named_parameters():
        assert torch.equal(again.network.get_parameter(name)[: len(weight)], weight.to(dtype).float()), name
    assert [item.name for item in tmp_path.iterdir()] == ["saved"]  # nothing half-written is left


@pytest.mark.parametrize("max_shard_bytes", [None, 200_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", [(a, b) for a in LAYOUTS for b in LAYOUTS if a != b], ids="-".join)
def test_there_and_back_is_the_same_bit_for_bit(way, dtype, max_shard_bytes, nano, tmp_path):
    one, other = way
    save_checkpoint(nano.network, nano.text, tmp_path / "a", one, dtype)
    convert(tmp_path / "a", tmp_path / "b", other, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "b" / "model.safetensors.index.json").exists() == (max_shard_bytes is not None)
    convert(tmp_path / "b", tmp_path / "c", one)
    before, after = load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "c" / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype == dtype
        assert torch.equal(before[name], after[name]), name
    for name in ("config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_a_bin_in_the_published_form_survives_two_conversions(tmp_path):
    tensors = {name: tensor.half() for name, tensor in microsoft_tensors().items()}
    folder = write_microsoft(tmp_path / "a", tensors, "pytorch_model.bin")
    convert(folder, tmp_path / "b", "transformers")
    convert(tmp_path / "b", tmp_path / "c", "microsoft")
    after = load_file(tmp_path / "c" / "model.safetensors")
    assert set(tensors) - set(after) == set(TIED[1:])  # safetensors holds a tied tensor once
    assert all(torch.equal(tensors[name], after[name]) for name in after)


def test_filler_rows_come_with_the_transformers_layout_and_go_with_it(nano, tmp_path):
    rows = nano.text.size
    save_checkpoint(nano.network, nano.text, tmp_path / "native", "transformers")
    native = load_checkpoint(tmp_path / "native")
    assert native.config.text.vocab == native_rows(rows) == 1344  # 1309 entries and <image>, up to a multiple of 64
    assert native.filler_rows == 1344 - rows
    embed = native.network.seq2seq.embed.weight
    torch.testing.assert_close(embed[rows:], embed[:rows].mean(dim=0).expand(35, -1), atol=1e-6, rtol=0)
    save_checkpoint(native.network, native.text, tmp_path / "ours")
    assert load_checkpoint(tmp_path / "ours").filler_rows == 35  # kept: the network in hand is saved as it is
    save_checkpoint(native.network, native.text, tmp_path / "ms", "microsoft")  # has no place for them
    assert same_weights(load_checkpoint(tmp_path / "ms").network, nano.network)
    convert(tmp_path / "native", tmp_path / "converted", "openflorence")
    assert same_weights(load_checkpoint(tmp_path / "converted").network, nano.network)


@pytest.mark.parametrize(("entries", "rows"), [(51289, 51328), (2048, 2112), (2047, 2048), (63, 64), (64, 128)])
def test_native_rows_leave_room_for_image(entries, rows):
    # 51289 and 51328 are published; the others by hand.
    assert native_rows(entries) == rows


def test_saving_over_a_sharded_folder_leaves_no_old_shard(nano, tmp_path):
    folder = tmp_path / "saved"
    save_checkpoint(nano.network, nano.text, folder, max_shard_bytes=500_000)
    (folder / "notes.txt").write_text("mine")
    draw_weights(nano.network, seed=12)
    save_checkpoint(nano.network, nano.text, folder)
    assert [item.name for item in folder.glob("model*")] == ["model.safetensors"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert same_weights(load_checkpoint(folder).network, nano.network)
    save_checkpoint(nano.network, nano.text, folder, max_shard_bytes=500_000)
    assert not (folder / "model.safetensors").exists()
    assert same_weights(load_checkpoint(folder).network, nano.network)


def test_an_interrupted_save_leaves_the_old_one(nano, tmp_path, monkeypatch):
    save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    before = {item.name: item.read_bytes() for item in (tmp_path / "saved").iterdir()}
    monkeypatch.setattr("openflorence.model.files.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    draw_weights(nano.network, seed=13)
    with pytest.raises(OSError, match="full"):
        save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    assert {item.name: item.read_bytes() for item in (tmp_path / "saved").iterdir()} == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_weight_that_overflows_is_named_and_nothing_is_written(nano, tmp_path):
    nano.network.projector.norm.weight.data[3] = 1e5
    with pytest.raises(BadCheckpoint, match=r"projector\.norm\.weight is not finite as float16.*100000"):
        save_checkpoint(nano.network, nano.text, tmp_path / "saved", dtype=torch.float16)
    assert not (tmp_path / "saved").exists()


def test_a_folder_is_not_converted_into_itself(nano, tmp_path):
    save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    with pytest.raises(BadCheckpoint, match="another folder"):
        convert(tmp_path / "saved", tmp_path / "." / "saved", "microsoft")


def test_a_checkpoint_stays_whole_while_its_folder_is_overwritten(nano, tmp_path):
    # Weights are mapped from the file, so writing over it must not reach a network that is in use.
    save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    draw_weights(nano.network, seed=14)
    save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved")
    assert not same_weights(loaded.network, nano.network)
    assert logits(loaded.network).isfinite().all()


def test_the_trained_network_does_not_write_into_its_file(nano, tmp_path):
    save_checkpoint(nano.network, nano.text, tmp_path / "saved")
    loaded = load_checkpoint(tmp_path / "saved")
    assert not loaded.network.training
    assert all(parameter.requires_grad for parameter in loaded.network.parameters())
    with torch.no_grad():
        loaded.network.seq2seq.embed.weight.zero_()
    assert same_weights(load_checkpoint(tmp_path / "saved").network, nano.network)


def test_transformers_loads_a_saved_checkpoint_with_its_own_classes(nano, tmp_path):
    save_checkpoint(nano.network, nano.text, tmp_path / "saved", "transformers", torch.float16)
    model, report = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values()), report
    assert model.dtype == torch.float16
    assert model.config.image_token_id == nano.text.size
    assert model.generation_config.num_beams == 3
    assert model.generation_config.forced_bos_token_id == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").convert_tokens_to_ids("<image>") == nano.text.size
    assert Text.read(tmp_path / "saved").size == nano.text.size
