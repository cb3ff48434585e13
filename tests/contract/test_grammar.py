"""An answer of allowed tokens reads back whole, whoever chose them and however few there were."""

import random
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import openflorence
from openflorence.contract.answers import CONTROLS, MARKERS, read_answer, write_answer
from openflorence.contract.grammar import Allowed, Grammar, State, grammar_for
from openflorence.contract.locations import spell, spell_all
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.spelling import Spelling
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadConfig, BadPrompt
from openflorence.model.tokenizer import Text

PLENTY = 10_000  # tokens: more than any answer here needs
SIZE = (1000, 1000)  # of the image: a bin is a pixel
SPECIAL = re.compile("|".join(("<loc_[0-9]+>", *CONTROLS, *MARKERS)))

# ---- a tokenizer that can be read: every byte, some merges, and what comes closest to special tokens
MERGES = (
    "car|park| park| car|ca| a|an|red| red|ing|<loc|loc_|_5|5>|</|</s|s>|><|<s|sep>|poly|<loc_5>|a</s>b|  |\n\t|é|猫|."
)
PIECES = [bytes([byte]) for byte in range(256)] + [merge.encode() for merge in MERGES.split("|")]
PIECES += ["\u3000".encode(), "\u3000".encode()[:2], b" \xe3", b"\x80 "]
TOY_WORDS = ["<s>", "<pad>", "</s>", "<unk>", *PIECES, "<mask>", *map(spell, range(1000)), "<sep>", "<poly>", "</poly>"]
TOY = Spelling(
    pieces=tuple(word if isinstance(word, bytes) else None for word in TOY_WORDS),
    first_location=TOY_WORDS.index("<loc_0>"),
    sep=TOY_WORDS.index("<sep>"),
    poly=TOY_WORDS.index("<poly>"),
    end_poly=TOY_WORDS.index("</poly>"),
    eos=TOY_WORDS.index("</s>"),
)
WORDS = [token for token, piece in enumerate(TOY.pieces) if piece is not None]
NEAR = [token for token in WORDS if set(TOY.pieces[token]) & set(b"<>/_")]
BLANK = [
    token for token in WORDS if not TOY.pieces[token].decode(errors="replace").strip() or b"\xe3" in TOY.pieces[token]
]


def ids(text, rng=None):
    """The ids of a text: special tokens as such, words in the longest pieces, or in any if `rng` is given."""
    found = []
    for part in re.split(f"({SPECIAL.pattern})", text):
        if part in TOY_WORDS:
            found.append(TOY_WORDS.index(part))
            continue
        data = part.encode()
        while data:
            pieces = [piece for piece in PIECES if data.startswith(piece)]
            piece = rng.choice(pieces) if rng else max(pieces, key=len)
            found.append(TOY_WORDS.index(piece))
            data = data[len(piece) :]
    return found


def said(tokens):
    """The text of ids, as a byte-level tokenizer decodes it."""
    words = (TOY_WORDS[token] for token in tokens)
    data = b"".join(word if isinstance(word, bytes) else word.encode() for word in words)
    return data.decode("utf-8", errors="replace")


def after(grammar, text, state=None):
    state = state or grammar.start()
    for token in ids(text):
        assert may(grammar.allowed(state, PLENTY), token), (text, state, TOY_WORDS[token])
        state = grammar.advance(state, token)
    return state


def may(allowed: Allowed, token: int) -> bool:
    if TOY.pieces[token] is not None:
        return allowed.words and token not in allowed.barred and (allowed.only is None or token in allowed.only)
    if 0 <= (bin_ := token - TOY.first_location) < 1000:
        return allowed.locations is not None and allowed.locations[0] <= bin_ <= allowed.locations[1]
    return token in allowed.markers


def words_of(allowed):
    chosen = WORDS if allowed.only is None else allowed.only
    return [token for token in chosen if token not in allowed.barred] if allowed.words else []


def locations_of(allowed):
    if allowed.locations is None:
        return []
    low, high = allowed.locations
    return list(range(TOY.first_location + low, TOY.first_location + high + 1))


# ---- walks

CAPTION = "A red car, and an-other red car park 猫と犬. <sep> ing é\u0301 \u0928\u093f"
LABELS = ("car", "car park", "red", "a", "猫", "\u3000x y")


@dataclass(frozen=True)
class Asked:
    task: str
    given: dict = field(default_factory=dict)

    def __str__(self):
        return "-".join((self.task, *self.given))

    @property
    def grammar(self) -> Grammar:
        grammar = grammar_for(find_task(self.task), TOY, **self.given)
        assert grammar is not None
        return grammar


NAMED = [task.name for task in TASKS if task.form not in ("bare_boxes", "polygons")]
CASES = [
    *(Asked(task.name) for task in TASKS),
    *(Asked(name, {"labels": LABELS}) for name in (*NAMED, "answer")),
    *(Asked(task.name, {"max_regions": 2}) for task in TASKS if task.form != "text"),
    *(Asked(name, {"labels": LABELS, "max_regions": 1}) for name in ("detect", "find", "read_regions")),
    Asked("ground", {"text": CAPTION}),
    Asked("ground", {"text": CAPTION, "max_regions": 3}),
]
WALKS = 280  # of each case


@dataclass
class Chooser:
    """Stands in for a network: what it prefers is random, and often the worst there is."""

    rng: random.Random
    style: str  # "logits", or which words come first: "any", "near" special tokens, "blank"
    logits: np.random.Generator
    keen: float = 0.0  # how much the logits of locations and markers stand above those of words

    def choose(self, allowed: Allowed) -> int:
        words, locations, markers = words_of(allowed), locations_of(allowed), list(allowed.markers)
        if self.style == "logits":
            scores = np.full(len(TOY_WORDS), -np.inf)
            open_ = words + locations + markers
            scores[open_] = self.logits.normal(size=len(open_))
            scores[markers] += self.keen
            scores[locations] += self.keen / 2
            return int(scores.argmax())
        first = {"near": NEAR, "blank": BLANK}.get(self.style)
        words = [token for token in words if token in first] or words if first else words
        kinds = [kind for kind in (words, words, locations, locations, markers) if kind]
        return self.rng.choice(self.rng.choice(kinds))


def walk(grammar: Grammar, chooser: Chooser, left: int) -> tuple[list[int], State]:
    """The ids of one answer, </s> left out, and the state after it."""
    state, tokens = grammar.start(), []
    left = max(left, grammar.cost(state))
    while True:
        allowed = grammar.allowed(state, left)
        token = chooser.choose(allowed)
        assert may(allowed, token)
        state, left = grammar.advance(state, token), left - 1
        if token == TOY.eos:
            return tokens, state
        tokens.append(token)
        assert left > 0, said(tokens)


def walks(case: Asked, count: int):
    rng, logits = random.Random(str(case)), np.random.default_rng(len(str(case)))
    for _ in range(count):
        style = rng.choice(("logits", "any", "near", "blank"))
        limit = rng.choice((1, rng.randint(1, 15), rng.randint(10, 60), 60))
        yield walk(case.grammar, Chooser(rng, style, logits, rng.choice((0, 2, 4))), limit)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_whatever_is_chosen_reads_back_whole(case):
    task, found = find_task(case.task), 0
    for tokens, state in walks(case, WALKS):
        answer = read_answer(said(tokens), task, SIZE)
        assert answer.invalid == 0, answer.raw
        assert len(answer.regions) == state.regions, answer.raw
        assert state.regions <= case.given.get("max_regions", PLENTY)
        again = read_answer(write_answer(answer), task, SIZE)
        assert (again.regions, again.text, again.invalid) == (answer.regions, answer.text, 0)
        names = [answer.text] if task.form == "text" else [region.label for region in answer.regions]
        if "labels" in case.given:
            assert set(names) <= {label.strip() for label in LABELS}
        if "text" in case.given:
            assert set(names) <= phrases(CAPTION.split("<sep>"))
        found += len(answer.regions) or bool(answer.text)
    assert found > WALKS / 10  # walks that all end at once would show nothing


def test_the_walks_were_ten_thousand_over_all_forms():
    assert WALKS * len(CASES) >= 10_000
    assert {find_task(case.task).form for case in CASES} == {task.form for task in TASKS}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_corner_lies_before_the_first_one(case):
    if find_task(case.task).form in ("quads", "polygons"):
        return
    for tokens, _ in walks(case, 50):
        text = re.sub("<poly>.*?</poly>", "", said(tokens))
        for run in re.findall("(?:<loc_[0-9]+>)+", text):
            bins = list(map(int, re.findall("[0-9]+", run)))
            for x0, y0, x1, y1 in zip(*[iter(bins)] * 4, strict=True):
                assert x0 <= x1
                assert y0 <= y1


# ---- the other direction: what is written may be said


def drawn_region(task, rng, label):
    def point():
        return Point(rng.randrange(1000) + 0.5, rng.randrange(1000) + 0.5)

    if task.form == "quads":
        return Region(label, quad=(point(), point(), point(), point()))
    if task.form == "polygons" or (task.form == "boxes_or_polygons" and rng.random() < 0.5):
        return Region(
            label, polygons=tuple(tuple(point() for _ in range(rng.randint(3, 6))) for _ in "ab"[: rng.randint(1, 2)])
        )
    (x0, x1), (y0, y1) = (sorted(rng.sample(range(1000), 2)) for _ in "xy")
    return Region(label, box=Box(x0, y0, x1 + 0.5, y1 + 0.5))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_written_may_be_said(case):
    task, rng, grammar = find_task(case.task), random.Random(0), case.grammar
    names = ["car", "<loc_", "a </s", "é 猫", "x  \n y", "> <", "\u3000.", "🚗", "loc_5>"]
    names += [] if task.form == "phrases" else [""]
    if "text" in case.given:
        names = ["A red car", "car, and", "other", "red", "猫", "犬.", "é\u0301", "\u0928\u093f"]
    if "labels" in case.given:
        names = [label.strip() for label in LABELS]
    for _ in range(60):
        regions = [
            drawn_region(task, rng, rng.choice(names)) for _ in range(rng.randint(0, case.given.get("max_regions", 4)))
        ]
        answer = (
            Answer(task, SIZE, text=rng.choice(names)) if task.form == "text" else Answer(task, SIZE, tuple(regions))
        )
        state, raw = grammar.start(), write_answer(answer)
        for token in [*ids(raw, rng), TOY.eos]:
            assert may(grammar.allowed(state, PLENTY), token), (raw, state, TOY_WORDS[token])
            state = grammar.advance(state, token)
        if task.form != "text":
            assert state.regions == len(answer.regions)


def test_the_words_of_a_real_tokenizer_may_be_said():
    text = Text.read(Path(openflorence.__file__).parent / "model/weights/nano")
    labels = ["red car", "car park", "traffic light", "猫"]
    for given, raw in (
        ({}, "red car<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>猫 <loc_1><loc_2><loc_3><loc_4>"),
        ({"labels": labels}, "car park<loc_1><loc_2><loc_3><loc_4> red car<loc_1><loc_2><loc_3><loc_4>"),
        (
            {"text": "A red car stands in a car park."},
            "A red car<loc_1><loc_2><loc_3><loc_4> car park<loc_1><loc_2><loc_3><loc_4>",
        ),
    ):
        grammar = grammar_for(find_task("ground" if "text" in given else "detect"), text.spelling, **given)
        state = grammar.start()
        for token in text.encode(raw)[1:]:
            allowed = grammar.allowed(state, PLENTY)
            assert allowed.only is None or text.spelling.pieces[token] is None or token in allowed.only
            state = grammar.advance(state, token)  # fails where the kind of token may not come
        assert state.place == "end"


# ---- labels


@pytest.mark.parametrize("task", ["detect", "caption", "ground", "read_regions"])
@pytest.mark.parametrize("special", [*CONTROLS, *MARKERS, "<loc_7>", "<loc_1000>", "<loc_00000000000000000000>"])
def test_words_never_spell_a_special_token(task, special):
    grammar = grammar_for(find_task(task), TOY)
    for before in (b"", b"a ", b"<", b"<loc_", b"</s"):
        state = grammar.start()
        for byte in before + special[:-1].encode():
            token = TOY_WORDS.index(bytes([byte]))
            assert may(grammar.allowed(state, PLENTY), token)
            state = grammar.advance(state, token)
        allowed = grammar.allowed(state, PLENTY)
        assert not may(allowed, TOY_WORDS.index(b">"))
        assert may(allowed, TOY_WORDS.index(b"<"))
        assert not may(allowed, TOY_WORDS.index(b"><"))


def test_a_special_token_inside_a_word_or_across_two_is_barred():
    grammar = grammar_for(find_task("detect"), TOY)
    for before in ("", "a", "<loc_", "<"):
        allowed = grammar.allowed(after(grammar, before), PLENTY)
        assert not may(allowed, TOY_WORDS.index(b"<loc_5>"))
        assert not may(allowed, TOY_WORDS.index(b"a</s>b"))
    assert not may(grammar.allowed(after(grammar, "x<loc_1"), PLENTY), TOY_WORDS.index(b"5>"))
    assert may(grammar.allowed(after(grammar, "x<loc1"), PLENTY), TOY_WORDS.index(b"5>"))
    assert may(grammar.allowed(after(grammar, "x<loc_"), PLENTY), TOY_WORDS.index(b">"))  # no digit: no location
    assert not may(grammar.allowed(after(grammar, "</"), PLENTY), TOY_WORDS.index(b"s>"))


@pytest.mark.parametrize(
    ("before", "complete"),
    [
        (b" ", False),
        (b"\n\t", False),
        (b"\xc2\xa0", False),  # no-break space
        (b"\xe3", True),  # half an ideographic space reads as U+FFFD, which is something
        (b"\xe3\x80", True),
        (b"\xe3\x80\x80", False),
        (b" \xe3\x80\x80\xe2\x80\x83 \x1f\xc2\x85", False),
        (b"\xe3\x80\x80.", True),
        (b"\x80", True),
        (b"\xe3\xe3\x80\x80", True),
    ],
)
def test_a_region_needs_a_label_in_which_something_is_seen(before, complete):
    assert bool(before.decode("utf-8", errors="replace").strip()) == complete  # what the reader will see
    grammar = grammar_for(find_task("detect"), TOY)
    state = grammar.start()
    for byte in before:
        state = grammar.advance(state, TOY_WORDS.index(bytes([byte])))
    assert (grammar.allowed(state, PLENTY).locations is not None) == complete
    assert grammar.cost(state) == (5 if complete else 6)
    tight = grammar.allowed(state, grammar.cost(state))
    for token in words_of(tight):
        assert not complete
        assert (before + TOY.pieces[token]).decode(errors="replace").strip()


def labels_of(grammar):
    """Every label that can be said before a location, found by saying them all."""
    found, todo, seen = set(), [(grammar.start(), b"")], set()
    while todo:
        if (here := todo.pop()) in seen:
            continue
        seen.add(here)
        state, label = here
        allowed = grammar.allowed(state, PLENTY)
        if state.label is not None and allowed.locations is not None:
            found.add(label.decode())
        todo += [(grammar.advance(state, token), label + TOY.pieces[token]) for token in words_of(allowed)]
    return found


def phrases(parts):
    """Phrases by hand: words as Python's \\w has them with their marks, other signs one by one, so Han and kana."""
    found = set()
    for part in parts:
        cuts = [*re.finditer("[猫と犬か]\u3099?|(?:[^\\W猫と犬か][\u0301\u093f]?)+|[^\\w\\s\u0301\u093f\u3099]", part)]
        found |= {part[a.start() : b.end()] for i, a in enumerate(cuts) for b in cuts[i:]}
    return found


def test_closed_labels_are_all_that_can_be_said_with_or_without_a_space():
    labels = ("car", "car park", "cart", "é", " spaced out ")
    grammar = grammar_for(find_task("detect"), TOY, labels=labels)
    plain = {label.strip() for label in labels}
    assert labels_of(grammar) == plain | {f" {label}" for label in plain}
    assert grammar.allowed(grammar.start(), PLENTY).locations is None  # no region without a label
    assert TOY.sep not in grammar.allowed(after(grammar, "car<loc_1><loc_1><loc_1><loc_1>"), PLENTY).markers


@pytest.mark.parametrize(
    "caption", ["A red car, (park) it's", CAPTION, "猫か\u3099犬", "é\u0301a", " , ", "a<sep>b</s>", "", "  "]
)
def test_phrases_are_the_parts_of_the_caption_from_word_to_word(caption):
    grammar = grammar_for(find_task("ground"), TOY, text=caption)
    expected = phrases(re.split("<sep>|</s>", caption))
    assert {label.removeprefix(" ") for label in labels_of(grammar)} == expected
    assert (grammar.allowed(grammar.start(), PLENTY).words) == bool(expected)


def test_grounding_without_its_caption_takes_any_label_but_needs_one():
    grammar = grammar_for(find_task("ground"), TOY)
    assert grammar.allowed(grammar.start(), PLENTY).locations is None
    between = grammar.allowed(after(grammar, "xyz<loc_1><loc_1><loc_1><loc_1>"), PLENTY)
    assert between.locations == (0, 999)
    assert between.markers == (TOY.eos,)


def test_a_text_with_labels_is_one_of_them():
    grammar = grammar_for(find_task("classify_region"), TOY, labels=["car", "car park"])
    assert grammar.allowed(grammar.start(), PLENTY).markers == ()
    car = grammar.allowed(after(grammar, "car"), PLENTY)
    assert car.markers == (TOY.eos,)
    assert {TOY.pieces[token] for token in words_of(car)} == {b" ", b" park"}
    assert car.locations == (0, 999)  # the region may be repeated
    assert grammar_for(FREE_TEXT, TOY) is None
    assert grammar_for(FREE_TEXT, TOY, labels=["yes", "no"]) is not None


# ---- limits


# By hand. A box and </s> are 5 tokens, a quad and </s> 9, <poly> three points </poly> </s> 9; a label is one more.
@pytest.mark.parametrize(
    ("task", "before", "left", "words", "locations", "markers", "cut"),
    [
        ("detect", "", 1, False, False, ["</s>"], "tokens"),
        ("detect", "", 4, False, False, ["</s>"], "tokens"),
        ("detect", "", 5, False, True, ["</s>"], "tokens"),
        ("detect", "", 6, True, True, ["</s>"], "tokens"),  # no word that shows nothing
        ("detect", "", 7, True, True, ["</s>"], ""),
        ("detect", "car", 5, False, True, [], "tokens"),
        ("detect", "car", 6, True, True, [], ""),
        ("detect", "car<loc_1>", 4, False, True, [], ""),
        ("detect", "car<loc_1><loc_1><loc_1><loc_1>", 5, False, True, ["</s>"], "tokens"),
        ("detect", "car<loc_1><loc_1><loc_1><loc_1>", 6, True, True, ["<sep>", "</s>"], "tokens"),
        ("detect", "car<loc_1><loc_1><loc_1><loc_1>", 7, True, True, ["<sep>", "</s>"], ""),
        ("detect", "car<loc_1><loc_1><loc_1><loc_1><sep>", 5, False, True, [], ""),
        ("propose", "", 5, False, True, ["</s>"], ""),
        ("read_regions", "", 9, False, True, ["</s>"], "tokens"),
        ("read_regions", "", 10, True, True, ["</s>"], "tokens"),
        ("read_regions", "car", 9, False, True, [], "tokens"),
        ("segment", "", 6, False, False, ["</s>"], "tokens"),
        ("segment", "", 7, False, True, ["</s>"], "tokens"),
        ("segment", "", 9, False, True, ["<poly>", "</s>"], ""),
        ("segment", spell_all(range(6)), 3, False, True, ["</s>"], "tokens"),
        ("segment", spell_all(range(6)), 2, False, False, ["</s>"], "tokens"),
        ("segment", spell_all(range(6)), 8, False, True, ["<sep>", "</s>"], ""),
        ("segment", spell_all(range(7)), 8, False, True, [], ""),
        ("segment", "<poly>" + spell_all(range(8)), 3, False, False, ["</poly>"], "tokens"),
        ("segment", "<poly>" + spell_all(range(8)), 4, False, True, ["</poly>"], "tokens"),
        ("find", "car", 8, True, True, [], "tokens"),
        ("find", "car", 9, True, True, ["<poly>"], ""),
        ("caption", "car", 1, False, False, ["</s>"], "tokens"),
        ("caption", "car", 2, True, False, ["</s>"], ""),
        ("describe_region", "car", 4, True, False, ["</s>"], "tokens"),
        ("describe_region", "car", 5, True, True, ["</s>"], ""),
        ("describe_region", "car" + spell_all((1, 2, 3, 4)), 5, False, False, ["</s>"], ""),
    ],
)  # fmt: skip
def test_nothing_begins_that_the_tokens_left_cannot_end(task, before, left, words, locations, markers, cut):
    grammar = grammar_for(find_task(task), TOY)
    allowed = grammar.allowed(after(grammar, before), left)
    assert allowed.words == words
    assert (allowed.locations is not None) == locations
    assert sorted(allowed.markers) == sorted(TOY_WORDS.index(marker) for marker in markers)
    assert allowed.cut == cut


def test_a_label_that_is_begun_is_ended_in_time():
    # By hand: "car park" is "car" and " park", or "c" and five more with " park" last; a box and </s> are five.
    grammar = grammar_for(find_task("detect"), TOY, labels=["car park"])

    def pieces(text, left):
        return {TOY.pieces[token] for token in words_of(grammar.allowed(after(grammar, text), left))}

    assert pieces("", 6) == set()
    assert pieces("", 7) == {b"car", b" car"}
    assert pieces("", 8) == {b"car", b" car", b"ca", b" "}
    assert pieces("", 9) == {b"car", b" car", b"ca", b" ", b"c"}
    assert pieces("car", 6) == {b" park"}
    assert pieces("car", 7) == {b" park", b" "}
    assert grammar.allowed(after(grammar, "car"), 6).cut == "tokens"
    assert grammar.allowed(after(grammar, "car"), PLENTY).cut == ""
    assert grammar.allowed(after(grammar, "car"), 1).only == tuple(ids(" park"))  # too late: the shortest way


@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_many_tokens_as_an_answer_costs_are_enough_from_every_state(case):
    grammar, rng = case.grammar, random.Random(1)
    for tokens, _ in walks(case, 30):
        state = grammar.start()
        for token in tokens:
            state = grammar.advance(state, token)
            rest, left = state, grammar.cost(state)
            while left:
                allowed = grammar.allowed(rest, left)
                kinds = [words_of(allowed), locations_of(allowed), list(allowed.markers)]
                token = rng.choice(rng.choice([kind for kind in kinds if kind]))
                rest, left = grammar.advance(rest, token), left - 1
                assert grammar.cost(rest) == left
            assert rest.place == "end"


def test_after_so_many_regions_only_the_end_may_come():
    box = "<loc_1><loc_1><loc_1><loc_1>"
    for task, one in (
        ("detect", f"car{box}"),
        ("propose", box),
        ("segment", f"<poly>{box}{box}</poly>"),
        ("find", f"{box}"),
    ):
        grammar = grammar_for(find_task(task), TOY, max_regions=2)
        assert grammar.allowed(after(grammar, one), PLENTY).cut == ""
        allowed = grammar.allowed(after(grammar, one + one), PLENTY)
        assert (allowed.words, allowed.locations, allowed.markers) == (False, None, (TOY.eos,))
        assert allowed.cut == "regions"


def test_regions_are_counted_as_their_last_token_comes():
    grammar = grammar_for(find_task("find"), TOY)
    raw = f"car{spell_all(range(4))}<poly>{spell_all(range(6))}<sep>{spell_all(range(6))}</poly>"
    counts, state = [], grammar.start()
    for token in ids(raw):
        state = grammar.advance(state, token)
        counts.append(state.regions)
    assert counts == [0] * 4 + [1] * 15 + [2]


def test_the_second_corner_is_bounded_by_the_first():
    grammar = grammar_for(find_task("detect"), TOY)
    state = after(grammar, "car<loc_999><loc_7>")
    assert grammar.allowed(state, PLENTY).locations == (999, 999)
    assert grammar.allowed(after(grammar, "<loc_999>", state), PLENTY).locations == (7, 999)
    quads = grammar_for(find_task("read_regions"), TOY)
    assert quads.allowed(after(quads, "car<loc_999><loc_7>"), PLENTY).locations == (0, 999)


# ---- what is kept, and what is refused


def test_states_never_change_and_what_was_worked_out_is_kept():
    grammar = grammar_for(find_task("detect"), TOY, labels=LABELS)
    assert grammar_for(find_task("detect"), TOY, labels=list(LABELS)) is grammar
    state = grammar.start()
    one, other = (grammar.advance(state, token) for token in (ids("car")[0], ids("red")[0]))
    assert state == grammar.start()
    assert one != other
    assert grammar.allowed(one, PLENTY) is grammar.allowed(grammar.advance(state, ids("car")[0]), PLENTY + 1)


@cache
def without_z():
    return Spelling(
        tuple(None if piece == b"z" else piece for piece in TOY.pieces),
        *(TOY.first_location, TOY.sep, TOY.poly, TOY.end_poly, TOY.eos),
    )


@pytest.mark.parametrize(
    ("task", "given", "error", "words"),
    [
        ("detect", {"labels": []}, BadPrompt, "no labels"),
        ("detect", {"labels": ["car", "  "]}, BadPrompt, "is empty"),
        ("detect", {"labels": ["a<loc_5>"]}, BadPrompt, "spells the special token '<loc_5>'"),
        ("detect", {"labels": "car"}, BadPrompt, "give a list"),
        ("propose", {"labels": ["car"]}, BadPrompt, "names nothing"),
        ("segment", {"labels": ["car"]}, BadPrompt, "names nothing"),
        ("detect", {"max_regions": 0}, BadConfig, "give 1 or more"),
    ],
)
def test_what_cannot_be_a_grammar_is_refused(task, given, error, words):
    with pytest.raises(error, match=re.escape(words)):
        grammar_for(find_task(task), TOY, **given)


def test_a_vocabulary_that_lacks_a_byte_leads_into_no_dead_end():
    with pytest.raises(BadPrompt, match="cannot be spelt"):
        grammar_for(find_task("detect"), without_z(), labels=["car", "zoo"])
    grammar = grammar_for(find_task("ground"), without_z(), text="a zoo is red")
    labels = labels_of(grammar)
    assert {"a", "is", "is red", "red"} == {label.strip() for label in labels}
