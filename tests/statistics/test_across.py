"""Ranks, normalised errors and probabilities of improvement against loops, scipy and simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from regbench.statistics import Better, average_ranks, improvement, normalised
from tests.statistics.simulation import TRIALS, margin_of_error


def rank_by_counting(values: list[float], index: int) -> float:
    """1 + how many are smaller + half of how many others are equal; NaN is larger than all, and equals NaN."""
    plain = [math.inf if math.isnan(value) else value for value in values]
    smaller = sum(value < plain[index] for value in plain)
    equal = sum(value == plain[index] for value in plain) - 1
    return 1 + smaller + equal / 2


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_ranks_against_counting_and_scipy(rng: np.random.Generator, better: Better) -> None:
    values_MDS = rng.integers(0, 4, (5, 3, 4)).astype(float)  # with many ties
    sign = 1 if better == "lower" else -1
    found_MS = average_ranks(values_MDS, better=better)
    for m, s in itertools.product(range(5), range(4)):
        by_hand = [rank_by_counting((sign * values_MDS[:, d, s]).tolist(), m) for d in range(3)]
        by_scipy = [stats.rankdata(sign * values_MDS[:, d, s])[m] for d in range(3)]
        assert by_hand == by_scipy
        assert found_MS[m, s] == pytest.approx(np.mean(by_hand))
    np.testing.assert_allclose(found_MS.mean(axis=0), 3)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_runs_that_broke_down_share_the_last_ranks(better: Better) -> None:
    values_MDS = np.array([[[math.nan]], [[1.0]], [[math.nan]], [[1.0]]])
    np.testing.assert_array_equal(average_ranks(values_MDS, better=better)[:, 0], [3.5, 1.5, 3.5, 1.5])


def test_normalised_errors_against_a_loop(rng: np.random.Generator) -> None:
    values_DS, reference_DS = rng.lognormal(size=(2, 3, 6))
    per_seed = [
        math.prod(values_DS[d, s] / reference_DS[d, s] for d in range(3)) ** (1 / 3) for s in range(6)
    ]
    logs = np.log(per_seed)
    low, high = stats.t.interval(0.95, 5, loc=logs.mean(), scale=stats.sem(logs))
    found = normalised(values_DS, reference_DS)
    assert found.n == 6
    assert found.mean == pytest.approx(stats.gmean(per_seed))
    assert (found.low, found.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    inverse = normalised(reference_DS, values_DS)
    assert inverse.low is not None
    assert (1 / inverse.mean, 1 / inverse.low) == (pytest.approx(found.mean), pytest.approx(found.high))


def test_normalised_errors_of_one_seed_and_of_the_reference() -> None:
    one = normalised([[2.0], [8.0]], [[1.0], [1.0]])
    assert (one.n, one.low, one.high) == (1, None, None)
    assert one.mean == pytest.approx(4)
    itself = normalised([[2.0, 3.0]], [[2.0, 3.0]])
    assert (itself.mean, itself.low, itself.high) == (1, 1, 1)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_ratios_need_positive_values(bad: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        normalised([[bad, 1.0]], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="positive, finite"):
        normalised([[1.0, 1.0]], [[bad, 1.0]])


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_improvement_against_a_loop_and_scipy(rng: np.random.Generator, better: Better) -> None:
    a_DS, b_DS = rng.normal(size=(2, 3, 5))
    wins = sum(
        (a < b) if better == "lower" else (a > b) for a, b in zip(a_DS.ravel(), b_DS.ravel(), strict=True)
    )
    exact = stats.binomtest(wins, 15).proportion_ci(0.95, method="exact")
    found = improvement(a_DS, b_DS, better=better)
    assert (found.n, found.probability) == (15, pytest.approx(wins / 15))
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    swapped = improvement(b_DS, a_DS, better=better)
    assert (swapped.probability, swapped.low) == (
        pytest.approx(1 - found.probability),
        pytest.approx(1 - found.high),
    )


def test_pairs_that_all_agree_keep_an_interval_and_ties_widen_it() -> None:
    always = improvement([[1.0, 1.0, 1.0]], [[2.0, 2.0, 2.0]])
    assert (always.probability, always.high) == (1, 1)
    assert always.low == pytest.approx(0.025 ** (1 / 3))
    same = improvement([[1.0, 2.0]], [[1.0, 2.0]])
    assert (same.probability, same.low, same.high) == (0.5, 0, 1)
    one_tie = improvement([[1.0, 1.0, 3.0]], [[2.0, 1.0, 2.0]])
    assert one_tie.probability == pytest.approx(0.5)
    assert one_tie.low == pytest.approx(stats.binomtest(1, 3).proportion_ci(0.95).low)
    assert one_tie.high == pytest.approx(stats.binomtest(2, 3).proportion_ci(0.95).high)


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.1, 0.9), (0.95, 0.6), (1.0, 0.9)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers_also_where_data_sets_differ(
    rng: np.random.Generator, chances: tuple[float, float], seeds: int
) -> None:
    truth = np.mean(chances)
    wins_TDS = rng.random((TRIALS, 2, seeds)) < np.array(chances)[None, :, None]
    known = {}  # few different outcomes: each is computed once
    covered = 0
    for wins_DS in wins_TDS:
        count = int(wins_DS.sum())
        if count not in known:
            values = -wins_DS.astype(float)
            known[count] = improvement(values, np.full_like(values, -0.5))
        covered += known[count].low <= truth <= known[count].high
    assert covered / TRIALS >= 0.95 - margin_of_error(0.95, TRIALS)


def test_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="data sets, seeds"):
        improvement([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="data sets, seeds"):
        normalised([1.0], [1.0])
    with pytest.raises(ValueError, match="methods, data sets, seeds"):
        average_ranks([[1.0]])


def test_ranks_are_scipys(rng: np.random.Generator) -> None:
    values_MDS = rng.integers(0, 4, (5, 3, 7)).astype(float)  # many ties
    values_MDS[rng.random(values_MDS.shape) < 0.1] = np.nan
    expected = stats.rankdata(np.where(np.isnan(values_MDS), np.inf, values_MDS), axis=0).mean(axis=1)
    np.testing.assert_array_equal(average_ranks(values_MDS), expected)
