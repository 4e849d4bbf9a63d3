"""SwAV: swapping assignments between views (Caron et al., NeurIPS 2020).

Constants marked * are those of the authors' code (github.com/facebookresearch/swav).

Shape suffixes: B batch, C channels, H height, W width, D latent units, K clusters, V = 2 views, Q queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench import Dims, Field, Model, Search, Update, ops
from regbench_clustering.clusters import Clusters
from regbench_clustering.views import Augmentation

VIEWS = 2


class SwAV(Clusters):
    """Two views of an image predict each other's cluster.

    + weight x the cross-entropy of each view's prediction to the other's equipartitioned code.
    """

    name = "swav"
    paper = "arXiv:2006.09882"
    regularizes = "assignments of two views of an image"
    search: ClassVar = {"weight": Search(low=1e-1, high=1e3)}

    queue_VQD: Tensor
    """Unit codes of the latest batches, newest first."""
    queued: Tensor
    """Images queued since the queue is in use; from Q on it is full."""

    class Options(Clusters.Options, Augmentation):
        """Options of ``swav``."""

        weight: float = Field(
            10.0,
            ge=0,
            description="factor of the swapped cross-entropy, beside a reconstruction summed over the pixels",
        )
        epsilon: float = Field(0.05, gt=0, description="entropy weight of the Sinkhorn codes")  # *
        temperature: float = Field(0.1, gt=0, description="temperature of the predictions")  # *
        sinkhorn_iterations: int = Field(3, ge=1, description="Sinkhorn iterations")  # *
        queue: int = Field(
            0,  # *
            ge=0,
            description="codes of earlier batches that are assigned together with a batch; the paper has 3840 for a "
            "batch of 256 with 3000 prototypes, and none where the batch is larger than the number of prototypes",
        )
        queue_start: float = Field(
            0.075,  # *
            ge=0,
            le=1,
            description="share of the regularized training after which the queue begins to fill, 15 of 200 epochs in "
            "the paper; it is used once it is full",
        )

    def build(self, dims: Dims) -> None:
        super().build(dims)
        self.head = nn.Linear(dims.latent, self.options.clusters, bias=False)
        self.to_unit_length()
        self.register_buffer("queue_VQD", torch.zeros(VIEWS, self.options.queue, dims.latent))
        self.register_buffer("queued", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def to_unit_length(self) -> None:
        """Scale the cluster directions, in place* after each step: gradients are not taken through the norm."""
        self.head.weight.copy_(F.normalize(self.head.weight))

    def scores(self, unit_BD: Tensor) -> Tensor:
        """Cosines of codes and cluster directions, (B, K), in float32."""
        return ops.matmul(unit_BD, self.head.weight.T)

    def codes(self, scores_BK: Tensor, queue_QD: Tensor) -> Tensor:
        """Equipartitioned codes of the batch, (B, K): among themselves, or with the queue once it is full."""
        options = self.options
        alone_BK = ops.sinkhorn(scores_BK, epsilon=options.epsilon, iterations=options.sinkhorn_iterations)
        if not options.queue:
            return alone_BK
        together = torch.cat([self.scores(queue_QD), scores_BK])
        joint_BK = ops.sinkhorn(together, epsilon=options.epsilon, iterations=options.sinkhorn_iterations)
        return torch.where(self.queued >= options.queue, joint_BK[-len(scores_BK) :], alone_BK)

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        units = [F.normalize(model.encode(self.options.view(x_BCHW)).float()) for _ in range(VIEWS)]
        scores = [self.scores(unit_BD) for unit_BD in units]
        codes = [self.codes(*pair) for pair in zip(scores, self.queue_VQD, strict=True)]
        swapped = torch.stack(
            [F.cross_entropy(scores[1 - v] / self.options.temperature, codes[v]) for v in range(VIEWS)]
        ).mean()
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        deviation = torch.stack([ops.prototype_mass_deviation(codes_BK) for codes_BK in codes]).amax()
        yield Update(
            "loss",
            bce + self.options.weight * swapped,
            updates=[*model.encoding, self.head, model.decoder],
            log={"bce": bce, "swapped": swapped},
            log_max={"cluster_mass_deviation": deviation},
        )
        self.to_unit_length()
        latest_VBD = torch.stack(units).detach()
        self.queue_VQD.copy_(torch.cat([latest_VBD, self.queue_VQD], dim=1)[:, : self.options.queue])
        self.queued += len(x_BCHW) * (model.progress >= self.options.queue_start).long()

    def assign(self, z_BD: Tensor) -> Tensor:
        return self.scores(F.normalize(z_BD.float())).argmax(dim=1)
