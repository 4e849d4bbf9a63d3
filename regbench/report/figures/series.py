"""Quantities of the history as bands over seeds.

Shape suffixes: S seeds, E epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regbench.statistics import t_intervals
from regbench.store.records import CellRecord

Value = Callable[[Mapping[str, Any]], float | str | None]
"""Takes one row of a history, and gives the quantity at that epoch, or ``None`` where it was not recorded."""


@dataclass(frozen=True, slots=True)
class Band:
    """Mean and 95% t-interval over seeds, per epoch at which every seed has the quantity."""

    epochs_E: NDArray[np.int64]
    mean_E: NDArray[np.float64]
    low_E: NDArray[np.float64]
    """NaN where there is one seed only."""
    high_E: NDArray[np.float64]
    seeds: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A value that the epoch's evaluation has: most epochs of a long training have none, and are skipped."""

    of: Value
    """Takes the evaluation."""

    def __call__(self, row: Mapping[str, Any]) -> float | str | None:
        evaluation = row.get("evaluation")
        return self.of(evaluation) if evaluation else None


def evaluated(name: str) -> Evaluated:
    """A number of the epoch's evaluation, e.g. ``test_mse``."""
    return Evaluated(lambda evaluation: evaluation.get(name))


def series(cell: CellRecord, value: Value) -> dict[int, float]:
    """One cell's quantity by epoch; numbers that are not finite are left out."""
    rows = cell.history
    if isinstance(value, Evaluated):
        rows = [row for row in rows if "evaluation" in row]
    found = {}
    for row in rows:
        recorded = value(row)
        if recorded is not None and math.isfinite(
            number := float(recorded)
        ):  # "nan" in what a diverged cell left
            found[int(row["epoch"])] = number
    return found


def band(cells: Iterable[CellRecord], value: Value) -> Band | None:
    """The band of finished cells of one method and data set; ``None`` where none has the quantity."""
    runs = [found for cell in cells if cell.status == "done" and (found := series(cell, value))]
    common = sorted(set.intersection(*(set(found) for found in runs))) if runs else []
    if not common:
        return None
    return over_seeds(np.array(common), np.array([[found[epoch] for epoch in common] for found in runs]))


def over_seeds(epochs_E: NDArray[np.int64], values_SE: NDArray[np.float64]) -> Band:
    """Mean and interval of one value per seed at each epoch, or at each place on another axis."""
    mean_E, low_E, high_E = t_intervals(values_SE)
    return Band(epochs_E, mean_E, low_E, high_E, len(values_SE))
