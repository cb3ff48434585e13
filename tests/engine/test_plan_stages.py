"""What a plan adds to specialists: copies left out, measures, texts written, failures done again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rows import encoded, row_of

from openflorence.contract.records import RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes, Verdict
from openflorence.errors import BadConfig

pytest.importorskip("lance")

from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn
from openflorence.engine.plan import CopySettings, Plan, Specialist, filtering, read_plan, run_round, stages_of
from openflorence.engine.stages import Resources, Row, make_stage


def look(rows: list[Row]) -> list[Notes]:
    """A specialist: a dog, and a brief text that is too poor to be kept when it is alone."""
    dog = RegionNote(box=Box(2, 2, 40, 40), label="dog", score=0.9)
    return [Notes(texts=(TextNote(text="a brown dog sits on a lawn", score=0.8),), regions=(dog,)) for _ in rows]


def look_or_fail(rows: list[Row]) -> list[Notes]:
    """As `look`, but fails at images whose place is listed in a file beside the store."""
    for row in rows:
        with open(row.image.uri.partition("|")[2]) as file:
            if row.image.uri.partition("|")[0] in file.read().split():
                raise ValueError("no such thing here")
    return look(rows)


def own(function: str = "look", **settings) -> Specialist:
    return Specialist(name="own", settings={"function": f"{__name__}:{function}", "says": ["object"]}, **settings)


def picture(seed: int) -> Image.Image:
    squares = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(squares).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures; the second is nearly the first."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in (("a", 1), ("c", 2)):
        (folder / f"{name}.png").write_bytes(encoded(picture(seed)))
    picture(1).save(folder / "b.jpg", quality=70)
    return folder


def labels(folder: Path, number: int | None = None) -> list[list[str]]:
    return [[region.label for region in record.regions] for record in Store.open(folder).records(number)]


def statuses(folder: Path, layer: str) -> list[str]:
    store = Store.open(folder)
    (run_id,) = store.runs()[layer]
    return [row.status for unit in store.units() for row in store.layer(layer, run_id).read(unit)]


def test_copies_are_left_out_and_come_back_without_annotating_again(photos, tmp_path):
    folder = tmp_path / "fld"
    first = run_round(str(photos), folder, Plan(specialists=(own(),)))
    assert labels(folder) == [["dog"], [], ["dog"]]
    assert statuses(folder, "own") == ["ok", "ok", "ok"]
    second = run_round(None, folder, Plan(specialists=(own(),), copies=None))
    assert second.progress.runs["own"] == first.progress.runs["own"]
    assert labels(folder) == [["dog"]] * 3


def test_specialists_may_pass_copies_over(photos, tmp_path):
    plan = Plan(specialists=(own(),), copies=CopySettings(annotated=False))
    run_round(str(photos), tmp_path / "fld", plan)
    assert statuses(tmp_path / "fld", "own") == ["ok", "skipped", "ok"]


def test_a_text_is_written_of_what_was_kept_and_judged_too(photos, tmp_path):
    folder = tmp_path / "fld"
    done = run_round(str(photos), folder, Plan(specialists=(own(),), detail={"by": "template", "levels": ["detailed"]}))
    record = next(iter(Store.open(folder).records()))
    assert [(note.level, note.text) for note in record.texts] == [
        ("brief", "a brown dog sits on a lawn"),
        ("detailed", "A brown dog sits on a lawn. There is a dog."),
    ]
    assert {"detail", "detail_filter"} <= set(done.progress.runs)
    # By hand: the brief text names a dog and a lawn, so it goes; what is written without it names a dog.
    strict = {"texts": {"least_objects": 3}}
    detail = {"by": "template", "levels": ["detailed"]}
    run_round(None, folder, Plan(specialists=(own(),), detail=detail, filter=strict))
    record = next(iter(Store.open(folder).records()))
    assert record.texts == ()
    gone = Store.open(folder).sql("SELECT DISTINCT note_id, rule FROM verdicts WHERE layer = 'detail_filter'")
    assert {"note_id": "detail/text0", "rule": "complexity"} in gone


def test_a_text_that_is_written_again_is_dropped_unless_the_one_before_was_merged_away():
    text = TextNote(text="a dog on a lawn", score=0.8)
    row = row_of(picture(1), fuse=Notes(texts=(text,)), detail=Notes(texts=(text,)))
    judge = make_stage(filtering("detail_filter", {}, ("detail",), beside=("fuse",)))
    ((_, verdicts),) = judge.process([row])
    assert [(one.note_id, one.rule) for one in verdicts] == [("detail/text0", "same text")]
    surer = Notes(texts=(replace(text, score=0.9),))
    ((_, verdicts),) = judge.process([row_of(picture(1), fuse=row.layers["fuse"].notes, detail=surer)])
    assert [(one.note_id, one.rule) for one in verdicts] == [("fuse/text0", "same text")]
    merged = replace(row.layers["detail"], verdicts=(Verdict("fuse/text0", "merged", "part of it"),))
    assert judge.process([Row(row.image, {**row.layers, "detail": merged})]) == [(Notes(), [])]


def test_what_the_network_does_not_believe_is_dropped_by_a_threshold_alone(photos, tmp_path, answering_folder):
    folder = tmp_path / "fld"
    measured = {"model": str(answering_folder)}
    plans = [
        Plan(specialists=(own(),), likelihood=measured, filter={"agree": {"likelihood": least}})
        for least in (-1000.0, 1000.0)
    ]
    first, second = (run_round(str(photos), folder, plan) for plan in plans)
    assert first.progress.runs["likelihood"] == second.progress.runs["likelihood"]
    assert labels(folder, 0) == [["dog"], [], ["dog"]]
    assert labels(folder, 1) == [[], [], []]
    reasons = Store.open(folder).sql("SELECT DISTINCT rule FROM verdicts WHERE layer = 'filter'")
    assert {"rule": "unlike"} in reasons


def test_failures_are_done_again_when_asked_and_nothing_else_is(photos, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text("a c")
    rows = [f"{name}|{bad}" for name in "ac"]
    store = Store.create(tmp_path / "fld")
    store.ingest(ImageIn(uri=uri, data=encoded(picture(seed))) for seed, uri in enumerate(rows))
    plan = Plan(specialists=(own("look_or_fail"),))
    first = run_round(None, store.folder, plan)
    assert labels(store.folder) == [[], []]
    bad.write_text("c")
    assert run_round(None, store.folder, plan).round.number == 0  # not asked: what failed has failed
    second = run_round(None, store.folder, plan, retry=True)
    assert second.progress.runs["own"] == f"{first.progress.runs['own']}.1"
    assert labels(store.folder) == [["dog"], []]
    bad.write_text("")
    assert run_round(None, store.folder, plan).round.number == second.round.number  # the last try is what counts
    third = run_round(None, store.folder, plan, retry=True)
    assert third.progress.runs["own"] == f"{first.progress.runs['own']}.2"
    assert labels(store.folder) == [["dog"], ["dog"]]
    assert run_round(None, store.folder, plan, retry=True).round.number == third.round.number  # nothing is left to do


def test_the_plan_of_the_documentation_is_one(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text("utf-8")
    (tmp_path / "plan.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    plan = read_plan(tmp_path / "plan.toml")
    assert [one.name for one in plan.specialists] == ["rapidocr", "florence", "detector"]
    assert plan.detail is not None


PLAN = """
[copies]
near = 4
annotated = false

[[specialist]]
name = "florence"
tasks = ["detect"]
batch = 2
time_limit_s = 60
gpus = 0.5

[likelihood]
most = 8

[detail]
by = "server"
server = { model = "m" }
"""


def test_a_plan_says_how_specialists_run_and_what_else_is_done(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    plan = read_plan(path)
    assert plan.copies == CopySettings(near=4, annotated=False)
    specs = {spec.factory.name.partition(":")[2]: spec for spec in stages_of(plan)}
    assert set(specs) == {"Florence", "Fuse", "Likelihood", "Filter", "Writer"}
    florence = specs["Florence"]
    assert florence.factory.settings == {"tasks": ["detect"]}  # what a run id is made of: not how it is run
    assert (florence.batch, florence.time_limit_s, florence.resources) == (2, 60, Resources(cpus=1, gpus=0.5))
    assert florence.after == ("copies",)
    path.write_text(PLAN.replace("near = 4\nannotated = false", "").replace("[copies]", "") + "\n")
    assert read_plan(path).copies == CopySettings()
    path.write_text("copies = false\n" + PLAN.partition("[[specialist]]")[1] + PLAN.partition("[[specialist]]")[2])
    assert read_plan(path).copies is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[copies]\nnears = 1\n", "allowed are annotated, near"),
        ('[detail]\nby = "me"\n', "'me'; allowed: template, server"),
        ("likelihood = 3\n", "it is a table"),
        ("[likelihood]\nmodels = 1\n", "does not take"),
    ],
)
def test_a_table_that_is_wrong_is_told_with_the_file(tmp_path, text, told):
    path = tmp_path / "plan.toml"
    path.write_text(text + '[[specialist]]\nname = "rapidocr"\n')
    with pytest.raises(BadConfig, match=told) as caught:
        read_plan(path)
    assert str(path) in str(caught.value)
