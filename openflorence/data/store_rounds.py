"""Rounds: which sealed runs make one, and its records as training reads them.

A round names a run for each layer, and whose notes its records hold: where one layer fuses what others noted, only the
fused notes count. Verdicts count wherever they stand. Publishing writes the records as one more column of the images,
and a tag that keeps this version readable whatever comes later.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.contract.records import Record, record_from_row, record_to_row
from openflorence.data.cleaning import clean_record
from openflorence.data.notes import KINDS, LayerRow, Notes, kept_by_all
from openflorence.data.problems import Problems
from openflorence.data.store_corpus import Corpus
from openflorence.data.store_files import clear_parts, commit_json
from openflorence.data.store_layers import LayerRun
from openflorence.data.store_place import listed, make_folder, read_kept, remove_folder
from openflorence.data.store_rows import Plain
from openflorence.data.store_text import record_to_text, rounded
from openflorence.errors import BadConfig


@dataclass(frozen=True)
class Round:
    """What a round is made of."""

    number: int
    runs: Mapping[str, str]  # layer -> run id
    notes_from: tuple[str, ...]  # layers whose notes the records hold, in this order
    units: int  # the first so many units of the store
    published: Mapping[str, Any] | None = None  # tag, images, annotated, problems

    @property
    def column(self) -> str:
        """Name of the column that holds its records."""
        return f"ann_r{self.number}"

    @property
    def tag(self) -> str:
        """Name of the version of the images that it was published with."""
        return f"round-{self.number}"


# ---- what there is


def round_path(folder: Path, number: int) -> Path:
    """Name the file of a round."""
    return folder / "rounds" / f"{number}.json"


def read_rounds(folder: Path) -> dict[int, Round]:
    """Give all rounds of a store by number, ascending."""
    paths = sorted(listed(folder / "rounds", "*.json"), key=lambda path: int(path.stem))
    return {int(path.stem): _read_round(path) for path in paths}


def find_round(folder: Path, number: int | None) -> Round:
    """Give a round that is published; the latest one for None.

    raises    BadConfig when there is no such round, or it is not published.
    """
    rounds = read_rounds(folder)
    published = [one for one in rounds.values() if one.published]
    chosen = rounds.get(number) if number is not None else (published[-1] if published else None)
    if chosen is None or not chosen.published:
        there = ", ".join(str(one.number) for one in published) or "none yet"
        wanted = "a round" if number is None else f"round {number}"
        raise BadConfig(f"{folder}: {wanted} is not published; published are: {there}; publish it first")
    return chosen


def define_round(folder: Path, number: int, runs: Sequence[LayerRun], notes_from: Sequence[str]) -> Round:
    """Write down what a round is made of.

    notes_from  layers whose notes its records hold; () for all, in the order of the runs.
    raises      BadConfig for a run that is not sealed, or a round that is published with other runs.
    """
    layers = [run.layer for run in runs]
    lacking = sorted(set(notes_from) - set(layers))
    if lacking or not runs or len(set(layers)) < len(layers) or number < 0:
        raise BadConfig(
            f"round {number} of layers {layers} takes notes from {list(notes_from)}: give a number of 0 or more, one "
            "run a layer, and take notes from these layers"
        )
    units = {run.layer: int(run.sealed()["units"]) for run in runs}
    if not min(units.values()):
        raise BadConfig(f"round {number} has no images: take some into the store first")
    if len(set(units.values())) > 1:
        raise BadConfig(f"round {number}: its runs are sealed with {units} units; run and seal them all again")
    made = Round(number, {run.layer: run.run_id for run in runs}, tuple(notes_from or layers), units[layers[0]])
    path = round_path(folder, number)
    if path.exists():
        there = _read_round(path)
        if replace(there, published=None) == made:
            return there
        if there.published:
            raise BadConfig(f"round {number} is published as {dict(there.runs)}; give the new one another number")
    commit_json(path, asdict(made))
    return made


def _read_round(path: Path) -> Round:
    row = read_kept(path)
    return Round(row["number"], row["runs"], tuple(row["notes_from"]), row["units"], row["published"])


# ---- what a round says of an image


def combine(layers: Mapping[str, LayerRow], notes_from: Sequence[str]) -> Notes | None:
    """Put together what the layers of a round say of one image, without what verdicts drop.

    returns   None for an image that a layer leaves out.
    """
    if any(row.status == "filtered" for row in layers.values()):
        return None
    parts = [kept_by_all(layers, layer) for layer in notes_from]
    joined: dict[str, Any] = {kind: tuple(note for part in parts for note in getattr(part, kind)) for kind in KINDS}
    return Notes(**joined, whole=frozenset().union(*(part.whole for part in parts)))


def combine_unit(runs: Sequence[LayerRun], notes_from: Sequence[str], unit: int) -> list[Notes | None]:
    """Put together what a round says of every image of a unit; see combine."""
    columns = {run.layer: run.read(unit) for run in runs}
    return [combine(dict(zip(columns, rows, strict=True)), notes_from) for rows in zip(*columns.values(), strict=True)]


# ---- publishing


def publish(folder: Path, corpus: Corpus, one: Round, runs: Sequence[LayerRun]) -> Round:
    """Write the records of a round as a column of the images, and tag this version.

    corpus    nobody else may write to it meanwhile.
    promise   killed and called again, it goes on with the units that lack; called once more, it does nothing.
    """
    corpus.refresh()
    stagings = folder / "rounds" / "staged"
    if not one.published:
        if one.column not in corpus.columns:
            # Columns only ever become more: with another count, what was staged knows nothing of one of them.
            staging = stagings / f"{one.number}-{len(corpus.columns)}"
            corpus.add_column(*_stage(staging, corpus, one, runs))
        corpus.put_tag(one.tag)
        one = replace(one, published=_count(listed(stagings, f"{one.number}-*/*.json"), one))
        commit_json(round_path(folder, one.number), asdict(one))
    for staging in listed(stagings, f"{one.number}-*"):
        remove_folder(staging)
    return one


def _stage(staging: Path, corpus: Corpus, one: Round, runs: Sequence[LayerRun]) -> tuple[dict[int, str], Any]:
    """Write the column for every unit that has none yet; the last one is written again, for its schema."""
    for other in listed(staging.parent, f"{one.number}-*"):
        if other != staging:
            remove_folder(other)
    make_folder(staging)
    clear_parts(staging)
    fragments, schema = {}, None
    for unit in range(one.units):
        path = staging / f"{unit:06d}.json"
        if unit == one.units - 1 or not path.exists():
            problems = Problems()
            rows = corpus.read(unit, ["uri", "width", "height"])
            notes = combine_unit(runs, one.notes_from, unit)
            texts = [_text(row, said, problems) for row, said in zip(rows, notes, strict=True)]
            fragment, schema = corpus.stage_column(unit, one.column, texts)
            annotated = sum(text is not None for text in texts)
            counts = {"images": len(texts), "annotated": annotated, "problems": problems.as_row()}
            commit_json(path, {"fragment": fragment, **counts})
        fragments[unit] = read_kept(path)["fragment"]
    return fragments, schema


def _count(paths: Iterable[Path], one: Round) -> dict[str, Any]:
    """Sum up what was staged: what a round says of itself."""
    staged = [read_kept(path) for path in sorted(paths)]
    problems = Problems()
    for unit in staged:
        seen = unit["problems"]
        counts = Counter({kind: what["count"] for kind, what in seen.items()})
        problems.take(Problems(counts, {kind: what["examples"] for kind, what in seen.items()}))
    sums = {name: sum(unit[name] for unit in staged) for name in ("images", "annotated")}
    return {"tag": one.tag, **sums, "problems": problems.as_row()}


def _text(row: Plain, notes: Notes | None, problems: Problems) -> str | None:
    """Spell the notes of an image, cleaned; None when there are none."""
    if notes is None or notes.is_empty:
        return None
    kinds = {kind: getattr(notes, kind) for kind in KINDS}
    record = Record(image=row["uri"], image_wh=(row["width"], row["height"]), whole=notes.whole, **kinds)
    # Rounded before it is cleaned, so that what is clean stays so.
    cleaned = clean_record(record_from_row(rounded(record_to_row(record))), problems)
    return None if cleaned is None else record_to_text(cleaned)
