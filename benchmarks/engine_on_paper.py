"""What FLD-5B's size would take of this data engine: measured pieces times 126 million, as the tables of docs/scale.md.

    python -m benchmarks.engine_on_paper
    python -m benchmarks.engine_on_paper --count      # the GFLOP of our networks, counted

Change a number here and copy the tables over; a test holds the document against them. Each number is measured here (the
command stands in the document), counted from the network, published, or assumed.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from openflorence.model import config
from openflorence.model.florence import Network as Florence

IMAGES, ANNOTATIONS = 126e6, 5.423e9  # published: Florence-2 report
UNIT = 4096  # images; chosen: a kill costs a minute of one accelerator
ROUNDS = 3  # assumed: "several"
FIRST_LAYERS = 10  # runs of layers: prints, copies, five specialists, fuse, writer, filter; assumed
LATER_LAYERS = 5  # of a later round: three tasks of the model, merge, filter; assumed

IMAGE_BYTES = 100e3  # assumed
ROW_BYTES = 100  # measured: of an image in the corpus besides its bytes
LOG_BYTES = 117  # measured: of logs and index of what was taken in
SET_BYTES = 1790  # measured: a layer with all 43 annotations of an image, in units of 1024
PUBLISHED_BYTES = 1246  # measured
FIRST_SETS, LATER_SETS = 3, 2  # assumed: what specialists say twice over, and once more fused
FILE_BYTES = 13e3  # measured: a file of a layer with nothing in it
MANIFEST_BYTES, MANIFEST_COLUMN_BYTES = 104, 245  # measured: a unit in the list of units; one published column of it


@dataclass(frozen=True)
class Work:
    """GFLOP of a network of ours, counted by torch.utils.flop_counter at 768 px."""

    image: float
    question: float  # its part in the encoder, and what the decoder keeps of it
    token: float


BASE, LARGE = Work(381, 65, 0.19), Work(1490, 225, 0.49)
QUESTIONS = 8  # of an image: three texts, three groundings, objects with names, objects with phrases
TOKENS = 330  # derived from FLD-5B's means: words of texts, and four locations a box
PEAK_TFLOPS = 989  # published: dense bfloat16 of an H100
ENCODING_SHARE, DECODING_SHARE = 0.35, 0.05  # of the peak; assumed
OTHERS = {"a detector of 1,000 GFLOP an image": 1000.0, "a mask maker of 3,000 GFLOP an image": 3000.0}  # assumed

CORE_US = {  # of one processor core, an image; measured, but for the decoding
    "take in: hash, log, commit": (450, "one process"),
    "take in: decode a JPEG of 100 KB": (2000, "threads"),
    "engine, each layer: read, trail, commit": (200, "workers"),
    "write and read a layer of 43 annotations": (2500, "workers"),
    "rapidocr, a photograph": (640_000, "workers"),
    "filter, all rules": (6300, "workers"),
    "publish, each round": (5500, "one process"),
}
GPU_HOUR, CORE_HOUR, GB_MONTH = 2.5, 0.04, 0.023  # dollars; assumed
TOKENS_IN, TOKENS_OUT, PRICE_IN, PRICE_OUT = 500, 120, 0.15, 0.60  # of a detailed text; dollars a million; assumed


def main() -> None:
    """Print the tables, or the counts."""
    if "--count" in sys.argv[1:]:
        print(count(config.BASE), count(config.LARGE), sep="\n")
        return
    for table in (storage(), files(), accelerator(), processor()):
        print("\n".join(table), end="\n\n")


def count(size: config.FlorenceConfig) -> Work:
    """Count a network; nothing is computed, and no weights are needed."""
    with torch.device("meta"):
        network, pixels = Florence(size).eval(), torch.zeros(1, 3, 768, 768)
        ids, mask = torch.zeros(1, 12, dtype=torch.long), torch.ones(1, 12, dtype=torch.bool)
        answers = [torch.zeros(1, length, dtype=torch.long) for length in (1, 101)]

    def gflop(*given: torch.Tensor) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*given) if len(given) > 1 else network.encode_image(*given)
        return counter.get_total_flops() / 1e9

    image, (short, long) = gflop(pixels), (gflop(pixels, ids, mask, answer) for answer in answers)
    return Work(round(image), round(short - image), round((long - short) / 100, 2))


def storage() -> Iterator[str]:
    """Bytes of everything."""
    sets = FIRST_SETS + (ROUNDS - 1) * LATER_SETS
    rows = {
        "images": (IMAGE_BYTES, "assumed, 100 KB each"),
        "rows of images: id, uri, size, licence": (ROW_BYTES, "measured"),
        "logs and index of what was taken in": (LOG_BYTES, "measured"),
        f"layers of {ROUNDS} rounds: {sets} sets of annotations": (sets * SET_BYTES, "measured × assumed"),
        f"published columns of {ROUNDS} rounds": (ROUNDS * PUBLISHED_BYTES, "measured × assumed"),
    }
    yield "| what | bytes an image | 126 million | |"
    yield "|---|---:|---:|---|"
    for what, (each, kind) in rows.items():
        yield f"| {what} | {each:,.0f} | {size(each * IMAGES)} | {kind} |"
    total = sum(each for each, _ in rows.values())
    money = total * IMAGES / 1e9 * GB_MONTH
    yield f"| all | {total:,.0f} | {size(total * IMAGES)} | ${money:,.0f} a month at ${GB_MONTH} a GB |"


def files() -> Iterator[str]:
    """Units, files, commits, the list of units; at the default size of a unit, and at a large one."""
    runs = FIRST_LAYERS + (ROUNDS - 1) * LATER_LAYERS
    yield "| | units of 256 | units of 4,096 | |"
    yield "|---|---:|---:|---|"
    units = {unit: -(-IMAGES // unit) for unit in (256, UNIT)}
    lines = {
        "units": (lambda n: f"{n:,.0f}", "derived"),
        f"files of layers, {runs} runs": (lambda n: f"{n * runs:,.0f}", "derived"),
        "of these, bytes that hold no note": (lambda n: size(n * runs * FILE_BYTES), "measured × derived"),
        f"files of the corpus, {ROUNDS} rounds": (lambda n: f"{n * (1 + ROUNDS):,.0f}", "derived"),
        f"list of units, {ROUNDS} rounds": (lambda n: size(n * list_bytes(ROUNDS)), "measured × derived"),
        "commits of Lance": (lambda n: f"{commits(n) + ROUNDS:,.0f}", "counted"),
        "bytes of lists that they write": (lambda n: size(written(n)), "derived"),
        "lists of 1,000 names to see what a layer has": (lambda n: f"{-(-n // 1000):,.0f}", "derived"),
    }
    for what, (told, kind) in lines.items():
        yield f"| {what} | {told(units[256])} | {told(units[UNIT])} | {kind} |"


def list_bytes(rounds: int) -> int:
    """Of a unit in the list of units, when so many rounds are published."""
    return MANIFEST_BYTES + rounds * MANIFEST_COLUMN_BYTES


def commits(units: float) -> int:
    """Commits of taking in: units wait until they are a sixteenth of those that are there, as store_ingest.py says."""
    return len(list(committed(units)))


def committed(units: float) -> Iterator[int]:
    """How many units there are after each commit."""
    there = waiting = 0
    for _ in range(int(units)):
        waiting += 1
        if waiting * 16 >= there:
            there, waiting = there + waiting, 0
            yield there
    if waiting:
        yield there + waiting


def written(units: float) -> float:
    """Bytes of all lists of units that are written: by taking in, and by each round."""
    taken_in = sum(committed(units)) * MANIFEST_BYTES
    return taken_in + sum(units * list_bytes(done) for done in range(1, ROUNDS + 1))


def accelerator() -> Iterator[str]:
    """Hours of an H100 for one pass over all images, and what they cost."""
    yield f"| {QUESTIONS} questions and {TOKENS} tokens an image | GFLOP an image | images a second | hours | |"
    yield "|---|---:|---:|---:|---:|"
    for name, one in {"Florence-2-base": BASE, "Florence-2-large": LARGE}.items():
        read, write = one.image + QUESTIONS * one.question, TOKENS * one.token
        yield gpu_row(name, read + write, (read / ENCODING_SHARE + write / DECODING_SHARE) / PEAK_TFLOPS / 1e3)
    for name, gflop in OTHERS.items():
        yield gpu_row(name, gflop, gflop / ENCODING_SHARE / PEAK_TFLOPS / 1e3)


def gpu_row(name: str, gflop: float, seconds: float) -> str:
    """A line of the table."""
    hours = IMAGES * seconds / 3600
    return f"| {name} | {gflop:,.0f} | {1 / seconds:,.0f} | {hours:,.0f} | ${hours * GPU_HOUR:,.0f} |"


def processor() -> Iterator[str]:
    """Hours of a core, and where they can be spread."""
    yield "| an image | µs of a core | hours of a core | | runs in |"
    yield "|---|---:|---:|---:|---|"
    for what, (us, where) in CORE_US.items():
        hours = us * IMAGES / 3.6e9
        yield f"| {what} | {us:,} | {hours:,.0f} | ${hours * CORE_HOUR:,.0f} | {where} |"
    tokens = IMAGES * (TOKENS_IN + TOKENS_OUT)
    money = IMAGES * (TOKENS_IN * PRICE_IN + TOKENS_OUT * PRICE_OUT) / 1e6
    yield f"| a text by a language model | | {tokens / 1e9:,.0f} thousand million tokens | ${money:,.0f} | a server |"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= least:
            return f"{count / least:.3g} {unit}"
    return f"{count:.0f} bytes"


if __name__ == "__main__":
    main()
