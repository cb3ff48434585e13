"""The fenced blocks of a document, and how they are run: `python tests/snippets.py README.md docs/tour.md`.

`python` blocks run, in order and in one namespace a document; with `>>>` every printed line is compared. `py` blocks
need a network and must compile. Blocks of `sh`, `text` and `json` are not for Python; see test_docs.py.
"""

import doctest
import io
import sys
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = {"python", "py", "sh", "text", "json", "toml"}


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    language: str
    line: int  # of its first line of content, counted from 0
    text: str


def blocks(document: str, text: str) -> list[Block]:
    """Every fenced block of a document, in order."""
    found, lines = [], text.split("\n")
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    assert len(fences) % 2 == 0, f"{document}: a ``` without its end"
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        language = lines[start].removeprefix("```").strip()
        found.append(Block(document, language, start + 1, "\n".join(lines[start + 1 : end]) + "\n"))
    return found


def run_snippets(found: list[Block]) -> None:
    """Run the python blocks of one document; line numbers of a failure are those of the document."""
    names: dict[str, object] = {"__name__": "snippet"}
    parser = doctest.DocTestParser()
    for block in found:
        if block.language == "py":
            compile(block.text, block.document, "exec")
        elif block.language == "python" and ">>> " in block.text:
            test = parser.get_doctest(block.text, names, block.document, block.document, block.line)
            runner, said = doctest.DocTestRunner(verbose=False), io.StringIO()
            runner.run(test, out=said.write, clear_globs=False)
            names |= test.globs
            assert runner.summarize(verbose=False).failed == 0, said.getvalue()
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, block.document, "exec"), names)


if __name__ == "__main__":
    for file in sys.argv[1:]:
        run_snippets(blocks(file, Path(file).read_text("utf-8")))
