"""A report: tables, figures and one HTML file, all made from a run directory."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regbench.errors import RegbenchError, UsageError
from regbench.report.draw import NAME, FigureFailure, FigureJob, Picture, Progress, writing
from regbench.store.files import write_bytes
from regbench.store.records import FAILED, Run

if TYPE_CHECKING:
    from regbench.report.claims import JudgedClaim
    from regbench.report.section import Section
    from regbench.report.tables import Table

REPORTS = Path("reports")
CAPTIONS = "captions.json"
SECTIONS = "sections.json"


class FiguresFailed(RegbenchError):
    """The report has been written, without some of its figures; ends with the first one's exit code."""

    def __init__(self, failures: Sequence[FigureFailure]) -> None:
        reasons = "".join(f"\n  {failure.reason}" for failure in failures)
        super().__init__(f"figures are missing from the report:{reasons}", hint=failures[0].hint or None)
        self.exit_code = failures[0].exit_code


@dataclass(frozen=True)
class Report:
    """What was written, and what could not be."""

    directory: Path
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    failures: tuple[FigureFailure, ...]
    sections: tuple[Section, ...] = ()
    claims: tuple[JudgedClaim, ...] = ()

    @property
    def html(self) -> Path:
        return self.directory / "report.html"

    @property
    def texts(self) -> tuple[Path, ...]:
        """The table as CSV, Markdown and LaTeX."""
        return tuple(self.directory / f"table.{ending}" for ending in ("csv", "md", "tex"))

    @property
    def numbers(self) -> tuple[Path, ...]:
        """The CSV files of the sections."""
        return tuple(self.directory / _csv(section) for section in self.sections if section.frame is not None)

    @property
    def figures(self) -> Path:
        """The directory with the pictures and their captions."""
        return self.directory / "figures"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the report."""
        pictures = [file for picture in self.pictures for file in (picture.png, picture.pdf, picture.svg)]
        noted = (*self.numbers, self.directory / SECTIONS) if self.numbers else ()
        return (*self.texts, *noted, self.html, *pictures, self.figures / CAPTIONS)


def write_report(
    run: Run,
    out: Path | None = None,
    *,
    plugins: Sequence[Path | str] = (),
    progress: Progress = lambda _: None,
    processes: int = 1,
) -> Report:
    """Write ``table.csv``, ``table.md``, ``table.tex``, ``report.html`` and ``figures/`` for a run.

    Sections of the report have CSV files of their own (``claims.csv``, ...), listed in ``sections.json``.
    Unfinished runs get a report of what is there, in which the rest is named. Figures that cannot be drawn
    are named in the report and in ``Report.failures``, and do not raise.

    Args:
        out: the directory to write to, by default ``reports/<suite>``.
        plugins: Python files with figures of your own, beside the installed plugins.
        progress: told in words what is being done.
        processes: how many draw figures side by side; more than one needs a main module that can be imported
            again, like every use of ``multiprocessing``.

    Raises ``UsageError`` where no cell is finished, ``StoreError`` where files cannot be read or written.
    """
    _refuse_empty(run)
    directory = REPORTS / run.suite["name"] if out is None else out
    figures = directory / "figures"
    with writing(figures):
        figures.mkdir(parents=True, exist_ok=True)
    with FigureJob(run, figures, plugins=plugins, progress=progress, processes=processes) as job:
        # Imported while the others draw: that takes a second.
        from regbench.report.claims import judge_claims
        from regbench.report.html import render
        from regbench.report.latex import to_latex
        from regbench.report.markdown import to_markdown
        from regbench.report.sections import build_sections
        from regbench.report.summary import summarise, tidy
        from regbench.report.tables import tables_of

        progress("computing tables")
        summaries, claims = summarise(run), judge_claims(run)
        tables, sections = tables_of(summaries), build_sections(run, claims)
        texts = {
            "table.csv": tidy(summaries).to_csv(index=False),
            "table.md": to_markdown(tables, sections),
            "table.tex": to_latex(tables, sections),
        }
        pictures, failures = job.finish()
    _replace_captions(figures, pictures)
    progress("writing the report")
    command = _command(run, out, plugins)
    texts["report.html"] = render(run, tables, pictures, failures, command=command, sections=sections)
    _replace_numbers(directory, sections)
    for name, content in texts.items():
        with writing(directory / name):
            write_bytes(directory / name, content.encode())
    return Report(directory, tuple(tables), tuple(pictures), tuple(failures), tuple(sections), tuple(claims))


def _refuse_empty(run: Run) -> None:
    if any(cell.status == "done" for cell in run.cells):
        return
    failed = next((cell for cell in run.cells if cell.status in FAILED), None)
    example = f" ({failed.method}, seed {failed.seed}: {failed.outcome.get('reason', '')})" if failed else ""
    raise UsageError(
        f"nothing to report: none of the {len(run.cells)} cells of {run.path} is finished{example}",
        hint=f"run the suite: regbench run {run.suite.get('file', 'SUITE')}",
    )


def _command(run: Run, out: Path | None, plugins: Iterable[Path | str]) -> str:
    """How to make this report again."""
    words = ["regbench", "report", str(run.path)]
    if out is not None:
        words += ["--out", str(out)]
    for plugin in plugins:
        words += ["--plugin", str(plugin)]
    return shlex.join(words)


def _replace_captions(figures: Path, pictures: Sequence[Picture]) -> None:
    """Note what was drawn, and take away what an earlier report drew and this one did not."""
    file = figures / CAPTIONS
    for name in _noted(file) - {picture.name for picture in pictures}:
        for ending in ("png", "pdf", "svg"):
            (figures / f"{name}.{ending}").unlink(missing_ok=True)
    notes = {picture.name: {"kind": picture.kind, "caption": picture.caption} for picture in pictures}
    write_bytes(file, _as_json(notes))


def _replace_numbers(directory: Path, sections: Sequence[Section]) -> None:
    """Write the CSV files of the sections, and take away those of an earlier report that this one lacks."""
    files = {section.file: section for section in sections if section.frame is not None}
    with writing(directory):
        for name in _noted(directory / SECTIONS) - files.keys():
            (directory / f"{name}.csv").unlink(missing_ok=True)
        for section in files.values():
            assert section.frame is not None
            write_bytes(directory / _csv(section), section.frame.to_csv(index=False).encode())
        if not files:
            (directory / SECTIONS).unlink(missing_ok=True)
            return
        notes = {name: {"title": section.title} for name, section in files.items()}
        write_bytes(directory / SECTIONS, _as_json(notes))


def _csv(section: Section) -> str:
    return f"{section.file}.csv"


def _as_json(notes: object) -> bytes:
    return (json.dumps(notes, indent=1, ensure_ascii=False) + "\n").encode()


def _noted(file: Path) -> set[str]:
    """Names of the files that an earlier report noted; none where the note is not ours."""
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in names if NAME.fullmatch(name)} if isinstance(names, dict) else set()
