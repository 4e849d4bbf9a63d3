"""Intervals and pairs against scipy and loops, and their coverage by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from regbench.statistics import paired_difference, share_seeds, t_interval, t_intervals, welch_t_test
from tests.statistics.simulation import TRIALS, margin_of_error


@pytest.mark.parametrize("n", [1, 2, 14])
def test_many_t_intervals_are_those_of_each(rng: np.random.Generator, n: int) -> None:
    values_SE = rng.normal(3, 2, (n, 5))
    values_SE[0, 3] = math.inf
    mean_E, low_E, high_E = t_intervals(values_SE)
    for e in range(5):
        one = t_interval(values_SE[:, e])
        assert mean_E[e] == pytest.approx(one.mean)
        for bound, expected in ((low_E[e], one.low), (high_E[e], one.high)):
            assert math.isnan(bound) if expected is None else bound == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_is_scipys(rng: np.random.Generator, n: int, level: float) -> None:
    x = rng.normal(3, 2, n)
    expected = stats.ttest_1samp(x, 0).confidence_interval(level)
    found = t_interval(x, level)
    assert (found.n, found.mean, found.sd) == (n, pytest.approx(x.mean()), pytest.approx(np.std(x, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = t_interval([0.25])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.25, None, None, None)


def test_values_that_are_not_finite_have_no_interval() -> None:
    found = t_interval([30.0, math.inf, 31.0])
    assert (found.mean, found.low, found.high) == (math.inf, None, None)
    assert paired_difference([1.0, math.inf], [2.0, math.inf]).low is None


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_t_interval_refuses_what_is_not_one_value_per_seed(values: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        t_interval(values)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_t_interval_refuses_levels_that_are_none(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        t_interval([1.0, 2.0], level)


@pytest.mark.parametrize(("n", "bootstrap_covers"), [(3, 0.75), (5, 0.84)])
def test_t_interval_covers_and_the_percentile_bootstrap_does_not(
    rng: np.random.Generator, n: int, bootstrap_covers: float
) -> None:
    """The reason for t-intervals at few seeds, as stated in ``t_interval``."""
    samples = rng.normal(1, 0.1, (TRIALS, n))
    intervals = [t_interval(sample) for sample in samples]
    covered = np.mean([i.low <= 1 <= i.high for i in intervals if i.low is not None and i.high is not None])
    assert covered == pytest.approx(0.95, abs=margin_of_error(0.95, TRIALS))

    # All n**n resamples are equally likely: the exact bootstrap distribution of the mean.
    resamples = np.array(list(itertools.product(range(n), repeat=n)))
    means = samples[:1500, resamples].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1, method="inverted_cdf")
    bootstrap = np.mean((low <= 1) & (high >= 1))
    assert bootstrap == pytest.approx(bootstrap_covers, abs=margin_of_error(bootstrap_covers, 1500))


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_paired_difference_against_a_loop(rng: np.random.Generator, better: str) -> None:
    a, b = rng.normal(size=7), rng.normal(0.5, 1, 7)
    b[2] = a[2]  # equal: no win
    found = paired_difference(a, b, better=better)  # type: ignore[arg-type]
    differences = [x - y for x, y in zip(a, b, strict=True)]
    wins = sum(d < 0 if better == "lower" else d > 0 for d in differences)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.n, found.wins) == (7, wins)
    assert found.mean == pytest.approx(math.fsum(differences) / 7)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic)


def test_pairing_narrows_the_interval_of_correlated_seeds(rng: np.random.Generator) -> None:
    seed_effect = rng.normal(0, 1, 6)
    a, b = seed_effect + rng.normal(0, 0.05, 6), seed_effect + rng.normal(0.2, 0.05, 6)
    paired, unpaired = paired_difference(a, b), welch_t_test(a, b)[0]
    assert paired.high is not None
    assert paired.low is not None
    assert unpaired.high is not None
    assert unpaired.low is not None
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)
    assert paired.correlation is not None
    assert paired.correlation > 0.9


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [2.0, 1.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_correlation_is_none_where_it_means_nothing(a: list[float], b: list[float]) -> None:
    assert paired_difference(a, b).correlation is None


def test_shared_seeds_are_paired_whatever_their_order() -> None:
    a, b = share_seeds({2: 20.0, 0: 0.0, 5: 50.0}, {5: 5.0, 1: 1.0, 2: 2.0})
    assert (a.tolist(), b.tolist()) == ([20.0, 50.0], [2.0, 5.0])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0, 2.0], [1.0])
