from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regbench.cli.app import main
from tests.report.synthetic import make_run
from tests.report.test_report_draw import PLUGIN


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def regbench(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["regbench", *words])
    return main()


def test_the_last_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = {("ProtoVAE K=2", "digits", 1): "diverged"}
    methods, figures = ["AE", "ProtoVAE K=2"], [{"kind": "prototypes"}]
    make_run(place / "runs" / "quick", methods, seeds=2, status=status, figures=figures)
    assert regbench(monkeypatch, "report") == 0
    printed = capsys.readouterr()
    assert "ProtoVAE K=2" in printed.out
    assert "diverged" in printed.out
    for name in ("table.csv", "table.md", "table.tex", "report.html", "figures"):
        assert str(Path("reports", "quick", name)) in printed.out.split()
        assert (place / "reports" / "quick" / name).exists()
    assert "drawing prototypes" in printed.err


def test_a_figure_that_fails_is_told_last_and_by_the_exit_code(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.py").write_text(PLUGIN)
    figures = [{"kind": "mine", "options": {"trouble": "raise"}}, {"kind": "curves", "options": {}}]
    make_run(place / "runs" / "quick", ["AE"], seeds=1, figures=figures)
    words = ("report", "quick", "--out", "here", "--plugin", "mine.py", "--quiet")
    assert regbench(monkeypatch, *words) == 2
    printed = capsys.readouterr()
    assert "here/report.html" in printed.out
    assert printed.err.startswith("error: figures are missing from the report:")
    assert "figure 'mine' raised ZeroDivisionError: by zero" in printed.err
    page = (place / "here" / "report.html").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in page
    assert "--plugin mine.py" in page


def test_nothing_finished(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(place / "runs" / "quick", ["AE"], seeds=1, status={("AE", "digits", 0): "missing"})
    assert regbench(monkeypatch, "report") == 2
    printed = capsys.readouterr()
    assert "nothing to report" in printed.err
    assert "hint: run the suite" in printed.err
    assert not printed.out
