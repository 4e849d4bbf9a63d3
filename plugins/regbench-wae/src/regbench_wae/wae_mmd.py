"""WAE-MMD (Tolstikhin et al., ICLR 2018), Algorithm 2: reconstruction + lambda * MMD^2(codes, N(0, I)).

Kernel and constants are those of the authors' code, github.com/tolstikhin/wae.

Shape suffixes: B batch, N samples, D latent units, F encoder features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import regbench
from regbench import Field, Search, ops


class WAEMMD(regbench.Regularizer):
    """Deterministic codes; + weight x MMD^2(codes of the batch, N(0, I)), unbiased."""

    name = "wae-mmd"
    paper = "arXiv:1711.01558"
    regularizes = "the codes of a batch as a whole"
    prior = "N(0, I)"
    search: ClassVar = {"weight": Search(low=1.0, high=1e5)}

    class Options(regbench.Options):
        weight: float = Field(
            400.0,
            ge=0,
            description="factor of the MMD (lambda); 400 is the paper's 10 for MNIST times 40, because "
            "BCE - H(x) >= 40 x 0.05 |x - x'|^2, of which the latter is its reconstruction: a bound, no conversion",
        )

    def build(self, dims: regbench.Dims) -> None:
        # C = 2 D s for s in 0.1, 0.2, 0.5, 1, 2, 5, 10: wae.py, mmd_penalty, with a prior of variance 1.
        self.kernel = ops.InverseMultiquadraticKernel()

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"mmd": self.options.weight * ops.mmd_to_standard_normal(code_BD, self.kernel)}

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)
