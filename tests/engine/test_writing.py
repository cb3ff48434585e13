"""A language model in a round: what it is given, what becomes of its texts, and what its failures do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from rows import row_of

from openflorence.contract.records import Origin, RegionNote, TextNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import LayerRow, Notes, Verdict
from openflorence.engine.server import NoReply
from openflorence.engine.stages import Context, Row
from openflorence.engine.writing import Writer
from openflorence.errors import BadConfig

pytest.importorskip("openai")
DOG = RegionNote(box=Box(0, 0, 50, 50), label="dog", score=0.9)
CAT = RegionNote(box=Box(50, 50, 99, 99), label="cat", score=0.9)
BRIEF = TextNote(text="a dog", score=0.8)
DETAILED = {"text": "A dog lies on the left.", "phrases": [{"phrase": "A dog", "regions": [1]}]}


class Model:
    """A language server on loopback that answers in turn, and keeps what it was asked."""

    def __init__(self) -> None:
        self.says: list[object] = []  # objects, texts that are no JSON, or statuses; the last one for ever
        self.asked: list[str] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.asked.append(request["messages"][-1]["content"])
                said = model.says.pop(0) if len(model.says) > 1 else model.says[0]
                status = said if isinstance(said, int) else 200
                content = said if isinstance(said, str) else json.dumps(said)
                message = {"role": "assistant", "content": content}
                body = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                }
                data = json.dumps(body if status == 200 else {}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stage(self, **settings) -> Writer:
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        server = {"model": "m", "base_url": url, "key_variable": "", "tries": 1, "wait_s": 0.0}
        made = Writer(**{"needs": ["fuse", "filter"], "server": server, "at_once": 1} | settings)
        made.setup(Context())
        return made


@pytest.fixture
def model():
    made = Model()
    yield made
    made.server.shutdown()
    made.server.server_close()


def judged(notes: Notes, *verdicts: Verdict) -> Row:
    """A row of a layer "fuse", of which "filter" drops some."""
    row = row_of(Image.new("RGB", (100, 100)), fuse=notes)
    return Row(row.image, {**row.layers, "filter": LayerRow(row.image.image_id, verdicts=verdicts)})


def test_a_detailed_text_is_written_from_what_was_kept(model):
    model.says = [DETAILED]
    row = judged(Notes(texts=(BRIEF,), regions=(CAT, DOG)), Verdict("fuse/region0", "score", "too low"))
    ((notes, verdicts),) = model.stage(round=3).process([row])
    origin = Origin(source="language", model="m", round=3)
    assert notes.texts == (TextNote(text="A dog lies on the left.", level="detailed", origin=origin),)
    (grounding,) = notes.groundings
    assert [(phrase.phrase, phrase.boxes) for phrase in grounding.phrases] == [("A dog", (DOG.box,))]
    assert grounding.origin == origin
    assert verdicts == ()
    assert "a dog" in model.asked[0]
    assert "cat" not in model.asked[0]


def test_texts_of_one_level_become_one_and_the_others_are_dropped_by_name(model):
    model.says = [{"text": "a dog on a lawn", "from": [1, 2]}, DETAILED]
    texts = (BRIEF, TextNote(text="a lawn", score=0.5))
    ((notes, verdicts),) = model.stage(merge=["brief"]).process([judged(Notes(texts=texts, regions=(DOG,)))])
    assert [(note.text, note.level) for note in notes.texts] == [
        ("a dog on a lawn", "brief"),
        ("A dog lies on the left.", "detailed"),
    ]
    assert [(one.note_id, one.rule) for one in verdicts] == [("fuse/text0", "merged"), ("fuse/text1", "merged")]
    assert "a dog on a lawn" in model.asked[1]  # the merged text is what the longer one is written from


def test_a_text_that_is_chosen_stays_as_it_was(model):
    model.says = [{"text": "A dog.", "from": [1]}]
    texts = (BRIEF, TextNote(text="a lawn", score=0.5))
    ((notes, verdicts),) = model.stage(merge=["brief"], levels=[]).process([judged(Notes(texts=texts))])
    assert notes == Notes()
    assert [one.note_id for one in verdicts] == ["fuse/text1"]


def test_without_anything_to_write_from_nobody_is_asked(model):
    model.says = [DETAILED]
    assert model.stage().process([judged(Notes())]) == [(Notes(), ())]
    assert model.asked == []


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (500, "status: status 500"),
        (429, "status: status 429"),
        ("no JSON", "malformed: "),
        ("", "malformed: "),
        ({"text": "A dog.", "phrases": [{"phrase": "A dog", "regions": [7]}]}, "invented region: "),
    ],
)
def test_what_a_server_does_wrong_fails_the_image_with_its_reason(model, says, told):
    model.says = [says]
    with pytest.raises(NoReply, match=told):
        model.stage().process([judged(Notes(texts=(BRIEF,), regions=(DOG,)))])


def test_settings_that_ask_for_nothing_are_told(model):
    with pytest.raises(BadConfig, match="levels=\\[\\]"):
        model.stage(levels=[])
    with pytest.raises(BadConfig, match="has the fields of ServerSettings"):
        Writer(needs=["fuse"], server={"modle": "m"})
