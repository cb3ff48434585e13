"""Phrases for what is not there, on drawn scenes: how well presence tells them from phrases for what is.

scores = evaluate_absent(model, scenes=300)
scores.figure("find", "hard").value                # area under the ROC curve

Of each scene every task is asked for something that is there, for another kind of object altogether, and for a kind
that is there in a colour that it does not have there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openflorence.contract.regions import Answer, Box
from openflorence.data.chance import below, dice, pick, shuffled
from openflorence.data.mixture import FIRST_TRAINING_SEED
from openflorence.data.sentences import LEVELS, groups, name, referring_phrases
from openflorence.data.words import SIGN, listed, with_article
from openflorence.data.world import Scene, Thing, WorldConfig, draw_scene
from openflorence.errors import BadConfig
from openflorence.evaluation.drawn import WORLD
from openflorence.evaluation.metrics import Figure, image_weights, middle_half
from openflorence.evaluation.places import bounds
from openflorence.evaluation.results import ROUNDS
from openflorence.model.predict import DEFAULT_OPTIONS, AskOptions, Florence, Request, View
from openflorence.model.presence import BLANK, Sought, presence

Kind = Literal["present", "other", "hard"]
KINDS: tuple[Kind, ...] = ("present", "other", "hard")
POINTING = ("ground", "find", "segment")  # the tasks that point at what they are asked for


@dataclass(frozen=True)
class Posed:
    """One phrase, and the question that it stands in."""

    task: str
    kind: Kind
    text: str  # the caption of "ground", else the phrase
    phrase: str


@dataclass(frozen=True)
class Judged:
    """What a model thinks of one phrase."""

    row: int  # of its scene
    posed: Posed
    log_odds: float


@dataclass(frozen=True)
class AbsentScores:
    """Everything that was asked, and all it takes to repeat it."""

    scenes: int
    seed: int  # of the first scene; the others follow
    world: WorldConfig
    options: AskOptions
    judged: tuple[Judged, ...]
    seconds: float

    def figure(self, task: str | None = None, kind: str | None = None) -> Figure:
        """Area under the ROC curve, of one task or of all, against one kind of absent phrase or against all.

        returns   its n counts phrases, present and absent ones.
        """
        some = [one for one in self.judged if task in (None, one.posed.task)]
        here = [one for one in some if one.posed.kind == "present"]
        gone = [one for one in some if one.posed.kind != "present" and kind in (None, one.posed.kind)]
        odds = [np.array([one.log_odds for one in group]) for group in (here, gone)]
        if not here or not gone:
            return Figure(None, None, len(here) + len(gone))
        weights = image_weights(self.scenes, ROUNDS).astype(float)
        draws = roc_areas(*odds, *(weights[:, [one.row for one in group]] for group in (here, gone)))
        return Figure(roc_area(*odds), middle_half(draws[~np.isnan(draws)]), len(here) + len(gone))


def evaluate_absent(
    model: Florence,
    scenes: int = 300,
    seed: int = 0,
    tasks: Sequence[str] = POINTING,
    options: AskOptions = DEFAULT_OPTIONS,
    advance: Callable[[], object] | None = None,
    world: WorldConfig = WORLD,
) -> AbsentScores:
    """Ask a model for what is there and for what is not, and judge what it makes of its own answers.

    scenes, seed  scenes `seed` up to `seed + scenes` are drawn, all below FIRST_TRAINING_SEED.
    tasks         some of POINTING.
    advance       called once a scene.
    raises        BadConfig for no scenes, for scenes that training may have seen, or for a task that does not point.
    """
    if scenes < 1 or seed < 0 or seed + scenes > FIRST_TRAINING_SEED:
        raise BadConfig(
            f"scenes {seed} to {seed + scenes}: give 1 or more, from seed 0 on and below {FIRST_TRAINING_SEED}, "
            "where training begins"
        )
    if not tasks or not set(tasks) <= set(POINTING):
        raise BadConfig(f"tasks {tuple(tasks)}: only {', '.join(POINTING)} point at what they are asked for")
    start, blank = time.perf_counter(), model.open(BLANK)
    judged: list[Judged] = []
    for row in range(scenes):
        scene = draw_scene(seed + row, world)
        judged += [Judged(row, *one) for one in _judge(model, scene, tasks, options, blank)]
        if advance is not None:
            advance()
    return AbsentScores(scenes, seed, world, options, tuple(judged), time.perf_counter() - start)


def _judge(
    model: Florence, scene: Scene, tasks: Sequence[str], options: AskOptions, blank: View
) -> Iterator[tuple[Posed, float]]:
    posed = pose_phrases(scene, tasks)
    answers = model.predict_many([Request(scene.image, one.task, one.text) for one in posed], options, len(posed))
    sought = [Sought(one.phrase, found(answer, one.phrase)) for one, answer in zip(posed, answers, strict=True)]
    view = model.open(scene.image)
    there = presence(
        model.network, model.checkpoint.text, view.image_tokens, blank.image_tokens, scene.image_wh, sought
    )
    return ((one, judged.log_odds) for one, judged in zip(posed, there, strict=True))


def found(answer: Answer, phrase: str) -> list[Box]:
    """Boxes of an answer that stand for a phrase; outlines have no labels, all of them do."""
    return bounds([one for one in answer.regions if answer.task.name == "segment" or one.label.strip() == phrase])


# ---- what is asked


def pose_phrases(scene: Scene, tasks: Sequence[str] = POINTING) -> list[Posed]:
    """Ask of a scene what is there and what is not, the same at every call; every task and kind has its own dice.

    returns   `find` by kind or by colour and kind; `ground` among up to two phrases that are true; `segment` by
              expressions that fit one thing, relations among them. A scene without such a thing, or whose things come
              in every colour, leaves a phrase out.
    """
    posed = []
    for task in tasks:
        for kind in KINDS:
            rng = dice((scene.seed, POINTING.index(task), KINDS.index(kind)))
            one = _POSERS[task](scene, kind, rng)
            if one is not None:
                posed.append(Posed(task, kind, *one))
    return posed


def _pose_find(scene: Scene, kind: Kind, rng: np.random.Generator) -> tuple[str, str] | None:
    level = pick(rng, LEVELS[:2]) if kind != "hard" else "colour"
    phrase = _named(scene, pick(rng, scene.things), kind, level, rng)
    return None if phrase is None else (phrase, phrase)


def _pose_ground(scene: Scene, kind: Kind, rng: np.random.Generator) -> tuple[str, str] | None:
    level = pick(rng, LEVELS) if kind != "hard" else pick(rng, LEVELS[1:])
    (phrase, alike), *rest = shuffled(rng, groups(scene.things, level))
    if kind != "present":
        named = _named(scene, alike[0], kind, level, rng)
        if named is None:
            return None
        phrase = with_article(named)
    others = [other for other, _ in rest][: below(rng, 3)]
    return listed(shuffled(rng, [phrase, *others])), phrase


def _pose_segment(scene: Scene, kind: Kind, rng: np.random.Generator) -> tuple[str, str] | None:
    for thing in shuffled(rng, scene.things):
        phrases = referring_phrases(scene, thing)
        if kind == "hard":
            phrases = [f"the {named}" for level in LEVELS[1:] if (named := _named(scene, thing, kind, level, rng))]
        if phrases:
            phrase = pick(rng, phrases)
            if kind == "other":
                phrase = phrase.replace(f" {thing.kind}", f" {_other_kind(scene, rng)}", 1)
            return phrase, phrase
    return None


_POSERS: dict[str, Callable[[Scene, Kind, np.random.Generator], tuple[str, str] | None]] = {
    "find": _pose_find,
    "ground": _pose_ground,
    "segment": _pose_segment,
}


def _named(scene: Scene, thing: Thing, kind: Kind, level: str, rng: np.random.Generator) -> str | None:
    """Name a thing, or the same with another kind or colour; None when the scene has its kind in every colour."""
    if kind == "present":
        return name(thing, level)
    size = thing.size if level == "full" else ""
    if kind == "other":
        other = _other_kind(scene, rng)
        colour = pick(rng, scene.config.colours) if level != "kind" else ""
        return " ".join(word for word in (size if other != SIGN else "", colour, other) if word)
    here = {one.colour for one in scene.things if one.kind == thing.kind}
    colours = [colour for colour in scene.config.colours if colour not in here]
    return " ".join(word for word in (size, pick(rng, colours), thing.kind) if word) if colours else None


def _other_kind(scene: Scene, rng: np.random.Generator) -> str:
    here = {thing.kind for thing in scene.things}
    return str(pick(rng, [kind for kind in (*scene.config.kinds, SIGN) if kind not in here]))


# ---- the figure


def roc_area(present: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    """How often a present phrase scores above an absent one, ties half: the area under the ROC curve.

    present, absent  scores, at least one of each.
    source           Mann and Whitney 1947; Hanley and McNeil 1982 for the area.
    """
    return float(roc_areas(present, absent, np.ones((1, len(present))), np.ones((1, len(absent))))[0])


def roc_areas(
    present: NDArray[np.float64],
    absent: NDArray[np.float64],
    present_weights: NDArray[np.float64],
    absent_weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The same where every score counts a number of times: (rounds,).

    present_weights, absent_weights  (rounds, scores), 0 or more.
    returns                          NaN for a round in which one side counts nothing.
    """
    order = np.argsort(absent)
    below_ = np.pad(np.cumsum(absent_weights[:, order], axis=1), ((0, 0), (1, 0)))  # weight of the first i scores
    fewer, most = (np.searchsorted(absent[order], present, side) for side in ("left", "right"))
    wins = (below_[:, fewer] + below_[:, most]) / 2  # ranks: what lies below, and half of what is equal
    pairs = present_weights.sum(axis=1) * below_[:, -1]
    return np.divide((present_weights * wins).sum(axis=1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
