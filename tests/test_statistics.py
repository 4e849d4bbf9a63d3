"""Statistics against scipy, brute force, closed forms, and simulations where the truth is known."""

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
    paired_difference,
    paired_t_test,
    share_seeds,
    sign_flip_test,
    t_interval,
    t_test_needed_seeds,
    t_test_power,
    tie_group,
    tost_needed_seeds,
    tost_paired,
    tost_power,
    welch_t_test,
    wilcoxon_test,
)

TRIALS = 2500


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def margin_of_error(probability: float, trials: int) -> float:
    """Four standard errors of an estimated probability."""
    return 4 * math.sqrt(probability * (1 - probability) / trials)


# --- intervals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_is_scipys(rng: np.random.Generator, n: int, level: float) -> None:
    x = rng.normal(3, 2, n)
    expected = stats.ttest_1samp(x, 0).confidence_interval(level)
    found = t_interval(x, level)
    assert (found.n, found.mean, found.sd) == (n, pytest.approx(x.mean()), pytest.approx(np.std(x, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = t_interval([0.25])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, 0.25, None, None, None)


def test_values_that_are_not_finite_have_no_interval() -> None:
    found = t_interval([30.0, math.inf, 31.0])
    assert (found.mean, found.low, found.high) == (math.inf, None, None)
    assert paired_difference([1.0, math.inf], [2.0, math.inf]).low is None


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_t_interval_refuses_what_is_not_one_value_per_seed(values: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        t_interval(values)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_t_interval_refuses_levels_that_are_none(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        t_interval([1.0, 2.0], level)


@pytest.mark.parametrize(("n", "bootstrap_covers"), [(3, 0.75), (5, 0.84)])
def test_t_interval_covers_and_the_percentile_bootstrap_does_not(
    rng: np.random.Generator, n: int, bootstrap_covers: float
) -> None:
    """The reason for t-intervals at few seeds, as stated in ``t_interval``."""
    samples = rng.normal(1, 0.1, (TRIALS, n))
    intervals = [t_interval(sample) for sample in samples]
    covered = np.mean([i.low <= 1 <= i.high for i in intervals if i.low is not None and i.high is not None])
    assert covered == pytest.approx(0.95, abs=margin_of_error(0.95, TRIALS))

    # All n**n resamples are equally likely: the exact bootstrap distribution of the mean.
    resamples = np.array(list(itertools.product(range(n), repeat=n)))
    means = samples[:1500, resamples].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1, method="inverted_cdf")
    bootstrap = np.mean((low <= 1) & (high >= 1))
    assert bootstrap == pytest.approx(bootstrap_covers, abs=margin_of_error(bootstrap_covers, 1500))


# --- pairs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_paired_difference_against_a_loop(rng: np.random.Generator, better: str) -> None:
    a, b = rng.normal(size=7), rng.normal(0.5, 1, 7)
    b[2] = a[2]  # equal: no win
    found = paired_difference(a, b, better=better)  # type: ignore[arg-type]
    differences = [x - y for x, y in zip(a, b, strict=True)]
    wins = sum(d < 0 if better == "lower" else d > 0 for d in differences)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.n, found.wins) == (7, wins)
    assert found.mean == pytest.approx(math.fsum(differences) / 7)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic)


def test_pairing_narrows_the_interval_of_correlated_seeds(rng: np.random.Generator) -> None:
    seed_effect = rng.normal(0, 1, 6)
    a, b = seed_effect + rng.normal(0, 0.05, 6), seed_effect + rng.normal(0.2, 0.05, 6)
    paired, unpaired = paired_difference(a, b), welch_t_test(a, b)[0]
    assert paired.high is not None
    assert paired.low is not None
    assert unpaired.high is not None
    assert unpaired.low is not None
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)
    assert paired.correlation is not None
    assert paired.correlation > 0.9


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [2.0, 1.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_correlation_is_none_where_it_means_nothing(a: list[float], b: list[float]) -> None:
    assert paired_difference(a, b).correlation is None


def test_shared_seeds_are_paired_whatever_their_order() -> None:
    a, b = share_seeds({2: 20.0, 0: 0.0, 5: 50.0}, {5: 5.0, 1: 1.0, 2: 2.0})
    assert (a.tolist(), b.tolist()) == ([20.0, 50.0], [2.0, 5.0])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0, 2.0], [1.0])


# --- tests of differences ----------------------------------------------------------------------------------


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


# --- many comparisons --------------------------------------------------------------------------------------


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


# --- equivalence -------------------------------------------------------------------------------------------


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


# --- tie groups --------------------------------------------------------------------------------------------


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_tie_group_in_both_directions() -> None:
    values = {
        "good": by_seed(0.010, 0.011, 0.012, 0.013),
        "as good": by_seed(0.011, 0.010, 0.013, 0.012),
        "bad": by_seed(0.040, 0.041, 0.043, 0.042),
    }
    assert tie_group(values) == {"good", "as good"}
    assert tie_group(values, better="higher") == {"bad"}


def test_tie_group_by_hand(rng: np.random.Generator) -> None:
    """Out, where the smallest of a method's one-sided p-values times their number is below alpha."""
    for _ in range(50):
        x = rng.normal(0, 1, (4, 5)) + rng.normal(0, 1, (4, 1))
        expected = set()
        for i in range(4):
            p = [stats.ttest_rel(x[i], x[j], alternative="greater").pvalue for j in range(4) if j != i]
            if 3 * min(p) >= 0.05:
                expected.add(str(i))
        assert tie_group({str(i): by_seed(*row) for i, row in enumerate(x)}) == expected
        assert str(int(x.mean(1).argmin())) in expected


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("tied", [1, 4])
def test_the_true_best_is_left_out_in_at_most_5_percent(rng: np.random.Generator, n: int, tied: int) -> None:
    """Four methods of unequal spread with a shared seed effect; one is best, or all tie."""
    trials = 700
    shift = np.array([0.0] * tied + [0.3] * (4 - tied))[:, None]
    spread = np.array([1.0, 0.3, 2.0, 1.0])[:, None]
    kept = 0
    for _ in range(trials):
        x = rng.normal(0, 2, (1, n)) + shift + spread * rng.normal(size=(4, n))
        kept += "0" in tie_group({str(i): by_seed(*row) for i, row in enumerate(x)})
    assert kept / trials >= 0.95 - margin_of_error(0.95, trials)


def test_one_seed_leaves_all_in() -> None:
    assert tie_group({"a": by_seed(1.0), "b": by_seed(5.0)}) == {"a", "b"}


def test_values_without_spread_decide() -> None:
    assert tie_group({"a": by_seed(1.0, 1.0), "b": by_seed(1.0, 1.0), "c": by_seed(2.0, 2.0)}) == {"a", "b"}


def test_methods_with_missing_seeds_are_no_candidates() -> None:
    values = {
        "whole": by_seed(2.0, 2.1, 2.2),
        "lucky": {1: 0.1, 2: 0.11},
        "lost": {},
        "bad": by_seed(9.0, 9.1, 9.2),
    }
    assert tie_group(values) == {"whole"}


def test_a_method_that_is_not_finite_is_no_candidate() -> None:
    assert tie_group({"a": by_seed(1.0, 1.1), "b": by_seed(math.nan, 0.1)}) == {"a"}
    assert tie_group({}) == set()
    assert tie_group({"a": {}, "b": {}}) == set()


def test_methods_without_a_shared_seed_are_not_compared() -> None:
    assert tie_group({"a": {0: 1.0, 1: 1.1}, "b": {2: 9.0, 3: 9.1}}) == {"a", "b"}
