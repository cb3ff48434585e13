"""What pages are made of: names, texts that are cut, strips, pictures."""

import numpy as np
from PIL import Image

from openflorence.contract.regions import Answer, Box, Region
from openflorence.contract.tasks import find_task
from openflorence.pages.charts import bars_svg, ends_of, heat_svg, interval_svg, short_count
from openflorence.pages.pictures import data_uri, draw_sheet
from openflorence.pages.pieces import (
    Beside,
    Chart,
    Charts,
    Heading,
    Page,
    Table,
    Words,
    as_html,
    as_markdown,
    called,
    shorten,
)
from tests.webpage import standing_alone


def test_names_are_written_as_people_do():
    assert called("recall_at_1") == "R@1"
    assert called("map_order") == "mAP order"
    assert called("mask_ap50") == "mask AP50"
    assert called("cider_d_in-domain") == "CIDEr-D in-domain"
    assert called("silent_without_text") == "silent without text"


def test_a_text_that_is_cut_says_how_long_it_was():
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "abc … (4 letters)"


def test_a_strip_puts_values_in_their_place():
    # 150 wide with 6 at each end: the middle is 75; what is beyond an end stands at it.
    assert 'cx="75.0"' in interval_svg(0.5, None, (0.0, 1.0))
    assert 'x1="6.0" y1="11.0" x2="144.0"' in interval_svg(0.5, (-1.0, 3.0), (0.0, 1.0))
    assert ends_of([(-0.1, 0.3), (0.0, float("inf"))]) == (-0.3, 0.3)
    assert ends_of([]) == (-1.0, 1.0)


def test_a_picture_is_the_smaller_of_two_files():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert data_uri(Image.new("RGB", (64, 64), "#808080")).startswith("data:image/png;base64,")
    assert data_uri(noise).startswith("data:image/jpeg;base64,")


def test_bars_are_as_high_as_their_counts():
    # 150 high, their feet at 170: of 4 and 1 the second is a quarter, 37.5, and begins at 132.5.
    drawn = bars_svg([4, 0, 1], ["a", "b", "c"], "three")
    assert drawn.count("<rect") == 2
    assert 'y="20.0" width="28.0" height="150.0"' in drawn
    assert 'y="132.5" width="28.0" height="37.5"' in drawn
    assert 'aria-label="three"' in drawn


def test_edges_stand_between_bars_and_long_names_make_them_wide():
    # Bars of 32 from 6 on: the edge between the first two is at 38.
    assert '<text x="38.0" y="185.0" text-anchor="middle">10</text>' in bars_svg([1, 1], ["10"], "", between=True)
    # Ten letters of 6.5 and 6 beside them: 71.
    assert 'width="67.0"' in bars_svg([1], ["0123456789"], "")
    assert "nan" not in bars_svg([0, 0], ["a", "b"], "") + bars_svg([], [], "")


def test_a_map_is_as_dark_as_the_root_of_its_counts():
    # Cells of 85: a quarter of the most is half as dark, none is not drawn.
    drawn = heat_svg([[4, 0], [0, 1]], "map")
    assert 'x="0.0" y="0.0" width="85.0" height="85.0" fill-opacity="1.00"' in drawn
    assert 'x="85.0" y="85.0" width="85.0" height="85.0" fill-opacity="0.50"' in drawn
    assert drawn.count("fill-opacity") == 2
    assert heat_svg([[0]], "empty").count("<rect") == 1  # its frame


def test_a_count_above_a_bar_is_short():
    counts = [0, 999, 1_000, 1_240, 9_960, 12_400, 999_600, 3_400_000, 5_423_000_000]
    assert [short_count(count) for count in counts] == [
        "0", "999", "1.0k", "1.2k", "10k", "12k", "1.0M", "3.4M", "5.4G"
    ]  # fmt: skip


def test_an_aligned_table_has_its_marks_below_one_another():
    table = Table(
        ("name", "n", "why"), [["a", "1", "short"], ["long name", "1,000", "a longer reason"]], words=frozenset({2})
    )
    page = Page("T", [table])
    assert as_markdown(page, aligned=True).splitlines()[2:] == [
        "| name      |     n | why             |",
        "| --------- | ----: | --------------- |",
        "| a         |     1 | short           |",
        "| long name | 1,000 | a longer reason |",
    ]
    assert "| name | n | why |\n| --- | ---: | --- |" in as_markdown(page)


def test_charts_and_columns_have_their_tables_in_both_forms():
    table = Table(("size", "n"), [["small", "3"]])
    drawn = Charts([Chart(bars_svg([3], ["small"], "sizes"), table, "by <size>")])
    page = Page("T", [drawn, Beside([[Heading("left", 3), Words("one")], [table]])])
    reader = standing_alone(as_html(page))
    assert reader.rows.count(["small", "3"]) == 2
    assert "by <size>" in reader.words
    assert {"details", "summary", "svg", "h3"} <= {tag for tag, _ in reader.tags}
    markdown = as_markdown(page)
    assert markdown.count("| small | 3 |") == 2
    assert "### left" in markdown


def test_a_sheet_has_two_panels_in_a_row_and_one_panel_is_no_sheet():
    picture = Image.new("RGB", (480, 240), "#808080")
    answer = Answer(find_task("detect"), (480, 240), "", (Region("cat", box=Box(10, 40, 90, 90)),))
    assert draw_sheet([("one", answer)], picture).size == (480, 240)
    two = draw_sheet([("one", answer), ("two", answer)], picture)
    three = draw_sheet([("one", answer)] * 3, picture)
    assert two.width == three.width == 2 * 480 + 12
    assert two.height > 240  # its captions
    assert three.height == 2 * two.height + 12
