"""Families of methods: their settings as points of a trade-off between regularity and reconstruction.

The *distance* of a cell is that of its codes to the method's own prior, and to N(0, I) where it has none (an
AE). A seed *counts* for a family where every setting has finished or diverged in it: one that diverged is a
point that dominates nothing; without one that was not run the family would look worse than it is.

Shape suffixes: N settings of a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regbench.report.frame import SAMPLED, diagnostic_columns, load_frame
from regbench.store.records import Run

Distance = Literal["mmd", "sw2", "kl"]
DISTANCES: dict[Distance, str] = {
    "mmd": "squared MMD",
    "sw2": "sliced Wasserstein distance",
    "kl": "KL divergence of Gaussian fits",
}
OWN, NORMAL = "own", "N(0, I)"


def families_of(run: Run) -> dict[str, tuple[str, ...]]:
    """The methods of each family, in the suite's order; a run from before there were families has none."""
    family_of = run.suite.get("families") or {}
    found: dict[str, list[str]] = {}
    for method in run.methods:
        if method in family_of:
            found.setdefault(family_of[method], []).append(method)
    return {family: tuple(methods) for family, methods in found.items()}


def tradeoff_frame(run: Run, metric: str = "mse") -> pd.DataFrame:
    """One row per cell: data set, family (empty: none), method, seed, status, errors, distances, floors.

    ``error`` is the metric at the mean code, ``error_sampled`` at a sampled one. ``prior`` says what the
    distances are to: ``own`` or ``N(0, I)``. Cells that are not finished, or whose results are from before
    distances were measured, are rows without numbers.
    """
    frame, columns = load_frame(run), diagnostic_columns(run)

    def diagnostic(name: str) -> pd.Series[float]:
        column = columns.get(name)
        return frame[column] if column is not None else pd.Series(np.nan, frame.index)

    def any_of(prefix: str) -> pd.Series[bool]:
        return pd.DataFrame({name: diagnostic(prefix + name) for name in DISTANCES}).notna().any(axis=1)

    family_of = run.suite.get("families") or {}
    found = frame[["dataset", "method", "seed", "status"]].copy()
    found.insert(1, "family", [family_of.get(method, "") for method in frame["method"]])
    own = any_of("prior_")
    found["prior"] = np.where(own, OWN, np.where(any_of("normal_"), NORMAL, ""))
    found["error"], found["error_sampled"] = frame[metric], frame[metric + SAMPLED]
    for name in DISTANCES:
        for column in (name, f"{name}_floor"):
            found[column] = diagnostic(f"prior_{column}").where(own, diagnostic(f"normal_{column}"))
        found[f"{name}_to_normal"] = diagnostic(f"normal_{name}")
    return found


@dataclass(frozen=True)
class Family:
    """The settings of one family on one data set, in the seeds that count."""

    name: str
    methods: tuple[str, ...]
    planned: int
    """Number of seeds planned."""
    points: Mapping[int, pd.DataFrame]
    """By seed: one row per setting, in order, with distance ``x``, error ``y`` and ``y_sampled``."""
    stochastic: bool
    """Whether any of its settings samples its codes."""

    def x_N(self, seed: int) -> NDArray[np.float64]:
        return self.points[seed]["x"].to_numpy(np.float64)

    def y_N(self, seed: int, *, sampled: bool = False) -> NDArray[np.float64]:
        """Errors at the mean code, or at a sampled one where there is one."""
        return self.points[seed]["y_sampled" if sampled else "y"].to_numpy(np.float64)


def read_families(run: Run, frame: pd.DataFrame, dataset: str, distance: Distance = "mmd") -> list[Family]:
    """The families on one data set; those without any measured distance are left out.

    Args:
        frame: the run's :func:`tradeoff_frame`.
    """
    here = frame[frame["dataset"] == dataset]
    found = []
    for name, methods in families_of(run).items():
        mine = here[here["method"].isin(methods)]
        if not mine[distance].notna().any():
            continue
        diverged = mine["status"] == "diverged"
        points = pd.DataFrame(
            {
                "method": pd.Categorical(mine["method"], methods, ordered=True),
                "seed": mine["seed"],
                "x": mine[distance].mask(diverged, np.inf),
                "y": mine["error"].mask(diverged, np.inf),
                "y_sampled": mine["error_sampled"].fillna(mine["error"]).mask(diverged, np.inf),
            }
        )
        by_seed = {
            seed: points[points["seed"] == seed].sort_values("method") for seed in mine["seed"].unique()
        }
        complete = {
            int(seed): rows for seed, rows in by_seed.items() if rows[["x", "y"]].notna().all(axis=None)
        }
        stochastic = bool(mine["error_sampled"].notna().any())
        found.append(Family(name, methods, len(by_seed), complete, stochastic))
    return found
