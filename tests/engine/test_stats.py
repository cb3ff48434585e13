"""What a round holds, counted; every number below is counted by hand in tests/noted_store.py."""

import math

import pytest

pytest.importorskip("lance")

from openflorence.contract.records import LEVELS
from openflorence.contract.shapes import Box
from openflorence.data.notes import kind_of
from openflorence.engine.stats import ALL, REGION, TEXT, TRIPLET, Stats, measure, tokens
from openflorence.engine.tables import FLD_5B, FLD_5B_FIGURES, as_markdown
from openflorence.engine.tallies import GRID, Coverage, Histogram, Names, Sample
from tests.noted_store import OWN, empty, noted


@pytest.fixture(scope="module")
def stats(tmp_path_factory) -> Stats:
    return measure(noted(tmp_path_factory.mktemp("stats") / "fld"))


def kinds(stats: Stats) -> dict[tuple[str, str], tuple]:
    return {
        (one.group, one.name): (one.annotations, one.images, one.tokens, one.regions, one.region_tokens)
        for one in stats.kinds
        if one.annotations
    }


def test_every_kind_is_counted_as_the_report_does(stats):
    assert kinds(stats) == {
        (TEXT, "brief"): (1, 1, 4, 0, None),  # a red cat sleeps
        (TEXT, "detailed"): (1, 1, 8, 0, None),  # A red cat sleeps on a mat .
        (REGION, ALL): (2, 2, None, 3, None),  # the dropped one is not there
        (REGION, "label"): (2, 2, None, 2, 1),  # cat, cat
        (REGION, "description"): (1, 1, None, 1, 3),  # a red cat
        (REGION, "word"): (1, 1, None, 1, 1),
        (TRIPLET, "brief"): (1, 1, 4, 2, 3),  # one phrase of three words with two boxes: two triplets
        ("question", "questions"): (1, 1, 4, 0, None),  # What is it ?
    }
    each = {(one.group, one.name): one.regions_each for one in stats.kinds}
    assert each[REGION, ALL] == 1.5
    assert each[TRIPLET, "brief"] == 2
    assert each[TEXT, "brief"] is None
    # 2 texts, 3 regions, 2 triplets, 1 question; what describes a region once more is no other annotation.
    assert stats.annotations == 8
    assert (stats.images, stats.annotated, stats.failed_inputs) == (4, 2, 1)


def test_what_texts_say_is_a_mean_over_them(stats):
    brief, detailed = stats.meanings
    assert (brief.level, brief.texts, detailed.level, detailed.texts) == ("brief", 1, "detailed", 1)
    # cat | red | sleeps; at "cat" hang a and red, and it hangs on sleeps; at "sleeps" hangs cat.
    assert list(brief.figures.values()) == [1, 1, 1, 0, 3, 1]
    # cat, mat | red | sleeps; at "sleeps" hang cat and on.
    assert list(detailed.figures.values()) == [2, 1, 1, 0, 3, 2]


def test_where_boxes_are_and_how_large(stats):
    regions = stats.coverage[REGION]
    # Centres 25,25 and 70,12.5 and 50,25 of 100 x 50.
    places = {(4, 8), (11, 4), (8, 8)}
    assert {(x, y) for y, row in enumerate(regions.grid) for x, count in enumerate(row) if count} == places
    # Square roots of shares: 0.707, sqrt(100/5000) = 0.141, sqrt(200/5000) = 0.2.
    assert [(low, count) for low, _, count in regions.sizes.bins if count] == [(0.1, 1), (0.2, 1), (0.6, 1)]
    # 50:50, 20:5, 20:10.
    assert [(low, count) for low, _, count in regions.aspects.bins if count] == [(4 / 5, 1), (2.0, 1), (4.0, 1)]
    assert [(low, count) for low, _, count in regions.each.bins if count] == [(0, 2), (1, 1), (2, 1)]
    assert stats.coverage[TRIPLET].n == 2


def test_names_scores_and_sources(stats):
    assert stats.named["labels"].top(5) == [("cat", 2)]
    assert stats.named["words read"].top(5) == [("EXIT", 1)]
    assert stats.named["phrases"].top(5) == [("a red cat", 1)]
    # 0.95 and 1.0, 0.5; a score of 1 belongs to the last tenth.
    assert [(low, count) for low, _, count in stats.scores["regions"].bins if count] == [(0.5, 1), (0.9, 2)]
    assert dict(stats.unscored) == {"texts": 1, "phrases": 1}
    assert {origin: dict(counts) for origin, counts in stats.origins.items()} == {
        OWN: {"texts": 2, "regions": 3, "groundings": 1, "questions": 1}
    }


def test_what_failed_and_what_was_dropped_have_their_reason(stats):
    ingest, own = stats.failures
    assert (ingest.stage, ingest.kind, ingest.count) == ("ingest", "BadImage", 1)
    assert "broken.jpg" in ingest.first[0].uri
    assert (own.stage, own.status, own.kind, own.count) == ("own", "failed", "Timeout", 1)
    assert (own.first[0].row, own.first[0].message) == (2, "took more than 5 s")
    (score,) = stats.dropped
    assert (score.layer, score.rule, score.kind, score.count) == ("filter", "score", "region", 1)
    (one,) = score.sample.kept
    assert (one.row, one.note_id, one.reason, one.value) == (1, "own/region1", "score 0.20 is below 0.50", 0.2)
    layers = {one.layer: (dict(one.statuses), one.notes, one.dropped) for one in stats.layers}
    assert layers == {"own": ({"ok": 3, "failed": 1}, 8, 0), "filter": ({"ok": 4}, 0, 1)}


def test_the_images_with_most_and_fewest_are_named(stats):
    assert stats.most == (0, 1, 2, 3)  # 6, 2, none, none; of equally many the first
    assert stats.fewest == (2, 3, 1, 0)


def test_fewer_texts_are_parsed_when_there_are_many(tmp_path):
    found = measure(noted(tmp_path / "fld"), parsed=2)
    assert found.parsed_every == 2  # rows 0 and 2
    assert [one.texts for one in found.meanings] == [1, 1]
    assert "one image in 2" in as_markdown(found)


def test_an_empty_round_is_counted(tmp_path):
    found = measure(empty(tmp_path / "fld"))
    assert (found.images, found.annotated, found.annotations) == (4, 0, 0)
    assert kinds(found) == {}
    text = as_markdown(found)
    assert "| text, brief" in text
    assert "Where regions are" not in text
    assert "nan" not in text


def test_the_tables_say_what_was_counted(stats):
    lines = [" ".join(line.split()) for line in as_markdown(stats).splitlines()]
    assert "# Round 0 of fld" in lines
    assert "- annotations: 8" in lines
    assert "| region-text, all | 2 | – | – | 3 | 1.50 | – |" in lines
    assert "| text-phrase-region, brief | 1 | 1 | 4.00 | 2 | 2.00 | 3.00 |" in lines
    assert "| object complexity | 3.00 | 3.00 |" in lines
    assert "| score | region | filter | 1 | score 0.20 is below 0.50 |" in lines
    assert "| own | failed | Timeout | 1 | took more than 5 s |" in lines
    assert "| own, m 1, round 0 | 2 | 3 | 1 | 1 |" in lines
    short = as_markdown(stats, whole=False)
    assert "What failed" in short
    assert "Scores" not in short


def test_columns_of_a_table_stand_below_one_another(stats):
    rows = [line for line in as_markdown(stats).splitlines() if line.startswith(("| text", "| region-text"))]
    assert len(rows) > 5
    assert len({tuple(place for place, letter in enumerate(row) if letter == "|") for row in rows}) == 1


def test_what_is_published_of_fld_5b_is_there_for_every_level():
    # Florence-2 report, section 4.4: 3 texts, 2 region-texts, 3 triplets; 6 figures of texts.
    assert len(FLD_5B) == 8
    assert {name for group, name in FLD_5B if group == TEXT} == set(LEVELS)
    assert FLD_5B[TRIPLET, "detailed"] == (31.65, 10.25, 1.49)
    assert len(FLD_5B_FIGURES) == 6
    assert FLD_5B_FIGURES["actions"] == (0.58, 4.21, 8.76)


# ---- counts of constant size


def test_a_bin_holds_its_lower_edge_and_the_ends_hold_what_is_beyond():
    one = Histogram((0.0, 1.0, 2.0))
    for value in (-5.0, 0.0, 0.99, 1.0, 2.0, math.inf):
        one.take(value)
    assert one.counts == [3, 3]


def test_names_beyond_the_limit_are_counted_together():
    names = Names(most=2)
    for name in ["a", "b", "c", "a", "d"]:
        names.take(name)
    assert (names.top(5), names.others, names.n) == ([("a", 2), ("b", 1)], 2, 5)


def test_a_sample_is_as_likely_to_keep_the_last_as_the_first():
    # Of 100 things 10 are kept. A hundred samples keep a thousand, about 250 of each quarter: the deviation of such a
    # count is below sqrt(1000 / 4 * 3 / 4) = 13.7, and 60 is more than four of them.
    quarters = [0] * 4
    one = Sample[int](10)
    for _ in range(100):
        one = Sample[int](10, dice=one.dice)
        for thing in range(100):
            one.take(thing)
        assert len(set(one.kept)) == 10
        for thing in one.kept:
            quarters[thing // 25] += 1
    assert one.n == 100
    assert all(abs(count - 250) < 60 for count in quarters), quarters


def test_few_things_are_all_kept():
    one = Sample[str](3)
    for thing in "ab":
        one.take(thing)
    assert one.kept == ["a", "b"]


def test_boxes_beyond_the_image_and_without_height_are_counted_at_the_edge():
    one = Coverage()
    one.take([Box(-10, -10, -5, -5), Box(100, 50, 120, 50)], (100, 50))
    assert one.grid[0][0] == 1
    assert one.grid[GRID - 1][GRID - 1] == 1
    assert one.aspects.counts[-1] == 1  # no height: as flat as can be
    assert one.thirds() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_tokens_are_words_and_marks():
    # As the published samples of FLD-5B set spaces: "semi - detached".
    assert tokens("a semi-detached house, red.") == 8
    assert tokens("") == 0


def test_the_kind_of_a_note_is_in_its_id():
    assert [kind_of(name) for name in ("a.b/region12", "fuse/grounding0.phrase2", "x/text0")] == [
        "region",
        "phrase",
        "text",
    ]
