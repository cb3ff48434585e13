"""Many requests through one running batch: images encoded once, a slot given to the next request as soon as it is free.

answers = Flow(runner, limits, slots=8).run(requests)            # in order, as they are ready
answers = answer_all(runner, [(question, image_tokens), ...])    # questions that are ready, all at once
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from jaxtyping import Float
from torch import Tensor

from openflorence.contract.regions import Answer
from openflorence.errors import OpenFlorenceError
from openflorence.model.asking import (
    DEFAULT_OPTIONS,
    AskOptions,
    Opened,
    Question,
    as_request,
    image_key,
    make_question,
    picture_of,
)
from openflorence.model.decode import Batch
from openflorence.model.images import read_image
from openflorence.model.longer import Longer, without_repeats
from openflorence.model.runner import Runner
from openflorence.model.search import Decoded, Job
from openflorence.model.sources import ImageLimits

AHEAD = 2  # how many slots' worth of requests are taken before the first of their answers is given
_END = object()


@dataclass(eq=False)
class Pending:
    """A question on its way: which answer it is, the image it is about, and what was said so far."""

    number: int
    question: Question
    seen: Opened
    longer: Longer = field(default_factory=Longer)


class Lane:
    """The running batch, and which question each of its jobs belongs to."""

    def __init__(self, runner: Runner, beams: int) -> None:
        self.runner, self.beams = runner, beams
        self.batch: Batch | None = None
        self.asked: dict[Job, Pending] = {}

    def join(self, pending: Sequence[Pending]) -> None:
        """Take questions in; images that were not encoded yet are, all in one go."""
        fresh = list(dict.fromkeys(one.seen for one in pending if one.seen.tokens is None))
        if fresh:
            encoded = self.runner.encode_images([picture_of(seen) for seen in fresh])
            for seen, tokens in zip(fresh, encoded, strict=True):
                seen.tokens = tokens.clone() if len(fresh) > 1 else tokens  # a view would keep its whole group
        questions = [one.question for one in pending]
        memory, mask = self.runner.memory_of(questions, [_tokens(one) for one in pending])
        jobs = [one.longer.job(one.question.job) for one in pending]
        if self.batch is None or not self.batch.running:  # weights may have changed since the last one
            self.batch = Batch(self.runner.decoder(), self.beams)
        self.batch.join(jobs, memory, mask)
        self.asked |= dict(zip(jobs, pending, strict=True))

    def step(self) -> Iterator[tuple[Pending, Decoded]]:
        """One token more for every question; gives those that are answered."""
        if self.batch is None:
            return
        again = []
        for job, decoded in self.batch.step():
            pending = self.asked.pop(job)
            if pending.longer.take(decoded, pending.question, self.runner):
                again.append(pending)
            else:
                yield pending, pending.longer.whole
        if again:
            self.join(again)


def _tokens(pending: Pending) -> Float[Tensor, "N D"]:
    assert pending.seen.tokens is not None
    return pending.seen.tokens


def read(runner: Runner, pending: Pending, decoded: Decoded) -> Answer:
    """Read a finished question's answer; what was said again by a later pass is left out."""
    answer = runner.read(pending.question, decoded)
    if len(pending.longer.parts) > 1:
        answer = without_repeats(answer)
    options = pending.question.options
    if options.presence or options.min_presence is not None:
        answer = runner.with_presence(pending.question, answer, _tokens(pending))
    return answer


def answer_all(runner: Runner, asked: Sequence[tuple[Question, Float[Tensor, "N D"]]]) -> list[Answer]:
    """Answer questions about images that are encoded, those that search with equal beams together."""
    answers: dict[int, Answer] = {}
    pending = [
        Pending(place, question, Opened(None, question.picture, tokens))
        for place, (question, tokens) in enumerate(asked)
    ]
    with runner.at_rest():
        for beams in dict.fromkeys(one.question.job.settings.beams for one in pending):
            lane = Lane(runner, beams)
            lane.join([one for one in pending if one.question.job.settings.beams == beams])
            while lane.asked:
                for one, decoded in lane.step():
                    answers[one.number] = read(runner, one, decoded)
    return [answers[place] for place in range(len(asked))]


class Flow:
    """Requests in, answers out: at most `slots` are answered at a time, and a free slot goes to the next one waiting.

    put     takes a request and gives the number under which `results` will have its answer
    step    says one token more in every question that has a slot
    run     both, for a stream of requests, with the answers in order
    """

    def __init__(self, runner: Runner, limits: ImageLimits, slots: int) -> None:
        self.runner, self.limits, self.slots = runner, limits, slots
        self.results: dict[int, Answer | OpenFlorenceError] = {}
        self.waiting: deque[Pending] = deque()
        self.lanes: dict[int, Lane] = {}  # by beams
        self.opened: dict[Any, Opened] = {}
        self.taken = 0  # requests so far; each has its place as its number

    @property
    def running(self) -> int:
        """Questions that have a slot."""
        return sum(len(lane.asked) for lane in self.lanes.values())

    def put(self, given: Any, options: AskOptions = DEFAULT_OPTIONS) -> int:
        """Take a request, in any of its forms; an error of its own is its result."""
        number, self.taken = self.taken, self.taken + 1
        try:
            request = as_request(given)
            seen = self._look(request.image)
            picture, runner = picture_of(seen), self.runner
            question = make_question(runner.checkpoint, picture, request, options, runner.image_tokens)
            self.waiting.append(Pending(number, question, seen))
        except OpenFlorenceError as error:
            self.results[number] = error
        return number

    def step(self, more_to_come: bool = False) -> None:
        """Give free slots to waiting questions, and say one token more in all.

        more_to_come  requests will follow: slots are then filled a few at a time, since a small pass of the encoder
                      costs nearly as much as a larger one.
        """
        with self.runner.at_rest():
            free = self.slots - self.running
            if self.waiting and free and (free >= self.slots // 4 or not more_to_come or not self.running):
                joining = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
                for beams in dict.fromkeys(one.question.job.settings.beams for one in joining):
                    lane = self.lanes.setdefault(beams, Lane(self.runner, beams))
                    lane.join([one for one in joining if one.question.job.settings.beams == beams])
            for lane in self.lanes.values():
                for one, decoded in lane.step():
                    self.results[one.number] = read(self.runner, one, decoded)

    def run(
        self, requests: Iterator[Any], options: AskOptions = DEFAULT_OPTIONS, on_error: str = "raise"
    ) -> Iterator[Any]:
        """Answer requests as they come, in order; so many are taken ahead as fill all slots, and as many again.

        raises    the error of a bad request in its turn, unless errors are to be given in place of answers.
        """
        more = True
        for number in count(self.taken):
            while number not in self.results:
                while more and self.taken < number + AHEAD * self.slots and len(self.waiting) < self.slots:
                    more = (given := next(requests, _END)) is not _END
                    if more:
                        self.put(given, options)
                if not more and number >= self.taken:
                    return
                if number not in self.results:
                    self.step(more)
            result = self.results.pop(number)
            if isinstance(result, OpenFlorenceError) and on_error == "raise":
                raise result
            yield result

    def _look(self, source: Any) -> Opened:
        """Read an image unless it was read before; a dead URL is waited for once, not once a task."""
        key = image_key(source)
        if key not in self.opened:
            asked = (one for lane in self.lanes.values() for one in lane.asked.values())
            needed = {id(one.seen) for one in (*self.waiting, *asked)}
            self.opened = {k: seen for k, seen in self.opened.items() if id(seen) in needed}
            try:
                self.opened[key] = Opened(source, read_image(source, self.limits))
            except OpenFlorenceError as error:
                self.opened[key] = Opened(source, error)
        return self.opened[key]
