"""How far a cell is that another process runs: its history as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from regbench.errors import StoreError
from regbench.execution.events import CellResumed, EpochFinished
from regbench.store.records import read_json, rows_in
from regbench.store.writer import RESUMED
from regbench.suite.cells import CellSpec


def epoch_finished(spec: CellSpec, rows: Sequence[dict[str, Any]]) -> EpochFinished:
    """The event of the last of a training's rows; the others are for its pace."""
    row, epochs, batch = rows[-1], spec.training["epochs"], spec.training["batch_size"]
    recent = median(each["seconds"] for each in rows[-5:] if each["phase"] == row["phase"])
    return EpochFinished(
        cell=spec.title,
        epoch=row["epoch"],
        epochs=epochs,
        phase=row["phase"],
        losses=row["losses"],
        images_per_second=spec.train_images // batch * batch / recent,
        seconds_left=(epochs - row["epoch"]) * recent,
        evaluation=row.get("evaluation", {}),
    )


class Tail:
    """Follows one attempt."""

    def __init__(self, attempt: Path, spec: CellSpec) -> None:
        self.attempt = attempt
        self._spec = spec
        self._rows: list[dict[str, Any]] = []
        self._offset = 0
        self._restored: int | None = None
        """Rows that come from an earlier attempt; ``None``: not known."""

    def new(self) -> list[CellResumed | EpochFinished]:
        """What has happened since, as the cell itself would tell it; a line still being written waits."""
        rows = self._read()
        events: list[CellResumed | EpochFinished] = []
        if self._restored is None:
            events += self._resumption()  # it is written before the first row
            if events or rows:
                self._restored = events[0].epoch if events else 0
        for row in rows:
            if _finite(row):  # a row that has lost its numbers ends the cell, which its outcome will tell
                self._rows.append(row)
                if len(self._rows) > (self._restored or 0):
                    events.append(epoch_finished(self._spec, self._rows))
        return events

    def _read(self) -> list[dict[str, Any]]:
        try:
            with (self.attempt / "metrics.jsonl").open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read()
        except OSError:  # nothing yet, or the file system is away for a moment: the outcome will tell
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return rows_in(whole)

    def _resumption(self) -> list[CellResumed | EpochFinished]:
        with suppress(StoreError):  # there is none, as a rule
            found = read_json(self.attempt / RESUMED, epoch=int, batch=int, notes=list)
            epochs = self._spec.training["epochs"]
            return [
                CellResumed(self._spec.title, found["epoch"], epochs, found["batch"], tuple(found["notes"]))
            ]
        return []


def _finite(row: dict[str, Any]) -> bool:
    """Whether all its numbers are; others are kept as texts."""
    if not {"epoch", "phase", "seconds", "losses"} <= row.keys():
        return False
    groups = [row.get(name, {}) for name in ("losses", "log", "log_max")]
    return not any(isinstance(value, str) for group in groups for value in group.values())
