"""Several data sets at once: average ranks, normalised errors, and the probability of improvement.

Shape suffixes: M methods, D data sets, S seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from regbench.statistics.intervals import LEVEL, Better, Interval, t_interval

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Improvement:
    """How often a method is better than another one, over pairs of runs."""

    n: int
    """Number of pairs."""
    probability: float
    """Share of pairs in which it is better; equal values count half."""
    low: float
    high: float


def average_ranks(values_MDS: ArrayLike, *, better: Better = "lower") -> Array:
    """Rank of each method among all, for each seed, averaged over data sets: ``ranks_MS``, from 1 (best) to M.

    Ties share the average of their ranks. A value of NaN stands for a run that broke down: it is last.
    Source: M. Friedman, J. Am. Stat. Assoc. 32 (1937); J. Demsar, JMLR 7 (2006).
    """
    values = _cube(values_MDS, "methods, data sets, seeds")
    signed = values if better == "lower" else -values
    last = np.where(np.isnan(values), np.inf, signed)
    others_MMDS = last[None]
    below_MDS = (others_MMDS < last[:, None]).sum(axis=1)
    equal_MDS = (others_MMDS == last[:, None]).sum(axis=1)  # itself among them
    ranks_MDS = below_MDS + (equal_MDS + 1) / 2
    return np.asarray(ranks_MDS.mean(axis=1), dtype=np.float64)


def normalised(values_DS: ArrayLike, reference_DS: ArrayLike) -> Interval:
    """Geometric mean over data sets of value / reference, for each seed; its mean and interval over seeds.

    Mean and interval are taken of the logarithms, where a ratio and its inverse are equally far from 1, and
    given as ratios; ``sd`` is that of the logarithms.

    Raises:
        ValueError: shapes that differ, or values that are not positive and finite.
    """
    values, reference = _matching(values_DS, reference_DS)
    if not all((x > 0).all() and np.isfinite(x).all() for x in (values, reference)):
        raise ValueError("ratios need positive, finite values")
    found = t_interval(np.log(values / reference).mean(axis=0))
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return Interval(found.n, math.exp(found.mean), found.sd, low, high)


def improvement(
    values_DS: ArrayLike, reference_DS: ArrayLike, *, better: Better = "lower", level: float = LEVEL
) -> Improvement:
    """Paired probability of improvement: the share of (data set, seed) pairs in which a method is better.

    After R. Agarwal et al., NeurIPS 2021 (arXiv:2108.13264), who compare every run of one method with every
    run of the other; here runs of the same seed are pairs. The interval is the exact one of Clopper and
    Pearson (1934) for independent pairs. Where the probability differs between data sets, the number of
    better pairs spreads less than a binomial one (Hoeffding 1956), so the interval is wide rather than
    narrow; and it keeps its width where all pairs agree, where a bootstrap's is zero. Equal values count as
    worse for the lower bound, and as better for the upper one.
    """
    values, reference = _matching(values_DS, reference_DS)
    sign = 1.0 if better == "lower" else -1.0
    wins = int((sign * values < sign * reference).sum())
    ties = int((values == reference).sum())
    n, tail = values.size, (1 - level) / 2
    low = float(special.betaincinv(wins, n - wins + 1, tail)) if wins else 0.0
    most = wins + ties
    high = float(special.betaincinv(most + 1, n - most, 1 - tail)) if most < n else 1.0
    return Improvement(n, (wins + ties / 2) / n, low, high)


def _matching(values_DS: ArrayLike, reference_DS: ArrayLike) -> tuple[Array, Array]:
    values, reference = (np.asarray(x, dtype=np.float64) for x in (values_DS, reference_DS))
    if values.ndim != 2 or values.shape != reference.shape or values.size == 0:
        raise ValueError(
            f"expected two arrays of (data sets, seeds), got shapes {values.shape} and {reference.shape}"
        )
    return values, reference


def _cube(values: ArrayLike, axes: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 3:
        raise ValueError(f"expected an array of ({axes}), got shape {x.shape}")
    return x
