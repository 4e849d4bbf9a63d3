"""VAE-KL: the variational autoencoder of Kingma and Welling.

Shape suffixes: B batch, N samples, D latent units, F features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import regbench
from regbench import Dims, Field, Regularizer, Search, ops


class VAEKL(Regularizer):
    """q(z|x) = N(mu, exp(logvar)), with mu the shared code; + weight x KL(q(z|x) || N(0, I))."""

    name = "vae-kl"
    paper = "arXiv:1312.6114"
    regularizes = "the posterior of each code"
    prior = "N(0, I)"
    search: ClassVar = {"weight": Search(low=1e-2, high=1e2)}
    stochastic = True

    class Options(regbench.Options):
        """Options of ``vae-kl``."""

        weight: float = Field(
            1.0,
            ge=0,
            description="factor of the KL term, which is summed over the latent units like the "
            "reconstruction over the pixels; 1 is the evidence lower bound",
        )

    def build(self, dims: Dims) -> None:
        self.logvar = nn.Linear(dims.features, dims.latent)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logvar_BD = self.logvar(h_BF)
        z_BD = ops.reparameterize(code_BD, logvar_BD) if self.sampling else code_BD
        return z_BD, {"kl": self.options.weight * ops.kl_to_standard_normal(code_BD, logvar_BD)}

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)
