"""Which stages make a round, as a file; and a round made of it.

plan = read_plan(Path("plan.toml"))            # or DEFAULT_PLAN, which works offline
done = run_round("photos/", "fld/", plan)

[[specialist]]                                 # a file has one of these for each; their layers need other names
name = "florence"
model = "microsoft/Florence-2-large"
tasks = ["caption", "detailed_caption", "detect", "ground"]

[fuse]                                         # arguments of engine.annotate.fusing
least = 0.55

[filter.scores]                                # fields of engine.judge.JudgeSettings; `nms = false` turns a rule off
default = 0.3
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from openflorence.data.notes import Notes
from openflorence.data.store import Store
from openflorence.data.store_ingest import Ingested
from openflorence.data.store_rounds import Round
from openflorence.engine.annotate import fusing, specialist
from openflorence.engine.inputs import list_inputs
from openflorence.engine.judge import JudgeSettings, judge
from openflorence.engine.runners import DEFAULT_SETTINGS, RunSettings, run_stages
from openflorence.engine.schedule import Progress, Tell
from openflorence.engine.stages import Context, Factory, Outcome, Row, Stage, StageSpec, make_stage
from openflorence.errors import BadConfig

FUSED, FILTER = "fuse", "filter"  # layers that every plan has


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """One of a plan: its name in engine.annotate.SPECIALISTS, and its settings."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What makes a round."""

    specialists: tuple[Specialist, ...]
    fuse: Mapping[str, Any] = field(default_factory=dict)
    filter: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.specialists:
            raise BadConfig("a plan without a specialist notes nothing; give one [[specialist]] or more")


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
    unknown = sorted(set(given) - {"specialist", "fuse", "filter"})
    if unknown:
        raise BadConfig(f"{path} has {unknown[0]!r}; a plan has [[specialist]], [fuse] and [filter]")
    listed = given.get("specialist", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "name" in one for one in listed):
        raise BadConfig(f"{path}: every [[specialist]] has a name")
    specialists = tuple(
        Specialist(name=one["name"], settings={key: value for key, value in one.items() if key != "name"})
        for one in listed
    )
    plan = Plan(specialists=specialists, fuse=given.get("fuse", {}), filter=given.get("filter", {}))
    judge_settings(plan.filter)  # told now, not after an hour
    return plan


def stages_of(plan: Plan) -> list[StageSpec]:
    """Give the stages of a plan: every specialist, what fuses them, what filters the fused notes.

    raises    BadConfig for a specialist that is not known or does not take its settings.
    """
    specs = [specialist(one.name, one.settings) for one in plan.specialists]
    try:
        fused = fusing([make_stage(spec) for spec in specs], FUSED, **plan.fuse)
    except TypeError as error:
        raise BadConfig(f"[fuse] {dict(plan.fuse)!r}: {error}") from error
    filtered = StageSpec(Factory("openflorence.engine.plan:Filter", {"settings": dict(plan.filter)}))
    return [*specs, fused, filtered]


class Filter(Stage):
    """Judges the fused notes by all rules; writes verdicts, and no notes of its own."""

    layer, needs, reads, batch = FILTER, (FUSED,), (), 256

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Settle the rules: fields of JudgeSettings as plain values."""
        self.settings = judge_settings(settings)

    def setup(self, context: Context) -> None:
        """Nothing is needed."""

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Judge each image by itself."""
        return [(Notes(), judge({FUSED: row.layers[FUSED].notes}, row.image.image_wh, self.settings)) for row in rows]


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


def run_round(
    source: str | None,
    folder: Path,
    plan: Plan = DEFAULT_PLAN,
    settings: RunSettings = DEFAULT_SETTINGS,
    tell: Tell | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Done:
    """Take images into a store, annotate them by a plan and publish the round; or go on with a run that was stopped.

    source    see engine/inputs.py; None: what is in the store.
    folder    of the store; it is made if there is none.
    tell      called with the progress after every unit; advance after every image that is taken in.
    raises    BadConfig for a source, store or plan that does not fit; StageFailed when a stage cannot go on.
    promise   killed and called again with the same arguments, it ends with the same store.
    """
    specs = stages_of(plan)
    store = Store.open(folder) if (folder / "store.json").exists() else Store.create(folder)
    images = [] if source is None else list_inputs(source)
    ingested = store.ingest(images, advance=advance)
    where = Factory("openflorence.data.store:Store", {"folder": str(folder)})
    progress = run_stages(specs, where, 0, settings, tell=tell)
    number = _number_of(store, progress.runs)
    store.define_round(number, progress.runs, notes_from=(FUSED,))
    return Done(ingested, progress, store.publish(number))


def _number_of(store: Store, runs: Mapping[str, str]) -> int:
    """The number of the round that these runs make of the images there are: the one it has, or the next."""
    units = len(store.units())
    same = (n for n, one in store.rounds().items() if dict(one.runs) == dict(runs) and one.units == units)
    return next(same, max(store.rounds(), default=-1) + 1)
