"""The trade-off between regularity and reconstruction, as numbers: areas under frontiers, and matched errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from regbench.report.families import NORMAL, Family, read_families, tradeoff_frame
from regbench.report.frame import SAMPLED
from regbench.report.numbers import NOTHING, plain, signed, with_interval
from regbench.report.section import Grid, Section
from regbench.report.table import Cell
from regbench.statistics import (
    Interval,
    best_at,
    frontier_area,
    matched_levels,
    paired_difference,
    pareto,
    share_seeds,
    t_interval,
    tie_group,
)
from regbench.store.records import Run

CLOSE = 1.05
"""One level of comparison is this multiple of the baseline's MSE."""
LEVEL_DIGITS = 3

BySeed = dict[int, float]

TEXT = (
    "Each family of methods is one regularizer at several settings of how hard it regularizes. A setting is a "
    "point: test MSE at the mean code, and squared MMD of the test images' codes (sampled ones where the method "
    "samples) to the method's own prior. A family's frontier is what no other of its settings beats in both, seed "
    "by seed. So methods are compared over their whole range, not at the one setting that somebody chose."
)


def tradeoff_section(run: Run) -> Section | None:
    """Areas under the frontiers and distances at matched MSE; ``None`` without families or distances."""
    if "mse" not in run.suite["metrics"]:
        return None
    frame = tradeoff_frame(run)
    boards = [Board(run, frame, dataset) for dataset in run.datasets]
    boards = [board for board in boards if board.families]
    if not boards:
        return None
    grids = [grid for board in boards for grid in (board.area_grid(), board.matched_grid()) if grid.rows]
    points = pd.concat([board.points() for board in boards], ignore_index=True)
    return Section(
        "tradeoff", "Regularity against reconstruction", TEXT, tuple(grids), frame=points, file="tradeoff"
    )


@dataclass(frozen=True)
class Board:
    """All families on one data set."""

    run: Run
    frame: pd.DataFrame
    dataset: str

    @cached_property
    def families(self) -> list[Family]:
        return read_families(self.run, self.frame, self.dataset)

    @cached_property
    def baseline(self) -> pd.DataFrame:
        """The baseline's finished cells."""
        rows = self.frame[self.frame["dataset"] == self.dataset]
        return rows[(rows["method"] == self.run.suite.get("baseline")) & (rows["status"] == "done")]

    @cached_property
    def worst_error(self) -> float | None:
        """MSE of the mean image."""
        value = (self.run.anchors(self.dataset) or {}).get("mean_image_mse")
        return None if value is None else float(value)

    @cached_property
    def references(self) -> dict[int, tuple[float, float]]:
        """By seed: the baseline's distance to N(0, I), and the MSE of the mean image."""
        pairs = zip(self.baseline["seed"], self.baseline["mmd_to_normal"], strict=True)
        error = self.worst_error
        return {int(seed): (x, error) for seed, x in pairs if error and 0 < x < math.inf}

    @cached_property
    def areas(self) -> dict[str, BySeed]:
        return {family.name: self._areas(family) for family in self.families}

    def _areas(self, family: Family, *, sampled: bool = False) -> BySeed:
        return {
            seed: frontier_area(family.x_N(seed), family.y_N(seed, sampled=sampled), self.references[seed])
            for seed in family.points
            if seed in self.references
        }

    @cached_property
    def best(self) -> str | None:
        """The family with the smallest mean area, among those with the most seeds."""
        most = max(map(len, self.areas.values()), default=0)
        means = {
            name: sum(by_seed.values()) for name, by_seed in self.areas.items() if len(by_seed) == most > 0
        }
        return min(means, key=means.__getitem__) if means else None

    def area_grid(self) -> Grid:
        sampled = any(family.stochastic for family in self.families)
        ties = _ties(self.areas)
        columns = ("family", "settings", "n", "area", "Δ to best", *(("area, sampled code",) * sampled))
        rows = []
        for family in self.families:
            by_seed = self.areas[family.name]
            row = [
                Cell(family.name),
                Cell(str(len(family.methods)), float(len(family.methods))),
                Cell(f"{len(by_seed)}/{family.planned}", float(len(by_seed))),
                _interval_cell(by_seed, bold=family.name in ties),
                self._difference_cell(family.name),
            ]
            if sampled:
                row.append(_interval_cell(self._areas(family, sampled=True)))
            rows.append(tuple(row))
        return Grid(
            f"{self.dataset}: area under the frontier", columns, tuple(rows), tuple(self._area_notes())
        )

    def _difference_cell(self, name: str) -> Cell:
        if self.best is None or name == self.best:
            return Cell("best" if name == self.best else NOTHING)
        a, b = share_seeds(self.areas[name], self.areas[self.best])
        if not len(a):
            return Cell(NOTHING)
        found = paired_difference(a, b)
        text = signed(found.mean, found.low, found.high)
        return Cell(text, found.mean, found.low, found.high, note=f"{found.n} pairs")

    def _area_notes(self) -> Iterator[str]:
        yield (
            "Area: the share of the box between a perfect method (distance 0, MSE 0) and the reference that no "
            "setting dominates; 0 is perfect, 1 means that every setting is beyond the reference. The reference "
            f"is {self.run.suite.get('baseline') or 'a baseline'}'s squared MMD to {NORMAL} in the same seed"
            f"{self._mean_reference()} and the mean image's MSE"
            f"{'' if self.worst_error is None else f' ({plain(self.worst_error)})'}. Negative estimates of a "
            "distance count as 0."
        )
        if not self.references:
            yield "No area: the baseline's distance, or the mean image's MSE, is not known."
        yield (
            "n: seeds in which every setting has finished or diverged, of the seeds planned; a diverged setting "
            "dominates nothing. ±: 95% t-interval over seeds. Bold: the tie group of the best. Δ: paired by seed; "
            "since the best is chosen by these numbers, the differences to it are a little too large."
        )
        if any(family.stochastic for family in self.families):
            yield (
                "Area, sampled code: the same with the MSE at a sampled code, as the distance is one of sampled "
                "codes: a method that samples does not reach both its distance and its MSE at the mean code "
                "with the same code. Of families that do not sample it is the same number."
            )

    def _mean_reference(self) -> str:
        values = [x for x, _ in self.references.values()]
        return f" ({plain(sum(values) / len(values))} on average)" if values else ""

    @cached_property
    def levels(self) -> list[float]:
        """MSEs to compare at, rounded up so that they are what is printed."""
        best = [family.y_N(seed).min() for family in self.families for seed in family.points]
        close = None if self.baseline.empty else CLOSE * float(self.baseline["error"].mean())
        limit = math.inf if self.worst_error is None else self.worst_error
        found = matched_levels(best, close=close, limit=limit)
        return list(dict.fromkeys(round_up(level) for level in found))

    def matched_grid(self) -> Grid:
        """Smallest distance at each level of MSE."""
        columns = []
        for level in self.levels:
            reached = {family.name: _best_by_seed(family, level) for family in self.families}
            whole = {f.name: reached[f.name] for f in self.families if len(reached[f.name]) == len(f.points)}
            ties = _ties(whole)
            columns.append(
                [
                    _interval_cell(reached[family.name], bold=family.name in ties)
                    if family.name in whole and family.points
                    else Cell(f"– ({len(reached[family.name])}/{len(family.points)})")
                    for family in self.families
                ]
            )
        rows = [
            (Cell(family.name), *(column[place] for column in columns))
            for place, family in enumerate(self.families)
            if columns
        ]
        return Grid(
            f"{self.dataset}: smallest squared MMD to the prior at matched MSE",
            ("family", *(f"MSE ≤ {plain(level, LEVEL_DIGITS)}" for level in self.levels)),
            tuple(rows),
            tuple(self._matched_notes()),
        )

    def _matched_notes(self) -> Iterator[str]:
        close = f" Before them, where it is lower: {CLOSE - 1:.0%} above the baseline's mean MSE."
        yield (
            "Levels: the lowest MSE that every family reaches in every seed, and 1.25, 1.5 and 2 times that, as far "
            f"as they are below the mean image's.{'' if self.baseline.empty else close}"
        )
        yield (
            "In each seed the setting with the smallest distance among those within the level; then the mean over "
            "seeds with its 95% t-interval. The choice is made on the test images and so is optimistic, equally for "
            "all families of as many settings. – (1/3): reached in one of three seeds only."
        )
        floors = self.frame.loc[self.frame["dataset"] == self.dataset, "mmd_floor"].dropna()
        if len(floors):
            yield (
                "Floor: draws from a prior are themselves at a squared MMD of "
                f"{plain(floors.min(), 2)} to {plain(floors.max(), 2)} from it; the estimate is unbiased, and below "
                "that size there is nothing to tell apart."
            )

    def points(self) -> pd.DataFrame:
        """Every cell as a point, with what the areas are made of."""
        here = self.frame[self.frame["dataset"] == self.dataset].copy()
        here["on_frontier"] = False
        for family in self.families:
            for seed, rows in family.points.items():
                order = pareto(family.x_N(seed), family.y_N(seed))
                here.loc[rows.index[order], "on_frontier"] = True
        references = [self.references.get(seed, (None, None)) for seed in here["seed"]]
        here["reference_mmd"] = pd.Series([x for x, _ in references], here.index, dtype="float64")
        here["reference_mse"] = pd.Series([y for _, y in references], here.index, dtype="float64")
        areas = [
            self.areas.get(name, {}).get(seed)
            for name, seed in zip(here["family"], here["seed"], strict=True)
        ]
        here["family_area"] = pd.Series(areas, here.index, dtype="float64")
        return here.rename(columns={"error": "mse", "error_sampled": "mse" + SAMPLED})


def round_up(value: float, digits: int = LEVEL_DIGITS) -> float:
    """``value`` with so many significant digits, never smaller than it was."""
    place = digits - 1 - math.floor(math.log10(value))
    nearest = round(value, place)
    return nearest if nearest >= value else round(nearest + 10.0**-place, place)


def _best_by_seed(family: Family, level: float) -> BySeed:
    found = {seed: best_at(family.x_N(seed), family.y_N(seed), level) for seed in family.points}
    return {seed: value for seed, value in found.items() if value is not None}


def _ties(values: Mapping[str, BySeed]) -> set[str]:
    """The tie group of the smallest; nobody where no two can be tested."""
    testable = sum(len(by_seed) > 1 for by_seed in values.values()) > 1
    return tie_group(values) if testable else set()


def _interval_cell(by_seed: BySeed, *, bold: bool = False) -> Cell:
    if not by_seed:
        return Cell(NOTHING)
    found: Interval = t_interval(_sorted(by_seed))
    text = with_interval(found.mean, found.low, found.high)
    note = "n = 1, no interval" if found.n == 1 else f"{found.n} seeds"
    return Cell(text, found.mean, found.low, found.high, bold=bold, note=note)


def _sorted(by_seed: BySeed) -> Sequence[float]:
    return [by_seed[seed] for seed in sorted(by_seed)]
