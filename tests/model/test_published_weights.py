"""The published weights answer as recorded. Opt-in, because the weights are not part of this repository:

    OPENFLORENCE_WEIGHTS=weights python -m pytest -m weights

The folder holds these, and what is missing fails:

    community-base           florence-community/Florence-2-base
    community-large          florence-community/Florence-2-large, which has 4096 positions
    microsoft-base           microsoft/Florence-2-base
    microsoft-large-f0acedb  microsoft/Florence-2-large at f0acedbf9b780e04fe1f9111fcf53187388f3d03, the last revision
                             with the first weights; since December 2024 the name stands for other ones
    images/car.jpg           the pictures that were asked about; where they come from and their sizes
    images/australia.jpg     are in tests/golden/published.json
    images/book.jpg

A checkpoint folder is what `hf download REPOSITORY --revision REVISION --local-dir FOLDER` writes; of its files the
weights, config.json and tokenizer.json are needed. The four take about 4 GB on disk, and a test up to 4 GB of memory;
on a CPU the answers take many minutes. Words are compared exactly, bins to within one; tests/goldens.py says why.
Tests without the mark check the recordings and the checking itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import drawn_picture
from goldens import (
    VARIABLE,
    Golden,
    Listening,
    Said,
    ask,
    batches,
    complaints,
    cut,
    find,
    given_folder,
    load_as_recorded,
    one_region_each,
    only_ends,
    read_file,
    read_goldens,
    read_picture,
    spell_pieces,
)

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import bins_to_box, points_to_bins
from openflorence.contract.prompts import write_prompt
from openflorence.contract.regions import Answer
from openflorence.contract.tasks import find_task
from openflorence.model.checkpoint import load_checkpoint
from openflorence.model.decode import decode
from openflorence.model.fast import FastDecoder
from openflorence.model.images import to_batch
from openflorence.model.predict import AskOptions
from openflorence.model.search import DecodeSettings

GOLDENS = read_goldens()
CHECKPOINTS = read_file()["checkpoints"]
BY_NAME = {golden.name: golden for golden in GOLDENS}
ASKED = [
    pytest.param(checkpoint, group, id=f"{checkpoint}-{name}")
    for checkpoint in CHECKPOINTS
    for name, group in batches([golden for golden in GOLDENS if checkpoint in golden.checkpoints])
]


# ---- with the weights


@pytest.fixture
def folder() -> Path:
    given = given_folder()
    if given is None:
        pytest.skip(f"{VARIABLE} is not set")
    return given


@lru_cache(maxsize=1)  # not all four: they are 8 GB
def loaded(folder: Path, early_stopping: bool | None) -> Listening:
    return load_as_recorded(folder, early_stopping)


@pytest.mark.weights
def test_the_folder_of_weights_is_named():
    asked = f"set {VARIABLE} to a folder with {', '.join(CHECKPOINTS)} and images: see {__name__}"
    assert given_folder() is not None, asked


@pytest.mark.weights
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_the_one_its_folder_says(name, folder):
    (early,) = {golden.early_stopping for golden in GOLDENS if name in golden.checkpoints}
    found = loaded(find(folder, name), early).checkpoint
    wanted = CHECKPOINTS[name]
    assert found.layout == wanted["layout"]
    assert found.config.text.positions == wanted["positions"]  # the large one was replaced by one with more


@pytest.mark.weights
@pytest.mark.timeout(3600)  # the large one says 600 tokens with three beams
@pytest.mark.parametrize(("name", "group"), ASKED)
def test_a_published_checkpoint_answers_as_recorded(name, group, folder):
    pictures = {golden.image: read_picture(folder, golden.image) for golden in group}
    model = loaded(find(folder, name), group[0].early_stopping)
    heard = ask(model, group, pictures)
    found = [line for golden, said in zip(group, heard, strict=True) for line in complaints(golden, said)]
    assert not found, "\n".join(["", *found])


# ---- without the weights: the recordings


def read(golden: Golden, pieces: Sequence, published: bool = False) -> Answer:
    wh = read_file()["images"][golden.image]["wh"]
    return read_answer(spell_pieces(pieces), golden.task, tuple(wh), published=published)


def test_every_recording_is_there():
    names = [f"N{index}" for index in range(1, 13)] + [f"V{index}" for index in range(1, 15)]
    assert [golden.name for golden in GOLDENS] == names  # 12 of the library, 14 of the notebook
    assert len({golden.task for golden in GOLDENS}) == 14  # all but reading a region, of which no answer is recorded
    assert [golden.name for golden in GOLDENS if golden.parsed] == ["N2", "N3", "N6", "N9"]
    assert [golden.name for golden in GOLDENS if golden.starts] == ["N8", "N10", "N11"]
    pairs = [param.id.split("-")[-1] for param in ASKED if "+" in param.id]
    assert pairs == ["N2+N3", "N5+N6", "N8+N9", "N11+N12", "N2+N3", "N5+N6"]
    assert len(ASKED) == 4 + 4 + 4 + 14  # base, large and base once more, each in 4 groups; the notebook


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
@pytest.mark.parametrize("published", [False, True], ids=["ours", "as published"])
def test_a_recorded_answer_reads_as_recorded(golden, published):
    for pieces in golden.said:
        answer = read(golden, pieces, published)
        assert answer.invalid == 0
        if answer.task.form == "text":
            words = answer.text if not published else cut(answer.text)[0]  # the published one leaves the region in it
            assert words == pieces[0]
            continue
        regions = one_region_each(only_ends(pieces), answer.task)
        labels = [label if published else label.removeprefix("</s>") for label in regions[0::2]]
        assert [region.label for region in answer.regions] == labels
        bins = [list(points_to_bins(region.points, answer.image_wh)) for region in answer.regions]
        assert bins == regions[1::2]


@pytest.mark.parametrize("name", ["N2", "N3", "N6", "N9"])
@pytest.mark.parametrize("published", [False, True], ids=["ours", "as published"])
def test_a_recorded_answer_gives_the_pixels_of_the_library(name, published):
    golden = BY_NAME[name]
    labels, boxes = map(list, zip(*golden.parsed, strict=True))
    if golden.task == "<OPEN_VOCABULARY_DETECTION>":
        wanted = {"bboxes": boxes, "bboxes_labels": labels, "polygons": [], "polygons_labels": []}
    else:
        wanted = {"bboxes": boxes, "labels": labels}
    assert read(golden, golden.said[0], published).to_published(integers=True) == {golden.task: wanted}


def test_a_recorded_polygon_has_as_many_vertices_as_was_counted():
    assert BY_NAME["V9"].said[0][0]["values"] == 2 * 291
    assert [len(BY_NAME[name].said[0][0]) for name in ("N4", "N10", "V10")] == [98, 96, 2 * 67]


# ---- without the weights: the checking, on a checkpoint of drawn numbers

ROWS: list[dict[str, Any]] = [
    {"image": "car.jpg", "task": "<OD>"},
    {"image": "book.jpg", "task": "<OPEN_VOCABULARY_DETECTION>", "text": "car"},
    {"image": "car.jpg", "task": "<REGION_TO_CATEGORY>", "region": [52, 332, 932, 774]},
]


@pytest.fixture(scope="module")
def fake(answering_folder, tmp_path_factory) -> Path:
    """A folder of weights: one tiny checkpoint, and drawn pictures of the recorded sizes."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "community-base").symlink_to(answering_folder)
    (folder / "images").mkdir()
    for seed, (name, image) in enumerate(read_file()["images"].items()):
        drawn_picture(seed, tuple(image["wh"])).save(folder / "images" / name, "PNG")
    return folder


@torch.no_grad()
def recorded(folder: Path, early_stopping: bool | None, max_tokens: int = 40) -> list[Golden]:
    """Goldens of the tiny checkpoint, by way of the network itself and one request at a time."""
    found = load_checkpoint(folder / "community-base")
    config, goldens = found.config.text, []
    early = config.early_stopping if early_stopping is None else early_stopping
    settings = replace(DecodeSettings.published(config), early_stopping=early, max_tokens=max_tokens)
    for index, row in enumerate(ROWS):
        picture = read_picture(folder, row["image"])
        region = bins_to_box(row["region"], picture.size) if "region" in row else None
        prompt = found.text.encode(write_prompt(row["task"], row.get("text"), region, picture.size))
        tokens = found.network.encode_image(to_batch([picture], found.config.side_px))
        memory, mask = found.network.encode(tokens, torch.tensor([prompt]), None)
        (decoded,) = decode(FastDecoder(found.network), memory, mask, settings)
        fixed = {"checkpoints": ["community-base"], "batch": "T", "recorded": "raw", "early_stopping": early_stopping}
        said, ids = [cut(found.text.decode(decoded.ids))], (2, 0, *decoded.ids, 2)  # the published frame
        goldens.append(Golden(name=f"T{index}", said=said, ids=ids, max_tokens=max_tokens, **row, **fixed))
    return goldens


@pytest.mark.parametrize("early_stopping", [None, False])
def test_a_checkpoint_passes_its_own_recordings(early_stopping, fake):
    goldens = recorded(fake, early_stopping)
    assert any(isinstance(piece, list) for golden in goldens for piece in golden.said[0])  # it says places
    test_a_published_checkpoint_answers_as_recorded("community-base", goldens, fake)


@pytest.mark.parametrize(("recorded_as", "searched"), [(None, True), (True, True), (False, False)])
def test_what_the_notebook_overrode_reaches_the_search(recorded_as, searched, answering_folder):
    # The tiny checkpoint stops early, as the published ones do; the notebook did not.
    model = load_as_recorded(answering_folder, recorded_as)
    settings = AskOptions(decoding="published").settings(model.checkpoint, find_task("<OD>"))
    assert settings == replace(DecodeSettings.published(model.network.config.text), early_stopping=searched)
    assert {golden.name[0]: golden.early_stopping for golden in GOLDENS} == {"N": None, "V": False}


def test_one_changed_recording_of_a_batch_fails_by_name(fake):
    goldens = recorded(fake, None)
    wrong = replace(goldens[1], said=[["no such thing", *goldens[1].said[0]]])
    with pytest.raises(AssertionError) as error:
        test_a_published_checkpoint_answers_as_recorded("community-base", [goldens[0], wrong, goldens[2]], fake)
    assert "T1: said" in str(error.value)
    assert "T0" not in str(error.value)
    assert "T2" not in str(error.value)


def test_another_checkpoint_does_not_answer_as_recorded(fake):
    asked = [replace(BY_NAME["N1"], max_tokens=40)]
    with pytest.raises(AssertionError, match="N1: ids"):
        test_a_published_checkpoint_answers_as_recorded("community-base", asked, fake)
    with pytest.raises(AssertionError):
        test_a_checkpoint_is_the_one_its_folder_says("community-base", fake)  # not the published layout


CAR = [53, 333, 933, 774]
COMPARED = {
    "the same": (["car", CAR, "wheel", [1, 2, 3, 4]], True),
    "one bin off": (["car", [54, 332, 933, 774], "wheel", [1, 2, 3, 5]], True),
    "two bins off": (["car", [55, 333, 933, 774], "wheel", [1, 2, 3, 4]], False),
    "another word": (["cat", CAR, "wheel", [1, 2, 3, 4]], False),
    "a region less": (["car", CAR], False),
    "a region more": (["car", CAR, "wheel", [1, 2, 3, 4], "wheel", [1, 2, 3, 4]], False),
    "a bin less": (["car", CAR, "wheel", [1, 2, 3]], False),
    "words for bins": (["car", CAR, "wheel", "1234"], False),
    "both ends": (["car", {"values": 4, "first": [53], "last": [933, 775]}, "wheel", [1, 2, 3, 4]], True),
    "another end": (["car", {"values": 4, "first": [53], "last": [933, 776]}, "wheel", [1, 2, 3, 4]], False),
    "another length": (["car", {"values": 6, "first": [53], "last": [933, 774]}, "wheel", [1, 2, 3, 4]], False),
}


def compare(raw: str, kind: str = "raw", task: str = "<OD>", **fields: Any) -> list[str]:
    fixed = {"name": "T", "checkpoints": [], "batch": "T", "image": "car.jpg", "max_tokens": None}
    golden = Golden(task=task, recorded=kind, early_stopping=None, **fixed, **fields)
    return complaints(golden, Said(Answer(find_task(task), (640, 480)), (2, 0, 7, 2), raw))


@pytest.mark.parametrize("case", COMPARED)
@pytest.mark.parametrize("kind", ["raw", "regions"])
def test_words_are_compared_exactly_and_bins_to_within_one(case, kind):
    wanted, same = COMPARED[case]
    said = f"</s><s>{spell_pieces(['car', CAR, 'wheel', [1, 2, 3, 4]])}</s>"
    assert (compare(said, kind, said=[wanted]) == []) is same
    assert (compare(said, kind, said=[["another"], wanted]) == []) is same  # several wordings: one of them


def test_a_label_said_once_for_two_boxes_is_the_same_for_a_parser_only():
    said = spell_pieces(["wheel", [1, 2, 3, 4, 5, 6, 7, 8]])
    twice = [["wheel", [1, 2, 3, 4], "wheel", [5, 6, 7, 8]]]
    assert compare(said, "regions", said=twice) == []
    assert len(compare(said, "raw", said=twice)) == 1
    assert compare(said, "regions", "<OCR_WITH_REGION>", said=[["</s>wheel", [1, 2, 3, 4, 5, 6, 7, 8]]]) == []


def test_ids_and_the_start_are_compared_exactly():
    assert compare("</s><s><s><s>a</s>", said=[["a"]], ids=[2, 0, 7, 2], starts="</s><s><s><s>") == []
    assert len(compare("</s><s>a</s>", said=[["a"]], ids=[2, 0, 8, 2], starts="</s><s><s><s>")) == 2


def test_what_is_missing_fails_in_one_line(fake, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(AssertionError, match=f"set {VARIABLE} to a folder with community-base, .* and images"):
        test_the_folder_of_weights_is_named()
    monkeypatch.setenv(VARIABLE, str(fake))
    test_the_folder_of_weights_is_named()
    assert given_folder() == fake
    with pytest.raises(pytest.fail.Exception, match=f"{VARIABLE}=.* has no community-large"):
        test_a_published_checkpoint_answers_as_recorded("community-large", [BY_NAME["N7"]], fake)
    with pytest.raises(pytest.fail.Exception, match="has no images/car"):
        read_picture(fake / "images", "car.jpg")


def test_a_picture_of_another_size_fails(tmp_path):
    (tmp_path / "images").mkdir()
    drawn_picture(0, (480, 640)).save(tmp_path / "images" / "car.jpg")
    with pytest.raises(pytest.fail.Exception, match=r"is \(480, 640\), .* a picture of \(640, 480\)"):
        read_picture(tmp_path, "car.jpg")
