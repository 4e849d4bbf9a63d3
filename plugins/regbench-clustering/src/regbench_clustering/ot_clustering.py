"""OT clustering: k-means as optimal transport, with clusters of equal size (Genevay, Dulac-Arnold, Vert 2019).

Shape suffixes: B batch, C channels, H height, W width, D latent units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from regbench import Field, Model, Search, Update, ops
from regbench_clustering.clusters import Centres, Clusters

TOLERATED = 0.05
"""Deviation from equal shares that is not warned of."""


@torch.no_grad()
def cost_slope(plan_BK: Tensor, squares_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """d<P, S> / dS for the plan P that belongs to the squares S: P (1 - R / epsilon), element by element.

    The plan moves with S by -P (dS - du - dv) / epsilon, where u of a row and v of a column keep its marginals. That
    is symmetric, so R = S - u - v, with u and v such that P R sums to 0 in every row and column. Without v, that is
    S less its rows' means under P; v then is the sum over n of M^n m, with m those differences' means in the columns
    and M those of P. Summed here are as many powers as there were iterations: what differentiating through these gives.
    """
    mass_K1 = plan_BK.sum(dim=0)[:, None]
    above_BK = squares_BK - (plan_BK * squares_BK).sum(dim=1, keepdim=True)
    v_K1 = (plan_BK * above_BK).sum(dim=0)[:, None] / mass_K1
    power_KK = ops.matmul(plan_BK.T, plan_BK) / mass_K1
    for _ in range(iterations.bit_length()):  # each doubles the number of powers
        v_K1 = v_K1 + ops.matmul(power_KK, v_K1)
        power_KK = ops.matmul(power_KK, power_KK)
    residual_BK = above_BK - v_K1.T + ops.matmul(plan_BK, v_K1)
    return plan_BK * (1 - residual_BK / epsilon)


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
            10.0, gt=0, description="entropy weight of the transport plan, in squared units of the code"
        )
        iterations: int = Field(
            200, ge=1, description="Sinkhorn iterations; a small epsilon needs more to reach equal sizes"
        )

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        squares_BK = self.squared_distances(z_BD)
        epsilon, iterations = self.options.epsilon, self.options.iterations
        plan_BK = ops.sinkhorn(-squares_BK, epsilon=epsilon, iterations=iterations)
        slope_BK = cost_slope(plan_BK, squares_BK, epsilon, iterations)
        # <P, S>, its gradient taken through the plan as well.
        constant_BK = ((plan_BK - slope_BK) * squares_BK).detach()
        cost = (slope_BK * squares_BK + constant_BK).sum(dim=1).mean()
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            bce + self.options.weight * cost,
            updates=[*model.encoding, self.centres_KD, model.decoder],
            log={"bce": bce, "transport_cost": cost},
            log_max={"cluster_mass_deviation": ops.prototype_mass_deviation(plan_BK)},
        )

    def warnings(self, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """Says so where the iterations did not bring the clusters to equal sizes."""
        found = [row["log_max"]["cluster_mass_deviation"] for row in history if row["log_max"]]
        off = sum(deviation > TOLERATED for deviation in found)
        if not off:
            return []
        return [
            f"clusters were off their equal share of a batch by up to {max(found):.0%}, more than {TOLERATED:.0%} in "
            f"{off} of {len(found)} regularized epochs, at {self.options.iterations} Sinkhorn iterations"
        ]
