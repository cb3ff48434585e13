"""What published checkpoints are recorded to answer (golden/published.json), asking it again, and comparing.

Words must be equal. Bins may be one apart: two states of the library's own tests differ by a bin for the same
weights, for which another resampling or attention kernel is enough. Ids, where they are recorded, must be equal.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openflorence.contract.answers import CONTROLS
from openflorence.contract.locations import bins_to_box, spell_all
from openflorence.contract.regions import Answer
from openflorence.contract.tasks import Task, find_task
from openflorence.model.asking import Question
from openflorence.model.checkpoint import Checkpoint
from openflorence.model.predict import AskOptions, Florence, Request, load
from openflorence.model.runner import Runner
from openflorence.model.search import Decoded

FILE = Path(__file__).parent / "golden" / "published.json"
VARIABLE = "OPENFLORENCE_WEIGHTS"
TOLERANCE = 1  # bins

Run = list[int] | dict[str, Any]  # a run of bins; a dict where only its length and both ends are recorded
Piece = str | Run
Pieces = Sequence[Piece]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One recorded answer; the fields are those of the file."""

    name: str
    checkpoints: Sequence[str]
    batch: str
    image: str
    task: str
    said: Sequence[Pieces]
    recorded: str  # "raw" or "regions"
    max_tokens: int | None
    early_stopping: bool | None  # None: what the checkpoint says
    text: str | None = None
    region: Sequence[int] | None = None
    starts: str = ""
    ids: Sequence[int] = ()
    parsed: Sequence[tuple[str, list[int]]] = ()
    attention: str = ""


@dataclass(frozen=True)
class Said:
    """An answer and the ids it was decoded from, start token and </s> included."""

    answer: Answer
    ids: tuple[int, ...]
    raw: str  # of all ids


class Listening(Florence):
    """Keeps what an Answer does not: the ids. In the order in which answers end."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.heard: list[Said] = []
        self.runner.read = self._hear  # type: ignore[method-assign]

    def _hear(self, question: Question, decoded: Decoded) -> Answer:
        answer = Runner.read(self.runner, question, decoded)
        text = self.checkpoint.config.text
        bos = question.job.settings.forced_bos
        assert bos is not None  # Decoded leaves it out; the recordings have it
        ids = (text.decoder_start, bos, *decoded.ids, text.eos)
        self.heard.append(Said(answer, ids, self.checkpoint.text.decode(ids)))
        return answer


def read_file() -> dict[str, Any]:
    """The file as it is."""
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def read_goldens() -> list[Golden]:
    """Every recorded answer, in the order of the file."""
    return [
        Golden(**row, **{name: group[name] for name in ("recorded", "max_tokens", "early_stopping")})
        for group in read_file()["groups"]
        for row in group["rows"]
    ]


# ---- the folder of weights


def given_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that the tests were pointed to; None when they were not."""
    name = environment.get(VARIABLE)
    return Path(name).expanduser() if name else None


def find(folder: Path, *parts: str) -> Path:
    """A file or folder of the folder of weights; the test fails in one line when it is not there."""
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.fail(
            f"{VARIABLE}={folder} has no {'/'.join(parts)}: test_published_weights.py says what goes there", False
        )
    return path


def read_picture(folder: Path, name: str) -> Image.Image:
    """One of the recorded pictures; the test fails when it is missing or of another size."""
    with Image.open(find(folder, "images", name)) as file:
        picture = file.convert("RGB")
    wanted = tuple(read_file()["images"][name]["wh"])
    if picture.size != wanted:
        pytest.fail(f"images/{name} is {picture.size}, the recorded answers are about a picture of {wanted}", False)
    return picture


# ---- asking


def load_as_recorded(folder: Path, early_stopping: bool | None) -> Listening:
    """A checkpoint that searches as the recording did: its own settings, except for what the recording overrode."""
    checkpoint = load(folder).checkpoint
    if early_stopping is not None:
        text = replace(checkpoint.config.text, early_stopping=early_stopping)
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, text=text))
    return Listening(checkpoint)


def ask(model: Listening, goldens: Sequence[Golden], pictures: Mapping[str, Image.Image]) -> list[Said]:
    """Ask what was asked for the goldens of one batch, in one batch."""
    requests = []
    for golden in goldens:
        picture = pictures[golden.image]
        region = None if golden.region is None else bins_to_box(golden.region, picture.size)
        requests.append(Request(picture, golden.task, golden.text, region))
    (max_tokens,) = {golden.max_tokens for golden in goldens}
    options = AskOptions(decoding="published", max_tokens=max_tokens)
    model.heard.clear()
    answers = list(model.predict_many(requests, options, batch=len(requests)))
    place = {id(answer): place for place, answer in enumerate(answers)}  # heard as they ended, not as they were asked
    return sorted(model.heard, key=lambda said: place[id(said.answer)])


def batches(goldens: Sequence[Golden]) -> Iterator[tuple[str, list[Golden]]]:
    """Goldens that were recorded together, each group with its name."""
    for name, group in groupby(goldens, key=lambda golden: golden.batch):
        yield name, list(group)


# ---- comparing


def cut(raw: str) -> list[Piece]:
    """Raw text as pieces: words, and runs of bins; the frame <s> and </s> is left out."""
    for control in CONTROLS:
        raw = raw.replace(control, "")
    parts = re.split("((?:<loc_[0-9]+>)+)", raw)
    return [
        [int(bin_) for bin_ in re.findall("[0-9]+", part)] if index % 2 else part
        for index, part in enumerate(parts)
        if part
    ]


def only_ends(pieces: Pieces) -> list[str | list[int]]:
    """Pieces, with the ends for a run of which only its ends are recorded."""
    return [piece["first"] + piece["last"] if isinstance(piece, dict) else piece for piece in pieces]


def spell_pieces(pieces: Pieces) -> str:
    """Pieces as raw text."""
    return "".join(piece if isinstance(piece, str) else spell_all(piece) for piece in only_ends(pieces))


def one_region_each(pieces: Pieces, task: Task) -> list[Piece]:
    """Say the label again before each region, as a parser gives them, whether or not the text did."""
    size = {"quads": 8, "polygons": None}.get(task.form, 4)
    label, regions = "", list[Piece]()
    for piece, after in zip(pieces, [*pieces[1:], ""], strict=True):
        if isinstance(piece, str):
            label = piece
            regions += [piece] if isinstance(after, str) else []
        elif size is None or isinstance(piece, dict):
            regions += [label, piece]
        else:
            for start in range(0, len(piece), size):
                regions += [label, piece[start : start + size]]
    return regions


def complaints(golden: Golden, said: Said) -> list[str]:
    """What is not as recorded, a line each; nothing when all is."""
    found = []
    if golden.ids and tuple(golden.ids) != said.ids:
        found.append(f"{golden.name}: ids {said.ids}, recorded are {tuple(golden.ids)}")
    if not said.raw.startswith(golden.starts):
        found.append(f"{golden.name}: starts {said.raw[: len(golden.starts)]!r}, recorded is {golden.starts!r}")
    if not any(is_same(recorded, cut(said.raw), golden) for recorded in golden.said):
        recorded = " or ".join(str(pieces) for pieces in golden.said)
        found.append(f"{golden.name}: said {cut(said.raw)}, recorded is {recorded}")
    return found


def is_same(recorded: Pieces, said: Pieces, golden: Golden) -> bool:
    """Whether pieces agree: the same words, and bins within the tolerance."""
    if golden.recorded == "regions":
        task = find_task(golden.task)
        recorded, said = one_region_each(recorded, task), one_region_each(said, task)
    return len(recorded) == len(said) and all(map(_agrees, recorded, said))


def _agrees(recorded: Piece, said: Piece) -> bool:
    if isinstance(recorded, str) or isinstance(said, str):
        return isinstance(recorded, str) and isinstance(said, str) and _words(recorded) == _words(said)
    assert isinstance(said, list)
    if isinstance(recorded, dict):
        first, last = recorded["first"], recorded["last"]
        ends = said[: len(first)], said[len(said) - len(last) :]
        return len(said) == recorded["values"] and _near(first, ends[0]) and _near(last, ends[1])
    return _near(recorded, said)


def _near(recorded: Sequence[int], said: Sequence[int]) -> bool:
    return len(recorded) == len(said) and all(
        abs(one - other) <= TOLERANCE for one, other in zip(recorded, said, strict=True)
    )


def _words(text: str) -> str:
    """Trimmed, as a parser gives them; the published one leaves </s> before the first line of text."""
    for control in CONTROLS:
        text = text.replace(control, "")
    return text.strip()
