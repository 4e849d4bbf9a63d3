"""Who may work on a cell now, and whether it is asked to stop: ``claim.json`` in the cell's directory.

Whoever hands a cell out writes a new token there; an attempt that finds another token than its own has been
replaced, stops, and commits nothing. A file system that shows an old claim for a while does no harm: results are
renamed into place, and the first one stays.
"""

from __future__ import annotations

import os
import platform
import uuid
from pathlib import Path
from typing import Any, Literal

from regbench.errors import StoreError
from regbench.store.files import storage_errors, write_json
from regbench.store.records import read_json

CLAIM = "claim.json"
StopLevel = Literal["", "epoch", "batch"]
"""Go on; stop once the running epoch has ended; stop at the next batch."""


class ClaimLost(StoreError):
    """Another attempt has been made responsible for the cell; this one must not touch it any more."""


def new_token() -> str:
    """Eight hexadecimal digits: the end of an attempt's directory name."""
    return uuid.uuid4().hex[:8]


class Claim:
    """One attempt's claim to one cell."""

    def __init__(self, cell: Path, token: str) -> None:
        self.path = cell / CLAIM
        self.token = token

    def take(self) -> None:
        """Make this attempt the one that may work on the cell; whoever had it before loses it."""
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write("")

    def ask(self, level: StopLevel) -> None:
        """Ask the attempt to stop at the end of its epoch, or at its next batch. Raises :class:`ClaimLost`."""
        if self.stop_level() != level:
            self._write(level)

    def stop_level(self) -> StopLevel:
        """What the attempt is asked to do. Raises :class:`ClaimLost` where the claim is another's."""
        claim = read_json(self.path)
        if claim.get("token") != self.token:
            raise ClaimLost(
                f"{self.path.parent}: another attempt has taken this cell over; this one ends and commits nothing"
            )
        level: StopLevel = claim.get("stop", "")
        return level

    def check(self) -> None:
        """Raise :class:`ClaimLost` where the claim is another's."""
        self.stop_level()

    def _write(self, level: StopLevel) -> None:
        by: dict[str, Any] = {"host": platform.node(), "pid": os.getpid()}
        write_json(self.path, {"token": self.token, "stop": level, "by": by})
