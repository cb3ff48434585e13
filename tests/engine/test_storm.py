"""Everything goes wrong in one run, and it ends: each bad image is listed with its reason, each good one is done."""

import io
import json
import random
import re
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from language_server import completion
from PIL import Image
from plain_store import echo
from real_store import opened_at

from openflorence.data.store import ImageIn, Store
from openflorence.engine.language import INVENTED
from openflorence.engine.runners import RunSettings, run_stages
from openflorence.engine.stages import Factory, StageSpec

pytest.importorskip("openai")
IMAGES, EACH = 1000, 5  # of each kind so many are broken

# ---- twenty ways to be broken, and how each is told


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256, 0)).save(file, "PNG")
    return file.getvalue()


def bomb(number: int) -> bytes:
    """A PNG that says it has ten thousand million pixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000 + number, 8, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


FILES = {  # what is wrong with a file, and words of the reason
    "empty": (lambda number: b"", "empty"),
    "page": (lambda number: b"<html>not found %d</html>" % number, "a web page"),
    "cut": (lambda number: picture(number)[:-30], "truncated|cut|incomplete|broken"),
    "noise": (lambda number: random.Random(number).randbytes(300), "no image|cannot identify|not an image"),
    "bomb": (bomb, "max_pixels"),
}
STAGE = {  # what a specialist does with an image, and the kind of the failure
    "raise": "ValueError",
    "exit": "SystemExit",
    "recursion": "RecursionError",
    "memory": "MemoryError",
    "short": "BadOutcome",
    "type": "BadOutcome",
    "score": "BadRecord",
    "hang": "timeout",
    "die": "killed",  # where a worker is another process
    "verdicts": "BadOutcome",
}
SERVER = {  # what a language server answers, and words of the reason
    "429": "status 429",
    "500": "status 500",
    "nonsense": "is not JSON",
    "nothing": "no reply within",
    "refused": "I would rather not",
    "invented": INVENTED,
}


def drawn(kinds: list[str]) -> dict[int, str]:
    """The broken images, by number: five of each kind, spread over a thousand."""
    whats = [what for what in kinds for _ in range(EACH)]
    return dict(zip(random.Random(3).sample(range(IMAGES), len(whats)), whats, strict=True))


@contextmanager
def serving(bad: dict[int, str]) -> Iterator[str]:
    """A language server on loopback that writes about every image, but for those it is bad to; gives its address."""
    gone = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"])).decode()
            number = int(re.findall(r"image (\d+)", request)[-1])
            what = bad.get(number)
            if what == "nothing":
                gone.wait(30)
                return
            status = int(what) if what in ("429", "500") else 200
            content = json.dumps(reply(number, what)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        gone.set()
        http.shutdown()
        http.server_close()


def reply(number: int, what: str | None) -> dict:
    said = {"text": f"A picture of image {number}.", "phrases": []}
    if what == "invented":
        said["phrases"] = [{"phrase": "A picture", "regions": [7]}]
    refusal = "I would rather not" if what == "refused" else None
    return completion("as you wish:" if what == "nonsense" else said, refusal)


# ---- one run


@pytest.mark.long
@pytest.mark.timeout(1800)  # twenty-five workers are started again, on a machine that does other things
@pytest.mark.parametrize("runner", ["inline", "processes"])
def test_of_a_thousand_images_a_hundred_are_broken_in_twenty_ways_and_the_others_are_done(tmp_path, runner):
    stage = [what for what in STAGE if what != ("die" if runner == "inline" else "verdicts")]
    bad = drawn([*FILES, *stage, *SERVER])
    assert (len(bad), len(set(bad.values()))) == (100, 20)
    store = Store.create(tmp_path / "store", unit_images=100)
    done = store.ingest(
        ImageIn(uri=str(number), data=FILES.get(bad.get(number), (picture,))[0](number)) for number in range(IMAGES)
    )
    assert (done.stored, done.failed, done.duplicates) == (975, 25, 0)
    with serving({number: what for number, what in bad.items() if what in SERVER}) as address:
        server = {"model": "m", "base_url": address, "key_variable": "", "timeout_s": 1.5, "tries": 2, "wait_s": 0.0}
        stages = [
            echo(batch=10, time_limit_s=2.0, bad={str(n): what for n, what in bad.items() if what in STAGE}),
            StageSpec(Factory("openflorence.engine.writing:Writer", {"needs": ["echo"], "server": server})),
        ]
        last = run_stages(stages, opened_at(store.folder), 1, RunSettings(runner=runner, workers=2))
    assert_all_told(store, last.runs, bad)
    assert last.statuses == {"echo": {"ok": 930, "failed": 45}, "written": {"ok": 900, "failed": 30, "skipped": 45}}
    assert last.reasons["written"] == {"failed: NoReply": 30, "skipped: needs": 45}
    assert last.reasons["echo"] == Counter({f"failed: {STAGE[what]}": 0 for what in stage}) + Counter(
        f"failed: {STAGE[what]}" for what in bad.values() if what in STAGE
    )
    store.define_round(1, last.runs)
    assert store.publish(1).published["annotated"] == 930  # a text that came before the server failed is not lost
    levels = Counter(tuple(note.level for note in record.texts) for record in store.records(1))
    assert levels == {("brief", "detailed"): 900, ("brief",): 30, (): 45}


def assert_all_told(store: Store, runs: dict[str, str], bad: dict[int, str]) -> None:
    """Every image has its text of both stages, or the reason that its kind stands for."""
    told = {int(row["uri"]): row["message"] for row in store.failures()}
    assert set(told) == {number for number, what in bad.items() if what in FILES}
    for number, message in told.items():
        assert re.search(FILES[bad[number]][1], message), (bad[number], message)
    seen = set(told)
    for unit in store.units():
        images = store.images(unit, data=False)
        rows = {layer: store.layer(layer, run_id).read(unit) for layer, run_id in runs.items()}
        for image, first, second in zip(images, rows["echo"], rows["written"], strict=True):
            number = int(image.uri)
            assert number not in seen
            seen.add(number)
            what = bad.get(number)
            if what in STAGE:
                assert (first.status, first.error.kind, second.status) == ("failed", STAGE[what], "skipped"), what
                continue
            assert first.notes.texts[0].text == f"image {number}"
            if what in SERVER:
                assert second.status == "failed"
                assert SERVER[what] in second.error.message
            else:
                assert second.notes.texts[0].text == f"A picture of image {number}."
    assert seen == set(range(IMAGES))
