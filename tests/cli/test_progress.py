"""How a cell that goes on from a checkpoint is shown."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from regbench.cli.live import Live
from regbench.cli.progress import listener
from regbench.execution.events import CellResumed, CellStarted, SuiteStarted

NOTE = "checkpoint x.ckpt is empty; kept as x.ckpt.unusable"
EVENTS = (
    SuiteStarted("s", "runs/s", 1, 1, "cpu"),
    CellStarted("a", 1, 4),
    CellResumed("a", 2, 4, 7, (NOTE,)),
    CellResumed("a", 3, 4, 0),
    CellResumed("a", 0, 4, 0, (NOTE,)),
)
LINES = [
    "a: goes on after 2 of 4 epochs and 7 batches",
    NOTE,
    "a: goes on after 3 of 4 epochs",
    "a: begins anew",
    NOTE,
]


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with listener(quiet=False, as_json=False) as listen:
        for event in EVENTS:
            listen(event)
    assert [line.strip() for line in capsys.readouterr().err.splitlines()][2:] == LINES


def test_live() -> None:
    out = io.StringIO()
    live = Live(Console(file=out, width=120))
    for event in EVENTS[:-1]:
        live(event)
    assert {task.description: task.completed for task in live.progress.tasks} == {"s": 0, "a": 3}
    live(EVENTS[-1])
    assert [line.strip() for line in out.getvalue().splitlines()][1:] == LINES


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with listener(quiet=False, as_json=True) as listen:
        listen(EVENTS[2])
    assert json.loads(capsys.readouterr().out) == {
        "event": "CellResumed",
        "cell": "a",
        "epoch": 2,
        "epochs": 4,
        "batch": 7,
        "notes": [NOTE],
    }
