"""What the trust in answers is worth, on drawn scenes that training never saw.

    python -m benchmarks.trust                        # nano, 1000 scenes, 3 beams; half an hour on one thread
    python -m benchmarks.trust --scenes 20            # shows that it runs

Average precision of `detect` when boxes are ranked by nothing (constant), by their order, and by their scores: label,
place (the published score), both, and both after calibration; with coordinates at the centre of the likeliest bin and
at the expected place. What the grammar changes: answers that are the same without it, and pieces that could not be
read. Going on: what is found where answers are cut, and where they go on. Presence: the area under the ROC curve of
phrases that are there against phrases that are not. Prints tables and one line of JSON, and writes that line into a
dated file.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.contract.regions import Answer, Region
from openflorence.evaluation.absent import KINDS, POINTING, evaluate_absent
from openflorence.evaluation.detection import SCORE_PROTOCOLS, average_precision
from openflorence.evaluation.drawn import evaluate_world, pose_world, world_tasks
from openflorence.evaluation.metrics import Figure
from openflorence.model.predict import AskOptions, Florence, load

FIGURES = ("map", "ap50", "ap75")
SHORT = 24  # tokens of an answer that is to be cut
GRAMMAR_SCENES = 200  # of which all tasks are asked with and without the grammar


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and on what."""

    model: str | None = None  # folder or hub id; the embedded nano
    scenes: int = 1000
    seed: int = 0
    batch: int = 64
    threads: int = 1
    out: Path = ROOT / "benchmarks"  # where the dated file goes


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    torch.set_num_threads(plan.threads)
    start, model = perf_counter(), load(plan.model)
    results = {
        "about": {
            "date": date.today().isoformat(),
            "commit": commit(),
            "processor": processor(),
            "model": plan.model or "nano",
            "scenes": plan.scenes,
            "seed": plan.seed,
        },
        "detect": measure_detect(plan, model),
        "grammar": measure_grammar(plan, model),
        "presence": measure_presence(plan, model),
        "continued": measure_continued(plan, model),
    }
    results["about"]["seconds"] = round(perf_counter() - start)  # type: ignore[index]
    print_tables(results)
    keep(results, plan.out, "trust")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=plan.model)
    for name in ("scenes", "seed", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plan, name))
    parser.add_argument("--out", type=Path, default=plan.out)
    return Plan(**vars(parser.parse_args()))


def ask(plan: Plan, model: Florence, tasks: Sequence[str] | None, scenes: int, options: AskOptions) -> list[Answer]:
    """Ask tasks about every scene; the same questions in the same order whatever the options."""
    posed = pose_world(scenes, plan.seed, world_tasks(scenes, plan.seed, tasks))
    return list(model.predict_many((one.request for one in posed), options, batch=plan.batch))


def measure_detect(plan: Plan, model: Florence) -> dict[str, dict[str, dict[str, float]]]:
    """Average precision in percent, by coordinates and by what boxes are ranked by."""
    truths = [
        one.example.answer.regions
        for one in pose_world(plan.scenes, plan.seed, world_tasks(plan.scenes, plan.seed, ["detect"]))
    ]
    table: dict[str, dict[str, dict[str, float]]] = {}
    for coordinates in ("bin", "expected"):
        answers = ask(plan, model, ["detect"], plan.scenes, AskOptions(coordinates=coordinates))  # type: ignore[arg-type]
        table[coordinates] = {
            name: plain(average_precision(regions, truths, protocol=protocol).figures)
            for name, protocol, regions in ranked(answers)
        }
    return table


def ranked(answers: Sequence[Answer]) -> Iterator[tuple[str, str, list[tuple[Region, ...]]]]:
    """Rankings of the boxes of answers: a name, the protocol of scores, and the boxes with these scores."""

    def rescored(value: Callable[[Region], float | None]) -> list[tuple[Region, ...]]:
        return [tuple(replace(region, score=value(region)) for region in answer.regions) for answer in answers]

    whole = [answer.regions for answer in answers]
    for protocol in SCORE_PROTOCOLS:
        yield protocol, protocol, whole
    yield "label alone", "probability", rescored(lambda region: region.label_score)
    yield "place alone, as published", "probability", rescored(lambda region: region.place_score)


def plain(figures: dict[str, Figure]) -> dict[str, float]:
    """Values in percent and half-widths of their 95 % intervals."""
    row: dict[str, float] = {}
    for name in FIGURES:
        value, half = figures[name].value, figures[name].half_width
        row |= {name: round(100 * (value or 0.0), 2), f"{name}_half_width": round(100 * (half or 0.0), 2)}
    return row


def measure_grammar(plan: Plan, model: Florence) -> dict[str, float]:
    """How many answers are whole without the grammar, how many of these are the same with it, and what it mends."""
    scenes = min(plan.scenes, GRAMMAR_SCENES)
    free, kept = (ask(plan, model, None, scenes, AskOptions(grammar=grammar)) for grammar in (False, True))
    whole = [(one, other) for one, other in zip(free, kept, strict=True) if not one.invalid]
    return {
        "answers": len(free),
        "whole_without": len(whole),
        "of_these_the_same": sum(one.raw == other.raw for one, other in whole),
        "invalid_without": sum(answer.invalid for answer in free),
        "invalid_with": sum(answer.invalid for answer in kept),
    }


def measure_presence(plan: Plan, model: Florence) -> dict[str, dict[str, float]]:
    """Area under the ROC curve in percent, by task and kind of absent phrase; on 300 scenes at most."""
    scores = evaluate_absent(model, scenes=min(plan.scenes, 300), seed=plan.seed)
    table: dict[str, dict[str, float]] = {}
    for task in (*POINTING, None):
        for kind in (*KINDS[1:], None):
            figure = scores.figure(task, kind)
            row = table.setdefault(task or "all", {})
            row[kind or "all"] = round(100 * (figure.value or 0.0), 2)
            row[f"{kind or 'all'}_half_width"] = round(100 * (figure.half_width or 0.0), 2)
    return table


def measure_continued(plan: Plan, model: Florence) -> dict[str, dict[str, float]]:
    """F1 of `detect` in percent: with all tokens, with room for three or four regions, and the same, going on."""
    scenes = min(plan.scenes, GRAMMAR_SCENES)
    short = AskOptions(max_tokens=SHORT)
    ways = {"whole": AskOptions(), "cut": short, "continued": replace(short, more="continue")}
    table = {}
    for name, options in ways.items():
        scores = evaluate_world(model, scenes, plan.seed, ["detect"], options, plan.batch)
        figure = scores.figure("detect", "f1")
        table[name] = {
            "f1": round(100 * (figure.value or 0.0), 2),
            "half_width": round(100 * (figure.half_width or 0.0), 2),
            "truncated": scores.tasks[0].truncated,
            "answers": scores.tasks[0].asked,
        }
    return table


def print_tables(results: dict) -> None:  # type: ignore[type-arg]
    """The figures for people, as Markdown."""
    for coordinates, table in results["detect"].items():
        print(f"\n| boxes ranked by ({coordinates}) | AP | AP50 | AP75 |\n|---|---|---|---|")
        for name, row in table.items():
            cells = (f"{row[figure]:.1f} ± {row[f'{figure}_half_width']:.1f}" for figure in FIGURES)
            print(f"| {name} | {' | '.join(cells)} |")
    print(f"\ngrammar: {results['grammar']}\n\ncontinued: {results['continued']}")
    print(f"\n| presence, AUC | {' | '.join((*KINDS[1:], 'all'))} |\n|---|---|---|---|")
    for task, row in results["presence"].items():
        cells = (f"{row[kind]:.1f} ± {row[f'{kind}_half_width']:.1f}" for kind in (*KINDS[1:], "all"))
        print(f"| {task} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
