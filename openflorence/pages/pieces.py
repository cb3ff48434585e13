"""What stands on a page, as plain pieces; and the pieces as Markdown and as HTML.

The HTML page holds all that it shows: no scripts, styles, fonts or pictures from elsewhere, and its policy forbids the
browser to fetch any. Every text that came from data is escaped here and nowhere else.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from openflorence.pages.look import SCRIPT, STYLE

LONGEST = 1000  # letters of a text that are shown
NONE = "–"  # in a cell without a value

# How figures and tables are called on a page, where their name in the code is not what people write.
CALLED = {
    "map": "mAP",
    "miou": "mIoU",
    "oiou": "oIoU",
    "cider_d": "CIDEr-D",
    "cider": "CIDEr",
    "rouge_l": "ROUGE-L",
    "anls": "ANLS",
    "iou": "IoU",
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "f1": "F1",
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{f"ap{least}": f"AP{least}" for least in range(50, 100, 5)},
}


@dataclass(frozen=True)
class Heading:
    """A heading; one of the second level also stands in the list of contents."""

    text: str
    level: int = 2  # 1..4


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    look: str = ""  # "", "note" for small print, "asked" for what a gallery shows, "verdict" for what matters


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its words."""

    text: str
    bar: float | None = None  # a share in 0..1, shown as a bar behind the words
    svg: str = ""  # a small chart in place of the words; Markdown has the words
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    ours: frozenset[int] = frozenset()  # columns that stand out
    charts: frozenset[int] = frozenset()  # columns of charts, which Markdown leaves out
    sortable: bool = False
    words: frozenset[int] = frozenset()  # columns of words, which stand to the left and may take several lines


@dataclass(frozen=True)
class Chart:
    """A drawing, and the table beside it that says the same; Markdown has the table."""

    svg: str
    table: Table
    title: str = ""


@dataclass(frozen=True)
class Charts:
    """Drawings side by side, their tables folded away below; Markdown has the tables."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Shot:
    """A picture, or why there is none."""

    caption: str
    data: str  # a data URI; "" without a picture
    missing: str = ""


@dataclass(frozen=True)
class Card:
    """One image with what was asked, what is true and what was said."""

    title: str
    score: str
    shots: Sequence[Shot]
    lines: Sequence[tuple[str, str]]  # what it is, and its text


@dataclass(frozen=True)
class Gallery:
    """Images side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Beside:
    """Columns of pieces side by side, where there is room."""

    columns: Sequence[Sequence["Piece"]]


Piece = Heading | Words | Table | Chart | Charts | Facts | Gallery | Beside


@dataclass
class Page:
    """A page as it grows."""

    title: str
    pieces: list[Piece] = field(default_factory=list)

    def add(self, *pieces: Piece) -> None:
        """Put pieces at the end."""
        self.pieces += pieces


def called(name: str) -> str:
    """Give the name of a figure, table or fact as people write it: "map_order" is "mAP order"."""
    words = name.split("_")
    for size in range(len(words), 0, -1):
        first = "_".join(words[:size])
        if first in CALLED or size == 1:
            return " ".join([CALLED.get(first, first), *([called("_".join(words[size:]))] if words[size:] else [])])
    return name


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a text that is too long to be read on a page, and say how long it was."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half of a pair of surrogates cannot be written
    return text if len(text) <= longest else f"{text[:longest].rstrip()} … ({len(text):,} letters)"


# ---- Markdown


def as_markdown(page: Page, aligned: bool = False) -> str:
    """Give a page as Markdown: all but its drawings and pictures.

    aligned   columns of tables stand below one another, for who reads it as it is.
    """
    parts = [f"# {_plain(page.title)}", *(_markdown(piece, aligned) for piece in page.pieces)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(piece: Piece, aligned: bool) -> str:
    if isinstance(piece, Heading):
        return f"{'#' * piece.level} {_plain(piece.text)}"
    if isinstance(piece, Words):
        return f"**{_plain(piece.text)}**" if piece.look == "verdict" else _plain(piece.text)
    if isinstance(piece, Table | Chart):
        return _markdown_table(piece.table if isinstance(piece, Chart) else piece, aligned)
    if isinstance(piece, Charts):
        return "\n\n".join(_markdown_table(chart.table, aligned) for chart in piece.charts)
    if isinstance(piece, Beside):
        return "\n\n".join(_markdown(each, aligned) for column in piece.columns for each in column)
    if isinstance(piece, Facts):
        return "\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in piece.rows)
    if isinstance(piece, Gallery):
        return "\n".join(_markdown_card(card) for card in piece.cards)
    return ""


def _markdown_table(table: Table, aligned: bool) -> str:
    kept = [column for column in range(len(table.head)) if column not in table.charts]
    rows = [[_plain(_words(row[column])) for column in kept] for row in table.rows]
    head = [_plain(table.head[column]) for column in kept]
    left = [place == 0 or column in table.words for place, column in enumerate(kept)]
    rule = ["---" if one else "---:" for one in left]
    if aligned:
        widths = [max(map(len, column)) for column in zip(head, rule, *rows, strict=True)]
        rule = ["-" * width if one else "-" * (width - 1) + ":" for width, one in zip(widths, left, strict=True)]
        head, *rows = (
            [
                cell.ljust(width) if one else cell.rjust(width)
                for cell, width, one in zip(row, widths, left, strict=True)
            ]
            for row in (head, *rows)
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _markdown_card(card: Card) -> str:
    lines = [f"- {_plain(card.title)}: {_plain(card.score)}"]
    lines += [f"  - {_plain(name)}: {_plain(text)}" for name, text in card.lines]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape what Markdown, or HTML in it, would take as more than text; one line."""
    line = " ".join(shorten(text).replace("\x00", " ").split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~#])", r"\\\1", line)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)  # within a word it is a letter


def _words(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


# ---- HTML


def as_html(page: Page) -> str:
    """Give a page as one HTML file that opens from disk, without a network."""
    headings = [piece for piece in page.pieces if isinstance(piece, Heading) and piece.level == 2]
    anchors = {id(piece): f"part-{i}" for i, piece in enumerate(headings, start=1)}
    links = "".join(f'<a href="#{anchors[id(one)]}">{_safe(one.text)}</a>' for one in headings)
    body = "\n".join(_html(piece, anchors.get(id(piece), "")) for piece in page.pieces)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{_safe(page.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{_safe(page.title)}</h1>\n<nav>{links}</nav>",
            body,
            f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        )
    )


def _html(piece: Piece, anchor: str) -> str:
    if isinstance(piece, Heading):
        place = f' id="{anchor}"' if anchor else ""
        return f"<h{piece.level}{place}>{_safe(piece.text)}</h{piece.level}>"
    if isinstance(piece, Words):
        look = f' class="{piece.look}"' if piece.look else ""
        return f"<p{look}>{_safe(piece.text)}</p>"
    if isinstance(piece, Table):
        return _html_table(piece)
    if isinstance(piece, Chart):
        return f'<div class="beside"><figure>{piece.svg}</figure>{_html_table(piece.table)}</div>'
    if isinstance(piece, Charts):
        return _html_charts(piece)
    if isinstance(piece, Beside):
        columns = ("\n".join(_html(each, "") for each in column) for column in piece.columns)
        return f'<div class="columns">{"".join(f"<div>{column}</div>" for column in columns)}</div>'
    if isinstance(piece, Facts):
        rows = "".join(f"<div><dt>{_safe(name)}</dt><dd>{_safe(value)}</dd></div>" for name, value in piece.rows)
        return f"<dl>{rows}</dl>"
    return f'<div class="gallery">{"".join(_html_card(card) for card in piece.cards)}</div>'


def _html_charts(piece: Charts) -> str:
    drawn = "".join(
        f"<figure><figcaption>{_safe(chart.title)}</figcaption>{chart.svg}</figure>" for chart in piece.charts
    )
    tables = "".join(_html_table(chart.table) for chart in piece.charts)
    folded = f'<details><summary>The same in numbers</summary><div class="beside">{tables}</div></details>'
    return f'<div class="charts">{drawn}</div>{folded}'


def _html_table(table: Table) -> str:
    def row(cells: Iterable[str]) -> str:
        return f"<tr>{''.join(cells)}</tr>"

    looks = (
        dict.fromkeys(table.ours, "ours") | dict.fromkeys(table.charts, "chart") | dict.fromkeys(table.words, "words")
    )
    marks = [_class([looks[i]] if i in looks else []) for i in range(len(table.head))]
    head = row(f'<th scope="col"{mark}>{_safe(name)}</th>' for mark, name in zip(marks, table.head, strict=True))
    rows = "\n".join(row(_html_cell(i, cell, looks.get(i, "")) for i, cell in enumerate(cells)) for cells in table.rows)
    look = ' class="sortable"' if table.sortable else ""
    tall = " tall" if len(table.rows) > 15 and table.sortable else ""
    # Whoever has no mouse moves a table that is too wide with the arrow keys, which needs the focus.
    return (
        f'<div class="scroll{tall}" tabindex="0" role="group" aria-label="{_safe(table.head[0])}">'
        f"<table{look}>\n<thead>{head}</thead>\n<tbody>{rows}</tbody>\n</table></div>"
    )


def _html_cell(column: int, cell: str | Cell, look: str) -> str:
    if isinstance(cell, str):
        cell = Cell(cell)
    text = cell.svg or _safe(cell.text)
    if cell.strong:
        text = f"<strong>{text}</strong>"
    if column == 0:
        return f'<th scope="row" dir="auto">{text}</th>'
    looks = [look] if look else []
    looks += ["none"] if text == NONE else []
    looks += ["bar"] if cell.bar is not None else []
    style = f' style="--bar:{min(max(100 * cell.bar, 0), 100):.1f}%"' if cell.bar is not None else ""
    return f"<td{_class(looks)}{style}>{text}</td>"


def _class(looks: Sequence[str]) -> str:
    return f' class="{" ".join(looks)}"' if looks else ""


def _html_card(card: Card) -> str:
    shots = "".join(_html_shot(shot, card.title) for shot in card.shots)
    lines = "".join(f'<div><dt>{_safe(name)}</dt><dd dir="auto">{_safe(text)}</dd></div>' for name, text in card.lines)
    words = f'<dl class="said">{lines}</dl>' if lines else ""
    wide = " wide" if len(card.shots) > 1 else ""
    head = (
        f'<header><span class="name">{_safe(card.title)}</span><span class="score">{_safe(card.score)}</span></header>'
    )
    return f'<article class="card{wide}">{head}<div class="shots">{shots}</div>{words}</article>\n'


def _html_shot(shot: Shot, title: str) -> str:
    words = f"<figcaption>{_safe(shot.caption)}</figcaption>" if shot.caption else ""
    if not shot.data:
        return f'<figure class="missing"><p>{_safe(shot.missing)}</p>{words}</figure>'
    return f'<figure><img src="{shot.data}" alt="{_safe(f"{title}, {shot.caption}")}">{words}</figure>'


def _safe(text: str) -> str:
    """Escape a text for HTML, between tags and in quoted attributes; letters that no page may hold become marks."""
    return escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", shorten(text)))
