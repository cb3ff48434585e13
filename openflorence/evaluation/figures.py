"""Answers counted and scored task by task, and the table that shows it; whatever the images are.

tally = Tally(images)
tally.take(row, example, answer, score)          # one answer about image `row`, or the error in its place
scores = tally.scores("detect")
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Answer
from openflorence.data.problems import write_text
from openflorence.errors import OpenFlorenceError
from openflorence.evaluation.metrics import Figure, Parts, figure_of
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request

Scored = dict[str, Parts]  # the part of one answer in every figure of its task, by name, the headline figure first


class Answerer(Protocol):
    """Whatever answers requests in order, as Florence does."""

    def predict_many(
        self,
        requests: Iterable[Request],
        options: AskOptions = DEFAULT_OPTIONS,
        batch: int = 8,
        on_error: Literal["raise", "give"] = "raise",
    ) -> Iterator[Any]:
        """Give an answer, or the error that stands in its place, for each request."""


@dataclass(frozen=True)
class TaskScores:
    """What became of one task. Every question that could be posed counts, whatever came back."""

    task: str
    asked: int  # answers
    invalid: int  # answers with at least one piece that could not be read; what could be read is scored
    truncated: int  # answers that the token limit ended; scored as they stand
    refused: int  # requests the model raised an error for; scored as empty answers
    figures: dict[str, Figure]  # by name, the headline figure first


def figure_named(tasks: Iterable[TaskScores], task: str, name: str | None = None) -> Figure:
    """Look a figure up by task name and its own name; the headline figure of the task without one."""
    (found,) = (scores for scores in tasks if scores.task == task)
    return found.figures[name or next(iter(found.figures))]


@dataclass
class Tally:
    """The answers of one task so far, counted and scored."""

    images: int
    asked: int = 0
    invalid: int = 0
    truncated: int = 0
    refused: int = 0
    parts: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # figure -> (images, 2) right and whole

    def take(
        self, row: int, true: Answer, answer: Answer | OpenFlorenceError, score: Callable[[Answer], Scored]
    ) -> Answer:
        """Count and score what came back for one question about image `row`; gives what was scored.

        true      the right answer, whose task and image size an error takes on.
        """
        self.asked += 1
        if isinstance(answer, OpenFlorenceError):
            self.refused += 1
            answer = replace(true, text="", regions=())
        self.invalid += answer.invalid > 0
        self.truncated += answer.truncated
        for name, parts in score(answer).items():
            self.parts.setdefault(name, np.zeros((self.images, 2)))[row] += parts
        return answer

    def scores(self, task: str) -> TaskScores:
        """Sum up."""
        figures = {name: figure_of(parts) for name, parts in self.parts.items()}
        return TaskScores(task, self.asked, self.invalid, self.truncated, self.refused, figures)


# ---- the report


def plain_figure(figure: Figure) -> dict[str, Any]:
    """Give a figure as plain values, to five digits."""
    return {name: None if value is None else round(value, 5) for name, value in asdict(figure).items()}


def plain_tasks(tasks: Iterable[TaskScores]) -> dict[str, Any]:
    """Give the scores as plain values by task name."""
    rows = {}
    for scores in tasks:
        row = asdict(scores) | {"figures": {name: plain_figure(one) for name, one in scores.figures.items()}}
        rows[row.pop("task")] = row
    return rows


def task_table(tasks: Iterable[TaskScores]) -> list[str]:
    """Give the figures as lines of a table in percent: a row a task, its headline figure first, then all others."""
    head = ("task", "asked", "headline", "%", "±", "invalid", "truncated", "others, %")
    return table(head, [_task_row(scores) for scores in tasks])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Give the lines of a Markdown table, its columns in line but for the last, which is long in some rows only."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    widths.append(3)
    rule = tuple("-" * width for width in widths)
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (head, rule, *rows)]


def _task_row(task: TaskScores) -> tuple[str, ...]:
    counts = str(task.asked), str(task.invalid), str(task.truncated)
    if not task.figures:  # no image could pose it
        return task.task, counts[0], "", "–", "–", *counts[1:], ""
    (headline, figure), *others = task.figures.items()
    rest = ", ".join(f"{name} {percent(other.value)}" for name, other in others)
    return task.task, counts[0], headline, percent(figure.value), percent(figure.half_width), *counts[1:], rest


def percent(share: float | None) -> str:
    """Write a share as a number of percent."""
    return "–" if share is None else f"{100 * share:.1f}"


def write_report(row: dict[str, Any], path: Path) -> None:
    """Write scores as one JSON object; a reader never sees half a file."""
    write_text(path, json.dumps(row, indent=1) + "\n")
