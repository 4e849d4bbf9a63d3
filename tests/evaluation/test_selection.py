"""Which images and epochs are looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.evaluation.selection import curve_epochs, curve_index, fixed_index, latent_index, shown_index


@pytest.mark.parametrize("n", [1, 100, 256, 360, 10_000])
def test_positions_are_distinct_and_ascending(n: int) -> None:
    for index, count in ((shown_index(n), 256), (latent_index(n), 2_000), (curve_index(n), 10_000)):
        assert index.dtype == np.int64
        assert len(index) == min(n, count)
        assert (np.diff(index) > 0).all()
        assert index[0] >= 0
        assert index[-1] < n


def test_the_choice_never_changes() -> None:
    # Other numbers here would show other images than in every earlier report.
    assert shown_index(10_000)[:5].tolist() == [60, 110, 141, 202, 248]
    assert curve_index(45_000)[:5].tolist() == [0, 2, 3, 7, 12]


def test_shown_images_are_among_those_whose_codes_are_kept() -> None:
    assert np.isin(shown_index(10_000), latent_index(10_000)).all()


def test_positions_are_spread_over_the_whole_set() -> None:
    per_tenth = np.bincount(latent_index(10_000) // 1_000, minlength=10)
    assert per_tenth.min() > 150
    assert (fixed_index(10_000, 100, "a") != fixed_index(10_000, 100, "b")).any()


@given(st.integers(1, 2_000), st.integers(2, 80), st.data())
def test_curves_have_their_ends_and_about_the_points_asked_for(
    epochs: int, points: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, epochs))
    chosen = curve_epochs(epochs, warmup, points)
    assert {1, epochs} <= chosen
    assert warmup == 0 or warmup in chosen
    assert all(1 <= epoch <= epochs for epoch in chosen)
    assert min(epochs, points) <= len(chosen) <= min(epochs, points) + 1
    gaps = np.diff(sorted(chosen - {warmup} | {1, epochs}))
    if len(gaps):
        assert gaps.max() <= 2 * np.ceil((epochs - 1) / (min(points, epochs) - 1))


def test_a_choice_that_somebody_changes_stays_what_it_is() -> None:
    fixed_index(50, 5, "test")[:] = -1
    assert (fixed_index(50, 5, "test") >= 0).all()


def test_short_runs_are_measured_every_epoch() -> None:
    assert curve_epochs(60, 10) == set(range(1, 61))
    assert curve_epochs(1, 0) == {1}


@pytest.mark.parametrize(("epochs", "warmup", "points"), [(0, 0, 60), (10, 11, 60), (10, -1, 60), (10, 1, 1)])
def test_impossible_requests_are_refused(epochs: int, warmup: int, points: int) -> None:
    with pytest.raises(ValueError, match="epochs"):
        curve_epochs(epochs, warmup, points)
