"""Which cells of a suite are finished, and which are to be run, with the reason for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from regbench.errors import StoreError, UsageError
from regbench.evaluation import EVALUATION
from regbench.store.records import LOCK, CellRecord, read_classifier, read_json
from regbench.suite.cells import CellSpec, canonical, without_source

State = Literal["finished", "accepted", "diverged", "skipped", "waiting", "remeasure", "todo"]

FORCED = "forced"

log = logging.getLogger(__name__)


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

    @property
    def forced(self) -> bool:
        """Whether it is run because that was asked for, whatever the store holds of it."""
        return self.why == FORCED

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
    places = [slugs.setdefault(cell.id, cell.slug) for cell in planned]
    return [
        cell if cell.slug == slug else replace(cell, slug=slug)
        for cell, slug in zip(planned, places, strict=True)
    ]


def folders(cells: Path) -> set[str]:
    """Names of the directories in ``cells``, from one listing; none where there is no such directory."""
    try:
        with os.scandir(cells) as entries:
            return {entry.name for entry in entries if entry.is_dir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(
            f"cannot read {cells}: {error.strerror}", hint="choose another place with --runs-dir"
        ) from error


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
        self.present = {name[-16:]: name for name in folders(self.cells)}
        self._classifiers: dict[str, dict[str, Any] | None] = {}
        """The classifiers' facts by data set, each read once."""
        self.other = _by_key(run, [name for id16, name in self.present.items() if id16 not in named])

    def look_up(self, spec: CellSpec) -> PlannedCell:
        """What is known of a cell, and what is to be done for it."""
        # The directory keeps the label that it was made with: what finds it is the id at the end of its name.
        name = self.present.get(spec.id16)
        record = None if name is None else self._record(spec, self.cells / name)
        status = "missing" if record is None else record.status
        if matches(spec, self.force):
            why, done = FORCED, status == "done"
            return PlannedCell(spec, name or spec.slug, spec.id, "todo", why, replace=done)
        if record is not None and status == "done":
            cell = PlannedCell(spec, name or "", spec.id, "todo", _damage(record), replace=True)
            return cell if cell.why else self._finished(replace(cell, replace=False), record)
        if record is not None and status == "diverged":
            why = f"diverged before ({record.outcome['reason']}); --force runs it again"
            return PlannedCell(spec, name or "", spec.id, "diverged", why)
        stale = self.other.get(canonical(without_source(spec.key()))) if self.other else None
        if stale is not None and self.accept_stale:
            return self._accepted(
                PlannedCell(spec, stale.name, spec.id, "todo", ""), self._record(spec, stale)
            )
        return PlannedCell(spec, name or spec.slug, spec.id, "todo", _why_missing(record, stale))

    @staticmethod
    def _record(spec: CellSpec, directory: Path) -> CellRecord:
        return CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, directory)

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
        cell = self._finished(replace(cell, id=old.result["id"]), old)
        if cell.state == "finished":
            return replace(cell, state="accepted", why="stale: code changed; its result is accepted")
        return cell


def matches(spec: CellSpec, patterns: Collection[str]) -> bool:
    """Whether a pattern of the shell's kind fits the cell's method, data set, title, directory, or id."""
    if not patterns:  # as a rule, and the names take their time
        return False
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


def _why_missing(record: CellRecord | None, stale: Path | None) -> str:
    """Why a cell without a result is to be run; ``record`` is ``None`` where it has no directory."""
    if stale is not None:
        return "stale: code changed; --accept-stale keeps the old result"
    if record is None:
        return "not run yet"
    if record.status == "missing":
        return "started, but not finished" if (record.directory / "attempts").is_dir() else "not run yet"
    return f"{record.status} before ({record.outcome['reason'].partition(chr(10))[0]})"


def _damage(record: CellRecord) -> str:
    """Why a result cannot be used, and what will happen to it; empty where it can."""
    try:
        found = record.result.get("id")
    except (StoreError, ValueError) as error:
        problem = str(error)
    else:
        if found == record.id:
            return ""
        problem = f"{record.result_dir} is the result of another cell, {found!r}"
    _warn(f"{problem}; it is set aside, to {record.directory / 'superseded'}, and the cell run again")
    return f"its result is damaged and will be set aside: {problem}"


@cache  # a plan is looked up more than once
def _warn(text: str) -> None:
    log.warning(text)


def _by_key(run: Path, names: Iterable[str]) -> dict[str, Path]:
    """Finished cells that the suite does not name, by what they are apart from their code; the latest of each."""
    known: dict[str, list[Path]] = {}
    for path in (run / "cells" / name for name in names):
        if (path / "result" / "manifest.json").exists() and (key := _key_of(path)):
            known.setdefault(key, []).append(path)
    last = _last_named(run) if any(len(paths) > 1 for paths in known.values()) else set()
    # The last run says which is the latest; the clock, which may have been put back, only where it says nothing.
    return {
        key: max(paths, key=lambda path: (path.name in last, _changed(path))) for key, paths in known.items()
    }


def _key_of(cell: Path) -> str:
    """What a cell is apart from its code; empty for a directory that somebody else has put there."""
    try:
        return canonical(without_source(read_json(cell / "cell.json", regularizer=dict)))
    except (StoreError, LookupError, TypeError, ValueError, AttributeError):
        return ""


def _changed(cell: Path) -> int:
    return (cell / "result" / "manifest.json").stat().st_mtime_ns


def _last_named(run: Path) -> set[str]:
    """The directories of the cells that the last run named."""
    try:
        return {cell["slug"] for cell in read_json(run / LOCK, cells=list)["cells"]}
    except (StoreError, LookupError, TypeError):
        return set()
