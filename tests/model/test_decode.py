"""Decoding, against `generate` of transformers and against itself taken the plain way.

The vocabulary is forty tokens, so that </s>, repeated runs and near misses come often.
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import jaxtyping
import pytest
import torch
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration

from openflorence.contract.grammar import Grammar, grammar_for
from openflorence.contract.spelling import Spelling
from openflorence.contract.tasks import FREE_TEXT, TASKS, find_task
from openflorence.errors import BadConfig
from openflorence.model.checkpoint import rename_to_ours
from openflorence.model.config import TextConfig, read_config
from openflorence.model.decode import Batch, _choices, _forbid, decode
from openflorence.model.fast import FastDecoder
from openflorence.model.florence import Network
from openflorence.model.search import Decoded, DecodeSettings, Job, Sampling, Search, repeats
from tests.answering import words_text
from tests.reference import TINY_SIDE_PX, TINY_TEXT, TINY_VISION, draw_weights

VOCAB = 40
IMAGE = VOCAB - 1  # id of the `<image>` placeholder, the last row
POSITIONS = 96
START, BOS, EOS, PAD = 2, 0, 2, 1


@cache
def reference(seed: int, eos_bias: float = 0.0) -> Florence2ForConditionalGeneration:
    """A random transformers model; `eos_bias` pulls the row of </s> towards what the decoder says, on average."""
    config = Florence2Config(
        vision_config=TINY_VISION,
        text_config=TINY_TEXT | {"vocab_size": VOCAB, "max_position_embeddings": POSITIONS},
        image_token_id=IMAGE,
    )
    model = Florence2ForConditionalGeneration(config)
    draw_weights(model, seed)
    with torch.no_grad():
        # Every decoder state carries the bias of the last norm: a row along it is likely everywhere.
        mean = model.model.language_model.decoder.layers[-1].final_layer_norm.bias
        model.model.language_model.shared.weight[EOS] += eos_bias * mean / mean.norm() ** 2
    return model.eval()


@cache
def ours(seed: int, eos_bias: float = 0.0) -> Network:
    """The same model as our network."""
    source = reference(seed, eos_bias)
    config = read_config(source.config.to_dict(), side_px=TINY_SIDE_PX)
    network = Network(config)
    network.load_state_dict(rename_to_ours(source.state_dict(), "transformers", config))
    return network.eval()


def drawn_requests(seed: int, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, right-padded prompts and their mask; every request has an image of its own."""
    generator = torch.Generator().manual_seed(1000 + seed)
    pixels = torch.randn(len(lengths), 3, TINY_SIDE_PX, TINY_SIDE_PX, generator=generator)
    prompts = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        prompts[row, :length] = torch.randint(4, IMAGE, (length,), generator=generator)
    return pixels, prompts, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def published_ids(seed: int, lengths: Sequence[int], eos_bias: float = 0.0, **settings: object) -> list[list[int]]:
    """What transformers generates, without the padding after </s>."""
    model = reference(seed, eos_bias)
    pixels, prompts, mask = drawn_requests(seed, lengths)
    places = prompts.new_full((len(lengths), ours(seed, eos_bias).config.image_tokens), IMAGE)
    rows = model.generate(
        input_ids=torch.cat([places, prompts], dim=1),
        attention_mask=torch.cat([torch.ones_like(places), mask], dim=1),
        pixel_values=pixels,
        do_sample=False,
        **{"forced_bos_token_id": BOS, "forced_eos_token_id": EOS, "no_repeat_ngram_size": 3} | settings,
    ).tolist()
    return [row[: row.index(EOS, 1) + 1] if EOS in row[1:] else row for row in rows]


def memory_of(seed: int, lengths: Sequence[int], eos_bias: float = 0.0) -> tuple[Tensor, Tensor | None]:
    network = ours(seed, eos_bias)
    pixels, prompts, mask = drawn_requests(seed, lengths)
    with torch.no_grad():
        return network.encode(network.encode_image(pixels), prompts, mask)


def decoded(seed: int, lengths: Sequence[int], settings: DecodeSettings, eos_bias: float = 0.0) -> list[Decoded]:
    return decode(FastDecoder(ours(seed, eos_bias)), *memory_of(seed, lengths, eos_bias), settings)


def whole(answer: Decoded) -> list[int]:
    """The ids of an answer with what is left out of them put back."""
    return [START, BOS, *answer.ids, EOS]


def published(**changes: object) -> DecodeSettings:
    return replace(DecodeSettings.published(TextConfig(positions=POSITIONS)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_beams_give_the_published_tokens(seed: int, early_stopping: bool):
    lengths, eos_bias = ([5], [3, 8, 5])[seed % 2], (0.0, 0.5, 1.0, 2.0)[seed % 4]
    wanted = published_ids(
        seed, lengths, eos_bias, num_beams=3, early_stopping=early_stopping, max_new_tokens=24 + seed
    )
    settings = published(early_stopping=early_stopping, max_tokens=24 + seed)
    assert [whole(answer) for answer in decoded(seed, lengths, settings, eos_bias)] == wanted


@pytest.mark.parametrize("seed", range(12))
def test_greedy_gives_the_published_tokens(seed: int):
    lengths, eos_bias, ngram = [4, 9], (0.0, 2.0)[seed % 2], (0, 3)[seed // 2 % 2]
    wanted = published_ids(seed, lengths, eos_bias, num_beams=1, no_repeat_ngram_size=ngram, max_new_tokens=30)
    settings = published(beams=1, no_repeat_ngram=ngram, max_tokens=30)
    assert [whole(answer) for answer in decoded(seed, lengths, settings, eos_bias)] == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {"num_beams": 5, "length_penalty": 2.0},
        {"num_beams": 2, "length_penalty": 0.0, "early_stopping": False},
        {"num_beams": 2, "length_penalty": 2.0, "early_stopping": False},  # whether to stop decides most answers
        {"num_beams": 4, "length_penalty": -1.0, "early_stopping": False},
        {"num_beams": 3, "no_repeat_ngram_size": 1},
        {"num_beams": 3, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_other_settings_give_the_tokens_of_transformers(seed: int, changes: dict[str, object]):
    names = {"num_beams": "beams", "no_repeat_ngram_size": "no_repeat_ngram"}
    settings = published(max_tokens=20, **{names.get(name, name): value for name, value in changes.items()})
    wanted = published_ids(seed, [6, 2], 2.0, max_new_tokens=20, **{"early_stopping": True} | changes)
    assert [whole(answer) for answer in decoded(seed, [6, 2], settings, 2.0)] == wanted


def test_the_drawn_models_end_early_at_the_limit_and_in_between():
    # The comparisons above mean little if no answer ended by itself, or all did at once.
    lengths = [len(row) - 1 for seed in range(12) for row in published_ids(seed, [4, 9], 2.0, max_new_tokens=30)]
    assert min(lengths) < 10
    assert max(lengths) == 30
    assert len(set(lengths)) > 6


def test_the_whole_position_table_can_be_used_and_no_more():
    wanted = published_ids(3, [5], num_beams=3, early_stopping=True, max_new_tokens=POSITIONS)
    (answer,) = decoded(3, [5], published())
    assert whole(answer) == wanted[0]
    assert len(wanted[0]) - 1 == POSITIONS
    assert answer.truncated
    with pytest.raises(BadConfig, match=rf"97.*{POSITIONS} positions"):
        decoded(3, [5], published(max_tokens=97))


def plain_greedy(seed: int, lengths: Sequence[int], row: int, limit: int, eos_bias: float) -> list[int]:
    """Greedy the plain way: one request, no cache, the whole answer read again for every token."""
    network = ours(seed, eos_bias)
    pixels, prompts, _ = drawn_requests(seed, lengths)
    ids = [START, BOS]
    with torch.no_grad():
        memory, _ = network.encode(network.encode_image(pixels[row : row + 1]), prompts[row : row + 1, : lengths[row]])
        while len(ids) <= limit - 1 and (ids[-1] != EOS or len(ids) == 1):
            x = network.seq2seq.decode(torch.tensor([ids]), memory)
            ids.append(int(network.seq2seq.logits(x)[0, -1].argmax()))
    return ids if ids[-1] == EOS and len(ids) > 2 else [*ids, EOS]


@pytest.mark.parametrize("seed", range(4))
def test_cached_batched_answers_are_those_of_plain_single_decoding(seed: int):
    lengths = [3, 9, 1, 6]
    answers = decoded(seed, lengths, published(beams=1, no_repeat_ngram=0, max_tokens=30), 2.0)
    plain = [plain_greedy(seed, lengths, row, 30, 2.0) for row in range(4)]
    assert [whole(answer) for answer in answers] == plain


@pytest.mark.parametrize(
    "settings",
    [
        published(max_tokens=40),
        published(max_tokens=40, beams=1),
        published(max_tokens=40, beams=1, sampling=Sampling(seed=5, temperature=1.5, top_k=20, top_p=0.9)),
    ],
    ids=["beams", "greedy", "sampling"],
)
def test_a_batch_answers_as_each_request_alone(settings: DecodeSettings):
    lengths = [3, 9, 1, 6, 12]
    network = ours(4, 2.0)
    pixels, prompts, _ = drawn_requests(4, lengths)
    together = decoded(4, lengths, settings, 2.0)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            memory, _ = network.encode(network.encode_image(pixels[row : row + 1]), prompts[row : row + 1, :length])
        (alone,) = decode(FastDecoder(network), memory, None, settings)
        assert alone.ids == together[row].ids
        assert alone.truncated == together[row].truncated
        assert alone.score == pytest.approx(together[row].score, abs=1e-5)  # sums in another order
        assert alone.logprobs == pytest.approx(together[row].logprobs, abs=1e-5)
    assert len({len(answer.ids) for answer in together}) > 2  # rows did leave at different times


def test_one_beam_is_greedy():
    # top_k=1 leaves one token to draw; that, and one beam, must both be the best token.
    settings = DecodeSettings(beams=1, max_tokens=30, forced_bos=BOS, forced_eos=EOS)
    drawn = replace(settings, sampling=Sampling(top_k=1))
    assert decoded(2, [5, 7], settings, 1.0) == decoded(2, [5, 7], drawn, 1.0)


def test_the_log_probabilities_are_the_networks_own():
    network, (memory, mask) = ours(4), memory_of(4, [5, 3])
    settings = replace(DecodeSettings.for_task(network.config.text, "caption"), max_tokens=25)
    for row, answer in enumerate(decode(FastDecoder(network), memory, mask, settings)):
        ids = whole(answer)
        assert mask is not None
        with torch.no_grad():
            x = network.seq2seq.decode(torch.tensor([ids[:-1]]), memory[row : row + 1], mask[row : row + 1])
            rows = network.seq2seq.logits(x)[0].log_softmax(-1)
        wanted = rows[torch.arange(1, len(ids) - 1), torch.tensor(ids[2:])]  # position 0 reads the start, says <s>
        assert answer.logprobs == pytest.approx(wanted[:-1].tolist(), abs=1e-5)
        total = wanted[:-1].sum() if answer.truncated else wanted.sum()  # a forced </s> adds nothing
        assert answer.score == pytest.approx(float(total) / (len(ids) - 1), abs=1e-5)


def test_bos_comes_first_and_never_again():
    network, (memory, mask) = deepcopy(ours(0)), memory_of(0, [5])
    with torch.no_grad():
        network.seq2seq.embed.weight[BOS] *= 6  # so that published decoding does say it again
    default = replace(DecodeSettings.for_task(network.config.text, "read"), max_tokens=30)
    (free,) = decode(FastDecoder(network), memory, mask, published(max_tokens=30))
    (answer,) = decode(FastDecoder(network), memory, mask, default)
    assert BOS in free.ids
    assert not {BOS, PAD, 3} & set(answer.ids)


def test_only_prose_keeps_the_ban_on_repeated_runs():
    config = TextConfig()
    kept = {task.name for task in (*TASKS, FREE_TEXT) if DecodeSettings.for_task(config, task).no_repeat_ngram}
    assert kept == {
        "caption", "detailed_caption", "more_detailed_caption", "classify_region", "describe_region",
    }  # fmt: skip
    assert DecodeSettings.published(config).no_repeat_ngram == 3


def test_rows_without_a_word_are_never_said():
    settings = DecodeSettings.for_task(TextConfig(vocab=VOCAB), "detect", words=IMAGE - 2)
    assert settings.banned == (0, 1, 3, IMAGE - 2, IMAGE - 1, IMAGE)


def test_a_structured_answer_may_repeat_itself():
    # This model says the same over and over: the ban, and only the ban, keeps it from that.
    free = decoded(6, [5], published(beams=1, no_repeat_ngram=0, max_tokens=60))[0].ids
    banned = decoded(6, [5], published(beams=1, max_tokens=60))[0].ids
    assert len(set(zip(free, free[1:], free[2:], strict=False))) < len(free) - 2
    assert len(set(zip(banned, banned[1:], banned[2:], strict=False))) == len(banned) - 2


def test_an_answer_that_wanted_to_end_at_the_limit_is_not_truncated():
    settings = published(beams=1, no_repeat_ngram=0)
    full = next(answer for seed in range(12) for answer in decoded(seed, [4, 9], settings, 2.0) if not answer.truncated)
    seed, row = next(
        (seed, row)
        for seed in range(12)
        for row, answer in enumerate(decoded(seed, [4, 9], settings, 2.0))
        if answer == full
    )
    produced = len(full.ids) + 2  # <s> and </s>
    exact = decoded(seed, [4, 9], replace(settings, max_tokens=produced), 2.0)[row]
    assert (exact.ids, exact.truncated) == (full.ids, False)
    short = decoded(seed, [4, 9], replace(settings, max_tokens=produced - 1), 2.0)[row]
    assert (short.ids, short.truncated) == (full.ids[:-1], True)


def test_without_a_forced_end_a_cut_answer_keeps_its_last_token():
    settings = DecodeSettings(beams=3, max_tokens=12, banned=(EOS,), forced_bos=BOS)
    (answer,) = decoded(0, [5], settings)
    assert (len(answer.ids), answer.truncated) == (11, True)


def test_sampling_follows_its_seed_and_its_limits():
    settings = published(beams=1, max_tokens=40, sampling=Sampling(seed=1))
    one, again = decoded(5, [5], settings), decoded(5, [5], settings)
    other = decoded(5, [5], replace(settings, sampling=Sampling(seed=2)))
    assert one == again
    assert one != other
    greedy = decoded(5, [5], published(beams=1, max_tokens=40))
    for bold in (Sampling(seed=3, top_k=1), Sampling(seed=3, top_p=1e-6), Sampling(seed=3, temperature=1e-4)):
        assert decoded(5, [5], replace(settings, sampling=bold)) == greedy


def test_a_repeated_run_is_found_wherever_it_began():
    # By hand: after 5 6 came 7 and 8; after the last 6 nothing came yet.
    assert repeats([5, 6, 7, 5, 6, 8, 5, 6], 3) == [7, 8]
    assert repeats([5, 6], 3) == []
    assert repeats([5, 6, 5], 1) == [5, 6, 5]


@pytest.mark.parametrize(
    "wrong",
    [{"beams": 0}, {"max_tokens": 1}, {"no_repeat_ngram": -1}, {"beams": 3, "sampling": Sampling()}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict):
    with pytest.raises(BadConfig, match="give"):
        DecodeSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}], ids=str)
def test_sampling_that_cannot_be_is_refused(wrong: dict):
    with pytest.raises(BadConfig):
        Sampling(**wrong)


# ---- requests that join a running batch

# The forty tokens as a language: marks, then words of one letter, then the first nineteen bins.
LETTERS, FIRST_BIN = "abcdefghijkl mn", 22
TOY = Spelling(
    pieces=(*[None] * 7, *(letter.encode() for letter in LETTERS)),
    first_location=FIRST_BIN,
    sep=4,
    poly=5,
    end_poly=6,
    eos=EOS,
)
MIXES = 160  # for one beam, and as many for three


@dataclass(frozen=True, eq=False)
class Wish:
    """A request: what it asks, and what the encoder says of it."""

    job: Job
    memory: Tensor  # (1, M, D)


def drawn_grammar(chance: random.Random) -> Grammar | None:
    task = chance.choice([*TASKS, None, None])
    if task is None:
        return None
    named = task.form in ("boxes", "quads", "boxes_or_polygons", "phrases")
    labels = chance.choice([None, ("cab", "deaf", "cabin")]) if named else None
    text = "a fig and a kid" if task.form == "phrases" else None
    return grammar_for(task, TOY, labels=labels, text=text, max_regions=chance.choice([None, 1, 2]))


def drawn_wish(chance: random.Random, network: Network, beams: int) -> Wish:
    grammar = drawn_grammar(chance)
    draws = Sampling(seed=chance.randrange(99), top_k=chance.choice([None, 5]), temperature=1.5)
    settings = DecodeSettings(
        beams=beams,
        max_tokens=chance.randint(3, 20),
        # With a grammar, a ban may forbid the only word that a label can go on with: no such request is made.
        no_repeat_ngram=chance.choice([0, 2, 3]) if grammar is None else 0,
        early_stopping=chance.random() < 0.5,
        length_penalty=chance.choice([1.0, 0.0, 2.0]),
        banned=tuple(chance.sample(range(7, FIRST_BIN), 3)) if grammar is None else (),
        forced_bos=chance.choice([BOS, None]),
        forced_eos=chance.choice([EOS, None]),
        sampling=draws if beams == 1 and chance.random() < 0.3 else None,
        first_location=chance.choice([FIRST_BIN, None]),
    )
    pixels, prompts, _ = drawn_requests(chance.randrange(10**6), [chance.randint(1, 12)])
    with torch.no_grad():
        memory, _ = network.encode(network.encode_image(pixels), prompts)
    return Wish(Job(settings, grammar), memory)


def joined(batch: Batch, wishes: Sequence[Wish], chance: random.Random) -> None:
    """Let requests join together; what stands where one has no token must not matter."""
    lengths = [wish.memory.shape[1] for wish in wishes]
    memory = chance.choice([0.0, 9.0]) * torch.ones(len(wishes), max(lengths), wishes[0].memory.shape[2])
    for row, wish in enumerate(wishes):
        memory[row, : lengths[row]] = wish.memory[0]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    batch.join([wish.job for wish in wishes], memory, None if bool(mask.all()) else mask)


@pytest.mark.parametrize("beams", [1, 3])
def test_requests_that_join_at_any_time_are_answered_as_alone(beams: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # all other tests check shapes; twice the time
    chance, decoder = random.Random(beams), FastDecoder(ours(4, 1.0))
    wishes = [drawn_wish(chance, ours(4, 1.0), beams) for _ in range(40)]
    alone: dict[Job, Decoded] = {}
    for wish in wishes:
        batch = Batch(decoder, beams)
        batch.join([wish.job], wish.memory, None)
        while batch.running:
            alone |= batch.step()
    assert len({len(answer.ids) for answer in alone.values()}) > 6
    assert {answer.cut for answer in alone.values()} == {"", "tokens", "regions"}
    joins = 0
    for _ in range(MIXES):
        slots, waiting, batch = chance.randint(1, 8), chance.sample(wishes, chance.randint(2, 8)), Batch(decoder, beams)
        while waiting or batch.running:
            free = min(slots - len(batch.running), len(waiting))
            if free and (not batch.running or chance.random() < 0.5):
                joins += bool(batch.running)
                joined(batch, [waiting.pop() for _ in range(chance.randint(1, free))], chance)
            for job, answer in batch.step():
                other = alone[job]
                assert (answer.ids, answer.cut) == (other.ids, other.cut)
                # Sums in another order, of up to twenty tokens.
                assert answer.logprobs == pytest.approx(other.logprobs, abs=1e-4)
                assert answer.logprob == pytest.approx(other.logprob, abs=2e-4)
                assert [place is None for place in answer.places] == [place is None for place in other.places]
            assert len(batch.running) <= slots
    assert joins > MIXES  # into batches that were running


def test_a_batch_is_of_one_width():
    batch = Batch(FastDecoder(ours(4)), 3)
    memory, mask = memory_of(4, [3, 2])
    with pytest.raises(BadConfig, match="1 beams in a batch of 3"):
        batch.join([Job(published(beams=3)), Job(published(beams=1))], memory, mask)
    assert batch.step() == []  # nobody got in


def scripted(tokens: Sequence[int], spelling: Spelling) -> list[Decoded]:
    """What comes of a network that says these tokens whatever it sees, each with a probability of nearly one."""
    config = TextConfig(vocab=1400, positions=POSITIONS)
    settings = replace(DecodeSettings.for_task(config, "detect"), beams=1)
    search = Search(Job(settings, grammar_for(find_task("detect"), spelling)), config, torch.device("cpu"))
    search.force(BOS)
    for token in tokens:
        logits = torch.zeros(1, 1, config.vocab)
        logits[..., token] = 20.0
        logprobs = logits.log_softmax(-1)
        _forbid(logprobs, [search])
        if search.choose(_choices(logprobs, [search])[0]):
            return [search.answer()]
    return []


def test_a_network_that_breaks_off_is_let_go_and_its_half_region_left_out():
    spelling = words_text().spelling
    (word,) = [token for token, piece in enumerate(spelling.pieces) if piece == b"a"]
    loc = spelling.first_location
    box, half = [loc + 10, loc + 20, loc + 30, loc + 40], [loc + 50, loc + 60]
    (answer,) = scripted([word, *box, word, *half, EOS], spelling)
    assert answer.ids == (word, *box)
    assert not answer.truncated
    (label_alone,) = scripted([word, EOS], spelling)
    assert label_alone.ids == ()
    assert scripted([word, *box, word, *half], spelling) == []  # it is still going on
