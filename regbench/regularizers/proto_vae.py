"""ProtoVAE: codes in K clusters, each matched to N(v_k, I) around its prototype v_k.

Algorithm 1 of the paper, with one deviation: it encodes again after each optimizer step, where the paper
reuses codes whose graph the step has made stale.

Shape suffixes: B batch, C channels, H height, W width, N samples, D latent units, K prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

import regbench
from regbench import AdamOptions, Dims, Field, Model, Regularizer, Search, Update, ops

TOLERATED = 0.02
"""A deviation of the prototype masses above this is warned of."""


class ProtoVAE(Regularizer):
    """Three optimizer steps per batch: cluster the codes, match each cluster to its prior, reconstruct."""

    name = "proto-vae"
    paper = "Prototypical Variational Autoencoders (anonymous submission)"
    regularizes = "the codes of a batch, cluster by cluster, and their assignment"
    prior = "N(v_k, I), k uniform"
    search: ClassVar = {"mmd_lr": Search(low=1e-5, high=1e-2)}

    class Options(regbench.Options):
        """Options of ``proto-vae``."""

        prototypes: int = Field(10, ge=1, description="number of prototypes K")
        weight: float = Field(
            1.0,
            ge=0,
            description="factor of the MMD loss; Adam undoes any constant factor while the step has an Adam "
            "of its own, so sweep mmd_lr instead, or share the Adam; 0 leaves both steps out: the plain AE",
        )
        mmd_lr: float | None = Field(
            None,
            gt=0,
            description="learning rate of the MMD step: how hard it regularizes; None: the suite's",
        )
        scores: Literal["raw", "cosine"] = Field(
            "raw", description="similarity of codes and prototypes: dot product, or cosine as in SwAV"
        )
        epsilon: float = Field(0.05, gt=0, description="entropy weight of the Sinkhorn codes")
        temperature: float = Field(0.1, gt=0, description="temperature of the predicted assignments")
        sinkhorn_iterations: int | None = Field(
            None,
            ge=1,
            description="Sinkhorn iterations; None: 200 for raw scores, in which epsilon falls from the scores' "
            "range and whose result is rounded to equal masses; 3 plain ones for cosine scores, as in SwAV",
        )
        kernel: ops.KernelName = Field(
            "gaussian", description='kernel of the MMD; "imq" is WAE\'s multi-scale inverse multiquadratic'
        )
        bandwidth: ops.Bandwidth = Field(
            None, description='sigma of the Gaussian kernel, or "median"; None: sigma^2 = latent units'
        )
        biased: bool = Field(
            False, description="V-statistics in place of unbiased U-statistics; they shrink small clusters"
        )
        closed_form: bool = Field(
            False, description="exact expectations over N(v_k, I) in place of samples (Gaussian kernel)"
        )
        seeding: Literal["layer", "kmeans"] = Field(
            "layer",
            description="where prototypes start: a linear layer's initialisation, or the centres of k-means "
            "on the training codes when the warm-up ends",
        )
        shared_adam: bool = Field(False, description="one Adam for all three steps in place of three")

        @model_validator(mode="after")
        def _choices_fit(self) -> Self:
            ops.kernel(self.kernel, self.bandwidth, closed_form=self.closed_form)
            if self.shared_adam and self.mmd_lr is not None:
                raise ValueError("mmd_lr needs an Adam of its own for the MMD step: set shared_adam = false")
            return self

    def build(self, dims: Dims) -> None:
        self.head = nn.Linear(dims.latent, self.options.prototypes, bias=False)
        self.kernel = ops.kernel(self.options.kernel, self.options.bandwidth)
        default = 200 if self.options.scores == "raw" else 3
        self.iterations = self.options.sinkhorn_iterations or default

    def scores(self, z_BD: Tensor) -> Tensor:
        """Similarity scores_BK of codes and prototypes, in float32: they are divided by epsilon."""
        v_KD = self.head.weight
        if self.options.scores == "cosine":
            z_BD, v_KD = F.normalize(z_BD.float()), F.normalize(v_KD.float())
        return ops.matmul(z_BD, v_KD.T)

    def codes(self, scores_BK: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equipartitioned codes Q_BK, and what to record of how well Sinkhorn got there."""
        epsilon = self.options.epsilon
        if self.options.scores == "cosine":
            codes_BK, found = ops.sinkhorn(scores_BK, epsilon=epsilon, iterations=self.iterations), {}
        else:
            codes_BK, moved = ops.equipartition(scores_BK, epsilon=epsilon, iterations=self.iterations)
            found = {"rounded_share": moved}
        return codes_BK, {"prototype_mass_deviation": ops.prototype_mass_deviation(codes_BK), **found}

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        options = self.options
        if options.weight > 0:
            scores_BK = self.scores(model.encode(x_BCHW))
            codes_BK, deviations = self.codes(scores_BK)
            assignments_B = codes_BK.argmax(dim=1)
            agreement = (assignments_B == scores_BK.argmax(dim=1)).float().mean()
            yield Update(
                "prototypes",
                F.cross_entropy(scores_BK / options.temperature, codes_BK),
                updates=[*model.encoding, self.head],
                optimizer=self._optimizer("prototypes"),
                log={"assignment_agreement": agreement, "prototype_separation": self.separation()},
                log_max=deviations,
            )
            mmd = ops.per_prototype_mmd(
                model.encode(x_BCHW),
                self.head.weight,
                assignments_B,
                self.kernel,
                biased=options.biased,
                closed_form=options.closed_form,
            )
            yield Update(
                "mmd", options.weight * mmd, updates=model.encoding, optimizer=self._optimizer("mmd")
            )
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("reconstruction", bce, updates=[*model.encoding, model.decoder], log={"bce": bce})

    def _optimizer(self, step: str) -> str:
        return "reconstruction" if self.options.shared_adam else step

    def optimizers(self) -> Mapping[str, AdamOptions]:
        if self.options.mmd_lr is None or self.options.weight == 0:
            return {}
        return {"mmd": AdamOptions(lr=self.options.mmd_lr)}

    def warnings(self, history: Sequence[Mapping[str, Any]]) -> list[str]:
        """Says so where Sinkhorn's iterations did not bring the prototype masses within 2% of equipartition."""
        logged = [row["log_max"] for row in history if row["log_max"]]
        found = []
        for name, text in (
            ("prototype_mass_deviation", "prototype masses were off by up to {:.0%} of equipartition"),
            ("rounded_share", "rounding to equal prototype masses moved up to {:.0%} of a batch"),
        ):
            worst = [row[name] for row in logged if name in row]
            if max(worst, default=0.0) > TOLERATED:
                off = sum(value > TOLERATED for value in worst)
                found.append(
                    f"{text.format(max(worst))}, more than 2% in {off} of {len(worst)} regularized epochs, at "
                    f"{self.iterations} Sinkhorn iterations"
                )
        return found

    def separation(self) -> Tensor:
        """|v_i - v_j| / sqrt(D), mean over the pairs of prototypes (0-d); 0 where there is one prototype."""
        v_KD = self.head.weight.detach()
        count, dim = v_KD.shape
        distances_KK = ops.squared_distances(v_KD).sqrt()
        return distances_KK.sum() / (max(count * (count - 1), 1) * math.sqrt(dim))

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        if self.options.seeding != "kmeans":
            return
        from sklearn.cluster import KMeans

        codes_ND = torch.cat([model.encode(x_BCHW).float().cpu() for x_BCHW in batches])
        random_state = int(torch.randint(2**31 - 1, ()))
        means = KMeans(self.options.prototypes, n_init=10, random_state=random_state).fit(codes_ND.numpy())
        self.head.weight.data.copy_(torch.from_numpy(means.cluster_centers_))

    def sample(self, n: int) -> Tensor:
        return self.sample_cluster(torch.randint(len(self.head.weight), (n,), device=self.head.weight.device))

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        v_ND = self.head.weight.detach()[k_N]
        return v_ND + scale * torch.randn_like(v_ND)

    def prototypes(self) -> Tensor:
        return self.head.weight.detach()

    def assign(self, z_BD: Tensor) -> Tensor:
        return self.scores(z_BD).argmax(dim=1)
