"""What the documents say is true: snippets run, commands and options exist, paths and links lead somewhere.

A ```python block runs (snippets.py says how), a ```sh block names what exists, ```text is for readers only.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from snippets import LANGUAGES, Block, blocks, run_snippets
from test_house import HOUSE, ROOT

from openflorence.cli import app
from openflorence.contract.tasks import find_task

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")
DOCUMENTS += tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")))
# Their snippets are run.
RUN = ("README.md", "docs/answers.md", "docs/checkpoints.md", "docs/coordinates.md", "docs/tour.md")
OTHER_PROGRAMS = {"git", "cd", "."}  # may stand in a ```sh block unchecked
MARKS = ("nano-scores", "speed")


def read(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# ---- snippets


def test_the_snippets_run(tmp_path):
    # In a process of its own, as a reader has it: without the checks of shapes that these tests turn on. In one for
    # all documents, because most of the time is the import of torch.
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    files = [str(ROOT / document) for document in RUN]
    settings = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "tests" / "snippets.py"), *files]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("document", RUN)
def test_a_document_that_is_run_has_snippets(document):
    assert any(block.language == "python" for block in blocks(document, read(document)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document):
    found = blocks(document, read(document))
    unknown = [f"{document}:{block.line}" for block in found if block.language not in LANGUAGES]
    assert not unknown, unknown
    if document not in (*RUN, "examples/README.md"):  # the examples are checked where the drawn world is
        assert not [block for block in found if block.language == "python"]


# ---- commands


def command_lines(block: Block) -> Iterator[list[str]]:
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for joint in ("&&", "|", ">"):
            words = [word if word != joint else ";" for word in words]
        while words:
            end = words.index(";") if ";" in words else len(words)
            if words[:end]:
                yield words[:end]
            words = words[end + 1 :]


def check_command(words: list[str]) -> str:
    """What is wrong with a command line; "" for nothing."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *rest = words
    if program in ("openflorence", ".venv/bin/openflorence"):
        return check_openflorence(rest)
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
        lost = [word for word in rest if "=" not in word and word not in targets]
        return f"make has no {lost}" if lost else ""
    if program in ("python", ".venv/bin/python"):
        known = rest[:1] == ["-m"] and len(rest) > 1 and importlib.util.find_spec(rest[1]) is not None
        return "" if known else f"no module: {words}"
    return "" if program in OTHER_PROGRAMS else f"unknown program {program}"


def check_openflorence(words: list[str]) -> str:
    command = typer.main.get_command(app)
    rest = words
    while hasattr(command, "commands"):  # a group, of groups perhaps
        if not rest or rest[0] not in command.commands:
            return f"openflorence has no command {' '.join(words[:2])!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    if "--help" in words:
        return ""
    try:
        given = command.make_context(words[0], list(rest)).params
        for task in given.get("task", ()) if words[0] == "run" else ():
            find_task(task)
    except Exception as error:  # typer's usage errors; their class moved between its versions
        return f"{' '.join(words)}: {getattr(error, 'message', error)}"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_exists(document):
    wrong = []
    for block in blocks(document, read(document)):
        if block.language == "sh":
            wrong += [problem for words in command_lines(block) if (problem := check_command(words))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "openflorence fly",
        "openflorence engine fly",
        "openflorence engine run photos/ fld/ --nonsense",
        "openflorence run x.png --task detect --nonsense",
        "openflorence run x.png",
        "openflorence run x.png --task dance",
        "openflorence draw many scenes",
        "make tea",
        "python -m openflorence.nowhere",
        "rm -rf runs",
    ],
)
def test_a_command_that_does_not_exist_is_seen(line):
    assert check_command(shlex.split(line))


def test_a_snippet_that_fails_is_seen():
    for text in ("1 / 0", ">>> 1 + 1\n3", "assert False"):
        with pytest.raises((ZeroDivisionError, AssertionError)):
            run_snippets(blocks("a.md", f"```python\n{text}\n```\n"))
    with pytest.raises(SyntaxError):
        run_snippets(blocks("a.md", "```py\nif\n```\n"))


# ---- paths and links

# A path of this repository: it begins in one of these folders, of the root or of the package, or is a file of the root.
FOLDERS = {path.name for top in (ROOT, ROOT / "openflorence") for path in top.iterdir() if path.is_dir()} - {"runs"}
PATH = re.compile(r"[\w.-]+(?:/[\w.<>-]+)*/?")


def named_paths(text: str) -> list[str]:
    words = re.findall(r"`([^`\n]+)`", prose(text))
    return [
        word
        for word in words
        if PATH.fullmatch(word)
        and (("/" in word and word.split("/")[0] in FOLDERS) or word.endswith((".py", ".md")) or word == "Makefile")
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document):
    places = (ROOT, ROOT / "openflorence", (ROOT / document).parent)
    lost = [path for path in named_paths(read(document)) if not any((place / path).exists() for place in places)]
    lost = [path for path in lost if path not in ("utils.py", "openflorence/model/weights/nano")]
    assert not lost, lost


def anchors(text: str) -> list[str]:
    return [slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(read(document))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            lost.append(target)
    assert not lost, lost


def test_a_path_and_a_heading_are_recognised():
    assert named_paths("`contract/tasks.py`, `docs/`, `a/b`, `microsoft/x`, `box`\n```text\n`docs/no`\n```\n") == [
        "contract/tasks.py",
        "docs/",
    ]
    assert slug("Where we left the first plan, and why") == "where-we-left-the-first-plan-and-why"


# ---- the architecture, and what is filled in later


def house_of_the_document() -> tuple[dict[str, str], list[str]]:
    """The rooms and files of docs/architecture.md, and which of the files are said to come."""
    (tree,) = (block for block in blocks("", read("docs/architecture.md")) if block.text.startswith("contract/"))
    house: dict[str, list[str]] = {}
    coming: list[str] = []
    for line in tree.text.splitlines():
        if room := re.match(r"(\w+)(/|\.py)(?: |$)", line):
            house[room[1]] = []
        elif file := re.match(r"  (\w+)\.py +(\(comes\))?", line):
            last = list(house)[-1]
            house[last].append(file[1])
            coming += [f"{last}/{file[1]}.py"] if file[2] else []
    return {name: " ".join(files) for name, files in house.items()}, coming


def test_the_order_of_files_is_the_one_that_is_checked():
    house, coming = house_of_the_document()
    assert house == HOUSE
    assert list(house) == list(HOUSE)
    built = {f"{room}/{file}.py" for room, files in HOUSE.items() for file in files.split()} - set(coming)
    exists = {path for path in (*built, *coming) if (ROOT / "openflorence" / path).exists()}
    assert exists == built


@pytest.mark.parametrize("mark", MARKS)
def test_the_places_for_figures_are_whole(mark):
    for document in ("README.md", "docs/results.md"):
        text = read(document)
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        assert text.count(start) == text.count(end) == 1
        assert text.index(start) < text.index(end)
