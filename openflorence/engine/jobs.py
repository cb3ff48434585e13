"""What a run is made of: the store as the engine sees it, and stages with all that a worker must know of them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from openflorence.data.notes import ImageRow, LayerRow
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

ATTEMPTS = 200  # at a unit, before something else than single images must be wrong


class LayerRun(Protocol):
    """One run of one layer in the store."""

    def is_done(self, unit: int) -> bool:
        """Tell whether the rows of a unit are there."""
        ...

    def write(self, unit: int, rows: Sequence[LayerRow]) -> Sequence[LayerRow]:
        """Keep the rows of a unit, whole or not at all; written again, they take the place of the old ones.

        returns   the rows as they are kept: one that cannot be has failed.
        """
        ...

    def read(self, unit: int) -> Sequence[LayerRow]:
        """Give the rows of a unit."""
        ...

    def read_breadcrumb(self, unit: int) -> Mapping[str, Any] | None:
        """Give what was last left; None when there is nothing."""
        ...

    def write_breadcrumb(self, unit: int, crumb: Mapping[str, Any] | None) -> None:
        """Leave something for the next attempt, whole or not at all; None takes it away."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Be the one who drives this run, while a block runs; what killed writers left is deleted first.

        raises    BadConfig when another process is.
        """
        ...

    def seal(self) -> object:
        """Say that every unit is there."""
        ...

    @property
    def is_sealed(self) -> bool:
        """True once it was said."""
        ...


class Store(Protocol):
    """Where images come from and notes go to."""

    @property
    def cache(self) -> Path:
        """Folder of this machine for answers that cost money."""
        ...

    @property
    def corpus_id(self) -> str:
        """What the store calls its images as they are cut into units."""
        ...

    def units(self) -> Sequence[int]:
        """Name the units that the images are cut into."""
        ...

    def images(self, unit: int, data: bool = True) -> Sequence[ImageRow]:
        """Give the images of a unit, always in the same order; without their bytes when these are not wanted."""
        ...

    def layer(self, layer: str, run_id: str, facts: Mapping[str, Any] | None = None) -> LayerRun:
        """Give a run of a layer, begun or not.

        facts     what it is made with, to be kept with its rows.
        """
        ...


@dataclass(frozen=True)
class Job:
    """A stage with all that a worker must know to do units of it; plain values, to be sent to other processes."""

    spec: StageSpec
    store: Factory
    layer: str
    run_id: str
    facts: Mapping[str, Any]  # as run_facts gives them
    needs: Mapping[str, str]  # layer -> run id
    batch: int
    resources: Resources
    time_limit_s: float | None
    cache: Path | None = None  # as in Context
    earlier: str = ""  # run id whose rows are taken over but for those that failed
    attempts: int = ATTEMPTS

    def open(self, store: Store) -> LayerRun:
        """Give the run that this job writes."""
        return store.layer(self.layer, self.run_id, self.facts)


def plan_jobs(
    specs: Sequence[StageSpec],
    store: Factory,
    round: int,
    given: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
    retry: bool = False,
) -> list[Job]:
    """Make a job of every stage, each after those that it needs.

    round     of the data engine; 0 before the first.
    given     layers that were written by earlier runs: layer -> run id.
    attempts  at a unit before the run is ended.
    retry     what failed in a run that is whole is done again, in a run of its own: the id with ".1", ".2", ...
    raises    BadConfig for stages that cannot be made, or do not fit together.
    promise   without `retry` the last of such runs goes on.
    """
    runs = dict(given or {})
    opened: Store = store.make()
    stages = [make_stage(spec) for spec in specs]
    waits = [(stage.layer, waited_for(spec, stage)) for spec, stage in zip(specs, stages, strict=True)]
    jobs = []
    for place in in_turn(waits, runs):
        spec, stage = specs[place], stages[place]
        facts = run_facts(spec, stage, round, runs, opened.corpus_id)
        run_id, earlier = _last_run(opened, stage.layer, fingerprint(facts), retry)
        job = Job(
            spec=spec,
            store=store,
            layer=stage.layer,
            run_id=run_id,
            facts=facts,
            needs={layer: runs[layer] for layer in waits[place][1]},
            batch=spec.batch or stage.batch,
            resources=spec.resources or stage.resources,
            time_limit_s=spec.time_limit_s or stage.time_limit_s,
            cache=opened.cache,
            earlier=earlier,
            attempts=attempts,
        )
        runs[stage.layer] = run_id
        jobs.append(job)
    return jobs


def _last_run(store: Store, layer: str, first: str, retry: bool) -> tuple[str, str]:
    """The run to go on with, and the one whose good rows it takes over: "r0-ab.2" after "r0-ab.1" after "r0-ab"."""
    units = store.units()
    last, earlier = first, ""
    for number in count(1):
        following = f"{first}.{number}"
        begun = any(store.layer(layer, following).is_done(unit) for unit in units)
        wanted = retry and store.layer(layer, last).is_sealed and _has_failed(store.layer(layer, last), units)
        if not begun and not wanted:
            return last, earlier
        last, earlier = following, last
        if not begun:
            return last, earlier
    raise AssertionError("count does not end")


def _has_failed(run: LayerRun, units: Sequence[int]) -> bool:
    return any(row.status == "failed" for unit in units for row in run.read(unit))
