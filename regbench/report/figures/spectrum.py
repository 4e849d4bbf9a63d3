"""How evenly the codes use their units: the eigenvalues of their covariance.

Shape suffixes: S seeds, D latent units.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from pydantic import Field

from regbench.report.figure import Drawing, FigureOptions, SelectionOptions
from regbench.report.figures.charts import draw_band, legend, reference_line
from regbench.report.figures.choose import SelectiveFigure
from regbench.report.figures.series import Band, over_seeds
from regbench.report.style import WIDTH, Look, slug
from regbench.store.records import CellRecord, Run

DECADES = 9
"""Eigenvalues that are so far below the largest one, or below 1, count as that: it is rounding of float32 codes."""

MOST_BANDS = 6
"""Of more methods the intervals would cover each other, and are left out."""


class SpectrumOptions(SelectionOptions):
    """Options of ``spectrum``."""

    width: float = Field(WIDTH, ge=3, le=20, description="width in inches")


class Spectrum(SelectiveFigure):
    """Eigenvalues of the codes' covariance, largest first: geometric mean and interval over seeds."""

    name = "spectrum"
    title = "Spectrum of the codes"
    Options: ClassVar[type[FigureOptions]] = SpectrumOptions

    def draw_selected(self, run: Run, look_of: Mapping[str, Look]) -> Iterator[Drawing]:
        for dataset in run.datasets:
            bands = {
                method: band for method in run.methods if (band := _band(run, dataset, method)) is not None
            }
            if bands:
                canvas = _draw(bands, look_of, self.options.width)
                yield Drawing(f"spectrum-{slug(dataset)}", canvas, _caption(dataset, bands))


def _band(run: Run, dataset: str, method: str) -> Band | None:
    """Eigenvalues by rank, over the finished seeds that have them: mean and interval of their logarithms."""
    cells = [cell for cell in run.select(dataset=dataset, method=method) if cell.status == "done"]
    spectra = [found for cell in cells if (found := _stored(cell)) is not None]
    if not spectra:
        return None
    spectra_SD = np.array(spectra)
    # Codes that are all the same have nothing but zeros; so the largest is taken to be N(0, I)'s at least.
    smallest_S1 = spectra_SD.max(axis=1, keepdims=True).clip(1.0) * 10.0**-DECADES
    logs = over_seeds(np.arange(1, spectra_SD.shape[1] + 1), np.log(np.maximum(spectra_SD, smallest_S1)))
    return replace(logs, mean_E=np.exp(logs.mean_E), low_E=np.exp(logs.low_E), high_E=np.exp(logs.high_E))


def _stored(cell: CellRecord) -> NDArray[np.float64] | None:
    """The spectrum alone: the pictures beside it, of every seed, would take long to unpack."""
    with np.load(io.BytesIO(cell.verified("arrays.npz")), allow_pickle=False) as archive:
        return np.asarray(archive["spectrum"], dtype=np.float64) if "spectrum" in archive else None


def _draw(bands: Mapping[str, Band], look_of: Mapping[str, Look], width: float) -> Canvas:
    canvas = Canvas(figsize=(width, 2.4), layout="constrained")
    ax = canvas.subplots()
    ax.set_yscale("log", nonpositive="clip")
    for method, band in bands.items():
        draw_band(ax, band, look_of[method], interval=len(bands) <= MOST_BANDS)
    top = max(1.0, *(band.mean_E.max() for band in bands.values()))
    smallest = min(band.mean_E[band.mean_E > 0].min(initial=top) for band in bands.values())
    ax.set_ylim(max(0.5 * min(smallest, 1.0), top * 10.0**-DECADES), 2 * top)
    ax.set_xlim(1, max(2, *(len(band.epochs_E) for band in bands.values())))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=2))
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("eigenvalue, largest first")
    ax.set_ylabel("variance of the codes")
    reference_line(ax, 1.0, "N(0, I)")
    legend(canvas, [*bands], look_of)
    return canvas


def _caption(dataset: str, bands: Mapping[str, Band]) -> str:
    counts = sorted({band.seeds for band in bands.values()})
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    text = (
        f"Eigenvalues of the covariance of the codes of the test images of {dataset}, largest first: the "
        f"geometric mean over {seeds} seed{'s' * (counts[-1] > 1)}"
    )
    if counts[-1] > 1 and len(bands) <= MOST_BANDS:
        text += ", and the band its 95% t-interval"
    return (
        f"{text}. Codes of N(0, I) would lie on the dashed line; eigenvalues near zero are directions that a method "
        "does not use."
    )
