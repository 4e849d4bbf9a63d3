"""The bundled engines, as a plugin like any other. Their libraries are imported when an engine is opened."""

from __future__ import annotations

from regbench.engines.base import Engine
from regbench.engines.local import Local
from regbench.engines.ray import Ray
from regbench.engines.slurm import Slurm
from regbench.hookspecs import hookimpl


@hookimpl
def regbench_engines() -> list[type[Engine]]:
    return [Local, Ray, Slurm]
