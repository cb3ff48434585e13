"""The four shapes: boxes, points, quads, polygons. Pixels of the upright original image, x before y, floats."""

from typing import NamedTuple


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
