"""The tie group by hand, at its limits, and its error rate by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from regbench.statistics import tie_group
from tests.statistics.simulation import margin_of_error


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
