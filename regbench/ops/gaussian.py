"""Diagonal Gaussian codes. Shape suffixes: B batch, D latent units, K components of a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regbench.ops.compilation import compilable
from regbench.ops.precision import full_precision, matmul


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


@full_precision
def normal_log_densities(z_BD: Tensor, mu_KD: Tensor, logvar_KD: Tensor) -> Tensor:
    """log N(z_b; mu_k, exp(logvar_k)) in nats for each code and each component: log_BK, differentiable in all three.

    Through matrix products, never a B x K x D tensor; in float64, as they cancel where variances are small.
    """
    log_BK = _log_densities(z_BD.double(), mu_KD.double(), logvar_KD.double())
    return log_BK.to(torch.promote_types(z_BD.dtype, mu_KD.dtype))


@compilable()
def _log_densities(z_BD: Tensor, mu_KD: Tensor, logvar_KD: Tensor) -> Tensor:
    precision_KD = torch.exp(-logvar_KD)
    squares_BK = matmul(z_BD.square(), precision_KD.T) - 2 * matmul(z_BD, (mu_KD * precision_KD).T)
    constant_K = (mu_KD.square() * precision_KD + logvar_KD + math.log(2 * math.pi)).sum(dim=1)
    return -0.5 * (squares_BK + constant_K)
