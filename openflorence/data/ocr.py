"""Words in pictures: ICDAR 2015, HierText and FUNSD. Every region has a quad and what is printed in it.

A text that nobody can read, or is not to be judged, is a region with crowd=True and no word. All three list every text
of a picture, so `whole` holds "words"; not so where a line or an entry of the picture was left out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from openflorence.contract.records import Record, RegionNote, Whole
from openflorence.contract.shapes import Point, Quad
from openflorence.data.entries import (
    check_table,
    find_image,
    find_size,
    numbers,
    pixels,
    read_json,
    read_lines,
    take,
    write_json,
    write_lines,
)
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadRecord

Level = Literal["lines", "words"]
_UNREAD = "###"  # ICDAR's transcription of what is not to be judged
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")
_FAR = 1e9  # pixels; also keeps what is not finite out of OpenCV
_WORDS: frozenset[Whole] = frozenset({"words"})


def read_icdar(folder: Path, problems: Problems, images: Path | None = None) -> Iterator[Record]:
    """Give a record for every gt_NAME.txt of a folder: ICDAR 2015, challenge 4.

    folder    with lines x1,y1,x2,y2,x3,y3,x4,y4,transcription; a transcription may hold commas.
    images    folder of NAME.jpg or .png; without it they lie beside the texts, in images/ here or beside the folder,
              or in ch4_training_images/ or ch4_test_images/ beside it, as distributed.
    raises    BadRecord when there is no such file in the folder.
    source    rrc.cvc.uab.es, challenge 4, task 4: clockwise from the top left; "###" is not to be judged.
    """
    beside = ("../images", "../ch4_training_images", "../ch4_test_images")
    folders = [Path(), Path("images"), *map(Path, beside)] if images is None else [images.resolve()]
    for path in _files(folder, "gt_*.txt"):
        image = _find_any(folder, path.stem.removeprefix("gt_"), folders)
        size = find_size(folder, image, problems)
        if size is None:
            continue
        before = problems.counts.total()
        regions = []
        for number, line in read_lines(path, problems):
            try:
                regions.append(_icdar_line(line, f"{path}:{number}"))
            except BadRecord as error:
                problems.add("entry not readable", str(error))
        yield _record(image, size, regions, before, problems)


def write_icdar(records: Iterable[Record], folder: Path) -> Path:
    """Write gt_NAME.txt for every record, NAME being that of its image without its ending.

    returns   the folder.
    raises    BadRecord when two images have one name.
    promise   read_icdar gives the words back, with corners in whole pixels and without line breaks.
    """
    for name, record in _named(records):
        lines = []
        for note in record.regions:
            quad = _quad_of(note)
            if quad is not None:
                corners = ",".join(str(pixels(value)) for point in quad for value in point)
                word = _UNREAD if note.crowd or not note.word.strip() else " ".join(note.word.split())
                lines.append(f"{corners},{word}")
        write_lines(lines, folder / f"gt_{name}.txt")
    return folder


def read_hiertext(
    path: Path, problems: Problems, level: Level = "lines", images: Path | None = None
) -> Iterator[Record]:
    """Give a record for every image of HierText.

    path      train.jsonl or validation.jsonl, which hold one JSON object all the same. It is read into memory whole.
    level     "lines" or "words": which of the two a region is. An outline of more than four points becomes the
              smallest rectangle around it, from the corner nearest to its first point, clockwise.
    images    folder of the images; without it they lie beside the file or in train/, validation/, test/ or images/
              there or beside its folder.
    raises    BadRecord when the file is missing or unreadable; BadConfig for another level.
    source    github.com/google-research-datasets/hiertext, README: outlines start at the top left of the text; what
              is not legible is not to be judged.
    """
    if level not in ("lines", "words"):
        raise BadConfig(f"level {level!r} of HierText is not known; allowed: lines, words")
    names = ("train", "validation", "test", "images")
    folders = (
        [Path(), *map(Path, names), *(Path("..", name) for name in names)] if images is None else [images.resolve()]
    )
    for place, entry in enumerate(take(read_json(path), "annotations", list, str(path))):
        where = f"{path}, annotation {place}"
        try:
            name = take(entry, "image_id", str, where)
            where = f"{path}, image {name!r}"
            size = take(entry, "image_width", int, where), take(entry, "image_height", int, where)
            lines = [
                line
                for paragraph in take(entry, "paragraphs", list, where)
                for line in take(paragraph, "lines", list, where)
            ]
            found = lines if level == "lines" else [word for line in lines for word in take(line, "words", list, where)]
            if min(size) < 1 or not name:
                raise BadRecord(f"{where}: size {size[0]} x {size[1]}")
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        before = problems.counts.total()
        regions = []
        for item in found:
            try:
                regions.append(_hiertext_item(item, where))
            except BadRecord as error:
                problems.add("entry not readable", str(error))
        yield _record(find_image(path.parent, f"{name}.jpg", folders), size, regions, before, problems)


def write_hiertext(records: Iterable[Record], path: Path) -> Path:
    """Write one file in HierText's layout: every region a paragraph of one line of one word.

    returns   the path.
    raises    BadRecord for an image that is no .jpg: the layout has no other.
    promise   read_hiertext gives quads and words back at either level, with corners in whole pixels.
    """
    rows = []
    for record in records:
        if not record.image.endswith(".jpg"):
            raise BadRecord(f"HierText's layout holds .jpg files, not {record.image!r}: convert it first")
        paragraphs = []
        for note in record.regions:
            quad = _quad_of(note)
            if quad is not None:
                corners = [[pixels(x), pixels(y)] for x, y in quad]
                word = {"vertices": corners, "text": "" if note.crowd else note.word, "legible": _is_legible(note)}
                line = word | {"words": [word]}
                paragraphs.append({"vertices": corners, "legible": _is_legible(note), "lines": [line]})
        about = {"image_id": record.image.removesuffix(".jpg"), "paragraphs": paragraphs}
        rows.append(about | {"image_width": record.image_wh[0], "image_height": record.image_wh[1]})
    return write_json({"info": {}, "annotations": rows}, path)


def read_funsd(folder: Path, problems: Problems, images: Path | None = None) -> Iterator[Record]:
    """Give a record for every form of FUNSD: a region for each entry, with its kind as label.

    folder    training_data/ or testing_data/, with annotations/*.json.
    images    folder of the forms; without it images/ in the folder.
    returns   words of entries, in quads made of their boxes; labels "header", "question", "answer", "other". Which
              entry answers which is not kept.
    raises    BadRecord when there is no annotation.
    source    guillaumejaume.github.io/FUNSD: box as left, top, right, bottom.
    """
    folders = [Path("images"), Path()] if images is None else [images.resolve()]
    for path in _files(folder / "annotations", "*.json"):
        image = _find_any(folder, path.stem, folders)
        try:
            form = take(read_json(path), "form", list, str(path))
        except BadRecord as error:
            problems.add("file not readable", str(error))
            continue
        size = find_size(folder, image, problems)
        if size is None:
            continue
        before = problems.counts.total()
        regions = []
        for place, entry in enumerate(form):
            where = f"{path}, entry {place}"
            try:
                x0, y0, x1, y1 = numbers(check_table(entry, where).get("box"), 4, f"{where}: box")
                word, label = take(entry, "text", str, where), take(entry, "label", str, where)
            except BadRecord as error:
                problems.add("entry not readable", str(error))
                continue
            unread = not word.strip()  # a field that nobody filled in
            regions.append(
                RegionNote(quad=_upright(x0, y0, x1, y1), word="" if unread else word, label=label, crowd=unread)
            )
        yield _record(image, size, regions, before, problems)


def write_funsd(records: Iterable[Record], folder: Path) -> Path:
    """Write annotations/NAME.json for every record, NAME being that of its image without its ending.

    returns   the folder.
    raises    BadRecord when two images have one name.
    promise   read_funsd gives words and labels back, in upright quads with corners in whole pixels.
    """
    for name, record in _named(records):
        form: list[dict[str, Any]] = []
        for note in record.regions:
            bounds = note.bounds
            if bounds is not None:
                box = [pixels(value) for value in bounds]
                text = "" if note.crowd else note.word
                entry = {"id": len(form), "text": text, "box": box, "label": note.label or "other"}
                form.append(entry | {"words": [{"text": text, "box": box}], "linking": []})
        write_json({"form": form}, folder / "annotations" / f"{name}.json")
    return folder


def _icdar_line(line: str, where: str) -> RegionNote:
    parts = line.split(",", 8)
    try:
        quad = _to_quad([float(part) for part in parts[:8]])
        word = parts[8].strip()
    except (ValueError, IndexError):
        raise BadRecord(f"{where} is {line!r:.80}; eight numbers and a transcription are needed") from None
    return RegionNote(quad=quad, crowd=True) if word in (_UNREAD, "") else RegionNote(quad=quad, word=word)


def _hiertext_item(item: Any, where: str) -> RegionNote:
    text, legible = take(item, "text", str, where), take(item, "legible", bool, where)
    vertices = take(item, "vertices", list, where)
    flat = [value for vertex in vertices for value in numbers(vertex, 2, f"{where}: vertex")]
    if len(vertices) < 3:
        raise BadRecord(f"{where}: {text!r:.40} has {len(vertices)} vertices; three are needed")
    if not all(abs(value) < _FAR for value in flat):
        raise BadRecord(f"{where}: {text!r:.40} has a vertex beyond any image")
    quad = _to_quad(flat) if len(vertices) == 4 else smallest_rectangle(flat)
    if legible and text.strip():
        return RegionNote(quad=quad, word=text)
    return RegionNote(quad=quad, crowd=True)


def smallest_rectangle(flat: list[float]) -> Quad:
    """Give the smallest rectangle, at any angle, around an outline.

    flat      x, y, x, y of three points or more.
    returns   its corners clockwise as seen, from the one nearest to the first point.
    """
    points = np.asarray(flat, dtype=np.float32).reshape(-1, 2)
    corners = cv2.boxPoints(cv2.minAreaRect(points))  # clockwise as seen, from a corner of OpenCV's choice
    first = int(((corners - points[0]) ** 2).sum(1).argmin())
    return _to_quad([float(value) for value in np.roll(corners, -first, axis=0).reshape(-1)])


def _to_quad(flat: list[float]) -> Quad:
    x1, y1, x2, y2, x3, y3, x4, y4 = flat
    return Point(x1, y1), Point(x2, y2), Point(x3, y3), Point(x4, y4)


def _upright(x0: float, y0: float, x1: float, y1: float) -> Quad:
    return Point(x0, y0), Point(x1, y0), Point(x1, y1), Point(x0, y1)


def _quad_of(note: RegionNote) -> Quad | None:
    """The quad, or the corners of what the region has instead."""
    return note.quad or (None if note.bounds is None else _upright(*note.bounds))


def _is_legible(note: RegionNote) -> bool:
    return not note.crowd and bool(note.word.strip())


def _record(image: str, size: tuple[int, int], regions: list[RegionNote], before: int, problems: Problems) -> Record:
    """Promise every word only when nothing was left out since `before` problems were counted."""
    whole = _WORDS if problems.counts.total() == before else frozenset[Whole]()
    return Record(image=image, image_wh=size, regions=tuple(regions), whole=whole)


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise BadRecord(f"{folder} has no {pattern}: give the folder of the annotations")
    return files


def _find_any(root: Path, stem: str, folders: Iterable[Path]) -> str:
    """Name the image of an annotation that does not say its ending; as .jpg when there is none."""
    folders = list(folders)
    for ending in _ENDINGS:
        found = find_image(root, stem + ending, folders)
        if (root / found).is_file():
            return found
    return stem + _ENDINGS[0]


def _named(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Records with the names that their files get."""
    seen: set[str] = set()
    for record in records:
        name = Path(record.image).stem
        if name in seen:
            raise BadRecord(f"two images are called {name!r}: the layout has one annotation for each; rename one")
        seen.add(name)
        yield name, record
