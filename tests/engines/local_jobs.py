"""What workers do in the tests of the engine ``local``: in the place of ``run_job``, and without torch."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

if os.environ.get("REGBENCH_TEST_BROKEN"):
    print("I cannot be imported", file=sys.stderr)
    raise SystemExit(7)


def act(text: str) -> str:
    """Do what the job says: ``{"do": name, ...}``."""
    job = json.loads(text)
    found: dict[str, Any] = ACTS[job["do"]](job) or {}
    return json.dumps({"process": os.getpid(), **found})


def _say(job: dict[str, Any]) -> dict[str, Any]:
    print("printed", flush=True)
    return {"read": sys.stdin.read(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


def _kill(job: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(job: dict[str, Any]) -> None:
    os._exit(3)


def _crash(job: dict[str, Any]) -> None:
    ctypes.string_at(0)


def _fork_and_die(job: dict[str, Any]) -> None:
    """A child that was forked holds the pipe to the engine open."""
    if os.fork() == 0:
        Path(job["file"]).write_text(str(os.getpid()))
        time.sleep(600)
    while not Path(job["file"]).exists():
        time.sleep(0.01)
    os._exit(3)


def _start_and_die(job: dict[str, Any]) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        Path(job["file"]).write_text(str(child.pid))
        os._exit(3)


def _retire(job: dict[str, Any]) -> dict[str, Any]:
    return {"retire": True}


def _wait(job: dict[str, Any]) -> dict[str, Any]:
    """Until it is stopped, as a training is."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    Path(job["file"]).write_text(str(os.getpid()))
    while not stopped:
        time.sleep(0.01)
    Path(job["file"] + ".stopped").touch()
    return {"stopped": stopped[0]}


def _hang(job: dict[str, Any]) -> None:
    """Whatever it is asked."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGTERM, ignore)
    Path(job["file"]).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


ACTS: dict[str, Any] = {
    "say": _say,
    "kill": _kill,
    "exit": _exit,
    "crash": _crash,
    "fork": _fork_and_die,
    "start": _start_and_die,
    "retire": _retire,
    "wait": _wait,
    "hang": _hang,
}
