"""A text -> objects, attributes, actions and how they hang together.

    parsed = parse("a black cat is chasing a small brown bird")
    parsed.words(parsed.objects)     # ("cat", "bird")
    parsed.object_complexity         # 4: at "bird" hang a, small and brown, and it hangs on chasing

By spaCy where it and a model are installed; otherwise by the rules of `syntax.py`. Both give the relations of spaCy's
English models, as far as the rules know them.
Source: Florence-2 report, section 4.2: objects, attributes and actions by parts of speech, complexity of a token as its
degree in the dependency tree. How the complexity of a text follows from its tokens is not published; here it is the
greatest of any, as in DiHT, which the report names for the idea. Punctuation is no part of the tree.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any, Literal, get_args

from openflorence.engine.syntax import Token, read_rules
from openflorence.errors import BadConfig

Reader = Literal["auto", "spacy", "rules"]
READERS: tuple[Reader, ...] = get_args(Reader)
RULES = "rules-1"  # name of the rules; another number when they say something else

_OBJECTS = ("NOUN", "PROPN")
_SUBJECTS = ("nsubj", "nsubjpass", "nsubj:pass")
_TAKEN = ("dobj", "obj", "iobj", "dative")
_CLAUSES = ("acl", "relcl", "acl:relcl")


@dataclass(frozen=True, kw_only=True)
class ParseSettings:
    """Who reads texts."""

    reader: Reader = "auto"  # "auto": spaCy when it and the model are there, else the rules
    model: str = "en_core_web_sm"  # spaCy's model: a package or a folder

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise BadConfig(f"reader is {self.reader!r}; allowed: {', '.join(READERS)}")


@dataclass(frozen=True)
class Parse:
    """A text as a tree of tokens. Objects, attributes and actions are places in `tokens`."""

    text: str
    tokens: tuple[Token, ...]

    def _places(self, *parts: str) -> tuple[int, ...]:
        return tuple(place for place, token in enumerate(self.tokens) if token.part in parts)

    @cached_property
    def objects(self) -> tuple[int, ...]:
        """Nouns that stand for something; one that only describes the next, as in "street sign", is part of it."""
        return tuple(p for p in self._places(*_OBJECTS) if self.tokens[p].relation != "compound")

    @cached_property
    def attributes(self) -> tuple[int, ...]:
        """Descriptions: adjectives, and participles before a noun."""
        return tuple(
            place
            for place in self._places("ADJ", "VERB")
            if self.tokens[place].part == "ADJ" or self._described(place) is not None
        )

    @cached_property
    def actions(self) -> tuple[int, ...]:
        """Verbs that are no auxiliaries, no forms of to be and no descriptions."""
        described = set(self.attributes)
        return tuple(p for p in self._places("VERB") if self.tokens[p].lemma != "be" and p not in described)

    @cached_property
    def proper_nouns(self) -> tuple[int, ...]:
        """Names."""
        return self._places("PROPN")

    @cached_property
    def links(self) -> tuple[tuple[int, int], ...]:
        """Pairs of an object and what is said of it: an attribute, or an action that it does or suffers."""
        objects = set(self.objects)
        pairs: list[tuple[int, int]] = []
        for place in self.attributes:
            head = self._top(place)
            relation = self.tokens[head].relation
            of = self.tokens[head].head
            if relation == "amod":
                pairs.append((of, place))
            elif relation in ("acomp", "oprd", "attr", "xcomp"):
                pairs += [(child, place) for child in self._children(of, _SUBJECTS)]
        for place in self.actions:
            pairs += [(child, place) for child in self._children(place, (*_SUBJECTS, *_TAKEN))]
            head = self._top(place)
            if self.tokens[head].relation in _CLAUSES:
                pairs.append((self.tokens[head].head, place))
        return tuple(sorted({pair for pair in pairs if pair[0] in objects}))

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """Of each token, how many others it hangs together with: its head and what hangs on it, marks left out."""
        counts = [0] * len(self.tokens)
        for place, token in enumerate(self.tokens):
            if token.head != place and token.part not in ("PUNCT", "SPACE"):
                counts[place] += 1
                counts[token.head] += 1
        return tuple(counts)

    @property
    def object_complexity(self) -> int:
        """The greatest degree of an object; 0 without one."""
        return max((self.degrees[place] for place in self.objects), default=0)

    @property
    def action_complexity(self) -> int:
        """The greatest degree of an action; 0 without one."""
        return max((self.degrees[place] for place in self.actions), default=0)

    def words(self, places: Iterable[int]) -> tuple[str, ...]:
        """Give the dictionary forms of tokens."""
        return tuple(self.tokens[place].lemma for place in places)

    def said_of(self, place: int) -> tuple[str, ...]:
        """Give what is said of an object, in dictionary forms."""
        return self.words(other for one, other in self.links if one == place)

    def name(self, place: int, longest: int = 3) -> tuple[str, ...]:
        """Give what an object may be called, the longest first: "old fire hydrant", "fire hydrant", "hydrant"."""
        words = [self.tokens[place].lemma]
        at = place - 1
        while at >= 0 and len(words) < longest and self.tokens[at].part in (*_OBJECTS, "ADJ", "VERB"):
            words.insert(0, self.tokens[at].text.lower())
            at -= 1
        return tuple(" ".join(words[start:]) for start in range(len(words)))

    def _described(self, place: int) -> int | None:
        """The noun that a participle stands before and describes."""
        head = self._top(place)
        token = self.tokens[head]
        return token.head if token.relation == "amod" and token.head > head else None

    def _top(self, place: int) -> int:
        """The first of the chain of coordinated words that a word ends."""
        while self.tokens[place].relation == "conj":
            place = self.tokens[place].head
        return place

    def _children(self, place: int, relations: tuple[str, ...]) -> list[int]:
        return [p for p, token in enumerate(self.tokens) if token.head == place != p and token.relation in relations]


DEFAULT_PARSE = ParseSettings()


def parse(text: str, settings: ParseSettings = DEFAULT_PARSE) -> Parse:
    """Read a text.

    raises    BadConfig when spaCy is asked for by name and it or its model is not installed.
    promise   the same for the same text, settings and `chosen_reader`; an empty text has no tokens.
    """
    return _parsed(text, settings)


@lru_cache(maxsize=1024)  # one text is looked at by several rules
def _parsed(text: str, settings: ParseSettings) -> Parse:
    model = _spacy(settings)
    return Parse(text, read_rules(text) if model is None else _read_spacy(model, text))


def chosen_reader(settings: ParseSettings = DEFAULT_PARSE) -> str:
    """Name who reads, with version, for the fingerprint of a stage: "rules-1", "en_core_web_sm 3.8.0, spacy 3.8.18"."""
    model = _spacy(settings)
    if model is None:
        return RULES
    meta = model.meta
    return f"{settings.model} {meta.get('version', '?')}, spacy {meta.get('spacy_version', '?')}"


def _spacy(settings: ParseSettings) -> Any:
    """The model, loaded once; None when the rules are to read."""
    if settings.reader == "rules":
        return None
    model = _load_spacy(settings.model)
    if model is None and settings.reader == "spacy":
        raise BadConfig(
            f"reader 'spacy' needs spaCy and its model {settings.model!r}, and one of them is not installed; "
            f"pip install spacy, then python -m spacy download {settings.model}, or give reader='rules'"
        )
    return model


@lru_cache(maxsize=4)
def _load_spacy(name: str) -> Any:
    if find_spec("spacy") is None:
        return None
    import spacy

    try:
        return spacy.load(name, exclude=["ner"])
    except OSError:  # what spaCy says of a model that is not there
        return None


def _read_spacy(model: Any, text: str) -> tuple[Token, ...]:
    return tuple(
        Token(t.text, t.lemma_.lower(), "AUX" if t.lemma_ == "be" else t.pos_, t.head.i, t.dep_, t.idx)
        for t in model(text)
    )
