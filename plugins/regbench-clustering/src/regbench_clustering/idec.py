"""IDEC: deep embedded clustering that keeps the decoder (Guo et al., IJCAI 2017).

Constants marked * are those of the authors' code (github.com/XifengGuo/IDEC).

Shape suffixes: N training images, B batch, C channels, H height, W width, D latent units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from regbench import Dims, Field, Model, Search, Update
from regbench_clustering.clusters import Centres, Clusters


class IDEC(Centres):
    """Soft cluster assignments drawn towards a sharper target.

    + weight x KL(p || q), with q by Student's t, and p ~ q^2 / sum q over all training images, held fixed between
    refreshes.
    """

    name = "idec"
    paper = "doi:10.24963/ijcai.2017/243"
    regularizes = "soft assignments of codes to learned centres"
    search: ClassVar = {"weight": Search(low=0.1, high=1e4)}
    STARTS = 20  # *

    target_NK: Tensor
    """p of every training image; fixed until the next refresh."""
    target_age: Tensor
    """Steps since the last refresh."""

    class Options(Clusters.Options):
        """Options of ``idec``."""

        weight: float | None = Field(
            None,
            ge=0,
            description="factor of the KL (gamma); None: 0.1 x the number of pixel values, which is the paper's 0.1 "
            'beside a pixel-mean reconstruction (so with loss_scale = "mean" set 0.1)',
        )
        refresh_steps: int = Field(
            140,  # *, for MNIST; 30 for USPS
            ge=1,
            description="the targets are computed anew at the first start of an epoch that this many steps have gone "
            "by before; 1: at every epoch's start",
        )

    def build(self, dims: Dims) -> None:
        super().build(dims)
        clusters = self.options.clusters
        self.register_buffer("target_NK", torch.full((dims.images, clusters), 1 / clusters))
        self.register_buffer("target_age", torch.tensor(self.options.refresh_steps))

    @property
    def weight(self) -> float:
        weight = self.options.weight
        return float(0.1 * self.dims.pixels if weight is None else weight)  # *

    def log_assignments(self, z_BD: Tensor) -> Tensor:
        """log q_BK, eq. 2: Student's t with one degree of freedom*, normalised over the clusters."""
        return F.log_softmax(-torch.log1p(self.squared_distances(z_BD)), dim=1)

    def on_epoch_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        """The target distribution, eq. 4: p_ik ~ q_ik^2 / sum_i q_ik."""
        if int(self.target_age) < self.options.refresh_steps:
            return
        q_NK = self.log_assignments(model.codes(batches).to(self.target_NK.device)).exp()
        sharpened_NK = q_NK.square() / q_NK.sum(dim=0)
        self.target_NK.copy_(sharpened_NK / sharpened_NK.sum(dim=1, keepdim=True))
        self.target_age.zero_()

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        target_BK = self.target_NK.index_select(0, model.index_B)
        kl = F.kl_div(self.log_assignments(z_BD), target_BK, reduction="batchmean")
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss",
            bce + self.weight * kl,
            updates=[*model.encoding, self.centres_KD, model.decoder],
            log={"bce": bce, "kl": kl},
        )
        self.target_age += 1
