"""Targets that fit the position table, and that read back as they were written.

An answer that is too long is never cut. What is done instead, each time counted as "target too long":

Task                       if its answer is too long
detect                     `find` targets of its labels, as many labels in each as fit: the prompt names them, so each
                           is complete. With one label it stays `detect`, with the largest boxes that fit.
find                       several, in the same way; for a phrase that does not fit alone, the largest boxes that fit
ground                     several, in the same way; the caption of each is the list of its phrases
dense_caption, propose,    the largest regions that fit, in their order
read_regions
segment, segment_region    all rings that fit when outlines are simplified by at most a tenth of the region's diagonal,
                           the largest first; those simplified as little as fits
every text                 left out

A target of which nothing fits is left out, and so is one whose prompt is too long.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import cv2
import numpy as np

from openflorence.contract.answers import join_labels, read_answer, write_answer
from openflorence.contract.locations import bins_to_box, bins_to_points, box_to_bins, points_to_bins
from openflorence.contract.prompts import AND, fill_sentence
from openflorence.contract.records import Example, Record
from openflorence.contract.regions import Answer, Region
from openflorence.contract.shapes import Point, Polygon
from openflorence.contract.tasks import find_task
from openflorence.data.order import area, ring_in_order, signed_area
from openflorence.data.problems import Problems
from openflorence.data.words import listed
from openflorence.errors import BadRegion

Count = Callable[[str], int]  # tokens of a text, with the two that frame it
# Tolerances of a simplified outline, in shares of the region's diagonal: from a thousandth to a tenth, by halves more.
_SHARES = (*(0.001 * 1.5**step for step in range(12)), 0.1)


def checked(example: Example, record: Record, problems: Problems) -> Example | None:
    """Give an example back if its answer can be written and reads back as what was written; None, counted, if not.

    promise   read_answer(write_answer(answer)) is on_centres(answer).
    """
    return None if _written(example, record, problems) is None else example


def _written(example: Example, record: Record, problems: Problems) -> str | None:
    answer, where = example.answer, f"{record.image}: {example.task.name}"
    try:
        text = write_answer(answer)
        f"{text}{answer.input}".encode()
    except (BadRegion, UnicodeEncodeError) as error:
        problems.add("target impossible", f"{where}: {error}")
        return None
    again = replace(read_answer(text, answer.task, answer.image_wh, input=answer.input), raw="")
    if again != on_centres(answer):
        problems.add("target impossible", f"{where}: {text!r} reads back as something else")
        return None
    return text


def on_centres(answer: Answer) -> Answer:
    """Give an answer as it reads back: coordinates on the centres of their bins, and only what its task writes."""
    form, image_wh = answer.task.form, answer.image_wh
    if form == "text":
        return replace(answer, text=answer.text.strip(), regions=(), raw="")

    def centred(points: Iterable[Point]) -> Polygon:
        return bins_to_points(points_to_bins(points, image_wh), image_wh)

    regions = []
    for region in answer.regions:
        label = "" if form in ("bare_boxes", "polygons") else region.label.strip()
        if form == "quads" and region.quad is not None:
            a, b, c, d = centred(region.quad)
            regions.append(Region(label, quad=(a, b, c, d)))
        elif form in ("polygons", "boxes_or_polygons") and region.polygons:
            regions.append(Region(label, polygons=tuple(map(centred, region.polygons))))
        elif region.box is not None:
            regions.append(Region(label, box=bins_to_box(box_to_bins(region.box, image_wh), image_wh)))
    return replace(answer, text=join_labels(regions, answer.task), regions=tuple(regions), raw="")


def fit(
    example: Example,
    record: Record,
    limit: int,
    count: Count,
    problems: Problems,
    prompt_limit: int | None = None,
) -> list[Example]:
    """Give what can be taught of an example: itself in most cases; otherwise by the rules above, or nothing.

    limit         the longest answer, in tokens as `count` gives them.
    problems      told of everything that is split, thinned, left out, or impossible to write.
    prompt_limit  the longest prompt, in the same tokens; None for any.
    promise       every example given fits, and `checked` holds for it.
    """
    text = _written(example, record, problems)
    if text is None:
        return []
    budget = _Budget(limit, prompt_limit, count, problems, f"{record.image}: {example.task.name}")
    if not budget.takes_prompt(example):
        return budget.leave_out(example, f"a prompt of {count(_prompt(example))} tokens, {prompt_limit} fit")
    if count(text) <= limit:
        return [example]
    return _shorten(example, budget)


@dataclass(frozen=True)
class _Budget:
    """What fits, and where to say what did not."""

    limit: int
    prompt_limit: int | None
    count: Count
    problems: Problems
    where: str

    def takes_prompt(self, example: Example) -> bool:
        return self.prompt_limit is None or self.count(_prompt(example)) <= self.prompt_limit

    def takes(self, example: Example) -> bool:
        return self.takes_prompt(example) and self.count(write_answer(example.answer)) <= self.limit

    def say(self, example: Example, done: str) -> None:
        tokens = self.count(write_answer(example.answer))
        self.problems.add("target too long", f"{self.where}: {tokens} tokens, {self.limit} fit: {done}")

    def leave_out(self, example: Example, why: str = "") -> list[Example]:
        why = why or f"{self.count(write_answer(example.answer))} tokens, {self.limit} fit"
        lost = f"0 of {len(example.answer.regions)} regions stay" if example.answer.regions else "left out"
        self.problems.add("target too long", f"{self.where}: {why}: {lost}")
        return []


def _prompt(example: Example) -> str:
    return fill_sentence(example.task, example.answer.input)


def _shorten(example: Example, budget: _Budget) -> list[Example]:
    form, regions = example.task.form, example.answer.regions
    if form == "polygons":
        return _simplify(example, budget)
    labels = list(dict.fromkeys(region.label for region in regions))
    names = (example.answer.input or "").split(AND) if example.task.name == "find" else labels
    can_split = example.task.name in ("detect", "find", "ground") and len(names) > 1 and set(labels) <= set(names)
    if can_split and all(names) and not any(region.polygons for region in regions):
        return _split(example, names, budget)
    return _thin(example, budget) if form != "text" else budget.leave_out(example)


def _with(example: Example, regions: Iterable[Region]) -> Example:
    """The same question, answered with other regions."""
    kept = tuple(regions)
    return replace(example, answer=replace(example.answer, regions=kept, text=join_labels(kept, example.task)))


def _asking(example: Example, names: Sequence[str]) -> Example:
    """Ask for some of the names alone."""
    task = find_task("ground" if example.task.name == "ground" else "find")
    text = listed(list(names)) if task.name == "ground" else AND.join(names)
    regions = [region for name in names for region in example.answer.regions if region.label == name]
    return _with(Example(task, text, None, replace(example.answer, task=task, input=text)), regions)


def _split(example: Example, names: Sequence[str], budget: _Budget) -> list[Example]:
    """Deal the names to as few targets as hold them in their order."""
    groups: list[list[str]] = []
    for name in names:
        if groups and budget.takes(_asking(example, [*groups[-1], name])):
            groups[-1].append(name)
        else:
            groups.append([name])
    parts = [_asking(example, group) for group in groups]
    budget.say(example, f"split into {len(parts)} '{parts[0].task.name}'")
    return list(chain.from_iterable([part] if budget.takes(part) else _thin(part, budget) for part in parts))


def _thin(example: Example, budget: _Budget) -> list[Example]:
    """Keep the largest regions, as many as fit."""
    regions = example.answer.regions
    by_size = sorted(range(len(regions)), key=lambda place: (-area(regions[place]), place))

    def largest(kept: int) -> Example:
        return _with(example, (regions[place] for place in sorted(by_size[:kept])))

    kept = _most(len(regions), lambda kept: budget.takes(largest(kept)))
    if not kept:
        return budget.leave_out(example)
    budget.say(example, f"{kept} of {len(regions)} regions stay")
    return [largest(kept)]


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """Find the most things that fit, 0 if not even one does; more things are taken to be longer."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


# ---- outlines


def _simplify(example: Example, budget: _Budget) -> list[Example]:
    """Keep as many rings as fit when drawn most roughly, then draw them as finely as fits."""
    regions = example.answer.regions
    rings = [(place, ring) for place, region in enumerate(regions) for ring in region.polygons]
    by_size = sorted(range(len(rings)), key=lambda ring: (-abs(signed_area(rings[ring][1])), ring))

    def drawn(kept: int, share: float) -> Example:
        places = sorted(by_size[:kept])
        made = []
        for region, one in enumerate(regions):
            own = [rings[place][1] for place in places if rings[place][0] == region]
            if own:
                tolerance_px = share * _diagonal(one)
                made.append(replace(one, polygons=tuple(simplify_ring(ring, tolerance_px) for ring in own)))
        return _with(example, made)

    kept = _most(len(rings), lambda kept: budget.takes(drawn(kept, _SHARES[-1])))
    if not kept:
        return budget.leave_out(example)
    simple = next(made for share in _SHARES if budget.takes(made := drawn(kept, share)))
    before, after = (
        sum(len(ring) for one in each.answer.regions for ring in one.polygons) for each in (example, simple)
    )
    lost = len(regions) - len(simple.answer.regions)
    budget.say(example, f"{after} of {before} vertices and {kept} of {len(rings)} rings stay")
    if lost:
        budget.say(example, f"{len(regions) - lost} of {len(regions)} regions stay")
    return [simple]


def simplify_ring(ring: Polygon, tolerance_px: float) -> Polygon:
    """Leave out the vertices that lie within a tolerance of the outline without them; never below three."""
    line = np.array(ring, np.float32)[:, None]
    while tolerance_px > 1e-3:
        kept = cv2.approxPolyDP(line, tolerance_px, True)[:, 0]
        if len(kept) >= 3:
            return ring_in_order(tuple(Point(x, y) for x, y in kept.tolist()))
        tolerance_px /= 2
    return ring_in_order(ring[:3])


def _diagonal(region: Region) -> float:
    x0, y0, x1, y1 = region.bounds or (0.0, 0.0, 0.0, 0.0)
    return float(np.hypot(x1 - x0, y1 - y0))
