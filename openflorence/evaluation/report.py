"""Reports over several benchmarks: one Markdown file, and one HTML page that holds all it shows.

markdown, page = write_pages(results, folder, [compare(before, after)])
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openflorence.data.problems import write_text
from openflorence.errors import BadConfig
from openflorence.evaluation.compare import Comparison, signed, span
from openflorence.evaluation.figures import percent
from openflorence.evaluation.gallery import furthest_apart, worst_and_best
from openflorence.evaluation.metrics import Figure
from openflorence.evaluation.paper import (
    DEFINITIONS,
    DOUBTS,
    OPEN_PROTOCOLS,
    PAPER_TABLES,
    PaperRow,
    PaperTable,
    number,
)
from openflorence.evaluation.reliability import reliability, reliability_svg
from openflorence.evaluation.results import Measured, Results
from openflorence.pages.charts import ends_of, interval_svg, others_svg
from openflorence.pages.pieces import (
    NONE,
    Cell,
    Chart,
    Facts,
    Heading,
    Page,
    Piece,
    Table,
    Words,
    as_html,
    as_markdown,
    called,
)


def write_pages(
    results: Sequence[Results], folder: Path, comparisons: Sequence[Comparison] = (), pictures: int = 4
) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` into a folder, which is made; a reader never sees half a file.

    results     of one model or several, on one benchmark or several; shown in this order.
    comparisons  shown after the summary, in this order.
    pictures    how many of the worst and how many of the best images to show of each benchmark; 0 for none.
    returns     the paths of the two files.
    raises      BadConfig without any results.
    """
    if not results:
        raise BadConfig("a report needs the results of at least one benchmark, got none")
    page = Page(_title(results))
    page.add(*_summary(results), *_came_back(results))
    for comparison in comparisons:
        page.add(*_comparison(comparison))
    page.add(*_beside_the_paper(results))
    for one in results:
        page.add(*_benchmark(one, _name(one, results), pictures))
    return (
        write_text(Path(folder) / "report.md", as_markdown(page)),
        write_text(Path(folder) / "report.html", as_html(page)),
    )


def _title(results: Sequence[Results]) -> str:
    models = list(dict.fromkeys(name for one in results if (name := _model(one))))
    return f"Evaluation of {' and '.join(models)}" if models else "Evaluation"


def _model(one: Results) -> str:
    return " ".join(str(one.about.get("model", "")).split())


def _name(one: Results, results: Sequence[Results]) -> str:
    """What to call one of several results: by its benchmark, and by its model where there are several."""
    models = {_model(other) for other in results}
    return f"{one.benchmark} · {_model(one)}" if len(models) > 1 else one.benchmark


# ---- all benchmarks


def _summary(results: Sequence[Results]) -> list[Piece]:
    rows = []
    headlines = [next(iter(one.measured.items()), ("", None)) for one in results]
    top = _top(headline for _, headline in headlines)
    for one, (name, headline) in zip(results, headlines, strict=True):
        rows.append([_name(one, results), called(name), *_measured_cells(headline, top), f"{len(one.images):,}"])
    head = ("benchmark", "headline figure", "value", "95 % interval", f"0 to {100 * top:g}", "images")
    note = (
        "Values are in points of 100. An interval holds the middle 95 % of what the figure is when as many images are "
        "drawn anew, with replacement; it says how much of a figure is due to these images, and nothing about other "
        "kinds of images."
    )
    return [Heading("Summary"), Table(head, rows, frozenset({2}), frozenset({4})), Words(note, "note")]


def _top(measured: Iterable[Measured | None]) -> float:
    """Where a chart of several figures ends: at 1, or above the largest of those that may be more, as CIDEr."""
    ends = [end for one in measured if one is not None for end in (one.figure.value, *(one.interval or ()))]
    return max(1.0, math.ceil(2 * max((end for end in map(finite, ends) if end is not None), default=0.0)) / 2)


def _measured_cells(measured: Measured | None, top: float) -> list[str | Cell]:
    value = None if measured is None else finite(measured.figure.value)
    if measured is None or value is None:
        return [NONE, NONE, ""]
    chart = interval_svg(value, measured.interval, (0.0, top))
    return [percent(value), NONE if measured.interval is None else span(measured.interval), Cell("", svg=chart)]


def _came_back(results: Sequence[Results]) -> list[Piece]:
    def row(one: Results) -> list[str | Cell]:
        counts = (one.invalid, one.truncated, one.refused, one.missing)
        return [_name(one, results), f"{one.asked:,}", *(_count(n, one.asked) for n in counts)]

    note = (
        "Invalid: at least one piece could not be read, the rest is scored. Truncated: ended by the token limit, "
        "scored as it is. Refused: the model raised an error, scored as empty. Missing: no answer, not scored."
    )
    head = ("benchmark", "questions", "invalid", "truncated", "refused", "missing")
    return [Heading("What came back"), Table(head, list(map(row, results))), Words(note, "note")]


def _count(n: int, asked: int) -> str | Cell:
    return Cell(f"{n:,} ({percent(n / asked)} %)", strong=True) if n and asked else f"{n:,}"


# ---- two models


def _comparison(comparison: Comparison) -> list[Piece]:
    a, b = comparison.names
    ends = ends_of(one.interval or (one.value or 0.0, 0.0) for one in comparison.differences.values())
    rows: list[list[str | Cell]] = []
    for name, one in comparison.differences.items():
        row: list[str | Cell] = [called(name), *(percent(value) for value in one.values)]
        if one.value is None:
            rows.append([*row, NONE, NONE, ""])
            continue
        sure = NONE if one.interval is None else span(one.interval)
        difference = Cell(signed(one.value, one.interval), strong=one.better is not None)
        rows.append([*row, difference, sure, Cell("", svg=interval_svg(one.value, one.interval, ends, zero=True))])
    head = ("figure", a, b, "difference", "95 % interval", f"{signed(ends[0])} to {signed(ends[1])}")
    words = f"{called(next(iter(comparison.differences)))}: {comparison.verdict}."
    note = (
        f"The second less the first, on the same {comparison.images:,} images; the interval is that of a paired "
        "bootstrap over images. Decide by the first figure: of twenty figures that are the same, one will seem to "
        "differ."
    )
    if any(comparison.missing):
        note += (
            f" Not scored, for they have no answer: {comparison.missing[0]:,} and {comparison.missing[1]:,} questions."
        )
    title = Heading(f"{comparison.benchmark}: {a} and {b}")
    table = Table(head, rows, frozenset({3}), frozenset({5}))
    return [title, Words(words, "verdict"), table, Words(note, "note"), *furthest_apart(comparison)]


# ---- the paper


def _beside_the_paper(results: Sequence[Results]) -> list[Piece]:
    """The tables of the paper that have a row we measured."""
    pieces: list[Piece] = [Heading("Beside the paper")]
    tables = [table for table in PAPER_TABLES if any(_ours(one, row, table) for one in results for row in table.rows)]
    if not tables:
        return [*pieces, Words("None of these benchmarks is in the tables of the Florence-2 paper.")]
    for table in tables:
        pieces += [Heading(table.title, 3), _paper_table(table, results), Words(f"Source: {table.source}.", "note")]
    notes = (
        "Our columns are the same in each table, whatever the weights were trained on. Filled dots are Florence-2, "
        "hollow ones other systems; the coloured dot with its interval is ours.",
        DEFINITIONS,
        *OPEN_PROTOCOLS,
        *DOUBTS,
    )
    return [*pieces, *(Words(note, "note") for note in notes)]


def _ours(one: Results, row: PaperRow, table: PaperTable) -> dict[str, Measured]:
    """What a result has to say in a row of the paper, by the name of the figure: several where protocols differ.

    Another part than any of the paper's stands in the first row of its benchmark, where it is named.
    """
    if one.benchmark != row.benchmark:
        return {}
    rows = [other for other in table.rows if other.benchmark == row.benchmark]
    same = [other for other in rows if other.split == one.about.get("split", rows[0].split)] or rows[:1]
    return {name: one.measured[name] for name in row.ours if name in one.measured} if row in same else {}


def _paper_table(table: PaperTable, results: Sequence[Results]) -> Table:
    shown = [one for one in results if any(_ours(one, row, table) for row in table.rows)]
    models = list(dict.fromkeys(_model(one) for one in shown))
    rows: list[list[str | Cell]] = []
    for place, row in enumerate(table.rows):
        found = [(one, _ours(one, row, table)) for one in shown]
        cells = [cells[place] for cells in table.systems.values()]
        by_model = [
            [_paper_cell(*each, row) for each in found if _model(each[0]) == model and each[1]] for model in models
        ]
        alike = [
            each
            for one, figures in found
            if one.about.get("split", row.split) == row.split
            for each in figures.values()
        ]
        rows.append([row.title, *("; ".join(words) or NONE for words in by_model), _strip(table, cells, alike), *cells])
    names = [f"{model} (ours)" if model else "ours" for model in models]
    head = ("benchmark", *names, "from 0 to the most", *table.systems)
    return Table(head, rows, frozenset(range(1, len(models) + 1)), frozenset({len(models) + 1}))


def _paper_cell(one: Results, figures: Mapping[str, Measured], row: PaperRow) -> str:
    parts = []
    for name, each in figures.items():
        plus = "" if each.interval is None else f" ± {percent((each.interval[1] - each.interval[0]) / 2)}"
        words = f"{percent(finite(each.figure.value))}{plus}"
        parts.append(f"{called(name)} {words}" if len(figures) > 1 else words)
    split = one.about.get("split", row.split)
    return "; ".join(parts) + ("" if split == row.split else f" (on {split})")


def _strip(table: PaperTable, cells: Sequence[str], measured: Sequence[Measured]) -> str | Cell:
    """Our values among those of the paper, from 0 to 100 or to the largest."""
    ours = [(value, one.interval) for one in measured if (value := finite(one.figure.value)) is not None]
    if not ours:
        return ""
    named = [(name, number(cell)) for name, cell in zip(table.systems, cells, strict=True)]
    others = [(name, value / 100, name.startswith("Florence-2")) for name, value in named if value is not None]
    most = max(1.0, *(value for value, _ in ours), *(value for _, value, _ in others))
    return Cell("", svg=others_svg(ours, others, (0.0, most)))


# ---- one benchmark


def _benchmark(one: Results, title: str, pictures: int) -> list[Piece]:
    pieces: list[Piece] = [Heading(title), Facts(_about(one))]
    top = _top(one.measured.values())
    rows = [[called(name), *_measured_cells(each, top), f"{each.figure.n:,.6g}"] for name, each in one.measured.items()]
    head = ("figure", "value", "95 % interval", f"0 to {100 * top:g}", "judged")
    if rows:
        pieces.append(Table(head, rows, frozenset({1}), frozenset({3})))
    for name, table in one.tables.items():
        pieces += [Heading(f"By {called(name)}", 3), _breakdown(called(name), table)]
    return [*pieces, *reliability_pieces(one.confidences, "Calibration of the scores"), *worst_and_best(one, pictures)]


def _about(one: Results) -> list[tuple[str, str]]:
    rows = [("images", f"{len(one.images):,}"), ("questions", f"{one.asked:,}")]
    return [*rows, *((called(name), _in_words(value)) for name, value in one.about.items() if value not in (None, ""))]


def _in_words(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{called(str(name))} {_in_words(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_in_words, value))
    return str(value)


def _breakdown(name: str, table: Mapping[str, Figure]) -> Table:
    rows: list[list[str | Cell]] = []
    for label, figure in table.items():
        value = finite(figure.value)
        width = finite(figure.half_width)
        rows.append([label or "(no name)", Cell(percent(value), value), percent(width), f"{figure.n:,.6g}"])
    return Table((name, "value", "±", "judged"), rows, sortable=True)


def reliability_pieces(confidences: NDArray[np.float64], title: str) -> list[Piece]:
    """Give the reliability diagram of some scores with its table and its error; nothing without any score.

    confidences  as `reliability` takes them.
    title        of the heading above.
    """
    measured = reliability(confidences)
    if measured.error is None:
        return []
    rows: list[list[str | Cell]] = [
        [f"{each.low:.1f} to {each.high:.1f}", f"{each.n:,}", percent(each.score), percent(each.right)]
        for each in measured.bins
        if each.n
    ]
    words = (
        f"Expected calibration error: {percent(measured.error)} points over {measured.n:,} scores. Scores that "
        "are honest lie on the diagonal: of the answers scored 0.8, eighty in a hundred are right."
    )
    table = Table(("score", "answers", "mean score", "right"), rows)
    return [Heading(title, 3), Words(words), Chart(reliability_svg(measured), table)]


def finite(value: float | None) -> float | None:
    """Give a value, or None for one that is none."""
    return value if value is not None and math.isfinite(value) else None
