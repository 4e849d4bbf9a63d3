from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from regbench.report.figures.series import band, evaluated, series


def cell(values: dict[int, Any], status: str = "done") -> Any:
    history = [{"epoch": epoch, "evaluation": {"test_mse": value}} for epoch, value in values.items()]
    return SimpleNamespace(status=status, history=[{"epoch": 99}, *history])


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_bands_are_t_intervals_over_seeds(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    values_SE = random.lognormal(size=(seeds, 5))
    found = band([cell(dict(enumerate(row.tolist(), start=1))) for row in values_SE], evaluated("test_mse"))
    assert found is not None
    assert found.epochs_E.tolist() == [1, 2, 3, 4, 5]
    low, high = stats.t.interval(0.95, seeds - 1, loc=values_SE.mean(0), scale=stats.sem(values_SE))
    np.testing.assert_allclose(found.mean_E, values_SE.mean(0))
    np.testing.assert_allclose(found.low_E, low)
    np.testing.assert_allclose(found.high_E, high)


def test_one_seed_has_no_interval() -> None:
    found = band([cell({1: 0.5, 2: 0.25})], evaluated("test_mse"))
    assert found is not None
    assert found.mean_E.tolist() == [0.5, 0.25]
    assert np.isnan(found.low_E).all()
    assert np.isnan(found.high_E).all()


def test_only_epochs_that_all_seeds_have_and_only_finished_cells() -> None:
    cells = [cell({1: 1.0, 2: 2.0, 3: 3.0}), cell({2: 4.0, 3: 5.0}), cell({2: 100.0}, status="diverged")]
    found = band(cells, evaluated("test_mse"))
    assert found is not None
    assert found.seeds == 2
    assert found.epochs_E.tolist() == [2, 3]
    assert found.mean_E.tolist() == [3.0, 4.0]


def test_nothing_to_draw() -> None:
    assert band([], evaluated("test_mse")) is None
    assert band([cell({1: 1.0})], evaluated("other")) is None
    assert band([cell({1: 1.0}), cell({2: 1.0})], evaluated("test_mse")) is None


def test_numbers_that_are_not_finite_are_left_out() -> None:
    left_behind = cell({1: 1.0, 2: float("nan"), 3: "nan", 4: "inf", 5: None})
    assert series(left_behind, evaluated("test_mse")) == {1: 1.0}


def test_rows_without_an_evaluation() -> None:
    empty = SimpleNamespace(status="done", history=[{"epoch": 1}, {"epoch": 2, "evaluation": None}])
    assert series(empty, evaluated("test_mse")) == {}


def test_epochs_without_an_evaluation_have_no_value() -> None:
    rows = [{"epoch": 1}, {"epoch": 2, "evaluation": None}, {"epoch": 3, "evaluation": {"test_mse": 0.5}}]
    assert [evaluated("test_mse")(row) for row in rows] == [None, None, 0.5]
    assert series(SimpleNamespace(history=rows), evaluated("test_mse")) == {3: 0.5}  # type: ignore[arg-type]
