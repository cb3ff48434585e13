"""Pickles of plain values give the values; a pickle that wants anything else is refused before it gets it."""

import json
import subprocess
import sys

import pytest

from openflorence.data.plain_pickle import read_plain_pickle
from openflorence.errors import BadRecord

VALUE = [
    {"ref_id": 0, "ann_id": 1719310, "sentences": [{"tokens": ["the", "lady"], "sent": "the lady"}]},
    {"numbers": [-1, 255, 256, 65536, 2**31, -(2**40), 2**70, 1.5, 1e300], "flags": [True, False, None]},
    {"texts": ["", "it's", 'a "quote"', "line\nbreak \\ back", "é", "绿", "😀", "x" * 300]},
    [],
    {},
]


def pickled(expression: str, protocol: int) -> bytes:
    """Real bytes, from Python's own pickle in a process of its own."""
    code = f"import pickle, sys, json; sys.stdout.buffer.write(pickle.dumps({expression}, {protocol}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes):
        (tmp_path / "refs.p").write_bytes(data)
        return read_plain_pickle(tmp_path / "refs.p")

    return read_bytes


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_of_every_protocol_is_read(read, protocol):
    assert read(pickled(f"json.loads({json.dumps(VALUE)!r})", protocol)) == VALUE


@pytest.mark.parametrize("protocol", range(6))
def test_tuples_bytes_and_shared_values_are_read(read, protocol):
    seen = read(pickled("(lambda s: [s, s, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)])(['x'])", protocol))
    assert seen == [["x"], ["x"], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]
    assert seen[0] is seen[1]
    if protocol > 2:  # below, Python 3 has a function called to make bytes
        assert read(pickled("b'ab\\xff'", protocol)) == b"ab\xff"


# As Python 2 wrote `str`, by hand from pickletools' table: S is quoted, U counts in one byte, T in four.
@pytest.mark.parametrize(
    "data",
    [
        b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9 it\\'s'\np3\nsS'ref_id'\np4\nI7\nsa.",
        b'(lp0\n(dp1\nS"sent"\np2\nS"caf\\xc3\\xa9 it\'s"\np3\nsS"ref_id"\np4\nL7L\nsa.',
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x0acaf\xc3\xa9 it'sU\x06ref_idK\x07ua.",
        b"\x80\x02]q\x00}q\x01(T\x04\x00\x00\x00sentq\x02T\x0a\x00\x00\x00caf\xc3\xa9 it'sU\x06ref_idK\x07ua.",
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x09caf\xe9 it'sU\x06ref_idK\x07ua.",  # Latin-1
    ],
)
def test_texts_of_python_2_are_read_as_utf_8_or_else_latin_1(read, data):
    assert read(data) == [{"sent": "café it's", "ref_id": 7}]


REFUSED = {
    "GLOBAL": b"cposix\nsystem\n(S'touch %s'\ntR.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08touch %s\x85R.",
    "INST": b"(S'touch %s'\niposix\nsystem\n.",
    "PERSID": b"Pabc\n.",
    "BINPERSID": b"K\x01Q.",
    "EXT1": b"\x82\x01.",
    "REDUCE": b"K\x01K\x02R.",
    "BUILD": b"K\x01K\x02b.",
    "OBJ": b"(K\x01o.",
    "NEWOBJ": b"K\x01)\x81.",
    "BYTEARRAY8": b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_run_code_is_refused_by_name_and_not_run(read, tmp_path, name):
    made = tmp_path / "made"
    data = REFUSED[name]
    with pytest.raises(BadRecord, match=rf"refs\.p: the pickle asks for {name}\b.*JSON"):
        read(data % str(made).encode() if b"%s" in data else data)
    assert not made.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"]",
        b"]a.",
        b"s.",
        b"K\x01K\x02.",
        b"h\x05.",
        b"}]K\x01s.",
        b"(.",
        b"(\x85.",
        b"K\x01(\x86.",
        b"(l",
        b"\xff.",
    ],
)
def test_a_damaged_pickle_is_an_error_that_names_the_file(read, data):
    with pytest.raises(BadRecord, match=r"refs\.p"):
        read(data)


def test_every_place_a_pickle_is_cut_is_noticed(read):
    data = pickled(f"json.loads({json.dumps(VALUE)!r})", 2)
    for end in range(0, len(data), 7):
        with pytest.raises(BadRecord):
            read(data[:end])
