"""Which token may come next: one automaton per answer form, over token ids.

    grammar = grammar_for(find_task("detect"), spelling, labels=["car", "car park"])
    state = grammar.start()
    allowed = grammar.allowed(state, left)    # left: tokens that may still be produced, </s> included
    state = grammar.advance(state, token)     # any token that was allowed

Whatever the network prefers, an answer of allowed tokens reads back with nothing invalid, every box with its corners
in order, and whole when the tokens run out. The forms are those of contract/answers.py, one label for any number of
regions. Where the reader forgives, this is strict: blanks between regions, or a `<sep>` at either end, never come.

An answer walks through places: "between" two regions, "shape 3" with three locations of a box said, "ring 6" with
three points of a polygon. A place costs the fewest tokens that end the answer from there, </s> included, and a token
may come only if what is left after it pays for where it leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from openflorence.contract.locations import BINS
from openflorence.contract.spelling import (
    END_POLY,
    EOS,
    FAR,
    LOCATION,
    POLY,
    SEP,
    WORD,
    Node,
    OpenLabel,
    Spelling,
    Words,
    closed_labels,
    open_label,
    phrases_of,
)
from openflorence.contract.tasks import AnswerForm, Task
from openflorence.errors import BadConfig, BadPrompt

Moves = dict[str, dict[int, str]]  # from a place, by the kind of the token, to the next place

_ANYWHERE = (0, BINS - 1)


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may come next. Kept and given again: what is made of one may be kept by its identity."""

    words: bool = False  # every word token may, except `barred`, and within `only`
    barred: tuple[int, ...] = ()  # ids of words that may not: they would spell a special token, or only a blank
    only: tuple[int, ...] | None = None  # if not None, no other words than these ids
    locations: tuple[int, int] | None = None  # the lowest and the highest bin that may
    markers: tuple[int, ...] = ()  # ids among <sep>, <poly>, </poly>, </s>
    cut: Literal["", "tokens", "regions"] = ""  # which limit took something away; no matter if the network wanted it


class State(NamedTuple):
    """How far an answer has come. Never changes: beams share it."""

    place: str
    regions: int = 0  # complete so far
    x: int = 0  # bins of the first corner of the box that is being said
    y: int = 0
    label: "OpenLabel | Node | None" = None  # the label that is being said; None outside one


# ---- forms


def _ring(name: str, after: dict[int, str]) -> Moves:
    """A polygon: three pairs of locations or more, then the next one of the same region, or what comes `after`."""
    moves = {f"{name} {count}": {LOCATION: f"{name} {count + 1}"} for count in range(6)}
    moves[f"{name} 6"] = {LOCATION: f"{name} 7", SEP: f"{name} 0"} | after
    moves[f"{name} 7"] = {LOCATION: f"{name} 6"}
    return moves


def _shape(size: int, after: str) -> Moves:
    """A box or quad whose first location was said."""
    return {f"shape {count}": {LOCATION: f"shape {count + 1}"} for count in range(1, size - 1)} | {
        f"shape {size - 1}": {LOCATION: after}
    }


def _text_moves(echo: bool) -> Moves:
    """Words; tasks about a region may repeat it after them."""
    words = {WORD: "words", EOS: "end"} | ({LOCATION: "shape 1"} if echo else {})
    return {"words": words, **_shape(4, "echoed"), "echoed": {EOS: "end"}, "end": {}}


def _polygon_moves() -> Moves:
    """One region as bare rings, or any number of them between <poly> and </poly>."""
    return {
        "start": {LOCATION: "bare 1", POLY: "ring 0", EOS: "end"},
        **_ring("bare", {EOS: "end"}),
        **_ring("ring", {END_POLY: "between"}),
        "between": {POLY: "ring 0", EOS: "end"},
        "full": {EOS: "end"},
        "end": {},
    }


def _region_moves(form: AnswerForm, loose: bool) -> Moves:
    """Labels, and after each its regions; `loose` where a region may do without."""
    region = {LOCATION: "shape 1"} | ({POLY: "ring 0"} if form == "boxes_or_polygons" else {})
    label = {} if form == "bare_boxes" else {WORD: "words"}
    return {
        "start": label | (region if loose else {}) | {EOS: "end"},
        "words": label | region,
        **_shape(8 if form == "quads" else 4, "between"),
        **(_ring("ring", {END_POLY: "between"}) if POLY in region else {}),
        "between": label | region | ({SEP: "unlabelled"} if label and loose else {}) | {EOS: "end"},
        "unlabelled": region,
        "full": {EOS: "end"},
        "end": {},
    }


def _costs(moves: Moves) -> dict[str, int]:
    """The fewest tokens from each place to the end; at "words", from a label that is complete."""
    costs = dict.fromkeys(moves, FAR) | {"end": 0}
    for _ in moves:  # the longest way without a circle meets each place once
        for place, ways in moves.items():
            # A word is never the shortest way: wherever one may begin a label, the answer may also end.
            costs[place] = min([costs[place], *(1 + costs[there] for kind, there in ways.items() if kind != WORD)])
    return costs


# ---- the automaton

_FROM = tuple(Allowed(locations=(low, BINS - 1)) for low in range(BINS))


class Grammar:
    """The answers of one request, as an automaton; it keeps what it worked out, and may be shared by requests."""

    def __init__(
        self, spelling: Spelling, moves: Moves, first: OpenLabel | Node | None, max_regions: int | None, ordered: bool
    ) -> None:
        """Take the places of a form; `first` begins every label, `ordered` makes shapes boxes."""
        self.spelling = spelling
        self._moves, self._first, self._max_regions = moves, first, max_regions
        self._right, self._bottom = ("shape 2", "shape 3") if ordered else ("", "")
        self._costs = _costs(moves)
        self._cap = 1 + max(self._costs.values()) + (first.most if first else 0)  # tokens that allow everything
        self._kinds, self._location = spelling.kinds, spelling.first_location
        self._known: dict[tuple[object, int], Allowed] = {}

    def start(self) -> State:
        """The state before the first token of an answer; the forced <s> is none."""
        return State("start") if "start" in self._moves else State("words", label=self._first)

    def cost(self, state: State) -> int:
        """The fewest tokens that end the answer, </s> included."""
        return self._costs[state.place] + (state.label.cost if state.label else 0)

    def allowed(self, state: State, left: int) -> Allowed:
        """What may come next when `left` more tokens may be produced, </s> included.

        promise   never nothing before </s>; and if `left` pays for the state, it pays for the next one too. If it
                  does not, the shortest way to the end is what may come.
        """
        if state.place == self._right:
            return _FROM[state.x]
        if state.place == self._bottom:
            return _FROM[state.y]
        key = (state.label or state.place, left if left < self._cap else self._cap)
        allowed = self._known.get(key)
        if allowed is None:
            allowed = self._known[key] = self._work_out(state, left)
        return allowed

    def is_whole(self, state: State) -> bool:
        """Whether an answer may end here, with nothing begun that is not finished."""
        return EOS in self._moves[state.place] and (state.label is None or state.label.complete)

    def without_limits(self, state: State) -> Allowed:
        """What might come next if neither tokens nor regions were limited."""
        return self.allowed(state._replace(place="between") if state.place == "full" else state, FAR)

    def advance(self, state: State, token: int) -> State:
        """The state after one more token, which must have been allowed."""
        kind = self._kinds[token]
        place = self._moves[state.place].get(kind)
        assert place is not None, f"token {token} may not come in {state}"
        if kind == WORD:
            label = state.label or self._first
            assert label is not None
            return State(place, state.regions, 0, 0, label.after(token))
        if place == "shape 1":
            return State(place, state.regions, token - self._location)
        if place == "shape 2":
            return State(place, state.regions, state.x, token - self._location)
        if place == "between":
            regions = state.regions + 1
            return State("full" if regions == self._max_regions else place, regions)
        return State(place, state.regions + (place == "end" and state.place == "bare 6"), state.x, state.y)

    def _work_out(self, state: State, left: int) -> Allowed:
        moves, label = self._moves[state.place], state.label or self._first
        room = (left if left >= self._cap else max(left, self.cost(state))) - 1  # tokens after this one
        may_end = state.label is None or state.label.complete
        kinds = sorted(kind for kind in moves if kind != WORD and may_end)
        kept = [kind for kind in kinds if self._costs[moves[kind]] <= room]
        words = label.words(room - self._costs["words"]) if WORD in moves and label else Words(only=())
        some = words.only is None or len(words.only) > 0
        return Allowed(
            words=some,
            barred=words.barred,
            only=words.only if some else None,
            locations=_ANYWHERE if LOCATION in kept else None,
            markers=tuple(self.spelling.marker_ids[kind] for kind in kept if kind != LOCATION),
            cut="regions" if state.place == "full" else "tokens" if words.fewer or len(kept) < len(kinds) else "",
        )


def grammar_for(
    task: Task,
    spelling: Spelling,
    *,
    labels: Sequence[str] | None = None,
    text: str | None = None,
    max_regions: int | None = None,
) -> Grammar | None:
    """The grammar of a task's answers; None for one's own prompts, whose answers may spell anything.

    labels       if given, every label is one of them; so is the whole text of a text task.
    text         the caption that "ground" asks about: its labels are parts of it. Other tasks take no notice.
    max_regions  after so many the answer ends.
    raises       BadPrompt if labels are none, empty, spell a special token, or the task's regions have no labels.
                 BadConfig if max_regions is below 1.
    promise      the same grammar for the same arguments, with all that it has worked out, if asked again soon.
    """
    if max_regions is not None and max_regions < 1:
        raise BadConfig(f"max_regions is {max_regions}; give 1 or more, or leave it out")
    if labels is None:
        caption = text if task.form == "phrases" else None
        return None if task.input == "free" else _grammar(task, spelling, None, caption, max_regions)
    if isinstance(labels, str):
        raise BadPrompt(f"labels is one text, {labels!r}; give a list of labels")
    if task.form in ("bare_boxes", "polygons"):
        raise BadPrompt(f"task {task.name!r} names nothing, but labels were given; leave labels out")
    return _grammar(task, spelling, tuple(labels), None, max_regions)


@lru_cache(maxsize=64)
def _grammar(
    task: Task, spelling: Spelling, labels: tuple[str, ...] | None, caption: str | None, max_regions: int | None
) -> Grammar:
    form = task.form
    first: OpenLabel | Node | None
    if labels is not None:
        first = closed_labels(spelling, labels)
    elif caption is not None:
        first = phrases_of(spelling, caption)
    else:
        first = open_label(spelling, blank=None if form == "text" else b"")  # a text may be empty
    if form == "text":
        moves = _text_moves(echo=task.input == "region")
    elif form == "polygons":
        moves = _polygon_moves()
    else:
        moves = _region_moves(form, loose=labels is None and form != "phrases")
    return Grammar(spelling, moves, first, max_regions, ordered=form != "quads")
