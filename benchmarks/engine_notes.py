"""Notes as a data engine stores them, for benchmarks of bytes: of drawn scenes, and as many as FLD-5B has an image."""

import pydoc_data.topics
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import cycle, islice
from typing import Any

import numpy as np
from PIL import Image

from openflorence.contract.records import GroundingNote, Level, Origin, PhraseNote, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.album import scene_record
from openflorence.data.notes import Notes
from openflorence.data.world import WorldConfig, draw_scene

SCENE_PX = 256  # a side of a drawn scene

# Florence-2 report, statistics of FLD-5B: of an image, how many texts, words in one, and phrases with places in it.
TEXTS: dict[Level, tuple[float, int, float]] = {
    "brief": (235 / 126, 8, 4.27),
    "detailed": (1, 32, 10.25),
    "more_detailed": (1, 71, 10.17),
}
REGIONS = 5.42  # each with a phrase and a brief text
IMAGE_WH = (640, 480)


def grainy(seed: int) -> bytes:
    """A drawn scene as JPEG, with grain: so it takes as much room as a photograph of its size."""
    pixels = draw_scene(seed, WorldConfig(side_px=SCENE_PX)).image.astype(np.float64)
    pixels += np.random.default_rng(seed).normal(0, 16.0, pixels.shape)
    file = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


def blank(number: int) -> bytes:
    """A PNG of IMAGE_WH without a picture, no two the same: notes are told apart by it, and their places lie in it."""
    bits = np.zeros((IMAGE_WH[1], IMAGE_WH[0]), bool)
    bits[0, :24] = [number >> place & 1 for place in range(24)]
    file = BytesIO()
    Image.fromarray(bits).save(file, "PNG")
    return file.getvalue()


def all_notes(seed: int) -> Notes:
    """All that is known of a scene: outlines, expressions and questions too."""
    known = scene_record(draw_scene(seed, WorldConfig(side_px=SCENE_PX)), str(seed))
    return Notes(known.texts, known.regions, known.groundings, known.questions, known.pairs, known.whole)


def specialist_notes(seed: int) -> Notes:
    """Three texts, boxes with names and descriptions, and a text with its phrases tied to boxes; all with scores."""
    dice, known = np.random.default_rng(seed), all_notes(seed)

    def scored(note: Any) -> Any:
        return replace(note, score=float(dice.random()))

    regions = [
        RegionNote(box=note.box, label=note.label, description=note.description, origin=note.origin)
        for note in known.regions
    ]
    return Notes(tuple(map(scored, known.texts)), tuple(map(scored, regions)), tuple(map(scored, known.groundings)))


def many_notes(number: int) -> Notes:
    """As many notes as FLD-5B has of an image, with numbers by chance, in English prose: Python's manual, cut up.

    promise   of four hundred images in turn, no two use the same stretch of the manual.
    """
    dice, words = np.random.default_rng(number), _prose(number)

    def place() -> Box:
        x, y = (np.sort(dice.random(2, np.float32)) * np.float32(side) for side in IMAGE_WH)
        return Box(float(x[0]), float(y[0]), float(x[1]), float(y[1]))

    def score() -> float:
        return float(dice.random(dtype=np.float32))  # as models give them

    def said(model: str) -> dict[str, Any]:
        return {"score": score(), "origin": Origin(source="models", model=model, version="2", round=1)}

    texts, groundings = [], []
    for level, (count, length, phrases) in TEXTS.items():
        for _ in range(_whole(count, dice)):
            text = " ".join(islice(words, length))
            texts.append(TextNote(text=text, level=level, **said("microsoft/Florence-2-large")))
            named = [
                PhraseNote(phrase=text[start:end], boxes=(place(),), span=(start, end), score=score())
                for start, end in _spans(text, _whole(phrases, dice), dice)
            ]
            groundings.append(GroundingNote(text=text, phrases=tuple(named), level=level, **said("grounder/large")))
    regions = [
        RegionNote(box=place(), label=next(words), description=" ".join(islice(words, 3)), **said("detector/large"))
        for _ in range(_whole(REGIONS, dice))
    ]
    return Notes(tuple(texts), tuple(regions), tuple(groundings))


def annotations(notes: Notes) -> int:
    """As the Florence-2 report counts them: texts, texts of regions, and phrases with their places."""
    regions = sum(bool(note.label) + bool(note.description) for note in notes.regions)
    return len(notes.texts) + regions + sum(len(note.phrases) for note in notes.groundings)


@cache
def _manual() -> tuple[str, ...]:
    return tuple(re.findall(r"[A-Za-z][a-z'-]*[.,;]?", " ".join(pydoc_data.topics.topics.values())))


def _prose(number: int) -> Iterator[str]:
    """Words of the manual, for each number from another place on."""
    words = _manual()
    return islice(cycle(words), number * 149 % len(words), None)


def _whole(mean: float, dice: np.random.Generator) -> int:
    """A whole number beside the mean, which is the mean on average."""
    return int(mean) + int(dice.random() < mean % 1)


def _spans(text: str, count: int, dice: np.random.Generator) -> list[tuple[int, int]]:
    """Where phrases of one or two words stand in a text."""
    starts = [match.span() for match in re.finditer(r"\S+", text)]
    chosen = sorted(dice.choice(len(starts) - 1, min(count, len(starts) - 1), replace=False))
    return [(starts[at][0], starts[at + int(dice.random() < 0.5)][1]) for at in chosen]
