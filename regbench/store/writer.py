"""Writing a run directory; see :mod:`regbench.store.records` for its layout.

A result becomes visible in one rename of a complete, synced directory. Whoever comes second is refused.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from regbench.errors import LockedError
from regbench.store.claims import Claim, ClaimLost, new_token
from regbench.store.files import append_line, sha256, storage_errors, sync_directory, write_bytes, write_json
from regbench.store.records import LOCK, SCHEMA, Run, attempt_number, classifier_file

RESUMED = "resumed.json"
"""In an attempt that found checkpoints: ``epoch`` and ``batch`` that it goes on from, ``notes`` on unusable ones."""


class RunWriter:
    """A run directory opened for writing; one process at a time (:meth:`locked`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            (path / "cells").mkdir(parents=True, exist_ok=True)
            (path / "derived").mkdir(exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory; raises ``LockedError`` at once where another process has it."""
        file, holder = self.path / ".lock", self.path / ".lock.holder"
        lock = filelock.FileLock(file, timeout=0)
        with storage_errors(file):
            try:
                lock.acquire()
            except filelock.Timeout as error:  # an OSError, too
                raise LockedError(
                    f"{self.path} is in use by another regbench process{_held_by(holder)}",
                    hint="wait for it to end, or give this suite another [suite] name or --runs-dir",
                ) from error
        try:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(holder, {"host": platform.node(), "pid": os.getpid(), "since": now})
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def write_lock(
        self,
        suite: Mapping[str, Any],
        methods: Sequence[str],
        datasets: Sequence[str],
        cells: Sequence[Mapping[str, Any]],
        sources: Sequence[bytes],
    ) -> Run:
        """Record what was asked for, the suite file as it stood and those that it extends, and the cells of it."""
        for number, source in enumerate(sources):
            write_bytes(
                self.path / ("suite.toml" if number == 0 else f"suite-extended-{number}.toml"), source
            )
        write_json(
            self.path / LOCK,
            {
                "schema": SCHEMA,
                "suite": dict(suite),
                "methods": list(methods),
                "datasets": list(datasets),
                "cells": [dict(cell) for cell in cells],
            },
        )
        return Run.open(self.path)

    def cell(self, slug: str, token: str | None = None) -> CellWriter:
        """A cell's directory. ``token``: of the claim that somebody else has taken for this attempt."""
        return CellWriter(self.path / "cells" / slug, token)

    def write_anchors(self, dataset: str, anchors: Mapping[str, Any]) -> None:
        with storage_errors(self.path):
            (self.path / "derived" / "anchors").mkdir(parents=True, exist_ok=True)
        write_json(self.path / "derived" / "anchors" / f"{dataset}.json", dict(anchors))

    def write_classifier(self, dataset: str, facts: Mapping[str, Any], weights: bytes) -> None:
        """Keep a data set's classifier; the facts, which hold the weights' checksum, come last."""
        file = classifier_file(self.path, dataset)
        with storage_errors(self.path):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(classifier_file(self.path, dataset, "pt"), weights)
        write_json(file, dict(facts))


class CellWriter:
    """One cell's directory, opened for writing by one attempt."""

    def __init__(self, directory: Path, token: str | None = None) -> None:
        """Without a ``token`` the first attempt takes the cell's claim; with one, it must be the claim's."""
        # Absolute: a plugin may change the working directory under our feet.
        self.directory = directory.absolute()
        self.claim = Claim(self.directory, token or new_token())
        self._claimed = token is not None

    def begin(self, key: Mapping[str, Any], provenance: Mapping[str, Any]) -> AttemptWriter:
        """Start a new attempt, after those that are there already. Raises ``ClaimLost``."""
        if not self._claimed:
            self.claim.take()
            self._claimed = True
        self.claim.check()
        attempts = self.directory / "attempts"
        with storage_errors(attempts):
            attempts.mkdir(parents=True, exist_ok=True)
            number = 1 + max((attempt_number(path) for path in attempts.iterdir()), default=0)
            directory = attempts / f"{number}-{self.claim.token}"
            directory.mkdir()
        if not (self.directory / "cell.json").exists():
            write_json(self.directory / "cell.json", dict(key))
        write_json(directory / "attempt.json", dict(provenance))
        return AttemptWriter(self, directory)

    @property
    def result(self) -> Path:
        return self.directory / "result"

    def attempt(self) -> AttemptWriter | None:
        """The latest attempt under this claim, if any has begun: its process may be another one, or gone."""
        found = sorted(self.directory.glob(f"attempts/*-{self.claim.token}"), key=attempt_number)
        return AttemptWriter(self, found[-1]) if found else None

    def set_aside(self, target: Path) -> None:
        """Move a result out of the way, to ``target`` in ``superseded/``; nothing is deleted."""
        with storage_errors(self.result):
            target.parent.mkdir(exist_ok=True)
            self.result.rename(target)
            sync_directory(self.directory)


class AttemptWriter:
    """One try at a cell."""

    def __init__(self, cell: CellWriter, directory: Path) -> None:
        self.cell = cell
        self.directory = directory
        self._before = self._manifest()

    def _manifest(self) -> bytes | None:
        """What identifies the result that is there."""
        try:
            return (self.cell.result / "manifest.json").read_bytes()
        except OSError:
            return None

    def resumed(self, rows: Sequence[Mapping[str, Any]], batch: int, notes: Sequence[str]) -> None:
        """Take over the history of an earlier attempt, before any row of this one's.

        ``batch``: batches of the next epoch that are done. ``notes``: checkpoints that could not be used, and why.
        """
        # This first: whoever follows the attempt can tell these rows from those that it adds.
        write_json(self.directory / RESUMED, {"epoch": len(rows), "batch": batch, "notes": list(notes)})
        if rows:
            lines = (json.dumps(finite(row), allow_nan=False) + "\n" for row in rows)
            write_bytes(self.directory / "metrics.jsonl", "".join(lines).encode())

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's row; numbers that are not finite are written as text, so that it stays JSON.

        Raises ``ClaimLost`` where the cell is another attempt's by now.
        """
        self.cell.claim.check()
        append_line(self.directory / "metrics.jsonl", json.dumps(finite(row), allow_nan=False))

    def log(self, text: str) -> None:
        append_line(self.directory / "log.txt", text)

    @property
    def ended(self) -> bool:
        """Whether it has been recorded how."""
        return (self.directory / "outcome.json").exists()

    def end(self, status: str, reason: str, **details: Any) -> None:
        """Record how the attempt ended."""
        write_json(self.directory / "outcome.json", {"status": status, "reason": reason, **finite(details)})

    def commit(self, files: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Make the result visible: all of it or nothing.

        With ``replace`` the result that was there when the attempt began is set aside first. Raises ``ClaimLost``
        if the cell is another attempt's by now, or one has committed it in the meantime; what is there stays.
        """
        self.cell.claim.check()
        unique = uuid.uuid4().hex[:8]
        temporary, aside = (
            self.cell.directory / f".result-{unique}.tmp",
            self.cell.directory / "superseded" / unique,
        )
        try:
            with storage_errors(self.cell.result):
                temporary.mkdir()
            for name, content in files.items():
                write_bytes(temporary / name, content)
            sums = {name: sha256(temporary / name) for name in files}
            write_json(temporary / "manifest.json", {"sha256": sums})
            self.cell.claim.check()  # writing may have taken its time
            known = self._manifest()
            # What has no manifest was never committed, whatever it is.
            if os.path.lexists(self.cell.result) and (known is None or (replace and known == self._before)):
                self.cell.set_aside(aside)
            self._rename(temporary)
        except BaseException:
            # A signal, too, must leave no half of a result behind, and the earlier one in its place.
            if os.path.lexists(aside) and not os.path.lexists(self.cell.result):
                with suppress(OSError):  # what has brought us here is what to tell
                    aside.rename(self.cell.result)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        with storage_errors(self.cell.result):
            sync_directory(self.cell.directory)
        self.end("done", "")

    def _rename(self, temporary: Path) -> None:
        try:
            temporary.rename(self.cell.result)
        except OSError as error:
            if self.cell.result.exists():
                raise ClaimLost(
                    f"{self.cell.result} has been committed by another process; it stays"
                ) from error
            with storage_errors(self.cell.result):
                raise


def _held_by(holder: Path) -> str:
    """Who holds a lock, as far as that can be read; a lock is held without it, too."""
    try:
        by = json.loads(holder.read_bytes())
        return f": process {by['pid']} on {by['host']}, since {by['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def finite(value: Any) -> Any:
    """``value`` with NaN and infinities as the texts ``nan``, ``inf``, ``-inf``."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
