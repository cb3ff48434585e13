"""Labels over token ids, word by word: what may come next in one, and how many words it still needs.

A label is either open, any words that show something and spell no special token, or a part of given texts: one of a
closed set, or a phrase of a caption. Any way to cut its bytes into the tokenizer's words will do.
"""

import codecs
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple
from unicodedata import category

from openflorence.contract.answers import CONTROLS, MARKERS, special_token
from openflorence.contract.locations import BINS
from openflorence.errors import BadPrompt

WORD, LOCATION, SEP, POLY, END_POLY, EOS, OTHER = range(7)  # kinds of tokens
FAR = 10**6  # tokens: more than any answer has
_DIGITS = re.compile(rb"<loc_[0-9]+")
_OPENINGS = {special[:size].encode() for special in ("<loc_", *CONTROLS, *MARKERS) for size in range(1, len(special))}
_OPENINGS.add(b"<loc_")
_CONTINUES = range(0x80, 0xC0)  # bytes of UTF-8 that begin no character
# Thai, Lao, Burmese, Khmer, kana and Han put no spaces between words: any character may begin or end a phrase.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, eq=False)
class Spelling:
    """What a grammar needs to know of a tokenizer; compared by identity, so that one tokenizer builds one."""

    pieces: tuple[bytes | None, ...]  # by id: bytes of a word token, one or more; None for all that is no word
    first_location: int  # id of <loc_0>; those of the other locations follow
    sep: int  # ids of <sep>, <poly>, </poly> and </s>
    poly: int
    end_poly: int
    eos: int

    @cached_property
    def kinds(self) -> bytes:
        """The kind of token of every id."""
        kinds = bytearray([OTHER]) * max(len(self.pieces), self.first_location + BINS, *self.marker_ids.values())
        kinds += bytes([OTHER])
        kinds[: len(self.pieces)] = bytes(OTHER if piece is None else WORD for piece in self.pieces)
        kinds[self.first_location : self.first_location + BINS] = bytes([LOCATION]) * BINS
        for kind, token in self.marker_ids.items():
            kinds[token] = kind
        return bytes(kinds)

    @cached_property
    def marker_ids(self) -> dict[int, int]:
        """The id of each kind of which there is one."""
        return {SEP: self.sep, POLY: self.poly, END_POLY: self.end_poly, EOS: self.eos}

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """The id of each word piece."""
        return {piece: token for token, piece in enumerate(self.pieces) if piece is not None}

    @cached_property
    def longest(self) -> dict[bytes, int]:
        """Bytes of the longest piece by the first three bytes of a piece."""
        longest: dict[bytes, int] = {}
        for piece in self.ids:
            longest[piece[:3]] = max(len(piece), longest.get(piece[:3], 0))
        return longest

    @cached_property
    def has_all_bytes(self) -> bool:
        """Whether every byte is a word, so that there is a way to spell any text."""
        return all(bytes([byte]) in self.ids for byte in range(256))

    @cached_property
    def closing(self) -> tuple[int, ...]:
        """Words that hold the last character of every special token, and may come to spell one."""
        return tuple(token for piece, token in self.ids.items() if b">" in piece)

    @cached_property
    def hollow(self) -> tuple[int, ...]:
        """Words that can leave a label without anything to see: blanks, and the ends of blanks of several bytes."""
        return tuple(token for piece, token in self.ids.items() if piece[0] in _CONTINUES or not _text(piece).strip())

    @cached_property
    def open_labels(self) -> dict[tuple[bytes, bytes | None], "OpenLabel"]:
        """The states of labels that were met so far."""
        return {}


class Words(NamedTuple):
    """Which words may come next in a label."""

    only: tuple[int, ...] | None = None  # these; None is any
    barred: tuple[int, ...] = ()  # but not these
    fewer: bool = False  # there would be more if more tokens were left


class OpenLabel:
    """A label of any words, as far as it was said: enough of it to know what may not come next."""

    def __init__(self, spelling: Spelling, tail: bytes, blank: bytes | None) -> None:
        self.spelling = spelling
        self.tail = tail  # the end of the label that may become a special token
        self.blank = blank  # None once there is something to see; else the bytes of a character that is not complete
        self.complete = blank != b""  # half a character reads as U+FFFD
        self.cost = 0 if self.complete else 1  # fewest words until it is complete
        self.most = 1  # no label costs more
        self._next: dict[int, OpenLabel] = {}

    def after(self, token: int) -> "OpenLabel":
        """The label with one word more."""
        label = self._next.get(token)
        if label is None:
            piece = self.spelling.pieces[token]
            assert piece is not None
            label = open_label(self.spelling, _opening(self.tail + piece), _blank(self.blank, piece))
            self._next[token] = label
        return label

    def words(self, room: int) -> Words:
        """The words that may come when `room` more may follow them."""
        if room < 0:
            return Words(only=(), fewer=True)
        if room > 0 or not self._blanks:
            return Words(barred=self._barred)
        return Words(barred=self._barred + self._blanks, fewer=True)

    @cached_property
    def _barred(self) -> tuple[int, ...]:
        pieces = self.spelling.pieces
        return tuple(
            t for t in self.spelling.closing if special_token((self.tail + (pieces[t] or b"")).decode("latin-1"))
        )

    @cached_property
    def _blanks(self) -> tuple[int, ...]:
        """Words after which nothing is to be seen."""
        start, pieces = self.blank, self.spelling.pieces
        if start is None:
            return ()
        return tuple(t for t in self.spelling.hollow if not _text(start + (pieces[t] or b"")).strip())


def open_label(spelling: Spelling, tail: bytes = b"", blank: bytes | None = b"") -> OpenLabel:
    """The one state of a label; a label of which nothing was said if only the spelling is given."""
    label = spelling.open_labels.get((tail, blank))
    if label is None:
        label = spelling.open_labels[tail, blank] = OpenLabel(spelling, tail, blank)
    return label


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _opening(data: bytes) -> bytes:
    """The end of `data` that may still become a special token; a location counts by its first digit only."""
    tail = data[data.rfind(b"<") :] if b"<" in data else b""
    return tail if tail in _OPENINGS else b"<loc_0" if _DIGITS.fullmatch(tail) else b""


def _blank(before: bytes | None, piece: bytes) -> bytes | None:
    """None once something is to be seen for good; else the bytes of a character that is not complete yet."""
    if before is None:
        return None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return None if decoder.decode(before + piece).strip() else decoder.getstate()[0]


class Spans:
    """Parts of given texts as labels, in every way to spell them.

    A label so far is the places in the texts where its next word may begin; a place counts bytes over all the texts.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.spelling = spelling
        self.text = b""
        self.starts: list[int] = []
        self.ends: set[int] = set()
        self.most = 0  # words that any label still costs, at most
        self._stops: list[int] = []  # where each text ends
        self._ways: dict[int, list[tuple[int, int]]] = {}
        self._costs: dict[int, int] = {}
        self._nodes: dict[tuple[int, ...], Node] = {}

    def add(self, text: str, starts: Iterable[int], ends: Sequence[int]) -> None:
        """Allow the labels from one of `starts` to one of `ends`: characters of the text, in order."""
        base, data = len(self.text) + 1, text.encode()  # two texts share no place
        at = list(accumulate((len(letter.encode()) for letter in text), initial=base))
        self.text += b" " + data
        self._stops.append(base + len(data))
        self.starts += [at[start] for start in starts]
        found = [at[end] for end in ends]
        self.ends.update(found)
        gaps = (b - a for a, b in pairwise([base, *found]))
        self.most = max(self.most, max(gaps, default=0) if self.spelling.has_all_bytes else len(data))

    def at(self, places: Iterable[int]) -> "Node":
        """The one state of a label at these places."""
        key = tuple(sorted(set(places)))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(self, key)
        return node

    def ways(self, place: int) -> list[tuple[int, int]]:
        """The words that go on from a place, and where they lead."""
        found = self._ways.get(place)
        if found is None:
            text, ids = self.text, self.spelling.ids
            stop = self._stops[bisect_left(self._stops, place)]
            last = min(stop, place + self.spelling.longest.get(text[place : place + 3], 2))
            words = ((ids.get(text[place:there]), there) for there in range(place + 1, last + 1))
            found = self._ways[place] = [(token, there) for token, there in words if token is not None]
        return found

    def cost(self, place: int) -> int:
        """The fewest words from a place to where a label may end; FAR if none lead there."""
        costs = self._costs
        if place not in costs:
            stop = self._stops[bisect_left(self._stops, place)]
            for here in range(stop, place - 1, -1):
                if here not in costs:
                    further = [costs[there] for _, there in self.ways(here)]
                    costs[here] = 0 if here in self.ends else min(FAR, 1 + min(further, default=FAR))
        return costs[place]


class Node:
    """A label out of Spans, as far as it was said."""

    def __init__(self, spans: Spans, places: tuple[int, ...]) -> None:
        self.spans, self.places = spans, places
        self.complete = any(place in spans.ends for place in places)
        self.most = spans.most
        self._next: dict[int, Node] = {}

    @cached_property
    def cost(self) -> int:
        """The fewest words until it is complete."""
        return min((self.spans.cost(place) for place in self.places), default=FAR)

    def after(self, token: int) -> "Node":
        """The label with one word more."""
        node = self._next.get(token)
        if node is None:
            node = self._next[token] = self.spans.at(self._ways[token])
        return node

    def words(self, room: int) -> Words:
        """The words that may come when `room` more may follow them."""
        if room >= self.most and self.spans.spelling.has_all_bytes:  # everything can be spelt in time
            return Words(only=tuple(self._ways))
        costs = {token: min(map(self.spans.cost, places)) for token, places in self._ways.items()}
        kept = tuple(token for token, cost in costs.items() if cost <= room)
        return Words(only=kept, fewer=any(room < cost < FAR for cost in costs.values()))

    @cached_property
    def _ways(self) -> dict[int, list[int]]:
        ways: dict[int, list[int]] = {}
        for place in self.places:
            for token, there in self.spans.ways(place):
                ways.setdefault(token, []).append(there)
        return ways


def closed_labels(spelling: Spelling, labels: Sequence[str]) -> Node:
    """Labels that are exactly one of these, with or without a space before it.

    raises    BadPrompt if there are none, or one is empty, spells a special token or cannot be spelt in words.
    """
    spans = Spans(spelling)
    for label in dict.fromkeys(label.strip() for label in labels):
        seen = special_token(label)
        if not label or seen:
            wrong = f"spells the special token {seen!r}" if seen else "is empty"
            raise BadPrompt(f"label {label!r} {wrong}; give labels of plain words")
        spans.add(" " + label, (0, 1), (len(label) + 1,))
        if not spelling.has_all_bytes and spans.cost(spans.starts[-1]) >= FAR:
            raise BadPrompt(f"label {label!r} cannot be spelt with this tokenizer; leave it out")
    if not spans.starts:
        raise BadPrompt("there are no labels to choose from; give one or more, or leave labels out for any label")
    return spans.at(spans.starts)


def phrases_of(spelling: Spelling, caption: str) -> Node:
    """Labels that are parts of a caption, from a word's beginning to a word's end; none over a special token."""
    spans, parts = Spans(spelling), [caption]
    while seen := special_token(parts[-1]):
        parts[-1:] = parts[-1].split(seen, 1)
    for part in filter(None, map(str.strip, parts)):
        text = " " + part
        edges = [here for here in range(1, len(text) + 1) if _is_edge(text[here - 1 : here + 1])]
        ends = [here for here in edges if not text[here - 1].isspace()]
        heads = [here for here in edges[:-1] if not text[here].isspace()]
        spaced = [here - 1 for here in heads if text[here - 1] == " "]
        spans.add(text, heads + spaced, ends)
    return spans.at(spans.starts)


def _is_edge(pair: str) -> bool:
    """Whether a word may end after the first and begin at the second of two characters; True at the end of a text."""
    if len(pair) < 2:
        return True
    if category(pair[1])[0] == "M":  # a mark stands on the letter before it
        return False
    in_word = all(category(letter)[0] in "LMN" or letter == "_" for letter in pair)
    return not in_word or _UNSPACED.search(pair) is not None
