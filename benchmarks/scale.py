"""The store, the planner and the report's numbers at 10^5 cells: time, memory, file operations, commits.

    python -m benchmarks.scale --cells 100000

The cells are made up (:mod:`benchmarks.scale_store`) and take 4 GB of disk for a while. Each verb is a process of its
own. File operations are counted with ``strace``, where it is installed. Linux.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.common import Table, write
from benchmarks.scale_disk import EPOCHS, commits_per_second, files_of, fill, lines_per_second, listing
from benchmarks.scale_store import Maker, Shape, shape_of
from benchmarks.scale_verbs import CALLS, Measured, count, measure

CPU = torch.device("cpu")
MOST_CELLS = 150_000
"""An ext4 file has at most 65,000 names, and copies share the files of what they are copied from."""
LATENCY_S = 0.001
"""What one file operation takes on a network file system: an assumption, near what NFS has within one building."""
COUNTED = {"plan": "plan", "start": "plan, then run with nothing to do", "read": "open, status, frame"}
COUNTED |= {"report": "open, all numbers of a report", "follow": "scheduler, one look at each running cell"}
COUNTED |= {"commit": "a cell from its start to its result"}


class Part(StrEnum):
    """One page each."""

    cells = "cells"
    """What regbench does with all cells of a suite."""
    files = "files"
    """File operations, commits, listings."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long all is done, besides the number of cells."""

    listings: tuple[int, ...]
    processes: tuple[int, ...]
    seconds: float
    rounds: int


FULL = Size((100, 1_000, 10_000, 100_000), (1, 2, 4, 8), 8.0, 5)
TINY = Size((10, 100), (2,), 0.05, 1)


class Bench:
    """Everything that is measured, below one directory."""

    def __init__(self, maker: Maker, shape: Shape, size: Size) -> None:
        self.maker, self.shape, self.size = maker, shape, size
        self.place = maker.directory

    def verbs(self) -> Table:
        """Seconds and memory of each verb on all cells."""
        began = time.perf_counter()
        suite, runs = self.maker.run("scale", self.shape)
        _say(f"{self.shape.title} made in {time.perf_counter() - began:.0f} s")
        rows = []
        empty = self.place / "empty"
        for verb, store, where in (
            ("expand", runs, ""),
            ("plan", empty, ", empty store"),
            ("start", runs, ", all finished"),
            ("read", runs, ""),
            ("report", runs, ""),
        ):
            found = measure(verb, suite, store)
            rows += _rows(found, where)
            _say(f"{verb}{where}: {found.seconds}, CPU {found.cpu}, peak {found.peak / 1e9:.2f} GB")
        lock = (runs / suite.stem / "suite.lock.json").stat().st_size
        notes = (
            f"{self.shape.title}. Peak: largest resident memory of the process, with what it had after its imports in "
            "brackets; parts between two peaks are of one process. All files are in the system's cache.",
            f"suite.lock.json: {lock / 1e6:.1f} MB, {lock / self.shape.cells:.0f} bytes per cell.",
        )
        return Table("All cells at once", ("what", "seconds", "CPU s", "peak GB"), tuple(rows), notes)

    def operations(self) -> Table:
        """File operations per cell: those of 120 cells less those of 40, over 80."""
        few, many = Shape(1, 2, 5), Shape(1, 2, 15)
        if shutil.which("strace") is None:
            return Table("File operations per cell", ("what", *CALLS), (), ("strace is not installed here.",))
        places = {shape: self.maker.run(f"count-{shape.cells}", shape) for shape in (few, many)}
        rows = []
        for verb, title in COUNTED.items():
            found = {shape: count(verb, *place) for shape, place in places.items()}
            more = found[many] - found[few]
            each = {kind: more[kind] / (many.cells - few.cells) for kind in CALLS}
            total = sum(each.values())
            at_all = total * LATENCY_S * self.shape.cells
            rows.append((title, *(f"{each[kind]:.1f}" for kind in CALLS), f"{total:.1f}", f"{at_all:,.0f}"))
        notes = (
            f"Counted with strace below the runs directory, for {few.cells} and for {many.cells} cells: what each "
            "further cell adds. list, change, sync: directories listed; made, renamed, removed; fsync. Not counted: "
            "what a client answers by itself, and writing, which goes out with the sync.",
            f"Last column: seconds for {self.shape.cells:,} cells one after another at {1000 * LATENCY_S:g} ms per "
            "operation. Computed, not measured: there is no network file system here.",
        )
        columns = ("what", *CALLS, "sum", f"s at {1000 * LATENCY_S:g} ms")
        return Table("File operations per cell", columns, tuple(rows), notes)

    def commits(self) -> Table:
        """Cells per second, all that the store writes for one."""
        files = files_of(self.maker.templates[-1])
        seconds, rows = self.size.seconds, []
        for processes in self.size.processes:
            rates = []
            for sync in (True, False):
                cells = self.place / f"commits-{processes}-{sync}" / "cells"
                cells.mkdir(parents=True)
                rate = commits_per_second(cells, files, processes=processes, sync=sync, seconds=seconds)
                rates.append(f"{rate:.0f}")
                shutil.rmtree(cells.parent)
            rows.append((str(processes), *rates))
        lines = lines_per_second(self.place, seconds)
        total = sum(map(len, files.values()))
        notes = (
            f"Each cell: claim, attempt, {EPOCHS} lines of metrics, a result of {len(files)} files and "
            f"{total / 1e3:.0f} kB, its outcome. All processes write into one cells/ directory, on a local ext4.",
            f"One process appends {lines:.0f} lines per second to a metrics.jsonl, an fsync each.",
        )
        return Table("Cells committed per second", ("processes", "with fsync", "without"), tuple(rows), notes)

    def listings(self) -> Table:
        """One listing of ``cells/``, as planning does it."""
        rows = []
        for entries in self.size.listings:
            cells = self.place / f"list-{entries}"
            fill(cells, entries)
            rows.append((f"{entries:,}", f"{1000 * listing(cells, self.size.rounds):.2f}"))
            shutil.rmtree(cells)
        return Table(
            "One listing of cells/", ("entries", "ms"), tuple(rows), ("Fastest of some, from the cache.",)
        )


def _rows(found: Measured, where: str) -> list[tuple[str, ...]]:
    peaks = [""] * (len(found.seconds) - 1) + [f"{found.peak / 1e9:.2f} ({found.before / 1e9:.2f})"]
    return [
        (f"{part}{where}", f"{seconds:.1f}", f"{found.cpu[part]:.1f}", peak)
        for (part, seconds), peak in zip(found.seconds.items(), peaks, strict=True)
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(
    cells: Annotated[int, typer.Option(min=8, max=MOST_CELLS, help="How many, about.")] = 100_000,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes; the numbers mean nothing.")] = False,
    place: Annotated[
        Path | None,
        typer.Option(
            help="Directory to work in; what is made there stays, and is taken again.", show_default=False
        ),
    ] = None,
    part: Annotated[
        list[Part] | None, typer.Option(help="Only this part; again for more.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the tables.", show_default=False)] = None,
) -> None:
    """Measure the store and the planner with many cells."""
    size = TINY if tiny else FULL
    wanted = part or list(Part)
    with ExitStack() as stack:
        if place is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regbench-scale-")))
        bench = Bench(Maker(place), shape_of(16 if tiny else cells), size)
        if Part.cells in wanted:
            print(write("scale-cpu", "A run of very many cells", CPU, [bench.verbs()], out))
        if Part.files in wanted:
            tables = [bench.operations(), bench.commits(), bench.listings()]
            print(
                write("scale-files-cpu", "What a run of very many cells asks of its disk", CPU, tables, out)
            )


if __name__ == "__main__":
    typer.run(main)
