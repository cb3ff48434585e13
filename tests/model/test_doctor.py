"""The doctor's lines, on a good folder and on broken ones."""

import pytest
from reference import ours_from, tiny_reference, tiny_text

from openflorence.model.calibration import Calibration, Curve, Fit, write_calibration
from openflorence.model.checkpoint import convert
from openflorence.model.doctor import explain_folder


@pytest.fixture
def folder(tmp_path):
    ours_from(tiny_reference(0), tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "ms", "microsoft")
    return tmp_path / "ms"


def test_a_good_folder_is_described(folder):
    lines = "\n".join(explain_folder(folder))
    for said in (
        "layout: microsoft",
        "model.safetensors",
        "float32",
        "1 of 4 names: language_model.model.shared.weight",
        "96 positions",
        f"{tiny_text().size} entries",
        "0 filler rows",
        "loads: yes",
    ):
        assert said in lines
    assert "problem" not in lines


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_folder_is_described_as_far_as_it_goes(name, folder):
    (folder / name).unlink()
    lines = explain_folder(folder)
    assert sum(line.startswith("problem:") and name in line for line in lines) == 1
    assert not any(line.startswith("loads") for line in lines)
    assert ("layout: microsoft" in lines) == (name != "model.safetensors")


def test_a_missing_folder_is_one_problem(tmp_path):
    assert sum("is not a folder" in line for line in explain_folder(tmp_path / "nowhere")) == 1


def test_a_calibration_is_described_and_a_broken_one_is_a_problem(folder):
    fit = Fit(curve=Curve(method="temperature", temperature=2.0), n=99, error_before=0.5, error_after=0.0)
    write_calibration(Calibration(fits={"detect": fit}, data="coco, val", date="2025-01-31"), folder)
    assert "scores: calibrated on coco, val, 2025-01-31, for detect" in explain_folder(folder)
    (folder / "calibration.json").write_text("[]")
    assert any(line.startswith("problem:") and "calibration.json" in line for line in explain_folder(folder))
