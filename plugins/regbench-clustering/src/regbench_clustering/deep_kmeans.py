"""Deep k-means: a differentiable k-means in code space (Moradi Fard et al., Pattern Recognition Letters 2020).

Constants marked * are those of the authors' code (github.com/MaziarMF/deep-k-means).

Shape suffixes: B batch, C channels, H height, W width, D latent units, K clusters, S stages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from regbench import Dims, Field, Model, Search, Update
from regbench_clustering.clusters import Centres, Clusters

STAGES = 40  # *
CONSTANT = 1000.0  # *


def annealed_temperatures() -> list[float]:
    """The inverse temperature of each stage: 0.1*, then each 2^(1 / log(n + 1)^2)* times the one before."""
    inverse = [0.1]
    for n in range(1, STAGES):
        inverse.append(inverse[-1] * 2 ** (1 / math.log(n + 1) ** 2))
    return inverse


class DeepKMeans(Centres):
    """k-means on the codes, made differentiable.

    + weight x the codes' squared distances to the centres, weighted by a softmax of them.
    """

    name = "deep-kmeans"
    paper = "arXiv:1806.10069"
    regularizes = "distances of codes to learned centres"
    search: ClassVar = {"weight": Search(low=1e-3, high=1e2)}

    inverse_temperature_S: Tensor
    """What the squared distances are multiplied with in the softmax (alpha), stage by stage."""

    class Options(Clusters.Options):
        """Options of ``deep-kmeans``."""

        weight: float = Field(
            1.0,  # *
            ge=0,
            description="factor of the weighted squared distances (lambda), summed over the latent units like the "
            "reconstruction over the pixels",
        )
        temperature: Literal["constant", "annealed"] = Field(
            "constant",
            description="inverse temperature of the softmax: 1000 throughout, as the authors have it after "
            "pretraining, or from 0.1 upwards in 40 stages, as they have it without",
        )

    def build(self, dims: Dims) -> None:
        super().build(dims)
        inverse = annealed_temperatures() if self.options.temperature == "annealed" else [CONSTANT]
        self.register_buffer("inverse_temperature_S", torch.tensor(inverse), persistent=False)

    def inverse_temperature(self, progress: Tensor) -> Tensor:
        """That of the stage which the training is in (0-d)."""
        stages = len(self.inverse_temperature_S)
        stage = (progress * stages).long().clamp(max=stages - 1)
        return self.inverse_temperature_S.index_select(0, stage[None])[0]

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        squares_BK = self.squared_distances(z_BD)
        inverse_temperature = self.inverse_temperature(model.progress)
        closeness_BK = torch.softmax(-inverse_temperature * squares_BK, dim=1)
        distance = (closeness_BK * squares_BK).sum(dim=1).mean()
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            bce + self.options.weight * distance,
            updates=[*model.encoding, self.centres_KD, model.decoder],
            log={"bce": bce, "distance": distance, "inverse_temperature": inverse_temperature},
        )
