"""Which cells and which images a figure shows.

Shape suffixes: R stored images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regbench.errors import StoreError
from regbench.store.records import CellRecord, Run


@dataclass(frozen=True)
class Shown:
    """The finished cells of one data set and seed, in the order of the methods."""

    dataset: str
    seed: int
    cells: tuple[CellRecord, ...]
    absent: tuple[str, ...]
    """Methods without a finished cell of this seed."""

    @cached_property
    def arrays(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Arrays of each cell, by method."""
        return {cell.method: cell.arrays() for cell in self.cells}

    @property
    def sentence(self) -> str:
        """For the caption: the seed, and who is missing."""
        text = f"Seed {self.seed}."
        if self.absent:
            text += f" Not shown, because not finished: {', '.join(self.absent)}."
        return text


def shown_seeds(run: Run) -> list[Shown]:
    """Per data set the seed with the most finished methods, the first of them in the suite's order."""
    found = []
    for dataset in run.datasets:
        done = [cell for cell in run.select(dataset=dataset) if cell.status == "done"]
        seeds = list(dict.fromkeys(cell.seed for cell in run.select(dataset=dataset)))
        if done:
            seed = max(seeds, key=lambda seed: sum(cell.seed == seed for cell in done))
            by_method = {cell.method: cell for cell in done if cell.seed == seed}
            cells = tuple(by_method[method] for method in run.methods if method in by_method)
            absent = tuple(method for method in run.methods if method not in by_method)
            found.append(Shown(dataset, seed, cells, absent))
    return found


def same_images(shown: Shown, name: str) -> NDArray[Any]:
    """An array that all cells must share, e.g. ``shown_index``; raises ``StoreError`` where one differs."""
    first, *others = shown.arrays
    expected = shown.arrays[first][name]
    for method in others:
        if not np.array_equal(shown.arrays[method][name], expected):
            raise StoreError(
                f"{shown.dataset}, seed {shown.seed}: {name} of {method} differs from {first}'s, so that"
                " they do not show the same images",
                hint=f"run the suite again with --force {method!r}",
            )
    return expected


def best_median_worst(error_R: NDArray[np.float64], count: int) -> dict[str, NDArray[np.int64]]:
    """Places of the ``count`` images with the lowest, the middle and the highest error, each in rising order.

    The groups never overlap: with fewer than ``3 * count`` images each takes a third.
    """
    order_R = np.argsort(error_R, kind="stable")
    count = max(1, min(count, len(order_R) // 3))
    middle = (len(order_R) - count) // 2
    groups = {"Best": order_R[:count]}
    if len(order_R) > 2:
        groups["Median"] = order_R[middle : middle + count]
    if len(order_R) > 1:
        groups["Worst"] = order_R[len(order_R) - count :]
    return groups
