"""The bars of a running suite, with several cells at a time."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from regbench.cli.live import MOST_BARS, Live
from regbench.cli.progress import _Plain
from regbench.execution.events import (
    CellFinished,
    CellStarted,
    EpochFinished,
    SuiteFinished,
    SuiteStarted,
)


def epoch(cell: str, number: int, of: int = 4) -> EpochFinished:
    return EpochFinished(cell, number, of, "warmup", {"warmup": 0.5}, 100.0, 3.0)


def test_each_running_cell_has_a_bar_of_its_own() -> None:
    live = Live(Console(file=io.StringIO(), width=120))
    live(SuiteStarted("s", "runs/s", 3, 3, "cpu"))
    live(CellStarted("a", 1, 4))
    live(CellStarted("b", 2, 4))
    live(epoch("b", 2))
    live(epoch("a", 1))
    bars = {task.description: task.completed for task in live.progress.tasks}
    assert bars == {"s": 0, "a": 1, "b": 2}
    live(CellFinished("b", 2, "done", "", 1.0))
    bars = {task.description: task.completed for task in live.progress.tasks}
    assert bars == {"s": 1, "a": 1}
    live(CellFinished("never begun", 3, "failed", "no data", 0.0))
    live(CellFinished("a", 1, "interrupted", "", 1.0))
    live(SuiteFinished(1, 1, 1, 2.0))
    assert [task.description for task in live.progress.tasks] == ["s"]


def test_more_cells_than_lines_wait_for_a_bar() -> None:
    live = Live(Console(file=io.StringIO(), width=120))
    cells = [f"c{number}" for number in range(MOST_BARS + 2)]
    live(SuiteStarted("s", "runs/s", len(cells), len(cells), "cpu"))
    for number, cell in enumerate(cells, 1):
        live(CellStarted(cell, number, 4))
    shown = [task.description for task in live.progress.tasks if task.visible]
    assert shown == ["s", *cells[:MOST_BARS]]
    live(CellFinished(cells[0], 1, "done", "", 1.0))
    shown = [task.description for task in live.progress.tasks if task.visible]
    assert shown == ["s", *cells[1 : MOST_BARS + 1]]


def test_plain_lines_name_the_cell_where_several_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("regbench.cli.progress.time.monotonic", lambda: now[0])
    plain = _Plain()
    plain(SuiteStarted("s", "runs/s", 2, 2, "cpu"))
    plain(CellStarted("a", 1, 4))
    now[0] = 31.0
    plain(epoch("a", 1))
    plain(CellStarted("b", 2, 4))
    plain(epoch("b", 1))  # it has just begun
    now[0] = 62.0
    plain(epoch("b", 2))
    plain(epoch("a", 2))
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch " in line]
    assert [re.sub(r";.*", "", line) for line in lines] == [
        "  epoch 1/4 warmup: warmup 0.5",
        "  b: epoch 2/4 warmup: warmup 0.5",
        "  a: epoch 2/4 warmup: warmup 0.5",
    ]
