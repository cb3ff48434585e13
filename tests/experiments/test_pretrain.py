"""Stages of many data sets."""

import pytest
from tiny import tiny_network, world_text

from openflorence.errors import BadConfig
from openflorence.experiments.pretrain import Named, Shape, parse_datasets, set_side
from openflorence.model.checkpoint import load_checkpoint, save_checkpoint
from recipes.pretrain import Settings, stages_of


def test_data_sets_and_their_shares_are_read():
    named = parse_datasets("a/coco=2, b/vqa")
    assert named == [Named(name="coco", path="a/coco", share=2.0), Named(name="vqa", path="b/vqa")]
    assert parse_datasets("s3://bucket/fld=2") == [Named(name="fld", path="s3://bucket/fld", share=2.0)]


@pytest.mark.parametrize("words", ["", " , ", "coco=many", "coco=0", "coco=-1", "=3"])
def test_shares_that_mean_nothing_are_refused(words):
    with pytest.raises(BadConfig, match="data"):
        parse_datasets(words)


def test_the_papers_stages_have_the_papers_steps(monkeypatch):
    # Spec section 7, derived there: 3 billion samples in batches of 2048 are 1,464,844 steps, half a billion 244,141.
    monkeypatch.setenv("WORLD_SIZE", "8")
    shape = Shape(images=64, targets=4, accumulate=1)
    low, high = stages_of(Settings())
    assert (low.side_px, high.side_px) == (384, 768)
    assert (low.peak_rate, low.warmup) == (1e-4, 5000)
    assert (shape.steps(low.samples), shape.steps(high.samples)) == (1_464_844, 244_141)


def test_sides_and_samples_must_be_as_many():
    with pytest.raises(BadConfig, match="as many numbers"):
        stages_of(Settings(sides="384,768", samples="1e6"))


def test_a_network_at_another_side_is_saved_so(tmp_path):
    network = tiny_network()
    set_side(network, 96)
    save_checkpoint(network, world_text(), tmp_path / "at96")
    assert load_checkpoint(tmp_path / "at96").config.side_px == 96


def test_a_side_beyond_the_position_tables_is_refused():
    # The tiny network has 256 positions; 256 px make 16 x 16 cells, and with the mean token 257 image tokens.
    with pytest.raises(BadConfig, match="side_px 256 makes 16 x 16 cells"):
        set_side(tiny_network(), 256)
