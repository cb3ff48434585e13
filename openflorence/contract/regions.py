"""What an answer is made of: regions, and the answer itself.

Everything here is in pixels of the upright original image, x before y, floats. Sizes are (width, height).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openflorence.contract.drawing import draw, to_detections
from openflorence.contract.locations import as_published
from openflorence.contract.shapes import Box, Point, Polygon, Quad
from openflorence.contract.tasks import Task

__all__ = ["Answer", "Box", "Point", "Polygon", "Quad", "Region"]


@dataclass(frozen=True)
class Region:
    """One place in the image and what it is called. Which geometry is set follows from the task's answer form."""

    label: str = ""  # category, phrase, description or line of text; "" when the task names nothing
    box: Box | None = None
    quad: Quad | None = None
    polygons: tuple[Polygon, ...] = ()  # one instance; several rings when it is cut in parts
    score: float | None = None  # how sure, in 0..1: of label and place together; None when the decoder gave none
    label_score: float | None = None  # probability of the tokens of the label; None where there is no label
    place_score: float | None = None  # geometric mean of its locations' probabilities: what the published code scores
    spread_px: tuple[float, ...] | None = None  # standard deviation of each coordinate, in the order it is written

    @property
    def points(self) -> tuple[Point, ...]:
        """Every vertex of the region; two corners for a box."""
        if self.box is not None:
            return Point(*self.box[:2]), Point(*self.box[2:])
        return (self.quad or ()) + tuple(point for ring in self.polygons for point in ring)

    @property
    def bounds(self) -> Box | None:
        """The smallest upright box around the region; None when no geometry is set."""
        if not self.points:
            return None
        xs, ys = zip(*self.points, strict=True)
        return Box(min(xs), min(ys), max(xs), max(ys))


@dataclass(frozen=True)
class Answer:
    """What came back for one image and one task. Empty answers are answers: they know their image size."""

    task: Task
    image_wh: tuple[int, int]  # width, height in pixels of the upright original
    text: str = ""  # the words: a caption, or the labels of the regions
    regions: tuple[Region, ...] = ()
    raw: str = ""  # the decoded text with location tokens, without <s>, </s>, <pad>
    truncated: bool = False  # something cut the answer before the network ended it
    cut: str = ""  # what cut it: "tokens", the limit of its length, or "regions", of their number; "" is not known
    score: float | None = None  # how sure of the text: geometric mean of its tokens' probabilities; None if not known
    logprob: float | None = None  # summed log-probability of all that was said, </s> included
    presence: tuple[tuple[str, float], ...] = ()  # phrases, and how probable it is that they are there; if asked for
    invalid: int = 0  # pieces of the raw text that could not be read, or boxes whose corners were swapped
    input: str | None = None  # what was asked with the task: the text, or the region as location tokens
    image: Any = field(default=None, repr=False, compare=False)  # PIL image the answer is about, for drawing

    def to_published(self, *, integers: bool = False) -> dict[str, Any]:
        """Give the answer in the published shape: one entry, from the task token to a string or to lists.

        integers  cut coordinates down to whole pixels, as the processor in the transformers library does.
        source    Published processor, `post_process_generation`; coordinates on bin centres are in 32 bits.
        """

        def flat(points: Iterable[Point]) -> list[float] | list[int]:
            values = [as_published(v, size) for p in points for v, size in zip(p, self.image_wh, strict=True)]
            return [int(value) for value in values] if integers else values

        def flat_rings(region: Region) -> list[list[float] | list[int]]:
            return [flat(ring) for ring in region.polygons]

        form = self.task.form
        if form == "text":
            return {self.task.token: self.text}
        labels = [region.label for region in self.regions]
        value: dict[str, Any]
        if form == "quads":
            value = {"quad_boxes": [flat(region.points) for region in self.regions], "labels": labels}
        elif form == "polygons":
            value = {"polygons": [flat_rings(region) for region in self.regions], "labels": labels}
        elif form == "boxes_or_polygons":
            cut = [region for region in self.regions if region.polygons]
            boxed = [region for region in self.regions if not region.polygons]
            value = {
                "bboxes": [flat(region.points) for region in boxed],
                "bboxes_labels": [region.label for region in boxed],
                "polygons": [flat_rings(region) for region in cut],
                "polygons_labels": [region.label for region in cut],
            }
        else:
            value = {"bboxes": [flat(region.points) for region in self.regions], "labels": labels}
            scores = [region.score for region in self.regions if region.score is not None]
            if form != "phrases" and scores and len(scores) == len(labels):
                value["scores"] = scores
        return {self.task.token: value}

    def to_detections(self) -> Any:
        """Give the regions as `supervision.Detections`, boxes in pixels of the upright original.

        A class is numbered by the first appearance of its label; the labels are in `data["class_name"]`, the corners
        of quads in `data["quad"]`. Confidence is there if every region has a score, masks if any has polygons; then
        a region without polygons is masked by its box. A text answer gives empty detections.
        """
        return to_detections(self.regions, self.image_wh)

    def draw(self) -> Any:
        """Give a PIL picture of the image with the answer on it, a text answer on a strip below.

        Pictures under 480 px are enlarged by a whole number first, so that the labels can be read.

        raises    BadImage if no image, or one of another size, is attached to the answer.
        """
        return draw(self)

    def as_row(self) -> dict[str, Any]:
        """Give the answer as plain values for one line of JSON; the caller adds the image's name and the time.

        Coordinates are rounded to a thousandth of a pixel, scores to four digits.
        """
        return {
            "width": self.image_wh[0],
            "height": self.image_wh[1],
            "task": self.task.name,
            "input": self.input,
            "text": self.text,
            "score": _score(self.score),
            "truncated": self.truncated,
            "cut": self.cut,
            **({"presence": {phrase: _score(value) for phrase, value in self.presence}} if self.presence else {}),
            "regions": [_region_row(region) for region in self.regions],
        }


def _region_row(region: Region) -> dict[str, Any]:
    def ring(points: Iterable[Point]) -> list[list[float]]:
        return [_rounded(point) for point in points]

    parts = {"label_score": region.label_score, "place_score": region.place_score}
    return {
        "label": region.label,
        "score": _score(region.score),
        **{name: _score(value) for name, value in parts.items() if value is not None},
        "box": None if region.box is None else _rounded(region.box),
        "quad": None if region.quad is None else ring(region.quad),
        "polygons": [ring(polygon) for polygon in region.polygons] or None,
    }


def _score(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded(values_px: Iterable[float]) -> list[float]:
    return [round(float(value), 3) for value in values_px]
