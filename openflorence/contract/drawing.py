"""Answers as supervision detections, and as pictures.

An answer is only looked at here, never made: its class is defined in a file below this one.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from openflorence.contract.locations import bins_to_box
from openflorence.errors import BadImage

# Dark enough for white letters, apart enough for neighbours.
_COLOURS = [
    "#2563eb",
    "#dc2626",
    "#059669",
    "#7c3aed",
    "#c2410c",
    "#0e7490",
    "#be185d",
    "#4d7c0f",
    "#854d0e",
    "#475569",
]
_PAPER, _INK = "#f8fafc", "#0f172a"
_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "NotoSans-Regular.ttf")
_SMALLEST_SIDE = 480  # a smaller picture is enlarged first: letters on 96 px would cover it
_LABEL_LETTERS = 40  # per line
_MANY = 16  # regions: beyond these, labels at full size would cover the picture
_SMALLEST_LETTER = 9  # px; smaller ones cannot be read


def to_detections(regions: Sequence[Any], image_wh: tuple[int, int], scale: int = 1, labels: Sequence[str] = ()) -> Any:
    """Give regions as supervision.Detections; see `Answer.to_detections`.

    scale    how many times larger than the original the picture is that the detections go with.
    labels   the first classes, in this order, so that several answers number theirs alike.
    """
    import supervision as sv

    placed = [region for region in regions if region.bounds is not None]
    names = [region.label for region in placed]
    classes = {name: place for place, name in enumerate(dict.fromkeys((*labels, *names)))}
    scores = [region.score for region in placed]
    cut = any(region.polygons for region in placed)
    wh = image_wh[0] * scale, image_wh[1] * scale
    data: dict[str, Any] = {"class_name": np.array(names, dtype=str)}
    if placed and all(region.quad for region in placed):
        # Twice: our name, and the name that supervision's oriented boxes look for.
        data["quad"] = np.array([region.quad for region in placed], dtype=np.float32) * scale
        data["xyxyxyxy"] = data["quad"]
    return sv.Detections(
        xyxy=np.array([region.bounds for region in placed], dtype=np.float32).reshape(-1, 4) * scale,
        mask=np.stack([_mask(region, wh, scale) for region in placed]) if cut else None,
        confidence=None if not placed or None in scores else np.array(scores, dtype=np.float32),
        class_id=np.array([classes[name] for name in names], dtype=int),
        data=data,
    )


def draw(answer: Any, letter_px: int | None = None, labels: Sequence[str] = ()) -> Any:
    """Give the picture with the answer drawn on it; see `Answer.draw`.

    letter_px  height of the letters; by the size of the picture unless given, and smaller where there are many regions.
    labels     take the first colours, in this order, so that several answers have the same colours.
    """
    picture, scale = _canvas(answer)
    crowd = max(1.0, math.sqrt(len(answer.regions) / _MANY))
    letter_px = letter_px or max(_SMALLEST_LETTER, round(max(13, max(picture.size) / 50) / crowd))
    if answer.regions:
        picture = _draw_regions(picture, answer, scale, letter_px, labels)
    elif answer.task.form == "text":
        if answer.task.input == "region":
            _outline_input(picture, answer, scale)
        picture = _add_strip(picture, answer.text, letter_px + letter_px // 4)
    return picture


def _canvas(answer: Any) -> tuple[Any, int]:
    """Give a copy of the picture to draw on, and how many times it was enlarged."""
    image = answer.image
    if image is None:
        raise BadImage(
            "this answer carries no image, so there is nothing to draw on; "
            "attach the upright original: dataclasses.replace(answer, image=image).draw()"
        )
    if tuple(image.size) != tuple(answer.image_wh):
        raise BadImage(
            f"this answer is about an image of {answer.image_wh} px, the attached one has {image.size}; "
            "attach the upright original, not a resized or unrotated copy"
        )
    scale = max(1, math.ceil(_SMALLEST_SIDE / max(image.size)))
    picture = image.convert("RGB")
    return picture.resize((image.width * scale, image.height * scale)) if scale > 1 else picture.copy(), scale


def _draw_regions(picture: Any, answer: Any, scale: int, letter_px: int, first: Sequence[str]) -> Any:
    import supervision as sv

    found = to_detections(answer.regions, answer.image_wh, scale, first)
    # Regions of one label share a colour; regions without any label are told apart by their place in the answer.
    by = sv.ColorLookup.CLASS if any(found["class_name"]) else sv.ColorLookup.INDEX
    palette = sv.ColorPalette.from_hex(_COLOURS)
    look: dict[str, Any] = {"color": palette, "color_lookup": by}
    thickness = _line_px(picture)
    if found.mask is not None:
        picture = sv.MaskAnnotator(**look, opacity=0.4).annotate(picture, found)
        picture = sv.PolygonAnnotator(**look, thickness=thickness).annotate(picture, found)
    elif "quad" in found.data:
        picture = sv.OrientedBoxAnnotator(**look, thickness=thickness).annotate(picture, found)
    else:
        picture = sv.BoxAnnotator(**look, thickness=thickness).annotate(picture, found)
    labels = [_label(region) for region in answer.regions if region.bounds is not None]
    named = np.array([bool(label) for label in labels])
    if not named.any():
        return picture
    shown = [label for label in labels if label]
    annotator = sv.RichLabelAnnotator(
        **look,
        font_path=_best_font("".join(shown)),
        font_size=letter_px,
        text_padding=max(1 if letter_px < 13 else 3, letter_px // 4),
        border_radius=max(2, letter_px // 5),
        max_line_length=_LABEL_LETTERS,
        smart_position=True,
    )
    return annotator.annotate(picture, found[named], labels=shown)


def _outline_input(picture: Any, answer: Any, scale: int) -> None:
    """Draw the box that a region task was asked about."""
    from PIL import ImageDraw

    bins = [int(digits) for digits in re.findall(r"<loc_(\d+)>", answer.input or "")]
    if len(bins) == 4:
        corners = [value * scale for value in bins_to_box(bins, answer.image_wh)]
        ImageDraw.Draw(picture).rectangle(corners, outline=_COLOURS[0], width=_line_px(picture))


def _line_px(picture: Any) -> int:
    return max(2, round(max(picture.size) / 320))


def _label(region: Any) -> str:
    words = _printable(" ".join(region.label.split()))
    return words if region.score is None else f"{words} {region.score:.2f}".strip()


def _mask(region: Any, wh: tuple[int, int], scale: int) -> np.ndarray:
    """Give the pixels a region covers: inside any of its rings, or inside its box when it has none."""
    import supervision as sv

    x0, y0, x1, y1 = region.bounds
    rings = region.polygons or (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),)
    mask = np.zeros((wh[1], wh[0]), dtype=bool)
    for ring in rings:
        mask |= sv.polygon_to_mask(np.floor(np.array(ring) * scale).astype(np.int32), wh).astype(bool)
    return mask


def _add_strip(picture: Any, text: str, letter_px: int) -> Any:
    """Give the picture with its text on a strip of paper below it."""
    from PIL import Image, ImageDraw, ImageFont

    path = _best_font(text)
    font = ImageFont.truetype(path, letter_px) if path else ImageFont.load_default(letter_px)
    lines = [
        line for part in text.splitlines() for line in _wrap(_printable(part), font, picture.width - 2 * letter_px)
    ]
    line_px = letter_px + letter_px // 2
    strip_px = len(lines) * line_px + 2 * letter_px - letter_px // 2 if lines else 0
    sheet = Image.new("RGB", (picture.width, picture.height + strip_px), _PAPER)
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for place, line in enumerate(lines):
        pen.text((letter_px, picture.height + letter_px + place * line_px), line, fill=_INK, font=font, anchor="la")
    return sheet


def _wrap(text: str, font: Any, width_px: int) -> list[str]:
    """Break text into lines that fit: between words where there are any, inside a word that is too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width_px:
                lines.append("")
            lines[-1] += letter
    return lines


def _best_font(text: str) -> str | None:
    """Name the installed font that lacks the fewest letters of a text; None is the one Pillow carries."""
    letters = {letter for letter in text if not letter.isspace()}
    if text.isascii():
        return None
    lacking = {path: _lacking(path, letters) for path in (None, *_FONTS)}
    return min(lacking, key=lambda path: lacking[path])


def _lacking(path: str | None, letters: Iterable[str]) -> float:
    from PIL import ImageFont

    try:
        font = ImageFont.truetype(path, 16) if path else ImageFont.load_default(16)
    except OSError:  # not installed here
        return math.inf
    hollow = bytes(font.getmask("\U0010fffe"))  # no letter, so drawn as the font draws what it lacks
    return sum(bytes(font.getmask(letter)) == hollow for letter in letters)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ")
