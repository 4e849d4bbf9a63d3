"""A run as a pandas DataFrame: one row per planned cell, finished or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from regbench.store.records import CellRecord, Run

COST = ("optimizer_steps", "device_seconds", "images_per_second", "peak_memory_bytes")
ENVIRONMENT = ("device", "device_name", "precision", "launch", "engine")
_IDENTITY = ("dataset", "method", "regularizer", "seed", "status", "reason")
_REST = (
    *COST,
    *ENVIRONMENT,
    "beta_effective",
    "loss_scale",
    "samples_from",
    "collapse",
    "warnings",
    "options",
    "id",
)
SAMPLED = "_sampled"
"""Ending of the columns that hold a metric at one sampled code; without it, at the mean code."""


def load_frame(run: Run) -> pd.DataFrame:
    """One row per planned cell, in the suite's order; failed and missing cells are rows with empty numbers.

    Columns, in this order:

    - ``dataset``, ``method`` (labels), ``regularizer`` (its name), ``seed``, ``status`` (``done``,
      ``failed``, ``diverged``, ``interrupted`` or ``missing``) and ``reason``;
    - each metric of the suite, at the mean code as ``<metric>`` and, for stochastic methods, at one sampled
      code as ``<metric>_sampled``;
    - each diagnostic that is a number (``active_units``, ``clusters_purity``, ...);
    - ``optimizer_steps``, ``device_seconds``, ``images_per_second``, ``peak_memory_bytes``;
    - ``device``, ``device_name``, ``precision``, ``launch``, ``engine``, ``beta_effective``, ``loss_scale``,
      ``samples_from``, ``collapse`` (warnings that the codes say little about the images; empty: none),
      ``warnings`` (the method's own; empty: none),
      ``options`` (the method's options, as JSON) and ``id``.

    Raises ``StoreError`` where a result has been altered.
    """
    frame: pd.DataFrame = _read(run)[0]
    return frame.copy()


def diagnostic_columns(run: Run) -> dict[str, str]:
    """Diagnostics that are numbers in any finished cell, in order of appearance, and their columns.

    A diagnostic has its own name as its column, or ``diagnostic_<name>`` where that is taken.
    """
    return dict(_read(run)[1])


def _read(run: Run) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame and the columns of its diagnostics; every part of a report asks for them."""
    found: tuple[pd.DataFrame, dict[str, str]] | None = run.computed.get(__name__)
    if found is None:
        found = run.computed[__name__] = _frame(run)
    return found


def _frame(run: Run) -> tuple[pd.DataFrame, dict[str, str]]:
    metrics = list(run.suite["metrics"])
    sampled = [name + SAMPLED for name in metrics]
    measured = [
        dict(_numbers(cell.result["diagnostics"])) if cell.status == "done" else {} for cell in run.cells
    ]
    taken = {*_IDENTITY, *_REST, *metrics, *sampled}
    names = dict.fromkeys(name for numbers in measured for name in numbers)
    diagnostics = {name: f"diagnostic_{name}" if name in taken else name for name in names}
    columns = [*_IDENTITY, *metrics, *sampled, *diagnostics.values(), *_REST]
    rows = (
        _row(cell, metrics, {diagnostics[name]: value for name, value in numbers.items()})
        for cell, numbers in zip(run.cells, measured, strict=True)
    )
    frame = pd.DataFrame(rows, columns=columns)
    numbers = [*metrics, *sampled, *diagnostics.values(), *COST, "beta_effective"]
    return frame.astype(dict.fromkeys(numbers, "float64")), diagnostics


def _row(cell: CellRecord, metrics: list[str], diagnostics: Mapping[str, float]) -> dict[str, Any]:
    regularizer = cell.key["regularizer"]
    row = {
        "dataset": cell.dataset,
        "method": cell.method,
        "regularizer": regularizer["name"],
        "seed": cell.seed,
        "status": cell.status,
        "reason": cell.outcome.get("reason", ""),
        "options": json.dumps(regularizer["options"], sort_keys=True),
        "id": cell.id,
    }
    if cell.status != "done":
        return row
    result = cell.result
    sampled = result["metrics"]["sampled"] or {}
    row |= {name: _number(result["metrics"]["mean"].get(name)) for name in metrics}
    row |= {name + SAMPLED: _number(sampled.get(name)) for name in metrics}
    row |= diagnostics
    row |= {name: _number(result["cost"].get(name)) for name in COST}
    row |= {name: result["environment"].get(name) for name in ENVIRONMENT}
    row["beta_effective"] = _number(result["beta_effective"])
    row |= {name: result.get(name) for name in ("loss_scale", "samples_from")}
    for name in ("collapse", "warnings"):
        row[name] = "; ".join(result["diagnostics"].get(name) or ())
    return row


def _numbers(diagnostics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers among the diagnostics; those of a nested table are called ``<table>_<name>``."""
    for name, value in diagnostics.items():
        if isinstance(value, dict):  # cheaper than Mapping, and from JSON it is one
            yield from _numbers(value, f"{prefix}{name}_")
        elif (number := _number(value)) is not None:
            yield f"{prefix}{name}", number


def _number(value: Any) -> float | None:
    """A stored number; the store writes what is not finite as the texts ``nan``, ``inf`` and ``-inf``."""
    if type(value) is float or type(value) is int:  # no bool
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None
