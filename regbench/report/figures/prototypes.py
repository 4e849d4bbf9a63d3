"""Decoded prototypes, for the methods that have them.

Shape suffixes: K prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.choose import SelectiveFigure, Shown, shown_seeds
from regbench.report.figures.mosaic import Block, Mosaic, room
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import CellRecord, Run


class PrototypesOptions(SelectionOptions):
    """Options of ``prototypes``."""

    columns: int = Field(15, ge=1, le=100, description="prototypes in a row, where they have room")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Prototypes(SelectiveFigure):
    """What each prototype decodes to, with the share of the test images that are assigned to it."""

    name = "prototypes"
    title = "Decoded prototypes"
    Options: ClassVar[type[FigureOptions]] = PrototypesOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for shown in shown_seeds(run):
            cells = [cell for cell in shown.cells if "prototype_images" in shown.arrays[cell.method]]
            if cells:
                yield self._draw(shown, cells, look_of)

    def _draw(self, shown: Shown, cells: list[CellRecord], look_of: Mapping[str, Look]) -> Drawing:
        widest = max(len(shown.arrays[cell.method]["prototype_images"]) for cell in cells)
        columns = min(self.options.columns, widest, max(1, int(room(self.options.width))))
        sheet = Mosaic(self.options.width, columns)
        for cell in cells:
            images_KCHW = shown.arrays[cell.method]["prototype_images"]
            share_K = shares(cell)
            for start in range(0, len(images_KCHW), columns):
                chosen = slice(start, start + columns)
                block = Block(0, images_KCHW[chosen], share_K[chosen])
                sheet.row([block], cell.method if start == 0 else "", look=look_of[cell.method])
            sheet.space(0.05)
        text = (
            f"Prototypes of each method on {shown.dataset}, decoded. Below each: the share of the test images"
            f" assigned to it at evaluation; 0% is a dead prototype. {shown.sentence}"
        )
        return Drawing(f"prototypes-{slug(shown.dataset)}", sheet.finish(), text)


def shares(cell: CellRecord) -> list[str]:
    """Percent of the test images per prototype, rounded, so that only an empty cluster shows as 0.

    Empty where the clusters were not counted.
    """
    clusters = cell.result["diagnostics"].get("clusters")
    if clusters is None:
        return []
    sizes_K = np.asarray(clusters["sizes"], dtype=np.float64)
    percent_K = 100 * sizes_K / max(sizes_K.sum(), 1)
    return ["0%" if share == 0 else "<1%" if share < 1 else f"{share:.0f}%" for share in percent_K]
