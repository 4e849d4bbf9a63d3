"""The hooks a plugin may implement. Each returns classes; regbench creates the instances.

A plugin is a module with functions of these names, each marked ``@regbench.hookimpl``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from regbench.api import Regularizer
    from regbench.data.base import Dataset
    from regbench.engines.base import Engine
    from regbench.evaluation.metric import Metric
    from regbench.report.figure import Figure

PROJECT = "regbench"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def regbench_regularizers() -> Iterable[type[Regularizer]]:  # type: ignore[empty-body]
    """Latent regularizers that suites can name under ``[[regularizers]]``."""


@hookspec
def regbench_datasets() -> Iterable[type[Dataset]]:  # type: ignore[empty-body]
    """Data sets that suites can name under ``[[datasets]]``."""


@hookspec
def regbench_metrics() -> Iterable[type[Metric]]:  # type: ignore[empty-body]
    """Metrics that suites can name in ``metrics``, computed on the test images of every cell."""


@hookspec
def regbench_figures() -> Iterable[type[Figure]]:  # type: ignore[empty-body]
    """Figures that suites can name under ``[[figures]]``, drawn by ``regbench report``."""


@hookspec
def regbench_engines() -> Iterable[type[Engine]]:  # type: ignore[empty-body]
    """Engines that ``regbench run --engine`` can name: where worker processes run."""
