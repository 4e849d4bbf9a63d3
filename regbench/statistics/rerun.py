"""Does a second run of the same cell agree with the first? One value each, judged by the spread over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from regbench.statistics.intervals import LEVEL, vector

ROUNDING_ONLY = 1e-5
"""Relative difference up to which two values agree to five significant digits; tables show four."""
FEWEST_SEEDS = 3
"""Fewest seeds whose spread says anything: with two, half the interval is 16 of their standard deviations."""

Agreement = Literal["identical", "rounding", "within", "beyond"]
"""The same number; the same but for rounding; within what another run may give; neither."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """One quantity, measured by the first run and by the second."""

    original: float
    again: float
    difference: float
    """``again - original``; NaN where one of them is not finite and they are not the same."""
    n: int
    """Seeds whose spread is known, the first run's among them."""
    half_width: float | None
    """Of the prediction interval for the difference, around 0; ``None`` below three seeds."""
    agreement: Agreement

    @property
    def agrees(self) -> bool:
        return self.agreement != "beyond"


def rerun_agreement(original: float, again: float, seeds: ArrayLike, *, level: float = LEVEL) -> Rerun:
    """Whether ``again`` is no further from ``original`` than another run may be.

    Args:
        original: the first run's value.
        again: the second run's.
        seeds: values of all seeds that are known, ``original`` among them.
    """
    x = vector(seeds)
    half = rerun_half_width(x, level)
    same = original == again or (math.isnan(original) and math.isnan(again))
    difference = 0.0 if same else again - original
    largest = max(abs(original), abs(again))
    agreement: Agreement = "beyond"
    if same:
        agreement = "identical"
    elif math.isfinite(difference):
        if abs(difference) <= ROUNDING_ONLY * largest:
            agreement = "rounding"
        elif half is not None and abs(difference) <= half:
            agreement = "within"
    return Rerun(
        original, again, difference if math.isfinite(difference) else math.nan, x.size, half, agreement
    )


def rerun_half_width(seeds: ArrayLike, level: float = LEVEL) -> float | None:
    """Half-width of the prediction interval for the difference of one more run to one of ``seeds``.

    Exact for normal values: if the further run is drawn as the n seeds were, its difference to any one of them,
    chosen beforehand, lies within plus or minus this with probability ``level``, whatever mean and spread are.
    ``None`` below three seeds, and where a value is not finite.
    """
    x = vector(seeds)
    if x.size < FEWEST_SEEDS or not np.isfinite(x).all():
        return None
    return critical_ratio(x.size, level) * float(x.std(ddof=1))


@cache
def critical_ratio(n: int, level: float = LEVEL) -> float:
    """Quantile of |y - x_1| / s for x_1 ... x_n and y of one normal distribution, s the standard deviation of the x.

    With the mean m of the x: (y - m) / s is sqrt(1 + 1/n) times a t-variable of n - 1 degrees of freedom, and
    (x_1 - m) / s is (n - 1) / sqrt(n) times a coordinate of a random unit vector in n - 1 dimensions (W. R.
    Thompson, Ann. Math. Stat. 6 (1935)). Both are independent.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a number between 0 and 1, such as 0.95")
    if n < FEWEST_SEEDS:
        raise ValueError(f"n = {n}: expected at least {FEWEST_SEEDS}")
    nodes, weights = np.polynomial.legendre.leggauss(200)
    # Of the coordinate: its density is smooth in the angle, also for n = 3, and narrow for many seeds.
    angle = nodes * min(math.pi / 2, 12 / math.sqrt(n))
    density = weights * np.cos(angle) ** (n - 3)
    own = (n - 1) / math.sqrt(n) * np.sin(angle)

    def tail(c: float) -> float:
        beyond = special.stdtr(n - 1, -(c + own) / math.sqrt(1 + 1 / n))
        return float(2 * (density * beyond).sum() / density.sum())

    low, high = 0.0, 1.0
    while tail(high) > 1 - level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) > 1 - level else (low, middle)
    return high
