"""A language model asked through a real HTTP server on loopback that answers well, badly, late or not at all."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from openflorence.contract.records import Origin, PhraseNote, RegionNote
from openflorence.contract.shapes import Box
from openflorence.data.notes import Failure
from openflorence.engine.language import INVENTED, MOST_REGIONS, Written, merge_texts, write_detailed
from openflorence.engine.server import Ledger, Reply, Server, ServerSettings, ask_many
from openflorence.errors import BadConfig

pytest.importorskip("openai")

SIZE = (200, 100)
DOG, BALL = Box(0, 0, 50, 50), Box(100, 50, 120, 70)
REGIONS = (RegionNote(box=DOG, label="dog", description="brown dog"), RegionNote(box=BALL, label="ball"))
GOOD = {
    "text": "A brown dog looks at a ball. The dog sits.",
    "phrases": [
        {"phrase": "A brown dog", "regions": [1]},
        {"phrase": "a ball", "regions": [2]},
        {"phrase": "The dog", "regions": [1, 1]},
    ],
}
SCHEMA = {"type": "object"}
Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers


def completion(content: str | None, finish: str = "stop", refusal: str | None = None, tokens=(50, 20)) -> Answer:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return 200, json.dumps(body).encode(), {"Content-Type": "application/json"}


def says(value: object) -> Answer:
    return completion(json.dumps(value))


def fails(status: int, **headers: str) -> Answer:
    return status, json.dumps({"error": {"message": "no"}}).encode(), {"Content-Type": "application/json", **headers}


LATE: Answer = (0, b"", {})  # nothing, until the one who asks has gone


class Place:
    """A server with a list of answers; the last one is given for ever."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.requests = answers, list[dict]()
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append(body | {"path": self.path, "key": self.headers["Authorization"]})
                    answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, content, headers = answer
                if not status:
                    time.sleep(0.6)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@contextmanager
def serving(*answers: Answer) -> Iterator[Place]:
    place = Place(list(answers))
    try:
        yield place
    finally:
        place.http.shutdown()
        place.http.server_close()


def connect(place: Place, ledger: Ledger | None = None, sleep: Callable = lambda _: None, **settings) -> Server:
    wanted = {"model": "m", "base_url": place.url, "key_variable": "", "timeout_s": 5.0, "tries": 3, "most_tokens": 100}
    return Server(ServerSettings(**{**wanted, **settings}), ledger or Ledger(":memory:"), sleep)


# ---- a good answer


def test_a_good_answer_becomes_a_text_and_its_regions():
    with serving(says(GOOD)) as place:
        found = write_detailed(connect(place), "a dog and a ball", REGIONS, SIZE)
    assert isinstance(found, Written)
    origin = Origin(source="language", model="m")
    assert (found.text.text, found.text.level, found.text.origin) == (GOOD["text"], "detailed", origin)
    assert found.grounding is not None
    assert found.grounding.phrases == (
        PhraseNote(phrase="A brown dog", boxes=(DOG,), span=(0, 11)),
        PhraseNote(phrase="a ball", boxes=(BALL,), span=(21, 27)),
        PhraseNote(phrase="The dog", boxes=(DOG,), span=(29, 36)),
    )


def test_the_question_names_the_regions_by_number_and_the_form_of_the_reply():
    with serving(says(GOOD)) as place:
        write_detailed(connect(place, seed=7, temperature=0.5), "a dog", REGIONS, SIZE)
    (request,) = place.requests
    assert request["path"] == "/v1/chat/completions"
    # By hand: 50 of 200 is 25 percent, 20 of 100 is 20.
    assert request["messages"][1]["content"].endswith("1. brown dog at 0, 0, 25, 50\n2. ball at 50, 50, 60, 70")
    form = request["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert set(form["json_schema"]["schema"]["properties"]) == {"text", "phrases"}
    assert (request["seed"], request["temperature"], request["max_tokens"]) == (7, 0.5, 100)


def test_of_many_regions_the_largest_are_told():
    many = tuple(RegionNote(box=Box(0, 0, 10 + i, 10), label=f"thing {i}") for i in range(MOST_REGIONS + 5))
    with serving(says({"text": "A thing.", "phrases": [{"phrase": "A thing", "regions": [1]}]})) as place:
        found = write_detailed(connect(place), "", many, SIZE)
    assert "1. thing 5 at" in place.requests[0]["messages"][1]["content"]
    assert isinstance(found, Written)
    assert found.grounding is not None
    assert found.grounding.phrases[0].boxes == (Box(0, 0, 15, 10),)


def test_texts_are_merged_and_name_what_they_are_made_of():
    with serving(says({"text": "a brown dog with a ball", "from": [3, 1]})) as place:
        found = merge_texts(connect(place), ["a dog", "a cat", "a dog with\na ball"], REGIONS, SIZE, "brief")
    assert isinstance(found, Written)
    assert (found.text.text, found.used) == ("a brown dog with a ball", (2, 0))
    assert "3. a dog with a ball" in place.requests[0]["messages"][1]["content"]
    with serving(says({"text": "a dog", "from": [4]})) as place:
        wrong = merge_texts(connect(place), ["a dog", "a cat", "a pig"], REGIONS, SIZE)
    assert isinstance(wrong, Failure)
    assert "[4]; 1 to 3 were given" in wrong.message
    with pytest.raises(BadConfig, match="1 texts to merge"):
        merge_texts(connect(place), ["a dog"], REGIONS, SIZE)


# ---- replies that say something wrong


def tied(phrase: str, *regions: object) -> dict[str, object]:
    return {"text": "A dog.", "phrases": [{"phrase": phrase, "regions": list(regions)}]}


WRONG = {
    "a region that was not given": (tied("A dog", 3), INVENTED),
    "region nought": (tied("A dog", 0), INVENTED),
    "a region below nought": (tied("A dog", -1), INVENTED),
    "a number in the text": ({"text": "A dog in region 2.", "phrases": []}, INVENTED),
    "a box in place of a number": (tied("A dog", [0, 0, 9, 9]), "malformed"),
    "true for one": (tied("A dog", True), "malformed"),
    "a phrase that is not in the text": (tied("a cat", 1), "malformed"),
    "no text": ({"text": " ", "phrases": []}, "malformed"),
    "a text of another kind": ({"text": ["A dog."], "phrases": []}, "malformed"),
    "no phrases": ({"text": "A dog."}, "malformed"),
    "phrases of another kind": ({"text": "A dog.", "phrases": ["A dog"]}, "malformed"),
    "a special token": ({"text": "A dog<loc_5>.", "phrases": []}, "malformed"),
    "a list": ([1], "malformed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_was_not_given_makes_the_reply_a_failure(what):
    value, kind = WRONG[what]
    with serving(says(value)) as place:
        found = write_detailed(connect(place), "a dog and a ball", REGIONS, SIZE)
    assert isinstance(found, Failure), found
    assert found.kind == kind
    assert found.message
    assert len(place.requests) == 1  # it was paid for; asking the same again would be paid again


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (completion(None, refusal="I cannot look at dogs."), "refused", "I cannot look at dogs."),
        (completion("", finish="content_filter"), "refused", "content filter"),
        (completion('{"text": "A do', finish="length"), "cut", "A do"),
        (completion("Sure! Here is the JSON:"), "malformed", "not JSON"),
        (completion(None), "malformed", "not JSON"),
        (completion("[" * 100000), "malformed", "not JSON"),
    ],
)
def test_refusals_and_nonsense_are_failures_with_the_reason(answer, kind, words):
    with serving(answer) as place:
        found = connect(place).ask("told", "asked", SCHEMA)
    assert isinstance(found, Failure)
    assert found.kind == kind
    assert words in found.message
    assert found.attempts == 1


# ---- servers that do not answer


def test_after_429_and_500_it_is_asked_again_with_growing_waits():
    waits: list[float] = []
    with serving(fails(429), fails(500), says({"ok": 1})) as place:
        found = connect(place, sleep=waits.append, wait_s=1.0).ask("told", "asked", SCHEMA)
    assert found == Reply({"ok": 1}, 50, 20, attempts=3)
    assert len(place.requests) == 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2  # twice as long, less up to a half
    again: list[float] = []
    with serving(fails(429), fails(500), says({"ok": 1})) as place:
        connect(place, sleep=again.append, wait_s=1.0).ask("told", "asked", SCHEMA)
    assert again == waits  # by a seed
    other: list[float] = []
    with serving(fails(429), fails(500), says({"ok": 1})) as place:
        connect(place, sleep=other.append, wait_s=1.0, seed=1).ask("told", "asked", SCHEMA)
    assert other != waits


def test_a_server_that_says_how_long_to_wait_is_believed_within_limits():
    waits: list[float] = []
    later, dated = {"Retry-After": "7"}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    with serving(fails(429, **later), fails(503, **dated), fails(429, **{"Retry-After": "9999"}), says({})) as place:
        connect(place, sleep=waits.append, wait_s=0.1, longest_wait_s=30.0, tries=4).ask("told", "asked", SCHEMA)
    assert waits[0] == 7
    assert waits[1] <= 0.2
    assert waits[2] == 30


@pytest.mark.parametrize(
    ("answer", "kind", "tries"),
    [
        (fails(500), "status", 3),
        (fails(401), "status", 1),  # asking again would not help
        (fails(400), "status", 1),
        ((200, b"<html>It works!</html>", {"Content-Type": "text/html"}), "malformed", 3),
        ((200, b"{}", {"Content-Type": "application/json"}), "malformed", 3),
        ((200, b'{"choices": []}', {"Content-Type": "application/json"}), "malformed", 3),
        ((200, b"{nonsense", {"Content-Type": "application/json"}), "malformed", 3),
    ],
)
def test_a_server_that_never_answers_well_is_given_up(answer, kind, tries):
    with serving(answer) as place:
        server = connect(place)
        found = server.ask("told", "asked", SCHEMA)
    assert isinstance(found, Failure)
    assert (found.kind, found.attempts, len(place.requests)) == (kind, tries, tries)
    assert server.ledger.spent() == (0, 0.0)


def test_a_server_that_says_nothing_is_left_after_the_time_limit():
    with serving(LATE) as place:
        server = connect(place, timeout_s=0.2, tries=2)
        start = time.perf_counter()
        found = server.ask("told", "asked", SCHEMA)
        took = time.perf_counter() - start
    assert isinstance(found, Failure)
    assert (found.kind, found.attempts) == ("timeout", 2)
    assert took < 2  # two tries of 0.2 s
    assert server.ledger.spent()[0] > 200  # a reply may have been made and charged: it stays set aside


def test_where_there_is_no_server_it_is_unreachable():
    with serving(LATE) as place:
        pass
    found = connect(place, tries=2).ask("told", "asked", SCHEMA)
    assert isinstance(found, Failure)
    assert (found.kind, found.attempts) == ("unreachable", 2)


# ---- memory and budget


def test_what_was_said_is_kept_on_disk_and_asked_once(tmp_path: Path):
    path = tmp_path / "cache" / "llm.sqlite"
    with serving(says({"n": 1}), says({"n": 2})) as place:
        first = connect(place, Ledger(path)).ask("told", "asked", SCHEMA)
        again = connect(place, Ledger(path)).ask("told", "asked", SCHEMA)
        assert len(place.requests) == 1
        for changed in ({"model": "other"}, {"temperature": 1.0}, {"seed": 3}, {"most_tokens": 99}):
            connect(place, Ledger(path), **changed).ask("told", "asked", SCHEMA)
        connect(place, Ledger(path)).ask("told", "asked more", SCHEMA)
        connect(place, Ledger(path)).ask("told more", "asked", SCHEMA)
        connect(place, Ledger(path)).ask("told", "asked", {"type": "object", "title": "t"})
        assert len(place.requests) == 8
    assert isinstance(first, Reply)
    assert isinstance(again, Reply)
    assert (first.value, first.attempts, again.value, again.attempts) == ({"n": 1}, 1, {"n": 1}, 0)


def test_a_refusal_is_kept_too_and_an_error_is_not():
    ledger = Ledger(":memory:")
    with serving(fails(500), completion(None, refusal="no"), says({})) as place:
        assert connect(place, ledger, tries=1).ask("told", "asked", SCHEMA).kind == "status"  # type: ignore[union-attr]
        assert connect(place, ledger, tries=1).ask("told", "asked", SCHEMA).kind == "refused"  # type: ignore[union-attr]
        assert connect(place, ledger, tries=1).ask("told", "asked", SCHEMA).kind == "refused"  # type: ignore[union-attr]
        assert len(place.requests) == 2


def test_the_budget_in_tokens_is_never_passed_and_holds_for_later_runs(tmp_path: Path):
    path = tmp_path / "llm.sqlite"
    # A question sets aside about 10 tokens and the 100 of a reply, and takes 70.
    with serving(says({})) as place:
        server = connect(place, Ledger(path), budget_tokens=300)
        kinds = [type(server.ask("told", str(number), SCHEMA)).__name__ for number in range(6)]
        assert kinds == ["Reply"] * 3 + ["Failure"] * 3  # 210 spent; 210 + 110 would pass 300
        assert server.ledger.spent() == (210, 0.0)
        later = connect(place, Ledger(path), budget_tokens=300).ask("told", "new", SCHEMA)
        assert isinstance(later, Failure)
        assert later.kind == "budget"
        assert "210 tokens" in later.message
        assert "raise the budget" in later.message
        assert isinstance(connect(place, Ledger(path), budget_tokens=300).ask("told", "0", SCHEMA), Reply)  # kept
        assert isinstance(connect(place, Ledger(path), budget_tokens=400).ask("told", "new", SCHEMA), Reply)
        assert len(place.requests) == 4


def test_the_budget_in_money_counts_both_prices():
    # 50 tokens at 2 and 20 at 10 a million.
    with serving(says({})) as place:
        server = connect(place, price_in=2.0, price_out=10.0, budget_money=0.0015)
        assert isinstance(server.ask("told", "asked", SCHEMA), Reply)
        assert server.ledger.spent() == (70, pytest.approx(0.0003))
        server.ask("told", "2", SCHEMA)
        # 0.0006 are spent and about 0.00102 would be set aside: too much for 0.0015.
        assert server.ask("told", "3", SCHEMA).kind == "budget"  # type: ignore[union-attr]
    with pytest.raises(BadConfig, match="needs price_in and price_out"):
        ServerSettings(model="m", budget_money=1.0)


def test_many_at_once_share_one_budget():
    with serving(says({})) as place:
        server = connect(place, budget_tokens=500)
        calls = [lambda number=number: server.ask("told", str(number), SCHEMA) for number in range(24)]
        found = ask_many(calls, at_once=8)
    replies = [one for one in found if isinstance(one, Reply)]
    assert server.ledger.spent()[0] == 70 * len(replies) <= 500
    assert 3 <= len(replies) == len(place.requests) < 24
    assert {one.kind for one in found if isinstance(one, Failure)} == {"budget"}


# ---- settings


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(says({})) as place:
        connect(place, key_variable="MY_KEY").ask("told", "asked", SCHEMA)
        assert place.requests[0]["key"] == "Bearer secret"
        assert "secret" not in repr(connect(place, key_variable="MY_KEY"))
        monkeypatch.delenv("MY_KEY")
        server = connect(place, key_variable="MY_KEY")
        with pytest.raises(BadConfig, match="MY_KEY holds no key"):
            server.ask("told", "asked", SCHEMA)
        assert server.ledger.spent() == (0, 0.0)


@pytest.mark.parametrize(
    "wrong", [{"model": ""}, {"tries": 0}, {"timeout_s": 0.0}, {"wait_s": 99.0}, {"price_in": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(BadConfig):
        ServerSettings(**{"model": "m", **wrong})


def test_there_has_to_be_something_to_write_from():
    with serving(says(GOOD)) as place, pytest.raises(BadConfig, match="neither was given"):
        write_detailed(connect(place), " ", [RegionNote(box=DOG)], SIZE)
