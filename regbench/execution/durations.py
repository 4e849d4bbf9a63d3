"""Times that people write: ``90s``, ``5m``, ``2h``."""

from __future__ import annotations

import re

from regbench.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh])")


def seconds_in(text: str) -> float | None:
    """Seconds of a text like ``90s``, ``5m`` or ``1.5h``, more than 0; ``None`` for anything else."""
    found = _TIME.fullmatch(text.strip().lower())
    if found is None or float(found[1]) == 0:
        return None
    return float(found[1]) * _UNITS[found[2]]


def time_limit(text: str) -> float:
    """Seconds of ``--time-limit``. Raises ``UsageError``."""
    seconds = seconds_in(text)
    if seconds is None:
        raise UsageError(f"--time-limit {text[:40]!r}: expected a time like 90s, 30m or 2h")
    return seconds
