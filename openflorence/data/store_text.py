"""What a published round says of one image: a short JSON text, and back.

It is the row of a record without its image, with numbers rounded and outlines spelt as steps: `rings` holds, for each
ring, x and y of the first point and then of each step to the next, all in hundredths of a pixel. Measured on drawn
scenes: outlines are three fifths of all that is written, and a sixth less is written this way.
"""

import json
from collections.abc import Sequence
from typing import Any

from openflorence.contract.records import Record, record_to_row
from openflorence.data.store_rows import Plain

_DIGITS = 2  # of coordinates: a hundredth of a pixel, far below a bin; of scores twice as many
_PARTS = 10**_DIGITS


def record_to_text(record: Record) -> str:
    """Spell what a record says."""
    row = rounded(record_to_row(record))
    for region in row.get("regions", ()):
        if "polygons" in region:
            region["rings"] = [_to_steps(ring) for ring in region.pop("polygons")]
    said = {name: value for name, value in row.items() if name not in ("image", "image_wh")}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def text_to_row(text: str | None) -> Plain:
    """Read what record_to_text gave, as the row of a record without its image; an empty one for None.

    promise   record_from_row of it, with image and size, is the record, its numbers rounded. Outlines that are spelt
              as `polygons`, as earlier versions did, are read too.
    """
    row: Plain = json.loads(text or "{}")
    for region in row.get("regions", ()):
        if "rings" in region:
            region["polygons"] = [_from_steps(steps) for steps in region.pop("rings")]
    return row


def rounded(value: Any, digits: int = _DIGITS) -> Any:
    """Round every number: 34.0 becomes 34, 34.2449 becomes 34.24; scores keep twice as many digits."""
    if isinstance(value, float):
        number = round(value, digits)
        return int(number) if number.is_integer() else number
    if isinstance(value, dict):
        return {key: rounded(item, _DIGITS * 2 if key == "score" else digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def _to_steps(ring: Sequence[Sequence[float]]) -> list[int]:
    steps: list[int] = []
    last_x = last_y = 0
    for x, y in ((round(x * _PARTS), round(y * _PARTS)) for x, y in ring):
        steps += (x - last_x, y - last_y)
        last_x, last_y = x, y
    return steps


def _from_steps(steps: Sequence[int]) -> list[list[float]]:
    ring: list[list[float]] = []
    x = y = 0
    for step_x, step_y in zip(steps[::2], steps[1::2], strict=True):
        x, y = x + step_x, y + step_y
        ring.append([x / _PARTS, y / _PARTS])
    return ring
