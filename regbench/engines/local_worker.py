"""The process of a slot of the local engine: ``python -m regbench.engines.local_worker MODULE:FUNCTION``.

One line of JSON per message: a job from standard input, ``started`` and the function's answer through what was
standard output. An answer that says ``retire`` is the last.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import BinaryIO

ORPHAN_GRACE_S = 60.0
"""A job whose giver is gone has so long to reach its next batch and to write a checkpoint."""


def serve(entry: str) -> None:
    """Take jobs, one a line, until the input ends; a job that runs then is stopped at its next batch."""
    # Both are ours: what plugins print belongs to the log, and what they read is none of the jobs.
    jobs_in = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs_in, jobs), name="jobs", daemon=True).start()

    def say(kind: str, answer: str = "") -> None:
        with suppress(BrokenPipeError):  # whoever gave out the jobs is gone, and standard input ends, too
            answers.write(json.dumps({"kind": kind, "answer": answer}) + "\n")
            answers.flush()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between jobs; each job handles its own
    module, _, function = entry.partition(":")
    run = getattr(importlib.import_module(module), function)
    while (job := jobs.get()) is not None:
        say("started")
        answer = run(job)
        retire = json.loads(answer).get("retire", False)
        say("retiring" if retire else "returned", answer)
        if retire:
            return


def _listen(jobs_in: BinaryIO, jobs: queue.SimpleQueue[str | None]) -> None:
    """Pass jobs on. At the end of input, whoever gave them out is gone: somebody else may run these cells now."""
    for line in jobs_in:
        jobs.put(json.loads(line))
    jobs.put(None)
    # As a queue would end it: the training stops at its next batch, and what has nothing to save ends at once.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
