"""Comparing two runs: each mark where it belongs, with the test that was made."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from regbench.cli.compare import compare as verb
from regbench.errors import UsageError
from regbench.report.compare import Compared, Comparison, Mark, compare
from regbench.report.compare_terminal import print_comparison
from regbench.statistics import holm
from regbench.store.records import Run
from tests.report.synthetic import Cell, make_run

LOW = [0.0100, 0.0112, 0.0121, 0.0135]
HIGH = [0.0200, 0.0213, 0.0220, 0.0236]


def runs(
    tmp_path: Path,
    a: Sequence[float],
    b: Sequence[float],
    *,
    seeds_b: Sequence[int] | None = None,
    metric: str = "mse",
    code: str = "values",
) -> tuple[Run, Run]:
    """Two runs of one method with these values of one metric."""
    found = []
    for name, values, seeds in (("a", a, range(len(a))), ("b", b, seeds_b or range(len(b)))):
        given = {("M", "d", seed): {metric: v} for seed, v in zip(seeds, values, strict=True)}
        found.append(make_run(tmp_path / name, ["M"], ["d"], list(seeds), metrics=[metric], **{code: given}))  # type: ignore[arg-type]
    return found[0], found[1]


def only(comparison: Comparison) -> Compared:
    (line,) = comparison.lines
    return line


@pytest.mark.parametrize(
    ("metric", "a", "b", "mark"),
    [
        ("mse", HIGH, LOW, "+"),
        ("mse", LOW, HIGH, "-"),
        ("ssim", LOW, HIGH, "+"),
        ("ssim", HIGH, LOW, "-"),
        ("mse", LOW, LOW[::-1], "~"),
    ],
)
def test_better_worse_and_not_significant(
    tmp_path: Path, metric: str, a: list[float], b: list[float], mark: Mark
) -> None:
    line = only(compare(*runs(tmp_path, a, b, metric=metric)))
    assert line.mark == mark
    expected = stats.ttest_rel(b, a)
    interval = expected.confidence_interval(0.95)
    assert line.test == "paired, n = 4"
    assert line.p == pytest.approx(expected.pvalue)
    assert line.difference is not None
    assert (line.difference.low, line.difference.high) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
    )


def test_a_run_compared_with_itself_is_identical_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", seeds=3)
    comparison = compare(run, run)
    assert {line.mark for line in comparison.lines} == {"~"}
    assert {line.test for line in comparison.lines} == {"identical, paired, n = 3"}
    # AE and ProtoVAE at one code, the stochastic two at both; four metrics.
    assert len(comparison.lines) == 4 * (1 + 2 + 2 + 1)
    assert comparison.notes == ()


def test_only_shared_seeds_are_paired(tmp_path: Path) -> None:
    line = only(compare(*runs(tmp_path, LOW, HIGH, seeds_b=[2, 3, 4, 5])))
    assert line.test == "paired, n = 2"
    assert line.p == pytest.approx(stats.ttest_rel(HIGH[:2], LOW[2:]).pvalue)
    assert line.a is not None
    assert line.a.n == 4  # the mean is over all of its seeds


def test_without_shared_seeds_welch(tmp_path: Path) -> None:
    line = only(compare(*runs(tmp_path, LOW, HIGH[:3], seeds_b=[10, 11, 12])))
    assert line.test == "Welch, n = 4 and 3"
    assert line.p == pytest.approx(stats.ttest_ind(HIGH[:3], LOW, equal_var=False).pvalue)
    assert line.mark == "-"


@pytest.mark.parametrize("seeds_b", [[0], [7]])
def test_one_seed_is_not_tested(tmp_path: Path, seeds_b: list[int]) -> None:
    line = only(compare(*runs(tmp_path, [0.01], [0.5], seeds_b=seeds_b)))
    assert (line.mark, line.p, line.test) == ("~", None, "too few seeds to test")
    assert line.difference is not None
    assert line.difference.mean == pytest.approx(0.49)


def test_marks_go_by_p_values_adjusted_over_a_metric(tmp_path: Path) -> None:
    """A difference that would be significant alone, and is not among five."""
    methods = [f"M{i}" for i in range(5)]
    shifts = [0.0, 0.0003, -0.0008, 0.0011, 0.004]
    wobble = [0.0005, -0.0004, 0.0002, -0.0007]
    a = {(m, "d", s): {"mse": v} for m in methods for s, v in enumerate(LOW)}
    b = {
        (m, "d", s): {"mse": v + shift + wobble[(s + i) % 4]}
        for i, (m, shift) in enumerate(zip(methods, shifts, strict=True))
        for s, v in enumerate(LOW)
    }
    run_a = make_run(tmp_path / "a", methods, ["d"], 4, metrics=["mse"], values=a)
    run_b = make_run(tmp_path / "b", methods, ["d"], 4, metrics=["mse"], values=b)
    lines = compare(run_a, run_b).lines
    p = [line.p for line in lines if line.p is not None]
    assert [line.p_holm for line in lines] == pytest.approx(holm(p))
    assert [line.mark for line in lines] == ["~" if x >= 0.05 else "-" for x in holm(p)]
    assert any(line.p is not None and line.p < 0.05 and line.mark == "~" for line in lines)
    assert lines[-1].mark == "-"


def status_run(path: Path, status: dict[Cell, str], methods: Sequence[str] = ("AE", "VAE-KL")) -> Run:
    return make_run(path, methods, ["d"], 3, metrics=["mse"], status=status)


def test_newly_failed_and_fixed(tmp_path: Path) -> None:
    a = status_run(tmp_path / "a", {("VAE-KL", "d", 0): "diverged", ("VAE-KL", "d", 1): "diverged"})
    b = status_run(tmp_path / "b", {("AE", "d", 2): "failed"})
    comparison = compare(a, b)
    ae, vae = (next(line for line in comparison.lines if line.method == m) for m in ("AE", "VAE-KL"))
    assert (ae.mark, ae.metric) == ("!", "")
    assert ae.note == "seed 2 failed: RuntimeError: a | in <this> cell_1"
    assert (vae.mark, vae.metric) == ("*", "")
    assert vae.note.startswith("seeds 0, 1, in A diverged: ")
    # What remains is compared all the same.
    tests = [(line.method, line.test) for line in comparison.lines if line.metric]
    assert ("AE", "identical, paired, n = 2") in tests


def test_old_failures_are_no_news(tmp_path: Path) -> None:
    failed: dict[Cell, str] = {("AE", "d", 0): "failed"}
    comparison = compare(status_run(tmp_path / "a", failed), status_run(tmp_path / "b", failed))
    assert {line.mark for line in comparison.lines} == {"~"}


def test_cells_that_were_not_run_are_neither_failed_nor_fixed(tmp_path: Path) -> None:
    missing: dict[Cell, str] = {("AE", "d", seed): "missing" for seed in range(3)}
    comparison = compare(status_run(tmp_path / "a", {}), status_run(tmp_path / "b", missing))
    line = next(line for line in comparison.lines if line.method == "AE")
    assert (line.mark, line.metric, line.b) == ("only in A", "mse", None)


def test_methods_and_metrics_of_one_run_only(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", ["AE", "Old"], ["d"], 2, metrics=["mse"])
    b = make_run(tmp_path / "b", ["AE", "New"], ["d"], 2, metrics=["mse", "ssim"])
    marks = {(line.method, line.metric): line.mark for line in compare(a, b).lines}
    assert marks == {
        ("AE", "mse"): "~",
        ("AE", "ssim"): "only in B",
        ("Old", ""): "only in A",
        ("New", ""): "only in B",
    }


def test_sampled_codes_are_compared_on_their_own_lines(tmp_path: Path) -> None:
    a, b = (
        make_run(tmp_path / name, ["VAE-KL"], ["d"], 4, metrics=["mse"], sampled=given)
        for name, given in (
            ("a", {("VAE-KL", "d", s): {"mse": v} for s, v in enumerate(LOW)}),
            ("b", {("VAE-KL", "d", s): {"mse": v} for s, v in enumerate(HIGH)}),
        )
    )
    assert [(line.code, line.mark) for line in compare(a, b).lines] == [("mean", "~"), ("sampled", "-")]


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", ["AE", "VAE-KL"], ["d"], 2, epochs=12)
    b = make_run(tmp_path / "b", ["AE", "VAE-KL"], ["d"], 2, epochs=20)
    assert compare(a, b).notes == ("training.epochs: 12 in A, 20 in B (AE on d, VAE-KL on d)",)


def test_an_unknown_metric_is_refused_with_the_nearest(tmp_path: Path) -> None:
    a, b = runs(tmp_path, LOW, HIGH, metric="ssim")
    with pytest.raises(UsageError, match="'sim'; did you mean 'ssim'"):
        compare(a, b, metrics=["sim"])


def test_the_terminal_shows_marks_and_what_they_mean(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160, no_color=True)
    print_comparison(compare(*runs(tmp_path, LOW, HIGH)), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    (line,) = (line for line in text.splitlines() if "paired, n = 4" in line)
    assert line.split()[:3] == ["-", "M", "MSE"]
    assert "+0.01002 ± 0.00015" in line
    assert "B is worse: 1" in text
    assert "Holm-adjusted" in text


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(verb)
    return app


def test_the_verb_finds_runs_by_name_and_prints_json(tmp_path: Path, app: typer.Typer) -> None:
    runs(tmp_path, LOW, HIGH)
    result = CliRunner().invoke(
        app, ["a", "b", "--json", "--runs-dir", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["a"] == str(tmp_path / "a")
    assert [line["mark"] for line in found["lines"]] == ["-"]


def test_the_verb_prints_tables(tmp_path: Path, app: typer.Typer) -> None:
    runs(tmp_path, LOW, HIGH)
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "mse"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "B is worse: 1" in result.stdout


def test_the_verb_says_which_run_is_not_there(tmp_path: Path, app: typer.Typer) -> None:
    runs(tmp_path, LOW, HIGH)
    result = CliRunner().invoke(app, ["a", "c", "--runs-dir", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "'c'" in str(result.exception)
