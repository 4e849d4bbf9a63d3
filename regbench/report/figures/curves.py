"""Learning curves: the error on test and training images over the epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.charts import draw_band, epoch_axis, legend, log_axis, reference_line
from regbench.report.figures.choose import SelectiveFigure
from regbench.report.figures.series import Value, band, evaluated, series
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import FAILED, CellRecord, Run

PANELS = {"test_mse": "Test images", "train_mse": "Training images"}
ANCHORS = {"mean_image_mse": "mean image", "pca_mse": "PCA"}


class CurvesOptions(SelectionOptions):
    """Options of ``curves``."""

    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Curves(SelectiveFigure):
    """MSE on test and on training images over the epochs: mean and interval over seeds."""

    name = "curves"
    title = "Learning curves"
    Options: ClassVar[type[FigureOptions]] = CurvesOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for dataset in run.datasets:
            cells = [
                cell
                for method in run.methods
                for cell in run.select(dataset=dataset, method=method)
                if series(cell, evaluated("test_mse"))
            ]
            if cells:
                anchors = run.anchors(dataset) or {}
                canvas = _draw(cells, look_of, anchors, self.options.width)
                yield Drawing(f"curves-{slug(dataset)}", canvas, _caption(dataset, cells, anchors))


def _draw(
    cells: list[CellRecord], look_of: Mapping[str, Look], anchors: Mapping[str, float], width: float
) -> Canvas:
    methods = list(dict.fromkeys(cell.method for cell in cells))
    canvas = Canvas(figsize=(width, 2.2 + 0.05 * max(0, len(methods) - 6)), layout="constrained")
    axes = canvas.subplots(1, 2, sharey=True)
    unfinished = [cell for cell in cells if cell.status != "done"]
    levels: list[float] = []
    for ax, (key, title) in zip(axes, PANELS.items(), strict=True):
        ax.set_title(title)
        for method in methods:
            if found := band([cell for cell in cells if cell.method == method], evaluated(key)):
                draw_band(ax, found, look_of[method])
                levels += [*found.mean_E]
        for cell in unfinished:
            levels += _draw_unfinished(ax, cell, evaluated(key), look_of[cell.method])
    low, high = 0.8 * min(levels), 1.25 * max(levels)
    for ax in axes:
        log_axis(ax, low, high)
        epoch_axis(ax, cells, note=True)
    axes[0].set_ylabel("MSE")
    for name, label in ANCHORS.items():
        if low < (anchors.get(name) or 0.0) < high:
            reference_line(axes[0], anchors[name], label)
    legend(canvas, methods, look_of)
    return canvas


def _draw_unfinished(ax: Axes, cell: CellRecord, value: Value, look: Look) -> list[float]:
    """One thin line per unfinished seed, with a cross where training broke down; returns its levels."""
    found = series(cell, value)
    if found:
        epochs, levels = [*found], [*found.values()]
        ax.plot(epochs, levels, color=look.color, linestyle=look.line, linewidth=0.6)
        if cell.status in FAILED:
            ax.plot(epochs[-1], levels[-1], "x", color=look.color, markersize=4)
    return [*found.values()]


def _caption(dataset: str, cells: list[CellRecord], anchors: Mapping[str, float]) -> str:
    finished = [cell for cell in cells if cell.status == "done"]
    counts = sorted({sum(c.method == cell.method for c in finished) for cell in finished})
    text = (
        f"MSE on {dataset} over the epochs, on the test images and on a fixed subset of the training images."
    )
    if counts:
        seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        band = " and the band its 95% t-interval over seeds" if counts[-1] > 1 else ""
        text += f" The line is the mean over {seeds} finished seed{'s' * (counts[-1] > 1)}{band}."
    if len(finished) < len(cells):
        text += " Thin lines are single runs that did not finish; a cross marks where one failed or diverged."
    text += " Shaded: the warm-up on the reconstruction alone."
    if anchors:
        text += f" For comparison, the mean image has a test MSE of {anchors['mean_image_mse']:.3g}"
        if anchors.get("pca_mse") is not None:
            text += f" and PCA with {anchors['pca_components']} components {anchors['pca_mse']:.3g}"
        text += " (dashed, where in range)."
    return text
