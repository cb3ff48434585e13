"""An answer drawn on its picture, small enough for a page that holds all its pictures."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from openflorence.contract.drawing import draw
from openflorence.contract.regions import Answer, Box, Point, Region
from openflorence.contract.tasks import find_task

SIDE_PX = 480  # longest side of a picture on the page
LABEL_LETTERS = 60  # of one label that are drawn
LETTER_PX = 17  # so that three pictures abreast, or one on a phone, can still be read
QUALITY = 85  # of JPEG
_GAP_PX = 12  # between panels


def draw_small(answer: Answer, picture: Image.Image, labels: Sequence[str] = ()) -> Image.Image:
    """Draw an answer on its picture, which is brought to the size of pictures on a page.

    labels    take the first colours, in this order, so that those of several pictures are alike.
    raises    OpenFlorenceError when the picture has another size than the answer is for.
    """
    return draw(_fitted(answer, picture), LETTER_PX, labels)


def draw_sheet(panels: Sequence[tuple[str, Answer]], picture: Image.Image) -> Image.Image:
    """Draw answers about one picture side by side, two in a row, each with its caption; a single one without.

    panels    at least one: its caption, and the answer.
    """
    drawn = [draw(replace(answer, image=picture)) for _, answer in panels]
    if len(drawn) == 1:
        return drawn[0]
    named = zip(panels, drawn, strict=True)
    cells = [draw(Answer(find_task("caption"), one.size, caption, image=one)) for (caption, _), one in named]
    wide, high = (max(cell.size[side] for cell in cells) for side in (0, 1))
    sheet = Image.new("RGB", (2 * wide + _GAP_PX, -(-len(cells) // 2) * (high + _GAP_PX) - _GAP_PX), "white")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % 2 * (wide + _GAP_PX), place // 2 * (high + _GAP_PX)))
    return sheet


def _fitted(answer: Answer, picture: Image.Image) -> Answer:
    """The answer on a picture of the page's size, its regions moved along, its labels short enough to be read."""
    regions = tuple(replace(region, label=cut(region.label)) for region in answer.regions)
    if picture.size != tuple(answer.image_wh):  # which is for draw to refuse
        return replace(answer, regions=regions, image=picture)
    factor = SIDE_PX / max(picture.size)
    wh = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    scale = (wh[0] / picture.width, wh[1] / picture.height)
    fitted = picture.convert("RGB").resize(wh, Image.Resampling.LANCZOS)
    return replace(answer, image_wh=wh, regions=tuple(_moved(region, scale) for region in regions), image=fitted)


def _moved(region: Region, scale: tuple[float, float]) -> Region:
    def points(ring: Iterable[Point]) -> tuple[Point, ...]:
        return tuple(Point(x * scale[0], y * scale[1]) for x, y in ring)

    box = region.box and Box(*(value * scale[i % 2] for i, value in enumerate(region.box)))
    quad: Any = region.quad and points(region.quad)
    return replace(region, box=box, quad=quad, polygons=tuple(points(ring) for ring in region.polygons))


def cut(label: str) -> str:
    """Shorten a label so that it can be read in a picture."""
    return label if len(label) <= LABEL_LETTERS else f"{label[:LABEL_LETTERS].rstrip()}…"


def data_uri(picture: Image.Image) -> str:
    """Give a picture as a data URI, as PNG or JPEG, whichever is smaller.

    returns   as PNG what was drawn, with its edges as they are; photographs as JPEG without the halving of colours that
              blurs thin lines.
    """
    files = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": QUALITY, "subsampling": 0})):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, kind, **options)
        files[kind] = buffer.getvalue()
    kind = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"
