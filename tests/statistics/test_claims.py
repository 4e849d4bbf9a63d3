"""Verdicts on claims: p-values against SciPy, error rates and power by simulation where the truth is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from regbench.statistics import (
    Better,
    Hypothesis,
    Side,
    better_than,
    claim_needed_seeds,
    differs,
    holm,
    judge,
    t_test_power,
    tost_power,
    within,
)
from tests.statistics.simulation import margin_of_error

Vector = NDArray[np.float64]
TRIALS = 1000
ALLOWED = 0.05 + margin_of_error(0.05, TRIALS)


def one_sample(d: Vector, alternative: str) -> float:
    return float(stats.ttest_1samp(d, 0, alternative=alternative).pvalue)


def rates(claim: Callable[[], Sequence[Hypothesis | None]]) -> Counter[str]:
    """Share of trials with each verdict; the claim is the suite's only one."""
    verdicts = Counter(judge([claim()])[0].verdict for _ in range(TRIALS))
    return Counter({verdict: count / TRIALS for verdict, count in verdicts.items()})


def exactly(mean: float, sd: float, n: int = 6) -> Vector:
    """A sample with just this mean and standard deviation."""
    x: Vector = np.linspace(-1, 1, n)
    x = mean + sd * (x - x.mean()) / x.std(ddof=1)
    return x


# --- p-values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("share", [None, 0.05])
def test_equivalence_against_t_tests_of_the_contrasts(
    rng: np.random.Generator, better: Better, share: float | None
) -> None:
    a, b, c = rng.normal([[1.0], [1.02], [1.5]], 0.05, (3, 7))
    margin = 0.06 if share is None else share * c
    worse = a - b if better == "lower" else b - a
    p_not_worse, p_not_better = one_sample(worse - margin, "less"), one_sample(worse + margin, "greater")
    both, not_worse, not_better = (
        within(a, b, margin, better=better, side=side) for side in ("both", "not worse", "not better")
    )
    assert not_worse.p_support == pytest.approx(p_not_worse)
    assert not_better.p_support == pytest.approx(p_not_better)
    assert not_worse.p_refute == pytest.approx(1 - p_not_worse)
    assert not_better.p_refute == pytest.approx(1 - p_not_better)
    assert both.p_support == pytest.approx(max(p_not_worse, p_not_better))
    assert both.p_refute == pytest.approx(min(1, 2 * min(1 - p_not_worse, 1 - p_not_better)))


def test_an_absolute_margin_is_the_usual_test_of_equivalence(rng: np.random.Generator) -> None:
    a, b = rng.normal(1, 0.1, (2, 9))
    found = stats.ttest_rel(a - 0.1, b, alternative="less").pvalue
    other = stats.ttest_rel(a + 0.1, b, alternative="greater").pvalue
    assert within(a, b, 0.1).p_support == pytest.approx(max(found, other))


def test_differences_against_paired_t_tests(rng: np.random.Generator) -> None:
    a, b = rng.normal([[1.0], [1.1]], 0.1, (2, 8))
    less, greater = (float(stats.ttest_rel(a, b, alternative=side).pvalue) for side in ("less", "greater"))
    for better, (support, refute) in {"lower": (less, greater), "higher": (greater, less)}.items():
        found = better_than(a, b, better=better)  # type: ignore[arg-type]
        assert found.p_support == pytest.approx(support)
        assert found.p_refute == pytest.approx(refute)
    either = differs(a, b)
    assert either.p_support == pytest.approx(float(stats.ttest_rel(a, b).pvalue))
    assert either.p_refute == 1


def test_a_claim_is_a_conjunction_adjusted_for_the_others(rng: np.random.Generator) -> None:
    claim = [better_than(*rng.normal([[0.9], [1.0]], 0.1, (2, 5))) for _ in range(3)]
    support, refute = [h.p_support or 0 for h in claim], [h.p_refute or 0 for h in claim]
    found = judge([claim, claim[:1], claim[1:]])[0]
    assert found.p_support == max(support)
    assert found.p_refute == min(1, 3 * min(refute))
    assert found.p == min(1, 3 * min(found.p_support, found.p_refute))
    assert found.deciding == support.index(max(support))


# --- the logic of verdicts -----------------------------------------------------------------------------------


def test_what_decides() -> None:
    good, bad, unsure = (better_than(exactly(gap, 0.1), np.zeros(6)) for gap in (-1, 1, 0.01))
    verdicts = [(j.verdict, j.deciding) for j in judge([[good, good], [good, bad, unsure], [good, unsure]])]
    assert verdicts == [("supported", 0), ("refuted", 1), ("undecided", 1)]


def test_a_hypothesis_without_data_leaves_only_refutation() -> None:
    good, bad = (better_than(exactly(gap, 0.1), np.zeros(6)) for gap in (-1, 1))
    one_pair = better_than([0.0], [1.0])
    infinite = better_than([0.0, 0.0], [1.0, math.inf])
    assert (one_pair.p_support, infinite.p_refute) == (None, None)
    for missing in (None, one_pair, infinite):
        found = judge([[good, missing], [bad, missing], [missing]])
        assert [j.verdict for j in found] == ["undecided", "refuted", "undecided"]
        assert [j.deciding for j in found] == [1, 0, 0]
        assert claim_needed_seeds([good, missing], 1) is None
        assert claim_needed_seeds([bad, missing], 1) == 3


def test_without_spread_the_values_decide() -> None:
    same = np.array([0.1, 0.2, 0.3])
    claims = [[within(same, same, 0.01)], [better_than(same, same)], [better_than(same, same + 0.1)]]
    claims += [[within(same, same + 0.1, 0.01)], [differs(same, same)], [differs(same, same + 1)]]
    expected = ["supported", "undecided", "supported", "refuted", "undecided", "supported"]
    assert [found.verdict for found in judge(claims)] == expected
    assert [claim_needed_seeds(claim, 1) for claim in claims] == [2, math.inf, 2, 2, math.inf, 2]


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="margin"):
        within([1.0, 2.0], [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="margin"):
        within([-1.0, -2.0], [-1.0, -2.0], [-0.05, -0.1])
    with pytest.raises(ValueError, match="pairs"):
        better_than([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one hypothesis"):
        judge([[]])


# --- error rates of one claim --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "sd", "gap"), [(5, 0.5, 0.0), (10, 1.0, 0.3), (3, 0.5, 0.0)])
def test_truly_equivalent(rng: np.random.Generator, n: int, sd: float, gap: float) -> None:
    b = rng.normal(5, 1, (TRIALS, n))
    a = iter(b + rng.normal(gap, sd, (TRIALS, n)))
    references = iter(b)
    found = rates(lambda: [within(next(a), next(references), 1.0)])
    power = tost_power(n, sd, 1.0, difference=gap)
    assert found["supported"] == pytest.approx(power, abs=margin_of_error(power, TRIALS) + 1e-3)
    assert found["refuted"] <= ALLOWED


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("side", ["both", "not worse"])
def test_exactly_at_the_margin(rng: np.random.Generator, n: int, side: Side) -> None:
    found = rates(lambda: [within(rng.normal(1, 0.4, n), np.zeros(n), 1.0, side=side)])
    assert found["supported"] <= ALLOWED
    assert found["refuted"] <= ALLOWED
    assert found["undecided"] >= 0.85


def test_clearly_different(rng: np.random.Generator) -> None:
    found = rates(lambda: [within(rng.normal(3, 0.5, 5), np.zeros(5), 1.0)])
    power = t_test_power(5, 0.5, 2.0, alpha=0.025, alternative="greater")
    assert found["refuted"] == pytest.approx(power, abs=margin_of_error(power, TRIALS) + 1e-3)
    assert found["refuted"] > 0.95
    assert found["supported"] == 0


@pytest.mark.parametrize("n", [2, 3, 6])
def test_no_difference_at_all(rng: np.random.Generator, n: int) -> None:
    better = rates(lambda: [better_than(rng.normal(0, 1, n), rng.normal(0, 1, n))])
    assert better["supported"] == pytest.approx(0.05, abs=margin_of_error(0.05, TRIALS))
    either = rates(lambda: [differs(rng.normal(0, 1, n), rng.normal(0, 1, n))])
    assert either["supported"] == pytest.approx(0.05, abs=margin_of_error(0.05, TRIALS))
    assert either["refuted"] == 0


def test_two_seeds_rarely_decide_and_no_more_often_wrongly(rng: np.random.Generator) -> None:
    found = rates(lambda: [better_than(rng.normal(-1, 1, 2), np.zeros(2))])
    power = t_test_power(2, 1.0, 1.0, alternative="greater")
    assert found["supported"] == pytest.approx(power, abs=margin_of_error(power, TRIALS))
    assert found["undecided"] > 0.8
    assert found["refuted"] <= ALLOWED


@pytest.mark.parametrize(("share", "spread"), [(0.05, 0.05), (0.5, 0.3)])
def test_a_margin_relative_to_a_mean_that_is_itself_uncertain(
    rng: np.random.Generator, share: float, spread: float
) -> None:
    """a is worse than b by just that share of c's true mean of 1; b and c scatter, and so does the margin."""

    def claim() -> list[Hypothesis]:
        b, c = 2 + rng.normal(0, 0.02, 6), 1 + rng.normal(0, spread, 6)
        a = b + share + rng.normal(0, 0.01, 6)
        return [within(a, b, share * c)]

    found = rates(claim)
    assert found["supported"] == pytest.approx(0.05, abs=margin_of_error(0.05, TRIALS))
    assert found["refuted"] <= ALLOWED


def test_a_margin_that_is_estimated_and_then_taken_for_known_would_err_more_often(
    rng: np.random.Generator,
) -> None:
    c = 1 + rng.normal(0, 0.3, (TRIALS, 6))
    d = 0.5 + rng.normal(0, 0.01, (TRIALS, 6))
    wrong = [
        judge([[within(x, np.zeros(6), 0.5 * y.mean())]])[0].verdict == "supported"
        for x, y in zip(d, c, strict=True)
    ]
    assert np.mean(wrong) > 0.3


def test_a_conjunction_over_data_sets(rng: np.random.Generator) -> None:
    """Supported wrongly where one of three is at its margin; refuted wrongly where all are just inside."""

    def claim(*gaps: float) -> list[Hypothesis]:
        return [within(rng.normal(gap, 0.3, 8), np.zeros(8), 1.0) for gap in gaps]

    assert rates(lambda: claim(0, 0, 1))["supported"] <= ALLOWED
    assert rates(lambda: claim(1, -1, 1))["supported"] <= 0.01
    assert rates(lambda: claim(0.999, -0.999, 0.999))["refuted"] <= ALLOWED
    assert rates(lambda: claim(0, 0, 2))["refuted"] > 0.95


# --- several claims ------------------------------------------------------------------------------------------


def shared_baseline(
    rng: np.random.Generator, gaps: Sequence[float], quiet: float, n: int
) -> list[Hypothesis]:
    """One claim per gap: a method is better than the same baseline. True where the gap is negative."""
    baseline = rng.normal(0, 1, n)
    return [better_than(gap + rng.normal(0, quiet, n), baseline) for gap in gaps]


@pytest.mark.parametrize("quiet", [0.05, 1.0])
@pytest.mark.parametrize(
    "gaps", [(0, -0.1), (0, 0, 0, 0), (0, -0.1, -0.2, -2), (0, 0, -3, -3), (0.3, -0.1, 0.1, -0.3)], ids=str
)
def test_any_wrong_verdict_among_several_claims(
    rng: np.random.Generator, gaps: Sequence[float], quiet: float
) -> None:
    wrong = 0
    for _ in range(TRIALS):
        found = judge([[h] for h in shared_baseline(rng, gaps, quiet, 10)])
        # At a gap of zero the claim is false, and one wrong verdict is possible all the same.
        wrong += any(
            j.verdict == ("refuted" if gap < 0 else "supported") for j, gap in zip(found, gaps, strict=True)
        )
    assert wrong / TRIALS <= ALLOWED


def test_holm_in_two_directions_would_err_more_often(rng: np.random.Generator) -> None:
    """Why the adjustment is Bonferroni's: the first claim is false by a tie, the second true by a little."""
    trials, n = 20_000, 10
    baseline = rng.normal(0, 1, (trials, n))
    gaps = np.array([[0.0], [-0.3 / math.sqrt(n)]])
    d = gaps[:, None] + rng.normal(0, 0.05, (2, trials, n)) - baseline
    support = stats.ttest_1samp(d, 0, axis=-1, alternative="less").pvalue
    backwards = np.array([support[0] < 0.5, support[1] > 0.5])
    adjusted = np.array([holm(pair) for pair in np.minimum(support, 1 - support).T]).T
    wrong = float(((adjusted < 0.05) & backwards).any(axis=0).mean())
    assert wrong > 0.05 + margin_of_error(0.05, trials)
    bonferroni = float(((2 * np.minimum(support, 1 - support) < 0.05) & backwards).any(axis=0).mean())
    assert bonferroni < 0.05


def test_equivalence_order_and_difference_in_one_suite(rng: np.random.Generator) -> None:
    """Three claims on the same four methods: one at its margin, one false by a tie, one true."""
    wrong = Counter[str]()
    for _ in range(TRIALS):
        base = rng.normal(0, 1, 6)
        a, b, c = (gap + base + rng.normal(0, 0.2, 6) for gap in (0.0, 0.5, 0.5))
        found = judge([[within(b, a, 0.5)], [better_than(a, b), better_than(b, c)], [better_than(a, c)]])
        verdicts = [j.verdict for j in found]
        wrong["any"] += verdicts[0] == "supported" or verdicts[1] == "supported" or verdicts[2] == "refuted"
        wrong["missed"] += verdicts[2] == "undecided"
    assert wrong["any"] / TRIALS <= ALLOWED
    assert wrong["missed"] / TRIALS < 0.25


# --- seeds that would be needed ------------------------------------------------------------------------------


def power_at(n: float | None, draw: Callable[[int], list[Hypothesis]], claims: int, verdict: str) -> float:
    """Share of trials in which n seeds decide, at the level that several claims leave to each."""
    assert n is not None
    filler = [differs([0.0, 0.0], [0.0, 0.0])]
    found = (judge([draw(int(n)), *[filler] * (claims - 1)])[0].verdict for _ in range(TRIALS))
    return sum(each == verdict for each in found) / TRIALS


NEEDED: dict[str, tuple[float, float, str, Callable[[Vector], Hypothesis]]] = {
    "better": (-0.5, 0.6, "supported", lambda d: better_than(d, np.zeros_like(d))),
    "not better": (0.5, 0.6, "refuted", lambda d: better_than(d, np.zeros_like(d))),
    "differs": (0.5, 0.7, "supported", lambda d: differs(d, np.zeros_like(d))),
    "matches": (0.2, 0.7, "supported", lambda d: within(d, np.zeros_like(d), 1.0)),
    "matches not": (1.5, 0.6, "refuted", lambda d: within(d, np.zeros_like(d), 1.0)),
    "not worse": (0.2, 0.9, "supported", lambda d: within(d, np.zeros_like(d), 1.0, side="not worse")),
}


@pytest.mark.parametrize("claims", [1, 3])
@pytest.mark.parametrize("name", NEEDED)
def test_needed_seeds_have_the_power_and_one_less_has_not(
    rng: np.random.Generator, name: str, claims: int
) -> None:
    gap, sd, verdict, make = NEEDED[name]
    n = claim_needed_seeds([make(exactly(gap, sd))], claims)
    assert n is not None
    found = power_at(n, lambda k: [make(rng.normal(gap, sd, k))], claims, verdict)
    assert found >= 0.8 - margin_of_error(0.8, TRIALS)
    fewer = power_at(n - 1, lambda k: [make(rng.normal(gap, sd, k))], claims, verdict)
    assert fewer < 0.8 + margin_of_error(0.8, TRIALS)


def test_needed_seeds_of_a_conjunction() -> None:
    zero = np.zeros(6)
    easy, hard, never = (better_than(exactly(gap, 1), zero) for gap in (-1, -0.3, 0))
    slightly, clearly = (better_than(exactly(gap, 1), zero) for gap in (0.3, 1))
    alone = claim_needed_seeds([hard], 1)
    assert claim_needed_seeds([easy, hard], 1) == alone
    assert claim_needed_seeds([easy, never], 1) == math.inf
    # Refuting one of two is held to half the level, which is what two claims leave to each.
    assert claim_needed_seeds([slightly, clearly], 1) == claim_needed_seeds([clearly], 2)
    assert claim_needed_seeds([hard, clearly], 1) == claim_needed_seeds([clearly], 2)
    assert (claim_needed_seeds([easy], 4) or 0) > (claim_needed_seeds([easy], 1) or 0)


def test_what_is_shown_already_is_not_counted() -> None:
    shown = better_than(exactly(-0.35, 1, 40), np.zeros(40))  # barely: as weak an effect would need 50 seeds
    near = better_than(exactly(-1, 1, 3), np.zeros(3))
    assert (shown.p_support or 1) < 0.05 < (near.p_support or 0)
    assert (claim_needed_seeds([shown], 1) or 0) > (claim_needed_seeds([near], 1) or 0)
    assert claim_needed_seeds([shown, near], 1) == claim_needed_seeds([near], 1)


def test_needed_seeds_with_a_margin_of_its_own_spread(rng: np.random.Generator) -> None:
    """The larger spread is taken for both sides: enough seeds, and not many too many."""

    def draw(n: int) -> list[Hypothesis]:
        c = 2 + rng.normal(0, 0.5, n)
        return [within(rng.normal(0.1, 0.6, n), np.zeros(n), 0.5 * c)]

    n = claim_needed_seeds(draw(20_000), 1, limit=100)
    assert power_at(n, draw, 1, "supported") >= 0.8 - margin_of_error(0.8, TRIALS)
    assert n is not None
    assert power_at(n - 3, draw, 1, "supported") < 0.8
