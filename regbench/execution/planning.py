"""Which cells of a suite are finished, and which are to be run, with the reason for each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from regbench.errors import UsageError
from regbench.evaluation import EVALUATION
from regbench.store.records import CellRecord, read_classifier, read_json
from regbench.suite.cells import CellSpec, canonical, without_source

State = Literal["finished", "accepted", "diverged", "skipped", "waiting", "remeasure", "todo"]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One cell of a suite, and what will happen to it."""

    spec: CellSpec
    slug: str
    """Its directory below ``cells/``."""
    id: str
    """Its own id; for an accepted stale result, that of the result."""
    state: State
    why: str
    replace: bool = False
    """Whether a result is there that a new one will replace."""

    @property
    def todo(self) -> bool:
        """Whether there is anything to compute."""
        return self.state in ("todo", "remeasure")

    @property
    def ahead(self) -> bool:
        """The same, or that there will be once its settings are selected."""
        return self.todo or self.state == "waiting"

    def skipped(self, why: str) -> PlannedCell:
        """The same cell, left alone this time."""
        return replace(self, state="skipped", why=why)

    def waiting(self, why: str) -> PlannedCell:
        """The same cell, which cannot be run before something else is."""
        return replace(self, state="waiting", why=why)

    def entry(self) -> dict[str, Any]:
        """Its line in ``suite.lock.json``."""
        return {
            "id": self.id,
            "slug": self.slug,
            "method": self.spec.method,
            "dataset": self.spec.dataset,
            "seed": self.spec.seed,
            "key": self.spec.key(),
            "stale": self.state == "accepted",
        }


def plan_cells(
    specs: Sequence[CellSpec],
    run: Path,
    metrics: Mapping[str, str],
    *,
    force: Sequence[str] = (),
    accept_stale: bool = False,
) -> list[PlannedCell]:
    """Look each cell up in the store.

    ``metrics`` maps the suite's metrics to the hashes of their code: a finished cell that lacks one, or has it
    from other code, is measured again from its saved weights, not trained again.
    """
    named = {spec.id16 for spec in specs}
    shelf = Shelf(run, metrics, force=force, accept_stale=accept_stale, named=named)
    slugs: dict[str, str] = {}
    planned = [shelf.look_up(spec) for spec in specs]
    # Tuning may bring two methods to the very same settings: one result, in one place, for both.
    return [replace(cell, slug=slugs.setdefault(cell.id, cell.slug)) for cell in planned]


class Shelf:
    """The cells of one run directory as they were when it was opened."""

    def __init__(
        self,
        run: Path,
        metrics: Mapping[str, str],
        *,
        force: Sequence[str] = (),
        accept_stale: bool = False,
        named: Collection[str] = (),
    ) -> None:
        """``named`` are ends of ids that the suite still names: no other cell can be one of these gone stale."""
        self.run = run
        self.cells = run / "cells"
        self.metrics = metrics
        self.force = force
        self.accept_stale = accept_stale
        folders = [path for path in self.cells.iterdir() if path.is_dir()] if self.cells.is_dir() else []
        self.present = {path.name[-16:]: path for path in folders}
        self._classifiers: dict[str, dict[str, Any] | None] = {}
        """The classifiers' facts by data set, each read once."""
        self.other = _by_key(path for id16, path in self.present.items() if id16 not in named)

    def look_up(self, spec: CellSpec) -> PlannedCell:
        """What is known of a cell, and what is to be done for it."""
        # The directory keeps the label that it was made with: what finds it is the id at the end of its name.
        directory = self.present.get(spec.id16, self.cells / spec.slug)
        record = CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, directory)
        cell = PlannedCell(spec, directory.name, spec.id, "todo", "")
        status = record.status
        if matches(spec, self.force):
            return replace(cell, why="forced", replace=status == "done")
        if status == "done":
            return self._finished(cell, record)
        if status == "diverged":
            why = f"diverged before ({record.outcome['reason']}); --force runs it again"
            return replace(cell, state="diverged", why=why)
        stale = self.other.get(canonical(without_source(spec.key())))
        if stale is not None and self.accept_stale:
            return self._accepted(cell, replace(record, directory=stale))
        return _missing(cell, record, stale)

    def _finished(self, cell: PlannedCell, record: CellRecord) -> PlannedCell:
        known = record.result.get("metric_sources", {})
        lacking = [name for name, source in self.metrics.items() if known.get(name) != source]
        if record.result.get("evaluation", 1) < EVALUATION:
            lacking.append("diagnostics, which an earlier version measured")
        elif self._judged_otherwise(cell.spec, record):
            lacking.append("sample quality, as the data set's classifier is another one now")
        if not lacking:
            return replace(cell, state="finished", why="its result is in the store")
        why = f"to be measured from its saved weights: {', '.join(lacking)}"
        return replace(cell, state="remeasure", why=why, replace=True)

    def _judged_otherwise(self, spec: CellSpec, record: CellRecord) -> bool:
        """Whether the run's classifier of the same images is not the one that judged this result's samples."""
        judge = record.result.get("classifier")
        if judge is None:
            return False
        if spec.dataset not in self._classifiers:
            self._classifiers[spec.dataset] = read_classifier(self.run, spec.dataset)
        now = self._classifiers[spec.dataset]
        if now is None or now["basis"]["dataset"] != spec.key()["dataset"]:
            return False
        return bool(now["sha256"] != judge["sha256"])

    def _accepted(self, cell: PlannedCell, old: CellRecord) -> PlannedCell:
        """A result of other code, taken as it is; it may still have to be measured."""
        cell = self._finished(replace(cell, slug=old.directory.name, id=old.result["id"]), old)
        if cell.state == "finished":
            return replace(cell, state="accepted", why="stale: code changed; its result is accepted")
        return cell


def matches(spec: CellSpec, patterns: Iterable[str]) -> bool:
    """Whether a pattern of the shell's kind fits the cell's method, data set, title, directory, or id."""
    names = (spec.method, spec.dataset, spec.title, spec.slug, spec.id)
    return any(pattern == name or fnmatchcase(name, pattern) for pattern in patterns for name in names)


def check_patterns(specs: Sequence[CellSpec], patterns: Sequence[str]) -> None:
    """Raise ``UsageError`` for a pattern that fits no cell."""
    for pattern in patterns:
        if not any(matches(spec, [pattern]) for spec in specs):
            methods = ", ".join(dict.fromkeys(spec.method for spec in specs))
            raise UsageError(
                f"the pattern {pattern!r} fits no cell of the suite",
                hint=f"it may name a method ({methods}), a data set, or `DATASET METHOD seed N`; * stands for anything",
            )


def _missing(cell: PlannedCell, record: CellRecord, stale: Path | None) -> PlannedCell:
    if stale is not None:
        return replace(cell, why="stale: code changed; --accept-stale keeps the old result")
    if record.status == "missing":
        started = (record.directory / "attempts").is_dir()
        return replace(cell, why="started, but not finished" if started else "not run yet")
    return replace(cell, why=f"{record.status} before ({record.outcome['reason'].partition(chr(10))[0]})")


def _by_key(directories: Iterable[Path]) -> dict[str, Path]:
    """Finished cells that the suite does not name, by what they are apart from their code; the latest of each."""
    finished = [
        path
        for path in directories
        if (path / "result" / "manifest.json").exists() and (path / "cell.json").exists()
    ]
    finished.sort(key=lambda path: (path / "result" / "manifest.json").stat().st_mtime_ns)
    return {canonical(without_source(read_json(path / "cell.json"))): path for path in finished}
