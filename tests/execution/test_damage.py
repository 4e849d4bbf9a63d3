"""A damaged result costs its own cell a second run, and no other anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regbench
from regbench.execution import planning
from tests.execution.suites import AE, write_suite


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    regbench.run(write_suite(place, AE, seeds="2"), device="cpu", runs_dir=place / "runs")
    return place


def flip(result: Path) -> None:
    content = bytearray((result / "result.json").read_bytes())
    content[5] ^= 1
    (result / "result.json").write_bytes(bytes(content))


def file_in_place(result: Path) -> None:
    shutil.rmtree(result)
    result.write_bytes(b"")


def of_another_cell(result: Path) -> None:
    (other,) = (path for path in result.parent.parent.iterdir() if path != result.parent)
    shutil.rmtree(result)
    shutil.copytree(other / "result", result)


@pytest.mark.parametrize("damage", [flip, file_in_place, of_another_cell])
def test_a_damaged_result_is_named_set_aside_and_made_anew(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    suite, runs = tmp_path / "tiny.toml", tmp_path / "runs"
    good, bad = sorted((runs / "tiny" / "cells").iterdir())
    before = (bad / "result" / "weights.pt").read_bytes()
    untouched = (good / "result" / "manifest.json").read_bytes()
    damage(bad / "result")
    planning._warn.cache_clear()

    plan = regbench.plan(suite, device="cpu", runs_dir=runs)
    states = {cell.slug: cell.state for cell in plan.cells}
    assert states == {good.name: "finished", bad.name: "todo"}

    events: list[Any] = []
    run = regbench.run(suite, device="cpu", runs_dir=runs, listener=events.append)
    assert [cell.status for cell in run.cells] == ["done", "done"]
    assert sum(type(event).__name__ == "CellStarted" for event in events) == 1
    assert (bad / "result" / "weights.pt").read_bytes() == before
    assert len(list((bad / "superseded").iterdir())) == 1, "nothing is deleted"
    assert (good / "result" / "manifest.json").read_bytes() == untouched
    if damage is not file_in_place:  # it says nothing of a result
        (said,) = [entry.getMessage() for entry in caplog.records if "set aside" in entry.getMessage()]
        assert str(bad) in said
