"""Rows of images with words beside them, laid out in inches.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from regbench.report.style import DPI, GREY, Look, plain

LABEL = 1.02
"""Width of the labels' column in inches."""
LETTERS = 18
"""Letters of a label that fit into a line."""
LINE, SMALL_LINE = 0.11, 0.085
"""Height of a line of a label, of a note, in inches."""
NUMBER = 0.215
"""Width of a number under an image, in inches."""
LEAST = 0.19
"""Smallest distance of images in inches at which one can still tell what they show."""
BREAK = 0.35
"""Space between groups of images, in images."""
GAP = 0.04
"""Space between neighbouring images, as a share of their distance."""


@dataclass(frozen=True)
class Block:
    """Images that stand side by side from a column on, and a short text under each."""

    column: float
    images_NCHW: NDArray[np.uint8]
    numbers: Sequence[str] = ()


def room(width: float, each: float = NUMBER) -> float:
    """How many images have room side by side at such a distance: by default for numbers under them."""
    return (width - LABEL - 0.02) / each


class Mosaic:
    """A sheet that is filled from the top, row by row; ``finish`` cuts it to the height that was used."""

    def __init__(self, width: float, columns: float, *, largest: float = 0.5) -> None:
        """``columns``: images side by side, which fixes their size, at most ``largest`` inches."""
        self.width = width
        self.pitch = min((width - LABEL - 0.02) / columns, largest)
        """Distance from one image to the next."""
        self.side = self.pitch * (1 - GAP)
        self.y = 0.02
        self.canvas = Canvas(figsize=(width, 1))
        self.ax = self.canvas.add_axes((0, 0, 1, 1))
        self.ax.set_axis_off()
        self._placed: list[tuple[float, float, NDArray[np.uint8]]] = []

    def row(
        self,
        blocks: Sequence[Block],
        name: str = "",
        *,
        look: Look | None = None,
        note: str = "",
        words: str = "",
    ) -> None:
        """Images with a label, a bar in the method's colour beside it, and a small note under it.

        ``words`` stand where there are no images.
        """
        for block in blocks:
            self._images(block)
        self.text(self._x(0), self.y + 0.5 * (self.side - LINE), words, color=GREY)
        label = self._label(name, look, note)
        numbered = any(block.numbers for block in blocks)
        self.y += max(self.pitch + (SMALL_LINE + 0.015) * numbered, label)

    def heading(self, texts: Sequence[tuple[float, float, str]], note: str = "") -> None:
        """Bold words over groups of columns, each (first column, number of columns, words), with a rule.

        ``note`` stands small over the labels.
        """
        self.text(0.11, self.y + 0.02, note, size=5.2, color=GREY)
        for column, count, text in texts:
            left, right = self._x(column), self._x(column + count) - self.pitch * GAP
            self.text(left, self.y, text, size=7, fontweight="bold")
            self.ax.plot([left, right], [self.y + 0.14] * 2, color=GREY, linewidth=0.5)
        self.y += 0.175

    def space(self, height: float) -> None:
        """Leave some inches free."""
        self.y += height

    def text(self, x: float, y: float, text: str, *, size: float = 6.5, **style: Any) -> None:
        """Words with their top left corner at (x, y) inches."""
        self.ax.text(x, y, text, fontsize=size, va="top", **style)

    def finish(self) -> Canvas:
        height = self.y + 0.02
        self._paste(height)
        self.canvas.set_size_inches(self.width, height)
        self.ax.set_xlim(0, self.width)
        self.ax.set_ylim(height, 0)
        return self.canvas

    def _x(self, column: float) -> float:
        return LABEL + column * self.pitch

    def _images(self, block: Block) -> None:
        for i, image_CHW in enumerate(block.images_NCHW):
            left = self._x(block.column + i)
            self._placed.append((left, self.y, image_CHW))
            if block.numbers:
                middle = left + 0.5 * self.side
                self.text(middle, self.y + self.pitch, block.numbers[i], size=5.2, ha="center")

    def _paste(self, height: float) -> None:
        """All images as one picture below the words: one by one they would take matplotlib a minute."""
        sheet = Image.new("RGBA", (int(self.width * DPI), int(height * DPI)), (255, 255, 255, 255))
        side = round(self.side * DPI)
        for left, top, image_CHW in self._placed:
            image = _picture(image_CHW)
            sharp = Image.Resampling.NEAREST if image.width <= side else Image.Resampling.LANCZOS
            sheet.paste(image.resize((side, side), sharp), (round(left * DPI), round(top * DPI)))
        shown = _Sheet(self.ax, extent=(0, self.width, height, 0), zorder=0)
        shown.set_data(np.asarray(sheet))
        self.ax.add_image(shown)

    def _label(self, name: str, look: Look | None, note: str) -> float:
        """Write a row's label; returns its height."""
        lines = textwrap.wrap(plain(name), LETTERS, max_lines=3, placeholder="…")
        small = textwrap.wrap(plain(note), LETTERS + 5, max_lines=2, placeholder="…")
        height = LINE * len(lines) + SMALL_LINE * len(small)
        y = self.y + max(0.0, 0.5 * (self.side - height))
        if look is not None:
            bar = Rectangle((0.02, self.y), 0.045, max(self.side, height), facecolor=look.color, linewidth=0)
            self.ax.add_patch(bar)
        for line in lines:
            self.text(0.11, y, line)
            y += LINE
        for line in small:
            self.text(0.11, y, line, size=5.2, color=GREY)
            y += SMALL_LINE
        return height + 0.03


class _Sheet(AxesImage):
    """A picture of the whole figure. At its own resolution it is passed on as it is.

    matplotlib would resample it all the same, pixel onto pixel, which takes longer than all the rest.
    """

    def make_image(
        self, renderer: Any, magnification: float = 1.0, unsampled: bool = False
    ) -> tuple[NDArray[np.uint8], float, float, Any]:
        """See :meth:`matplotlib.image.AxesImage.make_image`."""
        pixels: Any = self.get_array()
        box = self.get_window_extent(renderer)
        height, width = pixels.shape[:2]
        shift = max(abs(box.width * magnification - width), abs(box.height * magnification - height))
        if unsampled or shift >= 1:
            return super().make_image(renderer, magnification, unsampled)
        return np.asarray(pixels.data)[::-1], box.x0 * magnification, box.y0 * magnification, None


def _picture(image_CHW: NDArray[np.uint8]) -> Image.Image:
    """RGB of three channels, else the first channel in grey."""
    if len(image_CHW) == 3:
        return Image.fromarray(np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))
    return Image.fromarray(image_CHW[0]).convert("RGB")
