"""All data sets of a run at once: average ranks, normalised errors, probability of improvement.

Shape suffixes: M methods, D data sets, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regbench.report.frame import load_frame
from regbench.report.numbers import NOTHING, with_interval
from regbench.report.section import Grid, Section
from regbench.report.table import Cell
from regbench.statistics import Improvement, Interval, average_ranks, improvement, normalised, t_interval
from regbench.store.records import Run

ERROR = "mse"

Values = dict[int, NDArray[np.float64]]
"""By seed: one error per data set; NaN where training diverged."""

TEXT = (
    "One row per method for all data sets, from the test MSE at the mean code. A rank says in which order methods "
    "come, the normalised MSE by how much, and the probability of improvement how reliably."
)


def across_section(run: Run) -> Section | None:
    """``None`` for a run with one data set, without an MSE, or in which fewer than two methods are through with all."""
    if len(run.datasets) < 2 or ERROR not in run.suite["metrics"]:
        return None
    numbers = Across(run, load_frame(run))
    if len(numbers.ranked) < 2:
        return None
    return Section(
        "across", "Across data sets", TEXT, (numbers.grid(),), frame=numbers.frame(), file="across"
    )


@dataclass(frozen=True)
class Across:
    """What the runs on all data sets come to, per method."""

    run: Run
    results: pd.DataFrame
    """One row per cell."""

    @cached_property
    def settled(self) -> dict[str, Values]:
        """Of each method, the seeds that have finished or diverged on every data set."""
        return {method: self._settled(method) for method in self.run.methods}

    def _settled(self, method: str) -> Values:
        rows = self.results[self.results["method"] == method]
        rows = rows[(rows["status"] == "diverged") | rows[ERROR].notna()]
        wide = rows.pivot(index="seed", columns="dataset", values=ERROR).reindex(columns=[*self.run.datasets])
        counts = rows.groupby("seed").size()
        return {
            seed: wide.loc[seed].to_numpy(np.float64)
            for seed in sorted(counts.index)
            if counts[seed] == len(self.run.datasets)
        }

    def finished(self, method: str) -> Values:
        """The seeds that have finished on every data set."""
        return {s: values for s, values in self.settled[method].items() if np.isfinite(values).all()}

    @cached_property
    def ranked(self) -> list[str]:
        """Methods that are ranked: those with any settled seed."""
        return [method for method in self.run.methods if self.settled[method]]

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds that are settled for all of them: ranks among different methods do not compare."""
        common = set.intersection(*(set(self.settled[method]) for method in self.ranked))
        return sorted(common)

    @cached_property
    def ranks(self) -> dict[str, Interval]:
        """Mean over seeds of the average rank over data sets."""
        if not self.seeds:
            return {}
        values_MDS = np.array([_stack(self.settled[method], self.seeds) for method in self.ranked])
        ranks_MS = average_ranks(values_MDS)
        return {method: t_interval(ranks_S) for method, ranks_S in zip(self.ranked, ranks_MS, strict=True)}

    def against_baseline(self, method: str) -> tuple[Interval | None, Improvement] | None:
        """Normalised error, and probability of improvement, over the seeds that both have finished.

        There is no normalised error where one is exactly 0.
        """
        baseline = self.run.suite.get("baseline")
        if baseline not in self.settled or method == baseline:
            return None
        mine, reference = self.finished(method), self.finished(baseline)
        seeds = sorted(mine.keys() & reference.keys())
        if not seeds:
            return None
        values_DS, reference_DS = _stack(mine, seeds), _stack(reference, seeds)
        ratios = normalised(values_DS, reference_DS) if min(values_DS.min(), reference_DS.min()) > 0 else None
        return ratios, improvement(values_DS, reference_DS)

    def grid(self) -> Grid:
        baseline = self.run.suite.get("baseline")
        columns = ["method", "n", "average rank"]
        if baseline is not None:
            columns += [f"MSE / {baseline}", f"P(better than {baseline})"]
        rows = []
        for method in self.run.methods:
            finished, planned = len(self.finished(method)), self._planned(method)
            row = [
                Cell(method),
                Cell(f"{finished}/{planned}", float(finished)),
                _cell(self.ranks.get(method)),
            ]
            if baseline is not None:
                row += self._baseline_cells(method, baseline)
            rows.append(tuple(row))
        names = ", ".join(self.run.datasets)
        return Grid(f"MSE at the mean code on {names}", tuple(columns), tuple(rows), tuple(self._notes()))

    def _planned(self, method: str) -> int:
        return len({cell.seed for cell in self.run.select(method=method)})

    def _baseline_cells(self, method: str, baseline: str) -> list[Cell]:
        found = self.against_baseline(method)
        if found is None:
            return [Cell("baseline" if method == baseline else NOTHING), Cell(NOTHING)]
        ratio, better = found
        chance = f"{better.probability:.2f} [{better.low:.2f}, {better.high:.2f}]"
        return [
            _ratio_cell(ratio),
            Cell(chance, better.probability, better.low, better.high, note=_counted(better.n, "pair")),
        ]

    def _notes(self) -> Iterator[str]:
        baseline, seeds = self.run.suite.get("baseline"), _counted(len(self.seeds), "seed")
        yield "n: seeds that have finished on every data set, of the seeds planned; only those count."
        yield (
            f"Average rank: 1 is the best of {len(self.ranked)} methods; the mean over data sets in each seed, "
            f"ties averaged, then the mean over {seeds} with its 95% t-interval. A training that diverged "
            "has the last rank. Seeds that are missing for any ranked method are left out for all."
        )
        unranked = [method for method in self.run.methods if method not in self.ranked]
        if unranked:
            yield f"Not ranked, without a seed on every data set: {', '.join(unranked)}."
        if baseline is not None:
            yield (
                f"MSE / {baseline}: in each seed the geometric mean over data sets of the ratio of MSEs; its mean and "
                "95% t-interval over seeds are those of the logarithm."
            )
            yield (
                f"P(better than {baseline}): share of (data set, seed) pairs in which the method has the smaller "
                "MSE, ties counting half (Agarwal et al. 2021, with runs paired by seed), and its exact 95% interval "
                "for independent pairs (Clopper and Pearson). It says nothing of data sets that are not in the suite."
            )

    def frame(self) -> pd.DataFrame:
        """The same at full precision, one row per method."""
        return pd.DataFrame([self._record(method) for method in self.run.methods])

    def _record(self, method: str) -> dict[str, object]:
        rank, found = self.ranks.get(method), self.against_baseline(method)
        ratio, better = found if found is not None else (None, None)
        return {
            "method": method,
            "datasets": len(self.run.datasets),
            "seeds_planned": self._planned(method),
            "seeds_finished": len(self.finished(method)),
            "seeds_ranked": rank and rank.n,
            "rank": rank and rank.mean,
            "rank_low": rank and rank.low,
            "rank_high": rank and rank.high,
            "baseline": self.run.suite.get("baseline") if found is not None else None,
            "ratio": ratio and ratio.mean,
            "ratio_low": ratio and ratio.low,
            "ratio_high": ratio and ratio.high,
            "seeds_paired": ratio and ratio.n,
            "improvement": better and better.probability,
            "improvement_low": better and better.low,
            "improvement_high": better and better.high,
            "pairs": better and better.n,
        }


def _stack(values: Values, seeds: list[int]) -> NDArray[np.float64]:
    """Errors of some seeds, of shape (D, S)."""
    return np.stack([values[seed] for seed in seeds], axis=1)


def _cell(rank: Interval | None) -> Cell:
    if rank is None:
        return Cell(NOTHING)
    return Cell(with_interval(rank.mean, rank.low, rank.high), rank.mean, rank.low, rank.high)


def _ratio_cell(ratio: Interval | None) -> Cell:
    """With its bounds, which are not equally far from the mean."""
    if ratio is None:
        return Cell(NOTHING)
    text = f"{ratio.mean:.3f}"
    if ratio.low is not None and ratio.high is not None:
        text += f" [{ratio.low:.3f}, {ratio.high:.3f}]"
    return Cell(text, ratio.mean, ratio.low, ratio.high, note=_counted(ratio.n, "seed"))


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
