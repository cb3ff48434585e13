"""The trail of a unit: which images were in flight, written before every batch, and what follows when a worker died.

A worker that dies leaves the ids of its batch behind. The next attempt takes those images first and one by one. An
image is blamed after dying twice, alone in flight: one death is not enough, for whoever kills a run must not condemn
the image that was being looked at.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from openflorence.engine.jobs import Job, LayerRun
from openflorence.errors import StageFailed


@dataclass(frozen=True)
class Trail:
    """What is known from earlier attempts at a unit, and what is in flight in this one."""

    attempts: int = 0
    step: int = 0  # counts up: a trail that does not change is a batch that does not end
    in_flight: tuple[str, ...] = ()  # ids of images
    hung: bool = False  # what is in flight was ended for taking too long
    ends: Mapping[str, int] = field(default_factory=dict)  # id -> workers that ended with it in flight
    alone: Mapping[str, int] = field(default_factory=dict)  # id -> of these, with nothing beside it
    blamed: Mapping[str, str] = field(default_factory=dict)  # id -> "killed" or "timeout"

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one for every batch of every attempt."""
        return self.attempts, self.step

    @staticmethod
    def read(run: LayerRun, unit: int) -> "Trail":
        """Read what was left; an empty trail when there is nothing."""
        crumb = run.read_breadcrumb(unit) or {}
        return Trail(**{**crumb, "in_flight": tuple(crumb.get("in_flight", ()))})

    def keep(self, run: LayerRun, unit: int) -> "Trail":
        """Write it down; gives itself."""
        run.write_breadcrumb(unit, asdict(self))
        return self

    def resumed(self) -> "Trail":
        """Give what a new attempt starts with: those in flight are suspects, or blamed."""
        ends, alone, blamed = dict(self.ends), dict(self.alone), dict(self.blamed)
        for name in self.in_flight:
            # Alone and over the time limit is as good as a second death: no chance kill looks like that.
            counted = 2 if self.hung and name in ends else 1
            ends[name] = ends.get(name, 0) + 1
            if len(self.in_flight) == 1:
                alone[name] = alone.get(name, 0) + counted
                if alone[name] >= 2:
                    blamed[name] = "timeout" if self.hung else "killed"
        return Trail(self.attempts + 1, ends=ends, alone=alone, blamed=blamed)


def begin(job: Job, run: LayerRun, unit: int) -> Trail:
    """Start an attempt at a unit.

    raises    StageFailed when no attempt is left; the count begins anew after that.
    """
    trail = Trail.read(run, unit).resumed()
    if trail.attempts <= job.attempts:
        return trail.keep(run, unit)
    replace(trail, attempts=0).keep(run, unit)
    raise StageFailed(
        f"stage {job.layer!r} died {trail.attempts - 1} times over unit {unit}, as often as is allowed, and "
        f"{len(trail.blamed)} of its images are blamed so far; look at memory and drivers, then start again: what is "
        "done stays done"
    )


def mark_hung(run: LayerRun, unit: int, stamp: tuple[int, int]) -> None:
    """Note that the worker of a unit was ended because the batch of this stamp took too long, if it still is at it.

    Call it when the worker is no more, so that it cannot leave anything later.
    """
    trail = Trail.read(run, unit)
    if trail.stamp == stamp:
        replace(trail, hung=True).keep(run, unit)
