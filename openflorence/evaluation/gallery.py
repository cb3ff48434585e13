"""The images that are worth a look: the worst, the best, and those that two models answered differently.

What is true and what was said are drawn side by side, small enough for a page that holds all its pictures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from openflorence.contract.regions import Answer
from openflorence.errors import OpenFlorenceError
from openflorence.evaluation.compare import Apart, Comparison
from openflorence.evaluation.figures import percent
from openflorence.evaluation.results import Exhibit, Results
from openflorence.pages.pictures import cut, data_uri, draw_small
from openflorence.pages.pieces import Card, Gallery, Heading, Piece, Shot, Words, called

QUESTIONS = 3  # of one image that are shown


def worst_and_best(results: Results, most: int) -> list[Piece]:
    """Give the images that scored least and most in the headline figure, each group under its heading.

    most      images in each group; fewer when there are not twice as many.
    returns   one group where all images score the same, or none has a score of its own; nothing without exhibits.
    """
    shown: dict[str, list[Exhibit]] = {}
    for exhibit in results.exhibits:
        shown.setdefault(exhibit.image, []).append(exhibit)
    scores = _scores(results)
    ranked = sorted((name for name in shown if name in scores), key=lambda name: (scores[name], -_regions(shown[name])))
    if not shown or most < 1:
        return []
    figure = next(iter(results.measured), "")
    question = _same_question(results.exhibits)

    def group(title: str, names: Sequence[str]) -> list[Piece]:
        cards = [_card(name, shown[name], _in_words(figure, scores.get(name)), bool(question)) for name in names[:most]]
        return [Heading(title, 3), *_said_once(question), Gallery(cards)]

    if not ranked:
        return group("Pictures", list(shown))
    if scores[ranked[0]] == scores[ranked[-1]]:
        return group("Pictures" if len(ranked) == 1 else "Pictures; every image scores the same", ranked)
    most = min(most, len(ranked) // 2)
    # Of equal scores the images with most to find come first, on both sides: they tell more.
    best = sorted(ranked, key=lambda name: (-scores[name], -_regions(shown[name])))
    return [*group("Worst pictures", ranked), *group("Best pictures", best)]


def furthest_apart(comparison: Comparison) -> list[Piece]:
    """Give the images on which two models differ most, where they can be looked at."""
    shown = [one for one in comparison.apart if one.exhibits]
    question = _same_question(pair[0] for one in shown for pair in one.exhibits)
    figure = next(iter(comparison.differences))
    cards = [_apart_card(one, comparison.names, figure, bool(question)) for one in shown]
    return [Heading("Where they differ most", 3), *_said_once(question), Gallery(cards)] if cards else []


def _scores(results: Results) -> dict[str, float]:
    """What each image scores in the headline figure; an image that has no say is left out."""
    if not results.measured:
        return {}
    by_image = next(iter(results.measured.values())).by_image
    return {name: float(value) for name, value in zip(results.images, by_image, strict=True) if not np.isnan(value)}


def _same_question(exhibits: Iterable[Exhibit]) -> str:
    """The question if all were asked the same, else ""."""
    questions = {exhibit.question for exhibit in exhibits}
    return questions.pop() if len(questions) == 1 else ""


def _said_once(question: str) -> list[Piece]:
    return [Words(f"Asked: {question}", "asked")] if question else []


def _in_words(figure: str, score: float | None) -> str:
    return "" if score is None else f"{called(figure)} {percent(score)}"


def _regions(exhibits: Iterable[Exhibit]) -> int:
    return sum(len(exhibit.true.regions) for exhibit in exhibits)


# ---- cards

Sides = Sequence[tuple[str, Answer]]  # whose answer, the truth first, and what it is


def _card(name: str, exhibits: Sequence[Exhibit], score: str, same: bool) -> Card:
    """Show one image: its first questions, the truth and the answer of each."""
    asked = [(one, (("truth", one.true), ("answer", one.said))) for one in exhibits]
    return Card(name, score, *_asked(asked, same))


def _apart_card(apart: Apart, names: tuple[str, str], figure: str, same: bool) -> Card:
    """Show one image on which two models differ: the truth and what each said."""
    asked = [
        (one, (("truth", one.true), (names[0], one.said), (names[1], other.said))) for one, other in apart.exhibits
    ]
    score = f"{called(figure)} {' → '.join(map(percent, apart.values))}"
    return Card(apart.image, score, *_asked(asked, same))


def _asked(asked: Sequence[tuple[Exhibit, Sides]], same: bool) -> tuple[list[Shot], list[tuple[str, str]]]:
    """The pictures of an image's first questions, and their words.

    same      all images were asked the same, which is said once.
    """
    shots: list[Shot] = []
    lines: list[tuple[str, str]] = []
    for exhibit, sides in asked[:QUESTIONS]:
        task = exhibit.true.task
        if not same:
            lines.append(("asked", exhibit.question))
        if task.form != "text":
            # The labels that are true have the same colours in all pictures of a question.
            labels = [cut(region.label) for region in exhibit.true.regions]
            for side, answer in sides:
                shots.append(_shot(exhibit, answer, f"{side}: {_count(answer)}{_flaws(answer)}", labels))
            continue
        if not shots or task.input == "region":  # one picture is enough, unless another place is asked about
            shots.append(_shot(exhibit, replace(exhibit.true, text=""), ""))
        lines += [(side, (answer.text or "(nothing)") + _flaws(answer)) for side, answer in sides]
    if len(asked) > QUESTIONS:
        lines.append(("not shown", f"{len(asked) - QUESTIONS} more questions about this image"))
    return shots, lines


def _count(answer: Answer) -> str:
    regions = len(answer.regions)
    return {0: "nothing", 1: "1 region"}.get(regions, f"{regions} regions")


def _flaws(answer: Answer) -> str:
    """Say what was wrong with an answer beside its content."""
    flaws = ["cut by a limit"] if answer.truncated else []
    flaws += [f"pieces that could not be read: {answer.invalid}"] if answer.invalid else []
    return f" ({', '.join(flaws)})" if flaws else ""


# ---- pictures


def _shot(exhibit: Exhibit, answer: Answer, caption: str, labels: Sequence[str] = ()) -> Shot:
    """Draw one answer; a picture that cannot be opened or drawn on is said, and the page goes on."""
    try:
        picture = exhibit.picture()
        drawn = draw_small(answer, picture, labels)
    except (OSError, OpenFlorenceError) as error:
        return Shot(caption, "", f"The picture cannot be shown: {error}")
    return Shot(caption, data_uri(drawn))
