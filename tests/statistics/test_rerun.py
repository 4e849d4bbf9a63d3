"""Reruns against seeds: the interval against simulation, and each kind of agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from regbench.statistics import rerun_agreement, rerun_half_width
from regbench.statistics.rerun import critical_ratio
from tests.statistics.simulation import margin_of_error

TRIALS = 40_000


@pytest.mark.parametrize("n", [3, 4, 5, 12])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_another_run_lies_within_as_often_as_said(rng: np.random.Generator, n: int, level: float) -> None:
    seeds_TN, again_T = rng.normal(3, 0.2, (TRIALS, n)), rng.normal(3, 0.2, TRIALS)
    inside = np.abs(again_T - seeds_TN[:, 0]) <= critical_ratio(n, level) * seeds_TN.std(axis=1, ddof=1)
    assert inside.mean() == pytest.approx(level, abs=margin_of_error(level, TRIALS))


def test_a_rerun_that_shares_part_of_its_seed_lies_within_more_often(rng: np.random.Generator) -> None:
    shared_TN, noise_TN = rng.normal(0, 1, (TRIALS, 4)), rng.normal(0, 1, (TRIALS, 4))
    again_T = shared_TN[:, 0] + rng.normal(0, 1, TRIALS)
    seeds_TN = shared_TN + noise_TN
    inside = np.abs(again_T - seeds_TN[:, 0]) <= critical_ratio(4) * seeds_TN.std(axis=1, ddof=1)
    assert inside.mean() > 0.96


def test_with_many_seeds_it_is_the_interval_of_a_known_spread() -> None:
    assert critical_ratio(20_000) == pytest.approx(math.sqrt(2) * special.ndtri(0.975), rel=1e-3)


def test_half_width_is_in_the_metrics_unit() -> None:
    assert rerun_half_width([1.0, 2.0, 3.0]) == pytest.approx(critical_ratio(3))
    assert rerun_half_width([10.0, 20.0, 30.0]) == pytest.approx(10 * critical_ratio(3))
    assert rerun_half_width([0.5, 0.5, 0.5]) == 0


@pytest.mark.parametrize("seeds", [[1.0], [1.0, 2.0], [1.0, 2.0, math.inf]])
def test_too_few_seeds_have_no_interval(seeds: list[float]) -> None:
    assert rerun_half_width(seeds) is None


@pytest.mark.parametrize(
    ("original", "again", "seeds", "agreement"),
    [
        (1.0, 1.0, [1.0], "identical"),
        (math.inf, math.inf, [math.inf], "identical"),
        (math.nan, math.nan, [math.nan], "identical"),
        (1.0, 1.000009, [1.0], "rounding"),
        (1.0, 1.00002, [1.0], "beyond"),
        (-1.0, 1.0, [-1.0], "beyond"),
        (1.0, math.inf, [1.0, 1.1, 0.9], "beyond"),
        (math.inf, 1.0, [math.inf, 1.1, 0.9], "beyond"),
        (1.0, math.nan, [1.0, 1.1, 0.9], "beyond"),
        (1.0, 1.5, [1.0, 1.1, 0.9], "within"),
        (1.0, 1.6, [1.0, 1.1, 0.9], "beyond"),
        (1.0, 1.5, [1.0, 1.1], "beyond"),
        (0.0, 1e-30, [0.0], "beyond"),
        (0.0, -0.0, [0.0], "identical"),
    ],
)
def test_agreement(original: float, again: float, seeds: list[float], agreement: str) -> None:
    found = rerun_agreement(original, again, seeds)
    assert found.agreement == agreement
    assert found.agrees == (agreement != "beyond")
    assert found.n == len(seeds)
    if math.isfinite(original) and math.isfinite(again):
        assert found.difference == again - original


def test_centred_on_the_original_not_on_the_mean() -> None:
    """An original that is itself far from the other seeds must not make a near rerun differ."""
    seeds = [5.0, 1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98]
    assert rerun_agreement(5.0, 5.1, seeds).agreement == "within"


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (5, 95)])
def test_nonsense_is_refused(n: int, level: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        critical_ratio(n, level)
