r"""Tables as LaTeX with booktabs. The file compiles alone, and can be ``\input`` into a paper as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

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


def to_latex(tables: Iterable[Table]) -> str:
    """One floating table per data set and group of columns; method and label texts are escaped."""
    floats = (_float(table, group, place) for place, table in enumerate(tables, 1) for group in table.groups)
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


def _float(table: Table, group: Group, place: int) -> str:
    part = table.pick(group)
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{escape(table.dataset)}: {escape(table.heading(group))}}}",
            rf"\label{{tab:regbench-{place}-{group}}}",
            r"\par\smallskip",
            r"\sbox0{%",
            *_tabular(part),
            "}%",
            # Only a table that is wider than the text is shrunk.
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(rf"\noindent {_superscript(note.mark)} {escape(note.text)}\par" for note in part.notes),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


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
