"""New images: codes drawn from each method's prior, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.choose import SelectiveFigure, Shown, same_images, shown_seeds
from regbench.report.figures.mosaic import Block, Mosaic
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import Run


class SamplesOptions(SelectionOptions):
    """Options of ``samples``."""

    columns: int = Field(14, ge=1, le=64, description="samples in a row")
    rows: int = Field(2, ge=1, le=64, description="rows per method; 64 samples are stored")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Samples(SelectiveFigure):
    """Decoded samples from each method's prior, below real test images."""

    name = "samples"
    title = "Samples"
    Options: ClassVar[type[FigureOptions]] = SamplesOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for shown in shown_seeds(run):
            if any("samples" in arrays for arrays in shown.arrays.values()):
                yield self._draw(shown, look_of)

    def _draw(self, shown: Shown, look_of: Mapping[str, Look]) -> Drawing:
        columns: int = self.options.columns
        sheet = Mosaic(self.options.width, columns)
        sheet.row(
            [Block(0, same_images(shown, "shown_images")[:columns])], "Test images", note="for comparison"
        )
        without = []
        for cell in shown.cells:
            samples_NCHW = shown.arrays[cell.method].get("samples")
            if samples_NCHW is None:
                without.append(cell.method)
                continue
            sheet.space(0.06)
            for row in range(self.options.rows):
                images = samples_NCHW[row * columns : (row + 1) * columns]
                first = {"name": cell.method, "note": cell.result["samples_from"]} if row == 0 else {}
                if len(images):
                    sheet.row([Block(0, images)], look=look_of[cell.method], **first)
        text = (
            f"Decoded samples on {shown.dataset}: the first ones drawn, not selected. Under each name: what"
            f" the codes were drawn from. On top, real test images for comparison. {shown.sentence}"
        )
        if without:
            text += f" No samples stored: {', '.join(without)}."
        return Drawing(f"samples-{slug(shown.dataset)}", sheet.finish(), text)
