"""VampPrior (Tomczak and Welling 2018): the prior is a mixture of the encoder's posteriors at learned pseudo-inputs.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features, K pseudo-inputs, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

import regbench
from regbench import Dims, Field, Model, Regularizer, Search, Update, ops

SMALLEST, LARGEST = -6.0, 2.0
"""Bounds of the posterior's log-variance; those of the official code (models/VAE.py)."""
NOISE = {"grey": (0.05, 0.01), "colour": (0.4, 0.05)}
"""Mean and standard deviation of the pixels that pseudo-inputs start from; those that the official utils/load_data.py
sets for MNIST and CIFAR-10. (The -0.05 of its experiment.py is set anew there for every data set.)"""
JITTER = 0.01
"""Standard deviation of the noise on the training images that they start from instead (utils/load_data.py)."""


class VampPrior(Regularizer):
    """q(z|x) = N(mu, exp(logvar)); + weight x KL(q(z|x) || mean of q(z|u) over learned pseudo-inputs u)."""

    name = "vamp-prior"
    paper = "arXiv:1705.07120"
    regularizes = "the posterior of each code"
    prior = "q(z|u), u one of the pseudo-inputs"
    stochastic = True
    search: ClassVar = {"weight": Search(low=1e-2, high=1e2)}

    mu_KD: Tensor
    logvar_KD: Tensor

    class Options(regbench.Options):
        """Options of ``vamp-prior``."""

        weight: float = Field(
            1.0,
            ge=0,
            description="factor of the KL term, which is summed over the latent units like the "
            "reconstruction over the pixels; 1 is the evidence lower bound",
        )
        pseudo_inputs: int = Field(
            500, ge=1, description="number of pseudo-inputs K; 500 in the official code"
        )
        start: Literal["noise", "data"] | None = Field(
            None,
            description="what pseudo-inputs start from: almost equal plain images, as in the official code, or "
            "training images, as with its option; None: noise for one channel, data for more",
        )
        annealing: float = Field(
            0.0,
            ge=0,
            le=1,
            description="share of the regularized training in which the KL's factor rises from 0; the official code "
            "has 100 of at most 2000 epochs, 0.05, and no warm-up on the reconstruction alone before it",
        )

    def build(self, dims: Dims) -> None:
        count = self.options.pseudo_inputs
        self.logvar = nn.Linear(dims.features, dims.latent)
        mean, spread = NOISE["grey" if dims.channels == 1 else "colour"]
        self.pixels_KCHW = nn.Parameter(
            mean + spread * torch.randn(count, dims.channels, dims.side, dims.side)
        )
        # The posteriors at the pseudo-inputs after the training; N(0, I) until then.
        self.register_buffer("mu_KD", torch.zeros(count, dims.latent))
        self.register_buffer("logvar_KD", torch.zeros(count, dims.latent))

    def pseudo_inputs(self) -> Tensor:
        """The images u_KCHW in [0, 1] whose posteriors are the prior's components."""
        return self.pixels_KCHW.clamp(0, 1)

    def log_variance(self, h_BF: Tensor) -> Tensor:
        """Of q(z|x), as logvar_BD."""
        logvar_BD: Tensor = self.logvar(h_BF).clamp(SMALLEST, LARGEST)
        return logvar_BD

    def kl(self, z_BD: Tensor, mu_BD: Tensor, logvar_BD: Tensor, mu_KD: Tensor, logvar_KD: Tensor) -> Tensor:
        """log q(z|x) - log p(z) in nats, mean over the batch (0-d): the KL by one sample z of each posterior."""
        own_B = -0.5 * (
            (z_BD - mu_BD).square() * torch.exp(-logvar_BD) + logvar_BD + math.log(2 * math.pi)
        ).sum(dim=1)
        log_BK = ops.normal_log_densities(z_BD, mu_KD, logvar_KD)
        return (own_B - log_BK.logsumexp(dim=1) + math.log(len(mu_KD))).mean()

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z_BD = ops.reparameterize(code_BD, self.log_variance(h_BF)) if self.sampling else code_BD
        return z_BD, {}

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        size = len(x_BCHW)
        code, h = model.features(torch.cat([x_BCHW, self.pseudo_inputs()]))
        mu_BD, mu_KD = code.float().tensor_split([size])
        logvar_BD, logvar_KD = self.log_variance(h).float().tensor_split([size])
        z_BD = ops.reparameterize(mu_BD, logvar_BD) if self.sampling else mu_BD
        kl = self.options.weight * self.kl(z_BD, mu_BD, logvar_BD, mu_KD, logvar_KD)
        if self.options.annealing > 0:
            kl = kl * (model.progress / self.options.annealing).clamp(max=1.0)
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        yield Update(
            "loss", bce + kl, updates=[*model.encoding, self, model.decoder], log={"bce": bce, "kl": kl}
        )

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        start = self.options.start or ("noise" if self.dims.channels == 1 else "data")
        if start == "data":
            count = len(self.pixels_KCHW)
            chosen_K = torch.arange(count) * self.dims.images // count  # evenly spaced
            picked, first = [], 0
            for x_BCHW in batches:
                here_K = chosen_K[(chosen_K >= first) & (chosen_K < first + len(x_BCHW))] - first
                picked.append(x_BCHW[here_K.to(x_BCHW.device)])
                first += len(x_BCHW)
            x_KCHW = torch.cat(picked)
            self.pixels_KCHW.copy_(x_KCHW + JITTER * torch.randn_like(x_KCHW))

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        mu_KD, h_KF = model.features(self.pseudo_inputs())
        self.mu_KD.copy_(mu_KD)
        self.logvar_KD.copy_(self.log_variance(h_KF))

    def sample(self, n: int) -> Tensor:
        k_N = torch.randint(len(self.mu_KD), (n,), device=self.mu_KD.device)
        return ops.reparameterize(self.mu_KD[k_N], self.logvar_KD[k_N])
