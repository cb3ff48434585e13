"""Questions about images and what people answered: VQAv2, OK-VQA, TextVQA and VizWiz.

The keys of a file tell its layout. VQAv2 and OK-VQA have a file of questions and one of annotations, and number images
as COCO does; TextVQA has one file with sizes; VizWiz has one list by file names, which holds any image.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openflorence.contract.records import QuestionNote, Record
from openflorence.data.entries import find_image, find_size, read_json, take, write_json
from openflorence.data.problems import Problems
from openflorence.errors import BadConfig, BadRecord

Layout = Literal["vizwiz", "textvqa", "vqav2"]
_COCO_NAME = re.compile(r"COCO_(\w+)_(\d{12})\.jpg")
_IMAGES = ("images", "train_images", "test_images", "train", "val", "test")


@dataclass(frozen=True)
class Asked:
    """One question about one image."""

    key: str  # its id; the name of its image in VizWiz, which asks once about each
    image: str  # name of the file
    note: QuestionNote
    image_wh: tuple[int, int] | None = None  # where the file says it
    kinds: Mapping[str, str] = field(default_factory=dict)  # "answer type", "question type", where the file says them


_Given = tuple[tuple[str, ...], Mapping[str, str]]  # answers, kinds


@dataclass(frozen=True)
class AskedFile:
    """A file of questions, opened. They can be gone through once."""

    questions: Iterator[Asked]
    folders: list[Path]  # of the images, from the folder of the file


def read_vqa(
    path: Path, problems: Problems, questions: Path | None = None, images: Path | None = None
) -> Iterator[Record]:
    """Give a record for every image that something is asked about, with all its questions and all their answers.

    path       VQAv2, OK-VQA: the annotations, or the questions alone where there are no annotations, as of a test.
               TextVQA, VizWiz: the one file.
    questions  for annotations: the questions, where they do not lie beside them under their published name.
    images     folder of the images; without it they lie beside the file, or there in images/, in train_images/ or
               test_images/ (TextVQA), in train/, val/ or test/ (VizWiz), or in the folder of the data subtype (COCO).
    returns    every answer as often as it was given; none where the file has none.
    raises     BadRecord when a file is missing or unreadable or its layout is none of these.
    source     visualqa.org, vqaapi's vqa.py (COCO_train2014_000000000009.jpg); textvqa.org; vizwiz.org.
    """
    notes: dict[str, list[QuestionNote]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    asked = read_asked(path, problems, questions, images)
    for item in asked.questions:
        notes.setdefault(item.image, []).append(item.note)
        if item.image_wh is not None:
            sizes[item.image] = item.image_wh
    for name, listed in notes.items():
        image = find_image(path.parent, name, asked.folders)
        size = sizes.get(name) or find_size(path.parent, image, problems)
        if size is not None:
            yield Record(image=image, image_wh=size, questions=tuple(listed))


def read_asked(path: Path, problems: Problems, questions: Path | None = None, images: Path | None = None) -> AskedFile:
    """Give every question by itself with its id, as the results of challenges name it; else as read_vqa.

    returns    questions in the order of the file, and where their images may lie.
    raises     as read_vqa.
    """
    value = read_json(path)
    folders = [Path(), *map(Path, _IMAGES)] if images is None else [images.resolve()]
    if isinstance(value, list):
        return AskedFile(_from_vizwiz(value, path, problems), folders)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        return AskedFile(_from_textvqa(value["data"], path, problems), folders)
    if isinstance(value, dict) and ("annotations" in value or "questions" in value):
        # The images of test-dev2015 are those of test2015.
        subtype = take(value, "data_subtype", str, str(path)).replace("test-dev", "test")
        folders += [] if images is not None else [Path(subtype), Path("images", subtype)]
        posed = value if "questions" in value else read_json(questions or _find_questions(path))
        answers = _answers(value, path, problems) if "annotations" in value else None
        return AskedFile(_from_vqav2(posed, answers, subtype, path, problems), folders)
    raise BadRecord(f"{path} is neither of VQAv2 (questions or annotations), TextVQA (data) nor VizWiz (a list)")


def write_vqa(records: Iterable[Record], folder: Path, layout: Layout = "vizwiz", split: str = "train") -> Path:
    """Write the questions of records.

    layout    "vizwiz" holds every file name and is train.json; "textvqa" holds .jpg files and is
              TextVQA_0.5.1_train.json; "vqav2" holds COCO's names alone and is two files.
    split     in the file names; for "vqav2" the data subtype is that of the images.
    returns   the path to give to read_vqa.
    raises    BadRecord when the layout cannot hold the name of an image; BadConfig for another layout.
    promise   read_vqa gives the questions and answers back, images of one name as one record.
    """
    if layout not in _WRITERS:
        raise BadConfig(f"layout {layout!r} of questions is not known; allowed: {', '.join(_WRITERS)}")
    return _WRITERS[layout](records, folder, split)


def _from_vizwiz(entries: list[Any], path: Path, problems: Problems) -> Iterator[Asked]:
    for place, entry in enumerate(entries):
        where = f"{path}, entry {place}"
        try:
            image, question = take(entry, "image", str, where), take(entry, "question", str, where)
            if not image:
                raise BadRecord(f"{where}: 'image' is empty")
            answers = _given(entry["answers"], where) if "answers" in entry else ()
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        yield Asked(image, image, QuestionNote(question=question, answers=answers), kinds=_kinds(entry))


def _from_textvqa(entries: list[Any], path: Path, problems: Problems) -> Iterator[Asked]:
    seen: set[int] = set()
    for place, entry in enumerate(entries):
        where = f"{path}, entry {place}"
        try:
            number = take(entry, "question_id", int, where)
            where = f"{path}, question {number}"
            image, question = take(entry, "image_id", str, where), take(entry, "question", str, where)
            size = take(entry, "image_width", int, where), take(entry, "image_height", int, where)
            answers = take(entry, "answers", list, where) if "answers" in entry else []
            if not image or min(size) < 1 or not all(isinstance(answer, str) for answer in answers):
                raise BadRecord(f"{where}: image {image!r} of {size[0]} x {size[1]}, answers {answers!r:.60}")
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        if _is_new(number, seen, where, problems):
            note = QuestionNote(question=question, answers=tuple(answers))
            yield Asked(str(number), f"{image}.jpg", note, size)


def _from_vqav2(
    posed: Any, answers: Mapping[int, _Given] | None, subtype: str, path: Path, problems: Problems
) -> Iterator[Asked]:
    seen: set[int] = set()
    for place, entry in enumerate(take(posed, "questions", list, f"the questions of {path}")):
        where = f"the questions of {path}, entry {place}"
        try:
            number, image = take(entry, "question_id", int, where), take(entry, "image_id", int, where)
            question = take(entry, "question", str, where)
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        if _is_new(number, seen, f"the questions of {path}, question {number}", problems):
            given, kinds = (answers or {}).get(number, ((), {}))
            note = QuestionNote(question=question, answers=given)
            yield Asked(str(number), f"COCO_{subtype}_{image:012}.jpg", note, kinds=kinds)
    for number in sorted(set(answers or ()) - seen):
        problems.add("entry not readable", f"{path}, annotation of question {number}, which nobody asks")


def _answers(value: Any, path: Path, problems: Problems) -> dict[int, _Given]:
    found: dict[int, _Given] = {}
    seen: set[int] = set()
    for place, entry in enumerate(take(value, "annotations", list, str(path))):
        where = f"{path}, annotation {place}"
        try:
            number = take(entry, "question_id", int, where)
            answers = _given(take(entry, "answers", list, where), where)
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        if _is_new(number, seen, f"{path}, annotation of question {number}", problems):
            found[number] = answers, _kinds(entry)
    return found


def _kinds(entry: Any) -> dict[str, str]:
    """What an annotation says about its question besides the answers: "yes/no", "how many"."""
    named = {"answer type": entry.get("answer_type"), "question type": entry.get("question_type")}
    return {name: kind for name, kind in named.items() if isinstance(kind, str)}


def _given(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadRecord(f"{where}: answers are {value!r:.60}; a list is needed")
    return tuple(take(answer, "answer", str, where) for answer in value)


def _is_new(number: int, seen: set[int], where: str, problems: Problems) -> bool:
    if number in seen:
        problems.add("doubled entry", where)
        return False
    seen.add(number)
    return True


def _find_questions(path: Path) -> Path:
    """The published names: v2_mscoco_train2014_annotations.json and v2_OpenEnded_mscoco_train2014_questions.json."""
    name = path.name.replace("mscoco_", "OpenEnded_mscoco_").replace("annotations", "questions")
    if name == path.name or not (path.parent / name).is_file():
        raise BadRecord(
            f"{path} holds annotations, and {name} with the questions is not beside it: name it, questions="
        )
    return path.parent / name


def _write_vizwiz(records: Iterable[Record], folder: Path, split: str) -> Path:
    rows = []
    for record in records:
        for note in record.questions:
            answers = [{"answer": answer} for answer in note.answers]
            rows.append({"image": record.image, "question": note.question} | ({"answers": answers} if answers else {}))
    return write_json(rows, folder / f"{split}.json")


def _write_textvqa(records: Iterable[Record], folder: Path, split: str) -> Path:
    rows: list[dict[str, Any]] = []
    for record in records:
        if not record.image.endswith(".jpg"):
            raise BadRecord(f"TextVQA's layout holds .jpg files, not {record.image!r}: use the layout 'vizwiz'")
        width, height = record.image_wh
        for note in record.questions:
            row: dict[str, Any] = {"question_id": len(rows), "question": note.question, "set_name": split}
            row |= {"image_id": record.image.removesuffix(".jpg"), "image_width": width, "image_height": height}
            rows.append(row | ({"answers": list(note.answers)} if note.answers else {}))
    value = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": rows}
    return write_json(value, folder / f"TextVQA_0.5.1_{split}.json")


def _write_vqav2(records: Iterable[Record], folder: Path, split: str) -> Path:
    """The subtype is that of the first image; COCO's names say it, so `split` has no place here."""
    asked: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    subtype = f"{split}2014"
    for record in records:
        named = _COCO_NAME.fullmatch(Path(record.image).name)
        subtype = subtype if asked or named is None else named[1]
        if named is None or named[1] != subtype:
            raise BadRecord(
                f"VQAv2's layout holds images named COCO_{subtype}_000000000009.jpg, not {record.image!r}: "
                "use the layout 'vizwiz'"
            )
        for note in record.questions:
            numbers = {"image_id": int(named[2]), "question_id": len(asked)}
            asked.append(numbers | {"question": note.question})
            answers = [{"answer_id": place, "answer": answer} for place, answer in enumerate(note.answers, start=1)]
            said.append(numbers | {"answers": answers})
    about = {"data_type": "mscoco", "data_subtype": subtype}
    task = {"task_type": "Open-Ended", "questions": asked}
    write_json(about | task, folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json")
    return write_json(about | {"annotations": said}, folder / f"v2_mscoco_{subtype}_annotations.json")


_WRITERS = {"vizwiz": _write_vizwiz, "textvqa": _write_textvqa, "vqav2": _write_vqav2}
