"""Running cells through an engine, several at a time.

The engine says where jobs are; what became of a cell, and how far it is, is read from the store. So this is the
same for every engine, and a job whose process or machine is gone can be given out again: its claim moves on, and
what is left of it commits nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regbench.engines.base import Engine, Happening, Lost, Resources, Returned, Submission
from regbench.errors import EnvironmentFault, StoreError
from regbench.execution.events import CellFinished, CellStarted, Listener
from regbench.execution.interrupt import StopSignal
from regbench.execution.job import Job, Site, code_of
from regbench.execution.planning import PlannedCell
from regbench.execution.tail import Tail, epoch_finished
from regbench.execution.worker import Answer, hang_file
from regbench.plugins import Registry
from regbench.store.claims import StopLevel
from regbench.store.records import Outcome, read_json
from regbench.store.writer import CellWriter, RunWriter

POLL_S = 0.5
PLACED_AGAIN = 5
"""A job whose machine is gone is given out again so many times."""
STOP_GRACE_S = 30.0
"""After a SIGTERM the jobs have so long to reach their next batch."""


@dataclass
class _Placed:
    """A cell, and its present attempt."""

    cell: PlannedCell
    number: int
    writer: CellWriter
    handle: str = ""
    begun: float | None = None
    """When its attempt was first seen, on the monotonic clock: time in a queue does not count."""
    tail: Tail | None = None
    announced: bool = False
    places_lost: int = 0
    asked: StopLevel = ""
    asked_at: float = 0.0
    cancelled: bool = False
    overdue: bool = False
    alone: bool = False
    """It is run with nothing beside it, for the last time: it ran out of memory, or its process died."""


class Scheduler:
    """Runs the cells of one run directory through an engine that is open."""

    def __init__(
        self,
        engine: Engine,
        writer: RunWriter,
        registry: Registry,
        site: Site,
        needs: Resources,
        emit: Listener,
        signal: StopSignal,
    ) -> None:
        self.engine = engine
        self.writer = writer
        self.registry = registry
        self.site = site
        self.needs = needs
        self.emit = emit
        self.signal = signal
        self._waiting: deque[_Placed] = deque()
        self._alone: deque[_Placed] = deque()
        self._running: dict[str, _Placed] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._broken: EnvironmentFault | None = None

    def run(self, cells: Sequence[PlannedCell], first: int = 1) -> dict[str, Outcome]:
        """See :class:`regbench.execution.serial.Runs`."""
        self._outcomes = {}
        self._waiting.extend(
            _Placed(cell, number, self._writer(cell)) for number, cell in enumerate(cells, first)
        )
        try:
            with self.signal.finishing("the epochs of the running cells"):
                while self._waiting or self._alone or self._running:
                    self._step()
        finally:
            self._abandon()
        if self._broken is not None:
            raise self._broken
        self.signal.check()
        return self._outcomes

    def _step(self) -> None:
        if self.signal.level or self._broken is not None:
            self._waiting.clear()
            self._alone.clear()
            self._stop()
        else:
            self._place()
        for happening in self.engine.poll(POLL_S):
            self._take_in(happening)
        for placed in self._running.values():
            self._follow(placed)
            self._limit(placed)

    def _writer(self, cell: PlannedCell) -> CellWriter:
        """For a new attempt: its token is in nobody's hands yet."""
        return self.writer.cell(cell.slug)

    def _place(self) -> None:
        """Give out as many cells as may run; those that must be alone come last, one by one."""
        room = self.engine.setting.jobs - len(self._running)
        batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if not batch and not self._running and self._alone:
            batch = [self._alone.popleft()]
        if not batch:
            return
        jobs = []
        for placed in batch:
            placed.writer.claim.take()
            jobs.append(Submission(self._job(placed).to_json(), placed.cell.spec.title, self.needs))
        for placed, handle in zip(batch, self.engine.submit(jobs), strict=True):
            placed.handle = handle
            self._running[handle] = placed

    def _job(self, placed: _Placed) -> Job:
        cell = placed.cell
        return Job(
            site=self.site,
            spec=cell.spec,
            slug=cell.slug,
            token=placed.writer.claim.token,
            code=code_of(cell.spec, self.site.metrics, self.registry),
            replace=cell.replace,
            remeasure=cell.state == "remeasure",
            fresh=cell.forced and not placed.places_lost and not placed.alone,
        )

    def _follow(self, placed: _Placed) -> None:
        """Tell of a cell's begin and of its epochs, as its attempt shows them."""
        attempt = placed.writer.attempt()
        if attempt is None:
            return
        if placed.begun is None:
            placed.begun = time.monotonic()
        if not placed.announced:
            placed.announced = True
            spec = placed.cell.spec
            self.emit(CellStarted(spec.title, placed.number, spec.training["epochs"]))
        if placed.tail is None or placed.tail.attempt != attempt.directory:
            placed.tail = Tail(attempt.directory)  # its first attempt, or the engine has begun it again
        tail = placed.tail
        for count in reversed(range(tail.new())):
            self.emit(epoch_finished(placed.cell.spec, tail.rows[: len(tail.rows) - count]))

    def _limit(self, placed: _Placed) -> None:
        """End a job that outlives its time limit although its worker should have seen to that: it may be frozen."""
        limit = self.site.limit
        if limit is None or placed.begun is None or placed.cancelled:
            return
        if time.monotonic() - placed.begun > limit + 2 * self.site.grace:
            placed.cancelled = placed.overdue = True
            self.engine.cancel(placed.handle, 0.0)

    def _stop(self) -> None:
        """Pass a wish to stop on, through the claims; what has not begun, or does not obey, is ended."""
        level = "batch" if self._broken is not None else self.signal.level
        now = time.monotonic()
        for placed in self._running.values():
            begun = placed.writer.attempt() is not None
            if level != placed.asked and begun:
                placed.writer.claim.ask(level)
                placed.asked, placed.asked_at = level, now
            overdue = placed.asked == "batch" and now - placed.asked_at > STOP_GRACE_S
            if (not begun or overdue) and not placed.cancelled:
                placed.cancelled = True
                self.engine.cancel(placed.handle, 0.0)

    def _take_in(self, happening: Happening) -> None:
        placed = self._running.get(happening.handle)
        if placed is None or not isinstance(happening, Lost | Returned):
            return
        self._follow(placed)
        del self._running[happening.handle]
        outcome = self._outcome(placed)
        stopping = bool(self.signal.level) or self._broken is not None
        if outcome is not None and outcome.status == "interrupted" and not stopping:
            self._place_lost(placed, "its worker was told to stop")  # a queue needed the place
        elif outcome is not None:
            self._ended(placed, outcome)
        elif isinstance(happening, Lost):
            self._lost(placed, happening)
        else:
            self._unfinished(placed, Answer.from_json(happening.answer))

    def _outcome(self, placed: _Placed) -> Outcome | None:
        """What the store knows of the attempt's end; ``None``: nothing."""
        attempt = placed.writer.attempt()
        if attempt is None:
            return None
        manifest = placed.writer.result / "manifest.json"
        if manifest.exists():
            result = read_json(placed.writer.result / "result.json")
            # Killed after the commit, before it could say so: the result counts.
            if result["attempt"] == attempt.directory.name:
                return Outcome("done", "", dict(result["metrics"]["mean"]))
        end = attempt.directory / "outcome.json"
        if not end.exists():
            return None
        found = read_json(end)
        return Outcome(found["status"], found.get("reason", ""), {})

    def _ended(self, placed: _Placed, outcome: Outcome) -> None:
        if outcome.status == "oom" and not placed.alone:
            self._again(placed, alone=True)
            return
        self._finished(placed, outcome)

    def _unfinished(self, placed: _Placed, answer: Answer) -> None:
        """The worker has answered, and the attempt has no end: it never began, or could not be written."""
        if answer.verdict == "environment":
            self._finished(placed, Outcome("failed", answer.reason, {}))
            self._broken = StoreError(answer.reason, hint=answer.hint)
        elif answer.verdict == "stopped":
            self._finished(placed, Outcome("interrupted", answer.reason, {}))
        else:
            self._finished(placed, Outcome("failed", answer.reason or "its worker left no outcome", {}))

    def _lost(self, placed: _Placed, lost: Lost) -> None:
        """The job's process or machine is gone, and nothing in the store says how it ended."""
        hang = hang_file(Path(self.site.run), placed.writer.claim.token)
        stuck = hang.read_text(encoding="utf-8", errors="replace") if hang.is_file() else ""
        hang.unlink(missing_ok=True)
        if stuck or placed.overdue:
            limit = f"it did not end after {self.site.limit:g} s, its time limit, and its process was ended"
            self._conclude(placed, Outcome("timeout", limit, {}), stuck)
        elif self.signal.level or self._broken is not None:
            self._conclude(placed, Outcome("interrupted", "stopped by a signal", {}))
        elif not lost.cells_own:
            self._place_lost(placed, lost.reason)
        elif placed.alone:
            memory = " Linux kills so where memory runs out" if lost.signal == 9 else ""
            reason = f"{lost.reason}, twice, the second time with nothing beside it;{memory}"
            self._conclude(placed, Outcome("failed", reason.rstrip(";"), {}))
        else:
            self._again(placed, alone=True)

    def _place_lost(self, placed: _Placed, reason: str) -> None:
        """The cell is not to blame: it goes on elsewhere, from its last checkpoint."""
        placed.places_lost += 1
        if placed.places_lost <= PLACED_AGAIN:
            self._again(placed, alone=placed.alone)
            return
        why = f"given up after {placed.places_lost} lost places; the last time {reason}"
        self._conclude(placed, Outcome("failed", why, {}))

    def _again(self, placed: _Placed, *, alone: bool) -> None:
        """Give the cell out once more; the attempt that was lost can commit nothing from here on."""
        again = _Placed(
            placed.cell,
            placed.number,
            self._writer(placed.cell),
            announced=placed.announced,
            places_lost=placed.places_lost,
            alone=alone,
        )
        again.writer.claim.take()
        late = self._outcome(placed)  # it may have committed until now
        if late is not None and late.status == "done":
            self._finished(placed, late)
            return
        if late is None and placed.writer.attempt() is not None:
            self._write_end(placed, Outcome("interrupted", "its process or its machine was lost", {}))
        (self._alone if alone else self._waiting).append(again)

    def _conclude(self, placed: _Placed, outcome: Outcome, log: str = "") -> None:
        """Write down an end that the worker could not write itself."""
        self._write_end(placed, outcome, log)
        self._finished(placed, outcome)

    def _write_end(self, placed: _Placed, outcome: Outcome, log: str = "") -> None:
        spec = placed.cell.spec
        facts = {"cell": spec.id, "engine": self.site.engine}
        attempt = placed.writer.attempt() or placed.writer.begin(spec.key(), facts)
        if log:
            attempt.log(log)
        attempt.end(outcome.status, outcome.reason)

    def _finished(self, placed: _Placed, outcome: Outcome) -> None:
        self._outcomes[placed.cell.id] = outcome
        seconds = 0.0 if placed.begun is None else time.monotonic() - placed.begun
        title, number = placed.cell.spec.title, placed.number
        self.emit(CellFinished(title, number, outcome.status, outcome.reason, seconds, outcome.metrics))

    def _abandon(self) -> None:
        """Leaving with jobs still running, because of a second signal or a fault: end them, and say so."""
        for placed in self._running.values():
            self.engine.cancel(placed.handle, 0.0)
            if placed.writer.attempt() is not None and self._outcome(placed) is None:
                self._write_end(placed, Outcome("interrupted", "stopped by a signal", {}))
        self._running.clear()
