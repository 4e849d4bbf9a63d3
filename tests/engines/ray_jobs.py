"""What workers do in the tests of the engine ``ray``: in the place of ``run_job``, so quickly done."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any


def act(text: str) -> str:
    """Do what the job says: ``{"do": name, "folder": path, ...}``."""
    job = json.loads(text)
    began = time.time()
    found: dict[str, Any] = ACTS[job["do"]](job) or {}
    main = threading.current_thread() is threading.main_thread()
    return json.dumps({"process": os.getpid(), "main": main, "began": began, "ended": time.time(), **found})


def _say(job: dict[str, Any]) -> dict[str, Any]:
    print(job["text"], flush=True)
    return {"said": job["text"], "colour": os.environ.get("REGBENCH_TEST_COLOUR", "")}


def _nap(job: dict[str, Any]) -> None:
    time.sleep(job["seconds"])


def _signal_itself(job: dict[str, Any]) -> None:
    os.kill(os.getpid(), job["number"])


def _raise(job: dict[str, Any]) -> None:
    raise ValueError("these are not my digits")


def _retire(job: dict[str, Any]) -> dict[str, Any]:
    return {"retire": True}


def _wait(job: dict[str, Any]) -> None:
    """Until it is stopped, as a training does that looks at a flag between its batches."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    _mark(job, "began")
    for _ in range(600):
        if stopped.is_set():
            break
        time.sleep(0.1)
    signal.signal(signal.SIGTERM, before)
    _mark(job, "ended")


def _hang(job: dict[str, Any]) -> None:
    """Whatever it is asked."""

    def ignore(number: int, frame: FrameType | None) -> None:
        _mark(job, "asked")

    signal.signal(signal.SIGTERM, ignore)
    _mark(job, "began")
    for _ in range(600):
        time.sleep(0.1)
    _mark(job, "ended")


def _hold(job: dict[str, Any]) -> None:
    """Inside a library that keeps the interpreter: no other thread of Python runs."""
    _mark(job, "began")
    ctypes.PyDLL(None).sleep(60)
    _mark(job, "ended")


def _mark(job: dict[str, Any], what: str) -> None:
    (Path(job["folder"]) / f"{job['name']}-{what}").touch()


ACTS: dict[str, Any] = {
    "say": _say,
    "nap": _nap,
    "signal": _signal_itself,
    "raise": _raise,
    "retire": _retire,
    "wait": _wait,
    "hang": _hang,
    "hold": _hold,
}
