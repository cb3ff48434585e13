"""The command line: one short function per command. Data goes to standard output, everything else to standard error.

The exit code is 0 only when every input was answered, 1 when some were not, 2 for a mistake in the command itself.
"""

import glob
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules
from platform import platform, python_version
from typing import Annotated, Any, NamedTuple, cast

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from openflorence import __version__
from openflorence.contract.prompts import input_of
from openflorence.contract.regions import Answer, Box
from openflorence.contract.tasks import Task, find_task
from openflorence.data.album import write_scenes
from openflorence.data.world import WorldConfig
from openflorence.errors import BadConfig, BadPrompt, OpenFlorenceError
from openflorence.evaluation.benchmarks import as_markdown, evaluate_world, write_world_report
from openflorence.model.checkpoint import convert as convert_checkpoint
from openflorence.model.doctor import explain_folder
from openflorence.model.hub import resolve
from openflorence.model.predict import AskOptions, Decoding, Florence, Request, load

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".qoi")
ANSWERS_FILE = "answers.jsonl"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"  # of a clone; an installed copy draws them

app = typer.Typer(
    name="openflorence",
    help="Florence-2 as one whole, open system.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
notes = Console(stderr=True, highlight=False)

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder or hub id of a checkpoint; the embedded nano if left out.")
]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> None:
    """Run the command line; a user's mistake is one line, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except OpenFlorenceError as error:
        notes.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
        code = 2
    except KeyboardInterrupt:
        notes.print("stopped")
        code = 130
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # typer's own usage errors; their class moved between its versions
        if not hasattr(error, "format_message"):
            if isinstance(error, typer.Abort):
                sys.exit(130)
            raise
        notes.print(f"{error.format_message()}", markup=False, soft_wrap=True)
        code = 2
    sys.exit(code or 0)


# ---- run


@app.command()
def run(
    images: Annotated[list[str], typer.Argument(help="Files, folders, quoted globs or URLs.")],
    task: Annotated[list[str], typer.Option("--task", "-t", help="Task name or published token; may be repeated.")],
    text: Annotated[str | None, typer.Option(help="What to ground, find or segment; or the question.")] = None,
    region: Annotated[str | None, typer.Option(help="x0,y0,x1,y1 in pixels, for the region tasks.")] = None,
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image and task.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for annotated pictures and answers.jsonl.")] = None,
    resume: Annotated[bool, typer.Option(help="Leave out what answers.jsonl in --out has answered.")] = False,
    decoding: Annotated[str, typer.Option(help="default, or published: token for token as published.")] = "default",
    beams: Annotated[int | None, typer.Option(help="Beams of the search; 1 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens.")] = None,
    batch: Annotated[int, typer.Option(help="Questions answered together.")] = 8,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
) -> int:
    """Ask one or several tasks about images."""
    tasks = [find_task(word) for word in task]
    box = _parse_region(region)
    for kind in tasks:  # a mistake in the question is told once, before anything is loaded
        input_of(kind, text, box, (10**9, 10**9))
    if resume and out is None:
        raise BadConfig("--resume needs --out: the folder whose answers.jsonl says what is done")
    how = cast(Decoding, _one_of("--decoding", decoding, ("default", "published")))
    options = AskOptions(decoding=how, beams=beams, max_tokens=max_tokens)
    names = expand(images)
    asked = [Asked(name, kind, text, region) for name in names for kind in tasks]
    done = _answered(out) if resume and out else set()
    todo = [one for one in asked if one.key not in done]
    if len(todo) < len(asked):
        notes.print(f"{len(asked) - len(todo)} of {len(asked)} answered before")
    florence = load(model, device=_device(device), dtype=DTYPES[_one_of("--dtype", dtype, tuple(DTYPES))])
    sink = Sink(out, as_json, with_names=len(asked) > 1)
    with _progress("answers", len(todo), len(todo) > 1) as advance:
        for one, result, seconds in _timed(florence, todo, box, options, batch):
            sink.take(one, result, seconds)
            advance()
    return sink.close()


class Asked(NamedTuple):
    """One image and one task of a run, as the user wrote them."""

    image: str
    task: Task
    text: str | None
    region: str | None

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What tells it apart in answers.jsonl."""
        return self.image, self.task.name, self.text or self.region


def _timed(
    florence: Florence, asked: Sequence[Asked], box: Box | None, options: AskOptions, batch: int
) -> Iterator[tuple[Asked, Answer | OpenFlorenceError, float]]:
    """Answer in groups; the seconds of a group are shared out evenly."""
    for start in range(0, len(asked), batch):
        group = asked[start : start + batch]
        clock = time.perf_counter()
        requests = [Request(one.image, one.task, one.text, box) for one in group]
        results = list(florence.predict_many(requests, options, batch, on_error="give"))
        each_s = (time.perf_counter() - clock) / len(group)
        yield from ((one, result, each_s) for one, result in zip(group, results, strict=True))


class Sink:
    """Where answers go: standard output, and a folder when one is given."""

    def __init__(self, out: Path | None, as_json: bool, with_names: bool) -> None:
        self.out, self.as_json, self.with_names = out, as_json, with_names
        self.failed = self.answered = self.truncated = 0
        self.names: dict[str, str] = {}
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

    def take(self, asked: Asked, result: Answer | OpenFlorenceError, seconds: float) -> None:
        """Print one result, keep it, and draw it."""
        name, task = asked.image, asked.task
        if isinstance(result, Answer):
            row = {"image": name, **result.as_row(), "seconds": round(seconds, 3)}
            self.answered += 1
            self.truncated += result.truncated
            if self.out is not None:
                _save_png(result.draw(), self.out / f"{self._stem(name)}-{task.name}.png")
        else:
            row = {"image": name, "task": task.name, "error": type(result).__name__, "message": str(result)}
            self.failed += 1
        if self.out is not None:
            with (self.out / ANSWERS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"asked": asked.key[2]}, ensure_ascii=False) + "\n")
        if self.as_json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif isinstance(result, Answer):
            print("\n".join(_lines(f"{name}: " if self.with_names else "", result)), flush=True)
        else:
            notes.print(f"{type(result).__name__}: {result}", markup=False, soft_wrap=True)

    def close(self) -> int:
        """Say how it went; gives the exit code."""
        if self.truncated:
            notes.print(f"{self.truncated} answers were cut by the token limit (truncated: true)")
        if self.failed:
            notes.print(f"{self.failed} of {self.failed + self.answered} could not be answered")
        return 1 if self.failed else 0

    def _stem(self, name: str) -> str:
        """A file name for an image; images of one name in different folders keep apart."""
        if name not in self.names:
            stem = Path(name.split("?")[0]).stem or "image"
            taken = sum(Path(other.split("?")[0]).stem == stem for other in self.names)
            self.names[name] = stem if not taken else f"{stem}-{taken + 1}"
        return self.names[name]


def _lines(head: str, answer: Answer) -> list[str]:
    """An answer for people."""
    if answer.task.form == "text":
        return [f"{head}{answer.text}"]
    lines = [f"{head}{len(answer.regions)} region{'' if len(answer.regions) == 1 else 's'}"]
    for region in answer.regions:
        score = "" if region.score is None else f"  {region.score:.2f}"
        bounds = region.bounds or Box(0, 0, 0, 0)
        lines.append(f"  {region.label or '-'}{score}  ({', '.join(f'{value:.0f}' for value in bounds)})")
    return lines


def expand(words: Sequence[str]) -> list[str]:
    """Files, folders (every image in them, by name), globs and URLs -> one list, each once, in order.

    raises    BadConfig for a folder or a glob that holds no image; a missing file is left for its own error.
    """
    found: list[str] = []
    for word in words:
        path = Path(word).expanduser()
        if "://" in word or word.startswith("data:") or path.is_file():
            found.append(word)
        elif path.is_dir():
            inside = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise BadConfig(f"folder {word} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif any(sign in word for sign in "*?["):
            inside = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
            if not inside:
                raise BadConfig(f"nothing matches {word}")
            found += inside
        else:
            found.append(word)
    return list(dict.fromkeys(found))


def _answered(out: Path) -> set[tuple[str, str, str | None]]:
    """What a folder's answers.jsonl has answered; a last line that a kill cut short does not count."""
    path = out / ANSWERS_FILE
    done = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "error" not in row:
            done.add((row["image"], row["task"], row.get("asked")))
    return done


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
    table = Table("picture", "task", "asked", "answer", "seconds", show_lines=False)
    for picture in pictures:
        for answer, seconds in _tour(florence, picture):
            _save_png(answer.draw(), out / f"{picture.stem}-{answer.task.name}.png")
            said = answer.text.replace("\n", " / ") or f"{len(answer.regions)} regions"
            table.add_row(picture.stem, answer.task.name, _short(answer.input), _short(said), f"{seconds:.2f}")
    Console().print(table)
    notes.print(f"annotated pictures: {out}/")
    return 0


def _tour(florence: Florence, picture: Path) -> Iterator[tuple[Answer, float]]:
    """Ask one picture a chain of questions, later ones about earlier answers; the image is encoded once."""
    clock = time.perf_counter()
    view = florence.open(picture)
    caption = view.ask("caption")
    yield caption, time.perf_counter() - clock
    detect = view.ask("detect")
    chain: list[tuple[str, str | None, Any]] = [("detect", None, None), ("dense_caption", None, None)]
    if caption.text.strip():
        chain.append(("ground", caption.text, None))
    chain += [("read_regions", None, None), ("answer", "How many objects are there?", None)]
    if detect.regions:
        chain += [("describe_region", None, detect.regions[0]), ("segment_region", None, detect.regions[0])]
        chain.append(("find", detect.regions[-1].label or "sign", None))
    for task, text, region in chain:
        clock = time.perf_counter()
        answer = view.ask(task, text, region)
        yield answer, time.perf_counter() - clock


@app.command()
def draw(
    count: Annotated[int, typer.Argument(help="How many scenes.")],
    folder: Annotated[Path, typer.Argument(help="Where to.")],
    seed: Annotated[int, typer.Option(help="Seed of the first scene; the next count on.")] = 0,
    side: Annotated[int, typer.Option(help="Short side in pixels.")] = 384,
) -> None:
    """Draw seeded scenes with the exact truth of every task."""
    with _progress("scenes", count, True) as advance:
        truth = write_scenes(count, folder, seed, WorldConfig(side_px=side), advance)
    notes.print(f"{count} scenes in {folder}, their truth in {truth}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint folder to read, of any layout.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[str, typer.Option(help="microsoft, transformers or openflorence.")],
    dtype: Annotated[str | None, typer.Option(help="Number type to store; as in the source if left out.")] = None,
) -> None:
    """Write a checkpoint in another layout, bit for bit."""
    wanted = _one_of("--layout", layout, ("microsoft", "transformers", "openflorence"))
    stored = None if dtype is None else DTYPES[_one_of("--dtype", dtype, tuple(DTYPES))]
    convert_checkpoint(resolve(source), target, wanted, stored)  # type: ignore[arg-type]
    notes.print(f"{target}: {wanted} layout")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a file in recipes/.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")] = None,
) -> None:
    """Run a recipe, or go on with one that was stopped."""
    known = sorted(module.name for module in iter_modules(import_module("recipes").__path__))
    module = import_module(f"recipes.{_one_of('recipe', recipe, known)}")
    settings = module.Settings(**_parse_settings(module.Settings, sets or []))
    checkpoint = module.run(settings, lambda line: notes.print(line, markup=False, soft_wrap=True))
    print(checkpoint)


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Argument(help="What to measure on: world.")],
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(help="Scenes.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the first scene; training draws from 1000000 on.")] = 0,
    beams: Annotated[int | None, typer.Option(help="Beams of the search; 1 is greedy.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the scores as JSON.")] = None,
) -> None:
    """Score a checkpoint on data that it was not trained on."""
    _one_of("benchmark", benchmark, ("world",))
    florence = load(model)
    with _progress("scenes", limit, True) as advance:
        scores = evaluate_world(florence, limit, seed, options=AskOptions(beams=beams), advance=advance)
    print(as_markdown(scores))
    if out is not None:
        write_world_report(scores, out)


@app.command()
def doctor(
    checkpoint: Annotated[str | None, typer.Argument(help="Checkpoint folder or hub id to explain.")] = None,
) -> int:
    """Explain the environment, and a checkpoint that does not fit."""
    print(f"openflorence {__version__}, Python {python_version()}, {platform()}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, devices: {', '.join(_devices())}")
    for name in ("numpy", "pillow", "tokenizers", "safetensors", "huggingface_hub", "supervision", "transformers"):
        print(f"{name} {_version(name)}")
    lines = explain_folder(resolve(checkpoint))
    print("\n".join(lines))
    return 1 if any(line.startswith("problem:") for line in lines) else 0


# ---- what the commands share


def _devices() -> list[str]:
    names = ["cpu"]
    names += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    return names + (["mps"] if torch.backends.mps.is_available() else [])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed (only tests and benchmarks use it)" if name == "transformers" else "MISSING"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise BadConfig(f"--device {name} cannot be used here: {first}; there are {', '.join(_devices())}") from error
    return device


def _one_of(what: str, seen: str, allowed: Iterable[str]) -> str:
    choices = list(allowed)
    if seen not in choices:
        raise BadConfig(f"{what} is {seen!r}; allowed: {', '.join(choices)}")
    return seen


def _parse_region(words: str | None) -> Box | None:
    if words is None:
        return None
    try:
        return Box(*(float(word) for word in words.split(",")))
    except (TypeError, ValueError) as error:
        raise BadPrompt(f"--region is {words!r}; give four numbers in pixels: x0,y0,x1,y1") from error


def _parse_settings(kind: type, words: Sequence[str]) -> dict[str, Any]:
    """Read field=value words by the types of a recipe's settings."""
    types = {field.name: field.type for field in fields(kind)}
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in types:
            raise BadConfig(f"--set {word!r}; give field=value, with one of {', '.join(types)}")
        maker = types[name]
        assert isinstance(maker, type)
        try:
            values[name] = maker(value)
        except ValueError as error:
            raise BadConfig(f"--set {word!r}: {name} is of type {maker.__name__}") from error
    return values


@contextmanager
def _progress(unit: str, total: int, shown: bool) -> Iterator[Any]:
    """A bar on standard error with rate and time left; silent when that is not a terminal."""
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=not shown or not notes.is_terminal,
    ) as progress:
        bar = progress.add_task(unit, total=total, rate="")
        start = time.perf_counter()

        def advance() -> None:
            done = progress.tasks[0].completed + 1
            rate = done / max(time.perf_counter() - start, 1e-9)
            progress.update(bar, advance=1, rate=f"{rate:.1f}/s")

        yield advance


def _save_png(picture: Image.Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, "PNG")
    partial.replace(path)


def _short(words: str | None, most: int = 60) -> str:
    return "" if words is None else (words if len(words) <= most else f"{words[: most - 1]}…")


if __name__ == "__main__":
    main()
