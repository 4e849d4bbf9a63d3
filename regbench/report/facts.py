"""What the report says besides tables and figures: what was run, how, what failed, and with what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regbench.report.numbers import plain
from regbench.store.records import UNFINISHED, CellRecord, Run, attempt_number, read_json

PRIVATE = ("cell", "command", "host", "started")
"""Parts of an attempt's record that differ from cell to cell, or that a published report should not tell."""
MOST_VALUES = 4
"""So many different values of one setting are listed; of more, their number is given."""


@dataclass(frozen=True)
class Problem:
    """A cell without a result."""

    dataset: str
    method: str
    seed: int
    status: str
    epoch: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class MethodFacts:
    """What a method was, exactly."""

    label: str
    regularizer: str
    plugin: str
    options: tuple[tuple[str, str], ...]
    beta: str
    """Effective weight of the regularization term, per data set where they differ."""
    loss_scale: str
    samples_from: str


@dataclass(frozen=True)
class Facts:
    """Read once from a run; nothing in it is escaped."""

    run: Run

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cells by status; only those that occur."""
        found = [cell.status for cell in self.run.cells]
        return {status: found.count(status) for status in ("done", *UNFINISHED) if status in found}

    @property
    def done(self) -> list[CellRecord]:
        return [cell for cell in self.run.cells if cell.status == "done"]

    @cached_property
    def head(self) -> list[tuple[str, str]]:
        """The first lines of the report."""
        from regbench import __version__

        environments = [cell.result["environment"] for cell in self.done]
        states = ", ".join(
            f"{count} {'not run yet' if status == 'missing' else status}"
            for status, count in self.counts.items()
            if status != "done"
        )
        seeds = list(dict.fromkeys(cell.seed for cell in self.run.cells))
        trained_with = distinct(attempt.get("libraries", {}).get("regbench") for attempt in self._attempts)
        return [
            ("Cells", f"{len(self.done)} of {len(self.run.cells)} done" + (f"; {states}" if states else "")),
            ("Methods", str(len(self.run.methods))),
            ("Data sets", ", ".join(self.run.datasets)),
            ("Seeds", f"{len(seeds)} ({', '.join(map(str, seeds))})"),
            ("Device", ", ".join(distinct(f"{e['device_name']} ({e['device']})" for e in environments))),
            ("Precision", ", ".join(distinct(e["precision"] for e in environments))),
            ("Steps launched", ", ".join(distinct(e.get("launch") for e in environments)) or "not recorded"),
            ("Latest attempt", self.latest or "not recorded"),
            ("regbench", ", ".join(trained_with) or __version__),
        ]

    @cached_property
    def latest(self) -> str:
        """When the latest attempt started, as recorded (UTC)."""
        started = [str(attempt["started"]) for attempt in self._attempts if "started" in attempt]
        return max(started, default="").replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC")

    @cached_property
    def problems(self) -> list[Problem]:
        """Cells without a result, those that broke down first."""
        cells = [cell for cell in self.run.cells if cell.status not in ("done", "missing")]
        cells += [cell for cell in self.run.cells if cell.status == "missing"]
        return [
            Problem(
                dataset=cell.dataset,
                method=cell.method,
                seed=cell.seed,
                status="not run yet" if cell.status == "missing" else cell.status,
                epoch=str(cell.outcome.get("epoch", "")),
                reason="" if cell.status == "missing" else str(cell.outcome.get("reason", "")),
                traceback=str(cell.outcome.get("traceback", "")),
            )
            for cell in cells
        ]

    @cached_property
    def methods(self) -> list[MethodFacts]:
        return [self._method(label) for label in self.run.methods]

    def _method(self, label: str) -> MethodFacts:
        cells = self.run.select(method=label)
        regularizer = cells[0].key["regularizer"]
        plugin = regularizer["plugin"]
        results = [cell.result for cell in cells if cell.status == "done"]
        betas = {
            cell.dataset: plain(cell.result["beta_effective"])
            for cell in cells
            if cell.status == "done" and cell.result["beta_effective"] is not None
        }
        one = len(set(betas.values())) == 1
        return MethodFacts(
            label=label,
            regularizer=regularizer["name"],
            plugin=f"{plugin['distribution']} {plugin['version']}".strip(),
            options=_options(cells),
            beta=next(iter(betas.values())) if one else ", ".join(f"{v} ({d})" for d, v in betas.items()),
            loss_scale=", ".join(distinct(result["loss_scale"] for result in results)),
            samples_from=", ".join(distinct(result["samples_from"] for result in results)),
        )

    @cached_property
    def settings(self) -> list[tuple[str, str]]:
        """Nets and training, with all values where cells differ."""
        keys = [{part: cell.key[part] for part in ("model", "training")} for cell in self.run.cells]
        return _table(keys)

    @cached_property
    def data(self) -> list[tuple[str, str, str]]:
        """Data sets: label, what it is, fingerprint."""
        rows = []
        for label in self.run.datasets:
            entry = self.run.select(dataset=label)[0].key["dataset"]
            options = ", ".join(f"{name} = {shown(value)}" for name, value in entry["options"].items())
            images = [
                f"{entry[part]} {words} images"
                for part, words in (("train_images", "training"), ("test_images", "test"))
                if part in entry
            ]
            rows.append(
                (label, "; ".join(filter(None, [entry["name"], options, *images])), entry["fingerprint"])
            )
        return rows

    @cached_property
    def provenance(self) -> list[tuple[str, str]]:
        """Versions and hardware of the latest attempts, with all values where they differ."""
        return _table({k: v for k, v in attempt.items() if k not in PRIVATE} for attempt in self._attempts)

    @cached_property
    def _attempts(self) -> list[dict[str, Any]]:
        """Records of the attempt behind each cell, where there is one."""
        return [dict(read_json(file)) for cell in self.run.cells if (file := _attempt_of(cell))]


def _options(cells: Iterable[CellRecord]) -> tuple[tuple[str, str], ...]:
    """A method's options, each with its different values: tuning may select others on each data set."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        for name, value in cell.key["regularizer"]["options"].items():
            found.setdefault(name, []).append(shown(value))
    return tuple((name, ", ".join(distinct(values))) for name, values in found.items())


def distinct(values: Iterable[Any]) -> list[str]:
    """The different values that are there, in order of appearance."""
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def shown(value: object) -> str:
    """A setting as a suite file would have it."""
    return json.dumps(value, ensure_ascii=False) if value is not None else "none"


def _attempt_of(cell: CellRecord) -> Path | None:
    """The attempt that made the result; where there is none, the latest."""
    attempts = cell.directory / "attempts"
    made: str | None = cell.result.get("attempt") if cell.status == "done" else None
    if made is not None and (attempts / made / "attempt.json").is_file():
        return attempts / made / "attempt.json"
    files = attempts.glob("*/attempt.json")
    return max(files, key=lambda file: attempt_number(file.parent), default=None)


def _table(records: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Dotted names of all settings in some records, each with its different values."""
    found: dict[str, list[str]] = {}
    for record in records:
        for name, value in _flat(record):
            found.setdefault(name, [])
            if value not in found[name]:
                found[name].append(value)
    return [
        (name, ", ".join(values) if len(values) <= MOST_VALUES else f"{len(values)} different values")
        for name, values in found.items()
    ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else shown(value)
