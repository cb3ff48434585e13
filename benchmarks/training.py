"""(image, target) pairs a second in training, ours against a plain loop over transformers: same weights, same pairs.

    python -m benchmarks.training                 # nano and base; a quiet machine
    python -m benchmarks.training --sizes nano    # one of them; tiny shows that it runs, its figures mean nothing

Ours encodes an image once for its K targets and cuts a batch into buckets of similar length; the plain loop is what
recipes for transformers do: every pair brings its image, pairs are shuffled, a batch is padded to its longest. Both
take forward, backward, clipping and AdamW over the very same pairs, in turns, from the same random weights; the loss of
both stands in the file. The floor is what the plain loop's multiplications take at the rate of one big product.
Prints a table and one line of JSON, and writes that line into a dated file.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import transformers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Florence2ForConditionalGeneration

from benchmarks.against_transformers import (
    ROOT,
    ROWS,
    TINY,
    build_peer,
    commit,
    image_token,
    matrix_rate,
    processor,
    twin,
)
from benchmarks.machine import keep
from openflorence.data.mixture import IGNORED, Batch, DrawnSource, Mixture, MixtureConfig, Pairs
from openflorence.data.truth import vocabulary_texts
from openflorence.model.config import BASE, NANO, FlorenceConfig, native_rows, with_vocab
from openflorence.model.tokenizer import Text, train_text
from openflorence.training.objectives import SequenceObjective
from openflorence.training.train import TrainSettings, parameter_groups

PAD = 1
CLIP = 1.0
RATE = 1e-9  # of both optimizers: small, so that every repeat does the same work on the same loss


@dataclass(frozen=True)
class Size:
    """One network, and how much of it a step takes."""

    config: FlorenceConfig
    images: int  # of our step with several targets an image
    images_alone: int  # of our step with one
    peer_pairs: int  # of a step of the plain loop
    repeats: int


SIZES = {  # at the base size six images at once did not fit 24 GB; with two the peak was 16
    "nano": Size(NANO, 16, 96, 16, 5),
    "base": Size(BASE, 1, 2, 2, 3),
    "tiny": Size(TINY, 1, 6, 6, 1),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    sizes: tuple[str, ...] = ("nano", "base")
    targets: tuple[int, ...] = (1, 6)  # K, targets per image
    threads: int = 2
    out: Path = ROOT / "benchmarks"  # where the dated file goes


@dataclass
class Timed:
    """Seconds of one side, a number for each repeat."""

    seconds: list[float] = field(default_factory=list)

    def rate(self, pairs: int) -> float:
        """Pairs a second, by the median."""
        return pairs / median(self.seconds)


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    torch.set_num_threads(plan.threads)
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "threads": plan.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": "float32",
        "rows": [measure(name, targets) for name in plan.sizes for targets in plan.targets],
    }
    print_table(results["rows"])
    keep(results, plan.out, "training")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=plan.sizes)
    parser.add_argument("--targets", nargs="+", type=int, default=plan.targets)
    parser.add_argument("--threads", type=int, default=plan.threads)
    parser.add_argument("--out", type=Path, default=plan.out)
    return Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in vars(parser.parse_args()).items()})


def measure(name: str, targets: int) -> dict[str, object]:
    """Time both sides on one batch, in turns."""
    size = SIZES[name]
    torch.manual_seed(0)
    text = train_text(vocabulary_texts(), NANO.text.vocab)
    rows = ROWS if name == "base" else native_rows(text.size)  # base as published, whatever words it is trained on
    config = without_dropout(with_vocab(size.config, rows))
    peer = build_peer(config).train()
    network = twin(peer, config.side_px).train()  # the same tensors: both sides see the same weights at every step
    images = size.images if targets > 1 else size.images_alone
    batch = draw(text, config, images, targets)
    sides = {"ours": our_step(network, batch), "transformers": plain_steps(peer, batch, config, size.peer_pairs)}
    losses = {side: step() for side, step in sides.items()}
    with FlopCounterMode(display=False) as counter:
        plain_steps(peer, batch, config, size.peer_pairs)()
    peer_flops = counter.get_total_flops()
    timed = {side: Timed() for side in sides}
    for _ in range(size.repeats):
        for side, step in sides.items():
            start = perf_counter()
            step()
            timed[side].seconds.append(perf_counter() - start)
    pairs = sum(len(group.tasks) for group in batch.pairs)
    rate = matrix_rate(2048)
    ours, theirs = timed["ours"].rate(pairs), timed["transformers"].rate(pairs)
    return {
        "size": name,
        "targets": targets,
        "images": images,
        "pairs": pairs,
        "side_px": config.side_px,
        "ours_pairs_per_s": ours,
        "transformers_pairs_per_s": theirs,
        "ratio": ours / theirs,
        "transformers_floor_pairs_per_s": pairs / (peer_flops / rate),
        "matrix_gflop_per_s": rate / 1e9,
        "losses": losses,
        "repeats": size.repeats,
    }


def without_dropout(config: FlorenceConfig) -> FlorenceConfig:
    """The same network without chance in it, so that both sides can be seen to give the same loss."""
    text = replace(config.text, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    return replace(config, text=text, vision=replace(config.vision, drop_path=0.0))


def draw(text: Text, config: FlorenceConfig, images: int, targets: int) -> Batch:
    """One batch of drawn scenes; both sides train on its pairs."""
    source = DrawnSource(side_px=min(config.side_px, 384))
    mixture = MixtureConfig(side_px=config.side_px, images=images, targets=targets, buckets=6 if images > 4 else 2)
    return Mixture([(source, 1.0)], mixture, text, 1)[0]


def our_step(network: nn.Module, batch: Batch) -> Callable[[], float]:
    """One step of the loop of training/train.py, without its log and its state file."""
    objective = SequenceObjective(network)
    optimizer = torch.optim.AdamW(parameter_groups(objective, TrainSettings()), lr=RATE)

    def step() -> float:
        parts = objective(batch)
        loss = parts["loss"] / parts["units"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def plain_steps(
    peer: Florence2ForConditionalGeneration, batch: Batch, config: FlorenceConfig, size: int
) -> Callable[[], float]:
    """As many steps as the pairs make batches of `size`, each with its images again; gives the loss over all tokens."""
    rows = shuffled_pairs(batch)
    batches = [plain_batch(batch.pixels, rows[start : start + size], config) for start in range(0, len(rows), size)]
    optimizer = torch.optim.AdamW(peer.parameters(), lr=RATE)

    def steps() -> float:
        total, tokens = 0.0, 0
        for inputs in batches:
            loss = peer(**inputs).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(peer.parameters(), CLIP)
            optimizer.step()
            count = int((inputs["labels"] != IGNORED).sum())
            total, tokens = total + loss.item() * count, tokens + count
        return total / tokens

    return steps


Row = tuple[int, list[int], list[int]]  # image, prompt ids, label ids


def shuffled_pairs(batch: Batch) -> list[Row]:
    """The pairs of a batch without padding, in a chance order."""
    rows = [row for group in batch.pairs for row in unpadded(group)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[place] for place in order]


def unpadded(group: Pairs) -> list[Row]:
    """Each pair as it was before padding."""
    found = []
    for image, prompt, mask, labels in zip(
        group.image_rows.tolist(), group.prompt_ids, group.prompt_mask, group.labels, strict=True
    ):
        found.append((image, prompt[mask].tolist(), labels[labels != IGNORED].tolist()))
    return found


def plain_batch(pixels: Tensor, rows: list[Row], config: FlorenceConfig) -> dict[str, Tensor]:
    """What the processor and a collator of a transformers recipe give."""
    places = [image_token(config)] * config.image_tokens
    ids = pad([places + prompt for _, prompt, _ in rows], PAD)
    return {
        "pixel_values": pixels[[image for image, _, _ in rows]],
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "labels": pad([labels for _, _, labels in rows], IGNORED),
    }


def pad(rows: list[list[int]], fill: int) -> Tensor:
    """A rectangle, padded on the right."""
    length = max(map(len, rows))
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def print_table(rows: list[dict]) -> None:
    """One row a measurement."""
    print(f"{'size':8}{'K':>4}{'pairs':>7}{'ours, pairs/s':>16}{'transformers':>14}{'ratio':>8}{'its floor':>11}")
    for row in rows:
        cells = row["ours_pairs_per_s"], row["transformers_pairs_per_s"], row["ratio"]
        print(
            f"{row['size']:8}{row['targets']:4}{row['pairs']:7}{cells[0]:16.2f}{cells[1]:14.2f}{cells[2]:8.2f}"
            f"{row['transformers_floor_pairs_per_s']:11.2f}"
        )


if __name__ == "__main__":
    main()
