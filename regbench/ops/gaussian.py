"""Diagonal Gaussian codes. Shape suffixes: B batch, D latent units."""

from __future__ import annotations

import torch
from torch import Tensor

from regbench.ops.compilation import compilable
from regbench.ops.precision import full_precision


@full_precision
def kl_to_standard_normal(mu_BD: Tensor, logvar_BD: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) in nats: summed over D, mean over the batch (0-d, at least 0).

    0.5 sum_d (mu^2 + sigma^2 - 1 - log sigma^2), Kingma and Welling (arXiv:1312.6114), appendix B.
    """
    return _kl(mu_BD, logvar_BD)


@compilable()
def _kl(mu_BD: Tensor, logvar_BD: Tensor) -> Tensor:
    # expm1(x) - x keeps its digits near logvar = 0, where exp(x) - 1 - x loses them.
    return 0.5 * (mu_BD.square() + torch.expm1(logvar_BD) - logvar_BD).sum(dim=1).mean()


@full_precision
def reparameterize(mu_BD: Tensor, logvar_BD: Tensor) -> Tensor:
    """A sample z_BD of N(mu, exp(logvar)), differentiable in both; noise from torch's global generator.

    mu + exp(logvar / 2) * e with e ~ N(0, I), Kingma and Welling (arXiv:1312.6114), section 2.4.
    """
    return _shifted(mu_BD, logvar_BD, torch.randn_like(mu_BD))


@compilable()
def _shifted(mu_BD: Tensor, logvar_BD: Tensor, noise_BD: Tensor) -> Tensor:
    return mu_BD + torch.exp(0.5 * logvar_BD) * noise_BD
