"""Reading a run directory. No torch, no writing: this is all that reports and comparisons need.

runs/<suite>/
  suite.toml  suite.lock.json        what was asked for, and the cells that it resolved to
  suite-extended-1.toml ...          the suites that it extends, as they stood
  cells/<slug>-<id16>/
    cell.json                        the key whose hash is the cell's id
    attempts/<n>-<uuid>/             attempt.json  resumed.json  metrics.jsonl  log.txt  outcome.json
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


ASIDE = "move the file aside and run the suite again"


def read_json(path: Path, **needs: type) -> dict[str, Any]:
    """Parse one file of the store, an object with at least the keys ``needs``, each of that type.

    A broken one is named, with what to do about it: ``StoreError``.
    """
    try:
        found = from_json(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is not valid JSON: {error}", hint=ASIDE) from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", hint=ASIDE) from error
    if not isinstance(found, dict):
        raise StoreError(f"{path} holds {type(found).__name__}; expected a JSON object", hint=ASIDE)
    return _having(found, path, **needs)


def _having(found: dict[str, Any], path: Path, **needs: type) -> dict[str, Any]:
    """``found``, contents of ``path``, if it has what is needed."""
    for key, kind in needs.items():
        if not isinstance(found.get(key), kind):
            raise StoreError(f"{path} is damaged: it has no {kind.__name__} `{key}`", hint=ASIDE)
    return found


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
        """How the latest attempt ended: ``status`` and, unless done, ``reason``.

        Only a manifest says that there is a result. A damaged ``outcome.json`` says nothing: ``missing``.
        """
        if self._manifest.exists():
            return {"status": "done"}
        ended = sorted(self.directory.glob("attempts/*/outcome.json"), key=_by_attempt)
        if not ended:
            return {"status": "missing", "reason": "not run yet"}
        try:
            outcome = read_json(ended[-1], status=str)
        except StoreError as error:
            return {"status": "missing", "reason": str(error)}
        if outcome["status"] not in UNFINISHED:
            known = outcome["status"] == "done"
            why = f"{self.result_dir} is gone" if known else f"{ended[-1]} has status {outcome['status']!r}"
            return {"status": "missing", "reason": why}
        return {"reason": "", **outcome}

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
        sums = read_json(self._manifest, sha256=dict)["sha256"]
        anew = f"run the suite again with --force {self.method!r} to make it anew"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", hint=anew) from error
        found = hashlib.sha256(content).hexdigest()
        expected = sums.get(name)
        if found != expected:
            raise StoreError(
                f"{path} has been altered: SHA-256 {found[:12]}..., the manifest says {str(expected)[:12]}...",
                hint=anew,
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
        lock = _read_lock(path / LOCK)
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

    @cached_property
    def computed(self) -> dict[str, Any]:
        """What has been computed of this run and is asked for again; like its cells' results, it is read once."""
        return {}

    def select(self, *, dataset: str | None = None, method: str | None = None) -> list[CellRecord]:
        """Cells of one data set, of one method, or of both, in order of seeds."""
        return [
            cell for cell in self.cells if dataset in (None, cell.dataset) and method in (None, cell.method)
        ]

    def anchors(self, dataset: str) -> dict[str, Any] | None:
        """Mean-image and PCA errors of a data set, where they have been computed."""
        path = self.path / "derived" / "anchors" / f"{dataset}.json"
        return read_json(path, basis=dict) if path.is_file() else None

    def classifier(self, dataset: str) -> dict[str, Any] | None:
        """What is known of the suite's own classifier of a data set: ``sha256``, ``accuracy``, ``knn_pixels``,
        ``linear_pixels``, ``clusters_pixels``, ``floors`` (of sample quality), ``references`` and ``basis``; ``None``
        where there is none.
        """
        return read_classifier(self.path, dataset)


def classifier_file(run: Path, dataset: str, ending: str = "json") -> Path:
    """Where a run keeps a data set's classifier: its facts (``json``) and its weights (``pt``)."""
    return run / "derived" / "classifier" / f"{dataset}.{ending}"


def read_classifier(run: Path, dataset: str) -> dict[str, Any] | None:
    """The facts of a data set's classifier, where one has been trained; see :meth:`Run.classifier`."""
    path = classifier_file(run, dataset)
    return read_json(path, basis=dict, sha256=str) if path.is_file() else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a ``metrics.jsonl``. What a crash or a power loss has left instead of a row is passed over: half a line
    at the end, or before the next one, and zeros.
    """
    return rows_in(path.read_bytes())


def rows_in(content: bytes) -> list[dict[str, Any]]:
    """The same for what has been read of it."""
    rows = []
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _read_lock(path: Path) -> dict[str, Any]:
    """``suite.lock.json``, with the keys and names that the rest of a run is read by."""
    lock = read_json(path)
    if lock.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} has schema {lock.get('schema')!r}; this regbench reads {SCHEMA}",
            hint="use the regbench version that wrote it, or run the suite again",
        )
    _having(lock, path, suite=dict, methods=list, datasets=list, cells=list)
    entries: list[tuple[Any, dict[str, type]]] = [(lock["suite"], {"name": str})]
    for entry, needs in entries + [(cell, _LOCKED) for cell in lock["cells"]]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), needs[key]) for key in needs):
            raise StoreError(f"{path} is damaged: an entry lacks one of {', '.join(needs)}", hint=ASIDE)
    for name in (lock["suite"]["name"], *lock["datasets"], *(cell["slug"] for cell in lock["cells"])):
        if not isinstance(name, str) or not name.strip(".") or set(name) & set("/\\\0"):
            raise StoreError(f"{path} is damaged: {name!r} cannot name a file or directory", hint=ASIDE)
    return lock


_LOCKED: dict[str, type] = {"id": str, "method": str, "dataset": str, "seed": int, "key": dict, "slug": str}
"""What each cell of the lock has."""


def attempt_number(attempt: Path) -> int:
    """1, 2, ... of an attempt's directory; 0 for what somebody else has put there."""
    number, hyphen, _ = attempt.name.partition("-")
    return int(number) if hyphen and number.isdecimal() else 0


def _by_attempt(file: Path) -> int:
    return attempt_number(file.parent)
