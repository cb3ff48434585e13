"""What commands share: options of one meaning, words checked against a list, a bar, and where notes are printed.

Notes go to standard error: standard output is for data.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer
from rich import progress as bars
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openflorence.errors import BadConfig

# Plain words: a path or an answer may hold what rich would read as a colour or as the name of a picture.
notes = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder or hub id of a checkpoint; the embedded nano if left out.")
]
AdapterOption = Annotated[str | None, typer.Option(help="Folder of an adapter to merge into the checkpoint.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps, ...")]
DtypeOption = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def devices() -> list[str]:
    """Name the devices there are, as --device takes them; a GPU with its name."""
    names = ["cpu"]
    names += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    return names + (["mps"] if torch.backends.mps.is_available() else [])


def device_of(name: str) -> torch.device:
    """Give the device of a name.

    raises    BadConfig when nothing can be computed there.
    """
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadConfig(f"--device {name} cannot be used here: {first}; there are {', '.join(devices())}") from error
    return device


def one_of(what: str, seen: str, allowed: Iterable[str]) -> str:
    """Give back a word that is allowed.

    what      its option or argument, for the message.
    raises    BadConfig for another word.
    """
    choices = list(allowed)
    if seen not in choices:
        raise BadConfig(f"{what} is {seen!r}; allowed: {', '.join(choices)}")
    return seen


@contextmanager
def progress_bar(unit: str, total: int | None, shown: bool) -> Iterator[Any]:
    """Show a bar on standard error with rate and time left; silent when that is not a terminal."""
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with bars.Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=not shown or not notes.is_terminal,
        redirect_stdout=False,  # otherwise what is printed meanwhile would go to standard error with the bar
    ) as progress:
        bar = progress.add_task(unit, total=total, rate="")
        start = time.perf_counter()

        def advance() -> None:
            done = progress.tasks[0].completed + 1
            rate = done / max(time.perf_counter() - start, 1e-9)
            progress.update(bar, advance=1, rate=f"{rate:.1f}/s")

        yield advance


def one_line(text: str) -> str:
    """Put a text on one line."""
    return " ".join(text.split())


def shorten(words: str | None, most: int = 60) -> str:
    """Cut a text to so many characters; "" for None."""
    return "" if words is None else (words if len(words) <= most else f"{words[: most - 1]}…")
