"""How answers are searched for: the settings, and the partial answers of one request.

    settings = DecodeSettings.for_task(network.config.text, "detect")      # or .published(network.config.text)
    search = Search(Job(settings), network.config.text, device)

Pure book-keeping on numbers: the network is run by `decode.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from openflorence.contract.grammar import Allowed, Grammar, State
from openflorence.contract.locations import BINS
from openflorence.contract.spelling import LOCATION, WORD
from openflorence.contract.tasks import Task, find_task
from openflorence.errors import BadConfig
from openflorence.model.config import TextConfig
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
    first_location: int | None = None  # id of <loc_0>: where given, what was thought of neighbouring bins is kept

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


Cut = Literal["", "tokens", "regions"]  # what ended an answer before the network did: the limit of tokens, of regions


class Place(NamedTuple):
    """What the network thought of the bins around the one that it said."""

    mass: float  # probability of the bins within NEAR of it
    mean: float  # expected bin among them
    spread: float  # standard deviation among them, in bins


@dataclass(frozen=True, eq=False)
class Job:
    """One request: how to search for its answer, and what it may be like."""

    settings: DecodeSettings
    grammar: Grammar | None = None  # only what it allows is said
    opening: tuple[int, ...] = ()  # ids that the answer goes on from, after the forced first one
    regions: int = 0  # of the same answer, complete before the opening: the grammar's limit counts them


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One answer."""

    ids: tuple[int, ...]  # what was said: without the start token, the forced <s>, the opening and the closing </s>
    logprobs: tuple[float, ...]  # of each id: the network's own log-probability, before any ban or temperature
    score: float  # summed log-probabilities, </s> included, / produced tokens ** length_penalty; forced ones add 0
    logprob: float  # the sum alone; also of a region that was broken off, and is not among the ids
    cut: Cut  # what ended the answer, if not the network
    places: tuple[Place | None, ...]  # of each id: None where it is no location, or first_location was not given

    def until(self, length: int) -> "Decoded":
        """The first ids of it."""
        part = slice(length)
        return replace(self, ids=self.ids[part], logprobs=self.logprobs[part], places=self.places[part])

    @property
    def truncated(self) -> bool:
        """The limit ended the answer, not the network."""
        return bool(self.cut)


class Line(NamedTuple):
    """One partial answer: the start token and all that was produced, forced or not."""

    ids: list[int]
    logprobs: list[float]
    places: list[Place | None]
    score: float  # summed log-probability
    state: State | None  # of the grammar
    cut: Cut = ""  # what took something away that the network wanted
    whole: int = 1  # so many ids leave nothing begun: where an answer that breaks off is cut back to


class Choice(NamedTuple):
    """One way to go on: beam `parent` says `token`."""

    score: float
    parent: int
    token: int
    logprob: float


class Search:
    """The lines of one request, and the answers that ended."""

    def __init__(self, job: Job, config: TextConfig, device: torch.device) -> None:
        settings = job.settings
        self.job, self.settings, self.config = job, settings, config
        self.limit = settings.limit(config)
        state = None if job.grammar is None else job.grammar.start()._replace(regions=job.regions)
        scores = [0.0] + [NEVER] * (settings.beams - 1)
        self.lines = [Line([config.decoder_start], [0.0], [None], score, state) for score in scores]
        self.parents = list(range(settings.beams))
        self.ended: list[tuple[float, Line, Cut]] = []  # score, line, what ended it; best first
        self.grown: list[tuple[Line, int]] = []  # lines that the last choice made, and the rows they came from
        self.cuts: list[Cut] = [""] * settings.beams  # of each line: what takes away what the network wants to say next
        self.bos = () if settings.forced_bos is None else (settings.forced_bos,)
        self.generator: torch.Generator | None = None
        if settings.sampling is not None:
            self.generator = torch.Generator(device).manual_seed(settings.sampling.seed)

    @property
    def produced(self) -> int:
        """Tokens in every line after the start token."""
        return len(self.lines[0].ids) - 1

    @property
    def left(self) -> int:
        """Tokens that may still be produced, </s> included."""
        return self.limit - self.produced

    @property
    def forced(self) -> int | None:
        """The token that comes next whatever the network says: <s>, or one of the opening."""
        first = len(self.bos)
        if self.produced < first:
            return self.bos[self.produced]
        opening = self.job.opening
        return opening[self.produced - first] if self.produced - first < len(opening) else None

    def force(self, token: int) -> None:
        """Make every line say `token`, at no cost to its score."""
        opened = self.produced >= len(self.bos)
        self.lines = [self._say(line, token, 0.0, line.score, opened) for line in self.lines]
        self.parents = list(range(len(self.lines)))

    def _say(self, line: Line, token: int, logprob: float, score: float, grammatical: bool = True) -> Line:
        """A line with one more token."""
        grammar, state, whole = self.job.grammar, line.state, line.whole
        if grammar is not None and state is not None and grammatical and token != self.config.eos:
            state = grammar.advance(state, token)
        if grammar is None or (state is not None and token != self.config.eos and grammar.is_whole(state)):
            whole = len(line.ids) + 1
        ids, logprobs, places = [*line.ids, token], [*line.logprobs, logprob], [*line.places, None]
        return Line(ids, logprobs, places, score, state, line.cut, whole)

    def end_here(self, wants_eos: Sequence[bool]) -> None:
        """End every line with the forced last token; the lines whose network wanted </s> anyway are not truncated."""
        assert self.settings.forced_eos is not None
        cuts = self.cuts
        self.force(self.settings.forced_eos)
        for line, wanted, cut in zip(self.lines, wants_eos, cuts, strict=True):
            self._end(line, line.cut or cut or ("" if wanted else "tokens"))

    def allowed(self) -> list[Allowed | None]:
        """What each line may say next."""
        grammar = self.job.grammar
        if grammar is None:
            return [None] * len(self.lines)
        return [None if line.state is None else grammar.allowed(line.state, self.left) for line in self.lines]

    def without_limits(self, beam: int) -> Allowed | None:
        """What a line might say next if neither tokens nor regions were limited."""
        grammar, state = self.job.grammar, self.lines[beam].state
        return None if grammar is None or state is None else grammar.without_limits(state)

    def may_ban(self, token: int) -> bool:
        """Whether a ban on repeated runs may forbid a token: what may be a grammar's only way on it may not."""
        if self.job.grammar is None:
            return True
        spelling = self.job.grammar.spelling
        return spelling.kinds[token] in (WORD, LOCATION) and token != spelling.first_location + BINS - 1

    def choose(self, choices: Sequence[Choice]) -> bool:
        """Go on with the best choices, best first; True when the request is finished.

        source    beam search of transformers 5: twice as many choices as beams, an ended line counts only among the
                  first `beams`, and leaves with the score it has now.
        """
        beams, last = self.settings.beams, self.produced + 1 == self.limit
        going: list[Choice] = []
        self.grown = []
        for rank, choice in enumerate(choices):
            if choice.score < NEVER / 2:  # forbidden, or of a beam that does not exist
                continue
            if choice.token == self.config.eos or last:
                if rank < beams:
                    ended = self._grow(choice)
                    self._end(ended, ended.cut or ("" if choice.token == self.config.eos else "tokens"))
            elif len(going) < beams:
                going.append(choice)
        if last or not going:
            return True
        if len(going) < beams and beams > 1:  # a grammar may leave fewer ways than beams
            going += [going[0]._replace(score=NEVER)] * (beams - len(going))
        self.lines, self.parents = [self._grow(go) for go in going], [go.parent for go in going]
        return self._no_better()

    def _grow(self, choice: Choice) -> Line:
        line = self.lines[choice.parent]
        grown = self._say(line, choice.token, choice.logprob, choice.score)
        grown = grown._replace(cut=line.cut or self.cuts[choice.parent])
        self.grown.append((grown, choice.parent))
        return grown

    def _end(self, line: Line, cut: Cut) -> None:
        score = line.score / (len(line.ids) - 1) ** self.settings.length_penalty
        end = len(line.ids) - (line.ids[-1] == self.config.eos)
        if self.job.grammar is not None and line.whole < end:  # it broke off in the middle of a region
            lost = slice(line.whole, end)
            ids, logprobs, places = line.ids[:], line.logprobs[:], line.places[:]
            del ids[lost], logprobs[lost], places[lost]
            line = line._replace(ids=ids, logprobs=logprobs, places=places)
        self.ended.append((score, line, cut))
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
        score, line, cut = self.ended[0]
        return self._decoded(score, line, cut)

    def agreed(self) -> Decoded:
        """What every answer that can still come begins with: it will not be taken back."""
        lines = [line for line in self.lines if line.score > NEVER / 2] + [line for _, line, _ in self.ended]
        shortest = min(len(line.ids) for line in lines)
        same = next((i for i in range(shortest) if len({line.ids[i] for line in lines}) > 1), shortest)
        one = lines[0]
        whole = one._replace(ids=one.ids[:same], logprobs=one.logprobs[:same], places=one.places[:same])
        return self._decoded(0.0, whole, "")

    @property
    def _first(self) -> int:
        return 1 + len(self.bos) + len(self.job.opening)

    def _decoded(self, score: float, line: Line, cut: Cut) -> Decoded:
        first = self._first
        said = slice(first, len(line.ids) - (line.ids[-1] == self.config.eos and len(line.ids) > first))
        ids, logprobs, places = tuple(line.ids[said]), tuple(line.logprobs[said]), tuple(line.places[said])
        return Decoded(ids=ids, logprobs=logprobs, score=score, logprob=line.score, cut=cut, places=places)


def repeats(ids: Sequence[int], length: int) -> list[int]:
    """Tokens that would end a run of `length` ids that `ids` already holds."""
    if len(ids) < length:
        return []
    tail = ids[len(ids) + 1 - length :]
    if not tail:
        return list(ids)
    starts = range(len(ids) + 1 - length)
    return [ids[i + length - 1] for i in starts if ids[i] == tail[0] and ids[i : i + length - 1] == tail]
