"""The cells of runs that are to be joined: each verified, and those that several runs have compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from regbench.errors import StoreError
from regbench.execution.planning import folders
from regbench.store.files import sha256
from regbench.store.records import LOCK, CellRecord, Run, classifier_file, read_classifier, read_json
from regbench.store.weights import weights_difference
from regbench.verify import id_of, key_of, verified_key

TRIALS = "tuning/cells"
CELLS = "cells"
MODES = ("mean", "sampled")


@dataclass(frozen=True)
class Unit:
    """One cell's directory in one run."""

    source: Source
    place: str
    """``cells`` or ``tuning/cells``."""
    record: CellRecord

    @property
    def name(self) -> str:
        """For people, and what two runs may not use for different cells."""
        if self.place == TRIALS:
            return f"trial {self.record.directory.name}"
        return f"{self.record.dataset} {self.record.method} seed {self.record.seed}"

    @property
    def made(self) -> str:
        """Where and when the result was made, as its attempt says."""
        attempt = (
            self.record.directory
            / "attempts"
            / PurePath(self.record.result.get("attempt", "")).name
            / "attempt.json"
        )
        host = read_json(attempt).get("host", "unknown host") if attempt.is_file() else "unknown host"
        device = self.record.result.get("environment", {}).get("device_name", "unknown device")
        return (
            f"{self.source.path} (on {host}, {device}, {self.record.result.get('finished', 'unknown time')})"
        )


@dataclass(frozen=True)
class Source:
    """A run that is read."""

    path: Path
    run: Run
    lock: dict[str, Any]
    """``suite.lock.json`` as it stands."""

    @classmethod
    def read(cls, path: Path) -> Source:
        return cls(path, Run.open(path), dict(read_json(path / LOCK)))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every cell that the suite names and that has a directory, each once, and the trials of its tuning."""
        named = {record.directory.name: record for record in self.run.cells}
        cells = [Unit(self, CELLS, record) for record in named.values() if record.directory.is_dir()]
        return (*cells, *self._trials())

    def _trials(self) -> Iterator[Unit]:
        for name in sorted(folders(self.path / TRIALS)):
            directory = self.path / TRIALS / name
            if not (directory / "cell.json").is_file():
                continue
            key = read_json(directory / "cell.json")
            method, dataset = key["regularizer"]["name"], key["dataset"]["name"]
            yield Unit(self, TRIALS, CellRecord(id_of(key), method, dataset, key["seed"], key, directory))

    @property
    def unnamed(self) -> int:
        """Finished cells that the suite does not name."""
        named = {record.directory.name for record in self.run.cells}
        others = folders(self.path / CELLS) - named
        return sum((self.path / CELLS / name / "result" / "manifest.json").is_file() for name in others)

    def suite_files(self) -> list[bytes]:
        """The suite file and those that it extends, as they stood."""
        files = [self.path / "suite.toml", *sorted(self.path.glob("suite-extended-*.toml"))]
        return [file.read_bytes() for file in files if file.is_file()]


def awaits_tuning(key: Mapping[str, Any]) -> bool:
    """Whether a lock's entry only stands for a cell whose settings are not selected yet."""
    return "awaits" in key


def faults_of(source: Source) -> list[str]:
    """Everything in a run that is not as it says it is."""
    try:
        units = source.units
    except (StoreError, KeyError, TypeError) as error:
        return [f"{source.path / TRIALS} is not as regbench writes it: {error}"]
    faults = [
        f"{source.path / LOCK} names the cell {record.directory.name}, but not its method or data set"
        for record in source.run.cells
        if record.method not in source.run.methods or record.dataset not in source.run.datasets
    ]
    for unit in units:
        try:
            _check(unit)
        except StoreError as error:
            faults.append(str(error))
        except (KeyError, TypeError, ValueError) as error:
            faults.append(
                f"{unit.record.directory} is not as regbench writes it: {type(error).__name__}: {error}"
            )
    for dataset in source.run.datasets:
        faults += _classifier_faults(source, dataset)
    return faults


def _check(unit: Unit) -> None:
    record = unit.record
    for path in (record.directory, *record.directory.rglob("*")):
        if path.is_symlink():
            raise StoreError(f"{path} is a symbolic link; results are files of their own")
        if not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path} is neither a file nor a directory")
    if record.status != "done":
        if (record.directory / "cell.json").is_file():
            key_of(record)
        return
    verified_key(record)
    if record.result["id"] != record.id:
        raise StoreError(f"{record.result_dir} is the result of another cell than the suite names there")
    for mode in MODES:
        _ = record.result["metrics"][mode]


def _classifier_faults(source: Source, dataset: str) -> list[str]:
    facts, weights = read_classifier(source.path, dataset), classifier_file(source.path, dataset, "pt")
    if facts is None:
        return []
    if not weights.is_file() or sha256(weights) != facts.get("sha256"):
        return [f"{weights} is missing or has been altered: its SHA-256 is not what the facts beside it say"]
    return []


def contradictions(sources: Sequence[Source]) -> list[str]:
    """Cells that two runs know otherwise: other numbers, other settings by one name, other names for one cell."""
    faults: list[str] = []
    by_id: dict[tuple[str, str], list[Unit]] = {}
    names: dict[str, tuple[str, dict[str, Any], Path]] = {}
    labels: dict[str, tuple[set[str], Path]] = {}
    for source in sources:
        own: dict[str, set[str]] = {}
        for record in source.run.cells:
            if awaits_tuning(record.key):
                continue
            name = f"{record.dataset} {record.method} seed {record.seed}"
            own.setdefault(record.id, set()).add(name)
            id, key, path = names.setdefault(name, (record.id, record.key, source.path))
            if id != record.id:
                faults.append(
                    f"{name} is not the same cell: {_differing(key, record.key)} ({path}, {source.path})"
                )
        for id, called in own.items():
            first, path = labels.setdefault(id, (called, source.path))
            if first != called:
                one, other = ", ".join(sorted(first)), ", ".join(sorted(called))
                faults.append(f"one cell has several names: {one} in {path}, {other} in {source.path}")
        for unit in source.units:
            by_id.setdefault((unit.place, unit.record.id), []).append(unit)
    for units in by_id.values():
        for unit in units[1:]:
            faults += _contradiction(units[0], unit)
    return faults


def _contradiction(a: Unit, b: Unit) -> list[str]:
    states = {a.record.status, b.record.status}
    if states == {"done", "diverged"}:
        done, fell = (a, b) if a.record.status == "done" else (b, a)
        return [f"{a.name} has a result in {done.made}, and diverged in {fell.source.path}"]
    if states != {"done"}:
        return []
    said = list(_other_numbers(a.record, b.record))
    if not said:
        return []
    return [
        f"{a.name} has other numbers:",
        *(f"  {each}" for each in said),
        f"  in {a.made}",
        f"  and {b.made}",
    ]


def _other_numbers(a: CellRecord, b: CellRecord) -> Iterator[str]:
    """What differs in what two results measured, and in their weights."""
    if read_json(a.result_dir / "manifest.json") == read_json(b.result_dir / "manifest.json"):
        return
    known = a.result.get("metric_sources", {}), b.result.get("metric_sources", {})
    for mode in MODES:
        first, second = a.result["metrics"][mode] or {}, b.result["metrics"][mode] or {}
        for name in first:
            # A metric of other code is another metric; measuring again makes them one.
            if name in second and known[0].get(name) == known[1].get(name) and first[name] != second[name]:
                ending = "" if mode == "mean" else " (sampled codes)"
                yield f"{name}{ending}: {first[name]!r} and {second[name]!r}"
    size = weights_difference(a.verified("weights.pt"), b.verified("weights.pt"))
    if size is not None:
        yield f"weights: they differ by up to {size:.3g}"


def _differing(a: Any, b: Any, where: str = "") -> str:
    """Dotted paths at which two keys differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [
            _differing(a.get(name), b.get(name), f"{where}.{name}".lstrip("."))
            for name in dict.fromkeys([*a, *b])
            if a.get(name) != b.get(name)
        ]
        return "; ".join(parts) or "its code had changed, and the old result was accepted in one of them"
    return f"{where} = {a!r} and {b!r}"
