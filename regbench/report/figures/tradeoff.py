"""Reconstruction against regularity: each setting a point, each family a frontier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from pydantic import Field

from regbench.errors import PluginError
from regbench.report.facts import shown
from regbench.report.families import DISTANCES, NORMAL, Distance, families_of, tradeoff_frame
from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.charts import HALO, legend, log_axis, reference_line
from regbench.report.figures.choose import SelectiveFigure
from regbench.report.figures.labels import Label, place_labels
from regbench.report.style import BASELINE, FAINT, GREY, LINES, WIDTH, Look, slug
from regbench.statistics import Interval, pareto, t_interval
from regbench.store.records import Run

MARKERS = ("o", "s", "^", "D", "v", "P", "h", "<")


class TradeoffOptions(SelectionOptions):
    """Options of ``tradeoff``."""

    quantity: Distance = Field(
        "mmd", description="distance to the prior: `mmd` (squared), `sw2` or `kl` (of Gaussian fits)"
    )
    metric: str = Field("mse", description="one of the suite's metrics, at the mean code")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Tradeoff(SelectiveFigure):
    """Error against the distance of the codes to the prior: one frontier per family, means over seeds."""

    name = "tradeoff"
    title = "Reconstruction against regularity"
    Options: ClassVar[type[FigureOptions]] = TradeoffOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        metric, quantity = self.options.metric, self.options.quantity
        if metric not in run.suite["metrics"]:
            if "metric" not in self.options.model_fields_set:
                return
            raise PluginError(
                f"options of figure {self.name!r}: metric: the suite does not measure {metric!r}",
                hint=f"one of {', '.join(run.suite['metrics'])}",
            )
        frame = tradeoff_frame(run, metric)
        for dataset in run.datasets:
            chart = Chart(run, frame[frame["dataset"] == dataset], dataset, quantity, metric, look_of)
            if chart.lines:
                canvas = chart.draw(self.options.width)
                yield Drawing(f"tradeoff-{slug(dataset)}", canvas, chart.caption())


@dataclass(frozen=True, slots=True)
class Spot:
    """One method: means over its finished seeds."""

    method: str
    x: Interval
    y: Interval


@dataclass(frozen=True, slots=True)
class FamilyLook(Look):
    """A family's line, with the marker of its settings."""

    marker: str

    def handle(self) -> Line2D:
        return Line2D([], [], color=self.color, linestyle=self.line, marker=self.marker, markersize=3.5)


class Chart:
    """The picture of one data set."""

    def __init__(
        self,
        run: Run,
        frame: pd.DataFrame,
        dataset: str,
        quantity: Distance,
        metric: str,
        look_of: Mapping[str, Look],
    ) -> None:
        self.run, self.frame, self.dataset, self.quantity, self.metric = run, frame, dataset, quantity, metric
        info = run.suite["metric_info"][metric]
        self.label, self.lower_is_better = info["label"], info["better"] == "lower"
        spots = {method: spot for method in run.methods if (spot := self._spot(method)) is not None}
        families = families_of(run)
        self.lines = {
            name: found
            for name, methods in families.items()
            if (found := [spots[method] for method in methods if method in spots])
        }
        members = {method for methods in families.values() for method in methods}
        self.alone = [spot for method, spot in spots.items() if method not in members]
        self.missing = [method for method in run.methods if method in members and method not in spots]
        self.names = {name: swept_options(run, methods) for name, methods in families.items()}
        self.looks = {
            name: _family_look(i, look_of[methods[len(methods) // 2]])
            for i, (name, methods) in enumerate(families.items())
        }

    def _spot(self, method: str) -> Spot | None:
        rows = self.frame[(self.frame["method"] == method) & (self.frame["status"] == "done")]
        points = rows[[self.quantity, "error"]].replace([np.inf, -np.inf], np.nan).dropna()
        if points.empty:
            return None
        return Spot(method, t_interval(points[self.quantity]), t_interval(points["error"]))

    @property
    def spots(self) -> list[Spot]:
        return [*(spot for line in self.lines.values() for spot in line), *self.alone]

    def floor(self) -> float | None:
        """The largest size of a distance that draws from the priors themselves have."""
        floors = self.frame[f"{self.quantity}_floor"].abs()
        return float(floors.max()) if floors.notna().any() else None

    def draw(self, width: float) -> Canvas:
        canvas = Canvas(figsize=(width, 0.6 * width), layout="constrained")
        ax = canvas.subplots()
        self._axes(ax)
        labels: list[Label] = []
        for name, line in self.lines.items():
            look = self.looks[name]
            on_frontier = frontier_of(line, lower_is_better=self.lower_is_better)
            steps = [line[i] for i in on_frontier]
            ax.plot(
                [spot.x.mean for spot in steps],
                [spot.y.mean for spot in steps],
                color=look.color,
                linestyle=look.line,
                drawstyle="steps-post",
                linewidth=1,
            )
            for i, spot in enumerate(line):
                _mark(ax, spot, look, filled=i in on_frontier)
                text = self.names[name].values[spot.method]
                labels.append(Label(text, spot.x.mean, spot.y.mean, look.color))
        for spot in self.alone:
            _mark(ax, spot, FamilyLook(BASELINE, "", "X"), filled=True)
            labels.append(Label(spot.method, spot.x.mean, spot.y.mean, BASELINE))
        titles = {
            f"{name} ({', '.join(o)})" if (o := self.names[name].options) else name: name
            for name in self.lines
        }
        legend(canvas, [*titles], {title: self.looks[name] for title, name in titles.items()})
        place_labels(canvas, ax, labels)
        return canvas

    def _axes(self, ax: Axes) -> None:
        y = [spot.y.mean for spot in self.spots]
        if self.lower_is_better and min(y) > 0:
            log_axis(ax, 0.8 * min(y), 1.25 * max(y))
        else:
            margin = 0.08 * (max(y) - min(y)) or 0.1
            ax.set_ylim(min(y) - margin, max(y) + margin)
        mean_image = (self.run.anchors(self.dataset) or {}).get("mean_image_mse")
        if self.metric == "mse" and mean_image is not None and mean_image < ax.get_ylim()[1]:
            reference_line(ax, mean_image, "mean image")
        ax.set_ylabel(self.label)
        ax.set_xlabel(f"{DISTANCES[self.quantity]} to the prior")
        floor = self.floor()
        _distance_axis(ax, [spot.x.mean for spot in self.spots], floor)
        if floor:
            ax.axvspan(ax.get_xlim()[0], floor, color="#000000", alpha=0.05, linewidth=0, zorder=0)
            ax.axvline(floor, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
            ax.annotate(
                "floor",
                (floor, 0),
                xycoords=("data", "axes fraction"),
                xytext=(2, 3),
                textcoords="offset points",
                color=GREY,
                fontsize=5.5,
                path_effects=HALO,
            )

    def caption(self) -> str:
        counts = sorted({spot.x.n for spot in self.spots})
        seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        text = (
            f"{self.label} at the mean code on {self.dataset} against the {DISTANCES[self.quantity]} of the test "
            f"images' codes (sampled ones where the method samples) to the method's own prior. Each point is one "
            f"setting, marked with its value: the mean over {seeds} seed{'s' * (counts[-1] > 1)}"
        )
        if counts[-1] > 1:
            text += ", with 95% t-intervals"
        text += ". Lines: the frontier of each family's means; hollow points are dominated by one on it."
        without = [spot.method for spot in self.alone if self._prior_of(spot.method) == NORMAL]
        if without:
            text += f" Crosses: {', '.join(without)}, at the distance to {NORMAL}, for want of a prior of their own."
        if self.floor():
            text += (
                " Shaded, with a linear scale: below the largest distance that draws from a prior themselves have to "
                "it, where there is nothing to tell apart."
            )
        if self.missing:
            text += f" Without a point: {', '.join(self.missing)}."
        return text

    def _prior_of(self, method: str) -> str:
        rows = self.frame[(self.frame["method"] == method) & (self.frame["status"] == "done")]
        return str(rows["prior"].iloc[0])


@dataclass(frozen=True, slots=True)
class Swept:
    """What the settings of a family differ in."""

    options: tuple[str, ...]
    values: Mapping[str, str]
    """By method."""


def swept_options(run: Run, methods: Sequence[str]) -> Swept:
    """The options whose values differ among some methods; methods that agree in all go by their labels."""
    options = {method: run.select(method=method)[0].key["regularizer"]["options"] for method in methods}
    names = dict.fromkeys(name for given in options.values() for name in given)
    differ = tuple(name for name in names if len({shown(given.get(name)) for given in options.values()}) > 1)
    return Swept(
        differ,
        {
            method: ", ".join(_short(given[name]) for name in differ if name in given) or method
            for method, given in options.items()
        },
    )


def _short(value: object) -> str:
    """A number without needless digits; anything else as a suite has it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value if isinstance(value, str) else shown(value)


def frontier_of(line: Sequence[Spot], *, lower_is_better: bool) -> list[int]:
    """Which means no other mean of the family dominates, from the most regular one on."""
    sign = 1 if lower_is_better else -1
    return pareto([max(spot.x.mean, 0.0) for spot in line], [sign * spot.y.mean for spot in line])


def _family_look(place: int, look: Look) -> FamilyLook:
    return FamilyLook(look.color, LINES[place % len(LINES)], MARKERS[place % len(MARKERS)])


def _mark(ax: Axes, spot: Spot, look: FamilyLook, *, filled: bool) -> None:
    """A marker for the means, and thin bars for their intervals."""
    for (x, y), (low, high), along_x in (
        ((spot.x.mean, spot.y.mean), (spot.x.low, spot.x.high), True),
        ((spot.x.mean, spot.y.mean), (spot.y.low, spot.y.high), False),
    ):
        if low is not None and high is not None:
            ends = ([low, high], [y, y]) if along_x else ([x, x], [low, high])
            ax.plot(*ends, color=look.color, linewidth=0.6, alpha=0.6, solid_capstyle="butt")
    ax.plot(
        spot.x.mean,
        spot.y.mean,
        look.marker,
        color=look.color,
        markersize=4,
        markerfacecolor=look.color if filled else "white",
        markeredgewidth=0.8,
        zorder=3,
    )


def _distance_axis(ax: Axes, means: Sequence[float], floor: float | None) -> None:
    """Logarithmic from the floor on; linear below it, where an unbiased estimate may be negative."""
    top = max(*map(abs, means), 1e-12)
    smallest = min((abs(mean) for mean in means if mean), default=top)
    threshold = max(floor or 0.0, smallest if not floor else 0.0, 1e-6 * top)
    ax.set_xscale("symlog", linthresh=threshold, linscale=0.5)
    low = min(means)
    left = 0.6 * threshold if low > threshold else min(low, 0.0) - 0.2 * threshold
    right = max(1.6 * max(means), 2 * threshold)
    ax.set_xlim(left, right)
    decades = range(math.floor(math.log10(threshold)), math.ceil(math.log10(right)) + 1)
    ticks = [10.0**decade for decade in decades]
    ticks = [tick for tick in ticks if max(left, threshold) <= tick <= right]
    if len(ticks) < 3:
        ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        ticks = [tick for tick in ticks if max(left, threshold) <= tick <= right]
    ax.xaxis.set_major_locator(FixedLocator([*([0.0] * (left <= 0)), *ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
