"""Models of the transformers library: tiny ones saved by the tests, their last layers set so that answers are known.

With a last layer of zeros the output is its bias, so what a model says can be worked out by hand.
"""

import json
import math

import numpy as np
import pytest
import torch
from rows import broken_row, row_of

from openflorence.contract.records import Origin, RegionNote
from openflorence.contract.shapes import Box, Point
from openflorence.engine.pipelines import Captioner, Detector, MaskMaker, OpenDetector, without_doubles
from openflorence.engine.stages import Context, Factory, StageSpec, make_stage
from openflorence.errors import BadCheckpoint, BadConfig, BadImage

transformers = pytest.importorskip("transformers")
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}


def say(layer: torch.nn.Linear, *biases: float) -> None:
    """Let a layer give the same, whatever it is given."""
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor(biases)


@pytest.fixture(scope="module")
def yolos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yolos")
    torch.manual_seed(0)
    model = transformers.YolosForObjectDetection(
        transformers.YolosConfig(
            **VISION,
            image_size=[32, 32],
            num_detection_tokens=3,
            id2label={0: "cat", 1: "dog"},
            label2id={"cat": 0, "dog": 1},
        )
    )
    say(model.class_labels_classifier.layers[-1], 2.0, 0.0, 1.0)  # cat, dog, nothing
    say(model.bbox_predictor.layers[-1], 0.0, 0.0, 0.0, 0.0)  # the sigmoid of which is one half
    model.save_pretrained(folder)
    transformers.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return str(folder)


def ready(stage):
    stage.setup(Context())
    return stage


def test_a_detector_gives_boxes_labels_and_scores(yolos):
    told = ready(Detector(yolos, round=2)).process([row_of(PICTURE), row_of(PICTURE[:, :32])])
    assert [len(notes.regions) for notes in told] == [3, 3]
    note = told[0].regions[0]
    assert note.label == "cat"
    # By hand: the middle half of 64 x 48, and e^2 of e^2 + e^0 + e^1.
    assert note.box == Box(16, 12, 48, 36)
    assert note.score == pytest.approx(math.exp(2) / (math.exp(2) + 1 + math.exp(1)), abs=1e-5)
    assert note.origin.source == "transformers"
    assert note.origin.round == 2
    assert told[1].regions[0].box == Box(8, 12, 24, 36)  # the same half of 32 x 48
    assert told[0].whole == {"objects"}


def test_a_batch_gives_what_single_pictures_give(yolos):
    stage, rows = ready(Detector(yolos)), [row_of(PICTURE), row_of(PICTURE[:, :32]), row_of(PICTURE[::-1])]
    assert stage.process(rows) == [stage.process([row])[0] for row in rows]


def test_a_detector_leaves_out_what_is_below_its_limit(yolos):
    assert ready(Detector(yolos, least=0.7)).process([row_of(PICTURE)])[0].regions == ()


def test_a_picture_that_cannot_be_read_is_raised(yolos):
    with pytest.raises(BadImage):
        ready(Detector(yolos)).process([row_of(PICTURE), broken_row()])


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owl")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=16
    )
    text = {key: value for key, value in VISION.items() if key != "patch_size"}
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    torch.manual_seed(0)
    model = transformers.OwlViTForObjectDetection(
        transformers.OwlViTConfig(
            text_config={**text, "vocab_size": len(words), "max_position_embeddings": 16, **ends},
            vision_config={**VISION, "image_size": 32},
            projection_dim=16,
        )
    )
    say(model.box_head.dense2, 0.0, 0.0, 0.0, 0.0)
    model.save_pretrained(folder)
    processor = transformers.OwlViTImageProcessor(size={"height": 32, "width": 32})
    transformers.OwlViTProcessor(processor, tokenizer).save_pretrained(folder)
    return str(folder)


def test_an_open_detector_finds_what_it_is_told_to(owl):
    (notes,) = ready(OpenDetector(owl, ["cat", "red car"], least=0.0)).process([row_of(PICTURE)])
    assert {note.label for note in notes.regions} == {"cat", "red car"}
    scores = [note.score for note in notes.regions]
    assert scores == sorted(scores, reverse=True)
    # Without a say of the box head, a box is as large as one of 4 x 4 patches, around the far corner of it.
    assert Box(8, 6, 24, 18) in {note.box for note in notes.regions}


def test_an_open_detector_needs_words(owl):
    with pytest.raises(BadConfig, match="labels"):
        OpenDetector(owl, [])


def test_a_captioner_gives_a_text(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "[DEC]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    text = {key: value for key, value in VISION.items() if key != "patch_size"}
    ends = {"bos_token_id": 8, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    model = transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(
            text_config={
                **text,
                "vocab_size": len(words),
                "encoder_hidden_size": 16,
                "max_position_embeddings": 32,
                **ends,
            },
            vision_config={**VISION, "image_size": 32},
            projection_dim=16,
        )
    )
    say(model.text_decoder.cls.predictions.decoder, *(3.0 if word == "cat" else 0.0 for word in words))
    model.text_decoder.cls.predictions.bias.data = model.text_decoder.cls.predictions.decoder.bias.data
    model.save_pretrained(tmp_path)
    processor = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(processor, transformers.BertTokenizer(str(tmp_path / "vocab.txt"))).save_pretrained(
        tmp_path
    )
    stage = ready(Captioner(str(tmp_path), level="detailed", max_tokens=3))
    (notes,) = stage.process([row_of(PICTURE)])
    assert [(note.text, note.level, note.score) for note in notes.texts] == [("cat cat cat", "detailed", None)]


def test_a_mask_maker_gives_outlines(tmp_path):
    torch.manual_seed(0)
    model = transformers.SamModel(
        transformers.SamConfig(
            vision_config={
                **{key: value for key, value in VISION.items() if key != "intermediate_size"},
                "output_channels": 8,
                "image_size": 32,
                "mlp_ratio": 1.0,
                "global_attn_indexes": [0],
                "num_pos_feats": 4,
                "window_size": 2,
            },
            prompt_encoder_config={"hidden_size": 8, "image_size": 32, "patch_size": 8, "mask_input_channels": 4},
            mask_decoder_config={
                "hidden_size": 8,
                "mlp_dim": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 8,
                "iou_head_depth": 2,
            },
        )
    )
    say(model.mask_decoder.iou_prediction_head.proj_out, 0.9, 0.9, 0.9, 0.9)
    model.save_pretrained(tmp_path)
    transformers.SamImageProcessor(
        size={"longest_edge": 32},
        pad_size={"height": 32, "width": 32},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(tmp_path)
    (notes,) = ready(MaskMaker(str(tmp_path), points=4, least=0.5, least_stable=0.0)).process([row_of(PICTURE)])
    assert notes.regions
    for note in notes.regions:
        assert note.score == pytest.approx(0.9)
        assert note.label == ""
        x0, y0, x1, y1 = note.bounds
        assert x0 >= 0 and y0 >= 0 and x1 <= 64 and y1 <= 48  # noqa: PT018
    (nothing,) = ready(MaskMaker(str(tmp_path), points=4, least=0.95, least_stable=0.0)).process([row_of(PICTURE)])
    assert nothing.regions == ()


def test_of_outlines_that_are_nearly_one_the_surest_stays():
    def mask(x: float, score: float) -> RegionNote:
        ring = Point(x, 0), Point(x + 10, 0), Point(x + 10, 10), Point(x, 10)
        return RegionNote(polygons=(ring,), score=score, origin=Origin(source=str(x)))

    # By hand: one pixel apart share 9 of 11 columns, 0.82; four pixels apart 6 of 14, 0.43.
    assert [note.score for note in without_doubles([mask(0, 0.5), mask(1, 0.9), mask(5, 0.6)])] == [0.9, 0.6]


def test_nothing_is_fetched_and_no_code_is_run_unasked(tmp_path, monkeypatch):
    def fetch(name, *, local_files_only, **_):
        assert local_files_only
        raise OSError("not cached")

    monkeypatch.setattr("openflorence.engine.pipelines.snapshot_download", fetch)
    with pytest.raises(BadCheckpoint, match="someone/something is no folder and not in the local cache"):
        Detector("someone/something").setup(Context())
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}')
    with pytest.raises(BadCheckpoint, match="code that comes with a model is not run"):
        Detector(str(tmp_path)).setup(Context())


def test_a_stage_is_made_of_plain_settings(yolos):
    stage = make_stage(StageSpec(Factory("openflorence.engine.pipelines:Detector", {"model": yolos, "layer": "yolos"})))
    assert stage.layer == "yolos"
    assert len(stage.revision) == 12  # so that other weights in the folder are another run
