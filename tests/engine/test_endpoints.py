"""A vision model behind a server: what it is sent, how boxes are read, and that nonsense is a reason, not a note."""

import base64
import io

import pytest
from language_server import LanguageServer
from PIL import Image
from rows import broken_row, row_of

from openflorence.contract.records import Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.engine.endpoints import VisionServer, read_box, shrink
from openflorence.engine.server import NoReply
from openflorence.engine.stages import Context, Factory, StageSpec, make_stage
from openflorence.errors import BadConfig, BadImage

pytest.importorskip("openai")
PICTURE = Image.new("RGB", (200, 100), "red")
GOOD = {"brief": "A red wall.", "objects": [{"label": "wall", "box": [0, 100, 500, 1000]}]}


@pytest.fixture
def model():
    made = LanguageServer(GOOD)
    yield made
    made.close()


def stage_of(model: LanguageServer, context: Context | None = None, **settings) -> VisionServer:
    settings = {"server": model.settings, **settings}
    made = make_stage(StageSpec(Factory("openflorence.engine.endpoints:VisionServer", settings)))
    made.setup(context or Context())
    return made


def test_texts_and_boxes_become_notes(model):
    (notes,) = stage_of(model, round=2).process([row_of(PICTURE)])
    origin = Origin(source="server", model="m", round=2)
    assert notes.texts == (TextNote(text="A red wall.", level="brief", origin=origin),)
    # By hand: thousandths of 200 x 100.
    assert notes.regions == (RegionNote(label="wall", box=Box(0, 10, 100, 100), origin=origin),)


def test_the_picture_is_sent_small_and_the_unit_of_boxes_is_stated(model):
    model.says = [{"objects": [{"label": "wall", "box": [0, 0, 50, 25]}]}]
    stage = stage_of(model, wants=["objects"], units="pixels", longest_px=50, labels=["wall", "door"])
    (notes,) = stage.process([row_of(PICTURE)])
    assert notes.regions[0].box == Box(0, 0, 200, 100)  # pixels of what was sent, 50 x 25, are four of the original
    told, image = model.asked[0]["messages"][1]["content"]
    assert "pixels of this picture, which is 50 wide and 25 high" in told["text"]
    assert "one of wall, door" in told["text"]
    head, data = image["image_url"]["url"].split(",", 1)
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (50, 25)
    form = model.asked[0]["response_format"]["json_schema"]["schema"]
    assert form["properties"]["objects"]["items"]["properties"]["label"]["enum"] == ["wall", "door"]


def test_words_are_asked_for_and_read(model):
    model.says = [{"words": [{"label": "STOP", "box": [0, 0, 0.5, 0.5]}]}]
    (notes,) = stage_of(model, wants=["words"], units="shares").process([row_of(PICTURE)])
    assert [(note.word, note.label, note.box) for note in notes.regions] == [("STOP", "", Box(0, 0, 100, 50))]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("Sure! Here is the JSON you asked for.", "malformed: the reply is not JSON"),
        ({"brief": "A wall."}, "malformed: 'objects' is None"),
        ({**GOOD, "brief": " "}, "malformed: 'brief' is ' '"),
        ({**GOOD, "brief": "A wall </s>."}, "malformed: 'brief'"),
        ({**GOOD, "objects": [{"label": "wall"}]}, "has no box"),
        ({**GOOD, "objects": [{"label": "wall", "box": [0, 0, 1500, 900]}]}, "has no box in thousandths inside"),
        ({**GOOD, "objects": [{"label": "wall", "box": [500, 0, 100, 900]}]}, "has no box"),
        ({**GOOD, "objects": [{"label": "", "box": [0, 0, 100, 900]}]}, "has no label"),
        ({**GOOD, "objects": ["wall"]}, "has no label"),
        (500, "status: status 500"),
    ],
    ids=["prose", "lacking", "empty", "token", "no box", "outside", "swapped", "no label", "no object", "error"],
)
def test_a_reply_that_is_not_as_asked_for_is_a_reason_and_no_note(model, says, reason):
    model.says = [says]
    with pytest.raises(NoReply) as caught:
        stage_of(model).process([row_of(PICTURE, "wall.png")])
    assert reason in str(caught.value)
    assert "wall.png" in str(caught.value)


def test_a_label_that_was_not_offered_is_refused(model):
    with pytest.raises(NoReply, match="'wall' is none of door"):
        stage_of(model, labels=["door"]).process([row_of(PICTURE)])


def test_a_picture_is_paid_for_once(model, tmp_path):
    context = Context(cache=tmp_path)
    one = stage_of(model, context).process([row_of(PICTURE)])
    assert stage_of(model, context).process([row_of(PICTURE)]) == one  # another worker, after the first was killed
    assert len(model.asked) == 1


def test_a_picture_that_cannot_be_read_costs_nothing(model):
    with pytest.raises(BadImage):
        stage_of(model).process([row_of(PICTURE), broken_row()])
    assert model.asked == []


def test_a_box_is_cut_where_it_leaves_the_picture_a_little():
    # By hand: 1010 of 1000 is 0.01 too much, and at most 0.02 is cut.
    assert read_box([-10, 0, 1010, 500], (1000, 1000), (200, 100)) == Box(0, 0, 200, 50)
    for wrong in (
        [-30, 0, 500, 500],
        [0, 0, 500],
        [0, 0, "1", 500],
        [0, 0, True, 500],
        "0 0 1 1",
        [0, 0, float("nan"), 1],
    ):
        assert read_box(wrong, (1000, 1000), (200, 100)) is None


def test_a_picture_is_never_enlarged_and_keeps_its_proportions():
    assert shrink(PICTURE, 1024) is PICTURE
    assert shrink(PICTURE, 64).size == (64, 32)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"wants": ["poem"]}, "wants has 'poem'"),
        ({"units": "inches"}, "units='inches'"),
        ({"server": {"model": "m", "host": "x"}}, "fields of ServerSettings"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, complaint):
    with pytest.raises(BadConfig, match=complaint):
        VisionServer(**{"server": {"model": "m"}, **settings})


def test_a_missing_key_is_told_before_the_run(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadConfig, match="OPENAI_API_KEY"):
        VisionServer({"model": "m"}).setup(Context())
