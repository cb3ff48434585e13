"""Tiny files in the official layouts of benchmarks, with the answers that are right. Pictures are 500 x 400.

A benchmark's writer gives, by the id of each question, a text that says all that is right: locations are bins of the
picture, half a pixel wide, so boxes in whole pixels come back within a quarter of a pixel.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

WH = (500, 400)
Right = dict[str, str]


def draw(folder: Path, *names: str) -> None:
    """Put pictures of one colour into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        Image.new("RGB", WH, (20 * place, 100, 200)).save(folder / name)


def dump(path: Path, value: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def spell(*edges: float) -> str:
    """A box, or the points of a ring, in locations: 500 and 400 px are a thousand bins."""
    sides = (WH[place % 2] for place in range(len(edges)))
    return "".join(f"<loc_{min(int(edge * 1000 / side), 999)}>" for edge, side in zip(edges, sides, strict=True))


# ---- captions


def write_karpathy(folder: Path) -> Right:
    """Of five images of the test two are odd: one has two identical captions, one none at all."""

    def image(number: int, split: str, *captions: str) -> dict[str, Any]:
        sentences = [{"raw": text, "tokens": text.lower().split(), "imgid": 0, "sentid": 0} for text in captions]
        part = "train2014" if number == 5 else "val2014"
        name = f"COCO_{part}_{number:012}.jpg"
        about = {"filepath": part, "filename": name, "cocoid": number, "split": split, "imgid": 0, "sentids": []}
        return about | {"sentences": sentences}

    images = [
        image(1, "test", "A man rides a horse.", "Man on a brown horse."),
        image(2, "test", "A bowl of soup.", "A bowl of soup."),
        image(3, "test", "Ein Café in Zürich – 駅前。", "A café at the station."),
        image(4, "test"),
        image(5, "test", "Two dogs play with a red ball in the park."),
        image(6, "val", "A cat."),
    ]
    dump(folder / "dataset_coco.json", {"dataset": "coco", "images": images})
    draw(folder / "val2014", *(f"COCO_val2014_{number:012}.jpg" for number in (1, 2, 3, 4, 6)))
    draw(folder / "train2014", "COCO_train2014_000000000005.jpg")
    return {str(one["cocoid"]): one["sentences"][0]["raw"] for one in images[:5] if one["sentences"]}


def write_nocaps(folder: Path) -> Right:
    """Two images of each domain, and an image nobody wrote about."""
    domains = ("in-domain", "near-domain", "out-domain", "in-domain", "near-domain", "out-domain", "in-domain")
    images = [
        {"id": place, "file_name": f"{place:016x}.jpg", "width": 500, "height": 400, "domain": domain}
        for place, domain in enumerate(domains)
    ]
    texts = ("a red bus", "two seals on ice", "an abacus", "a dog runs", "a snail", "a harp and a lute")
    annotations = [
        {"image_id": place, "id": 2 * place + again, "caption": text + " here" * again}
        for place, text in enumerate(texts)
        for again in (0, 1)
    ]
    dump(folder / "nocaps_val_4500_captions.json", {"images": images, "annotations": annotations})
    draw(folder / "val", *(one["file_name"] for one in images))
    return {str(place): text for place, text in enumerate(texts)}


def write_textcaps(folder: Path) -> Right:
    """Two images, three captions and two, an entry a caption."""
    said = {"0054c91397f2fe05": ["A sign says STOP.", "Stop sign.", "STOP"], "00ab": ["A can of soda.", "Soda can."]}
    data = [
        {"image_id": name, "caption_id": place, "caption_str": text, "reference_strs": texts, "image_name": name}
        | {"image_width": 500, "image_height": 400, "image_path": f"train/{name}.jpg", "set_name": "val"}
        for name, texts in said.items()
        for place, text in enumerate(texts)
    ]
    dump(folder / "TextCaps_0.1_val.json", {"dataset_type": "val", "dataset_name": "textcaps", "data": data})
    draw(folder / "train_images", *(f"{name}.jpg" for name in said))
    return {name: texts[0] for name, texts in said.items()}


# ---- detection

CATEGORIES = {1: "person", 18: "dog", 21: "traffic light"}


def write_instances(folder: Path) -> Right:
    """An image without annotations, a crowd, a small object, a category that the answers below never name."""

    def one(number: int, image: int, category: int, x: float, y: float, side: float, crowd: int = 0) -> dict[str, Any]:
        ring = [x, y, x + side, y, x + side, y + side, x, y + side]
        mask: Any = {"size": [400, 500], "counts": [0, 400 * 500]} if crowd else [ring]
        about = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "segmentation": mask}
        return about | {"bbox": [x, y, side, side], "area": side * side}

    annotations = [
        one(11, 139, 18, 10, 20, 100),
        one(12, 139, 18, 200, 20, 120),
        one(13, 139, 1, 300, 200, 20),
        one(14, 285, 21, 50, 60, 200),
        one(15, 285, 1, 0, 0, 400, crowd=1),
    ]
    images = [
        {"id": number, "file_name": f"{number:012}.jpg", "width": 500, "height": 400} for number in (632, 139, 285)
    ]
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in CATEGORIES.items()]
    sheet = {"images": images, "annotations": annotations, "categories": categories}
    dump(folder / "annotations" / "instances_val2017.json", sheet)
    draw(folder / "val2017", *(one["file_name"] for one in images))
    dogs = spell(10, 20, 110, 120) + spell(200, 20, 320, 140)
    return {
        "139": f"dog{dogs}person{spell(300, 200, 320, 220)}",
        "285": f"traffic light{spell(50, 60, 250, 260)}person{spell(100, 100, 140, 140)}",  # the person in the crowd
        "632": "",
    }


# ---- phrases and expressions


def write_entities(folder: Path) -> Right:
    """Two images; a sentence with a phrase of two boxes, one with the same phrase twice, one without a boxed phrase."""
    sentences = (
        "[/EN#1/people Two men] near [/EN#2/vehicles a car] .\n"
        "[/EN#3/people A man] looks at [/EN#4/people a man] .\n"
        "[/EN#8/scene The yard] is green .\n"
    )
    boxes = {"1": [(11, 21, 110, 120), (201, 21, 320, 140)], "2": [(301, 201, 400, 300)]}
    boxes |= {"3": [(11, 21, 110, 120)], "4": [(201, 21, 320, 140)]}
    for name, said in (("36979", sentences), ("65567", "[/EN#2/other Ein Fuß] .\n")):
        lines = [f"<annotation><filename>{name}.jpg</filename>"]
        lines += [f"<size><width>{WH[0]}</width><height>{WH[1]}</height><depth>3</depth></size>"]
        for chain, places in boxes.items():
            for box in places:
                edges = "".join(f"<{e}>{v}</{e}>" for e, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
                lines.append(f"<object><name>{chain}</name><bndbox>{edges}</bndbox></object>")
        for part, text in (("Sentences", said), ("Annotations", "".join([*lines, "</annotation>"]))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            end = "txt" if part == "Sentences" else "xml"
            (folder / part / f"{name}.{end}").write_text(text, "utf-8")
    (folder / "test.txt").write_text("36979\n65567\n")
    draw(folder / "flickr30k-images", "36979.jpg", "65567.jpg")
    # By hand: pixels 11..110 of 1..500 are from 10 to 110.
    first, second, car = spell(10, 20, 110, 120), spell(200, 20, 320, 140), spell(300, 200, 400, 300)
    return {
        "36979#0": f"Two men{first}{second}a car{car}",
        "36979#1": f"A man{first}a man{second}",
        "65567#0": f"Ein Fuß{car}",
    }


REFERRED = {31: (10, 20, 110, 120), 32: (200, 20, 320, 140), 33: (300, 200, 400, 300)}


def write_expressions(
    folder: Path, by: str = "unc", splits: Iterable[str] = ("val", "testA"), mask: bool = False
) -> Right:
    """Two refs in the first split, one of two sentences; one ref in the second. Gives the answers of the first."""

    def ref(number: int, annotation: int, split: str, *said: str) -> dict[str, Any]:
        sentences = [
            {"tokens": text.split(), "raw": text, "sent_id": 10 * number + place, "sent": text}
            for place, text in enumerate(said)
        ]
        about = {"ref_id": number, "ann_id": annotation, "image_id": 7, "category_id": 1, "split": split}
        return about | {"sentences": sentences, "sent_ids": [one["sent_id"] for one in sentences]}

    first, second = splits
    refs = [ref(1, 31, first, "left man", "the man in red"), ref(2, 32, first, "der Mann rechts, größer")]
    refs += [ref(3, 33, second, "car")]
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        | {"segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]], "area": (x1 - x0) * (y1 - y0)}
        for number, (x0, y0, x1, y1) in REFERRED.items()
    ]
    images = [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 500, "height": 400}]
    sheet = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    dump(folder / "instances.json", sheet)
    pickled(refs, folder / f"refs({by}).p")
    draw(folder.parent / "train2014", "COCO_train2014_000000000007.jpg")
    said = {"10": ("left man", 31), "11": ("the man in red", 31), "20": ("der Mann rechts, größer", 32)}
    if mask:
        return {key: _ring(*REFERRED[number]) for key, (_, number) in said.items()}
    return {key: text + spell(*REFERRED[number]) for key, (text, number) in said.items()}


def _ring(x0: float, y0: float, x1: float, y1: float) -> str:
    return spell(x0, y0, x1, y0, x1, y1, x0, y1)


def pickled(value: Any, path: Path) -> None:
    """Write a pickle, as the refs are; in another process, since nothing here may import it."""
    code = "import json, pickle, sys; pickle.dump(json.load(sys.stdin), open(sys.argv[1], 'wb'), protocol=0)"
    subprocess.run([sys.executable, "-c", code, str(path)], input=json.dumps(value).encode(), check=True)


# ---- questions


def write_vqav2(folder: Path) -> Right:
    """Two images; a question asked twice under two ids, an id that stands twice, and a question nobody answered."""

    def name(kind: str) -> Path:
        return folder / f"v2_{kind}.json"

    questions = [
        {"image_id": 42, "question": "Is it day?", "question_id": 42000},
        {"image_id": 42, "question": "Is it day?", "question_id": 42001},
        {"image_id": 42, "question": "Is it night?", "question_id": 42001},
        {"image_id": 73, "question": "Wie heißt das?", "question_id": 73000},
        {"image_id": 73, "question": "Why?", "question_id": 73001},
    ]
    people = {42000: ["yes"] * 10, 42001: ["yes"] * 6 + ["no"] * 4, 73000: ["Café"] * 3 + ["a cafe"] * 7}
    kinds = {42000: ("yes/no", "is it"), 42001: ("yes/no", "is it"), 73000: ("other", "wie")}
    annotations = [
        {"question_id": number, "image_id": number // 1000, "multiple_choice_answer": given[0]}
        | {"answer_type": kinds[number][0], "question_type": kinds[number][1]}
        | {
            "answers": [
                {"answer": said, "answer_id": place, "answer_confidence": "yes"} for place, said in enumerate(given)
            ]
        }
        for number, given in people.items()
    ]
    about = {"data_type": "mscoco", "data_subtype": "val2014"}
    dump(name("OpenEnded_mscoco_val2014_questions"), about | {"task_type": "Open-Ended", "questions": questions})
    dump(name("mscoco_val2014_annotations"), about | {"annotations": annotations})
    draw(folder / "val2014", "COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg")
    return {"42000": "yes", "42001": "yes", "73000": "a cafe"}


def write_textvqa(folder: Path) -> Right:
    """Two questions about one image."""
    data = [
        {"question_id": number, "question": question, "image_id": "0054c9", "image_width": 500, "image_height": 400}
        | {"answers": [answer] * 10, "set_name": "val"}
        for number, question, answer in ((34602, "what is the brand?", "nokia"), (34603, "what year?", "1997"))
    ]
    dump(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "dataset_name": "textvqa", "data": data})
    draw(folder / "train_images", "0054c9.jpg")
    return {"34602": "nokia", "34603": "1997"}


def write_vizwiz(folder: Path) -> Right:
    """Two images, one question each."""
    said = {"VizWiz_val_00000000.jpg": "unanswerable", "VizWiz_val_00000001.jpg": "green tea"}
    entries = [
        {"image": name, "question": "What is this?", "answer_type": "other", "answerable": 1}
        | {"answers": [{"answer": answer, "answer_confidence": "yes"}] * 10}
        for name, answer in said.items()
    ]
    dump(folder / "Annotations" / "val.json", entries)
    draw(folder / "val", *said)
    return said


Writer = Callable[[Path], Right]
LAYOUTS: dict[str, Writer] = {
    "coco-caption": write_karpathy,
    "nocaps": write_nocaps,
    "textcaps": write_textcaps,
    "coco-detect": write_instances,
    "flickr30k": write_entities,
    "refcoco": write_expressions,
    "refcoco-segment": lambda folder: write_expressions(folder, mask=True),
    "refcoco+": write_expressions,
    "refcoco+-segment": lambda folder: write_expressions(folder, mask=True),
    "refcocog": lambda folder: write_expressions(folder, "umd", ("val", "test")),
    "refcocog-segment": lambda folder: write_expressions(folder, "umd", ("val", "test"), mask=True),
    "refcoco-google": lambda folder: write_expressions(folder, "google", ("val", "test")),
    "refcoco-google-segment": lambda folder: write_expressions(folder, "google", ("val", "test"), mask=True),
    "refcocog-google": lambda folder: write_expressions(folder, "google", ("val", "train")),
    "refcocog-google-segment": lambda folder: write_expressions(folder, "google", ("val", "train"), mask=True),
    "vqav2": write_vqav2,
    "textvqa": write_textvqa,
    "vizwiz": write_vizwiz,
}
