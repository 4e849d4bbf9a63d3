"""The claims of a suite, and what a run says of them.

for claim in judge_claims(run):
    claim.verdict, claim.p, claim.deciding.difference, claim.needed
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from regbench.errors import StoreError
from regbench.report.frame import load_frame
from regbench.report.numbers import plain
from regbench.statistics import (
    Better,
    Hypothesis,
    PairedDifference,
    Verdict,
    better_than,
    claim_needed_seeds,
    differs,
    judge,
    paired_difference,
    within,
)
from regbench.store.records import UNFINISHED, Run
from regbench.suite.claims import KINDS, Claim, Difference, Equivalence, Margin, Monotone

Says = Literal["matches", "not worse", "not better", "better", "worse", "differs"]
_BySeed = Mapping[int, Mapping[Any, Any]]
"""Of one method on one data set, what is known of each seed: its status and metrics."""
_Cells = Mapping[Any, _BySeed]
"""By data set and method."""
FLIPPED: Mapping[Better, Better] = {"lower": "higher", "higher": "lower"}


@dataclass(frozen=True, slots=True)
class Element:
    """One comparison of those that a claim consists of: a method with a reference on a data set."""

    dataset: str
    method: str
    reference: str
    says: Says
    """What is claimed of the method."""
    metric: str
    """Label of the metric."""
    better: Better
    """Which direction of the metric is better."""
    margin: Margin | None
    width: float | None
    """The margin in the metric's unit; a relative one is estimated. ``None``: there is none, or no value of it."""
    difference: PairedDifference | None
    """Method minus reference over the seeds that every method involved has finished; ``None``: there are none."""
    planned: int
    """Seeds that the run has planned for the method."""
    p_support: float | None
    p_refute: float | None
    """Before any adjustment for other elements and claims; ``None`` where there is no test."""
    reason: str
    """Why there is no test; empty where there is one."""

    @property
    def n(self) -> int:
        """Pairs of seeds."""
        return 0 if self.difference is None else self.difference.n


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim and its verdict."""

    claim: Claim
    verdict: Verdict
    p: float | None
    """The smaller of those of supporting and refuting it, adjusted; ``None`` where nothing could be tested."""
    elements: tuple[Element, ...]
    deciding: Element
    """The element that refutes, else the one that is hardest to support."""
    needed: float | None
    """Seeds that would decide with 80% power; ``inf``: more than 10,000. ``None``: decided, or not known."""

    @property
    def statement(self) -> str:
        return self.claim.statement

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why elements could not be tested, each reason once."""
        return tuple(dict.fromkeys(element.reason for element in self.elements if element.reason))


@dataclass(frozen=True, slots=True)
class _Pair:
    """Who is compared with whom."""

    method: str
    reference: str
    says: Says
    margin: Margin | None = None

    @property
    def involved(self) -> tuple[str, ...]:
        of = self.margin.of if self.margin else None
        return tuple(dict.fromkeys((self.method, self.reference, *(() if of is None else (of,)))))


@dataclass(frozen=True, slots=True)
class _Tested:
    element: Element
    observed: Hypothesis | None
    """On the seeds there are, whether or not they may be tested."""

    @property
    def hypothesis(self) -> Hypothesis | None:
        return None if self.element.reason else self.observed


def judge_claims(run: Run) -> list[JudgedClaim]:
    """The verdict on every claim of the suite, in its order.

    An element with failed, diverged or unfinished cells is not tested: the seeds that are left are no fair
    sample, and looking again whenever a seed comes in errs more often than any single look. A claim with such
    an element can still be refuted by another one.

    Raises ``StoreError`` where a result has been altered, or a claim of the run cannot be read.
    """
    claims = [_read(run, entry) for entry in run.suite.get("claims", ())]
    if not claims:
        return []
    columns = ["seed", "status", *run.suite["metrics"]]
    by_place = load_frame(run).groupby(["dataset", "method"], sort=False)[columns]
    cells = {place: dict(zip(rows["seed"], rows.to_dict("records"), strict=True)) for place, rows in by_place}
    tests = [list(_tests(run, cells, claim)) for claim in claims]
    found = judge([[test.hypothesis for test in group] for group in tests])
    return [
        JudgedClaim(
            claim,
            judgement.verdict,
            judgement.p if any(test.hypothesis for test in group) else None,
            tuple(test.element for test in group),
            group[judgement.deciding].element,
            _needed(group, len(claims)) if judgement.verdict == "undecided" else None,
        )
        for claim, group, judgement in zip(claims, tests, found, strict=True)
    ]


def claimed(element: Element) -> str:
    """What is claimed of the difference Δ, method minus reference, as a formula."""
    if element.says == "differs":
        return "Δ ≠ 0"
    if element.says == "matches":
        return f"|Δ| < {_width(element)}"
    # A metric is worse above where lower is better.
    below = (element.says in ("better", "not worse")) == (element.better == "lower")
    if element.margin is None:
        return "Δ < 0" if below else "Δ > 0"
    return f"Δ < {_width(element)}" if below else f"Δ > −{_width(element)}"


def _width(element: Element) -> str:
    margin = element.margin
    assert margin is not None
    if margin.relative is None:
        return f"{margin.absolute:g}"
    share = f"{100 * margin.relative:g}% of {margin.of or element.reference}"
    return share if element.width is None else f"{plain(element.width, 3)} ({share})"


def _read(run: Run, entry: object) -> Claim:
    try:
        kind = entry["kind"]  # type: ignore[index]
        return KINDS[kind].model_validate_json(json.dumps(entry))
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(
            f"{run.path}: a claim of this run cannot be read: {' '.join(str(error).split())}",
            hint=f"run the suite again with this regbench: regbench run {run.suite.get('file', 'SUITE')}",
        ) from error


def _pairs(claim: Claim) -> Iterator[_Pair]:
    if isinstance(claim, Equivalence):
        side: Says = "matches" if claim.direction == "both" else claim.direction
        yield from (_Pair(a, b, side, claim.margin) for a in claim.methods for b in claim.references)
    elif isinstance(claim, Difference):
        way: Says = "differs" if claim.direction == "either" else claim.direction
        yield from (_Pair(a, b, way) for a in claim.methods for b in claim.references)
    elif isinstance(claim, Monotone):
        yield from _steps(claim)
    else:
        yield from (_Pair(a, b, "better") for a, b in itertools.pairwise(claim.methods))


def _steps(claim: Monotone) -> Iterator[_Pair]:
    improves, methods = claim.direction == "improves", claim.methods
    strictly: Says = "better" if improves else "worse"
    at_least: Says = "not worse" if improves else "not better"
    for before, after in itertools.pairwise(methods):
        yield _Pair(after, before, strictly if claim.margin is None else at_least, claim.margin)
    if len(methods) > 2 or claim.margin is not None:  # else it is the only step
        yield _Pair(methods[-1], methods[0], strictly)


def _tests(run: Run, cells: _Cells, claim: Claim) -> Iterator[_Tested]:
    for dataset in claim.datasets or run.datasets:
        for pair in _pairs(claim):
            yield _test(run, cells, claim.metric, dataset, pair)


def _test(run: Run, cells: _Cells, metric: str, dataset: str, pair: _Pair) -> _Tested:
    info = run.suite["metric_info"].get(metric, {})
    better: Better = info.get("better", "lower")
    reason = _absent(run, metric, dataset, pair)
    rows = {name: cells.get((dataset, name), {}) for name in pair.involved}
    planned = len(rows[pair.method])
    difference = width = observed = None
    if not reason:
        a, b, c = _values(rows, metric, pair)
        difference = paired_difference(a, b, better=better) if a.size else None
        margin = _margin(pair.margin, c)
        width = None if margin is None or not a.size else float(margin.mean())
        sound = width is None or width > 0
        observed = _hypothesis(pair.says, a, b, margin, better) if sound else None
        reason = _unfinished(rows, dataset) or _untestable(observed, a.size, pair, dataset)
    tested = None if reason else observed
    return _Tested(
        Element(
            dataset,
            pair.method,
            pair.reference,
            pair.says,
            info.get("label", metric),
            better,
            pair.margin,
            width,
            difference,
            planned,
            tested.p_support if tested else None,
            tested.p_refute if tested else None,
            reason,
        ),
        observed,
    )


def _absent(run: Run, metric: str, dataset: str, pair: _Pair) -> str:
    if metric not in run.suite["metrics"]:
        return f"the run does not measure {metric}"
    if dataset not in run.datasets:
        return f"the run has no data set {dataset}"
    missing = [name for name in pair.involved if name not in run.methods]
    return f"the run has no method {', '.join(missing)}" if missing else ""


def _unfinished(rows: Mapping[str, _BySeed], dataset: str) -> str:
    """Which cells have no result, in words."""
    parts = []
    for method, cells in rows.items():
        for status in UNFINISHED:
            seeds = [str(seed) for seed, cell in cells.items() if cell["status"] == status]
            word = "not run yet" if status == "missing" else status
            if seeds:
                listed = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
                parts.append(f"{method} on {dataset}: {listed} {word}")
    return "; ".join(parts)


def _untestable(observed: Hypothesis | None, n: int, pair: _Pair, dataset: str) -> str:
    where = f"{pair.method} and {pair.reference} on {dataset}"
    if n < 2:
        return f"{where}: {n or 'no'} pair{'' if n == 1 else 's'} of seeds, and a test needs two"
    if observed is None:
        of = (pair.margin.of if pair.margin else None) or pair.reference
        return f"{where}: no margin can be a share of the mean of {of}, which is not positive"
    return "" if observed.testable else f"{where}: a value is not finite"


def _values(
    rows: Mapping[str, _BySeed], metric: str, pair: _Pair
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of the method, the reference, and what the margin is a share of, at the seeds that all have finished."""
    by_seed = {
        name: {seed: cell[metric] for seed, cell in cells.items() if cell["status"] == "done"}
        for name, cells in rows.items()
    }
    seeds = sorted(set.intersection(*(set(values) for values in by_seed.values())))
    of = (pair.margin.of if pair.margin else None) or pair.reference
    named = (pair.method, pair.reference, of)
    a, b, c = (np.array([by_seed[name][seed] for seed in seeds], dtype=np.float64) for name in named)
    return a, b, c


def _margin(margin: Margin | None, c: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if margin is None:
        return None
    return np.full_like(c, margin.absolute) if margin.relative is None else margin.relative * c


def _hypothesis(
    says: Says,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    margin: NDArray[np.float64] | None,
    better: Better,
) -> Hypothesis:
    if says == "differs":
        return differs(a, b)
    if margin is None:
        return better_than(a, b, better=better if says == "better" else FLIPPED[better])
    side = "both" if says == "matches" else says
    assert side in ("both", "not worse", "not better")
    return within(a, b, margin, better=better, side=side)


def _needed(tests: Sequence[_Tested], claims: int) -> float | None:
    needed = claim_needed_seeds([test.observed for test in tests], claims)
    if needed is None or not any(test.element.reason for test in tests):
        return needed
    # Not judged yet: all that was planned has to be there first.
    return max(needed, *(test.element.planned for test in tests))
