"""Everything that can go wrong for a user, as one tree of exceptions.

Each class has the exit code that the command line ends with. Raise them with a sentence that says what
is wrong and where; put what to do next into ``hint``. ``regbench.cli`` catches them in one single place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class RegbenchError(Exception):
    """Base class. ``str(error)`` is what happened; ``hint`` is what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(RegbenchError):
    """The command line, or an argument of the Python API, asks for something that does not exist."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a suite file."""

    where: str
    """Dotted path inside the file (``regularizers[1].options.weight``), or ``line 3, column 7``."""
    value: str
    """What stands there, shortened; empty where nothing stands there."""
    expected: str
    """What was expected, and the nearest valid name where there is one."""
    hint: str = ""
    """What to do next, where it is not the same for all faults of a suite."""

    def __str__(self) -> str:
        found = f" = {self.value}" if self.value else ""
        return f"{self.where}{found}: {self.expected}"


class SuiteError(UsageError):
    """A suite file that cannot be used; ``faults`` holds every fault of the file at once."""

    def __init__(self, file: str, faults: Sequence[Fault], *, hint: str | None = None) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"{file}: {count}", *(f"  {fault}" for fault in faults)]
        super().__init__("\n".join(lines), hint=hint)
        self.file = file
        self.faults = tuple(faults)


class PluginError(UsageError):
    """A plugin that a suite or a command names is missing, broken, or breaks the contract."""


class EnvironmentFault(RegbenchError):
    """Data, device or disk are not as they must be."""

    exit_code = 4


class DataError(EnvironmentFault):
    """A data set is missing, truncated, altered or unreadable."""


class DeviceError(EnvironmentFault):
    """The device that was asked for is not there or cannot do what was asked."""


class StoreError(EnvironmentFault):
    """The store cannot be read or written, or holds a file that is not what it should be."""


class LockedError(RegbenchError):
    """Another process is working in the same run directory."""

    exit_code = 5


class CellsFailed(RegbenchError):
    """The suite ran to its end, and some of its cells failed."""

    exit_code = 3


class Diverged(RegbenchError):
    """A loss became NaN or infinite. Ends one cell, never the suite."""

    def __init__(self, message: str, *, epoch: int, row: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.row = row
        """The epoch's history row, kept with the cell."""


class Interrupted(RegbenchError):
    """Stopped by the user or by a signal; what had finished is kept."""

    exit_code = 130
