"""One loop: one cross-entropy over the target text of every task, several targets on a single encoding of each image.

A run lives in a folder: `state.safetensors` (weights, averaged weights, both Adam moments, the step) is replaced by
rename every `save_every` steps, `train.jsonl` gets a line every `log_every`. Started again with the same settings, a
run that was killed goes on from its last state and reaches the weights it would have reached: batch n depends on n
alone, and chance inside the network is seeded by the step. Steps that were lost with the kill are logged again.
Source: spec section 7 (objective, AdamW, cosine with linear warm-up); averaging and clipping are ours.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from openflorence.contract.locations import BINS
from openflorence.data.mixture import IGNORED, Batch, Pairs
from openflorence.errors import BadConfig, TrainingDiverged
from openflorence.model.adapters import part_of
from openflorence.model.files import write_safetensors
from openflorence.model.florence import Network

# Embedding and position tables: rows that a batch does not touch should not shrink.
TABLES = ("embed.weight", "positions.weight", "rows.weight", "columns.weight")
LENGTHS = "lora_magnitude_vector"  # of the rows of weights, in DoRA: in the name of a parameter

Loss = Callable[[Batch, int], dict[str, Tensor]]  # a batch and its step -> the parts of the loss, "loss" their total


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run goes. Steps, not epochs: the drawn world does not end."""

    steps: int = 10_000  # batches in all
    peak_rate: float = 1e-3  # learning rate after warm-up; a cosine takes it to zero at the last step
    tower_rate: float = 1.0  # times the rate, for the image tower; 0 freezes it (requires_grad is taken off)
    warmup: int = 300  # steps of linear warm-up
    weight_decay: float = 0.02  # on matrices; not on norms, biases and embeddings
    betas: tuple[float, float] = (0.9, 0.98)  # of Adam
    clip: float = 1.0  # largest norm of the gradient
    blur_bins: float = 4.0  # a location's target is a Gaussian this wide over neighbouring bins; 0 is the plain target
    average: float = 0.999  # how much of the averaged weights, the ones to keep, stays at a step; 0 keeps the last
    save_every: int = 250  # steps
    log_every: int = 50  # steps
    workers: int = 1  # processes that draw ahead of the network; 0 draws in between
    seed: int = 0  # of dropout and drop-path

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup <= self.steps or not 0 <= self.average < 1:
            raise BadConfig(
                f"steps={self.steps}, warmup={self.warmup}, average={self.average}: "
                "allowed are steps >= 1, warm-up within them, an average from 0 to below 1"
            )
        if min(self.peak_rate, self.tower_rate, self.weight_decay, self.blur_bins, self.workers) < 0 or self.clip <= 0:
            raise BadConfig(
                f"peak_rate={self.peak_rate}, tower_rate={self.tower_rate}, weight_decay={self.weight_decay}, "
                f"blur_bins={self.blur_bins}, workers={self.workers}, clip={self.clip}: none below 0, clip above 0"
            )
        if min(self.save_every, self.log_every) < 1:
            raise BadConfig(f"save_every={self.save_every}, log_every={self.log_every}: give 1 step or more")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: a linear warm-up times a cosine that ends at 0 after the last."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def location_blur(sigma_bins: float) -> Float[Tensor, "1000 1000"]:
    """Targets over the bins: row b is a narrow Gaussian around bin b, or exactly bin b when sigma is 0."""
    if sigma_bins == 0.0:
        return torch.eye(BINS)
    bins = torch.arange(BINS).float()
    return torch.softmax(-((bins[:, None] - bins) ** 2) / (2 * sigma_bins**2), dim=1)


def token_losses(
    logits: Float[Tensor, "P T V"],
    labels: Int[Tensor, "P T"],
    blur: Float[Tensor, "1000 1000"] | None = None,
    first_location: int = 0,
) -> Float[Tensor, "P T"]:
    """Cross-entropy of every token; 0 where the label is IGNORED.

    labels    what logits[:, t] should be: shifted nowhere here, because Pairs.decoder_ids are already one behind.
    blur      targets of the locations, from location_blur; None for the plain cross-entropy of the published loss.
    """
    if blur is None:
        return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    partition = logits.logsumexp(dim=-1)
    chosen = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    bins = labels - first_location
    placed = (bins >= 0) & (bins < BINS)
    locations = logits[..., first_location : first_location + BINS][placed]
    # Against a distribution, -sum(q log p) is log Z - sum(q logit), because q sums to one.
    chosen = chosen.masked_scatter(placed, (locations * blur[bins[placed]]).sum(dim=-1))
    return (partition - chosen) * (labels != IGNORED)


def pairs_logits(network: Network, image_tokens: Float[Tensor, "B N D"], pairs: Pairs) -> Float[Tensor, "P T V"]:
    """Score the answers of all pairs on image tokens that were made once."""
    memory, mask = network.encode(image_tokens[pairs.image_rows], pairs.prompt_ids, pairs.prompt_mask)
    return network.seq2seq.logits(network.seq2seq.decode(pairs.decoder_ids, memory, mask))


def sequence_loss(network: Network, blur: Float[Tensor, "1000 1000"] | None, first_location: int) -> Loss:
    """Make the loss of the recipe.

    returns   under "loss" the mean over all target tokens of a batch, whatever pair they belong to; under the name of
              each task, for the log, the mean over its pairs of their mean over tokens.
    """

    def loss(batch: Batch, step: int) -> dict[str, Tensor]:
        if not batch.pairs:  # no scene could pose its tasks, as reading without signs: a step with gradients of zero
            return {"loss": sum((0.0 * weight.sum() for weight in network.parameters()), batch.pixels.new_zeros(()))}
        image_tokens = network.encode_image(batch.pixels)
        total = image_tokens.new_zeros(())
        tokens = sum(int((pairs.labels != IGNORED).sum()) for pairs in batch.pairs)
        sums: dict[str, list[Tensor]] = {}
        for pairs in batch.pairs:
            losses = token_losses(pairs_logits(network, image_tokens, pairs), pairs.labels, blur, first_location)
            total = total + losses.sum() / tokens
            per_pair = losses.detach().sum(dim=1) / (pairs.labels != IGNORED).sum(dim=1)
            for task, value in zip(pairs.tasks, per_pair, strict=True):
                sums.setdefault(task, []).append(value)
        return {"loss": total} | {task: torch.stack(values).mean() for task, values in sorted(sums.items())}

    return loss


def parameter_groups(network: nn.Module, settings: TrainSettings) -> list[dict[str, object]]:
    """Split the parameters by weight decay and by rate.

    What is frozen stays frozen and is left out. A settings.tower_rate of 0 freezes the tower as well; parameters called
    "tower..." are in it.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        in_tower = ".tower." in f".{name}"  # also inside another module, as in the tower's start
        if in_tower and settings.tower_rate == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not name.endswith(TABLES) and LENGTHS not in name
        groups.setdefault((decays, in_tower), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "scale": settings.tower_rate if in_tower else 1.0,
        }
        for (decays, in_tower), parameters in groups.items()
    ]


def train(
    network: nn.Module,
    loss: Loss,
    batches: Dataset[Batch],
    settings: TrainSettings,
    folder: Path,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Tensor]:
    """Run, or go on with, one training run.

    network   trained in place.
    loss      what to minimise; its "loss" is differentiated, the rest is logged.
    batches   item n is the batch of step n; len(batches) is at least settings.steps.
    folder    where the run lives; a state found there is taken up.
    report    gets the table of parameters, and then a line of progress every log_every steps.
    returns   the averaged weights (or the last ones when settings.average is 0), by parameter name.
    raises    BadConfig when the folder holds the state of another network.
              TrainingDiverged when loss or gradient are not finite; the weights are those of the step before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.train()
    optimizer = torch.optim.AdamW(parameter_groups(network, settings), betas=settings.betas)
    average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    start = load_state(folder, network, optimizer, average)
    report(parameter_report(network))
    meter = Meter(folder / "train.jsonl", start, settings, report)
    for step, batch in enumerate(_from(batches, start, settings), start=start):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        parts = loss(batch, step)
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        check_finite(step, parts["loss"], norm, folder)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step) * group["scale"]
        optimizer.step()
        _follow(average, network, settings.average, step)
        meter.add(step, parts, norm, len(batch.pixels))
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            save_state(folder, network, optimizer, average, step + 1)
    return average


def _from(batches: Dataset[Batch], start: int, settings: TrainSettings) -> Iterator[Batch]:
    """Give the batches from a step on, drawn ahead by the workers, always in order."""
    ahead = 6 if settings.workers else None
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, settings.steps),
        num_workers=settings.workers,
        prefetch_factor=ahead,
    )
    return iter(loader)


def parameter_report(network: nn.Module) -> str:
    """Table of what is trained: a line for each part of the network, and for its adapters, trainable and frozen."""
    counts: dict[str, list[int]] = {}
    for name, parameter in network.named_parameters():
        part = counts.setdefault(part_of(name), [0, 0])
        part[not parameter.requires_grad] += parameter.numel()
    counts["total"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    lines = [f"{part:<18}{trained:>12,}{frozen:>12,}" for part, (trained, frozen) in counts.items()]
    return "\n".join([f"{'parameters':<18}{'trainable':>12}{'frozen':>12}", *lines])


def check_finite(step: int, loss: Tensor, norm: Tensor, folder: Path) -> None:
    """Do nothing for a step whose numbers can be trusted.

    raises    TrainingDiverged otherwise, so that neither the weights nor the saved state are spoilt.
    """
    if not (loss.isfinite() and norm.isfinite()):
        raise TrainingDiverged(
            f"step {step + 1}: the loss is {loss.item():g} and the norm of its gradient {norm.item():g}; both must be "
            f"finite. The state in {folder} is from before this: go on from it with a lower peak_rate or a lower clip"
        )


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move the average to `decay` of itself and the rest of the new weights: a mean over about 1 / (1 - decay) steps.

    It irons out the jitter of single steps, as a lower learning rate would, while the weights themselves stay fast.
    """
    decay = min(decay, (step + 1) / (step + 10))  # a young average follows faster
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(list(average.values()), parameters, 1.0 - decay)


class Meter:
    """Means of the loss parts since the last line, and the rate; writes train.jsonl."""

    def __init__(self, path: Path, start: int, settings: TrainSettings, report: Callable[[str], None]) -> None:
        self.path, self.settings, self.report = path, settings, report
        self.sums: dict[str, list[float]] = {}
        self.images, self.clock, self.last = 0, time.perf_counter(), start

    def add(self, step: int, parts: dict[str, Tensor], norm: Tensor, images: int) -> None:
        """Take one step in, and write a line when it is time."""
        for name, value in parts.items():
            self.sums.setdefault(name, []).append(value.item())
        self.images += images
        if (step + 1) % self.settings.log_every:
            return
        passed_s = time.perf_counter() - self.clock
        rate = self.images / passed_s
        left_s = (self.settings.steps - step - 1) * passed_s / (step + 1 - self.last)
        means = {name: round(sum(values) / len(values), 4) for name, values in self.sums.items()}
        row = {"step": step + 1, "images_per_s": round(rate, 1), "norm": round(norm.item(), 3)} | means
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        self.report(f"{step + 1}/{self.settings.steps} {rate:.0f} images/s, {left_s / 60:.0f} min left: {shown}")
        self.sums, self.images, self.clock, self.last = {}, 0, time.perf_counter(), step + 1


def save_state(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor], step: int
) -> None:
    """Write all that a resume needs into one file, under a temporary name first."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    tensors = {f"weights/{name}": parameter.detach() for name, parameter in network.named_parameters()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for parameter, moments in optimizer.state.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{names[id(parameter)]}"] = moments[moment]
    partial = folder / "state.safetensors.partial"
    write_safetensors({name: value.contiguous() for name, value in tensors.items()}, partial, {"step": str(step)})
    partial.replace(folder / "state.safetensors")


def load_state(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> int:
    """Take up the state of a folder; gives the next step, 0 when there is none.

    raises    BadConfig when the state is of another network, or is no state.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    step, tensors = _read_state(path)
    parameters = dict(network.named_parameters())
    extra = sorted({name.removeprefix("weights/") for name in tensors if name.startswith("weights/")} - set(parameters))
    if extra:
        raise BadConfig(f"{path} is of another network: it has {extra[0]}, this one has not; use another run folder")
    for name, parameter in parameters.items():
        saved = tensors.get(f"weights/{name}")
        if saved is None or saved.shape != parameter.shape:
            raise BadConfig(
                f"{path} is of another network: {name} is {None if saved is None else tuple(saved.shape)} there and "
                f"{tuple(parameter.shape)} here; use another run folder"
            )
        parameter.data.copy_(saved)
        average[name].copy_(tensors[f"average/{name}"])
        if f"exp_avg/{name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg/{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(parameter.device),
            }
    return step


def _read_state(path: Path) -> tuple[int, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
            return step, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, TypeError, KeyError) as error:
        raise BadConfig(f"{path} is not the state of a run ({error}); remove it or use another run folder") from error
