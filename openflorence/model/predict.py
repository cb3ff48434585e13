"""The face of the system: an image and a task in, an Answer out.

model = openflorence.load()                      # the embedded nano; or a hub id, or a folder
answer = model.predict("street.jpg", "detect")
view = model.open("street.jpg")                  # encoded once, asked often
for answer in model.predict_many(requests): ...  # mixed tasks and sizes; the same answers as one by one
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from openflorence.contract.regions import Answer, Region
from openflorence.contract.tasks import FREE_TEXT, Task
from openflorence.errors import BadConfig
from openflorence.model.adapters import apply_adapter, merged_copy
from openflorence.model.asking import (
    DEFAULT_OPTIONS,
    AskOptions,
    Decoding,
    Question,
    Request,
    as_request,
    make_question,
)
from openflorence.model.checkpoint import Checkpoint, load_checkpoint
from openflorence.model.florence import Network
from openflorence.model.flow import Flow, answer_all
from openflorence.model.hub import resolve
from openflorence.model.images import read_image
from openflorence.model.runner import Runner
from openflorence.model.sources import DEFAULT_LIMITS, ImageLimits
from openflorence.model.streaming import Event, stream
from openflorence.model.tiles import ask_in_tiles, keep_surest, plan_tiles
from openflorence.model.tokenizer import Text

__all__ = ["DEFAULT_OPTIONS", "AskOptions", "Decoding", "Event", "Florence", "Request", "View", "live_florence", "load"]


TILES = 4  # about so many, for an answer that was cut


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
        self.runner = Runner(checkpoint, side_px)
        self.checkpoint, self.limits, self.side_px = checkpoint, limits, self.runner.side_px

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
        with self.runner.at_rest():
            return View(self, picture, self.runner.encode_images([picture])[0])

    def predict_many(
        self,
        requests: Iterable[Request | tuple[Any, ...] | dict[str, Any]],
        options: AskOptions = DEFAULT_OPTIONS,
        batch: int = 8,
        on_error: Literal["raise", "give"] = "raise",
    ) -> Iterator[Any]:
        """Answer many requests, in order: mixed images, tasks, sizes and lengths, the same answers as one by one.

        requests  taken as they come, twice `batch` ahead at most, so they may be endless; images that are the same
                  object or path are read and encoded once as long as requests about them are on their way. Do not
                  overwrite an image that was given before its answer came.
        batch     answers decoded together: when one is finished the next request takes its place at once.
        on_error  "raise" stops at the first bad request; "give" yields its error in place of its answer and goes on.
        raises    BadConfig for options that no request could be answered with, before the first is taken.
        """
        if batch < 1:
            raise BadConfig(f"batch is {batch}; give 1 or more")
        if on_error not in ("raise", "give"):
            raise BadConfig(f"on_error is {on_error!r}; allowed are 'raise' and 'give'")
        options.settings(self.checkpoint, FREE_TEXT).limit(self.checkpoint.config.text)
        flow = Flow(self.runner, self.limits, batch)
        if options.more == "tiles" or options.tiles is not None:
            return self._with_tiles(iter(requests), options, batch, on_error)
        return flow.run(iter(requests), options, on_error)

    def _with_tiles(self, requests: Iterator[Any], options: AskOptions, batch: int, on_error: str) -> Iterator[Any]:
        """Answer requests, and those that need it again about tiles of their image."""
        whole = replace(options, tiles=None, more="never")
        flow = Flow(self.runner, self.limits, batch)
        while group := list(islice(requests, batch)):
            for given, answer in zip(group, flow.run(iter(group), whole, on_error), strict=True):
                result = answer
                if isinstance(answer, Answer) and _wants_tiles(answer, options):
                    try:
                        result = self._in_tiles(answer, as_request(given).text, options, batch)
                    except BadConfig as error:  # the image is too small for so many tiles
                        if on_error == "raise":
                            raise
                        result = error
                yield result

    def _in_tiles(
        self, answer: Answer, text: str | Sequence[str] | None, options: AskOptions, batch: int = 8
    ) -> Answer:
        """Ask the question of an answer again about overlapping crops of its image, and merge what comes back."""
        boxes = plan_tiles(answer.image_wh, options.tiles or TILES)
        if len(boxes) == 1:
            return answer
        each = replace(options, tiles=None, more="never")

        def ask(crops: Sequence[Image.Image]) -> list[Answer]:
            return list(self.predict_many([Request(one, answer.task, text) for one in crops], each, batch))

        merged = replace(ask_in_tiles(ask, answer.image, boxes), input=answer.input, presence=answer.presence)
        return merged if options.max_regions is None else keep_surest(merged, options.max_regions)


def _wants_tiles(answer: Answer, options: AskOptions) -> bool:
    """Whether to ask about tiles: when told to, or when the answer was cut; of tasks that list what is in an image."""
    listing = answer.task.form not in ("text", "polygons") and answer.task.input in ("none", "text")
    return listing and (options.tiles is not None or (options.more == "tiles" and answer.cut == "tokens"))


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
        return self.ask_many(
            [(task, text, region)], options if decoding is None else replace(options, decoding=decoding)
        )[0]

    def ask_many(
        self, questions: Iterable[str | Task | Sequence[Any]], options: AskOptions = DEFAULT_OPTIONS
    ) -> list[Answer]:
        """Answer many questions about this image together.

        questions  each a task, or (task, text, region) with what it needs: view.ask_many(["caption", "detect"]), or
                   view.ask_many([("describe_region", None, box) for box in boxes]).
        """
        parts = [(one,) if isinstance(one, str | Task) else tuple(one) for one in questions]
        ready = [self._question(as_request((self.image, *part)), options) for part in parts]
        answers = answer_all(self.model.runner, [(question, self.image_tokens) for question in ready])
        return [
            self.model._in_tiles(answer, part[1] if len(part) > 1 else None, options)
            if _wants_tiles(answer, options)
            else answer
            for answer, part in zip(answers, parts, strict=True)
        ]

    def stream(
        self,
        task: str | Task,
        text: str | Sequence[str] | None = None,
        region: Region | Sequence[float] | None = None,
        options: AskOptions = DEFAULT_OPTIONS,
    ) -> Iterator[Event]:
        """Answer one task bit by bit: words and regions as they come, none ever taken back, last the whole answer.

        One beam gives them soonest: with several, what the beams do not agree on yet has to wait.

        raises    BadConfig for options that need the whole answer first: more, tiles and min_presence.
        """
        if options.more != "never" or options.tiles is not None or options.min_presence is not None:
            raise BadConfig("a streamed answer cannot be continued, tiled or sifted by presence; ask for it whole")
        return stream(
            self.model.runner, self._question(Request(self.image, task, text, region), options), self.image_tokens
        )

    def _question(self, request: Request, options: AskOptions) -> Question:
        runner = self.model.runner
        return make_question(runner.checkpoint, self.image, request, options, runner.image_tokens)


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
