"""Specialists by name, and the stage that makes one set of notes of what they say.

specs = [specialist("rapidocr"), specialist("detector", {"model": "folder"}), specialist("florence", {"tasks": [...]})]
specs.append(fusing([make_stage(spec) for spec in specs]))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from openflorence.data.notes import Notes, Verdict, kept_by_all
from openflorence.engine.fuse import fuse
from openflorence.engine.stages import Context, Factory, Outcome, Row, Stage, StageSpec
from openflorence.engine.votes import FuseRule, Voter
from openflorence.errors import BadConfig

# What can be named in a plan, and what makes it; its settings are the arguments of that class.
SPECIALISTS = {
    "rapidocr": "openflorence.engine.specialists:TextReader",
    "people": "openflorence.engine.specialists:People",
    "captions": "openflorence.engine.specialists:Captions",
    "own": "openflorence.engine.specialists:OwnFunction",
    "florence": "openflorence.engine.network:Florence",
    "detector": "openflorence.engine.pipelines:Detector",
    "open_detector": "openflorence.engine.pipelines:OpenDetector",
    "captioner": "openflorence.engine.pipelines:Captioner",
    "mask_maker": "openflorence.engine.pipelines:MaskMaker",
    "vision": "openflorence.engine.endpoints:VisionServer",
}


def specialist(name: str, settings: Mapping[str, Any] | None = None) -> StageSpec:
    """Give the spec of a specialist.

    name      one of SPECIALISTS.
    settings  its arguments, as plain values.
    raises    BadConfig for another name; wrong settings are told by make_stage.
    """
    if name not in SPECIALISTS:
        raise BadConfig(f"no specialist {name!r}; there are {', '.join(SPECIALISTS)}; 'own' runs a function of yours")
    return StageSpec(Factory(SPECIALISTS[name], dict(settings or {})))


def voter_of(stage: Stage) -> Voter:
    """Give the voter of a specialist's layer: the kinds of places it looks for, and the labels it knows if it is told.

    raises    BadConfig for a stage that does not say what it looks for.
    """
    says = getattr(stage, "says", None)
    if says is None:
        raise BadConfig(f"stage {stage.layer!r} does not say what it looks for; give it `says`, or name its voter")
    labels = getattr(stage, "labels", ())
    return Voter(stage.layer, tuple(says), tuple(labels) or None, partial=getattr(stage, "partial", False))


def fusing(
    stages: Sequence[Stage],
    layer: str = "fuse",
    least: float = 0.55,
    synonyms: Mapping[str, str] | None = None,
    unscored: Mapping[str, float] | None = None,
    judged_by: Sequence[str] = (),
) -> StageSpec:
    """Give the spec of the stage that fuses what these specialists say.

    unscored  layer -> what its notes without a score count as; of the others such notes are certain.
    judged_by layers whose verdicts drop notes before they are fused.
    """
    given = unscored or {}
    voters = [replace(voter, unscored=given.get(voter.layer)) for voter in map(voter_of, stages)]
    settings = {
        "voters": [_plain(voter) for voter in voters],
        "layer": layer,
        "least": least,
        "synonyms": dict(synonyms or {}),
        "judged_by": list(judged_by),
    }
    return StageSpec(Factory("openflorence.engine.annotate:Fuse", settings))


class Fuse(Stage):
    """Makes one set of notes of several layers; see fuse.py. Its verdicts name the members of every note."""

    reads = ()
    batch = 256

    def __init__(
        self,
        voters: Sequence[Mapping[str, Any]],
        layer: str = "fuse",
        least: float = 0.55,
        synonyms: Mapping[str, str] | None = None,
        judged_by: Sequence[str] = (),
    ) -> None:
        """Settle who votes.

        voters    fields of Voter, one mapping for each layer.
        least     smallest overlap of two regions that are one.
        judged_by layers whose verdicts drop notes before they are fused.
        """
        self.rule = FuseRule(tuple(_voter(voter) for voter in voters), least, dict(synonyms or {}))
        self.layer, self.model, self.revision = layer, "", ""
        self.needs = (*(voter.layer for voter in self.rule.voters), *judged_by)

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Fuse what is there of each image: a layer that failed on it has no vote."""
        return [self._fuse(row) for row in rows]

    def _fuse(self, row: Row) -> tuple[Notes, Sequence[Verdict]]:
        parts = {
            voter.layer: kept_by_all(row.layers, voter.layer)
            for voter in self.rule.voters
            if voter.layer in row.layers and row.layers[voter.layer].status == "ok"
        }
        return fuse(parts, self.rule, self.layer)


def _plain(voter: Voter) -> dict[str, Any]:
    """A voter as JSON can hold it."""
    values = asdict(voter)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _voter(given: Mapping[str, Any]) -> Voter:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return Voter(**plain)
    except TypeError as error:
        raise BadConfig(f"voter {dict(given)!r}: {error}; it has the fields of Voter") from error
