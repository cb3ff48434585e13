"""The official files of benchmarks about places: COCO detection, Flickr30k Entities, RefCOCO, RefCOCO+, RefCOCOg."""

from pathlib import Path

from openflorence.contract.tasks import find_task
from openflorence.data.coco import read_coco_images
from openflorence.data.flickr import read_typed_flickr
from openflorence.data.problems import Problems
from openflorence.data.refer import read_refs
from openflorence.errors import BadRecord
from openflorence.evaluation.official import Places, Question, Sheet, Truth, find_file, folder_of, together


def read_instances(data: Path, split: str, problems: Problems) -> Sheet:
    """COCO detection: annotations/instances_val2017.json, images in val2017/. Images without objects are asked too.

    source    Lin et al. 2014; areas are those of the masks, as COCO's three sizes want them.
    """
    names = (f"annotations/instances_{split}.json", f"instances_{split}.json")
    path = find_file(data, names, f"annotations/instances_{split}.json beside the images in {split}/")
    places = Places(folder_of(data, path), (split, f"images/{split}", "images"))
    categories, images = read_coco_images(path, problems)
    task = find_task("detect")
    questions = []
    for image in images:
        record = image.record
        truth = Truth(regions=record.regions, entries=image.rows)
        key, place = str(image.entry["id"]), places.find(record.image)
        questions.append(Question(key, place, record.image, task, truth, image_wh=record.image_wh))
    return Sheet(together(questions, problems), {key: name for key, name in categories.items() if type(key) is int})


def read_entities(data: Path, split: str, problems: Problems) -> Sheet:
    """Flickr30k Entities: Annotations/*.xml, Sentences/*.txt, test.txt; images in flickr30k-images/.

    A question is a sentence with at least one phrase that has a box. Its id is that of the image with the number of the
    sentence among those: "1007129816#0".

    source    Plummer et al. 2015.
    """
    wanted = "a folder with Annotations/, Sentences/ and test.txt, val.txt"
    if not data.is_dir():
        raise BadRecord(f"{data} is no folder. Expected is {wanted} of Flickr30k Entities")
    nested = [data / name for name in ("flickr30k_entities", "Flickr30kEntities") if (data / name).is_dir()]
    folder = data if (data / "Sentences").is_dir() or not nested else nested[0]
    find_file(folder, (f"{split}.txt",), f"{wanted}, images in flickr30k-images/ there or beside it")
    task = find_task("ground")
    questions = []
    for record, types in read_typed_flickr(folder, problems, split):
        name = Path(record.image).name
        for number, note in enumerate(record.groundings):
            key, truth = f"{Path(name).stem}#{number}", Truth(phrases=note.phrases, types=tuple(types[number]))
            image = folder / record.image
            questions.append(Question(key, image, name, task, truth, note.text, image_wh=record.image_wh))
    return Sheet(together(questions, problems))


def read_expressions(data: Path, split: str, problems: Problems, name: str, by: str, task: str) -> Sheet:
    """RefCOCO, RefCOCO+, RefCOCOg: refs(unc).p beside instances.json, images in train2014/; a question an expression.

    name      of the folder: "refcoco", "refcoco+", "refcocog"; `data` is it, or holds it.
    by        who split it: "unc", "google", "umd".
    task      what is asked: "ground" or "find" for a box, "segment" for a mask.
    source    Yu et al. 2016, Mao et al. 2016; github.com/lichengunc/refer. The id is sent_id.
    """
    folder = data / name if (data / name).is_dir() else data
    refs = f"refs({by}).p"
    find_file(
        folder / "instances.json" if folder.is_file() else folder,
        ("instances.json",),
        f"{name}/ with {refs} and instances.json, images in train2014/ or images/mscoco/images/train2014/ beside it",
    )
    asked = find_task(task)
    questions = []
    for one in read_refs(folder, problems, split, by):
        if asked.name == "segment" and not one.region.polygons:
            problems.add("no annotation", f"{folder}, sentence {', '.join(one.keys)}: no outline to compare with")
            continue
        truth = Truth(regions=(one.region,))
        for key, text in zip(one.keys, one.region.expressions, strict=True):
            image = folder / one.image
            questions.append(Question(key, image, Path(one.image).name, asked, truth, text, image_wh=one.image_wh))
    return Sheet(together(questions, problems))
