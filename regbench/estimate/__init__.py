"""What cells will cost, from a short probe: every kind trains and is evaluated for a moment on images of noise.

No data are read, so that a suite can be planned on a machine that lacks them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from regbench.cell import launch_of, step_flops
from regbench.data.split import SplitSizes, split_sizes
from regbench.errors import PluginError, RegbenchError
from regbench.estimate.cells import Cost, Probe, Rates
from regbench.estimate.datasets import DatasetProbe
from regbench.execution.planning import PlannedCell
from regbench.guard import guarded
from regbench.modes import forked, retained_memory, threads
from regbench.plugins import Registry
from regbench.store.records import read_classifier
from regbench.suite.cells import CellSpec, canonical, dataset_of
from regbench.training.launch import LaunchWishes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """What the cells of a plan will cost."""

    cells: Mapping[str, Cost] = field(default_factory=dict)
    """By id, for those that there is something to do for."""
    datasets: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each data set takes once, whatever the number of its cells: its indices, anchors and classifier.
    Reading and decoding the images is not in them."""
    once: float = 0.0
    """Seconds that first cells take on top: libraries that are imported when they are needed, compilation."""
    probe_seconds: float = 0.0
    """What estimating took."""


def estimate(
    cells: Sequence[PlannedCell],
    registry: Registry,
    device: torch.device,
    data_root: Path,
    *,
    metrics: Sequence[str],
    run_dir: Path,
    wishes: LaunchWishes | None = None,
) -> Estimate:
    """Cost of each cell that there is something to do for. Kinds that differ only in their seed, or in the images
    of data sets of one size, are probed once.

    ``metrics`` are the suite's; ``run_dir`` tells which data sets have their classifier already; ``wishes`` are
    those for launching steps.
    """
    started = time.perf_counter()
    work = _Work(registry, device, data_root, metrics, run_dir, wishes or LaunchWishes())
    costs = {cell.spec.id: work.cost(cell) for cell in cells if cell.ahead}
    datasets = {spec.dataset: work.dataset_seconds(spec) for spec in work.first_of_each}
    return Estimate(costs, datasets, work.once, time.perf_counter() - started)


class _Work:
    """What has been probed so far."""

    def __init__(
        self,
        registry: Registry,
        device: torch.device,
        data_root: Path,
        metrics: Sequence[str],
        run_dir: Path,
        wishes: LaunchWishes,
    ) -> None:
        self.wishes = wishes
        self.registry = registry
        self.device = device
        self.data_root = data_root
        self.metrics = metrics
        self.run_dir = run_dir
        self.once = 0.0
        self._rates: dict[str, Rates] = {}
        self._datasets: dict[tuple[Any, ...], DatasetProbe] = {}
        self._specs: dict[str, CellSpec] = {}

    @property
    def first_of_each(self) -> tuple[CellSpec, ...]:
        """A cell of every data set that costs were asked for."""
        return tuple(self._specs.values())

    def cost(self, cell: PlannedCell) -> Cost:
        spec = cell.spec
        self._specs.setdefault(spec.dataset, spec)
        split = self._split(spec)
        kind = _kind(spec, split)
        if kind not in self._rates:
            with (
                self._probing(f"timing {spec.method} on {spec.dataset}"),
                threads(self.device, step_flops(spec)),
                retained_memory(self.device),
            ):
                self.once = self.once or self._first_time(spec)
                self._rates[kind] = self._compiled(spec, split) or self._measure(spec, split)
        return self._rates[kind].cost(spec, split, trains=cell.state != "remeasure")

    def _compiled(self, spec: CellSpec, split: SplitSizes) -> Rates | None:
        """The rates of a kind that is compiled, once that is done; a process compiles for all its cells alike."""
        method = self.registry.regularizer(spec.regularizer).cls
        if not launch_of(spec, method, self.device, self.wishes).compile:
            return None
        started = time.perf_counter()
        self._measure(spec, split)
        compiled = time.perf_counter()
        rates = self._measure(spec, split)
        self.once += max(2 * compiled - started - time.perf_counter(), 0.0)
        return rates

    def _measure(self, spec: CellSpec, split: SplitSizes) -> Rates:
        return Probe(spec, split, self.registry, self.metrics, self.device, self.wishes).measure()

    def _first_time(self, spec: CellSpec) -> float:
        """What the first cell of a process takes on top of others: a tiny one, the first time and the second."""
        narrow = {**spec.model, "widths": [2 for _ in spec.model["widths"]]}
        training = {**spec.training, "batch_size": 32}
        tiny = replace(spec, model=narrow, training=training, compile="off")  # it would compile for nobody
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            self._measure(tiny, SplitSizes(64, 32, 64))
            seconds.append(time.perf_counter() - started)
        return max(seconds[0] - seconds[1], 0.0)

    def dataset_seconds(self, spec: CellSpec) -> float:
        split = self._split(spec)
        kind = (split, spec.channels, spec.side, spec.model["latent"])
        if kind not in self._datasets:
            with self._probing(f"timing the classifier of {spec.dataset}"):
                self._datasets[kind] = DatasetProbe.measure(spec, split, self.device)
        known = read_classifier(self.run_dir, spec.dataset)
        judged = known is not None and known["basis"]["dataset"] == spec.key()["dataset"]
        return self._datasets[kind].seconds(judged=judged)

    def _split(self, spec: CellSpec) -> SplitSizes:
        sizes = dataset_of(spec, self.registry).sizes(self.data_root)
        split = split_sizes(sizes, spec.train_images, spec.test_images)
        # Trials are evaluated on the held-out images.
        return SplitSizes(split.train, split.heldout, split.heldout) if spec.phase == "trial" else split

    @contextmanager
    def _probing(self, what: str) -> Iterator[None]:
        try:
            with forked(self.device), guarded(log.warning):
                yield
        except (RegbenchError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a plugin's code runs in there, and memory may run out
            raise PluginError(
                f"{what} failed: {type(error).__name__}: {error}",
                hint="--no-probe plans without it; regbench check looks for the method's faults",
            ) from error


def _kind(spec: CellSpec, split: SplitSizes) -> str:
    """All that the time of a cell depends on: not the seed, not which images it has, but how many of what size."""
    key = {name: value for name, value in spec.key().items() if name not in ("seed", "dataset")}
    sizes = [split.train, split.heldout, split.test, spec.channels, spec.side]
    return canonical({**key, "sizes": sizes, "curve_points": spec.curve_points, "compile": spec.compile})


__all__ = ["Cost", "Estimate", "estimate"]
