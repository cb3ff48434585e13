"""Every answer in a file as it comes, read again to be scored: one's own answers, or those of any other program.

ask_all(model, asked, path)                      # asks what the file has no answer to, and adds it line by line
said = read_answers(path, "image_id")            # key of a question -> Said
answer = said["42"].answer(task, image_wh)

A line of ours is a JSON object: `key` of the question, `task`, `text` as the network said it, location tokens
included, so that it can be read again, `truncated` and what `cut` it, `invalid`, `error`, `image_wh`. `scores`,
`label_scores` and `place_scores` are those of its regions in turn, `score` and `logprob` those of all that was said.
Where the text read again gives other regions or words, as of an answer that was put together from several or has its
coordinates between bins, the line has `regions`, in pixels, and `words`.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.contract.answers import join_labels, read_answer
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.contract.tasks import FREE_TEXT, TASKS, Task
from openflorence.data.coco import decode_mask, flat_ring, trace_mask
from openflorence.data.entries import check_table, numbers, read_json, take, write_json
from openflorence.errors import BadConfig, BadImage, BadRecord, OpenFlorenceError
from openflorence.evaluation.figures import Answerer
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Request

ANSWERS_FILE = "answers.jsonl"
TEXTS = ("text", "answer", "caption")  # fields that an answer in words stands in, the first there is
_TASK_NAMES = {task.name for task in (*TASKS, FREE_TEXT)}
_UNREAD = BadImage.__name__  # an image that could not be read may have been fetched again since


@dataclass(frozen=True)
class Said:
    """What came back for one question."""

    key: str  # of the question
    text: str = ""  # with location tokens
    regions: tuple[Region, ...] | None = None  # in pixels, of a program that gives places as numbers
    entries: tuple[Mapping[str, Any], ...] = ()  # the same regions as they stand in the file
    kept: tuple[Region, ...] | None = None  # in pixels, of our own answers that the text alone does not give
    words: str | None = None  # of the answer, where reading the text again gives others
    scores: tuple[float | None, ...] = ()  # of the regions, in turn
    label_scores: tuple[float | None, ...] = ()
    place_scores: tuple[float | None, ...] = ()
    score: float | None = None  # of all that was said
    logprob: float | None = None
    truncated: bool = False  # something cut the answer
    cut: str = ""  # what cut it
    invalid: int | None = None  # pieces that could not be read; None: as many as are found again
    error: str = ""  # name and message of the error in place of an answer
    task: str = ""  # name of the task that it answers; "" of other programs
    image_wh: tuple[int, int] | None = None  # width and height in pixels; None of other programs

    @property
    def is_unread(self) -> bool:
        """True when no answer came because the image could not be read."""
        return self.error.startswith(_UNREAD)

    def answer(self, task: Task, image_wh: tuple[int, int], input: str | None = None) -> Answer:
        """Read the answer again; an empty one in place of an error.

        promise   of a line that `ask_all` wrote it is the answer that the model gave, but for the attached picture and
                  the spread of its coordinates.
        """
        if self.regions is not None:
            words = join_labels(self.regions, task)
            return Answer(task, image_wh, words, self.regions, truncated=self.truncated, input=input)
        answer = read_answer(self.text, task, image_wh, input=input, truncated=self.truncated)
        return replace(
            answer,
            regions=self._scored(answer.regions if self.kept is None else self.kept),
            text=answer.text if self.words is None else self.words,
            cut=self.cut,
            score=self.score,
            logprob=self.logprob,
            invalid=answer.invalid if self.invalid is None else self.invalid,
        )

    def _scored(self, regions: tuple[Region, ...]) -> tuple[Region, ...]:
        """Give regions the scores that stand beside the text; a row that is not as long as they are says nothing."""
        rows = self.scores, self.label_scores, self.place_scores
        listed = [row if len(row) == len(regions) else (None,) * len(regions) for row in rows]
        return tuple(
            replace(region, score=score, label_score=label, place_score=place)
            for region, score, label, place in zip(regions, *listed, strict=True)
        )


# ---- asking


def ask_all(
    model: Answerer,
    asked: Iterable[tuple[str, Request]],
    path: Path,
    options: AskOptions = DEFAULT_OPTIONS,
    batch: int = 16,
    advance: Callable[[], object] | None = None,
) -> None:
    """Ask everything that a file has no answer to yet, and add each answer to it as it comes.

    asked     keys and requests, taken as they come; a key that stands twice is asked once.
    path      is made, or gone on with: what a kill left of a last line is dropped and asked again, and so is what had
              no answer because its image could not be read.
    advance   called once for each of `asked`.
    raises    BadRecord when the file holds something else than answers, before anything is asked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {key for key, said in _resume(path).items() if not said.is_unread}
    waiting: deque[tuple[str, Request]] = deque()

    def requests() -> Iterator[Request]:
        for key, request in asked:
            if key in done:
                _tell(advance)
                continue
            done.add(key)
            waiting.append((key, request))
            yield request

    # Half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes the JSON that spells it.
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for answer in model.predict_many(requests(), options, batch=batch, on_error="give"):
            key, request = waiting.popleft()
            file.write(json.dumps(_row(key, request, answer), ensure_ascii=False) + "\n")
            file.flush()
            _tell(advance)
    assert not waiting, f"{len(waiting)} requests got no answer"


def claim_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """Note in a folder whose answers it holds, so that those of two models or settings never mix.

    about     plain values; they are written to about.json when the folder is new.
    raises    BadConfig when the folder holds answers of something else; BadRecord when about.json is unreadable.
    """
    path = folder / "about.json"
    if not path.exists():
        write_json(dict(about), path)
        return
    kept, now = read_json(path), json.loads(json.dumps(dict(about)))
    names = [name for name in {**check_table(kept, str(path)), **now} if kept.get(name) != now.get(name)]
    if names:
        told = "; ".join(f"{name} was {kept.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise BadConfig(f"{folder} holds answers of another run: {told}. Name another folder, or ask as before")


def _row(key: str, request: Request, answer: Answer | OpenFlorenceError) -> dict[str, Any]:
    task = request.task.name if isinstance(request.task, Task) else request.task
    if isinstance(answer, OpenFlorenceError):
        return {"key": key, "task": task, "text": "", "error": f"{type(answer).__name__}: {answer}"}
    row = {"key": key, "task": task, "text": answer.raw, "truncated": answer.truncated, "invalid": answer.invalid}
    row |= {"cut": answer.cut} if answer.cut else {}
    told = {"score": answer.score, "logprob": answer.logprob}
    row |= {name: value for name, value in told.items() if value is not None and _is_score(value)}
    for name in ("score", "label_score", "place_score"):
        scores = [getattr(region, name) for region in answer.regions]
        row |= {} if all(score is None for score in scores) else {f"{name}s": scores}
    again = read_answer(answer.raw, answer.task, answer.image_wh)
    if _places(again.regions) != (places := _places(answer.regions)):
        row["regions"] = places
    if again.text != answer.text:
        row["words"] = answer.text
    return row | {"image_wh": list(answer.image_wh)}


def _places(regions: Iterable[Region]) -> list[dict[str, Any]]:
    """Labels and places of regions as plain values."""
    rows = []
    for region in regions:
        shapes = {"box": region.box, "quad": region.quad, "polygons": region.polygons}
        rows.append({"label": region.label} | {name: _plain(shape) for name, shape in shapes.items() if shape})
    return rows


def _plain(values: Any) -> Any:
    return [_plain(value) for value in values] if isinstance(values, tuple | list) else float(values)


def _tell(advance: Callable[[], object] | None) -> None:
    if advance is not None:
        advance()


def _resume(path: Path) -> dict[str, Said]:
    """Read what is there, and leave the file so that a line can be added."""
    if not path.exists():
        return {}
    raw = path.read_bytes()
    end = raw.rfind(b"\n") + 1
    if end or not raw.startswith(b"{"):  # else all that there is may be half of a first line
        read_transcript(path)  # before anything is cut from a file that may be of another kind
    if end < len(raw):
        with path.open("r+b") as file:
            file.truncate(end)
    return read_transcript(path)


# ---- reading


def read_transcript(path: Path) -> dict[str, Said]:
    """Give the answers of a file that `ask_all` wrote, by key; of two lines with one key the later one counts.

    raises    BadRecord naming file and line for anything else.
    """
    found = {}
    for where, entry in _entries(path):
        said = _said(entry, "key", where, {})
        found[said.key] = said
    return found


def read_answers(path: Path, name: str, categories: Mapping[int, str] | None = None) -> dict[str, Said]:
    """Give the answers of any program, by the key of the question.

    path        JSON lines, or one JSON list as the official results are. Each entry names its question and says
                "text", "answer" or "caption"; or it is one place: "bbox" as x, y, width, height or "segmentation" as
                COCO has it, with "category_id" or "label", and "score". All places of a question are its answer.
    name        the field that names the question where "key" does not: "image_id", "question_id", ...
    categories  names of the categories; without it entries have labels.
    returns     only what the file has: that a question without any place was answered with nothing, the caller knows.
    raises      BadRecord naming file and entry when an entry is not like this, or one question has two answers.
    source      Results formats of COCO captions, COCO detection and the VQA challenge.
    """
    found: dict[str, Said] = {}
    places: dict[str, list[Said]] = {}
    for where, entry in _entries(path):
        said = _said(entry, name, where, categories or {})
        before = found.get(said.key)
        if said.regions is not None and (before is None or before.regions is not None):
            places.setdefault(said.key, []).append(said)
        elif before is not None and not before.is_unread:
            raise BadRecord(f"{where}: question {said.key!r} was answered above; give one answer to each")
        found[said.key] = said
    return found | {key: _joined(listed) for key, listed in places.items()}


def _joined(listed: Sequence[Said]) -> Said:
    """All places of one question, of which each stood in an entry of its own."""
    regions = tuple(region for one in listed for region in one.regions or ())
    return replace(listed[0], regions=regions, entries=tuple(entry for one in listed for entry in one.entries))


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of JSON lines or of one JSON list, each with its place for people."""
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise BadRecord(f"cannot read {path}: {error.strerror or error}") from error
    if start.startswith(b"["):
        for place, entry in enumerate(read_json(path)):
            yield f"{path}, entry {place}", check_table(entry, f"{path}, entry {place}")
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            try:
                entry = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n") and number > 1:  # what a kill leaves of a last line
                    return
                raise BadRecord(f"{path}:{number} is not JSON: {error}; give one object a line, or a list") from error
            yield f"{path}:{number}", check_table(entry, f"{path}:{number}")


def _said(entry: Mapping[str, Any], name: str, where: str, categories: Mapping[int, str]) -> Said:
    field = "key" if "key" in entry else name
    key = entry.get(field)
    if not isinstance(key, str | int) or isinstance(key, bool):
        wanted = "'key'" if name == "key" else f"'key' or {name!r}"
        raise BadRecord(f"{where} says {field} {key!r}; {wanted} must name the question")
    if "bbox" in entry or "segmentation" in entry:
        return Said(str(key), regions=(_place(entry, where, categories),), entries=(entry,))
    text = next((entry[field] for field in TEXTS if field in entry), None)
    if not isinstance(text, str):
        raise BadRecord(
            f"{where} has {', '.join(entry)}; an answer has one of {', '.join(TEXTS)}, as a text, or a bbox"
        )
    size, error = entry.get("image_wh"), entry.get("error", "")
    rows = {name: entry.get(name, []) for name in ("scores", "label_scores", "place_scores")}
    sound = isinstance(error, str) and all(isinstance(row, list) and all(map(_is_score, row)) for row in rows.values())
    if not sound or not (size is None or (isinstance(size, list) and [type(side) for side in size] == [int, int])):
        seen = ", ".join(f"{name} {row!r:.60}" for name, row in rows.items() if row)
        raise BadRecord(f"{where}: error {error!r:.60}, image_wh {size!r:.60} or {seen or 'scores'} is not as written")
    said = Said(
        str(key),
        text,
        scores=tuple(rows["scores"]),
        label_scores=tuple(rows["label_scores"]),
        place_scores=tuple(rows["place_scores"]),
        truncated=entry.get("truncated") is True,
        error=error,
        task=task if isinstance(task := entry.get("task"), str) and task in _TASK_NAMES else "",
        image_wh=None if size is None else (size[0], size[1]),
    )
    return said if size is None else _with_ours(said, entry, where)


def _with_ours(said: Said, entry: Mapping[str, Any], where: str) -> Said:
    """Add what only a line of `ask_all` has; those of earlier versions had less."""
    for name in ("score", "logprob"):
        if not _is_score(entry.get(name)):
            raise BadRecord(f"{where}: {name} is {entry[name]!r:.60}; a number is needed")
    kept = None
    if "regions" in entry:
        kept = tuple(_kept(one, f"{where}: regions") for one in take(entry, "regions", list, where))
    return replace(
        said,
        kept=kept,
        words=take(entry, "words", str, where) if "words" in entry else None,
        score=entry.get("score"),
        logprob=entry.get("logprob"),
        cut=take(entry, "cut", str, where) if "cut" in entry else "",
        invalid=take(entry, "invalid", int, where) if "invalid" in entry else None,
    )


def _kept(row: Any, where: str) -> Region:
    """One region as `_places` writes it."""
    label = take(row, "label", str, where)
    box = Box(*numbers(row["box"], 4, f"{where}: box")) if "box" in row else None
    quad = None
    if "quad" in row:
        a, b, c, d = _points(row["quad"], 4, f"{where}: quad")
        quad = a, b, c, d
    rings = take(row, "polygons", list, where) if "polygons" in row else []
    return Region(label, box, quad, tuple(_points(ring, None, f"{where}: polygons") for ring in rings))


def _points(row: Any, count: int | None, where: str) -> Polygon:
    if not isinstance(row, list) or (count is not None and len(row) != count):
        raise BadRecord(f"{where} is {row!r:.60}; {count or 'a list of'} points x, y are needed")
    return tuple(Point(*numbers(point, 2, where)) for point in row)


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def _place(entry: Mapping[str, Any], where: str, categories: Mapping[int, str]) -> Region:
    """One place, as the results of COCO have it."""
    category, label, score = entry.get("category_id"), entry.get("label", ""), entry.get("score")
    if categories and "label" not in entry:
        if not isinstance(category, int) or category not in categories:
            raise BadRecord(f"{where}: category_id {category!r} is none of the benchmark's {len(categories)}")
        label = categories[category]
    if not isinstance(label, str) or not _is_score(score):
        raise BadRecord(f"{where}: label {label!r:.60} must be a text, and score {score!r:.60} a number")
    rings = _outline(entry.get("segmentation"), where)
    box = None
    if "bbox" in entry:
        x, y, width, height = numbers(entry["bbox"], 4, f"{where}: bbox")
        if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) < 0:
            raise BadRecord(f"{where}: bbox {entry['bbox']!r:.80}; x, y, width and height in pixels are needed")
        box = Box(x, y, x + width, y + height)
    if box is None and not rings:
        raise BadRecord(f"{where}: neither a bbox nor an outline; leave out what is nowhere")
    return Region(label, box=box, polygons=rings, score=score)


def _outline(value: Any, where: str) -> tuple[Polygon, ...]:
    if value is None:
        return ()
    if isinstance(value, dict):
        size = value.get("size")
        whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        mask = decode_mask(value, (size[1], size[0])) if whole and size is not None else None
        if mask is None:
            raise BadRecord(f"{where}: segmentation is no run-length mask; it has size [height, width] and counts")
        return trace_mask(mask)
    rings = [flat_ring(flat) for flat in value] if isinstance(value, list) else [None]
    if any(ring is None or len(ring) < 3 for ring in rings):
        raise BadRecord(f"{where}: segmentation {value!r:.80} is no list of rings x, y, x, y, ...")
    return tuple(ring for ring in rings if ring is not None)
