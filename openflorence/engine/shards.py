"""Exports that pack images: Parquet, data sets of Hugging Face, WebDataset. One file holds so many images and is there
whole or not at all; one that is there is not written again.

Parquet, and hf, are both tables with a row for each image. `parquet` is the store laid flat: columns image_id, image
(the file as it was, or null), mime, width, height, uri, licence; the notes as nested columns texts, regions,
groundings, questions, pairs, whole (the types of data/store_rows.py, boxes as x0, y0, x1, y1), and the same once more
as JSON in `annotations`. `hf` is what trainers of the Hugging Face libraries expect: image as their Image, objects with
bbox as x, y, width, height and category as a class label, and `annotations` with everything, as JSON. Parquet with
features was chosen over a folder of pictures with metadata.jsonl, because its rows have types, and a million images are
a thousand files.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from openflorence.contract.records import LEVELS, Record, record_to_row
from openflorence.data.notes import KINDS, Notes
from openflorence.data.problems import write_text
from openflorence.data.store_files import commit
from openflorence.data.store_rows import Plain, arrow, notes_to_plain, notes_type
from openflorence.engine.chosen import Advance, Chosen, Entry

_GROUP = 32  # rows of Parquet written, and read, at once
_HUB_PARTS = {"train": "train", "val": "validation", "test": "test"}  # as the hub calls them


def write_parquet(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    """Write a part as <part>-00000-of-00003.parquet: all that the store knows, a row an image."""
    _write_tables(chosen, part, out, part, (_schema(), _row), advance)


def write_hub(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    """Write a part as data/train-00000-of-00003.parquet, such that datasets.load_dataset(out) reads it."""
    numbers = {label: number for number, label in enumerate(chosen.labels)}

    def row(entry: Entry) -> Plain:
        return _hub_row(entry, numbers)

    _write_tables(chosen, part, out / "data", _HUB_PARTS[part], (_hub_schema(chosen.labels), row), advance)


def write_hub_card(chosen: Chosen, out: Path) -> None:
    """Write the README.md that names the files of every part."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for part in chosen.parts:
        lines += [f"  - split: {_HUB_PARTS[part]}", f"    path: data/{_HUB_PARTS[part]}-*"]
    lines += ["---", "", f"Round {chosen.round.number} of an OpenFlorence store.", ""]
    lines += ["- `image`: the file as it was; boxes are in pixels of the upright picture (EXIF orientation applied)"]
    lines += ["- `objects`: of regions with a label; `bbox` is x, y, width, height"]
    lines += [f"- `texts`: about the whole image; `level` is {', '.join(LEVELS)}"]
    lines += ["- `annotations`: everything that is known about the image, with origins, as JSON"]
    write_text(out / "README.md", "\n".join(lines) + "\n")


def write_webdataset(chosen: Chosen, part: str, out: Path, advance: Advance) -> None:
    """Write a part as <part>-000000.tar: for every image <key>.jpg, <key>.json, and <key>.txt where it has a text.

    The JSON is the record as our JSONL has it, with image_id, uri and licence; the text is the first brief one.
    """
    for number, rows in enumerate(_cut(chosen.rows[part], chosen.settings.shard)):
        _once(
            out / f"{part}-{number:06d}.tar", rows, lambda path, rows: _write_tar(path, chosen.entries(rows)), advance
        )


# ---- files of so many images


def _cut(rows: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _once(path: Path, rows: Sequence[int], write: Callable[[Path, Sequence[int]], None], advance: Advance) -> None:
    """Write a file unless it is there."""
    if not path.exists():
        commit(path, lambda beside: write(beside, rows))
    for _ in rows:
        advance()


def _write_tables(
    chosen: Chosen, part: str, folder: Path, name: str, kind: tuple[Any, Callable[[Entry], Plain]], advance: Advance
) -> None:
    cut = list(_cut(chosen.rows[part], chosen.settings.shard))
    for number, rows in enumerate(cut):
        path = folder / f"{name}-{number:05d}-of-{len(cut):05d}.parquet"
        _once(path, rows, lambda path, rows: _write_table(path, chosen.entries(rows), *kind), advance)


def _write_table(path: Path, entries: Iterator[Entry], schema: Any, row: Callable[[Entry], Plain]) -> None:
    import pyarrow.parquet as parquet

    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := [row(entry) for entry in islice(entries, _GROUP)]:
            writer.write_table(arrow().Table.from_pylist(group, schema=schema))


def _write_tar(path: Path, entries: Iterable[Entry]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            key = entry.name.partition(".")[0]
            about = {name: entry.row[name] for name in ("image_id", "uri", "licence")}
            said = json.dumps(record_to_row(entry.record) | about, ensure_ascii=False)
            text = next((note.text for note in entry.record.texts if note.level == "brief"), None)
            assert entry.data is not None, "pictures are copied"
            members = {entry.name: entry.data, f"{key}.json": said.encode("utf-8", "backslashreplace")}
            members |= {} if text is None else {f"{key}.txt": text.encode("utf-8", "backslashreplace")}
            for name, data in members.items():
                member = tarfile.TarInfo(name)  # no time and no owner: the same images make the same file
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


# ---- rows


def _schema() -> Any:
    pa = arrow()
    text, number = pa.string(), pa.int32()
    head = [("image_id", text), ("image", pa.binary()), ("mime", text), ("width", number), ("height", number)]
    return pa.schema([*head, ("uri", text), ("licence", text), *notes_type(), ("annotations", text)])


def _row(entry: Entry) -> Plain:
    record = entry.record
    notes = Notes(**{name: getattr(record, name) for name in KINDS}, whole=record.whole)
    about = {name: entry.row[name] for name in ("image_id", "mime", "uri", "licence")}
    size = {"width": record.image_wh[0], "height": record.image_wh[1]}
    return {**about, **size, "image": entry.data, **notes_to_plain(notes), "annotations": _as_json(record)}


def _as_json(record: Record) -> str:
    """All notes, as a line of our JSONL without the image."""
    said = {name: value for name, value in record_to_row(record).items() if name not in ("image", "image_wh")}
    return json.dumps(said, ensure_ascii=True)


_OBJECTS = {"id": "int64", "bbox": "float64", "area": "float64", "category": "int64", "iscrowd": "bool"} | {
    "score": "float64"
}


def _hub_schema(labels: Sequence[str]) -> Any:
    """The Arrow schema, with the features that datasets reads out of it."""
    pa = arrow()
    text, box = pa.string(), pa.list_(pa.float64())
    kinds = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    objects = [(name, pa.list_(box if name == "bbox" else kinds[kind])) for name, kind in _OBJECTS.items()]
    fields = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
        *(("image_id", text), ("width", pa.int64()), ("height", pa.int64()), ("uri", text)),
        ("objects", pa.struct(objects)),
        ("texts", pa.struct([("text", pa.list_(text)), ("level", pa.list_(text))])),
        ("annotations", text),
    ]
    features = {
        "image": {"_type": "Image"},
        **{name: _value("string") for name in ("image_id", "uri", "annotations")},
        **{name: _value("int64") for name in ("width", "height")},
        "objects": {name: _many(_value(kind)) for name, kind in _OBJECTS.items()},
        "texts": {"text": _many(_value("string")), "level": _many(_value("string"))},
    }
    features["objects"]["bbox"] = _many(_many(_value("float64")))
    if labels:
        features["objects"]["category"] = _many({"names": list(labels), "_type": "ClassLabel"})
    ordered = {name: features[name] for name, _ in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": ordered}})})


def _value(kind: str) -> dict[str, Any]:
    return {"dtype": kind, "_type": "Value"}


def _many(feature: dict[str, Any]) -> dict[str, Any]:
    return {"feature": feature, "_type": "Sequence"}  # newer versions say List, and still read this


def _hub_row(entry: Entry, numbers: dict[str, int]) -> Plain:
    record = entry.record
    objects: dict[str, list[Any]] = {name: [] for name in _OBJECTS}
    for region in record.regions:
        box = region.bounds
        if not region.label or box is None:
            continue
        width, height = box.x1 - box.x0, box.y1 - box.y0
        values = (len(objects["id"]), [box.x0, box.y0, width, height], width * height, numbers[region.label])
        for name, value in zip(_OBJECTS, (*values, region.crowd, region.score), strict=True):
            objects[name].append(value)
    texts = {"text": [note.text for note in record.texts], "level": [note.level for note in record.texts]}
    about = {name: entry.row[name] for name in ("image_id", "uri")}
    size = {"width": record.image_wh[0], "height": record.image_wh[1]}
    image = {"bytes": entry.data, "path": entry.name}
    return {**about, **size, "image": image, "objects": objects, "texts": texts, "annotations": _as_json(record)}
