"""Deep clustering methods as latent regularizers for regbench."""

from __future__ import annotations

import regbench
from regbench_clustering.deep_kmeans import DeepKMeans
from regbench_clustering.idec import IDEC
from regbench_clustering.ot_clustering import OTClustering
from regbench_clustering.sela import SeLa
from regbench_clustering.swav import SwAV

__all__ = ["IDEC", "DeepKMeans", "OTClustering", "SeLa", "SwAV", "regbench_regularizers"]


@regbench.hookimpl
def regbench_regularizers() -> list[type[regbench.Regularizer]]:
    return [IDEC, DeepKMeans, OTClustering, SeLa, SwAV]
