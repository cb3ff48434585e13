"""Pages as tests read them, with html.parser; every page has to stand alone."""

from html.parser import HTMLParser

ALONE = {"meta", "img"}  # have no closing tag
SHAPES = {"line", "rect", "circle", "polyline"}  # of SVG, which may be closed in place


class Reader(HTMLParser):
    """What a page holds; a tag that is closed by another, or never, is an error."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} twice"
        if tag not in ALONE:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES, f"<{tag}/> is no tag of HTML"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> opens nowhere"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def standing_alone(page: str) -> Reader:
    """Read a page; nothing in it may be fetched from elsewhere or run, but its own script."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [], f"never closed: {reader.open}"
    for _, attrs in reader.tags:
        assert not {name for name in attrs if name.startswith("on")}
        assert (attrs.get("src") or "data:image/").startswith("data:image/")
        assert (attrs.get("href") or "#").startswith("#")
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in reader.tags}
    assert len(reader.named("script")) == len(reader.named("style")) == 1
    assert "url(" not in page
    assert "@import" not in page
    return reader
