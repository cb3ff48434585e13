"""A stand-in for a language server: on loopback, it says what it was told to and keeps what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LanguageServer:
    """Says the things of `says` in turn, the last one for ever: an object, a text that is no JSON, or a status."""

    def __init__(self, *says: object) -> None:
        self.says: list[object] = list(says)
        self.asked: list[dict[str, Any]] = []  # requests
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                ours.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                said = ours.says.pop(0) if len(ours.says) > 1 else ours.says[0]
                status, body = (said, {}) if isinstance(said, int) else (200, completion(said))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of ServerSettings: one try, no waiting."""
        url = f"http://127.0.0.1:{self.http.server_port}/v1"
        return {"model": "m", "base_url": url, "key_variable": "", "tries": 1, "wait_s": 0.0}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def completion(said: object, refusal: str | None = None) -> dict[str, Any]:
    """A chat completion as the OpenAI API has it, of 10 tokens in and 5 out."""
    content = said if isinstance(said, str) else json.dumps(said)
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
