"""SWAE (Kolouri et al., ICLR 2019): reconstruction + lambda * sliced Wasserstein distance(codes, N(0, I)).

Constants are those of the authors' notebooks, github.com/skolouri/swae, whose prior is a ring, a disc or a square.

Shape suffixes: B batch, N samples, D latent units, F encoder features, L directions.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

import regbench
from regbench import Field, Search, ops


def sliced_wasserstein(x_BD: Tensor, y_BD: Tensor, directions_LD: Tensor) -> Tensor:
    """Squared sliced Wasserstein-2 distance of two samples of one size (0-d): sorted projections are pairs."""
    x_LB, y_LB = (ops.matmul(directions_LD, sample_BD.T).sort(dim=1).values for sample_BD in (x_BD, y_BD))
    return (x_LB - y_LB).square().mean()


class SWAE(regbench.Regularizer):
    """Deterministic codes; + weight x squared sliced Wasserstein-2 distance(codes of the batch, N(0, I))."""

    name = "swae"
    paper = "arXiv:1804.01947"
    regularizes = "the codes of a batch as a whole"
    prior = "N(0, I)"
    search: ClassVar = {"weight": Search(low=1.0, high=1e5)}

    class Options(regbench.Options):
        weight: float | None = Field(
            None,
            ge=0,
            description="factor of the distance; None: 10 times the number of pixel values, which is the notebooks' "
            '10 beside a pixel-mean cross-entropy (so with loss_scale = "mean" set 10)',
        )
        projections: int = Field(50, ge=1, description="random directions, drawn anew for each batch")

    @property
    def weight(self) -> float:
        weight = self.options.weight
        return float(10 * self.dims.pixels if weight is None else weight)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        directions_LD = F.normalize(self.sample(self.options.projections))
        distance = sliced_wasserstein(code_BD, self.sample(len(code_BD)), directions_LD)
        return code_BD, {"sliced_wasserstein": self.weight * distance}

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)
