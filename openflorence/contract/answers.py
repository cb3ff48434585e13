"""Answer <-> target text: one writer and one reader, inverse to each other up to the bin, for every form.

    text                WORDS
    boxes, phrases      (LABEL BOX+)*                                BOX   four locations
    bare_boxes          BOX+
    quads               (LABEL QUAD)*                                QUAD  eight locations
    polygons            RING (<sep> RING)*                           RING  three or more pairs of locations
                        (<poly> RING (<sep> RING)* </poly>)*         when there are several instances
    boxes_or_polygons   (LABEL BOX | LABEL <poly> RING (<sep> RING)* </poly>)*

A label holds for all that follows, until the next label. Ours, not published: a `<sep>` outside <poly> ends the
label, so a region without one can follow a region with one. No published checkpoint says `<sep>` there.
Source: the processor shipped with microsoft/Florence-2-*, and its models' recorded answers.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from openflorence.contract.locations import (
    BINS,
    bins_to_box,
    bins_to_points,
    box_to_bins,
    check_points,
    points_to_bins,
    spell_all,
)
from openflorence.contract.published import published_regions, published_text
from openflorence.contract.regions import Answer, Polygon, Region
from openflorence.contract.tasks import Task, find_task
from openflorence.errors import BadRegion

CONTROLS = ("<s>", "<pad>", "</s>")  # frame an answer; never part of what it says
_PAIRS: tuple[str, ...] = ("od", "ocr", "cap", "ncap", "dcap", "grounding", "seg", "region_cap", "proposal", "poly")
_PAIRS += ("region_to_desciption",)  # misspelt as published
MARKERS = (*(f"<{slash}{name}>" for name in _PAIRS for slash in ("", "/")), "<sep>", "<and>", "<unk>", "<mask>")

# <loc_1000> is no token, but reads like one: a label may not hold it, and an answer that does is repaired.
_SPECIAL = re.compile("|".join(("<loc_[0-9]+>", *CONTROLS, *MARKERS)))
_PIECE = re.compile("((?:<loc_[0-9]+>)+|" + "|".join(MARKERS) + ")")
_CONTROL = re.compile("|".join(CONTROLS))
_LOCATION = re.compile("<loc_([0-9]+)>")
_BOX_BINS, _QUAD_BINS = 4, 8
_SMALLEST_RING = 3  # vertices


def write_answer(answer: Answer) -> str:
    """Write the text that the network should say, without <s> and </s>.

    raises    BadRegion if a region lacks the shape its task needs, is empty or outside the image, or if a label
              holds the spelling of a special token, which could not be told from the token.
    promise   read_answer gives back every label, trimmed, and every coordinate inside the image as its bin centre.
              bare_boxes and polygons name nothing: their labels are not written.
    """
    form = answer.task.form
    if form == "text":
        return _checked(answer.text, CONTROLS if answer.task.input == "free" else None)
    if form == "polygons":
        return _write_instances(answer)
    parts: list[str] = []
    last = ""
    for region in answer.regions:
        label = "" if form == "bare_boxes" else _checked(region.label)
        if label and (label != last or form in ("quads", "boxes_or_polygons")):
            parts.append(label)
        elif last and not label:
            parts.append("<sep>")
        parts.append(_write_shape(region, answer))
        last = label
    return "".join(parts)


def read_answer(
    raw: str,
    task: str | Task,
    image_wh: tuple[int, int],
    *,
    input: str | None = None,
    truncated: bool = False,
    image: Any = None,
    published: bool = False,
    location_logprobs: Sequence[float] | None = None,
) -> Answer:
    """Read what the network said; never raises on what a network can say, and never gives an impossible box.

    raw                what was decoded, with its special tokens.
    image_wh           width and height in pixels of the upright original.
    input              what was asked with the task, to be kept in the answer; so are `truncated` and `image`.
    published          read exactly as the published parser does, losses included; nothing is counted as invalid.
    location_logprobs  log-probability of each location token in turn; a region's score is exp of the mean of its own.
                       No region gets a score if the text does not hold exactly as many location tokens.
    """
    task = find_task(task)
    answer = Answer(task, image_wh, raw=_CONTROL.sub("", raw), truncated=truncated, input=input, image=image)
    if published:
        if task.form == "text":
            return replace(answer, text=published_text(raw))
        regions = published_regions(raw, task.form, image_wh)
        return replace(answer, regions=regions, text=join_labels(regions, task))
    if task.form == "text":
        text, invalid = _read_text(answer.raw, task)
        return replace(answer, text=text, invalid=invalid)
    reader = _Reader(task.form, image_wh)
    for place, piece in enumerate(_PIECE.split(answer.raw)):
        reader.take(piece, is_text=place % 2 == 0)
    reader.finish()
    regions = tuple(reader.regions)
    if location_logprobs is not None and len(location_logprobs) == reader.seen:
        regions = tuple(
            replace(region, score=math.exp(fmean(location_logprobs[place] for place in places)))
            for region, places in zip(regions, reader.places, strict=True)
        )
    return replace(answer, regions=regions, text=join_labels(regions, task), invalid=reader.invalid)


def join_labels(regions: Iterable[Region], task: Task) -> str:
    """Give the labels of regions as one text: lines for text that was read, otherwise a list with commas."""
    return ("\n" if task.form == "quads" else ", ").join(region.label for region in regions if region.label)


def special_token(text: str) -> str | None:
    """Give the first special token that a text spells, such as "<loc_5>" or "</s>"; None when it spells none."""
    seen = _SPECIAL.search(text)
    return seen[0] if seen else None


def _checked(label: str, refused: Sequence[str] | None = None) -> str:
    """Trim a label, and refuse one that spells a special token."""
    seen = re.search("|".join(refused), label) if refused else _SPECIAL.search(label)
    if seen:
        raise BadRegion(
            f"text {label!r} spells the special token {seen[0]!r}, which an answer could not tell from the token; "
            "take it out of the text"
        )
    return label.strip()


def _write_shape(region: Region, answer: Answer) -> str:
    form, image_wh = answer.task.form, answer.image_wh
    if form == "quads":
        if region.quad is None:
            raise _lacks("a quad", region, answer)
        check_points(region.quad, image_wh)
        return spell_all(points_to_bins(region.quad, image_wh))
    if form == "boxes_or_polygons" and region.polygons:
        return f"<poly>{_write_rings(region, answer)}</poly>"
    if region.box is None:
        raise _lacks("a box", region, answer)
    return spell_all(box_to_bins(region.box, image_wh))


def _write_instances(answer: Answer) -> str:
    instances = [_write_rings(region, answer) for region in answer.regions]
    return instances[0] if len(instances) == 1 else "".join(f"<poly>{rings}</poly>" for rings in instances)


def _write_rings(region: Region, answer: Answer) -> str:
    if not region.polygons or any(len(ring) < _SMALLEST_RING for ring in region.polygons):
        raise _lacks(f"polygons of {_SMALLEST_RING} or more points", region, answer)
    for ring in region.polygons:
        check_points(ring, answer.image_wh)
    return "<sep>".join(spell_all(points_to_bins(ring, answer.image_wh)) for ring in region.polygons)


def _lacks(shape: str, region: Region, answer: Answer) -> BadRegion:
    return BadRegion(f"task {answer.task.name!r} is answered with {shape} in every region, got {region!r}; add it")


def _read_text(raw: str, task: Task) -> tuple[str, int]:
    """Give the words of a text answer, and how many pieces in it are no words."""
    if task.input == "free":  # the user's own prompt: what its locations and markers mean is the user's to say
        return raw.strip(), 0
    pieces = _PIECE.split(raw)
    words = " ".join(text.strip() for text in pieces[0::2] if text.strip())
    # Region tasks repeat the region they were asked about; the published parser leaves it in the text.
    echo = _BOX_BINS if task.input == "region" else 0
    return words, sum(piece.count("<loc_") != echo or not echo for piece in pieces[1::2])


@dataclass
class _Reader:
    """Takes an answer piece by piece: words, a run of locations, or a marker. Counts what has no meaning here."""

    form: str
    image_wh: tuple[int, int]
    regions: list[Region] = field(default_factory=list)
    invalid: int = 0
    label: str = ""
    waiting: bool = False  # the label has named nothing yet
    inside: bool = False  # between <poly> and </poly>
    rings: list[Polygon] = field(default_factory=list)
    ring_places: list[int] = field(default_factory=list)
    seen: int = 0  # location tokens so far
    places: list[list[int]] = field(default_factory=list)  # which location tokens made each region

    def take(self, piece: str, *, is_text: bool) -> None:
        """Read one piece: what stands between two marks, or a mark."""
        if is_text:
            if piece.strip():
                self._name(piece.strip())
        elif piece.startswith("<loc_"):
            self._locate([self._bin(digits) for digits in _LOCATION.findall(piece)])
        elif piece == "<sep>":
            if not self._in_polygon:
                self._end_label()
        elif piece in ("<poly>", "</poly>") and self.form in ("polygons", "boxes_or_polygons"):
            self.invalid += self.inside == (piece == "<poly>")  # opened twice, or closed without being opened
            self._end_instance()
            self.inside = piece == "<poly>"
        else:
            self.invalid += 1

    def finish(self) -> None:
        """End what is open when the answer ends."""
        self.invalid += self.inside
        self._end_instance()
        self._end_label()

    @property
    def _in_polygon(self) -> bool:
        return self.inside or self.form == "polygons"

    def _bin(self, digits: str) -> int:
        # Past the last bin is no location, though the published parser believes it: take the edge, and count it.
        bin_ = min(int(digits[:9]), BINS - 1)
        self.invalid += str(bin_) != digits
        return bin_

    def _name(self, label: str) -> None:
        if self._in_polygon:
            self.invalid += 1
            self._end_instance()
            self.inside = False
        if self.form in ("polygons", "bare_boxes"):  # these name nothing
            self.invalid += self.form == "bare_boxes"
            return
        self._end_label()
        self.label, self.waiting = label, True

    def _end_label(self) -> None:
        self.invalid += self.waiting
        self.label, self.waiting = "", False

    def _end_instance(self) -> None:
        if self.rings:
            self.regions.append(Region(self.label, polygons=tuple(self.rings)))
            self.places.append(self.ring_places)
        elif self.inside:
            self.invalid += 1
        self.waiting = self.waiting and not self.inside
        self.rings, self.ring_places = [], []

    def _locate(self, bins: list[int]) -> None:
        """Read one run of locations: a ring inside a polygon, otherwise as many boxes or quads as it holds."""
        self.waiting = False
        places = list(range(self.seen, self.seen + len(bins)))
        self.seen += len(bins)
        size = 2 if self._in_polygon else _QUAD_BINS if self.form == "quads" else _BOX_BINS
        whole = len(bins) // size * size
        self.invalid += whole < len(bins)
        if not self._in_polygon:
            for start in range(0, whole, size):
                self.regions.append(self._place(bins[start : start + size]))
                self.places.append(places[start : start + size])
        elif whole >= 2 * _SMALLEST_RING:
            self.rings.append(bins_to_points(bins[:whole], self.image_wh))
            self.ring_places += places[:whole]
        else:
            self.invalid += whole == len(bins)

    def _place(self, bins: list[int]) -> Region:
        if self.form == "quads":
            a, b, c, d = bins_to_points(bins, self.image_wh)
            return Region(self.label, quad=(a, b, c, d))
        x0, y0, x1, y1 = bins
        self.invalid += x1 < x0 or y1 < y0
        ordered = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        return Region(self.label, box=bins_to_box(ordered, self.image_wh))
