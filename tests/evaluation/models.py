"""Small models for the tests of evaluation: the real networks, with regularizers that make the point."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.api import Regularizer
from regbench.model import Model, build_model
from regbench.nets import NetShape


class Plain(Regularizer):
    """A deterministic method without a prior."""

    name = "plain"


class Noisy(Regularizer):
    """Samples its code where it is told to, has a layer that differs in train mode, and a prior."""

    name = "noisy"
    prior = "N(3, 4 I)"

    @property
    def stochastic(self) -> bool:
        return True

    def build(self, dims: object) -> None:
        self.dropout = torch.nn.Dropout(0.5)  # shows whether evaluation really is in eval mode

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        code_BD = self.dropout(code_BD)
        return (code_BD + torch.randn_like(code_BD) if self.sampling else code_BD), {}

    def sample(self, n: int) -> Tensor | None:
        return 3 + 2 * torch.randn(n, self.dims.latent)


def small_model(
    regularizer: type[Regularizer] = Plain, *, side: int = 16, channels: int = 1, latent: int = 6
) -> Model:
    shape = NetShape(channels=channels, side=side, latent=latent, features=12, widths=(4, 8))
    return build_model(shape, regularizer, seed=3)


def random_images(n: int, *, side: int = 16, channels: int = 1, seed: int = 0) -> Tensor:
    return torch.from_numpy(random_array(n, side=side, channels=channels, seed=seed))


def random_array(n: int, *, side: int = 16, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
