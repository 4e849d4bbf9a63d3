"""The numbers behind a table: intervals over seeds, paired differences to the baseline, tie groups.

A *row* is a method at one of its codes: deterministic methods have one row, stochastic ones a row at the mean
code and one at a sampled code. A *quantity* is what a column shows: a metric, a cost, a diagnostic.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from regbench.report.frame import SAMPLED, diagnostic_columns, load_frame
from regbench.report.quantities import DIAGNOSTICS
from regbench.statistics import (
    Better,
    Interval,
    PairedDifference,
    holm,
    min_seeds,
    paired_difference,
    share_seeds,
    sign_flip_test,
    t_interval,
    tie_group,
)
from regbench.store.records import Run

MIXABLE = {
    "device": "devices",
    "precision": "precisions",
    "launch": "ways to launch steps",
    "engine": "engines",
}
"""What may differ between the cells of a run without being a part of them, and its plural."""
Code = Literal["mean", "sampled"]
Group = Literal["metric", "cost", "codes", "prior", "samples", "clusters"]

_COST_QUANTITIES: tuple[tuple[str, str, Better, str], ...] = (
    ("optimizer_steps", "steps", "lower", "optimizer steps of the whole training"),
    ("device_seconds", "device-seconds", "lower", "time spent training on the device"),
    (
        "peak_memory_bytes",
        "peak memory (MiB)",
        "lower",
        "largest memory on the GPU; without one, of the whole process",
    ),
    ("images_per_second", "images/s", "higher", "training images per second"),
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a column of numbers shows."""

    name: str
    """Column of the results frame (at the mean code)."""
    label: str
    group: Group
    better: Better | None
    definition: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Seeds of a method that did not finish, and why."""

    status: str
    reason: str
    """First line of the reason."""
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method at one code, on one data set."""

    method: str
    code: Code
    stochastic: bool
    """Whether the method also has a row at the other code."""
    planned: int
    done: int
    problems: tuple[Problem, ...]
    collapsed: Mapping[int, str]
    """The warnings of seeds whose codes say little about the images."""
    warned: Mapping[int, str]
    """The method's own warnings, by seed."""
    environment: Mapping[str, tuple[str, ...]]
    """What is in ``MIXABLE``, of the finished cells; more than one of a kind: they are mixed."""
    samples_from: tuple[str, ...]
    """What the samples of its finished cells were drawn from."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One quantity of one row."""

    interval: Interval | None
    """Mean over the finished seeds; ``None``: there is none."""
    difference: PairedDifference | None = None
    """This row minus the baseline's, over shared seeds. ``None`` for the baseline itself, and for costs."""
    p: float | None = None
    """Exact sign-flip test of the difference."""
    p_holm: float | None = None
    """Adjusted over the column; ``None`` where there are too few seeds for a test to succeed."""
    tie: bool = False
    """Whether the row is in the tie group of the best; none is where no two methods can be tested."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All numbers of one data set."""

    dataset: str
    baseline: str | None
    quantities: tuple[Quantity, ...]
    rows: tuple[MethodRow, ...]
    entries: Mapping[tuple[str, Code, str], Entry]
    """By method, code and name of the quantity."""
    comparisons: Mapping[str, int]
    """By metric, the number of differences to the baseline: the family of Holm's adjustment."""
    anchors: Mapping[str, Any] | None
    classifier: Mapping[str, Any] | None
    """The suite's own classifier of the data set, with what its features say of real images."""

    def entry(self, row: MethodRow, quantity: Quantity) -> Entry:
        return self.entries[row.method, row.code, quantity.name]


def summarise(run: Run) -> list[Summary]:
    """The numbers of every data set, in the suite's order."""
    frame = load_frame(run)
    quantities = _quantities(run)
    return [_summary(run, frame[frame["dataset"] == name], name, quantities) for name in run.datasets]


def tidy(summaries: Iterable[Summary]) -> pd.DataFrame:
    """One row per data set, method, code and quantity, at full precision: what ``table.csv`` holds."""
    return pd.DataFrame([record for summary in summaries for record in _records(summary)])


def reference_values(summary: Summary) -> list[tuple[str, dict[str, float]]]:
    """What no method was trained for: label, and its values by quantity.

    The mean image and principal components as reconstructions, training images in the place of samples, pixels in
    the place of codes (probes on them, and k-means with as many clusters as classes).
    """
    anchors, classifier = summary.anchors or {}, summary.classifier or {}
    rows: list[tuple[str, dict[str, Any]]] = [("mean image", {"mse": anchors.get("mean_image_mse")})]
    if anchors.get("pca_mse") is not None:
        rows.append((f"PCA-{anchors['pca_components']}", {"mse": anchors["pca_mse"]}))
    pixels = {f"probe_{name}": classifier.get(f"{name}_pixels") for name in ("knn", "linear")}
    pixels |= {f"clusters_{name}": v for name, v in (classifier.get("clusters_pixels") or {}).items()}
    floors = {f"samples_{name}": value for name, value in (classifier.get("floors") or {}).items()}
    rows += [("pixels", pixels), ("training images", floors)]
    found = [
        (label, {name: float(v) for name, v in values.items() if v is not None}) for label, values in rows
    ]
    return [(label, values) for label, values in found if values]


def _diagnostic_group(name: str) -> Group:
    """The table that a diagnostic stands in, by what it belongs to in the result."""
    groups: dict[str, Group] = {
        "prior": "prior",
        "normal": "prior",
        "cluster_prior": "prior",
        "samples": "samples",
        "clusters": "clusters",
    }
    return next((group for part, group in groups.items() if name.startswith(f"{part}_")), "codes")


def _quantities(run: Run) -> tuple[Quantity, ...]:
    info = run.suite["metric_info"]
    metrics = [
        Quantity(name, info[name]["label"], "metric", info[name]["better"], info[name]["definition"])
        for name in run.suite["metrics"]
    ]
    cost = [Quantity(name, label, "cost", better, text) for name, label, better, text in _COST_QUANTITIES]
    beta = Quantity("beta_effective", "effective weight", "codes", None, "weight x reduction of the loss")
    diagnostics = []
    for name, column in diagnostic_columns(run).items():
        label, text = DIAGNOSTICS.get(name, (name.replace("_", " "), ""))
        diagnostics.append(Quantity(column, label, _diagnostic_group(name), None, text))
    return (*metrics, *cost, beta, *diagnostics)


def _summary(run: Run, frame: pd.DataFrame, dataset: str, quantities: tuple[Quantity, ...]) -> Summary:
    baseline = run.suite.get("baseline")
    rows = tuple(
        row
        for method in run.methods
        for row in _method_rows(frame[frame["method"] == method], method, run.suite["metrics"])
    )
    columns = {str(name): of_method.to_dict("list") for name, of_method in frame.groupby("method")}
    entries: dict[tuple[str, Code, str], Entry] = {}
    comparisons = {}
    for quantity in quantities:
        values = {(row.method, row.code): _by_seed(columns[row.method], row, quantity) for row in rows}
        if quantity.group == "metric":
            column, comparisons[quantity.name] = _metric_column(values, baseline, quantity.better or "lower")
        else:
            column = {key: Entry(_interval(by_seed.values())) for key, by_seed in values.items()}
        entries |= {(method, code, quantity.name): entry for (method, code), entry in column.items()}
    return Summary(
        dataset,
        baseline,
        quantities,
        rows,
        entries,
        comparisons,
        run.anchors(dataset),
        run.classifier(dataset),
    )


def _method_rows(frame: pd.DataFrame, method: str, metrics: Iterable[str]) -> Iterable[MethodRow]:
    if frame.empty:
        return
    done = frame[frame["status"] == "done"]
    unfinished = frame[frame["status"] != "done"]
    stochastic = bool(done[[name + SAMPLED for name in metrics]].notna().any(axis=None))
    reasons: dict[tuple[str, str], list[int]] = {}
    for status, reason, seed in zip(
        unfinished["status"], unfinished["reason"], unfinished["seed"], strict=True
    ):
        first_line = str(reason).strip().partition("\n")[0]
        reasons.setdefault((str(status), first_line), []).append(int(seed))
    codes: tuple[Code, ...] = ("mean", "sampled") if stochastic else ("mean",)
    for code in codes:
        yield MethodRow(
            method=method,
            code=code,
            stochastic=stochastic,
            planned=len(frame),
            done=len(done),
            problems=tuple(Problem(*key, tuple(seeds)) for key, seeds in reasons.items()),
            collapsed=_texts_by_seed(done, "collapse"),
            warned=_texts_by_seed(done, "warnings"),
            environment={
                kind: tuple(str(value) for value in done[kind].dropna().unique()) for kind in MIXABLE
            },
            samples_from=tuple(str(value) for value in done["samples_from"].dropna().unique()),
        )


def _texts_by_seed(done: pd.DataFrame, column: str) -> dict[int, str]:
    """The texts of one column, by seed, where there are any."""
    return {int(seed): str(text) for seed, text in zip(done["seed"], done[column], strict=True) if text}


def _by_seed(
    columns: Mapping[Hashable, Sequence[Any]], row: MethodRow, quantity: Quantity
) -> dict[int, float]:
    """Values of the finished seeds; the costs of a method stand at its mean code only.

    ``columns`` are those of the results frame, with the method's rows alone.
    """
    if row.code == "sampled" and quantity.group != "metric":
        return {}
    column = quantity.name + (SAMPLED if row.code == "sampled" else "")
    return {
        int(seed): float(value)
        for seed, value in zip(columns["seed"], columns[column], strict=True)
        if not math.isnan(value)
    }


def _interval(values: Iterable[float]) -> Interval | None:
    found = list(values)
    return t_interval(found) if found else None


def _metric_column(
    values: Mapping[tuple[str, Code], Mapping[int, float]], baseline: str | None, better: Better
) -> tuple[dict[tuple[str, Code], Entry], int]:
    """Entries of one metric, and how many of them are compared with the baseline."""
    at_mean = {method: by_seed for (method, code), by_seed in values.items() if code == "mean"}
    testable = sum(len(by_seed) > 1 for by_seed in at_mean.values()) > 1
    ties = tie_group(at_mean, better=better) if testable else set()
    reference = at_mean.get(baseline, {}) if baseline is not None else {}
    differences: dict[tuple[str, Code], PairedDifference] = {}
    p_values: dict[tuple[str, Code], float] = {}
    for key, by_seed in values.items():
        a, b = share_seeds(by_seed, reference)
        if key == (baseline, "mean") or not len(a):
            continue
        differences[key] = paired_difference(a, b, better=better)
        if math.isfinite(differences[key].mean):
            p_values[key] = sign_flip_test(a, b)
    needed = min_seeds(len(p_values)) if p_values else 0
    # All tests of the family are adjusted together, those included that are too small to succeed.
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    column = {
        key: Entry(
            interval=_interval(by_seed.values()),
            difference=differences.get(key),
            p=p_values.get(key),
            p_holm=adjusted[key] if key in adjusted and differences[key].n >= needed else None,
            tie=key[1] == "mean" and key[0] in ties,
        )
        for key, by_seed in values.items()
    }
    return column, len(p_values)


def _records(summary: Summary) -> Iterable[dict[str, Any]]:
    for row in summary.rows:
        for quantity in summary.quantities:
            entry = summary.entry(row, quantity)
            if row.code == "sampled" and quantity.group != "metric":
                continue
            yield _record(summary, row, quantity, entry)
    groups = {quantity.name: quantity.group for quantity in summary.quantities}
    for label, values in reference_values(summary):
        for name, value in values.items():
            if name in groups:
                yield {
                    "dataset": summary.dataset,
                    "method": label,
                    "trained": False,
                    "quantity": name,
                    "group": groups[name],
                    "mean": value,
                }


def _record(summary: Summary, row: MethodRow, quantity: Quantity, entry: Entry) -> dict[str, Any]:
    interval, difference = entry.interval, entry.difference
    problems = (f"{problem.status}: {problem.reason}" for problem in row.problems)
    return {
        "dataset": summary.dataset,
        "method": row.method,
        "trained": True,
        "code": row.code,
        "quantity": quantity.name,
        "group": quantity.group,
        "better": quantity.better,
        "seeds_done": row.done,
        "seeds_planned": row.planned,
        "mean": interval and interval.mean,
        "sd": interval and interval.sd,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "baseline": summary.baseline if difference else None,
        "difference": difference and difference.mean,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "pairs": difference and difference.n,
        "wins": difference and difference.wins,
        "correlation": difference and difference.correlation,
        "p_sign_flip": entry.p,
        "p_holm": entry.p_holm,
        "comparisons": summary.comparisons.get(quantity.name) if difference else None,
        "tie_group": entry.tie if quantity.group == "metric" else None,
        "seeds_collapsed": len(row.collapsed),
        **{kind: "+".join(values) for kind, values in row.environment.items()},
        "unfinished": "; ".join(problems),
    }
