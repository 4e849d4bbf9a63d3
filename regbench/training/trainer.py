"""The epoch loop: warm-up, start of the regularization, regularized epochs. One loop for all methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, overload

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
from regbench.training.loop import EagerLoop, GraphLoop, Loop, Pause
from regbench.training.noise import noise_state, restore_noise, seed_noise
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

    Batch orders and noise are pure functions of (seed, epoch), so an epoch may be run again from its start. Between
    two batches of an epoch the state holds the random streams and what the meter has recorded, too.
    """

    def __init__(self, model: Model, batches: Batches, settings: TrainingSettings, seed: int) -> None:
        self.model = model
        self.batches = batches
        self.settings = settings
        self.seed = seed
        self.optimizer_steps = 0
        self.closing_seconds = 0.0
        """Of :meth:`finish`."""
        self._under_way: Mapping[str, Any] | None = None
        """State of an epoch that was paused."""
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

    @property
    def batch(self) -> int:
        """Batches of the next epoch that have been made already; more than 0 only after a pause."""
        return 0 if self._under_way is None else int(self._under_way["batch"])

    @overload
    def run_epoch(self, epoch: int) -> dict[str, Any]: ...

    @overload
    def run_epoch(self, epoch: int, pause: Pause) -> dict[str, Any] | None: ...

    def run_epoch(self, epoch: int, pause: Pause | None = None) -> dict[str, Any] | None:
        """Train one epoch and return its row: epoch, phase, losses, log, log_max, seconds, setup_seconds.

        ``setup_seconds`` went into compilation and capture, once per phase, before the epoch was timed.

        ``pause`` is asked before each batch; where it says yes, the epoch is left there, and ``None`` is returned.
        :meth:`state_dict` then has all to go on from that batch, here or elsewhere, by calling this again.

        Raises :class:`regbench.errors.Diverged` if any recorded value is not finite; its ``row`` is attached.
        """
        phase, paused = self.phase(epoch), self._under_way
        with self._modes(phase):
            began = self._timed(lambda: self._begin_epoch(epoch)) if paused is None else 0.0
            made_ready = self._timed(lambda: self.loop.prepare(phase))
            self._enter(epoch)
            first, progress_S = self.batch, self._progress(epoch)
            seconds = began + self._timed(lambda: self.loop.run(self.seed, epoch, progress_S, first, pause))
        if paused is not None:
            made_ready, seconds = made_ready + paused["setup_seconds"], seconds + paused["seconds"]
        if self.loop.done < self.loop.steps:
            self._under_way = {
                "epoch": epoch,
                "batch": self.loop.done,
                "seconds": seconds,
                "setup_seconds": made_ready,
                "meter": self.loop.meter.state_dict(),
                "noise": noise_state(self.device),
            }
            return None
        self._under_way = None
        self.optimizer_steps += self.loop.steps * (1 if phase == WARMUP else self.stepper.steps_per_batch)
        return self._row(epoch, phase, seconds, made_ready)

    def _enter(self, epoch: int) -> None:
        """Set random streams and meter for the epoch's first batch, or for the one that it was left at."""
        left = self._under_way
        if left is None:
            seed_noise(derive(self.seed, "noise", epoch))
            return
        if left["epoch"] != epoch:
            raise ValueError(f"epoch {left['epoch']} is under way, not {epoch}")
        self.loop.meter.load_state_dict(left["meter"], self.device)
        restore_noise(left["noise"], self.device, derive(self.seed, "noise", epoch, left["batch"]))

    def _row(self, epoch: int, phase: str, seconds: float, made_ready: float) -> dict[str, Any]:
        read = self.loop.meter.read()
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

    def _begin_epoch(self, epoch: int) -> None:
        """What the method does before an epoch's first batch."""
        method = self.model.regularizer
        if epoch == self.settings.warmup + 1:
            self.stepper.begin_regularization()
            self._pass(method.on_regularization_start, "regularization-start")
        if epoch > self.settings.warmup:
            self._pass(method.on_epoch_start, "epoch-start", epoch)

    def finish(self) -> None:
        """What the method does after the last epoch. Done again, it does the same again."""
        hook = self.model.regularizer.on_training_end
        with self._modes("regularized"):
            self.closing_seconds = self._timed(lambda: self._pass(hook, "training-end"))

    def _pass(self, hook: Callable[[Model, Iterator[Tensor]], None], *purpose: str | int) -> None:
        """Call one of the method's hooks on all training images, with a random stream of its own."""
        seed_noise(derive(self.seed, *purpose))
        with torch.no_grad():
            hook(self.model, self._all_batches())

    def _all_batches(self) -> Iterator[Tensor]:
        yield from self.batches.sequential(self.settings.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, besides the seed and the number of the next epoch."""
        return {
            "model": self.model.state_dict(),
            "optimizers": self.stepper.state_dict(),
            "optimizer_steps": self.optimizer_steps,
            "under_way": self._under_way,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another trainer of the same cell was; after an exception this one is of no use any more."""
        self.model.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizers"])
        self.loop.forget()
        self.optimizer_steps = state["optimizer_steps"]
        self._under_way = state["under_way"]
