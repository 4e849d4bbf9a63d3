"""Parts that charts over epochs share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from regbench.report.figures.series import Band
from regbench.report.style import FAINT, GREY, Look, plain, shorten
from regbench.store.records import CellRecord

LEGEND_LETTERS = 40
LETTER = 0.052
"""Width of a letter of a legend, in inches."""

HALO = [withStroke(linewidth=1.5, foreground="white")]
"""Keeps words readable on lines."""


def draw_band(ax: Axes, found: Band, look: Look, *, interval: bool = True) -> None:
    """A line for the mean, and a band for the interval where there is one and it is wanted."""
    marker = "." if len(found.epochs_E) == 1 else ""
    ax.plot(found.epochs_E, found.mean_E, color=look.color, linestyle=look.line, marker=marker)
    if interval and found.seeds > 1:
        ax.fill_between(found.epochs_E, found.low_E, found.high_E, color=look.color, alpha=0.13, linewidth=0)


def warmups(cells: Iterable[CellRecord]) -> list[int]:
    """The different lengths of the warm-up, in epochs, among some cells; zero is left out."""
    return sorted({int(cell.key["training"]["warmup"]) for cell in cells} - {0})


def epoch_axis(ax: Axes, cells: Sequence[CellRecord], *, note: bool) -> None:
    """Whole epochs from the first to the last, with the warm-up shaded and named."""
    last = max((int(row["epoch"]) for cell in cells for row in cell.history[-1:]), default=1)
    ax.set_xlim(1, max(last, 2))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2, steps=[1, 2, 5, 10]))
    ax.set_xlabel("epoch")
    for length in warmups(cells):
        ax.axvspan(1, length, color="#000000", alpha=0.06, linewidth=0, zorder=0)
    if note and warmups(cells):
        ax.annotate(
            "warm-up",
            (0, 0),
            xycoords="axes fraction",
            xytext=(3, 3),
            textcoords="offset points",
            color=GREY,
            fontsize=5.5,
            path_effects=HALO,
        )


def log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic y axis over the given positive range, with plain numbers at round values."""
    ax.set_yscale("log", nonpositive="clip")
    ax.set_ylim(low, high)
    steps: Sequence[float] = (1, 2, 5)
    if high / low > 300:
        steps = (1,)
    elif high / low < 5:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_columns(names: Sequence[str], width: float, each: float) -> int:
    """The most columns in which a legend fits into ``width`` inches, filled column by column.

    ``each``: inches that a column takes besides its longest name.
    """
    for columns in range(len(names), 1, -1):
        parts = np.array_split([len(name) for name in names], columns)
        if sum(each + LETTER * part.max() for part in parts) <= width:
            return columns
    return 1


def legend(canvas: Canvas, methods: Sequence[str], look_of: Mapping[str, Look]) -> None:
    """All methods in rows under the charts; makes the canvas higher by as much."""
    names = [shorten(method, LEGEND_LETTERS) for method in methods]
    columns = legend_columns(names, canvas.get_figwidth(), 0.45)
    canvas.set_figheight(canvas.get_figheight() + 0.13 * math.ceil(len(methods) / columns))
    canvas.legend(
        [look_of[method].handle() for method in methods],
        [plain(name) for name in names],
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.6,
        borderaxespad=0,
        borderpad=0.1,
    )


def reference_line(ax: Axes, value: float, label: str) -> None:
    """A thin dashed line across, named at its right end."""
    ax.axhline(value, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    ax.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 1.5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=GREY,
        fontsize=5.5,
        path_effects=HALO,
    )
