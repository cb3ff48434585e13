"""A round with a better model: what it changes, when it has settled, and that a kill changes nothing."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest

from openflorence.contract.records import Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes
from openflorence.errors import BadConfig

pytest.importorskip("lance")

from small_store import die_at, everything, images

from openflorence.data.store import Store
from openflorence.data.store_ingest import ImageIn
from openflorence.engine.fuse import members
from openflorence.engine.plan import Plan, Specialist, run_round
from openflorence.engine.refine import diff_table, refine
from openflorence.engine.stages import Row

IMAGES = 6
DOG, CAR, BUS = Box(0, 0, 30, 30), Box(32, 0, 62, 30), Box(0, 32, 30, 62)


def detector(rows: list[Row]) -> list[Notes]:
    """A dog of 0.8, and a car of 0.5 that is taken for a cat."""
    return [_said("detr", ("dog", DOG, 0.8), ("cat", CAR, 0.5)) for _ in rows]


def network(rows: list[Row], knows: list[str], fails: bool = False) -> list[Notes]:
    """One of ours, which gets better: it lists the things that it knows by now, all with 0.9, and writes a caption."""
    things = {"dog": DOG, "car": CAR, "bus": BUS}
    notes = _said("florence", *((name, things[name], 0.9) for name in knows))
    text = TextNote(text=f"a picture of {' and '.join(knows)}", origin=Origin(source="florence"))
    if fails and rows[0].image.uri == "drawn:3":
        raise ValueError("looks at nothing")
    return [replace(notes, texts=(text,), whole=frozenset(("objects",))) for _ in rows]


def _said(source: str, *things: tuple[str, Box, float]) -> Notes:
    origin = Origin(source=source)
    return Notes(regions=tuple(RegionNote(label=a, box=b, score=c, origin=origin) for a, b, c in things))


def own(function: str, layer: str, **settings) -> Specialist:
    named = {"function": f"{__name__}:{function}", "layer": layer, "says": ["object"], "batch": 1}
    return Specialist(name="own", settings={**named, "settings": settings} if settings else named)


# Drawn scenes look alike, so copies are kept; what the filter makes of captions is tested elsewhere.
PLAN = Plan(specialists=(own("detector", "detr"),), copies=None, filter={"texts": False, "agree": False})
FIRST, BETTER = own("network", "x", knows=["dog", "car"]), own("network", "x", knows=["car", "bus"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of six drawn scenes, annotated by the detector alone."""
    store = Store.create(tmp_path / "fld", unit_images=4)
    store.ingest(images(range(IMAGES)))
    run_round(None, store.folder, PLAN)
    return store.folder


def things(folder: Path, number: int, place: int = 0) -> dict[str, float]:
    """Label -> score, of an image in a round."""
    return {one.label: one.score or 0.0 for one in Store.open(folder).records(number)[place].regions}


def test_a_round_agrees_contradicts_and_fills(folder: Path):
    done = refine(folder, FIRST)
    assert (done.before, done.round.number, done.made, done.settled) == (0, 1, True, False)
    # By hand: dog 1 - (1 - 0.9) (1 - 0.5 * 0.8) = 0.94; car against cat 0.9 (1 - 0.5 * 0.5) = 0.675.
    assert things(folder, 0) == {"dog": 0.8, "cat": 0.5}
    assert things(folder, 1) == {"dog": 0.94, "car": 0.675}
    # Dogs stay; a caption and a car each are added, cats removed: 18 of 24.
    changes = done.diff.total
    assert (changes.same, changes.added, changes.removed, done.share) == (IMAGES, 2 * IMAGES, IMAGES, 0.75)
    assert done.round.notes_from == ("refine_1",)
    assert {"detr", "fuse", "filter", "own_1", "refine_1", "filter_1"} <= set(done.round.runs)


def test_a_model_is_not_believed_twice(folder: Path):
    refine(folder, FIRST)
    done = refine(folder, BETTER)
    # By hand: the dog stands by the detector alone, and the new list lacks it: 0.5 * 0.8; the first dog counts no more.
    # The car wins as before, and the bus is new.
    assert things(folder, 2) == {"dog": 0.4, "car": 0.675, "bus": 0.9}
    record = Store.open(folder).records(2)[0]
    assert [text.text for text in record.texts] == ["a picture of car and bus"]
    assert (done.before, done.round.number) == (1, 2)
    # Dog and car are the same; bus and caption are new, a caption is gone: 3 of 5 in every image.
    assert done.share == 0.6


def test_a_model_that_did_not_change_settles(folder: Path):
    first = refine(folder, FIRST)
    same = refine(folder, FIRST)
    assert (same.made, same.round.number, same.settled, same.share) == (False, 1, False, first.share)
    again = refine(folder, FIRST, again=True)
    assert (again.made, again.round.number, again.settled, again.share) == (True, 2, True, 0.0)
    assert things(folder, 2) == things(folder, 1)
    last = refine(folder, FIRST, again=True)
    assert (last.made, last.round.number, last.settled) == (False, 2, True)
    assert sorted(Store.open(folder).rounds()) == [0, 1, 2]
    # A round that changes 0 % has not settled for who wants less than that.
    assert not refine(folder, FIRST, least_change=0.0).settled


def test_what_was_dropped_is_named_with_its_reason_and_the_members_of_a_note_are_known(folder: Path):
    done = refine(folder, FIRST)
    row = Store.open(folder).layer("refine_1", done.round.runs["refine_1"]).read(0)[0]
    (verdict,) = [one for one in row.verdicts if one.rule == "contradiction"]
    assert verdict.note_id == "fuse/region1"
    assert verdict.reason == "'cat' 0.50 against 'car' 0.90 at the same place (overlap 1.00), which own_1 says"
    assert members(row.verdicts)["refine_1/region0"] == ("fuse/region0", "own_1/region0")


def test_another_threshold_brings_back_what_the_merging_dropped(folder: Path):
    strict = refine(folder, BETTER, replace(PLAN, refine={"fill": 0.95}))
    assert "bus" not in things(folder, 1)
    loose = refine(folder, BETTER, replace(PLAN, refine={"fill": 0.9}))
    assert "bus" in things(folder, 2)
    # The network was asked again: its notes carry the number of their round. The plan's own layers were not.
    assert strict.round.runs["detr"] == loose.round.runs["detr"]


def test_the_filter_of_the_plan_runs_again(folder: Path):
    refine(folder, FIRST, replace(PLAN, filter={**PLAN.filter, "scores": {"objects": 0.7}}))
    assert things(folder, 1) == {"dog": 0.94}
    # And without a plan again as in the latest round: the car of 0.675 stays out, the bus of 0.9 comes in.
    refine(folder, BETTER)
    assert things(folder, 2) == {"bus": 0.9}


def test_an_image_that_the_model_failed_on_stays_as_it_is(folder: Path):
    refine(folder, FIRST)
    worse = own("network", "x", knows=["bus"], fails=True)
    refine(folder, worse)
    assert things(folder, 2, 3) == things(folder, 1, 3)
    assert things(folder, 2, 2) != things(folder, 1, 2)
    # In the round after it counts as if the failure had not been: with the first model all is as in round 1.
    refine(folder, FIRST)
    assert things(folder, 3, 3) == things(folder, 1, 3)


def test_likelihoods_and_written_texts_are_made_again_over_what_was_merged(folder: Path):
    plan = replace(PLAN, likelihood={}, detail={"by": "template"})
    run_round(None, folder, plan)
    first = refine(folder, FIRST)
    assert first.before == 1
    assert {"likelihood_2", "filter_2", "detail_2", "detail_filter_2"} <= set(first.round.runs)
    assert first.round.notes_from == ("refine_2", "detail_2")
    store = Store.open(folder)
    measured = store.layer("likelihood_2", first.round.runs["likelihood_2"]).read(0)[0].measures
    assert {one.note_id for one in measured} == {"refine_2/region0", "refine_2/region1"}
    texts = [note.text for note in store.records(2)[0].texts if note.level == "detailed"]
    assert len(texts) == 1
    assert "car" in texts[0]
    assert "cat" not in texts[0]
    second = refine(folder, BETTER)
    assert second.round.notes_from == ("refine_3", "detail_3")
    assert "bus" in next(note.text for note in store.records(3)[0].texts if note.level == "detailed")


def test_a_checkpoint_of_ours_refines(folder: Path, answering_folder: Path):
    asked = {"tasks": ["detect"], "load_with": {"at_once": 4}}
    plan = replace(PLAN, specialists=(*PLAN.specialists, Specialist(name="florence", settings=asked)))
    run_round(None, folder, plan)
    done = refine(folder, str(answering_folder))
    facts = Store.open(folder).layer("florence_2", done.round.runs["florence_2"]).sealed()["facts"]
    # It is asked what the plan asked the network of the round before.
    asked |= {"model": str(answering_folder), "layer": "florence_2", "round": 2}
    assert (facts["settings"], facts["round"]) == (asked, 2)
    assert not refine(folder, str(answering_folder)).made
    # An adapter of a plan belongs to the plan's model; here it does not even exist.
    theirs = Specialist(name="florence", settings={"tasks": ["detect"], "load_with": {"adapter": "gone", "at_once": 4}})
    again = refine(folder, str(answering_folder), replace(PLAN, specialists=(theirs,)))
    assert again.progress is None or again.progress.statuses["florence_3"] == {"ok": IMAGES}


def test_new_images_are_annotated_first(folder: Path):
    Store.open(folder).ingest(images(range(IMAGES, 9)))
    with pytest.raises(BadConfig, match="openflorence engine run"):
        refine(folder, FIRST)
    run_round(None, folder, PLAN)
    assert refine(folder, FIRST).before == 1


def test_a_store_without_a_round_is_told(tmp_path: Path):
    Store.create(tmp_path / "fld").ingest([ImageIn(uri="x", data=images([1])[0].data)])
    with pytest.raises(BadConfig, match="not published"):
        refine(tmp_path / "fld", FIRST)


def test_rules_that_there_are_none_of_are_told(folder: Path):
    with pytest.raises(BadConfig, match=r"\[refine\].*trusted"):
        refine(folder, FIRST, replace(PLAN, refine={"trusted": 1}))


# ---- kills


@pytest.fixture(scope="module")
def processes():
    """Children of a process that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["small_store", "lance", "openflorence.engine.refine"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    return context


def job(folder: Path, death: tuple[str, str, int] | None) -> None:
    """Refine, and die at a step."""
    if death is not None:
        die_at(*death)
    refine(folder, FIRST)


def test_a_refinement_that_is_killed_ends_as_one_that_is_not(processes, folder: Path, tmp_path: Path):
    straight = tmp_path / "straight"
    shutil.copytree(folder, straight)
    refine(straight, FIRST)
    deaths = [("before", "replace", 3), ("before", "replace", 9)]  # while stages run
    deaths += [("before", "stage_column", 1), ("after", "add_column", 1), ("before", "put_tag", 1)]
    codes = []
    for death in (*deaths, None):
        process = processes.Process(target=job, args=(folder, death))
        process.start()
        process.join(120)
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL] * len(deaths) + [0]
    assert everything(Store.open(straight)) == everything(Store.open(folder))
    assert sorted(Store.open(folder).rounds()) == [0, 1]


# ---- told


def test_what_changed_is_a_table(folder: Path):
    table = diff_table(refine(folder, FIRST).diff)
    assert "6 of 6 images changed." in table
    assert "| regions | 6 | 6 | 6 | 66.7 % |" in table
    assert "| all | 6 | 12 | 6 | 75.0 % |" in table
    assert "questions" not in table


def test_the_command_tells_whether_to_go_on(call, folder: Path, answering_folder: Path, tmp_path: Path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'copies = false\n[[specialist]]\nname = "florence"\ntasks = ["detect"]\n[refine]\nfill = 0.0\n'
        "[filter]\nscores = false\nsizes = false\nblacklist = false\n"
    )
    words = ["engine", "refine", folder, "--model", answering_folder, "--plan", plan]
    first = call(*words)
    assert first.code == 0
    lines = first.out.splitlines()
    assert lines[2] == "| annotations | same | added | removed | changed |"
    assert lines[-1].startswith("round 1 changed ")
    assert lines[-1].endswith("go on with a model that is trained on it")
    second = call(*words)
    assert "of this model already" in second.out
    assert sorted(Store.open(folder).rounds()) == [0, 1]
    third = call(*words, "--again")
    assert third.out.splitlines()[-1] == "round 2 changed 0.0 % of the annotations of round 1: settled, less than 1 %"


def test_rounds_are_compared_by_a_command(call, folder: Path):
    refine(folder, FIRST)
    told = call("engine", "diff", folder, 0, 1)
    assert "| regions | 6 | 6 | 6 | 66.7 % |" in told.out
    assert sorted(line.split()[-1] for line in told.out.splitlines()[-6:]) == [f"drawn:{n}" for n in range(6)]
    row = json.loads(call("engine", "diff", folder, 0, 1, "--json").out)
    assert row["kinds"]["regions"] == {"same": 6, "added": 6, "removed": 6, "share": 0.6667}
    assert len(row["examples"]) == 6
    assert call("engine", "diff", folder, 0, 7).code == 2
