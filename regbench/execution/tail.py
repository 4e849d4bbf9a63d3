"""How far a cell is that another process runs: the rows of its history as they are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from regbench.execution.events import EpochFinished
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
    """Reads ``metrics.jsonl`` of one attempt as it grows."""

    def __init__(self, attempt: Path) -> None:
        self.attempt = attempt
        self.rows: list[dict[str, Any]] = []
        self._offset = 0

    def new(self) -> int:
        """Read what has come since, and return how many rows that is; a line still being written waits."""
        try:
            with (self.attempt / "metrics.jsonl").open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read()
        except OSError:  # nothing yet, or the file system is away for a moment: the outcome will tell
            return 0
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [json.loads(line) for line in whole.splitlines()]
        self.rows += rows
        return len(rows)
