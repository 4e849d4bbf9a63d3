"""How often a training is checkpointed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from regbench.errors import UsageError
from regbench.execution.durations import seconds_in

_EPOCHS = re.compile(r"([0-9]{1,9})\s*epochs?")


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """After so many seconds or epochs, whichever is given; with neither, only when the training is stopped.

    ``str(policy)`` is a text that :meth:`parse` reads.
    """

    seconds: float | None = 300.0
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> CheckpointPolicy:
        """``5m``, ``90s``, ``2h``, ``10 epochs`` or ``off``; raises ``UsageError`` for anything else."""
        plain = text.strip().lower()
        if plain == "off":
            return cls(seconds=None)
        if (found := _EPOCHS.fullmatch(plain)) and int(found[1]) > 0:
            return cls(seconds=None, epochs=int(found[1]))
        if (seconds := seconds_in(plain)) is not None:
            return cls(seconds=seconds)
        raise UsageError(
            f"checkpoint interval {text[:40]!r}: expected a time like 90s, 5m or 2h, a number of epochs like "
            f"'10 epochs', or off"
        )

    def __str__(self) -> str:
        if self.epochs is not None:
            return f"{self.epochs} epochs"
        if self.seconds is None:
            return "off"
        return f"{self.seconds:.9f}".rstrip("0").rstrip(".") + "s"

    def due(self, *, seconds: float, epochs: int) -> bool:
        """Whether it is time, so many seconds and whole epochs after the last checkpoint, or after the start."""
        return seconds >= (math.inf if self.seconds is None else self.seconds) or epochs >= (
            math.inf if self.epochs is None else self.epochs
        )
