"""Questions about a scene and their short answers, each computed from the things of the scene.

"Objects" are the drawn kinds; signs are counted apart. A poser gives (question, answer), or None when the scene
gives no clear answer: a question about "the fish" needs exactly one fish.
"""

from collections.abc import Callable

import numpy as np

from openflorence.data.chance import below, chance, pick, shuffled
from openflorence.data.sentences import LEVELS, RELATIONS, name, place, shortest_name, the_one
from openflorence.data.shapes import KINDS
from openflorence.data.words import COLOURS, SIGN, plural, with_article
from openflorence.data.world import Scene, Thing

Asked = tuple[str, str]


def _count_all(scene: Scene, _: np.random.Generator) -> Asked:
    return "How many objects are there?", str(len(scene.objects))


def _count_kind(scene: Scene, rng: np.random.Generator) -> Asked:
    kind = pick(rng, scene.things).kind if chance(rng, 0.8) else pick(rng, (*scene.config.kinds, SIGN))
    return f"How many {plural(kind)} are there?", str(sum(thing.kind == kind for thing in scene.things))


def _count_colour(scene: Scene, rng: np.random.Generator) -> Asked:
    here = [thing.colour for thing in scene.objects]
    colour = pick(rng, here) if here and chance(rng, 0.8) else pick(rng, scene.config.colours)
    return f"How many {colour} objects are there?", str(sum(thing.colour == colour for thing in scene.objects))


def _which_colour(scene: Scene, rng: np.random.Generator) -> Asked | None:
    """Ask the colour of a thing that can be named without it."""
    alone = [thing for thing in scene.things if sum(other.kind == thing.kind for other in scene.things) == 1]
    if not alone:
        return None
    thing = pick(rng, alone)
    return f"What color is the {thing.kind}?", thing.colour


def _is_there(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask for what is there as often as for what is not, and for what is nearly there."""
    phrase = name(pick(rng, scene.things), pick(rng, LEVELS[:2])) if chance(rng, 0.5) else absent_phrase(scene, rng)
    here = any(phrase in (name(thing, "kind"), name(thing, "colour")) for thing in scene.things)
    return f"Is there {with_article(phrase)}?", "yes" if here else "no"


def absent_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """Name a kind or a coloured kind that is not in the scene; often one close to what is."""
    present = {name(thing, level) for thing in scene.things for level in LEVELS[:2]}
    kinds, colours = (*scene.config.kinds, SIGN), scene.config.colours
    for _ in range(8):
        kind = pick(rng, scene.things).kind if chance(rng, 0.3) else pick(rng, kinds)
        phrase = f"{pick(rng, colours)} {kind}" if chance(rng, 0.6) else kind
        if phrase not in present:
            return phrase
    return next(phrase for phrase in _FALLBACKS if phrase not in present)


# When a config allows so few names that chance finds none that is absent: more than a scene has things.
_FALLBACKS = [f"{colour} {kind}" for kind in KINDS[:3] for colour in COLOURS]


def _what_is(how: str) -> Callable[[Scene, np.random.Generator], Asked | None]:
    """Ask what is left of, above or on a thing, where one thing alone is."""

    def pose(scene: Scene, rng: np.random.Generator) -> Asked | None:
        for anchor in shuffled(rng, scene.things):
            called = shortest_name(scene, anchor)
            found = the_one(scene, how, anchor, scene.things)
            if called and found:
                return f"What is {how} the {called}?", with_article(name(found, "colour"))
        return None

    return pose


def _how_big(scene: Scene, rng: np.random.Generator) -> Asked | None:
    named = [(thing, called) for thing in scene.objects if (called := _name_without_size(scene, thing))]
    if not named:
        return None
    thing, called = pick(rng, named)
    return f"How big is the {called}?", thing.size


def _name_without_size(scene: Scene, thing: Thing) -> str | None:
    called = shortest_name(scene, thing)
    return called if called in (name(thing, "kind"), name(thing, "colour")) else None


def _where(scene: Scene, rng: np.random.Generator) -> Asked | None:
    named = [(thing, called) for thing in scene.things if (called := shortest_name(scene, thing))]
    if not named:
        return None
    thing, called = pick(rng, named)
    return f"Where is the {called}?", place(scene, thing)


def _what_does_it_say(scene: Scene, rng: np.random.Generator) -> Asked | None:
    named = [(sign, called) for sign in scene.signs if (called := shortest_name(scene, sign))]
    if not named:
        return None
    sign, called = pick(rng, named)
    return f"What does the {called} say?", sign.word


def _background(scene: Scene, rng: np.random.Generator) -> Asked:
    if below(rng, 2):
        return "What color is the background?", scene.ground
    return "What is the background like?", scene.texture


QUESTIONS: tuple[Callable[[Scene, np.random.Generator], Asked | None], ...] = (
    _count_all,
    _count_kind,
    _count_colour,
    _which_colour,
    _is_there,
    *(_what_is(how) for how in RELATIONS),
    _how_big,
    _where,
    _what_does_it_say,
    _background,
)


def pose_question(scene: Scene, rng: np.random.Generator) -> Asked:
    """Ask one question that the scene can answer; every kind of question has its turn."""
    for pose in shuffled(rng, QUESTIONS):
        asked = pose(scene, rng)
        if asked is not None:
            return asked
    raise AssertionError("the number of objects can always be asked")
