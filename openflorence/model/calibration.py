"""What a score is worth: raw scores -> how often answers of such a score are right, kept beside the weights.

calibration = read_calibration(folder)           # None where there is no calibration.json
calibration.curves["detect"].apply(0.31)         # 0.87: of boxes scored so, 87 in a hundred are right
write_calibration(calibration, folder)

A calibration belongs to the weights that it was fitted on. It goes with them when they are converted; what trains
weights, or merges an adapter into them, leaves it behind. `evaluation/calibrate.py` fits one.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import find_task
from openflorence.errors import BadCheckpoint, BadConfig, BadPrompt
from openflorence.model.files import read_json

FILE = "calibration.json"
Method = Literal["isotonic", "temperature"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """From the scores of one task to probabilities: never falling, from 0..1 into 0..1."""

    method: Method
    temperature: float = 1.0  # divides the logarithm of a score; above 1 the network is less sure than it is right
    knots: tuple[tuple[float, float], ...] = ()  # of "isotonic": scores and probabilities, straight lines between them

    def __post_init__(self) -> None:
        if self.method == "temperature":
            if not (math.isfinite(self.temperature) and self.temperature > 0):
                raise BadConfig(f"temperature is {self.temperature}; a number above 0 is needed")
            return
        scores, worth = ([knot[side] for knot in self.knots] for side in (0, 1))
        inside = all(0 <= value <= 1 for value in (*scores, *worth))  # also refuses what is no number
        rising = all(a < b for a, b in pairwise(scores)) and worth == sorted(worth)
        if len(self.knots) < 2 or not inside or not rising:
            raise BadConfig(
                "knots must be two or more pairs in 0..1, scores rising and probabilities not falling; "
                f"got {self.knots!s:.120}"
            )

    def apply(self, score: float) -> float:
        """Give the probability that an answer of this score is right.

        score     in 0..1. Outside the knots the nearest one holds.
        source    "temperature": Guo et al. 2017, the summed log-probability divided by T. "isotonic": Zadrozny and
                  Elkan 2002.
        """
        if self.method == "temperature":
            return float(min(max(score, 0.0), 1.0) ** (1 / self.temperature))
        scores, worth = zip(*self.knots, strict=True)
        return float(np.interp(score, scores, worth))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The curve of one task, and what it was fitted on."""

    curve: Curve
    n: int  # scores that the curve was fitted on
    error_before: float  # expected calibration error in 0..1, on images that a first fit had not seen
    error_after: float  # and with that first fit


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the scores of a checkpoint are worth, task by task. A task without a fit keeps its raw scores."""

    fits: Mapping[str, Fit]  # by task name
    data: str  # what it was fitted on, for people
    date: str

    @property
    def curves(self) -> dict[str, Curve]:
        """The curves by task name."""
        return {name: fit.curve for name, fit in self.fits.items()}

    def settle(self, answer: Answer) -> Answer:
        """Put probabilities in place of the scores of an answer's regions, or of its text where text is the answer.

        returns   the answer as it is when its task has no curve. label_score and place_score always stay raw.
        """
        fit = self.fits.get(answer.task.name)
        if fit is None:
            return answer
        if answer.task.form == "text":
            return answer if answer.score is None else replace(answer, score=fit.curve.apply(answer.score))
        return replace(answer, regions=tuple(_settled(region, fit.curve) for region in answer.regions))


def _settled(region: Region, curve: Curve) -> Region:
    return region if region.score is None else replace(region, score=curve.apply(region.score))


# ---- beside the weights


def read_calibration(folder: str | Path) -> Calibration | None:
    """Read the calibration of a checkpoint folder; None when it has none.

    raises    BadCheckpoint naming file and field when it is not as `write_calibration` writes it.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    table = _fields(read_json(path), {"data": str, "date": str, "tasks": dict}, str(path))
    fits = {name: _fit(name, entry, f"{path}: tasks.{name}") for name, entry in table["tasks"].items()}
    return Calibration(fits=fits, data=table["data"], date=table["date"])


def write_calibration(calibration: Calibration, folder: str | Path) -> Path:
    """Write calibration.json into a folder, in place of one that is there; gives its path.

    promise   an interrupted write leaves what was there; read_calibration gives back an equal calibration.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.partial"
    rows = [f"  {json.dumps(name)}: {json.dumps(_plain(fit))}" for name, fit in calibration.fits.items()]
    tasks = ",\n".join(rows)  # a task a line: a step of a curve a line would be a long file
    head = f'"data": {json.dumps(calibration.data)},\n "date": {json.dumps(calibration.date)}'
    partial.write_text(f'{{{head},\n "tasks": {{\n{tasks}\n }}}}\n', encoding="utf-8")
    os.replace(partial, folder / FILE)
    return folder / FILE


def _plain(fit: Fit) -> dict[str, Any]:
    curve: dict[str, Any] = {"method": fit.curve.method}
    if fit.curve.method == "temperature":
        curve["temperature"] = fit.curve.temperature
    else:
        curve["scores"], curve["probabilities"] = ([knot[side] for knot in fit.curve.knots] for side in (0, 1))
    return curve | {"n": fit.n, "error_before": fit.error_before, "error_after": fit.error_after}


def _fit(name: str, entry: Any, where: str) -> Fit:
    try:
        known = find_task(name).name == name
    except BadPrompt:
        known = False
    if not known:
        raise BadCheckpoint(f"{where}: no task has this name; fit it anew with `openflorence calibrate`")
    method = entry.get("method") if isinstance(entry, dict) else None
    if isinstance(entry, dict) and method not in METHODS:
        raise BadCheckpoint(f"{where}.method is {method!r:.60}; allowed: {', '.join(METHODS)}")
    own = {"temperature": float} if method == "temperature" else {"scores": list, "probabilities": list}
    wanted = {"method": str, **own, "n": int, "error_before": float, "error_after": float}
    table = _fields(entry, wanted, where)
    for field in ("error_before", "error_after"):
        if not 0 <= table[field] <= 1:
            raise BadCheckpoint(f"{where}.{field} is {table[field]}; a number in 0..1 is needed")
    if table["n"] < 1:
        raise BadCheckpoint(f"{where}.n is {table['n']}; a curve is fitted on 1 score or more")
    knots = zip(_numbers(table, "scores", where), _numbers(table, "probabilities", where), strict=False)
    if len(table.get("scores", ())) != len(table.get("probabilities", ())):
        raise BadCheckpoint(f"{where}: scores and probabilities are of unequal number; each score has one probability")
    try:
        curve = Curve(method=table["method"], temperature=table.get("temperature", 1.0), knots=tuple(knots))
    except BadConfig as error:
        raise BadCheckpoint(f"{where}: {error}") from error
    return Fit(curve=curve, n=table["n"], error_before=table["error_before"], error_after=table["error_after"])


def _fields(entry: Any, wanted: Mapping[str, type], where: str) -> dict[str, Any]:
    """Give a JSON object back that has exactly the wanted fields, numbers as floats.

    raises    BadCheckpoint naming what is missing, of another kind, or not known here.
    """
    if not isinstance(entry, dict):
        raise BadCheckpoint(f"{where} is {entry!r:.60}; an object with {', '.join(wanted)} is needed")
    if odd := sorted(set(entry) ^ set(wanted)):
        seen, needed = ", ".join(map(repr, entry)) or "nothing", ", ".join(wanted)
        raise BadCheckpoint(f"{where} has {seen}, which differs in {', '.join(odd)}; it needs exactly {needed}")
    table = {}
    for name, kind in wanted.items():
        value = entry[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if kind is float else isinstance(value, kind) and not isinstance(value, bool)):
            raise BadCheckpoint(f"{where}.{name} is {value!r:.60}; {kind.__name__} is needed")
        table[name] = _float(value, f"{where}.{name}") if kind is float else value
    return table


def _numbers(table: Mapping[str, Any], name: str, where: str) -> list[float]:
    values = table.get(name, [])
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise BadCheckpoint(f"{where}.{name} is {values!r:.60}; numbers are needed")
    return [_float(value, f"{where}.{name}") for value in values]


def _float(value: int | float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number that no float holds
        raise BadCheckpoint(f"{where} is {value!r:.60}; a number that a float can hold is needed") from None
