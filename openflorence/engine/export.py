"""A round of a store as a data set of another format: images as their original bytes, and all that the format can say.

    done = export(Store.open("fld/"), Path("out/"), ExportSettings(to="coco"))

coco         train/, and annotations/instances_train.json and captions_train.json, as COCO's own folders
yolo         images/train, labels/train and data.yaml, as Ultralytics
voc          JPEGImages, Annotations and ImageSets/Main
jsonl        images/ and train.jsonl, a record a line: everything, as data/pairs.py reads it
parquet, webdataset, hf   packed; see shards.py

Each part (train, val, test) is written as said above. An image of which nothing is known is none without objects: it is
left out where the format has objects alone. The folder says in export.json what it holds. Every file is there whole or
not at all, and its name follows from what it holds; so a killed export, begun again, ends as if it had not been killed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from openflorence.contract.records import Record
from openflorence.data.coco import write_coco
from openflorence.data.entries import read_json, write_lines
from openflorence.data.pairs import write_records
from openflorence.data.problems import write_text
from openflorence.data.store import Store
from openflorence.data.store_files import commit, commit_json, locked
from openflorence.data.voc import voc_annotation
from openflorence.data.yolo import write_yolo, yolo_lines
from openflorence.engine.chosen import Advance, Chosen, Entry, ExportSettings, choose, file_name
from openflorence.engine.shards import write_hub, write_hub_card, write_parquet, write_webdataset
from openflorence.engine.unsaid import has_objects, in_words
from openflorence.errors import BadConfig

FILE = "export.json"  # what the folder holds, and whether all of it is there
_LOCK = ".export.lock"


@dataclass(frozen=True)
class Exported:
    """What came of an export."""

    round: int
    pictures: dict[str, int]  # part -> images
    remarks: tuple[str, ...]  # what a user must know: what was left out, and why


def export(
    store: Store,
    out: Path,
    settings: ExportSettings,
    advance: Advance = lambda: None,
) -> Exported:
    """Write a published round as a data set.

    out       its folder; new, empty, or one where the same export was begun.
    advance   called once for every image looked through, and once more for every one written.
    raises    BadConfig when the round is not published or nothing of it can be said in this format, or `out` holds
              anything else.
    promise   memory does not grow with the images but for eight bytes each, and their labels. Killed and called again,
              it ends with the same files.
    """
    chosen = choose(store, settings, advance)
    with _claimed(out, chosen) as done:
        if done is not None:
            return Exported(chosen.round.number, done["parts"], tuple(done["remarks"]))
        write, finish = _WRITERS[settings.to]
        for part in chosen.parts:
            write(chosen, part, out, advance)
        if finish is not None:
            finish(chosen, out)
        parts = {part: len(chosen.rows[part]) - _gone(chosen, part) for part in chosen.parts}
        made = Exported(chosen.round.number, parts, tuple(_remarks(chosen)))
        commit_json(out / FILE, _facts(chosen) | {"done": {"parts": parts, "remarks": list(made.remarks)}})
    return made


def _remarks(chosen: Chosen) -> Iterator[str]:
    """What a user must know."""
    to = chosen.settings.to
    if chosen.lost:
        yield f"not exported, {to} has no place for them: {in_words(chosen.lost)}"
    if chosen.below:
        yield f"not exported, their score is below {chosen.settings.least:g}: {chosen.below:,} notes"
    if chosen.left_out:
        yield f"left out: {chosen.left_out:,} images of which nothing is known that {to} can say"
    if chosen.unsure:
        yield f"{to} takes every object for noted; of {chosen.unsure:,} images nobody said so"
    if chosen.turned:
        yield (
            f"{chosen.turned:,} pictures lie turned in their files: read them with their EXIF orientation, "
            "annotations are of the upright picture"
        )
    if chosen.copied:
        yield f"{chosen.copied:,} pictures have no place of their own any more and were copied"
    for message in list(chosen.gone.values())[:3]:
        yield f"left out, its picture cannot be read: {message}"
    if len(chosen.gone) > 3:
        yield f"left out like these: {len(chosen.gone) - 3:,} more"


def _gone(chosen: Chosen, part: str) -> int:
    return sum(number in chosen.gone for number in chosen.rows[part])


# ---- the folder


def _facts(chosen: Chosen) -> dict[str, Any]:
    """What an export is made of: as long as it is the same, so are the files."""
    asked = asdict(chosen.settings) | {"shares": list(chosen.settings.shares), "number": chosen.round.number}
    return {"format": 1, "runs": dict(chosen.round.runs), "settings": asked}


@contextmanager
def _claimed(out: Path, chosen: Chosen) -> Iterator[dict[str, Any] | None]:
    """Hold a folder while an export is written; gives what was written there, if all of it was.

    raises    BadConfig when it is no folder, or holds anything but this export.
    """
    if out.exists() and not out.is_dir():
        raise BadConfig(f"{out} is a file; give a folder that is new or empty")
    own = f".{FILE}.", _LOCK  # which a kill at the very beginning leaves
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith(own)) if out.exists() else []
    if there and FILE not in there:
        raise BadConfig(f"{out} is not empty and no export, it has {there[0]!r}; give a folder that is new or empty")
    facts = _facts(chosen)
    with locked(out / _LOCK, f"export {out}"):
        held = read_json(out / FILE) if there else {}
        done = held.pop("done", None) if isinstance(held, dict) else None
        if there and held != facts:
            raise BadConfig(f"{out} holds another export ({held}); give a folder that is new or empty")
        for part in out.rglob(".*.part"):  # which a kill left
            part.unlink(missing_ok=True)
        if done is None:
            commit_json(out / FILE, facts)
        yield done


# ---- pictures in folders


def _keep(entry: Entry, folder: Path) -> None:
    """Write a picture, unless it is there or is only named."""
    path = folder / entry.name
    if entry.data is not None and not (path.is_file() and path.stat().st_size == len(entry.data)):
        data = entry.data
        commit(path, lambda beside: beside.write_bytes(data), to_disk=False)


def _write_coco(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    """Objects and captions in files of their own, as COCO has them: a detector's trainer stumbles over captions."""
    for entry in chosen.entries(chosen.rows[part]):
        _keep(entry, out / part)
        advance()

    class Picked:
        """Records of the part that a file is about; gone through as often as it takes."""

        def __init__(self, pick: Callable[[Record], Record | None]) -> None:
            self.pick = pick

        def __iter__(self) -> Iterator[Record]:
            for number, row, record in chosen.notes(part):
                picked = self.pick(record)
                if picked is not None:
                    name = str(row["uri"]) if chosen.is_named(row) else file_name(number, row)
                    yield replace(picked, image=name)

    def objects(record: Record) -> Record | None:
        return replace(record, texts=()) if has_objects(record) else None

    def captions(record: Record) -> Record | None:
        texts = tuple(note for note in record.texts if note.level == "brief")
        return Record(image=record.image, image_wh=record.image_wh, texts=texts) if texts else None

    folder = out / "annotations"
    if chosen.with_objects[part]:
        write_coco(Picked(objects), folder / f"instances_{part}.json", chosen.labels)
    if chosen.with_captions[part]:
        write_coco(Picked(captions), folder / f"captions_{part}.json")


def _write_yolo(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    numbers = {label: number for number, label in enumerate(chosen.labels)}
    for entry in chosen.entries(chosen.rows[part]):
        labels = (out / "labels" / part / entry.name).with_suffix(".txt")
        write_lines(yolo_lines(entry.record, numbers), labels)
        _keep(entry, out / "images" / part)
        advance()


def _finish_yolo(chosen: Chosen, out: Path) -> None:
    write_yolo((), out, chosen.parts[0], chosen.labels)  # the data.yaml, of all parts that have labels by now


def _write_voc(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    def stems() -> Iterator[str]:
        for entry in chosen.entries(chosen.rows[part]):
            stem = entry.name.partition(".")[0]
            write_text(out / "Annotations" / f"{stem}.xml", voc_annotation(entry.record, entry.name))
            _keep(entry, out / "JPEGImages")
            advance()
            yield stem

    write_lines(stems(), out / "ImageSets" / "Main" / f"{part}.txt")


def _write_jsonl(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    def records() -> Iterator[Record]:
        for entry in chosen.entries(chosen.rows[part]):
            _keep(entry, out / "images")
            advance()
            where = str(entry.row["uri"]) if entry.data is None else f"images/{entry.name}"
            yield replace(entry.record, image=where)

    write_records(records(), out / f"{part}.jsonl")


_Write = Callable[[Chosen, str, Path, Advance], None]
_WRITERS: dict[str, tuple[_Write, Callable[[Chosen, Path], None] | None]] = {
    "coco": (_write_coco, None),
    "yolo": (_write_yolo, _finish_yolo),
    "voc": (_write_voc, None),
    "jsonl": (_write_jsonl, None),
    "parquet": (write_parquet, None),
    "webdataset": (write_webdataset, None),
    "hf": (write_hub, write_hub_card),
}
FORMATS = tuple(_WRITERS)
