"""Cells of all four methods, small enough to be stopped and continued many times, and what they must arrive at."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import regbench
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import Listener, ignore
from regbench.execution.interrupt import Stop, StopSignal
from regbench.execution.planning import PlannedCell
from regbench.execution.runner import CellRunner, How, Task
from regbench.store.claims import StopLevel
from regbench.store.records import CellRecord, Outcome
from regbench.store.writer import RunWriter

SUITE = """
[suite]
name = "resumed"
seeds = 1
metrics = ["mse", "ssim"]

[model]
latent = 4
features = 8
widths = [4]

[training]
epochs = {epochs}
warmup = 2
batch_size = 16
precision = "{precision}"

[[datasets]]
name = "digits"
train_images = 80
test_images = 40

[[regularizers]]
name = "ae"
label = "AE"

[[regularizers]]
name = "vae-kl"
label = "VAE-KL"

[[regularizers]]
name = "infovae-mmd"
label = "InfoVAE-MMD"

[[regularizers]]
name = "proto-vae"
label = "ProtoVAE"
options = {{ prototypes = 3 }}
"""
METHODS = ("AE", "VAE-KL", "InfoVAE-MMD", "ProtoVAE")
BATCHES = 5
"""Of an epoch."""


class After(StopSignal):
    """Asks for a stop when it is looked at for the ``looks``-th time; a training looks before every batch."""

    def __init__(self, looks: int, level: StopLevel = "batch") -> None:
        super().__init__()
        self.looks = looks
        self.wanted = level

    @property
    def level(self) -> StopLevel:
        self.looks -= 1
        if self.looks <= 0:
            self.ask(self.wanted)
        return self.asked


class Place:
    """A run directory, and what runs single cells in it."""

    def __init__(
        self, folder: Path, text: str = "", *, epochs: int = 4, precision: str = "fp32", every: str = "off"
    ) -> None:
        suite = folder / "resumed.toml"
        suite.write_text(text or SUITE.format(epochs=epochs, precision=precision))
        plugins = sorted(folder.glob("*.py"))
        ready = regbench.plan(suite, device="cpu", runs_dir=folder / "runs", plugins=plugins)
        self.cells = {cell.spec.method: cell for cell in ready.cells}
        self.writer = RunWriter(ready.run_dir)
        how = How(checkpoints=CheckpointPolicy.parse(every))
        device = torch.device("cpu")
        self.runner = CellRunner(
            self.writer, ready.registry, ready.suite.metrics, device, ready.data_root, how
        )

    def judged_as(self, other: Place) -> None:
        """Take over the classifier of another place."""
        shutil.copytree(other.writer.path / "derived", self.writer.path / "derived", dirs_exist_ok=True)

    def run(
        self, method: str, signal: StopSignal | None = None, emit: Listener = ignore, *, fresh: bool = False
    ) -> Outcome:
        cell = self.cells[method]
        task = Task(cell.spec, self.writer.cell(cell.slug), fresh=fresh)
        return self.runner.run(task, emit, signal or StopSignal())

    def directory(self, method: str) -> Path:
        return self.writer.path / "cells" / self.cells[method].slug

    def checkpoints(self, method: str) -> list[Path]:
        return sorted(self.directory(method).glob("attempts/*/checkpoints/*.ckpt"))

    def record(self, method: str) -> CellRecord:
        return record_of(self.cells[method], self.directory(method))

    def numbers(self, method: str) -> dict[str, str]:
        return numbers(self.record(method))


def record_of(cell: PlannedCell, directory: Path) -> CellRecord:
    spec = cell.spec
    return CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, directory)


def numbers(record: CellRecord) -> dict[str, str]:
    """SHA-256 of the bits of the weights, and of all other numbers but times and memory."""
    weights = torch.load(io.BytesIO(record.verified("weights.pt")), weights_only=True)
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}:".encode())
        digest.update(
            value.contiguous().view(torch.uint8).numpy().tobytes()
            if value.ndim
            else str(value.item()).encode()
        )
    arrays = hashlib.sha256()
    for name, array in sorted(record.arrays().items()):
        arrays.update(f"{name} {array.shape} {array.dtype}:".encode() + array.tobytes())
    rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in record.history]
    measured = {key: record.result[key] for key in ("metrics", "diagnostics", "beta_effective", "ssim_audit")}
    steps = record.result["cost"]["optimizer_steps"]
    return {
        "weights": digest.hexdigest(),
        "history": _hash(rows),
        "metrics": _hash([measured, steps]),
        "arrays": arrays.hexdigest(),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def collector() -> tuple[list[Any], Callable[[Any], None]]:
    events: list[Any] = []
    return events, events.append


Numbers = dict[str, str]
"""What a cell arrives at, by the part of its result."""


def stop(place: Place, method: str, looks: int, level: Any = "batch") -> None:
    with pytest.raises(Stop):
        place.run(method, After(looks, level))
