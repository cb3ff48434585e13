"""The table of benchmarks: what is asked, what is right, how it is scored. Asked into a file, scored from the file.

opened = open_benchmark("coco-caption", Path("coco"), limit=500)
answers = ask_benchmark(model, opened, Path("runs/captions"), {"model": "nano"})
results = score_answers(opened, answers)         # or the answers of any other program
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from openflorence.contract.prompts import write_prompt
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import find_task
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadImage, BadRecord
from openflorence.evaluation.figures import Answerer
from openflorence.evaluation.heldout import BATCH, spread
from openflorence.evaluation.marking import Answered, Mark, mark_answers, mark_captions
from openflorence.evaluation.marking_regions import mark_detection, mark_expressions, mark_masks, mark_phrases
from openflorence.evaluation.metrics import Parts
from openflorence.evaluation.official import (
    Question,
    Sheet,
    read_karpathy,
    read_nocaps,
    read_textcaps,
    read_textvqa,
    read_vizwiz,
    read_vqav2,
)
from openflorence.evaluation.official_regions import read_entities, read_expressions, read_instances
from openflorence.evaluation.results import ROUNDS, Exhibit, Results, measure
from openflorence.evaluation.transcript import ANSWERS_FILE, Said, ask_all, claim_folder, read_answers
from openflorence.model.images import image_size, read_image
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request


@dataclass(frozen=True)
class Benchmark:
    """One row of the table."""

    read: Callable[[Path, str, Problems], Sheet]
    mark: Mark
    key: str  # field that names the question in the answers of other programs
    splits: Mapping[str, str]  # parts, and what the paper calls them; the first is usual
    tasks: tuple[str, ...]  # that can ask it; the first is usual


def _referring(name: str, by: str, splits: tuple[str, ...]) -> dict[str, Benchmark]:
    """Boxes and masks of one set of referring expressions."""
    parts = {split: split for split in splits}
    other = name if by in ("unc", "umd") else f"{name}-{by}"
    boxes = partial(read_expressions, name=name, by=by, task="ground")
    masks = partial(read_expressions, name=name, by=by, task="segment")
    return {
        other: Benchmark(boxes, mark_expressions, "sent_id", parts, ("ground", "find")),
        f"{other}-segment": Benchmark(masks, mark_masks, "sent_id", parts, ("segment",)),
    }


BENCHMARKS: dict[str, Benchmark] = {
    "coco-caption": Benchmark(
        read_karpathy,
        mark_captions,
        "image_id",
        {"test": "Karpathy test", "val": "Karpathy val"},
        ("caption", "detailed_caption", "more_detailed_caption"),
    ),
    "nocaps": Benchmark(
        read_nocaps, mark_captions, "image_id", {"val": "val"}, ("caption", "detailed_caption", "more_detailed_caption")
    ),
    "textcaps": Benchmark(
        read_textcaps,
        mark_captions,
        "image_id",
        {"val": "val"},
        ("caption", "detailed_caption", "more_detailed_caption"),
    ),
    "coco-detect": Benchmark(read_instances, mark_detection, "image_id", {"val2017": "val2017"}, ("detect",)),
    "flickr30k": Benchmark(read_entities, mark_phrases, "key", {"test": "test", "val": "val"}, ("ground",)),
    **_referring("refcoco", "unc", ("val", "testA", "testB")),
    **_referring("refcoco+", "unc", ("val", "testA", "testB")),
    **_referring("refcocog", "umd", ("val", "test")),
    **_referring("refcoco", "google", ("val", "test")),
    **_referring("refcocog", "google", ("val",)),
    "vqav2": Benchmark(read_vqav2, mark_answers, "question_id", {"val": "val"}, ("answer",)),
    "textvqa": Benchmark(
        read_textvqa, partial(mark_answers, rule="textvqa"), "question_id", {"val": "val"}, ("answer",)
    ),
    "vizwiz": Benchmark(read_vizwiz, partial(mark_answers, rule="vizwiz"), "image", {"val": "val"}, ("answer",)),
}


@dataclass(frozen=True)
class Opened:
    """A part of a benchmark, ready to be asked."""

    name: str
    split: str
    questions: tuple[Question, ...]  # chosen; those about one image stand together
    categories: Mapping[int, str]
    all_keys: frozenset[str]  # of all questions, chosen or not
    problems: Problems  # met in its files

    @property
    def benchmark(self) -> Benchmark:
        """Its row of the table."""
        return BENCHMARKS[self.name]

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that are asked about."""
        return tuple(dict.fromkeys(question.name for question in self.questions))


def open_benchmark(
    name: str, data: Path, split: str | None = None, limit: int | None = None, task: str | None = None
) -> Opened:
    """Read the official files of one part of a benchmark.

    name      a name of BENCHMARKS.
    data      the folder that people have, or its main file; which layouts are known, the reader of each says.
    split     the usual one unless given.
    limit     most images, taken at equal steps, the same ones every time.
    task      that asks, where there is a choice.
    raises    BadConfig for an unknown name, split or task; BadRecord when files are missing, or nothing can be asked.
    """
    benchmark = BENCHMARKS[_one_of("benchmark", name, BENCHMARKS)]
    split = _one_of(f"split of {name}", split or next(iter(benchmark.splits)), benchmark.splits)
    asked = find_task(_one_of(f"task of {name}", find_task(task or benchmark.tasks[0]).name, benchmark.tasks))
    problems = Problems()
    sheet = benchmark.read(data, split, problems)
    images = list(dict.fromkeys(question.name for question in sheet.questions))
    if not images:
        raise BadRecord(f"{data}: nothing in split {split!r} of {name} can be asked. What was seen:\n{problems}")
    chosen = set(spread(images, limit))
    questions = tuple(replace(one, task=asked) for one in sheet.questions if one.name in chosen)
    keys = frozenset(question.key for question in sheet.questions)
    return Opened(name, split, questions, sheet.categories, keys, problems)


def _one_of(what: str, seen: str, allowed: Mapping[str, Any] | tuple[str, ...]) -> str:
    if seen not in allowed:
        raise BadConfig(f"{what} is {seen!r}; allowed: {', '.join(allowed)}")
    return seen


# ---- asking


def ask_benchmark(
    model: Answerer,
    opened: Opened,
    out: Path,
    about: Mapping[str, Any],
    options: AskOptions = DEFAULT_OPTIONS,
    advance: Callable[[], object] | None = None,
) -> Path:
    """Ask all questions whose image is there and that the folder has no answer to yet.

    out       folder; it gets answers.jsonl, a line an answer as it comes, and about.json.
    about     whose answers these are, as plain values; a folder with those of another is refused.
    advance   called once a question.
    returns   the file of answers.
    raises    BadConfig when the folder holds other answers; BadRecord when no image is there.
    """
    there = {image: image.is_file() for image in dict.fromkeys(question.image for question in opened.questions)}
    if not any(there.values()):
        raise BadRecord(
            f"none of the {len(there)} images of {opened.name} is there; looked for {next(iter(there))}. Give the "
            "folder that has the images beside the annotations"
        )
    task = opened.questions[0].task.name
    claim_folder(out, {"benchmark": opened.name, "split": opened.split, "task": task, **about})

    def asked() -> Iterator[tuple[str, Request]]:
        for question in opened.questions:
            if there[question.image]:
                yield question.key, Request(str(question.image), question.task, question.text, question.region)
            elif advance is not None:
                advance()

    ask_all(model, asked(), out / ANSWERS_FILE, options, BATCH, advance)
    return out / ANSWERS_FILE


# ---- scoring


def score_answers(opened: Opened, path: Path, rounds: int = ROUNDS) -> Results:
    """Score the answers of a file, whoever gave them.

    path      as `ask_benchmark` wrote it, or any other that `read_answers` reads; its texts are read by
              contract/answers.py, its places are taken as they are.
    returns   figures over the images that have an answer. Where a program gives places as numbers, an image or question
              that it does not name was answered with nothing, as the results of COCO have it.
    raises    BadRecord when the file cannot be read, or answers none of the questions.
    """
    said = read_answers(path, opened.benchmark.key, opened.categories)
    if said.keys().isdisjoint(question.key for question in opened.questions):
        raise BadRecord(
            f"{path} answers none of the {len(opened.questions)} questions asked of {opened.name}: it has "
            f"{', '.join(map(repr, list(said)[:3])) or 'nothing'}, asked was {opened.questions[0].key!r} and others"
        )
    unknown = len(said.keys() - opened.all_keys)
    pairs = list(_pairs(opened, said, path))
    answered = _answered(pairs, opened.categories)
    marks = opened.benchmark.mark(answered, rounds)
    asked = zip(answered.questions, answered.answers, strict=True)
    exhibits = [_exhibit(question, answer) for question, answer in asked if question.image.is_file()]
    invalid = measure(answered.sums(Parts(float(answer.invalid > 0), 1) for answer in answered.answers), rounds)
    return Results(
        benchmark=opened.name,
        images=answered.images,
        asked=len(pairs),
        invalid=sum(answer.invalid > 0 for answer in answered.answers),
        truncated=sum(answer.truncated for answer in answered.answers),
        refused=sum(bool(one.error) for _, one in pairs),
        missing=len(opened.questions) - len(pairs),
        measured=dict(marks.measured) | {"invalid": invalid},
        tables=marks.tables,
        confidences=marks.confidences,
        exhibits=tuple(exhibits),
        about={"split": opened.benchmark.splits[opened.split]} | ({"unknown answers": unknown} if unknown else {}),
    )


def _pairs(opened: Opened, said: Mapping[str, Said], path: Path) -> Iterator[tuple[Question, Said]]:
    """Every question that has an answer, with it."""
    numeric = any(one.regions is not None for one in said.values())
    for question in opened.questions:
        one = said.get(question.key) or (Said(question.key, regions=()) if numeric else None)
        if one is None or one.is_unread:
            continue
        if one.task not in ("", question.task.name):
            raise BadRecord(
                f"{path} answers {one.task!r} to question {one.key!r}, which is asked as {question.task.name!r}; "
                f"give --task {one.task}, or the answers to {question.task.name!r}"
            )
        yield question, one


def _answered(pairs: list[tuple[Question, Said]], categories: Mapping[int, str]) -> Answered:
    """Read every answer in pixels of its image."""
    rows = {name: row for row, name in enumerate(dict.fromkeys(question.name for question, _ in pairs))}
    sizes: dict[Path, tuple[int, int]] = {}
    answers = []
    for question, one in pairs:
        # Locations are shares of the picture: what a file states counts, also when the picture on disk is smaller.
        size = question.image_wh or one.image_wh or sizes.get(question.image)
        size = sizes[question.image] = size or _size_of(question.image)
        answers.append(one.answer(question.task, size, question.text))
    return Answered(
        tuple(rows),
        tuple(rows[question.name] for question, _ in pairs),
        tuple(question for question, _ in pairs),
        tuple(answers),
        tuple(one.entries for _, one in pairs),
        categories,
    )


def _size_of(image: Path) -> tuple[int, int]:
    """Read the header; where there is no image, any size does: only answers in words come to this."""
    try:
        return image_size(image)
    except BadImage:
        return 1, 1


def _exhibit(question: Question, answer: Answer) -> Exhibit:
    words = write_prompt(question.task, question.text) if question.task.input != "region" else question.task.sentence
    return Exhibit(question.name, partial(read_image, question.image), words, _true_answer(question, answer), answer)


def _true_answer(question: Question, answer: Answer) -> Answer:
    """What is right, in the form of an answer, to be looked at."""
    truth, form = question.truth, question.task.form
    if form == "text":
        counts = {text: truth.texts.count(text) for text in truth.texts}
        words = (text if count == 1 else f"{text} ({count} times)" for text, count in counts.items())
        return Answer(question.task, answer.image_wh, "; ".join(words), input=question.text)
    if form == "polygons":
        regions = [Region(polygons=note.polygons) for note in truth.regions]
    else:
        regions = [Region(note.label, box=note.bounds) for note in truth.regions if not note.crowd]
        regions += [Region(phrase.phrase, box=box) for phrase in truth.phrases for box in phrase.boxes]
    return Answer(question.task, answer.image_wh, regions=tuple(regions), input=question.text)
