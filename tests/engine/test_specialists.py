"""The reader of text, people and a function of one's own: what they note, and how they fail."""

import json
import math
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from rows import broken_row, row_of

from openflorence.contract.lines import direction
from openflorence.contract.records import Origin, Record, RegionNote, TextNote, record_to_row
from openflorence.contract.shapes import Box
from openflorence.data.notes import Notes
from openflorence.engine.specialists import OwnFunction, People, TextReader
from openflorence.engine.stages import Context
from openflorence.errors import BadConfig, BadImage, BadRecord

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"


# ---- reading text


def page(*lines: tuple[str, int, int], image_wh=(480, 200)) -> Image.Image:
    picture = Image.new("RGB", image_wh, "white")
    drawing, font = ImageDraw.Draw(picture), ImageFont.load_default(40)
    for text, x, y in lines:
        drawing.text((x, y), text, fill="black", font=font)
    return picture


def extent(text: str, x: int, y: int) -> Box:
    """Where Pillow draws a text."""
    return Box(*ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox((x, y), text, font=ImageFont.load_default(40)))


@pytest.fixture(scope="module")
def reader() -> TextReader:
    pytest.importorskip("rapidocr")
    stage = TextReader(round=3)
    stage.setup(Context())
    return stage


def test_printed_words_are_read_with_place_and_score_in_reading_order(reader):
    # The lower right word is drawn a little above the lower left one: it is still read after it.
    drawn = [("HELLO WORLD", 30, 30), ("EXIT", 30, 112), ("42 km", 250, 108)]
    (notes,) = reader.process([row_of(page(*reversed(drawn)))])
    assert [note.word for note in notes.regions] == [text for text, _, _ in drawn]
    for note, (text, x, y) in zip(notes.regions, drawn, strict=True):
        # The reader draws its boxes a few pixels around the letters.
        assert note.bounds == pytest.approx(extent(text, x, y), abs=12)
        assert 0.9 < note.score <= 1
        assert note.quad[0].x < note.quad[1].x
        assert note.quad[0].y < note.quad[3].y
        assert note.origin == Origin(source="rapidocr", model="PP-OCRv6_rec_small", version=reader.revision, round=3)
    assert notes.whole == {"words"}


def test_a_line_from_top_to_bottom_has_a_quad_in_its_own_frame(reader):
    upright = page(("STATION", 20, 10), image_wh=(260, 70))
    (notes,) = reader.process([row_of(upright.transpose(Image.Transpose.ROTATE_270))])  # a quarter turn clockwise
    (note,) = notes.regions
    assert note.word == "STATION"
    along = direction(note.quad)
    assert math.degrees(math.atan2(along.y, along.x)) == pytest.approx(90, abs=5)  # y grows downwards


def test_a_blank_page_has_no_words_and_says_that_these_are_all(reader):
    assert reader.process([row_of(Image.new("RGB", (100, 80), "white"))]) == [Notes(whole=frozenset(("words",)))]


def test_a_file_that_is_no_picture_is_raised(reader):
    with pytest.raises(BadImage):
        reader.process([broken_row()])


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the repository")
def test_what_is_read_on_photographs_lies_in_them(reader):
    rows = [row_of(Image.open(path).convert("RGB"), path.name) for path in sorted(PHOTOS.glob("*.jpg"))[:3]]
    assert len(rows) == 3
    for row, notes in zip(rows, reader.process(rows), strict=True):
        width, height = row.image.image_wh
        for note in notes.regions:
            assert note.word.strip() and len(note.quad) == 4 and 0.5 <= note.score <= 1  # noqa: PT018
            assert -1 <= note.bounds.x0 < note.bounds.x1 <= width + 1
            assert -1 <= note.bounds.y0 < note.bounds.y1 <= height + 1


def test_the_reader_is_told_where_its_models_lie_and_downloads_none(reader, monkeypatch):
    rapidocr = pytest.importorskip("rapidocr")
    monkeypatch.setattr(rapidocr, "__file__", "/nowhere/rapidocr/__init__.py")
    with pytest.raises(BadConfig, match="holds no model for 'det'"):
        TextReader().setup(Context())


def test_without_its_packages_the_reader_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(BadConfig, match=r"pip install openflorence\[engine\]"):
        TextReader().setup(Context())


# ---- people

DOG = RegionNote(label="dog", box=Box(2, 2, 10, 8))


def write_labels(folder: Path, *records: Record) -> People:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(record_to_row(record)) for record in records]
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n")
    stage = People(str(folder / "labels.jsonl"), format="records", round=1)
    stage.setup(Context())
    return stage


def labelled(image: str, label: str, image_wh=(20, 10)) -> Record:
    return Record(image=image, image_wh=image_wh, regions=(RegionNote(label=label, box=Box(2, 2, 10, 8)),))


def blank(uri: str, image_wh=(20, 10)):
    return row_of(Image.new("RGB", image_wh), uri)


def test_labels_are_matched_by_name_and_nothing_is_said_of_other_images(tmp_path):
    record = Record(
        image="a.png", image_wh=(20, 10), regions=(DOG,), texts=(TextNote(text="A dog."),), whole={"objects"}
    )
    stage = write_labels(tmp_path, record)
    notes, nothing = stage.process([blank("file:///far/away/a.png"), blank("b.png")])
    assert notes.regions[0].label == "dog"
    assert notes.regions[0].origin == Origin(source="labels", version="records", round=1)
    assert notes.regions[0].score is None
    assert notes.texts[0].text == "A dog."
    assert notes.whole == {"objects"}
    assert nothing == Notes()


def test_of_two_images_of_one_name_the_path_decides(tmp_path):
    stage = write_labels(tmp_path, labelled("cats/1.png", "cat"), labelled("dogs/1.png", "dog"))
    told = stage.process([blank("/photos/dogs/1.png"), blank("https://host/photos/cats/1.png?size=2")])
    assert [notes.regions[0].label for notes in told] == ["dog", "cat"]
    with pytest.raises(BadRecord, match="fits 2 entries equally well"):
        stage.process([blank("1.png")])


def test_labels_of_another_size_are_scaled_and_of_another_shape_refused(tmp_path):
    stage = write_labels(tmp_path, labelled("a.png", "dog"))
    (notes,) = stage.process([blank("a.png", (40, 20))])
    assert notes.regions[0].box == Box(4, 4, 20, 16)
    with pytest.raises(BadRecord, match="20 x 10 px there, the image 20 x 20"):
        stage.process([blank("a.png", (20, 20))])


def test_labels_in_another_format_are_read_too(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "a.png")
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 2, 8, 6], "area": 48, "iscrowd": 0}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    stage = People(str(tmp_path / "coco.json"))
    stage.setup(Context())
    (notes,) = stage.process([blank(str(tmp_path / "images" / "a.png"))])
    assert [(note.label, note.box) for note in notes.regions] == [("dog", Box(2, 2, 10, 8))]


def test_other_labels_are_another_run(tmp_path):
    one = write_labels(tmp_path, labelled("a.png", "dog")).revision
    assert write_labels(tmp_path, labelled("a.png", "horse")).revision != one


# ---- a function of one's own


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from openflorence.contract.records import TextNote\n"
        "from openflorence.data.notes import Notes\n"
        "def look(rows, word='seen'):\n"
        "    return [Notes(texts=(TextNote(text=f'{word} {row.image.uri}'),)) for row in rows]\n"
        "def forget(rows):\n"
        "    return [Notes()]\n"
        "def chat(rows):\n"
        "    return ['a dog' for row in rows]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


def test_a_function_of_ones_own_annotates(own):
    stage = OwnFunction("mine:look", layer="mine", settings={"word": "found"})
    stage.setup(Context())
    assert [notes.texts[0].text for notes in stage.process([blank("a"), blank("b")])] == ["found a", "found b"]


def test_an_edited_function_is_another_run(own):
    one = OwnFunction("mine:look").revision
    own.write_text(own.read_text().replace("seen", "noticed"))
    assert OwnFunction("mine:look").revision not in (one, "")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mine:forget", "gave 1 outcomes for 2 rows"),
        ("mine:chat", "gave str for a row"),
        ("mine:nothing", "cannot be imported"),
        ("nowhere:look", "cannot be imported"),
        ("mine", "write module:name"),
    ],
)
def test_a_function_that_does_not_do_is_refused(own, name, complaint):
    def use() -> None:
        stage = OwnFunction(name)
        stage.setup(Context())
        stage.process([blank("a"), blank("b")])

    with pytest.raises(BadConfig, match=complaint):
        use()
