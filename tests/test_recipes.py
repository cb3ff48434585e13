"""Every recipe: its settings, a run small enough for a test, and a checkpoint that loads and answers."""

from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from tiny import scene_with_sign

import recipes
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.chance import dice
from openflorence.data.truth import examples
from openflorence.model.predict import AskOptions, load

RECIPES: dict[str, ModuleType] = {
    module.name: import_module(f"recipes.{module.name}") for module in iter_modules(recipes.__path__)
}


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_sweep_saw_every_recipe():
    files = sorted(path.stem for path in Path(recipes.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert sorted(RECIPES) == files
    assert len(RECIPES) == 8  # the issue of training names them


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_run_and_on_what(name):
    text = RECIPES[name].__doc__
    assert f"openflorence train {name}" in text
    assert "hardware" in text
    assert "docs/results.md" in text


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_settings_with_defaults_and_a_smaller_self(name, tmp_path):
    recipe = RECIPES[name]
    assert is_dataclass(recipe.Settings)
    assert recipe.Settings() == recipe.Settings()  # every field has a default
    small = recipe.smoke(tmp_path)
    assert isinstance(small, recipe.Settings)
    assert small.out == tmp_path
    assert {field.name for field in fields(small)} >= {"out", "seed"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_a_checkpoint_that_answers_and_ends_only_once(name, tmp_path):
    recipe = RECIPES[name]
    settings = replace(recipe.smoke(tmp_path), threads=1)
    checkpoint = recipe.run(settings, lambda line: None)
    assert checkpoint.is_relative_to(tmp_path)
    florence = load(checkpoint)
    scene = scene_with_sign()
    view = florence.open(scene.image)
    posed = examples(scene, dice(0))
    assert len(posed) == len((*TASKS, FREE_TEXT))
    for example in posed:
        answer = view.ask(example.task, example.text, example.region, AskOptions(beams=1, max_tokens=6))
        assert answer.task is example.task
        assert answer.image_wh == scene.image_wh
    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.safetensors")}
    (weights,) = checkpoint.glob("*.safetensors")
    before = load_file(weights)
    assert recipe.run(settings, lambda line: None) == checkpoint
    assert states
    assert all(path.stat().st_mtime_ns == when for path, when in states.items())  # no stage was run again
    after = load_file(weights)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
