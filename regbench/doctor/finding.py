"""What one check has found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from regbench.errors import RegbenchError

Level = Literal["ok", "note", "warning", "fault"]
"""Fine; good to know; may hurt; keeps something from working."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    level: Level
    what: str
    """What was looked at, in a word or two."""
    said: str
    """What was found."""
    todo: str = ""
    """What to do about it; empty where there is nothing to be done."""


Check = Callable[[], Sequence[Finding]]


def examined(what: str, check: Check) -> Iterator[Finding]:
    """What ``check`` finds; an error of ours that it raises is a fault, with its hint as what to do."""
    try:
        yield from check()
    except RegbenchError as error:
        yield Finding("fault", what, str(error), error.hint or "")
