"""The image tower's own start from pictures and their texts: a picture is told from others by what is said of it.

UniCL's way (Yang et al. 2022), which makes one thing of captions and class names: pairs that say the same are not held
against each other, as CLIP would, but are all right answers. The text side is the network's own encoder, reading the
text alone, and not a second one that is thrown away: the embedding, which is also the output head, and the encoder
then already know the words that the tower was taught by.

Axes: B images, P (image, text) pairs, Q pairs of all processes together, T text tokens, D width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openflorence.data.mixture import IGNORED, Batch, Pairs
from openflorence.model.florence import Network

FIRST_SCALE = 1 / 0.07  # of the similarities, as in CLIP
MAX_SCALE = 100.0  # as in CLIP


def read_texts(pairs: Sequence[Pairs]) -> tuple[Int[Tensor, "P"], Int[Tensor, "P T"]]:
    """Which image each pair is of, and the ids of its answer, IGNORED behind its end; no rows without pairs."""
    length = max((group.labels.shape[1] for group in pairs), default=1)
    ids = [F.pad(group.labels, (0, length - group.labels.shape[1]), value=IGNORED) for group in pairs]
    rows = [group.image_rows for group in pairs]
    none = torch.zeros(0, dtype=torch.long)
    return torch.cat(rows) if rows else none, torch.cat(ids) if ids else none.view(0, 1)


def true_matches(images: Int[Tensor, "Q"], texts: Int[Tensor, "Q T"]) -> Bool[Tensor, "Q Q"]:
    """Whether the text of column j is true of the image of row i: some pair joins that very image and that very text.

    With one text an image, as in UniCL, these are the pairs of equal texts. With several, the texts of one image are
    all true of it, which equal texts alone would deny.
    """
    same_text = torch.unique(texts, dim=0, return_inverse=True)[1]
    joined = (images[:, None] == images).float() @ (same_text[:, None] == same_text).float()
    return joined > 0


def spread_losses(logits: Float[Tensor, "P Q"], matches: Bool[Tensor, "P Q"]) -> Float[Tensor, "P"]:
    """Cross-entropy of each row against all of its matches, alike likely."""
    wanted = matches.float()
    return F.cross_entropy(logits, wanted / wanted.sum(dim=1, keepdim=True), reduction="none")


class ContrastObjective(nn.Module):
    """Find the text of an image and the image of a text among those of a batch; only the network inside is kept.

    seed      of the two projections.
    source    UniCL; temperature and its limit as in CLIP.
    promise   with several processes an image is told from those of all of them, at the cost of one process with the
              joined batch; every process must then take every step. Accumulated batches are not joined.

    What is contrasted is the answer of every pair, so a recipe should ask for what is said of a whole picture: its
    caption, or its class.
    """

    def __init__(self, network: Network, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        width = network.config.text.width
        self.of_image = nn.Linear(network.config.vision.widths[-1], width, bias=False)
        self.of_text = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([math.log(FIRST_SCALE)]))  # one entry: sharding takes no scalars
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.of_image, self.of_text):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cost of one batch.

        returns   "loss", the sum over pairs of the mean of both cross-entropies; "units", the number of pairs;
                  "scale" of the similarities; and "image_to_text", the share of pairs whose image is closest to a text
                  that is true of it, where there are pairs.
        """
        rows, ids = (part.to(batch.pixels.device) for part in read_texts(batch.pairs))
        images, texts = self.place_images(batch.pixels)[rows], self.place_texts(ids)
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
        with torch.autocast(images.device.type, enabled=False):  # at this scale half precision would blur the logits
            scaled = images * self.log_scale.exp(), texts * self.log_scale.exp()
            all_images, all_texts, matches, mine = join_processes(images, texts, rows, ids)
            to_text = scaled[0] @ all_texts.T
            to_image = scaled[1] @ all_images.T
        known = matches[mine]
        loss = (spread_losses(to_text, known) + spread_losses(to_image, matches.T[mine])).sum() / 2
        parts = {"loss": loss, "units": loss.new_tensor(float(len(rows))), "scale": self.log_scale.detach().exp()[0]}
        if len(rows):
            found = known.gather(1, to_text.argmax(dim=1, keepdim=True))
            parts["image_to_text"] = found.float().mean()
        return parts

    def place_images(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit vectors of pictures: the mean of the tower's cells, projected."""
        return F.normalize(self.of_image(self.network.tower(pixels).mean(dim=(1, 2))).float(), dim=-1)

    def place_texts(self, ids: Int[Tensor, "P T"]) -> Float[Tensor, "P D"]:
        """Unit vectors of texts, IGNORED behind their ends: the mean of the encoder's real tokens, projected."""
        seq2seq, real = self.network.seq2seq, ids != IGNORED
        tokens = seq2seq.embed(ids.masked_fill(~real, self.network.config.text.pad))
        read = seq2seq.encode(tokens, real) * real[..., None]
        mean = read.sum(dim=1) / real.sum(dim=1, keepdim=True)
        return F.normalize(self.of_text(mean).float(), dim=-1)


def join_processes(
    images: Float[Tensor, "P D"], texts: Float[Tensor, "P D"], rows: Int[Tensor, "P"], ids: Int[Tensor, "P T"]
) -> tuple[Float[Tensor, "Q D"], Float[Tensor, "Q D"], Bool[Tensor, "Q Q"], slice]:
    """Put the pairs of all processes together, with gradients to all of them; one process has its own only.

    returns   images, texts, which text is true of which image, and which of them are this process's own.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return images, texts, true_matches(rows, ids), slice(0, len(rows))
    from torch.distributed.nn.functional import all_gather  # asks for a torch that is built for several processes

    rank, world = distributed.get_rank(), distributed.get_world_size()
    sizes = [torch.zeros(2, dtype=torch.long, device=ids.device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor(ids.shape, device=ids.device))
    counts = [int(count) for count, _ in sizes]
    most, length = max(counts), int(max(size[1] for size in sizes))
    facts = F.pad(ids, (0, length - ids.shape[1]), value=IGNORED)
    facts = torch.cat([rows[:, None] * world + rank, facts], dim=1)  # an image's number is its own in all processes
    gathered = [torch.zeros(most, length + 1, dtype=torch.long, device=ids.device) for _ in range(world)]
    distributed.all_gather(gathered, F.pad(facts, (0, 0, 0, most - len(facts))))
    padded = F.pad(torch.cat([images, texts], dim=1), (0, 0, 0, most - len(images)))
    vectors = cut(all_gather(padded), counts)
    all_facts = cut(gathered, counts)
    start = sum(counts[:rank])
    all_images, all_texts = vectors.chunk(2, dim=1)
    return all_images, all_texts, true_matches(all_facts[:, 0], all_facts[:, 1:]), slice(start, start + counts[rank])


def cut(parts: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Join the parts of all processes without the rows that only made them equally long."""
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
