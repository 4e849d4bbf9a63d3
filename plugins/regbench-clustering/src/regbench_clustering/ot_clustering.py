"""OT clustering: k-means as optimal transport, with clusters of equal size (Genevay, Dulac-Arnold, Vert 2019).

Shape suffixes: B batch, C channels, H height, W width, D latent units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from regbench import Field, Model, Search, Update, ops
from regbench_clustering.clusters import Centres, Clusters


class OTClustering(Centres):
    """k-means on the codes, with clusters of equal size.

    + weight x cost of moving the batch's codes to the centres, each centre receiving the same mass.
    """

    name = "ot-clustering"
    paper = "arXiv:1910.09036"
    regularizes = "distances of codes to learned centres, clusters of equal size"
    search: ClassVar = {"weight": Search(low=1e-3, high=1e2), "epsilon": Search(low=1e-2, high=1e2)}

    class Options(Clusters.Options):
        """Options of ``ot-clustering``."""

        weight: float = Field(
            1.0,
            ge=0,
            description="factor of the transport cost (lambda), squared distances summed over the latent units",
        )
        epsilon: float = Field(
            1.0, gt=0, description="entropy weight of the transport plan, in squared units of the code"
        )
        iterations: int = Field(
            200, ge=2, description="Sinkhorn iterations; epsilon falls to its value during the first half"
        )

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        squares_BK = self.squared_distances(z_BD)
        # The plan is held fixed: by the envelope theorem that leaves the gradient of the entropic transport cost.
        plan_BK, rounded = ops.equipartition(
            -squares_BK, epsilon=self.options.epsilon, iterations=self.options.iterations
        )
        cost = (plan_BK * squares_BK).sum(dim=1).mean()
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            bce + self.options.weight * cost,
            updates=[*model.encoding, self.centres_KD, model.decoder],
            log={"bce": bce, "transport_cost": cost},
            log_max={
                "cluster_mass_deviation": ops.prototype_mass_deviation(plan_BK),
                "rounded_share": rounded,
            },
        )
