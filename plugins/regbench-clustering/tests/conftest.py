"""Real digits, small models, and trainings of them.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from regbench import Regularizer
from regbench.data.batches import Batches
from regbench.model import Model, build_model
from regbench.nets import NetShape
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings

Make: TypeAlias = Callable[..., Model]
Train: TypeAlias = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _small_and_repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def labels() -> NDArray[np.int64]:
    return np.asarray(load_digits().target)


@pytest.fixture
def digits() -> Batches:
    """The 1,797 digits of scikit-learn."""
    images_NCHW = (load_digits().images[:, None] * (255 / 16)).round().astype("uint8")
    return Batches(images_NCHW, "cpu")


@pytest.fixture
def make() -> Make:
    def model(
        method: type[Regularizer],
        *,
        images: int = 0,
        latent: int = 8,
        features: int = 64,
        width: int = 16,
        **options: Any,
    ) -> Model:
        # Without the ReLU, which leaves half of the features dead in nets as small as these.
        shape = NetShape(1, 8, latent, features, (width,), bottleneck_relu=False)
        return build_model(shape, method, options, seed=1, images=images)

    return model


@pytest.fixture
def train() -> Train:
    def trained(
        model: Model, batches: Batches, *, epochs: int, warmup: int = 1, size: int = 64
    ) -> list[dict[str, Any]]:
        """All epochs, and what comes after the last. Returns the epochs' rows."""
        settings = TrainingSettings(epochs, warmup, size, AdamSettings(lr=3e-3), "fp32")
        trainer = Trainer(model, batches, settings, seed=1)
        rows = [trainer.run_epoch(epoch) for epoch in range(1, epochs + 1)]
        trainer.finish()
        return rows

    return trained
