"""Overlapping crops of one picture, asked one by one and answered as one: for more, or smaller, than one look shows.

boxes = plan_tiles(picture.size, 4)                        # about four, near to square
answer = ask_in_tiles(ask, picture, boxes)                 # ask: pictures -> their answers

Made for many small things. What is larger than a tile is put together from its parts, see contract/merging.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from PIL import Image

from openflorence.contract.answers import join_labels
from openflorence.contract.merging import merge_crops
from openflorence.contract.regions import Answer, Box
from openflorence.errors import BadConfig

Ask = Callable[[Sequence[Image.Image]], Sequence[Answer]]
Tiles = int | tuple[int, int]  # about how many, or (rows, columns)

OVERLAP = 0.25  # share of a tile's side that it has in common with its neighbour
_WIDEST = 0.5  # beyond this a tile would overlap its neighbour's neighbour
_SMALLEST_PX = 16  # side of a tile


def plan_tiles(image_wh: tuple[int, int], tiles: Tiles = 4, overlap: float = OVERLAP) -> tuple[Box, ...]:
    """Cut a picture into overlapping tiles.

    image_wh  width and height of the picture in pixels.
    tiles     (rows, columns); or about how many, then rows and columns are chosen so that tiles are near to square.
    overlap   share of a tile's side that it has in common with its neighbour, 0 to 0.5.
    returns   boxes in whole pixels, row by row; all of one size; together they cover the picture.
    raises    BadConfig for fewer than one tile, an overlap out of range, or tiles with a side under 16 px.
    """
    rows, columns = tiles if isinstance(tiles, tuple) else choose_grid(image_wh, tiles)
    if not 0 <= overlap <= _WIDEST:
        raise BadConfig(f"overlap of tiles is {overlap}; allowed is a share from 0 to {_WIDEST}")
    if rows < 1 or columns < 1:
        raise BadConfig(f"{rows} rows and {columns} columns of tiles; give one or more of each")
    spans_x, spans_y = _spans(image_wh[0], columns, overlap), _spans(image_wh[1], rows, overlap)
    side_px = min(spans_x[0][1], spans_y[0][1])
    if side_px < _SMALLEST_PX and (rows, columns) != (1, 1):
        raise BadConfig(
            f"{rows} rows and {columns} columns cut a picture of {image_wh[0]} x {image_wh[1]} px into tiles with a "
            f"side of {side_px} px; allowed are {_SMALLEST_PX} px or more: give fewer rows or columns"
        )
    return tuple(Box(x0, y0, x1, y1) for y0, y1 in spans_y for x0, x1 in spans_x)


def choose_grid(image_wh: tuple[int, int], about: int) -> tuple[int, int]:
    """Choose (rows, columns) for about so many tiles, so that these are near to square; (1, 1) for tiny pictures.

    raises    BadConfig for fewer than one tile.
    """
    if about < 1:
        raise BadConfig(f"about {about} tiles; give one or more, or (rows, columns)")
    width, height = image_wh
    if min(image_wh) < _SMALLEST_PX:
        return 1, 1
    side_px = max(math.sqrt(width * height / about), 2.0 * _SMALLEST_PX)
    rows, columns = max(1, round(height / side_px)), max(1, round(width / side_px))
    return min(rows, math.ceil(about / columns)), min(columns, math.ceil(about / rows))  # a strip has no half rows


def _spans(size: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """Where tiles of an axis begin and end: equally long, at steps as equal as whole pixels allow."""
    length = min(math.ceil(size / (count - (count - 1) * overlap)), size)
    starts = [round(place * (size - length) / max(count - 1, 1)) for place in range(count)]
    assert all(after <= before + length for before, after in pairwise(starts)), "tiles leave a gap"
    return [(start, start + length) for start in starts]


def ask_in_tiles(ask: Ask, picture: Image.Image, boxes: Sequence[Box]) -> Answer:
    """Ask one question about every tile of a picture and merge the answers.

    ask       gives the answer about each picture it gets, in order; the caller knows the task.
    picture   the upright original.
    boxes     of plan_tiles, or one's own: whole pixels inside the picture.
    returns   one answer in pixels of the picture, which it carries.
    raises    what `ask` raises, and what merge_crops does.
    """
    crops = [picture.crop((round(x0), round(y0), round(x1), round(y1))) for x0, y0, x1, y1 in boxes]
    answers = list(ask(crops))
    assert len(answers) == len(boxes), f"{len(boxes)} tiles, {len(answers)} answers"
    return replace(merge_crops(list(zip(boxes, answers, strict=True)), picture.size), image=picture)


def keep_surest(answer: Answer, most: int) -> Answer:
    """Keep so many regions of an answer, those of the highest scores, in their order; others were cut then."""
    if len(answer.regions) <= most:
        return answer
    ranked = sorted(range(len(answer.regions)), key=lambda place: -(answer.regions[place].score or 0.0))
    regions = tuple(answer.regions[place] for place in sorted(ranked[:most]))
    return replace(answer, regions=regions, text=join_labels(regions, answer.task), truncated=True, cut="regions")
