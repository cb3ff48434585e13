"""What is found of many small things, objects and words, by one look at a picture, by going on, and by tiles of it.

    python -m benchmarks.long_answers                                  # 40 scenes, 40 pages
    python -m benchmarks.long_answers --pictures 2 --kinds objects     # less of one

Scenes hold about 60 objects, pages 300 words, each on a plate on muted ground as nano was taught to read them. Both are
drawn at seeds that training does not use, and asked with "detect" and "read_regions". A way is "one", one look at the
whole picture; "continue", which goes on where that was cut; or a grid, rows x columns of overlapping tiles. Prints a
table and one line of JSON, and writes that line into a dated file; --look also draws the first answers beside it.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.contract.regions import Answer, Region
from openflorence.data.chance import dice
from openflorence.data.printed import PageConfig, draw_page
from openflorence.data.truth import ask
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.evaluation.figures import plain_figure
from openflorence.evaluation.metrics import Parts, figure_of
from openflorence.evaluation.reading import score_words
from openflorence.evaluation.scoring import score_boxes
from openflorence.model.asking import AskOptions
from openflorence.model.predict import Florence, load

CROWD = WorldConfig(side_px=512, min_objects=60, max_objects=60, size_percent=30, sign_share=0.0)
PAGE = PageConfig(words=300, plates=True, line_percent=260, gap_percent=140)
FIRST_SEED = 7000  # of scenes and pages; the rules of merging were chosen on 5000 to 5007; training begins far above
Score = Callable[[Sequence[Region], Sequence[Region]], dict[str, Parts]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    model: str = ""  # name, folder or hub id; "" is the embedded nano
    pictures: int = 40  # of each kind
    kinds: tuple[str, ...] = ("objects", "words")
    ways: tuple[str, ...] = ()  # of each kind its own, unless named
    beams: int = 1
    free: bool = False  # without the grammar
    threads: int = 2
    look: bool = False  # draw the first answer of each row beside the dated file
    out: Path = ROOT / "benchmarks"  # where the dated file goes


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of picture: how to draw it with its truth, what to ask, how to score."""

    task: str
    draw: Callable[[int], tuple[Image.Image, tuple[Region, ...]]]
    score: Score
    ways: tuple[str, ...]


def crowd(seed: int) -> tuple[Image.Image, tuple[Region, ...]]:
    """A scene of about sixty small objects."""
    scene = draw_scene(seed, CROWD)
    posed = ask(scene, "detect", dice(seed))
    assert posed is not None
    return Image.fromarray(scene.image), posed.answer.regions


def page(seed: int) -> tuple[Image.Image, tuple[Region, ...]]:
    """A page of three hundred words."""
    drawn = draw_page(seed, PAGE)
    return Image.fromarray(drawn.image), drawn.words


KINDS = {
    "objects": Kind("detect", crowd, score_boxes, ("one", "continue", "2x2", "3x3", "4x4", "5x5")),
    "words": Kind(
        "read_regions", page, score_words, ("one", "continue", "4x3", "8x6", "12x9")
    ),  # pages are 3 wide, 4 high
}


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    torch.set_num_threads(plan.threads)
    model = load(plan.model or None)
    plan.out.mkdir(parents=True, exist_ok=True)
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "threads": plan.threads,
        "torch": torch.__version__,
        "model": plan.model or "nano",
        "first_seed": FIRST_SEED,
        "beams": plan.beams,
        "grammar": not plan.free,
        "rows": [measure(plan, model, kind, way) for kind in plan.kinds for way in plan.ways or KINDS[kind].ways],
    }
    print_table(results["rows"])
    keep(results, plan.out, "long-answers")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=plan.model)
    parser.add_argument("--pictures", type=int, default=plan.pictures)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=plan.kinds)
    parser.add_argument("--ways", nargs="+", default=plan.ways)
    parser.add_argument("--beams", type=int, default=plan.beams)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--threads", type=int, default=plan.threads)
    parser.add_argument("--look", action="store_true")
    parser.add_argument("--out", type=Path, default=plan.out)
    return Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in vars(parser.parse_args()).items()})


def measure(plan: Plan, model: Florence, name: str, way: str) -> dict[str, object]:
    """Ask about all pictures of one kind in one way."""
    kind = KINDS[name]
    parts: dict[str, list[Parts]] = {}
    truncated, said, there, seconds = 0, 0, 0, 0.0
    for row in range(plan.pictures):
        picture, true = kind.draw(FIRST_SEED + row)
        start = perf_counter()
        answer = answer_one(plan, model, kind.task, picture, way)
        seconds += perf_counter() - start
        truncated, said, there = truncated + answer.truncated, said + len(answer.regions), there + len(true)
        for figure, part in kind.score(answer.regions, true).items():
            parts.setdefault(figure, []).append(part)
        if plan.look and not row:
            answer.draw().save(plan.out / f"{name}-{way}.png")
    return {
        "kind": name,
        "way": way,
        "pictures": plan.pictures,
        "there": there,
        "said": said,
        "truncated_pictures": truncated,
        "seconds_per_picture": seconds / plan.pictures,
        "figures": {figure: plain_figure(figure_of(np.array(rows))) for figure, rows in parts.items()},
    }


def answer_one(plan: Plan, model: Florence, task: str, picture: Image.Image, way: str) -> Answer:
    """One picture, asked in one of the ways."""
    options = AskOptions(beams=plan.beams, grammar=not plan.free)
    if way == "continue":
        options = replace(options, more="continue")
    elif way != "one":
        rows, columns = map(int, way.split("x"))
        options = replace(options, tiles=(rows, columns))
    return model.predict(picture, task, options=options)


def print_table(rows: list[dict]) -> None:
    """One row a measurement, in percent."""
    names = ("f1", "precision", "recall", "f1_unlabelled", "f1_unread")
    print(
        f"{'kind':9}{'way':10}{'there':>7}{'said':>7}"
        + "".join(f"{name:>15}" for name in names)
        + f"{'cut':>5}{'s':>8}"
    )
    for row in rows:
        values = [row["figures"].get(name, {}).get("value") for name in names]
        cells = "".join(f"{'' if value is None else f'{100 * value:.1f}':>15}" for value in values)
        print(
            f"{row['kind']:9}{row['way']:10}{row['there']:7}{row['said']:7}{cells}"
            f"{row['truncated_pictures']:5}{row['seconds_per_picture']:8.2f}"
        )


if __name__ == "__main__":
    main()
