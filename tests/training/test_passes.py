"""What a method may do with all training images: before each regularized epoch, and after the last one.

Shape suffixes: N images, B batch, C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench.api import Dims, Regularizer, Update
from regbench.data.batches import Batches
from regbench.model import Model, build_model
from regbench.nets import NetShape
from regbench.training.loop import GraphLoop
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings
from tests.training.recorder import recorded

N, BATCH, WARMUP, EPOCHS = 44, 8, 1, 4
SHAPE = NetShape(channels=1, side=8, latent=3, features=6, widths=(4,))


class Remembers(Regularizer):
    """Keeps the mean of each image, found anew before each epoch, and looks it up in its steps."""

    name = "remembers"

    def build(self, dims: Dims) -> None:
        self.register_buffer("means_N", torch.full((dims.images,), -1.0))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("wrong", torch.zeros(()))
        self.register_buffer("mean_code_D", torch.zeros(dims.latent))
        self.register_buffer("noise", torch.zeros(()))

    def on_epoch_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        assert not torch.is_grad_enabled()
        self.means_N.copy_(torch.cat([x_BCHW.mean((1, 2, 3)) for x_BCHW in batches]))
        self.passes += 1

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        self.mean_code_D.copy_(model.codes(batches).mean(0))
        self.noise.copy_(torch.randn(()))

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        off_B = self.means_N.index_select(0, model.index_B) - x_BCHW.mean((1, 2, 3))
        self.wrong += off_B.abs().sum() * (self.passes > 0)
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("loss", bce, updates=[*model.encoding, model.decoder])


def trainer_of(*, graphs: bool = False, resident: bool = True) -> Trainer:
    pictures = torch.randint(0, 256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    batches = Batches(pictures, torch.device("cpu"), resident=resident)
    model = build_model(SHAPE, Remembers, seed=1, images=N)
    trainer = Trainer(model, batches, TrainingSettings(EPOCHS, WARMUP, BATCH, AdamSettings(), "fp32"), 1)
    if graphs:
        trainer.loop = GraphLoop(trainer.stepper, batches, BATCH, capture=recorded)
    return trainer


def state(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.model.state_dict()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("resident", [True, False])
def test_a_step_knows_which_images_it_has(graphs: bool, resident: bool) -> None:
    trainer = trainer_of(graphs=graphs, resident=resident)
    for epoch in range(1, EPOCHS + 1):
        trainer.run_epoch(epoch)
    found = state(trainer)
    assert found["regularizer.passes"] == EPOCHS - WARMUP, "once before each regularized epoch"
    assert float(found["regularizer.wrong"]) < 1e-4
    assert (found["regularizer.means_N"] >= 0).all(), "the pass sees every image, whatever the batch size"


def test_a_wrong_index_would_be_noticed() -> None:
    trainer = trainer_of()
    trainer.run_epoch(1)
    trainer.loop._order = lambda seed, epoch: torch.zeros(N // BATCH, BATCH, dtype=torch.int64)  # type: ignore[method-assign]
    trainer.run_epoch(2)
    assert float(state(trainer)["regularizer.wrong"]) > 0.1


def test_an_epoch_that_is_gone_on_with_is_not_begun_again() -> None:
    first, second = trainer_of(), trainer_of()
    first.run_epoch(1)
    assert first.run_epoch(2, lambda: first.loop.done == 2) is None
    second.load_state_dict(first.state_dict())
    for epoch in range(2, EPOCHS + 1):
        second.run_epoch(epoch)
    assert state(second)["regularizer.passes"] == EPOCHS - WARMUP


def test_the_end_sees_the_trained_net_and_repeats_itself() -> None:
    trainer = trainer_of()
    for epoch in range(1, EPOCHS + 1):
        trainer.run_epoch(epoch)
    assert not state(trainer)["regularizer.mean_code_D"].any()
    trainer.finish()
    once: dict[str, Any] = {name: value.clone() for name, value in state(trainer).items()}
    codes_ND = trainer.model.codes(trainer.batches.sequential(N))
    torch.testing.assert_close(once["regularizer.mean_code_D"], codes_ND.mean(0))
    assert trainer.closing_seconds > 0
    torch.randn(3)
    trainer.finish()
    assert all(torch.equal(value, state(trainer)[name]) for name, value in once.items())
