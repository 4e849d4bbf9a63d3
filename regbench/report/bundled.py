"""The bundled figures, in the order of the report, as a plugin like any other."""

from __future__ import annotations

from regbench.hookspecs import hookimpl
from regbench.report.figure import Figure
from regbench.report.figures.clusters import Clusters
from regbench.report.figures.curves import Curves
from regbench.report.figures.interpolations import Interpolations
from regbench.report.figures.prototypes import Prototypes
from regbench.report.figures.reconstructions import Reconstructions
from regbench.report.figures.samples import Samples
from regbench.report.figures.spectrum import Spectrum
from regbench.report.figures.synthesis import Synthesis
from regbench.report.figures.tradeoff import Tradeoff
from regbench.report.figures.tsne import TSNE


@hookimpl
def regbench_figures() -> list[type[Figure]]:
    return [
        Reconstructions,
        Curves,
        Prototypes,
        Synthesis,
        Samples,
        Interpolations,
        TSNE,
        Clusters,
        Spectrum,
        Tradeoff,
    ]
