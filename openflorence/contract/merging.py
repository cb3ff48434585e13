"""Answers about overlapping crops of one picture -> one answer about the picture.

Where two crops overlap they show the same pixels. So two regions are one when each, seen through the other's crop,
looks like what that crop answered: `agreement`. A side at which a crop cuts its region says only that the region goes
at least so far; how far, another crop says. What is cut in every crop is put together from its parts.

Not told apart: two things of one label that overlap, reach into the shared zone of two crops and through it, and are
each missing from the crop that shows less of them. Make the overlap of crops wider than the things to be found.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from openflorence.contract.answers import join_labels
from openflorence.contract.lines import direction, join_lines, letter_px, reading_order
from openflorence.contract.overlaps import iou
from openflorence.contract.regions import Answer, Region
from openflorence.contract.rings import shared_area, unite
from openflorence.contract.shapes import Box, Point, Polygon
from openflorence.contract.tasks import Task
from openflorence.errors import BadConfig, BadPrompt, BadRegion

Part = tuple[Box, Answer]  # where a crop lies in the picture, in whole pixels; and the answer about it
_COVERED = 0.75  # a cut region that lies by so much in another is a part of it
_COVERED_TEXT = 0.5  # text that does so: text does not stand before text
_ACROSS = 0.7  # a line is cut across where its direction and the edge's normal enclose less than 45 degrees


@dataclass(frozen=True)
class _View:
    """A region as one crop shows it, in pixels of the whole picture."""

    region: Region
    part: int  # which crop
    crop: Box
    bounds: Box
    cut: tuple[bool, bool, bool, bool]  # left, top, right, bottom: lies at an edge of its crop inside the picture

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Whole ones first, then by score, then by crop."""
        return any(self.cut), -(self.region.score or 0.0), self.part

    @property
    def rings(self) -> tuple[Polygon, ...]:
        """What the region covers: its outlines, or its quad."""
        return self.region.polygons or ((self.region.quad,) if self.region.quad else ())


def merge_crops(
    parts: Sequence[Part], image_wh: tuple[int, int], *, least: float = 0.5, edge_share: float = 0.02
) -> Answer:
    """Merge the answers to one question about overlapping crops into one about the whole picture.

    parts       where each crop lies in the picture, in whole pixels, and its answer.
    image_wh    width and height of the picture in pixels.
    least       smallest agreement of two regions that are one, as intersection over union.
    edge_share  share of a crop's side: a region that comes so near to an edge is taken as cut there.
    returns     boxes and outlines in the order of the crops and of the regions in each, a merged one where its first
                stands; lines of text in reading order. A merged region has the highest score of its members. The
                answer is cut as the first that is, counts what was invalid in all, and carries no image.
    raises      BadConfig without crops or for shares out of range; BadPrompt for different tasks, or a task that is
                answered with text only; BadRegion for a crop that leaves the picture or has not the size of its answer.
    """
    task = _checked(parts, image_wh, least, edge_share)
    views = [view for place in range(len(parts)) for view in _views(parts, place, image_wh, edge_share)]
    clusters = _clusters(views, task, least)
    regions = [_settle(cluster, task) for cluster in clusters]
    if task.form == "quads":
        regions = reading_order(regions, lambda region: region.bounds or Box(0, 0, 0, 0))
    return Answer(
        task,
        image_wh,
        text=join_labels(regions, task),
        regions=tuple(regions),
        raw="\n".join(answer.raw for _, answer in parts),
        truncated=any(answer.truncated for _, answer in parts),
        cut=next((answer.cut for _, answer in parts if answer.cut), ""),
        invalid=sum(answer.invalid for _, answer in parts),
        input=parts[0][1].input,
    )


def _checked(parts: Sequence[Part], image_wh: tuple[int, int], least: float, edge_share: float) -> Task:
    if not parts:
        raise BadConfig("no crops to merge the answers of; give at least one (box, answer)")
    if not 0 < least <= 1 or not 0 <= edge_share < 0.5:
        raise BadConfig(f"least={least}, edge_share={edge_share}: allowed are 0 < least <= 1 and 0 <= edge_share < 0.5")
    task = parts[0][1].task
    names = Counter(answer.task.name for _, answer in parts)
    if len(names) > 1:
        raise BadPrompt(f"crops were asked different tasks, {', '.join(names)}; ask all of them one and the same")
    if task.form == "text":
        raise BadPrompt(
            f"task {task.name!r} is answered with text only, which says not where it belongs; ask a task with regions "
            "('read_regions' for what is printed)"
        )
    width, height = image_wh
    for crop, answer in parts:
        x0, y0, x1, y1 = crop
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise BadRegion(f"crop {tuple(crop)} is empty or leaves the picture of {width} x {height} px; cut it there")
        if answer.image_wh != (x1 - x0, y1 - y0):
            raise BadRegion(
                f"crop {tuple(crop)} has {x1 - x0} x {y1 - y0} px, its answer is about {answer.image_wh[0]} x "
                f"{answer.image_wh[1]} px; give each crop the answer about it, unresized"
            )
    return task


# ---- from a crop to the picture


def _views(parts: Sequence[Part], place: int, image_wh: tuple[int, int], edge_share: float) -> list[_View]:
    crop, answer = Box(*parts[place][0]), parts[place][1]
    near = edge_share * (crop.x1 - crop.x0), edge_share * (crop.y1 - crop.y0)
    inner = crop.x0 > 0, crop.y0 > 0, crop.x1 < image_wh[0], crop.y1 < image_wh[1]
    found = []
    for region in answer.regions:
        moved = shift_region(region, crop.x0, crop.y0)
        bounds = moved.bounds
        if bounds is not None:
            gaps = bounds.x0 - crop.x0, bounds.y0 - crop.y0, crop.x1 - bounds.x1, crop.y1 - bounds.y1
            letter = _letter(region)
            a, b, c, d = (gaps[side] <= max(near[side % 2], letter[side % 2]) and inner[side] for side in range(4))
            found.append(_View(moved, place, crop, bounds, (a, b, c, d)))
    return found


def _letter(region: Region) -> Point:
    """How far from an edge that cuts it a line of text may end, in x and y: a letter that is cut is often not read."""
    if region.quad is None:
        return Point(0.0, 0.0)
    along, px = direction(region.quad), letter_px(region.quad)
    return Point(abs(along.x) * px, abs(along.y) * px)


def shift_region(region: Region, x: float, y: float) -> Region:
    """Move a region by so many pixels to the right and down."""
    box, quad = region.box, region.quad

    def moved(points: Sequence[Point]) -> tuple[Point, ...]:
        return tuple(Point(point.x + x, point.y + y) for point in points)

    if box is not None:
        box = Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)
    if quad is not None:
        a, b, c, d = moved(quad)
        quad = a, b, c, d
    return replace(region, box=box, quad=quad, polygons=tuple(map(moved, region.polygons)))


# ---- which are one


def _clusters(views: list[_View], task: Task, least: float) -> list[list[_View]]:
    """Put together what is one, the best agreement first; in the order of the first member.

    A crop has at most one member in a cluster: it told its own regions apart.
    """
    pairs = [(i, j) for i, j in _overlapping(views) if _may_be_one(views[i], views[j], task)]
    priced = [(_agreement(views[i], views[j]), i, j) for i, j in pairs]
    home = {place: place for place in range(len(views))}  # view -> its cluster
    members = {place: [place] for place in range(len(views))}
    for agreed, i, j in sorted(priced, key=lambda one: (-one[0], *one[1:])):
        a, b = sorted((home[i], home[j]))
        crops = [views[place].part for place in members[a] + members[b]]
        if agreed >= least and a != b and len(set(crops)) == len(crops):
            for place in members[b]:
                home[place] = a
            members[a] += members.pop(b)
    for lost in _fragments(views, task, members):
        del members[lost]
    return [[views[place] for place in sorted(members[first])] for first in sorted(members)]


def _overlapping(views: list[_View]) -> list[tuple[int, int]]:
    """Pairs from different crops whose upright bounds overlap."""
    if not views:
        return []
    bounds, part = np.array([view.bounds for view in views]), np.array([view.part for view in views])
    low = np.maximum(bounds[:, None, :2], bounds[None, :, :2])
    high = np.minimum(bounds[:, None, 2:], bounds[None, :, 2:])
    near = (low < high).all(axis=2) & (part[:, None] < part[None])
    return [(int(i), int(j)) for i, j in np.argwhere(near)]


def _may_be_one(one: _View, other: _View, task: Task) -> bool:
    """Equal labels. But text may be read differently where it is cut, and "small" in a description is by the crop."""
    return task.form == "quads" or task.name == "dense_caption" or _name(one) == _name(other)


def _name(view: _View) -> str:
    return " ".join(view.region.label.casefold().split())


def _agreement(one: _View, other: _View) -> float:
    """Say how well two views can be of one thing, 0 to 1: each seen through the other's crop, against what it shows."""
    agreed = min(
        iou(_clip(_reach(one, other), other.crop), other.bounds),
        iou(_clip(_reach(other, one), one.crop), one.bounds),
    )
    if agreed > 0 and one.rings and other.rings:
        shared, *areas = shared_area(one.rings, other.rings, _clip(one.crop, other.crop))
        agreed = min(agreed, shared / (sum(areas) - shared) if shared else 0.0)
    return agreed


def _reach(one: _View, other: _View) -> Box:
    """As far as one view says that its thing goes; on sides where it is cut, as far as the other says."""
    return Box(*(_outer(one, other, side) if one.cut[side] else one.bounds[side] for side in range(4)))


def _outer(one: _View, other: _View, side: int) -> float:
    return (min if side < 2 else max)(one.bounds[side], other.bounds[side])


def _fragments(views: list[_View], task: Task, members: dict[int, list[int]]) -> list[int]:
    """Name the clusters of one view that is a part of what another crop shows.

    Of boxes and outlines only where it is cut, and where that crop's region has no other partner in this one: small
    things may stand before large ones. The labels may differ: half of a thing looks like another thing. (nano in 4 x 4
    tiles of six scenes: with equal labels only, F1 58.0 in place of 65.3.) Text does not stand before text.
    """
    text = task.form == "quads"
    alone = {first for first, places in members.items() if len(places) == 1}
    crops = {place: {views[i].part for i in places} for places in members.values() for place in places}
    lost = set()
    for pair in _overlapping(views):
        part, whole = sorted(pair, key=lambda place: _area(views[place].bounds))
        free = text or (any(views[part].cut) and views[part].part not in crops[whole])
        if part in alone and free and _covered(views[part], views[whole]) >= (_COVERED_TEXT if text else _COVERED):
            lost.add(part)
    return sorted(lost)


def _covered(one: _View, other: _View) -> float:
    """Share of one view that lies in another."""
    if one.rings and other.rings:
        shared, own, _ = shared_area(one.rings, other.rings, one.bounds)
    else:
        shared, own = _area(_clip(one.bounds, other.bounds)), _area(one.bounds)
    return shared / own if own else 0.0


# ---- what they are together


def _settle(cluster: list[_View], task: Task) -> Region:
    ranked = sorted(cluster, key=lambda view: view.rank)
    best = ranked[0]
    scores = [view.region.score for view in cluster if view.region.score is not None]
    region = replace(best.region, score=max(scores, default=None))
    if len(cluster) == 1 or not any(best.cut):
        return region
    region = replace(region, spread_px=None)
    if task.form == "quads":
        return _join_quads(ranked, region)
    if region.polygons:
        return replace(region, polygons=unite([view.region.polygons for view in cluster if view.region.polygons]))
    return replace(region, box=Box(*(_side(ranked, side) for side in range(4))))


def _side(ranked: list[_View], side: int) -> float:
    """Where a box ends: the best view that is not cut there says it; else the view that goes farthest."""
    uncut = [view.bounds[side] for view in ranked if not view.cut[side]]
    return uncut[0] if uncut else (min if side < 2 else max)(view.bounds[side] for view in ranked)


def _join_quads(ranked: list[_View], region: Region) -> Region:
    """Join a line that every crop cuts; pieces of which a crop shows the upper or lower half say nothing."""
    sound = [view for view in ranked if not _cut_across(view)]
    if not sound:
        tallest = max(ranked, key=lambda view: _area(view.bounds))
        return replace(tallest.region, score=region.score)
    pieces = [(view.region.label, view.region.quad) for view in sound if view.region.quad]
    text, quad = join_lines(pieces)
    return replace(region, label=text, quad=quad)


def _cut_across(view: _View) -> bool:
    """True where an edge of the crop runs along the line of text, not through it."""
    along = direction(view.region.quad) if view.region.quad else Point(1.0, 0.0)
    return any(view.cut[side] and abs(along[side % 2]) < _ACROSS for side in range(4))


# ---- boxes


def _clip(box: Box, frame: Box) -> Box:
    """The part of a box inside another; empty, with swapped sides, when there is none."""
    return Box(max(box.x0, frame.x0), max(box.y0, frame.y0), min(box.x1, frame.x1), min(box.y1, frame.y1))


def _area(box: Box) -> float:
    return max(box.x1 - box.x0, 0.0) * max(box.y1 - box.y0, 0.0)
