"""Any place an image may come from -> its bytes, within limits: paths, URLs, data URLs, bytes, open files.

Everything here may be given by a stranger: nothing hangs, nothing grows without bound, nothing but BadImage is raised.
"""

import base64
import binascii
import http.client
import io
import os
import re
import socket
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

from openflorence.errors import BadConfig, BadImage

_CHUNK_BYTES = 1 << 16
_SHOWN_CHARACTERS = 120  # of a path or URL in a message


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """How much an image may cost. Lower these, and turn URLs off, where strangers choose the images."""

    max_pixels: int = 120_000_000  # width times height, read from the header; a 108-megapixel photograph fits
    max_bytes: int = 256 * 2**20  # encoded size, of a file or of a download
    timeout_s: float = 20.0  # for one URL as a whole: name lookup, redirects and the last byte included
    max_redirects: int = 5  # followed for one URL
    allow_url: bool = True  # whether http:// and https:// are fetched at all

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "timeout_s"):
            if not getattr(self, name) > 0:
                raise BadConfig(f"image limit {name} is {getattr(self, name)!r}; give a number above 0")
        if self.max_redirects < 0:
            raise BadConfig(f"image limit max_redirects is {self.max_redirects!r}; give 0 or more")


DEFAULT_LIMITS = ImageLimits()


def name_source(source: object) -> str:
    """Name an input the way messages do: short, and without the user name, password or query of a URL."""
    if isinstance(source, (str, os.PathLike)):
        return _name_text(str(os.fspath(source)))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image of {len(source)} bytes"
    name = getattr(source, "name", None)
    if hasattr(source, "read"):
        return f"open file {_shorten(name)!r}" if isinstance(name, str) else "open file"
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return f"array of shape {tuple(source.shape)} and type {source.dtype}"
    if hasattr(source, "mode") and hasattr(source, "size"):
        return f"{source.mode} image of {source.size[0]} x {source.size[1]} px"
    return f"input of type {type(source).__name__}"


def read_bytes(source: object, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Give the encoded bytes of an image.

    source   path (`~` allowed), http(s) URL, data URL, bytes, or a file open for reading bytes.
    raises   BadImage naming the source if it cannot be read within the limits.
    promise  URLs end within `timeout_s`; pipes, devices and folders are refused, not waited for.
    """
    try:
        data = _read_any(source, limits)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage(f"cannot read {name_source(source)}: {_reason(error)}") from error
    if not data:
        raise BadImage(f"{name_source(source)} is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise _too_large(source, f"more than {limits.max_bytes} bytes", limits)
    return data


def _read_any(source: object, limits: ImageLimits) -> bytes:
    if isinstance(source, str):
        scheme = source[: source.index(":")].lower() if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source) else ""
        if scheme == "data":
            return _read_data_url(source, limits)
        if scheme in ("http", "https"):
            return _read_url(source, limits)
        if scheme and source[len(scheme) :].startswith("://"):
            raise BadImage(f"cannot read {name_source(source)}: {scheme}:// is refused; give a path or an http(s) URL")
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.path.expanduser(os.fspath(source)), limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "read"):
        return _read_file(source, limits)
    raise BadImage(
        f"cannot read {name_source(source)} as an image; give a path, URL, bytes, open file, PIL image, "
        "numpy array or torch tensor"
    )


def _read_path(path: Any, limits: ImageLimits) -> bytes:
    if not path:
        raise BadImage("the image path is empty: give the path of a file")
    # Looked at before it is opened, since opening some devices acts; opened without waiting, since it may have been
    # replaced by a pipe in between.
    _check_regular(os.stat(path), path, limits)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        _check_regular(os.fstat(descriptor), path, limits)
        return file.read(limits.max_bytes + 1)


def _check_regular(found: os.stat_result, path: str, limits: ImageLimits) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise BadImage(f"{name_source(path)} is a folder; give one of the images in it")
    if not stat.S_ISREG(found.st_mode):
        raise BadImage(f"{name_source(path)} is a pipe, socket or device; give a regular file, or its bytes")
    if found.st_size > limits.max_bytes:
        raise _too_large(path, f"{found.st_size} bytes", limits)


def _read_file(file: Any, limits: ImageLimits) -> bytes:
    """Read an open file from where it stands; one that yields text, or fails in its own way, is a bad image."""
    pieces = io.BytesIO()
    while pieces.tell() <= limits.max_bytes:
        try:
            piece = file.read(_CHUNK_BYTES)
        except Exception as error:  # somebody else's object: it may raise anything
            raise BadImage(f"cannot read {name_source(file)}: {_reason(error)}") from error
        if not isinstance(piece, (bytes, bytearray)):
            raise BadImage(f"{name_source(file)} gives {type(piece).__name__}, not bytes; open it in mode 'rb'")
        if not piece:
            break
        pieces.write(piece)
    return pieces.getvalue()


def _read_data_url(url: str, limits: ImageLimits) -> bytes:
    if len(url) > 4 * limits.max_bytes:  # every byte is at most three characters, and a header
        raise _too_large(url, f"{len(url)} characters", limits)
    head, comma, body = url.partition(",")
    if not comma:
        raise BadImage(f"{name_source(url)} has no comma; the form is data:image/png;base64,<data>")
    data = urllib.parse.unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as error:
        raise BadImage(f"{name_source(url)} is not valid base64: {error}") from error


def _read_url(url: str, limits: ImageLimits) -> bytes:
    if not limits.allow_url:
        raise BadImage(f"cannot read {name_source(url)}: URLs are turned off here; give a file")
    download = _Download(url, limits)
    # urllib's timeout is per packet, so a slow server could keep us for ever. The thread is what bounds the whole,
    # name lookup included; it is told to stop, and nobody waits for it.
    worker = Thread(target=download.run, name="openflorence-download", daemon=True)
    worker.start()
    worker.join(limits.timeout_s)
    error = download.error
    # The worker may notice first, in its loop or at its socket; urllib wraps the latter.
    if worker.is_alive() or isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", 0), TimeoutError):
        download.stop()
        raise BadImage(f"{name_source(url)} did not arrive within {limits.timeout_s:g} s") from error
    if error is not None:
        raise error
    return download.data


class _Download:
    """One URL on its way: the worker fills `data` or `error`, the caller may stop it."""

    def __init__(self, url: str, limits: ImageLimits) -> None:
        self.url = url
        self.limits = limits
        self.deadline_s = time.monotonic() + limits.timeout_s
        self.data = b""
        self.error: Exception | None = None
        self.web = _Web()

    def run(self) -> None:
        """Fetch. Whatever goes wrong is kept for the caller: an exception that ends a thread is only printed."""
        try:
            self.data = self._fetch()
        except Exception as error:
            self.error = error if isinstance(error, (BadImage, OSError)) else OSError(_reason(error))

    def stop(self) -> None:
        """Close the line, so that a worker that waits for a byte wakes up and ends."""
        for line in self.web.lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _fetch(self) -> bytes:
        request = urllib.request.Request(_clean_url(self.url), headers={"User-Agent": "openflorence"})
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            self.web,
            _Redirects(self.limits.max_redirects),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        with opener.open(request, timeout=self.limits.timeout_s) as response:
            return self._read_body(response)

    def _read_body(self, response: http.client.HTTPResponse) -> bytes:
        announced = response.headers.get("Content-Length", "")
        expected = int(announced) if announced.isdecimal() else None
        if expected is not None and expected > self.limits.max_bytes:
            raise _too_large(self.url, f"{expected} bytes", self.limits)
        pieces = io.BytesIO()
        while pieces.tell() <= self.limits.max_bytes:
            if time.monotonic() > self.deadline_s:
                raise TimeoutError
            piece = response.read1(_CHUNK_BYTES)  # whatever has come; read() would wait for the whole chunk
            if not piece:
                break
            pieces.write(piece)
        if expected is not None and pieces.tell() < expected:
            raise BadImage(f"{name_source(self.url)} broke off after {pieces.tell()} of {expected} bytes")
        return pieces.getvalue()


class _Web(urllib.request.AbstractHTTPHandler):
    """Opens http and https and remembers each line, so that it can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[socket.socket] = []

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connect(_Plain, self.lines), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connect(_Secure, self.lines), request, context=ssl.create_default_context())

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Plain(http.client.HTTPConnection):
    lines: list[socket.socket]

    def connect(self) -> None:
        super().connect()
        self.lines.append(self.sock)


class _Secure(http.client.HTTPSConnection):
    lines: list[socket.socket]

    def connect(self) -> None:
        super().connect()
        self.lines.append(self.sock)


def _connect(kind: type[_Plain] | type[_Secure], lines: list[socket.socket]) -> Any:
    def connection(host: str, **options: Any) -> _Plain | _Secure:
        made = kind(host, **options)
        made.lines = lines
        return made

    return connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most so many redirects, to http and https only."""

    max_repeats = 1 << 30  # urllib's own two counts are not needed beside ours
    max_redirections = 1 << 30

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen = 0

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.seen += 1
        if self.seen > self.most:
            raise BadImage(f"{name_source(req.full_url)} redirects again; {self.most} redirects are followed")
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise BadImage(f"{name_source(req.full_url)} leads where we do not follow: not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, _clean_url(newurl))


def _clean_url(url: str) -> str:
    """Spell a URL so that it can be sent: spaces and other alphabets escaped, no fragment, no password."""
    parts = urllib.parse.urlsplit(url.strip())
    if not parts.hostname:
        raise BadImage(f"{name_source(url)} names no host; the form is https://host/path")
    if "@" in parts.netloc:
        raise BadImage(f"{name_source(url)} holds a user name or password, which is not sent; download it first")
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    path = urllib.parse.quote(parts.path, safe="/%:=&~+!$,;'@()*")
    query = urllib.parse.quote(parts.query, safe="/%:=&?~+!$,;'@()*[]")
    return urllib.parse.urlunsplit((parts.scheme.lower(), host, path, query, ""))


def _name_text(text: str) -> str:
    if text[:5].lower() == "data:":
        return f"data URL of {len(text)} characters"
    if not re.match(r"https?:", text, re.IGNORECASE):
        return f"image {_shorten(text)!r}"
    scheme, _, rest = text.partition(":")
    place = re.split(r"[?#]", rest, maxsplit=1)[0].lstrip("/").split("/", 1)
    host = place[0].rsplit("@", 1)[-1]
    return f"image {_shorten('/'.join([f'{scheme}://{host}', *place[1:]]))!r}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _too_large(source: object, seen: str, limits: ImageLimits) -> BadImage:
    return BadImage(f"{name_source(source)} is too large: {seen}, the limit max_bytes is {limits.max_bytes}")


def _reason(error: Exception) -> str:
    """Say why in a few words, without the URL that some messages repeat."""
    if isinstance(error, urllib.error.HTTPError):
        phrase = f"the server answered HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        return f"{phrase}, and leads where we do not follow" if 300 <= error.code < 400 else phrase
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
