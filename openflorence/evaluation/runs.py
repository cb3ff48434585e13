"""One evaluation from the words of the command line to what is left on disk: asked, scored, reported.

Of an official benchmark, and of the drawn world where a folder is given, the folder gets answers.jsonl, an answer a
line as it comes, about.json, scores.json, report.md and report.html; asked again, only what has no answer is asked.
A calibration leaves calibration.json beside the weights, and a page of reliability diagrams.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.data.problems import Problems, write_text
from openflorence.errors import BadConfig
from openflorence.evaluation.benchmarks import (
    BENCHMARKS,
    Opened,
    ask_benchmark,
    open_benchmark,
    score_answers,
)
from openflorence.evaluation.calibrate import calibrate_records, calibrate_world
from openflorence.evaluation.compare import compare
from openflorence.evaluation.drawn import WORLD, WorldScores, as_markdown, as_row, evaluate_world
from openflorence.evaluation.drawn_file import Scenes, ask_world, score_world
from openflorence.evaluation.figures import Answerer, percent, plain_figure, table, write_report
from openflorence.evaluation.heldout import evaluate_records, open_part
from openflorence.evaluation.report import write_pages
from openflorence.evaluation.results import Results
from openflorence.model.calibration import FILE as CALIBRATION_FILE
from openflorence.model.calibration import Method, write_calibration
from openflorence.model.hub import resolve
from openflorence.model.predict import AskOptions
from openflorence.pages.pieces import as_html

SCENES = 500  # of the drawn world unless limited
CALIBRATION_SCENES = 1000  # the same, to fit a calibration
SCORES_FILE = "scores.json"
PAGE_FILE = "calibration.html"
Advance = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """What to evaluate, and where to leave it."""

    benchmark: str  # "world", "data" or a name of BENCHMARKS
    model: str  # what the model is called in reports
    date: str
    options: AskOptions
    data: str | Path | None = None
    split: str | None = None
    limit: int | None = None
    seed: int = 0  # of the first drawn scene
    format: str | None = None  # of a data set
    tasks: tuple[str, ...] = ()
    out: Path | None = None
    answers: Path | None = None  # scored instead of asking
    against: Path | None = None  # answers of another model to the same questions

    def __post_init__(self) -> None:
        allowed = ("world", "data", *BENCHMARKS)
        if self.benchmark not in allowed:
            raise BadConfig(f"benchmark is {self.benchmark!r}; allowed: {', '.join(allowed)}")
        if self.data is None and self.benchmark != "world":
            raise BadConfig(f"evaluate {self.benchmark} needs --data: the folder or main file of its data")
        if self.benchmark == "data" and (self.answers or self.against):
            raise BadConfig("evaluate data takes no --answers and no --against: its questions have no ids; ask a model")
        if self.benchmark in BENCHMARKS and len(self.tasks) > 1:
            raise BadConfig(f"{self.benchmark} is asked with one task; got --task {', '.join(self.tasks)}")

    @property
    def folder(self) -> Path | None:
        """Where answers and reports go; None where only the scores are wanted, in a JSON file or nowhere."""
        if self.benchmark in BENCHMARKS and self.out is None and self.answers is None:
            words = (self.benchmark, self.split or next(iter(BENCHMARKS[self.benchmark].splits)), self.model)
            return Path("runs") / "-".join(re.sub(r"[^\w.+-]+", "_", word).strip("_.") for word in words)
        plain = self.benchmark == "data" or (
            self.benchmark == "world" and self.out is not None and self.out.suffix == ".json"
        )
        return None if plain else self.out

    @property
    def about(self) -> dict[str, Any]:
        """Whose answers these are: what may not change between a run and its resumption."""
        return {"model": self.model, "options": asdict(self.options)}


@dataclass(frozen=True)
class Machine:
    """What a run is given by whoever starts it."""

    load: Callable[[], Answerer]  # called when there is something to ask
    progress: Callable[[str, int], AbstractContextManager[Advance]]  # a bar of so many units
    note: Callable[[str], object]  # says something beside the scores


def evaluate(plan: Plan, machine: Machine) -> str:
    """Evaluate; gives the scores as Markdown.

    raises    BadConfig and BadRecord as the benchmark has them.
    """
    if plan.benchmark == "data":
        return _evaluate_data(plan, machine)
    if plan.benchmark == "world":
        return _evaluate_world(plan, machine)
    return _evaluate_official(plan, machine)


def _evaluate_data(plan: Plan, machine: Machine) -> str:
    assert plan.data is not None, "checked by the plan"
    part, records = open_part(plan.data, plan.split or "val", plan.format, problems := Problems())
    _note(problems, machine)
    florence = machine.load()
    with machine.progress("images", min(plan.limit or len(records), len(records))) as advance:
        scores = evaluate_records(
            florence, records, part.root, plan.tasks, plan.options, limit=plan.limit, advance=advance
        )
    scores = replace(scores, data=f"{part.name} {part.split}", model=plan.model, date=plan.date)
    _write_scores(scores.as_row(), plan)
    return scores.as_markdown()


def _evaluate_world(plan: Plan, machine: Machine) -> str:
    scenes, start = plan.limit or SCENES, time.perf_counter()
    drawn = Scenes(scenes, plan.seed, plan.tasks)
    if plan.answers is None and plan.folder is None:
        florence = machine.load()
        with machine.progress("scenes", scenes) as advance:
            world = evaluate_world(florence, scenes, plan.seed, plan.tasks, plan.options, advance=advance)
    else:
        path = plan.answers
        if path is None:
            assert plan.folder is not None, "else it was asked above"
            florence = machine.load()
            with machine.progress("scenes", scenes) as advance:
                path = ask_world(florence, plan.folder, plan.about, drawn, plan.options, advance)
        judged, results = score_world(path, drawn)
        world = WorldScores(scenes, plan.seed, WORLD, plan.options, judged.scores, time.perf_counter() - start)
        _report(results, [] if plan.against is None else score_world(plan.against, drawn)[1], plan)
    world = replace(world, model=plan.model, date=plan.date)
    _write_scores(as_row(world), plan)
    return as_markdown(world)


def _evaluate_official(plan: Plan, machine: Machine) -> str:
    assert plan.data is not None, "checked by the plan"
    start = time.perf_counter()
    opened = open_benchmark(plan.benchmark, Path(plan.data), plan.split, plan.limit, next(iter(plan.tasks), None))
    _note(opened.problems, machine)
    path = plan.answers or _ask(opened, plan, machine)
    results = score_answers(opened, path)
    about = dict(results.about) | {"seconds": round(time.perf_counter() - start)}
    results = replace(results, about=about)
    if results.missing:
        machine.note(f"{results.missing} of {len(opened.questions)} questions have no answer and are not scored")
    others = [] if plan.against is None else [score_answers(opened, plan.against)]
    (results,) = _report([results], others, plan)
    _write_scores(plain_results(results), plan)
    return results_markdown(results)


def _ask(opened: Opened, plan: Plan, machine: Machine) -> Path:
    assert plan.folder is not None
    florence = machine.load()
    with machine.progress("questions", len(opened.questions)) as advance:
        return ask_benchmark(florence, opened, plan.folder, plan.about, plan.options, advance)


# ---- what scores are worth


@dataclass(frozen=True)
class CalibrationPlan:
    """What to fit the scores of a checkpoint to, and where to leave it."""

    data: str  # "world", or the folder or main file of a data set
    model: str | None  # folder or hub id; None for the embedded one
    date: str
    method: Method = "isotonic"
    split: str | None = None
    limit: int | None = None  # scenes, or most images
    seed: int = 5000  # of the first drawn scene
    out: Path | None = None  # folder for calibration.json; the checkpoint's own unless given
    page: Path | None = None  # for the diagrams; calibration.html beside calibration.json unless given

    @property
    def folder(self) -> Path:
        """Where calibration.json goes.

        raises    BadConfig for the embedded checkpoint's own folder, unless it is named.
        """
        if self.out is not None:
            return self.out
        folder = resolve(self.model)
        if folder == resolve(None):
            raise BadConfig(
                f"the embedded checkpoint belongs to this package; give --out: a folder for {CALIBRATION_FILE}, or "
                f"{folder} itself"
            )
        return folder


def calibrate(plan: CalibrationPlan, machine: Machine) -> str:
    """Fit and write a calibration and its page; gives a table with the calibration error of every task.

    raises    BadConfig and BadRecord as the data have them, or when no task gets a curve: then nothing is written.
    """
    folder = plan.folder
    if plan.data == "world":
        scenes = plan.limit or CALIBRATION_SCENES
        model = machine.load()
        with machine.progress("scenes", scenes) as advance:
            fitted = calibrate_world(model, scenes, plan.seed, plan.method, advance=advance)
        data = f"drawn scenes, seeds {plan.seed} to {plan.seed + scenes - 1}"
    else:
        part, records = open_part(plan.data, plan.split or "val", None, problems := Problems())
        _note(problems, machine)
        model, data = machine.load(), f"{part.name}, {part.split}"
        with machine.progress("images", min(plan.limit or len(records), len(records))) as advance:
            fitted = calibrate_records(model, records, part.root, plan.method, limit=plan.limit, advance=advance)
    calibration = fitted.calibration(data, plan.date)
    if not calibration.fits:
        raise BadConfig(f"no task of {data} gets a curve; nothing was written:\n{fitted.as_markdown()}")
    facts = (("model", plan.model or "nano"), ("data", data), ("date", plan.date))
    page = plan.page or folder / PAGE_FILE
    write_text(page, as_html(fitted.page("What scores are worth", facts)))
    machine.note(f"{write_calibration(calibration, folder)}, diagrams in {page}")
    return fitted.as_markdown()


# ---- what is left


def _report(results: Sequence[Results], others: Sequence[Results], plan: Plan) -> list[Results]:
    """Write the pages, beside another model where there is one; gives the results with what they are about."""
    drawn = f"drawn scenes, seeds {plan.seed} to {plan.seed + (plan.limit or SCENES) - 1}"
    told = {"model": plan.model, "data": str(plan.data or drawn), "date": plan.date, "options": plan.options}
    named = [replace(one, about=told | dict(one.about)) for one in results]
    if plan.folder is not None:
        others = [replace(one, about=dict(one.about) | {"model": str(plan.against)}) for one in others]
        by_name = {one.benchmark: one for one in others}
        pairs = [(by_name[one.benchmark], one) for one in named if one.benchmark in by_name]
        write_pages(named, plan.folder, [compare(*pair) for pair in pairs])
    return named


def _write_scores(row: dict[str, Any], plan: Plan) -> None:
    path = plan.out if plan.folder is None else plan.folder / SCORES_FILE
    if path is not None:
        write_report(row, path)


def _note(problems: Problems, machine: Machine) -> None:
    if problems.counts:
        machine.note(str(problems))


def plain_results(results: Results) -> dict[str, Any]:
    """Give results as plain values for one JSON object; figures to five digits."""
    counts = {name: getattr(results, name) for name in ("asked", "invalid", "truncated", "refused", "missing")}
    about = {name: asdict(value) if isinstance(value, AskOptions) else value for name, value in results.about.items()}
    figures = {name: plain_figure(one.figure) for name, one in results.measured.items()}
    tables = {name: {kind: plain_figure(one) for kind, one in rows.items()} for name, rows in results.tables.items()}
    images = {"images": len(results.images)}
    return {"benchmark": results.benchmark} | about | images | counts | {"figures": figures, "tables": tables}


def results_markdown(results: Results) -> str:
    """Give the figures of one benchmark as a table in percent, the headline figure first."""
    about = [str(results.about[name]) for name in ("model", "data", "split", "date") if results.about.get(name)]
    counts = [f"{len(results.images)} images", f"{results.asked} questions"]
    counts += [f"{getattr(results, name)} {name}" for name in ("invalid", "truncated", "refused", "missing")]
    rows = [
        (name, percent(one.figure.value), percent(one.figure.half_width), f"{one.figure.n:,.6g}")
        for name, one in results.measured.items()
    ]
    head = ("figure", "%", "±", "judged")
    return "\n".join([f"{results.benchmark}: {', '.join(about + counts)}.", "", *table(head, rows)])
