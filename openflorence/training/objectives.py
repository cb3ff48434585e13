"""What the recipe minimises: one cross-entropy over the answers of every task, K of them on one encoding of an image.

An objective is a module that holds the network as `network` and does all the work of a batch in its `forward`, so that
whatever shards or copies a module over processes can take it whole. It gives a sum and what the sum is over, not a
mean: only who sees all batches of a step on all processes can divide without weighing one of them more.

Axes: B images, P (image, target) pairs, S prompt tokens, T answer tokens, N image tokens, D width, V vocabulary.
Source: spec section 7; the blur of locations is ours.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openflorence.contract.locations import BINS
from openflorence.data.mixture import IGNORED, Batch, Pairs
from openflorence.errors import BadConfig
from openflorence.model.florence import Network


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
    """Cross-entropy of every token, in float32; 0 where the label is IGNORED.

    labels    what logits[:, t] should be: shifted nowhere here, because Pairs.decoder_ids are already one behind.
    blur      targets of the locations, from location_blur; None for the plain cross-entropy of the published loss.
    """
    logits = logits.float()
    if blur is None:
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        return losses.view(labels.shape)
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


class SequenceObjective(nn.Module):
    """The published loss: cross-entropy of the tokens of every answer, given the image and the question.

    blur_bins       a location's target is a Gaussian this wide over neighbouring bins; 0 is the published target.
    first_location  id of `<loc_0>`; only read where there is a blur.
    raises          BadConfig for a blur without the place of the locations.
    """

    def __init__(self, network: Network, blur_bins: float = 0.0, first_location: int = 0) -> None:
        super().__init__()
        if blur_bins < 0 or (blur_bins and not first_location):
            raise BadConfig(
                f"blur_bins={blur_bins} with first_location={first_location}: a blur is 0 or wider, and where there is "
                "one, the id of <loc_0> must be given"
            )
        self.network, self.blur_bins, self.first_location = network, blur_bins, first_location
        self.register_buffer("blur", location_blur(blur_bins) if blur_bins else None, persistent=False)
        self.blur: Tensor | None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cost of one batch.

        returns   "loss", the sum over all target tokens of the batch, whatever pair they belong to; "units", how many
                  tokens; and under the name of each task the mean over its pairs of their mean over tokens.
        promise   without pairs (no scene could pose its tasks) both are 0, and every gradient is, but none is missing:
                  other processes wait for all of them.
        """
        if not batch.pairs:
            touched = sum((0.0 * weight.sum() for weight in self.parameters()), batch.pixels.new_zeros(()))
            return {"loss": touched, "units": touched.new_zeros(())}
        image_tokens = self.network.encode_image(batch.pixels)
        sums, tokens = [], []
        for pairs in batch.pairs:
            logits = pairs_logits(self.network, image_tokens, pairs)
            sums.append(token_losses(logits, pairs.labels, self.blur, self.first_location).sum(dim=1))
            tokens.append((pairs.labels != IGNORED).sum(dim=1))
        per_pair, counts = torch.cat(sums), torch.cat(tokens)
        names = [task for pairs in batch.pairs for task in pairs.tasks]
        return {"loss": per_pair.sum(), "units": counts.sum().float()} | task_means(names, per_pair.detach() / counts)


def task_means(names: list[str], values: Float[Tensor, "P"]) -> dict[str, Tensor]:
    """The mean value of each task, by name in order."""
    tasks = sorted(set(names))
    place = {task: row for row, task in enumerate(tasks)}
    rows = torch.tensor([place[name] for name in names], device=values.device)
    sums = values.new_zeros(2, len(tasks)).index_add_(1, rows, torch.stack([values, torch.ones_like(values)]))
    return dict(zip(tasks, (sums[0] / sums[1]).unbind(), strict=True))
