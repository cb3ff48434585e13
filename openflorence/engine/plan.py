"""Which stages make a round, as a file; and a round made of it.

plan = read_plan(Path("plan.toml"))            # or DEFAULT_PLAN, which works offline
done = run_round("photos/", "fld/", plan)

[copies]                                       # near copies are left out; `copies = false` keeps them
near = 8                                       # bits of 128 that they differ in at most
annotated = true                               # false: specialists pass them over; `near` moved, all is annotated again

[[specialist]]                                 # a file has one of these for each; their layers need other names
name = "florence"                              # in engine.annotate.SPECIALISTS
model = "microsoft/Florence-2-large"           # its settings
tasks = ["caption", "detailed_caption", "detect", "ground"]
batch = 8                                      # these four of any specialist: images at once, seconds for a batch,
time_limit_s = 600                             # and what a worker takes
cpus = 1
gpus = 1

[fuse]                                         # arguments of engine.annotate.fusing
least = 0.55

[likelihood]                                   # where there is one: arguments of engine.likelihood.Likelihood
model = "microsoft/Florence-2-large"

[filter.scores]                                # fields of engine.judge.JudgeSettings; `nms = false` turns a rule off
objects = 0.3

[detail]                                       # where there is one: texts made of what was kept, then filtered too
by = "server"                                  # arguments of engine.writing.Writer; "template" has engine.compose's
levels = ["detailed"]
server = { model = "m", base_url = "http://127.0.0.1:8000/v1", budget_tokens = 1000000 }

[refine]                                       # fields of engine.reconcile.ReconcileSettings, for the rounds after it
fill = 0.5
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from openflorence.data.notes import Notes, Verdict, kept_by_all
from openflorence.data.store import Store, is_store
from openflorence.data.store_ingest import Ingested
from openflorence.data.store_place import place_of
from openflorence.data.store_rounds import Round
from openflorence.engine.annotate import fusing, specialist
from openflorence.engine.copies import COPIES, PRINTS, mark_copies
from openflorence.engine.duplicates import NEAR
from openflorence.engine.inputs import Source, joined, open_source, remember, remembered
from openflorence.engine.judge import JudgeSettings, judge
from openflorence.engine.likelihood import LIKELIHOOD
from openflorence.engine.runners import DEFAULT_SETTINGS, RunSettings, run_stages
from openflorence.engine.schedule import Progress, Tell
from openflorence.engine.stages import Context, Factory, Outcome, Resources, Row, Stage, StageSpec, make_stage
from openflorence.errors import BadConfig

FUSED, FILTER, DETAIL = "fuse", "filter", "detail"  # layers
DETAIL_FILTER = "detail_filter"
TIME_LIMIT_S = 1800.0  # for a batch of a specialist that names no limit: what hangs must end
_WRITERS = {"template": "openflorence.engine.compose:Compose", "server": "openflorence.engine.writing:Writer"}


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """One of a plan: its name in engine.annotate.SPECIALISTS, its settings, and how it is run."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None  # as in StageSpec
    time_limit_s: float = TIME_LIMIT_S
    cpus: float | None = None
    gpus: float | None = None

    def spec(self, after: tuple[str, ...] = ()) -> StageSpec:
        """Give the stage that it is.

        raises    BadConfig for a specialist that is not known or does not take its settings.
        """
        made = specialist(self.name, self.settings)
        has = make_stage(made).resources
        resources = Resources(
            cpus=has.cpus if self.cpus is None else self.cpus, gpus=has.gpus if self.gpus is None else self.gpus
        )
        return replace(made, batch=self.batch, time_limit_s=self.time_limit_s, resources=resources, after=after)


@dataclass(frozen=True, kw_only=True)
class CopySettings:
    """What is done about images that are nearly the same as an earlier one."""

    near: int = NEAR  # bits of a hash that copies differ in at most
    annotated: bool = True  # specialists see copies too, so that another `near` costs nothing


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What makes a round."""

    specialists: tuple[Specialist, ...]
    copies: CopySettings | None = field(default_factory=CopySettings)  # None: copies are kept
    fuse: Mapping[str, Any] = field(default_factory=dict)
    likelihood: Mapping[str, Any] | None = None  # None: not measured
    filter: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] | None = None  # None: nothing is written
    refine: Mapping[str, Any] = field(default_factory=dict)  # of the rounds after this one; see refine.py

    def __post_init__(self) -> None:
        if not self.specialists:
            raise BadConfig("a plan without a specialist notes nothing; give one [[specialist]] or more")

    @property
    def notes_from(self) -> tuple[str, ...]:
        """The layers whose notes a record holds."""
        return (FUSED,) if self.detail is None else (FUSED, DETAIL)


DEFAULT_PLAN = Plan(specialists=(Specialist(name="rapidocr"),))  # offline: text is read, and nothing made up


def with_model(plan: Plan, model: str) -> Plan:
    """Let a checkpoint of ours annotate too: a folder, a hub id, or "nano", which knows drawn scenes alone."""
    settings = {} if model == "nano" else {"model": model}
    return replace(plan, specialists=(*plan.specialists, Specialist(name="florence", settings=settings)))


def read_plan(path: Path) -> Plan:
    """Read a plan.

    raises    BadConfig naming the file and what is not understood.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"cannot read the plan {path}: {error}") from error
    known: dict[str, Any] = {
        "specialist": [],
        "copies": {},
        "fuse": {},
        "likelihood": None,
        "filter": {},
        "detail": None,
        "refine": {},
    }
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise BadConfig(f"{path} has {unknown[0]!r}; a plan has [[specialist]], {', '.join(f'[{k}]' for k in known)}")
    tables = known | given
    try:
        listed = tables["specialist"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) and "name" in one for one in listed):
            raise BadConfig("every [[specialist]] has a name")
        copies = tables["copies"]
        plan = Plan(
            specialists=tuple(map(_read_specialist, listed)),
            copies=None if copies is False else _build(CopySettings, _table(copies, "copies"), "copies"),
            fuse=_table(tables["fuse"], "fuse"),
            likelihood=_table(tables["likelihood"], "likelihood"),
            filter=_table(tables["filter"], "filter"),
            detail=_table(tables["detail"], "detail"),
            refine=_table(tables["refine"], "refine"),
        )
        stages_of(plan)  # told now, not after an hour
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error
    return plan


def _read_specialist(given: Mapping[str, Any]) -> Specialist:
    run = {field.name for field in fields(Specialist)} - {"name", "settings"}
    settings = {key: value for key, value in given.items() if key != "name" and key not in run}
    return Specialist(name=given["name"], settings=settings, **{key: given[key] for key in run & set(given)})


def _table(given: Any, name: str) -> Any:
    if given is not None and not isinstance(given, dict):
        raise BadConfig(f"{name} is {given!r}; it is a table: [{name}]")
    return given


# ---- stages


def stages_of(plan: Plan) -> list[StageSpec]:
    """Give the stages of a plan but for those that find copies: specialists, what fuses and filters, what is written.

    raises    BadConfig for a specialist, writer or rule that is not known or does not take its settings.
    """
    copies = () if plan.copies is None else (COPIES,)
    seen = () if plan.copies is None or plan.copies.annotated else (COPIES,)
    specs = [one.spec(after=seen) for one in plan.specialists]
    try:
        fused = fusing([make_stage(spec) for spec in specs], FUSED, **plan.fuse)
    except TypeError as error:
        raise BadConfig(f"[fuse] {dict(plan.fuse)!r}: {error}") from error
    specs.append(replace(fused, after=copies))
    measured: tuple[str, ...] = ()
    if plan.likelihood is not None:
        specs.append(_spec("openflorence.engine.likelihood:Likelihood", {"of": FUSED, **plan.likelihood}))
        measured = (LIKELIHOOD,)
    specs.append(filtering(FILTER, plan.filter, (FUSED,), measured_by=measured))
    if plan.detail is not None:
        given = dict(plan.detail)
        by = given.pop("by", "template")
        if by not in _WRITERS:
            raise BadConfig(f"[detail] is written by {by!r}; allowed: {', '.join(_WRITERS)}")
        specs.append(_spec(_WRITERS[by], {"needs": [FUSED, FILTER], "layer": DETAIL, **given}))
        specs.append(filtering(DETAIL_FILTER, plan.filter, (DETAIL,), beside=(FUSED, FILTER)))
    for spec in specs:
        make_stage(spec)
    return specs


def _spec(name: str, settings: Mapping[str, Any]) -> StageSpec:
    return StageSpec(Factory(name, dict(settings)), time_limit_s=TIME_LIMIT_S)


def filtering(
    layer: str,
    settings: Mapping[str, Any],
    judged: Sequence[str],
    beside: Sequence[str] = (),
    measured_by: Sequence[str] = (),
) -> StageSpec:
    """Give the spec of the stage that judges the notes of some layers.

    layer        that it writes.
    settings     fields of JudgeSettings as plain values.
    judged       layers whose notes are judged; of layers that were fused the fused one alone.
    beside       layers that were judged before: what was kept of them is there, and stays unless a surer note of the
                 others says the same.
    measured_by  layers whose measures are held against the threshold of likelihood.
    """
    given = {"judged": list(judged), "beside": list(beside), "measured_by": list(measured_by)}
    return StageSpec(Factory("openflorence.engine.plan:Filter", {"layer": layer, "settings": dict(settings), **given}))


class Filter(Stage):
    """Judges notes by all rules; writes verdicts, and no notes of its own."""

    reads, batch = (), 256

    def __init__(
        self,
        settings: Mapping[str, Any],
        layer: str = FILTER,
        judged: Sequence[str] = (FUSED,),
        beside: Sequence[str] = (),
        measured_by: Sequence[str] = (),
    ) -> None:
        """Settle the rules, and which layers they are about; see `filtering`."""
        self.settings, self.layer = judge_settings(settings), layer
        self.judged, self.beside, self.measured_by = tuple(judged), tuple(beside), tuple(measured_by)
        self.needs = (*self.judged, *self.beside, *self.measured_by)

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Judge each image by itself."""
        return [(Notes(), self._judge(row)) for row in rows]

    def _judge(self, row: Row) -> list[Verdict]:
        notes = {name: kept_by_all(row.layers, name) for name in self.beside}
        notes |= {name: row.layers[name].notes for name in self.judged}
        measured = {
            measure.note_id: measure.value
            for name in self.measured_by
            for measure in row.layers[name].measures
            if measure.name == LIKELIHOOD and measure.value is not None
        }
        return list(judge(notes, row.image.image_wh, self.settings, measured))


def judge_settings(given: Mapping[str, Any]) -> JudgeSettings:
    """Make the settings of the rules of plain values; false turns a rule off.

    raises    BadConfig for a rule or a setting that there is none of.
    """
    settings: JudgeSettings = _build(JudgeSettings, given, "filter")
    return settings


def _build(kind: type, given: Mapping[str, Any], where: str) -> Any:
    """An instance of a dataclass of plain values, nested as they are."""
    hints, known = get_type_hints(kind), {one.name for one in fields(kind)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise BadConfig(f"[{where}] has {unknown[0]!r}; allowed are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        inner = next((one for one in (hints[name], *get_args(hints[name])) if is_dataclass(one)), None)
        if value is False and inner is not None:
            values[name] = None
        elif isinstance(value, Mapping) and isinstance(inner, type):
            values[name] = _build(inner, value, f"{where}.{name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


# ---- a round


@dataclass(frozen=True)
class Done:
    """What came of a run."""

    ingested: Ingested
    progress: Progress
    round: Round


def with_labels(plan: Plan, labels: Sequence[Mapping[str, Any]]) -> Plan:
    """Let those speak too whose labels images came with, unless the plan names the same data set itself.

    labels    "name" and "settings" of specialists, as engine/inputs.py has them.
    """
    named = {(one.name, one.settings.get("path")) for one in plan.specialists}
    own = [Specialist(**one) for one in labels if (one["name"], one["settings"].get("path")) not in named]
    return replace(plan, specialists=(*plan.specialists, *own))


def run_round(
    source: str | Source | None,
    folder: str | Path,
    plan: Plan = DEFAULT_PLAN,
    settings: RunSettings = DEFAULT_SETTINGS,
    tell: Tell | None = None,
    advance: Callable[[], object] = lambda: None,
    retry: bool = False,
) -> Done:
    """Take images into a store, annotate them by a plan and publish the round; or go on with a run that was stopped.

    source    see engine/inputs.py; None: what is in the store. Labels that images came with are a specialist more,
              in this round and in all later ones.
    folder    of the store, or its URL; it is made if there is none.
    tell      called with the progress after every unit; advance after every image that is taken in.
    retry     do images again that stages failed at.
    raises    BadConfig for a source, store or plan that does not fit; StageFailed when a stage cannot go on.
    promise   killed and called again with the same arguments, it ends with the same store.
    """
    taken = open_source(source) if isinstance(source, str) else source or Source(())
    place = place_of(folder)
    labels = joined(remembered(place), taken.labels)
    plan = with_labels(plan, labels)
    specs = stages_of(plan)
    store = Store.open(place) if is_store(place) else Store.create(place)
    if labels != remembered(place):
        remember(place, labels)
    ingested = store.ingest(taken.images, advance=advance)
    where = opens(store.folder)
    given = {}
    if plan.copies is not None:
        prints = [_spec("openflorence.engine.copies:Prints", {})]
        found = run_stages(prints, where, 0, settings, tell=tell, retry=retry)
        given = {COPIES: mark_copies(store, found.runs[PRINTS], plan.copies.near)}
    progress = run_stages(specs, where, 0, settings, given, tell=tell, retry=retry)
    runs = {**given, **progress.runs}
    number = number_of(store, runs)
    store.define_round(number, runs, notes_from=plan.notes_from)
    return Done(ingested, progress, store.publish(number))


def opens(folder: Path) -> Factory:
    """Give what opens a store in every worker."""
    return Factory("openflorence.data.store:Store", {"folder": str(folder)})


def number_of(store: Store, runs: Mapping[str, str]) -> int:
    """Give the number of the round that these runs make of the images there are: the one it has, or the next."""
    units = len(store.units())
    same = (n for n, one in store.rounds().items() if dict(one.runs) == dict(runs) and one.units == units)
    return next(same, max(store.rounds(), default=-1) + 1)
