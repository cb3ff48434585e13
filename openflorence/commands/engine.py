"""openflorence engine ...: images labelled, round after round, in a store."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from openflorence.commands.terminal import notes, one_of, progress_bar
from openflorence.data.store import Store
from openflorence.data.store_diff import SAME_PLACE
from openflorence.engine.chosen import ExportSettings, Pictures
from openflorence.engine.export import FORMATS
from openflorence.engine.export import export as export_store
from openflorence.engine.inputs import open_source
from openflorence.engine.plan import DEFAULT_PLAN, read_plan, run_round, with_model
from openflorence.engine.refine import LEAST_CHANGE, changed_images, diff_row, diff_table, told
from openflorence.engine.refine import refine as refine_store
from openflorence.engine.report import PICTURES, write_report
from openflorence.engine.runners import RUNNERS, Runner, RunSettings
from openflorence.engine.schedule import Progress, Tell
from openflorence.engine.show import as_row, as_text, describe, draw_image
from openflorence.engine.stats import measure as measure_store
from openflorence.engine.tables import as_markdown as stats_table
from openflorence.errors import BadConfig

app = typer.Typer(help="Label images, round after round, in a store.", no_args_is_help=True, rich_markup_mode=None)

StoreArgument = Annotated[str, typer.Argument(help="A store: a folder, or s3://bucket/folder.")]
RoundOption = Annotated[int | None, typer.Option("--round", help="The latest if left out.")]
RunnerOption = Annotated[str, typer.Option(help="inline, processes or ray.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="At once; one for each processor if left out.")]


@app.command("run")
def run(
    source: Annotated[str, typer.Argument(help="A folder, glob, data set, list (.txt), Parquet or WebDataset.")],
    folder: Annotated[str, typer.Argument(help="A folder or s3://bucket/folder; made, or gone on with.")],
    plan: Annotated[Path | None, typer.Option(help="A plan.toml; text is read offline if left out.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A checkpoint of ours that annotates too.")] = None,
    runner: RunnerOption = "inline",
    workers: WorkersOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do again what failed in an earlier run.")] = False,
) -> int:
    """Take images into a store, annotate, fuse and filter, and publish the round; may be stopped and run again."""
    chosen = DEFAULT_PLAN if plan is None else read_plan(plan)
    chosen = chosen if model is None else with_model(chosen, model)
    settings = _settings(runner, workers)
    found = open_source(source)
    if found.told:
        notes.print(found.told)
    with progress_bar("images taken in", None, True) as advance:
        done = run_round(found, folder, chosen, settings, tell=_teller(), advance=advance, retry=retry)
    took = done.ingested
    notes.print(f"{took.stored} images new, {took.known} known, {took.duplicates} copies, {took.failed} unreadable")
    counts = measure_store(Store.open(folder), done.round.number)
    print(stats_table(counts, whole=False))
    return 1 if counts.failures else 0


def _settings(runner: str, workers: int | None) -> RunSettings:
    return RunSettings(runner=cast(Runner, one_of("--runner", runner, RUNNERS)), workers=workers)


def _teller(every_s: float = 10.0) -> Tell:
    """What prints how far a run is: now and then, and at the end."""
    told = -every_s

    def tell(progress: Progress) -> None:
        nonlocal told
        if progress.done == progress.total or progress.seconds - told >= every_s:
            told = progress.seconds
            notes.print(_in_a_line(progress))

    return tell


def _in_a_line(progress: Progress) -> str:
    left = "" if progress.left_s is None else f", {progress.left_s:.0f} s left"
    parts = [f"{progress.done} of {progress.total} units, {progress.rows_per_s:.1f} rows/s{left}"]
    for layer, statuses in progress.statuses.items():
        counts = {**statuses, **{why: count for why, count in progress.reasons[layer].items() if ": fused" not in why}}
        if counts:
            parts.append(f"{layer} {', '.join(f'{count} {what}' for what, count in counts.items())}")
    parts += [f"{count} workers of {layer} died" for layer, count in progress.deaths.items()]
    return "; ".join(parts)


@app.command("refine")
def refine(
    folder: Annotated[str, typer.Argument(help="A store with a published round.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The updated checkpoint: a folder, a hub id, or nano.")],
    plan: Annotated[Path | None, typer.Option(help="A plan.toml; as in the latest round if left out.")] = None,
    least_change: Annotated[
        float, typer.Option(min=0, max=1, help="Below this share of changed annotations it has settled.")
    ] = LEAST_CHANGE,
    again: Annotated[bool, typer.Option("--again", help="Another round of a model that made the latest one.")] = False,
    runner: RunnerOption = "inline",
    workers: WorkersOption = None,
) -> int:
    """Annotate again with a better model, merge, filter and publish the next round; may be stopped and run again."""
    chosen = None if plan is None else read_plan(plan)
    settings = _settings(runner, workers)
    done = refine_store(folder, model, chosen, settings, least_change, again, tell=_teller())
    print(diff_table(done.diff))
    print(f"\n{told(done, least_change)}")
    statuses = done.progress.statuses.values() if done.progress else ()
    return 1 if any(counts.get("failed") for counts in statuses) else 0


@app.command("diff")
def diff(
    folder: StoreArgument,
    first: Annotated[int, typer.Argument(help="Number of a round.")],
    second: Annotated[int, typer.Argument(help="And of another.")],
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Intersection over union from which two boxes are one place.")
    ] = SAME_PLACE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Compare two rounds: what is the same, what is new, what is gone, and in which images."""
    store = Store.open(folder)
    found = store.diff(first, second, overlap)
    pictures = changed_images(store, found)
    if as_json:
        print(json.dumps(diff_row(found, pictures), ensure_ascii=False))
        return
    print(diff_table(found))
    for name, uri in pictures.items():
        print(f"{name[:12]}  {uri}")


@app.command("stats")
def stats(
    folder: StoreArgument,
    number: RoundOption = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with charts and pictures here: report.html.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Images that the page shows.")] = PICTURES,
) -> None:
    """Count what a round of a store holds, as tables; with --page also as a page that holds all it shows."""
    store = Store.open(folder)
    counts = measure_store(store, number)
    print(stats_table(counts))
    if page is not None:
        notes.print(f"written: {write_report(store, counts, page, pictures)}")


@app.command("show")
def show(
    folder: StoreArgument,
    image: Annotated[str, typer.Argument(help="Its row, the beginning of its id, its path or URL or the end of one.")],
    number: RoundOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Draw what the round holds here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Tell all that is known about one image: what layers said, what was dropped and why, what rounds hold."""
    shown = describe(Store.open(folder), image, number)
    print(json.dumps(as_row(shown), ensure_ascii=False) if as_json else as_text(shown))
    if out is not None:
        notes.print(f"written: {draw_image(shown, out)}")


@app.command("export")
def export(
    folder: StoreArgument,
    out: Annotated[Path, typer.Argument(help="Where to: a new or empty folder, or where this export was stopped.")],
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(FORMATS)}.")],
    number: RoundOption = None,
    least: Annotated[float, typer.Option("--least-score", help="Notes of a lower score stay out.")] = 0.0,
    split: Annotated[
        str | None, typer.Option(help="Shares of train, val, test: 0.9,0.05,0.05. As the images came if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    images: Annotated[
        str, typer.Option(help="copy, or reference: named where they lie (coco, jsonl, parquet).")
    ] = "copy",
    shard: Annotated[int, typer.Option(min=1, help="Images in a file of parquet, webdataset and hf.")] = 1000,
) -> None:
    """Write a round as a data set of another format; may be stopped and run again."""
    settings = ExportSettings(
        to=to,
        number=number,
        least=least,
        shares=_shares(split),
        seed=seed,
        images=cast(Pictures, images),
        shard=shard,
    )
    with progress_bar("images", None, True) as advance:
        done = export_store(Store.open(folder), out, settings, advance)
    for remark in done.remarks:
        notes.print(remark)
    parts = ", ".join(f"{name} {count:,}" for name, count in done.pictures.items())
    print(f"{out}: round {done.round} as {to}, images: {parts}")


def _shares(words: str | None) -> tuple[float, ...]:
    try:
        return () if words is None else tuple(float(word) for word in words.split(","))
    except ValueError as error:
        raise BadConfig(f"--split {words}: give shares of train, val and test, as 0.9,0.05,0.05") from error
