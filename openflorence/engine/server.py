"""A language model asked through any OpenAI-compatible server: within a budget, never twice, and never for ever.

    server = Server(ServerSettings(model="m", base_url="http://127.0.0.1:8000/v1"), Ledger(folder / "llm.sqlite"))
    reply = server.ask("You join captions.", "1. a cat\\n2. a cat on a mat", schema)
    reply.value if isinstance(reply, Reply) else reply.message   # a Failure says why

Replies are kept on disk by a hash of all that went into them, so a run that was killed pays for none twice. What was
spent is kept beside them: several workers, and later runs with the same file, share one budget. A call reserves what it
may cost before it is made; so a budget is never passed by more than a server charges beyond the tokens it was allowed.
Nothing here raises for what a server does: a Failure says what happened, after how many attempts.
"""

import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from openflorence.data.notes import Failure
from openflorence.errors import BadConfig

Result = TypeVar("Result")
Asked = str | Sequence[Mapping[str, Any]]  # text, or parts of a message as the OpenAI API has them
LEDGER = "llm.sqlite"  # in the cache folder of a run
_LETTERS_A_TOKEN = 3  # at least so many, in what a prompt is reckoned at before the server has counted


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Who is asked, and how patiently. Times in seconds, prices for a million tokens in any one currency."""

    model: str
    base_url: str = ""  # "" is the openai package's own
    key_variable: str = "OPENAI_API_KEY"  # environment variable with the key; "" for a server that wants none
    timeout_s: float = 60.0  # for the server to answer, each try
    tries: int = 5  # of one question, in all
    wait_s: float = 1.0  # before the second try; twice as long before each further one, less up to a half by chance
    longest_wait_s: float = 60.0
    most_tokens: int = 1024  # of a reply
    temperature: float = 0.0
    seed: int = 0  # of the server's dice and of the waiting times; part of what a reply is kept by
    price_in: float = 0.0
    price_out: float = 0.0
    budget_tokens: int | None = None  # of all runs with one ledger; None: no limit
    budget_money: float | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise BadConfig("no model is named; give the name that the server knows it by")
        if self.tries < 1 or self.most_tokens < 1 or not 0 < self.timeout_s < math.inf:
            raise BadConfig(f"tries={self.tries}, most_tokens={self.most_tokens}, timeout_s={self.timeout_s}: above 0")
        if not 0 <= self.wait_s <= self.longest_wait_s < math.inf or min(self.price_in, self.price_out) < 0:
            raise BadConfig(f"{self} has a negative wait or price, or wait_s above longest_wait_s")
        if self.budget_money is not None and not self.price_in + self.price_out:
            raise BadConfig("budget_money needs price_in and price_out: without prices it would never be spent")

    def money(self, tokens_in: int, tokens_out: int) -> float:
        """What tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def key(self) -> str:
        """Give the key from the environment.

        raises    BadConfig when the variable is not set.
        """
        if not self.key_variable:
            return "none"
        key = os.environ.get(self.key_variable, "")
        if not key:
            raise BadConfig(
                f"environment variable {self.key_variable} holds no key for {self.model!r}; set it, or give "
                "key_variable='' for a server that wants none"
            )
        return key


def server_settings(given: Mapping[str, Any]) -> ServerSettings:
    """Make settings of plain values, as a plan has them.

    raises    BadConfig for a field that there is none of, or a value that cannot be.
    """
    try:
        return ServerSettings(**given)
    except TypeError as error:
        raise BadConfig(f"server={dict(given)!r}: {error}; it has the fields of ServerSettings") from error


class NoReply(RuntimeError):
    """Raised by a stage when a server gave nothing usable about an image; the message begins with the failure."""


@dataclass(frozen=True)
class Reply:
    """What a server said: the JSON object that was asked for, and what it took."""

    value: Mapping[str, Any]
    tokens_in: int = 0
    tokens_out: int = 0
    attempts: int = 1  # 0: kept from before


class Ledger:
    """Replies and what they cost, in one SQLite file that threads and processes may share."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it; ":memory:" is forgotten in the end."""
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(str(path), timeout=60, isolation_level=None, check_same_thread=False)
        self._base.execute("create table if not exists replies (key text primary key, reply text not null)")
        self._base.execute(
            "create table if not exists spent (call integer primary key, tokens integer not null, money real not null)"
        )

    def find(self, key: str) -> str | None:
        """Give the reply that is kept under a key; None when there is none."""
        with self._lock:
            row = self._base.execute("select reply from replies where key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def keep(self, key: str, reply: str) -> None:
        """Keep a reply."""
        with self._lock:
            self._base.execute("insert or replace into replies values (?, ?)", (key, reply))

    def spent(self) -> tuple[int, float]:
        """Give tokens and money spent by all, what is reserved included."""
        with self._lock:
            return self._sum()

    def reserve(self, tokens: int, money: float, limits: tuple[int | None, float | None]) -> int | None:
        """Set tokens and money aside; None, and nothing set aside, when that would pass a limit."""
        with self._lock:
            self._base.execute("begin immediate")
            try:
                spent = self._sum()
                fits = all(
                    limit is None or had + more <= limit
                    for had, more, limit in zip(spent, (tokens, money), limits, strict=True)
                )
                call = None
                if fits:
                    done = self._base.execute("insert into spent (tokens, money) values (?, ?)", (tokens, money))
                    call = done.lastrowid
                self._base.execute("commit")
            except BaseException:
                self._base.execute("rollback")
                raise
        return call

    def settle(self, call: int, tokens: int, money: float) -> None:
        """Put what a call took in place of what was set aside for it."""
        with self._lock:
            self._base.execute("update spent set tokens = ?, money = ? where call = ?", (tokens, money, call))

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _sum(self) -> tuple[int, float]:
        tokens, money = self._base.execute("select total(tokens), total(money) from spent").fetchone()
        return int(tokens), float(money)


@dataclass
class Server:
    """A model behind a server. Threads may share one."""

    settings: ServerSettings
    ledger: Ledger
    sleep: Callable[[float], object] = time.sleep
    _client: Any = field(default=None, repr=False)

    def ask(self, told: str, asked: Asked, schema: Mapping[str, Any]) -> Reply | Failure:
        """Ask for a JSON object.

        told      what the model is to do: the system message.
        asked     the user message: text, or parts with images.
        schema    JSON schema of the object; told to the server as the form of its reply. Whether the reply keeps it,
                  beyond being an object, is for the caller to check.
        returns   the object, or a Failure of kind budget, refused, cut, malformed, timeout, unreachable or status.
        raises    BadConfig when the openai package is not installed or there is no key.
        """
        request = self._request(told, asked, schema)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        kept = self.ledger.find(key)
        if kept is not None:
            return _read(json.loads(kept), 0)
        self._connected()  # what is wrong with the settings is told before anything is set aside
        text = told + json.dumps(asked) + json.dumps(schema)
        expected = len(text.encode()) // _LETTERS_A_TOKEN + 1
        last = Failure("unreachable", "was not tried")
        for attempt in range(1, self.settings.tries + 1):
            call = self._reserve(expected)
            if call is None:
                return replace(self._over_budget(expected), attempts=attempt)
            found = self._try(request, call, attempt)
            if isinstance(found, dict):
                self.ledger.keep(key, json.dumps(found))
                return _read(found, attempt)
            last, wait_s = found
            if wait_s is None:
                break
            if attempt < self.settings.tries:
                self.sleep(max(self._wait_s(key, attempt), min(wait_s, self.settings.longest_wait_s)))
        return last

    def _request(
        self, told: str, asked: str | Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
    ) -> dict[str, Any]:
        form = {"name": "reply", "schema": schema, "strict": True}
        content = asked if isinstance(asked, str) else [dict(part) for part in asked]
        return {
            "model": self.settings.model,
            "messages": [{"role": "system", "content": told}, {"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": form},
            "max_tokens": self.settings.most_tokens,
            "temperature": self.settings.temperature,
            "seed": self.settings.seed,
        }

    def _reserve(self, expected: int) -> int | None:
        settings, most = self.settings, self.settings.most_tokens
        limits = settings.budget_tokens, settings.budget_money
        return self.ledger.reserve(expected + most, settings.money(expected, most), limits)

    def _over_budget(self, expected: int) -> Failure:
        tokens, money = self.ledger.spent()
        settings = self.settings
        limits = f"{settings.budget_tokens} tokens, {settings.budget_money} money".replace("None", "any")
        return Failure(
            "budget",
            f"{tokens} tokens and {money:.4f} money are spent or set aside, and this question may take "
            f"{expected + settings.most_tokens} tokens; allowed are {limits}: raise the budget to go on",
        )

    def _wait_s(self, key: str, attempt: int) -> float:
        """Twice as long each time, less up to a half, so that workers refused together do not come back together."""
        whole = min(self.settings.wait_s * 2 ** (attempt - 1), self.settings.longest_wait_s)
        return whole * (1 - Random(f"{self.settings.seed} {key} {attempt}").random() / 2)

    def _try(self, request: dict[str, Any], call: int, attempt: int) -> dict[str, Any] | tuple[Failure, float | None]:
        """Ask once: what the server said as plain values, or why not and how long it wants us to wait; None: for ever.

        Nothing is charged for an error. For a reply that did not come in time perhaps: what was set aside stays so.
        """
        openai, client = _openai(), self._connected()
        try:
            done = client.chat.completions.create(**request)
            said = _plain(done)
        except openai.APITimeoutError:
            return Failure("timeout", f"no reply within {self.settings.timeout_s:g} s", attempts=attempt), 0.0
        except openai.APIStatusError as error:
            failure = Failure("status", f"status {error.status_code}: {error.message}"[:200], attempts=attempt)
            passes = error.status_code in (408, 409, 429) or error.status_code >= 500
            wait_s = _retry_after(error.response) if passes else None
        except openai.APIConnectionError as error:
            failure, wait_s = Failure("unreachable", f"{error} {error.__cause__}"[:200], attempts=attempt), 0.0
        except (openai.APIError, AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"no chat completion: {type(error).__name__} {error}"  # something answered, which is no such server
            failure, wait_s = Failure("malformed", told[:200], attempts=attempt), 0.0
        else:
            if said["tokens"] != [0, 0]:  # a server that does not count is charged what was set aside
                self.ledger.settle(call, sum(said["tokens"]), self.settings.money(*said["tokens"]))
            return said
        self.ledger.settle(call, 0, 0.0)
        return failure, wait_s

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _openai().OpenAI(
                api_key=self.settings.key(),
                base_url=self.settings.base_url or None,
                timeout=self.settings.timeout_s,
                max_retries=0,  # ours are counted, seeded and within the budget
            )
        return self._client


def ask_many(calls: Iterable[Callable[[], Result]], at_once: int) -> list[Result]:
    """Make calls at the same time, at most `at_once`; their results in order."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        return list(pool.map(lambda call: call(), calls))


def _plain(done: Any) -> dict[str, Any]:
    """A chat completion as the plain values that are kept of it."""
    choice = done.model_dump()["choices"][0]
    usage = done.usage
    return {
        "content": choice["message"].get("content"),
        "refusal": choice["message"].get("refusal"),
        "finish": choice.get("finish_reason"),
        "tokens": [usage.prompt_tokens, usage.completion_tokens] if usage else [0, 0],
    }


def _read(said: Mapping[str, Any], attempts: int) -> Reply | Failure:
    """What a server said -> the object, or why there is none."""
    content = said["content"]
    if said["refusal"] or said["finish"] == "content_filter":
        return Failure("refused", str(said["refusal"] or "by the server's content filter")[:200], attempts=attempts)
    if said["finish"] == "length":
        return Failure("cut", f"the reply was cut: ...{str(content)[-60:]!r}; allow more tokens", attempts=attempts)
    try:
        value = json.loads(content)
    except (TypeError, ValueError, RecursionError):
        return Failure("malformed", f"the reply is not JSON: {str(content)[:120]!r}", attempts=attempts)
    if not isinstance(value, dict):
        return Failure("malformed", f"the reply is no object: {str(content)[:120]!r}", attempts=attempts)
    tokens_in, tokens_out = said["tokens"]
    return Reply(value, tokens_in, tokens_out, attempts)


def _retry_after(response: Any) -> float:
    """Seconds that a server asks to wait; 0 when it does not say, or says a date."""
    try:
        return max(float(response.headers.get("retry-after", 0)), 0.0)
    except ValueError:
        return 0.0


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise BadConfig(
            "asking a language server needs the openai package: pip install openflorence[engine]"
        ) from error
    return openai
