"""Python pickles of plain values, read without running them.

A pickle is a program: loading one may call anything. RefCOCO is distributed as pickles of dicts, lists, texts and
numbers, so this reads those and refuses every instruction that names, builds or calls something else.
"""

import pickletools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from openflorence.errors import BadRecord

Reader = Callable[[IO[bytes]], Any]
_MARK = object()  # on the stack, where a row of items begins


def read_plain_pickle(path: Path) -> Any:
    """Give the value of a pickle of dicts, lists, tuples, texts, bytes, numbers, booleans and None.

    returns   texts as str. Python 2 wrote its `str` as bytes: they are read as UTF-8, or as Latin-1 where they are not.
    raises    BadRecord naming the file, when it is missing, damaged, or asks for anything else. Nothing of it is run.
    source    Python's own table of the instructions, the standard module pickletools; protocols 0 to 5.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRecord(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return _run(data)
    except BadRecord as error:
        raise BadRecord(f"{path}: {error}") from error
    except Exception as error:  # a damaged file may provoke anything: an empty stack, a key that cannot be one
        raise BadRecord(f"{path} is no whole pickle ({type(error).__name__}: {error}); fetch it again") from error


def _run(data: bytes) -> Any:
    file, stack, memo = BytesIO(data), list[Any](), dict[int, Any]()
    while True:
        code = file.read(1)
        if code == b".":
            if len(stack) != 1 or stack[0] is _MARK:
                raise BadRecord(f"the pickle ends with {len(stack)} values on its stack, not one")
            return stack[0]
        name, read = _CODES.get(code, ("", _nothing))
        if not name:
            raise BadRecord(f"byte {code!r} at {file.tell() - 1} is no instruction of a pickle")
        argument = read(file)
        if name in _LITERALS:
            stack.append(argument)
        elif name in _STACK:
            _STACK[name](stack)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("PROTO", "FRAME"):
            what = name if argument is None else f"{name} {str(argument)[:60]!r}"
            raise BadRecord(
                f"the pickle asks for {what}, which may run code; only plain dicts, lists, texts and numbers are "
                "read: save the data as JSON"
            )


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _quoted(file: IO[bytes]) -> str:
    """A Python 2 string between quotes; the module's own reader takes only ASCII."""
    line = file.readline().rstrip(b"\n")
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise BadRecord(f"a text without quotes: {line[:40]!r}")
    return _text(line[1:-1].decode("unicode_escape").encode("latin-1"))


def _place(file: IO[bytes]) -> int:
    return int(file.readline())


def _nothing(file: IO[bytes]) -> Any:
    """The argument of an instruction that has none."""
    return None


def _counted(read: Reader) -> Reader:
    return lambda file: _text(read(file).encode("latin-1"))  # as bytes, which pickletools shows as Latin-1


def _items(stack: list[Any]) -> list[Any]:
    """Take the items above the last mark, and the mark."""
    place = next(place for place in range(len(stack) - 1, -1, -1) if stack[place] is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _append(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise BadRecord(f"items for a {type(stack[-1]).__name__}, not a list")
    stack[-1].extend(items)


def _set(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not dict:
        raise BadRecord(f"keys for a {type(stack[-1]).__name__}, not a dict")
    stack[-1].update(_dict(items))


def _dict(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[0::2], items[1::2], strict=True))


def _last(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    if len(items) < count or _MARK in items:
        raise BadRecord("an instruction that takes more values than there are")
    del stack[-count:]
    return items


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_STACK: dict[str, Callable[[list[Any]], object]] = {
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "MARK": lambda stack: stack.append(_MARK),
    "POP": lambda stack: stack.pop(),
    "POP_MARK": _items,
    "DUP": lambda stack: stack.append(stack[-1]),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "LIST": lambda stack: stack.append(_items(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_items(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_last(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_last(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_last(stack, 3))),
    "DICT": lambda stack: stack.append(_dict(_items(stack))),
    "APPEND": lambda stack: _append(stack, _last(stack, 1)),
    "APPENDS": lambda stack: _append(stack, _items(stack)),
    "SETITEM": lambda stack: _set(stack, _last(stack, 2)),
    "SETITEMS": lambda stack: _set(stack, _items(stack)),
}


def _codes() -> dict[bytes, tuple[str, Reader]]:
    """Every instruction by its byte, with the reader of its argument."""
    table: dict[bytes, tuple[str, Reader]] = {}
    for code in pickletools.opcodes:
        read: Reader = _nothing if code.arg is None else code.arg.reader
        if code.name == "STRING":
            read = _quoted
        elif code.name in ("PUT", "GET"):  # every other instruction of protocol 0: the module's own reader is slow
            read = _place
        elif code.name in ("BINSTRING", "SHORT_BINSTRING"):
            read = _counted(read)
        table[code.code.encode("latin-1")] = (code.name, read)
    return table


_CODES = _codes()
