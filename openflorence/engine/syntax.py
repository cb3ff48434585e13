"""A dependency tree by rules, for captions in plain English: deterministic, without a model.

Three steps. Words get parts of speech: by lists and endings, and where that leaves a choice by their neighbours (a base
form is a verb after a plural, an -s form after a singular, both are nouns after an article). Phrases are built around
their last noun. Phrases are hung on one another from left to right: a preposition on the phrase or verb before it, a
phrase on the preposition or verb before it, a participle on the noun before it.
Known limits: what a preposition far from its verb belongs to is guessed, and a garden path is walked to its end.
Source: names of parts are Universal Dependencies', names of relations those of spaCy's English models.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from openflorence.engine.lexicon import (
    ADJECTIVES,
    ADVERBS,
    BE,
    CONJUNCTIONS,
    DETERMINERS,
    HAVE_DO,
    IRREGULAR_NOUNS,
    IRREGULAR_VERBS,
    MODALS,
    NOUNS,
    NUMBERS,
    PARTICIPLES,
    PLACES,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    RELATIVES,
    SUBORDINATORS,
    VERBS,
)


class Token(NamedTuple):
    """One word or mark of a text."""

    text: str
    lemma: str  # lower case, as in a dictionary: "men" -> "man"
    part: str  # "NOUN", "VERB", ... as Universal Dependencies name them
    head: int  # place of the token it hangs on; its own place at the root of a sentence
    relation: str  # to its head: "amod", "nsubj", ...
    start: int  # first character in the text


_WORD = re.compile(r"['’]s\b|\w+(?:[-'’](?!s\b)\w+)*|[^\w\s]")
_ENDS = ".!?;"
_ADJECTIVE_ENDINGS = ("ous", "ful", "less", "ish", "able", "ible", "ive", "-like", "-colored", "-coloured")
_MODIFIERS = ("DET", "NUM", "ADJ")
_NOUNS = ("NOUN", "PROPN")
# Raw kinds that may stand before the noun of a phrase.
_NOUNISH = frozenset(("noun", "proper", "adjective", "number", "place"))
# After an object these are about the verb: "riding a horse on the beach".
_OF_VERBS = frozenset(("on", "in", "at", "to", "from", "down", "across", "along", "through", "over", "under", "by"))
_OF_VERBS |= {"near", "behind", "beside", "onto", "into", "around", "against", "up", "during"}


def read_rules(text: str) -> tuple[Token, ...]:
    """Give the tokens of a text with their parts, heads and relations.

    promise   every token's head is in the same sentence, and following heads from any token ends at its root.
    """
    tokens: list[Token] = []
    for words in _sentences(text):
        tokens += _Tree(words, _tag(words), len(tokens)).build()
    return tuple(tokens)


class _Word(NamedTuple):
    text: str
    start: int

    @property
    def low(self) -> str:
        return self.text.lower().replace("’", "'")


def _sentences(text: str) -> list[list[_Word]]:
    found: list[list[_Word]] = [[]]
    for match in _WORD.finditer(text):
        found[-1].append(_Word(match[0], match.start()))
        if match[0] in _ENDS:
            found.append([])
    return [words for words in found if words]


# ---- parts of speech


def _kind(word: _Word, first: bool) -> str:
    """What a word may be, before its neighbours are looked at."""
    low = word.low
    for kind, listed in _LISTS:
        if low in listed:
            return kind
    if low[:1].isdigit():
        return "number"
    if not low[0].isalpha():
        return "possessive mark" if low == "'s" else "mark"
    if low in NOUNS or low in IRREGULAR_NOUNS:
        return "noun"
    if low in VERBS or (low.endswith("s") and _verb_lemma(low) in VERBS):
        return "verb or noun"
    if low in IRREGULAR_VERBS:
        return "-ed" if low in PARTICIPLES else "verb"
    if len(low) > 4 and low.endswith("ing"):
        return "-ing"
    if len(low) > 3 and low.endswith("ed"):
        return "-ed"
    if low.endswith("ly") and len(low) > 4:
        return "adverb"
    if low.endswith(_ADJECTIVE_ENDINGS) and len(low) > 5:
        return "adjective"
    if "-" in low and set(low.split("-")) & ADJECTIVES:
        return "adjective"
    return "proper" if word.text[0].isupper() and not first else "noun"


_LISTS: tuple[tuple[str, frozenset[str]], ...] = (
    ("place", PLACES),
    ("that", frozenset({"that"})),
    ("determiner", DETERMINERS),
    ("possessive", POSSESSIVES),
    ("relative", RELATIVES),
    ("number", NUMBERS),
    ("pronoun", PRONOUNS),
    ("to", frozenset({"to"})),
    ("preposition", PREPOSITIONS),
    ("and", CONJUNCTIONS),
    ("subordinator", SUBORDINATORS),
    ("modal", MODALS),
    ("be", BE),
    ("have", HAVE_DO),
    ("adverb", ADVERBS),
    ("adjective", ADJECTIVES),
)
_PLAIN = {
    "determiner": "DET",
    "number": "NUM",
    "pronoun": "PRON",
    "relative": "PRON",
    "preposition": "ADP",
    "and": "CCONJ",
    "subordinator": "SCONJ",
    "modal": "AUX",
    "be": "AUX",
    "adverb": "ADV",
    "noun": "NOUN",
    "proper": "PROPN",
    "verb": "VERB",
    "mark": "PUNCT",
    "possessive mark": "PART",
}


def _tag(words: Sequence[_Word]) -> list[str]:
    """Give each word of a sentence its part; "VERB." is a participle that describes the noun after it."""
    kinds = [_kind(word, not place) for place, word in enumerate(words)]
    parts: list[str] = []
    for place, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        after = kinds[place + 1] if place + 1 < len(kinds) else "mark"
        parts.append(_PLAIN.get(kind) or _settle(word.low, kind, after, words, parts))
    return parts


def _settle(low: str, kind: str, after: str, words: Sequence[_Word], parts: list[str]) -> str:
    """Choose a part by what stands before, settled already, and by what may come."""
    before = next((part for part in reversed(parts) if part != "ADV"), "")
    previous = words[len(parts) - 1].low if parts else ""
    naming = after in _NOUNISH or after in ("-ing", "-ed", "verb or noun")
    if kind == "to":
        return "PART" if after == "verb or noun" and not (parts and parts[-1] == "VERB" and after == "noun") else "ADP"
    if kind == "that":
        return "PRON" if before in _NOUNS or not naming else "DET"
    if kind == "possessive":
        return "DET" if naming or low != "her" else "PRON"
    if kind == "have":
        return "AUX" if after in ("-ed", "be") or low.startswith("do") else "VERB"
    if kind == "place":
        return "ADJ" if after in ("noun", "proper") else "ADV" if before == "AUX" else "NOUN"
    if kind == "adjective":
        alone = parts and parts[-1] in ("DET", "NUM", "ADJ") and not naming and after not in ("and", "-ed")
        return "NOUN" if alone and not low.endswith(("er", "est")) and before != "AUX" else "ADJ"
    if kind in ("-ing", "-ed"):
        # "a striped awning", "with striped awnings"; but "a cat chasing birds", "is chasing birds".
        inside = before not in (*_NOUNS, "PRON", "AUX", "PART") and after in _NOUNISH and after != "number"
        opens = not parts and kind == "-ing"  # "standing in the grass, a cow": no noun is described
        return "VERB." if inside and not opens else "VERB"
    return "VERB" if _is_verb(low, before, previous, parts) else "NOUN"


def _is_verb(low: str, before: str, previous: str, parts: list[str]) -> bool:
    """Whether a form that may be a noun is a verb here."""
    if before in ("AUX", "PART", "PRON"):
        return True
    if before == "CCONJ":
        return "VERB" in parts
    if before not in _NOUNS:
        return False
    plural = previous != _noun_lemma(previous) or previous in ("people", "men", "women", "children")
    together = "CCONJ" in parts and "VERB" not in parts
    return (not plural if low.endswith("s") and low not in VERBS else plural) or together


def _noun_lemma(low: str) -> str:
    if low in IRREGULAR_NOUNS:
        return IRREGULAR_NOUNS[low]
    for ending in ("men", "fish"):
        if low.endswith(ending) and len(low) > len(ending) + 1:
            return low[:-3] + "man" if ending == "men" else low
    if low.endswith("ies") and len(low) > 4:
        return low[:-3] + "y"
    if low.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return low[:-2]
    return low[:-1] if low.endswith("s") and not low.endswith(("ss", "us", "is")) and len(low) > 3 else low


def _verb_lemma(low: str) -> str:
    if low in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[low]
    if low.endswith("ies"):
        return low[:-3] + "y"
    for ending in ("ing", "ed", "es", "s"):
        stem = low.removesuffix(ending)
        if stem == low or len(stem) < 2:
            continue
        known = [stem + "e", stem, stem[:-1], stem[:-1] + "y"] if ending in ("ing", "ed") else [stem]
        listed = next((form for form in known if form in VERBS), None)
        if listed or ending in ("ing", "ed"):
            double = len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "sl"
            return listed or (stem[:-1] if double else stem)
    return low.removesuffix("s") if not low.endswith("ss") else low


def _lemma(low: str, part: str) -> str:
    if part == "NOUN":
        return _noun_lemma(low)
    if part in ("VERB", "AUX"):
        return "be" if low in BE else _verb_lemma(low)
    return low


# ---- the tree


class _Unit(NamedTuple):
    """A phrase, a verb with its auxiliaries, or a word between them."""

    kind: str  # "phrase", "description", "verb", or the part of a single word
    head: int
    finite: bool = False


@dataclass
class _Tree:
    """One sentence while it is put together. Places count from its first word."""

    words: Sequence[_Word]
    parts: list[str]
    offset: int
    heads: list[int] = field(init=False)
    relations: list[str] = field(init=False)
    root: int | None = None
    subject: int | None = None  # a phrase that no verb has claimed
    verb: int | None = None  # the last verb
    noun: int | None = None  # the last phrase
    object_of: int | None = None  # whose object the last phrase is
    opened: dict[str, int] = field(default_factory=dict)  # "prep", "cc", "comma", "mark", "relative": where it stands
    last: str = ""  # kind of the unit before

    def __post_init__(self) -> None:
        self.heads = [-1] * len(self.words)
        self.relations = ["dep"] * len(self.words)

    def build(self) -> list[Token]:
        """Give the tokens of the sentence."""
        units = self._units()
        for place, unit in enumerate(units):
            following = next((u for u in units[place + 1 :] if u.kind not in ("ADV", "PUNCT")), None)
            take = {"phrase": self._phrase, "verb": self._verb, "description": self._description}.get(unit.kind)
            if take is not None:
                take(unit, following)
            else:
                self._single(unit)
            self.last = unit.kind
        return self._finish()

    def _hang(self, place: int, head: int | None, relation: str) -> None:
        """Hang a token on another; on none, it is the root, if there is none yet."""
        if head is None and self.root is None:
            self.root, head, relation = place, place, "ROOT"
        elif head is None:
            head = self.root
        assert head is not None
        self.heads[place], self.relations[place] = head, relation

    def _finish(self) -> list[Token]:
        if self.root is None:
            spoken = [p for p, part in enumerate(self.parts) if part != "PUNCT"] or [0]
            self.root = self.subject if self.subject is not None else spoken[0]
            self.heads[self.root] = -1
        self.heads[self.root], self.relations[self.root] = self.root, "ROOT"
        for place, head in enumerate(self.heads):
            if head < 0:
                self.heads[place] = self.root
                self.relations[place] = "punct" if self.parts[place] == "PUNCT" else "dep"
        self._break_circles()
        tokens = zip(self.words, self.parts, self.heads, self.relations, strict=True)
        return [
            Token(word.text, _lemma(word.low, part.rstrip(".")), part.rstrip("."), head + self.offset, rel, word.start)
            for word, part, head, rel in tokens
        ]

    def _break_circles(self) -> None:
        """Hang what does not lead to the root on the root."""
        assert self.root is not None
        for place in range(len(self.heads)):
            seen, at = set[int](), place
            while at != self.root and at not in seen:
                seen.add(at)
                at = self.heads[at]
            if at != self.root:
                self.heads[place] = self.root

    # ---- units

    def _units(self) -> list[_Unit]:
        units, place = list[_Unit](), 0
        while place < len(self.parts):
            end = self._phrase_end(place)
            if end > place:
                units += self._close_phrase(place, end)
                place = end
            elif self.parts[place] in ("AUX", "VERB", "PART"):
                unit, place = self._verb_group(place)
                units.append(unit)
            else:
                units.append(_Unit(self.parts[place], place))
                place += 1
        return units

    def _phrase_end(self, start: int) -> int:
        """Where the phrase that starts here ends; `start` itself when none does."""
        at, named = start, False
        while at < len(self.parts):
            part = self.parts[at]
            ahead = self.parts[at + 1] if at + 1 < len(self.parts) else ""
            if part in _NOUNS:
                named = True
            elif named and self.words[at].low == "'s":
                named = False
            elif named:
                break
            elif part in ("CCONJ", "PUNCT"):  # "red and white bus", "a small, round table"
                joins = (
                    self.words[at].low in ("and", "or", ",") and at > start and self.parts[at - 1] in ("ADJ", "VERB.")
                )
                if not (joins and ahead in ("ADJ", "VERB.") and self._names_later(at + 1)):
                    break
            elif part == "ADV":
                if ahead not in ("ADJ", "VERB.") or not self._names_later(at + 1):
                    break
            elif part not in (*_MODIFIERS, "VERB."):
                break
            at += 1
        return at

    def _names_later(self, place: int) -> bool:
        """Whether nothing but descriptions stands between here and a noun."""
        while place < len(self.parts) and self.parts[place] in ("ADJ", "VERB.", "ADV", "NUM", "CCONJ"):
            place += 1
        return place < len(self.parts) and self.parts[place] in _NOUNS

    def _close_phrase(self, start: int, end: int) -> list[_Unit]:
        """Hang the words of a phrase on its last noun; without a noun it is a description, or stands for one."""
        nouns = [p for p in range(start, end) if self.parts[p] in _NOUNS]
        head = nouns[-1] if nouns else end - 1
        described: int | None = None
        for place in (p for p in range(start, end) if p != head):
            part, low = self.parts[place], self.words[place].low
            owner = next((p for p in range(place + 1, end) if self.words[p].low == "'s"), None)
            noun = next((p for p in reversed(nouns) if owner is None or p < owner), head)
            if low == "'s":
                self._set(place, next((p for p in reversed(nouns) if p < place), head), "case")
            elif part in _NOUNS:
                self._set(place, head if place == noun else noun, "poss" if place == noun else "compound")
            elif part in ("ADJ", "VERB."):
                joined = described is not None and self.parts[place - 1] in ("CCONJ", "PUNCT")
                self._set(place, described if joined and described is not None else noun, "conj" if joined else "amod")
                described = place
            elif part == "ADV":
                self._set(place, place + 1, "advmod")
            elif part in ("CCONJ", "PUNCT"):
                self._set(place, described if described is not None else noun, "cc" if part == "CCONJ" else "punct")
            else:
                owned = low in POSSESSIVES
                self._set(place, noun, "nummod" if part == "NUM" else "poss" if owned else "det")
        described_only = not nouns and self.parts[head] in ("ADJ", "VERB.")
        return [_Unit("description" if described_only else "phrase", head)]

    def _set(self, place: int, head: int, relation: str) -> None:
        self.heads[place], self.relations[place] = head, relation

    def _verb_group(self, start: int) -> tuple[_Unit, int]:
        """Read auxiliaries and the verb they belong to; alone, the last of them is the verb."""
        at = start
        while at < len(self.parts) and self.parts[at] in ("AUX", "ADV", "PART"):
            at += 1
        if at < len(self.parts) and self.parts[at] == "VERB":
            head, end = at, at + 1
        else:
            auxiliaries = [p for p in range(start, at) if self.parts[p] == "AUX"]
            head = auxiliaries[-1] if auxiliaries else start
            end = head + 1
        for place in range(start, end):
            if place != head:
                passive = self.words[place].low in BE and self._is_participle(head)
                relation = {"AUX": "auxpass" if passive else "aux", "ADV": "advmod"}.get(self.parts[place], "aux")
                self._set(place, head, relation)
        helped = any(self.parts[p] == "AUX" for p in range(start, end))
        to = self.words[start].low == "to"
        finite = not to and (helped or not (self._is_participle(head) or self.words[head].low.endswith("ing")))
        return _Unit("verb", head, finite), end

    def _is_participle(self, place: int) -> bool:
        low = self.words[place].low
        return low in PARTICIPLES or (low.endswith("ed") and low not in VERBS)

    # ---- hanging

    def _phrase(self, unit: _Unit, following: _Unit | None) -> None:
        head, clause = unit.head, following is not None and following.kind == "verb" and following.finite
        self.object_of = None
        if "prep" in self.opened:
            self._hang(head, self.opened.pop("prep"), "pobj")
        elif (
            self.noun is not None
            and ("cc" in self.opened or "comma" in self.opened)
            and not (clause and self.verb is not None)
        ):
            if "cc" in self.opened:
                self._hang(self.opened["cc"], self.noun, "cc")
            self._hang(head, self.noun, "conj")
        elif self.last == "verb" and self.verb is not None:
            copula = self.words[self.verb].low in BE
            self._hang(head, self.verb, "attr" if copula else "dobj")
            self.object_of = None if copula else self.verb
        elif clause or (self.root is None and self.subject is None):
            self.subject = head
        else:
            self._hang(head, self.verb if self.verb is not None else self.noun, "dep")
        self._forget("comma", *(() if clause and self.verb is not None else ("cc",)))
        self.noun = head

    def _forget(self, *names: str) -> None:
        for name in names:
            self.opened.pop(name, None)

    def _verb(self, unit: _Unit, following: _Unit | None) -> None:
        head = unit.head
        if "relative" in self.opened and self.noun is not None:
            self._set(self.opened.pop("relative"), head, "nsubj")
            self._hang(head, self.noun, "relcl")
        elif "mark" in self.opened:
            self._set(self.opened.pop("mark"), head, "mark")
            self._claim(head)
            self._hang(head, self.verb if self.verb is not None else self.noun, "advcl")
        elif "prep" in self.opened:
            self._hang(head, self.opened.pop("prep"), "pcomp")
        elif "cc" in self.opened and self.verb is not None:
            self._set(self.opened["cc"], self.verb, "cc")
            self._claim(head)
            self._hang(head, self.verb, "conj")
        elif self._is_main(unit, following):
            self._claim(head)
            self._hang(head, None, "parataxis")
        elif self.words[head - 1].low == "to" and self.verb is not None and self.last == "verb":
            self._hang(head, self.verb, "xcomp")
        elif self.noun is not None:
            self._hang(head, self._above(self.noun, ("in", "with", "on")), "acl")  # a man in a hat holding a rope
        else:
            self._hang(head, self.root, "advcl")
        self._forget("cc", "comma")
        self.verb = head

    def _is_main(self, unit: _Unit, following: _Unit | None) -> bool:
        """Whether a verb is one its subject does, not one that describes a noun."""
        if unit.finite or self.noun is None:
            return unit.finite
        # "a man pulled a cart" against "a cart pulled by a man".
        free = self.root is None and not any(part == "AUX" for part in self.parts[unit.head :])
        return free and self._is_participle(unit.head) and following is not None and following.kind == "phrase"

    def _claim(self, verb: int) -> None:
        """Give a verb the phrase that waits for one, or the one it follows."""
        if self.subject is not None and self.heads[self.subject] < 0:
            passive = any(h == verb and r == "auxpass" for h, r in zip(self.heads, self.relations, strict=True))
            self._set(self.subject, verb, "nsubjpass" if passive else "nsubj")
            self.subject = None

    def _description(self, unit: _Unit, _: _Unit | None) -> None:
        if self.verb is not None and self.last in ("verb", "ADV"):
            self._hang(unit.head, self.verb, "acomp")
        elif "cc" in self.opened and self.last == "CCONJ":
            self._hang(unit.head, self.noun if self.noun is not None else self.verb, "conj")
        elif self.noun is not None:
            self._hang(unit.head, self.noun, "amod")
        elif "prep" in self.opened:
            self._hang(unit.head, self.opened.pop("prep"), "pobj")

    def _single(self, unit: _Unit) -> None:
        """A word between phrases."""
        place, low = unit.head, self.words[unit.head].low
        if unit.kind == "ADP":
            self._preposition(place)
        elif unit.kind == "CCONJ":
            self.opened["cc"] = place
        elif unit.kind == "SCONJ":
            self.opened["mark"] = place
        elif unit.kind == "PRON" and low == "there" and "AUX" in self.parts[place : place + 2]:
            self._set(place, place + 1, "expl")
        elif unit.kind == "PRON" and (low in RELATIVES) and self.noun is not None:
            self.opened["relative"] = place
        elif unit.kind == "PRON":
            self._phrase(_Unit("phrase", place), self._verb_after(place))
        elif unit.kind == "ADV":
            self._set(place, self._nearest(place), "advmod")
        elif low == ",":
            self.opened["comma"] = place

    def _verb_after(self, place: int) -> _Unit | None:
        rest = [p for p in range(place + 1, len(self.parts)) if self.parts[p] != "ADV"]
        if rest and self.parts[rest[0]] in ("AUX", "VERB"):
            return _Unit("verb", rest[0], True)
        return None

    def _nearest(self, place: int) -> int:
        """What an adverb says something of: the verb or phrase before it, else -1, which `_finish` settles."""
        if self.last == "verb" and self.verb is not None:
            return self.verb
        return self.noun if self.noun is not None else -1

    def _preposition(self, place: int) -> None:
        """Hang a preposition: "of" on the noun; on the verb before it, or the verb whose object is before it."""
        low = self.words[place].low
        waiting = self.opened.get("prep")
        if waiting is not None:  # "out of", "next to"
            self._set(place, waiting, "prep")
        elif self.last in ("verb", "ADV", "description") and self.verb is not None:
            self._set(place, self.verb, "prep")
        elif self.object_of is not None and low in _OF_VERBS:
            self._set(place, self.object_of, "prep")
        elif self.noun is not None:
            self._set(place, self.noun if low == "of" else self._above(self.noun, ("of",)), "prep")
        elif self.verb is not None:
            self._set(place, self.verb, "prep")
        self.opened["prep"] = place

    def _above(self, noun: int, through: tuple[str, ...]) -> int:
        """The noun that a phrase like "of flowers" belongs to, when it begins with one of these words."""
        before = self.heads[noun]
        if self.relations[noun] == "pobj" and before >= 0 and self.words[before].low in through:
            owner = self.heads[before]
            return owner if owner >= 0 and self.parts[owner] in _NOUNS else noun
        return noun
