"""The command line: one short function per command, groups of them in commands/.

Data goes to standard output, everything else to standard error.

The exit code is 0 only when every input was answered, 1 when some were not, 2 for a mistake in the command itself and
130 when it was stopped.
"""

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from importlib import import_module, metadata
from itertools import islice, repeat
from pathlib import Path
from pkgutil import iter_modules
from platform import platform, python_version
from typing import Annotated, Any, NamedTuple, cast, get_args

import torch
import typer
from rich.console import Console
from rich.table import Table

from openflorence import __version__
from openflorence.commands.engine import app as engine_app
from openflorence.commands.terminal import (
    DTYPES,
    AdapterOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    device_of,
    devices,
    notes,
    one_line,
    one_of,
    progress_bar,
    shorten,
)
from openflorence.contract.prompts import input_of
from openflorence.contract.regions import Answer, Box
from openflorence.contract.tasks import Task, find_task
from openflorence.data.album import write_scenes
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig, BadPrompt, OpenFlorenceError
from openflorence.evaluation.benchmarks import BENCHMARKS
from openflorence.evaluation.runs import CalibrationPlan, Machine, Plan
from openflorence.evaluation.runs import calibrate as calibrate_plan
from openflorence.evaluation.runs import evaluate as evaluate_plan
from openflorence.experiments.settings import parse_settings
from openflorence.model.adapter_files import explain_adapter
from openflorence.model.answer_folder import AnswerFolder, Key, answered, as_json, save_png, stems
from openflorence.model.asking import Coordinates, More
from openflorence.model.calibration import METHODS, Method
from openflorence.model.checkpoint import convert as convert_checkpoint
from openflorence.model.checkpoint import read_folder
from openflorence.model.config import Layout
from openflorence.model.doctor import explain_folder
from openflorence.model.hub import resolve
from openflorence.model.listing import expand
from openflorence.model.predict import AskOptions, Decoding, Florence, Request, load
from openflorence.training.processes import is_first

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"  # of a clone; an installed copy draws them

app = typer.Typer(
    name="openflorence",
    help="Florence-2 as one whole, open system.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(engine_app, name="engine")


def main() -> None:
    """Run the command line; a user's mistake is one line, never a traceback."""
    _make_printable()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except OpenFlorenceError as error:
        notes.print(one_line(f"{type(error).__name__}: {error}"))
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # a folder that cannot be written, a full disk
        notes.print(one_line(str(error)))
        code = 2
    except Exception as error:  # typer's own usage errors; their class moved between its versions
        if not hasattr(error, "format_message"):
            raise
        notes.print(one_line(error.format_message()))
        code = 2
    if code == 130:
        notes.print("stopped")
    sys.exit(code or 0)


def _make_printable() -> None:
    """File names need not be text: what standard output cannot spell is escaped, as JSON would, and never a crash."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


# ---- run


@app.command()
def run(
    images: Annotated[list[str], typer.Argument(help="Files, folders, quoted globs or URLs.")],
    task: Annotated[list[str], typer.Option("--task", "-t", help="Task name or published token; may be repeated.")],
    text: Annotated[str | None, typer.Option(help="What to ground, find or segment; or the question.")] = None,
    region: Annotated[str | None, typer.Option(help="x0,y0,x1,y1 in pixels, for the region tasks.")] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and task.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for annotated pictures and answers.jsonl.")] = None,
    resume: Annotated[bool, typer.Option(help="Leave out what answers.jsonl in --out has answered.")] = False,
    decoding: Annotated[str, typer.Option(help="default, or published: token for token as published.")] = "default",
    beams: Annotated[int | None, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="Longest answer in tokens.")] = None,
    grammar: Annotated[bool, typer.Option(help="Let structured answers say only what can be read.")] = True,
    labels: Annotated[str | None, typer.Option(help="The only labels there may be, with commas between.")] = None,
    max_regions: Annotated[int | None, typer.Option(min=1, help="Most regions of an answer.")] = None,
    coordinates: Annotated[str, typer.Option(help="bin, or expected: between bins, as the probabilities say.")] = "bin",
    min_presence: Annotated[float | None, typer.Option(help="Leave out what is less probably there, 0 to 1.")] = None,
    more: Annotated[str, typer.Option(help="After a cut answer: never, continue, or ask about tiles.")] = "never",
    tiles: Annotated[str | None, typer.Option(help="Ask about tiles at once: about how many, or ROWSxCOLUMNS.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions answered together.")] = 8,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> int:
    """Ask one or several tasks about images."""
    tasks = list(dict.fromkeys(find_task(word) for word in task))
    box = _parse_region(region)
    questions = _questions(tasks, text, box)
    if resume and out is None:
        raise BadConfig("--resume needs --out: the folder whose answers.jsonl says what is done")
    how = cast(Decoding, one_of("--decoding", decoding, ("default", "published")))
    options = AskOptions(
        decoding=how,
        beams=beams,
        max_tokens=max_tokens,
        grammar=grammar,
        labels=None if labels is None else tuple(label.strip() for label in labels.split(",")),
        max_regions=max_regions,
        coordinates=cast(Coordinates, one_of("--coordinates", coordinates, get_args(Coordinates))),
        min_presence=min_presence,
        more=cast(More, one_of("--more", more, get_args(More))),
        tiles=_parse_tiles(tiles),
    )
    number = DTYPES[one_of("--dtype", dtype, tuple(DTYPES))]
    names = expand(images)
    asked = [Asked(name, *question, region) for name in names for question in questions]
    done = answered(out) if resume and out else set()
    todo = [one for one in asked if one.key not in done]
    if len(todo) < len(asked):
        notes.print(f"{len(asked) - len(todo)} of {len(asked)} answered before")
    if not todo:
        return 0
    florence = load(model, adapter=adapter, device=device_of(device), dtype=number)
    sink = Sink(asked, todo, out, as_json)
    # Where answers scroll by, they are the progress.
    with progress_bar("answers", len(todo), len(todo) > 1 and not sys.stdout.isatty()) as advance:
        for one, result, seconds in _timed(florence, todo, box, options, batch):
            sink.take(one, result, seconds)
            advance()
    return sink.close()


class Asked(NamedTuple):
    """One image and one task of a run, as the user wrote them."""

    image: str
    task: Task
    text: str | None
    region: str | None  # of the command, whether this task takes it or not

    @property
    def words(self) -> str | None:
        """What was asked with the task."""
        return self.region if self.task.input == "region" else self.text

    @property
    def key(self) -> Key:
        """What tells it apart in answers.jsonl."""
        return self.image, self.task.name, self.words


def _questions(tasks: Sequence[Task], text: str | None, box: Box | None) -> list[tuple[Task, str | None]]:
    """Give the text to the tasks that take text. A mistake in the question is told once, before anything is loaded."""
    for_text = [task for task in tasks if task.input in ("text", "free")]
    for_region = [task for task in tasks if task.input == "region"]
    questions = [(task, text if task in for_text or not for_text else None) for task in tasks]
    for task, words in questions:
        input_of(task, words, box if task in for_region or not for_region else None, (10**9, 10**9))
    return questions


def _parse_tiles(words: str | None) -> int | tuple[int, int] | None:
    if words is None:
        return None
    parts = words.split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdecimal() for part in parts):
        raise BadConfig(f"--tiles {words}: give about how many, such as 4, or rows and columns, such as 2x3")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _timed(
    florence: Florence, asked: Sequence[Asked], box: Box | None, options: AskOptions, batch: int
) -> Iterator[tuple[Asked, Answer | OpenFlorenceError, float]]:
    """Answer in groups; the seconds of a group are shared out evenly."""
    requests = (Request(one.image, one.task, one.text, box if one.task.input == "region" else None) for one in asked)
    results = florence.predict_many(requests, options, batch, on_error="give")
    for start in range(0, len(asked), batch):
        clock = time.perf_counter()
        group = list(islice(results, batch))
        each_s = (time.perf_counter() - clock) / len(group)
        yield from zip(asked[start : start + batch], group, repeat(each_s))


class Sink:
    """Where answers go: standard output, and a folder when one is given."""

    def __init__(self, asked: Sequence[Asked], todo: Sequence[Asked], out: Path | None, as_json: bool) -> None:
        self.as_json = as_json
        self.failed = self.answered = self.truncated = 0
        self.with_image, self.with_task = len({one.image for one in asked}) > 1, len({one.task for one in asked}) > 1
        self.stems = stems(one.image for one in asked)
        self.folder = None if out is None else AnswerFolder(out, {one.key for one in todo})

    def take(self, asked: Asked, result: Answer | OpenFlorenceError, seconds: float) -> None:
        """Print one result, keep it, and draw it."""
        named = {"image": asked.image}
        if isinstance(result, Answer):
            row = named | result.as_row() | {"seconds": round(seconds, 3)}
            self.answered += 1
            self.truncated += result.truncated
        else:
            problem = {"error": type(result).__name__, "message": str(result)}
            row = named | ({"task": asked.task.name} if self.with_task else {}) | problem
            self.failed += 1
        if self.folder is not None:
            picture = result.draw() if isinstance(result, Answer) else None
            self.folder.keep(asked.key, row, picture, self.stems[asked.image])
        if self.as_json:
            print(as_json(row, sys.stdout.encoding), flush=True)
        elif isinstance(result, Answer):
            print("\n".join(_lines(self._head(asked), result)), flush=True)
        else:
            notes.print(one_line(f"{type(result).__name__}: {result}"))

    def _head(self, asked: Asked) -> str:
        words = [asked.image] * self.with_image + [asked.task.name] * self.with_task
        return f"{' '.join(words)}: " if words else ""

    def close(self) -> int:
        """Say how it went; gives the exit code."""
        if self.truncated:
            notes.print(f"cut by a limit (truncated: true): {self.truncated} of {self.answered}")
        if self.failed:
            notes.print(f"{self.failed} of {self.failed + self.answered} could not be answered")
        return 1 if self.failed else 0


def _lines(head: str, answer: Answer) -> list[str]:
    """An answer for people."""
    if answer.task.form == "text":
        return [f"{head}{answer.text}"]
    lines = [f"{head}{len(answer.regions)} region{'' if len(answer.regions) == 1 else 's'}"]
    for region in answer.regions:
        score = "" if region.score is None else f"  {region.score:.2f}"
        lines.append(f"  {region.label or '-'}{score}  ({', '.join(f'{value:.0f}' for value in region.bounds or ())})")
    return lines


# ---- the other commands


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the annotated pictures.")] = Path("runs/demo"),
    model: ModelOption = None,
) -> int:
    """Answer several tasks on the example pictures; prints a table and writes annotated pictures."""
    pictures = sorted(EXAMPLES.glob("*.png"))
    if not pictures:
        write_scenes(6, out / "examples", seed=9, config=WorldConfig(side_px=384))
        pictures = sorted((out / "examples").glob("*.png"))
    florence = load(model)
    out.mkdir(parents=True, exist_ok=True)
    table = Table("picture", "task", "asked", "answer", "seconds")
    failed = 0
    for picture in pictures:
        for task, answer, seconds in _tour(florence, picture):
            if isinstance(answer, Answer):
                save_png(answer.draw(), out / f"{picture.stem}-{task}.png")
                nothing = "nothing" if answer.task.form == "text" else f"{len(answer.regions)} regions"
                said = answer.text.replace("\n", " / ") or nothing
                table.add_row(picture.stem, task, shorten(answer.input), shorten(said), f"{seconds:.2f}")
            else:
                failed += 1
                table.add_row(picture.stem, task, "", shorten(str(answer)), f"{seconds:.2f}")
    width = None if sys.stdout.isatty() else 140  # a file or a pipe has no width of its own
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
    notes.print(f"annotated pictures: {out}/")
    return 1 if failed else 0


def _tour(florence: Florence, picture: Path) -> Iterator[tuple[str, Answer | OpenFlorenceError, float]]:
    """Ask one picture a chain of questions, later ones about earlier answers; the image is encoded once."""
    view = florence.open(picture)

    def ask(task: str, text: str | None = None, region: Any = None) -> tuple[str, Answer | OpenFlorenceError, float]:
        clock = time.perf_counter()
        try:
            answer: Answer | OpenFlorenceError = view.ask(task, text, region)
        except OpenFlorenceError as error:  # a caption may be too long to be asked about
            answer = error
        return task, answer, time.perf_counter() - clock

    yield (caption := ask("caption"))
    yield (detect := ask("detect"))
    yield from (ask("dense_caption"), ask("read_regions"), ask("answer", "How many objects are there?"))
    if isinstance(caption[1], Answer) and caption[1].text:
        yield ask("ground", caption[1].text)
    if isinstance(detect[1], Answer) and detect[1].regions:
        first, last = detect[1].regions[0], detect[1].regions[-1]
        yield from (ask("describe_region", region=first), ask("segment_region", region=first))
        yield ask("find", last.label or "sign")


@app.command()
def draw(
    number: Annotated[int, typer.Argument(help="How many scenes.")],
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    seed: Annotated[int, typer.Option(help="Seed of the first scene; the next count on.")] = 0,
    side: Annotated[int, typer.Option(help="Short side in pixels.")] = 384,
) -> None:
    """Draw seeded scenes with the exact truth of every task."""
    with progress_bar("scenes", number, True) as advance:
        truth = write_scenes(number, folder, seed, WorldConfig(side_px=side), advance)
    notes.print(f"{number} scenes in {folder}, their truth in {truth}")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint to read, of any layout: a folder or a hub id.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[str, typer.Option(help="microsoft, transformers or openflorence.")],
    dtype: Annotated[str | None, typer.Option(help="Number type to store; as in the source if left out.")] = None,
) -> None:
    """Write a checkpoint in another layout, bit for bit."""
    wanted = cast(Layout, one_of("--layout", layout, get_args(Layout)))
    stored = None if dtype is None else DTYPES[one_of("--dtype", dtype, tuple(DTYPES))]
    convert_checkpoint(resolve(source), target, wanted, stored)
    notes.print(f"{target}: {wanted} layout")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a file in recipes/.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")] = None,
) -> None:
    """Run a recipe, or go on with one that was stopped."""
    known = sorted(module.name for module in iter_modules(import_module("recipes").__path__))
    module = import_module(f"recipes.{one_of('recipe', recipe, known)}")
    settings = module.Settings(**parse_settings(module.Settings, sets or []))
    first = is_first()  # several processes of one run: one speaks
    checkpoint = module.run(settings, notes.print if first else lambda line: None)
    if first:
        print(checkpoint)


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Argument(help=f"What to measure on: world, data, {', '.join(BENCHMARKS)}.")],
    model: ModelOption = None,
    adapter: AdapterOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Scenes, or most images; 500, or all, if left out.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first scene; training draws from 1000000 on.")] = 0,
    beams: Annotated[int | None, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder or main file of a data set or benchmark, or a store.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its part: train, val, test, testA, ...; the usual one.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of a data set; told by its files if left out.")] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="Task; may be repeated. All if left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for answers, scores and report; of world or data also a JSON file.")
    ] = None,
    answers: Annotated[Path | None, typer.Option(help="File of answers to score instead of asking a model.")] = None,
    against: Annotated[Path | None, typer.Option(help="Answers of another model, to be compared with.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
) -> None:
    """Score a checkpoint on data that it was not trained on; stopped and started again, it goes on."""
    number, place = DTYPES[one_of("--dtype", dtype, tuple(DTYPES))], device_of(device)
    name = " with ".join(filter(None, (model or (answers.name if answers else "nano"), adapter)))
    plan = Plan(
        benchmark,
        name,
        date.today().isoformat(),
        AskOptions(beams=beams),
        data,
        split,
        limit,
        seed,
        format,
        tuple(task or ()),
        out,
        answers,
        against,
    )
    machine = Machine(
        load=lambda: load(model, adapter=adapter, device=place, dtype=number),
        progress=lambda unit, total: progress_bar(unit, total, True),
        note=notes.print,
    )
    print(evaluate_plan(plan, machine))


@app.command()
def calibrate(
    data: Annotated[str, typer.Argument(help="world, or the folder or main file of a data set in any format.")],
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="isotonic, or temperature: one number a task.")] = "isotonic",
    split: Annotated[str | None, typer.Option(help="Part of a data set: train, val or test; val if left out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Scenes, or most images; 1000, or all, if left out.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first scene; score on others.")] = 5000,
    out: Annotated[Path | None, typer.Option(help="Folder for calibration.json; the checkpoint's if left out.")] = None,
    page: Annotated[Path | None, typer.Option(help="HTML file for the diagrams; beside calibration.json.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Fit what the scores of a checkpoint are worth, and keep it beside the weights."""
    how, place = cast(Method, one_of("--method", method, METHODS)), device_of(device)
    plan = CalibrationPlan(data, model, date.today().isoformat(), how, split, limit, seed, out, page)
    machine = Machine(
        load=lambda: load(model, device=place),
        progress=lambda unit, total: progress_bar(unit, total, True),
        note=notes.print,
    )
    print(calibrate_plan(plan, machine))


@app.command()
def doctor(
    checkpoint: Annotated[str | None, typer.Argument(help="Checkpoint folder or hub id to explain.")] = None,
    adapter: AdapterOption = None,
) -> int:
    """Explain the environment, and a checkpoint that does not fit."""
    print(f"openflorence {__version__}, Python {python_version()}, {platform()}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(devices())}")
    for name in ("numpy", "pillow", "tokenizers", "safetensors", "huggingface_hub", "supervision", "transformers"):
        print(f"{name} {_version(name)}")
    lines: list[str] = []
    try:
        folder = resolve(checkpoint)
        lines += explain_folder(folder)
        if adapter is not None:
            lines += explain_adapter(read_folder(folder).network, adapter)
    except OpenFlorenceError as error:
        lines.append(f"problem: {error}")
    print("\n".join(lines))
    return 1 if any(line.startswith("problem:") for line in lines) else 0


# ---- what the commands share


# ---- small things


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed (only tests and benchmarks use it)" if name == "transformers" else "MISSING"


def _parse_region(words: str | None) -> Box | None:
    if words is None:
        return None
    try:
        return Box(*(float(word) for word in words.split(",")))
    except (TypeError, ValueError) as error:
        raise BadPrompt(f"--region is {words!r}; give four numbers in pixels: x0,y0,x1,y1") from error


if __name__ == "__main__":
    main()
