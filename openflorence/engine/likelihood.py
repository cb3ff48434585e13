"""How far our own network believes what is said of regions, measured once, so that a threshold can be moved later."""

from collections.abc import Sequence
from pathlib import Path

from openflorence.data.notes import Measure, Notes
from openflorence.engine.agree import likelihoods
from openflorence.engine.specialists import open_row, print_of
from openflorence.engine.stages import Context, Outcome, Resources, Row, Stage
from openflorence.errors import BadConfig
from openflorence.model.predict import Florence, load

LIKELIHOOD = "likelihood"  # name of the layer, and of the measure


class Likelihood(Stage):
    """Measures the regions of a layer; see agree.likelihoods. Says nothing itself."""

    batch, resources = 4, Resources(cpus=1, gpus=1)

    def __init__(self, of: str, model: str | None = None, most: int = 64, layer: str = LIKELIHOOD) -> None:
        """Settle who believes.

        of        the layer whose regions are measured.
        model     a folder, a hub id, or None for the embedded nano, which knows drawn scenes alone.
        most      regions of one image that are measured, the surest first; the others have no measure.
        """
        if most < 1:
            raise BadConfig(f"most is {most}; measure 1 region of an image or more")
        self.of, self.layer, self.name, self.most, self.needs = of, layer, model, most, (of,)
        self.model = model or "nano"
        self.revision = print_of(Path(model)) if model is not None and Path(model).is_dir() else ""
        self._network: Florence | None = None

    def setup(self, context: Context) -> None:
        """Load the checkpoint to the worker's device."""
        self._network = load(self.name, device=context.device)

    def process(self, rows: Sequence[Row]) -> list[Outcome]:
        """Measure what each image's regions say."""
        return [(Notes(), (), self._measure(row)) for row in rows]

    def _measure(self, row: Row) -> tuple[Measure, ...]:
        assert self._network is not None, "setup comes first"
        regions = row.layers[self.of].notes.regions
        scores = [1.0 if region.score is None else region.score for region in regions]
        surest = sorted(range(len(regions)), key=lambda place: -scores[place])
        asked = {f"{self.of}/region{place}": regions[place] for place in sorted(surest[: self.most])}
        if not asked:
            return ()
        found = likelihoods(self._network, open_row(row), asked)
        return tuple(Measure(name, LIKELIHOOD, value) for name, value in found.items())
