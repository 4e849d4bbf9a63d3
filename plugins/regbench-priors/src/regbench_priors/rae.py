"""RAE-L2 (Ghosh et al. 2020): a deterministic autoencoder with small codes and a small decoder, sampled ex post.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

import regbench
from regbench import CodeMixture, Dims, Field, Model, Regularizer, Search, Update

PUBLISHED = {"grey": (1e-4, 1e-7), "colour": (1e-3, 1e-6)}
"""Factors of mean z^2 and of the decoder's squared weights beside a mean squared error: the official
configurations/config.py for MNIST and CIFAR-10."""


class RAEL2(Regularizer):
    """+ beta x |z|^2 + decay x |decoder kernels|^2; new codes from a Gaussian mixture fitted to the codes."""

    name = "rae-l2"
    paper = "arXiv:1903.12436"
    regularizes = "the length of each code, and the decoder's weights"
    ex_post = "Gaussian mixture fitted to the training codes"
    search: ClassVar = {"beta": Search(low=1e-5, high=1.0)}

    class Options(regbench.Options):
        """Options of ``rae-l2``."""

        beta: float | None = Field(
            None,
            ge=0,
            description="factor of |z|^2, summed over the latent units and averaged over the batch; None: the official "
            "factor of mean z^2 (1e-4 on grey images, 1e-3 on colour) x pixel values / latent units",
        )
        decay: float | None = Field(
            None,
            ge=0,
            description="factor of the sum of the decoder's squared convolution weights; None: the official one "
            "(1e-7 on grey images, 1e-6 on colour) x pixel values",
        )
        components: int = Field(10, ge=1, description="components of the mixture; 10 in the official code")

    def build(self, dims: Dims) -> None:
        self.mixture = CodeMixture(dims.latent, self.options.components)

    @property
    def weight(self) -> float:
        """Of |z|^2 beside the cross-entropy summed over pixels."""
        published = PUBLISHED["grey" if self.dims.channels == 1 else "colour"][0]
        beta = self.options.beta
        return float(published * self.dims.pixels / self.dims.latent if beta is None else beta)

    @property
    def decay(self) -> float:
        """Of the decoder's squared weights beside the cross-entropy summed over pixels."""
        published = PUBLISHED["grey" if self.dims.channels == 1 else "colour"][1]
        return float(published * self.dims.pixels if self.options.decay is None else self.options.decay)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": self.weight * code_BD.float().square().sum(dim=1).mean()}

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD, terms = model.encode_with_terms(x_BCHW)
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        # As in the official code (models/rae/rae_mnist.py) the kernels of convolutions alone, no biases or dense layer.
        kernels = [weight for weight in model.decoder.parameters() if weight.ndim == 4]
        decay = self.decay * torch.stack([kernel.square().sum() for kernel in kernels]).sum()
        yield Update(
            "loss",
            bce + terms["size"] + decay,
            updates=[*model.encoding, model.decoder],
            log={"bce": bce, **terms, "decay": decay},
        )

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        self.mixture.fit(model.codes(batches))

    def sample(self, n: int) -> Tensor:
        return self.mixture.sample(n)
