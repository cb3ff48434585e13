"""The face of the system: an image and a task in, an Answer out.

model = openflorence.load()                      # the embedded nano; or a hub id, or a folder
answer = model.predict("street.jpg", "detect")
view = model.open("street.jpg")                  # encoded once, asked often
for answer in model.predict_many(requests): ...  # mixed tasks and sizes; the same answers as one by one
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from openflorence.contract.answers import read_answer
from openflorence.contract.locations import BINS
from openflorence.contract.prompts import fill_sentence, input_of
from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import FREE_TEXT, Task, find_task
from openflorence.errors import BadConfig, BadPrompt, OpenFlorenceError
from openflorence.model.adapters import apply_adapter, merged_copy
from openflorence.model.checkpoint import Checkpoint, load_checkpoint
from openflorence.model.decode import Decoded, DecodeSettings, Sampling, decode
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.hub import resolve
from openflorence.model.images import read_image, to_batch
from openflorence.model.sources import DEFAULT_LIMITS, ImageLimits
from openflorence.model.tokenizer import Text

Decoding = Literal["default", "published"]
SHORTEST_PROMPT = 3  # tokens: <s>, a word, </s>


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
        # Checked where the search checks them, but now, before an image is read.
        DecodeSettings(beams=self._beams(1), max_tokens=self.max_tokens, sampling=self.sampling)

    def settings(self, checkpoint: Checkpoint, task: Task) -> DecodeSettings:
        """Settle every setting for one task of one checkpoint."""
        config = checkpoint.config.text
        if self.decoding == "published":
            settings = DecodeSettings.published(config)
        else:
            settings = DecodeSettings.for_task(config, task, checkpoint.text.size)
        beams = self._beams(settings.beams)
        return replace(settings, beams=beams, max_tokens=self.max_tokens, sampling=self.sampling)

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
    """An image of a stream of requests: read once, and encoded once if a question needs it."""

    source: Any  # what was given, kept so that nothing else gets its id
    picture: Image.Image | OpenFlorenceError
    tokens: Float[Tensor, "N D"] | None = None


@dataclass(frozen=True)
class Question:
    """A request made ready: the picture, the prompt, and how to search."""

    picture: Image.Image
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
        raises    BadConfig when the size gives a larger grid, or more image tokens, than the position tables have.
        """
        self.checkpoint, self.limits = checkpoint, limits
        self.side_px = checkpoint.config.side_px if side_px is None else side_px
        config, side_hw = checkpoint.config, self.side_px
        rows, columns = config.vision.grid_hw(side_hw if isinstance(side_hw, tuple) else (side_hw, side_hw))
        most = config.vision.max_side
        if not 1 <= min(rows, columns) <= max(rows, columns) <= most:
            raise BadConfig(
                f"side_px {self.side_px} gives a grid of {rows} x {columns} cells; allowed are 1 to {most} a side"
            )
        self.image_tokens = 1 + rows * columns  # the mean token and one a cell
        self.max_prompt_tokens = config.text.positions - self.image_tokens
        if self.max_prompt_tokens < SHORTEST_PROMPT:
            raise BadConfig(
                f"side_px {self.side_px} gives {self.image_tokens} image tokens, which leaves no room for a prompt in "
                f"the {config.text.positions} positions of this checkpoint; give a smaller side"
            )
        self._decoder: FastDecoder | None = None
        self._packed_from: list[tuple[torch.nn.Parameter, int, int]] = []

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
        decoding: Decoding | None = None,
    ) -> Answer:
        """Answer one task about one image.

        image     path, URL, bytes, file, PIL image, array or tensor; see read_image.
        task      plain name ("detect") or published token ("<OD>"); openflorence.TASKS has them all.
        text      what to ground, find or segment, or the question of "answer".
        region    for the region tasks: x0, y0, x1, y1 in pixels of the upright image, or a Region of an answer.
        decoding  "published" for the published search, token for token; short for the option of that name.
        returns   text and regions, in pixels of the upright original; empty answers are answers.
        raises    BadImage, BadPrompt, BadRegion or BadConfig, each naming what was seen and what is allowed.
        """
        return self.open(image).ask(task, text, region, options, decoding)

    def open(self, image: Any) -> "View":
        """Read and encode an image once, to be asked many things."""
        picture = read_image(image, self.limits)
        with self._at_rest():
            return View(self, picture, self._encode([picture])[0])

    def predict_many(
        self,
        requests: Iterable[Request | tuple[Any, ...] | dict[str, Any]],
        options: AskOptions = DEFAULT_OPTIONS,
        batch: int = 8,
        on_error: Literal["raise", "give"] = "raise",
    ) -> Iterator[Any]:
        """Answer many requests, in order: mixed images, tasks, sizes and lengths, the same answers as one by one.

        requests  taken as they come, `batch` at a time, so they may be endless; images that stand next to each other
                  and are the same object or path are read and encoded once. Do not overwrite an image that was given
                  before its answer came.
        on_error  "raise" stops at the first bad request; "give" yields its error in place of its answer and goes on.
        raises    BadConfig for options that no request could be answered with, before the first is taken.
        """
        if batch < 1:
            raise BadConfig(f"batch is {batch}; give 1 or more")
        if on_error not in ("raise", "give"):
            raise BadConfig(f"on_error is {on_error!r}; allowed are 'raise' and 'give'")
        options.settings(self.checkpoint, FREE_TEXT).limit(self.checkpoint.config.text)
        return self._stream(iter(requests), options, batch, on_error)

    def _stream(self, stream: Iterator[Any], options: AskOptions, batch: int, on_error: str) -> Iterator[Any]:
        last: Opened | None = None  # goes on from group to group: the tasks of one image may lie in two
        while group := list(islice(stream, batch)):
            results: list[Any] = [None] * len(group)
            opened = {} if last is None else {_image_key(last.source): last}
            asked: dict[int, tuple[Question, Opened]] = {}
            for place, given in enumerate(group):
                try:
                    request = _as_request(given)
                    last = self._look(request.image, opened)
                    asked[place] = self._question(_picture_of(last), request, options), last
                except OpenFlorenceError as error:
                    if on_error == "raise":
                        raise
                    results[place] = error
            for place, answer in zip(asked, self._answer_all(list(asked.values())), strict=True):
                results[place] = answer
            yield from results

    def _look(self, source: Any, opened: dict[Any, Opened]) -> Opened:
        """Read an image unless it was read before; a dead URL is waited for once, not once a task."""
        key = _image_key(source)
        if key not in opened:
            try:
                opened[key] = Opened(source, read_image(source, self.limits))
            except OpenFlorenceError as error:
                opened[key] = Opened(source, error)
        return opened[key]

    def _question(self, picture: Image.Image, request: Request, options: AskOptions) -> Question:
        task = find_task(request.task)
        words = input_of(task, request.text, request.region, picture.size)
        prompt = fill_sentence(task, words)
        if not _is_unicode(prompt):
            raise BadPrompt(f"text={request.text!r} holds half a character (a lone surrogate): decode it as UTF-8")
        ids = tuple(self.checkpoint.text.encode(prompt))
        if len(ids) > self.max_prompt_tokens:
            raise BadPrompt(
                f"the prompt has {len(ids)} tokens; beside {self.image_tokens} image tokens the limit is "
                f"{self.max_prompt_tokens}: shorten the text"
            )
        return Question(picture, task, words, ids, options.settings(self.checkpoint, task))

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Evaluation mode without gradients; a training loop that asks in between finds its modes as they were."""
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for module in training:
                module.training = True

    def _encode(self, pictures: list[Image.Image]) -> Float[Tensor, "B N D"]:
        weight = self.network.seq2seq.embed.weight
        pixels = to_batch(pictures, self.side_px).to(device=weight.device, dtype=weight.dtype)
        return self.network.encode_image(pixels)

    def _answer_all(self, asked: list[tuple[Question, Opened]]) -> list[Answer]:
        """Encode the images that still need it, all in one go, and answer."""
        if not asked:
            return []
        fresh = list(dict.fromkeys(seen for _, seen in asked if seen.tokens is None))
        with self._at_rest():
            if fresh:
                for seen, tokens in zip(fresh, self._encode([_picture_of(seen) for seen in fresh]), strict=True):
                    seen.tokens = tokens.clone()  # not a view, which would keep its whole group in memory
            return self._answer([(question, seen.tokens) for question, seen in asked if seen.tokens is not None])

    def _answer(self, asked: list[tuple[Question, Tensor]]) -> list[Answer]:
        """Decode questions together where they search alike, and read their answers."""
        answers: dict[int, Answer] = {}
        for settings in dict.fromkeys(question.settings for question, _ in asked):
            alike = [place for place, (question, _) in enumerate(asked) if question.settings == settings]
            image_tokens = torch.stack([asked[place][1] for place in alike])
            prompts = [asked[place][0].prompt_ids for place in alike]
            ids, mask = _pad(prompts, self.checkpoint.config.text.pad, image_tokens.device)
            memory, memory_mask = self.network.encode(image_tokens, ids, mask)
            for place, decoded in zip(alike, decode(self._fast_decoder(), memory, memory_mask, settings), strict=True):
                answers[place] = self._read(asked[place][0], decoded)
        return [answers[place] for place in range(len(asked))]

    def _read(self, question: Question, decoded: Decoded) -> Answer:
        text = self.checkpoint.text
        locations = range(text.first_location, text.first_location + BINS)
        return read_answer(
            text.decode(decoded.ids),
            question.task,
            question.picture.size,
            input=question.words,
            truncated=decoded.truncated,
            image=question.picture,
            location_logprobs=[
                value for token, value in zip(decoded.ids, decoded.logprobs, strict=True) if token in locations
            ],
        )

    def _fast_decoder(self) -> FastDecoder:
        """The packed decoder, packed again when a weight was changed since (a fine-tune, another device or type)."""
        now = [
            (weight, weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in self.network.seq2seq.parameters()
        ]
        # The weights themselves are kept: a new one may stand where one that was thrown away stood.
        same = len(now) == len(self._packed_from) and all(
            one[0] is other[0] and one[1:] == other[1:] for one, other in zip(now, self._packed_from, strict=True)
        )
        if self._decoder is None or not same:
            self._decoder, self._packed_from = FastDecoder(self.network), now
        return self._decoder


class View:
    """One image, encoded. Every question on it costs only its own words."""

    def __init__(self, model: Florence, picture: Image.Image, image_tokens: Float[Tensor, "N D"]) -> None:
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
        decoding: Decoding | None = None,
    ) -> Answer:
        """Answer one task about this image; arguments and errors as Florence.predict has them."""
        options = options if decoding is None else replace(options, decoding=decoding)
        question = self.model._question(self.image, Request(self.image, task, text, region), options)
        with self.model._at_rest():
            return self.model._answer([(question, self.image_tokens)])[0]


def load(
    name: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    side_px: int | tuple[int, int] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Florence:
    """Load a model.

    name      a folder, a hub id ("microsoft/Florence-2-base-ft"), or None for the embedded nano.
    adapter   folder of a LoRA or DoRA adapter, ours or another's; it is merged, so that it costs no time.
    dtype     number type to compute in; float32 unless asked for.
    revision  of a hub id: branch, tag or commit.
    side_px   input size instead of the checkpoint's own; see Florence.
    raises    BadCheckpoint naming the file or key that does not fit; nothing is downloaded unless a hub id is given.
              Of an adapter also the base that it says it was trained on.
    """
    checkpoint = load_checkpoint(resolve(name, revision), dtype, device)
    if adapter is not None:
        checkpoint = apply_adapter(checkpoint, adapter)
    return Florence(checkpoint, side_px, limits)


def live_florence(network: Network, text: Text, side_px: int | tuple[int, int] | None = None) -> Florence:
    """Answer with a network that is being trained, between two of its steps.

    network   answers with its own weights and gets its modes back. Where adapters stand around its layers, a copy
              answers in which they are merged: it does not follow later steps.
    side_px   input size instead of the one in the network's config.
    """
    stored = str(network.seq2seq.embed.weight.dtype).removeprefix("torch.")
    whole = merged_copy(network)
    parts = Checkpoint(
        network=whole, text=text, config=network.config, layout="openflorence", folder=Path(), stored=stored
    )
    return Florence(parts, side_px)


def _as_request(given: Any) -> Request:
    """Take a request in any of its three forms."""
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


def _image_key(source: Any) -> Any:
    """What makes two images of a stream the same: their path, or being one object."""
    return source if isinstance(source, str | Path) else id(source)


def _picture_of(opened: Opened) -> Image.Image:
    """The picture of an image that could be read.

    raises    the BadImage that it could not be read with.
    """
    if isinstance(opened.picture, OpenFlorenceError):
        raise opened.picture
    return opened.picture


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Right-pad prompts; gives ids and their mask, no mask when all are of one length."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if int(lengths.min()) == longest:
        return ids, None
    return ids, torch.arange(longest, device=device) < lengths[:, None]
