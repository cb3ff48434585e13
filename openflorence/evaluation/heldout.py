"""The held-out part of a data set: what a model answers about its records, against what they say.

scores = evaluate_records(florence, records, root, ["detect"])
scores.figure("detect", "ap50").value
print(scores.as_markdown())

What is asked comes from `data/targets.py`, as in training. What can be asked in one way and answered in several, as a
caption of which there are five, is asked once, and the answer is scored by the one that it agrees with most.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openflorence.contract.overlaps import box_iou
from openflorence.contract.records import Record
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task, find_task
from openflorence.data.opened import Opened, open_data
from openflorence.data.problems import Problems
from openflorence.data.store_records import image_to_ask
from openflorence.data.targets import Policy, pose_all
from openflorence.errors import BadConfig, BadImage, OpenFlorenceError
from openflorence.evaluation.detection import AveragePrecision, ScoreProtocol, average_precision
from openflorence.evaluation.figures import (
    Answerer,
    Scored,
    Tally,
    TaskScores,
    figure_named,
    percent,
    plain_figure,
    plain_tasks,
    table,
    task_table,
)
from openflorence.evaluation.metrics import (
    Figure,
    Parts,
    anls,
    box_covered,
    edit_similarity,
    match,
    rasterise,
    ratio,
    rouge_l,
    vqa_accuracy,
    word_f1,
)
from openflorence.evaluation.phrases import score_mask
from openflorence.evaluation.places import LEAST, alike, bounds, rings
from openflorence.evaluation.scoring import score_boxes, score_find, score_phrases, score_proposals, score_quads
from openflorence.model.florence import Network
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request, live_florence
from openflorence.model.tokenizer import Text

BATCH = 16  # questions answered together
PEOPLE = 4  # answers from which the accuracy of the VQA challenge can reach 1


@dataclass(frozen=True)
class HeldOut:
    """The scores of one model on records."""

    images: int  # that could be read and were asked about
    skipped: int  # images that could not be read, or have another size than their record says
    protocol: ScoreProtocol  # that ranked the boxes for average precision
    options: AskOptions
    tasks: tuple[TaskScores, ...]
    categories: dict[str, Figure]  # AP50 of "detect" by label
    seconds: float
    model: str = ""  # these are given by the caller, with dataclasses.replace
    data: str = ""
    date: str = ""

    def figure(self, task: str, name: str | None = None) -> Figure:
        """Look a figure up by task name and its own name; the headline figure of the task without one."""
        return figure_named(self.tasks, task, name)

    def values(self) -> dict[str, float]:
        """Give every figure that has a value, by names such as "detect.ap50"; for logs."""
        each = ((f"{scores.task}.{name}", one.value) for scores in self.tasks for name, one in scores.figures.items())
        return {name: value for name, value in each if value is not None}

    def as_row(self) -> dict[str, Any]:
        """Give the scores as plain values for one JSON object; figures to five digits."""
        categories = {label: plain_figure(figure) for label, figure in self.categories.items()}
        return {"benchmark": "data"} | asdict(self) | {"tasks": plain_tasks(self.tasks), "categories": categories}

    def as_markdown(self) -> str:
        """Give the figures as a table in percent, and below it AP50 by category, the lowest first."""
        beams = "default beams" if self.options.beams is None else f"{self.options.beams} beam(s)"
        about = [self.model, self.data, f"{self.images} images", f"{self.skipped} skipped"]
        about += [f"{self.options.decoding} decoding", beams, f"boxes ranked by {self.protocol}"]
        about += [f"{sum(task.refused for task in self.tasks)} refused", f"{self.seconds:.0f} s", self.date]
        lines = [", ".join(part for part in about if part) + ".", "", *task_table(self.tasks)]
        if self.categories:
            lowest = sorted(self.categories.items(), key=lambda item: (item[1].value is None, item[1].value or 0.0))
            rows = [(label, f"{one.n:.0f}", percent(one.value), percent(one.half_width)) for label, one in lowest]
            lines += ["", *table(("category", "boxes", "AP50, %", "±"), rows)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Posed:
    """One question about one image, and every answer that is right."""

    row: int  # of its image among the records
    record: Record
    task: Task
    text: str | None
    region: Box | None
    answers: tuple[Answer, ...]  # one or more

    @property
    def crowds(self) -> list[Region]:
        """Regions that stand for many: to find something there is neither right nor wrong."""
        notes = ((note.label, note.bounds) for note in self.record.regions if note.crowd)
        return [Region(label, box=box) for label, box in notes if box is not None]

    @property
    def people(self) -> list[tuple[str, ...]]:
        """What people answered, a row for each time that the record has this question."""
        asked = (self.text or "").strip()
        return [note.answers for note in self.record.questions if note.question.strip() == asked and note.answers]


def evaluate_records(
    florence: Answerer,
    records: Sequence[Record],
    root: Path,
    tasks: Sequence[str | Task] | None = None,
    options: AskOptions | None = None,
    protocol: ScoreProtocol = "probability",
    limit: int | None = None,
    advance: Callable[[], object] | None = None,
) -> HeldOut:
    """Ask a model everything that records can pose, and score its answers.

    records   cleaned, as data/cleaning.py does; training must not have seen their images.
    root      folder that relative image paths start at.
    tasks     names or tokens; whatever the records can pose unless given.
    protocol  how the boxes of "detect" are ranked for average precision; see detection.py.
    limit     most images; they are taken from the whole list at equal steps, the same ones every time.
    advance   called once an image, with it or without.
    raises    BadPrompt for an unknown task; BadConfig when no record can pose any of the tasks.
    """
    start = time.perf_counter()
    asked = tuple(dict.fromkeys(find_task(task) for task in tasks or (*TASKS, FREE_TEXT)))
    chosen = spread(records, limit)
    options = DEFAULT_OPTIONS if options is None else options
    tallies = {task.name: Tally(len(chosen)) for task in asked}
    boxes: dict[int, tuple[Posed, Answer]] = {}
    skipped: set[int] = set()
    for posed, answer in ask_records(florence, chosen, root, asked, options, advance):
        if isinstance(answer, BadImage) or (isinstance(answer, Answer) and answer.image_wh != posed.record.image_wh):
            skipped.add(posed.row)
            continue
        taken = tallies[posed.task.name].take(posed.row, posed.answers[0], answer, partial(score, posed))
        if posed.task.name == "detect":
            boxes[posed.row] = posed, taken
    scored = [tally.scores(name) for name, tally in tallies.items() if tally.asked or tasks]
    if not skipped and not any(one.asked for one in scored):
        raise BadConfig(
            f"{len(chosen)} records, and none of them can pose {', '.join(task.name for task in asked)}; "
            "give a task that the notes of the data set can answer"
        )
    precision = _precision(list(boxes.values()), protocol)
    done = tuple(_complete(one, precision) for one in scored)
    seconds = time.perf_counter() - start
    return HeldOut(len(chosen) - len(skipped), len(skipped), protocol, options, done, precision.categories, seconds)


def open_part(data: str | Path, split: str, format: str | None, problems: Problems) -> tuple[Opened, Sequence[Record]]:
    """Open one part of a data set, or of the latest round of a store, and keep what can be asked about, cleaned.

    data, split, format  as `open_data` takes them.
    returns              the part, whose own records are used up, and its usable records.
    raises               BadRecord when the data set cannot be told, or nothing in this part is usable.
    """
    part = open_data(data, split, format, problems)
    return part, part.usable(problems)


def validator(
    text: Text,
    records: Sequence[Record],
    root: Path,
    tasks: Sequence[str | Task] | None = None,
    options: AskOptions | None = None,
    limit: int | None = None,
    side_px: int | None = None,
) -> Callable[[Network], dict[str, float]]:
    """Make what a training loop calls in between: a network in, its figures on held-out records out.

    side_px   input size instead of the one in the network's config.
    returns   figures by names such as "detect.ap50". The network keeps its modes, and what is packed to answer
              quickly is packed anew at each call.
    """

    def validate(network: Network) -> dict[str, float]:
        florence = live_florence(network, text, side_px)
        return evaluate_records(florence, records, root, tasks, options, limit=limit).values()

    return validate


def spread(records: Sequence[Any], limit: int | None) -> Sequence[Any]:
    """Take at most `limit` records at equal steps: data sets are often sorted by what they show."""
    if limit is None or limit >= len(records):
        return records
    return [records[place * len(records) // limit] for place in range(limit)]


def pose_records(record: Record, row: int, tasks: Sequence[Task]) -> Iterator[Posed]:
    """Pose everything that a record can pose of these tasks, each question once, task by task."""
    grouped: dict[tuple[str, str | None, Box | None], list[Answer]] = {}
    for example in pose_all(record, POLICY):
        grouped.setdefault((example.task.name, example.text, example.region), []).append(example.answer)
    for task in tasks:
        for (name, text, region), answers in grouped.items():
            if name == task.name:
                yield Posed(row, record, task, text, region, tuple(answers))


POLICY = Policy()


def ask_records(
    florence: Answerer,
    records: Sequence[Record],
    root: Path,
    tasks: Sequence[Task],
    options: AskOptions,
    advance: Callable[[], object] | None,
) -> Iterator[tuple[Posed, Answer | OpenFlorenceError]]:
    """Ask what records can pose, record by record; questions about one image stand side by side: it is encoded once.

    tasks     what may be asked.
    advance   called once an image.
    returns   each question with its answer, or with the error that stands in its place.
    """
    waiting: deque[Posed] = deque()

    def requests() -> Iterator[Request]:
        for row, record in enumerate(records):
            image = image_to_ask(record.image, root)
            for posed in pose_records(record, row, tasks):
                waiting.append(posed)
                yield Request(image, posed.task, posed.text, posed.region)
            if advance is not None:
                advance()

    for answer in florence.predict_many(requests(), options, batch=BATCH, on_error="give"):
        yield waiting.popleft(), answer
    assert not waiting, f"{len(waiting)} requests got no answer"


def _precision(boxes: Sequence[tuple[Posed, Answer]], protocol: ScoreProtocol) -> AveragePrecision:
    found = [answer.regions for _, answer in boxes]
    true = [posed.answers[0].regions for posed, _ in boxes]
    return average_precision(found, true, [posed.crowds for posed, _ in boxes], protocol)


def _complete(scores: TaskScores, precision: AveragePrecision) -> TaskScores:
    """Average precision before the other figures of "detect"; what had nothing to judge after all others."""
    figures = scores.figures
    if scores.task == "detect" and scores.asked:
        figures = precision.figures | figures
    return replace(scores, figures=dict(sorted(figures.items(), key=lambda item: item[1].n == 0)))


# ---- one answer


def score(posed: Posed, answer: Answer) -> Scored:
    """Score an answer by each of the right ones; the figures of the one that gives the best headline figure."""
    if posed.task.form == "text":
        return TEXT_SCORERS[posed.task.name](posed, answer.text.strip())
    scored = [_score_regions(posed, answer.regions, true) for true in posed.answers]
    return max(scored, key=lambda one: ratio(*next(iter(one.values()))) or 0.0)


def _score_regions(posed: Posed, predicted: Sequence[Region], true: Answer) -> Scored:
    name, regions = posed.task.name, true.regions
    if posed.task.form == "polygons":
        return score_mask(predicted, rasterise(rings(regions), true.image_wh))
    if posed.task.form == "quads":
        said, printed = ("\n".join(region.label for region in some) for some in (predicted, regions))
        return score_quads(predicted, regions) | {"word_f1": word_f1(said, printed)}
    if name == "ground":
        return score_phrases(predicted, regions)
    judged = outside_crowds(predicted, regions, posed.crowds, labelled=name != "propose")
    if name == "find":
        return score_find(true.input or "", judged, regions)
    return score_proposals(judged, regions) if name == "propose" else score_boxes(judged, regions)


def outside_crowds(
    predicted: Sequence[Region], true: Sequence[Region], crowds: Sequence[Region], labelled: bool = True
) -> list[Region]:
    """Leave out predictions that match no truth and lie, by half of their area or more, in a crowd.

    labelled  the crowd must have the label of the prediction.
    source    pycocotools, where a crowd takes any number of predictions and they are ignored.
    """
    if not crowds:
        return list(predicted)
    same = alike if labelled else (lambda a, b: True)
    matched = {place for place, _ in match(box_iou(bounds(predicted), bounds(true)) * same(predicted, true), LEAST)}
    inside = np.any(box_covered(bounds(predicted), bounds(crowds)) * same(predicted, crowds) >= LEAST, axis=1)
    return [region for place, region in enumerate(predicted) if place in matched or not inside[place]]


def _truths(posed: Posed) -> list[str]:
    return [answer.text.strip() for answer in posed.answers]


def _closest(said: str, truths: Sequence[str]) -> Parts:
    """Words in common with the truth that has most of them in common."""
    return max((word_f1(said, true) for true in truths), key=lambda parts: ratio(*parts) or 0.0)


def _score_text(posed: Posed, said: str) -> Scored:
    """Equal to one of the truths, letter by letter."""
    return {"exact": Parts(float(said in _truths(posed)), 1)}


def _score_caption(posed: Posed, said: str) -> Scored:
    """ROUGE-L against all captions of this length, F1 of words against the closest, and equality with one."""
    truths = _truths(posed)
    return {"rouge_l": Parts(rouge_l(said, truths), 1), "word_f1": _closest(said, truths)} | _score_text(posed, said)


def _score_description(posed: Posed, said: str) -> Scored:
    truths = _truths(posed)
    return _score_text(posed, said) | {"rouge_l": Parts(rouge_l(said, truths), 1), "word_f1": _closest(said, truths)}


def _score_printed(posed: Posed, said: str) -> Scored:
    """Equality, F1 of words and edit similarity."""
    truths = _truths(posed)
    similarity = max(edit_similarity(said, true) for true in truths)
    return _score_text(posed, said) | {"word_f1": _closest(said, truths), "edit_similarity": Parts(similarity, 1)}


def _score_read(posed: Posed, said: str) -> Scored:
    """The same where something is printed; silence where nothing is."""
    scored = _score_printed(posed, said)
    if any(_truths(posed)):
        return scored | {"silent_without_text": Parts(0, 0)}
    return dict.fromkeys(scored, Parts(0, 0)) | {"silent_without_text": Parts(float(not said), 1)}


def _score_answer(posed: Posed, said: str) -> Scored:
    """Accuracy of the VQA challenge where enough people answered, ANLS, and equality with one answer."""
    people = posed.people
    enough = [answers for answers in people if len(answers) >= PEOPLE]
    truths = [answer.strip() for answers in people for answer in answers] or _truths(posed)
    return {
        "vqa_accuracy": Parts(sum(vqa_accuracy(said, answers) for answers in enough), len(enough)),
        "exact": Parts(float(said in truths), 1),
        "anls": Parts(anls(said, truths), 1),
    }


TEXT_SCORERS: dict[str, Callable[[Posed, str], Scored]] = {
    "caption": _score_caption,
    "detailed_caption": _score_caption,
    "more_detailed_caption": _score_caption,
    "read": _score_read,
    "classify_region": _score_text,
    "describe_region": _score_description,
    "read_region": _score_printed,
    "answer": _score_answer,
}
