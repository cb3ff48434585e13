"""From encoder output to answer ids: a running batch whose rows are slots.

    decoder = FastDecoder(network)                         # once a network, in eval mode; again after weights change
    memory, mask = network.encode(image_tokens, prompt_ids, prompt_mask)
    answers = decode(decoder, memory, mask, settings)      # list[Decoded], one a request, in order

    batch = Batch(decoder, beams=3)                        # the same, while requests come and go
    batch.join(jobs, memory, mask)
    finished = batch.step()                                # one token more in every request; (job, Decoded) of some

Requests may have prompts of any length (padding under `mask`), settings and grammars of their own and be at any place
of their answers; each gets the answer it would get alone. A finished request leaves the work at once.
Axes: R requests, K beams, V vocabulary; rows R * K, the beams of a request next to one another.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openflorence.contract.grammar import Allowed, Grammar
from openflorence.contract.locations import BINS
from openflorence.contract.spelling import Spelling
from openflorence.errors import BadConfig
from openflorence.model.fast import FastDecoder, Session
from openflorence.model.search import Choice, Decoded, DecodeSettings, Job, Place, Sampling, Search, repeats

NEAR = 10  # bins on each side of the one that was said: a hundredth of the image
BREAKS_OFF = math.log(0.5)  # log-probability of </s> from which an answer may end anywhere


class Batch:
    """Requests that are being answered together."""

    def __init__(self, decoder: FastDecoder, beams: int) -> None:
        """Begin with no request; all that join search with so many beams."""
        self.decoder, self.beams = decoder, beams
        self.session = Session(decoder, beams)
        self.running: list[Search] = []

    @torch.inference_mode()
    def join(self, jobs: Sequence[Job], memory: Float[Tensor, "R M D"], mask: Bool[Tensor, "R M"] | None) -> None:
        """Take requests in, one a row of their encoder output; `mask` is True at real tokens.

        raises    BadConfig when settings ask for other beams, or for more tokens than this checkpoint has positions.
        """
        other = next((job.settings.beams for job in jobs if job.settings.beams != self.beams), None)
        if other is not None:
            raise BadConfig(f"a request with {other} beams in a batch of {self.beams}: give all of a batch the same")
        searches = [Search(job, self.decoder.config, memory.device) for job in jobs]
        self.session.join(memory, mask)
        self.running += searches

    @torch.inference_mode()
    def step(self) -> list[tuple[Job, Decoded]]:
        """Say one more token in every request; gives those that are finished, which leave."""
        if not self.running:
            return []
        device = self.session.start_ids.device
        ids = torch.tensor([line.ids[-1] for search in self.running for line in search.lines], device=device)
        parents = torch.tensor([search.parents for search in self.running], device=device)
        x = self.session.step(ids, parents)
        forced = [search.forced for search in self.running]
        free = [place for place, token in enumerate(forced) if token is None]
        for search, token in zip(self.running, forced, strict=True):
            if token is not None:
                search.force(token)
        if not free:
            return []
        if len(free) < len(self.running):
            x = x.view(len(self.running), self.beams, -1)[free].flatten(0, 1)
        logprobs = self.decoder.head(x).float().log_softmax(-1).view(len(free), self.beams, -1)
        done = self._choose(logprobs, [self.running[place] for place in free])
        return self._leave({place for place, ended in zip(free, done, strict=True) if ended})

    def _choose(self, logprobs: Float[Tensor, "R K V"], searches: list[Search]) -> list[bool]:
        """Let every search go on; says which are finished. Forbids in place."""
        _forbid(logprobs, searches)
        ending = [s.settings.forced_eos is not None and s.left == 1 for s in searches]
        choices = _choices(logprobs, searches)
        done = []
        for row, (search, at_end) in enumerate(zip(searches, ending, strict=True)):
            if at_end:
                search.end_here((logprobs[row].argmax(-1) == self.decoder.config.eos).tolist())
            done.append(at_end or search.choose(choices[row]))
        _note_places(logprobs, [s for s, at_end in zip(searches, ending, strict=True) if not at_end], searches)
        return done

    def _leave(self, places: set[int]) -> list[tuple[Job, Decoded]]:
        finished = [(self.running[place].job, self.running[place].answer()) for place in sorted(places)]
        for place in sorted(places, reverse=True):
            self.session.leave(place)
            self.running[place] = self.running[-1]
            self.running.pop()
        return finished


def decode(
    decoder: FastDecoder,
    memory: Float[Tensor, "R M D"],
    mask: Bool[Tensor, "R M"] | None,
    settings: DecodeSettings,
    grammars: Sequence[Grammar | None] | None = None,
) -> list[Decoded]:
    """Answer requests from their encoder output.

    memory, mask  as `network.encode` gives them; `mask` is True at real tokens, None when there is no padding.
    grammars      of every request, what it may say; None for anything.
    returns       one answer a request, in order, the same as for each request alone.
    raises        BadConfig when settings ask for more tokens than this checkpoint has positions.
    """
    jobs = [Job(settings, grammar) for grammar in grammars or [None] * memory.shape[0]]
    batch, answers = Batch(decoder, settings.beams), dict[Job, Decoded]()
    batch.join(jobs, memory, mask)
    while batch.running:
        answers |= dict(batch.step())
    return [answers[job] for job in jobs]


# ---- what may be said


@lru_cache(maxsize=64)
def _banned(settings: DecodeSettings, device: torch.device) -> Tensor:
    return torch.tensor(settings.banned, dtype=torch.long, device=device)


def _forbid(logprobs: Float[Tensor, "R K V"], searches: list[Search]) -> None:
    """Make forbidden tokens impossible, in place; the others keep their log-probabilities, as published."""
    first = searches[0].settings
    if all(search.settings.banned == first.banned for search in searches):
        if first.banned:
            logprobs.index_fill_(-1, _banned(first, logprobs.device), -torch.inf)
    else:
        for row, search in enumerate(searches):
            if search.settings.banned:
                logprobs[row].index_fill_(-1, _banned(search.settings, logprobs.device), -torch.inf)
    flat = logprobs.view(-1, logprobs.shape[-1])
    lines = [(search, line) for search in searches for line in search.lines]
    pairs = [
        (row, token)
        for row, (search, line) in enumerate(lines)
        if search.settings.no_repeat_ngram
        for token in repeats(line.ids, search.settings.no_repeat_ngram)
        if search.may_ban(token)
    ]
    if pairs:
        rows, tokens = torch.tensor(pairs, device=logprobs.device).unbind(1)
        flat[rows, tokens] = -torch.inf
    _apply_grammars(flat, searches)


def _apply_grammars(flat: Float[Tensor, "rows V"], searches: list[Search]) -> None:
    """Forbid what the grammars do not allow, and note where only a limit keeps the network from what it wanted."""
    grammar = next((search.job.grammar for search in searches if search.job.grammar is not None), None)
    if grammar is None:
        return
    masks = masks_for(grammar.spelling, flat.shape[-1], flat.device)
    allowed = [one for search in searches for one in search.allowed()]
    wanted = _wanted(flat, searches, allowed, masks)
    ends = flat[:, grammar.spelling.eos].clone()
    masks.apply(flat, allowed)
    # A network that would sooner end than say anything else is let go, also in the middle of a region, which is then
    # left out: made to go on it would not stop before the limit.
    flat[:, grammar.spelling.eos] = torch.where(ends > BREAKS_OFF, ends, flat[:, grammar.spelling.eos])
    for search in searches:
        search.cuts = [""] * len(search.lines)
    lines = [(search, beam) for search in searches for beam in range(len(search.lines))]
    for row, token in wanted.items():
        (search, beam), one = lines[row], allowed[row]
        if one is not None and flat[row, token] == -torch.inf:
            search.cuts[beam] = one.cut


def _wanted(
    flat: Float[Tensor, "rows V"], searches: list[Search], allowed: Sequence[Allowed | None], masks: "Masks"
) -> dict[int, int]:
    """The token that would come without any limit, in the rows where a limit forbids something."""
    cut = [row for row, one in enumerate(allowed) if one is not None and one.cut]
    if not cut:
        return {}
    lines = [(search, beam) for search in searches for beam in range(len(search.lines))]
    free = [lines[row][0].without_limits(lines[row][1]) for row in cut]
    rows = flat[cut]
    masks.apply(rows, free)
    return dict(zip(cut, rows.argmax(-1).tolist(), strict=True))


@lru_cache(maxsize=8)
def masks_for(spelling: Spelling, rows: int, device: torch.device) -> "Masks":
    """The masks of a tokenizer for logits of so many rows of the embedding."""
    return Masks(spelling, rows, device)


class Mask(NamedTuple):
    """What one kind of state forbids, on the device."""

    kind: int  # row of `Masks.forbidden`
    spared: Tensor | None  # ids that are not forbidden after all: the words of closed labels
    barred: Tensor | None  # ids that are


class Masks:
    """Turns what grammars allow into minus infinity in rows of log-probabilities."""

    def __init__(self, spelling: Spelling, rows: int, device: torch.device) -> None:
        self.first, self.device = spelling.first_location, device
        words = torch.tensor([piece is not None for piece in spelling.pieces])
        self.no_word = torch.ones(rows, dtype=torch.bool)  # True where a token is no word
        self.no_word[: len(words)] = ~words
        self.no_word = self.no_word.to(device)
        self.kinds: dict[tuple[bool, bool, tuple[int, ...]], int] = {}
        self.forbidden = torch.zeros(1, rows, dtype=torch.bool, device=device)  # a row a kind of state; first: nothing
        self.known: WeakKeyDictionary[Allowed, Mask] = WeakKeyDictionary()

    def apply(self, logprobs: Float[Tensor, "rows V"], allowed: Sequence[Allowed | None]) -> None:
        """Forbid in place; a row whose `allowed` is None may say anything."""
        masks = [_ANYTHING if one is None else self._mask(one) for one in allowed]
        spared = [
            (row, one.spared, logprobs[row, one.spared]) for row, one in enumerate(masks) if one.spared is not None
        ]
        kinds = [one.kind for one in masks]
        if len(set(kinds)) == 1:
            logprobs.masked_fill_(self.forbidden[kinds[0]], -torch.inf)
        else:
            logprobs.masked_fill_(self.forbidden[torch.tensor(kinds, device=self.device)], -torch.inf)
        for row, ids, values in spared:
            logprobs[row, ids] = values
        for row, (one, mask) in enumerate(zip(allowed, masks, strict=True)):
            if mask.barred is not None:
                logprobs[row, mask.barred] = -torch.inf
            if one is not None and one.locations is not None:
                low, high = one.locations
                if low > 0:
                    logprobs[row, self.first : self.first + low] = -torch.inf
                if high < BINS - 1:
                    logprobs[row, self.first + high + 1 : self.first + BINS] = -torch.inf

    def _mask(self, one: Allowed) -> Mask:
        mask = self.known.get(one)
        if mask is None:
            key = (one.words and one.only is None, one.locations is not None, one.markers)
            if key not in self.kinds:
                self.kinds[key] = len(self.forbidden)
                self.forbidden = torch.cat([self.forbidden, self._build(*key)[None]])
            mask = self.known[one] = Mask(self.kinds[key], self._ids(one.only), self._ids(one.barred))
        return mask

    def _ids(self, ids: Sequence[int] | None) -> Tensor | None:
        return torch.tensor(list(ids), device=self.device) if ids else None

    def _build(self, words: bool, locations: bool, markers: tuple[int, ...]) -> Bool[Tensor, "_"]:
        forbidden = self.no_word.clone() if words else torch.ones_like(self.no_word)
        if locations:
            forbidden[self.first : self.first + BINS] = False
        forbidden[list(markers)] = False
        return forbidden


_ANYTHING = Mask(0, None, None)


# ---- the ways to go on


def _choices(logprobs: Float[Tensor, "R K V"], searches: list[Search]) -> list[list[Choice]]:
    """The ways to go on, best first: one of the best or a drawn token for one beam, else the best 2K of all beams."""
    before = logprobs.new_tensor([[line.score for line in search.lines] for search in searches])
    beams = logprobs.shape[1]
    if beams == 1:
        tokens = logprobs.argmax(-1)
        for row, search in enumerate(searches):
            if search.settings.sampling is not None:
                tokens[row] = _draw(logprobs[row], search, search.settings.sampling)
        gains = logprobs.gather(-1, tokens[..., None])[..., 0]
        parents, scores = torch.zeros_like(tokens), before + gains
    else:
        count = min(2 * beams, logprobs.shape[-1])
        # Best of each row, then best of all: the same as one search over K * V, without building the sums.
        top, top_tokens = logprobs.topk(count)
        scores, index = (top + before[..., None]).flatten(1).topk(2 * beams)
        parents, tokens = index // count, top_tokens.flatten(1).gather(1, index)
        gains = top.flatten(1).gather(1, index)
    columns = zip(scores.tolist(), parents.tolist(), tokens.tolist(), gains.tolist(), strict=True)
    return [[Choice(*one) for one in zip(*row, strict=True)] for row in columns]


def _draw(logprobs: Float[Tensor, "1 V"], search: Search, sampling: Sampling) -> Tensor:
    """Draw a token with the request's own generator, after temperature, top_k and top_p in this order."""
    scores = (logprobs[0] / sampling.temperature).log_softmax(-1)
    if sampling.top_k is not None:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[-1]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p is not None:
        best, order = scores.softmax(-1).sort(descending=True)
        beyond = best.cumsum(-1) - best >= sampling.top_p  # what comes before already reaches the sum
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), -torch.inf)
    return torch.multinomial(scores.softmax(-1), 1, generator=search.generator)


def _note_places(logprobs: Float[Tensor, "R K V"], searches: list[Search], rows: list[Search]) -> None:
    """Keep, for every location just said, what the network thought of the bins around it.

    rows      the searches as they stand in `logprobs`.
    """
    row_of = {id(search): row for row, search in enumerate(rows)}
    found = [
        (line, row_of[id(search)], parent, search.settings.first_location)
        for search in searches
        if search.settings.first_location is not None
        for line, parent in search.grown
        if 0 <= line.ids[-1] - search.settings.first_location < BINS
    ]
    if not found:
        return
    at = torch.tensor([(row, parent, line.ids[-1], first) for line, row, parent, first in found])
    at = at.to(logprobs.device)
    offsets = torch.arange(-NEAR, NEAR + 1, device=logprobs.device)
    tokens, first = at[:, 2:3] + offsets, at[:, 3:]
    inside = (tokens >= first) & (tokens < first + BINS)
    near = logprobs[at[:, :1], at[:, 1:2], tokens.clamp(0, logprobs.shape[-1] - 1)].masked_fill(~inside, -torch.inf)
    mass, share = near.logsumexp(-1).exp(), near.softmax(-1)  # a grammar may insist on bins of which none was likely
    mean = (share * offsets).sum(-1)
    spread = (share * (offsets - mean[:, None]) ** 2).sum(-1).sqrt()
    values = torch.stack([mass.clamp(max=1.0), mean + (at[:, 2] - at[:, 3]), spread], dim=-1).tolist()
    for (line, *_), value in zip(found, values, strict=True):
        line.places[-1] = Place(*value)
