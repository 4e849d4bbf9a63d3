"""Sections in every format: where they stand, that they are shown as they are, and their CSV files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from regbench.report import latex, markdown
from regbench.report.build import Report, write_report
from regbench.report.section import Grid, Section
from regbench.report.table import Cell
from regbench.store.records import Run
from tests.report.synthetic import make_run
from tests.report.test_report_html import Page
from tests.report.test_table_renderers import NASTY, compile_latex, rendered_tables

LONG = f"a sentence that is far too long for one line of a table, with {NASTY} in it"
GRID = Grid(
    f"Made up {NASTY}",
    ("what", "how much", "*said"),
    (
        (Cell("AE"), Cell("−0.5 ± 0.1", -0.5, bold=True, note=NASTY), Cell(NASTY)),
        (Cell(LONG), Cell("2", 2.0, marks=("a",)), Cell("[none]")),
    ),
    notes=("- a note", NASTY),
)
FRAME = pd.DataFrame({"what": ["AE", LONG], "how_much": [-0.5, 1 / 3]})
Maker = Callable[[Run], Section | None]


def made(name: str, *, lead: bool = False, frame: pd.DataFrame | None = FRAME) -> Section:
    file = "" if frame is None else name
    return Section(name, f"1. Title of {name}", f"+ {NASTY}", (GRID, GRID), frame, file, lead=lead)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    figures = ({"kind": "curves", "options": {}},)
    return make_run(tmp_path_factory.mktemp("runs") / "demo", ["AE"], seeds=2, figures=figures)


@pytest.fixture
def makers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(*sections: Section | None) -> None:
        calls = tuple((lambda run, section=section: section) for section in sections)
        monkeypatch.setattr("regbench.report.sections.MAKERS", calls)

    return use


@pytest.fixture
def written(run: Run, makers: Callable[..., None], tmp_path: Path) -> Report:
    """A report with a section after the tables, one before them, one without a CSV file, and one that is not."""
    makers(made("after"), None, made("before", lead=True), made("bare", frame=None))
    return write_report(run, tmp_path / "out")


def test_they_stand_before_and_after_the_tables_on_the_page(written: Report) -> None:
    page = Page(written.html.read_text(encoding="utf-8"))
    ids = [attributes["id"] for attributes in page.all("section")]
    assert ids == ["before", "results", "after", "bare", "figures-1", "methods", "provenance"]
    targets = [link["href"] for link in page.all("a") if (link["href"] or "").startswith("#")]
    assert targets == [f"#{name}" for name in ids]
    assert "after.csv" in {link["href"] for link in page.all("a")}
    assert "bare.csv" not in {link["href"] for link in page.all("a")}


def test_the_page_shows_everything_as_it_is(written: Report) -> None:
    text = written.html.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    page = Page(text)
    for row in GRID.rows:
        shown = [cell.text + ",".join(cell.marks) for cell in row]
        assert page.rows.count(shown) == 6
    assert page.words.count(" ".join(GRID.notes[1].split())) >= 6
    bold = [cell for cell in page.all("td") if "best" in (cell.get("class") or "")]
    assert [cell["data-sort"] for cell in bold].count("-0.5") == 6
    assert {cell["title"] for cell in bold if cell["data-sort"] == "-0.5"} == {NASTY}


def test_markdown(written: Report) -> None:
    text = (written.directory / "table.md").read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    after, bare, before = (f"## 1\\. Title of {name}" for name in ("after", "bare", "before"))
    assert titles == [before, "## digits", after, bare]
    tables = rendered_tables(text)
    assert [rows[0] for rows in tables].count(list(GRID.columns)) == 6
    assert tables[0][1] == [cell.text for cell in GRID.rows[0]]
    assert tables[0][2] == [LONG, "2<sup>a</sup>", "[none]"]
    assert "| --- | ---: | --- |" in text


def test_latex_compiles(written: Report, tmp_path: Path) -> None:
    text = (written.directory / "table.tex").read_text(encoding="utf-8")
    labels = [line for line in text.splitlines() if line.startswith(r"\label")]
    assert labels[:3] == [
        r"\label{tab:regbench-before-1}",
        r"\label{tab:regbench-before-2}",
        r"\label{tab:regbench-1-metric}",
    ]
    assert labels[-1] == r"\label{tab:regbench-bare-2}"
    assert latex.escape(f"+ {NASTY}") in text
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    log = compile_latex(tmp_path, "table.tex")
    assert "Output written on table.pdf" in log
    assert "Overfull" not in log


def test_their_numbers_are_files_of_the_report(written: Report) -> None:
    assert [file.name for file in written.numbers] == ["after.csv", "before.csv"]
    assert {*written.numbers} < {*written.files}
    assert {file for file in written.directory.rglob("*") if file.is_file()} == {*written.files}
    pd.testing.assert_frame_equal(pd.read_csv(written.numbers[0]), FRAME)


def test_those_of_an_earlier_report_go_and_other_files_stay(
    written: Report, run: Run, makers: Callable[..., None]
) -> None:
    out = written.directory
    for name in ("mine.csv", "sub.csv"):
        (out / name).write_text("mine")
    (out.parent / "keep.csv").write_text("mine")
    noted = json.loads((out / "sections.json").read_text(encoding="utf-8"))
    (out / "sections.json").write_text(json.dumps({**noted, "../keep": {}}))
    makers(made("after"))
    write_report(run, out)
    assert sorted(file.name for file in out.glob("*.csv")) == [
        "after.csv",
        "mine.csv",
        "sub.csv",
        "table.csv",
    ]
    makers()
    assert {*write_report(run, out).files} | {out / "mine.csv", out / "sub.csv"} == {
        file for file in out.rglob("*") if file.is_file()
    }
    assert (out.parent / "keep.csv").exists()


def test_without_sections_nothing_changes(run: Run, written: Report) -> None:
    tables = written.tables
    assert markdown.to_markdown(tables) == markdown.to_markdown(tables, [])
    assert "Title of" not in markdown.to_markdown(tables) + latex.to_latex(tables)


@pytest.mark.parametrize("file", ["", "table"])
def test_a_frame_needs_a_file_of_its_own(file: str) -> None:
    with pytest.raises(ValueError, match="CSV file"):
        Section("a", "A", "", (), FRAME, file)
