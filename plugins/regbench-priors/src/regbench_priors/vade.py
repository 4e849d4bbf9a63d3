"""VaDE (Jiang et al. 2017): a VAE whose prior is a learned mixture of Gaussians, so that its components are clusters.

Shape suffixes: B batch, D latent units, F features, K clusters, N images or samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

import regbench
from regbench import Dims, Field, Model, Regularizer, Search, ops

LOG_2_PI_E = math.log(2 * math.pi) + 1
MOST_CODES = 10_000
"""Codes that the mixture is fitted to when the regularization starts; more change little and take long."""
STARTS = 10
"""Of that fit, the likeliest of which is kept: the training hardly leaves the clusters that it starts from."""
RIDGE = 1e-4
"""Of the codes' mean variance, added to each cluster's: equal images would make one without width."""


class VaDE(Regularizer):
    """q(z|x) = N(mu, exp(logvar)); + weight x KL(q(z, c|x) || p(z|c) p(c)), p(z|c) = N(mu_c, exp(logvar_c))."""

    name = "vade"
    paper = "arXiv:1611.05148"
    regularizes = "the posterior of each code"
    prior = "mixture of Gaussians, learned"
    stochastic = True
    search: ClassVar = {"weight": Search(low=1e-2, high=1e2)}

    class Options(regbench.Options):
        """Options of ``vade``."""

        weight: float = Field(
            1.0,
            ge=0,
            description="factor of the KL terms, which are summed over the latent units like the "
            "reconstruction over the pixels; 1 is the evidence lower bound",
        )
        clusters: int = Field(
            10, ge=1, description="components of the prior K; 10 on MNIST in the official code"
        )
        lr: float | None = Field(
            None, gt=0, description="learning rate; None: the suite's; the official code begins with 0.002"
        )

    @classmethod
    def misfits(cls, options: Options, dims: Dims) -> Mapping[str, str]:
        if 0 < dims.images < options.clusters:
            return {"clusters": f"expected at most {dims.images}, the training images"}
        return {}

    def build(self, dims: Dims) -> None:
        count = self.options.clusters
        self.logvar = nn.Linear(dims.features, dims.latent)
        self.logits_K = nn.Parameter(torch.zeros(count))
        self.mu_KD = nn.Parameter(torch.randn(count, dims.latent))
        self.logvar_KD = nn.Parameter(torch.zeros(count, dims.latent))

    def optimizers(self) -> Mapping[str, regbench.AdamOptions]:
        return {} if self.options.lr is None else {"loss": regbench.AdamOptions(lr=self.options.lr)}

    def log_responsibilities(self, z_BD: Tensor) -> Tensor:
        """log p(c|z) as log_BK, in the log domain: at hundreds of units every density underflows."""
        log_BK = ops.normal_log_densities(z_BD, self.mu_KD, self.logvar_KD)
        return (log_BK + self.logits_K.log_softmax(dim=0)).log_softmax(dim=1)

    def kl(self, z_BD: Tensor, mu_BD: Tensor, logvar_BD: Tensor) -> dict[str, Tensor]:
        """The KL terms of the evidence lower bound in nats, mean over the batch, each at least 0 (0-d).

        ``kl``: sum_c gamma_c KL(q(z|x) || p(z|c)); ``kl_clusters``: KL(gamma || p(c)). gamma = p(c|z) at the code z.
        """
        mu_BD, logvar_BD = mu_BD.float(), logvar_BD.float()
        log_gamma_BK = self.log_responsibilities(z_BD)
        gamma_BK = log_gamma_BK.exp()
        # E_q log p(z|c) is the density at the mean, less half the trace of the variances' ratio.
        ratio_BK = ops.matmul(logvar_BD.exp(), torch.exp(-self.logvar_KD).T)
        inside_BK = ops.normal_log_densities(mu_BD, self.mu_KD, self.logvar_KD) - 0.5 * ratio_BK
        entropy_B = 0.5 * (logvar_BD + LOG_2_PI_E).sum(dim=1)
        kl_clusters_B = (gamma_BK * (log_gamma_BK - self.logits_K.log_softmax(dim=0))).sum(dim=1)
        return {
            "kl": (-(gamma_BK * inside_BK).sum(dim=1) - entropy_B).mean(),
            "kl_clusters": kl_clusters_B.mean(),
        }

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logvar_BD = self.logvar(h_BF)
        z_BD = ops.reparameterize(code_BD, logvar_BD) if self.sampling else code_BD
        terms = self.kl(z_BD, code_BD, logvar_BD)
        return z_BD, {name: self.options.weight * term for name, term in terms.items()}

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        from sklearn.mixture import GaussianMixture

        z_ND = model.codes(batches).double()
        z_ND = z_ND[:: -(-len(z_ND) // MOST_CODES)]
        found = GaussianMixture(
            len(self.mu_KD),
            covariance_type="diag",
            reg_covar=1e-10 + RIDGE * float(z_ND.var(0, correction=0).mean()),
            n_init=STARTS,
            random_state=int(torch.randint(2**31 - 1, ())),
        ).fit(z_ND.numpy())
        self.logits_K.copy_(torch.from_numpy(found.weights_).log())
        self.mu_KD.copy_(torch.from_numpy(found.means_))
        self.logvar_KD.copy_(torch.from_numpy(found.covariances_).log())
        # The warm-up has not trained this head. It starts at the width of least KL, whatever the codes' scale: width 1
        # would cost thousands of nats where they are small.
        self.logvar.weight.zero_()
        self.logvar.bias.copy_(-torch.from_numpy(found.weights_ @ found.precisions_).log())

    def sample(self, n: int) -> Tensor:
        return self.sample_cluster(torch.multinomial(self.logits_K.softmax(dim=0), n, replacement=True))

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        mu_ND, spread_ND = self.mu_KD.detach()[k_N], torch.exp(0.5 * self.logvar_KD.detach()[k_N])
        return mu_ND + scale * spread_ND * torch.randn_like(mu_ND)

    def prototypes(self) -> Tensor:
        return self.mu_KD.detach()

    def assign(self, z_BD: Tensor) -> Tensor:
        return self.log_responsibilities(z_BD).argmax(dim=1)
