"""For the tests that need a Slurm: one for all of them, started on this machine where that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engines import start_slurm


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[start_slurm.Slurm]:
    """Slurm, and this process set up to talk to it."""
    if os.environ.get("REGBENCH_TEST_SLURM") != "1":
        pytest.skip("starts a Slurm of its own: nox -s slurm")
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'regbench[slurm]'")
    if why := start_slurm.missing():
        pytest.skip(f"Slurm cannot be started here: {why}")
    slurm = start_slurm.Slurm(tmp_path_factory.mktemp("slurm"))
    slurm.start()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in slurm.environment.items():
            environment.setenv(name, value)
        yield slurm
    slurm.stop()
