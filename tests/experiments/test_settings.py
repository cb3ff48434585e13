"""Words of the command line as settings."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from openflorence.errors import BadConfig
from openflorence.experiments.settings import parse_settings


@dataclass(frozen=True)
class Some:
    out: Path = Path("runs")
    steps: int = 1
    rate: float = 0.5
    recompute: bool = True
    name: str = ""


def test_each_field_is_read_by_its_type():
    words = ["out=a/b", "steps=12", "rate=1e-5", "recompute=false", "name=x=y"]
    assert Some(**parse_settings(Some, words)) == Some(Path("a/b"), 12, 1e-5, False, "x=y")


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("No", False), ("1", True), ("0", False), ("TRUE", True)])
def test_true_and_false_are_words(word, value):
    assert parse_settings(Some, [f"recompute={word}"]) == {"recompute": value}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps", "give field=value, with one of out, steps"),
        ("speed=1", "with one of out, steps"),
        ("steps=1.5", "steps is of type int"),
        ("recompute=maybe", "recompute is of type bool, one of true"),
    ],
)
def test_a_mistake_names_what_is_allowed(word, message):
    with pytest.raises(BadConfig, match=message):
        parse_settings(Some, [word])
