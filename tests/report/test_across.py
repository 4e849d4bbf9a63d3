"""All data sets at once, against loops over the very cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from regbench.report.across import across_section
from regbench.report.numbers import NOTHING
from regbench.report.section import Grid, Section
from regbench.store.records import Run
from tests.report.synthetic import make_run

METHODS = ("AE", "VAE-KL", "ProtoVAE K=2", "ProtoVAE K=3")
DATASETS = ("digits", "letters", "signs")
SMALL = {"test_images": 16, "shown": 8, "epochs": 3, "warmup": 1}


def make(path: Path, seeds: int = 4, **more: Any) -> Run:
    return make_run(path, METHODS, DATASETS, seeds, **{**SMALL, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With two methods that are the same on one data set."""
    values = {
        (method, "signs", seed): {"mse": 0.01 + 0.001 * seed}
        for method in ("AE", "ProtoVAE K=2")
        for seed in range(4)
    }
    return make(tmp_path_factory.mktemp("runs") / "whole", values=values)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    status = {
        ("VAE-KL", "letters", 1): "diverged",
        ("ProtoVAE K=2", "digits", 3): "failed",
        ("ProtoVAE K=3", "digits", 0): "missing",
        ("ProtoVAE K=3", "letters", 1): "interrupted",
        ("ProtoVAE K=3", "letters", 2): "failed",
        ("ProtoVAE K=3", "signs", 3): "missing",
    }
    return make(tmp_path_factory.mktemp("runs") / "broken", status=status)


def section_of(run: Run) -> Section:
    section = across_section(run)
    assert section is not None
    return section


def column(grid: Grid, place: int) -> dict[str, Any]:
    return {row[0].text: row[place] for row in grid.rows}


def error(run: Run, method: str, dataset: str, seed: int) -> float:
    (cell,) = (c for c in run.cells if (c.method, c.dataset, c.seed) == (method, dataset, seed))
    return float(cell.result["metrics"]["mean"]["mse"]) if cell.status == "done" else math.inf


def expected_ranks(run: Run, methods: tuple[str, ...], seeds: tuple[int, ...]) -> np.ndarray:
    """(methods, seeds)"""
    ranks = [[stats.rankdata([error(run, m, d, s) for m in methods]) for d in DATASETS] for s in seeds]
    return np.array(ranks).mean(1).T


def test_ranks_ratios_and_improvements(whole: Run) -> None:
    (grid,) = section_of(whole).grids
    assert grid.columns == ("method", "n", "average rank", "MSE / AE", "P(better than AE)")
    ranks_MS = expected_ranks(whole, METHODS, (0, 1, 2, 3))
    for method, ranks_S in zip(METHODS, ranks_MS, strict=True):
        cell = column(grid, 2)[method]
        low, high = stats.t.interval(0.95, 3, loc=ranks_S.mean(), scale=max(stats.sem(ranks_S), 1e-300))
        assert (cell.value, cell.low, cell.high) == pytest.approx((ranks_S.mean(), low, high))
    for method in METHODS[1:]:
        logs, better = [], 0.0
        for seed in range(4):
            pairs = [(error(whole, method, d, seed), error(whole, "AE", d, seed)) for d in DATASETS]
            logs.append(np.mean([math.log(a / b) for a, b in pairs]))
            better += sum(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs)
        low, high = stats.t.interval(0.95, 3, loc=np.mean(logs), scale=stats.sem(logs))
        ratio, chance = column(grid, 3)[method], column(grid, 4)[method]
        assert ratio.value == pytest.approx(math.exp(np.mean(logs)))
        assert (ratio.low, ratio.high) == pytest.approx((math.exp(low), math.exp(high)))
        assert ratio.text == f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        assert chance.value == pytest.approx(better / 12)
        assert chance.note == "12 pairs"
    assert [cell.text for cell in grid.rows[0]][3:] == ["baseline", NOTHING]


def test_only_seeds_that_are_through_with_every_data_set_count(broken: Run) -> None:
    (grid,) = section_of(broken).grids
    assert [column(grid, 1)[method].text for method in METHODS] == ["4/4", "3/4", "3/4", "0/4"]
    ranks_MS = expected_ranks(broken, METHODS[:3], (0, 1, 2))  # VAE-KL diverged in seed 1: the last rank
    for method, ranks_S in zip(METHODS, ranks_MS, strict=False):
        assert column(grid, 2)[method].value == pytest.approx(ranks_S.mean())
    assert column(grid, 2)["ProtoVAE K=3"].text == NOTHING
    assert column(grid, 3)["VAE-KL"].note == "3 seeds"
    assert column(grid, 4)["VAE-KL"].note == "9 pairs"
    assert [cell.text for cell in grid.rows[3]][2:] == [NOTHING] * 3
    assert any("Not ranked" in note and "ProtoVAE K=3" in note for note in grid.notes)
    assert any("best of 3 methods" in note and "over 3 seeds with" in note for note in grid.notes)


def test_the_csv_has_the_same_numbers(broken: Run) -> None:
    section = section_of(broken)
    frame = section.frame
    assert frame is not None
    assert section.file == "across"
    rows = {row["method"]: row for row in frame.to_dict("records")}
    assert list(rows) == list(METHODS)
    (grid,) = section.grids
    for method in METHODS[:3]:
        assert rows[method]["rank"] == column(grid, 2)[method].value
        assert rows[method]["seeds_ranked"] == 3
    for place, name in ((3, "ratio"), (4, "improvement")):
        cell = column(grid, place)["VAE-KL"]
        found = [rows["VAE-KL"][f"{name}{ending}"] for ending in ("", "_low", "_high")]
        assert found == [cell.value, cell.low, cell.high]
    assert (rows["VAE-KL"]["seeds_paired"], rows["VAE-KL"]["pairs"]) == (3, 9)
    assert math.isnan(rows["AE"]["ratio"])


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    status = {
        (method, dataset, seed): "missing"
        for method in METHODS
        for dataset in DATASETS
        for seed in range(2)
        if seed == 1 or method not in ("VAE-KL", "ProtoVAE K=2")
    }
    (grid,) = section_of(make(tmp_path / "r", 2, status=status)).grids
    assert [cell.text for cell in grid.rows[1]] == ["VAE-KL", "1/2", "2", NOTHING, NOTHING]
    status |= {("VAE-KL", "signs", 0): "interrupted"}
    assert across_section(make(tmp_path / "s", 2, status=status)) is None


def test_ranked_methods_without_a_seed_in_common(tmp_path: Path) -> None:
    status = {("AE", "digits", 0): "failed", ("VAE-KL", "digits", 1): "failed"}
    (grid,) = section_of(make(tmp_path / "r", 2, status=status)).grids
    assert {cell.text for cell in column(grid, 2).values()} == {NOTHING}
    assert column(grid, 3)["VAE-KL"].text == NOTHING
    assert column(grid, 3)["ProtoVAE K=2"].note == "1 seed"


def test_without_a_baseline_there_are_ranks_only(tmp_path: Path) -> None:
    run = make(tmp_path / "r", 2)
    run.suite["baseline"] = None
    (grid,) = section_of(run).grids
    assert grid.columns == ("method", "n", "average rank")


def test_an_error_of_zero_has_no_ratio(tmp_path: Path) -> None:
    run = make(tmp_path / "r", 2)
    run.cells[0].result["metrics"]["mean"]["mse"] = 0.0
    (grid,) = section_of(run).grids
    assert column(grid, 3)["VAE-KL"].text == NOTHING
    assert column(grid, 4)["VAE-KL"].value is not None


def test_one_data_set_or_no_error_is_nothing_to_compare(tmp_path: Path) -> None:
    assert across_section(make_run(tmp_path / "one", METHODS[:2], ["digits"], 1, **SMALL)) is None
    assert (
        across_section(make_run(tmp_path / "ssim", METHODS[:2], DATASETS, 1, metrics=["ssim"], **SMALL))
        is None
    )
