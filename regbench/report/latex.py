r"""Tables as LaTeX with booktabs. The file compiles alone, and can be ``\input`` into a paper as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from regbench.report.section import Grid, Section
from regbench.report.table import Cell, Group, Table

_HEAD = r"""% Written by regbench. Compiles alone; to \input it, load booktabs and graphicx.
\let\regbenchend\relax
\expandafter\ifx\csname documentclass\expandafter\endcsname\csname @twoclasseserror\endcsname\else
  \documentclass{article}
  \usepackage{booktabs,graphicx}
  \usepackage[margin=2cm]{geometry}
  \begin{document}
  \def\regbenchend{\end{document}}
\fi
"""
_TAIL = r"""\regbenchend
"""
LONGEST_LINE = 28
"""Characters of a cell above which it is broken into lines."""
_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",  # after the end of a row it would begin an optional argument, and
    "*": "{*}",  # this would be the starred form
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "\u2019": "'",
    "…": r"\dots{}",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "\u0131": r"\i{}",
    "\u00b5": r"$\mu$",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}
_GREEK_NAME = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)")
_LATIN_CAPITALS = {"ETA": "H", "RHO": "P", "CHI": "X"}
"""Greek capitals without a command of their own look like Latin letters; mostly the first of their name."""
_OWN_CAPITALS = {"GAMMA", "DELTA", "THETA", "LAMDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"}


def to_latex(tables: Iterable[Table], sections: Sequence[Section] = ()) -> str:
    """One floating table per data set and group of columns, and per grid of a section; all text is escaped.

    Leading sections come before the tables, the others after them.
    """
    floats = (
        *(text for section in sections if section.lead for text in _section(section)),
        *(_group(table, group, place) for place, table in enumerate(tables, 1) for group in table.groups),
        *(text for section in sections if not section.lead for text in _section(section)),
    )
    return _HEAD + "\n".join(floats) + _TAIL


def escape(text: str) -> str:
    r"""``text`` such that LaTeX prints it; a character that pdfLaTeX cannot print becomes ``U+4E2D``."""
    line = " ".join(text.split())
    return "".join(_character(character) for character in line).replace("--", "-{}-")


def _character(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if character.isascii():
        return character if character.isprintable() else ""
    if greek := _greek(character):
        return greek
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


def _greek(character: str) -> str | None:
    """A letter from alpha to omega; ``None`` for any other, and for omicron, which LaTeX lacks."""
    found = _GREEK_NAME.fullmatch(unicodedata.name(character, ""))
    if found is None or not "\u0391" <= character <= "\u03c9" or found[2] == "OMICRON":
        return None
    if found[1] == "CAPITAL" and found[2] not in _OWN_CAPITALS:
        return _LATIN_CAPITALS.get(found[2], found[2][0])
    name = found[2].replace("LAMDA", "LAMBDA")
    return rf"$\{name.lower() if found[1] == 'SMALL' else name.capitalize()}$"


def _section(section: Section) -> Iterator[str]:
    """One float per grid; the section's text stands below the first."""
    for place, grid in enumerate(section.grids, 1):
        texts = (*((section.text,) if place == 1 else ()), *grid.notes)
        yield _float(
            f"{section.title}: {grid.caption}",
            f"{section.id}-{place}",
            _grid(grid),
            [rf"\noindent {escape(text)}\par" for text in texts],
        )


def _group(table: Table, group: Group, place: int) -> str:
    part = table.pick(group)
    return _float(
        f"{table.dataset}: {table.heading(group)}",
        f"{place}-{group}",
        _tabular(part),
        [rf"\noindent {_superscript(note.mark)} {escape(note.text)}\par" for note in part.notes],
    )


def _float(caption: str, label: str, tabular: Iterable[str], notes: Iterable[str]) -> str:
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:regbench-{label}}}",
            r"\par\smallskip",
            r"\sbox0{%",
            *tabular,
            "}%",
            # Only a table that is wider than the text is shrunk.
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *notes,
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _grid(grid: Grid) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in grid.numeric)}}}"
    yield r"\toprule"
    yield " & ".join(escape(column) for column in grid.columns) + r" \\"
    yield r"\midrule"
    for row in grid.rows:
        yield " & ".join(_wrapped(cell) for cell in row) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}%"


def _wrapped(cell: Cell) -> str:
    """The cell; a sentence is broken into lines, or it would make the table far too wide."""
    text = _cell(cell)
    if len(cell.text) <= LONGEST_LINE:
        return text
    return rf"\parbox[t]{{{LONGEST_LINE / 2:g}em}}{{\raggedright {text}\strut}}"


def _tabular(part: Table) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{l{'r' * (len(part.columns) - 1)}}}"
    yield r"\toprule"
    yield " & ".join(escape(column.label) for column in part.columns) + r" \\"
    yield r"\midrule"
    trained = True
    for row in part.rows:
        if trained and not row.code:
            yield r"\midrule"
        trained = bool(row.code)
        yield " & ".join(_cell(cell) for cell in row.cells) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}%"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return (rf"\textbf{{{text}}}" if cell.bold else text) + _superscript(*cell.marks)


def _superscript(*marks: str) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if any(marks) else ""
