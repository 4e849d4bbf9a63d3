"""What the methods of this package share: K clusters, and after the training a Gaussian for each of them.

Shape suffixes: N images or samples, B batch, D latent units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import regbench
from regbench import CodeMixture, Dims, Field, Model, ops


class Clusters(regbench.Regularizer):
    """K clusters of codes, which ``assign`` tells; sampled from a Gaussian fitted to the codes of each."""

    ex_post = "a Gaussian per cluster, fitted to its training codes"

    class Options(regbench.Options):
        """What all methods of the package can be told."""

        clusters: int = Field(10, ge=1, description="number of clusters K")

    def build(self, dims: Dims) -> None:
        self.mixture = CodeMixture(dims.latent, self.options.clusters)

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        z_ND = model.codes(batches)
        clusters_N = self.assign(z_ND.to(self.mixture.means_KD.device))
        self.mixture.fit(z_ND, clusters_N)

    def sample(self, n: int) -> Tensor:
        return self.mixture.sample(n)

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        return self.mixture.sample_cluster(k_N, scale)

    def prototypes(self) -> Tensor:
        """The mean training code of each cluster; zeros until the training has ended."""
        return self.mixture.means_KD


class Centres(Clusters):
    """Clusters around learned centres in code space, which k-means finds when the warm-up ends."""

    STARTS = 10
    """How often k-means is started; the best of them counts."""

    @classmethod
    def misfits(cls, options: Any, dims: Dims) -> Mapping[str, str]:
        if 0 < dims.images < options.clusters:
            return {"clusters": f"expected at most {dims.images}, as many as there are training images"}
        return {}

    def build(self, dims: Dims) -> None:
        super().build(dims)
        self.centres_KD = nn.Parameter(torch.randn(self.options.clusters, dims.latent))

    def squared_distances(self, z_BD: Tensor) -> Tensor:
        """|z - centre|^2 of shape (B, K), in float32."""
        return ops.squared_distances(z_BD, self.centres_KD)

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        from sklearn.cluster import KMeans

        seed = int(torch.randint(2**31 - 1, ()))
        means = KMeans(len(self.centres_KD), init="k-means++", n_init=self.STARTS, random_state=seed)
        centres_KD = means.fit(model.codes(batches).numpy()).cluster_centers_
        self.centres_KD.copy_(torch.from_numpy(centres_KD))

    def prototypes(self) -> Tensor:
        return self.centres_KD.detach()

    def assign(self, z_BD: Tensor) -> Tensor:
        return self.squared_distances(z_BD).argmin(dim=1)
