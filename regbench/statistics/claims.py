"""Is a claim supported, refuted, or undecided? Verdicts on conjunctions of one-sided comparisons of means.

A claim is a conjunction of hypotheses ("this method matches that one on this data set"), a hypothesis one or two
:class:`Bound`\\ s ("this mean lies below that one"), each tested in pairs over the seeds by a one-sided t-test.

- Supported: every bound is shown. The intersection-union test needs no adjustment for that (R. L. Berger,
  Technometrics 24 (1982)): the p-value is the largest one.
- Refuted: the opposite of some bound is shown. Any will do, so the p-value is the smallest one times the number of
  bounds (Bonferroni).
- Over the m claims of a suite, both are multiplied by m. Of each claim just one verdict is wrong, so however the
  claims depend on each other, any wrong verdict is given with probability alpha at most.

Holm's steps would not keep that: a claim that is decided rightly lowers the bar for the next one, in both directions.
With two claims against one noisy baseline, about 7% of suites get a wrong verdict at alpha = 5%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regbench.statistics.equivalence import t_test_needed_seeds, tost_needed_seeds
from regbench.statistics.intervals import ALPHA, Better, negligible, pairs
from regbench.statistics.significance import paired_t_test

Verdict = Literal["supported", "refuted", "undecided"]
Side = Literal["both", "not worse", "not better"]
POWER = 0.8
"""What the needed seeds are for."""


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """mean(lower) < mean(upper), over paired seeds."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    @property
    def gap(self) -> float:
        """mean(lower - upper): negative where the bound holds in the data."""
        return float(np.mean(self.lower - self.upper))

    @property
    def sd(self) -> float:
        """Sample standard deviation of lower - upper; zero where it is rounding."""
        sd = float(np.std(self.lower - self.upper, ddof=1))
        return 0.0 if negligible(sd, self.lower, self.upper) else sd


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """All bounds hold; or, ``two_sided``, the means of the only bound differ, in whichever direction."""

    bounds: tuple[Bound, ...]
    two_sided: bool = False

    @cached_property
    def testable(self) -> bool:
        """Whether there are two pairs or more, all of them finite."""
        values = [vector for bound in self.bounds for vector in (bound.lower, bound.upper)]
        return all(vector.size >= 2 and bool(np.isfinite(vector).all()) for vector in values)

    @cached_property
    def p_support(self) -> float | None:
        """p-value against "it does not hold"; ``None`` where there is no test."""
        if not self.testable:
            return None
        alternative: Literal["two-sided", "less"] = "two-sided" if self.two_sided else "less"
        return max(_p(bound, alternative) for bound in self.bounds)

    @cached_property
    def p_refute(self) -> float | None:
        """p-value against "it holds", adjusted for the bounds; 1 where ``two_sided``: no data show equality."""
        if not self.testable:
            return None
        if self.two_sided:
            return 1.0
        return min(1.0, len(self.bounds) * min(_p(bound, "greater") for bound in self.bounds))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the data say of one claim."""

    verdict: Verdict
    p_support: float
    """Largest over the hypotheses, before the adjustment for the other claims; 1 where one cannot be tested."""
    p_refute: float
    """Smallest over the hypotheses times their number, before the same adjustment."""
    p: float
    """The smaller of the two, adjusted: decides where it is below alpha."""
    deciding: int
    """Index of the hypothesis that decides: the one that refutes, else the one hardest to support."""


def within(
    a: ArrayLike, b: ArrayLike, margin: ArrayLike, *, better: Better = "lower", side: Side = "both"
) -> Hypothesis:
    """a is neither worse nor better than b by more than a margin; or only not the one of them.

    Args:
        a: one value per seed.
        b: the values of the same seeds.
        margin: a number in the metric's unit; or one number per seed, where the margin is a share of a method's
            mean: a - b - margin is then tested as one contrast, which counts the margin's own spread (the idea of
            E. C. Fieller, J. R. Statist. Soc. B 16 (1954)).
        better: which direction of the metric is better.

    Raises ``ValueError`` where the mean margin is not positive, as a share of a negative mean is.
    """
    x, y = pairs(a, b)
    width = np.broadcast_to(np.asarray(margin, dtype=np.float64), x.shape)
    if width.size and not width.mean() > 0:
        raise ValueError(f"margin = {width.mean():g}: expected a positive number, in the metric's unit")
    below, above = Bound(x, y + width), Bound(y, x + width)
    not_worse, not_better = (below, above) if better == "lower" else (above, below)
    return Hypothesis({"both": (below, above), "not worse": (not_worse,), "not better": (not_better,)}[side])


def better_than(a: ArrayLike, b: ArrayLike, *, better: Better = "lower") -> Hypothesis:
    """a is better than b, by whatever amount."""
    x, y = pairs(a, b)
    return Hypothesis((Bound(x, y) if better == "lower" else Bound(y, x),))


def differs(a: ArrayLike, b: ArrayLike) -> Hypothesis:
    """The means of a and b differ: a claim that no data can refute."""
    return Hypothesis((Bound(*pairs(a, b)),), two_sided=True)


def judge(claims: Sequence[Sequence[Hypothesis | None]], *, alpha: float = ALPHA) -> list[Judgement]:
    """The verdict on each claim of a suite.

    Args:
        claims: of each claim its hypotheses, one or more; ``None``: one that has no data. A claim with such a
            hypothesis may be refuted by another, and is not supported.
        alpha: the probability of any wrong verdict in the suite is this at most, for normal differences.
    """
    return [_judgement(claim, len(claims), alpha) for claim in claims]


def claim_needed_seeds(
    claim: Sequence[Hypothesis | None], claims: int, *, alpha: float = ALPHA, limit: int = 10_000
) -> float | None:
    """Fewest seeds that would decide a claim with 80% power, if the means and spreads are the observed ones.

    Where all bounds hold in the data: the most that any hypothesis needs to be supported. Else: the fewest that
    one which does not hold needs to be refuted. ``inf`` where ``limit`` seeds do not suffice, ``None`` where a
    hypothesis has less than two pairs.

    Args:
        claims: number of claims in the suite.
    """
    tested = [hypothesis for hypothesis in claim if hypothesis is not None and hypothesis.testable]
    against = [
        bound
        for hypothesis in tested
        if not hypothesis.two_sided
        for bound in hypothesis.bounds
        if bound.gap > 0
    ]
    if against:
        one = alpha / (claims * len(claim))
        share = {id(bound): len(hypothesis.bounds) for hypothesis in tested for bound in hypothesis.bounds}
        needed = [_bound_seeds(bound, one / share[id(bound)], limit) for bound in against]
        return min(needed)
    if len(tested) < len(claim):
        return None
    level = alpha / claims
    pending = [h for h in tested if (p := h.p_support) is not None and p >= level] or tested
    return max(_support_seeds(hypothesis, level, limit) for hypothesis in pending)


def _judgement(claim: Sequence[Hypothesis | None], claims: int, alpha: float) -> Judgement:
    if not claim:
        raise ValueError("a claim needs at least one hypothesis")
    support = [1.0 if h is None or (p := h.p_support) is None else p for h in claim]
    refute = [1.0 if h is None or (p := h.p_refute) is None else p for h in claim]
    p_support, p_refute = max(support), min(1.0, min(refute) * len(claim))
    p = min(1.0, min(p_support, p_refute) * claims)
    if p >= alpha:
        return Judgement("undecided", p_support, p_refute, p, support.index(p_support))
    if p_refute < p_support:
        return Judgement("refuted", p_support, p_refute, p, refute.index(min(refute)))
    return Judgement("supported", p_support, p_refute, p, support.index(p_support))


def _p(bound: Bound, alternative: Literal["two-sided", "less", "greater"]) -> float:
    p = paired_t_test(bound.lower, bound.upper, alternative)
    assert p is not None  # the hypothesis is testable
    return p


def _support_seeds(hypothesis: Hypothesis, alpha: float, limit: int) -> float:
    bounds = hypothesis.bounds
    if hypothesis.two_sided:
        needed = t_test_needed_seeds(bounds[0].sd, bounds[0].gap, power=POWER, alpha=alpha, limit=limit)
        return math.inf if needed is None else needed
    if len(bounds) == 1:
        return _bound_seeds(bounds[0], alpha, limit)
    below, above = bounds
    # Both contrasts have one spread, but for a margin with a spread of its own: then the larger.
    needed = tost_needed_seeds(
        max(below.sd, above.sd),
        -(below.gap + above.gap) / 2,
        difference=(below.gap - above.gap) / 2,
        power=POWER,
        alpha=alpha,
        limit=limit,
    )
    return math.inf if needed is None else needed


def _bound_seeds(bound: Bound, alpha: float, limit: int) -> float:
    """Seeds to show by a one-sided test what the bound's gap says, in its direction."""
    needed = t_test_needed_seeds(
        bound.sd, abs(bound.gap), power=POWER, alpha=alpha, limit=limit, alternative="greater"
    )
    return math.inf if needed is None else needed
