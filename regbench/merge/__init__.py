"""Joining runs of one suite that were made on several machines: everything is checked first, then copied."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from regbench.errors import StoreError, UsageError
from regbench.merge.cells import Source, contradictions, faults_of
from regbench.merge.copy import copy_all, unfinished_faults
from regbench.merge.suites import joined_lock, other_suites
from regbench.store.files import append_line, storage_errors
from regbench.store.location import find_run
from regbench.store.records import LOCK, Run
from regbench.store.writer import RunWriter

__all__ = ["Merged", "merge"]

UNFINISHED = ".merging"
"""Where cells are copied to before they are renamed; a directory that has it is an unfinished merge."""


@dataclass(frozen=True)
class Merged:
    """What a merge has done."""

    run: str
    copied: dict[str, int]
    """Results copied, by the run that they came from."""
    kept: int
    """Results that were there already, or that several runs have alike: kept once."""
    cells: int
    """Cells of the merged suite."""
    finished: int
    remeasure: dict[str, int]
    """By data set: results that another classifier judged than the one that was kept."""
    left_out: dict[str, int]
    """By run: finished cells that its suite does not name any more."""
    notes: tuple[str, ...]
    """Where the suites differ in what does not matter; the first one's is kept."""


def merge(runs: Sequence[Path | str], into: Path, *, runs_dir: Path | None = None) -> Merged:
    """Join runs of one suite in ``into``: a new directory, or one of the runs, or an earlier merge.

    The runs themselves stay as they are. A merge that was interrupted goes on when it is called again.

    Raises:
        StoreError: a result is not as its checksums say, runs contradict each other, or their suites are not the
            same; every fault is listed, and nothing has been copied.
        LockedError: another process works in one of the runs.
    """
    found = [find_run(run, runs_dir) for run in runs]
    paths = list({path.resolve(): path for path in found}.values())
    if len(paths) < max(2, len(found)):
        raise UsageError("a merge needs two different runs", hint="regbench merge A B --into C")
    if _is_run(into) and into.resolve() not in {path.resolve() for path in paths}:
        paths.insert(0, into)
    paths.sort(key=lambda path: path.resolve() != into.resolve())  # what is there comes first
    _check_target(into)
    with ExitStack() as locks:
        for path in sorted(paths, key=lambda path: str(path.resolve())):
            locks.enter_context(RunWriter(path).locked())
        sources = [Source.read(path) for path in paths]
        faults, notes = other_suites(sources)
        for source in sources:
            faults += faults_of(source)
        faults += [] if faults else contradictions(sources)
        faults += unfinished_faults(into, sources) if not (faults or _is_run(into)) else []
        if faults:
            raise StoreError(
                "\n".join(["nothing was merged:", *(f"  {fault}" for fault in faults)]),
                hint="of two results that contradict each other, move one out of its run's cells/ "
                "(regbench reproduce tells which can be made again); others need their suite run again",
            )
        writer = RunWriter(into)
        if not any(source.path.resolve() == into.resolve() for source in sources):
            locks.enter_context(writer.locked())
        return _merge(sources, writer, notes)


def _merge(sources: Sequence[Source], writer: RunWriter, notes: Sequence[str]) -> Merged:
    joined = joined_lock(sources)
    placed = copy_all(sources, writer, writer.path / UNFINISHED)
    run = writer.write_lock(
        joined.suite, joined.methods, joined.datasets, joined.cells, sources[0].suite_files()
    )
    with storage_errors(writer.path):
        (writer.path / UNFINISHED).rmdir()
    _note(writer.path, sources)
    done = [record for record in run.cells if record.status == "done"]
    return Merged(
        run=str(writer.path),
        copied=dict(Counter(str(source.path) for source in placed.copied)),
        kept=placed.kept,
        cells=len(run.cells),
        finished=len(done),
        remeasure=_judged_otherwise(run),
        left_out={
            str(s.path): s.unnamed for s in sources if s.unnamed and s.path.resolve() != writer.path.resolve()
        },
        notes=tuple(notes),
    )


def _note(run: Path, sources: Sequence[Source]) -> None:
    """Keep on record where the cells came from; each attempt has its own provenance besides."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    runs = [str(source.path.resolve()) for source in sources]
    append_line(run / "merges.jsonl", json.dumps({"time": now, "host": platform.node(), "runs": runs}))


def _judged_otherwise(run: Run) -> dict[str, int]:
    """Results whose samples another classifier has judged than the data set's own, by data set."""
    found: Counter[str] = Counter()
    for record in run.cells:
        if record.status != "done":
            continue
        judge, kept = record.result.get("classifier"), run.classifier(record.dataset)
        if judge is None or kept is None or kept["basis"]["dataset"] != record.key["dataset"]:
            continue
        found[record.dataset] += kept["sha256"] != judge["sha256"]
    return {dataset: count for dataset, count in found.items() if count}


def _is_run(path: Path) -> bool:
    return (path / LOCK).is_file()


def _check_target(into: Path) -> None:
    if _is_run(into) or not into.exists() or (into / UNFINISHED).is_dir():
        return
    if not into.is_dir() or any(into.iterdir()):
        raise UsageError(
            f"{into} holds something that is no run",
            hint="give --into a new directory, or one of the runs to add to",
        )
