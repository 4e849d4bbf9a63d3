"""What the jobs of the Slurm tests do instead of running cells; each gets JSON with a ``file`` of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import FrameType

LONGEST_S = 120.0
"""No job outlives its test by much."""


def _begin(text: str) -> Path:
    """Note that a run of the job has begun: its process, and how often Slurm had put it back before."""
    file = Path(json.loads(text)["file"])
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{os.getpid()} {os.environ.get('SLURM_RESTART_COUNT', '0')}\n")
    return file


def tell(text: str) -> str:
    """Returns at once what it was given, and what it found."""
    _begin(text)
    found = {name: os.environ.get(name) for name in ("GIVEN", "FROM_SETUP", "SLURM_CPUS_PER_TASK")}
    return json.dumps({"job": json.loads(text), "found": found})


def wait(text: str) -> str:
    """Runs until ``<file>.go`` is there; stops at SIGTERM, like a worker that has reached its next batch."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    file = _begin(text)
    deadline = time.monotonic() + LONGEST_S
    while not stopped and time.monotonic() < deadline and not file.with_suffix(".go").exists():
        time.sleep(0.05)
    return "stopped" if stopped else "finished"


def stubborn(text: str) -> str:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _begin(text)
    time.sleep(LONGEST_S)
    return "outlived"


def broken(text: str) -> str:
    """Raises, as only a fault of ours does."""
    _begin(text)
    raise ZeroDivisionError("by the test's zero")
