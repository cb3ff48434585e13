"""Flickr30k Entities in its own layout: markup to spans, chains to boxes, and back."""

import pytest

from openflorence.contract.records import GroundingNote, PhraseNote, Record, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.flickr import read_flickr, write_flickr
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord

# Lines in the published markup: a phrase of two types, one that is not visual, one of the scene, one without a box.
SENTENCES = (
    "[/EN#1/people A man] in [/EN#2/bodyparts/clothing orange gloves] looks at [/EN#0/notvisual something] .\n"
    "[/EN#1/people The man] stands in [/EN#8/scene the yard] near [/EN#5/other a   bush] .\n"
    "[/EN#8/scene The yard] is green .\n"
)
XML = """<annotation>
\t<filename>1000092795.jpg</filename>
\t<size><width>333</width><height>500</height><depth>3</depth></size>
\t<object>
\t\t<name>1</name>
\t\t<bndbox><xmin>1</xmin><ymin>125</ymin><xmax>333</xmax><ymax>500</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>2</name>
\t\t<bndbox><xmin>20</xmin><ymin>30</ymin><xmax>20</xmax><ymax>40</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>1</name>
\t\t<name>2</name>
\t\t<bndbox><xmin>50</xmin><ymin>60</ymin><xmax>70</xmax><ymax>80</ymax></bndbox>
\t</object>
\t<object><name>8</name><scene>1</scene><nobndbox>0</nobndbox></object>
\t<object><name>5</name><scene>0</scene><nobndbox>1</nobndbox></object>
</annotation>
"""


def write(folder, name="1000092795", sentences=SENTENCES, xml=XML):
    for sub, data, end in (("Sentences", sentences, "txt"), ("Annotations", xml, "xml")):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / sub / f"{name}.{end}").write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def read(folder, **options):
    problems = Problems()
    return list(read_flickr(folder, problems, **options)), problems


# By hand: pixels 1..333 of 333 are the whole width; the one column 20 is from 19 to 20.
MAN = (Box(0, 124, 333, 500), Box(49, 59, 70, 80))
GLOVES = (Box(19, 29, 20, 40), Box(49, 59, 70, 80))


def test_sentences_become_groundings_with_spans_and_all_boxes_of_the_chain(tmp_path):
    (record,), problems = read(write(tmp_path))
    first = "A man in orange gloves looks at something ."
    assert record == Record(
        image="1000092795.jpg",
        image_wh=(333, 500),
        texts=(TextNote(text="The yard is green ."),),
        groundings=(
            GroundingNote(
                text=first,
                phrases=(
                    PhraseNote(phrase="A man", boxes=MAN, span=(0, 5)),
                    PhraseNote(phrase="orange gloves", boxes=GLOVES, span=(9, 22)),
                ),
            ),
            GroundingNote(
                text="The man stands in the yard near a bush .",
                phrases=(PhraseNote(phrase="The man", boxes=MAN, span=(0, 7)),),
            ),
        ),
    )
    assert not problems.counts
    for note in record.groundings:
        assert all(note.text[slice(*phrase.span)] == phrase.phrase for phrase in note.phrases)


def test_what_is_written_reads_back(tmp_path):
    records, _ = read(write(tmp_path / "in"))
    records.append(Record(image="b & <c>.png", image_wh=(5, 6), texts=(TextNote(text="Ein Bild , 一张图 ."),)))
    again, problems = read(write_flickr(records, tmp_path / "out"))
    assert again == records
    assert not problems.counts


def test_what_the_markup_cannot_hold_is_left_out(tmp_path):
    box = (Box(1, 2, 3, 4),)
    note = GroundingNote(
        text="a [red] car and  a dog",
        phrases=(
            PhraseNote(phrase="a [red] car", boxes=box, span=(0, 11)),
            PhraseNote(phrase="car", boxes=box, span=(8, 11)),
            PhraseNote(phrase="car and", boxes=box, span=(8, 15)),
            PhraseNote(phrase="a dog", boxes=(Box(0, 0, 4.6, 5.4),)),
            PhraseNote(phrase="a cat", boxes=box),
        ),
    )
    broken = TextNote(text="[/EN#1/x spelt")
    record = Record(image="a.jpg", image_wh=(9, 9), groundings=(note,), texts=(broken,))
    (again,), _ = read(write_flickr([record], tmp_path))
    # By hand: two spaces become one, and corners whole pixels.
    assert again.texts == ()
    assert again.groundings == (
        GroundingNote(
            text="a [red] car and a dog",
            phrases=(
                PhraseNote(phrase="car", boxes=box, span=(8, 11)),
                PhraseNote(phrase="a dog", boxes=(Box(0, 0, 5, 5),), span=(16, 21)),
            ),
        ),
    )


def test_a_split_is_a_list_of_names(tmp_path):
    for name in ("1", "2", "3"):
        write(tmp_path, name)
    (tmp_path / "val.txt").write_text("3\n1\n\n3\n")
    (tmp_path / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k-images" / "1000092795.jpg").touch()
    records, _ = read(tmp_path, split="val")
    assert [record.image for record in records] == ["flickr30k-images/1000092795.jpg"] * 2
    assert len(read(tmp_path)[0]) == 3
    with pytest.raises(BadRecord, match=r"test\.txt"):
        read(tmp_path, split="test")


@pytest.mark.parametrize(
    "line", ["[/EN#1/people A man is here .", "[/EN#1/people ", "[/EN#x/people A man] .", "[/EN#1 A] ."]
)
def test_broken_markup_is_counted_with_its_line_and_the_rest_is_read(tmp_path, line):
    (record,), problems = read(write(tmp_path, sentences=f"Good .\n\n{line}\n[/EN#1/people A man] .\n"))
    assert [note.text for note in (*record.texts, *record.groundings)] == ["Good .", "A man ."]
    assert "1000092795.txt:3: the markup" in problems.examples["entry not readable"][0]


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<annotation>",
        b"<annotation></annotation>",
        XML.replace("333</width>", "0</width>").encode(),
        XML.replace("333</width>", "x</width>").encode(),
        b"<?xml version='1.0' encoding='nothing'?><annotation/>",
        b"<annotation>\xe9</annotation>",
    ],
)
def test_an_annotation_that_cannot_be_read_costs_its_image_only(tmp_path, xml):
    write(tmp_path, "1", xml=xml)
    write(tmp_path, "2")
    write(tmp_path, "3", sentences="caf\xe9".encode("latin-1"))
    write(tmp_path, "4")
    (tmp_path / "Annotations" / "4.xml").unlink()
    records, problems = read(tmp_path)
    assert len(records) == 1
    assert problems.counts == {"file not readable": 2, "text not readable": 1}
    assert "1.xml" in problems.examples["file not readable"][0]


def test_a_bad_box_costs_that_box_only(tmp_path):
    (record,), problems = read(write(tmp_path, xml=XML.replace("<xmin>1<", "<xmin>one<")))
    assert record.groundings[0].phrases[0].boxes == MAN[1:]
    assert "object 0: xmin is 'one'" in problems.examples["entry not readable"][0]


def test_a_missing_folder_and_two_images_of_one_name_are_errors(tmp_path):
    with pytest.raises(BadRecord, match="Sentences"):
        read(tmp_path)
    with pytest.raises(BadRecord, match="'a'"):
        write_flickr([Record(image=f"{name}/a.jpg", image_wh=(1, 1)) for name in "xy"], tmp_path)
