"""Claims of a run: which comparisons they come to, their p-values, verdicts, and what cannot be tested."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from regbench.errors import StoreError
from regbench.report.claims import Element, JudgedClaim, claimed, judge_claims
from regbench.statistics import claim_needed_seeds, within
from regbench.store.records import Run
from tests.report.synthetic import make_run

SPREAD = np.array([-3.0, 1.0, 0.0, 3.0, -1.0])
"""Of what a seed adds for all methods alike."""
OWN = np.array([1.0, -1.0, 2.0, 0.0, -2.0])


def values(mean: float, own: float = 1.0, seeds: int = 5) -> list[float]:
    """One number per seed, with this mean over all five."""
    return list(mean + 1e-3 * SPREAD[:seeds] + 2e-5 * own * OWN[:seeds])


MSE = {
    "AE": values(0.0100, 0),
    "VAE-KL": values(0.0140),
    "ProtoVAE K=1": values(0.0138, -2),
    "ProtoVAE K=10": values(0.0101, 2),
}


def run_of(
    path: Path,
    claims: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, Sequence[float]] = MSE,
    *,
    metric: str = "mse",
    datasets: Sequence[str] = ("digits",),
    **more: Any,
) -> Run:
    """A run in which every data set has these numbers."""
    cells = {
        (method, dataset, seed): {metric: number}
        for method, row in numbers.items()
        for dataset in datasets
        for seed, number in enumerate(row)
    }
    sizes = {"test_images": 4, "shown": 4, "side": 8, "epochs": 2, "warmup": 1, "anchors": False}
    seeds = max(len(row) for row in numbers.values())
    run = make_run(path / "demo", list(numbers), datasets, seeds, values=cells, **(sizes | more))
    run.suite["claims"] = [{"statement": "x", **claim} for claim in claims]
    return run


def judged(path: Path, claim: Mapping[str, Any], *args: Any, **more: Any) -> JudgedClaim:
    (found,) = judge_claims(run_of(path, [claim], *args, **more))
    return found


def pairs(claim: JudgedClaim) -> list[tuple[str, str, str]]:
    return [(element.method, element.reference, element.says) for element in claim.elements]


def difference(path: Path, a: str, b: str, direction: str = "better", **more: Any) -> JudgedClaim:
    claim = {"kind": "difference", "methods": [a], "references": [b], "direction": direction}
    return judged(path, claim | more.pop("claim", {}), **more)


MATCHES = {
    "kind": "equivalence",
    "methods": ["ProtoVAE K=10"],
    "references": ["AE"],
    "margin": {"relative": 0.05},
}


# --- kinds ---------------------------------------------------------------------------------------------------


def test_a_match_within_a_share_of_the_reference(tmp_path: Path) -> None:
    found = judged(tmp_path, MATCHES)
    (element,) = found.elements
    a, b = np.array(MSE["ProtoVAE K=10"]), np.array(MSE["AE"])
    p = max(
        stats.ttest_1samp(a - 1.05 * b, 0, alternative="less").pvalue,
        stats.ttest_1samp(a - 0.95 * b, 0, alternative="greater").pvalue,
    )
    assert element.p_support == pytest.approx(p)
    assert found.p == pytest.approx(p)
    assert found.verdict == "supported"
    assert element.width == pytest.approx(0.0005)
    assert element.difference is not None
    assert element.difference.mean == pytest.approx(0.0001)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert element.difference.low == pytest.approx(interval.low)
    assert element.difference.high == pytest.approx(interval.high)
    assert claimed(element) == "|Δ| < 0.000500 (5% of AE)"
    assert found.needed is None


def test_a_margin_that_is_a_share_of_a_third_method(tmp_path: Path) -> None:
    claim = {
        "kind": "equivalence",
        "methods": ["ProtoVAE K=1"],
        "references": ["VAE-KL"],
        "margin": {"relative": 0.05, "of": "AE"},
    }
    (element,) = judged(tmp_path, claim).elements
    a, b, c = (np.array(MSE[name]) for name in ("ProtoVAE K=1", "VAE-KL", "AE"))
    sides = [stats.ttest_1samp(sign * (a - b) - 0.05 * c, 0, alternative="less").pvalue for sign in (1, -1)]
    assert element.p_support == pytest.approx(max(sides))
    assert claimed(element) == "|Δ| < 0.000500 (5% of AE)"


@pytest.mark.parametrize(
    ("direction", "formula", "verdict"),
    [
        ("not worse", "Δ < 0.0002", "supported"),
        ("not better", "Δ > −0.0002", "supported"),
        ("both", "|Δ| < 0.0002", "supported"),
    ],
)
def test_one_side_of_a_match(tmp_path: Path, direction: str, formula: str, verdict: str) -> None:
    found = judged(tmp_path, MATCHES | {"direction": direction, "margin": {"absolute": 0.0002}})
    assert (claimed(found.deciding), found.verdict) == (formula, verdict)


def test_not_better_is_refuted_by_what_is_better(tmp_path: Path) -> None:
    claim = {"methods": ["AE"], "references": ["VAE-KL"], "direction": "not better"}
    found = judged(tmp_path, MATCHES | claim)
    assert found.verdict == "refuted"
    (element,) = found.elements
    a, b = np.array(MSE["AE"]), np.array(MSE["VAE-KL"])
    expected = stats.ttest_1samp(b - a - 0.05 * b, 0, alternative="greater").pvalue
    assert element.p_refute == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "direction", "verdict", "formula"),
    [
        ("mse", "better", "supported", "Δ < 0"),
        ("mse", "worse", "refuted", "Δ > 0"),
        ("mse", "either", "supported", "Δ ≠ 0"),
        ("ssim", "better", "refuted", "Δ > 0"),
        ("ssim", "worse", "supported", "Δ < 0"),
        ("ssim", "either", "supported", "Δ ≠ 0"),
    ],
)
def test_differences_follow_the_metric(
    tmp_path: Path, metric: str, direction: str, verdict: str, formula: str
) -> None:
    numbers = {"A": values(0.5), "B": values(0.7, -1)}
    found = difference(
        tmp_path, "A", "B", direction, claim={"metric": metric}, numbers=numbers, metric=metric
    )
    assert (found.verdict, claimed(found.deciding)) == (verdict, formula)
    assert found.deciding.metric == metric.upper()


def test_either_is_never_refuted(tmp_path: Path) -> None:
    numbers = {"A": values(0.5), "B": values(0.5, -1)}
    found = difference(tmp_path, "A", "B", "either", numbers=numbers)
    assert (found.verdict, found.deciding.p_refute, found.needed) == ("undecided", 1.0, math.inf)


def test_an_ordering_is_a_chain(tmp_path: Path) -> None:
    methods = ["AE", "ProtoVAE K=10", "ProtoVAE K=1", "VAE-KL"]
    found = judged(tmp_path, {"kind": "ordering", "methods": methods})
    assert pairs(found) == [(a, b, "better") for a, b in itertools.pairwise(methods)]
    assert found.verdict == "supported"
    assert found.p == max(element.p_support or 0 for element in found.elements)
    wrong = judged(tmp_path / "b", {"kind": "ordering", "methods": methods[::-1]})
    assert wrong.verdict == "refuted"
    assert wrong.p == min(3 * min(element.p_refute or 0 for element in wrong.elements), 1)


def test_monotone_without_a_margin_goes_at_every_step(tmp_path: Path) -> None:
    methods = ["VAE-KL", "ProtoVAE K=1", "ProtoVAE K=10"]
    found = judged(tmp_path, {"kind": "monotone", "methods": methods})
    assert pairs(found) == [
        ("ProtoVAE K=1", "VAE-KL", "better"),
        ("ProtoVAE K=10", "ProtoVAE K=1", "better"),
        ("ProtoVAE K=10", "VAE-KL", "better"),
    ]
    assert found.verdict == "supported"
    two = judged(tmp_path / "b", {"kind": "monotone", "methods": methods[:2], "direction": "worsens"})
    assert pairs(two) == [("ProtoVAE K=1", "VAE-KL", "worse")]
    assert two.verdict == "refuted"


def test_monotone_with_a_margin_may_stand_still_at_a_step(tmp_path: Path) -> None:
    methods = ["AE", "ProtoVAE K=10", "ProtoVAE K=1"]
    numbers = {name: MSE[name] for name in methods} | {"ProtoVAE K=10": values(0.00999, 2)}
    strict = {"kind": "monotone", "methods": methods, "direction": "worsens"}
    assert judged(tmp_path, strict, numbers).verdict != "supported"
    found = judged(tmp_path / "b", strict | {"margin": {"relative": 0.05}}, numbers)
    assert pairs(found) == [
        ("ProtoVAE K=10", "AE", "not better"),
        ("ProtoVAE K=1", "ProtoVAE K=10", "not better"),
        ("ProtoVAE K=1", "AE", "worse"),
    ]
    assert found.verdict == "supported"
    assert [claimed(element) for element in found.elements][::2] == ["Δ > −0.000500 (5% of AE)", "Δ > 0"]


def test_standing_still_all_the_way_is_not_monotone(tmp_path: Path) -> None:
    numbers = {"A": values(0.01, 1), "B": values(0.01, -1), "C": values(0.01, 2)}
    claim = {"kind": "monotone", "methods": ["A", "B", "C"], "margin": {"relative": 0.05}}
    found = judged(tmp_path, claim, numbers)
    assert found.verdict == "undecided"
    assert (found.deciding.method, found.deciding.reference, found.deciding.says) == ("C", "A", "better")


# --- conjunctions, and several claims --------------------------------------------------------------------------


def test_every_method_reference_and_data_set(tmp_path: Path) -> None:
    claim = {
        "kind": "difference",
        "methods": ["VAE-KL", "ProtoVAE K=1"],
        "references": ["AE", "ProtoVAE K=10"],
    }
    run = run_of(tmp_path, [claim, claim | {"datasets": ["b"]}], datasets=["a", "b"])
    everywhere, there = judge_claims(run)
    assert len(everywhere.elements) == 8
    assert [element.dataset for element in everywhere.elements] == ["a"] * 4 + ["b"] * 4
    assert {element.dataset for element in there.elements} == {"b"}
    assert everywhere.verdict == there.verdict == "refuted"


def test_p_is_adjusted_for_all_claims_of_the_suite(tmp_path: Path) -> None:
    lost = {"kind": "difference", "methods": ["AE"], "references": ["gone"]}
    alone, *others = judge_claims(run_of(tmp_path, [MATCHES, MATCHES, lost]))
    assert alone.p == pytest.approx(3 * (alone.deciding.p_support or 0))
    assert [claim.verdict for claim in others] == ["supported", "undecided"]


def test_needed_seeds_are_those_of_the_statistics(tmp_path: Path) -> None:
    claim = MATCHES | {"margin": {"absolute": 0.000105}}
    first, second = judge_claims(run_of(tmp_path, [claim, claim]))
    tested = within(MSE["ProtoVAE K=10"], MSE["AE"], 0.000105)
    assert first.verdict == second.verdict == "undecided"
    assert first.needed == claim_needed_seeds([tested], 2)
    assert first.needed is not None
    assert 5 < first.needed < 10_000


# --- what cannot be tested -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("failed", "failed"),
        ("diverged", "diverged"),
        ("interrupted", "interrupted"),
        ("missing", "not run yet"),
    ],
)
def test_seeds_without_a_result(tmp_path: Path, status: str, said: str) -> None:
    cells = {("AE", "digits", seed): status for seed in (1, 3)}
    found = judged(tmp_path, MATCHES, status=cells)
    assert found.verdict == "undecided"
    assert found.reasons == (f"AE on digits: seeds 1, 3 {said}",)
    element = found.deciding
    assert (element.n, element.planned, element.p_support, element.p_refute) == (3, 5, None, None)
    assert element.difference is not None  # what there is, is shown
    assert found.p is None
    assert found.needed is not None
    assert found.needed >= 5


def test_a_third_methods_failure_counts_where_the_margin_needs_it(tmp_path: Path) -> None:
    claim = {"methods": ["ProtoVAE K=1"], "references": ["VAE-KL"], "margin": {"relative": 0.05, "of": "AE"}}
    found = judged(tmp_path, MATCHES | claim, status={("AE", "digits", 0): "diverged"})
    assert found.reasons == ("AE on digits: seed 0 diverged",)
    assert found.deciding.n == 4


def test_one_data_set_refutes_while_another_is_unfinished(tmp_path: Path) -> None:
    cells = {("AE", "b", seed): "missing" for seed in range(5)}
    run = run_of(
        tmp_path,
        [
            {"kind": "difference", "methods": [a], "references": [b]}
            for a, b in (("VAE-KL", "AE"), ("AE", "VAE-KL"))
        ],
        datasets=["a", "b"],
        status=cells,
    )
    refuted, undecided = judge_claims(run)
    assert (refuted.verdict, refuted.deciding.dataset) == ("refuted", "a")
    assert (undecided.verdict, undecided.deciding.dataset, undecided.needed) == ("undecided", "b", None)
    assert undecided.deciding.difference is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"methods": ["gone"]}, "the run has no method gone"),
        ({"references": ["gone"]}, "the run has no method gone"),
        ({"margin": {"relative": 0.1, "of": "gone"}}, "the run has no method gone"),
        ({"datasets": ["gone"]}, "the run has no data set gone"),
        ({"metric": "gone"}, "the run does not measure gone"),
    ],
)
def test_what_the_run_lacks(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    found = judged(tmp_path, MATCHES | change)
    assert (found.verdict, found.reasons, found.p, found.needed) == ("undecided", (reason,), None, None)
    assert claimed(found.deciding)


def test_one_seed(tmp_path: Path) -> None:
    found = judged(tmp_path, MATCHES, {name: row[:1] for name, row in MSE.items()})
    assert (found.verdict, found.needed) == ("undecided", None)
    assert found.reasons == ("ProtoVAE K=10 and AE on digits: 1 pair of seeds, and a test needs two",)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path, [MATCHES], {"AE": values(30, 0), "ProtoVAE K=10": values(31)}, metric="psnr")
    run.suite["claims"][0]["metric"] = "psnr"
    cell = next(cell for cell in run.cells if cell.method == "AE")
    cell.result["metrics"]["mean"]["psnr"] = "inf"
    (found,) = judge_claims(run)
    assert found.verdict == "undecided"
    assert found.reasons == ("ProtoVAE K=10 and AE on digits: a value is not finite",)


def test_a_share_of_a_mean_that_is_not_positive(tmp_path: Path) -> None:
    found = judged(tmp_path, MATCHES, {"AE": values(-0.5), "ProtoVAE K=10": values(-0.5)})
    assert found.verdict == "undecided"
    assert "AE, which is not positive" in found.reasons[0]
    assert found.needed is None


def test_no_claims(tmp_path: Path) -> None:
    assert judge_claims(run_of(tmp_path, [])) == []


@pytest.mark.parametrize("entry", [{"kind": "guess"}, {"kind": "ordering"}, {}, 3, {"kind": []}])
def test_claims_of_another_version_are_said_to_be(tmp_path: Path, entry: Any) -> None:
    run = run_of(tmp_path, [])
    run.suite["claims"] = [entry]
    with pytest.raises(StoreError, match="cannot be read") as caught:
        judge_claims(run)
    assert caught.value.hint is not None
    assert "regbench run" in caught.value.hint


def test_claims_are_read_as_a_run_stores_them(tmp_path: Path) -> None:
    """With every default written out, as JSON."""
    claim = {**MATCHES, "metric": "mse", "datasets": [], "direction": "both"}
    claim["margin"] = {"relative": 0.05, "absolute": None, "of": None}
    found = judged(tmp_path, json.loads(json.dumps(claim)))
    assert found.verdict == "supported"
    assert isinstance(found.deciding, Element)
