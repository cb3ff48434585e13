"""In which order regions are written: boxes, words, the vertices of a ring."""

from collections.abc import Iterable, Sequence
from typing import Literal

from openflorence.contract.locations import points_to_bins
from openflorence.contract.records import RegionNote
from openflorence.contract.regions import Region
from openflorence.contract.shapes import Polygon

# "area": the largest first, those of one label together, labels by their largest region; published answers look so,
# though no rule was published. "left": by x0, then y0, as in the drawn world. "given": as in the record.
Order = Literal["area", "left", "given"]


def in_order(regions: Sequence[Region], order: Order) -> list[Region]:
    """Put boxes in order; what is equal in size or place goes by its edges, then by its label."""
    if order == "area":
        largest: dict[str, float] = {}
        for region in regions:
            largest[region.label] = max(largest.get(region.label, 0.0), area(region))
        return sorted(
            regions, key=lambda one: (-largest[one.label], one.label, -area(one), one.box or one.bounds or ())
        )
    if order == "left":
        return sorted(regions, key=lambda one: (one.box or one.bounds or (), one.label))
    return list(regions)


def once(regions: Iterable[Region], image_wh: tuple[int, int]) -> list[Region]:
    """Leave out each region that would be written in the same words and bins as one before it."""
    written: dict[tuple[str, tuple[int, ...]], Region] = {}
    for region in regions:
        written.setdefault((region.label, points_to_bins(region.points, image_wh)), region)
    return list(written.values())


def area(region: Region) -> float:
    """Give the area of the box around a region, in square pixels."""
    x0, y0, x1, y1 = region.box or region.bounds or (0.0, 0.0, 0.0, 0.0)
    return (x1 - x0) * (y1 - y0)


def in_reading_order(notes: Iterable[RegionNote]) -> list[RegionNote]:
    """Order words as one reads: rows from top to bottom, each from left to right.

    A row is the topmost word that is left, and every word whose middle height is above the bottom of that one.
    """
    left = [(bounds, note) for note in notes if (bounds := note.bounds) is not None]
    left.sort(key=lambda item: (item[0].y0 + item[0].y1, item[0].x0))
    order: list[RegionNote] = []
    while left:
        bottom = left[0][0].y1
        # The words are sorted by their middles, so a row is a run of them; the first is in it even without a height.
        size = next((n for n, (box, _) in enumerate(left) if n and (box.y0 + box.y1) / 2 >= bottom), len(left))
        order += [note for _, note in sorted(left[:size], key=lambda item: item[0].x0)]
        left = left[size:]
    return order


def ring_in_order(ring: Polygon) -> Polygon:
    """Run a ring clockwise as seen, from its topmost and then leftmost vertex, and leave it open."""
    if len(ring) > 3 and ring[0] == ring[-1]:
        ring = ring[:-1]
    if signed_area(ring) < 0:
        ring = ring[::-1]
    first = min(range(len(ring)), key=lambda place: (ring[place].y, ring[place].x))
    return ring[first:] + ring[:first]


def rings_in_order(rings: Iterable[Polygon]) -> tuple[Polygon, ...]:
    """Order the rings of one place, the largest first, and each of them; what has no three vertices is left out."""
    kept = [ring_in_order(ring) for ring in rings if len(ring) >= 3]
    return tuple(sorted(kept, key=lambda ring: (-signed_area(ring), ring)))


def signed_area(ring: Polygon) -> float:
    """Give the area inside a ring in square pixels; below 0 if it runs anticlockwise as seen, y being downwards."""
    return sum(p.x * q.y - q.x * p.y for p, q in zip(ring, ring[1:] + ring[:1], strict=True)) / 2
