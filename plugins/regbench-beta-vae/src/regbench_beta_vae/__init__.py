"""beta-VAE (Higgins et al., ICLR 2017), eq. 4: reconstruction + beta * KL(q(z|x) || N(0, I)).

Shape suffixes: B batch, D latent units, F encoder features, N samples.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import regbench
from regbench import Field, Search, ops

__all__ = ["BetaVAE", "regbench_regularizers"]


class BetaVAE(regbench.Regularizer):
    """A Gaussian posterior whose mean is the shared code; beta > 1 presses it harder towards the prior."""

    name = "beta-vae"
    paper = "Higgins et al. 2017, openreview.net/forum?id=Sy2fzU9gl"
    regularizes = "the posterior of each code"
    prior = "N(0, I)"
    search: ClassVar = {"beta": Search(low=1e-2, high=1e2)}
    stochastic = True

    class Options(regbench.Options):
        beta: float = Field(
            4.0, ge=0, description="factor of the KL term, both terms summed and averaged over the batch"
        )

    def build(self, dims: regbench.Dims) -> None:
        self.logvar = nn.Linear(dims.features, dims.latent)

    @property
    def weight(self) -> float:
        return float(self.options.beta)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logvar_BD = self.logvar(h_BF)
        z_BD = ops.reparameterize(code_BD, logvar_BD) if self.sampling else code_BD
        return z_BD, {"kl": self.weight * ops.kl_to_standard_normal(code_BD, logvar_BD)}

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)


@regbench.hookimpl
def regbench_regularizers() -> list[type[regbench.Regularizer]]:
    return [BetaVAE]
