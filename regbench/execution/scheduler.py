"""Running cells through an engine, several at a time.

The engine says where jobs are; what became of a cell, and how far it is, is read from the store. So this is the
same for every engine, and a job whose process or machine is gone can be given out again: its claim moves on, and
what is left of it commits nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from regbench.engines.base import Engine, Happening, Lost, Resources, Returned, Started, Submission, Waiting
from regbench.errors import EnvironmentFault, PluginError, RegbenchError, StoreError
from regbench.execution.events import CellFinished, CellRetried, CellStarted, Listener
from regbench.execution.interrupt import Stop, StopSignal
from regbench.execution.job import Job, Site, code_of
from regbench.execution.placed import Placed, answer_of
from regbench.execution.planning import PlannedCell
from regbench.execution.tail import Tail
from regbench.execution.worker import Answer, hang_file
from regbench.plugins import Registry
from regbench.store.checkpoints import CheckpointShelf
from regbench.store.claims import StopLevel
from regbench.store.files import storage_errors
from regbench.store.records import Outcome
from regbench.store.writer import RunWriter

POLL_S = 0.5
PLACED_AGAIN = 5
"""A job whose machine is gone is given out again so many times in a row without a new checkpoint."""
STOP_GRACE_S = 30.0
"""A job that is to stop at its next batch has so long to get there and to write a checkpoint."""
LATE_S = 60.0
"""What a worker has written to a network file system may be seen here so much later."""


@dataclass
class _Unseen:
    """A job that has ended, and nothing to be seen of that in the store yet."""

    placed: Placed
    happening: Lost | Returned
    until: float


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
        self.late_seconds = LATE_S
        self._waiting: deque[Placed] = deque()
        self._alone: deque[Placed] = deque()
        self._running: dict[str, Placed] = {}
        self._unseen: list[_Unseen] = []
        self._outcomes: dict[str, Outcome] = {}
        self._broken: EnvironmentFault | None = None

    @property
    def side_by_side(self) -> bool:
        """Whether it is of use to give it several cells at once."""
        return self.engine.setting.jobs > 1

    def run(self, cells: Sequence[PlannedCell], first: int = 1) -> dict[str, Outcome]:
        """See :class:`regbench.execution.serial.Runs`."""
        self._outcomes = {}
        self._waiting.extend(
            Placed(cell, number, self.writer.cell(cell.slug)) for number, cell in enumerate(cells, first)
        )
        try:
            with self.signal.finishing("the epochs of the running cells"):
                while self._waiting or self._alone or self._running or self._unseen:
                    self._step()
        except Stop as stop:
            for placed in self._abandon():
                if placed.announced is not None:
                    self._finished(placed, Outcome("interrupted", str(stop), {}))
            raise
        except BaseException:
            self._abandon()
            raise
        if self._broken is not None:
            raise self._broken
        self.signal.check()
        return self._outcomes

    @property
    def _stopping(self) -> bool:
        return bool(self.signal.level) or self._broken is not None

    def _step(self) -> None:
        if self._stopping:
            self._stop()
        else:
            self._place()
        with self._engines_own():
            happened = self.engine.poll(POLL_S)
        for happening in happened:
            self._take_in(happening)
        for placed in self._running.values():
            self._follow(placed)
            self._limit(placed)
        unseen, self._unseen = self._unseen, []
        for each in unseen:
            self._settle(each.placed, each.happening, each.until)

    @contextmanager
    def _engines_own(self) -> Iterator[None]:
        """What an engine's code raises is told as the engine's."""
        try:
            yield
        except RegbenchError:
            raise
        except Exception as error:
            raise PluginError(
                f"the engine {self.site.engine!r} failed: {type(error).__name__}: {error}",
                hint="finished cells are kept; the same command goes on, --engine local perhaps without this fault",
            ) from error

    def _place(self) -> None:
        """Give out as many cells as may run; those that must be alone come last, one by one."""
        room = self.engine.setting.jobs - len(self._running)
        batch = [self._waiting.popleft() for _ in range(max(0, min(room, len(self._waiting))))]
        if not batch and not self._running and not self._unseen and self._alone:
            batch = [self._alone.popleft()]
        if not batch:
            return
        try:
            self._give_out(batch)
        except EnvironmentFault as fault:  # what runs is asked to save itself first
            self._waiting.extend(placed for placed in batch if placed.cell.id not in self._outcomes)
            self._broken = fault

    def _give_out(self, batch: Sequence[Placed]) -> None:
        jobs, given = [], []
        for placed in batch:
            placed.writer.claim.take()
            if (late := placed.found_done()) is not None:
                self._finished(placed, late)
                continue
            if placed.cell.forced and not placed.earlier:
                # Once, and here: an attempt that is placed again goes on from what it has saved.
                CheckpointShelf(placed.writer.directory, {}).clear()
            jobs.append(Submission(self._job(placed).to_json(), placed.title, self.needs))
            given.append(placed)
        if not jobs:
            return
        with self._engines_own():
            handles = list(zip(given, self.engine.submit(jobs), strict=True))
        for placed, handle in handles:
            placed.handle = handle
            self._running[handle] = placed

    def _job(self, placed: Placed) -> Job:
        cell = placed.cell
        return Job(
            site=self.site,
            spec=cell.spec,
            slug=cell.slug,
            token=placed.token,
            code=code_of(cell.spec, self.site.metrics, self.registry),
            replace=cell.replace,
            remeasure=cell.state == "remeasure",
        )

    def _cancel(self, placed: Placed, grace_seconds: float) -> None:
        placed.cancelled = True
        with self._engines_own():
            self.engine.cancel(placed.handle, grace_seconds)

    def _follow(self, placed: Placed) -> None:
        """Tell of a cell's begin and of its epochs, as its attempt shows them."""
        attempt = placed.writer.attempt()
        if attempt is None:
            return
        self._announce(placed)
        if placed.tail is None or placed.tail.attempt != attempt.directory:
            if placed.tail is not None:
                placed.ended = "its engine has placed it elsewhere"
            # Its first attempt, or the engine has begun it again.
            placed.tail = Tail(attempt.directory, placed.cell.spec)
            placed.begun = time.monotonic()
            if placed.ended:
                self.emit(CellRetried(placed.title, placed.ended))
                placed.ended = ""
        for event in placed.tail.new():
            self.emit(event)

    def _announce(self, placed: Placed) -> None:
        if placed.announced is None:
            placed.announced = time.monotonic()
            spec = placed.cell.spec
            self.emit(CellStarted(spec.title, placed.number, spec.training["epochs"]))

    def _limit(self, placed: Placed) -> None:
        """End a job that outlives its time limit although its worker should have seen to that: it may be frozen."""
        limit = self.site.limit
        if limit is None or placed.begun is None or placed.overdue:
            return
        if time.monotonic() - placed.begun > limit + 2 * self.site.grace:
            placed.overdue = True
            self._cancel(placed, 0.0)

    def _stop(self) -> None:
        """Pass a wish to stop on: through the claims, and, to stop at the next batch, through the engine, too."""
        for placed in (*self._waiting, *self._alone):
            if placed.announced is not None:  # it had begun once
                self._finished(placed, Outcome("interrupted", "stopped by a signal", {}))
        self._waiting.clear()
        self._alone.clear()
        level: StopLevel = "batch" if self._broken is not None else self.signal.level
        for placed in self._running.values():
            if placed.writer.attempt() is None or placed.begun is None:
                if not placed.cancelled:
                    self._cancel(placed, 0.0)  # there is nothing to be lost
                continue
            if level == placed.asked:
                continue
            placed.asked = level
            heard = False
            with suppress(StoreError):  # the disk may be full, which is no reason to go on
                placed.writer.claim.ask(level)
                heard = True
            if (level == "batch" or not heard) and not placed.overdue:
                self._cancel(placed, STOP_GRACE_S)

    def _take_in(self, happening: Happening) -> None:
        placed = self._running.get(happening.handle)
        if placed is None:
            return
        if isinstance(happening, Started | Waiting):
            placed.begun = time.monotonic() if isinstance(happening, Started) else None
            return
        del self._running[happening.handle]
        self._settle(placed, happening, time.monotonic() + self.late_seconds)

    def _settle(self, placed: Placed, happening: Lost | Returned, until: float) -> None:
        """A job has ended. Where that cannot be written down, the others are asked to save themselves."""
        try:
            self._judge(placed, happening, until)
        except StoreError as error:
            self._broken = self._broken or error
            self._finished(placed, Outcome("failed", str(error), {}))

    def _judge(self, placed: Placed, happening: Lost | Returned, until: float) -> None:
        """What the end of a job means for its cell."""
        answer = answer_of(happening)
        self._follow(placed)
        outcome = placed.outcome()
        stopped = outcome is not None and outcome.status == "interrupted"
        if answer is not None and answer.verdict == "ended" and outcome is None and time.monotonic() < until:
            self._unseen.append(_Unseen(placed, happening, until))
        elif placed.overdue and (outcome is None or stopped):
            self._overdue(placed, self._hang(placed))
        elif outcome is not None and stopped and not self._stopping:
            self._place_lost(placed, "its worker was told to stop")  # a queue needed the place
        elif outcome is not None and outcome.status == "oom" and not placed.alone and not self._stopping:
            self._again(placed, outcome.reason, alone=True)
        elif outcome is not None:
            self._finished(placed, outcome)
        elif isinstance(happening, Lost):
            self._lost(placed, happening)
        else:
            self._unfinished(placed, answer)

    def _unfinished(self, placed: Placed, answer: Answer | None) -> None:
        """The worker has answered, and the attempt has no end: it never began, or could not be written."""
        if answer is None:
            self._conclude(placed, Outcome("failed", "the engine brought no answer of a worker", {}))
        elif answer.verdict == "environment":
            self._broken = StoreError(answer.reason, hint=answer.hint)
            self._finished(placed, Outcome("failed", answer.reason, {}))
        elif answer.verdict == "refused":
            hint = f"; {answer.hint}" if answer.hint else ""
            self._conclude(placed, Outcome("failed", f"PluginError: {answer.reason}{hint}", {}))
        elif answer.verdict == "stopped":
            self._place_lost(placed, "its worker was told to stop")
        elif answer.verdict == "superseded":  # by somebody else's: nothing to be written there
            self._finished(placed, Outcome("failed", answer.reason, {}))
        else:
            self._conclude(placed, Outcome("failed", answer.reason or "its worker left no outcome", {}))

    def _lost(self, placed: Placed, lost: Lost) -> None:
        """The job's process or machine is gone, and nothing in the store says how it ended."""
        if stuck := self._hang(placed):
            self._overdue(placed, stuck)
        elif not lost.cells_own or self._stopping:
            self._place_lost(placed, lost.reason)
        elif placed.alone:
            memory = "; Linux kills processes so where memory runs out" if lost.signal == 9 else ""
            self._conclude(
                placed, Outcome("failed", f"{lost.reason}, also with nothing beside it{memory}", {})
            )
        else:
            self._again(placed, lost.reason, alone=True)

    def _hang(self, placed: Placed) -> str:
        """The tracebacks that the worker has left, if it did not end when its time was over; they are taken away."""
        file = hang_file(Path(self.site.run), placed.token)
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        with storage_errors(file):
            file.unlink(missing_ok=True)
        return text

    def _overdue(self, placed: Placed, traceback: str) -> None:
        limit = f"it did not end after {self.site.limit:g} s, its time limit, and its process was ended"
        self._conclude(placed, Outcome("timeout", limit, {}), traceback)

    def _place_lost(self, placed: Placed, reason: str) -> None:
        """The cell is not to blame: it goes on elsewhere, from its last checkpoint; unless all is to stop."""
        if self._stopping:
            if placed.writer.attempt() is not None:
                placed.write_end(self.site.engine, Outcome("interrupted", "stopped by a signal", {}))
            if placed.announced is not None:
                self._finished(placed, Outcome("interrupted", "stopped by a signal", {}))
            return
        placed.lose_place()
        if placed.places_lost <= PLACED_AGAIN:
            self._again(placed, reason, alone=placed.alone)
            return
        why = f"given up after {placed.places_lost} lost places without progress; the last time {reason}"
        self._conclude(placed, Outcome("failed", why, {}))

    def _again(self, placed: Placed, reason: str, *, alone: bool) -> None:
        """Give the cell out once more; the attempt that was lost can commit nothing from here on."""
        again = placed.again(self.writer.cell(placed.cell.slug), reason, alone=alone)
        again.writer.claim.take()
        late = placed.outcome()  # it may have committed until now
        if late is not None and late.status == "done":
            self._finished(placed, late)
            return
        if placed.writer.attempt() is not None and late is None:
            placed.write_end(self.site.engine, Outcome("interrupted", f"lost: {reason}", {}))
        (self._alone if alone else self._waiting).append(again)

    def _conclude(self, placed: Placed, outcome: Outcome, log: str = "") -> None:
        """Write down an end that the worker could not write itself; it is final, should the worker live after all."""
        placed.write_end(self.site.engine, outcome, log)
        self.writer.cell(placed.cell.slug).claim.take()
        self._finished(placed, outcome)

    def _finished(self, placed: Placed, outcome: Outcome) -> None:
        self._announce(placed)
        assert placed.announced is not None
        self._outcomes[placed.cell.id] = outcome
        seconds = time.monotonic() - placed.announced
        title, number = placed.title, placed.number
        self.emit(CellFinished(title, number, outcome.status, outcome.reason, seconds, outcome.metrics))

    def _abandon(self) -> list[Placed]:
        """Leaving with jobs still running, because of a second signal or a fault: end them, and say so in the store.

        Returns the cells that are left without an end.
        """
        running = [*self._running.values(), *(each.placed for each in self._unseen)]
        for handle in self._running:
            with suppress(Exception):  # the engine is closed next, which ends them, too
                self.engine.cancel(handle, 0.0)
        for placed in running:
            with suppress(StoreError):
                if placed.writer.attempt() is not None and placed.outcome() is None:
                    placed.write_end(self.site.engine, Outcome("interrupted", "stopped by a signal", {}))
        left = [*running, *self._waiting, *self._alone]
        self._waiting.clear()
        self._alone.clear()
        self._running.clear()
        self._unseen.clear()
        return left
