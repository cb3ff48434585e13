"""A round with a better model: images annotated again, merged with what is there, filtered as before, published.

done = refine(Path("fld"), "checkpoints/better")     # round k + 1 of the latest round k
done.share, done.settled                             # how much of the annotations it changed; whether that is little

Round k + 1 is made of what the others say, as the last round that a plan made keeps it (its base), of what the model
says now, and of what an earlier version of it said that still stands after round k. So every round weighs each voice
once, however many there are, and with a model that has not changed a round changes nothing. What came after fusing is
done again over the merged notes: likelihoods, the filter, texts that are written from what is kept. Layers of round
k + 1 carry its number: florence_1, refine_1, filter_1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.data.notes import ImageRow, LayerRow, Measure
from openflorence.data.store import Store
from openflorence.data.store_diff import Changes, RoundDiff
from openflorence.data.store_rounds import Round, find_round
from openflorence.engine.copies import COPIES
from openflorence.engine.jobs import plan_jobs
from openflorence.engine.likelihood import LIKELIHOOD
from openflorence.engine.plan import (
    DETAIL,
    DETAIL_FILTER,
    FILTER,
    FUSED,
    TIME_LIMIT_S,
    Plan,
    Specialist,
    opens,
    stages_of,
)
from openflorence.engine.reconcile import (
    ReconcileSettings,
    Said,
    Update,
    as_said,
    carry,
    is_own,
    reconcile,
    said_by,
)
from openflorence.engine.runners import DEFAULT_SETTINGS, RunSettings, run_stages
from openflorence.engine.schedule import Progress, Tell
from openflorence.engine.stages import Context, Factory, Outcome, Row, Stage, StageSpec, make_stage
from openflorence.errors import BadConfig

REFINE = "refine"  # what the layer of merged notes is called, with the number of the round
FLORENCE = "florence"  # our network: its specialist, and the source of its notes
LEAST_CHANGE = 0.01
_AFTER = (LIKELIHOOD, FILTER, DETAIL, DETAIL_FILTER)  # what a plan does after fusing
_NAMES = ("of", "judged", "beside", "measured_by", "needs")  # settings of these that name layers


class Merge(Stage):
    """Merges what an updated model says of an image with what is there; the rules stand in reconcile.py."""

    reads, batch = (), 256

    def __init__(
        self,
        layer: str,
        new: str,
        source: str,
        base: Mapping[str, Any],
        past: Mapping[str, Any] | None = None,
        labels: Sequence[str] = (),
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        """Settle what is merged.

        layer     that it writes; new: the layer of the updated model, and source the one in the origin of its notes.
        base      what others say: "round", its "layers" and the ones that it has "notes_from".
        past      likewise the refined round before this one; None where that is the base.
        labels    the only ones that the model can say; () for any.
        rules     fields of ReconcileSettings.
        """
        self.layer, self.new, self.source, self.labels = layer, new, source, tuple(labels) or None
        self.base, self.past = base, past
        self.rules = _rules(rules or {})
        layers = [*base["layers"], *(past["layers"] if past else ()), new]
        self.needs = tuple(dict.fromkeys(layers))

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Merge image by image; where the model failed, everything stays as it is."""
        return [self._merge(row.layers) for row in rows]

    def _merge(self, layers: Mapping[str, LayerRow]) -> Outcome:
        base = there = _said(layers, self.base)
        measures: list[Measure] = []
        if self.past is not None:
            there = _said(layers, self.past)
            measures = [measure for layer in self.past["layers"] for measure in layers[layer].measures]
        if layers[self.new].status != "ok":
            return carry(there, measures, self.layer)
        said = as_said(there, measures)
        others = {name: note for name, note in base.notes.items() if not is_own(note.origin, self.source)}
        own = {name: note for name, note in said.notes.items() if is_own(note.origin, self.source)}
        update = Update(
            said=said_by({self.new: layers[self.new]}, [self.new]),
            source=self.source,
            name=self.new,
            labels=self.labels,
        )
        return reconcile(Said({**others, **own}, base.whole), update, self.layer, self.rules)


def _said(layers: Mapping[str, LayerRow], which: Mapping[str, Any]) -> Said:
    return said_by({layer: layers[layer] for layer in which["layers"]}, which["notes_from"])


def _rules(given: Mapping[str, Any]) -> ReconcileSettings:
    try:
        return ReconcileSettings(**given)
    except TypeError as error:
        raise BadConfig(f"[refine] {dict(given)!r}: {error}; allowed are the fields of ReconcileSettings") from error


# ---- a round


@dataclass(frozen=True)
class Refined:
    """What came of a refinement."""

    round: Round
    before: int  # number of the round that it refines
    diff: RoundDiff  # between the two
    settled: bool  # it changed less than the stated share
    made: bool  # false: it was there already, and nothing was done
    progress: Progress | None = None

    @property
    def share(self) -> float:
        """Share of the annotations that changed."""
        return self.diff.total.share


def refine(
    folder: str | Path,
    model: str | Specialist,
    plan: Plan | None = None,
    settings: RunSettings = DEFAULT_SETTINGS,
    least_change: float = LEAST_CHANGE,
    again: bool = False,
    source: str = FLORENCE,
    tell: Tell | None = None,
) -> Refined:
    """Annotate the latest round of a store again with an updated model, and publish what comes of it as the next round.

    model         a checkpoint of ours: a folder, a hub id, or "nano"; or any specialist.
    plan          what the model is asked, how the result is merged and filtered; None: as in the latest round.
    least_change  a round that changes a smaller share of the annotations has settled.
    again         make another round of a model that made the latest one, unless that has settled.
    source        the one in the origin of the notes of a specialist.
    raises        BadConfig for a store without a published round, or with images that it does not know; StageFailed
                  when a stage cannot go on.
    promise       killed and called again with the same arguments, it ends with the same store; called once more, it
                  makes no other round.
    """
    if not 0 <= least_change <= 1:
        raise BadConfig(f"least_change is {least_change}; allowed are shares from 0 to 1")
    store = Store.open(folder)
    last = find_round(store.folder, None)
    units = len(store.units())
    if last.units != units:
        raise BadConfig(
            f"round {last.number} has {last.units} units of images, {folder} has {units}: annotate the new "
            "ones first, with openflorence engine run"
        )
    asked = _Asked(store, model, plan, source)
    before = asked.refined_by(last)
    if before is not None and asked.is_made(before, last):
        diff = store.diff(before.number, last.number)
        if diff.total.share < least_change or not again:
            return Refined(last, before.number, diff, diff.total.share < least_change, False)
    number = last.number + 1
    specs, given, runs = asked.stages(last, number)
    progress = run_stages(specs, asked.where, number, settings, given, tell=tell)
    made = {layer: run for layer, run in progress.runs.items() if layer not in given}
    notes_from = [layer for layer in (f"{REFINE}_{number}", f"{DETAIL}_{number}") if layer in made]
    store.define_round(number, {**runs, **made}, notes_from)
    done = store.publish(number)
    diff = store.diff(last.number, number)
    return Refined(done, last.number, diff, diff.total.share < least_change, True, progress)


@dataclass(frozen=True)
class _Asked:
    """A refinement as it is asked for, of any round of a store."""

    store: Store
    model: str | Specialist
    plan: Plan | None
    source: str

    @property
    def where(self) -> Factory:
        return opens(self.store.folder)

    def refined_by(self, one: Round) -> Round | None:
        """The round that a round refines; None for one that a plan made."""
        facts = self._facts(one, f"{REFINE}_{one.number}")
        if facts is None:
            return None
        past = facts["settings"]["past"] or facts["settings"]["base"]
        return self.store.rounds()[past["round"]]

    def base_of(self, one: Round) -> Round:
        """The latest round that a plan made, from here backwards."""
        before = self.refined_by(one)
        return one if before is None else self.base_of(before)

    def is_made(self, before: Round, one: Round) -> bool:
        """Whether a round is what is asked for, of the round before it: then its runs have the same names."""
        specs, given, _ = self.stages(before, one.number)
        runs = {job.layer: job.run_id for job in plan_jobs(specs, self.where, one.number, given)}
        return runs.items() <= dict(one.runs).items()

    def stages(self, last: Round, number: int) -> tuple[list[StageSpec], dict[str, str], dict[str, str]]:
        """The stages of a round that refines another, the runs that they are given, and those of them that it keeps."""
        base = self.base_of(last)
        who = self._who(last, number)
        told = who.spec(after=(COPIES,) if COPIES in base.runs else ())
        stage = make_stage(told)
        follow = self._after(last, number)
        rewritten = {f"{DETAIL}_{number}"} <= follow.keys()
        merged = {
            "layer": f"{REFINE}_{number}",
            "new": stage.layer,
            "source": self.source,
            "base": {
                "round": base.number,
                "layers": list(base.runs),
                "notes_from": [layer for layer in base.notes_from if not (rewritten and layer == DETAIL)],
            },
            "past": None,
            "labels": list(getattr(stage, "labels", ())),
            "rules": self._rules(last),
        }
        given = dict(base.runs)
        if last != base:
            layers = [f"{name}_{last.number}" for name in (REFINE, FILTER)]
            layers = [layer for layer in layers if layer in last.runs]
            merged["past"] = {"round": last.number, "layers": layers, "notes_from": layers[:1]}
            given |= {layer: last.runs[layer] for layer in layers}
        merge = StageSpec(Factory(f"{__name__}:Merge", merged), time_limit_s=TIME_LIMIT_S)
        after = [StageSpec(factory, time_limit_s=TIME_LIMIT_S) for factory in follow.values()]
        return [told, merge, *after], given, dict(base.runs)

    def _who(self, last: Round, number: int) -> Specialist:
        """The specialist, with the number of the round; asked what the plan, or else the last round, asks it."""
        if isinstance(self.model, Specialist):
            who = self.model
        else:
            who = Specialist(name=FLORENCE, settings=self._network_of(last))
            if self.plan is not None:
                who = next((one for one in self.plan.specialists if one.name == FLORENCE), Specialist(name=FLORENCE))
            who = replace(who, settings=_of_model(who.settings, self.model))
        numbered: dict[str, Any] = {"layer": f"{who.name}_{number}"}
        if who.name != "own":  # a function of one's own signs its notes itself
            numbered["round"] = number
        return replace(who, settings={**who.settings, **numbered})

    def _after(self, last: Round, number: int) -> dict[str, Factory]:
        """What follows the merged notes, by layer: as the plan, or else the last round, has it."""
        suffix = "" if self.plan is not None or last == self.base_of(last) else f"_{last.number}"
        found: Iterator[tuple[str, Factory]]
        if self.plan is not None:
            found = ((make_stage(spec).layer, spec.factory) for spec in stages_of(self.plan))
        else:
            facts = ((layer, self._facts(last, layer)) for layer in last.runs)
            found = ((layer, Factory(one["factory"], one["settings"])) for layer, one in facts if one is not None)
        names = {f"{name}{suffix}": f"{name}_{number}" for name in _AFTER}
        names |= {f"{REFINE}{suffix}" if suffix else FUSED: f"{REFINE}_{number}"}
        return {
            names[layer]: Factory(factory.name, {**_renamed(factory.settings, names), "layer": names[layer]})
            for layer, factory in found
            if layer in names and not layer.startswith((FUSED, REFINE))
        }

    def _rules(self, last: Round) -> dict[str, Any]:
        if self.plan is not None:
            return {**_shared(self.plan.fuse), **self.plan.refine}
        refined = self._facts(last, f"{REFINE}_{last.number}")
        if refined is not None:
            return dict(refined["settings"]["rules"])
        fused = self._facts(last, FUSED)
        return {} if fused is None else _shared(fused["settings"])

    def _network_of(self, last: Round) -> dict[str, Any]:
        """How a round asks our network; nothing where it does not."""
        facts = self._facts(last, f"{FLORENCE}_{last.number}") or self._facts(last, FLORENCE)
        return {} if facts is None else dict(facts["settings"])

    def _facts(self, one: Round, layer: str) -> dict[str, Any] | None:
        if layer not in one.runs:
            return None
        facts: dict[str, Any] = self.store.layer(layer, one.runs[layer]).sealed()["facts"]
        return facts if "factory" in facts else None


def _of_model(settings: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Settings of our network with another model; an adapter and a revision are of the model that they stood beside."""
    found = {**settings, "model": None if model == "nano" else model}
    if "load_with" in found:
        kept = {name: value for name, value in found["load_with"].items() if name not in ("adapter", "revision")}
        found["load_with"] = kept
    return found


def _shared(fuse: Mapping[str, Any]) -> dict[str, Any]:
    """What fusing and refining settle alike."""
    return {name: fuse[name] for name in ("least", "synonyms") if name in fuse}


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Settings with other layers in place of those that they name."""

    def rename(value: Any) -> Any:
        return [names.get(one, one) for one in value] if isinstance(value, list | tuple) else names.get(value, value)

    return {name: rename(value) if name in _NAMES else value for name, value in settings.items()}


# ---- told


def diff_table(diff: RoundDiff) -> str:
    """Give what changed between two rounds, as a table."""
    lines = [f"{diff.changed} of {diff.images} images changed.", ""]
    for many, which in ((diff.only_first, "first"), (diff.only_second, "second")):
        if many:
            lines[0] += f" {many} are in the {which} round alone."
    lines += ["| annotations | same | added | removed | changed |", "|---|---|---|---|---|"]
    rows: dict[str, Changes] = {**diff.kinds, "all": diff.total}
    for name, one in rows.items():
        if one.same or one.added or one.removed:
            lines.append(f"| {name} | {one.same} | {one.added} | {one.removed} | {100 * one.share:.1f} % |")
    return "\n".join(lines)


def diff_row(diff: RoundDiff, pictures: Mapping[str, str]) -> dict[str, Any]:
    """Give the same as plain values, for JSON; `pictures` as changed_images gives them."""
    kinds = {**diff.kinds, "all": diff.total}
    changes = {name: {**asdict(one), "share": round(one.share, 4)} for name, one in kinds.items()}
    images = {"images": diff.images, "changed": diff.changed}
    alone = {"only_first": diff.only_first, "only_second": diff.only_second}
    return images | alone | {"kinds": changes, "examples": [{"id": a, "uri": b} for a, b in pictures.items()]}


def changed_images(store: Store, diff: RoundDiff) -> dict[str, str]:
    """Give id and uri of the first images that changed."""
    found = {name: store.find(name) for name in diff.examples}
    rows: dict[int, list[ImageRow]] = {unit: store.images(unit, data=False) for unit, _ in filter(None, found.values())}
    return {name: rows[at[0]][at[1]].uri for name, at in found.items() if at is not None}


def told(done: Refined, least_change: float) -> str:
    """Say in a line whether to go on."""
    share = f"round {done.round.number} changed {100 * done.share:.1f} % of the annotations of round {done.before}"
    settled, more = f"settled, less than {100 * least_change:g} %", "go on with a model that is trained on it"
    end = settled if done.settled else more
    return f"{share}: {end}" if done.made else f"{share}, and is of this model already: {end}"
