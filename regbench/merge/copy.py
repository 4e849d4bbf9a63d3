"""Copying cells between runs: complete and verified, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regbench.execution.planning import folders
from regbench.merge.cells import CELLS, TRIALS, Source, Unit
from regbench.store.files import storage_errors, sync_directory, write_bytes
from regbench.store.records import CellRecord, Run, classifier_file, read_classifier, read_json
from regbench.store.writer import RunWriter
from regbench.verify import verified_key

ATTEMPT = ("attempt.json", "metrics.jsonl", "log.txt", "outcome.json")
"""What is copied of an attempt: its record, no checkpoints."""


@dataclass
class Placed:
    """What has been copied so far."""

    copied: list[Source] = field(default_factory=list)
    """For each result its run."""
    kept: int = 0


def copy_all(sources: Sequence[Source], writer: RunWriter, staging: Path) -> Placed:
    """Copy what the target lacks: results, attempts, anchors, classifiers."""
    with storage_errors(staging):
        staging.mkdir(exist_ok=True)
        for left in staging.iterdir():  # of a merge that was interrupted
            shutil.rmtree(left)
    placed = Placed()
    for source in sources:
        for unit in source.units:
            _copy_cell(unit, writer.path / unit.place, staging, placed)
        _copy_derived(source, writer)
    return placed


def _copy_cell(unit: Unit, cells: Path, staging: Path, placed: Placed) -> None:
    record = unit.record
    target = CellRecord(
        record.id, record.method, record.dataset, record.seed, {}, cells / record.directory.name
    )
    if target.directory == record.directory or target.directory.resolve() == record.directory.resolve():
        placed.kept += record.status == "done"
        return
    brings = record.status == "done" and not target.result_dir.exists()
    placed.kept += record.status == "done" and not brings
    lacking = [
        path
        for path in _attempts(record.directory)
        if not (target.directory / "attempts" / path.name).exists()
    ]
    if not brings and not lacking:
        return
    temporary = staging / record.directory.name
    for path, content in _files(record.directory, lacking, result=brings):
        with storage_errors(temporary):
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(temporary / path, content)
    if brings:
        _check_copy(record, temporary)
    _rename(temporary, target.directory)
    if brings:
        placed.copied.append(unit.source)


def _attempts(cell: Path) -> list[Path]:
    folder = cell / "attempts"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _files(cell: Path, attempts: Sequence[Path], *, result: bool) -> Iterator[tuple[Path, bytes]]:
    """Everything to copy, by its path in the cell's directory."""
    if (cell / "cell.json").is_file():
        yield Path("cell.json"), (cell / "cell.json").read_bytes()
    for attempt in attempts:
        for name in ATTEMPT:
            if (attempt / name).is_file():
                yield Path("attempts", attempt.name, name), (attempt / name).read_bytes()
    if result:
        for name in (*read_json(cell / "result" / "manifest.json")["sha256"], "manifest.json"):
            yield Path("result", name), (cell / "result" / name).read_bytes()


def _check_copy(record: CellRecord, copy: Path) -> None:
    verified_key(CellRecord(record.id, record.method, record.dataset, record.seed, {}, copy))


def _rename(temporary: Path, target: Path) -> None:
    """Make the copy visible; where the cell has a directory already, its attempts first and its result last."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            temporary.rename(target)
            sync_directory(target.parent)
            return
        (target / "attempts").mkdir(exist_ok=True)
        for attempt in _attempts(temporary):
            attempt.rename(target / "attempts" / attempt.name)
        if (temporary / "cell.json").is_file() and not (target / "cell.json").exists():
            (temporary / "cell.json").rename(target / "cell.json")
        if (temporary / "result").is_dir():
            (temporary / "result").rename(target / "result")
        sync_directory(target)
        shutil.rmtree(temporary)


def _copy_derived(source: Source, writer: RunWriter) -> None:
    """Anchors and classifiers of data sets that have none yet; those that are there stay."""
    there = Run(writer.path, {}, (), (), ())
    for dataset in source.run.datasets:
        anchors, facts = source.run.anchors(dataset), read_classifier(source.path, dataset)
        if anchors is not None and there.anchors(dataset) is None:
            writer.write_anchors(dataset, anchors)
        if facts is not None and there.classifier(dataset) is None:
            writer.write_classifier(dataset, facts, classifier_file(source.path, dataset, "pt").read_bytes())


def unfinished_faults(into: Path, sources: Sequence[Source]) -> list[str]:
    """Results that lie in an unfinished merge and are none of those that are to be merged now."""
    ours: dict[tuple[str, str], list[Unit]] = {}
    for source in sources:
        for unit in source.units:
            ours.setdefault((unit.place, unit.record.directory.name), []).append(unit)
    faults = []
    for place in (CELLS, TRIALS):
        for name in sorted(folders(into / place)):
            theirs = into / place / name / "result" / "manifest.json"
            known = [unit.record.result_dir / "manifest.json" for unit in ours.get((place, name), [])]
            same = [file for file in known if file.is_file() and read_json(file) == read_json(theirs)]
            if theirs.is_file() and not same:
                faults.append(f"{theirs.parent}, of an unfinished merge, is no result of these runs")
    return faults
