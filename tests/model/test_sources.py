"""Where images come from: nothing a path or a server does may hang us, fill the memory, or end in another error."""

import base64
import http.server
import io
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress

import pytest
from PIL import Image

from openflorence.errors import BadConfig, BadImage
from openflorence.model.images import read_image
from openflorence.model.sources import ImageLimits, name_source, read_bytes


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


class Pages(http.server.BaseHTTPRequestHandler):
    """One page per way in which a server can disappoint."""

    def do_GET(self) -> None:
        page = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)[1:].replace(" ", "_").replace("é", "e")
        getattr(self, f"page_{page}", self.page_missing)()

    def answer(self, body: bytes, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        with suppress(OSError):  # the client may have had enough
            self.wfile.write(body)

    def page_image(self) -> None:
        self.answer(png(), Content_Type="image/png")

    page_le_chat = page_image

    def page_missing(self) -> None:
        self.answer(b"<html>no</html>", 404)

    def page_broken(self) -> None:
        self.answer(b"", 500)

    def page_web_page(self) -> None:
        self.answer(b"<!DOCTYPE html><html></html>", Content_Type="image/png")

    def page_empty(self) -> None:
        self.answer(b"")

    def page_loop(self) -> None:
        self.answer(b"", 302, Location=f"/loop?{time.monotonic_ns()}")

    def page_two_steps(self) -> None:
        self.answer(b"", 301, Location="/one_step")

    def page_one_step(self) -> None:
        self.answer(b"", 302, Location="/image")

    def page_to_a_file(self) -> None:
        self.answer(b"", 302, Location="file:///etc/hostname")

    def page_to_ftp(self) -> None:
        self.answer(b"", 302, Location="ftp://127.0.0.1/image.png")

    def page_says_large(self) -> None:
        self.answer(b"x", Content_Length=10**12)

    def page_never_ends(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def page_breaks_off(self) -> None:
        self.answer(png()[:20], Content_Length=len(png()))

    def drip(self, piece: bytes) -> None:
        with suppress(OSError):
            while not self.server.closing.wait(0.02):
                self.wfile.write(piece)
                self.wfile.flush()

    def page_drips(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.drip(b"x")

    def page_drips_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.drip(b"x")

    def page_is_silent(self) -> None:
        self.server.closing.wait()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    pages.daemon_threads = True
    pages.closing = threading.Event()
    threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{pages.server_address[1]}"
    pages.closing.set()
    pages.shutdown()
    pages.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "*")


# ---- URLs -----------------------------------------------------------------------------------------------------------


def test_a_url_is_read(server):
    assert read_image(f"{server}/image").size == (3, 2)
    assert read_image(f"{server.replace('http', 'HTTP')}/image?size=1#part").size == (3, 2)


def test_a_url_may_be_spelt_as_people_spell_it(server):
    assert read_image(f"{server}/lé chat?name=é è").size == (3, 2)


def test_redirects_are_followed_up_to_the_limit(server):
    assert read_image(f"{server}/two_steps").size == (3, 2)
    assert read_image(f"{server}/two_steps", ImageLimits(max_redirects=2)).size == (3, 2)
    with pytest.raises(BadImage, match="1 redirects are followed"):
        read_image(f"{server}/two_steps", ImageLimits(max_redirects=1))
    with pytest.raises(BadImage, match="0 redirects are followed"):
        read_image(f"{server}/one_step", ImageLimits(max_redirects=0))


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("nothing_here", "HTTP 404 Not Found"),
        ("broken", "HTTP 500 Internal Server Error"),
        ("web_page", "a web page"),
        ("empty", "0 bytes"),
        ("loop", "5 redirects are followed"),
        ("to_a_file", "we do not follow"),
        ("to_ftp", "we do not follow"),
        ("says_large", "1000000000000 bytes, the limit max_bytes is"),
        ("breaks_off", r"broke off after 20 of \d+ bytes"),
    ],
)
def test_a_disappointing_server_is_a_bad_image_that_names_it(server, page, seen):
    with pytest.raises(BadImage, match=seen) as caught:
        read_image(f"{server}/{page}")
    assert page in str(caught.value) or page == "loop"


def test_an_endless_body_is_cut_at_the_limit(server):
    with pytest.raises(BadImage, match="more than 1000000 bytes"):
        read_image(f"{server}/never_ends", ImageLimits(max_bytes=1_000_000))


@pytest.mark.parametrize("page", ["drips", "drips_headers", "is_silent"])
def test_a_slow_server_is_left_in_time_and_its_thread_ends(server, page):
    start = time.monotonic()
    with pytest.raises(BadImage, match=r"did not arrive within 0\.4 s"):
        read_image(f"{server}/{page}", ImageLimits(timeout_s=0.4))
    assert time.monotonic() - start < 5  # 0.4 s, and room for a busy machine
    for thread in threading.enumerate():
        if thread.name == "openflorence-download":
            thread.join(3)
            assert not thread.is_alive()


def test_a_host_that_does_not_answer_is_a_bad_image():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: the port refuses
        port = taken.getsockname()[1]
        with pytest.raises(BadImage, match=r"(?i)refused"):
            read_image(f"http://127.0.0.1:{port}/image.png")
        with pytest.raises(BadImage):
            read_image(f"https://127.0.0.1:{port}/image.png")


def test_https_is_not_spoken_with_a_server_that_has_none(server):
    with pytest.raises(BadImage):
        read_image(f"{server.replace('http', 'https')}/image")


def test_urls_can_be_turned_off(server):
    with pytest.raises(BadImage, match="turned off"):
        read_image(f"{server}/image", ImageLimits(allow_url=False))


def test_messages_keep_secrets(server):
    for url in (f"{server}/nothing?token=s3cret", f"{server.replace('//', '//ann:s3cret@')}/image"):
        with pytest.raises(BadImage) as caught:
            read_image(url)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(BadImage, match="user name or password"):
        read_image("https://ann:s3cret@127.0.0.1/image.png")
    assert name_source("https://ann:s3cret@host.org/a.png?token=s3cret#s3cret") == "image 'https://host.org/a.png'"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "https:///path",
        "http://[::1",
        "http://host:port/",
        "http://host:99999999/",
        "http:image.png",
        "http://" + "a" * 300 + ".invalid/",
        "http://a\x00b/",
        "http://\u2100.invalid/",
        "http://a..b/",
    ],
    ids=ascii,
)
def test_a_url_that_is_none_is_a_bad_image(url):
    with pytest.raises(BadImage):
        read_image(url, ImageLimits(timeout_s=5.0))


@pytest.mark.parametrize("scheme", ["file", "FTP", "gopher", "s3", "jar"])
def test_other_schemes_are_refused(scheme):
    with pytest.raises(BadImage, match=f"{scheme.lower()}:// is refused"):
        read_image(f"{scheme}:///etc/hostname")


# ---- data URLs ------------------------------------------------------------------------------------------------------


def test_data_urls_are_read():
    code = base64.b64encode(png()).decode()
    lines = "\n".join(code[i : i + 60] for i in range(0, len(code), 60))
    for url in (
        f"data:image/png;base64,{code}",
        f"DATA:image/png;BASE64,{code}",
        f"data:;base64,{lines}",
        f"data:image/png;base64,{urllib.parse.quote(code, safe='')}",
        f"data:image/png,{urllib.parse.quote_from_bytes(png())}",
    ):
        assert read_image(url).size == (3, 2)
    assert read_image(f"data:image/png;base64,{code}", ImageLimits(allow_url=False)).size == (3, 2)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,", "0 bytes"),
        ("data:image/png;base64,&&&", "not valid base64"),
        ("data:image/png;base64,abc", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=", "not an image"),
        ("data:,hello", "not an image"),
        ("data:image/png;base64,\u00e9", "not valid base64"),
    ],
)
def test_a_bad_data_url_is_named_by_its_length(url, seen):
    with pytest.raises(BadImage, match=seen) as caught:
        read_image(url)
    assert f"data URL of {len(url)} characters" in str(caught.value)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "no such file.png", "no\0name", "x" * 5000, "\ud800", "~nobody-of-that-name/a.png"]
)
def test_a_path_that_leads_nowhere_is_a_bad_image(name):
    with pytest.raises(BadImage):
        read_image(name)


def test_a_message_names_the_path(tmp_path):
    with pytest.raises(BadImage, match=r"street\.jpg'?: there is no such file"):
        read_image(tmp_path / "street.jpg")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(BadImage, match="is a folder"):
        read_image(tmp_path)


def test_an_empty_file_and_empty_bytes_are_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    for source in (tmp_path / "empty.png", b"", io.BytesIO()):
        with pytest.raises(BadImage, match="0 bytes"):
            read_image(source)


def test_a_file_we_may_not_read_is_a_bad_image(tmp_path, monkeypatch):
    (tmp_path / "private.png").write_bytes(png())

    def refuse(*_: object) -> int:  # a mode of 000 would not stop the administrator, who may run these tests
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadImage, match=r"private\.png'?: Permission denied"):
        read_image(tmp_path / "private.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.timeout(10)
def test_pipes_sockets_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/stdin", "/dev/tty"):
            if not os.path.exists(path) or os.path.isfile(path):
                continue
            with pytest.raises(BadImage, match="pipe, socket or device"):
                read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.timeout(10)
def test_a_file_that_became_a_pipe_meanwhile_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(png())
    was = os.stat(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: was)
        with pytest.raises(BadImage, match="pipe, socket or device"):
            read_bytes(str(tmp_path / "pipe"))


def test_the_byte_limit_is_a_setting(tmp_path):
    data = png()
    (tmp_path / "a.png").write_bytes(data)
    code = f"data:;base64,{base64.b64encode(data).decode()}"
    for source in (tmp_path / "a.png", data, io.BytesIO(data), code):
        limits = ImageLimits(max_bytes=len(data))
        assert read_bytes(io.BytesIO(data) if isinstance(source, io.BytesIO) else source, limits) == data
        with pytest.raises(BadImage, match=f"the limit max_bytes is {len(data) - 1}"):
            read_bytes(source, ImageLimits(max_bytes=len(data) - 1))


def test_an_open_file_is_read_from_where_it_stands(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"header" + png())
    with open(tmp_path / "a.bin", "rb") as file:
        file.seek(6)
        assert read_image(file).size == (3, 2)


def test_bad_open_files_are_bad_images(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    closed = open(tmp_path / "a.png", "rb")  # noqa: SIM115  # closed is what it is for
    closed.close()

    class Endless:
        def read(self, size: int) -> bytes:
            return bytes(size)

    class Failing:
        def read(self, _: int) -> bytes:
            raise RuntimeError("the disk is on fire")

    for source, seen in (
        (closed, "closed file"),
        (io.StringIO("text"), "open it in mode 'rb'"),
        (Endless(), "more than 1000000 bytes"),
        (Failing(), "the disk is on fire"),
    ):
        with pytest.raises(BadImage, match=seen):
            read_image(source, ImageLimits(max_bytes=1_000_000))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("max_pixels", 0), ("max_bytes", -1), ("timeout_s", 0.0), ("timeout_s", float("nan")), ("max_redirects", -1)],
)
def test_limits_are_numbers_above_zero(setting, value):
    with pytest.raises(BadConfig, match=setting):
        ImageLimits(**{setting: value})
