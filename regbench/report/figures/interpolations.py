"""The way from one test image to another through every method's latent space.

Shape suffixes: P pairs of images, T steps, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from regbench.errors import StoreError
from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.choose import SelectiveFigure, Shown, same_images, shown_seeds
from regbench.report.figures.mosaic import BREAK, LEAST, Block, Mosaic, room
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import Run


class InterpolationsOptions(SelectionOptions):
    """Options of ``interpolations``."""

    pairs: int = Field(2, ge=1, le=20, description="pairs of images side by side, where they have room")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Interpolations(SelectiveFigure):
    """Decoded points between the codes of two test images, a row per method."""

    name = "interpolations"
    title = "Interpolations"
    Options: ClassVar[type[FigureOptions]] = InterpolationsOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for every in shown_seeds(run):
            shown = every.having("interpolations")
            if shown is None:
                continue
            without = [cell.method for cell in every.cells if cell not in shown.cells]
            yield self._draw(shown, look_of, without)

    def _draw(self, shown: Shown, look_of: Mapping[str, Look], without: list[str]) -> Drawing:
        ends_P2CHW = _ends(shown)
        steps = shown.arrays[shown.cells[0].method]["interpolations"].shape[1]
        fitting = int((room(self.options.width, LEAST) + BREAK) / (steps + BREAK))
        count = min(self.options.pairs, len(ends_P2CHW), max(1, fitting))
        starts = [i * (steps + BREAK) for i in range(count)]
        sheet = Mosaic(self.options.width, starts[-1] + steps)
        originals = [
            Block(start + at * (steps - 1), ends_P2CHW[p, at : at + 1])
            for p, start in enumerate(starts)
            for at in (0, 1)
        ]
        sheet.row(originals, "Test images")
        sheet.space(0.05)
        for cell in shown.cells:
            images_PTCHW = shown.arrays[cell.method]["interpolations"]
            blocks = [Block(start, images_PTCHW[p]) for p, start in enumerate(starts)]
            sheet.row(blocks, cell.method, look=look_of[cell.method])
        pairs = f"{count} pairs" if count > 1 else "one pair"
        text = (
            f"From one test image of {shown.dataset} to another, for {pairs}, the same for every method: codes"
            f" at even distances on the straight line between the two mean codes, decoded. On top, the test"
            f" images themselves. {shown.sentence}"
        )
        if without:
            text += f" No interpolations stored: {', '.join(without)}."
        return Drawing(f"interpolations-{slug(shown.dataset)}", sheet.finish(), text)


def _ends(shown: Shown) -> NDArray[np.uint8]:
    """Both test images of each pair, shape (P, 2, C, H, W)."""
    index_R, images_RCHW = same_images(shown, "shown_index"), same_images(shown, "shown_images")
    pairs_P2 = same_images(shown, "interpolation_pairs")
    place = {int(index): r for r, index in enumerate(index_R)}
    if not place.keys() >= set(pairs_P2.flat):
        raise StoreError(
            f"{shown.dataset}, seed {shown.seed}: interpolation_pairs names test images that are not stored",
            hint="run the suite again with --force",
        )
    return np.asarray(images_RCHW[[[place[int(i)] for i in pair] for pair in pairs_P2]])
