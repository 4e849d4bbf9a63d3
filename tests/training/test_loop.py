"""Replaying a batch against launching it: the same training, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench import Model, Regularizer, Update
from regbench.conformance.bench import HostSyncFinder
from regbench.data.batches import Batches
from regbench.errors import PluginError
from regbench.model import build_model
from regbench.modes import no_waiting
from regbench.training.launch import Launch
from regbench.training.loop import EagerLoop, GraphLoop
from regbench.training.precision import Precision
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings
from tests.training.recorder import recorded
from tests.training.test_trainer import CASES, METHODS, SHAPE, OwnAdam, assert_same, pictures, run

CPU = torch.device("cpu")


class Annealed(Regularizer):
    """Its weight follows the progress, and it counts batches in a buffer."""

    name = "annealed"

    def build(self, dims: Any) -> None:
        self.register_buffer("batches", torch.zeros(()))
        self.batches: Tensor

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        size = z_BD.square().mean()
        yield Update(
            "loss",
            model.reconstruction_loss(z_BD, x_BCHW) + model.progress * size,
            [*model.encoding, model.decoder],
            log={"progress": model.progress, "size": size},
            log_max={"progress_max": model.progress},
        )
        self.batches += 1


ALL: list[tuple[str | type[Regularizer], dict[str, Any]]] = [*CASES, (OwnAdam, {}), (Annealed, {})]


def trainer_of(
    name: str | type[Regularizer],
    options: dict[str, Any],
    *,
    graphs: bool,
    precision: Precision = "fp32",
    resident: bool = True,
) -> Trainer:
    method = METHODS[name].cls if isinstance(name, str) else name
    model = build_model(SHAPE, method, options, seed=3)
    settings = TrainingSettings(4, 2, 16, AdamSettings(), precision)
    batches = Batches(pictures(), CPU, resident=resident)
    trainer = Trainer(model, batches, settings, 3)
    if graphs:
        trainer.loop = GraphLoop(trainer.stepper, batches, 16, capture=recorded)
    return trainer


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize(("precision", "resident"), [("fp32", True), ("bf16", True), ("fp32", False)])
def test_a_replayed_training_is_the_launched_one(
    name: str | type[Regularizer], options: dict[str, Any], precision: Precision, resident: bool
) -> None:
    launched = trainer_of(name, options, graphs=False, precision=precision, resident=resident)
    replayed = trainer_of(name, options, graphs=True, precision=precision, resident=resident)
    assert numbers(run(replayed)) == numbers(run(launched))
    assert_same(replayed.model.state_dict(), launched.model.state_dict())
    for name_, state in launched.stepper.state_dict().items():
        for parameter, moments in state["state"].items():
            assert_same(moments, replayed.stepper.state_dict()[name_]["state"][parameter])


def test_a_restored_training_is_captured_anew() -> None:
    whole = trainer_of("proto-vae", {"prototypes": 3}, graphs=True)
    run(whole)
    first = trainer_of("proto-vae", {"prototypes": 3}, graphs=True)
    run(first, last=3)
    again = trainer_of("proto-vae", {"prototypes": 3}, graphs=True)
    run(again, last=3)  # its graph holds tensors that loading replaces
    again.load_state_dict(first.state_dict())
    run(again, first=4)
    assert_same(again.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("graphs", [True, False])
def test_nothing_in_an_epoch_waits_for_the_device(
    name: str | type[Regularizer], options: dict[str, Any], graphs: bool
) -> None:
    trainer = trainer_of(name, options, graphs=graphs)
    run(trainer, last=3)
    loop, progress_S = trainer.loop, trainer._progress(4)
    points = progress_S.tolist
    with HostSyncFinder() as finder, pytest.MonkeyPatch.context() as patch:
        # The progress comes from the host as it is.
        patch.setattr(progress_S, "tolist", points)
        loop.run(3, 4, progress_S)
    assert finder.found == []


class Waiting(Regularizer):
    """Reads a number back in every batch."""

    name = "waiting"

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": code_BD.square().mean() * float(code_BD.detach().abs().max().item() > 0)}


@pytest.mark.gpu
def test_what_cannot_be_captured_is_said_to_be_the_methods_fault() -> None:
    device = torch.device("cuda")
    model = build_model(SHAPE, Waiting, {}, seed=3, device=device)
    settings = TrainingSettings(2, 0, 16, AdamSettings(), "fp32", launch=Launch(graphs=True))
    trainer = Trainer(model, Batches(pictures(), device), settings, 3)
    with pytest.raises(PluginError, match="waiting: its batch cannot be captured") as raised:
        trainer.run_epoch(1)
    assert "--eager" in str(raised.value.hint)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_graphs_on_a_gpu(name: str, options: dict[str, Any], deterministic: bool) -> None:
    """Captured as launched; and an epoch of replays never waits for the device."""
    device = torch.device("cuda")

    def trained(graphs: bool) -> Trainer:
        model = build_model(SHAPE, METHODS[name].cls, options, seed=3, device=device)
        launch = Launch(graphs=graphs, deterministic=deterministic)
        settings = TrainingSettings(4, 2, 16, AdamSettings(), "fp32", launch=launch)
        trainer = Trainer(model, Batches(pictures(), device), settings, 3)
        inner = trainer.loop.run

        def watched(*args: Any, **settings: Any) -> None:
            with no_waiting(device):
                inner(*args, **settings)

        trainer.loop.run = watched  # type: ignore[method-assign]
        run(trainer)
        return trainer

    launched, replayed = trained(False).model.state_dict(), trained(True).model.state_dict()
    if deterministic:
        assert_same(replayed, launched)
    else:
        # The search may find other kernels, and Adam's first steps are as long as the learning rate, 1e-3.
        torch.testing.assert_close(replayed, launched, rtol=1e-3, atol=5e-3)


@pytest.mark.slow
def test_a_compiled_training_is_the_eager_one_to_rounding() -> None:
    def trained(compile: bool) -> Trainer:
        model = build_model(SHAPE, METHODS["proto-vae"].cls, {"prototypes": 3}, seed=3)
        settings = TrainingSettings(2, 1, 16, AdamSettings(), "fp32", launch=Launch(compile=compile))
        trainer = Trainer(model, Batches(pictures(), CPU), settings, 3)
        rows = run(trainer)
        assert any(row["setup_seconds"] > 0.1 for row in rows) is compile
        return trainer

    eager, compiled = trained(False).model.state_dict(), trained(True).model.state_dict()
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(compiled[key], value) for key, value in eager.items())


def test_a_rehearsal_leaves_no_trace() -> None:
    plain, rehearsed = (trainer_of("proto-vae", {"prototypes": 3}, graphs=False) for _ in range(2))
    rehearsed.loop = EagerLoop(rehearsed.stepper, rehearsed.batches, 16, rehearse=True)
    assert numbers(run(rehearsed)) == numbers(run(plain))
    assert_same(rehearsed.model.state_dict(), plain.model.state_dict())
