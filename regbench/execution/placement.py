"""From what was asked for to an engine that is open, or to this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regbench.engines.base import Engine, EngineOptions, Resources, Setting
from regbench.errors import EnvironmentFault, UsageError
from regbench.plugins import Registry
from regbench.suite.faults import validate_texts

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
                ("--jobs", self.jobs, 1 <= (self.jobs or 1) <= MOST_JOBS, f"1 to {MOST_JOBS:,}"),
                ("--cpus-per-cell", self.cpus, 1 <= (self.cpus or 1) <= 4096, "1 to 4,096"),
                ("--gpus-per-cell", self.gpus, _share(self.gpus), "a share like 0.25 or 0.5, or 1"),
            )
            if not fine
        ]
        if wrong:
            raise UsageError("; ".join(wrong))
        return self


def _share(gpus: float | None) -> bool:
    return gpus is None or 0 < gpus <= 1


@contextmanager
def opened(placement: Placement, registry: Registry, run: Path, device: str) -> Iterator[Engine | None]:
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
    jobs = placement.jobs or cls.default_jobs(options, device)
    with cls(options, Setting(run.resolve(), jobs, device)) as engine:
        yield engine


def resources(placement: Placement, engine: Engine, device: str) -> Resources:
    """What each job needs."""
    elsewhere = engine.elsewhere(engine.options)
    cpus = placement.cpus or (1 if elsewhere else max(1, (os.cpu_count() or 1) // engine.setting.jobs))
    gpus = (placement.gpus or 1.0) if device == "cuda" else 0.0
    return Resources(cpus, gpus, placement.limit)
