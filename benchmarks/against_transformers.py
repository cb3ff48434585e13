"""Seconds an image and milliseconds a token, ours against transformers: the same random weights, one run.

    python -m benchmarks.against_transformers                 # base, float32, 768 px; a quiet machine
    python -m benchmarks.against_transformers --size tiny     # shows that it runs; the figures mean nothing

Both sides take turns, so that a slow minute hurts both. Beside each pair stands the floor: what the hardware would need
for the multiplications, or for reading the weights, alone; its rates are measured in the same run. Peak memory is of
a process that does one side only. Prints a table and one line of JSON, and writes that line into a dated file.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Florence2Config, Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.machine import ROOT, commit, keep, peak_of_process_mb, processor
from openflorence.model.checkpoint import rename_to_ours
from openflorence.model.config import BASE, NANO, FlorenceConfig, read_config, with_vocab, write_config
from openflorence.model.decode import decode
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.linear import PackedLinear
from openflorence.model.search import DecodeSettings

PROMPT_TOKENS = 10
ENTRIES, ROWS = 51289, 51328  # as the converted checkpoints have them: vocabulary, rows of the embedding
TINY = replace(with_vocab(NANO, 1344), side_px=64)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how often."""

    size: str = "base"
    images: int = 9  # times each side encodes an image
    answers: int = 9  # times each side answers, greedy and with beams
    tokens: int = 64  # of every answer
    threads: int = 2
    out: Path = ROOT / "benchmarks"  # where the dated file goes; --memory runs write none
    memory: str | None = None  # "ours" or "transformers": only do that side's work and print the peak in MB

    @property
    def config(self) -> FlorenceConfig:
        """The network of this size, with the rows the transformers layout has."""
        return {"base": with_vocab(BASE, ROWS), "tiny": TINY}[self.size]


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    torch.set_num_threads(plan.threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    if plan.memory is not None:
        print(json.dumps({"peak_mb": peak_mb(plan)}))
        return
    peer = build_peer(plan.config)
    network = twin(peer, plan.config.side_px)
    results = {
        "machine": machine(plan),
        "encode": measure_encode(plan, network, peer),
        "greedy": measure_decode(plan, network, peer, beams=1),
        "beams": measure_decode(plan, network, peer, beams=3),
        "memory": {side: memory_of(plan, side) for side in ("ours", "transformers")},
    }
    print_table(results)
    keep(results, plan.out, "against-transformers")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("base", "tiny"), default=plan.size)
    for name in ("images", "answers", "tokens", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plan, name))
    parser.add_argument("--out", type=Path, default=plan.out)
    parser.add_argument("--memory", choices=("ours", "transformers"))
    return Plan(**vars(parser.parse_args()))


def build_peer(config: FlorenceConfig) -> Florence2ForConditionalGeneration:
    """The transformers model of this size with its own random start."""
    published = write_config(config, "transformers", "float32", image_token(config))
    return Florence2ForConditionalGeneration(Florence2Config(**published)).eval()


def image_token(config: FlorenceConfig) -> int:
    """Id of the image placeholder: right behind the vocabulary."""
    return ENTRIES if config.text.vocab == ROWS else config.text.vocab - 1


def twin(peer: Florence2ForConditionalGeneration, side_px: int) -> Network:
    """Our network with the very weights of a transformers model, not copied."""
    config = read_config(peer.config.to_dict(), side_px=side_px)
    with torch.device("meta"):
        network = Network(config)
    weights = rename_to_ours(peer.state_dict(), "transformers", config)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def take_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> dict[str, dict[str, float]]:
    """Time two warmed-up calls in turn; the work is done when a call returns, as it always is on a CPU."""
    times_s: dict[str, list[float]] = {"ours": [], "transformers": []}
    calls = {"ours": ours, "transformers": theirs}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for side, call in calls.items():
            start = perf_counter()
            call()
            times_s[side].append(perf_counter() - start)
    return {
        side: {"median_s": median(times), "p95_s": quantiles(times, n=20, method="inclusive")[18], "best_s": min(times)}
        for side, times in times_s.items()
    }


def measure_encode(plan: Plan, network: Network, peer: Florence2ForConditionalGeneration) -> dict[str, object]:
    """Seconds from pixels to image tokens; the floor is the multiplications at the rate of one big product."""
    pixels = torch.randn(1, 3, plan.config.side_px, plan.config.side_px)
    with FlopCounterMode(display=False) as counter:  # it counts what transformers calls, and not our operators
        peer.model.get_image_features(pixels)
    times = take_turns(lambda: network.encode_image(pixels), lambda: peer.model.get_image_features(pixels), plan.images)
    difference = network.encode_image(pixels) - peer.model.get_image_features(pixels).pooler_output
    rate = matrix_rate(4096 if plan.size == "base" else 256)
    flops = counter.get_total_flops()
    return times | {
        "floor_s": flops / rate,
        "gflop": flops / 1e9,
        "matrix_gflop_per_s": rate / 1e9,
        "ratio": times["transformers"]["median_s"] / times["ours"]["median_s"],
        "max_difference": difference.abs().max().item(),
    }


def measure_decode(
    plan: Plan, network: Network, peer: Florence2ForConditionalGeneration, beams: int
) -> dict[str, object]:
    """Milliseconds a token from the encoder's output on, everything in the loop; the floor reads each weight once."""
    config, decoder = network.config.text, FastDecoder(network)
    tokens = min(plan.tokens, config.positions)
    ids = torch.randint(4, 1000, (1, PROMPT_TOKENS))
    memory, _ = network.encode(torch.randn(1, plan.config.image_tokens, config.width), ids)
    settings = replace(
        DecodeSettings.published(config), beams=beams, max_tokens=tokens, banned=(config.eos,), forced_eos=None
    )
    answers = {}

    def ours() -> None:
        answers["ours"] = list(decode(decoder, memory, None, settings)[0].ids)

    def theirs() -> None:
        answers["transformers"] = generate(peer, memory, beams, tokens)[2:]  # without the start token and <s>

    times = take_turns(ours, theirs, plan.answers)
    weights = sum(weight.numel() for name, weight in read_once(network))
    rate = copy_rate(256 if plan.size == "base" else 1)
    steps = {
        side: {key[:-2] + "_ms": 1e3 * value / tokens for key, value in time.items()} for side, time in times.items()
    }
    return steps | {
        "floor_ms": 1e3 * 4 * weights / rate,
        "weights": weights,
        "copy_gb_per_s": rate / 1e9,
        "tokens": tokens,
        "ratio": times["transformers"]["median_s"] / times["ours"]["median_s"],
        "same_tokens": answers["ours"] == answers["transformers"],
    }


def generate(peer: Florence2ForConditionalGeneration, memory: Tensor, beams: int, tokens: int) -> list[int]:
    """The published decoding by transformers, to a fixed length."""
    return peer.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=memory),
        attention_mask=torch.ones(memory.shape[:2], dtype=torch.long),
        do_sample=False,
        num_beams=beams,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        no_repeat_ngram_size=3,
        early_stopping=True if beams > 1 else None,
        forced_bos_token_id=0,
        forced_eos_token_id=None,
    )[0].tolist()


def read_once(network: Network) -> Iterator[tuple[str, Tensor]]:
    """The weights one token needs: the decoder's layers and the head, but not what is computed once a request."""
    for name, weight in network.seq2seq.named_parameters():
        once = ".cross_attn.k_proj" in name or ".cross_attn.v_proj" in name or "positions" in name
        if name == "embed.weight" or (name.startswith("decoder.") and not once):
            yield name, weight


def best_s(work: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of several runs: a rate of the hardware, so interruptions do not count."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


def matrix_rate(side: int) -> float:
    """Float32 operations a second in one big matrix product, by the faster of torch's two libraries."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    out, packed = torch.empty(side, side), PackedLinear(b)
    seconds = min(best_s(lambda: torch.mm(a, b, out=out)), best_s(lambda: packed(a)))
    return 2 * side**3 / seconds


def copy_rate(size_mb: int) -> float:
    """Bytes a second that a copy moves, read and written counted."""
    source = torch.ones(size_mb * 2**18)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best_s(lambda: target.copy_(source))


def memory_of(plan: Plan, side: str) -> dict[str, float]:
    """Peak memory of a process of its own that builds one side, encodes an image and answers with three beams."""
    command = [sys.executable, "-m", "benchmarks.against_transformers", "--size", plan.size, "--memory", side]
    command += ["--tokens", str(plan.tokens), "--threads", str(plan.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb(plan: Plan) -> float:
    """Do the work of one side and give the largest resident size so far, in MB."""
    config = plan.config
    pixels = torch.randn(1, 3, config.side_px, config.side_px)
    ids = torch.randint(4, 1000, (1, PROMPT_TOKENS))
    if plan.memory == "ours":
        network = Network(config).eval()
        decoder = FastDecoder(network)
        memory, _ = network.encode(network.encode_image(pixels), ids)
        decode(decoder, memory, None, replace(DecodeSettings.published(config.text), max_tokens=plan.tokens))
    else:
        peer = build_peer(config)
        places = torch.full((1, config.image_tokens), image_token(config))
        peer.generate(
            input_ids=torch.cat([places, ids], dim=1), pixel_values=pixels, num_beams=3, max_new_tokens=plan.tokens
        )
    return peak_of_process_mb()


def machine(plan: Plan) -> dict[str, object]:
    """Everything a figure depends on."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "threads": plan.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "size": plan.size,
        "dtype": "float32",
        "batch": 1,
        "side_px": plan.config.side_px,
        "encoder_tokens": plan.config.image_tokens + PROMPT_TOKENS,
        "repeats": {"images": plan.images, "answers": plan.answers},
    }


def print_table(results: dict) -> None:
    """One row a measurement: ours, theirs, the floor, and how many times faster ours is."""
    print(f"{'':24}{'ours':>10}{'p95':>10}{'transf.':>10}{'p95':>10}{'floor':>10}{'ratio':>8}")
    rows = (
        ("encode, s an image", "encode", "s"),
        ("greedy, ms a token", "greedy", "ms"),
        ("3 beams, ms a token", "beams", "ms"),
    )
    for title, name, unit in rows:
        row = results[name]
        cells = [row[side][f"{kind}_{unit}"] for side in ("ours", "transformers") for kind in ("median", "p95")]
        print(
            f"{title:24}" + "".join(f"{cell:10.2f}" for cell in (*cells, row[f"floor_{unit}"])) + f"{row['ratio']:8.2f}"
        )
    peaks = {side: results["memory"][side]["peak_mb"] for side in ("ours", "transformers")}
    print(f"{'peak memory, MB':24}{peaks['ours']:10.0f}{'':10}{peaks['transformers']:10.0f}")


if __name__ == "__main__":
    main()
