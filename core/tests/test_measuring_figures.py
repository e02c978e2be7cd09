"""From rounds to figures: medians, their interval, ratios and noise."""

import statistics

import pytest
from hypothesis import given, strategies as st

from hardpoint.measuring.figures import median, median_interval, quantile, spread, timing
from hardpoint.measuring.results import Round

values = st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=40)


def rounds(*medians, count=3):
    return [Round([m] * count, m * count, count, 100 + i) for i, m in enumerate(medians)]


@pytest.mark.parametrize(
    # Ranks and confidence as tabulated for the binomial distribution (Conover, table A3).
    ("n", "lowest", "highest", "confidence"),
    [(6, 1, 6, 0.9688), (10, 2, 9, 0.9785), (15, 4, 12, 0.9648), (20, 6, 15, 0.9586), (30, 10, 21, 0.9572)],
)  # fmt: skip
def test_the_interval_of_the_median_is_that_of_order_statistics(n, lowest, highest, confidence):
    low, high, sure = median_interval(list(range(1, n + 1)))
    assert (low, high) == (lowest, highest)
    assert sure == pytest.approx(confidence, abs=1e-4)


@pytest.mark.parametrize(("n", "confidence"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 0.9375)])
def test_few_rounds_give_their_ends_and_say_how_little_that_is(n, confidence):
    low, high, sure = median_interval(list(range(n)))
    assert (low, high, sure) == (0, n - 1, confidence)


@given(values)
def test_the_median_lies_in_its_interval(found):
    low, high, _ = median_interval(found)
    assert low <= median(found) <= high


@given(values)
def test_median_and_quantiles_are_those_of_the_standard_library(found):
    assert median(found) == pytest.approx(statistics.median(found))
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    assert quantile(found, 0.95) == pytest.approx(cuts[94])
    assert quantile(found, 0.99) == pytest.approx(cuts[98])


def test_a_ratio_is_taken_within_each_round_so_that_a_busy_minute_does_not_count():
    mine = rounds(1.0, 1.0, 10.0, 1.0, 1.0)
    eager = rounds(2.0, 2.0, 20.0, 2.0, 2.0)
    made = timing(mine, eager, samples=4)
    assert made.ratio == pytest.approx(2.0)
    assert (made.p50, made.best, made.rounds, made.calls) == (1.0, 1.0, 5, 15)
    assert made.throughput == pytest.approx(4 * 15 / 42)
    assert made.peak_bytes == 104
    assert timing(mine, None, samples=4).ratio is None


def test_with_several_callers_the_ratio_is_of_the_throughputs():
    mine = [Round([1.0] * 8, 2.0, 8, 0)]  # four callers at a time
    eager = [Round([1.0] * 2, 2.0, 2, 0)]
    assert timing(mine, eager, samples=1, callers=4).ratio == pytest.approx(4.0)


def test_one_caller_beside_an_eager_of_several_is_compared_by_throughput():
    alone = [Round([0.01] * 6, 0.06, 6, 0)]
    together = [Round([0.04] * 6, 0.06, 6, 0)]  # four at a time: as many results a second
    assert timing(alone, together, samples=1, callers=1, by_rate=True).ratio == pytest.approx(1)
    assert timing(alone, together, samples=1, callers=1).ratio == pytest.approx(4)


def test_noise_is_how_far_rounds_differ():
    assert spread(rounds(*[1.0] * 15)) == 1.0
    assert spread(rounds(*[1.0] * 12, 2.0, 2.0, 2.0)) == 2.0
