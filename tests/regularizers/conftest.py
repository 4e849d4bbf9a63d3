"""A small model, and the harness's own stepper on it.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench.api import Regularizer, Update
from regbench.model import Model, build_model
from regbench.nets import NetShape
from regbench.training.meter import Meter
from regbench.training.stepper import AdamSettings, Stepper

SHAPE = NetShape(channels=1, side=16, latent=8, features=12, widths=(4, 8))
Inspect = Callable[[Update], None]


def make(method: type[Regularizer], seed: int = 0, **options: Any) -> Model:
    return build_model(SHAPE, method, options, seed=seed)


def train(
    model: Model,
    batches: list[Tensor],
    *,
    lr: float = 1e-3,
    precision: str = "fp32",
    fused: bool = False,
    inspect: Inspect | None = None,
) -> list[dict[str, dict[str, float]]]:
    """Regularized steps on each batch. ``inspect`` sees every update before its optimizer moves anything."""
    stepper = Stepper(model, AdamSettings(lr=lr, fused=fused), precision, batches[0])  # type: ignore[arg-type]
    stepper.begin_regularization()
    if inspect is not None:
        steps = model.regularizer.steps

        def inspected(model: Model, x_BCHW: Tensor) -> Iterator[Update]:
            for update in steps(model, x_BCHW):
                inspect(update)
                yield update

        model.regularizer.steps = inspected  # type: ignore[method-assign]
    read = []
    for x_BCHW in batches:
        meter = Meter()
        stepper.regularized_step(x_BCHW, meter)
        read.append(meter.read())
    return read


@pytest.fixture
def batches() -> list[Tensor]:
    """Three batches of 24 blurred blobs."""
    generator = torch.Generator().manual_seed(5)
    rough = torch.rand(72, 1, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(rough, scale_factor=4, mode="bilinear")
    return list(smooth.contiguous(memory_format=torch.channels_last).split(24))
