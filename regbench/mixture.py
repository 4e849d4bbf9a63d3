"""A density fitted to codes after the training, for methods that have no prior of their own to sample from.

Shape suffixes: N codes, D latent units, K components.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_CODES = 10_000
"""Codes that a mixture is fitted to; more change little and take long."""


class CodeMixture(nn.Module):
    """A Gaussian mixture with full covariances: ex-post density estimation (Ghosh et al. 2020, section 4).

    Its parameters are buffers, so a checkpoint and a result hold them. Before :meth:`fit` it is N(0, I).
    """

    shares_K: Tensor
    means_KD: Tensor
    factors_KDD: Tensor
    """Lower Cholesky factors of the covariances."""

    def __init__(self, latent: int, components: int = 10) -> None:
        super().__init__()
        self.register_buffer("shares_K", torch.full((components,), 1.0 / components))
        self.register_buffer("means_KD", torch.zeros(components, latent))
        self.register_buffer("factors_KDD", torch.eye(latent).repeat(components, 1, 1))

    def fit(self, z_ND: Tensor) -> None:
        """Fit to codes by expectation maximisation, in float64, from k-means.

        Takes evenly spaced codes where there are very many, and fewer components where there are few codes: two
        for each component. Its random start is drawn from torch's stream.
        """
        from sklearn.mixture import GaussianMixture

        z_ND = z_ND.detach().cpu().double()
        z_ND = z_ND[:: -(-len(z_ND) // MOST_CODES)]
        count = max(1, min(len(self.means_KD), len(z_ND) // 2))
        random_state = int(torch.randint(2**31 - 1, ()))
        # Codes of an autoencoder may lie in fewer dimensions than there are: a little of their own spread keeps
        # the covariances positive definite.
        ridge = 1e-6 + 1e-4 * float(z_ND.var(0).mean())
        found = GaussianMixture(count, reg_covar=ridge, random_state=random_state).fit(z_ND.numpy())
        self.shares_K.zero_()
        self.shares_K[:count] = torch.from_numpy(found.weights_)
        self.means_KD[:count] = torch.from_numpy(found.means_)
        self.factors_KDD[:count] = torch.linalg.cholesky(torch.from_numpy(found.covariances_))

    def sample(self, n: int) -> Tensor:
        """``n`` codes z_ND in float32, on the mixture's device."""
        k_N = torch.multinomial(self.shares_K, n, replacement=True)
        noise_ND = torch.randn(n, self.means_KD.shape[1], device=self.means_KD.device)
        return self.means_KD[k_N] + torch.einsum("nij,nj->ni", self.factors_KDD[k_N], noise_ND)
