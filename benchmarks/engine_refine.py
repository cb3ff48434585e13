"""Precision and recall of a round of noisy specialists, and of the round in which the embedded nano refines it.

    python -m benchmarks.engine_refine                        # 100 scenes, one noisy specialist
    python -m benchmarks.engine_refine --specialists 3        # three, fused

The scenes, the specialists and their errors are those of engine_filters.py. Nano is asked for captions, objects, lines
of text and the places of its brief caption's phrases; what it says is merged as engine/reconcile.py does, and filtered.
Beside the two rounds: what nano says alone, filtered. The truth knows one caption of each level in one
wording, so a second, true caption and its phrases count as false. Prints a table and one line of JSON, and writes that
line into a dated file.
"""

import argparse
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from time import perf_counter

from PIL import Image

from benchmarks.engine_filters import FIRST_SEED, KINDS_OF_NOTES, VOCABULARY, Specialist, annotate, shares_of, tally
from benchmarks.machine import ROOT, commit, keep, processor
from openflorence.data.album import scene_record
from openflorence.data.notes import ImageRow, LayerRow, Notes, kept
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.engine.agree import AgreeSettings
from openflorence.engine.fuse import fuse
from openflorence.engine.judge import JudgeSettings, judge
from openflorence.engine.network import Florence
from openflorence.engine.reconcile import DEFAULT_RECONCILE, Update, reconcile, said_by
from openflorence.engine.stages import Context, Row
from openflorence.engine.votes import FuseRule, Voter

TASKS = ("caption", "detailed_caption", "detect", "read_regions", "ground")
STEPS = ("before", "nano", "after")
_JUDGE = JudgeSettings(agree=AgreeSettings(vocabulary=VOCABULARY))


def measure(scenes: int, specialists: Sequence[Specialist], side_px: int) -> dict[str, object]:
    """Annotate, fuse and filter; refine and filter again; count."""
    rule = FuseRule(tuple(Voter(who.name, ("object", "word")) for who in specialists))
    drawn = [draw_scene(FIRST_SEED + number, WorldConfig(side_px=side_px)) for number in range(scenes)]
    tallies: dict[str, list] = {step: [] for step in STEPS}
    rules: dict[str, int] = {}
    merging = 0.0
    for scene, row in zip(drawn, _asked(drawn), strict=True):
        said = {who.name: annotate(scene, who) for who in specialists}
        notes = fuse(said, rule)[0] if len(said) > 1 else next(iter(said.values()))
        base = LayerRow("", notes=notes, verdicts=judge({"fuse": notes}, scene.image_wh, _JUDGE))
        start = perf_counter()
        update = Update(said=said_by({"florence_1": row}, ["florence_1"]), source="florence", name="florence_1")
        merged, verdicts, measures = reconcile(said_by({"fuse": base}, ["fuse"]), update, "refine_1")
        merging += perf_counter() - start
        rounds = {
            "before": kept(notes, base.verdicts),
            "nano": _filtered(kept(row.notes, row.verdicts, "florence_1"), scene),
            "after": _filtered(merged, scene),
        }
        truth = scene_record(scene, "")
        for step, there in rounds.items():
            tallies[step].append(tally(there, truth))
        for name in [*(one.rule for one in verdicts), *(one.name for one in measures)]:
            rules[name] = rules.get(name, 0) + 1
    rows = [
        {"kind": kind} | {step: shares_of([one[kind] for one in found]) for step, found in tallies.items()}
        for kind in KINDS_OF_NOTES
    ]
    return {"rows": rows, "rules": rules, "merging_ms_per_scene": 1e3 * merging / scenes}


def _asked(scenes: Sequence[Scene]) -> Iterator[LayerRow]:
    """What nano says of each scene."""
    stage = Florence(tasks=TASKS, layer="florence_1", round=1)
    stage.setup(Context())
    for start in range(0, len(scenes), stage.batch):
        for outcome in stage.process([Row(_row(scene), {}) for scene in scenes[start : start + stage.batch]]):
            notes, verdicts = outcome if isinstance(outcome, tuple) else (outcome, ())
            yield LayerRow("", notes=notes, verdicts=tuple(verdicts))


def _row(scene: Scene) -> ImageRow:
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "PNG")
    return ImageRow("", file.getvalue(), "image/png", scene.image_wh, str(scene.seed))


def _filtered(notes: Notes, scene: Scene) -> Notes:
    return kept(notes, judge({"x": notes}, scene.image_wh, _JUDGE))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--side-px", type=int, default=320)
    parser.add_argument("--specialists", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    given = parser.parse_args()
    specialists = tuple(Specialist(f"noisy{seed}", seed=seed) for seed in range(given.specialists))
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "scenes": given.scenes,
        "first_seed": FIRST_SEED,
        "side_px": given.side_px,
        "specialists": given.specialists,
        "settings": asdict(DEFAULT_RECONCILE),
        **measure(given.scenes, specialists, given.side_px),
    }
    print_table(results)
    given.out.mkdir(parents=True, exist_ok=True)
    keep(results, given.out, f"engine-refine{f'-{given.specialists}' if given.specialists > 1 else ''}")


def print_table(results: Mapping[str, object]) -> None:
    """One row a kind, in percent: round 0, nano alone, round 1."""
    print(f"{'kind':14}{'precision':>26}{'recall':>26}{'F1':>26}")
    for row in results["rows"]:  # type: ignore[attr-defined]
        steps = [(row[step]["precision"] or 0.0, row[step]["recall"] or 0.0) for step in STEPS]
        columns = [[p for p, _ in steps], [r for _, r in steps], [2 * p * r / max(p + r, 1e-9) for p, r in steps]]
        print(f"{row['kind']:14}" + "".join(f"{'  '.join(f'{100 * one:.1f}' for one in each):>26}" for each in columns))
    print("rules:", results["rules"], f"{results['merging_ms_per_scene']:.1f} ms of merging a scene")


if __name__ == "__main__":
    main()
