"""Scenes and their truth as files: numbered PNGs, and for each a line of JSON with the truth of every task.

Beside them lie the same scenes as records, a data set like any other: `openflorence draw` makes data to train on.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from openflorence.contract.records import (
    GroundingNote,
    Origin,
    PhraseNote,
    QuestionNote,
    Record,
    RegionNote,
    TextNote,
    record_to_row,
)
from openflorence.data.chance import dice
from openflorence.data.questions import pose_question
from openflorence.data.sentences import (
    caption,
    detailed_caption,
    groups,
    more_detailed_caption,
    name,
    referring_phrases,
)
from openflorence.data.truth import examples, polygons
from openflorence.data.world import Scene, Thing, WorldConfig, draw_scene
from openflorence.errors import BadConfig

TRUTH_FILE = "scenes.jsonl"
RECORDS_FILE = "records.jsonl"
QUESTIONS = 6  # put to each scene, fewer where chance asks one twice
_DRAWN = Origin(source="drawn")


def write_scenes(
    count: int,
    folder: str | Path,
    seed: int = 0,
    config: WorldConfig = WorldConfig(),  # noqa: B008 - frozen, so it can be shared
    advance: Callable[[], object] = lambda: None,
) -> Path:
    """Draw scenes into a folder: `000000.png` and so on, the truth of every task in `scenes.jsonl`, `records.jsonl`.

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
    lines, records = [], []
    for index in range(count):
        scene = draw_scene(seed + index, config)
        picture = f"{index:06d}.png"
        _replace(folder / picture, lambda path, scene=scene: Image.fromarray(scene.image).save(path, "PNG"))  # type: ignore[misc]
        lines.append(json.dumps({"image": picture, **scene_row(scene)}))
        records.append(json.dumps(record_to_row(scene_record(scene, picture))))
        advance()
    for file, rows in ((TRUTH_FILE, lines), (RECORDS_FILE, records)):
        words = "\n".join(rows) + "\n"
        _replace(folder / file, lambda path, words=words: path.write_text(words, encoding="utf-8"))  # type: ignore[misc]
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


def scene_record(scene: Scene, picture: str) -> Record:
    """Give all that is known about a scene as a record; the questions follow from the scene's seed.

    picture   path of its image.
    """
    rng = dice([scene.seed, 1])
    asked = dict(pose_question(scene, rng) for _ in range(QUESTIONS))
    brief = caption(scene)
    phrases = []
    start = 0
    for phrase, alike in groups(scene.things, "colour"):
        start = brief.index(phrase, start)
        span = (start, start + len(phrase))
        phrases.append(PhraseNote(phrase=phrase, boxes=tuple(thing.box for thing in alike), span=span))
        start = span[1]
    return Record(
        image=picture,
        image_wh=scene.image_wh,
        texts=(
            TextNote(text=brief, level="brief", origin=_DRAWN),
            TextNote(text=detailed_caption(scene), level="detailed", origin=_DRAWN),
            TextNote(text=more_detailed_caption(scene), level="more_detailed", origin=_DRAWN),
        ),
        regions=tuple(_region(scene, thing) for thing in scene.things),
        groundings=(GroundingNote(text=brief, phrases=tuple(phrases), origin=_DRAWN),),
        questions=tuple(QuestionNote(question=q, answers=(a,), origin=_DRAWN) for q, a in asked.items()),
        whole=frozenset(("objects", "words")),
    )


def _region(scene: Scene, thing: Thing) -> RegionNote:
    return RegionNote(
        box=thing.box,
        quad=thing.quad,
        polygons=polygons(scene, thing),
        label=thing.kind,
        description=name(thing),
        word=thing.word,
        expressions=tuple(referring_phrases(scene, thing)),
        origin=_DRAWN,
    )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path and move there, so that a stop leaves no half file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
