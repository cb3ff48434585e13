"""The face of the system: an image and a task in, an Answer out.

model = openflorence.load()                      # the embedded nano; or a hub id, or a folder
answer = model.predict("street.jpg", "detect")
view = model.open("street.jpg")                  # encoded once, asked often
for answer in model.predict_many(requests): ...  # mixed tasks and sizes; the same answers as one by one
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from openflorence.contract.answers import read_answer
from openflorence.contract.prompts import fill_sentence, input_of
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import Task, find_task
from openflorence.errors import BadConfig, BadPrompt, OpenFlorenceError
from openflorence.model.checkpoint import Checkpoint, load_checkpoint
from openflorence.model.decode import Decoded, DecodeSettings, Sampling, decode
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.hub import resolve
from openflorence.model.images import read_image, to_batch
from openflorence.model.sources import DEFAULT_LIMITS, ImageLimits

Decoding = Literal["default", "published"]


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """How to search for an answer. What is None is the default of the task or of the checkpoint."""

    decoding: Decoding = "default"  # "published": token for token what the published code gives
    beams: int | None = None  # partial answers kept at a time; 1 is greedy and fastest
    max_tokens: int | None = None  # longest answer; an answer cut by it says `truncated`
    sampling: Sampling | None = None  # draw instead of search; needs beams=1 or None

    def __post_init__(self) -> None:
        if self.decoding not in ("default", "published"):
            raise BadConfig(f"decoding is {self.decoding!r}; allowed are 'default' and 'published'")

    def settings(self, checkpoint: Checkpoint, task: Task) -> DecodeSettings:
        """Settle every setting for one task of one checkpoint."""
        config = checkpoint.config.text
        if self.decoding == "published":
            settings = DecodeSettings.published(config)
        else:
            settings = DecodeSettings.for_task(config, task, checkpoint.text.size)
        beams = self.beams if self.beams is not None else (1 if self.sampling else settings.beams)
        return replace(settings, beams=beams, max_tokens=self.max_tokens, sampling=self.sampling)


DEFAULT_OPTIONS = AskOptions()


@dataclass(frozen=True)
class Request:
    """One question about one image, for predict_many. A tuple (image, task) or a dict of these fields does as well."""

    image: Any  # whatever predict takes
    task: str | Task
    text: str | Sequence[str] | None = None
    region: Region | Sequence[float] | None = None


@dataclass(frozen=True)
class Question:
    """A request made ready: the picture, its place in the encoded batch, and the prompt."""

    picture: Image.Image
    place: int  # row of the image tokens
    task: Task
    words: str | None  # the input as Answer.input keeps it
    prompt_ids: tuple[int, ...]
    settings: DecodeSettings


class Florence:
    """A checkpoint that answers. Make one with `openflorence.load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        side_px: int | tuple[int, int] | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        """Wrap a loaded checkpoint.

        side_px   input size instead of the checkpoint's own: a side, or (height, width); as published it is 768.
        limits    what images may be like; see ImageLimits.
        raises    BadConfig when the size gives a larger grid than the position tables have.
        """
        self.checkpoint, self.limits = checkpoint, limits
        self.side_px = side_px or checkpoint.config.side_px
        grid = checkpoint.config.vision.grid_hw(
            self.side_px if isinstance(self.side_px, tuple) else (self.side_px, self.side_px)
        )
        most = checkpoint.config.vision.max_side
        if not 1 <= min(grid) <= max(grid) <= most:
            raise BadConfig(f"side_px {self.side_px} gives a grid of {grid} cells; allowed are 1 to {most} a side")
        self._decoder: tuple[tuple[int, ...], FastDecoder] | None = None

    @property
    def network(self) -> Network:
        """The torch module: network(pixels, prompt_ids, prompt_mask, decoder_ids) gives logits."""
        return self.checkpoint.network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.seq2seq.embed.weight.device

    def predict(
        self,
        image: Any,
        task: str | Task,
        text: str | Sequence[str] | None = None,
        region: Region | Sequence[float] | None = None,
        options: AskOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Answer one task about one image.

        image     path, URL, bytes, file, PIL image, array or tensor; see read_image.
        task      plain name ("detect") or published token ("<OD>"); openflorence.TASKS has them all.
        text      what to ground, find or segment, or the question of "answer".
        region    for the region tasks: x0, y0, x1, y1 in pixels of the upright image, or a Region of an answer.
        returns   text and regions, in pixels of the upright original; empty answers are answers.
        raises    BadImage, BadPrompt, BadRegion or BadConfig, each naming what was seen and what is allowed.
        """
        return self.open(image).ask(task, text, region, options)

    def open(self, image: Any) -> "View":
        """Read and encode an image once, to be asked many things."""
        picture = read_image(image, self.limits)
        return View(self, picture, self._encode([picture]))

    def predict_many(
        self,
        requests: Iterable[Request | tuple[Any, ...] | dict[str, Any]],
        options: AskOptions = DEFAULT_OPTIONS,
        batch: int = 8,
        on_error: Literal["raise", "give"] = "raise",
    ) -> Iterator[Any]:
        """Answer many requests, in order: mixed images, tasks, sizes and lengths, the same answers as one by one.

        requests  taken as they come, `batch` at a time, so they may be endless; images that stand next to each other
                  and are the same object or path are encoded once.
        on_error  "raise" stops at the first bad request; "give" yields its error in place of its answer and goes on.
        """
        if batch < 1:
            raise BadConfig(f"batch is {batch}; give 1 or more")
        stream = iter(requests)
        while group := list(islice(stream, batch)):
            yield from self._answer_group(group, options, on_error)

    def _answer_group(self, group: list[Any], options: AskOptions, on_error: str) -> list[Any]:
        """Prepare a group, encode its different images in one go, and answer it."""
        results: list[Any] = [None] * len(group)
        pictures: list[Image.Image] = []
        seen: dict[Any, int] = {}
        questions: dict[int, Question] = {}
        for place, given in enumerate(group):
            try:
                request = _as_request(given)
                key = request.image if isinstance(request.image, str | Path) else id(request.image)
                if key not in seen:
                    picture = read_image(request.image, self.limits)
                    seen[key] = len(pictures)
                    pictures.append(picture)
                row = seen[key]
                questions[place] = self._question(pictures[row], row, request, options)
            except OpenFlorenceError as error:
                if on_error == "raise":
                    raise
                results[place] = error
        if questions:
            answers = self._answer(list(questions.values()), self._encode(pictures))
            for place, answer in zip(questions, answers, strict=True):
                results[place] = answer
        return results

    def _question(self, picture: Image.Image, place: int, request: Request, options: AskOptions) -> Question:
        task = find_task(request.task)
        words = input_of(task, request.text, request.region, picture.size)
        prompt = fill_sentence(task, words)
        ids = tuple(self.checkpoint.text.encode(prompt))
        most = self.checkpoint.config.text.positions - self._image_tokens
        if len(ids) > most:
            raise BadPrompt(
                f"the prompt has {len(ids)} tokens; beside {self._image_tokens} image tokens the limit is {most}: "
                "shorten the text"
            )
        return Question(picture, place, task, words, ids, options.settings(self.checkpoint, task))

    @property
    def _image_tokens(self) -> int:
        height, width = self.side_px if isinstance(self.side_px, tuple) else (self.side_px, self.side_px)
        rows, columns = self.checkpoint.config.vision.grid_hw((height, width))
        return 1 + rows * columns

    @torch.inference_mode()
    def _encode(self, pictures: list[Image.Image]) -> Float[Tensor, "B N D"]:
        weight = self.network.seq2seq.embed.weight
        pixels = to_batch(pictures, self.side_px).to(device=weight.device, dtype=weight.dtype)
        return self.network.eval().encode_image(pixels)

    @torch.inference_mode()
    def _answer(self, questions: list[Question], image_tokens: Float[Tensor, "B N D"]) -> list[Answer]:
        """Decode questions together where they search alike, and read their answers."""
        answers: list[Answer | None] = [None] * len(questions)
        for settings in dict.fromkeys(question.settings for question in questions):
            alike = [place for place, question in enumerate(questions) if question.settings == settings]
            prompts = [questions[place].prompt_ids for place in alike]
            rows = torch.tensor([questions[place].place for place in alike], device=self.device)
            ids, mask = _pad(prompts, self.checkpoint.config.text.pad, self.device)
            memory, memory_mask = self.network.encode(image_tokens[rows], ids, mask)
            for place, decoded in zip(alike, decode(self._fast_decoder(), memory, memory_mask, settings), strict=True):
                answers[place] = self._read(questions[place], decoded)
        return [answer for answer in answers if answer is not None]

    def _read(self, question: Question, decoded: Decoded) -> Answer:
        text = self.checkpoint.text
        first, last = text.first_location, text.first_location + 1000
        return read_answer(
            text.decode(decoded.ids),
            question.task,
            question.picture.size,
            input=question.words,
            truncated=decoded.truncated,
            image=question.picture,
            location_logprobs=[
                value for token, value in zip(decoded.ids, decoded.logprobs, strict=True) if first <= token < last
            ],
        )

    def _fast_decoder(self) -> FastDecoder:
        """The packed decoder, packed again when a weight was changed since (a fine-tune, a merged adapter)."""
        versions = tuple(x for p in self.network.parameters() for x in (id(p), 0 if p.is_inference() else p._version))
        if self._decoder is None or self._decoder[0] != versions:
            self._decoder = versions, FastDecoder(self.network)
        return self._decoder[1]


class View:
    """One image, encoded. Every question on it costs only its own words."""

    def __init__(self, model: Florence, picture: Image.Image, image_tokens: Float[Tensor, "1 N D"]) -> None:
        self.model, self.image, self.image_tokens = model, picture, image_tokens

    @property
    def image_wh(self) -> tuple[int, int]:
        """Width and height in pixels of the upright original."""
        return self.image.size

    def ask(
        self,
        task: str | Task,
        text: str | Sequence[str] | None = None,
        region: Region | Sequence[float] | None = None,
        options: AskOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Answer one task about this image; arguments and errors as Florence.predict has them."""
        request = Request(self.image, task, text, region)
        return self.model._answer([self.model._question(self.image, 0, request, options)], self.image_tokens)[0]


def load(
    name: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    side_px: int | tuple[int, int] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Florence:
    """Load a model.

    name      a folder, a hub id ("microsoft/Florence-2-base-ft"), or None for the embedded nano.
    dtype     number type to compute in; float32 unless asked for.
    revision  of a hub id: branch, tag or commit.
    side_px   input size instead of the checkpoint's own; see Florence.
    raises    BadCheckpoint naming the file or key that does not fit; nothing is downloaded unless a hub id is given.
    """
    checkpoint = load_checkpoint(resolve(name, revision), dtype, device)
    return Florence(checkpoint, side_px, limits)


def _as_request(given: Request | tuple[Any, ...] | dict[str, Any]) -> Request:
    """Take a request in any of its three forms."""
    if isinstance(given, Request):
        return given
    try:
        return Request(**given) if isinstance(given, dict) else Request(*given)
    except TypeError as error:
        raise BadPrompt(
            f"a request is a Request, a tuple (image, task, text, region) or a dict of these, got {given!r}"
        ) from error


def _pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Right-pad prompts; gives ids and their mask, no mask when all are of one length."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if int(lengths.min()) == longest:
        return ids, None
    return ids, torch.arange(longest, device=device) < lengths[:, None]
