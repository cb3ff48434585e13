"""A stage: what is noted of a batch of images. It knows nothing of the store, nor of who runs it and where.

    class Detector(Stage):
        layer, batch, resources = "detect", 16, Resources(gpus=1)

        def setup(self, context):          # once for each worker
            self.model = load(context.device)

        def process(self, rows):           # one outcome a row; may raise
            return [self.look(row.image.data) for row in rows]

Workers are other processes, often on other machines, so a stage travels as a StageSpec: the name of what makes it and
plain settings. Making one must cost nothing, for whoever plans a run makes it too: models are loaded in `setup`.
"""

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from openflorence.data.notes import ImageRow, LayerRow, Measure, Notes, Verdict
from openflorence.errors import BadConfig


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage takes."""

    cpus: float = 1
    gpus: float = 0  # a share of one; more than one only on Ray. A CPU is taken where there is no GPU


@dataclass(frozen=True)
class Context:
    """What a stage is told when a worker sets it up."""

    device: str = "cpu"  # "cuda:1" where the stage asks for a share of a GPU
    cache: Path | None = None  # a folder that outlives the run, for answers that cost money


@dataclass(frozen=True)
class Row:
    """What a stage gets of one image."""

    image: ImageRow  # its data is empty for a stage that reads no images
    layers: Mapping[str, LayerRow]  # of every layer it needs; failed ones are there too, without notes


@dataclass(frozen=True)
class Drop:
    """The outcome for an image that is to be left out whole, as a duplicate: no later stage sees it."""

    rule: str  # "duplicate"
    reason: str  # in words


Outcome = Notes | tuple[Notes, Sequence[Verdict]] | tuple[Notes, Sequence[Verdict], Sequence[Measure]] | Drop


class Stage(Protocol):
    """What is noted of a batch of images. What stands here as a default need not be repeated."""

    layer: str  # name of the layer it writes
    needs: tuple[str, ...] = ()  # layers it reads
    reads: tuple[str, ...] = ("image",)  # () where the notes of other layers are enough
    batch: int = 16  # rows at once, at most
    resources: Resources = Resources()
    time_limit_s: float | None = None  # for a batch; a worker that takes longer is ended
    model: str = ""  # name of the network behind it, for the run id
    revision: str = ""  # of that network
    edition: int = 1  # of its code, for a stage of ours that reads images: another one when it notes something else

    def setup(self, context: Context) -> None:
        """Load what is needed, once for each worker; what it raises ends the run."""

    def process(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Give one outcome for each row, in order.

        raises    whatever it likes: the batch is done again row by row, and only rows that raise alone have failed.
        """
        ...


@dataclass(frozen=True)
class Factory:
    """A name and plain settings, from which any process makes the same thing."""

    name: str  # "module:function" or "module:Class.method"
    settings: Mapping[str, Any] = field(default_factory=dict)  # its arguments; what JSON can hold

    def make(self) -> Any:
        """Call what is named with the settings.

        raises    BadConfig when there is no such thing or it does not take these settings.
        """
        module, colon, path = self.name.partition(":")
        if not (module and colon and path):
            raise BadConfig(f"{self.name!r} names nothing that can be made; write module:name, as mine.stages:Detector")
        try:
            made: Any = importlib.import_module(module)
            for part in path.split("."):
                made = getattr(made, part)
        except (ImportError, AttributeError) as error:
            raise BadConfig(f"{self.name} cannot be imported: {error}; is its folder on the Python path?") from error
        try:
            inspect.signature(made).bind(**self.settings)
        except TypeError as error:
            raise BadConfig(f"{self.name} does not take {dict(self.settings)!r}: {error}") from error
        return made(**self.settings)


@dataclass(frozen=True)
class StageSpec:
    """A stage as it travels: how it is made, what it comes after, how it is run. The last is no part of its run id."""

    factory: Factory
    batch: int | None = None  # None in these: as the stage says
    time_limit_s: float | None = None
    resources: Resources | None = None
    after: tuple[str, ...] = ()  # layers beside those it reads: an image that one of them leaves out is passed over


def make_stage(spec: StageSpec) -> Stage:
    """Make a stage and look it over.

    raises    BadConfig when it cannot be made, or what was made is no stage.
    """
    stage = spec.factory.make()
    name = spec.factory.name
    missing = [part for part in _PARTS if not hasattr(stage, part)]
    if missing:
        raise BadConfig(
            f"{name} gives {type(stage).__name__}, which has no {missing[0]!r}; derive its class from Stage"
        )
    fits = {
        "layer": isinstance(stage.layer, str) and stage.layer.isidentifier(),
        "needs": _are_texts(stage.needs),
        "reads": _are_texts(stage.reads) and set(stage.reads) <= {"image"},
        "batch": isinstance(stage.batch, int) and stage.batch > 0,
        "time_limit_s": stage.time_limit_s is None or stage.time_limit_s > 0,
        "resources": isinstance(stage.resources, Resources),
        "model": _are_texts((stage.model, stage.revision)),
    }
    wrong = [part for part, well in fits.items() if not well]
    if wrong:
        raise BadConfig(f"{name}: its {wrong[0]} is {getattr(stage, wrong[0])!r}; {_ALLOWED[wrong[0]]}")
    checked: Stage = stage
    return checked


def waited_for(spec: StageSpec, stage: Stage) -> tuple[str, ...]:
    """Name the layers that a stage comes after, each once: those it reads, and those its spec names."""
    return tuple(dict.fromkeys((*stage.needs, *spec.after)))


def run_facts(spec: StageSpec, stage: Stage, round: int, needs: Mapping[str, str], corpus: str) -> dict[str, Any]:
    """Give everything that shapes the notes of a run, as plain values.

    stage     as made from the spec.
    needs     layer -> run id, for every layer that the stage needs.
    corpus    what the store calls its images.
    promise   batch size, resources and time limit are not among it: a run goes on with others.
    """
    return {
        "layer": stage.layer,
        "round": round,
        "factory": spec.factory.name,
        "settings": dict(spec.factory.settings),
        "model": stage.model,
        "revision": stage.revision,
        "needs": {layer: needs[layer] for layer in waited_for(spec, stage)},
        "corpus": corpus,
        "code": _code_version(spec.factory.name.partition(":")[0], stage),
    }


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Name a run by its facts: "r<round>-<hash>", another name as soon as one of them is another.

    raises    BadConfig when a setting is none that JSON can hold.
    """
    try:
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadConfig(f"the settings of {facts['factory']} are {facts['settings']!r}: {error}") from error
    return f"r{facts['round']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def in_turn(waits: Sequence[tuple[str, Sequence[str]]], given: Mapping[str, str]) -> list[int]:
    """Give the places of the stages such that every one comes after those it needs, otherwise as they stand.

    waits     the layer that each writes, and the layers it comes after.
    given     layers that are there already, by layer.
    raises    BadConfig for two stages of one layer, a layer that nobody writes, or stages that wait for each other.
    """
    layers = [layer for layer, _ in waits]
    twice = sorted({layer for layer in layers if layers.count(layer) > 1 or layer in given})
    if twice:
        raise BadConfig(f"layer {twice[0]!r} is written twice; give each stage a layer of its own")
    for layer, needs in waits:
        lacking = sorted(set(needs) - {*layers, *given})
        if lacking:
            there = ", ".join(sorted({*layers, *given}))
            raise BadConfig(f"stage {layer!r} needs layer {lacking[0]!r}, which nobody writes; there are: {there}")
    placed: list[int] = []
    done = set(given)
    while len(placed) < len(waits):
        free = [at for at, (_, needs) in enumerate(waits) if at not in placed and set(needs) <= done]
        if not free:
            stuck = ", ".join(layer for layer in layers if layer not in done)
            raise BadConfig(f"stages wait for each other: {stuck}; take one of the needs away")
        placed.append(free[0])
        done.add(layers[free[0]])
    return placed


def _are_texts(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


def _code_version(module: str, stage: Stage) -> str:
    """What changes when a stage may note something else.

    Of a stage of ours that looks at images its edition, so that a new version of this package does not annotate a
    million images again; of one that reads notes alone all code of the engine, since doing that again costs little; of
    a module of one's own its file.
    """
    if module.split(".")[0] == "openflorence":
        return f"edition {stage.edition}" if stage.reads else _engine_code()
    source = inspect.getsourcefile(importlib.import_module(module))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


@cache
def _engine_code() -> str:
    """A hash of the files of this room and of the notes they are about."""
    room = Path(__file__).parent
    files = [*sorted(room.glob("*.py")), *sorted((room.parent / "contract").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


_FIELDS = ("layer", "needs", "reads", "batch", "resources", "time_limit_s", "model", "revision", "edition")
_PARTS: tuple[str, ...] = (*_FIELDS, "setup", "process")
_ALLOWED = {
    "layer": "a name of letters, digits and underscores",
    "needs": "a tuple of layers",
    "reads": '("image",) or ()',
    "batch": "a whole number of rows, at least 1",
    "time_limit_s": "seconds, more than 0, or None",
    "resources": "Resources(cpus=..., gpus=...)",
    "model": "model and revision are texts",
}
