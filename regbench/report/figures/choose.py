"""Which methods, cells and images a figure shows.

Shape suffixes: R stored images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from regbench.errors import PluginError, StoreError
from regbench.report.figure import Drawing, Figure, FigureOptions, SelectionOptions
from regbench.report.style import Look, looks
from regbench.store.records import CellRecord, Run
from regbench.suite.faults import unknown

KEPT_CELLS = 64
"""Arrays of so many cells stay in memory, since several figures draw from the same; a few MB each."""


class SelectiveFigure(Figure):
    """A figure that shows the methods and data sets that its options name."""

    Options: ClassVar[type[FigureOptions]] = SelectionOptions
    selective = True

    def draw(self, run: Run) -> Iterator[Drawing]:
        """Raises ``PluginError`` where an option names what the run does not have."""
        return self.draw_selected(self._select(run), looks(run))

    @abstractmethod
    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        """Like ``draw``, with ``run`` cut down to the selection.

        ``look_of`` has the looks of all methods, the same in every figure of the run.
        """

    def _select(self, run: Run) -> Run:
        methods = self._labels("methods", run.methods, "label of a method")
        datasets = self._labels("datasets", run.datasets, "label of a data set")
        cells = tuple(cell for cell in run.cells if cell.method in methods and cell.dataset in datasets)
        return replace(run, methods=methods, datasets=datasets, cells=cells)

    def _labels(self, option: str, known: tuple[str, ...], kind: str) -> tuple[str, ...]:
        wanted: tuple[str, ...] = getattr(self.options, option)
        for label in wanted:
            if label not in known:
                raise PluginError(
                    f"options of figure {self.name!r}: {option}: {label!r}: {unknown(kind, label, known)}",
                    hint="mend [[figures]] in the suite and run it again",
                )
        return wanted or known


@dataclass(frozen=True)
class _Stored:
    """The arrays of one cell as they lie on the disk: another size or time of writing is another file."""

    cell: CellRecord = field(compare=False)
    file: Path
    size: int
    written: int


def arrays_of(cell: CellRecord) -> dict[str, NDArray[Any]]:
    """The arrays of a finished cell, read once for all figures."""
    file = cell.result_dir / "arrays.npz"
    try:
        found = file.stat()
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}") from error
    return dict(_read(_Stored(cell, file, found.st_size, found.st_mtime_ns)))


@lru_cache(maxsize=KEPT_CELLS)
def _read(stored: _Stored) -> Mapping[str, NDArray[Any]]:
    arrays = stored.cell.arrays()
    for array in arrays.values():
        array.setflags(write=False)  # several figures share it
    return arrays


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
        return {cell.method: arrays_of(cell) for cell in self.cells}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where the data set has none, or its results are from before they were kept."""
        return next((tuple(names) for cell in self.cells if (names := cell.result.get("classes"))), ())

    def having(self, name: str) -> Shown | None:
        """The same with only the cells that have this array; ``None`` where none has."""
        cells = tuple(cell for cell in self.cells if name in self.arrays[cell.method])
        return replace(self, cells=cells) if cells else None

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
