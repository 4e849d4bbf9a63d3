"""Steps on tensors that claim to lie on a GPU: nothing is read back, and nothing is left behind on the CPU.

Fake tensors have shapes, types and devices, but no contents. Their backward passes need a real device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from regbench import Dims, Model, Regularizer, Update
from regbench.nets import SharedAutoencoder
from tests.training.test_trainer import CASES, METHODS, SHAPE

CUDA = torch.device("cuda")
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *CASES,
    ("infovae-mmd", {"kernel": "imq"}),
    ("infovae-mmd", {"bandwidth": "median"}),
    ("proto-vae", {"scores": "cosine", "closed_form": True}),
]


def losses(method: type[Regularizer], options: dict[str, Any]) -> list[Tensor]:
    """Every tensor that a batch gives to the harness."""
    with FakeTensorMode(), torch.device(CUDA):
        dims = Dims(SHAPE.latent, SHAPE.features, SHAPE.channels, SHAPE.side)
        model = Model(SharedAutoencoder(SHAPE), method(method.Options(**options), dims))
        x_BCHW = torch.rand(16, SHAPE.channels, SHAPE.side, SHAPE.side)
        found = []
        with torch.device("cpu"):  # new tensors lie on the CPU, as they do in a run
            for update in model.regularizer.steps(model, x_BCHW):
                found += [update.loss, *update.log.values(), *update.log_max.values()]
    return found


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_bundled_methods_stay_on_the_device(name: str, options: dict[str, Any]) -> None:
    assert {tensor.device.type for tensor in losses(METHODS[name].cls, options)} == {"cuda"}


class Reading(Regularizer):
    """Reads a number back."""

    name = "reading"

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD * code_BD.detach().abs().max().item(), {}


class LeftBehind(Regularizer):
    """Makes its noise on the CPU."""

    name = "left-behind"

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW) + torch.randn(len(x_BCHW), SHAPE.latent)
        yield Update("loss", model.reconstruction_loss(z_BD, x_BCHW), [*model.encoding, model.decoder])


@pytest.mark.parametrize("method", [Reading, LeftBehind])
def test_what_would_fail_on_a_gpu_fails_here(method: type[Regularizer]) -> None:
    with pytest.raises(Exception, match=r"_local_scalar_dense|on the same device"):
        losses(method, {})
