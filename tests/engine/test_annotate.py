"""Specialists by name, who votes on what, and the stage that fuses what they say."""

import json

import pytest
from PIL import Image
from rows import row_of

from openflorence.contract.records import RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure, LayerRow, Notes, Verdict
from openflorence.engine.annotate import SPECIALISTS, fusing, specialist, voter_of
from openflorence.engine.fuse import members
from openflorence.engine.stages import Context, Row, make_stage
from openflorence.engine.votes import Voter
from openflorence.errors import BadConfig

SETTINGS = {
    "people": {"path": "nowhere.json"},
    "own": {"function": "mine:look", "says": ["place"]},
    "detector": {"model": "owner/name"},
    "open_detector": {"model": "owner/name", "labels": ["cat"]},
    "captioner": {"model": "owner/name"},
    "mask_maker": {"model": "owner/name"},
    "vision": {"server": {"model": "m"}, "wants": ["brief", "objects", "words"]},
}


@pytest.fixture(scope="module")
def stages():
    # Nothing is installed, loaded or looked for when a stage is made: whoever plans a run makes it too.
    return {name: make_stage(specialist(name, SETTINGS.get(name))) for name in SPECIALISTS}


def test_every_specialist_is_made_of_settings_that_json_can_hold(stages):
    assert json.loads(json.dumps(SETTINGS)) == SETTINGS
    assert len({stage.layer for stage in stages.values()}) == len(SPECIALISTS) == 10


def test_everybody_votes_on_what_he_looks_for(stages):
    voters = {name: voter_of(stage) for name, stage in stages.items()}
    assert voters["rapidocr"] == Voter("rapidocr", ("word",))
    assert voters["people"] == Voter("people", ("object",), partial=True)
    assert voters["florence"].kinds == ("object", "word")  # its default tasks detect and read
    assert voters["open_detector"] == Voter("open_detector", ("object",), ("cat",))
    assert voters["captioner"].kinds == ()
    assert voters["mask_maker"].kinds == ("place",)
    assert voters["vision"].kinds == ("object", "word")
    assert voters["own"].kinds == ("place",)


def ready(stages, *names, **settings):
    spec = fusing([stages[name] for name in names], **settings)
    json.dumps(spec.factory.settings)
    stage = make_stage(spec)
    stage.setup(Context())
    return stage


def dog(score: float | None) -> Notes:
    return Notes(regions=(RegionNote(label="dog", box=Box(0, 0, 9, 9), score=score),))


def test_the_fusing_stage_needs_its_voters_and_fuses_their_notes(stages):
    stage = ready(stages, "detector", "florence", judged_by=["filters"])
    assert stage.needs == ("detector", "florence", "filters")
    assert stage.reads == ()
    row = row_of(Image.new("RGB", (9, 9)), detector=dog(0.9), florence=dog(0.5))
    ((notes, verdicts),) = stage.process([row])
    assert [note.score for note in notes.regions] == [pytest.approx(0.7)]
    assert members(verdicts) == {"fuse/region0": ("detector/region0", "florence/region0")}


def test_what_a_verdict_drops_is_not_fused(stages):
    layers = {
        "detector": LayerRow("i", notes=dog(0.9)),
        "florence": LayerRow(
            "i",
            notes=Notes(texts=(TextNote(text="A dog on"),)),
            verdicts=(Verdict("florence/text0", "cut", "the text ends in the middle"),),
        ),
        "filters": LayerRow("i", verdicts=(Verdict("detector/region0", "score", "0.9 is below 0.95", 0.9),)),
    }
    row = Row(row_of(Image.new("RGB", (9, 9))).image, layers)
    ((notes, verdicts),) = ready(stages, "detector", "florence", judged_by=["filters"]).process([row])
    assert notes == Notes()
    assert verdicts == ()


def test_who_failed_has_no_vote_and_who_never_looked_neither(stages):
    stage = ready(stages, "detector", "florence", "people")
    failed = LayerRow("i", "failed", Failure("BadImage", "truncated"))
    layers = {"detector": LayerRow("i", notes=dog(0.9)), "florence": failed, "people": LayerRow("i")}
    row = Row(row_of(Image.new("RGB", (9, 9))).image, layers)
    ((notes, _),) = stage.process([row])
    assert notes.regions[0].score == pytest.approx(0.9)
    looked = LayerRow("i", notes=Notes(whole=frozenset(("objects",))))  # people looked, and saw no dog
    row = Row(row.image, {**layers, "people": looked})
    ((notes, _),) = stage.process([row])
    assert notes.regions[0].score == pytest.approx(0.45)


def test_notes_without_a_score_count_as_their_voter_says(stages):
    row = row_of(Image.new("RGB", (9, 9)), detector=dog(0.8), vision=dog(None))
    ((notes, _),) = ready(stages, "detector", "vision", unscored={"vision": 0.4}).process([row])
    assert notes.regions[0].score == pytest.approx(0.6)
    ((notes, _),) = ready(stages, "detector", "vision").process([row])
    assert notes.regions[0].score is None


def test_unknown_specialists_and_voters_are_refused(stages):
    with pytest.raises(BadConfig, match="no specialist 'yolo'"):
        specialist("yolo")
    fuse = make_stage(fusing([stages["detector"]]))
    with pytest.raises(BadConfig, match="does not say what it looks for"):
        voter_of(fuse)
    with pytest.raises(BadConfig, match="fields of Voter"):
        type(fuse)([{"name": "a"}])
