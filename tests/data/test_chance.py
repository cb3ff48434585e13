"""Chance from raw words: what is promised to be the same everywhere, and fair."""

from collections import Counter

import pytest

from openflorence.data.chance import below, deal, dice


def test_a_seed_gives_these_numbers_on_every_machine():
    # By hand from PCG64's first raw words under seed 7, which numpy promises to keep: (word >> 32) * 1000 >> 32.
    words = [int(dice(7).bit_generator.random_raw(3)[place]) for place in range(3)]
    rng = dice(7)
    assert [below(rng, 1000) for _ in range(3)] == [(word >> 32) * 1000 >> 32 for word in words]
    assert [below(dice([7, 1]), 10**9), below(dice([7, 1]), 10**9)] == [below(dice([7, 1]), 10**9)] * 2
    assert below(dice([7, 1]), 10**9) != below(dice([7, 2]), 10**9)


def test_places_are_dealt_once_each_and_as_often_as_they_weigh():
    rng = dice(0)
    firsts = Counter()
    for _ in range(6000):
        drawn = deal(rng, [1000, 2000, 3000], 2)
        assert len(set(drawn)) == 2
        firsts[drawn[0]] += 1
    # 1:2:3 of 6000; three standard deviations are about 115.
    assert [firsts[place] for place in range(3)] == pytest.approx([1000, 2000, 3000], abs=120)


def test_all_places_can_be_dealt_also_those_of_no_weight():
    assert sorted(deal(dice(1), [0, 5, 0], 3)) == [0, 1, 2]
    assert deal(dice(1), [0, 5, 0], 1) == [1]
    assert deal(dice(1), [3, 4], 0) == []
