"""The ladder from encoder output to answer ids: prefill, one step, greedy, beams, sampling.

    decoder = FastDecoder(network)                         # once a network, in eval mode; again after weights change
    settings = DecodeSettings.for_task(network.config.text, "detect")      # or .published(network.config.text)
    memory, mask = network.encode(image_tokens, prompt_ids, prompt_mask)
    answers = decode(decoder, memory, mask, settings)      # list[Decoded], one a request, in order

Requests of one call may have prompts of any length (padding under `mask`); each gets the answer it would get alone.
A finished request leaves the work at once. Axes: R requests, K beams, V vocabulary; C candidates a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openflorence.contract.tasks import Task, find_task
from openflorence.errors import BadConfig
from openflorence.model.config import TextConfig
from openflorence.model.fast import FastDecoder
from openflorence.model.tokenizer import BASE_TOKENS

# Text that may rightly say the same thing twice; all other text tasks keep the published ban on repeated trigrams.
REPEATING_TEXT = ("read", "read_region", "answer")
NEVER = -1e9  # score of a beam that does not exist yet, as published: -inf would turn into nan


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draw tokens instead of taking the best. Never the default: an answer is the same every time unless asked."""

    temperature: float = 1.0  # divides the logits; below 1 is bolder
    top_k: int | None = None  # draw among this many best tokens only
    top_p: float | None = None  # draw among the fewest best tokens whose probabilities reach this sum
    seed: int = 0  # of every request: a request draws the same tokens alone and in a batch

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BadConfig(f"temperature {self.temperature} is not above 0; leave sampling out for the best token")
        if self.top_k is not None and self.top_k < 1:
            raise BadConfig(f"top_k {self.top_k} leaves no token; give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadConfig(f"top_p {self.top_p} is outside 0..1; give a probability above 0")


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How answers are searched for."""

    beams: int = 3  # partial answers kept at a time; 1 is greedy
    max_tokens: int | None = None  # produced tokens, <s> and </s> counted; None is all the position table has
    no_repeat_ngram: int = 0  # no run of this many ids twice in an answer; 0 is no ban
    early_stopping: bool = True  # end once `beams` answers ended; False: once no running one can do better
    length_penalty: float = 1.0  # an answer's score is its summed log-probability / tokens ** length_penalty
    banned: tuple[int, ...] = ()  # ids the search never chooses; forced ones are not affected
    forced_bos: int | None = None  # the first produced token
    forced_eos: int | None = None  # the last one that max_tokens allows
    sampling: Sampling | None = None  # needs beams=1

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise BadConfig(f"beams is {self.beams}; give 1 for greedy or more")
        if self.max_tokens is not None and self.max_tokens < 2:
            raise BadConfig(f"max_tokens is {self.max_tokens}; <s> and </s> are counted, give 2 or more")
        if self.no_repeat_ngram < 0:
            raise BadConfig(f"no_repeat_ngram is {self.no_repeat_ngram}; give 0 for no ban or a length")
        if self.sampling is not None and self.beams != 1:
            raise BadConfig(f"sampling draws one answer, but beams is {self.beams}; give beams=1")

    @classmethod
    def published(cls, config: TextConfig) -> "DecodeSettings":
        """The published decoding, which gives the published tokens; <s> may come again and no number twice in a row.

        source    `text_config` of the published files; spec of generation. `generate` needs a length from its
                  caller, here it is the whole position table unless max_tokens is replaced.
        """
        return cls(
            beams=config.beams,
            no_repeat_ngram=config.no_repeat_ngram,
            early_stopping=config.early_stopping,
            forced_bos=config.forced_bos,
            forced_eos=config.forced_eos,
        )

    @classmethod
    def for_task(cls, config: TextConfig, task: str | Task, words: int | None = None) -> "DecodeSettings":
        """The default decoding: published beams, with rules that suit the answer.

        The search goes on until no running beam can do better, as in the official notebook: one that stops at the
        first ended beams loses right answers that are longer than wrong ones. Structured answers may repeat any run
        of ids: labels recur and boxes share coordinates. Text keeps the published ban, except what is read or
        answered (REPEATING_TEXT). <s>, <pad> and <unk> are never chosen.

        words     size of the tokenizer; rows of the network from there on spell nothing and are never chosen.
        """
        task = find_task(task)
        prose = task.form == "text" and task.name not in REPEATING_TEXT
        junk = {config.bos, config.pad, BASE_TOKENS.index("<unk>")} - {config.eos}
        return cls(
            beams=config.beams,
            no_repeat_ngram=config.no_repeat_ngram if prose else 0,
            early_stopping=False,
            banned=(*sorted(junk), *range(config.vocab if words is None else words, config.vocab)),
            forced_bos=config.forced_bos,
            forced_eos=config.forced_eos,
        )

    def limit(self, config: TextConfig) -> int:
        """Tokens an answer may have with this checkpoint.

        raises    BadConfig when max_tokens was given and the position table is shorter.
        """
        if self.max_tokens is None:
            return config.positions
        if self.max_tokens > config.positions:
            raise BadConfig(
                f"max_tokens is {self.max_tokens}, but this checkpoint has {config.positions} positions for an answer; "
                f"give {config.positions} or less, or leave max_tokens out"
            )
        return self.max_tokens


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One answer."""

    ids: tuple[int, ...]  # what was said: without the start token, the forced <s> and the closing </s>
    logprobs: tuple[float, ...]  # of each id: the network's own log-probability, before any ban or temperature
    score: float  # summed log-probabilities, </s> included, / produced tokens ** length_penalty; forced ones add 0
    truncated: bool  # the limit ended the answer, not the network


class Line(NamedTuple):
    """One partial answer: the start token and all that was produced, forced or not."""

    ids: list[int]
    logprobs: list[float]
    score: float  # summed log-probability


class Choice(NamedTuple):
    """One way to go on: beam `parent` says `token`."""

    score: float
    parent: int
    token: int
    logprob: float


class Search:
    """The lines of one request, and the answers that ended."""

    def __init__(self, settings: DecodeSettings, config: TextConfig, device: torch.device) -> None:
        self.settings, self.config = settings, config
        self.limit = settings.limit(config)
        scores = [0.0] + [NEVER] * (settings.beams - 1)
        self.lines = [Line([config.decoder_start], [0.0], score) for score in scores]
        self.parents = list(range(settings.beams))
        self.ended: list[tuple[float, Line, bool]] = []  # score, line, truncated; best first
        self.generator: torch.Generator | None = None
        if settings.sampling is not None:
            self.generator = torch.Generator(device).manual_seed(settings.sampling.seed)

    @property
    def produced(self) -> int:
        """Tokens in every line after the start token."""
        return len(self.lines[0].ids) - 1

    def force(self, token: int) -> None:
        """Make every line say `token`, at no cost to its score."""
        self.lines = [Line([*line.ids, token], [*line.logprobs, 0.0], line.score) for line in self.lines]
        self.parents = list(range(len(self.lines)))

    def end_here(self, wants_eos: Sequence[bool]) -> None:
        """End every line with the forced last token; the lines whose network wanted </s> anyway are not truncated."""
        assert self.settings.forced_eos is not None
        self.force(self.settings.forced_eos)
        for line, wanted in zip(self.lines, wants_eos, strict=True):
            self._end(line, truncated=not wanted)

    def choose(self, choices: Sequence[Choice]) -> bool:
        """Go on with the best choices, best first; True when the request is finished.

        source    beam search of transformers 5: twice as many choices as beams, an ended line counts only among the
                  first `beams`, and leaves with the score it has now.
        """
        beams, last = self.settings.beams, self.produced + 1 == self.limit
        going: list[Choice] = []
        for rank, choice in enumerate(choices):
            line = self.lines[choice.parent]
            if choice.token == self.config.eos or last:
                if rank < beams:
                    ended = Line([*line.ids, choice.token], [*line.logprobs, choice.logprob], choice.score)
                    self._end(ended, truncated=choice.token != self.config.eos)
            elif len(going) < beams:
                going.append(choice)
        if last or len(going) < beams:  # fewer only when one beam ended: greedy offers a single choice
            return True
        lines = self.lines
        self.lines = [
            Line([*lines[go.parent].ids, go.token], [*lines[go.parent].logprobs, go.logprob], go.score) for go in going
        ]
        self.parents = [go.parent for go in going]
        return self._no_better()

    def _end(self, line: Line, truncated: bool) -> None:
        score = line.score / (len(line.ids) - 1) ** self.settings.length_penalty
        self.ended.append((score, line, truncated))
        self.ended.sort(key=lambda ended: -ended[0])
        del self.ended[self.settings.beams :]

    def _no_better(self) -> bool:
        """Whether the search may stop: enough answers ended, and none running can beat the worst of them."""
        if len(self.ended) < self.settings.beams:
            return False
        hope = self.lines[0].score / self.produced**self.settings.length_penalty
        return self.settings.early_stopping or hope <= self.ended[-1][0]

    def answer(self) -> Decoded:
        """The best of the answers that ended."""
        score, line, truncated = self.ended[0]
        first = 1 if self.settings.forced_bos is None else 2
        end = len(line.ids) - (line.ids[-1] == self.config.eos and len(line.ids) > first)
        return Decoded(
            ids=tuple(line.ids[first:end]), logprobs=tuple(line.logprobs[first:end]), score=score, truncated=truncated
        )


@torch.inference_mode()
def decode(
    decoder: FastDecoder,
    memory: Float[Tensor, "R M D"],
    mask: Bool[Tensor, "R M"] | None,
    settings: DecodeSettings,
) -> list[Decoded]:
    """Answer requests from their encoder output.

    memory, mask  as `network.encode` gives them; `mask` is True at real tokens, None when there is no padding.
    returns       one answer a request, in order, the same as for each request alone.
    raises        BadConfig when settings ask for more tokens than this checkpoint has positions.
    """
    config = decoder.config
    searches = [Search(settings, config, memory.device) for _ in range(memory.shape[0])]
    running = list(searches)
    session = decoder.begin(memory, mask, settings.beams)
    banned = torch.tensor(settings.banned, dtype=torch.long, device=memory.device)
    while running:
        ids = torch.tensor([line.ids[-1] for search in running for line in search.lines], device=memory.device)
        parents = torch.tensor([search.parents for search in running], device=memory.device)
        x = session.step(ids, parents)
        if session.steps == 1 and settings.forced_bos is not None:
            for search in running:
                search.force(settings.forced_bos)
            continue
        logprobs = decoder.head(x).float().log_softmax(-1).view(len(running), settings.beams, -1)
        _ban(logprobs, running, banned, settings.no_repeat_ngram)
        if settings.forced_eos is not None and running[0].produced + 1 == running[0].limit:
            wants_eos = (logprobs.argmax(-1) == config.eos).tolist()
            for search, wants in zip(running, wants_eos, strict=True):
                search.end_here(wants)
            break
        choices = _choices(logprobs, running, settings)
        done = [search.choose(options) for search, options in zip(running, choices, strict=True)]
        for place in reversed(range(len(running))):
            if done[place]:
                session.leave(place)
                running[place] = running[-1]
                running.pop()
    return [search.answer() for search in searches]


def _ban(logprobs: Float[Tensor, "R K V"], running: list[Search], banned: Tensor, ngram: int) -> None:
    """Make forbidden tokens impossible, in place; the others keep their log-probabilities, as published."""
    if len(banned):
        logprobs.index_fill_(-1, banned, -torch.inf)
    if ngram:
        lines = [line for search in running for line in search.lines]
        pairs = [(row, token) for row, line in enumerate(lines) for token in repeats(line.ids, ngram)]
        if pairs:
            rows, tokens = torch.tensor(pairs, device=logprobs.device).unbind(1)
            logprobs.view(-1, logprobs.shape[-1])[rows, tokens] = -torch.inf


def repeats(ids: Sequence[int], length: int) -> list[int]:
    """Tokens that would end a run of `length` ids that `ids` already holds."""
    if len(ids) < length:
        return []
    tail = ids[len(ids) + 1 - length :]
    if not tail:
        return list(ids)
    starts = range(len(ids) + 1 - length)
    return [ids[i + length - 1] for i in starts if ids[i] == tail[0] and ids[i : i + length - 1] == tail]


def _choices(logprobs: Float[Tensor, "R K V"], running: list[Search], settings: DecodeSettings) -> list[list[Choice]]:
    """The ways to go on, best first: one of the best or a drawn token for one beam, else the best 2K of all beams."""
    before = logprobs.new_tensor([[line.score for line in search.lines] for search in running])
    if settings.beams == 1:
        tokens = logprobs.argmax(-1) if settings.sampling is None else _draw(logprobs, running, settings.sampling)
        gains = logprobs.gather(-1, tokens[..., None])[..., 0]
        parents, scores = torch.zeros_like(tokens), before + gains
    else:
        count = min(2 * settings.beams, logprobs.shape[-1])
        # Best of each row, then best of all: the same as one search over K * V, without building the sums.
        top, top_tokens = logprobs.topk(count)
        scores, index = (top + before[..., None]).flatten(1).topk(2 * settings.beams)
        parents, tokens = index // count, top_tokens.flatten(1).gather(1, index)
        gains = top.flatten(1).gather(1, index)
    columns = zip(scores.tolist(), parents.tolist(), tokens.tolist(), gains.tolist(), strict=True)
    return [[Choice(*one) for one in zip(*row, strict=True)] for row in columns]


def _draw(logprobs: Float[Tensor, "R 1 V"], running: list[Search], sampling: Sampling) -> Tensor:
    """Draw a token a request, each with its own generator, after temperature, top_k and top_p in this order."""
    scores = (logprobs[:, 0] / sampling.temperature).log_softmax(-1)
    if sampling.top_k is not None:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p is not None:
        best, order = scores.softmax(-1).sort(descending=True)
        beyond = best.cumsum(-1) - best >= sampling.top_p  # what comes before already reaches the sum
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    chances = scores.softmax(-1)
    drawn = [torch.multinomial(row, 1, generator=s.generator) for row, s in zip(chances, running, strict=True)]
    return torch.stack(drawn)
