"""Our own network as a specialist: any checkpoint, every task, one encoding an image.

Florence(tasks=["caption", "detect", "ground"])          # the embedded nano
Florence(model="microsoft/Florence-2-large", tasks=["more_detailed_caption", "dense_caption"])

What an answer lacks is told by verdicts: a caption that was cut is dropped by the rule "cut"; a list that was cut, or
of which a piece could not be read, is kept, does not count as whole, and has a remark by the rule "cut" or "invalid"
under the name of its task ("florence/detect"), which drops no note.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from openflorence.contract.records import (
    LEVELS,
    GroundingNote,
    Level,
    Origin,
    PhraseNote,
    RegionNote,
    TextNote,
    Whole,
)
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes, Verdict
from openflorence.engine.specialists import open_row, print_of
from openflorence.engine.stages import Context, Outcome, Resources, Row, Stage
from openflorence.engine.votes import PlaceKind
from openflorence.errors import BadConfig
from openflorence.model.asking import AskOptions
from openflorence.model.predict import Florence as Model
from openflorence.model.predict import View, load

CAPTIONS: dict[str, Level] = {
    "caption": "brief",
    "detailed_caption": "detailed",
    "more_detailed_caption": "more_detailed",
}
LISTS: dict[str, Whole | None] = {  # tasks that list regions, and what they list completely
    "detect": "objects",
    "dense_caption": None,  # a description tells one place; not every object needs one
    "propose": None,
    "read_regions": "words",
    "find": None,
}
SAYS: dict[str, PlaceKind] = {
    "detect": "object",
    "find": "object",
    "dense_caption": "phrase",
    "propose": "place",
    "read_regions": "word",
}
REGION_TASKS = ("segment_region", "describe_region")  # about every region that was detected
ANNOTATED = (*CAPTIONS, *LISTS, "ground", *REGION_TASKS)
DEFAULT_TASKS = ("caption", "detailed_caption", "more_detailed_caption", "detect", "read_regions", "ground")
_AND = "<and>"


class Florence(Stage):
    """Asks our own network about every image."""

    batch = 8

    def __init__(
        self,
        model: str | None = None,
        layer: str = "florence",
        tasks: Sequence[str] = DEFAULT_TASKS,
        options: Mapping[str, Any] | None = None,
        phrases: Sequence[str] = (),
        grounded: Sequence[Level] = ("brief",),
        load_with: Mapping[str, Any] | None = None,
        round: int = 0,
    ) -> None:
        """Settle what is asked.

        model      a folder, a hub id, or None for the embedded nano.
        tasks      of ANNOTATED. "ground" asks about the network's own captions; the region tasks about its detections.
        options    fields of AskOptions. `labels` holds for "detect" alone.
        phrases    what "find" looks for.
        grounded   levels of the captions that are grounded.
        load_with  "adapter", "revision", "dtype" ("bfloat16") and "side_px", as openflorence.load takes them, and
                   "at_once", the questions about one image that are answered together (16).
        raises     BadConfig for what does not exist or cannot be.
        """
        self.name, self.layer, self.tasks, self.round = model, layer, tuple(tasks), round
        self.phrases, self.grounded = tuple(phrases), tuple(grounded)
        self.load_with = dict(load_with or {})
        self.options = _options(options or {})
        self._check()
        self.says = tuple(dict.fromkeys(SAYS[task] for task in self.tasks if task in SAYS))
        self.labels = (*self.options.labels, *self.phrases) if self.options.labels else ()  # the only ones; () for any
        self.resources = Resources(cpus=1, gpus=1)
        self.model = f"{model or 'nano'}" + (f"+{self.load_with['adapter']}" if "adapter" in self.load_with else "")
        self.revision = self.load_with.get("revision") or (
            print_of(Path(model)) if model is not None and Path(model).is_dir() else ""
        )
        self._network: Model | None = None

    def _check(self) -> None:
        wrong = next((task for task in self.tasks if task not in ANNOTATED), None)
        if wrong is not None or not self.tasks:
            raise BadConfig(f"tasks has {wrong!r}; allowed, one or more: {', '.join(ANNOTATED)}")
        asked = {CAPTIONS[task] for task in self.tasks if task in CAPTIONS}
        if "ground" in self.tasks and not (set(self.grounded) <= set(LEVELS) and asked & set(self.grounded)):
            raise BadConfig(
                f"'ground' ties the network's own captions of {', '.join(self.grounded) or 'no level'}, and tasks asks "
                f"for those of {', '.join(sorted(asked)) or 'none'}; add 'caption' or another level"
            )
        if "find" in self.tasks and not self.phrases:
            raise BadConfig("'find' looks for `phrases`, and there are none; give one or more")
        if set(self.tasks) & set(REGION_TASKS) and "detect" not in self.tasks:
            raise BadConfig(f"{' and '.join(REGION_TASKS)} are asked about what 'detect' finds; add it to tasks")
        unknown = sorted(set(self.load_with) - {"adapter", "revision", "dtype", "side_px", "at_once"})
        if unknown:
            raise BadConfig(f"load_with has {unknown[0]!r}; allowed: adapter, revision, dtype, side_px, at_once")

    def setup(self, context: Context) -> None:
        """Load the checkpoint to the worker's device."""
        dtype = self.load_with.get("dtype")
        if dtype is not None and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise BadConfig(f"dtype is {dtype!r}; allowed: float32, bfloat16, float16")
        side = self.load_with.get("side_px")
        self._network = load(
            self.name,
            adapter=self.load_with.get("adapter"),
            device=context.device,
            dtype=None if dtype is None else getattr(torch, dtype),
            revision=self.load_with.get("revision"),
            side_px=tuple(side) if isinstance(side, list) else side,
        )

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Encode all images together, then ask each what there is to ask, and of its answers what follows."""
        assert self._network is not None, "setup comes first"
        pictures = [open_row(row) for row in rows]
        with self._network.runner.at_rest():
            encoded = self._network.runner.encode_images(pictures)
        return [self._annotate(View(self._network, *pair)) for pair in zip(pictures, encoded, strict=True)]

    def _annotate(self, view: View) -> Outcome:
        told = _Told(self.layer, Origin(source="florence", model=self.model, version=self.revision, round=self.round))
        plain = [task for task in self.tasks if task in CAPTIONS or task in LISTS]
        asked: list[tuple[Any, ...]] = [(task, self.phrases if task == "find" else None, None) for task in plain]
        for task, answer in zip(plain, self._ask(view, asked), strict=True):
            if task in CAPTIONS:
                told.caption(answer, CAPTIONS[task])
            else:
                told.listed(answer)
        if "ground" in self.tasks:
            texts = [note for note in told.sound_texts() if note.level in self.grounded]
            answers = self._ask(view, [("ground", note.text, None) for note in texts])
            for note, answer in zip(texts, answers, strict=True):
                told.grounded(note, answer)
        for task in REGION_TASKS:
            if task in self.tasks:
                places = [place for place in told.detected if _has_area(told.regions[place].box)]
                boxes = [told.regions[place].box for place in places]
                answers = self._ask(view, [(task, None, box) for box in boxes])
                for place, answer in zip(places, answers, strict=True):
                    told.about_region(place, answer)
        return told.outcome()

    def _ask(self, view: View, asked: Sequence[tuple[Any, ...]]) -> list[Answer]:
        """Ask in groups. `labels` are words of "detect" alone: of other tasks they would be phrases and lines."""
        answers: dict[int, Answer] = {}
        free = replace(self.options, labels=None)
        at_once = int(self.load_with.get("at_once", 16))
        for options, mine in ((self.options, True), (free, False)):
            places = [place for place, one in enumerate(asked) if (one[0] == "detect") == mine]
            for start in range(0, len(places), at_once):
                group = places[start : start + at_once]
                answers |= zip(group, view.ask_many([asked[place] for place in group], options), strict=True)
        return [answers[place] for place in range(len(asked))]


@dataclass(eq=False)
class _Told:
    """What was said about one image so far."""

    layer: str
    origin: Origin
    texts: list[TextNote] = field(default_factory=list)
    regions: list[RegionNote] = field(default_factory=list)
    groundings: list[GroundingNote] = field(default_factory=list)
    detected: list[int] = field(default_factory=list)  # places of what "detect" found
    whole: set[Whole] = field(default_factory=set)
    verdicts: list[Verdict] = field(default_factory=list)

    def outcome(self) -> Outcome:
        notes = Notes(tuple(self.texts), tuple(self.regions), tuple(self.groundings), whole=frozenset(self.whole))
        return (notes, tuple(self.verdicts)) if self.verdicts else notes

    def sound_texts(self) -> list[TextNote]:
        dropped = {verdict.note_id for verdict in self.verdicts}
        return [note for place, note in enumerate(self.texts) if f"{self.layer}/text{place}" not in dropped]

    def caption(self, answer: Answer, level: Level) -> None:
        if not answer.text.strip():
            self._remark(f"{self.layer}/{answer.task.name}", "empty", "the network said nothing")
            return
        if answer.truncated:
            name = f"{self.layer}/text{len(self.texts)}"
            self._remark(name, "cut", f"the text ends in the middle: {_cut_by(answer)}")
        self.texts.append(TextNote(text=answer.text.strip(), level=level, score=answer.score, origin=self.origin))

    def listed(self, answer: Answer) -> None:
        """Regions of a list; whole only when it came to its end and all of it could be read."""
        complete = self._is_complete(answer)
        task = answer.task.name
        if complete and LISTS[task]:
            self.whole.add(LISTS[task] or "objects")
        for region in answer.regions:
            if task == "detect":
                self.detected.append(len(self.regions))
            self.regions.append(self._note(region, task))

    def _note(self, region: Region, task: str) -> RegionNote:
        said = {"dense_caption": "description", "read_regions": "word", "propose": ""}.get(task, "label")
        return RegionNote(
            box=region.box,
            quad=region.quad,
            polygons=region.polygons,
            score=region.score,
            origin=self.origin,
            **({said: region.label} if said else {}),  # type: ignore[arg-type]
        )

    def grounded(self, text: TextNote, answer: Answer) -> None:
        self._is_complete(answer)
        phrases: dict[str, list[Region]] = {}
        for region in answer.regions:
            if region.box is not None and region.label.strip():
                phrases.setdefault(region.label.strip(), []).append(region)
        if phrases:
            notes = tuple(_phrase(phrase, found, text.text) for phrase, found in phrases.items())
            self.groundings.append(
                GroundingNote(text=text.text, phrases=notes, level=text.level, score=text.score, origin=self.origin)
            )

    def about_region(self, place: int, answer: Answer) -> None:
        """Add an outline or a description to a region that was detected; what was cut is not added."""
        if not self._is_complete(answer):
            return
        note = self.regions[place]
        if answer.task.name == "segment_region":
            note = replace(note, polygons=tuple(ring for region in answer.regions for ring in region.polygons))
        else:
            note = replace(note, description=answer.text.strip())
        self.regions[place] = note

    def _is_complete(self, answer: Answer) -> bool:
        """Whether an answer came to its end and could be read; remarks on what is wrong with it."""
        name = f"{self.layer}/{answer.task.name}"
        if answer.truncated:
            self._remark(name, "cut", f"the answer is not whole: {_cut_by(answer)}")
        if answer.invalid:
            pieces = f"{answer.invalid} piece{'s' * (answer.invalid > 1)}"
            self._remark(name, "invalid", f"{pieces} of the answer could not be read", float(answer.invalid))
        return not answer.truncated and not answer.invalid

    def _remark(self, name: str, rule: str, reason: str, value: float | None = None) -> None:
        self.verdicts.append(Verdict(name, rule, reason, value))


def _options(given: Mapping[str, Any]) -> AskOptions:
    """Make options of plain values."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return AskOptions(**plain)
    except TypeError as error:
        raise BadConfig(f"options {dict(given)!r}: {error}; they are the fields of AskOptions") from error


def _cut_by(answer: Answer) -> str:
    return {"tokens": "it reached its limit of tokens", "regions": "it reached its limit of regions"}.get(
        answer.cut, "something cut it"
    )


def _has_area(box: Box | None) -> bool:
    return box is not None and box.x0 < box.x1 and box.y0 < box.y1


def _phrase(phrase: str, found: Sequence[Region], text: str) -> PhraseNote:
    """A phrase with its boxes; its score is the mean of theirs, None where one has none."""
    scores = [region.score for region in found]
    start = text.find(phrase)
    return PhraseNote(
        phrase=phrase,
        boxes=tuple(region.box for region in found if region.box is not None),
        span=None if start < 0 else (start, start + len(phrase)),
        score=None if None in scores else fmean(score or 0.0 for score in scores),
    )
