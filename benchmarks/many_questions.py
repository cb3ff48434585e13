"""One encoding, many questions, ours against transformers: the same random weights, one run.

    python -m benchmarks.many_questions                 # base, float32, 768 px; a quiet machine
    python -m benchmarks.many_questions --size tiny     # shows that it runs; the figures mean nothing

Three measurements, both sides in turn: eight tasks about one image, which transformers is asked one by one, as its own
examples do; 64 mixed requests about 16 images, which transformers answers in padded batches of eight; and what the
grammar costs of a decoding step. All answers have the same number of tokens: with random weights none ends by itself,
so that nothing is won here by giving a slot to the next request. Beside them stand the floors: the multiplications of
the encodings, and reading the decoder's weights once for each step. Prints a table and one line of JSON, and writes
that line into a dated file.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from statistics import median
from string import ascii_lowercase
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import Florence2ForConditionalGeneration

from benchmarks.against_transformers import (
    ENTRIES,
    build_peer,
    copy_rate,
    image_token,
    machine,
    matrix_rate,
    read_once,
    twin,
)
from benchmarks.against_transformers import Plan as SinglePlan
from benchmarks.machine import ROOT, keep
from openflorence.contract.prompts import write_prompt
from openflorence.contract.tasks import TASKS
from openflorence.model import decode as decoding
from openflorence.model.checkpoint import Checkpoint
from openflorence.model.config import FlorenceConfig
from openflorence.model.images import to_batch
from openflorence.model.predict import AskOptions, Florence, Request
from openflorence.model.tokenizer import ADDED_TOKENS, BASE_TOKENS, MASK, Text

EIGHT = ("caption", "detailed_caption", "more_detailed_caption", "detect", "dense_caption", "propose", "read")
EIGHT += ("read_regions",)
FOUR = ("caption", "detect", "dense_caption", "read_regions")
PADDED = 8  # requests of a batch of transformers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how often."""

    size: str = "base"
    repeats: int = 3  # times each side answers eight tasks
    images: int = 16  # of the mixed requests, four tasks each
    tokens: int = 32  # of every answer
    beams: int = 3
    threads: int = 2
    out: Path = ROOT / "benchmarks"  # where the dated file goes

    @property
    def config(self) -> FlorenceConfig:
        """The network of this size, with the rows the transformers layout has."""
        return SinglePlan(size=self.size).config


def main() -> None:
    """Measure, print, write."""
    plan = read_plan()
    torch.set_num_threads(plan.threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    peer = build_peer(plan.config)
    network = twin(peer, plan.config.side_px)
    text = build_text(ENTRIES if plan.size == "base" else plan.config.text.vocab - 1)
    parts = Checkpoint(
        network=network, text=text, config=network.config, layout="transformers", folder=Path(), stored="float32"
    )
    model = Florence(parts)
    results = {
        "machine": machine_of(plan),
        "floor": floors(plan, model),
        "eight_tasks": eight_tasks(plan, model, peer),
        "mixed": mixed_requests(plan, model, peer),
        "grammar": {f"beams_{beams}": grammar_share(plan, model, beams) for beams in (1, plan.beams)},
    }
    print_table(results)
    keep(results, plan.out, "many-questions")


def read_plan() -> Plan:
    """The plan of the command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("base", "tiny"), default=plan.size)
    for name in ("repeats", "images", "tokens", "beams", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plan, name))
    parser.add_argument("--out", type=Path, default=plan.out)
    return Plan(**vars(parser.parse_args()))


def machine_of(plan: Plan) -> dict[str, object]:
    """Everything a figure depends on."""
    about = machine(SinglePlan(size=plan.size, threads=plan.threads))
    return about | {"tokens": plan.tokens, "beams": plan.beams, "repeats": {"eight_tasks": plan.repeats, "mixed": 1}}


# ---- a tokenizer as large as the published one


def build_text(entries: int) -> Text:
    """A byte-level BPE with so many entries in the published arrangement; its merges are runs of letters."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocab = {word: place for place, word in enumerate((*BASE_TOKENS, *sorted(letters)))}
    merges = []
    for left, right in islice(_merges(), entries - len(vocab) - 1 - len(ADDED_TOKENS)):
        merges.append((left, right))
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in BASE_TOKENS])
    tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return Text(tokenizer)


def _merges() -> Iterator[tuple[str, str]]:
    """Letters to pairs, pairs to triples, and so on; with and without a space in front."""
    for length in (2, 3, 4):
        for word in map("".join, product(ascii_lowercase, repeat=length)):
            yield word[:-1], word[-1]
    raise AssertionError("more entries than runs of four letters")


# ---- the measurements


def pictures(plan: Plan, count: int) -> list[Image.Image]:
    """Noise of the input size, so that no resampling is measured."""
    rng, side = np.random.default_rng(0), plan.config.side_px
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def options_of(plan: Plan) -> AskOptions:
    """The published search, so that both sides say the same."""
    return AskOptions(decoding="published", beams=plan.beams, max_tokens=plan.tokens)


def prompts_of(model: Florence, tasks: tuple[str, ...]) -> list[list[int]]:
    """Prompt ids of tasks without input."""
    assert all(task.input == "none" for task in TASKS if task.name in tasks)
    return [model.checkpoint.text.encode(write_prompt(task)) for task in tasks]


def ask_peer(
    plan: Plan, peer: Florence2ForConditionalGeneration, images: list[Image.Image], prompts: list[list[int]]
) -> list[list[int]]:
    """What transformers generates for a padded batch, without the start token."""
    longest, pad = max(map(len, prompts)), plan.config.text.pad
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts])
    places = torch.full((len(prompts), plan.config.image_tokens), image_token(plan.config))
    mask = torch.tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts])
    rows = peer.generate(
        input_ids=torch.cat([places, ids], dim=1),
        attention_mask=torch.cat([torch.ones_like(places), mask], dim=1),
        pixel_values=to_batch(images, plan.config.side_px),
        do_sample=False,
        num_beams=plan.beams,
        max_new_tokens=plan.tokens,
        no_repeat_ngram_size=3,
        early_stopping=plan.beams > 1,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return [row[1:] for row in rows.tolist()]


def listen(model: Florence) -> list[tuple[int, ...]]:
    """The ids of every answer from now on, as they end."""
    heard: list[tuple[int, ...]] = []
    plain = type(model.runner).read

    def read(question: object, decoded: object) -> object:
        heard.append(decoded.ids)  # type: ignore[attr-defined]
        return plain(model.runner, question, decoded)  # type: ignore[arg-type]

    model.runner.read = read  # type: ignore[method-assign,assignment]
    return heard


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


def eight_tasks(plan: Plan, model: Florence, peer: Florence2ForConditionalGeneration) -> dict[str, object]:
    """Eight tasks about one image: opened once and asked together, against asked one by one."""
    (picture,), prompts, said, heard = pictures(plan, 1), prompts_of(model, EIGHT), [], listen(model)

    def ours() -> None:
        heard.clear()
        model.open(picture).ask_many(EIGHT, options_of(plan))

    def theirs() -> None:
        said[:] = [ask_peer(plan, peer, [picture], [prompt])[0] for prompt in prompts]

    return in_turn(ours, theirs, plan.repeats) | {"same_tokens": same(said, heard)}


def mixed_requests(plan: Plan, model: Florence, peer: Florence2ForConditionalGeneration) -> dict[str, object]:
    """Four tasks about each of many images, shuffled: one running batch, against padded batches."""
    images, said, heard = pictures(plan, plan.images), list[list[int]](), listen(model)
    order = np.random.default_rng(1).permutation(len(images) * len(FOUR)).tolist()
    asked = [(images[place // len(FOUR)], FOUR[place % len(FOUR)]) for place in order]

    def ours() -> None:
        heard.clear()
        requests = [Request(picture, task) for picture, task in asked]
        assert len(list(model.predict_many(requests, options_of(plan), batch=len(requests)))) == len(asked)

    def theirs() -> None:
        said.clear()
        for start in range(0, len(asked), PADDED):
            group = asked[start : start + PADDED]
            prompts = prompts_of(model, tuple(task for _, task in group))
            said.extend(ask_peer(plan, peer, [picture for picture, _ in group], prompts))

    return in_turn(ours, theirs, 1, warm=False) | {"requests": len(asked), "same_tokens": same(said, heard)}


def same(said: list[list[int]], heard: list[tuple[int, ...]]) -> int:
    """How many answers of the two sides have the same tokens, in whatever order they ended."""
    theirs = sorted(tuple(token for token in row[1:] if token > 2) for row in said)  # without <s>, padding and </s>
    ours = sorted(tuple(token for token in ids if token > 2) for ids in heard)
    return sum(one == other for one, other in zip(theirs, ours, strict=True))


def in_turn(ours: Callable[[], None], theirs: Callable[[], None], repeats: int, warm: bool = True) -> dict[str, object]:
    """Median seconds of both sides, which take turns."""
    if warm:
        ours(), theirs()
    times = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    medians = [median(column) for column in zip(*times, strict=True)]
    return {"ours_s": medians[0], "transformers_s": medians[1], "ratio": medians[1] / medians[0], "times_s": times}


def grammar_share(plan: Plan, model: Florence, beams: int) -> dict[str, float]:
    """What the grammar takes of a decoding step: the time spent in it, over the time of the whole answer."""
    view = model.open(pictures(plan, 1)[0])
    options = AskOptions(beams=beams, max_tokens=4 * plan.tokens)
    spent, plain = [0.0], decoding._apply_grammars

    def apply(flat: torch.Tensor, searches: list[object]) -> None:
        start = perf_counter()
        plain(flat, searches)  # type: ignore[arg-type]
        spent[0] += perf_counter() - start

    shares, steps = [], []
    view.ask("detect", options=options)
    decoding._apply_grammars = apply  # type: ignore[assignment]
    try:
        for _ in range(plan.repeats + 2):
            spent[0] = 0.0
            whole = timed(lambda: view.ask("detect", options=options))
            shares.append(spent[0] / whole)
            steps.append(1e3 * spent[0] / (4 * plan.tokens))
    finally:
        decoding._apply_grammars = plain
    return {"share": median(shares), "ms_a_token": median(steps)}


def floors(plan: Plan, model: Florence) -> dict[str, float]:
    """Rates of this machine, and what they make of an encoding and of a decoding step."""
    base = plan.size == "base"
    weights = 4 * sum(weight.numel() for _, weight in read_once(model.network))
    return {
        "matrix_gflop_per_s": matrix_rate(4096 if base else 256) / 1e9,
        "step_ms": 1e3 * weights / copy_rate(256 if base else 1),
    }


def print_table(results: dict[str, dict]) -> None:  # type: ignore[type-arg]
    """The figures for people."""
    for name in ("eight_tasks", "mixed"):
        one = results[name]
        print(
            f"{name:12s} ours {one['ours_s']:.2f} s  transformers {one['transformers_s']:.2f} s  {one['ratio']:.1f} x"
        )
    for name, one in results["grammar"].items():
        print(f"grammar, {name}: {100 * one['share']:.2f} % of an answer, {one['ms_a_token']:.3f} ms a token")


if __name__ == "__main__":
    main()
