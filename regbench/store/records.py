"""Reading a run directory. No torch, no writing: this is all that reports and comparisons need.

runs/<suite>/
  suite.toml  suite.lock.json        what was asked for, and the cells that it resolved to
  suite-extended-1.toml ...          the suites that it extends, as they stood
  cells/<slug>-<id16>/
    cell.json                        the key whose hash is the cell's id
    attempts/<n>-<uuid>/             attempt.json  metrics.jsonl  log.txt  outcome.json
    result/                          result.json  history.json  arrays.npz  weights.pt  manifest.json
  derived/                           rebuildable: anchors, classifiers, cached embeddings
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from regbench.errors import StoreError

SCHEMA = 1
LOCK = "suite.lock.json"

Status = Literal["done", "failed", "diverged", "oom", "timeout", "interrupted", "missing"]
FAILED: tuple[Status, ...] = ("failed", "diverged", "oom", "timeout")
"""Ends without a result that are the cell's own: an error, a loss that is not finite, too little memory, too slow."""
UNFINISHED: tuple[Status, ...] = (*FAILED, "interrupted", "missing")


def read_json(path: Path) -> Any:
    """Parse one file of the store; a broken one is named, with what to do about it."""
    try:
        return from_json(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{path} is not valid JSON: {error}", hint="move the file aside and run the suite again"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended."""

    status: str
    reason: str
    metrics: dict[str, float]
    """At the mean code; empty unless it was just measured."""


@dataclass(frozen=True)
class CellRecord:
    """One planned cell and what the store knows about it."""

    id: str
    method: str
    """Display label of the method, unique within the suite, e.g. ``ProtoVAE K=10``."""
    dataset: str
    """Display label of the data set."""
    seed: int
    key: dict[str, Any]
    """All that determines the cell's numbers: regularizer (name, options, plugin), dataset, model, training, seed."""
    directory: Path

    @cached_property
    def result_dir(self) -> Path:
        return self.directory / "result"

    @cached_property
    def _manifest(self) -> Path:
        return self.result_dir / "manifest.json"

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """How the latest attempt ended: ``status`` and, unless done, ``reason``."""
        if self._manifest.exists():
            return {"status": "done"}
        ended = sorted(self.directory.glob("attempts/*/outcome.json"), key=_by_attempt)
        return dict(read_json(ended[-1])) if ended else {"status": "missing", "reason": "not run yet"}

    @property
    def outcome_now(self) -> Outcome:
        """The same as a value, without the details."""
        return Outcome(self.outcome["status"], self.outcome.get("reason", ""), {})

    @property
    def status(self) -> Status:
        status: Status = self.outcome["status"]
        return status

    @cached_property
    def result(self) -> dict[str, Any]:
        """Contents of ``result.json``, checked against the manifest. Only for ``status == "done"``."""
        return dict(from_json(self.verified("result.json")))

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One dictionary per epoch; of an unfinished cell, as far as its latest attempt got."""
        if self.status == "done":
            return list(from_json(self.verified("history.json")))
        attempts = sorted(self.directory.glob("attempts/*/metrics.jsonl"), key=_by_attempt)
        return read_metrics(attempts[-1]) if attempts else []

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of a finished cell: reconstructions, latents, prototypes, samples."""
        self.verified("arrays.npz")
        with np.load(self.result_dir / "arrays.npz", allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def verified(self, name: str) -> bytes:
        """Contents of a file of the result, checked against the manifest; raises ``StoreError``."""
        path = self.result_dir / name
        manifest = read_json(self._manifest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        found = hashlib.sha256(content).hexdigest()
        expected = manifest["sha256"].get(name)
        if found != expected:
            raise StoreError(
                f"{path} has been altered: SHA-256 {found[:12]}..., the manifest says {str(expected)[:12]}...",
                hint=f"run the suite again with --force {self.method!r} to make it anew",
            )
        return content


@dataclass(frozen=True)
class Run:
    """A run directory: the suite as it was last run, and its cells in the suite's order."""

    path: Path
    suite: dict[str, Any]
    """``name``, ``description``, ``baseline``, ``metrics``, ``figures``, ``claims``, ``seeds``."""
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: tuple[CellRecord, ...]

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read ``suite.lock.json``; raises ``StoreError`` where ``path`` is no run directory."""
        if not (path / LOCK).is_file():
            raise StoreError(
                f"{path} is not a run directory: it has no {LOCK}",
                hint="name a directory below runs/, or run a suite first: regbench run suites/quick.toml",
            )
        lock = read_json(path / LOCK)
        if lock.get("schema") != SCHEMA:
            raise StoreError(
                f"{path / LOCK} has schema {lock.get('schema')!r}; this regbench reads {SCHEMA}",
                hint="use the regbench version that wrote it, or run the suite again",
            )
        cells = tuple(
            CellRecord(
                id=cell["id"],
                method=cell["method"],
                dataset=cell["dataset"],
                seed=cell["seed"],
                key=cell["key"],
                directory=path / "cells" / cell["slug"],
            )
            for cell in lock["cells"]
        )
        return cls(path, lock["suite"], tuple(lock["methods"]), tuple(lock["datasets"]), cells)

    def select(self, *, dataset: str | None = None, method: str | None = None) -> list[CellRecord]:
        """Cells of one data set, of one method, or of both, in order of seeds."""
        return [
            cell for cell in self.cells if dataset in (None, cell.dataset) and method in (None, cell.method)
        ]

    def anchors(self, dataset: str) -> dict[str, Any] | None:
        """Mean-image and PCA errors of a data set, where they have been computed."""
        path = self.path / "derived" / "anchors" / f"{dataset}.json"
        return dict(read_json(path)) if path.is_file() else None

    def classifier(self, dataset: str) -> dict[str, Any] | None:
        """What is known of the suite's own classifier of a data set: ``sha256``, ``accuracy``, ``knn_pixels``,
        ``linear_pixels``, ``floors`` (of sample quality) and ``basis``; ``None`` where there is none.
        """
        return read_classifier(self.path, dataset)


def classifier_file(run: Path, dataset: str, ending: str = "json") -> Path:
    """Where a run keeps a data set's classifier: its facts (``json``) and its weights (``pt``)."""
    return run / "derived" / "classifier" / f"{dataset}.{ending}"


def read_classifier(run: Path, dataset: str) -> dict[str, Any] | None:
    """The facts of a data set's classifier, where one has been trained; see :meth:`Run.classifier`."""
    path = classifier_file(run, dataset)
    return dict(read_json(path)) if path.is_file() else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.jsonl``; a last line torn by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        rows.append(json.loads(line))
    return rows


def attempt_number(attempt: Path) -> int:
    """1, 2, ... of an attempt's directory; 0 for what somebody else has put there."""
    number, hyphen, _ = attempt.name.partition("-")
    return int(number) if hyphen and number.isdecimal() else 0


def _by_attempt(file: Path) -> int:
    return attempt_number(file.parent)
