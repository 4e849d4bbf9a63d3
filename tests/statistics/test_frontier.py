"""Frontiers against definitions spelt out as loops, areas against closed forms and integration on a grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.statistics import best_at, frontier_area, matched_levels, pareto

COORDINATE = st.sampled_from([-0.25, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, math.inf, math.nan])
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=7)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


@given(POINTS)
def test_a_frontier_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    x, y = columns(points)
    finite = {point for point in points if all(map(math.isfinite, point))}
    expected = {p for p in finite if not any(dominates(other, p) for other in finite)}
    order = pareto(x, y)
    assert [points[i] for i in order] == sorted(expected)
    assert len({*order}) == len(order)
    assert all(points.index(points[i]) == i for i in order)  # the first of equal points


@given(POINTS, st.sampled_from([(1.0, 1.0), (2.0, 0.5), (0.5, 4.0)]))
def test_the_area_is_the_share_of_a_grid_that_nothing_dominates(
    points: list[tuple[float, float]], reference: tuple[float, float]
) -> None:
    width, height = reference
    cells = 64  # every coordinate over its reference is a multiple of 1/64, so that the sum is exact
    centres = (np.arange(cells) + 0.5) / cells
    free = sum(
        not any(x / width <= u and y / height <= v for x, y in points)
        for u, v in itertools.product(centres, centres)
    )
    assert frontier_area(*columns(points), reference) == pytest.approx(free / cells**2, abs=1e-12)


def test_areas_in_closed_form() -> None:
    assert frontier_area([], [], (1, 1)) == 1
    assert frontier_area([0.0], [0.0], (3, 0.1)) == 0
    assert frontier_area([-1.0], [0.05], (3, 0.1)) == pytest.approx(0.5)
    assert frontier_area([1.0], [0.05], (4, 0.1)) == pytest.approx(1 - 0.75 * 0.5)
    assert frontier_area([4.0, 9.0, 0.0], [0.0, 0.0, 0.1], (4, 0.1)) == 1  # on the reference, or beyond it
    n = 2000  # densely on the line x + y = 1, half of the box lies under it
    x = np.linspace(0, 1, n + 1)
    assert frontier_area(x, 1 - x, (1, 1)) == pytest.approx(0.5, abs=1 / n)


def test_the_area_has_no_unit_and_no_order(rng: np.random.Generator) -> None:
    x, y = rng.exponential(1, (2, 9))
    area = frontier_area(x, y, (2.0, 2.0))
    assert 0 < area < 1
    assert frontier_area(7 * x, y / 3, (14.0, 2 / 3)) == pytest.approx(area)
    order = rng.permutation(9)
    assert frontier_area(x[order], y[order], (2.0, 2.0)) == pytest.approx(area)
    assert frontier_area([*x, 0.01], [*y, 0.01], (2.0, 2.0)) < area


@pytest.mark.parametrize("reference", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_reference_that_is_none(reference: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two positive numbers"):
        frontier_area([0.5], [0.5], reference)


@given(POINTS, st.sampled_from([0.0, 0.3, 0.5, 2.0]))
def test_the_best_at_a_level_against_a_loop(points: list[tuple[float, float]], level: float) -> None:
    best = None
    for x, y in points:
        if y <= level and math.isfinite(x) and (best is None or x < best):
            best = x
    assert best_at(*columns(points), level) == (None if best is None else max(best, 0.0))


def test_levels_start_where_every_frontier_is() -> None:
    assert matched_levels([0.01, 0.02, 0.015]) == pytest.approx([0.02, 0.025, 0.03, 0.04])
    assert matched_levels([0.01, 0.02], limit=0.026) == pytest.approx([0.02, 0.025])
    assert matched_levels([0.02], limit=0.001) == [0.02]
    assert matched_levels([0.02, 0.01], close=0.012, steps=(1.0, 2.0)) == [0.012, 0.02, 0.04]
    assert matched_levels([0.02, 0.01], close=0.021, steps=(1.0,)) == [0.02]
    assert matched_levels([math.inf, 0.02, math.nan], steps=(1.0,)) == [0.02]
    assert matched_levels([math.inf]) == matched_levels([]) == []
