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
from itertools import islice
from statistics import fmean
from typing import Any, Literal, NamedTuple

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


class Said(NamedTuple):
    """A stretch of an answer as it was decoded: a run of words, one location, or one marker."""

    kind: Literal["words", "location", "marker"]
    logprob: float  # summed over its tokens
    tokens: int = 1
    mass: float | None = None  # of a location: probability of the bins around it, itself included
    spread: float | None = None  # of these, standard deviation in bins
    bin: float | None = None  # where to put it, if not at the centre of its bin: a place between bins


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
    said: Sequence[Said] | None = None,
) -> Answer:
    """Read what the network said; never raises on what a network can say, and never gives an impossible box.

    raw                what was decoded, with its special tokens.
    image_wh           width and height in pixels of the upright original.
    input              what was asked with the task, to be kept in the answer; so are `truncated` and `image`.
    published          read exactly as the published parser does, losses included; nothing is counted as invalid.
    said               the same answer in stretches, with what the decoder thought of each: gives every score. There
                       are none if the text does not part into these stretches.
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
        return replace(answer, text=text, invalid=invalid, score=_mean_probability(said or ()))
    pieces = _PIECE.split(answer.raw)
    reader = _Reader(task.form, image_wh)
    for place, (piece, heard) in enumerate(zip(pieces, _hear(pieces, said), strict=True)):
        reader.take(piece, heard, is_text=place % 2 == 0)
    reader.finish()
    regions = tuple(reader.regions)
    return replace(
        answer,
        regions=regions,
        text=join_labels(regions, task),
        invalid=reader.invalid,
        score=_mean_probability(said or ()),
    )


def _hear(pieces: Sequence[str], said: Sequence[Said] | None) -> list[list[Said]]:
    """Give each piece of a text its stretches; none at all when they are not those of this text."""
    silence: list[list[Said]] = [[] for _ in pieces]
    if said is None:
        return silence
    kinds = [
        "words" if place % 2 == 0 else "location" if "<loc_" in one else "marker" for place, one in enumerate(pieces)
    ]
    counts = [
        one.count("<loc_") if kind == "location" else int(bool(one)) for one, kind in zip(pieces, kinds, strict=True)
    ]
    if [one.kind for one in said] != [kind for kind, count in zip(kinds, counts, strict=True) for _ in range(count)]:
        return silence
    stretches = iter(said)
    return [list(islice(stretches, count)) for count in counts]


def _mean_probability(said: Sequence[Said]) -> float | None:
    """Geometric mean of the probabilities of all tokens; None when nothing was said."""
    tokens = sum(one.tokens for one in said)
    return math.exp(sum(one.logprob for one in said) / tokens) if tokens else None


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
    ring_heard: list[Said] = field(default_factory=list)
    named: Said | None = None  # the label as it was said

    def take(self, piece: str, heard: Sequence[Said], *, is_text: bool) -> None:
        """Read one piece: what stands between two marks, or a mark."""
        if is_text:
            if piece.strip():
                self._name(piece.strip())
                self.named = heard[0] if heard and self.label else None
        elif piece.startswith("<loc_"):
            self._locate([self._bin(digits) for digits in _LOCATION.findall(piece)], heard)
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
        self.label, self.waiting, self.named = "", False, None

    def _end_instance(self) -> None:
        if self.rings:
            self._add(Region(self.label, polygons=tuple(self.rings)), self.ring_heard)
        elif self.inside:
            self.invalid += 1
        self.waiting = self.waiting and not self.inside
        self.rings, self.ring_heard = [], []

    def _locate(self, bins: list[int], heard: Sequence[Said]) -> None:
        """Read one run of locations: a ring inside a polygon, otherwise as many boxes or quads as it holds."""
        self.waiting = False
        size = 2 if self._in_polygon else _QUAD_BINS if self.form == "quads" else _BOX_BINS
        whole = len(bins) // size * size
        self.invalid += whole < len(bins)
        if not self._in_polygon:
            for start in range(0, whole, size):
                part = slice(start, start + size)
                self._add(self._place(bins[part], _exact(bins[part], heard[part])), heard[part])
        elif whole >= 2 * _SMALLEST_RING:
            self.rings.append(bins_to_points(_exact(bins[:whole], heard[:whole]), self.image_wh))
            self.ring_heard += heard[:whole]
        else:
            self.invalid += whole == len(bins)

    def _place(self, bins: Sequence[int], exact: Sequence[float]) -> Region:
        if self.form == "quads":
            a, b, c, d = bins_to_points(exact, self.image_wh)
            return Region(self.label, quad=(a, b, c, d))
        x0, y0, x1, y1 = bins
        self.invalid += x1 < x0 or y1 < y0
        x0e, y0e, x1e, y1e = exact
        ordered = min(x0e, x1e), min(y0e, y1e), max(x0e, x1e), max(y0e, y1e)
        return Region(self.label, box=bins_to_box(ordered, self.image_wh))

    def _add(self, region: Region, places: Sequence[Said]) -> None:
        """Keep a region, with its scores where they are known."""
        self.regions.append(_scored(region, self.named, places, self.image_wh) if places else region)


def _exact(bins: Sequence[int], heard: Sequence[Said]) -> Sequence[float]:
    """Where the coordinates are, in bins: as they were said, or between bins where the decoder knew better."""
    if not heard:
        return bins
    return [bin_ if one.bin is None else one.bin for bin_, one in zip(bins, heard, strict=True)]


def _scored(region: Region, named: Said | None, places: Sequence[Said], image_wh: tuple[int, int]) -> Region:
    label_score = None if named is None else math.exp(named.logprob)
    place_score = math.exp(fmean(one.logprob for one in places))
    sizes = [image_wh[i % 2] for i in range(len(places))]
    spreads = [one.spread * size / BINS for one, size in zip(places, sizes, strict=True) if one.spread is not None]
    return replace(
        region,
        score=place_score if label_score is None else label_score * place_score,
        label_score=label_score,
        place_score=place_score,
        spread_px=tuple(spreads) if len(spreads) == len(places) else None,
    )
