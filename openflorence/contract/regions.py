"""What an answer is made of: boxes, quads, polygons, regions, and the answer itself.

Everything here is in pixels of the upright original image, x before y, floats. Sizes are (width, height).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from openflorence.contract.tasks import Task


class Box(NamedTuple):
    """An upright rectangle: left, top, right, bottom in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


class Point(NamedTuple):
    """One vertex in pixels."""

    x: float
    y: float


Quad = tuple[Point, Point, Point, Point]  # four corners from the top left, clockwise in the text's own frame
Polygon = tuple[Point, ...]  # one ring, clockwise, not closed by repeating the first vertex


@dataclass(frozen=True)
class Region:
    """One place in the image and what it is called. Which geometry is set follows from the task's answer form."""

    label: str = ""  # category, phrase, description or line of text; "" when the task names nothing
    box: Box | None = None
    quad: Quad | None = None
    polygons: tuple[Polygon, ...] = ()  # one instance; several rings when it is cut in parts
    score: float | None = None  # probability in 0..1; None when the decoder gave none


@dataclass(frozen=True)
class Answer:
    """What came back for one image and one task. Empty answers are answers: they know their image size."""

    task: Task
    image_wh: tuple[int, int]  # width, height in pixels of the upright original
    text: str = ""  # the words: a caption, or the labels of the regions
    regions: tuple[Region, ...] = ()
    raw: str = ""  # the decoded text with location tokens, without <s>, </s>, <pad>
    truncated: bool = False  # the token limit cut the answer
    invalid: int = 0  # pieces of the raw text that could not be read, or boxes whose corners were swapped
    input: str | None = None  # what was asked with the task: the text, or the region as location tokens
    image: Any = field(default=None, repr=False, compare=False)  # PIL image the answer is about, for drawing
