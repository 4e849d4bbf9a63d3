"""The trade-off as numbers, against loops over the very cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from regbench.report.families import families_of, read_families, tradeoff_frame
from regbench.report.numbers import NOTHING, plain
from regbench.report.section import Grid, Section
from regbench.report.tradeoff import CLOSE, round_up, tradeoff_section
from regbench.store.records import Run
from tests.report.synthetic import make_run
from tests.report.synthetic_tradeoff import FAMILIES, METHODS, make_tradeoff

NAMES = ["VAE-KL", "InfoVAE-MMD", "ProtoVAE"]
PROTO = [method for method in METHODS if method.startswith("ProtoVAE")]
STATUS = {
    (PROTO[2], "digits", 1): "diverged",
    ("InfoVAE-MMD weight=1", "digits", 0): "failed",
    ("VAE-KL weight=10", "digits", 2): "missing",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_tradeoff(tmp_path_factory.mktemp("runs") / "whole", ["digits", "letters"])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_tradeoff(tmp_path_factory.mktemp("runs") / "broken", status=STATUS)


def section_of(run: Run) -> Section:
    section = tradeoff_section(run)
    assert section is not None
    return section


def column(grid: Grid, name: str) -> dict[str, Any]:
    place = grid.columns.index(name)
    return {row[0].text: row[place] for row in grid.rows}


def cells_of(run: Run, family: str, dataset: str, seed: int) -> list[Any]:
    return [
        cell
        for cell in run.cells
        if (FAMILIES.get(cell.method), cell.dataset, cell.seed) == (family, dataset, seed)
    ]


def step_integral(points: list[tuple[float, float]]) -> float:
    """Integral over [0, 1] of the lowest y to the left, at most 1; by the places where it may change."""
    edges = sorted({0.0, 1.0, *(x for x, _ in points if x < 1)})
    heights = [min([1.0, *(y for x, y in points if x <= edge)]) for edge in edges[:-1]]
    return sum(h * (right - left) for h, left, right in zip(heights, edges[:-1], edges[1:], strict=True))


def area_by_hand(run: Run, family: str, dataset: str, seed: int, code: str = "mean") -> float:
    (baseline,) = (c for c in run.cells if (c.method, c.dataset, c.seed) == ("AE", dataset, seed))
    width = baseline.result["diagnostics"]["normal"]["mmd"]
    anchors = run.anchors(dataset)
    assert anchors is not None
    points = []
    for cell in cells_of(run, family, dataset, seed):
        if cell.status == "done":
            metrics = cell.result["metrics"][code] or cell.result["metrics"]["mean"]
            mmd = cell.result["diagnostics"]["prior"]["mmd"]
            points.append((max(mmd, 0.0) / width, metrics["mse"] / anchors["mean_image_mse"]))
    return step_integral(points)


def expect_interval(cell: Any, values: list[float]) -> None:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (cell.value, cell.low, cell.high) == pytest.approx((np.mean(values), low, high))


def test_areas_are_means_over_seeds_paired_with_the_baseline(whole: Run) -> None:
    section = section_of(whole)
    assert [grid.caption for grid in section.grids] == [
        "digits: area under the frontier",
        "digits: smallest squared MMD to the prior at matched MSE",
        "letters: area under the frontier",
        "letters: smallest squared MMD to the prior at matched MSE",
    ]
    for dataset, grid in zip(("digits", "letters"), section.grids[::2], strict=True):
        areas = {f: [area_by_hand(whole, f, dataset, s) for s in range(3)] for f in NAMES}
        best = min(areas, key=lambda family: float(np.mean(areas[family])))
        for family in NAMES:
            expect_interval(column(grid, "area")[family], areas[family])
            assert column(grid, "n")[family].text == "3/3"
            difference = column(grid, "Δ to best")[family]
            if family == best:
                assert difference.text == "best"
                assert column(grid, "area")[family].bold
            else:
                expect_interval(difference, (np.array(areas[family]) - areas[best]).tolist())
            sampled = [area_by_hand(whole, family, dataset, seed, "sampled") for seed in range(3)]
            expect_interval(column(grid, "area, sampled code")[family], sampled)
        assert column(grid, "area, sampled code")["VAE-KL"].value > column(grid, "area")["VAE-KL"].value
        assert [column(grid, "settings")[family].text for family in NAMES] == ["4", "4", "3"]


def test_matched_errors_against_a_loop(whole: Run) -> None:
    grid = section_of(whole).grids[1]
    error: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for family in NAMES:
        for seed in range(3):
            error[family, seed] = [
                (cell.result["metrics"]["mean"]["mse"], cell.result["diagnostics"]["prior"]["mmd"])
                for cell in cells_of(whole, family, "digits", seed)
            ]
    worst = max(min(mse for mse, _ in points) for points in error.values())
    baseline = np.mean(
        [c.result["metrics"]["mean"]["mse"] for c in whole.select(dataset="digits", method="AE")]
    )
    anchors = whole.anchors("digits")
    assert anchors is not None
    levels = [m * worst for m in (1, 1.25, 1.5, 2) if m == 1 or m * worst <= anchors["mean_image_mse"]]
    assert CLOSE * baseline < worst
    shown = [round_up(level) for level in [float(CLOSE * baseline), *levels]]
    assert grid.columns == ("family", *(f"MSE ≤ {plain(level, 3)}" for level in shown))
    for level, name in zip(shown, grid.columns[1:], strict=True):
        for family in NAMES:
            best = [[mmd for mse, mmd in error[family, seed] if mse <= level] for seed in range(3)]
            cell = column(grid, name)[family]
            if all(best):
                expect_interval(cell, [max(min(found), 0.0) for found in best])
            else:
                assert cell.text == f"– ({sum(map(bool, best))}/3)"
                assert cell.value is None
    texts = [cell.text for row in grid.rows for cell in row]
    assert "– (0/3)" in texts  # the baseline's error is out of reach


def test_seeds_count_where_every_setting_finished_or_diverged(broken: Run) -> None:
    grid = section_of(broken).grids[0]
    assert [column(grid, "n")[family].text for family in NAMES] == ["2/3", "2/3", "3/3"]
    for family, seeds in (("VAE-KL", (0, 1)), ("InfoVAE-MMD", (1, 2)), ("ProtoVAE", (0, 1, 2))):
        # The setting that diverged is no point, and so dominates nothing.
        expect_interval(
            column(grid, "area")[family], [area_by_hand(broken, family, "digits", s) for s in seeds]
        )


def test_the_csv_has_every_cell_with_what_areas_are_made_of(broken: Run) -> None:
    section = section_of(broken)
    frame = section.frame
    assert frame is not None
    assert section.file == "tradeoff"
    assert len(frame) == len(broken.cells)
    for row, cell in zip(frame.to_dict("records"), broken.cells, strict=True):
        assert (row["method"], row["seed"], row["status"]) == (cell.method, cell.seed, cell.status)
        assert row["family"] == FAMILIES.get(cell.method, "")
        if cell.status != "done":
            assert math.isnan(row["mmd"])
            assert row["prior"] == ""
            continue
        own = cell.result["diagnostics"]["prior"]
        assert row["prior"] == ("own" if own else "N(0, I)")
        expected = own or cell.result["diagnostics"]["normal"]
        assert (row["mmd"], row["sw2"], row["mmd_floor"]) == (
            expected["mmd"],
            expected["sw2"],
            expected["mmd_floor"],
        )
        assert row["mse"] == cell.result["metrics"]["mean"]["mse"]
        assert row["mmd_to_normal"] == cell.result["diagnostics"]["normal"]["mmd"]
    first = frame[(frame["family"] == "ProtoVAE") & (frame["seed"] == 0)]
    assert first["family_area"].unique() == pytest.approx([area_by_hand(broken, "ProtoVAE", "digits", 0)])
    assert first["on_frontier"].all()  # more weight, more error, less distance
    assert not frame.loc[frame["family"] == "", "on_frontier"].any()
    uncounted = frame[(frame["family"] == "VAE-KL") & (frame["seed"] == 2)]
    assert uncounted["family_area"].isna().all()
    assert not uncounted["on_frontier"].any()


def test_without_families_or_distances_there_is_no_section(tmp_path: Path, whole: Run) -> None:
    plain_run = make_run(tmp_path / "plain", ["AE", "VAE-KL"], seeds=1)
    assert tradeoff_section(plain_run) is None  # from before there were families
    plain_run.suite["families"] = {"VAE-KL": "VAE-KL"}
    for cell in plain_run.cells:
        for name in ("prior", "normal"):
            cell.result["diagnostics"].pop(name, None)
    assert tradeoff_section(plain_run) is None  # from before distances were measured
    other = make_tradeoff(tmp_path / "ssim", seeds=1, methods=METHODS[:3], metrics=["ssim"])
    assert tradeoff_section(other) is None
    assert tradeoff_section(whole) is not None


def test_without_a_reference_there_is_no_area_but_all_else(tmp_path: Path) -> None:
    methods = METHODS[2:]
    run = make_tradeoff(tmp_path / "r", seeds=2, methods=methods, baseline="nobody", anchors=False)
    area, matched = section_of(run).grids
    assert {cell.text for cell in column(area, "area").values()} == {NOTHING}
    assert {cell.text for cell in column(area, "Δ to best").values()} == {NOTHING}
    assert any(note.startswith("No area") for note in area.notes)
    assert len(matched.columns) == 5
    assert all(cell.value is not None for row in matched.rows for cell in row[1:])


def test_one_seed_has_no_intervals_and_nobody_in_bold(tmp_path: Path) -> None:
    for grid in section_of(make_tradeoff(tmp_path / "r", seeds=1)).grids:
        assert not any(cell.bold or cell.low is not None for row in grid.rows for cell in row)


def test_a_member_without_a_prior_is_measured_against_the_standard_normal(tmp_path: Path) -> None:
    families = {**FAMILIES, "AE": "VAE-KL"}
    run = make_tradeoff(tmp_path / "r", seeds=1, families=families)
    assert families_of(run)["VAE-KL"][0] == "AE"
    found, *_ = read_families(run, tradeoff_frame(run), "digits")
    assert found.x_N(0)[0] == run.cells[0].result["diagnostics"]["normal"]["mmd"]


def test_a_distance_that_is_nowhere_counts_for_no_seed(whole: Run) -> None:
    found = read_families(whole, tradeoff_frame(whole), "digits", "kl")
    assert [family.name for family in found] == NAMES
    assert all(not family.points for family in found)  # no KL at weight 10


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0123401, 0.0124), (0.0123, 0.0123), (0.0999001, 0.1), (5.0, 5.0), (123.4, 124)]
)
def test_levels_are_rounded_up(value: float, expected: float) -> None:
    assert round_up(value) == expected
    assert round_up(value) >= value
