"""What a cell of one kind takes: a few epochs of its own trainer and a small evaluation, timed and scaled up."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median_low
from typing import TypeVar

import numpy as np
import psutil
import torch

from regbench.api import Regularizer
from regbench.assess import Assessment, CellData, assess, curve_point
from regbench.cell import launch_of, model_of, settings_of, step_flops
from regbench.data.batches import RESIDENT_SHARE, Batches
from regbench.data.split import SplitSizes
from regbench.errors import Diverged
from regbench.estimate.noise import noise_classifier, noise_images, noise_split
from regbench.evaluation.evaluate import quick_mse
from regbench.evaluation.metric import Metric
from regbench.evaluation.selection import curve_epochs
from regbench.model import Model
from regbench.modes import synchronize
from regbench.plugins import Registry
from regbench.suite.cells import CellSpec
from regbench.training.launch import LaunchWishes
from regbench.training.trainer import Trainer

T = TypeVar("T")

PHASE_SECONDS = 0.2
"""What a cell does over and over is timed for about this long, three times at most ..."""
SLOW_SECONDS = 1.0
"""... and twice at least, unless once takes as long as this."""
EVALUATION_SECONDS = 0.5
"""The evaluation is timed on so many images as take about this long, 64 at least."""
_CPU_RATE = 3e10
"""Operations per second, roughly: it decides how many batches make an epoch of the probe, and nothing else."""
_GPU_BATCHES = 32
_IMAGE_SECONDS = 4e-4
"""What an evaluation takes per test image besides the nets, roughly: it decides how many images are evaluated."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimated cost of one cell."""

    seconds: float
    """In all."""
    training: float
    """Seconds of the epochs."""
    curves: float
    """Seconds of the evaluations at chosen epochs."""
    memory_bytes: int
    """Of the device; on the CPU of the whole process."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured of one kind, in seconds and bytes."""

    setup: float
    """Model, trainer, rehearsal, and what the first epochs take on top of later ones."""
    warmup_batch: float
    regularized_batch: float
    start: float
    """``on_regularization_start`` and ``on_training_end``, over all training images."""
    epoch_start: float
    """``on_epoch_start`` over all training images."""
    curve_point: float
    assessment: float
    """The evaluation at the end, and packing its arrays."""
    memory: int

    def cost(self, spec: CellSpec, split: SplitSizes, *, trains: bool = True) -> Cost:
        """Of a cell; ``trains`` false: only its saved weights are evaluated."""
        if not trains:
            return Cost(self.assessment, 0.0, 0.0, self.memory)
        _, settings = settings_of(spec)
        steps = split.train // settings.batch_size
        regularized = settings.epochs - settings.warmup
        training = steps * (settings.warmup * self.warmup_batch + regularized * self.regularized_batch)
        training += regularized * self.epoch_start
        curves = self.curve_point * len(curve_epochs(settings.epochs, settings.warmup, spec.curve_points))
        seconds = self.setup + training + self.start + curves + self.assessment
        return Cost(seconds, training, curves, self.memory)


class Probe:
    """Measures the rates of one kind, of which ``spec`` is a cell."""

    def __init__(
        self,
        spec: CellSpec,
        split: SplitSizes,
        registry: Registry,
        metrics: Sequence[str],
        device: torch.device,
        wishes: LaunchWishes,
    ) -> None:
        self.wishes = wishes
        self.spec = spec
        self.split = split
        self.device = device
        self.metrics: list[Metric] = [registry.metric(name).cls() for name in metrics]
        self.method: type[Regularizer] = registry.regularizer(spec.regularizer).cls
        self._peak = 0

    def measure(self) -> Rates:
        trainer, built = self._timed(self._trainer)
        model = trainer.model
        share = self._share(model)
        data = self._noise(share)
        _, rehearsal = self._timed(lambda: self._assess(model, data.glimpse()))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        warmup = trainer.settings.warmup
        extra = warm = 0.0
        if warmup:
            warm, extra = self._phase(trainer, 1, 1)
        start = self._pass(trainer, "on_regularization_start")
        each = self._pass(trainer, "on_epoch_start")
        full, more = self._phase(trainer, warmup + 1, warmup + 2)
        end = self._pass(trainer, "on_training_end")
        self._revive(model)
        point = self._repeated(lambda: curve_point(model, data))
        self._note_memory()
        evaluation = self._evaluation(model, data, share)
        count = trainer.images_per_epoch // trainer.settings.batch_size
        return Rates(
            setup=built + rehearsal + extra + max(more - start, 0.0),
            warmup_batch=warm / count,
            regularized_batch=max(full - each, 0.0) / count,
            start=(start + end) * self.split.train / len(trainer.batches),
            epoch_start=each * self.split.train / len(trainer.batches),
            curve_point=point / share,
            assessment=evaluation,
            memory=self._peak + self._images(data, trainer.batches),
        )

    def _revive(self, model: Model) -> None:
        """Fresh weights, where training on noise has lost the numbers: no metric is defined for what is not finite."""
        if all(bool(value.isfinite().all()) for value in model.state_dict().values()):
            return
        images = model.regularizer.dims.images
        fresh, _ = model_of(self.spec, self.method, self.device, images=images)
        model.load_state_dict(fresh.state_dict())

    def _trainer(self) -> Trainer:
        spec = self.spec
        launch = launch_of(spec, self.method, self.device, self.wishes)
        _, settings = settings_of(spec)
        steps = self.split.train // settings.batch_size
        enough = PHASE_SECONDS * _CPU_RATE / step_flops(spec)
        count = _GPU_BATCHES if self.device.type == "cuda" else math.ceil(enough)
        images = noise_images(min(count, steps) * settings.batch_size, spec.channels, spec.side)
        model, settings = model_of(spec, self.method, self.device, launch, images=len(images))
        # Two regularized epochs at least: the first one is not what the later ones are.
        settings = replace(settings, epochs=max(settings.epochs, settings.warmup + 2))
        return Trainer(model, Batches(images, self.device), settings, spec.seed)

    def _share(self, model: Model) -> float:
        """The part of the cell's images on which its evaluation is timed."""
        spec, split = self.spec, self.split
        images = Batches(noise_images(spec.training["batch_size"], spec.channels, spec.side), self.device)
        quick_mse(model, images)
        forward = self._timed(lambda: quick_mse(model, images))[1] / len(images)
        passes = 3 * split.test + split.train / 2
        share = EVALUATION_SECONDS / (forward * passes + _IMAGE_SECONDS * split.test)
        return min(max(share, 64 / split.test), 1.0)

    def _noise(self, share: float) -> CellData:
        """A part of a data set like the cell's, of noise."""
        spec, split = self.spec, self.split
        train, test = math.ceil(share * split.train), math.ceil(share * split.test)
        few = noise_split(SplitSizes(train, 32, test), spec.channels, spec.side)
        subset = min(spec.training["train_subset"], split.train)
        data = CellData.on(self.device, few, math.ceil(share * subset))
        if spec.phase == "trial":
            return data
        return data.judged_by(noise_classifier(spec.channels, spec.side, self.device))

    def _evaluation(self, model: Model, data: CellData, share: float) -> float:
        """Seconds of the evaluation at the end: a straight line through two measured ones, and packing its arrays."""
        assessed, seconds = self._timed(lambda: self._assess(model, data))
        packing = self._timed(lambda: np.savez_compressed(io.BytesIO(), **assessed.arrays))[1]  # type: ignore[arg-type]
        if share == 1:
            return seconds + packing
        fewer = self._noise(share / 2)
        less = self._timed(lambda: self._assess(model, fewer))[1]
        return seconds + max(seconds - less, 0.0) / (share / 2) * (1 - share) + packing

    def _phase(self, trainer: Trainer, first: int, later: int) -> tuple[float, float]:
        """Seconds of an epoch of a phase, and what the first one takes on top."""

        def epoch(number: int) -> None:
            with suppress(Diverged):  # on noise it is no fault, and the epoch has been trained
                trainer.run_epoch(number)

        _, beginning = self._timed(lambda: epoch(first))
        each = self._repeated(lambda: epoch(later))
        self._note_memory()
        return each, max(beginning - each, 0.0)

    def _pass(self, trainer: Trainer, hook: str) -> float:
        """Seconds of one of the method's passes over the trainer's images; mostly it has none."""
        method = trainer.model.regularizer
        if getattr(type(method), hook) is getattr(Regularizer, hook):
            return 0.0
        batches = trainer.batches.sequential(trainer.settings.batch_size)
        with torch.no_grad():
            return self._timed(lambda: getattr(method, hook)(trainer.model, batches))[1]

    def _images(self, data: CellData, batches: Batches) -> int:
        """Bytes of the cell's own images, less those of the probe's."""
        size = self.spec.channels * self.spec.side**2
        split = self.split
        subset = min(self.spec.training["train_subset"], split.train)
        train = split.train * size
        own = (split.test + subset) * size
        probed = (len(data.test) + len(data.curve) + len(data.train) + len(batches)) * size
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            own += train if train <= RESIDENT_SHARE * free else 0
        else:
            own += train + split.heldout * size
        return max(int(own - probed), 0)

    def _assess(self, model: Model, data: CellData) -> Assessment:
        return assess(model, data, self.metrics, self.spec.seed)

    def _note_memory(self) -> None:
        """As a cell does after each epoch."""
        if self.device.type == "cuda":
            self._peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self._peak = max(self._peak, psutil.Process().memory_info().rss)

    def _repeated(self, work: Callable[[], object]) -> float:
        """Seconds of ``work``: the lower median of a few times, so that one hiccup does not count."""
        times: list[float] = []
        while (
            not times
            or (len(times) == 1 and times[0] < SLOW_SECONDS)
            or (len(times) == 2 and sum(times) < PHASE_SECONDS)
        ):
            times.append(self._timed(work)[1])
        return median_low(times)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        synchronize(self.device)
        started = time.perf_counter()
        result = work()
        synchronize(self.device)
        return result, time.perf_counter() - started
