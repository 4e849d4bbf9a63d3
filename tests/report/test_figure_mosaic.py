"""Images of a mosaic come out as they are, pixel by pixel, and can still be drawn at another size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from regbench.report.figures.mosaic import LABEL, Block, Mosaic
from regbench.report.style import DPI, paper, save


def mosaic(images_NCHW: np.ndarray) -> Mosaic:
    sheet = Mosaic(3.01, 4)
    sheet.row([Block(0, images_NCHW)], "row")
    return sheet


def test_images_are_drawn_pixel_by_pixel(tmp_path: Path) -> None:
    images_NCHW = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    with paper():
        sheet = mosaic(images_NCHW)
        side = round(sheet.side * DPI)
        png, *_ = save(sheet.finish(), tmp_path / "a")
    drawn = np.asarray(Image.open(png).convert("RGB"))
    for place, image_CHW in enumerate(images_NCHW):
        picture = Image.fromarray(image_CHW.transpose(1, 2, 0)).resize((side, side), Image.Resampling.NEAREST)
        left, top = round((LABEL + place * sheet.pitch) * DPI), round(0.02 * DPI)
        np.testing.assert_array_equal(drawn[top : top + side, left : left + side], np.asarray(picture))


def test_another_resolution_is_resampled() -> None:
    images_NCHW = np.zeros((1, 1, 8, 8), np.uint8)
    sizes, dark = [], []
    with paper():
        canvas = mosaic(images_NCHW).finish()
        for dpi in (DPI, DPI // 2):
            stream = io.BytesIO()
            canvas.savefig(stream, format="png", dpi=dpi)
            drawn = np.asarray(Image.open(stream).convert("L"))[:, int(LABEL * dpi) :]
            sizes.append(drawn.shape[0])
            dark.append(np.mean(drawn < 8))
    assert abs(sizes[0] - 2 * sizes[1]) <= 2
    assert abs(dark[0] - dark[1]) < 0.02
