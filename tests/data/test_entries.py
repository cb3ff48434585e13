"""Fields and files of annotations: taken as they are or refused, and never half written."""

import json

import pytest

from openflorence.data.entries import find_image, numbers, pixels, read_json, read_lines, take, write_json, write_lines
from openflorence.data.problems import Problems
from openflorence.errors import BadRecord


@pytest.mark.parametrize(
    ("value", "kind"), [(True, int), (1.0, int), ("1", int), (1, str), (None, str), ((), list), ([], dict), (1, bool)]
)
def test_a_field_of_another_kind_is_refused(value, kind):
    with pytest.raises(BadRecord, match=r"a\.json, image 3: 'x' is"):
        take({"x": value}, "x", kind, "a.json, image 3")


@pytest.mark.parametrize("entry", [None, [], "x", 5])
def test_an_entry_that_is_no_object_is_refused(entry):
    with pytest.raises(BadRecord, match=r"a\.json, image 3 is .*an object"):
        take(entry, "x", int, "a.json, image 3")
    with pytest.raises(BadRecord, match="has no 'x'"):
        take({}, "x", int, "a.json, image 3")


@pytest.mark.parametrize(
    "value", [None, "1234", [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, 10**400]]
)
def test_four_numbers_are_four_numbers(value):
    with pytest.raises(BadRecord, match=r"box is .*numbers"):
        numbers(value, 4, "box")
    assert numbers([1, 2.5, -3, 4], 4, "box") == (1.0, 2.5, -3.0, 4.0)


def test_halves_of_a_pixel_go_up():
    # By hand; Python's own round goes to the even number.
    assert [pixels(value) for value in (0.5, 1.5, 2.5, -0.5, 2.49)] == [1, 2, 3, 0, 2]


def test_lines_come_with_their_numbers_and_without_what_is_around_them(tmp_path):
    # A separator inside a line, as U+2028 in JSON, does not end it.
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\n \n two\u2028\x0b \r\nthree".encode() + b"\n\xe9\nfive")
    problems = Problems()
    lines = list(read_lines(tmp_path / "a.txt", problems))
    assert lines == [(1, "one"), (4, " two\u2028\x0b "), (5, "three"), (7, "five")]
    assert problems.examples == {"text not readable": [f"{tmp_path / 'a.txt'}:6: byte 0xe9 is not UTF-8"]}
    again = write_lines(["one", " two\u2028 "], tmp_path / "b.txt")
    assert list(read_lines(again, problems)) == [(1, "one"), (2, " two\u2028 ")]


def test_json_that_is_damaged_or_too_deep_is_an_error_that_names_the_file(tmp_path):
    for data in (b"", b"{", b"\xff", b"[" * 200_000):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(BadRecord, match=r"a\.json"):
            read_json(tmp_path / "a.json")
    with pytest.raises(BadRecord, match=r"gone\.json"):
        read_json(tmp_path / "gone.json")
    assert read_json(write_json({"绿": [1, None]}, tmp_path / "new" / "b.json")) == {"绿": [1, None]}
    assert json.loads((tmp_path / "new" / "b.json").read_text("utf-8")) == {"绿": [1, None]}


def test_an_image_is_named_from_the_root_when_it_lies_below_it(tmp_path):
    root = tmp_path / "data"
    for place in (root / "images", tmp_path / "beside"):
        place.mkdir(parents=True)
        (place / "a.jpg").touch()
    assert find_image(root, "a.jpg", [root / "images"]) == "images/a.jpg"
    found = find_image(root, "a.jpg", [root / ".." / "beside", root])
    assert found == str(tmp_path / "beside" / "a.jpg")
    assert find_image(root, "b.jpg", [root / "images"]) == "b.jpg"
