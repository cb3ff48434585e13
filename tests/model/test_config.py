"""config.json in and out, and what is refused."""

import json
from dataclasses import replace

import pytest
from spec import BASE, LARGE, LARGE_4K, microsoft_config, transformers_config

from openflorence.errors import BadConfig
from openflorence.model import config as sizes
from openflorence.model.config import FlorenceConfig, TextConfig, VisionConfig, read_config, write_config


@pytest.mark.parametrize("form", [microsoft_config, transformers_config])
@pytest.mark.parametrize(("size", "ours"), [(BASE, sizes.BASE), (LARGE, sizes.LARGE)], ids=["base", "large"])
def test_the_published_files_are_our_literals(form, size, ours):
    read = read_config(form(size))
    assert replace(read, text=replace(read.text, vocab=51289)) == ours


def test_the_long_large_differs_in_its_positions_only():
    read = read_config(microsoft_config(LARGE_4K))
    assert read.text.positions == 4096
    assert replace(read, text=replace(read.text, positions=1024)) == sizes.LARGE


@pytest.mark.parametrize("layout", ["microsoft", "transformers", "openflorence"])
@pytest.mark.parametrize("size", sizes.SIZES)
def test_what_was_written_reads_back(size, layout):
    config = sizes.SIZES[size]
    written = json.loads(json.dumps(write_config(config, layout, "float16", entries=config.text.vocab - 1)))
    assert read_config(written, side_px=config.side_px) == config


@pytest.mark.parametrize("size", [BASE, LARGE_4K], ids=["base", "large"])
def test_we_write_the_settings_that_were_published(size):
    # Every published setting that has a meaning for the network; notes of the training library are left out.
    notes = {"transformers_version", "num_hidden_layers", "classif_dropout", "classifier_dropout", "add_bias_logits"}
    notes |= {"gradient_checkpointing", "dim_embed"}
    for layout, form in (("microsoft", microsoft_config), ("transformers", transformers_config)):
        published = form(size)
        written = write_config(read_config(published), layout, "float16", entries=51289)
        for part in ("vision_config", "text_config"):
            for key, value in published[part].items():
                assert key in notes or written[part][key] == value, (layout, part, key)
        for key, value in published.items():
            assert key in notes or isinstance(value, dict) or written[key] == value, (layout, key)


@pytest.mark.parametrize(
    ("side_px", "tokens"),
    [(768, 577), (384, 145), (224, 50), (1024, 1025)],  # the table of the specification
)
def test_image_tokens_follow_the_input_side(side_px, tokens):
    assert FlorenceConfig(side_px=side_px).image_tokens == tokens


def test_the_prompt_has_what_the_image_leaves():
    assert sizes.BASE.max_prompt_tokens == 447  # 1024 positions and 577 image tokens
    assert read_config(microsoft_config(LARGE_4K)).max_prompt_tokens == 3519


def changed(section: str, **values: object) -> dict:
    published = microsoft_config(BASE)
    published[section] |= values
    return published


@pytest.mark.parametrize(
    ("published", "match"),
    [
        ({}, "no 'vision_config' section .it has nothing"),
        ({"vision_config": {}}, "no 'text_config'"),
        (changed("text_config", scale_embedding=True), "scale_embedding is True; this network only has False"),
        (changed("text_config", activation_function="relu"), "activation_function is 'relu'"),
        (changed("vision_config", mlp_ratio=2.0), "mlp_ratio is 2.0"),
        (changed("vision_config", projection_dim=1024), "projection_dim 1024 differs from d_model 768"),
        (changed("vision_config", depths=[1, 1, 9]), "4 widths but 3 depths"),
        (changed("vision_config", num_heads=[3, 8, 16, 32]), "width 128 is not divisible by 3 heads"),
        (changed("vision_config", num_heads=[0, 8, 16, 32]), "every stage needs at least 1"),
        (changed("vision_config", num_heads=4), "num_heads is 4; expected a list"),
        (changed("vision_config", patch_stride=["4", "2", "2", "2"]), "patch_stride is '4'"),
        (changed("text_config", d_model="768"), "d_model is '768'"),
        (changed("text_config", encoder_attention_heads=7), "width 768 is not divisible by 7 attention heads"),
        (changed("text_config", num_beams=True), "num_beams is True"),
        (changed("text_config", max_position_embeddings=-1), "max_position_embeddings is -1"),
        (changed("text_config", dropout="0.1"), "dropout is '0.1'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_cannot_be_is_named(published, match):
    with pytest.raises(BadConfig, match=match):
        read_config(published)


def test_null_turns_a_forced_token_off_and_is_the_default_elsewhere():
    read = read_config(changed("text_config", forced_bos_token_id=None, num_beams=None))
    assert (read.text.forced_bos, read.text.beams) == (None, 3)


def test_a_stage_needs_every_setting():
    with pytest.raises(BadConfig, match="4 widths but 2 strides"):
        VisionConfig(strides=(4, 2))
    with pytest.raises(BadConfig, match="0 attention heads"):
        TextConfig(decoder_heads=0)
