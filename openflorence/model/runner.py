"""A checkpoint at work: pictures to image tokens, questions to the encoder's memory, decoded ids to Answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from openflorence.contract.answers import CONTROLS, MARKERS, Said, join_labels, read_answer
from openflorence.contract.locations import BINS
from openflorence.contract.prompts import AND
from openflorence.contract.regions import Answer, Box
from openflorence.errors import BadConfig
from openflorence.model.asking import Question
from openflorence.model.checkpoint import Checkpoint
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.images import to_batch
from openflorence.model.presence import BLANK, Sought, presence
from openflorence.model.search import Decoded

SHORTEST_PROMPT = 3  # tokens: <s>, a word, </s>


class Runner:
    """The network of a checkpoint with all that stands around it when it answers."""

    def __init__(self, checkpoint: Checkpoint, side_px: int | tuple[int, int] | None = None) -> None:
        """Wrap a loaded checkpoint.

        side_px   input size instead of the checkpoint's own: a side, or (height, width).
        raises    BadConfig when the size gives a larger grid, or more image tokens, than the position tables have.
        """
        self.checkpoint = checkpoint
        self.side_px = checkpoint.config.side_px if side_px is None else side_px
        config, side_hw = checkpoint.config, self.side_px
        rows, columns = config.vision.grid_hw(side_hw if isinstance(side_hw, tuple) else (side_hw, side_hw))
        most = config.vision.max_side
        if not 1 <= min(rows, columns) <= max(rows, columns) <= most:
            raise BadConfig(
                f"side_px {self.side_px} gives a grid of {rows} x {columns} cells; allowed are 1 to {most} a side"
            )
        self.image_tokens = 1 + rows * columns  # the mean token and one a cell
        if config.text.positions - self.image_tokens < SHORTEST_PROMPT:
            raise BadConfig(
                f"side_px {self.side_px} gives {self.image_tokens} image tokens, which leaves no room for a prompt in "
                f"the {config.text.positions} positions of this checkpoint; give a smaller side"
            )
        special = checkpoint.text.spelling
        words = [(word, checkpoint.text.tokenizer.token_to_id(word)) for word in (*CONTROLS, *MARKERS)]
        self._controls = {token for word, token in words if word in CONTROLS}
        self._markers = {token for word, token in words if word in MARKERS}
        self._locations = range(special.first_location, special.first_location + BINS)
        self._decoder: FastDecoder | None = None
        self._blank: tuple[FastDecoder, Tensor] | None = None
        self._packed_from: list[tuple[torch.nn.Parameter, int, int]] = []

    @property
    def network(self) -> Network:
        """The torch module."""
        return self.checkpoint.network

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Evaluation mode without gradients; a training loop that asks in between finds its modes as they were."""
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for module in training:
                module.training = True

    def encode_images(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B N D"]:
        """Image tokens of pictures, in one go: the costly step."""
        weight = self.network.seq2seq.embed.weight
        pixels = to_batch(list(pictures), self.side_px).to(device=weight.device, dtype=weight.dtype)
        return self.network.encode_image(pixels)

    def memory_of(
        self, questions: Sequence[Question], tokens: Sequence[Float[Tensor, "N D"]]
    ) -> tuple[Float[Tensor, "R M D"], Bool[Tensor, "R M"] | None]:
        """What the decoder attends to, for each question about its image; and which of it is real."""
        image_tokens = torch.stack(list(tokens))
        ids, mask = _pad([one.prompt_ids for one in questions], self.checkpoint.config.text.pad, image_tokens.device)
        return self.network.encode(image_tokens, ids, mask)

    def decoder(self) -> FastDecoder:
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

    def blank_tokens(self) -> Float[Tensor, "N D"]:
        """Image tokens of an image that shows nothing, computed once as long as the weights stay."""
        decoder = self.decoder()
        if self._blank is None or self._blank[0] is not decoder:
            self._blank = decoder, self.encode_images([BLANK])[0]
        return self._blank[1]

    def with_presence(self, question: Question, answer: Answer, tokens: Float[Tensor, "N D"]) -> Answer:
        """Say of each phrase that was sought how probable it is that it is there; leave out what is not, if told to."""
        boxes = {phrase: list[Box]() for phrase in _phrases(question, answer)}
        for region in answer.regions:
            phrase = region.label if question.task.name != "segment" else question.words or ""
            if phrase in boxes and region.bounds is not None:
                boxes[phrase].append(region.bounds)
        sought = [Sought(phrase, found) for phrase, found in boxes.items()]
        text, blank = self.checkpoint.text, self.blank_tokens()
        there = presence(self.network, text, tokens, blank, answer.image_wh, sought) if sought else []
        told = tuple((one.phrase, found.probability) for one, found in zip(sought, there, strict=True))
        least = question.options.min_presence
        gone = {phrase for phrase, value in told if least is not None and value < least}
        if question.task.name == "segment":
            kept = () if gone else answer.regions
        else:
            kept = tuple(region for region in answer.regions if region.label not in gone)
        text_of_kept = join_labels(kept, question.task) if gone else answer.text
        return replace(answer, presence=told, regions=kept, text=text_of_kept)

    def read(self, question: Question, decoded: Decoded) -> Answer:
        """Read what was decoded as the answer to a question; its scores are probabilities where it is calibrated."""
        published = question.options.decoding == "published"
        answer = read_answer(
            self.checkpoint.text.decode(decoded.ids),
            question.task,
            question.picture.size,
            input=question.words,
            truncated=decoded.truncated,
            image=question.picture,
            said=self.said(decoded, question.options.coordinates == "expected"),
        )
        if published:
            answer = replace(answer, regions=tuple(replace(one, score=one.place_score) for one in answer.regions))
        answer = replace(answer, cut=decoded.cut, logprob=decoded.logprob)
        calibration = self.checkpoint.calibration
        return answer if published or calibration is None else calibration.settle(answer)

    def said(self, decoded: Decoded, expected: bool = False) -> list[Said]:
        """Part an answer into the stretches that its reader hears.

        expected  put each location where the probabilities of the bins say, not at the centre of its bin.
        """
        stretches: list[Said] = []
        for token, logprob, place in zip(decoded.ids, decoded.logprobs, decoded.places, strict=True):
            if token in self._controls:
                continue
            if token in self._locations:
                near = (place.mass, place.spread, place.mean if expected else None) if place else (None, None, None)
                stretches.append(Said("location", logprob, 1, *near))
            elif token in self._markers:
                stretches.append(Said("marker", logprob))
            elif stretches and stretches[-1].kind == "words":
                last = stretches[-1]
                stretches[-1] = last._replace(logprob=last.logprob + logprob, tokens=last.tokens + 1)
            else:
                stretches.append(Said("words", logprob))
        return stretches


def _phrases(question: Question, answer: Answer) -> list[str]:
    """What was sought: the phrases that were asked for, of a caption those that were found."""
    if question.task.name == "ground":
        return list(dict.fromkeys(region.label for region in answer.regions))
    if question.task.name in ("find", "segment") and question.words is not None:
        return question.words.split(AND)
    return []


def _pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Right-pad prompts; gives ids and their mask, no mask when all are of one length."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    if int(lengths.min()) == longest:
        return ids, None
    return ids, torch.arange(longest, device=device) < lengths[:, None]
