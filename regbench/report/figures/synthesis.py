"""Synthesis: samples around one prototype per class, with more and more noise.

Shape suffixes: C classes (of an image: channels), S noise scales, N samples, K prototypes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.choose import SelectiveFigure, Shown, shown_seeds
from regbench.report.figures.mosaic import BREAK, LEAST, Block, Mosaic, room
from regbench.report.figures.prototypes import shares
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import CellRecord, Run

USUAL = 30
"""Prototypes of the paper's model, whose like is shown where the suite names no method."""


class SynthesisOptions(SelectionOptions):
    """Options of ``synthesis``."""

    methods: tuple[str, ...] = Field(
        (),
        description="labels of methods with prototypes, a picture for each; empty: the one whose number of"
        f" prototypes is nearest {USUAL}",
    )
    samples: int = Field(4, ge=1, le=64, description="samples for each noise scale, where they have room")
    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Synthesis(SelectiveFigure):
    """One row per class: a prototype whose test images are most often of the class, and samples around it."""

    name = "synthesis"
    title = "Samples around prototypes"
    Options: ClassVar[type[FigureOptions]] = SynthesisOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for every in shown_seeds(run):
            shown = every.having("synthesis")
            if shown is None:
                continue
            for cell in shown.cells if self.options.methods else [_usual(shown)]:
                name = f"synthesis-{slug(shown.dataset)}"
                if self.options.methods:
                    name += f"-{slug(cell.method)}"
                canvas = self._draw(shown, cell, look_of[cell.method])
                yield Drawing(name, canvas, _caption(shown, cell))

    def _draw(self, shown: Shown, cell: CellRecord, look: Look) -> Canvas:
        arrays = shown.arrays[cell.method]
        scales_S, images_CSNCHW = arrays["synthesis_scales"], arrays["synthesis"]
        width: float = self.options.width
        space = room(width, LEAST) - 1 - BREAK * len(scales_S)
        count = min(self.options.samples, images_CSNCHW.shape[2], max(1, int(space / len(scales_S))))
        starts = [1 + BREAK + i * (count + BREAK) for i in range(len(scales_S))]
        sheet = Mosaic(width, starts[-1] + count)
        headings = [(start, count, f"{scale:g}") for start, scale in zip(starts, scales_S, strict=True)]
        sheet.heading([(0, 1, "$v_k$"), *headings], note="noise scale")
        share_K = shares(cell)
        for c, k in enumerate(arrays["synthesis_prototypes"]):
            label = shown.classes[c] if c < len(shown.classes) else str(c)
            if k < 0:
                sheet.row([], label, look=look, words="no prototype of this class")
                continue
            blocks = [Block(0, arrays["prototype_images"][k : k + 1])]
            blocks += [Block(start, images_CSNCHW[c, s, :count]) for s, start in enumerate(starts)]
            sheet.row(blocks, label, look=look, note=" · ".join([f"v_{k + 1}", *share_K[k : k + 1]]))
        return sheet.finish()


def _usual(shown: Shown) -> CellRecord:
    def distance(cell: CellRecord) -> int:
        return abs(_count(shown.arrays[cell.method]) - USUAL)

    return min(shown.cells, key=distance)


def _count(arrays: Mapping[str, NDArray[Any]]) -> int:
    return len(arrays["prototype_images"])


def _caption(shown: Shown, cell: CellRecord) -> str:
    arrays = shown.arrays[cell.method]
    chosen: Sequence[int] = arrays["synthesis_prototypes"].tolist()
    text = (
        f"Samples of {cell.method} on {shown.dataset} around one prototype per class. On the left of each row"
        f" the decoded prototype; then codes drawn around it, decoded, with the noise of the method's prior"
        f" times the scale above them: the first ones drawn, not selected; the samples of one place have the"
        f" same noise at every scale but for its size. Under each class: the place of its prototype among all"
        f" {_count(arrays)}, counted from 1, and the share of the test images assigned to it. A prototype belongs"
        f" to the class that is most frequent among its test images; of several for one class, the one with"
        f" most images of that class is shown."
    )
    if -1 in chosen:
        text += " Where no prototype belongs to a class, its row says so."
    if len(shown.classes) > len(chosen):
        text += f" Of the {len(shown.classes)} classes, the first {len(chosen)}."
    return f"{text} Seed {shown.seed}."
