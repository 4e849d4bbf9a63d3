"""Do the prototypes anchor separate clusters? What the history says, whatever it says.

Shape suffixes: S seeds, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.charts import draw_band, epoch_axis, legend, reference_line
from regbench.report.figures.choose import SelectiveFigure
from regbench.report.figures.series import Band, Evaluated, Value, band
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import CellRecord, Run

SHARE = 1.02
"""Top of the axis of a share, which is never above 1."""

Cells = Mapping[str, list[CellRecord]]
"""Finished cells by method."""
Bands = Mapping[str, list[Band]]
"""What was recorded of a panel's values, by method."""


class ClustersOptions(SelectionOptions):
    """Options of ``clusters``."""

    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Clusters(SelectiveFigure):
    """Separation, assignment agreement, purity, cluster sizes and prototype masses over the epochs."""

    name = "clusters"
    title = "Clusters around the prototypes"
    Options: ClassVar[type[FigureOptions]] = ClustersOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for dataset in run.datasets:
            cells = {}
            for method in run.methods:
                found = [c for c in run.select(dataset=dataset, method=method) if _cluster_count(c) > 1]
                if found:
                    cells[method] = found
            panels = {panel: bands for panel in PANELS if any((bands := panel.bands(cells)).values())}
            if panels:
                canvas = _draw(panels, cells, look_of, self.options.width)
                yield Drawing(f"clusters-{slug(dataset)}", canvas, _caption(dataset, cells, [*panels]))


@dataclass(frozen=True)
class Panel:
    """One chart over the epochs: a mean over seeds per method, of one value with its band, or of several."""

    title: str
    unit: str
    values: tuple[Value, ...]
    explanation: str
    """For the caption."""
    at_least: float = 0.0
    """The axis goes from 0 at least up to here."""
    reference: tuple[float, str] | None = None

    def bands(self, cells: Cells) -> Bands:
        """The values over seeds, where they were recorded."""
        return {
            method: [over_seeds for value in self.values if (over_seeds := band(found, value))]
            for method, found in cells.items()
        }

    def draw(self, ax: Axes, cells: Cells, bands: Bands, look_of: Mapping[str, Look]) -> None:
        ax.set_title(self.title)
        ax.set_ylabel(self.unit)
        top = self.at_least
        for method, recorded in bands.items():
            for over_seeds in recorded:
                draw_band(ax, over_seeds, look_of[method], interval=len(self.values) == 1)
                top = max(top, 1.1 * over_seeds.mean_E.max() if self.at_least != SHARE else SHARE)
        ax.set_ylim(0, top)
        if self.reference is not None:
            reference_line(ax, *self.reference)
        epoch_axis(ax, [cell for found in cells.values() for cell in found], note=False)


class FinalSizes(Panel):
    """The sizes of all clusters after the last epoch, largest first, averaged over seeds rank by rank."""

    def draw(self, ax: Axes, cells: Cells, bands: Bands, look_of: Mapping[str, Look]) -> None:
        ax.set_title(self.title)
        ax.set_ylabel(self.unit)
        ax.set_xlabel("clusters, largest first (%)")
        for method, found in cells.items():
            sizes_SK = np.array([sorted(_final_sizes(cell), reverse=True) for cell in found])
            relative_K = (sizes_SK / sizes_SK.mean(axis=1, keepdims=True).clip(1e-9)).mean(0)
            look = look_of[method]
            edges = np.linspace(0, 100, len(relative_K) + 1)
            ax.stairs(relative_K, edges, color=look.color, linestyle=look.line, linewidth=1.2, baseline=None)
        ax.set_xlim(0, 100)
        ax.set_ylim(bottom=0)
        reference_line(ax, 1.0, "")


def _clusters(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    return evaluation.get("clusters") or {}


def _sizes(evaluation: Mapping[str, Any]) -> list[int]:
    return list(_clusters(evaluation).get("sizes") or [])


def _final_sizes(cell: CellRecord) -> list[int]:
    return _sizes(cell.history[-1].get("evaluation") or {})


def _cluster_count(cell: CellRecord) -> int:
    return len(_final_sizes(cell)) if cell.status == "done" and cell.history else 0


def _relative(choose: Callable[[Sequence[int]], int]) -> Value:
    """The largest or the smallest cluster, in units of the size that all would have if they were equal."""

    def value(evaluation: Mapping[str, Any]) -> float | None:
        sizes = _sizes(evaluation)
        return choose(sizes) * len(sizes) / max(sum(sizes), 1) if sizes else None

    return Evaluated(value)


def _logged(group: str, name: str, factor: float = 1.0) -> Value:
    """A number of ``log`` or ``log_max``."""

    def value(row: Mapping[str, Any]) -> float | None:
        number = row.get(group, {}).get(name)
        return None if number is None else factor * float(number)

    return value


PANELS = (
    Panel(
        "Separation",
        r"$|v_i - v_j|\,/\sqrt{d}$",
        (Evaluated(lambda evaluation: _clusters(evaluation).get("separation")),),
        "separation is the mean distance of two prototypes, divided by the square root of the latent size d;"
        " the noise of N(v, I) has size 1 in this unit (dashed), so that clusters overlap well below it",
        at_least=1.15,
        reference=(1.0, "noise"),
    ),
    Panel(
        "Agreement",
        "share of images",
        (_logged("log", "assignment_agreement"),),
        "agreement is the share of training images whose Sinkhorn code and whose highest score name the same"
        " prototype",
        at_least=SHARE,
    ),
    Panel(
        "Purity",
        "share of images",
        (Evaluated(lambda evaluation: _clusters(evaluation).get("purity")),),
        "purity is the share of test images that belong to the majority class of their cluster",
        at_least=SHARE,
    ),
    Panel(
        "Largest, smallest",
        "× equal size",
        (_relative(max), _relative(min)),
        "cluster sizes are counted on the test images, in units of the size that all clusters would have if"
        " they were equal",
        reference=(1.0, ""),
    ),
    FinalSizes(
        "Sizes at the end",
        "× equal size",
        (_relative(max),),
        "their sizes after the last epoch are sorted, then averaged over seeds",
    ),
    Panel(
        "Off equal masses",
        "%",
        (
            _logged("log_max", "prototype_mass_deviation", factor=100),
            _logged("log_max", "rounded_share", factor=100),
        ),
        "off equal masses, at most: how far a prototype's Sinkhorn mass was from equipartition, and, where the"
        " codes are rounded to equal masses, what share of a batch the rounding moved; above the dashed line"
        " training warns",
        at_least=2.8,
        reference=(2.0, ""),
    ),
)


def _draw(panels: Mapping[Panel, Bands], cells: Cells, look_of: Mapping[str, Look], width: float) -> Canvas:
    columns = min(3 if width >= 4.5 else 2, len(panels))
    rows = math.ceil(len(panels) / columns)
    canvas = Canvas(figsize=(width, 1.55 * rows), layout="constrained")
    axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for ax, (panel, bands) in zip(axes, panels.items(), strict=False):
        panel.draw(ax, cells, bands, look_of)
    for ax in axes[len(panels) :]:
        ax.remove()
    legend(canvas, [*cells], look_of)
    return canvas


def _caption(dataset: str, cells: Cells, panels: Sequence[Panel]) -> str:
    most = max(len(found) for found in cells.values())
    seeds = f"means over {most} seeds, with 95% t-intervals for single lines" if most > 1 else "one seed"
    explained = "; ".join(panel.explanation for panel in panels)
    return (
        f"The clusters around the prototypes on {dataset}, for methods with two or more prototypes ({seeds})."
        f" {explained[0].upper()}{explained[1:]}. Shaded: the warm-up."
    )
