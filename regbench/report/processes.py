"""Several processes that draw figures side by side, started while this one is still importing matplotlib."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import BaseContext

MOST = 8
"""Processes at a time; each takes a few hundred MB."""
WORTH_SHARING = 4
"""Pictures from which on starting processes takes less time than they save."""
_MODULES = (
    "regbench.report.draw",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
)


def processes_for(figures: int, datasets: int) -> int:
    """How many processes to draw so many kinds of figures in, each a picture per data set; 1: just this one."""
    if figures * datasets < WORTH_SHARING:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, figures, MOST)


def context() -> BaseContext:
    """How they are started: by a server that has all modules, where the system has such a thing; never by a fork of
    this process, which may have threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([*_MODULES])
    return found


def prepare() -> None:
    """Start that server now, so that it is ready when it is needed."""
    if context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
