"""A little world: a network of half a million numbers, its tokenizer, scenes of 64 px. For tests that train."""

from functools import cache

from torch.utils.data import Dataset

from openflorence.contract.records import Example
from openflorence.contract.tasks import FREE_TEXT, TASKS
from openflorence.data.chance import dice
from openflorence.data.mixture import Batch
from openflorence.data.truth import ask, vocabulary_texts
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.model.config import FlorenceConfig, TextConfig, VisionConfig
from openflorence.model.florence import Network, init_weights
from openflorence.model.tokenizer import Text, train_text

SIDE_PX = 64
WIDTH = 64
WORLD = WorldConfig(side_px=SIDE_PX, max_objects=3)
ALL = (*TASKS, FREE_TEXT)


@cache
def world_text() -> Text:
    """A tokenizer that knows the words of the drawn world, in as few rows as hold the thousand locations."""
    return train_text(vocabulary_texts(scenes=20), 1600)


def tiny_network(seed: int = 0, width: int = WIDTH, dropout: float = 0.0) -> Network:
    """A network that learns in seconds; 16 cells of 16 px."""
    config = FlorenceConfig(
        vision=VisionConfig(
            widths=(16, 32, 48, 64),
            depths=(1, 1, 1, 1),
            heads=(2, 4, 4, 4),
            groups=(2, 4, 4, 4),
            strides=(4, 2, 2, 1),
            window=4,
            drop_path=dropout,
        ),
        text=TextConfig(
            vocab=world_text().size,
            width=width,
            encoder_layers=1,
            decoder_layers=1,
            encoder_heads=4,
            decoder_heads=4,
            encoder_ffn=2 * width,
            decoder_ffn=2 * width,
            positions=256,
            dropout=dropout,
            attention_dropout=dropout,
            activation_dropout=dropout,
            no_repeat_ngram=0,  # captions of two signs say "sign, a" twice
            early_stopping=False,  # a sure network fills the beams beside its answer with junk, which ends first
        ),
        side_px=SIDE_PX,
    )
    network = Network(config)
    init_weights(network, seed, world_text().first_location)
    return network


def drawn_examples(scene: Scene, names: tuple[str, ...] = tuple(task.name for task in ALL)) -> list[Example]:
    """What a scene can be asked, by the seed of the scene."""
    posed = (ask(scene, name, dice(scene.seed)) for name in names)
    return [example for example in posed if example is not None]


def scene_with_sign(config: WorldConfig = WORLD) -> Scene:
    """The first scene that can pose every task."""
    return next(scene for scene in (draw_scene(seed, config) for seed in range(100)) if scene.signs)


class Same(Dataset[Batch]):
    """The same batch at every step."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> Batch:
        return self.batch
