"""What several tests of this directory need."""

from __future__ import annotations

import pytest

import regbench
from regbench.execution.planning import PlannedCell
from tests.execution.simulated import CELLS, EPOCHS
from tests.execution.suites import AE, write_suite


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlannedCell, ...]:
    place = tmp_path_factory.mktemp("plan")
    suite = write_suite(place, AE, seeds=str(CELLS), epochs=EPOCHS)
    return regbench.plan(suite, device="cpu", runs_dir=place).cells
