"""InfoVAE-MMD: InfoVAE with alpha = 1, so that no KL term is left and MMD(q(z), N(0, I)) regularizes alone.

Shape suffixes: B batch, N samples, D latent units, F features.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

import regbench
from regbench import Dims, Field, Regularizer, Search, ops


class InfoVAEMMD(Regularizer):
    """Codes, sampled from q(z|x) or deterministic; + weight x MMD^2(codes of the batch, N(0, I))."""

    name = "infovae-mmd"
    paper = "arXiv:1706.02262"
    regularizes = "the codes of a batch as a whole"
    prior = "N(0, I)"
    search: ClassVar = {"weight": Search(low=1.0, high=1e5)}

    class Options(regbench.Options):
        """Options of ``infovae-mmd``."""

        weight: float | None = Field(
            None,
            ge=0,
            description="factor of the MMD (lambda); None: the number of pixel values, which is weight 1 "
            'beside a pixel-mean reconstruction (so with loss_scale = "mean" set 1)',
        )
        encoder: Literal["stochastic", "deterministic"] = Field(
            "stochastic", description="whether z is sampled from q(z|x) or is the code itself"
        )
        kernel: ops.KernelName = Field(
            "gaussian", description='kernel of the MMD; "imq" is WAE\'s multi-scale inverse multiquadratic'
        )
        bandwidth: ops.Bandwidth = Field(
            None, description='sigma of the Gaussian kernel, or "median"; None: sigma^2 = latent units'
        )
        biased: bool = Field(False, description="V-statistic in place of the unbiased U-statistic")
        closed_form: bool = Field(
            False, description="exact expectations over the prior in place of samples (Gaussian kernel)"
        )

        @model_validator(mode="after")
        def _kernel_fits(self) -> Self:
            ops.kernel(self.kernel, self.bandwidth, closed_form=self.closed_form)
            return self

    def build(self, dims: Dims) -> None:
        self.kernel = ops.kernel(self.options.kernel, self.options.bandwidth)
        if self.stochastic:
            self.logvar = nn.Linear(dims.features, dims.latent)

    @property
    def stochastic(self) -> bool:
        return bool(self.options.encoder == "stochastic")

    @property
    def weight(self) -> float:
        weight = self.options.weight
        return float(self.dims.pixels if weight is None else weight)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_BD = code_BD
        if self.stochastic and self.sampling:
            z_BD = ops.reparameterize(code_BD, self.logvar(h_BF))
        mmd = ops.mmd_to_standard_normal(
            z_BD, self.kernel, biased=self.options.biased, closed_form=self.options.closed_form
        )
        return z_BD, {"mmd": self.weight * mmd}

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)
