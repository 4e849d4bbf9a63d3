"""Do two methods match? Equivalence within a margin, the power of the tests, and the seeds they need."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import integrate, special

from regbench.statistics.intervals import ALPHA, paired_difference, pairs
from regbench.statistics.significance import Alternative, paired_t_test


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided tests of |mean(a - b)| < margin."""

    n: int
    margin: float
    mean: float
    low: float | None
    """Interval of level 1 - 2 alpha: inside the margin exactly where the test finds equivalence."""
    high: float | None
    p: float | None
    equivalent: bool


def tost_paired(a: ArrayLike, b: ArrayLike, margin: float, *, alpha: float = ALPHA) -> Equivalence:
    """Do a and b match? Two one-sided paired t-tests of mean(a - b) against -margin and +margin.

    Source: D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987). The margin is fixed before any result.
    A difference that is merely not significant is no match; with one pair nothing is.
    """
    if not margin > 0:
        raise ValueError(f"margin = {margin}: expected a positive number, in the metric's unit")
    x, y = pairs(a, b)
    difference = paired_difference(x, y, level=1 - 2 * alpha)
    above = paired_t_test(x, y - margin, "greater")
    below = paired_t_test(x, y + margin, "less")
    p = None if above is None or below is None else max(above, below)
    equivalent = p is not None and p < alpha
    return Equivalence(x.size, margin, difference.mean, difference.low, difference.high, p, equivalent)


def tost_power(n: int, sd: float, margin: float, *, difference: float = 0.0, alpha: float = ALPHA) -> float:
    """Probability that :func:`tost_paired` with n pairs finds equivalence.

    Args:
        n: number of pairs.
        sd: standard deviation of the paired differences.
        margin: half-width of the region of equivalence.
        difference: the true mean difference.

    With 3 seeds and a spread of half the margin this is 0.56 for methods that are truly equal.
    """
    if n < 2:
        return 0.0
    if sd == 0:
        return float(abs(difference) < margin)
    df, se = n - 1, sd / math.sqrt(n)
    critical = float(special.stdtrit(df, 1 - alpha))
    upper, lower = (margin - difference) / se, (margin + difference) / se

    def given_spread(ratio: float) -> float:
        """Density of the estimated over the true sd, times the chance to pass both tests with it."""
        passing = special.ndtr(upper - critical * ratio) - special.ndtr(critical * ratio - lower)
        return float(passing * _chi_density(ratio * math.sqrt(df), df) * math.sqrt(df))

    largest = margin / (critical * se)  # with a larger estimated sd the interval is wider than the margin
    # The density has practically all of its mass within ten of its standard deviations of 1.
    centre, reach = 1.0, 10 / math.sqrt(2 * df)
    low, high = max(0.0, centre - reach), min(largest, centre + reach)
    if high <= low:
        return 0.0
    return float(np.clip(integrate.quad(given_spread, low, high)[0], 0.0, 1.0))


def t_test_power(
    n: int, sd: float, difference: float, *, alpha: float = ALPHA, alternative: Alternative = "two-sided"
) -> float:
    """Probability that a paired t-test with n pairs finds a true mean ``difference``."""
    if n < 2:
        return 0.0
    if sd == 0:
        sides = {"two-sided": difference != 0, "less": difference < 0, "greater": difference > 0}
        return float(sides[alternative])
    df, shift = n - 1, difference / (sd / math.sqrt(n))
    tail = alpha / 2 if alternative == "two-sided" else alpha
    critical = float(special.stdtrit(df, 1 - tail))
    above = float(special.nctdtr(df, -shift, -critical)) if alternative != "less" else 0.0
    below = float(special.nctdtr(df, shift, -critical)) if alternative != "greater" else 0.0
    return above + below


def _chi_density(x: float, df: int) -> float:
    """Density of the chi distribution; scipy.stats has it too, but takes half a second to import."""
    log = (
        math.log(2)
        - 0.5 * math.log(2) * df
        - special.gammaln(0.5 * df)
        + special.xlogy(df - 1.0, x)
        - 0.5 * x**2
    )
    return math.exp(log)


def tost_needed_seeds(
    sd: float,
    margin: float,
    *,
    difference: float = 0.0,
    power: float = 0.8,
    alpha: float = ALPHA,
    limit: int = 10_000,
) -> int | None:
    """Fewest seeds at which :func:`tost_power` reaches ``power``; ``None`` where ``limit`` seeds do not."""
    return _fewest(lambda n: tost_power(n, sd, margin, difference=difference, alpha=alpha) >= power, limit)


def t_test_needed_seeds(
    sd: float,
    difference: float,
    *,
    power: float = 0.8,
    alpha: float = ALPHA,
    limit: int = 10_000,
    alternative: Alternative = "two-sided",
) -> int | None:
    """Fewest seeds at which :func:`t_test_power` reaches ``power``; ``None`` where ``limit`` seeds do not."""
    return _fewest(
        lambda n: t_test_power(n, sd, difference, alpha=alpha, alternative=alternative) >= power, limit
    )


def _fewest(enough: Callable[[int], bool], limit: int) -> int | None:
    """Smallest n from 2 to ``limit`` for which ``enough`` holds; it holds for all larger n as well."""
    high = 2
    while not enough(high):
        if high >= limit:
            return None
        high = min(2 * high, limit)
    return bisect.bisect_left(range(high + 1), True, lo=2, key=enough)
