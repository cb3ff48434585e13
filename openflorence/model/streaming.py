"""One answer while it is being decoded: text as it comes, and each region the moment its last bin is said."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from openflorence.contract.regions import Answer, Region
from openflorence.model.asking import Question
from openflorence.model.decode import Batch
from openflorence.model.runner import Runner
from openflorence.model.search import Decoded, Search

# What may still become something else: a letter of several bytes reads as U+FFFD until its last byte is there, words
# may go on to spell a special token, which is no text, and blanks at the end are none.
_UNSURE = re.compile(r"\s*(?:<[a-z_/0-9]*)?[\s\ufffd]*$")


@dataclass(frozen=True, kw_only=True)
class Event:
    """What is new. Nothing that was given is ever taken back."""

    text: str = ""  # words that follow those of the events before; of tasks that answer with text
    region: Region | None = None
    answer: Answer | None = None  # the whole answer: the last event, and only that


def stream(runner: Runner, question: Question, tokens: Float[Tensor, "N D"]) -> Iterator[Event]:
    """Answer one question about an encoded image, event by event.

    With several beams a word or region is given once all beams agree on it, so that it is final; with one, at once.
    The texts joined are the text of the answer, and the regions are its regions, in order.
    """
    told = _Told(runner, question, tokens)
    with runner.at_rest():
        memory, mask = runner.memory_of([question], [tokens])
        batch = Batch(runner.decoder(), question.job.settings.beams)
        batch.join([question.job], memory, mask)
    search = batch.running[0]
    while True:
        with runner.at_rest():
            finished = batch.step()
        if finished:
            yield from told.finish(finished[0][1])
            return
        yield from told.hear(search)


class _Told:
    """How much of an answer was given."""

    def __init__(self, runner: Runner, question: Question, tokens: Float[Tensor, "N D"]) -> None:
        self.runner, self.question, self.tokens = runner, question, tokens
        self.text, self.regions, self.heard = "", 0, 0
        grammar = question.job.grammar
        self.state = None if grammar is None else grammar.start()

    def hear(self, search: Search) -> Iterator[Event]:
        """Give what the newest tokens complete."""
        sure = search.agreed()
        for token in sure.ids[self.heard :]:
            self.heard += 1
            if self._completes(token):
                yield from self._new_regions(sure.until(self.heard))
        if self.question.task.form == "text" and sure.ids:
            yield from self._new_text(self.runner.read(self.question, sure).text)

    def finish(self, decoded: Decoded) -> Iterator[Event]:
        """Give the rest, and the answer."""
        answer = self.runner.read(self.question, decoded)
        if self.question.task.form == "text":
            yield from self._new_text(answer.text, last=True)
        for region in answer.regions[self.regions :]:
            yield Event(region=region)
        if self.question.options.presence:
            with self.runner.at_rest():
                answer = self.runner.with_presence(self.question, answer, self.tokens)
        yield Event(answer=answer)

    def _completes(self, token: int) -> bool:
        """Whether a token may be the last one of a region."""
        grammar, form = self.question.job.grammar, self.question.task.form
        if grammar is None or self.state is None:
            return form not in ("text", "polygons", "boxes_or_polygons")
        before, self.state = self.state, grammar.advance(self.state, token)
        return self.state.regions > before.regions

    def _new_regions(self, decoded: Decoded) -> Iterator[Event]:
        regions = self.runner.read(self.question, decoded).regions
        for region in regions[self.regions :]:
            yield Event(region=region)
        self.regions = max(self.regions, len(regions))

    def _new_text(self, text: str, last: bool = False) -> Iterator[Event]:
        if not last:
            text = _UNSURE.sub("", text)
        if len(text) > len(self.text) and text.startswith(self.text):
            yield Event(text=text[len(self.text) :])
            self.text = text
