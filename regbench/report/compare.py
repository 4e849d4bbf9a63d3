"""Two result sets side by side: what is better, worse, or not distinguishable, newly failed or fixed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from regbench.errors import UsageError
from regbench.report.frame import SAMPLED, load_frame
from regbench.report.summary import Code
from regbench.statistics import (
    ALPHA,
    Better,
    Interval,
    holm,
    paired_t_test,
    share_seeds,
    t_interval,
    welch_t_test,
)
from regbench.store.records import FAILED, Run

Mark = Literal["~", "+", "-", "!", "*", "only in A", "only in B"]
MARKS: dict[Mark, str] = {
    "~": "not significant",
    "+": "B is better",
    "-": "B is worse",
    "!": "newly failed in B",
    "*": "failed in A, fixed in B",
    "only in A": "B has nothing to compare",
    "only in B": "A has nothing to compare",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of a comparison: a metric of a method, or (``metric`` empty) the method as a whole."""

    dataset: str
    method: str
    mark: Mark
    metric: str = ""
    code: Code = "mean"
    a: Interval | None = None
    """Mean over all finished seeds of A; likewise ``b``."""
    b: Interval | None = None
    difference: Interval | None = None
    """B minus A: over the shared seeds where the test is paired."""
    p: float | None = None
    p_holm: float | None = None
    """Adjusted over all tests of the metric; the mark goes by this one."""
    test: str = ""
    """Which test it was, and with how many seeds, in words."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of :func:`compare`."""

    a: str
    """Path of the first run directory."""
    b: str
    labels: Mapping[str, str]
    """How tables head each metric."""
    lines: tuple[Compared, ...]
    alpha: float
    """Level of significance of the marks ``+`` and ``-``."""
    notes: tuple[str, ...]
    """Settings in which the two runs differ, where that may be why their results do."""

    def count(self, mark: Mark) -> int:
        return sum(line.mark == mark for line in self.lines)


@dataclass(frozen=True, slots=True)
class _Side:
    frame: pd.DataFrame
    run: Run

    def cells(self, dataset: str, method: str) -> pd.DataFrame:
        frame = self.frame
        return frame[(frame["dataset"] == dataset) & (frame["method"] == method)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(zip(self.frame["dataset"], self.frame["method"], strict=True)))

    @property
    def metrics(self) -> list[str]:
        return list(self.run.suite["metrics"])


def compare(
    run_a: Run, run_b: Run, *, metrics: Sequence[str] | None = None, alpha: float = ALPHA
) -> Comparison:
    """Compare B with A by data set, method and metric; methods are matched by their labels.

    A metric is tested by a paired t-test over the seeds that both runs have, where those are two or more,
    else by Welch's t-test where both have two or more seeds. The p-values of a metric are Holm-adjusted
    together, over all its methods and data sets.

    Args:
        metrics: only these; raises ``UsageError`` for one that neither run has.
        alpha: level of significance of the marks ``+`` and ``-``.
    """
    a, b = _Side(load_frame(run_a), run_a), _Side(load_frame(run_b), run_b)
    info = run_b.suite["metric_info"] | run_a.suite["metric_info"]
    chosen = _chosen(metrics, list(dict.fromkeys([*a.metrics, *b.metrics])))
    lines = []
    for dataset, method in dict.fromkeys([*a.pairs, *b.pairs]):
        lines += list(_method_lines(a, b, dataset, method, {name: info[name]["better"] for name in chosen}))
    return Comparison(
        a=str(run_a.path),
        b=str(run_b.path),
        labels={name: info[name]["label"] for name in chosen},
        lines=tuple(_judged(lines, alpha, {name: info[name]["better"] for name in chosen})),
        alpha=alpha,
        notes=tuple(_setting_notes(run_a, run_b)),
    )


def _chosen(asked: Sequence[str] | None, known: list[str]) -> list[str]:
    for name in asked or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"neither run has a metric {name!r}{guess}", hint=f"known: {', '.join(known)}")
    return list(asked) if asked else known


def _method_lines(
    a: _Side, b: _Side, dataset: str, method: str, better: Mapping[str, Better]
) -> Iterator[Compared]:
    cells_a, cells_b = a.cells(dataset, method), b.cells(dataset, method)
    if cells_a.empty or cells_b.empty:
        yield Compared(dataset, method, "only in B" if cells_a.empty else "only in A")
        return
    yield from _status_line(cells_a, cells_b, dataset, method)
    for metric in better:
        for code in ("mean", "sampled"):
            values_a, values_b = _by_seed(cells_a, metric, code), _by_seed(cells_b, metric, code)
            if values_a and values_b:
                yield _tested(Compared(dataset, method, "~", metric, code), values_a, values_b)
            elif values_a or values_b:
                yield Compared(
                    dataset,
                    method,
                    "only in A" if values_a else "only in B",
                    metric,
                    code,
                    a=t_interval(list(values_a.values())) if values_a else None,
                    b=t_interval(list(values_b.values())) if values_b else None,
                )


def _status_line(
    cells_a: pd.DataFrame, cells_b: pd.DataFrame, dataset: str, method: str
) -> Iterator[Compared]:
    """A line for the method as a whole where seeds failed on one side and did not on the other."""
    failed_a, failed_b = _failed(cells_a), _failed(cells_b)
    new = [seed for seed in failed_b if seed not in failed_a]
    finished = set(cells_b.loc[cells_b["status"] == "done", "seed"])
    fixed = [seed for seed in failed_a if seed in finished]
    if new:
        reasons = "; ".join(dict.fromkeys(failed_b[seed] for seed in new))
        yield Compared(dataset, method, "!", note=f"{_seeds(new)} {reasons}")
    elif fixed:
        reasons = "; ".join(dict.fromkeys(failed_a[seed] for seed in fixed))
        yield Compared(dataset, method, "*", note=f"{_seeds(fixed)}, in A {reasons}")


def _failed(cells: pd.DataFrame) -> dict[int, str]:
    """Status and first line of the reason, by seed."""
    bad = cells[cells["status"].isin(FAILED)]
    return {
        int(seed): f"{status}: {str(reason).strip().partition(chr(10))[0]}"
        for seed, status, reason in zip(bad["seed"], bad["status"], bad["reason"], strict=True)
    }


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _by_seed(cells: pd.DataFrame, metric: str, code: Code) -> dict[int, float]:
    column = metric if code == "mean" else metric + SAMPLED
    if column not in cells:
        return {}
    present = cells[cells[column].notna()]
    return {int(seed): float(value) for seed, value in zip(present["seed"], present[column], strict=True)}


def _tested(line: Compared, a: Mapping[int, float], b: Mapping[int, float]) -> Compared:
    all_a, all_b = list(a.values()), list(b.values())
    shared_b, shared_a = share_seeds(b, a)
    p: float | None
    if len(shared_a) >= 2:
        difference = t_interval(shared_b - shared_a)
        p = paired_t_test(shared_b, shared_a)
        same = "identical, " if not (shared_b != shared_a).any() else ""
        test = f"{same}paired, n = {len(shared_a)}"
    elif min(len(a), len(b)) >= 2:
        difference, p = welch_t_test(all_b, all_a)
        test = f"Welch, n = {len(a)} and {len(b)}"
    else:
        pair = (shared_b, shared_a) if len(shared_a) else (all_b, all_a)
        difference, p = welch_t_test(*pair)
        test = "too few seeds to test"
    return replace(line, a=t_interval(all_a), b=t_interval(all_b), difference=difference, p=p, test=test)


def _judged(lines: Sequence[Compared], alpha: float, better: Mapping[str, Better]) -> Iterator[Compared]:
    """Adjust the p-values of each metric together, and mark what is significant."""
    adjusted = {
        metric: iter(holm([line.p for line in lines if line.metric == metric and line.p is not None]))
        for metric in better
    }
    for line in lines:
        if line.p is None or line.difference is None:
            yield line
            continue
        p_holm = next(adjusted[line.metric])
        improved = (line.difference.mean < 0) == (better[line.metric] == "lower")
        mark: Mark = "~" if p_holm >= alpha else "+" if improved else "-"
        yield replace(line, p_holm=p_holm, mark=mark)


def _setting_notes(run_a: Run, run_b: Run) -> Iterator[str]:
    """Differences in what determines the numbers: one note for all methods that share it."""
    keys_a = {(cell.dataset, cell.method): cell.key for cell in run_a.cells}
    keys_b = {(cell.dataset, cell.method): cell.key for cell in run_b.cells}
    found: dict[str, list[str]] = {}
    for (dataset, method), key in keys_a.items():
        other = keys_b.get((dataset, method))
        if other is None:
            continue
        old, new = dict(_flat(key)), dict(_flat(other))
        for path in dict.fromkeys([*old, *new]):
            if path != "seed" and old.get(path) != new.get(path):
                text = f"{path}: {_short(old.get(path))} in A, {_short(new.get(path))} in B"
                found.setdefault(text, []).append(f"{method} on {dataset}")
    for text, methods in found.items():
        more = f" and {len(methods) - 3} more" if len(methods) > 3 else ""
        yield f"{text} ({', '.join(methods[:3])}{more})"


def _flat(key: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in key.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
