"""What one directory of a run stands: commits per second of several processes, and listings."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from regbench.store.files import append_line
from regbench.store.writer import CellWriter

EPOCHS = 2
"""Lines that each cell writes into its metrics.jsonl."""
ROW = {"epoch": 1, "phase": "regularized", "losses": {"reconstruction": 0.1}, "seconds": 1.0}

_start: Barrier


def commit_cell(cells: Path, files: Mapping[str, bytes]) -> None:
    """All that the store does for one cell from its start to its result; the cell is made up."""
    cell = CellWriter(cells / f"set-0-method-s0-{uuid.uuid4().hex[:16]}")
    attempt = cell.begin({"schema": 1}, {"cell": "made up"})
    for _ in range(EPOCHS):
        attempt.metrics(ROW)
    attempt.commit(files)


def files_of(result: Path) -> dict[str, bytes]:
    """The files of a finished result, as a worker hands them to the store."""
    return {path.name: path.read_bytes() for path in result.iterdir() if path.name != "manifest.json"}


def commits_per_second(
    cells: Path, files: Mapping[str, bytes], *, processes: int, sync: bool, seconds: float
) -> float:
    """Cells that so many processes commit into one ``cells/`` directory; ``sync``: with every fsync, as always."""
    context = get_context("spawn")
    start = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _ready, (start,)) as pool:
        jobs = [pool.submit(_commit_for, cells, files, sync, seconds) for _ in range(processes)]
        return sum(job.result() for job in jobs)


def _ready(start: Barrier) -> None:
    global _start
    _start = start


def _commit_for(cells: Path, files: Mapping[str, bytes], sync: bool, seconds: float) -> float:
    if not sync:
        os.fsync = lambda descriptor: None
    _start.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        commit_cell(cells, files)
        done += 1
    return done / (time.perf_counter() - began)


def lines_per_second(directory: Path, seconds: float) -> float:
    """Epochs that one process writes into a metrics.jsonl, each of them synced."""
    file, began, done = directory / "metrics.jsonl", time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        append_line(file, str(ROW))
        done += 1
    return done / (time.perf_counter() - began)


def fill(cells: Path, count: int) -> None:
    """Make so many empty directories with names as long as those of cells."""
    cells.mkdir(parents=True)
    for number in range(count):
        (cells / f"set-0-infovae-mmd-weight-0-001-s{number}-{uuid.uuid4().hex[:16]}").mkdir()


def listing(cells: Path, rounds: int) -> float:
    """Seconds that one listing takes as planning does it; the fastest of some."""
    from regbench.execution.planning import folders  # imports torch, which those that commit do without

    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        folders(cells)
        times.append(time.perf_counter() - began)
    return min(times)
