from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from regbench.errors import StoreError, UsageError
from regbench.report.build import FiguresFailed, Report, write_report
from regbench.report.draw import FigureFailure
from regbench.store.records import Run
from tests.report.synthetic import make_run

ONE_FIGURE = ({"kind": "curves", "options": {}},)


def test_everything_is_written(report: Report) -> None:
    names = {str(file.relative_to(report.directory)) for file in report.files}
    assert {"table.csv", "table.md", "table.tex", "report.html", "figures/captions.json"} < names
    for kind in ("reconstructions", "curves", "prototypes", "samples", "tsne", "clusters"):
        assert {f"figures/{kind}-digits.{ending}" for ending in ("png", "pdf", "svg")} < names
    on_disk = {str(p.relative_to(report.directory)) for p in report.directory.rglob("*") if p.is_file()}
    assert on_disk == names
    assert not report.failures


def test_tables_hold_every_method(report: Report, troubled: Run) -> None:
    with (report.directory / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} >= set(troubled.methods)
    assert "booktabs" in (report.directory / "table.tex").read_text(encoding="utf-8")
    assert "ProtoVAE K=10" in (report.directory / "table.md").read_text(encoding="utf-8").replace("\\", "")


def test_captions_are_kept_with_the_figures(report: Report) -> None:
    notes = json.loads((report.figures / "captions.json").read_text(encoding="utf-8"))
    assert notes["curves-digits"]["kind"] == "curves"
    assert "95% t-interval" in notes["curves-digits"]["caption"]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    figures = [{"kind": kind} for kind in ("reconstructions", "tsne", "clusters")]
    run = make_run(tmp_path / "run", ["AE", "ProtoVAE K=3"], seeds=2, test_images=20, figures=figures)
    out = tmp_path / "out"
    first = {file: file.read_bytes() for file in write_report(run, out).files}
    again = {file: file.read_bytes() for file in write_report(Run.open(run.path), out).files}
    assert [file for file in first if first[file] != again[file]] == []


def test_reports_go_to_a_directory_with_the_suites_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "mysuite", ["AE"], seeds=1, figures=ONE_FIGURE)
    monkeypatch.chdir(tmp_path)
    assert write_report(run).directory == Path("reports/mysuite")
    assert (tmp_path / "reports" / "mysuite" / "report.html").is_file()


@pytest.mark.parametrize(("status", "word"), [("missing", "regbench run"), ("failed", "RuntimeError")])
def test_nothing_finished_is_refused(tmp_path: Path, status: str, word: str) -> None:
    states = {("AE", "digits", seed): status for seed in range(2)}
    run = make_run(tmp_path / "run", ["AE"], seeds=2, status=states)
    with pytest.raises(UsageError, match="none of the 2 cells") as caught:
        write_report(run, tmp_path / "out")
    assert word in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "out").exists()


def test_earlier_figures_go_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = make_run(
        tmp_path / "run", ["AE"], seeds=1, test_images=12, figures=[*ONE_FIGURE, {"kind": "samples"}]
    )
    write_report(run, out)
    mine = out / "figures" / "mine.png"
    mine.write_bytes(b"mine")
    outside = out / "keep.png"
    outside.write_bytes(b"mine")
    captions = out / "figures" / "captions.json"
    captions.write_text(json.dumps({**json.loads(captions.read_text()), "../keep": {}}))
    assert (out / "figures" / "samples-digits.png").exists()
    write_report(make_run(tmp_path / "again", ["AE"], seeds=1, test_images=12, figures=ONE_FIGURE), out)
    assert not list((out / "figures").glob("samples-digits.*"))
    assert (out / "figures" / "curves-digits.pdf").exists()
    assert mine.read_bytes() == outside.read_bytes() == b"mine"


@pytest.mark.parametrize("content", ["not JSON", "[1]"])
def test_captions_that_are_not_ours_are_replaced(tmp_path: Path, content: str) -> None:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "captions.json").write_text(content)
    write_report(make_run(tmp_path / "run", ["AE"], seeds=1, figures=ONE_FIGURE), out)
    assert "curves-digits" in json.loads((out / "figures" / "captions.json").read_text())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE"], seeds=1, figures=ONE_FIGURE)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="cannot write") as caught:
        write_report(run, blocked)
    assert caught.value.hint == "choose another place with --out"


def test_several_failures_end_with_the_first_ones_code() -> None:
    error = FiguresFailed([FigureFailure("a", "first", "do this", 4), FigureFailure("b", "second", "", 1)])
    assert error.exit_code == 4
    assert error.hint == "do this"
    assert "first" in str(error)
    assert "second" in str(error)


def test_a_report_does_not_wait_for_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["AE"], seeds=2, test_images=12, figures=[{"kind": "tsne"}])
    program = (
        "import sys; from pathlib import Path\n"
        "from regbench.report.build import write_report; from regbench.store.records import Run\n"
        f"report = write_report(Run.open(Path({str(run.path)!r})), Path({str(tmp_path / 'out')!r}))\n"
        "assert len(report.pictures) == 1, report\n"
        "print('torch' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
