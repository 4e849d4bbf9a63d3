"""Running a recorded cell once more, in a run directory of its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from regbench.cell import ListenerFailed
from regbench.errors import Interrupted, UsageError
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import CellFinished, CellStarted, Listener, SuiteStarted
from regbench.execution.interrupt import Stop, stoppable
from regbench.execution.planning import PlannedCell
from regbench.execution.runner import CellRunner, How, Task
from regbench.plugins import Registry
from regbench.reproduce.recorded import Recorded
from regbench.store.records import (
    CellRecord,
    Outcome,
    attempt_number,
    classifier_file,
    read_classifier,
    read_json,
)
from regbench.store.writer import RunWriter
from regbench.suite.cells import CellSpec
from regbench.training.launch import LaunchWishes


def run_again(
    recorded: Recorded,
    registry: Registry,
    device: torch.device,
    data_root: Path,
    home: Path,
    listener: Listener,
) -> tuple[Recorded, Outcome]:
    """Train and evaluate the cell below ``home``, as it was then: precision, launch, threads.

    The code is that of this process. A directory that holds an unfinished try at the same cell is gone on with.
    """
    method = registry.regularizer(recorded.spec.regularizer)
    plugin = {"distribution": method.distribution, "version": method.version, "source": method.source}
    spec = replace(recorded.spec, plugin=plugin)
    _check_free(home, spec)
    writer = RunWriter(home)
    cell = PlannedCell(spec, spec.slug, spec.id, "todo", "made again")
    with writer.locked():
        run = writer.write_lock(
            _head(recorded, registry), [spec.method], [spec.dataset], [cell.entry()], _sources(recorded)
        )
        _copy_classifier(recorded, writer)
        metrics = tuple(recorded.result["metric_sources"])
        how = How(launch=_wishes(recorded), checkpoints=CheckpointPolicy())
        runner = CellRunner(writer, registry, metrics, device, data_root, how)
        listener(SuiteStarted(spec.title, str(home), 1, 1, str(device)))
        listener(CellStarted(spec.title, 1, spec.training["epochs"]))
        started = time.monotonic()
        try:
            with stoppable() as signal, _threads(recorded, device):
                outcome = runner.run(Task(spec, writer.cell(cell.slug)), listener, signal)
        except Stop as stop:
            interrupted = Interrupted(
                "stopped before the cell was made again; the original is untouched",
                hint="run the same command again; with --out DIR it goes on from its last checkpoint",
            )
            interrupted.exit_code = stop.exit_code
            raise interrupted from stop
        except ListenerFailed as failed:
            raise failed.error from failed
        seconds = time.monotonic() - started
        listener(CellFinished(spec.title, 1, outcome.status, outcome.reason, seconds, outcome.metrics))
    record = CellRecord(spec.id, spec.method, spec.dataset, spec.seed, spec.key(), home / "cells" / spec.slug)
    result = record.result if outcome.status == "done" else {}
    return Recorded(record, run, spec, result, _latest_attempt(record)), outcome


def _check_free(home: Path, spec: CellSpec) -> None:
    """``--out`` must be new, or hold nothing but an unfinished try at this cell."""
    if not home.exists():
        return
    if not home.is_dir():
        raise UsageError(f"{home} is a file", hint="give --out a new directory")
    cells = home / "cells"
    others = [path.name for path in cells.iterdir() if path.name != spec.slug] if cells.is_dir() else []
    if others or (not cells.is_dir() and any(home.iterdir())) or (cells / spec.slug / "result").exists():
        raise UsageError(f"{home} holds something already", hint="give --out a new directory")


def _head(recorded: Recorded, registry: Registry) -> dict[str, Any]:
    """What ``suite.lock.json`` says of the suite: that of the result's run, of one cell only."""
    spec, metrics = recorded.spec, list(recorded.result["metric_sources"])
    suite: dict[str, Any] = dict(recorded.run.suite) if recorded.run is not None else {"name": spec.title}
    known = suite.get("metric_info", {})
    return {
        "description": "",
        "figures": [],
        "families": {},
        "file": "",
        **suite,
        "metrics": metrics,
        "metric_info": {name: known.get(name) or _info(registry, name) for name in metrics},
        "seeds": [spec.seed],
        "baseline": spec.method,
        "claims": [],
        "tuning": None,
    }


def _info(registry: Registry, metric: str) -> dict[str, str]:
    cls = registry.metric(metric).cls
    return {name: str(getattr(cls, name)) for name in ("label", "better", "definition")}


def _sources(recorded: Recorded) -> list[bytes]:
    """The suite file as it stood, where the run has kept it."""
    file = recorded.run.path / "suite.toml" if recorded.run is not None else None
    return [file.read_bytes()] if file is not None and file.is_file() else []


def _copy_classifier(recorded: Recorded, writer: RunWriter) -> None:
    """Samples are judged by the classifier that judged the first ones, where the run still has it."""
    run, judge = recorded.run, recorded.result.get("classifier")
    if run is None or judge is None:
        return
    dataset = recorded.spec.dataset
    facts, weights = read_classifier(run.path, dataset), classifier_file(run.path, dataset, "pt")
    if facts is None or facts["sha256"] != judge["sha256"] or not weights.is_file():
        return
    content = weights.read_bytes()
    if hashlib.sha256(content).hexdigest() == judge["sha256"]:
        writer.write_classifier(dataset, facts, content)


def _wishes(recorded: Recorded) -> LaunchWishes:
    """What was asked for then, as far as the record tells."""
    made = recorded.result.get("environment", {})
    return LaunchWishes(
        eager=made.get("compile") == "--eager", deterministic="deterministic" in made.get("launch", "")
    )


@contextmanager
def _threads(recorded: Recorded, device: torch.device) -> Iterator[None]:
    """On a CPU, as many threads as then: sums are rounded as they are shared out."""
    then = recorded.attempt.get("torch", {})
    before = torch.get_num_threads()
    if device.type == "cpu" and str(then.get("device", "")).startswith("cpu"):
        torch.set_num_threads(max(1, int(then.get("threads") or before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _latest_attempt(record: CellRecord) -> dict[str, Any]:
    files = record.directory.glob("attempts/*/attempt.json")
    latest = max(files, key=lambda file: attempt_number(file.parent), default=None)
    return {} if latest is None else read_json(latest)
