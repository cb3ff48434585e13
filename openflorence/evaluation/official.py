"""The official files of benchmarks, as people have them on disk -> what to ask, and what is right. Captions, questions.

sheet = read_karpathy(Path("coco"), "test", problems)
sheet.questions[0].truth.texts                   # five captions

A reader takes the folder of the data, or its main file; a file that is missing is an error with the layout that was
looked for. Images need not be there: who only scores answers needs none. Truth is given as the file has it, uncleaned,
since that is what others were scored against.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openflorence.contract.records import PhraseNote, RegionNote
from openflorence.contract.shapes import Box
from openflorence.contract.tasks import Task, find_task
from openflorence.data.coco import read_coco_images
from openflorence.data.entries import find_image, read_json, take
from openflorence.data.problems import Problems
from openflorence.data.vqa import Asked, read_asked
from openflorence.errors import BadRecord

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Truth:
    """What is right. Which field is filled follows from the benchmark."""

    texts: tuple[str, ...] = ()  # captions, or what each person answered
    regions: tuple[RegionNote, ...] = ()  # every object; the one that is referred to
    entries: tuple[Row, ...] = ()  # of each region as COCO's file has it, where that says more: area, exact mask
    phrases: tuple[PhraseNote, ...] = ()
    types: tuple[tuple[str, ...], ...] = ()  # of each phrase: "people", "clothing"; it may have several


@dataclass(frozen=True)
class Question:
    """One question about one image."""

    key: str  # its id in the official files
    image: Path  # where the image lies, or would lie
    name: str  # of the image
    task: Task
    truth: Truth
    text: str | None = None  # what is asked with the task
    region: Box | None = None  # or the region that is asked about
    image_wh: tuple[int, int] | None = None  # where the files say it
    kinds: Mapping[str, str] = field(default_factory=dict)  # what tables tell it by: "domain" -> "near"


@dataclass(frozen=True)
class Sheet:
    """All questions of one part of a benchmark; those about one image stand together."""

    questions: tuple[Question, ...]
    categories: Mapping[int, str] = field(default_factory=dict)  # names by id, where answers may give ids


# ---- where files and images lie


def find_file(data: Path, names: Sequence[str], layout: str) -> Path:
    """Give the main file: `data` itself, or the first of these names below it.

    layout    what the folder should hold, for people.
    raises    BadRecord saying what was looked for.
    """
    if data.is_file():
        return data
    for name in names:
        if (data / name).is_file():
            return data / name
    seen = "is not there" if not data.exists() else f"has no {' nor '.join(names)}"
    raise BadRecord(f"{data} {seen}. Expected is {layout}; give that folder, or the file")


def folder_of(data: Path, file: Path) -> Path:
    """Give the folder that holds the images' folders: the data's own, or that of its main file."""
    if data.is_dir():
        return data
    return file.parent.parent if file.parent.name.lower() == "annotations" else file.parent


class Places:
    """Finds images in the folders they may lie in; each name is looked for once."""

    def __init__(self, root: Path, folders: Iterable[str | Path]) -> None:
        self.root, self.folders = root, [Path(), *map(Path, folders)]
        self.found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        """Give the file of an image; its likeliest place when there is none."""
        if name not in self.found:
            self.found[name] = self.root / find_image(self.root, name, self.folders)
        return self.found[name]


def together(questions: Iterable[Question], problems: Problems) -> tuple[Question, ...]:
    """Put the questions about one image side by side; of two with one id the first stays, and it is counted."""
    by_image: dict[Path, list[Question]] = {}
    seen: set[str] = set()
    for question in questions:
        if question.key in seen:
            problems.add("doubled entry", f"question {question.key!r}, {question.name}")
            continue
        seen.add(question.key)
        by_image.setdefault(question.image, []).append(question)
    return tuple(question for listed in by_image.values() for question in listed)


# ---- captions

CAPTION = find_task("caption")


def read_karpathy(data: Path, split: str, problems: Problems) -> Sheet:
    """COCO captions in the split of Karpathy: dataset_coco.json, images in val2014/ and train2014/.

    source    Karpathy and Fei-Fei 2015, caption_datasets.zip; `raw` sentences, as COCO's own captions file has them.
    """
    names = ("dataset_coco.json", "annotations/dataset_coco.json", "karpathy/dataset_coco.json")
    path = find_file(data, names, "dataset_coco.json of Karpathy's split beside val2014/ and train2014/")
    places = Places(folder_of(data, path), ("images", "coco", "coco/images"))
    questions = []
    for place, entry in enumerate(take(read_json(path), "images", list, str(path))):
        where = f"{path}, image {place}"
        try:
            if take(entry, "split", str, where) != split:
                continue
            folder, name = take(entry, "filepath", str, where), take(entry, "filename", str, where)
            sentences = take(entry, "sentences", list, where)
            captions = tuple(take(sentence, "raw", str, where) for sentence in sentences)
            key = str(take(entry, "cocoid", int, where))
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        if _is_captioned(captions, where, problems):
            image = places.find(f"{folder}/{name}")
            image = image if image.is_file() else places.find(name)  # all in one folder
            questions.append(Question(key, image, name, CAPTION, Truth(texts=captions)))
    return Sheet(together(questions, problems))


def read_nocaps(data: Path, split: str, problems: Problems) -> Sheet:
    """NoCaps: nocaps_val_4500_captions.json, images in val/ or images/; each image is of a domain.

    source    Agrawal et al. 2019; a COCO captions file whose images have a `domain`: in-, near- or out-domain.
    """
    names = ("nocaps_val_4500_captions.json", "annotations/nocaps_val_4500_captions.json")
    path = find_file(data, names, "nocaps_val_4500_captions.json beside the images in val/")
    places = Places(folder_of(data, path), ("val", "images", "images/val", "validation"))
    questions = []
    for image in read_coco_images(path, problems)[1]:
        record, domain = image.record, image.entry.get("domain")
        captions = tuple(note.text for note in record.texts)
        if _is_captioned(captions, f"{path}, image {record.image}", problems):
            questions.append(
                Question(
                    str(image.entry["id"]),
                    places.find(record.image),
                    record.image,
                    CAPTION,
                    Truth(texts=captions),
                    image_wh=record.image_wh,
                    kinds={"domain": domain.removesuffix("-domain")} if isinstance(domain, str) else {},
                )
            )
    return Sheet(together(questions, problems))


def read_textcaps(data: Path, split: str, problems: Problems) -> Sheet:
    """TextCaps: TextCaps_0.1_val.json, images in train_images/; an entry a caption, five of them an image.

    source    Sidorov et al. 2020, textvqa.org/textcaps; `caption_str` as its own evaluation takes it.
    """
    names = (f"TextCaps_0.1_{split}.json", f"annotations/TextCaps_0.1_{split}.json")
    path = find_file(data, names, f"TextCaps_0.1_{split}.json beside the images in train_images/")
    places = Places(folder_of(data, path), ("train_images", "train_val_images/train_images", "images", "val_images"))
    captions: dict[str, list[str]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for place, entry in enumerate(take(read_json(path), "data", list, str(path))):
        where = f"{path}, entry {place}"
        try:
            name, caption = take(entry, "image_id", str, where), take(entry, "caption_str", str, where)
            size = take(entry, "image_width", int, where), take(entry, "image_height", int, where)
        except BadRecord as error:
            problems.add("entry not readable", str(error))
            continue
        captions.setdefault(name, []).append(caption)
        sizes[name] = size
    questions = [
        Question(
            name, places.find(f"{name}.jpg"), f"{name}.jpg", CAPTION, Truth(texts=tuple(said)), image_wh=sizes[name]
        )
        for name, said in captions.items()
    ]
    return Sheet(together(questions, problems))


def _is_captioned(captions: Sequence[str], where: str, problems: Problems) -> bool:
    if not any(caption.strip() for caption in captions):
        problems.add("no annotation", f"{where}: no caption to compare with")
        return False
    return True


# ---- questions

ANSWER = find_task("answer")


def read_vqav2(data: Path, split: str, problems: Problems) -> Sheet:
    """VQAv2: v2_mscoco_val2014_annotations.json with its questions beside it, images in val2014/.

    source    Goyal et al. 2017, visualqa.org.
    """
    name = f"v2_mscoco_{split}2014_annotations.json"
    layout = f"{name} and v2_OpenEnded_mscoco_{split}2014_questions.json beside the images in {split}2014/"
    path = find_file(data, (name, f"annotations/{name}", f"Annotations/{name}"), layout)
    questions = None
    for folder in ("questions", "Questions"):  # where each zip was unpacked into a folder of its own
        beside = path.parent.parent / folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json"
        questions = beside if beside.is_file() else questions
    return _asked_of(data, path, problems, questions, (f"{split}2014", f"images/{split}2014"))


def read_textvqa(data: Path, split: str, problems: Problems) -> Sheet:
    """TextVQA: TextVQA_0.5.1_val.json, images in train_images/.

    source    Singh et al. 2019, textvqa.org.
    """
    names = (f"TextVQA_0.5.1_{split}.json", f"annotations/TextVQA_0.5.1_{split}.json")
    path = find_file(data, names, f"TextVQA_0.5.1_{split}.json beside the images in train_images/")
    return _asked_of(data, path, problems, None, ("train_val_images/train_images",))


def read_vizwiz(data: Path, split: str, problems: Problems) -> Sheet:
    """VizWiz: Annotations/val.json, images in val/.

    source    Gurari et al. 2018, vizwiz.org.
    """
    names = (f"Annotations/{split}.json", f"annotations/{split}.json", f"{split}.json")
    path = find_file(data, names, f"Annotations/{split}.json beside the images in {split}/")
    return _asked_of(data, path, problems, None, ())


def _asked_of(data: Path, path: Path, problems: Problems, questions: Path | None, more: Iterable[str]) -> Sheet:
    file = read_asked(path, problems, questions)
    places = Places(folder_of(data, path), [*file.folders, *more])
    asked = (_question(one, places, path, problems) for one in file.questions)
    return Sheet(together((question for question in asked if question is not None), problems))


def _question(asked: Asked, places: Places, path: Path, problems: Problems) -> Question | None:
    note = asked.note
    if not note.answers or not note.question.strip():
        problems.add("no annotation", f"{path}, question {asked.key}: {note.question!r}, {len(note.answers)} answers")
        return None
    return Question(
        asked.key,
        places.find(asked.image),
        asked.image,
        ANSWER,
        Truth(texts=note.answers),
        text=note.question,
        image_wh=asked.image_wh,
        kinds=asked.kinds,
    )
