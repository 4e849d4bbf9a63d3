"""Claims as the report shows them: on the page, in Markdown, LaTeX, CSV and the terminal."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from regbench.cli.app import main
from regbench.report.build import Report, write_report
from regbench.report.claims import judge_claims
from regbench.report.claims_section import claims_section
from regbench.report.terminal import print_claims
from regbench.store.records import LOCK, Run
from tests.report.test_claims import MATCHES, run_of, values
from tests.report.test_report_html import ATTACK, Page
from tests.report.test_table_renderers import compile_latex, rendered_tables

CLAIMS: list[dict[str, Any]] = [
    {**MATCHES, "statement": "(a) ProtoVAE matches AE."},
    {"kind": "difference", "methods": ["VAE-KL"], "references": ["AE"], "statement": ATTACK},
    {
        "kind": "difference",
        "methods": ["ProtoVAE K=1"],
        "references": ["AE"],
        "direction": "either",
        "metric": "ssim",
        "statement": "1. | [red]They *differ*.",
    },
]
VERDICTS = ["supported", "refuted", "undecided"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three claims: one holds, one does not, one cannot be decided for a seed that diverged."""
    path = tmp_path_factory.mktemp("runs")
    figures = ({"kind": "curves", "options": {}},)
    status = {("ProtoVAE K=1", "digits", 4): "diverged"}
    run = run_of(path, CLAIMS, status=status, figures=figures)
    lock = json.loads((run.path / LOCK).read_text(encoding="utf-8"))
    lock["suite"]["claims"] = run.suite["claims"]
    (run.path / LOCK).write_text(json.dumps(lock), encoding="utf-8")
    return Run.open(run.path)


@pytest.fixture(scope="module")
def written(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(run, tmp_path_factory.mktemp("reports") / "claims")


def test_each_claim_has_its_row(run: Run) -> None:
    section = claims_section(judge_claims(run))
    assert section is not None
    assert section.lead
    assert section.text.endswith("1 supported, 1 refuted, 1 undecided.")
    verdicts, comparisons = section.grids
    shown = [
        {name: cell.text for name, cell in zip(verdicts.columns, row, strict=True)} for row in verdicts.rows
    ]
    assert [row["claim"] for row in shown] == [claim["statement"] for claim in CLAIMS]
    assert [row["verdict"] for row in shown] == ["supported", "refuted", "undecided"]
    assert shown[0]["decided by"] == "MSE of ProtoVAE K=10 − AE, digits"
    assert shown[0]["claimed"] == "|Δ| < 0.000500 (5% of AE)"
    assert shown[1]["Δ"].startswith("+0.0040")
    assert [row["seeds"] for row in shown] == ["5/5", "5/5", "4/5"]
    assert [row["seeds needed"] for row in shown[:2]] == ["—", "—"]
    assert len(comparisons.rows) == 3
    assert all(len(row) == len(grid.columns) for grid in section.grids for row in grid.rows)


def test_notes_say_what_the_words_mean(run: Run) -> None:
    section = claims_section(judge_claims(run))
    assert section is not None
    notes = " ".join(section.grids[0].notes)
    for said in (
        "Bonferroni",
        "intersection-union",
        "p < 0.05",
        "the 3 claims",
        "before any result",
        "never refuted",
    ):
        assert said in notes
    for verdict in ("supported", "refuted", "undecided"):
        assert f"{verdict}: " in notes
    assert "Claim 3, not tested in full: ProtoVAE K=1 on digits: seed 4 diverged." in notes


def test_notes_only_of_what_there_is(tmp_path: Path) -> None:
    claim = {"kind": "difference", "methods": ["VAE-KL"], "references": ["AE"]}
    section = claims_section(judge_claims(run_of(tmp_path, [claim])))
    assert section is not None
    notes = " ".join(section.grids[0].notes)
    for missing in ("argins", "never refuted", "not tested"):
        assert missing not in notes
    assert "the 1 claim of" in notes


def test_the_page_has_them_first(written: Report) -> None:
    text = written.html.read_text(encoding="utf-8")
    assert ATTACK not in text
    page = Page(text)
    assert [section["id"] for section in page.all("section")][:2] == ["claims", "results"]
    shown = [row[1:3] for row in page.rows if len(row) > 2 and row[2] in VERDICTS]
    assert shown == [[claim["statement"], verdict] for claim, verdict in zip(CLAIMS, VERDICTS, strict=True)]


def test_markdown_and_latex(written: Report, tmp_path: Path) -> None:
    text = (written.directory / "table.md").read_text(encoding="utf-8")
    assert text.startswith("## Claims")
    assert [row[1:3] for row in rendered_tables(text)[0][1:]] == [
        [CLAIMS[0]["statement"], "supported"],
        [ATTACK, "refuted"],
        [CLAIMS[2]["statement"], "undecided"],
    ]
    (tmp_path / "table.tex").write_bytes((written.directory / "table.tex").read_bytes())
    log = compile_latex(tmp_path, "table.tex")
    assert "Overfull" not in log
    assert "U+" not in (tmp_path / "table.tex").read_text(encoding="utf-8")


def test_all_numbers_are_in_the_csv(written: Report, run: Run) -> None:
    assert written.directory / "claims.csv" in written.files
    frame = pd.read_csv(written.directory / "claims.csv")
    claims = judge_claims(run)
    elements = [(claim, element) for claim in claims for element in claim.elements]
    assert len(frame) == len(elements) == 3
    for row, (claim, element) in zip(frame.to_dict("records"), elements, strict=True):
        assert (row["statement"], row["verdict"], row["method"]) == (
            claim.statement,
            claim.verdict,
            element.method,
        )
        assert element.difference is not None
        assert (row["difference"], row["n"]) == (element.difference.mean, element.n)
        assert row["p_support"] == element.p_support or math.isnan(row["p_support"])
        assert row["decides"]
    assert frame["margin"][0] == pytest.approx(0.0005)
    assert frame["reason"].isna().tolist() == [True, True, False]


def test_needed_seeds_in_words(tmp_path: Path) -> None:
    numbers = {"A": values(0.5), "B": values(0.5, -1), "C": values(0.5, 3)}
    claims = [
        {"kind": "difference", "methods": [name], "references": ["A"], "direction": "either"} for name in "BC"
    ]
    section = claims_section(judge_claims(run_of(tmp_path, claims, numbers)))
    assert section is not None
    assert [row[-1].text for row in section.grids[0].rows] == ["more than 10,000"] * 2


def test_no_claims_no_section(tmp_path: Path) -> None:
    assert claims_section(judge_claims(run_of(tmp_path, []))) is None


def test_one_line_per_claim_in_the_terminal(run: Run) -> None:
    console = Console(file=io.StringIO(), width=60, no_color=True)
    print_claims(judge_claims(run), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines if line] == ["supported", "refuted", "undecided"]
    assert lines[0].startswith(
        "supported  (a) ProtoVAE matches AE. (MSE of ProtoVAE K=10 − AE, digits: +0.00010"
    )
    assert "[red]They *differ*." in lines[2]
    assert "seeds needed" in lines[2]
    assert "seeds needed" not in lines[0]
    print_claims([], console)
    assert console.file.getvalue().splitlines() == lines


def test_the_command_prints_them_before_the_tables(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["regbench", "report", str(run.path), "--out", str(tmp_path), "--quiet"])
    monkeypatch.setenv("COLUMNS", "140")
    assert main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("supported  (a)")
    assert printed.index("undecided") < printed.index("Reconstruction")
    assert str(tmp_path / "claims.csv") in printed.split()
