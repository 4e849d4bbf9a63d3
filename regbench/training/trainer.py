"""The epoch loop: warm-up, start of the regularization, regularized epochs. One loop for all methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regbench import ops
from regbench.data.batches import Batches
from regbench.errors import Diverged
from regbench.model import LossScale, Model
from regbench.modes import (
    deterministic_algorithms,
    deterministic_convolutions,
    fastest_convolutions,
    full_float32,
    synchronize,
)
from regbench.seeding import derive
from regbench.training.launch import Launch
from regbench.training.loop import EagerLoop, GraphLoop, Loop
from regbench.training.precision import Precision
from regbench.training.stepper import WARMUP, AdamSettings, Stepper


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What the numbers of a training depend on, all resolved."""

    epochs: int
    warmup: int
    batch_size: int
    adam: AdamSettings
    precision: Precision
    loss_scale: LossScale = "sum"
    launch: Launch = field(default_factory=Launch)
    """How the steps reach the device: of the numbers, only the rounding depends on it."""


class Trainer:
    """Trains one model; ``run_epoch`` is called with 1, 2, ... up to ``settings.epochs``.

    Batch orders and noise are pure functions of (seed, epoch), so an epoch may be run again from its start.
    """

    def __init__(self, model: Model, batches: Batches, settings: TrainingSettings, seed: int) -> None:
        self.model = model
        self.batches = batches
        self.settings = settings
        self.seed = seed
        self.optimizer_steps = 0
        self.device = model.progress.device
        launch = settings.launch
        model.train()
        with full_float32(), deterministic_convolutions():
            example = next(batches.epoch(seed, 0, settings.batch_size))
            self.stepper = Stepper(
                model, settings.adam, settings.precision, example, capturable=launch.graphs
            )
        self.loop: Loop = (
            GraphLoop(self.stepper, batches, settings.batch_size)
            if launch.graphs
            else EagerLoop(self.stepper, batches, settings.batch_size, rehearse=launch.compile)
        )
        self.images_per_epoch = self.loop.steps * settings.batch_size

    def phase(self, epoch: int) -> str:
        """``warmup`` or ``regularized``."""
        return WARMUP if epoch <= self.settings.warmup else "regularized"

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch and return its row: epoch, phase, losses, log, log_max, seconds, setup_seconds.

        ``setup_seconds`` went into compilation and capture, once per phase, before the epoch was timed.

        Raises :class:`regbench.errors.Diverged` if any recorded value is not finite; its ``row`` is attached.
        """
        phase = self.phase(epoch)
        with self._modes(phase):
            if epoch == self.settings.warmup + 1:
                self._begin_regularization()
            made_ready = self._timed(lambda: self.loop.prepare(phase))
            _seed_noise(derive(self.seed, "noise", epoch))
            seconds = self._timed(lambda: self.loop.run(self.seed, epoch, self._progress(epoch)))
            read = self.loop.meter.read()
        per_batch = 1 if phase == WARMUP else self.stepper.steps_per_batch
        self.optimizer_steps += self.loop.steps * per_batch
        row: dict[str, Any] = {
            "epoch": epoch,
            "phase": phase,
            "losses": read.get("losses", {}),
            "log": read.get("log", {}),
            "log_max": read.get("log_max", {}),
            "seconds": seconds,
            "setup_seconds": made_ready,
        }
        wrong = [
            f"{name} = {value}"
            for group in ("losses", "log", "log_max")
            for name, value in row[group].items()
            if not math.isfinite(value)
        ]
        if wrong:
            raise Diverged(f"epoch {epoch} ({phase}): {', '.join(wrong)}", epoch=epoch, row=row)
        return row

    def _timed(self, work: Callable[[], None]) -> float:
        """Seconds until the device has done it."""
        synchronize(self.device)
        started = time.perf_counter()
        work()
        synchronize(self.device)
        return time.perf_counter() - started

    @contextmanager
    def _modes(self, phase: str) -> Iterator[None]:
        """Kernels and arithmetic of a phase.

        The warm-up keeps to deterministic convolutions on every device, so that it leaves all methods of a seed
        with the same network.
        """
        launch = self.settings.launch
        with ExitStack() as modes:
            modes.enter_context(full_float32())
            if launch.deterministic:
                modes.enter_context(deterministic_algorithms())
            steady = launch.deterministic or phase == WARMUP
            modes.enter_context(deterministic_convolutions() if steady else fastest_convolutions())
            modes.enter_context(ops.compiled(launch.compile))
            yield

    def _progress(self, epoch: int) -> Tensor:
        """``model.progress`` at each batch of an epoch: progress_S in [0, 1), 0 during the warm-up."""
        steps, settings = self.loop.steps, self.settings
        total = steps * max(settings.epochs - settings.warmup, 1)
        done = steps * (epoch - settings.warmup - 1)
        return ((torch.arange(steps, dtype=torch.float64) + done) / total).clamp(min=0).float()

    def _begin_regularization(self) -> None:
        self.stepper.begin_regularization()
        _seed_noise(derive(self.seed, "regularization-start"))
        with torch.no_grad():
            self.model.regularizer.on_regularization_start(self.model, self._set_up_batches())

    def _set_up_batches(self) -> Iterator[Tensor]:
        yield from self.batches.sequential(self.settings.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, besides (seed, epoch)."""
        return {
            "model": self.model.state_dict(),
            "optimizers": self.stepper.state_dict(),
            "optimizer_steps": self.optimizer_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizers"])
        self.loop.forget()
        self.optimizer_steps = state["optimizer_steps"]


def _seed_noise(seed: int) -> None:
    torch.manual_seed(seed)
