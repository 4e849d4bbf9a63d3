"""t-SNE of test latents, coloured by class, with the prototypes among them.

Shape suffixes: L latents, K prototypes, D latent units.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.charts import HALO, legend_columns
from regbench.report.figures.choose import SelectiveFigure, Shown, same_images, shown_seeds
from regbench.report.style import CLASSES, GREY, WIDTH, Look, plain, shorten, slug
from regbench.store.records import Run

LINE = 0.115
"""Height of a line of a method's name, in inches."""
MARGIN = 0.03
"""Free on each side of a panel, in inches."""
CACHE = Path("derived", "tsne")
STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 5.5,
    "linestyle": "",
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.5,
}
UNLABELLED = -1
"""The label of every image of a data set without classes."""
FEW_CLASSES = len(CLASSES)
"""Up to so many classes each have a colour of their own and a place in the legend."""


class TSNEOptions(SelectionOptions):
    """Options of ``tsne``."""

    images: int = Field(1000, ge=4, le=2000, description="test images embedded; up to 2000 are stored")
    perplexity: float = Field(30.0, gt=1, description="of t-SNE; lowered to a third of the number of points")
    seed: int = Field(0, ge=0, lt=2**32, description="of t-SNE, the same for all methods")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class TSNE(SelectiveFigure):
    """One panel per method: the same test images, the same settings, prototypes as stars."""

    name = "tsne"
    title = "t-SNE of the latents"
    Options: ClassVar[type[FigureOptions]] = TSNEOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for shown in shown_seeds(run):
            same_images(shown, "latent_index")
            labels_L = same_images(shown, "latent_labels")[: self.options.images]
            if len(labels_L) < 4:  # too few to lay out
                continue
            stars = any("prototypes" in arrays for arrays in shown.arrays.values())
            handles = _handles(labels_L, shown.classes, stars=stars)
            canvas, axes, side = _sheet(self.options.width, [cell.method for cell in shown.cells], handles)
            for ax, cell in zip(axes, shown.cells, strict=True):
                points = self._embed(run.path / CACHE, shown.arrays[cell.method])
                _title(ax, cell.method, look_of[cell.method], side)
                _panel(ax, points, labels_L)
            yield Drawing(f"tsne-{slug(shown.dataset)}", canvas, self._caption(shown, labels_L))

    def _embed(self, cache: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[np.float32] | None:
        """Places of the latents, then of the prototypes, shape (L + K, 2), from the cache where known.

        ``None`` where all codes are one and the same, so that there is nothing to lay out.
        """
        codes_LD = arrays["latents"][: self.options.images].astype(np.float32)
        if np.ptp(codes_LD, axis=0).max() == 0:
            return None
        if "prototypes" in arrays:
            codes_LD = np.concatenate([codes_LD, arrays["prototypes"].astype(np.float32)])
        file = cache / f"{self._key(codes_LD)}.npy"
        if file.is_file():
            try:
                return np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
            except (ValueError, EOFError, OSError):
                file.unlink(missing_ok=True)  # torn or altered; it is only a cache
        points = self._tsne(codes_LD)
        _keep(file, points)
        return points

    def _settings(self, count: int) -> dict[str, Any]:
        return {
            "perplexity": min(self.options.perplexity, (count - 1) / 3),
            "random_state": self.options.seed,
            "init": "pca",
            "learning_rate": "auto",
            "metric": "euclidean",
        }

    def _key(self, codes_LD: NDArray[np.float32]) -> str:
        import sklearn

        settings = {**self._settings(len(codes_LD)), "shape": codes_LD.shape, "sklearn": sklearn.__version__}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(codes_LD).tobytes())
        return digest.hexdigest()

    def _tsne(self, codes_LD: NDArray[np.float32]) -> NDArray[np.float32]:
        from sklearn.manifold import TSNE as Embedding  # slow to import, and not needed when all is cached

        return np.asarray(
            Embedding(**self._settings(len(codes_LD))).fit_transform(codes_LD), dtype=np.float32
        )

    def _caption(self, shown: Shown, labels_L: NDArray[np.int64]) -> str:
        classes = len(np.unique(labels_L))
        text = (
            f"t-SNE of the codes of the same {len(labels_L)} test images of {shown.dataset} for every method"
            f" (perplexity {self.options.perplexity:g}, seed {self.options.seed})"
        )
        if classes > FEW_CLASSES:
            text += f", coloured by class ({classes} classes, around a colour wheel)"
        elif UNLABELLED not in labels_L:
            text += ", coloured by class"
        text += "."
        if any("prototypes" in arrays for arrays in shown.arrays.values()):
            text += " Stars: the prototypes, embedded together with the codes."
        return text + f" Distances between groups and their sizes mean little in t-SNE. {shown.sentence}"


def _keep(file: Path, points: NDArray[np.float32]) -> None:
    """Write to the cache, whole or not at all; a run that cannot be written to is only slower next time."""
    part = file.with_name(f"{file.stem}-{uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            np.save(stream, points, allow_pickle=False)
        part.replace(file)
    except OSError as error:
        warnings.warn(f"t-SNE is not cached: {error}", stacklevel=2)


def _grid(count: int, width: float) -> tuple[int, int]:
    """Rows and columns of panels, each an inch wide or more."""
    columns = count if count <= 3 else min(4, math.ceil(math.sqrt(count)))
    columns = min(columns, int(width))
    return math.ceil(count / columns), max(columns, 2)


def _sheet(
    width: float, methods: Sequence[str], handles: Sequence[Line2D]
) -> tuple[Canvas, list[Axes], float]:
    """A square per method with room for its name over it, and the legend below; also its side with margins.

    Laid out in inches: constrained layout cuts off the names above squares.
    """
    rows, columns = _grid(len(methods), width)
    side = width / columns
    head = 0.07 + LINE * max(len(_lines(method, side)) for method in methods)
    labels = [str(handle.get_label()) for handle in handles]
    across = legend_columns(labels, width, 0.36)
    foot = 0.06 + 0.13 * math.ceil(len(labels) / across) if labels else 0.0
    height = rows * (side + head) + foot
    canvas = Canvas(figsize=(width, height))
    axes = []
    for i in range(len(methods)):
        left, top = i % columns * side + MARGIN, i // columns * (side + head) + head
        inner = side - 2 * MARGIN
        ax = canvas.add_axes(
            (left / width, 1 - (top + inner) / height, inner / width, inner / height), frame_on=False
        )
        ax.set_axis_off()
        axes.append(ax)
    if handles:
        place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0.1}
        canvas.legend(handles=[*handles], ncols=across, handletextpad=0.1, columnspacing=1.0, **place)
    return canvas, axes, side


def _colours(labels_L: NDArray[np.int64]) -> dict[int, Any]:
    classes = [int(label) for label in np.unique(labels_L)]
    if classes == [UNLABELLED]:
        return {UNLABELLED: GREY}
    if len(classes) <= FEW_CLASSES:
        return dict(zip(classes, CLASSES, strict=False))
    return {label: colormaps["hsv"](0.92 * i / len(classes)) for i, label in enumerate(classes)}


def _named(colour_of: Mapping[int, Any]) -> Mapping[int, Any]:
    """The colours that stand for a class by name: none where there are too many classes, or none at all."""
    return colour_of if len(colour_of) <= FEW_CLASSES and UNLABELLED not in colour_of else {}


def _lines(method: str, side: float) -> list[str]:
    """A method's name in lines that are no wider than a panel's ``side`` in inches, two at most."""
    return textwrap.wrap(plain(method), int(side / 0.07), max_lines=2, placeholder="…")


def _title(ax: Axes, method: str, look: Look, side: float) -> None:
    """The method's name over the panel, with a bar in its colour."""
    lines = _lines(method, side)
    ax.set_title("\n".join(lines), x=0.05, fontsize=7, pad=3)
    inch = 1 / (side - 2 * MARGIN)  # in heights of the panel
    bar = Rectangle((0, 1 + 0.03 * inch), 0.02, (LINE * len(lines)) * inch, transform=ax.transAxes)
    bar.set(facecolor=look.color, clip_on=False)
    ax.add_patch(bar)


def _panel(ax: Axes, points: NDArray[np.float32] | None, labels_L: NDArray[np.int64]) -> None:
    if points is None:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": ax.transAxes}
        ax.text(0.5, 0.5, "all codes are the same", color=GREY, **middle)
        return
    colour_of = _colours(labels_L)
    places, stars = points[: len(labels_L)], points[len(labels_L) :]
    colours = [colour_of[int(label)] for label in labels_L]
    # Thousands of dots: as pixels also inside PDF and SVG, so that these stay small and quick to show.
    ax.scatter(places[:, 0], places[:, 1], s=2.2, c=colours, linewidths=0, alpha=0.85, rasterized=True)
    for label, colour in _named(colour_of).items():
        _name_class(ax, places[labels_L == label], str(label), colour)
    ax.plot(stars[:, 0], stars[:, 1], **STAR, zorder=4)


def _name_class(ax: Axes, places: NDArray[np.float32], name: str, colour: Any) -> None:
    """The class beside its middlemost image, for readers to whom the colours look alike."""
    x, y = places[np.argmin(((places - np.median(places, axis=0)) ** 2).sum(1))]
    style: dict[str, Any] = {"fontsize": 6.5, "fontweight": "bold", "ha": "center", "va": "center"}
    place: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points"}
    ax.annotate(name, (x, y), **place, **style, color=colour, path_effects=HALO, zorder=3)


def _class_name(label: int, classes: Sequence[str]) -> str:
    """``3``, or ``3 cat`` where the class has a name beside its number; the panels have the number alone."""
    name = classes[label] if label < len(classes) else str(label)
    return name if name == str(label) else plain(f"{label} {shorten(name, 16)}")


def _handles(labels_L: NDArray[np.int64], classes: Sequence[str], *, stars: bool) -> list[Line2D]:
    """What the legend explains; nothing where there are neither classes with colours of their own nor prototypes."""
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linestyle": ""}
    handles = [
        Line2D([], [], **style, color=colour, label=_class_name(label, classes))
        for label, colour in _named(_colours(labels_L)).items()
    ]
    return [*handles, Line2D([], [], **STAR, label="prototype")] if stars else handles
