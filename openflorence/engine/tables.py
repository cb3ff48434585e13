"""What a round holds, as tables and charts: for the terminal as Markdown, for a page with drawings."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from openflorence.contract.records import LEVELS, Origin
from openflorence.engine.stats import ALL, FIGURES, REGION, TEXT, TRIPLET, Kind, Stats
from openflorence.engine.tallies import EACH, SIZES, TENTHS, Coverage, Histogram, Names
from openflorence.pages.charts import bars_svg, heat_svg
from openflorence.pages.pieces import (
    NONE,
    Beside,
    Cell,
    Chart,
    Charts,
    Facts,
    Heading,
    Page,
    Piece,
    Table,
    Words,
    shorten,
)
from openflorence.pages.pieces import (
    as_markdown as page_as_markdown,
)

TOP = 20  # names of each list
LETTERS = 120  # of a reason or message in a table

# Florence-2 report, tables of section 4.4: tokens of a text, regions of it, tokens of what is said of a region.
FLD_5B: Mapping[tuple[str, str], tuple[float | None, float | None, float | None]] = {
    (TEXT, "brief"): (7.95, None, None),
    (TEXT, "detailed"): (31.65, None, None),
    (TEXT, "more_detailed"): (70.53, None, None),
    (REGION, "label"): (None, 5.42, 1.19),
    (REGION, "description"): (None, 5.42, 2.55),
    (TRIPLET, "brief"): (7.95, 4.27, 1.93),
    (TRIPLET, "detailed"): (31.65, 10.25, 1.49),
    (TRIPLET, "more_detailed"): (70.53, 10.17, 1.35),
}
# The same, of each of FIGURES for brief, detailed and more detailed texts.
FLD_5B_FIGURES: Mapping[str, tuple[float, float, float]] = {
    "objects": (3.23, 13.31, 28.06),
    "attributes": (2.80, 7.27, 16.25),
    "actions": (0.58, 4.21, 8.76),
    "proper nouns": (1.10, 2.40, 2.41),
    "object complexity": (2.80, 4.00, 4.02),
    "action complexity": (1.14, 3.63, 4.38),
}
_SHOWN: set[tuple[str, str]] = {(TEXT, level) for level in LEVELS} | {(TRIPLET, level) for level in LEVELS}
_SHOWN |= {(REGION, name) for name in (ALL, "label", "description", "word")}  # also when there are none


def as_markdown(stats: Stats, whole: bool = True) -> str:
    """Give the counts as tables.

    whole     all of them; otherwise what there is of each kind, what failed and what was dropped.
    """
    page = Page(title(stats), [*overview(stats), *annotations(stats, published=False)])
    if whole:
        page.add(*texts(stats, published=False), *coverage(stats), *names(stats), *sources(stats), *layers(stats))
    page.add(*failures(stats), *dropped(stats))
    return page_as_markdown(page, aligned=True).rstrip("\n")


def title(stats: Stats) -> str:
    """Name the round."""
    return f"Round {stats.round} of {stats.store}"


def overview(stats: Stats) -> list[Piece]:
    """Give the counts that matter first."""
    rows = [
        ("images", f"{stats.images:,}"),
        ("with annotations", f"{stats.annotated:,}{share(stats.annotated, stats.images)}"),
        ("annotations", f"{stats.annotations:,}"),
        ("inputs that could not be read", f"{stats.failed_inputs:,}"),
        ("notes dropped by rules", f"{sum(one.count for one in stats.dropped):,}"),
    ]
    return [Facts(rows)]


def annotations(stats: Stats, published: bool = True) -> list[Piece]:
    """Give the report's table: each kind, how much, how long.

    published  with what is published of FLD-5B below it.
    """
    kinds = [kind for kind in stats.kinds if kind.annotations or (kind.group, kind.name) in _SHOWN]
    head = ("annotations", "images", "texts", "tokens of a text", "regions", "regions each", "tokens of a region")
    note = (
        "Regions each: of an image, or of a text whose phrases they are; each box of each phrase is one. Tokens are "
        "words and marks, on average."
    )
    found: list[Piece] = [Heading("Annotations"), Table(head, list(map(_kind_cells, kinds))), Words(note, "note")]
    if published:
        rows = [[_name_of(*name), *(_decimal(value) for value in values)] for name, values in FLD_5B.items()]
        found += [Heading("FLD-5B for comparison, as the Florence-2 report states it", 3)]
        found += [Table(("annotations", "tokens of a text", "regions each", "tokens of a region"), rows)]
    return found


def _kind_cells(kind: Kind) -> list[str | Cell]:
    written = f"{kind.annotations:,}" if kind.group != REGION else NONE
    regions = f"{kind.regions:,}" if kind.group in (REGION, TRIPLET) else NONE
    texts = f"{kind.images:,}", written, _decimal(kind.tokens)
    return [_name_of(kind.group, kind.name), *texts, regions, _decimal(kind.regions_each), _decimal(kind.region_tokens)]


def _name_of(group: str, name: str) -> str:
    """Name a row: "text, more detailed"."""
    return ", ".join(dict.fromkeys((group, name.replace("_", " "))))


def texts(stats: Stats, published: bool = True) -> list[Piece]:
    """Give what texts talk about; nothing without texts.

    published  with what is published of FLD-5B beside it.
    """
    if not stats.meanings:
        return []
    names = [one.level.replace("_", " ") for one in stats.meanings]
    head = ["each text, on average", *names, *(f"FLD-5B: {name}" for name in names if published)]
    rows = [[name, *(_decimal(one.figures[name]) for one in stats.meanings)] for name in FIGURES]
    if published:
        for row in rows:
            row += [_decimal(FLD_5B_FIGURES[row[0]][LEVELS.index(one.level)]) for one in stats.meanings]
    counts = ", ".join(f"{one.texts:,} {name}" for one, name in zip(stats.meanings, names, strict=True))
    every = "every image" if stats.parsed_every == 1 else f"one image in {stats.parsed_every:,}"
    note = (
        f"From a parse of the texts of {every}: {counts}. Complexity is the greatest number of other words that an "
        "object or an action hangs together with; how the report makes one figure of a text's words is not published."
    )
    return [Heading("What the texts say"), Table(head, rows), Words(note, "note")]


# ---- regions


def coverage(stats: Stats) -> list[Piece]:
    """Give where boxes are, how large, of what shape and how many in an image; nothing without boxes."""
    found: list[Piece] = []
    for name, one in stats.coverage.items():
        if one.n:
            what = "regions" if name == REGION else "phrases"
            found += [Heading(f"Where {what} are"), Charts(_coverage_charts(what, one))]
    return found


def _coverage_charts(name: str, one: Coverage) -> list[Chart]:
    sizes = [f"{100 * edge:g}" for edge in SIZES[1:-1]]
    aspects = ["1:8", "1:4", "1:2", "4:5", "5:4", "2:1", "4:1", "8:1"]
    each = _whole_names(EACH)
    return [
        Chart(heat_svg(one.grid, f"Centres of {name} in the image"), _thirds(one), "centres in the image"),
        Chart(
            bars_svg(one.sizes.counts, sizes, f"Sizes of {name}", between=True),
            _histogram("side of the box, % of the image's", _edge_names(sizes, " %"), one.sizes),
            "size: side against that of the image, %",
        ),
        Chart(
            bars_svg(one.aspects.counts, aspects, f"Shapes of {name}", between=True),
            _histogram("width : height", _edge_names(aspects, ""), one.aspects),
            "shape: width to height",
        ),
        Chart(
            bars_svg(one.each.counts, each, f"How many {name} in an image"),
            _histogram(f"{name} in an image", each, one.each),
            f"{name} in an image",
        ),
    ]


def _thirds(one: Coverage) -> Table:
    head = ("centres in the image", "left", "middle", "right")
    rows = [
        [name, *(_percent(count, one.n) for count in counts)]
        for name, counts in zip(("top", "middle", "bottom"), one.thirds(), strict=True)
    ]
    return Table(head, rows)


def _whole_names(edges: Sequence[float]) -> list[str]:
    """Names of bins of whole numbers: "4", "5–6", "50+"."""
    names = []
    for low, high in pairwise(edges):
        last = f"–{high - 1:.0f}" if high - low > 1 else ""
        names.append(f"{low:.0f}+" if high == float("inf") else f"{low:.0f}{last}")
    return names


def _edge_names(edges: Sequence[str], unit: str) -> list[str]:
    """Names of the bins around some edges."""
    inner = [f"{low} to {high}{unit}" for low, high in pairwise(edges)]
    return [f"under {edges[0]}{unit}", *inner, f"from {edges[-1]}{unit}"]


def _histogram(what: str, bins: Sequence[str], one: Histogram) -> Table:
    rows = [[name, f"{count:,}", _percent(count, one.n)] for name, count in zip(bins, one.counts, strict=True)]
    return Table((what, "how many", "share"), rows)


# ---- names, scores, sources


def names(stats: Stats) -> list[Piece]:
    """Give what regions and phrases are called most often."""
    columns: list[list[Piece]] = [
        [Heading(f"Most frequent {name}", 3), _frequent(name, one), Words(_distinct(name, one), "note")]
        for name, one in stats.named.items()
        if one.n
    ]
    return [Heading("What is named"), Beside(columns)] if columns else []


def _frequent(name: str, one: Names) -> Table:
    top = one.top(TOP)
    rows: list[list[str | Cell]] = [
        [_short(word) or "(empty)", Cell(f"{count:,}", count / top[0][1]), _percent(count, one.n)]
        for word, count in top
    ]
    return Table((name, "how many", "share"), rows)


def _distinct(name: str, one: Names) -> str:
    least = "at least " if one.others else ""
    return f"{one.n:,} {name}, {least}{len(one.counts):,} different ones."


def sources(stats: Stats) -> list[Piece]:
    """Give who said it, and how sure they were."""
    found: list[Piece] = []
    kinds = [kind for kind in ("texts", "regions", "groundings", "questions", "pairs") if _any(stats, kind)]
    if kinds:
        rows = [
            [origin_name(origin), *(f"{counts.get(kind, 0):,}" for kind in kinds)]
            for origin, counts in sorted(stats.origins.items(), key=lambda item: -sum(item[1].values()))
        ]
        found += [Heading("Who said it"), Table(("source", *kinds), rows)]
    charts = [
        Chart(
            bars_svg(one.counts, [f"{edge:.1f}" for edge in TENTHS[1:-1]], f"Scores of {name}", between=True),
            _histogram(f"score of {name}", [f"{low:.1f} to {high:.1f}" for low, high, _ in one.bins], one),
            f"{name} by score",
        )
        for name, one in stats.scores.items()
        if one.n
    ]
    if charts:
        found += [Heading("Scores"), Charts(charts)]
        found += [Words(f"Without a score: {_listed(stats.unscored)}.", "note")] if any(stats.unscored.values()) else []
    return found


def _any(stats: Stats, kind: str) -> bool:
    return any(counts.get(kind) for counts in stats.origins.values())


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def origin_name(origin: Origin) -> str:
    """Name where a note came from: "rapidocr, PP-OCRv4 3.2, round 0"."""
    model = " ".join(word for word in (origin.model, origin.version) if word)
    parts = [origin.source or "not known", model, f"round {origin.round}" if origin.source else ""]
    return ", ".join(part for part in parts if part)


# ---- what became of the images


def layers(stats: Stats) -> list[Piece]:
    """Give what each layer came to."""
    head = ("layer", "run", "images", "failed", "left out", "skipped", "notes", "drops")
    rows = [
        [one.layer, one.run_id, f"{one.statuses.total():,}"]
        + [f"{one.statuses[status]:,}" for status in ("failed", "filtered", "skipped")]
        + [f"{one.notes:,}", f"{one.dropped:,}"]
        for one in stats.layers
    ]
    return [Heading("Layers"), Table(head, rows, words=frozenset({1}))]


def failures(stats: Stats) -> list[Piece]:
    """Give what failed and why; nothing when all went well."""
    if not stats.failures:
        return []
    rows = [
        [one.stage, one.status, one.kind or NONE, f"{one.count:,}", _short(one.first[0].message)]
        for one in stats.failures
    ]
    return [
        Heading("What failed"),
        Table(("stage", "status", "reason", "images", "the first says"), rows, words=frozenset({1, 2, 4})),
    ]


def dropped(stats: Stats) -> list[Piece]:
    """Give what rules dropped; nothing when they dropped nothing."""
    if not stats.dropped:
        return []
    most = stats.dropped[0].count
    note = "Nothing dropped is deleted: another threshold brings it back without annotating again."
    rows: list[list[str | Cell]] = [
        [one.rule, one.kind, one.layer, Cell(f"{one.count:,}", one.count / most), _short(one.sample.kept[0].reason)]
        for one in stats.dropped
    ]
    table = Table(("rule", "of kind", "layer", "notes", "one of them"), rows, words=frozenset({1, 2, 4}))
    return [Heading("What the rules dropped"), table, Words(note, "note")]


# ---- figures


def share(count: int, of: int) -> str:
    """Give a share in brackets; "" of nothing."""
    return f" ({100 * count / of:.0f} %)" if of else ""


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else NONE


def _short(text: str) -> str:
    return shorten(text, LETTERS)


def _decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
