"""Two quantities that pull against each other: frontiers, the area under them, and comparison at a level.

Both are smaller-is-better, as a regularity distance x and a reconstruction error y are. A method's settings
are points (x, y); its frontier is what no other of its settings beats in both.

Shape suffixes: N settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regbench.statistics.intervals import pairs

STEPS = (1.0, 1.25, 1.5, 2.0)
"""Levels of comparison, as multiples of the smallest one that every frontier reaches."""


def pareto(x_N: ArrayLike, y_N: ArrayLike) -> list[int]:
    """Which points no other point dominates, in order of increasing x, and so of decreasing y.

    A point is dominated where another is at most as large in both coordinates and smaller in one. Of equal
    points the first stands for all. Points with a coordinate that is NaN or infinite are on no frontier.
    """
    x, y = pairs(x_N, y_N)
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    frontier: list[int] = []
    lowest = math.inf
    for index in finite[np.lexsort((y[finite], x[finite]))]:
        if y[index] < lowest:
            frontier.append(int(index))
            lowest = float(y[index])
    return frontier


def frontier_area(x_N: ArrayLike, y_N: ArrayLike, reference: tuple[float, float]) -> float:
    """Area under the step frontier in the unit box, after dividing x and y by a reference point: 0 to 1.

    It is the share of the box between the origin and the reference that no point dominates, that is 1 minus
    the normalised hypervolume (Zitzler and Thiele, PPSN V, 1998). 1: nothing is dominated; 0: some point is
    perfect in both. What lies beyond the reference in either coordinate counts for nothing; a coordinate
    below 0, as an unbiased estimate of a distance may be, counts as 0.

    Raises:
        ValueError: a reference that is not positive and finite in both coordinates.
    """
    width, height = reference
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"reference = {reference}: expected two positive numbers")
    x, y = pairs(x_N, y_N)
    x, y = np.maximum(x / width, 0.0), np.maximum(y / height, 0.0)
    inside = (x < 1) & (y < 1)
    x, y = x[inside], y[inside]
    order = pareto(x, y)
    edges = [*x[order], 1.0]
    dominated = sum((edges[i + 1] - edges[i]) * (1 - y[index]) for i, index in enumerate(order))
    return float(np.clip(1 - dominated, 0.0, 1.0))


def best_at(x_N: ArrayLike, y_N: ArrayLike, level: float) -> float | None:
    """Smallest x among the points with y <= ``level``, at least 0; ``None`` where there is no such point."""
    x, y = pairs(x_N, y_N)
    reached: NDArray[np.float64] = x[(y <= level) & np.isfinite(x)]
    return max(float(reached.min()), 0.0) if reached.size else None


def matched_levels(
    best: Iterable[float],
    *,
    close: float | None = None,
    limit: float = math.inf,
    steps: Sequence[float] = STEPS,
) -> list[float]:
    """Levels of y at which to compare frontiers, ascending.

    Args:
        best: the smallest y of each frontier in each seed. The largest of these is the first level that all
            of them reach; the further ones are its multiples ``steps``.
        close: one more level, where it is below the others and so is not reached by all.
        limit: multiples above this (as an error that needs no training) are left out.
    """
    finite = [value for value in best if math.isfinite(value)]
    if not finite:
        return []
    worst = max(finite)
    levels = [worst * step for step in steps if step == 1 or worst * step <= limit]
    return [close, *levels] if close is not None and close < worst else levels
