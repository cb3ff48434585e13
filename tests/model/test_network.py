"""The network as a whole: its size, the inputs it takes, and that fast ways equal plain ones."""

import pytest
import torch
from jaxtyping import TypeCheckError
from reference import draw_weights
from torch import nn

from openflorence.errors import BadImage, BadPrompt
from openflorence.model.checkpoint import empty_network
from openflorence.model.config import BASE, LARGE, FlorenceConfig, TextConfig, VisionConfig
from openflorence.model.florence import Network, cosine_table

TINY = FlorenceConfig(
    vision=VisionConfig(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(2, 2, 3, 4), groups=(2, 4, 3, 4), window=3),
    text=TextConfig(
        vocab=90, width=24, encoder_layers=2, decoder_layers=2, encoder_heads=3, decoder_heads=4,
        encoder_ffn=40, decoder_ffn=32, positions=40,
    ),
    side_px=64,
)  # fmt: skip


def parameter_count(module: torch.nn.Module) -> int:
    """Trainable numbers, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def network() -> Network:
    network = Network(TINY).eval()
    draw_weights(network, seed=21)
    return network


def drawn(batch: int = 1, side_hw: tuple[int, int] = (64, 64), prompt: int = 6, answer: int = 4):
    generator = torch.Generator().manual_seed(batch + prompt)
    pixels = torch.randn(batch, 3, *side_hw, generator=generator)
    return (
        pixels,
        torch.randint(90, (batch, prompt), generator=generator),
        torch.randint(90, (batch, answer), generator=generator),
    )


# --- the table of exact parameter counts of the specification: (base, large with 1024 positions) ---------------------

PARTS = {
    "DaViT": (90_368_000, 360_632_320),
    "image_projection": (786_432, 2_097_152),
    "image_proj_norm": (1_536, 2_048),
    "row + column embeddings": (51_200, 102_400),
    "shared word embedding": (39_389_952, 52_519_936),
    "position tables": (1_575_936, 2_101_248),
    "encoder layers": (42_527_232, 151_154_688),
    "decoder layers": (56_710_656, 201_560_064),
    "two embedding norms": (3_072, 4_096),
}


def parts_of(network: Network) -> dict[str, list[nn.Module]]:
    language, projector = network.seq2seq, network.projector
    return {
        "DaViT": [network.tower],
        "image_projection": [projector.project],
        "image_proj_norm": [projector.norm],
        "row + column embeddings": [projector.rows, projector.columns],
        "shared word embedding": [language.embed],
        "position tables": [language.encoder.positions, language.decoder.positions],
        "encoder layers": [language.encoder.layers],
        "decoder layers": [language.decoder.layers],
        "two embedding norms": [language.encoder.norm, language.decoder.norm],
    }


@pytest.mark.parametrize(("config", "column", "total"), [(BASE, 0, 231_414_016), (LARGE, 1, 770_173_952)])
def test_every_part_has_its_published_number_of_parameters(config, column, total):
    network = empty_network(config)
    counts = {name: sum(map(parameter_count, modules)) for name, modules in parts_of(network).items()}
    assert counts == {name: pair[column] for name, pair in PARTS.items()}
    assert parameter_count(network) == total == sum(counts.values())  # nothing outside the table


def test_the_frame_table_is_sine_and_cosine():
    # By hand: row 0 is 0, 1, 0, 1; row 1 of width 4 is sin 1, cos 1, sin 0.01, cos 0.01.
    table = cosine_table(100, 4)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    wanted = torch.tensor([0.841471, 0.540302, 0.0099998, 0.99995])
    torch.testing.assert_close(table[1], wanted, atol=1e-6, rtol=0)


# --- inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_hw", [(64, 64), (64, 160), (160, 64), (33, 47), (32, 320)])
def test_an_input_of_any_shape_gives_one_token_a_cell_and_one_more(side_hw, network):
    rows, columns = TINY.vision.grid_hw(side_hw)
    tokens = network.encode_image(torch.zeros(2, 3, *side_hw))
    assert tokens.shape == (2, 1 + rows * columns, 24)


def test_a_grid_larger_than_the_tables_is_refused(network):
    with pytest.raises(BadImage, match=r"51x2 cells.*50 rows and columns"):
        network.encode_image(torch.zeros(1, 3, 64, 51 * 32))


def test_too_many_tokens_are_refused_by_the_tables_of_this_checkpoint(network):
    pixels, _, answer = drawn()
    longest = TINY.max_prompt_tokens
    assert longest == 40 - 5  # positions, and a mean token with 2x2 cells
    network(pixels, torch.zeros(1, longest, dtype=torch.long), None, answer)
    with pytest.raises(BadPrompt, match="41 tokens, but this checkpoint has 40 positions"):
        network(pixels, torch.zeros(1, longest + 1, dtype=torch.long), None, answer)
    with pytest.raises(BadPrompt, match="41 tokens"):
        network(pixels, torch.zeros(1, 5, dtype=torch.long), None, torch.zeros(1, 41, dtype=torch.long))


def test_a_tensor_of_another_shape_is_refused_while_testing(network):
    # The axes in signatures are checked at run time here, and only here.
    pixels, prompt, answer = drawn()
    with pytest.raises(TypeCheckError):
        network(pixels[0], prompt, None, answer)
    with pytest.raises(TypeCheckError):
        network(pixels, prompt.float(), None, answer)


# --- fast ways equal plain ones -------------------------------------------------------------------------------------

CLOSE = {"atol": 1e-5, "rtol": 0}  # float32, logits of order 1: only the order of sums may differ


def test_a_padded_batch_answers_as_each_request_alone(network):
    pixels, prompt, answer = drawn(batch=3)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 2:] = False
    mask[2, 5:] = False
    with torch.no_grad():
        together = network(pixels, prompt, mask, answer)
        for row, length in enumerate((6, 2, 5)):
            alone = network(pixels[row : row + 1], prompt[row : row + 1, :length], None, answer[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, **CLOSE)


def test_what_stands_in_the_padding_changes_nothing(network):
    pixels, prompt, answer = drawn(batch=2)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    other = torch.where(mask.bool(), prompt, 7)
    with torch.no_grad():
        torch.testing.assert_close(network(pixels, prompt, mask, answer), network(pixels, other, mask, answer), **CLOSE)
        assert (network(pixels, prompt, None, answer) - network(pixels, other, None, answer)).abs().max() > 1e-2


def test_a_mask_of_ones_is_no_mask(network):
    pixels, prompt, answer = drawn(batch=2)
    with torch.no_grad():
        masked = network(pixels, prompt, torch.ones_like(prompt), answer)
        torch.testing.assert_close(masked, network(pixels, prompt, None, answer), **CLOSE)


def test_many_prompts_on_one_encoded_image_equal_separate_passes(network):
    pixels, _, answer = drawn()
    _, prompts, _ = drawn(batch=4)
    with torch.no_grad():
        image = network.encode_image(pixels)
        memory, mask = network.encode(image.expand(4, -1, -1), prompts)
        shared = network.seq2seq.logits(network.seq2seq.decode(answer.expand(4, -1), memory, mask))
        for row in range(4):
            alone = network(pixels, prompts[row : row + 1], None, answer)
            torch.testing.assert_close(shared[row : row + 1], alone, **CLOSE)


def test_a_later_answer_token_changes_nothing_before_it(network):
    pixels, prompt, answer = drawn()
    other = answer.clone()
    other[0, -1] = (other[0, -1] + 1) % 90
    with torch.no_grad():
        one, two = network(pixels, prompt, None, answer), network(pixels, prompt, None, other)
    torch.testing.assert_close(one[:, :-1], two[:, :-1], **CLOSE)
    assert (one[:, -1] - two[:, -1]).abs().max() > 1e-3


def test_the_output_head_is_the_embedding(network):
    # Tied by construction: there is no second tensor that a loader could leave behind.
    assert not any("head" in name for name, _ in network.named_parameters())
    x = torch.randn(1, 2, 24)
    torch.testing.assert_close(network.seq2seq.logits(x), x @ network.seq2seq.embed.weight.T)
