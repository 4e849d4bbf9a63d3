from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.errors import StoreError
from regbench.report.figures.choose import best_median_worst, same_images, shown_seeds
from tests.report.synthetic import make_run


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.integers(1, 8))
def test_best_median_and_worst_by_sorting(errors: list[float], count: int) -> None:
    groups = best_median_worst(np.array(errors), count)
    ranked = sorted(errors)
    size = max(1, min(count, len(errors) // 3))
    assert [errors[i] for i in groups["Best"]] == ranked[:size]
    if len(errors) > 1:
        assert [errors[i] for i in groups["Worst"]] == ranked[-size:]
    if len(errors) > 2:
        middle = [errors[i] for i in groups["Median"]]
        below = (len(errors) - size) // 2
        assert middle == ranked[below : below + size]
    chosen = [int(i) for group in groups.values() for i in group]
    assert len(set(chosen)) == len(chosen)


def test_the_seed_with_the_most_finished_methods_is_shown(tmp_path: Path) -> None:
    status = {("AE", "a", 0): "failed", ("VAE-KL", "a", 2): "missing"}
    status |= {(method, "b", seed): "missing" for method in ("AE", "VAE-KL") for seed in range(3)}
    run = make_run(tmp_path / "r", ["AE", "VAE-KL"], ["a", "b", "c"], seeds=3, status=status)
    one, other = shown_seeds(run)
    assert (one.dataset, one.seed, one.absent) == ("a", 1, ())
    assert (other.dataset, other.seed) == ("c", 0)
    assert [cell.method for cell in one.cells] == ["AE", "VAE-KL"]


def test_who_is_absent_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE", "VAE-KL"], ["a"], seeds=1, status={("VAE-KL", "a", 0): "failed"})
    (shown,) = shown_seeds(run)
    assert shown.absent == ("VAE-KL",)
    assert "VAE-KL" in shown.sentence


def test_cells_that_stored_different_images_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE", "VAE-KL"], ["a"], seeds=1)
    (shown,) = shown_seeds(run)
    assert len(same_images(shown, "shown_index")) > 0
    shown.arrays["VAE-KL"]["shown_index"] = shown.arrays["VAE-KL"]["shown_index"][::-1]
    with pytest.raises(StoreError, match=r"shown_index of VAE-KL differs from AE's"):
        same_images(shown, "shown_index")
