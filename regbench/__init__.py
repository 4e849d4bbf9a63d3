"""regbench: a fair, paired, statistically honest benchmark of latent regularizers for autoencoders.

Names are loaded on first use, so that ``import regbench`` and ``regbench --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AdamOptions": "regbench.api",
    "Dims": "regbench.api",
    "Field": "regbench.api",
    "Options": "regbench.api",
    "Regularizer": "regbench.api",
    "Search": "regbench.api",
    "Update": "regbench.api",
    "Model": "regbench.model",
    "hookimpl": "regbench.hookspecs",
    "Dataset": "regbench.data.base",
    "DatasetOptions": "regbench.data.base",
    "ImageShape": "regbench.data.base",
    "Images": "regbench.data.base",
    "Sizes": "regbench.data.base",
    "Metric": "regbench.evaluation.metric",
    "Engine": "regbench.engines.base",
    "EngineOptions": "regbench.engines.base",
    "CodeMixture": "regbench.mixture",
    "Drawing": "regbench.report.figure",
    "Figure": "regbench.report.figure",
    "FigureOptions": "regbench.report.figure",
    "SelectionOptions": "regbench.report.figure",
    "SelectiveFigure": "regbench.report.figures.choose",
    "RegbenchError": "regbench.errors",
    "load_results": "regbench.workflow",
    "load_suite": "regbench.workflow",
    "plan": "regbench.workflow",
    "write_report": "regbench.workflow",
    "run": "regbench.workflow",
}
_MODULES = {"ops": "regbench.ops"}

__all__ = [
    "AdamOptions",
    "CodeMixture",
    "Dataset",
    "DatasetOptions",
    "Dims",
    "Drawing",
    "Engine",
    "EngineOptions",
    "Field",
    "Figure",
    "FigureOptions",
    "ImageShape",
    "Images",
    "Metric",
    "Model",
    "Options",
    "RegbenchError",
    "Regularizer",
    "Search",
    "SelectionOptions",
    "SelectiveFigure",
    "Sizes",
    "Update",
    "hookimpl",
    "load_results",
    "load_suite",
    "ops",
    "plan",
    "run",
    "write_report",
]

if TYPE_CHECKING:
    from regbench import ops
    from regbench.api import AdamOptions, Dims, Field, Options, Regularizer, Search, Update
    from regbench.data.base import Dataset, DatasetOptions, Images, ImageShape, Sizes
    from regbench.engines.base import Engine, EngineOptions
    from regbench.errors import RegbenchError
    from regbench.evaluation.metric import Metric
    from regbench.hookspecs import hookimpl
    from regbench.mixture import CodeMixture
    from regbench.model import Model
    from regbench.report.figure import Drawing, Figure, FigureOptions, SelectionOptions
    from regbench.report.figures.choose import SelectiveFigure
    from regbench.workflow import load_results, load_suite, plan, run, write_report


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'regbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
