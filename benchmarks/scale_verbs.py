"""What regbench does with all cells of a suite, each in a process of its own: seconds, memory, file operations.

python -m benchmarks.scale_verbs plan SUITE RUNS
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLS = {
    "open": ("open", "openat", "openat2"),
    "look": ("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink"),
    "read": ("read", "pread64"),
    "list": ("getdents64",),
    "change": ("mkdir", "rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "rmdir"),
    "sync": ("fsync", "fdatasync"),
}
"""System calls that a network file system has to ask its server for, by kind.

Not counted: what a client answers by itself (seeking, the size of an open file, reading past its end), and writing,
which goes out with the sync.
"""
_KIND = {call: kind for kind, calls in CALLS.items() for call in calls}
_LINE = re.compile(r"^\d+ +(\w+)\((.*?)(?:\) += (-?\d+|\?).*| <unfinished \.\.\.>)$")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one verb took."""

    seconds: dict[str, float]
    """Of each of its parts."""
    cpu: dict[str, float]
    """Processor seconds of the same."""
    before: int
    """Largest resident memory in bytes, after the imports."""
    peak: int
    """The same at the end."""


def measure(verb: str, suite: Path, runs: Path) -> Measured:
    """Do it in a process of its own."""
    return Measured(**json.loads(_process(verb, suite, runs)))


def count(verb: str, suite: Path, runs: Path) -> Counter[str]:
    """File operations of a verb below ``runs``, by kind, as ``strace`` saw them."""
    with tempfile.TemporaryDirectory(prefix="regbench-strace-") as place:
        log = Path(place) / "log"
        calls = ",".join(f"?{call}" for calls in CALLS.values() for call in calls)
        _process(
            verb, suite, runs, prefix=("strace", "-f", "-y", "-qq", "-e", f"trace={calls}", "-o", str(log))
        )
        with log.open(encoding="utf-8", errors="replace") as lines:
            return Counter(kind for line in lines if (kind := kind_of(line, str(runs.resolve()))))


def kind_of(line: str, below: str) -> str | None:
    """The kind of operation in one line of ``strace -f -y``; ``None`` for what asks no server, or lies elsewhere."""
    found = _LINE.match(line)
    if found is None or below not in line or (kind := _KIND.get(found[1])) is None:
        return None
    by_descriptor = kind == "look" and '""' in found[2]
    at_the_end = kind in ("read", "list") and found[3] == "0"
    return None if by_descriptor or at_the_end else kind


def _process(verb: str, suite: Path, runs: Path, prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, sys.executable, "-m", "benchmarks.scale_verbs", verb, str(suite), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class Clock:
    """Times the parts of a verb."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu


def peak_memory() -> int:
    """Largest resident memory of this process in bytes. Linux; ``ru_maxrss`` would count what started it, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _expand(suite: Path, runs: Path, clock: Clock) -> None:
    from regbench.data.location import data_root
    from regbench.suite.cells import expand

    found = _warm().load_plugins()
    loaded = _warm().load_suite(suite)
    with clock.part("expand"):
        expand(loaded, found, data_root(None), lambda _: "fp32")


def _plan(suite: Path, runs: Path, clock: Clock) -> None:
    resolve = _warm()
    with clock.part("plan"):
        resolve.plan(suite, device="cpu", runs_dir=runs)


def _start(suite: Path, runs: Path, clock: Clock) -> None:
    from regbench.workflow import execute

    resolve = _warm()
    with clock.part("plan"):
        ready = resolve.plan(suite, device="cpu", runs_dir=runs)
    if ready.todo:
        raise SystemExit(f"{len(ready.todo)} cells are not finished")
    with clock.part("run, nothing left to do"):
        execute(ready)


def _read(suite: Path, runs: Path, clock: Clock) -> None:
    from regbench.report.frame import load_frame
    from regbench.store.records import Run

    with clock.part("open the run"):
        run = Run.open(runs / suite.stem)
    with clock.part("status of each cell"):
        done = sum(cell.status == "done" for cell in run.cells)
    if done != len(run.cells):
        raise SystemExit(f"{len(run.cells) - done} cells are not done")
    with clock.part("results as a frame"):
        load_frame(run)


def _report(suite: Path, runs: Path, clock: Clock) -> None:
    from regbench.report.claims import judge_claims
    from regbench.report.facts import Facts
    from regbench.report.sections import build_sections
    from regbench.report.summary import summarise, tidy
    from regbench.report.tables import tables_of
    from regbench.store.records import Run

    run = Run.open(runs / suite.stem)
    with clock.part("summary, its frame included"):
        summaries = summarise(run)
    with clock.part("claims"):
        claims = judge_claims(run)
    with clock.part("tables"):
        tables_of(summaries)
        tidy(summaries).to_csv(index=False)
    with clock.part("sections"):
        build_sections(run, claims)
    with clock.part("facts"):
        facts = Facts(run)
        _ = facts.head, facts.problems, facts.methods, facts.settings, facts.data, facts.provenance


def _follow(suite: Path, runs: Path, clock: Clock) -> None:
    """What the scheduler asks of the store for each running cell, when it looks for the first time."""
    from regbench.data.location import data_root
    from regbench.execution.tail import Tail
    from regbench.store.records import Run
    from regbench.store.writer import CellWriter
    from regbench.suite.cells import expand

    templates = Run.open(runs.parent / "trained" / "trained").cells
    tokens = {cell.key["regularizer"]["name"]: cell.result["attempt"].partition("-")[2] for cell in templates}
    resolve = _warm()
    specs = expand(resolve.load_suite(suite), resolve.load_plugins(), data_root(None), lambda _: "fp32")
    cells = runs / suite.stem / "cells"
    writers = [CellWriter(cells / spec.slug, tokens[spec.regularizer]) for spec in specs]
    seen = 0
    with clock.part("look at each cell"):
        for spec, writer in zip(specs, writers, strict=True):
            attempt = writer.attempt()
            seen += attempt is not None and bool(Tail(attempt.directory, spec).new())
    if seen < len(specs):
        raise SystemExit(f"{len(specs) - seen} of {len(specs)} cells have no news")


def _commit(suite: Path, runs: Path, clock: Clock) -> None:
    """As many new cells as the run has, into a new directory beside it."""
    from benchmarks.scale_disk import commit_cell, files_of
    from regbench.store.records import Run

    made = Run.open(runs / suite.stem).cells
    files, cells = files_of(made[0].result_dir), Path(tempfile.mkdtemp(prefix="committed-", dir=runs))
    with clock.part("commit"):
        for _ in made:
            commit_cell(cells, files)


def _warm() -> Any:
    """The module that resolves suites, with all that it loads on the way."""
    import torch  # noqa: F401  # what is measured is the cells, not the imports

    from regbench import resolve
    from regbench.tuning import study  # noqa: F401

    resolve.load_plugins()
    return resolve


VERBS: dict[str, Callable[[Path, Path, Clock], None]] = {
    "expand": _expand,
    "plan": _plan,
    "start": _start,
    "read": _read,
    "report": _report,
    "follow": _follow,
    "commit": _commit,
}


def main() -> None:
    """Do what was asked for and print a :class:`Measured` as JSON."""
    verb, suite, runs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if verb in ("read", "report"):
        from regbench.report import sections, tables  # noqa: F401  # imports are not what is measured
    else:
        _warm()
    before, clock = peak_memory(), Clock()
    VERBS[verb](suite, runs, clock)
    print(json.dumps({"seconds": clock.seconds, "cpu": clock.cpu, "before": before, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
