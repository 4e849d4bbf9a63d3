"""One number per seed: its mean and t-interval, and differences of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Better = Literal["lower", "higher"]

LEVEL = 0.95
"""Confidence level of every interval unless said otherwise."""
ALPHA = 0.05
"""Significance level of every test unless said otherwise."""
ROUNDING = 1e-12
"""A difference, or a spread of differences, of this relative size is float64 rounding and counts as zero."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with its confidence interval."""

    n: int
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1 in the denominator); ``None`` for n = 1."""
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Differences a - b over the seeds that a and b share."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    wins: int
    """Number of pairs in which a is better than b; equal values are no win."""
    correlation: float | None
    """Pearson correlation of a with b over the pairs: what pairing gains. ``None`` below three pairs."""


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean and Student t-interval of one value per seed.

    Seeds give near-normal means, where this covers what it says at n = 3 already; the percentile bootstrap
    covers 75% there, and 84% at n = 5.

    Raises:
        ValueError: no values at all, or a level outside (0, 1).
    """
    x = vector(values)
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1, such as 0.95")
    if x.size == 0:
        raise ValueError("an interval needs at least one value")
    with np.errstate(invalid="ignore"):
        mean = float(x.mean())
    if x.size == 1 or not np.isfinite(x).all():
        return Interval(x.size, mean, None, None, None)
    sd = float(x.std(ddof=1))
    half = float(special.stdtrit(x.size - 1, (1 + level) / 2)) * sd / math.sqrt(x.size)
    return Interval(x.size, mean, sd, mean - half, mean + half)


def t_intervals(
    values_SE: NDArray[np.float64], level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """:func:`t_interval` of many quantities at once: means, lower and upper bounds, each of shape (E,).

    Bounds are NaN where there is one value only, or one that is not finite.

    Args:
        values_SE: shape (S, E), one value per seed (S) of each quantity (E).
    """
    seeds = len(values_SE)
    with np.errstate(invalid="ignore"):
        mean_E = values_SE.mean(axis=0)
        if seeds == 1:
            return mean_E, np.full_like(mean_E, np.nan), np.full_like(mean_E, np.nan)
        sd_E = values_SE.std(axis=0, ddof=1)
        half_E = float(special.stdtrit(seeds - 1, (1 + level) / 2)) * sd_E / math.sqrt(seeds)
        half_E[~np.isfinite(values_SE).all(axis=0)] = np.nan
        return mean_E, mean_E - half_E, mean_E + half_E


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, better: Better = "lower", level: float = LEVEL
) -> PairedDifference:
    """Mean of a - b with its t-interval, how often a is better, and the correlation of the pairs.

    Args:
        a: one value per seed.
        b: the values of the same seeds, in the same order.
        better: which direction of the metric is better.
    """
    x, y = pairs(a, b)
    with np.errstate(invalid="ignore"):
        difference = t_interval(x - y, level)
    wins = int(np.sum(x < y if better == "lower" else x > y))
    return PairedDifference(
        difference.n,
        difference.mean,
        difference.sd,
        difference.low,
        difference.high,
        wins,
        _correlation(x, y),
    )


def share_seeds(
    a: Mapping[int, float], b: Mapping[int, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of the seeds that both have, in order of seeds: pairs for the functions of this module."""
    seeds = sorted(a.keys() & b.keys())
    return vector([a[seed] for seed in seeds]), vector([b[seed] for seed in seeds])


def vector(values: ArrayLike) -> NDArray[np.float64]:
    """Values as a float64 vector; ``ValueError`` for any other shape."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected one value per seed, got an array of shape {x.shape}")
    return x


def pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two vectors of equal length."""
    x, y = vector(a), vector(b)
    if x.size != y.size:
        raise ValueError(f"pairs need equally many values, got {x.size} and {y.size}")
    return x, y


def scale(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The largest absolute value among both."""
    return float(max(np.abs(x).max(), np.abs(y).max()))


def negligible(size: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether ``size`` is rounding, next to values as large as these."""
    return abs(size) <= ROUNDING * scale(x, y)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if x.size < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if negligible(float(x.std()), x, x) or negligible(float(y.std()), y, y):
        return None
    return float(np.corrcoef(x, y)[0, 1])
