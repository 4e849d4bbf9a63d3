"""Shared by the tests of the report: one run with every kind of method and trouble, and its report."""

from __future__ import annotations

import pytest

from regbench.report.build import Report, write_report
from regbench.store.records import Run
from tests.report.synthetic import make_run

METHODS = ("AE", "VAE-KL", "ProtoVAE K=1", "ProtoVAE K=10")
STATUS = {
    ("VAE-KL", "digits", 2): "diverged",
    ("ProtoVAE K=10", "digits", 1): "failed",
    ("ProtoVAE K=1", "digits", 2): "missing",
}


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three seeds, of which some cells diverged, failed, or were never run. Do not write to it."""
    path = tmp_path_factory.mktemp("runs") / "troubled"
    return make_run(path, METHODS, ["digits"], seeds=3, status=STATUS, test_images=40, shown=24)


@pytest.fixture(scope="session")
def report(troubled: Run, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Its report. Do not write to it."""
    return write_report(troubled, tmp_path_factory.mktemp("reports") / "troubled")
