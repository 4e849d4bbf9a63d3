"""What cells will cost, from a short probe: a few timed steps of each kind on images of noise.

No data are read, so that a suite can be planned on a machine that lacks them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from regbench.api import Regularizer
from regbench.cell import settings_of, step_flops
from regbench.data.batches import Batches
from regbench.data.split import SplitSizes, split_sizes
from regbench.errors import PluginError, RegbenchError
from regbench.evaluation.evaluate import quick_mse
from regbench.evaluation.selection import curve_epochs
from regbench.execution.planning import PlannedCell
from regbench.model import build_model
from regbench.modes import deterministic_convolutions, forked, full_float32, synchronize, threads
from regbench.plugins import Registry
from regbench.suite.cells import CellSpec, canonical, dataset_of
from regbench.training.stepper import Meter
from regbench.training.trainer import Trainer

PROBED_STEPS = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimated cost of one cell."""

    seconds: float
    memory_bytes: int
    """Of the device; on the CPU of the whole process."""


def estimate(
    cells: Sequence[PlannedCell], registry: Registry, device: torch.device, data_root: Path
) -> dict[str, Cost]:
    """Cost of each cell to run, by its id. Cells that differ only in their seed are probed once."""
    kinds: dict[str, Cost] = {}
    costs = {}
    for cell in cells:
        if cell.state not in ("todo", "waiting"):  # measuring again costs next to nothing
            continue
        spec = cell.spec
        kind = canonical({k: v for k, v in spec.key().items() if k != "seed"})
        if kind not in kinds:
            sizes = dataset_of(spec, registry).sizes(data_root)
            split = split_sizes(sizes, spec.train_images, spec.test_images)
            method = registry.regularizer(spec.regularizer).cls
            try:
                with (
                    forked(device),
                    full_float32(),
                    deterministic_convolutions(),
                    threads(device, step_flops(spec)),
                ):
                    kinds[kind] = _probe(spec, split, method, device)
            except RegbenchError:
                raise
            except Exception as error:  # a plugin's code runs in there, and memory may run out
                raise PluginError(
                    f"timing a step of {spec.method} on {spec.dataset} failed: {type(error).__name__}: {error}",
                    hint="--no-probe plans without it; regbench check looks for the method's faults",
                ) from error
        costs[spec.id] = kinds[kind]
    return costs


def _probe(spec: CellSpec, split: SplitSizes, method: type[Regularizer], device: torch.device) -> Cost:
    shape, settings = settings_of(spec)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = psutil.Process().memory_info().rss
    model = build_model(
        shape, method, spec.options, seed=spec.seed, loss_scale=settings.loss_scale, device=device
    )
    noise = torch.randint(
        0, 256, (settings.batch_size, shape.channels, shape.side, shape.side), dtype=torch.uint8
    )
    batches = Batches(noise.numpy(), device)
    trainer = Trainer(model, batches, settings, spec.seed)
    x_BCHW = next(batches.sequential(settings.batch_size))
    meter = Meter()
    warm = _time(device, lambda: trainer.stepper.warmup_step(x_BCHW, meter))
    full = _time(device, lambda: trainer.stepper.regularized_step(x_BCHW, meter))
    forward = _time(device, lambda: quick_mse(model, batches)) / settings.batch_size
    steps = split.train // settings.batch_size
    points = len(curve_epochs(settings.epochs, settings.warmup, spec.curve_points))
    evaluated = split.test + min(spec.training["train_subset"], split.train)
    # The last evaluation makes about ten passes over the test images: metrics, codes, pictures, SSIM.
    seconds = (
        steps * (settings.warmup * warm + (settings.epochs - settings.warmup) * full)
        + points * evaluated * forward
        + 10 * split.test * forward
    )
    return Cost(seconds, _memory(device, before, split, shape.channels * shape.side**2))


def _memory(device: torch.device, before: int, split: SplitSizes, values: int) -> int:
    images = (split.train + split.heldout + split.test) * values
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device)) + images
    # On the CPU the decoded arrays and the resident copies are both in memory.
    return max(psutil.Process().memory_info().rss, before) + 2 * images


def _time(device: torch.device, step: Any) -> float:
    """Seconds of one call: the fastest of a few, after one that warms up."""
    step()
    synchronize(device)
    times = []
    for _ in range(PROBED_STEPS):
        started = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)
