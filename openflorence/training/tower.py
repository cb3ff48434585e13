"""The image tower's own start: read kind, colour, size, word, letters, outline and box off every cell of drawn scenes.

From random weights the sequence loss alone stays on a long plateau, because the decoder cannot learn to name what the
tower does not yet show (`docs/log.md` has the figures). A tower that was first trained on the labels of its cells, as
UniCL starts from labels, breaks it. Boxes are read as location distributions through the embedding rows of the
thousand bins, so the features already speak the language that the decoder will be asked to repeat.

Axes: B batch, N cells of the grid row by row, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openflorence.contract.locations import BINS, box_to_bins
from openflorence.data.mixture import Batch
from openflorence.data.truth import COLOUR_NAMES, LABELS, dense_truth
from openflorence.data.words import SIGN_WORDS, SIZES
from openflorence.data.world import Scene
from openflorence.model.florence import Network
from openflorence.training.objectives import location_blur

NAMES: dict[str, tuple[str, ...]] = {
    "kind": LABELS,
    "colour": COLOUR_NAMES,
    "size": tuple(SIZES),
    "word": tuple(dict.fromkeys(SIGN_WORDS)),
}
_ROW = {question: {name: row for row, name in enumerate(names)} for question, names in NAMES.items()}
LETTERS: tuple[str, ...] = tuple(sorted({letter for word in SIGN_WORDS for letter in word}))
PARTS = 2  # a cell is asked for its letters in PARTS x PARTS places: at nano's size a letter is narrower than a cell
SHADES = 8  # and for the outline in SHADES x SHADES places
WEIGHTS = {
    "filled": 1.0,
    "kind": 1.0,
    "colour": 1.0,
    "size": 0.5,
    "word": 1.0,
    "letters": 1.0,
    "outline": 1.0,
    "box": 1.0,
}
_UNASKED = -100  # a cell that the question does not concern
_MIN_SHARE = 0.2  # of a cell that one thing must cover for the cell to be asked about it


@dataclass(frozen=True)
class CellLabels:
    """What stands in each cell of a batch of scenes; -100 where there is nothing to say."""

    names: dict[str, Int[Tensor, "B N"]]  # per question of NAMES
    bins: Int[Tensor, "B N 4"]  # box of the thing, as location bins
    letters: Int[Tensor, "B N 4"]  # which letter stands in each quarter of the cell, row by row; -100 without one
    outline: Bool[Tensor, "B N 64"]  # which places of the cell, row by row, belong to the thing
    filled: Bool[Tensor, "B N"]  # does the cell show a thing?

    def to(self, device: torch.device) -> "CellLabels":
        """The same labels on a device."""
        names = {question: rows.to(device) for question, rows in self.names.items()}
        rest = (part.to(device) for part in (self.bins, self.letters, self.outline, self.filled))
        return CellLabels(names, *rest)


def label_cells(scenes: Sequence[Scene], grid_hw: tuple[int, int]) -> CellLabels:
    """Give every cell the names and the box of the thing that covers most of it, if that is more than a fifth.

    grid_hw   rows and columns of cells; at most the pixels of the scenes, which may differ in size.
    """
    parts = [_label_scene(scene, grid_hw) for scene in scenes]
    table, letters, outline = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    names = {question: table[:, :, column] for column, question in enumerate(NAMES)}
    return CellLabels(names, table[:, :, len(NAMES) :], letters, outline, names["kind"] != _UNASKED)


def _label_scene(scene: Scene, grid_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label one scene: facts (N, questions + 4), letters (N, 4), outline (N, 64)."""
    truth = dense_truth(scene, grid_hw)
    shares = truth.shares.reshape(-1, len(scene.things) + 1)  # (N, background and things)
    shares[:, 0] = _MIN_SHARE  # a thing must beat this to own the cell
    owner = shares.argmax(axis=1)
    facts = np.full((len(scene.things) + 1, len(NAMES) + 4), _UNASKED, dtype=np.int64)
    facts[1:, 0], facts[1:, 1] = truth.kinds, truth.colours
    for row, thing in enumerate(scene.things, start=1):
        facts[row, 2] = _ROW["size"].get(thing.size, _UNASKED)
        facts[row, 3] = _ROW["word"].get(thing.word, _UNASKED)
        facts[row, 4:] = box_to_bins(thing.box, scene.image_wh)
    numbers = np.array([0, *(thing.number for thing in scene.things)])
    places = _cellwise(_seen(scene, grid_hw, SHADES), SHADES)
    return facts[owner], _cellwise(_letters(scene, grid_hw), PARTS), places == numbers[owner][:, None]


def _middles(scene: Scene, grid_hw: tuple[int, int], parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the middle of parts x parts places of every cell: columns (w,) and rows (h,)."""
    (rows, columns), (width, height) = grid_hw, scene.image_wh
    return (np.arange(columns * parts) + 0.5) * width / (columns * parts), (np.arange(rows * parts) + 0.5) * height / (
        rows * parts
    )


def _seen(scene: Scene, grid_hw: tuple[int, int], parts: int) -> np.ndarray:
    """Which thing is seen in each place: (h, w)."""
    xs, ys = _middles(scene, grid_hw, parts)
    return scene.owner[ys.astype(int)[:, None], xs.astype(int)]


def _letters(scene: Scene, grid_hw: tuple[int, int]) -> np.ndarray:
    """Which letter is printed in each place, by the quads of the words: (h, w)."""
    xs, ys = _middles(scene, grid_hw, PARTS)
    found = np.full((len(ys), len(xs)), _UNASKED, dtype=np.int64)
    for sign in scene.signs:
        assert sign.quad is not None
        (ax, ay), (bx, by), _, (dx, dy) = sign.quad
        across, down = np.array([bx - ax, by - ay]), np.array([dx - ax, dy - ay])
        steps = np.stack(np.broadcast_arrays(xs - ax, (ys - ay)[:, None]), axis=-1)
        u, v = steps @ across / (across @ across), steps @ down / (down @ down)
        inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        rows = np.array([LETTERS.index(letter) for letter in sign.word])
        found[inside] = rows[np.searchsorted(sign.letter_edges, u[inside], side="right") - 1]
    return found


def _cellwise(places: np.ndarray, parts: int) -> np.ndarray:
    """(h * parts, w * parts) -> (cells row by row, parts * parts)."""
    h, w = places.shape[0] // parts, places.shape[1] // parts
    return places.reshape(h, parts, w, parts).swapaxes(1, 2).reshape(h * w, parts * parts)


class CellHead(nn.Module):
    """Linear read-outs on the image tokens, thrown away after the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filled = nn.Linear(width, 1)
        self.names = nn.ModuleDict({question: nn.Linear(width, len(names)) for question, names in NAMES.items()})
        self.letters = nn.Linear(width, PARTS * PARTS * len(LETTERS))
        self.outline = nn.Linear(width, SHADES * SHADES)
        self.sides = nn.Linear(width, 4 * width)  # one query per side of the box, answered by the location rows

    def losses(
        self,
        cells: Float[Tensor, "B N D"],
        locations: Float[Tensor, "1000 D"],
        labels: CellLabels,
        blur: Float[Tensor, "1000 1000"],
    ) -> dict[str, Tensor]:
        """Mean cross-entropy of every read-out; 0 for a question that no cell is asked, as "word" without signs.

        locations  embedding rows of the bins: a side is answered by its nearest row.
        blur       what each bin's answer should be, from location_blur.
        """
        losses = {
            "filled": F.binary_cross_entropy_with_logits(self.filled(cells)[..., 0], labels.filled.to(cells.dtype))
        }
        for question, head in self.names.items():
            asked = labels.names[question] != _UNASKED
            logits, rows = head(cells[asked]), labels.names[question][asked]
            losses[question] = F.cross_entropy(logits, rows) if len(rows) else logits.sum()
        asked = labels.letters != _UNASKED
        logits = self.letters(cells).unflatten(-1, (-1, len(LETTERS)))[asked]
        losses["letters"] = F.cross_entropy(logits, labels.letters[asked]) if asked.any() else logits.sum()
        shown = cells[labels.filled]
        places = labels.outline[labels.filled].to(cells.dtype)
        logits = self.outline(shown)
        losses["outline"] = F.binary_cross_entropy_with_logits(logits, places) if len(places) else logits.sum()
        logits = self.sides(shown).unflatten(-1, (4, -1)) @ locations.T  # (things' cells, 4, 1000)
        wanted = blur[labels.bins[labels.filled].flatten()]
        losses["box"] = F.cross_entropy(logits.flatten(0, 1), wanted) if len(wanted) else logits.sum()
        return losses

    @torch.no_grad()
    def scores(
        self, cells: Float[Tensor, "B N D"], locations: Float[Tensor, "1000 D"], labels: CellLabels
    ) -> dict[str, Tensor]:
        """Share of cells named right per question, and the median error of a side in bins; only what was asked."""
        right = {}
        for question, head in self.names.items():
            asked = labels.names[question] != _UNASKED
            if asked.any():
                named = head(cells[asked]).argmax(-1)
                right[f"{question}_right"] = (named == labels.names[question][asked]).float().mean()
        asked = labels.letters != _UNASKED
        if asked.any():
            spelt = self.letters(cells).unflatten(-1, (-1, len(LETTERS)))[asked].argmax(-1)
            right["letters_right"] = (spelt == labels.letters[asked]).float().mean()
        if not labels.filled.any():
            return right
        drawn = self.outline(cells[labels.filled]) > 0
        right["outline_right"] = (drawn == labels.outline[labels.filled]).float().mean()
        guess = (self.sides(cells[labels.filled]).unflatten(-1, (4, -1)) @ locations.T).argmax(-1)
        right["side_bins"] = (guess - labels.bins[labels.filled]).abs().float().median()
        return right


class TowerStart(nn.Module):
    """A network and the read-outs that start its tower, as an objective; only the network is kept.

    blur_bins       width of a side's target over neighbouring bins; 0 for exactly its bin.
    first_location  id of `<loc_0>`: its row and the 999 behind it answer for the sides of boxes.
    """

    def __init__(self, network: Network, blur_bins: float, first_location: int) -> None:
        super().__init__()
        self.network, self.blur_bins, self.first_location = network, blur_bins, first_location
        self.head = CellHead(network.config.text.width)
        self.register_buffer("blur", location_blur(blur_bins), persistent=False)
        self.blur: Tensor

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cost of one batch of scenes.

        returns   "loss", the weighted sum of the parts times the number of images, and "units", the images: each part
                  is a mean over the cells that are asked, of which there are other numbers for every question, so no
                  count of cells would do for all; batches weigh by their images instead. And every part and score.
        """
        rows, columns = batch.pixels.shape[2:]
        labels = label_cells(batch.scenes, self.network.config.vision.grid_hw((rows, columns))).to(batch.pixels.device)
        cells = self.network.encode_image(batch.pixels)[:, 1:]  # without the mean token
        locations = self.network.seq2seq.embed.weight[self.first_location : self.first_location + BINS]
        losses = self.head.losses(cells, locations, labels, self.blur)
        total = sum((WEIGHTS[part] * value for part, value in losses.items()), cells.new_zeros(()))
        units = total.new_tensor(float(len(batch.pixels)))
        scores = self.head.scores(cells.detach(), locations, labels)
        return (
            {"loss": total * units, "units": units} | {name: value.detach() for name, value in losses.items()} | scores
        )
