"""Real digits, and small models of them, trained or not.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

import regbench.testing
from regbench import Model, Regularizer
from regbench.regularizers import AE
from regbench.testing import Trained

Make: TypeAlias = Callable[..., Model]
Train: TypeAlias = Callable[..., Trained]
ALL = 1797


@pytest.fixture(autouse=True)
def _small_and_repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def train() -> Train:
    def trained(
        method: type[Regularizer],
        *,
        epochs: int,
        warmup: int = 1,
        images: int = ALL,
        latent: int = 8,
        features: int = 64,
        width: int = 16,
        **options: Any,
    ) -> Trained:
        return regbench.testing.train(
            method,
            options,
            epochs=epochs,
            warmup=warmup,
            images=images,
            latent=latent,
            features=features,
            widths=(width,),
            bottleneck_relu=False,  # it leaves half of the features dead in nets as small as these
            batch_size=64,
            lr=3e-3,
            seed=1,
        )

    return trained


@pytest.fixture
def make(train: Train) -> Make:
    """A model that is not trained."""
    return lambda method, **settings: train(method, epochs=0, **settings).model


@pytest.fixture
def digits(train: Train) -> Tensor:
    """All of them, images_NCHW."""
    return train(AE, epochs=0).images_NCHW
