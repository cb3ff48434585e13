"""Answers longer than their limit: a cut answer goes on from what it said itself.

A second pass is told what was already found, as the beginning of its answer, and says what comes next: all of it as
long as the position table has room, then the last half of a table. The order in which a network lists regions is the
order it was taught, so what follows the last ones is what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from openflorence.contract.answers import join_labels
from openflorence.contract.grammar import Grammar
from openflorence.contract.overlaps import iou
from openflorence.contract.regions import Answer, Region
from openflorence.contract.spelling import LOCATION, POLY, WORD, Spelling
from openflorence.contract.tasks import Task
from openflorence.model.asking import Question
from openflorence.model.runner import Runner
from openflorence.model.search import Decoded, Job

PASSES = 16  # most passes of one answer: a network that repeats itself is stopped much earlier
SAME = 0.9  # overlap over union from which two regions of one label are the same one, said twice
LOOP = 24  # ids: a text whose last ones stand in it already goes round in a circle


@dataclass
class Longer:
    """What was said of one answer so far, in one pass or more."""

    parts: list[Decoded] = field(default_factory=list)
    opening: tuple[int, ...] = ()
    regions: int = 0  # complete before the opening
    limit: int | None = None  # tokens of the next pass, the opening counted; None is what was asked for

    def job(self, job: Job) -> Job:
        """The job of the next pass; each pass has one of its own."""
        settings = job.settings if self.limit is None else replace(job.settings, max_tokens=self.limit)
        return replace(job, settings=settings, opening=self.opening, regions=self.regions)

    @property
    def whole(self) -> Decoded:
        """All passes as one answer."""
        if len(self.parts) == 1:
            return self.parts[0]
        ids = tuple(token for part in self.parts for token in part.ids)
        logprob = sum(part.logprob for part in self.parts)
        return Decoded(
            ids=ids,
            logprobs=tuple(value for part in self.parts for value in part.logprobs),
            places=tuple(place for part in self.parts for place in part.places),
            score=logprob / max(1, len(ids)),
            logprob=logprob,
            cut=self.parts[-1].cut,
        )

    def take(self, decoded: Decoded, question: Question, runner: Runner) -> bool:
        """Take the answer of a pass; True when another one should follow.

        A pass that says nothing new is dropped, and the answer stays cut: there is more, but it cannot be had so.
        """
        before = self.whole if self.parts else None
        self.parts.append(decoded)
        if question.options.more != "continue":
            return False
        if before is not None and not _says_more(runner, question, before, self.whole):
            cut = before.cut if decoded.ids else decoded.cut  # nothing at all: the network says that this was all
            self.parts[-1] = replace(decoded, ids=(), logprobs=(), places=(), logprob=0.0, cut=cut)
            return False
        if decoded.cut != "tokens" or len(self.parts) == PASSES:
            return False
        return self._go_on(question, runner)

    def _go_on(self, question: Question, runner: Runner) -> bool:
        """Settle what the next pass opens with; False when it could open with nothing."""
        config, ids = runner.checkpoint.config.text, self.whole.ids
        room = question.job.settings.limit(config)  # tokens of a pass beside its opening; <s> and </s> are counted
        if len(ids) + room // 2 <= config.positions:
            self.opening, self.regions = ids, 0
        else:
            self.opening = opening_of(ids, question.task, runner.checkpoint.text.spelling, config.positions // 2)
            self.regions = _count(ids, question.job.grammar) - _count(self.opening, question.job.grammar)
        self.limit = min(config.positions, len(self.opening) + room)
        return bool(self.opening)


def opening_of(ids: Sequence[int], task: Task, spelling: Spelling, keep: int) -> tuple[int, ...]:
    """Give the end of an answer, as long as `keep` allows, from a label on; () if that cannot be.

    Where the last label stands too far back, in a long list of things of one name: that label and the last regions.
    """
    kinds = [spelling.kinds[min(token, len(spelling.kinds) - 1)] for token in ids]  # later rows are words of nobody
    first = max(0, len(ids) - keep)
    end = next((tuple(ids[i:]) for i in range(first, len(ids)) if _starts(kinds, i, task)), ())
    return end or _label_and_last(ids, kinds, task, keep)


def _starts(kinds: Sequence[int], i: int, task: Task) -> bool:
    """Whether a region starts at a place of an answer, or a word of a text."""
    if task.form == "text":
        return True
    if task.form == "bare_boxes":
        return i % 4 == 0
    if task.form == "polygons":
        return kinds[i] == POLY
    return kinds[i] == WORD and (i == 0 or kinds[i - 1] != WORD)


def _label_and_last(ids: Sequence[int], kinds: Sequence[int], task: Task, keep: int) -> tuple[int, ...]:
    if task.form in ("text", "bare_boxes", "polygons"):
        return ()
    after = next((i + 1 for i in reversed(range(len(ids))) if kinds[i] != LOCATION), 0)
    label = next((i + 1 for i in reversed(range(after)) if kinds[i] != WORD), 0)
    size = 8 if task.form == "quads" else 4
    beyond = max(0, len(ids) - label - keep)  # ids that there is no room for
    last = ids[after + -(-beyond // size) * size :]
    return (*ids[label:after], *last) if last and (label < after or not after) else ()


def _count(ids: Sequence[int], grammar: Grammar | None) -> int:
    """Regions that are complete in an answer; a limit of their number holds for all passes together."""
    if grammar is None:
        return 0
    state = grammar.start()
    for token in ids:
        state = grammar.advance(state, token)
    return state.regions


def _says_more(runner: Runner, question: Question, before: Decoded, after: Decoded) -> bool:
    """Whether a pass added a region that was not there, or words that do not go round in a circle."""
    if question.task.form == "text":
        ids, last = after.ids, after.ids[-LOOP:]
        ends = range(len(before.ids), len(ids))
        return len(ids) > len(before.ids) and not any(ids[end - LOOP : end] == last for end in ends if end >= LOOP)
    old, new = (runner.read(question, one).regions for one in (before, after))
    return any(not _is_there(region, old) for region in new[len(old) :])


def without_repeats(answer: Answer) -> Answer:
    """Leave out regions that a later pass said again."""
    kept: list[Region] = []
    for region in answer.regions:
        if not _is_there(region, kept):
            kept.append(region)
    if len(kept) == len(answer.regions):
        return answer
    return replace(answer, regions=tuple(kept), text=join_labels(kept, answer.task))


def _is_there(region: Region, others: Sequence[Region]) -> bool:
    return any(region.label == other.label and _overlap(region, other) >= SAME for other in others)


def _overlap(one: Region, other: Region) -> float:
    """Intersection over union of the upright bounds of two regions."""
    a, b = one.bounds, other.bounds
    return 0.0 if a is None or b is None else iou(a, b)
