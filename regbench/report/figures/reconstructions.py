"""The same test images through every method: the best, the median and the worst by error.

Shape suffixes: R stored images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.choose import SelectiveFigure, Shown, best_median_worst, same_images, shown_seeds
from regbench.report.figures.mosaic import BREAK, Block, Mosaic, room
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import Run


class ReconstructionsOptions(SelectionOptions):
    """Options of ``reconstructions``."""

    images: int = Field(
        4, ge=1, le=20, description="images in each of the three groups, where they have room"
    )
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Reconstructions(SelectiveFigure):
    """Originals on top, one row per method, the MSE of each image under it."""

    name = "reconstructions"
    title = "Reconstructions"
    Options: ClassVar[type[FigureOptions]] = ReconstructionsOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for shown in shown_seeds(run):
            same_images(shown, "shown_index")
            originals = same_images(shown, "shown_images")
            errors = {method: _errors(arrays) for method, arrays in shown.arrays.items()}
            count = min(self.options.images, max(1, int((room(self.options.width) - 2 * BREAK) / 3)))
            groups = best_median_worst(np.mean([*errors.values()], axis=0), count)
            canvas = _draw(shown, originals, errors, groups, look_of, self.options.width)
            name = f"reconstructions-{slug(shown.dataset)}"
            yield Drawing(name, canvas, _caption(shown, len(originals), groups))


def _errors(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """MSE of the stored images, shape R: the metric's where the suite has it, else of the 8-bit images."""
    if "per_image_mse" in arrays:
        return np.asarray(arrays["per_image_mse"][arrays["shown_index"]], dtype=np.float64)
    difference = arrays["reconstructions"].astype(np.float64) - arrays["shown_images"]
    return np.asarray(((difference / 255) ** 2).mean((1, 2, 3)))


def _thousandths(error: float) -> str:
    """Three digits: 0.512, 7.00, 12.3, 105."""
    return f"{1000 * error:#.3g}".removesuffix(".")


def _draw(
    shown: Shown,
    originals_RCHW: NDArray[np.uint8],
    errors: Mapping[str, NDArray[np.float64]],
    groups: Mapping[str, NDArray[np.int64]],
    look_of: Mapping[str, Look],
    width: float,
) -> Canvas:
    count = len(next(iter(groups.values())))
    starts = [i * (count + BREAK) for i in range(len(groups))]
    sheet = Mosaic(width, starts[-1] + count)
    placed = list(zip(starts, groups.values(), strict=True))
    sheet.heading(
        [(start, count, group) for start, group in zip(starts, groups, strict=True)], note="MSE × 1000"
    )
    sheet.row([Block(start, originals_RCHW[chosen]) for start, chosen in placed], "Original")
    sheet.space(0.05)
    for cell in shown.cells:
        error_R, images_RCHW = errors[cell.method], shown.arrays[cell.method]["reconstructions"]
        blocks = [
            Block(start, images_RCHW[chosen], [_thousandths(error) for error in error_R[chosen]])
            for start, chosen in placed
        ]
        sheet.row(blocks, cell.method, look=look_of[cell.method], note=f"mean {_thousandths(error_R.mean())}")
    return sheet.finish()


def _caption(shown: Shown, stored: int, groups: Mapping[str, NDArray[np.int64]]) -> str:
    count = len(next(iter(groups.values())))
    return (
        f"The same {len(groups) * count} test images of {shown.dataset} for every method, originals on top,"
        f" reconstructed at the mean code. Under each: its MSE x 1000; under a method's name: the mean over"
        f" all {stored} stored test images. Shown are, of these, the {count} with the lowest, the middle and"
        f" the highest MSE, averaged over the methods in the figure. {shown.sentence}"
    )
