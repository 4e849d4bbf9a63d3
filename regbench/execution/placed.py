"""A cell that the scheduler has given out: its present attempt, and what the store says of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regbench.engines.base import Lost, Returned
from regbench.errors import StoreError
from regbench.execution.planning import PlannedCell
from regbench.execution.tail import Tail
from regbench.execution.worker import Answer
from regbench.store.checkpoints import CheckpointShelf
from regbench.store.claims import StopLevel
from regbench.store.records import Outcome, read_json
from regbench.store.writer import CellWriter


@dataclass
class Placed:
    """A cell, and its present attempt."""

    cell: PlannedCell
    number: int
    writer: CellWriter
    handle: str = ""
    begun: float | None = None
    """When its job, or its attempt, began, on the monotonic clock: time in a queue does not count."""
    tail: Tail | None = None
    announced: float | None = None
    """When the cell's begin was told: at its first attempt's."""
    earlier: tuple[str, ...] = ()
    """Tokens of its attempts in this run that were given up."""
    ended: str = ""
    """How the one before ended."""
    places_lost: int = 0
    """Since it has last made progress."""
    furthest: tuple[int, int] = (0, 0)
    """Epochs and batches in its checkpoints when a place was lost last."""
    asked: StopLevel = ""
    cancelled: bool = False
    overdue: bool = False
    alone: bool = False
    """It is run with nothing beside it, for the last time: it ran out of memory, or its process died."""

    @property
    def title(self) -> str:
        return self.cell.spec.title

    @property
    def token(self) -> str:
        return self.writer.claim.token

    def again(self, writer: CellWriter, reason: str, *, alone: bool) -> Placed:
        """The same cell with another attempt, for ``reason``."""
        return Placed(
            self.cell,
            self.number,
            writer,
            announced=self.announced,
            earlier=(*self.earlier, self.token),
            ended=reason if self.announced is not None else "",
            places_lost=self.places_lost,
            furthest=self.furthest,
            alone=alone,
        )

    def lose_place(self) -> None:
        """Count a place that was lost; where the cell has come further than ever before, as the first."""
        reached = CheckpointShelf(self.writer.directory, {}).reached()
        if reached > self.furthest:
            self.furthest, self.places_lost = reached, 0
        self.places_lost += 1

    def outcome(self) -> Outcome | None:
        """What the store knows of the attempt's end; ``None``: nothing."""
        attempt = self.writer.attempt()
        try:
            found: dict[str, Any] = {}
            if attempt is not None and attempt.ended:
                found = read_json(attempt.directory / "outcome.json", status=str)
            done = found.get("status") == "done"
            result = self._result(ours=done)
        except StoreError as error:
            return Outcome("failed", str(error), {})
        if result is not None:
            return Outcome("done", "", dict(result["metrics"]["mean"]))
        if not found or done:  # what was committed and is there no more says nothing
            return None
        return Outcome(found["status"], found.get("reason", ""), {})

    def found_done(self) -> Outcome | None:
        """Whether a cell that had no result when it was planned has one: of a worker that outlived its own run."""
        result = None if self.cell.replace else self._result(ours=True)
        return None if result is None else Outcome("done", "", dict(result["metrics"]["mean"]))

    def _result(self, *, ours: bool) -> dict[str, Any] | None:
        """The result that this cell has got in this run; ``ours``: whether the attempt says that it has committed.

        An attempt may be killed after its commit, or given up just before it: its result counts. One that measured
        an earlier result again leaves there the name of the attempt that trained it.
        """
        if not (self.writer.result / "manifest.json").exists():
            return None
        try:
            result = read_json(self.writer.result / "result.json", attempt=str, metrics=dict)
        except StoreError:
            if ours:
                raise
            return None  # a damaged one of an earlier run, which is to be replaced
        known = result["attempt"].rpartition("-")[2] in (self.token, *self.earlier)
        return result if ours or known else None

    def write_end(self, engine: str, outcome: Outcome, log: str = "") -> None:
        """Write down an end that the worker could not write itself. Raises ``StoreError``."""
        spec = self.cell.spec
        facts = {"cell": spec.id, "engine": engine}
        attempt = self.writer.attempt() or self.writer.begin(spec.key(), facts)
        if log:
            attempt.log(log)
        attempt.end(outcome.status, outcome.reason)


def answer_of(happening: Lost | Returned) -> Answer | None:
    """The worker's; ``None`` where there is none, or none that can be read."""
    if isinstance(happening, Lost):
        return None
    try:
        return Answer.from_json(happening.answer)
    except (ValueError, TypeError):
        return None
