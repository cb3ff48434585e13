"""The published parser, losses included, so that a comparison with the published system compares models only.

It drops accents, phrases with a newline or a `<`, and 72 common words; it shifts boxes that have no label, keeps
`</s>` in the first line of text, and believes any number. `answers.py` holds the reader that does none of this.
Source: the post-processor shipped with microsoft/Florence-2-*, in 32-bit arithmetic.
"""

import re
from collections.abc import Iterator

from openflorence.contract.locations import published_px
from openflorence.contract.regions import Box, Point, Region
from openflorence.contract.tasks import AnswerForm

# Phrases that phrase grounding drops, compared exactly after trimming.
NOT_GROUNDED = frozenset(
    re.findall(
        r"[^,\n]+",
        """it,I,me,mine,you,your,yours,he,him,his,she,her,hers,they,them,their,theirs,one,oneself,we,us,our,ours,its
myself,yourself,himself,herself,itself,ourselves,yourselves,themselves,this,that,these,those
who,whom,whose,which,what,all,another,any,anybody,anyone,anything,each,everybody,everyone,everything
few,many,nobody,none,several,some,somebody,someone,something,each other,one another
the image,image,images,the,a,an,a group,other objects,lots,a set""",
    )
)

_MARKS = r"<loc_\d+>|<sep>|<poly>|</poly>"
_LABELLED_BOXES = re.compile(r"[^<]+(?:<loc_\d+>){4,}")
_BARE_BOXES = re.compile(r"(?:<loc_\d+>){4,}")
_LABELLED_POLYGONS = re.compile(rf"[^<]+(?:{_MARKS}){{4,}}")
_BARE_POLYGONS = re.compile(rf"(?:{_MARKS}){{4,}}")
_LABEL = re.compile(r"\s*(.*?)(?=</?(?:od|box|bbox)>|<loc_)")
_POLYGON_LABEL = re.compile(r"\s*(.*?)(?=</?(?:od|box|bbox)>|<loc_|<poly>)")
_BOX = re.compile(r"<loc_(\d+)>" * 4)
_LINE = re.compile(r"(.+?)" + r"<loc_(\d+)>" * 8)
_INSTANCE = re.compile(r"<poly>(.*?)</poly>")
_RING = re.compile(r"((?:<loc_\d+>)+)(?:<sep>|$)")
_BIN = re.compile(r"<loc_(\d+)>")


def published_text(raw: str) -> str:
    """Give a text answer as published: without `<s>` and `</s>`; padding and locations stay."""
    return raw.replace("<s>", "").replace("</s>", "")


def published_regions(
    raw: str, form: AnswerForm, image_wh: tuple[int, int], quad_area: float = 0.0
) -> tuple[Region, ...]:
    """Read the regions of an answer exactly as published.

    raw        the decoded text with its special tokens.
    quad_area  lines of text smaller than this part of the image are dropped; it was 0.01 until July 2024.
    """
    if form == "quads":
        return tuple(_quads(raw.replace("<s>", ""), image_wh, quad_area))
    text = published_text(raw).replace("<pad>", "")
    if form == "polygons":
        return tuple(_polygons(text, _BARE_POLYGONS, image_wh))
    if form == "boxes_or_polygons" and "<poly>" in text:
        return tuple(_polygons(text, _LABELLED_POLYGONS, image_wh))
    regions = _boxes(text, _BARE_BOXES if form == "bare_boxes" else _LABELLED_BOXES, image_wh, form == "phrases")
    return tuple(regions)


def _boxes(text: str, chunks: re.Pattern[str], image_wh: tuple[int, int], filtered: bool) -> Iterator[Region]:
    for chunk in chunks.findall(text):
        label = _LABEL.match(chunk)
        if label is None or (filtered and label[0].strip() in NOT_GROUNDED):
            continue
        plain = label[0].strip().encode("ascii", "ignore").decode("ascii")
        for bins in _BOX.findall(chunk):
            top_left, bottom_right = _points(bins, image_wh)
            yield Region(plain, box=Box(*top_left, *bottom_right))


def _quads(text: str, image_wh: tuple[int, int], smallest: float) -> Iterator[Region]:
    for line, *bins in _LINE.findall(text):
        a, b, c, d = _points(bins, image_wh)
        if smallest <= 0 or _open_area(a, b, c, d) >= image_wh[0] * image_wh[1] * smallest:
            yield Region(line, quad=(a, b, c, d))


def _open_area(a: Point, b: Point, c: Point, d: Point) -> float:
    """Give the published area of a quad: the closing edge is left out."""
    return abs(sum(p.x * q.y - q.x * p.y for p, q in ((a, b), (b, c), (c, d)))) / 2


def _polygons(text: str, chunks: re.Pattern[str], image_wh: tuple[int, int]) -> Iterator[Region]:
    for chunk in chunks.findall(text):
        label = _POLYGON_LABEL.match(chunk)
        if label is None:
            continue
        whole = "<poly>" not in chunk or "</poly>" not in chunk
        for instance in [chunk] if whole else _INSTANCE.findall(chunk):
            rings = tuple(_points(_BIN.findall(ring), image_wh) for ring in _RING.findall(instance))
            if rings:
                yield Region(label[0].strip(), polygons=rings)


def _points(bins: list[str] | tuple[str, ...], image_wh: tuple[int, int]) -> tuple[Point, ...]:
    """Give the points of a run of bins; an odd last one is dropped, and bins past the last are believed."""
    width, height = image_wh
    return tuple(
        Point(published_px(int(x[:9]), width), published_px(int(y[:9]), height))
        for x, y in zip(bins[0::2], bins[1::2], strict=False)
    )
