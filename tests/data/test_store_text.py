"""What a published round says of an image: short, exact to a hundredth of a pixel, read again."""

import json

import pytest
from odd import odd_record

from openflorence.contract.records import Record, RegionNote, TextNote, record_from_row, record_to_row
from openflorence.contract.shapes import Box, Point
from openflorence.data.store_text import record_to_text, rounded, text_to_row


def read(text, record):
    return record_from_row({"image": record.image, "image_wh": list(record.image_wh), **text_to_row(text)})


@pytest.mark.parametrize("seed", range(60))
def test_a_record_comes_back_to_a_hundredth_of_a_pixel(seed):
    record = odd_record(seed)
    again = read(record_to_text(record), record)
    assert again == record_from_row(rounded(record_to_row(record)))
    assert record_to_text(again) == record_to_text(record)  # rounded once, it stays


def test_an_outline_is_spelt_as_a_point_and_steps():
    ring = (Point(10, 20.5), Point(11.25, 20.5), Point(11.25, 19.999))
    note = RegionNote(box=Box(10, 19, 12, 21), polygons=(ring,), label="cat", score=0.123456)
    record = Record(image="a.png", image_wh=(40, 30), regions=(note,), texts=(TextNote(text="é"),))
    # By hand, in hundredths of a pixel: 10, 20.5; 1.25 to the right; half a pixel up, 19.999 being 20 to a hundredth.
    assert json.loads(record_to_text(record)) == {
        "texts": [{"text": "é"}],
        "regions": [
            {
                "box": [10, 19, 12, 21],
                "label": "cat",
                "score": 0.1235,
                "rings": [[1000, 2050, 125, 0, 0, -50]],
            }
        ],
    }
    (region,) = read(record_to_text(record), record).regions
    assert region.polygons == ((Point(10, 20.5), Point(11.25, 20.5), Point(11.25, 20)),)


def test_a_text_of_an_earlier_version_is_read():
    text = '{"regions":[{"polygons":[[[1,2],[3.25,4],[5,6]]],"label":"cat"}]}'
    assert text_to_row(text) == json.loads(text)
    assert text_to_row(None) == {}
