"""A training that is left between two batches, saved, loaded and continued: the uninterrupted one, bit for bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench import Model, Regularizer, Update
from regbench.conformance.bench import HostSyncFinder
from regbench.data.batches import Batches
from regbench.model import build_model
from regbench.modes import no_waiting
from regbench.training.launch import Launch
from regbench.training.loop import GraphLoop, Loop
from regbench.training.meter import Meter
from regbench.training.noise import noise_state, restore_noise
from regbench.training.precision import Precision
from regbench.training.stepper import WARMUP, AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings
from tests.training.recorder import recorded
from tests.training.test_loop import Annealed, numbers
from tests.training.test_trainer import CASES, METHODS, SHAPE, OwnAdam, assert_same, pictures

CPU = torch.device("cpu")
EPOCHS, STEPS = 4, 5


class Apart(Regularizer):
    """Trains encoder and decoder apart, so that the warm-up has an Adam of its own; a codebook follows by EMA."""

    name = "apart"

    def build(self, dims: Any) -> None:
        self.register_buffer("book", torch.zeros(dims.latent))
        self.register_buffer("started", torch.zeros(()))
        self.book: Tensor
        self.started: Tensor

    def on_regularization_start(self, model: Model, batches: Any) -> None:
        self.started += 1
        self.book.copy_(torch.randn_like(self.book))

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        near = (z_BD + 0.1 * torch.randn_like(z_BD) - self.book).square().mean()
        yield Update("near", near, model.encoding, log={"near": near})
        z_BD = model.encode(x_BCHW).detach()
        yield Update("reconstruction", model.reconstruction_loss(z_BD, x_BCHW), [model.decoder])
        with torch.no_grad():
            self.book.lerp_(z_BD.float().mean(0), 0.1)


ALL: list[tuple[str | type[Regularizer], dict[str, Any]]] = [
    *(case for case in CASES if case != ("ae", {"updates_per_batch": 3})),
    (OwnAdam, {}),
    (Annealed, {}),
    (Apart, {}),
]


def trainer_of(
    name: str | type[Regularizer],
    options: dict[str, Any],
    *,
    graphs: bool = False,
    precision: Precision = "fp32",
    resident: bool = True,
) -> Trainer:
    method = METHODS[name].cls if isinstance(name, str) else name
    model = build_model(SHAPE, method, options, seed=3)
    batches = Batches(pictures(), CPU, resident=resident)
    settings = TrainingSettings(EPOCHS, 2, 8, AdamSettings(), precision)
    trainer = Trainer(model, batches, settings, 3)
    if graphs:
        trainer.loop = GraphLoop(trainer.stepper, batches, 8, capture=recorded)
    return trainer


def at(loop: Loop, batch: int) -> Any:
    """A pause before this batch."""
    return lambda: loop.done == batch


def finish(trainer: Trainer, first: int) -> list[dict[str, Any]]:
    return [trainer.run_epoch(epoch) for epoch in range(first, EPOCHS + 1)]


def through_bytes(trainer: Trainer) -> Any:
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_training(left: Trainer, right: Trainer) -> None:
    assert_same(left.model.state_dict(), right.model.state_dict())
    for name, state in left.stepper.state_dict().items():
        for parameter, moments in state["state"].items():
            assert_same(moments, right.stepper.state_dict()[name]["state"][parameter])
    assert left.optimizer_steps == right.optimizer_steps


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize(
    ("graphs", "precision", "resident"),
    [(False, "fp32", True), (True, "fp32", True), (False, "bf16", False)],
)
def test_paused_anywhere_and_continued_elsewhere(
    name: str | type[Regularizer], options: dict[str, Any], graphs: bool, precision: Precision, resident: bool
) -> None:
    how: Any = {"graphs": graphs, "precision": precision, "resident": resident}
    whole = trainer_of(name, options, **how)
    rows = finish(whole, 1)
    # In the warm-up, in the epoch that begins the regularization, in a later one.
    for epoch, batch in [(2, 3), (3, 1), (4, 4)]:
        first, second = trainer_of(name, options, **how), trainer_of(name, options, **how)
        for number in range(1, epoch):
            first.run_epoch(number)
        assert first.run_epoch(epoch, at(first.loop, batch)) is None
        assert first.batch == batch
        state = through_bytes(first)
        torch.randn(9)  # somebody else draws random numbers
        second.load_state_dict(state)
        rest = finish(second, epoch)
        assert numbers(rest) == numbers(rows[epoch - 1 :]), (epoch, batch)
        assert_same_training(second, whole)


def test_pauses_in_one_process_change_nothing_and_time_adds_up() -> None:
    whole, paused = trainer_of("vae-kl", {}), trainer_of("vae-kl", {})
    expected = finish(whole, 1)
    rows = []
    for epoch in range(1, EPOCHS + 1):
        for batch in range(1, STEPS):
            assert paused.run_epoch(epoch, at(paused.loop, batch)) is None
            spent = paused.state_dict()["under_way"]["seconds"]
            torch.randn(3)
        rows.append(paused.run_epoch(epoch))
        assert rows[-1]["seconds"] > spent > 0
    assert numbers(rows) == numbers(expected)
    assert_same_training(paused, whole)


def test_the_regularization_starts_once() -> None:
    trainer = trainer_of(Apart, {})
    assert WARMUP in trainer.stepper.optimizers
    for epoch in (1, 2):
        trainer.run_epoch(epoch)
    trainer.run_epoch(3, at(trainer.loop, 2))
    other = trainer_of(Apart, {})
    other.load_state_dict(through_bytes(trainer))
    other.run_epoch(3)
    assert other.model.regularizer.state_dict()["started"] == 1


def test_a_pause_makes_progress_and_is_not_asked_after_the_last_batch() -> None:
    trainer = trainer_of("ae", {})
    assert trainer.run_epoch(1, lambda: True) is None
    assert trainer.batch == 1, "at least one batch"
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    assert trainer.run_epoch(1, never) is not None
    assert (asked, trainer.batch) == (STEPS - 2, 0)


def test_another_epoch_than_the_one_under_way_is_refused() -> None:
    trainer = trainer_of("ae", {})
    trainer.run_epoch(1, lambda: True)
    with pytest.raises(ValueError, match="epoch 1 is under way, not 2"):
        trainer.run_epoch(2)


def test_a_launched_training_goes_on_replayed() -> None:
    """The Adams keep their own way of launching, whatever the saved ones had."""
    whole, first = trainer_of("proto-vae", {"prototypes": 3}), trainer_of("proto-vae", {"prototypes": 3})
    finish(whole, 1)
    for epoch in (1, 2):
        first.run_epoch(epoch)
    first.run_epoch(3, at(first.loop, 2))
    state = through_bytes(first)
    for saved in state["optimizers"].values():
        saved["param_groups"][0].update(fused=False, capturable=True, foreach=True)
    second = trainer_of("proto-vae", {"prototypes": 3}, graphs=True)
    second.load_state_dict(state)
    for optimizer in second.stepper.optimizers.values():
        group = optimizer.param_groups[0]
        assert (group["fused"], group["capturable"], group["foreach"]) == (True, False, None)
    finish(second, 3)
    assert_same_training(second, whole)


def test_images_that_stream_into_a_graph_go_on_in_the_middle_of_an_epoch() -> None:
    how: Any = {"graphs": True, "resident": False}
    whole, first, second = (trainer_of("vae-kl", {}, **how) for _ in range(3))
    finish(whole, 1)
    assert first.run_epoch(1, at(first.loop, 2)) is None
    second.load_state_dict(through_bytes(first))
    finish(second, 1)
    assert_same_training(second, whole)


@pytest.mark.parametrize("graphs", [True, False])
def test_asking_whether_to_pause_does_not_wait_for_the_device(graphs: bool) -> None:
    trainer = trainer_of("proto-vae", {"prototypes": 3}, graphs=graphs)
    for epoch in (1, 2, 3):
        trainer.run_epoch(epoch)
    progress_S = trainer._progress(4)
    points = progress_S.tolist
    with HostSyncFinder() as finder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_S, "tolist", points)  # the progress comes from the host as it is
        trainer.loop.run(3, 4, progress_S, 2, lambda: False)
    assert (finder.found, trainer.loop.done) == ([], STEPS)


def test_a_meter_goes_on_from_its_state_and_refuses_another_ones() -> None:
    meter, other = Meter(), Meter()
    assert meter.state_dict() == {}
    meter.load_state_dict({}, CPU)
    for value in (1.0, 3.0):
        meter.add("losses", {"a": torch.tensor(value)})
        meter.maximum("log_max", {"b": torch.tensor(value)})
        meter.end_batch()
    other.load_state_dict(meter.state_dict(), CPU)
    for each in (meter, other):
        each.add("losses", {"a": torch.tensor(8.0)})
        each.maximum("log_max", {"b": torch.tensor(2.0)})
        each.end_batch()
        assert each.read() == {"losses": {"a": 4.0}, "log_max": {"b": 3.0}}
    stranger = Meter()
    stranger.add("losses", {"c": torch.tensor(1.0)})
    stranger.end_batch()
    with pytest.raises(ValueError, match="recorded"):
        stranger.load_state_dict(meter.state_dict(), CPU)


def test_noise_of_another_kind_of_device_is_seeded_anew() -> None:
    state = {**noise_state(CPU), "device": "cuda"}
    torch.randn(5)
    restore_noise(state, CPU, 17)
    assert torch.equal(torch.randn(3), torch.randn(3, generator=torch.Generator().manual_seed(17)))


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("name", ["vae-kl", "proto-vae"])
def test_paused_and_continued_on_a_gpu(name: str, graphs: bool) -> None:
    """Bit for bit with deterministic kernels; and no batch waits for the device."""
    device = torch.device("cuda")
    launch = Launch(graphs=graphs, deterministic=True)
    settings = TrainingSettings(EPOCHS, 2, 8, AdamSettings(), "fp32", launch=launch)

    def trainer() -> Trainer:
        model = build_model(SHAPE, METHODS[name].cls, {}, seed=3, device=device)
        made = Trainer(model, Batches(pictures(), device), settings, 3)
        inner = made.loop.run

        def watched(*args: Any, **settings: Any) -> None:
            with no_waiting(device):
                inner(*args, **settings)

        made.loop.run = watched  # type: ignore[method-assign]
        return made

    whole = trainer()
    rows = finish(whole, 1)
    first, second = trainer(), trainer()
    for epoch in (1, 2, 3):
        first.run_epoch(epoch)
    assert first.run_epoch(4, at(first.loop, 2)) is None
    second.load_state_dict(through_bytes(first))
    torch.randn(5, device=device)
    assert numbers(finish(second, 4)) == numbers(rows[3:])
    assert_same_training(second, whole)
