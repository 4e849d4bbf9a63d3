"""Words beside points, placed so that they do not lie on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

from regbench.report.figures.charts import HALO
from regbench.report.style import plain

MARKER = 5.0
"""Side of the box around a point that is kept free, in points."""
DISTANCES = (5.0, 9.0, 15.0)
"""How far a label may be from its point, in points; the nearest place that is free wins."""
DIRECTIONS = 8


@dataclass(frozen=True, slots=True)
class Label:
    """A word for the point (x, y), in data coordinates."""

    text: str
    x: float
    y: float
    color: str


def place_labels(canvas: Canvas, ax: Axes, labels: Sequence[Label], *, size: float = 5.0) -> None:
    """Write each label near its point, where it covers the least of points, of earlier labels, and of what
    lies outside of the axes.

    Call it last: limits and layout must be what they will be.
    """
    canvas.draw_without_rendering()  # lays out, so that places on the canvas are known
    unit = canvas.dpi / 72
    centres = [ax.transData.transform((label.x, label.y)) for label in labels]
    half = MARKER * unit / 2
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in centres]
    frame = ax.get_window_extent()
    for label, (x, y) in zip(labels, centres, strict=True):
        note = ax.annotate(
            plain(label.text),
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=label.color,
            path_effects=HALO,
            in_layout=False,
        )
        extent = note.get_window_extent()
        best, box = min(
            (
                (offset, _around(x + offset[0] * unit, y + offset[1] * unit, extent.width, extent.height))
                for offset in _offsets(extent.width / unit, extent.height / unit)
            ),
            key=lambda place: _covered(place[1], taken, frame),
        )
        note.set_position(best)
        taken.append(box)


def _offsets(width: float, height: float) -> Sequence[tuple[float, float]]:
    """Of a label's centre from its point, in points; the label's edge is at each of the distances."""
    angles = [2 * math.pi * (i + 1) / DIRECTIONS for i in range(DIRECTIONS)]
    return [
        (math.cos(angle) * (far + width / 2), math.sin(angle) * (far + height / 2))
        for far, angle in product(DISTANCES, angles)
    ]


def _around(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Area of what a label would lie on, and of what of it is outside."""
    inside = _shared(box, frame)
    return sum(_shared(box, other) for other in taken) + 2 * (box.width * box.height - inside)


def _shared(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return float(common.width * common.height) if common is not None else 0.0
