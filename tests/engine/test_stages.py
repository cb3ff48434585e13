"""What a stage is, how it travels, and what names its run."""

from dataclasses import replace

import pytest
from plain_store import Echo, Join, echo, join

from openflorence.engine.stages import (
    Factory,
    Resources,
    StageSpec,
    fingerprint,
    in_turn,
    make_stage,
    run_facts,
    waited_for,
)
from openflorence.errors import BadConfig


def run_id(spec, round=1, needs=None, corpus="photos"):
    return fingerprint(run_facts(spec, make_stage(spec), round, needs or {}, corpus))


def waiting(specs):
    stages = [make_stage(spec) for spec in specs]
    return [(stage.layer, waited_for(spec, stage)) for spec, stage in zip(specs, stages, strict=True)]


def test_a_stage_is_made_from_a_name_and_settings_and_has_defaults_for_the_rest():
    stage = make_stage(echo(layer="seen", wait_s=0.5))
    assert isinstance(stage, Echo)
    assert (stage.layer, stage.wait_s) == ("seen", 0.5)
    assert (stage.needs, stage.reads, stage.batch, stage.resources) == ((), ("image",), 16, Resources(1, 0))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("plain_store", {}, "write module:name"),
        ("no_such_module:Stage", {}, "cannot be imported"),
        ("plain_store:NoSuch", {}, "cannot be imported"),
        ("plain_store:Echo", {"colour": 1}, "does not take"),
        ("plain_store:Echo", {"layer": "two words"}, "its layer is 'two words'"),
        ("plain_store:image", {"number": 1, "data_bytes": 1}, "no 'layer'"),
    ],
)
def test_what_is_no_stage_is_told_before_anything_runs(name, settings, message):
    with pytest.raises(BadConfig, match=message):
        make_stage(StageSpec(Factory(name, settings)))


def test_a_method_can_be_the_factory():
    assert Factory("plain_store:PlainRun.read").name == "plain_store:PlainRun.read"
    assert Factory("fractions:Fraction.from_float", {"f": 0.5}).make() == 0.5


def test_the_run_id_is_another_one_when_anything_that_shapes_notes_is(monkeypatch):
    needs = {"echo": "r1-a", "other": "r1-b"}
    spec = join("echo")
    seen = {
        run_id(spec, needs=needs),
        run_id(join("other"), needs=needs),  # settings
        run_id(join("echo", layer="joined"), needs=needs),
        run_id(spec, needs={"echo": "r1-c"}),  # another run of what it needs
        run_id(spec, needs=needs, corpus="more photos"),
        run_id(spec, needs=needs, round=2),
    }
    monkeypatch.setattr(Join, "revision", "abc")
    seen.add(run_id(spec, needs=needs))
    monkeypatch.setattr(Join, "model", "florence")
    seen.add(run_id(spec, needs=needs))
    assert len(seen) == 8
    assert all(name.startswith(("r1-", "r2-")) for name in seen)


def test_the_run_id_does_not_know_how_a_stage_is_run_nor_what_it_does_not_need():
    spec = join("echo")
    faster = replace(spec, batch=99, time_limit_s=1.0, resources=Resources(4, 1))
    assert run_id(spec, needs={"echo": "r1-a"}) == run_id(faster, needs={"echo": "r1-a", "unused": "r1-b"})


def test_settings_that_cannot_travel_are_told():
    with pytest.raises(BadConfig, match="settings of plain_store:Echo"):
        run_id(echo(log={1, 2}))


def test_the_code_of_a_module_of_ones_own_is_part_of_its_run_id(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from plain_store import Echo\n"
    (tmp_path / "own_stage.py").write_text(text)
    before = run_id(StageSpec(Factory("own_stage:Echo")))
    (tmp_path / "own_stage.py").write_text(text + "THRESHOLD = 2\n")
    assert run_id(StageSpec(Factory("own_stage:Echo"))) != before


def test_stages_stand_after_what_they_need_and_otherwise_as_given():
    waits = waiting([join("b", "c", layer="a"), join("d", layer="b"), echo("c"), echo("d")])
    # By hand: a needs b and c, b needs d.
    assert in_turn(waits, {}) == [2, 3, 1, 0]
    assert in_turn(waits[:1], {"b": "r1-1", "c": "r1-2"}) == [0]
    assert in_turn(waiting([replace(echo("a"), after=("b",)), echo("b")]), {}) == [1, 0]


@pytest.mark.parametrize(
    ("specs", "given", "message"),
    [
        ([echo(), echo()], {}, "written twice"),
        ([echo()], {"echo": "r1-1"}, "written twice"),
        ([join("echo")], {}, "which nobody writes"),
        ([join("b", layer="a"), join("a", layer="b")], {}, "wait for each other: a, b"),
    ],
)
def test_stages_that_do_not_fit_together_are_told(specs, given, message):
    with pytest.raises(BadConfig, match=message):
        in_turn(waiting(specs), given)


def test_a_run_is_named_by_the_edition_of_a_stage_that_looks_and_by_the_code_of_one_that_does_not(monkeypatch):
    looks = StageSpec(Factory("openflorence.engine.copies:Prints"))
    judges = StageSpec(Factory("openflorence.engine.plan:Filter", {"settings": {}}))
    needs = {"fuse": "r0-1"}
    before = [run_id(spec, needs=needs) for spec in (looks, judges)]
    monkeypatch.setattr("openflorence.engine.stages._engine_code", lambda: "other")
    assert run_id(looks, needs=needs) == before[0]  # a new version of the package does not hash a million images again
    assert run_id(judges, needs=needs) != before[1]
    monkeypatch.setattr("openflorence.engine.copies.Prints.edition", 2, raising=False)
    assert run_id(looks, needs=needs) != before[0]
