"""What can be said about a scene: names, relations, places, captions. Every sentence is a function of the scene.

Order, stated once: things are named left to right by the visible box (x0, then y0), the order of Scene.things.
"""

from collections.abc import Iterable

from openflorence.data.words import counted, listed, with_article
from openflorence.data.world import Scene, Thing

LEVELS = ("kind", "colour", "full")  # how much a name says: fish, red fish, small red fish
RELATIONS = ("left of", "above", "on")


def name(thing: Thing, level: str = "full") -> str:
    """Name a thing without an article: "fish", "red fish" or "small red fish"; a sign has no size word."""
    if level == "kind":
        return thing.kind
    words = (thing.size, thing.colour, thing.kind) if level == "full" else (thing.colour, thing.kind)
    return " ".join(word for word in words if word)


def groups(things: Iterable[Thing], level: str) -> list[tuple[str, list[Thing]]]:
    """Gather things of one name: ("a red fish", [...]), ("two blue keys", [...]), by their first member."""
    members: dict[str, list[Thing]] = {}
    for thing in things:
        members.setdefault(name(thing, level), []).append(thing)
    return [(counted(phrase, len(alike)), alike) for phrase, alike in members.items()]


def shortest_name(scene: Scene, thing: Thing) -> str | None:
    """Find the shortest name that fits this thing alone; None if it has a double."""
    for level in LEVELS:
        own = name(thing, level)
        if sum(name(other, level) == own for other in scene.things) == 1:
            return own
    return None


def relation(scene: Scene, a: Thing, b: Thing) -> str | None:
    """Say how a stands to b: one of RELATIONS, or None when nothing clear can be said."""
    if a.on == b.number:
        return "on"
    dx, dy = _steps(a, b)
    clear = scene.config.side_px * 0.12
    if dx >= clear and dx >= 1.2 * abs(dy):
        return "left of"
    if dy >= clear and dy >= 1.2 * abs(dx):
        return "above"
    return None


def the_one(scene: Scene, how: str, anchor: Thing, among: Iterable[Thing]) -> Thing | None:
    """Find the one thing that stands so to the anchor; None if there is none, or others nearly do too."""
    near = []
    for thing in among:
        dx, dy = _steps(thing, anchor)
        if {"left of": dx > 0.5 * abs(dy), "above": dy > 0.5 * abs(dx), "on": thing.on == anchor.number}[how]:
            near.append(thing)
    return near[0] if len(near) == 1 and relation(scene, near[0], anchor) == how else None


def _steps(a: Thing, b: Thing) -> tuple[float, float]:
    """How far to go right and down from the middle of a to the middle of b; nowhere if one lies on the other."""
    if a.on == b.number or b.on == a.number:
        return 0.0, 0.0
    return (b.box.x0 + b.box.x1 - a.box.x0 - a.box.x1) / 2, (b.box.y0 + b.box.y1 - a.box.y0 - a.box.y1) / 2


def place(scene: Scene, thing: Thing) -> str:
    """Say in which ninth of the picture the middle of a thing lies: "top left", "left", "middle", ..."""
    w, h = scene.image_wh
    column = ("left", "", "right")[min(int((thing.box.x0 + thing.box.x1) * 3 / (2 * w)), 2)]
    row = ("top", "", "bottom")[min(int((thing.box.y0 + thing.box.y1) * 3 / (2 * h)), 2)]
    return f"{row} {column}".strip() or "middle"


def reading_order(scene: Scene) -> list[Thing]:
    """Order the signs as one reads: rows from top to bottom, each from left to right."""
    left = sorted(scene.signs, key=lambda sign: (sign.box.y0 + sign.box.y1, sign.box.x0))
    order: list[Thing] = []
    while left:
        first = left[0]
        row = [sign for sign in left if (sign.box.y0 + sign.box.y1) / 2 < first.box.y1]
        order += sorted(row, key=lambda sign: sign.box.x0)
        left = [sign for sign in left if sign not in row]
    return order


def referring_phrases(scene: Scene, thing: Thing) -> list[str]:
    """List expressions that fit this thing and no other: "the small red fish", "the fish left of the house"."""
    found = []
    for level in LEVELS:
        own = name(thing, level)
        if sum(name(other, level) == own for other in scene.things) == 1 and f"the {own}" not in found:
            found.append(f"the {own}")
    if thing.word and sum(other.word == thing.word for other in scene.things) == 1:
        found.append(f"the sign that says {thing.word}")
    rivals = [rival for rival in scene.things if rival.kind == thing.kind]
    for other in scene.things:
        how, anchor = relation(scene, thing, other), shortest_name(scene, other)
        if how and anchor and the_one(scene, how, other, rivals) is thing:
            found.append(f"the {thing.kind} {how} the {anchor}")
    return found


# ---- captions


def caption(scene: Scene) -> str:
    """Name everything, left to right: "a red fish, two blue houses and a white sign"."""
    return listed([phrase for phrase, _ in groups(scene.things, "colour")])


def detailed_caption(scene: Scene) -> str:
    """Add sizes, the background, and up to two relations."""
    return " ".join((opening(scene), *_relation_sentences(scene, 2)))


def more_detailed_caption(scene: Scene) -> str:
    """Say in a paragraph where everything is, how it stands to one another, and what the signs say."""
    sentences = [f"The background is {scene.texture} {scene.ground}."]
    for thing in scene.things:
        spot = place(scene, thing)
        where = "in the middle" if spot == "middle" else f"at the {spot}"
        says = f" that says {thing.word}" if thing.word else ""
        sentences.append(f"There is {with_article(name(thing))} {where}{says}.")
    return " ".join((*sentences, *_relation_sentences(scene, 3)))


def opening(scene: Scene) -> str:
    """Give the detailed caption's first sentence: everything with its size, and the background."""
    phrases = [phrase for phrase, _ in groups(scene.things, "full")]
    return f"The image shows {listed(phrases)} on {with_article(scene.texture)} {scene.ground} background."


def _relation_sentences(scene: Scene, most: int) -> list[str]:
    """State relations between things that can be named alone: first what lies on what, then neighbours."""
    found = []
    for a in scene.things:
        for b in scene.things:
            how = relation(scene, a, b)
            if how == "on" or (how is not None and abs(a.number - b.number) == 1):
                found.append((how != "on", a.number, b.number, a, how, b))
    sentences: list[str] = []
    for _, _, _, a, how, b in sorted(found, key=lambda row: row[:3]):
        first, second = shortest_name(scene, a), shortest_name(scene, b)
        if first and second and len(sentences) < most:
            sentences.append(f"The {first} is {how} the {second}.")
    return sentences
