"""What a model is asked: options, requests in their three forms, and a request made ready for the network."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from openflorence.contract.grammar import Grammar, grammar_for
from openflorence.contract.prompts import fill_sentence, input_of
from openflorence.contract.regions import Region
from openflorence.contract.tasks import Task, find_task
from openflorence.errors import BadConfig, BadPrompt, OpenFlorenceError
from openflorence.model.checkpoint import Checkpoint
from openflorence.model.search import DecodeSettings, Job, Sampling

Decoding = Literal["default", "published"]
Coordinates = Literal["bin", "expected"]
More = Literal["never", "continue", "tiles"]


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """How to search for an answer. What is None is the default of the task or of the checkpoint."""

    decoding: Decoding = "default"  # "published": token for token what the published code gives
    beams: int | None = None  # partial answers kept at a time; 1 is greedy and fastest
    max_tokens: int | None = None  # longest answer; an answer cut by it says `truncated`
    sampling: Sampling | None = None  # draw instead of search; needs beams=1 or None
    grammar: bool = True  # say only what can be read; free text, and "published", are always free
    labels: tuple[str, ...] | None = None  # the only labels that tasks which name regions may use
    max_regions: int | None = None  # most regions of an answer; one that wanted more says `truncated`
    coordinates: Coordinates = "bin"  # "expected": between bins, where the probabilities of the bins say
    presence: bool = False  # of ground, find and segment: say how probable it is that each phrase is there at all
    min_presence: float | None = None  # the same, and leave out the regions of phrases that are less probable
    more: More = "never"  # after a cut answer: "continue" where it ended, or ask about overlapping "tiles"
    tiles: int | tuple[int, int] | None = None  # ask about so many tiles, or rows and columns of them, at once

    def __post_init__(self) -> None:
        for name, allowed in (
            ("decoding", ("default", "published")),
            ("coordinates", ("bin", "expected")),
            ("more", ("never", "continue", "tiles")),
        ):
            if getattr(self, name) not in allowed:
                raise BadConfig(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(map(repr, allowed))}")
        free = self.decoding == "published" or not self.grammar
        if free and (self.labels is not None or self.max_regions is not None):
            raise BadConfig(
                "labels and max_regions are kept by the grammar; leave decoding and grammar at their defaults"
            )
        if self.labels is not None and not (self.labels and all(label.strip() for label in self.labels)):
            raise BadConfig(f"labels is {self.labels!r}; give one label or more, each with at least one word")
        if self.max_regions is not None and self.max_regions < 1:
            raise BadConfig(f"max_regions is {self.max_regions}; give 1 or more")
        if self.tiles is not None and min(self.tiles if isinstance(self.tiles, tuple) else (self.tiles,)) < 1:
            raise BadConfig(f"tiles is {self.tiles}; give a number, or rows and columns, each 1 or more")
        if self.min_presence is not None and not 0 <= self.min_presence <= 1:
            raise BadConfig(f"min_presence is {self.min_presence}; give a probability from 0 to 1")
        # Checked where the search checks them, but now, before an image is read.
        DecodeSettings(beams=self._beams(1), max_tokens=self.max_tokens, sampling=self.sampling)

    def settings(self, checkpoint: Checkpoint, task: Task) -> DecodeSettings:
        """Settle every setting of the search for one task of one checkpoint."""
        config, text = checkpoint.config.text, checkpoint.text
        if self.decoding == "published":
            settings = DecodeSettings.published(config)
        else:
            settings = replace(
                DecodeSettings.for_task(config, task, text.size),
                first_location=None if task.form == "text" else text.first_location,
            )
        beams = self._beams(settings.beams)
        if self._takes_labels(task):  # a ban could forbid the only word that a label can go on with
            settings = replace(settings, no_repeat_ngram=0)
        return replace(settings, beams=beams, max_tokens=self.max_tokens, sampling=self.sampling)

    def grammar_of(self, checkpoint: Checkpoint, task: Task, words: str | None) -> Grammar | None:
        """What an answer may be like; None for anything."""
        if self.decoding == "published" or not self.grammar:
            return None
        return grammar_for(
            task,
            checkpoint.text.spelling,
            labels=self.labels if self._takes_labels(task) else None,
            text=words if task.form == "phrases" and self.labels is None else None,
            max_regions=self.max_regions,
        )

    def _takes_labels(self, task: Task) -> bool:
        named = task.form in ("boxes", "phrases", "quads", "boxes_or_polygons") or task.name == "classify_region"
        return named and self.labels is not None

    def _beams(self, usual: int) -> int:
        return self.beams if self.beams is not None else (1 if self.sampling else usual)


DEFAULT_OPTIONS = AskOptions()


@dataclass(frozen=True)
class Request:
    """One question about one image, for predict_many. A tuple (image, task) or a dict of these fields does as well."""

    image: Any  # whatever predict takes
    task: str | Task
    text: str | Sequence[str] | None = None
    region: Region | Sequence[float] | None = None


@dataclass(eq=False)
class Opened:
    """An image: read once, and encoded once if a question needs it."""

    source: Any  # what was given, kept so that nothing else gets its id
    picture: Image.Image | OpenFlorenceError
    tokens: Float[Tensor, "N D"] | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """A request made ready: the picture, the prompt, and how to search."""

    picture: Image.Image
    task: Task
    words: str | None  # the input as Answer.input keeps it
    prompt_ids: tuple[int, ...]
    job: Job
    options: AskOptions = field(default=DEFAULT_OPTIONS)


def as_request(given: Any) -> Request:
    """Take a request in any of its three forms.

    raises    BadPrompt when it is none of them.
    """
    if isinstance(given, Request):
        return given
    try:
        if isinstance(given, dict):
            return Request(**given)
        if isinstance(given, tuple | list):
            return Request(*given)
    except TypeError:  # too few, too many, or a name it does not have
        pass
    seen = f"a dict of {', '.join(map(str, given))}" if isinstance(given, dict) else f"a {type(given).__name__}"
    if isinstance(given, tuple | list):
        seen += f" of {len(given)}"
    raise BadPrompt(f"a request is a Request, a tuple (image, task, text, region) or a dict of these, got {seen}")


def image_key(source: Any) -> Any:
    """What makes two images of a stream the same: their path, or being one object."""
    return source if isinstance(source, str | Path) else id(source)


def picture_of(opened: Opened) -> Image.Image:
    """The picture of an image that could be read.

    raises    the BadImage that it could not be read with.
    """
    if isinstance(opened.picture, OpenFlorenceError):
        raise opened.picture
    return opened.picture


def make_question(
    checkpoint: Checkpoint, picture: Image.Image, request: Request, options: AskOptions, image_tokens: int
) -> Question:
    """Make a request ready.

    image_tokens  how many tokens an image has with this checkpoint and input size.
    raises        BadPrompt, BadRegion or BadConfig, each naming what was seen and what is allowed.
    """
    task = find_task(request.task)
    words = input_of(task, request.text, request.region, picture.size)
    prompt = fill_sentence(task, words)
    if not _is_unicode(prompt):
        raise BadPrompt(f"text={request.text!r} holds half a character (a lone surrogate): decode it as UTF-8")
    ids = tuple(checkpoint.text.encode(prompt))
    most = checkpoint.config.text.positions - image_tokens
    if len(ids) > most:
        raise BadPrompt(
            f"the prompt has {len(ids)} tokens; beside {image_tokens} image tokens the limit is {most}: "
            "shorten the text"
        )
    job = Job(options.settings(checkpoint, task), options.grammar_of(checkpoint, task, words))
    job.settings.limit(checkpoint.config.text)
    return Question(picture, task, words, ids, job, options)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
