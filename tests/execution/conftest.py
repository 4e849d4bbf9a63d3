"""What several tests of this directory need."""

from __future__ import annotations

from pathlib import Path

import pytest

import regbench
from regbench.execution.planning import PlannedCell
from tests.execution.resuming import METHODS, Numbers, Place
from tests.execution.simulated import CELLS, EPOCHS
from tests.execution.suites import AE, write_suite


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlannedCell, ...]:
    place = tmp_path_factory.mktemp("plan")
    suite = write_suite(place, AE, seeds=str(CELLS), epochs=EPOCHS)
    return regbench.plan(suite, device="cpu", runs_dir=place).cells


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("whole"))
    for method in METHODS:
        assert place.run(method).status == "done"
        assert place.record(method).result["cost"]["resumed"] == []
    return place


@pytest.fixture(scope="module")
def whole(undisturbed: Place) -> dict[str, Numbers]:
    """What each method arrives at undisturbed."""
    return {method: undisturbed.numbers(method) for method in METHODS}


@pytest.fixture
def place(tmp_path: Path, undisturbed: Place) -> Place:
    place = Place(tmp_path)
    place.judged_as(undisturbed)
    return place
