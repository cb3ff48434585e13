"""Scenes and their truth as files: numbered PNGs and one line of JSON for each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from openflorence.data.chance import dice
from openflorence.data.truth import examples
from openflorence.data.world import Scene, WorldConfig, draw_scene
from openflorence.errors import BadConfig

TRUTH_FILE = "scenes.jsonl"


def write_scenes(
    count: int,
    folder: str | Path,
    seed: int = 0,
    config: WorldConfig = WorldConfig(),  # noqa: B008 - frozen, so it can be shared
    advance: Callable[[], object] = lambda: None,
) -> Path:
    """Draw scenes into a folder: `000000.png` and so on, and the truth of every task in `scenes.jsonl`.

    seed      seed of the first scene; the next ones count on from it.
    advance   called after each scene, for a progress bar.
    returns   the path of the truth file, one JSON object a line, in the order of the scenes.
    raises    BadConfig if there is nothing to draw.
    promise   every file is whole: it is written beside its place and moved there.
    """
    if count < 1 or seed < 0:
        raise BadConfig(f"{count} scenes from seed {seed}: need at least one scene and a seed of 0 or more")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        scene = draw_scene(seed + index, config)
        picture = f"{index:06d}.png"
        _replace(folder / picture, lambda path, scene=scene: Image.fromarray(scene.image).save(path, "PNG"))  # type: ignore[misc]
        lines.append(json.dumps({"image": picture, **scene_row(scene)}))
        advance()
    _replace(folder / TRUTH_FILE, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return folder / TRUTH_FILE


def scene_row(scene: Scene) -> dict[str, Any]:
    """Give a scene and one example of each task as plain values; what is asked follows from the scene's seed."""
    width, height = scene.image_wh
    tasks = {}
    for example in examples(scene, dice(scene.seed)):
        answer = example.answer.as_row()
        region = None if example.region is None else list(example.region)
        tasks[example.task.name] = {
            "text": example.text,
            "region": region,
            "answer": {"text": answer["text"], "regions": answer["regions"]},
        }
    return {"width": width, "height": height, "seed": scene.seed, "tasks": tasks}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path and move there, so that a stop leaves no half file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
