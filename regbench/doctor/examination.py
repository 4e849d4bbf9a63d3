"""Whether this machine can run suites: the disk, locks, libraries, GPUs, plugins, engines, data, space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from regbench.doctor import machine
from regbench.doctor.disk import check_storage
from regbench.doctor.finding import Finding, examined
from regbench.doctor.suite import check_data, check_space, must_compile, planned
from regbench.errors import RegbenchError
from regbench.execution.placement import Placement
from regbench.resolve import Plan, load_plugins
from regbench.store.location import runs_dir as locate_runs


def examine(
    suite: Path | str | None = None,
    *,
    device: str = "auto",
    runs_dir: Path | None = None,
    data_dir: Path | None = None,
    plugins: Sequence[Path | str] = (),
    placement: Placement | None = None,
) -> Iterator[Finding]:
    """Everything that was looked at, as it is found. Nothing is left behind.

    Args:
        suite: also look at this suite's data sets and at the space that its cells will take.
        placement: where cells are to run; that other engines cannot be used is no fault.

    Raises:
        PluginError: there is no such engine, or no such file among ``plugins``.
        UsageError: the engine has no such options.
    """
    from regbench.training.precision import resolve_device

    registry = load_plugins(plugins)
    wish = (placement or Placement()).checked()
    cls, options = wish.engine_class(registry)
    jobs = wish.jobs or 1
    # Workers elsewhere take nothing of this machine's memory.
    here = 1 if cls.elsewhere(options) else jobs
    yield from examined("libraries", machine.check_libraries)
    yield from examined("processors", lambda: machine.check_processors(here))
    try:
        where = resolve_device(device)
    except RegbenchError as error:
        yield Finding("fault", "device", str(error), error.hint or "")
        where = torch.device("cpu")
    yield from examined("GPU", lambda: machine.check_gpu(where))
    yield from check_storage(locate_runs(runs_dir))
    yield from examined("plugins", lambda: machine.check_plugins(registry))
    yield from examined("engines", lambda: machine.check_engines(registry, wish))
    ready: Plan | None = None
    if suite is not None:
        settings = {"device": str(where), "runs_dir": runs_dir, "data_dir": data_dir, "plugins": plugins}
        ready, said = planned(Path(suite), **settings)
        yield from said
    if ready is not None:
        found = ready
        yield from examined("data", lambda: check_data(found))
        yield from examined("space", lambda: check_space(found, jobs))
    needed = ready is not None and must_compile(ready.cells)
    yield from examined("compiler", lambda: machine.check_compiler(where, needed=needed))
