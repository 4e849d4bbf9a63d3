"""Running cells one after another in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from regbench.errors import RegbenchError
from regbench.execution.events import CellFinished, CellRetried, CellStarted, Listener
from regbench.execution.interrupt import Stop, StopSignal
from regbench.execution.planning import PlannedCell
from regbench.execution.runner import CellRunner, Task
from regbench.store.records import Outcome


class Runs(Protocol):
    """What runs cells, one after another or several at a time."""

    @property
    def side_by_side(self) -> bool:
        """Whether it is of use to give it several cells at once."""

    def run(self, cells: Sequence[PlannedCell], first: int = 1) -> dict[str, Outcome]:
        """Run ``cells``, which are all to do, and return their outcomes by id; ``first`` is the first one's number.

        A cell that fails does not stop the others. Raises ``DataError`` or ``StoreError`` where nothing more can be
        done, ``Stop`` on a signal.
        """


class Serial:
    """Runs the cells of one suite in order, in this process."""

    def __init__(self, runner: CellRunner, emit: Listener, signal: StopSignal) -> None:
        self.runner = runner
        self.emit = emit
        self.signal = signal

    @property
    def side_by_side(self) -> bool:
        return False

    def run(self, cells: Sequence[PlannedCell], first: int = 1) -> dict[str, Outcome]:
        outcomes = {}
        for number, cell in enumerate(cells, first):
            self.signal.check()
            self.emit(CellStarted(cell.spec.title, number, cell.spec.training["epochs"]))
            started = time.monotonic()
            try:
                outcome = self._run_one(cell)
            except Stop as stop:
                self._finished(cell, number, started, Outcome("interrupted", str(stop), {}))
                raise
            except RegbenchError as error:
                self._finished(cell, number, started, Outcome("failed", str(error), {}))
                raise
            self._finished(cell, number, started, outcome)
            outcomes[cell.id] = outcome
        return outcomes

    def _run_one(self, cell: PlannedCell) -> Outcome:
        outcome = self.runner.run(Task.of(cell, self.runner.writer), self.emit, self.signal)
        if outcome.status == "oom":  # once more, with nothing of an earlier cell in memory
            self.runner.release()
            self.emit(CellRetried(cell.spec.title, outcome.reason))
            # What the first try has saved counts.
            again = replace(Task.of(cell, self.runner.writer), fresh=False)
            outcome = self.runner.run(again, self.emit, self.signal)
        return outcome

    def _finished(self, cell: PlannedCell, number: int, started: float, outcome: Outcome) -> None:
        seconds = time.monotonic() - started
        title = cell.spec.title
        self.emit(CellFinished(title, number, outcome.status, outcome.reason, seconds, outcome.metrics))
