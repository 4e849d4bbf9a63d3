"""Short trainings on scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from regbench import Regularizer
from regbench.data.batches import Batches
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings

Train = Callable[..., tuple[Trainer, list[dict[str, Any]]]]


@pytest.fixture(scope="session")
def train() -> Train:
    """Train a method on some digits: the finished trainer, and the history."""

    def trained(
        method: type[Regularizer],
        *,
        epochs: int,
        warmup: int = 5,
        images: int = 640,
        latent: int = 16,
        seed: int = 3,
        **options: Any,
    ) -> tuple[Trainer, list[dict[str, Any]]]:
        torch.set_num_threads(1)
        pixels = (load_digits().images[:images, None] * (255 / 16)).round().astype("uint8")
        shape = NetShape(channels=1, side=8, latent=latent, features=64, widths=(8,))
        model = build_model(shape, method, options, seed=seed, images=images)
        settings = TrainingSettings(epochs, warmup, 32, AdamSettings(lr=2e-3, fused=False), "fp32")
        trainer = Trainer(model, Batches(pixels, "cpu"), settings, seed=seed)
        history = [trainer.run_epoch(epoch) for epoch in range(1, epochs + 1)]
        trainer.finish()
        return trainer, history

    return trained
