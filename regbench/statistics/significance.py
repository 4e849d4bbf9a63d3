"""Tests of differences, their adjustment for many comparisons, and the group of methods that may be best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from regbench.statistics.intervals import (
    ALPHA,
    LEVEL,
    ROUNDING,
    Better,
    Interval,
    negligible,
    pairs,
    scale,
    share_seeds,
    vector,
)

Alternative = Literal["two-sided", "less", "greater"]
EXACT_UP_TO = 16
"""Largest n for which the sign-flip test visits all 2**n sign patterns."""


def paired_t_test(a: ArrayLike, b: ArrayLike, alternative: Alternative = "two-sided") -> float | None:
    """p-value of the paired t-test of mean(a - b) = 0; ``None`` below two pairs or for values not finite.

    Pairs that all differ by the same amount have no spread to test against: p is then 0, or 1 where that
    amount is zero (up to rounding) or points away from ``alternative``.
    """
    x, y = pairs(a, b)
    if x.size < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    d = x - y
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    if negligible(sd, x, y):
        return _without_spread(mean, alternative, x, y)
    df, t = d.size - 1, mean / (sd / math.sqrt(d.size))
    if alternative == "two-sided":
        return float(2 * special.stdtr(df, -abs(t)))
    return float(special.stdtr(df, t if alternative == "less" else -t))


def welch_t_test(a: ArrayLike, b: ArrayLike, *, level: float = LEVEL) -> tuple[Interval, float | None]:
    """Difference mean(a) - mean(b) of independent samples, unequal variances: its interval and p-value.

    For result sets without common seeds; where seeds are shared, pairing is stronger. ``n`` of the interval
    is the smaller sample's.
    """
    x, y = vector(a), vector(b)
    if min(x.size, y.size) == 0:
        raise ValueError("Welch's test needs at least one value on each side")
    mean, n = float(x.mean() - y.mean()), min(x.size, y.size)
    if n < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Interval(n, mean, None, None, None), None
    if negligible(max(float(x.std(ddof=1)), float(y.std(ddof=1))), x, y):
        return Interval(n, mean, 0.0, mean, mean), _without_spread(mean, "two-sided", x, y)
    from scipy import stats  # only here: it takes half a second to import, and reports do without

    test = stats.ttest_ind(x, y, equal_var=False)
    bounds = test.confidence_interval(level)
    return Interval(n, mean, None, float(bounds.low), float(bounds.high)), float(test.pvalue)


def sign_flip_test(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the paired sign-flip (permutation) test of the mean difference.

    Exact up to n = 16: the share of the 2**n sign patterns whose mean difference is at least as far from zero
    as the one found. Above, 100,000 random patterns from a fixed seed.
    """
    x, y = _finite_pairs(a, b)
    d = np.where(np.abs(x - y) <= ROUNDING * scale(x, y), 0.0, x - y)
    signs = _sign_patterns(d.size)
    extra = 0 if d.size <= EXACT_UP_TO else 1  # the pattern as found is among them where they are all
    flipped = np.abs(signs @ d)
    reached = int(np.sum(flipped >= abs(d.sum()) - ROUNDING * np.abs(d).sum()))
    return (reached + extra) / (len(signs) + extra)


@lru_cache(maxsize=1)  # a report tests hundreds of differences, nearly all over the same number of seeds
def _sign_patterns(n: int) -> NDArray[np.float64]:
    """All 2**n rows of n signs, or 100,000 random ones; -1 and 1."""
    if n <= EXACT_UP_TO:
        patterns = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        patterns = np.random.default_rng(0).integers(0, 2, (100_000, n))
    return (2 * patterns - 1).astype(np.float64)


def wilcoxon_test(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test; pairs without a difference are left out.

    Exact, by all 2**n sign patterns of the ranks, up to n = 16, tied ranks included; above, the normal
    approximation.
    """
    x, y = _finite_pairs(a, b)
    d = (x - y)[np.abs(x - y) > ROUNDING * scale(x, y)]
    if d.size == 0:
        return 1.0
    from scipy import stats

    method = stats.PermutationMethod(n_resamples=2**EXACT_UP_TO) if d.size <= EXACT_UP_TO else "asymptotic"
    return float(stats.wilcoxon(d, method=method).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: compare the result with alpha, whatever the dependence of the tests.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    p = vector(p_values)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def min_seeds(comparisons: int, alpha: float = ALPHA) -> int:
    """Smallest n at which an exact two-sided paired test can be significant after Holm over ``comparisons``.

    The smallest p-value of n sign flips is 2 / 2**n, so 2 m / 2**n < alpha must hold: 6 seeds for one
    comparison, 7 for 3, 8 for 6, 9 for 10. Below, a table says "n too small to test".
    """
    if comparisons < 1:
        raise ValueError(f"comparisons = {comparisons}: expected at least 1")
    n = 1
    while 2 * comparisons / 2**n >= alpha:
        n += 1
    return n


def tie_group(
    values: Mapping[str, Mapping[int, float]], *, better: Better = "lower", alpha: float = ALPHA
) -> set[str]:
    """The methods that may be the best: a confidence set of level 1 - alpha for the best method.

    The rule (subset selection; S. S. Gupta, Technometrics 7 (1965), with paired t-tests for unequal spreads):

    1. Candidates are the methods with the most finite values. A method that lacks seeds which others have
       is none: the seeds that survived are no fair sample of it.
    2. Each candidate is compared with each other candidate by a one-sided paired t-test over their shared
       seeds (two or more). It leaves the group where any of these finds it worse, at alpha divided by the
       number of its comparisons (Bonferroni, which is Holm's first step).

    So a method that truly is the best, or ties with it, is left out with probability alpha at most. With one
    seed there is no test, and all candidates remain. Differences without any spread decide: equal values tie,
    others do not (see :func:`paired_t_test`).

    Args:
        values: of each method, its value by seed.
        better: which direction of the metric is better.
    """
    finite = {
        method: {seed: value for seed, value in by_seed.items() if math.isfinite(value)}
        for method, by_seed in values.items()
    }
    most = max((len(by_seed) for by_seed in finite.values()), default=0)
    candidates = {method: by_seed for method, by_seed in finite.items() if len(by_seed) == most > 0}
    worse: Alternative = "greater" if better == "lower" else "less"
    group = set()
    for method, mine in candidates.items():
        tests = [
            p
            for other, theirs in candidates.items()
            if other != method and (p := paired_t_test(*share_seeds(mine, theirs), worse)) is not None
        ]
        if not tests or min(tests) * len(tests) >= alpha:
            group.add(method)
    return group


def _finite_pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = pairs(a, b)
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("this test needs at least one pair, and finite values")
    return x, y


def _without_spread(
    mean: float, alternative: Alternative, x: NDArray[np.float64], y: NDArray[np.float64]
) -> float:
    """p-value where every pair differs by the same amount."""
    if negligible(mean, x, y):
        return 1.0
    against = (alternative == "less" and mean > 0) or (alternative == "greater" and mean < 0)
    return 1.0 if against else 0.0
