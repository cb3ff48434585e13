"""The same numbers as transformers, with the same random weights, in float32 on one CPU."""

import pytest
import torch
from reference import (
    TINY_SIDE_PX,
    VARIANTS,
    draw_weights,
    ours_from,
    reference_logits,
    tiny_reference,
    tiny_text,
)
from spec import BASE, microsoft_config, to_microsoft, transformers_config
from transformers import Florence2Config, Florence2ForConditionalGeneration

from openflorence.model.checkpoint import load_checkpoint, rename_to_ours, save_checkpoint
from openflorence.model.config import read_config
from openflorence.model.florence import Network

# Logits are of order 1. Differences of 1e-6 come from the order of sums; 1e-4 leaves room for other kernels, and a
# forgotten weight gives ten times as much at the least (test_a_forgotten_weight_would_show).
CLOSE = 1e-4
SIDES_HW = {
    "square": (TINY_SIDE_PX, TINY_SIDE_PX),
    "wide": (64, 112),
    "tall": (144, 80),
    "no multiple": (71, 90),
}


def drawn_inputs(side_hw: tuple[int, int], batch: int = 1) -> dict[str, torch.Tensor]:
    """Pixels, a prompt and an answer so far; the same on every run."""
    generator = torch.Generator().manual_seed(5)
    entries = tiny_text().size
    return {
        "pixels": torch.randn(batch, 3, *side_hw, generator=generator),
        "prompt_ids": torch.randint(entries, (batch, 9), generator=generator),
        "decoder_ids": torch.randint(entries, (batch, 6), generator=generator),
    }


def difference(ours: Network, reference: Florence2ForConditionalGeneration, mask=None, **inputs) -> float:
    """Largest difference of logits, over the rows both have."""
    with torch.no_grad():
        logits = ours(inputs["pixels"], inputs["prompt_ids"], mask, inputs["decoder_ids"])
    wanted = reference_logits(reference, prompt_mask=mask, **inputs)
    rows = min(logits.shape[-1], wanted.shape[-1])
    assert rows >= tiny_text().size
    return (logits[..., :rows] - wanted[..., :rows]).abs().max().item()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", SIDES_HW)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_saved_by_transformers_gives_the_same_logits_here(variant, side, attention, tmp_path):
    reference = tiny_reference(seed=1, variant=variant, attention=attention)
    ours = ours_from(reference, tmp_path).network
    assert difference(ours, reference, **drawn_inputs(SIDES_HW[side])) < CLOSE


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_padded_batch_gives_the_same_logits(variant, attention, tmp_path):
    reference = tiny_reference(seed=2, variant=variant, attention=attention)
    inputs = drawn_inputs((64, 64), batch=3)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[0, 4:] = 0
    mask[2, 1:] = 0
    inputs["prompt_ids"][mask == 0] = 1  # <pad>
    assert difference(ours_from(reference, tmp_path).network, reference, mask, **inputs) < CLOSE


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_saved_here_gives_the_same_logits_in_transformers(variant, tmp_path):
    checkpoint = ours_from(tiny_reference(seed=3, variant=variant), tmp_path / "theirs")
    save_checkpoint(checkpoint.network, checkpoint.text, tmp_path / "ours", "transformers")
    again, report = Florence2ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert difference(checkpoint.network, again.eval(), **drawn_inputs((64, 96), batch=2)) < CLOSE


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_microsoft_layout_gives_the_logits_of_its_twin(variant):
    reference = tiny_reference(seed=4, variant=variant)
    rows = reference.config.text_config.vocab_size
    config = read_config(reference.config.to_dict())
    network = Network(config).eval()
    network.load_state_dict(rename_to_ours(to_microsoft(reference.state_dict(), rows), "microsoft", config))
    assert difference(network, reference, **drawn_inputs((64, 64))) < CLOSE


def test_a_forgotten_weight_would_show(tmp_path):
    # Every single weight, set to what an untouched module holds: the comparison must see each of them.
    reference = tiny_reference(seed=6, variant="window_padding")
    draw_weights(reference, seed=6, std=0.2)  # louder: the first stages are far from the logits
    network = ours_from(reference, tmp_path).network
    inputs = drawn_inputs((64, 64))
    wanted = reference_logits(reference, prompt_mask=None, **inputs)
    unseen = []
    for name, parameter in network.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        with torch.no_grad():
            logits = network(inputs["pixels"], inputs["prompt_ids"], None, inputs["decoder_ids"])
        if (logits - wanted).abs().max() < 10 * CLOSE:
            unseen.append(name)
        parameter.data.copy_(kept)
    # Softmax ignores what is added to all keys alike, so no key bias of a sequence attention can ever show.
    assert [name for name in unseen if not name.endswith("k_proj.bias")] == []


@pytest.mark.slow
def test_the_base_size_gives_the_same_logits_at_768_px():
    config = Florence2Config(**transformers_config(BASE), attn_implementation="sdpa")
    reference = Florence2ForConditionalGeneration(config).eval()
    draw_weights(reference, seed=7, std=0.02, embed_std=0.05)
    ours = read_config(transformers_config(BASE))
    with torch.device("meta"):
        network = Network(ours).eval()
    network.load_state_dict(rename_to_ours(reference.state_dict(), "transformers", ours), assign=True)
    generator = torch.Generator().manual_seed(8)
    inputs = {
        "pixels": torch.randn(1, 3, 768, 768, generator=generator),
        "prompt_ids": torch.randint(51289, (1, 12), generator=generator),
        "decoder_ids": torch.randint(51289, (1, 8), generator=generator),
    }
    assert difference(network, reference, **inputs) < CLOSE


def test_the_file_of_reduced_precision_is_computed_in_float32(tmp_path):
    reference = tiny_reference(seed=9).half()
    checkpoint = ours_from(reference, tmp_path)
    assert checkpoint.stored == "float16"
    assert {parameter.dtype for parameter in checkpoint.network.parameters()} == {torch.float32}
    assert difference(checkpoint.network, reference.float(), **drawn_inputs((64, 64))) < CLOSE
    assert load_checkpoint(tmp_path, dtype=torch.bfloat16).network.seq2seq.embed.weight.dtype == torch.bfloat16


def test_the_two_published_forms_of_config_say_the_same():
    # Dropouts, decoding defaults, positions, tables: everything but the rows of the vocabulary.
    one, other = read_config(microsoft_config(BASE)), read_config(transformers_config(BASE))
    assert (one.text.vocab, other.text.vocab) == (51289, 51328)
    assert one.vision == other.vision
