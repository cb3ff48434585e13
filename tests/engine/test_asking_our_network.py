"""Our own network as a specialist: the same answers as when asked, one encoding an image, reasons for what is cut."""

import pytest
from PIL import Image
from rows import broken_row, row_of

import openflorence
from openflorence.data.notes import Notes, kept
from openflorence.data.world import WorldConfig, draw_scene
from openflorence.engine.network import ANNOTATED, CAPTIONS, Florence
from openflorence.engine.stages import Context, Factory, StageSpec, make_stage
from openflorence.errors import BadConfig, BadImage
from openflorence.model.asking import AskOptions

WORLD = WorldConfig(side_px=128, sign_share=1.0, max_objects=3)
SCENES = [draw_scene(seed, WORLD) for seed in (1, 2)]
EVERYTHING = [task for task in ANNOTATED if task != "find"]


def ready(**settings) -> Florence:
    stage = Florence(**settings)
    stage.setup(Context())
    return stage


def split(outcome):
    return outcome if isinstance(outcome, tuple) else (outcome, ())


@pytest.fixture(scope="module")
def model():
    return openflorence.load()


@pytest.fixture(scope="module")
def told():
    stage = ready(tasks=EVERYTHING, round=1)
    encoded: list[int] = []
    encode = stage._network.runner.encode_images
    stage._network.runner.encode_images = lambda pictures: encoded.append(len(pictures)) or encode(pictures)
    outcomes = stage.process([row_of(scene.image) for scene in SCENES])
    return [split(outcome)[0] for outcome in outcomes], encoded


def test_an_image_is_encoded_once_for_all_its_tasks(told):
    assert told[1] == [2]


def test_its_notes_are_what_it_answers_when_asked(told, model):
    for scene, notes in zip(SCENES, told[0], strict=True):
        view = model.open(scene.image)
        for task, level in CAPTIONS.items():
            assert [note.text for note in notes.texts if note.level == level] == [view.ask(task).text]
        detected, lines = view.ask("detect"), view.ask("read_regions")
        found = [note for note in notes.regions if note.label]
        assert [(note.label, note.box) for note in found] == [(one.label, one.box) for one in detected.regions]
        scores = [region.score for region in detected.regions]
        assert [note.score for note in found] == pytest.approx(
            scores, abs=1e-6
        )  # sums of a batch are rounded otherwise
        read = [(note.word, note.quad) for note in notes.regions if note.word]
        assert read == [(region.label, region.quad) for region in lines.regions]
        assert all(note.origin.source == "florence" and note.origin.round == 1 for note in notes.regions)


def test_its_own_brief_caption_is_grounded(told, model):
    for scene, notes in zip(SCENES, told[0], strict=True):
        (note,) = notes.groundings
        answer = model.predict(scene.image, "ground", note.text)
        assert [box for phrase in note.phrases for box in phrase.boxes] == [region.box for region in answer.regions]
        for phrase in note.phrases:
            assert note.text[slice(*phrase.span)] == phrase.phrase
            assert 0 <= phrase.score <= 1


def test_detected_regions_get_outlines_and_descriptions(told, model):
    notes = told[0][0]
    first = next(note for note in notes.regions if note.label)
    view = model.open(SCENES[0].image)
    rings = [ring for region in view.ask("segment_region", None, first.box).regions for ring in region.polygons]
    assert list(first.polygons) == rings
    assert first.description == view.ask("describe_region", None, first.box).text


def test_what_is_listed_to_the_end_is_whole(told):
    assert all(notes.whole == {"objects", "words"} for notes in told[0])


def test_a_caption_that_is_cut_is_dropped_and_a_list_that_is_cut_is_not_whole():
    stage = ready(tasks=["caption", "detect", "ground"], options={"max_tokens": 4})
    ((notes, verdicts),) = stage.process([row_of(SCENES[0].image)])
    cut = {verdict.note_id: verdict for verdict in verdicts if verdict.rule == "cut"}
    assert "limit of tokens" in cut["florence/text0"].reason
    assert "limit of tokens" in cut["florence/detect"].reason
    assert notes.whole == set()
    left = kept(notes, verdicts, "florence")
    assert left.texts == ()
    assert left.regions == notes.regions  # a remark on a list drops none of it
    assert notes.groundings == ()  # half a caption is not grounded


def test_labels_hold_for_detections_alone():
    stage = ready(tasks=["detect", "read_regions", "caption", "ground"], options={"labels": ["circle"]})
    notes = split(stage.process([row_of(SCENES[0].image)])[0])[0]
    assert {note.label for note in notes.regions if note.label} <= {"circle"}
    assert any(note.word for note in notes.regions)
    assert notes.groundings[0].phrases[0].phrase in notes.texts[0].text


def test_presence_and_tiles_are_passed_on(model):
    picture = Image.fromarray(SCENES[0].image)
    nowhere = ready(tasks=["find"], phrases=["a green circle"], options={"min_presence": 1.0})
    assert split(nowhere.process([row_of(picture)])[0])[0] == Notes()
    tiled = ready(tasks=["detect"], options={"tiles": [1, 2]})
    notes = split(tiled.process([row_of(picture)])[0])[0]
    answer = model.predict(picture, "detect", options=AskOptions(tiles=(1, 2)))
    assert [note.box for note in notes.regions] == [region.box for region in answer.regions]


def test_a_picture_that_cannot_be_read_is_raised():
    with pytest.raises(BadImage):
        ready(tasks=["caption"]).process([broken_row()])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"tasks": ["caption", "answer"]}, "tasks has 'answer'"),
        ({"tasks": []}, "one or more"),
        ({"tasks": ["detect", "ground"]}, "add 'caption'"),
        ({"tasks": ["find"]}, "looks for `phrases`"),
        ({"tasks": ["segment_region"]}, "add it to tasks"),
        ({"options": {"beam": 3}}, "fields of AskOptions"),
        ({"load_with": {"half": True}}, "load_with has 'half'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, complaint):
    with pytest.raises(BadConfig, match=complaint):
        Florence(**settings)


def test_a_checkpoint_of_ones_own_is_named_and_stamped(answering_folder):
    settings = {"model": str(answering_folder), "tasks": ["caption"], "load_with": {"dtype": "bfloat16", "at_once": 2}}
    stage = make_stage(StageSpec(Factory("openflorence.engine.network:Florence", settings)))
    assert stage.model == str(answering_folder)
    assert len(stage.revision) == 12
    stage.setup(Context())
    stage.process([row_of(SCENES[0].image)])
