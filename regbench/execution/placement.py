"""From what was asked for to an engine that is open, or to this process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.engines.base import Engine, EngineOptions, Resources, Setting
from regbench.engines.local import VISIBLE, visible_gpus
from regbench.errors import EnvironmentFault, UsageError
from regbench.plugins import Registry
from regbench.suite.faults import validate_texts

if TYPE_CHECKING:
    import torch

MOST_JOBS = 100_000


@dataclass(frozen=True)
class Placement:
    """Where cells run, as it was asked for. Nothing asked for: in this process, one after another."""

    engine: str = ""
    """Empty: ``local``, where one of the others is set."""
    jobs: int | None = None
    """At most so many cells at a time; ``None``: the engine's choice."""
    options: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None
    """CPU threads for each cell; ``None``: this machine's cores by ``jobs``, or 1 elsewhere."""
    gpus: float | None = None
    """Share of a GPU for each cell; ``None``: one on CUDA."""
    limit: float | None = None
    """Seconds that one attempt at a cell may take."""
    grace: float = 15.0
    """Seconds that it then has to end by itself, before its process is ended whatever it is doing."""

    @property
    def in_process(self) -> bool:
        return not (self.engine or self.options) and self.jobs is None and self.limit is None

    @property
    def name(self) -> str:
        return self.engine or "local"

    def engine_class(self, registry: Registry) -> tuple[type[Engine], EngineOptions]:
        """The engine and its options. Raises ``PluginError`` for an unknown one, ``UsageError`` for wrong options."""
        cls: type[Engine] = registry.engine(self.name).cls
        options, faults = validate_texts(cls.Options, self.options, "--engine-option")
        if options is None:
            known = ", ".join(cls.Options.model_fields) or "it has none"
            lines = "\n".join(f"  {fault}" for fault in faults)
            raise UsageError(
                f"the engine {self.name!r} does not take these options:\n{lines}",
                hint=f"options of {self.name}: {known}",
            )
        assert isinstance(options, EngineOptions)
        return cls, options

    def elsewhere(self, registry: Registry) -> bool:
        """Whether cells may run on other machines."""
        if self.in_process:
            return False
        cls, options = self.engine_class(registry)
        return cls.elsewhere(options)

    def checked(self) -> Placement:
        """Itself; raises ``UsageError`` for numbers that make no sense."""
        wrong = [
            f"{name} {value}: expected {expected}"
            for name, value, fine, expected in (
                ("--jobs", self.jobs, _within(self.jobs, 1, MOST_JOBS), f"1 to {MOST_JOBS:,}"),
                ("--cpus-per-cell", self.cpus, _within(self.cpus, 1, 4096), "1 to 4,096"),
                ("--gpus-per-cell", self.gpus, _within(self.gpus, 1e-3, 1), "a share like 0.25 or 0.5, or 1"),
                ("--time-limit", self.limit, _within(self.limit, 1e-3, 1e9), "seconds, more than 0"),
                ("grace", self.grace, _within(self.grace, 0, 1e9), "seconds"),
            )
            if not fine
        ]
        if wrong:
            raise UsageError("; ".join(wrong))
        if self.in_process and (self.cpus is not None or self.gpus is not None):
            raise UsageError(
                "--cpus-per-cell and --gpus-per-cell are for cells in worker processes",
                hint="add --jobs N, or --engine NAME",
            )
        return self


def _within(value: float | None, low: float, high: float) -> bool:
    """Whether a number is none, or lies there; NaN does not."""
    return value is None or low <= value <= high


@contextmanager
def opened(
    placement: Placement, registry: Registry, run: Path, device: torch.device
) -> Iterator[Engine | None]:
    """The engine, open; ``None`` for this process. Raises ``EnvironmentFault`` where the engine cannot work here."""
    if placement.in_process:
        yield None
        return
    cls, options = placement.engine_class(registry)
    problems = cls.check(options)
    if problems:
        raise EnvironmentFault(
            f"the engine {placement.name!r} cannot be used here: {problems[0]}",
            hint="; ".join(problems[1:]) or "regbench doctor looks at everything",
        )
    jobs = _jobs(placement, cls, options, device)
    environment = {VISIBLE: visible_gpus()[device.index]} if _certain(device) else {}
    if not os.environ.get("OMP_NUM_THREADS") and not cls.elsewhere(options):
        # Torch is told by the job; NumPy's libraries ask only when they are loaded, and would each take all cores.
        environment["OMP_NUM_THREADS"] = str(placement.cpus or threads_each(jobs))
    with cls(options, Setting(run.resolve(), jobs, device.type, environment)) as engine:
        yield engine


def _jobs(placement: Placement, cls: type[Engine], options: EngineOptions, device: torch.device) -> int:
    """How many cells at a time: on this machine's GPUs no more than their shares allow."""
    jobs = placement.jobs or cls.default_jobs(options, device.type)
    if placement.gpus is None:
        return jobs
    if device.type != "cuda":
        raise UsageError(f"--gpus-per-cell: cells run on {device.type}")
    if cls.elsewhere(options):
        return jobs
    gpus = 1 if _certain(device) else len(visible_gpus())
    places = max(1, gpus * int(1 / placement.gpus))
    return min(placement.jobs or places, places)


def resources(placement: Placement, engine: Engine, device: torch.device) -> Resources:
    """What each job needs."""
    elsewhere, jobs = engine.elsewhere(engine.options), engine.setting.jobs
    cpus = placement.cpus or (1 if elsewhere else threads_each(jobs))
    gpus = 0.0
    if device.type == "cuda":
        here = 1 if _certain(device) else max(1, len(visible_gpus()))
        gpus = placement.gpus or (1.0 if elsewhere else 1 / math.ceil(jobs / here))
    return Resources(cpus, gpus, placement.limit)


def _certain(device: torch.device) -> bool:
    """Whether one certain GPU was asked for, such as ``cuda:1``."""
    return ":" in str(device)


def threads_each(jobs: int) -> int:
    """CPU threads for each of so many processes: this process's own, shared; each OMP_NUM_THREADS where that is set."""
    import torch

    own = torch.get_num_threads()
    return own if os.environ.get("OMP_NUM_THREADS") else max(1, own // jobs)
