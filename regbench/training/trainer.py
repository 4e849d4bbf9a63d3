"""The epoch loop: warm-up, start of the regularization, regularized epochs. One loop for all methods."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regbench.data.batches import Batches
from regbench.errors import Diverged
from regbench.model import LossScale, Model
from regbench.modes import deterministic_convolutions, full_float32, synchronize
from regbench.seeding import derive
from regbench.training.precision import Precision
from regbench.training.stepper import AdamSettings, Meter, Stepper


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What the numbers of a training depend on, all resolved."""

    epochs: int
    warmup: int
    batch_size: int
    adam: AdamSettings
    precision: Precision
    loss_scale: LossScale = "sum"


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
        model.train()
        with full_float32(), deterministic_convolutions():
            example = next(batches.epoch(seed, 0, settings.batch_size))
            self.stepper = Stepper(model, settings.adam, settings.precision, example)
        self.batches_per_epoch = len(batches) // settings.batch_size
        self.images_per_epoch = self.batches_per_epoch * settings.batch_size

    def phase(self, epoch: int) -> str:
        """``warmup`` or ``regularized``."""
        return "warmup" if epoch <= self.settings.warmup else "regularized"

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch and return its row: epoch, phase, losses, log, log_max, seconds.

        Raises :class:`regbench.errors.Diverged` if any recorded value is not finite; its ``row`` is attached.
        """
        phase = self.phase(epoch)
        with full_float32(), deterministic_convolutions():
            if epoch == self.settings.warmup + 1:
                self._begin_regularization()
            _seed_noise(derive(self.seed, "noise", epoch))
            meter = Meter()
            synchronize(self.device)
            started = time.perf_counter()
            self._train(epoch, phase, meter)
            read = meter.read()
            synchronize(self.device)
        row: dict[str, Any] = {
            "epoch": epoch,
            "phase": phase,
            "losses": read.get("losses", {}),
            "log": read.get("log", {}),
            "log_max": read.get("log_max", {}),
            "seconds": time.perf_counter() - started,
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

    def _train(self, epoch: int, phase: str, meter: Meter) -> None:
        settings = self.settings
        steps = self.batches_per_epoch
        total = steps * max(settings.epochs - settings.warmup, 1)
        done = steps * (epoch - settings.warmup - 1)
        for index, x_BCHW in enumerate(self.batches.epoch(self.seed, epoch, settings.batch_size)):
            if phase == "warmup":
                self.stepper.warmup_step(x_BCHW, meter)
                self.optimizer_steps += 1
            else:
                self.model.progress.fill_((done + index) / total)
                self.stepper.regularized_step(x_BCHW, meter)
                self.optimizer_steps += self.stepper.steps_per_batch

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
        self.optimizer_steps = state["optimizer_steps"]


def _seed_noise(seed: int) -> None:
    torch.manual_seed(seed)
