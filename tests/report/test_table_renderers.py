"""The same table as Markdown, LaTeX and in the terminal; names come from strangers and are shown as they are."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from regbench.report import latex, markdown
from regbench.report.table import Table
from regbench.report.tables import build_tables
from regbench.report.terminal import print_tables, printable
from regbench.store.records import Run
from tests.report.synthetic import make_run

NASTY = r"""[red]*x* _y_ `z` | <script>alert(1)</script> & 50% $a^2$ #1 {b} \cmd~ "q" --- [a](http://b) !é"""
GREEK = "β-VAE Δ Ω \u0391 ω 中 µ — 1 ± 2"
METHODS = ["AE", NASTY, GREEK, "ProtoVAE K=3", "*star", "[bracket", "1. first", "+ plus"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "demo"
    status = {(NASTY, "# d_1", 0): "failed", ("1. first", "# d_1", 1): "diverged"}
    return make_run(path, METHODS, ["# d_1"], 2, status=status)


@pytest.fixture(scope="module")
def table(run: Run) -> Table:
    return build_tables(run)[0]


# --- Markdown ----------------------------------------------------------------------------------------------


def rendered_tables(text: str) -> list[list[list[str]]]:
    """Each table's rows of cell texts, as a Markdown renderer shows them; raw HTML stays as ``<...>``."""
    tables: list[list[list[str]]] = []
    tokens = iter(MarkdownIt("commonmark").enable("table").parse(text))
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            children = next(tokens).children or []
            kinds = {child.type for child in children}
            assert kinds <= {"text", "text_special", "strong_open", "strong_close", "html_inline"}, kinds
            html = {child.content for child in children if child.type == "html_inline"}
            assert html <= {"<sup>", "</sup>"}, html
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def test_markdown_shows_every_cell_as_it_is(table: Table) -> None:
    found = rendered_tables(markdown.to_markdown([table]))
    assert len(found) == len(table.groups)
    for rows, group in zip(found, table.groups, strict=True):
        part = table.pick(group)
        assert rows[0] == [column.label for column in part.columns]
        for row, expected in zip(rows[1:], part.rows, strict=True):
            for shown, cell in zip(row, expected.cells, strict=True):
                marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
                assert shown == cell.text + marks


def test_markdown_notes_are_one_flat_list(table: Table) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown.to_markdown([table]))
    assert [token.type for token in tokens].count("bullet_list_open") == 1
    assert not any(token.type == "ordered_list_open" for token in tokens)
    assert sum(token.type == "list_item_open" for token in tokens) == len(table.notes)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[0] == r"\# d\_1"


@pytest.mark.parametrize("label", ["1. MSE", "2) MSE", "+ MSE", "- MSE", "= MSE", "> MSE"])
def test_a_label_cannot_begin_a_block_of_its_own(tmp_path: Path, label: str) -> None:
    run = make_run(tmp_path / "demo", ["AE"], seeds=1, metrics=["mse"])
    run.suite["metric_info"]["mse"]["label"] = label
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown.to_markdown(build_tables(run)))
    kinds = {"ordered_list_open", "blockquote_open", "bullet_list_open"}
    assert [token.type for token in tokens if token.type in kinds] == ["bullet_list_open"]
    texts = ["".join(c.content for c in token.children or []) for token in tokens if token.type == "inline"]
    assert any(text.startswith(f"{label} (lower is better)") for text in texts)


def test_bold_cells_are_strong(tmp_path: Path) -> None:
    (table,) = build_tables(make_run(tmp_path / "demo", ["AE", "VAE-KL"], seeds=3))
    assert f"**{table.rows[0].cells[2].text}**" in markdown.to_markdown([table])


# --- LaTeX -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a_b & c%", r"a\_b \& c\%"),
        ("β", r"$\beta$"),
        ("Δ", r"$\Delta$"),
        ("\u0391\u03a1\u0397", "APH"),  # capital alpha, rho and eta
        ("λ", r"$\lambda$"),
        ("é", r"\'{e}"),
        ("中", r"\texttt{U+4E2D}"),
        ("1 ± 2", r"1 $\pm$ 2"),
        ("−0.5", r"$-$0.5"),
        ("two\nlines\x1b[0m", r"two lines{[}0m"),
        ("--option", r"-{}-option"),
        ("*star", "{*}star"),  # the row's end before it would swallow a bare star
    ],
)
def test_latex_escape(text: str, expected: str) -> None:
    assert latex.escape(text) == expected


def compile_latex(directory: Path, name: str) -> str:
    """Run pdfLaTeX twice and return its log; fails on any error."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base)")
    for _ in range(2):
        done = subprocess.run(
            [program, "-interaction=nonstopmode", "-halt-on-error", name],
            cwd=directory,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    return (directory / Path(name).with_suffix(".log")).read_text(errors="replace")


def test_latex_compiles_by_itself(table: Table, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(latex.to_latex([table]), encoding="utf-8")
    log = compile_latex(tmp_path, "table.tex")
    assert "Output written on table.pdf" in log
    assert "Overfull" not in log
    assert "incomplete" not in log


def test_latex_can_be_input_into_a_paper(table: Table, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(latex.to_latex([table]), encoding="utf-8")
    paper = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs,graphicx}
\begin{document}
Before.
\input{table.tex}
After, and Table~\ref{tab:regbench-1-metric}.
\end{document}
"""
    (tmp_path / "paper.tex").write_text(paper, encoding="utf-8")
    log = compile_latex(tmp_path, "paper.tex")
    assert "Output written on paper.pdf" in log
    assert "undefined" not in log


def test_latex_has_a_float_for_each_group(table: Table) -> None:
    text = latex.to_latex([table])
    assert text.count(r"\begin{table}") == len(table.groups)
    assert text.count(r"\toprule") == len(table.groups)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == sum(1 + len(table.pick(group).rows) for group in table.groups)


# --- terminal ----------------------------------------------------------------------------------------------


def printed(table: Table, width: int, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    print_tables([table], console, **options)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_markup_in_names_as_text(table: Table) -> None:
    text = printed(table, 400)
    assert NASTY in text
    assert GREEK in text


@pytest.mark.parametrize("width", [80, 110, 400])
def test_no_value_is_cut_off_in_a_narrow_terminal(table: Table, width: int) -> None:
    text = printed(table, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if column.key != "method":
                assert cell.text in text


def test_only_the_groups_that_were_asked_for(table: Table) -> None:
    text = printed(table, 200, groups=("cost",))
    assert "Cost" in text
    assert "Reconstruction" not in text
    assert "SSIM" not in text


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER} c"
