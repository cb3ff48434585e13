"""Pascal VOC annotations <-> records: one XML file of boxes per picture, and lists of the pictures of each part.

Source: the VOC development kit. The rule for coordinates is one, whoever wrote the file: pixels count from 1 and both
ends belong to the box, so that xmin = 1, xmax = width is the whole picture; in edges that is x0 = xmin - 1, x1 = xmax.
Detectron2's loader of VOC says the same. Other tools write edges from 0; read by this rule, their boxes begin one pixel
too far left and up, which no file lets one tell, and an xmin of 0 is counted as partly outside.
"""

import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from openflorence.contract.records import Record, RegionNote
from openflorence.contract.shapes import Box
from openflorence.data.entries import find_image, find_size, read_lines, write_lines
from openflorence.data.problems import Problems, write_text
from openflorence.data.yolo import IMAGE_SUFFIXES
from openflorence.errors import BadConfig, BadRecord

_FOLDERS = (Path("JPEGImages"), Path("images"), Path())  # where a picture may lie, from the folder of the data set
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_FIRST = (1, 1, 0, 0)  # what an edge in pixels from 0 lacks to VOC's pixel that counts from 1 and belongs to the box
_MARK = re.compile(r"\s+-?[01]$")  # behind an id in the lists of one class: absent, present, difficult


def read_voc(path: Path, problems: Problems, split: str | None = None) -> Iterator[Record]:
    """Give one record for each annotation file; one without objects is a background.

    Objects marked difficult are ordinary regions here, as in Detectron2's loader; they are not told apart. Parts of
    objects, poses and segmentation pictures are not kept. An annotation belongs to the picture of its own name.

    path      folder with Annotations/*.xml, or with the XML files themselves.
    split     name of a list in ImageSets/Main, such as train; None reads all files by name.
    returns   records whose image is relative to `path`.
    raises    BadRecord when there is no XML file or no such list; BadConfig when defusedxml is not installed.
    """
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise BadRecord(f"{folder} has no XML files: Pascal VOC keeps one per picture in Annotations/")
    if split is not None:
        listed = path / "ImageSets" / "Main" / f"{split}.txt"
        if not listed.is_file():
            raise BadRecord(
                f"{path} has no list ImageSets/Main/{split}.txt: it has {', '.join(voc_parts(path)) or 'none'}"
            )
        files = [folder / f"{_MARK.sub('', line.strip())}.xml" for _, line in read_lines(listed, problems)]
    return _records(files, path, _reader(), problems)


def voc_parts(path: Path) -> tuple[str, ...]:
    """Name the lists in ImageSets/Main."""
    return tuple(sorted(file.stem for file in (path / "ImageSets" / "Main").glob("*.txt")))


def _reader() -> Any:
    """XML from strangers may be built to fill the memory when it is read: defusedxml refuses what allows that."""
    try:
        import defusedxml.ElementTree
    except ImportError as error:
        raise BadConfig("Pascal VOC needs defusedxml: pip install openflorence[train]") from error
    return defusedxml.ElementTree.fromstring


def _records(files: list[Path], root: Path, parse: Any, problems: Problems) -> Iterator[Record]:
    for file in files:
        tree = _parse(file, parse, problems)
        record = None if tree is None else _record(tree, file, root, problems)
        if record is not None:
            yield record


def _parse(file: Path, parse: Any, problems: Problems) -> ElementTree.Element | None:
    """Parse a file in the encoding it declares, by itself UTF-8; None, counted, when it is no annotation."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        problems.add("file not readable", f"{file}: {error.strerror or error}")
        return None
    try:
        tree: ElementTree.Element = parse(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # what defusedxml refuses is a ValueError
        kind = "entry not readable" if _is_utf8(raw) else "text not readable"
        problems.add(kind, f"{file}: {'it is empty' if not raw.strip() else error}")
        return None
    if tree.tag != "annotation":
        problems.add("entry not readable", f"{file}: <{tree.tag}> instead of <annotation>")
        return None
    return tree


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _record(tree: ElementTree.Element, file: Path, root: Path, problems: Problems) -> Record | None:
    image = _image(tree, file, root)
    sides = [tree.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    stated = [int(side) for side in sides if side.isdecimal() and len(side) < 10 and int(side) > 0]
    image_wh = (stated[0], stated[1]) if len(stated) == 2 else find_size(root, image, problems)
    if image_wh is None:
        return None
    regions = []
    for place, entry in enumerate(tree.findall("object"), start=1):
        name = entry.findtext("name", "").strip()
        texts = [entry.findtext(f"bndbox/{edge}", "").strip() for edge in _EDGES]
        try:
            box = Box(*(float(Decimal(text) - first) for text, first in zip(texts, _FIRST, strict=True)))
        except InvalidOperation:
            problems.add("entry not readable", f"{file}, object {place}: bndbox {texts}")
            continue
        if name:
            regions.append(RegionNote(box=box, label=name))
        else:
            problems.add("entry not readable", f"{file}, object {place}: it has no name")
    return Record(image=image, image_wh=image_wh, regions=tuple(regions), whole=frozenset({"objects"}))


def _image(tree: ElementTree.Element, file: Path, root: Path) -> str:
    """Name the picture: by the annotation's own name, as the development kit does, else by what stands in it."""
    stated = tree.findtext("filename", "").strip().replace("\\", "/").rpartition("/")[2]
    suffix = PurePosixPath(stated).suffix
    names = [file.stem + ending for ending in (suffix, ".jpg", *sorted(IMAGE_SUFFIXES)) if ending]
    for name in [*names, stated]:
        found = find_image(root, name, _FOLDERS) if name else ""
        if found and (root / found).is_file():
            return found
    return f"JPEGImages/{names[0]}"


# ---- writing


def write_voc(records: Iterable[Record], folder: Path, split: str) -> Path:
    """Write one annotation file per record, and the list of the part.

    The pictures are not touched: they are to lie in JPEGImages/. Edges are written in VOC's pixels, with their digits
    behind the point where they have some. A crowd becomes an object marked difficult, which VOC neither asks for nor
    counts as wrong. Left out are regions without label, outlines, and all else VOC has no place for.

    returns   the path of the list, ImageSets/Main/<split>.txt.
    raises    BadRecord when a coordinate is not finite, or two pictures have the same name but for folder and ending.
    promise   read_voc gives labels and boxes back exactly; a region without box gets the box around its points.
    """
    names: dict[str, None] = {}
    for record in records:
        name = PurePosixPath(record.image).name
        if (stem := PurePosixPath(name).stem) in names:
            raise BadRecord(f"{record.image}: a second picture called {stem!r}; Pascal VOC has one folder for all")
        names[stem] = None
        write_text(folder / "Annotations" / f"{stem}.xml", voc_annotation(record, name))
    return write_lines(names, folder / "ImageSets" / "Main" / f"{split}.txt")


def voc_annotation(record: Record, name: str) -> str:
    """Give the text of the annotation file of one picture; see write_voc.

    name      of the picture's file.
    """
    tree = ElementTree.Element("annotation")
    _put(tree, "folder", "JPEGImages")
    _put(tree, "filename", name)
    size = _put(tree, "size")
    for field, side in zip(("width", "height", "depth"), (*record.image_wh, 3), strict=True):
        _put(size, field, str(side))
    _put(tree, "segmented", "0")
    for region in record.regions:
        box = region.bounds
        if not region.label or box is None:
            continue
        if not all(map(math.isfinite, box)):
            raise BadRecord(f"{record.image}: a coordinate of {region.label!r} is not finite; clean the records first")
        entry = _put(tree, "object")
        _put(entry, "name", region.label)
        _put(entry, "pose", "Unspecified")
        _put(entry, "truncated", "0")
        _put(entry, "difficult", str(int(region.crowd)))
        bounds = _put(entry, "bndbox")
        for edge, value, first in zip(_EDGES, box, _FIRST, strict=True):
            # In decimals: 0.1 + 1 - 1 is not 0.1 in binary ones.
            _put(bounds, edge, f"{(Decimal(repr(float(value))) + first).normalize():f}")
    ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding="unicode") + "\n"


def _put(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name)
    child.text = text
    return child
