"""Tests of differences against scipy, brute force over all patterns, and simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from regbench.statistics import (
    holm,
    min_seeds,
    paired_t_test,
    sign_flip_test,
    t_interval,
    welch_t_test,
    wilcoxon_test,
)
from tests.statistics.simulation import margin_of_error


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_paired_t_test_is_scipys(rng: np.random.Generator, alternative: str) -> None:
    a, b = rng.normal(size=5), rng.normal(0.4, 1, 5)
    expected = stats.ttest_rel(a, b, alternative=alternative).pvalue
    assert paired_t_test(a, b, alternative) == pytest.approx(expected, rel=1e-10)  # type: ignore[arg-type]


def test_paired_t_test_without_spread() -> None:
    a = [0.1, 0.2, 0.3]
    assert paired_t_test(a, a) == 1
    assert paired_t_test(a, [x + 1e-18 for x in a]) == 1
    # 0.1 + 0.5 - 0.1 is not 0.5 exactly in floating point, and still without spread.
    shifted = [x + 0.5 for x in a]
    assert paired_t_test(a, shifted) == 0
    assert paired_t_test(a, shifted, "less") == 0
    assert paired_t_test(a, shifted, "greater") == 1
    assert paired_t_test([1.0], [2.0]) is None
    assert paired_t_test([1.0, math.inf], [1.0, 2.0]) is None


def test_welch_against_its_formula(rng: np.random.Generator) -> None:
    a, b = rng.normal(0, 1, 4), rng.normal(1, 3, 7)
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 7
    df = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 6)
    half = stats.t.ppf(0.975, df) * math.sqrt(va + vb)
    interval, p = welch_t_test(a, b)
    mean = a.mean() - b.mean()
    assert interval.mean == pytest.approx(mean)
    assert (interval.low, interval.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert p == pytest.approx(2 * stats.t.sf(abs(mean) / math.sqrt(va + vb), df))


def test_welch_at_its_limits() -> None:
    assert welch_t_test([1.0], [2.0, 3.0]) == (t_interval([-1.5]), None)
    assert welch_t_test([1.0, 1.0], [1.0, 1.0, 1.0])[1] == 1
    assert welch_t_test([1.0, 1.0], [2.0, 2.0])[1] == 0
    with pytest.raises(ValueError, match="at least one"):
        welch_t_test([], [1.0])


def brute_force_sign_flips(d: NDArray[np.float64]) -> float:
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    return sum(total >= abs(sum(d)) - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_sign_flip_against_all_patterns(rng: np.random.Generator, n: int) -> None:
    a, b = rng.normal(size=n), rng.normal(0.8, 1, n)
    assert sign_flip_test(a, b) == pytest.approx(brute_force_sign_flips(a - b))
    if n > 1:
        permuted = stats.permutation_test(
            (a - b,),
            lambda d, axis: d.mean(axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**n,
        )
        assert sign_flip_test(a, b) == pytest.approx(permuted.pvalue)


@pytest.mark.parametrize("n", [3, 6, 8, 16])
def test_the_smallest_sign_flip_p_is_two_over_two_to_the_n(rng: np.random.Generator, n: int) -> None:
    a = rng.uniform(1, 2, n)
    assert sign_flip_test(a, a + rng.uniform(0.1, 0.2, n)) == 2 / 2**n


def test_sign_flip_with_ties_zeros_and_many_seeds(rng: np.random.Generator) -> None:
    assert sign_flip_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1
    d = np.array([1.0, 1.0, -1.0, 0.0])
    assert sign_flip_test(d, np.zeros(4)) == brute_force_sign_flips(d)
    # Above n = 16 the patterns are random: close to the normal approximation, and repeatable.
    a = rng.normal(0.45, 1, 30)
    p = sign_flip_test(a, np.zeros(30))
    assert p == sign_flip_test(a, np.zeros(30))
    assert p == pytest.approx(2 * stats.norm.sf(abs(a.sum()) / math.sqrt((a**2).sum())), abs=0.01)


def test_random_sign_flips_never_give_a_p_of_zero() -> None:
    assert sign_flip_test(np.arange(1.0, 31.0), np.zeros(30)) == 1 / 100_001


def test_sign_flip_keeps_its_error_rate(rng: np.random.Generator) -> None:
    """Also for a skewed spread that is symmetric in the difference, where the t-test has no guarantee."""
    a, b = rng.exponential(size=(2, 2000, 6))
    rejected = np.mean([sign_flip_test(x, y) <= 2 / 2**6 for x, y in zip(a, b, strict=True)])
    assert rejected == pytest.approx(2 / 2**6, abs=margin_of_error(2 / 2**6, 2000))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_wilcoxon_without_ties_is_scipys_exact_test(rng: np.random.Generator, n: int) -> None:
    a, b = rng.normal(size=n), rng.normal(0.5, 1, n)
    assert wilcoxon_test(a, b) == pytest.approx(stats.wilcoxon(a - b, method="exact").pvalue)


def test_wilcoxon_with_ties_and_zeros_against_all_patterns() -> None:
    d = np.array([0.0, 2.0, 2.0, -1.0, 3.0, 0.0, 4.0])
    kept = d[d != 0]
    ranks = stats.rankdata(np.abs(kept))
    found = ranks[kept > 0].sum()
    null = [
        sum(r for r, up in zip(ranks, ups, strict=True) if up) for ups in itertools.product((0, 1), repeat=5)
    ]
    one_sided = min(np.mean([t >= found for t in null]), np.mean([t <= found for t in null]))
    assert wilcoxon_test(d, np.zeros(7)) == pytest.approx(min(1, 2 * one_sided))
    assert wilcoxon_test([1.0, 1.0], [1.0, 1.0]) == 1


@pytest.mark.parametrize("test", [sign_flip_test, wilcoxon_test])
@pytest.mark.parametrize("bad", [[], [math.nan]])
def test_exact_tests_refuse_what_they_cannot_test(test: object, bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        test(bad, bad)  # type: ignore[operator]


def test_holm_on_a_worked_example() -> None:
    """0.005 x 4, 0.01 x 3, then 0.03 x 2, and 0.04 x 1 raised to the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_rejects_what_the_step_down_procedure_rejects(rng: np.random.Generator) -> None:
    for _ in range(200):
        p = rng.beta(0.3, 3, rng.integers(1, 8))
        rejected = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] >= 0.05 / (len(p) - step):
                break
            rejected.add(int(index))
        assert {i for i, adjusted in enumerate(holm(list(p))) if adjusted < 0.05} == rejected


def test_holm_at_its_limits() -> None:
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.0, 0.0]) == [0, 0]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, math.nan])


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (10, 9)])
def test_min_seeds(comparisons: int, seeds: int) -> None:
    assert min_seeds(comparisons) == seeds
    # It is the n at which the smallest possible p-value passes the first step of Holm, and n - 1 does not.
    assert holm([2 / 2**seeds, *[1.0] * (comparisons - 1)])[0] < 0.05
    assert holm([2 / 2 ** (seeds - 1), *[1.0] * (comparisons - 1)])[0] >= 0.05


def test_min_seeds_needs_a_p_value_below_alpha() -> None:
    assert min_seeds(1, alpha=2 / 2**5) == 6


def test_min_seeds_needs_a_comparison() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        min_seeds(0)
