"""SeLa: self-labelling by optimal transport over the whole data set (Asano, Rupprecht, Vedaldi, ICLR 2020).

Constants marked * are those of the authors' code (github.com/yukimasano/self-label).

Shape suffixes: N training images, B batch, C channels, H height, W width, D latent units, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench import Dims, Field, Model, Search, Update, ops
from regbench_clustering.clusters import Clusters
from regbench_clustering.views import Augmentation

TOLERANCE = 0.1  # *
CHECK_EVERY = 10  # *
MOST_ITERATIONS = 10_000


def self_labels(log_p_NK: Tensor, sharpness: float) -> Tensor:
    """Labels of all images, each of the K used about equally often: algorithm 1, in float64*.

    Sinkhorn-Knopp on p^sharpness, c from 1 / N, until the images' scalings c stand still; then the largest entry of
    each row. The clusters' scalings r are kept as logarithms, so that no p is too small: between two checks they are
    taken relative to those of the last one. An iteration changes each by a factor between 1 / K and N.
    """
    scores_KN = (sharpness * log_p_NK.double()).T.contiguous()
    clusters, images = scores_KN.shape
    log_r_K1 = -scores_KN.logsumexp(dim=1, keepdim=True)
    for _ in range(MOST_ITERATIONS // CHECK_EVERY):
        p_KN = torch.softmax(scores_KN + log_r_K1, dim=0)
        c_N = p_KN.new_ones(images)
        for _ in range(CHECK_EVERY):
            r_K = (images / clusters) / (p_KN @ c_N)
            before_N, c_N = c_N, 1 / (r_K @ p_KN)
        log_r_K1 += r_K[:, None].log()
        if float((before_N / c_N - 1).abs().sum()) <= TOLERANCE:
            break
    return (scores_KN + log_r_K1).argmax(dim=0)


class SeLa(Clusters):
    """Predicts balanced labels that it gives itself.

    + weight x cross-entropy of a linear head to labels that optimal transport spreads evenly over all images.
    """

    name = "sela"
    paper = "arXiv:1911.05371"
    regularizes = "labels that a linear head reads off the codes"
    search: ClassVar = {"weight": Search(low=1e-1, high=1e3)}

    labels_N: Tensor
    """The present label of every training image."""
    labelled: Tensor
    """How often they have been computed."""
    mass_deviation: Tensor
    """Largest relative deviation of a label's images from N / K."""

    class Options(Clusters.Options, Augmentation):
        """Options of ``sela``."""

        weight: float = Field(
            10.0,
            ge=0,
            description="factor of the cross-entropy, beside a reconstruction summed over the pixels",
        )
        sharpness: float = Field(
            25.0,  # *
            gt=0,
            description="exponent of the predictions in the optimal transport (lambda); the authors take 10 on CIFAR",
        )
        labellings: int = Field(
            100,  # *
            ge=1,
            description="how often all images are labelled anew, evenly spaced; at starts of epochs, at most once each",
        )

    def build(self, dims: Dims) -> None:
        super().build(dims)
        self.head = nn.Linear(dims.latent, self.options.clusters)
        self.register_buffer("labels_N", torch.zeros(dims.images, dtype=torch.int64))
        self.register_buffer("labelled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mass_deviation", torch.zeros(()))

    def on_epoch_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        done = int(self.labelled)
        if float(model.progress) < done / self.options.labellings:
            return
        z_ND = model.codes(batches).to(self.labels_N.device)
        self.labels_N.copy_(self_labels(F.log_softmax(self.head(z_ND), dim=1), self.options.sharpness))
        self.mass_deviation.copy_(
            ops.prototype_mass_deviation(F.one_hot(self.labels_N, self.options.clusters).float())
        )
        self.labelled += 1

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        logits_BK = self.head(model.encode(self.options.view(x_BCHW)))
        label_B = self.labels_N.index_select(0, model.index_B)
        cross_entropy = F.cross_entropy(logits_BK.float(), label_B)
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        agreement = (logits_BK.argmax(dim=1) == label_B).float().mean()
        yield Update(
            "loss",
            bce + self.options.weight * cross_entropy,
            updates=[*model.encoding, self.head, model.decoder],
            log={"bce": bce, "cross_entropy": cross_entropy, "label_agreement": agreement},
            log_max={"label_mass_deviation": self.mass_deviation},
        )

    def assign(self, z_BD: Tensor) -> Tensor:
        return self.head(z_BD).argmax(dim=1)  # type: ignore[no-any-return]
