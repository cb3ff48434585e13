"""Flickr30k Entities: five sentences for each image, their phrases tied to boxes.

`Sentences/ID.txt` holds a sentence a line, `[/EN#283585/people A man] wearing [/EN#283587/clothing an orange hat] .`;
`Annotations/ID.xml` holds the size and the boxes, each under the numbers of the chains of phrases that name it;
`train.txt`, `val.txt` and `test.txt` list the IDs.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from openflorence.contract.records import GroundingNote, PhraseNote, Record, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.entries import find_image, pixels, read_lines
from openflorence.data.problems import Problems, read_text, write_text
from openflorence.errors import BadRecord

Boxes = dict[str, list[Box]]  # number of a chain -> its boxes
_OPEN = "[/EN#"
_PHRASE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+) ([^\]]*)\]")
Types = tuple[str, ...]  # of a phrase: "people", or "clothing" and "bodyparts"
_IMAGES = "flickr30k-images", "flickr30k_images", "images", "../flickr30k-images", "../flickr30k_images", "../images"


def read_flickr(
    folder: Path, problems: Problems, split: str | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give a record for every image of Flickr30k Entities.

    folder    with Sentences/ and Annotations/; everything in Sentences/ is read, or what split.txt lists.
    split     "train", "val", "test": the name of the list.
    images    folder of the images; without it they lie in flickr30k-images/ or images/, here or beside the folder.
    returns   a GroundingNote for each sentence, with the phrases that have boxes and all boxes of each; its text is a
              caption too and is not given twice. A sentence without any boxed phrase is a TextNote. Phrases of the
              scene, of what is not in the picture (chain 0) and without a box have no PhraseNote.
    raises    BadRecord when a folder or the list is missing.
    source    github.com/BryanPlummer/flickr30k_entities: its README and flickr30k_entities_utils.py. Boxes count
              pixels from 1 and include the last one, as Pascal VOC's: 1..W is the whole width, here 0..W.
    """
    return (record for record, _ in read_typed_flickr(folder, problems, split, images))


def read_typed_flickr(
    folder: Path, problems: Problems, split: str | None = None, images: Path | None = None
) -> Iterator[tuple[Record, list[list[Types]]]]:
    """Give the records of `read_flickr`, each with the types of the phrases of every grounding, in their order.

    raises    as read_flickr, when the first one is asked for.
    """
    for name in ("Sentences", "Annotations"):
        if not (folder / name).is_dir():
            raise BadRecord(f"{folder} has no {name}/: give the unpacked folder of Flickr30k Entities")
    folders = [Path(), *map(Path, _IMAGES)] if images is None else [images.resolve()]
    for name in _names(folder, split, problems):
        sentences = read_text(folder / "Sentences" / f"{name}.txt", problems)
        found = _read_annotation(folder / "Annotations" / f"{name}.xml", problems)
        if sentences is None or found is None:
            continue
        file, image_wh, boxes = found
        texts: list[TextNote] = []
        groundings: list[GroundingNote] = []
        types: list[list[Types]] = []
        for number, line in enumerate(sentences.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                said, kinds = _sentence(line, boxes)
            except BadRecord as error:
                problems.add("entry not readable", f"{folder / 'Sentences' / name}.txt:{number}: {error}")
                continue
            if said.phrases:
                groundings.append(said)
                types.append(kinds)
            else:
                texts.append(TextNote(text=said.text))
        image = find_image(folder, file, folders)
        yield Record(image=image, image_wh=image_wh, texts=tuple(texts), groundings=tuple(groundings)), types


def write_flickr(records: Iterable[Record], folder: Path) -> Path:
    """Write Sentences/ and Annotations/ for records; the ID of each is the name of its image without its ending.

    returns   the folder.
    raises    BadRecord when two images have one name.
    promise   read_flickr gives texts and groundings back with boxes in whole pixels, texts with single spaces. What
              its markup cannot hold is left out: phrases that overlap an earlier one, that the text does not hold or
              that hold "]"; texts that spell the markup. Every phrase is of the type "other".
    """
    seen: set[str] = set()
    for record in records:
        name = Path(record.image).stem
        if name in seen:
            raise BadRecord(f"two images are called {name!r}: Flickr30k's layout has one name for each; rename one")
        seen.add(name)
        chains: dict[tuple[Box, ...], str] = {}
        lines = []
        notes: tuple[GroundingNote | TextNote, ...] = (*record.groundings, *record.texts)
        for note in notes:
            if _OPEN not in note.text:
                phrases = note.phrases if isinstance(note, GroundingNote) else ()
                lines.append(" ".join(_mark_up(note.text, phrases, chains).split()))
        write_text(folder / "Sentences" / f"{name}.txt", "".join(f"{line}\n" for line in lines if line))
        write_text(folder / "Annotations" / f"{name}.xml", _annotation(record, chains))
    return folder


def _names(folder: Path, split: str | None, problems: Problems) -> list[str]:
    if split is None:
        return sorted(path.stem for path in (folder / "Sentences").glob("*.txt"))
    return list(dict.fromkeys(line.strip() for _, line in read_lines(folder / f"{split}.txt", problems)))


def _read_annotation(path: Path, problems: Problems) -> tuple[str, tuple[int, int], Boxes] | None:
    """Give the file name of the image, its size, and the boxes of every chain; None, counted, when that fails."""
    try:
        root = ET.parse(path).getroot()
        size = root.find("size")
        width, height = _whole(size, "width"), _whole(size, "height")
    except OSError as error:
        problems.add("file not readable", f"{path}: {error.strerror or error}")
        return None
    except (ET.ParseError, LookupError, ValueError, BadRecord) as error:  # LookupError: an unknown encoding
        problems.add("file not readable", f"{path}: {error}")
        return None
    if width < 1 or height < 1:
        problems.add("file not readable", f"{path}: size {width} x {height}")
        return None
    boxes: Boxes = {}
    for place, item in enumerate(root.iter("object")):
        found = item.find("bndbox")
        if found is None:  # of the whole scene, or of nothing that can be seen
            continue
        try:
            x0, y0, x1, y1 = (_whole(found, name) for name in ("xmin", "ymin", "xmax", "ymax"))
        except BadRecord as error:
            problems.add("entry not readable", f"{path}, object {place}: {error}")
            continue
        for name in item.iter("name"):
            boxes.setdefault((name.text or "").strip(), []).append(Box(x0 - 1, y0 - 1, x1, y1))
    return (root.findtext("filename") or "").strip() or f"{path.stem}.jpg", (width, height), boxes


def _whole(element: ET.Element | None, name: str) -> int:
    text = None if element is None else element.findtext(name)
    try:
        return int(text or "")
    except ValueError:
        raise BadRecord(f"{name} is {text!r}; a whole number is needed") from None


def _sentence(line: str, boxes: Boxes) -> tuple[GroundingNote, list[Types]]:
    """Take the markup out of a sentence; gives also the types of its phrases."""
    line = " ".join(line.split())
    pieces: list[str] = []
    phrases: list[PhraseNote] = []
    types: list[Types] = []
    length = end = 0
    for found in _PHRASE.finditer(line):
        before, phrase = line[end : found.start()], found[3].strip()
        length += len(before)
        pieces += [before, phrase]
        placed = tuple(boxes.get(found[1], ()))
        if placed and phrase:
            phrases.append(PhraseNote(phrase=phrase, boxes=placed, span=(length, length + len(phrase))))
            types.append(tuple(found[2].strip("/").split("/")))
        length += len(phrase)
        end = found.end()
    text = "".join([*pieces, line[end:]])
    if _OPEN in text:
        raise BadRecord(f"the markup of a phrase is not whole: {text[text.index(_OPEN) :][:60]!r}")
    return GroundingNote(text=text, phrases=tuple(phrases)), types


def _mark_up(text: str, phrases: Iterable[PhraseNote], chains: dict[tuple[Box, ...], str]) -> str:
    """Put the markup in; phrases with the same boxes are one chain."""
    placed: list[tuple[int, int, str]] = []
    for note in phrases:
        start, end = note.span or (text.find(note.phrase), text.find(note.phrase) + len(note.phrase))
        clear = all(end <= other[0] or start >= other[1] for other in placed)
        phrase = text[start:end] if start >= 0 else ""
        if note.boxes and clear and phrase == phrase.strip() and phrase and "]" not in phrase:
            placed.append((start, end, chains.setdefault(note.boxes, str(len(chains) + 1))))
    for start, end, chain in sorted(placed, reverse=True):
        text = f"{text[:start]}{_OPEN}{chain}/other {text[start:end]}]{text[end:]}"
    return text


def _annotation(record: Record, chains: dict[tuple[Box, ...], str]) -> str:
    width, height = record.image_wh
    lines = ["<annotation>", f"\t<filename>{escape(record.image)}</filename>"]
    lines += [f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
    for boxes, chain in chains.items():
        for box in boxes:
            x0, y0, x1, y1 = map(pixels, box)
            lines += ["\t<object>", f"\t\t<name>{chain}</name>"]
            lines += [
                f"\t\t<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            ]
            lines += ["\t</object>"]
    return "\n".join([*lines, "</annotation>", ""])
