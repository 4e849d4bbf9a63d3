"""The harness against hand-written loops, and the guarantees that make methods comparable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench import AdamOptions, Model, Regularizer, Update
from regbench.data.batches import Batches, epoch_order
from regbench.errors import Diverged, PluginError, UsageError
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.plugins import registry
from regbench.seeding import derive
from regbench.training.meter import Meter
from regbench.training.precision import Precision
from regbench.training.stepper import AdamSettings, Stepper
from regbench.training.trainer import Trainer, TrainingSettings

SHAPE = NetShape(channels=1, side=8, latent=4, features=8, widths=(4,))
CPU = torch.device("cpu")
METHODS = registry().regularizers
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ae", {}),
    ("ae", {"updates_per_batch": 3}),
    ("vae-kl", {}),
    ("infovae-mmd", {}),
    ("infovae-mmd", {"encoder": "deterministic"}),
    ("proto-vae", {"prototypes": 3}),
    ("proto-vae", {"prototypes": 1}),
]


def pictures(n: int = 40) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)


def trainer_of(
    name: str | type[Regularizer],
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 3,
    epochs: int = 4,
    warmup: int = 2,
    precision: Precision = "fp32",
    fused: bool = True,
    resident: bool = True,
) -> Trainer:
    method = METHODS[name].cls if isinstance(name, str) else name
    model = build_model(SHAPE, method, options, seed=seed)
    settings = TrainingSettings(epochs, warmup, 16, AdamSettings(fused=fused), precision)
    return Trainer(model, Batches(pictures(), CPU, resident=resident), settings, seed)


def run(trainer: Trainer, first: int = 1, last: int | None = None) -> list[dict[str, Any]]:
    return [trainer.run_epoch(epoch) for epoch in range(first, (last or trainer.settings.epochs) + 1)]


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


class Adam64:
    """Adam as Kingma and Ba write it (algorithm 1), in float64."""

    def __init__(self, parameters: list[Tensor], lr: float = 1e-3) -> None:
        self.parameters, self.lr, self.t = parameters, lr, 0
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]

    def step(self, gradients: tuple[Tensor, ...]) -> None:
        self.t += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p -= self.lr * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)


def by_hand(net: nn.Module, x_BCHW: Tensor, loss: str) -> Tensor:
    z_BD = net.code(net.encoder(x_BCHW))  # type: ignore[operator]
    if loss == "size":
        return z_BD.pow(2).sum(1).mean()
    logits = net.decoder(z_BD)  # type: ignore[operator]
    return F.binary_cross_entropy_with_logits(logits, x_BCHW, reduction="sum") / len(x_BCHW)


class TwoSteps(Regularizer):
    """Shrinks the code, then reconstructs: each with its own Adam."""

    name = "two-steps"

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("size", model.encode(x_BCHW).pow(2).sum(1).mean(), model.encoding)
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("reconstruction", bce, [*model.encoding, model.decoder])


@pytest.mark.parametrize("fused", [True, False])
def test_several_optimizers_match_a_loop_written_by_hand(fused: bool) -> None:
    trainer = trainer_of(TwoSteps, fused=fused)
    reference = build_model(SHAPE, TwoSteps, seed=3).double()
    encoding = [p for part in reference.encoding for p in part.parameters()]
    everything = list(reference.net.parameters())
    size, reconstruction = Adam64(encoding), Adam64(everything)
    rows = run(trainer)
    losses: dict[str, list[float]] = {"size": [], "reconstruction": [], "warmup": []}
    images = torch.from_numpy(pictures()).double() / 255
    for epoch in range(1, 5):
        for order in epoch_order(3, epoch, 40, 16):
            if epoch > 2:
                loss = by_hand(reference.net, images[order], "size")
                size.step(torch.autograd.grad(loss, encoding))
                losses["size"].append(float(loss.detach()))
            loss = by_hand(reference.net, images[order], "bce")
            reconstruction.step(torch.autograd.grad(loss, everything))
            losses["warmup" if epoch <= 2 else "reconstruction"].append(float(loss.detach()))
    for name, value in reference.net.state_dict().items():
        torch.testing.assert_close(trainer.model.net.state_dict()[name].double(), value, rtol=0, atol=2e-5)
    assert [row["phase"] for row in rows] == ["warmup", "warmup", "regularized", "regularized"]
    assert rows[0]["losses"]["warmup"] == pytest.approx(np.mean(losses["warmup"][:2]), rel=1e-5)
    assert rows[3]["losses"]["size"] == pytest.approx(np.mean(losses["size"][2:]), rel=1e-4)
    assert rows[3]["losses"]["reconstruction"] == pytest.approx(
        np.mean(losses["reconstruction"][2:]), rel=1e-5
    )
    assert trainer.optimizer_steps == 2 * 2 + 2 * 2 * 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_methods_are_the_same_network_when_the_warmup_ends(precision: Precision) -> None:
    reference = trainer_of("ae", precision=precision)
    run(reference, last=2)
    expected = reference.model.net.state_dict()
    for name, options in CASES[1:]:
        trainer = trainer_of(name, options, precision=precision)
        run(trainer, last=2)
        assert_same(trainer.model.net.state_dict(), expected)
        run(trainer, first=3)
        assert any(not torch.equal(v, expected[k]) for k, v in trainer.model.net.state_dict().items())


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_streaming_gives_the_same_weights(name: str, options: dict[str, Any], precision: Precision) -> None:
    resident, streaming = (
        trainer_of(name, options, resident=resident, precision=precision) for resident in (True, False)
    )
    run(resident)
    run(streaming)
    assert_same(resident.model.state_dict(), streaming.model.state_dict())


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_saved_and_loaded_training_goes_on_bit_for_bit(name: str, options: dict[str, Any], stop: int) -> None:
    whole = trainer_of(name, options)
    rows = run(whole)
    first = trainer_of(name, options)
    run(first, last=stop)
    second = trainer_of(name, options)
    second.load_state_dict(first.state_dict())
    rest = run(second, first=stop + 1)
    assert_same(whole.model.state_dict(), second.model.state_dict())
    assert [row["losses"] for row in rest] == [row["losses"] for row in rows[stop:]]
    assert second.optimizer_steps == whole.optimizer_steps


def test_seeds_differ() -> None:
    left, right = trainer_of("ae", seed=0), trainer_of("ae", seed=1)
    assert not torch.equal(next(left.model.parameters()), next(right.model.parameters()))


class Exploding(Regularizer):
    name = "exploding"

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"log": (code_BD.mean() * 0).log()}


def test_a_loss_that_is_not_finite_ends_the_training_with_its_row() -> None:
    trainer = trainer_of(Exploding)
    run(trainer, last=2)
    with pytest.raises(Diverged, match=r"epoch 3 \(regularized\): loss = ") as caught:
        trainer.run_epoch(3)
    assert caught.value.epoch == 3
    assert caught.value.row is not None
    assert not math.isfinite(caught.value.row["losses"]["loss"])


class OwnAdam(TwoSteps):
    name = "own-adam"

    def optimizers(self) -> Mapping[str, AdamOptions]:
        return {"reconstruction": AdamOptions(lr=0.05, betas=(0.5, 0.9))}


def test_a_methods_own_adam_settings_wait_for_the_end_of_the_warmup() -> None:
    own, plain = trainer_of(OwnAdam), trainer_of("ae")
    run(own, last=2)
    run(plain, last=2)
    assert_same(own.model.net.state_dict(), plain.model.net.state_dict())
    own.run_epoch(3)
    group = own.stepper.optimizers["reconstruction"].param_groups[0]
    assert (group["lr"], group["betas"]) == (0.05, (0.5, 0.9))
    assert own.stepper.optimizers["size"].param_groups[0]["lr"] == 1e-3


class UnknownAdam(TwoSteps):
    name = "unknown-adam"

    def optimizers(self) -> Mapping[str, AdamOptions]:
        return {"sizes": AdamOptions(lr=1.0)}


def test_settings_for_an_adam_that_no_update_uses_are_refused() -> None:
    with pytest.raises(PluginError, match="optimizers\\(\\) names sizes, used by no update"):
        trainer_of(UnknownAdam)


class Watching(Regularizer):
    """Keeps the progress it saw, what it was set up with, and how often its generator ended."""

    name = "watching"

    def build(self, dims: Any) -> None:
        self.register_buffer("progress_seen", torch.zeros(8))
        self.register_buffer("ended", torch.zeros((), dtype=torch.long))
        self.register_buffer("set_up_with", torch.zeros(()))

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("loss", bce, [*model.encoding, model.decoder])
        self.progress_seen[self.ended % 8] = model.progress
        self.ended += 1

    def on_regularization_start(self, model: Model, batches: Any) -> None:
        assert not torch.is_grad_enabled()
        self.set_up_with += sum(len(x_BCHW) for x_BCHW in batches)


def test_progress_set_up_and_the_end_of_the_generator() -> None:
    trainer = trainer_of(Watching)
    run(trainer)
    method = trainer.model.regularizer
    assert int(method.ended) == 4
    assert method.progress_seen[:4].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert float(method.set_up_with) == 40, "one pass over all training images"


class Fickle(Regularizer):
    """Makes another update than in the dry run."""

    name = "fickle"

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("loss" if len(x_BCHW) == 16 else "other", bce, [*model.encoding, model.decoder])
        if len(x_BCHW) == 8:
            yield Update("more", model.encode(x_BCHW).mean(), model.encoding)


def test_updates_must_stay_the_same() -> None:
    model = build_model(SHAPE, Fickle, seed=0)
    stepper = Stepper(model, AdamSettings(), "fp32", torch.rand(16, 1, 8, 8))
    stepper.regularized_step(torch.rand(16, 1, 8, 8), Meter())
    with pytest.raises(PluginError, match="made the update 'other', at first 'loss'"):
        stepper.regularized_step(torch.rand(4, 1, 8, 8), Meter())


def test_a_batch_larger_than_the_data_is_refused() -> None:
    model = build_model(SHAPE, METHODS["ae"].cls, seed=0)
    settings = TrainingSettings(2, 0, 64, AdamSettings(), "fp32")
    with pytest.raises(UsageError):
        Trainer(model, Batches(pictures(), CPU), settings, 0)


def test_bf16_reencodes_after_each_update() -> None:
    """One autocast around a batch would cache the cast weights and return the old code after an update."""
    seen: list[Tensor] = []

    class Looking(TwoSteps):
        name = "looking"

        def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
            for update in super().steps(model, x_BCHW):
                yield update
                with torch.no_grad():
                    seen.append(model.encode(x_BCHW).float().clone())

    model = build_model(SHAPE, Looking, seed=0)
    stepper = Stepper(model, AdamSettings(lr=0.1), "bf16", torch.rand(16, 1, 8, 8))
    seen.clear()
    stepper.regularized_step(torch.rand(16, 1, 8, 8), Meter())
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])


def test_noise_of_an_epoch_depends_on_seed_and_epoch_only() -> None:
    left, right = trainer_of("vae-kl"), trainer_of("vae-kl")
    run(left, last=2)
    torch.randn(1000)  # somebody else draws random numbers
    run(right, last=2)
    torch.randn(7)
    assert left.run_epoch(3)["losses"] == right.run_epoch(3)["losses"]
    assert derive(3, "noise", 3) != derive(3, "noise", 4)
