"""Equivalence and power against two t-tests and simulations where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from regbench.statistics import t_test_needed_seeds, t_test_power, tost_needed_seeds, tost_paired, tost_power
from regbench.statistics.equivalence import _chi_density
from tests.statistics.simulation import TRIALS, margin_of_error


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05, 0.3])
def test_tost_against_two_t_tests_and_its_interval(rng: np.random.Generator, shift: float) -> None:
    a = rng.normal(1, 0.1, 8)
    b = a + shift + rng.normal(0, 0.05, 8)
    margin = 0.1
    above = stats.ttest_1samp(a - b, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(a - b, margin, alternative="less").pvalue
    found = tost_paired(a, b, margin)
    assert found.p == pytest.approx(max(above, below))
    assert found.low is not None
    assert found.high is not None
    assert found.equivalent == (-margin < found.low and found.high < margin)
    interval = stats.ttest_rel(a, b).confidence_interval(0.90)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_tost_without_spread_and_with_one_pair() -> None:
    a = [1.0, 2.0, 3.0]
    assert tost_paired(a, a, 0.1).equivalent
    assert tost_paired(a, [x + 0.05 for x in a], 0.1).equivalent
    assert not tost_paired(a, [x + 0.1 for x in a], 0.1).equivalent
    assert not tost_paired(a, [x + 0.2 for x in a], 0.1).equivalent
    one = tost_paired([1.0], [1.0], 0.1)
    assert (one.p, one.equivalent) == (None, False)
    with pytest.raises(ValueError, match="margin"):
        tost_paired(a, a, 0)


def simulate_tost(rng: np.random.Generator, n: int, sd: float, difference: float) -> float:
    """Share of trials in which methods this far apart are found equivalent within a margin of 1."""
    d = rng.normal(difference, sd, (TRIALS, n))
    return float(np.mean([tost_paired(row, np.zeros(n), 1.0).equivalent for row in d]))


def test_three_seeds_with_a_spread_of_half_the_margin_have_56_percent_power(rng: np.random.Generator) -> None:
    assert tost_power(3, 0.5, 1.0) == pytest.approx(0.558, abs=0.001)
    assert simulate_tost(rng, 3, 0.5, 0) == pytest.approx(0.558, abs=margin_of_error(0.558, TRIALS))


@pytest.mark.parametrize(
    ("n", "sd", "difference"), [(5, 0.8, 0.0), (10, 1.0, 0.3), (2, 0.2, 0.0), (40, 1.0, 0.5)]
)
def test_tost_power_is_the_simulated_one(
    rng: np.random.Generator, n: int, sd: float, difference: float
) -> None:
    power = tost_power(n, sd, 1.0, difference=difference)
    assert simulate_tost(rng, n, sd, difference) == pytest.approx(
        power, abs=margin_of_error(power, TRIALS) + 1e-3
    )


@pytest.mark.parametrize("n", [3, 6, 20])
def test_tost_calls_methods_a_margin_apart_equivalent_in_at_most_5_percent(
    rng: np.random.Generator, n: int
) -> None:
    assert simulate_tost(rng, n, 0.3, 1.0) <= 0.05 + margin_of_error(0.05, TRIALS)
    assert tost_power(n, 0.3, 1.0, difference=1.0) <= 0.05 + 1e-6


def test_power_at_its_limits() -> None:
    assert tost_power(1, 0.1, 1.0) == 0
    assert tost_power(5, 0.0, 1.0, difference=0.9) == 1
    assert tost_power(5, 0.0, 1.0, difference=1.1) == 0
    assert tost_power(3, 1e6, 1.0) < 1e-3
    assert tost_power(2000, 1.0, 1.0) == pytest.approx(1)
    assert t_test_power(1, 1.0, 1.0) == 0
    assert t_test_power(5, 0.0, 0.1) == 1
    assert t_test_power(5, 0.0, 0.0) == 0
    assert t_test_power(7, 1.0, 0.0) == pytest.approx(0.05)


def test_t_test_power_is_the_simulated_one(rng: np.random.Generator) -> None:
    d = rng.normal(1.2, 1, (TRIALS, 6))
    rejected = np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05)
    power = t_test_power(6, 1.0, 1.2)
    assert rejected == pytest.approx(power, abs=margin_of_error(power, TRIALS))


@pytest.mark.parametrize("sd", [0.1, 0.5, 1.0, 2.0])
def test_needed_seeds_are_the_fewest(sd: float) -> None:
    n = tost_needed_seeds(sd, 1.0, difference=0.2)
    assert n is not None
    assert n == next(k for k in range(2, 1000) if tost_power(k, sd, 1.0, difference=0.2) >= 0.8)
    m = t_test_needed_seeds(sd, 0.6)
    assert m is not None
    assert m == next(k for k in range(2, 1000) if t_test_power(k, sd, 0.6) >= 0.8)


def test_no_number_of_seeds_shows_what_is_not_so() -> None:
    assert tost_needed_seeds(0.5, 1.0, difference=1.0, limit=500) is None
    assert t_test_needed_seeds(0.5, 0.0, limit=500) is None


def test_power_is_that_of_scipys_noncentral_t() -> None:
    for n, difference in ((3, 0.4), (14, -1.3), (200, 0.02)):
        critical, shift = stats.t.ppf(0.95, n - 1), difference * math.sqrt(n)
        above = stats.nct.sf(critical, n - 1, shift)
        assert t_test_power(n, 1.0, difference, alternative="greater") == pytest.approx(above, rel=1e-10)


def test_the_chi_density_is_scipys() -> None:
    for df in (1, 2, 13, 9999):
        for x in (0.1, 0.9, 1.0, 1.1):
            at = x * math.sqrt(df)
            assert _chi_density(at, df) == pytest.approx(stats.chi.pdf(at, df), rel=1e-12, abs=1e-300)
