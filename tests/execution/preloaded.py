"""Imports all that a run needs, also what it imports late; a fork server that has done so starts runs in no time."""

import importlib

from regbench.plugins import registry

for name in (
    "regbench.cell",
    "regbench.cli.app",
    "regbench.evaluation.probe",
    "regbench.execution.serial",
    "regbench.workflow",
    "scipy.stats",
    "skimage.metrics",
    "sklearn.discriminant_analysis",
    "sklearn.linear_model",
    "sklearn.metrics",
    "torch._dynamo",
):
    importlib.import_module(name)
registry()
