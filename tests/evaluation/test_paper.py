"""The tables of the paper against a second copy, kept in the paper's own arrangement: systems as rows.

Expected: Xiao et al. 2024, tables 4, 5 and 6, as the project's specification quotes them in section 9.
"""

import pytest

from openflorence.evaluation.paper import NONE, PAPER_TABLES, TUNED_REGIONS, TUNED_WORDS, ZERO_SHOT, number

# One column each: captions of COCO, NoCaps and TextCaps; detection; Flickr30k; RefCOCO, +, g; segmentation.
TABLE_4 = """
|Flamingo 80B|84.3|–|–|–|–|– / – / –|– / – / –|– / –|– |
|Kosmos-2 1.6B|–|–|–|–|78.7|52.3 / 57.4 / 47.3|45.5 / 50.7 / 42.2|60.6 / 61.7|– |
|Florence-2-B 0.23B|133.0|118.7|70.1|34.7|83.6|53.9 / 58.4 / 49.7|51.5 / 56.4 / 47.9|66.3 / 65.1|34.6 |
|Florence-2-L 0.77B|135.6|120.8|72.8|37.5|84.4|56.3 / 61.6 / 51.4|53.6 / 57.9 / 49.9|68.0 / 67.0|35.8 |
"""
TABLE_5 = """
| CoCa 2.1B | 143.6 | 122.4 | – | 82.3 | – | – |
| BLIP-2 7.8B | 144.5 | 121.6 | – | 82.2 | – | – |
| GIT2 5.1B | 145 | 126.9 | 148.6 | 81.7 | 67.3 | 71.0 |
| Flamingo 80B | 138.1 | – | – | 82.0 | 54.1 | 65.7 |
| PaLI 17B | 149.1 | 127.0 | 160.0△ | 84.3 | 58.8/73.1△ | 71.6/74.4△ |
| PaLI-X 55B | 149.2 | 126.3 | 147/163.7△ | 86.0 | 71.4/80.8△ | 70.9/74.6△ |
| Unified-IO 2.9B | – | 100 | – | 77.9 | – | 57.4 |
|Florence-2-B 0.23B|140.0|116.7|143.9|79.7|63.6|63.6 |
|Florence-2-L 0.77B|143.3|124.9|151.1|81.7|73.5|72.6 |
"""
TABLE_6 = """
| SeqTR | – | – | 83.7 / 86.5 / 81.2 | 71.5 / 76.3 / 64.9 | 74.9 / 74.2 | – |
| PolyFormer | – | – | 90.4 / 92.9 / 87.2 | 85.0 / 89.8 / 78.0 | 85.8 / 85.9 | 76.9 |
| UNINEXT 0.74B | 60.6 | – | 92.6 / 94.3 / 91.5 | 85.2 / 89.6 / 79.8 | 88.7 / 89.4 | – |
| Ferret 13B | – | – | 89.5 / 92.4 / 84.4 | 82.8 / 88.1 / 75.2 | 85.8 / 86.3 | – |
| UniTAB | – | – | 88.6 / 91.1 / 83.8 | 81.0 / 85.4 / 71.6 | 84.6 / 84.7 | – |
|Florence-2-B 0.23B|41.4|84.0|92.6 / 94.8 / 91.5|86.8 / 91.7 / 82.2|89.8 / 82.2|78.0 |
|Florence-2-L 0.77B|43.4|85.2|93.4 / 95.3 / 92.0|88.3 / 92.9 / 83.6|91.2 / 91.7|80.5 |
"""


def systems(table: str) -> dict[str, tuple[str, ...]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return {name: tuple(part for cell in cells for part in cell.split(" / ")) for name, *cells in rows}


@pytest.mark.parametrize(
    ("table", "printed"),
    [(ZERO_SHOT, TABLE_4), (TUNED_WORDS, TABLE_5), (TUNED_REGIONS, TABLE_6)],
    ids=["table 4", "table 5", "table 6"],
)
def test_every_cell_is_the_one_in_the_paper(table, printed):
    assert table.systems == systems(printed)
    assert {len(cells) for cells in table.systems.values()} == {len(table.rows)}
    assert table.source.startswith("Xiao et al. 2024")


def test_a_number_stands_under_its_benchmark():
    # Read off the paper one by one, so that rows in another order show.
    large = "Florence-2-L 0.77B"
    assert ZERO_SHOT.cell(large, "coco-caption", "Karpathy test") == "135.6"
    assert ZERO_SHOT.cell(large, "refcoco", "testB") == "51.4"
    assert ZERO_SHOT.cell("Kosmos-2 1.6B", "refcoco+", "testA") == "50.7"
    assert ZERO_SHOT.cell(large, "refcoco-segment", "val") == "35.8"
    assert TUNED_WORDS.cell("BLIP-2 7.8B", "vqav2", "test-dev") == "82.2"
    assert TUNED_WORDS.cell(large, "textvqa", "test-dev") == "73.5"
    assert TUNED_WORDS.cell("CoCa 2.1B", "vizwiz", "test-dev") == NONE
    assert TUNED_REGIONS.cell("UNINEXT 0.74B", "coco-detect", "val2017") == "60.6"
    assert TUNED_REGIONS.cell("PolyFormer", "refcocog", "test") == "85.9"
    assert TUNED_REGIONS.cell(large, "flickr30k", "test") == "85.2"


def test_a_cell_is_the_number_reached_without_an_external_reader():
    assert number("135.6") == 135.6
    assert number("58.8/73.1△") == 58.8
    assert number("160.0△") is None
    assert number(NONE) is None
    assert all(
        number(cell) or "△" in cell or cell == NONE
        for table in PAPER_TABLES
        for row in table.systems.values()
        for cell in row
    )


def test_every_benchmark_of_the_paper_is_there_once_a_table():
    for table in PAPER_TABLES:
        keys = [(row.benchmark, row.split) for row in table.rows]
        assert len(set(keys)) == len(keys)
    named = {row.benchmark for table in PAPER_TABLES for row in table.rows}
    assert named == {
        "coco-caption", "nocaps", "textcaps", "coco-detect", "flickr30k", "refcoco", "refcoco+", "refcocog",
        "refcoco-segment", "vqav2", "textvqa", "vizwiz",
    }  # fmt: skip
