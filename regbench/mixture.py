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

    def fit(self, z_ND: Tensor, clusters_N: Tensor | None = None) -> None:
        """Fit to codes by expectation maximisation, in float64, from k-means.

        Takes evenly spaced codes where there are very many, and fewer components where there are few codes: two
        for each component. Its random start is drawn from torch's stream.

        ``clusters_N``: the component that each code belongs to, where a method knows it. Each component is then the
        Gaussian of its own codes, all of them; one without codes has share 0 and the Gaussian of all codes.
        """
        z_ND = z_ND.detach().cpu().double()
        if clusters_N is None:
            self._fit_all(z_ND[:: -(-len(z_ND) // MOST_CODES)])
        else:
            self._fit_each(z_ND, clusters_N.cpu())

    def _fit_all(self, z_ND: Tensor) -> None:
        from sklearn.mixture import GaussianMixture

        count = max(1, min(len(self.means_KD), len(z_ND) // 2))
        random_state = int(torch.randint(2**31 - 1, ()))
        found = GaussianMixture(count, reg_covar=_ridge(z_ND), random_state=random_state).fit(z_ND.numpy())
        self.shares_K.zero_()
        self.shares_K[:count] = torch.from_numpy(found.weights_)
        self.means_KD[:count] = torch.from_numpy(found.means_)
        self.factors_KDD[:count] = torch.linalg.cholesky(torch.from_numpy(found.covariances_))

    def _fit_each(self, z_ND: Tensor, clusters_N: Tensor) -> None:
        ridge_DD = _ridge(z_ND) * torch.eye(z_ND.shape[1], dtype=z_ND.dtype)
        for k in range(len(self.means_KD)):
            members_ND = z_ND[clusters_N == k]
            self.shares_K[k] = len(members_ND) / len(z_ND)
            described_ND = members_ND if len(members_ND) else z_ND
            covariance_DD = torch.cov(described_ND.T, correction=0).view_as(ridge_DD) + ridge_DD
            self.means_KD[k] = described_ND.mean(0)
            self.factors_KDD[k] = torch.linalg.cholesky(covariance_DD)

    def sample(self, n: int) -> Tensor:
        """``n`` codes z_ND in float32, on the mixture's device."""
        return self.sample_cluster(torch.multinomial(self.shares_K, n, replacement=True))

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        """A code of each of the components ``k_N``: z_ND, the spread multiplied by ``scale``."""
        noise_ND = torch.randn(len(k_N), self.means_KD.shape[1], device=self.means_KD.device)
        return self.means_KD[k_N] + scale * torch.einsum("nij,nj->ni", self.factors_KDD[k_N], noise_ND)


def _ridge(z_ND: Tensor) -> float:
    """A little of the codes' own spread: they may lie in fewer dimensions than there are, which leaves a covariance
    that is not positive definite."""
    return 1e-6 + 1e-4 * float(z_ND.var(0, correction=0).mean())
