"""How a suite's steps are launched: recorded with every result, and refused before any training where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

import regbench
from regbench.errors import DeviceError
from regbench.training import launch
from tests.execution.suites import AE, write_suite


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return write_suite(tmp_path, AE)


def test_what_was_decided_is_in_the_result(suite: Path) -> None:
    run = regbench.run(suite, device="cpu", deterministic=True)
    (cell,) = run.cells
    environment, cost = cell.result["environment"], cell.result["cost"]
    assert environment["launch"] == "deterministic"
    assert environment["compile"] == "--deterministic"
    assert cost["setup_seconds"] >= 0
    assert cost["wall_seconds"] > cost["device_seconds"] > 0
    assert regbench.load_results(run.path)["launch"].tolist() == ["deterministic"]
    # Of the numbers, only the rounding depends on it: the result is found whatever is asked for.
    assert [c.state for c in regbench.plan(suite, device="cpu", eager=True).cells] == ["finished"]


def test_compilation_that_must_be_and_cannot_stops_the_run_before_it_starts(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "compiler_fault", lambda device: "no compiler")
    text = suite.read_text()
    suite.write_text(text.replace("warmup = 1", 'warmup = 1\ncompile = "on"'))
    with pytest.raises(DeviceError, match=r'compile = "on", but torch.compile fails on cpu: no compiler'):
        regbench.run(suite, device="cpu")
    assert not (tmp_path / "runs" / "tiny" / "cells").exists()
    assert regbench.run(suite, device="cpu", eager=True).cells[0].status == "done"
